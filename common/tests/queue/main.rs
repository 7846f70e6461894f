//! What a queue promises while nobody dies; `split`, `future` and `joinable` after the library's
//! modules, and what does not arrive.

mod future;
mod joinable;
mod split;
mod undelivered;

use common::codec;
use common::deadline::Deadline;
use common::process::Process;
use common::queue::{GetError, JoinableQueue, PutReason, Queue, TooManyDone};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use testkit::isolated;

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn it_is_empty_then_full_then_empty() {
    // A `try_put` has no timeout that could be ignored.
    isolated(|| {
        let queue = Queue::bounded(6).unwrap();
        assert!(queue.is_empty() && !queue.is_full());
        queue.put(0).unwrap();
        queue.try_put(1).unwrap();
        queue.put_timeout(2, SOON).unwrap();
        queue.put_until(3, Deadline::Never).unwrap();
        queue.put_many([4, 5]).unwrap();
        assert!(queue.is_full() && !queue.is_empty());

        let error = queue.try_put(6).unwrap_err();
        assert_eq!((error.value, error.reason), (6, PutReason::Full));
        let start = Instant::now();
        let error = queue.put_timeout(7, SOON).unwrap_err();
        assert_eq!((error.value, error.reason), (7, PutReason::Full));
        assert!(start.elapsed() >= SOON);

        let all =
            |queue: Queue<usize>| -> Vec<usize> { (0..6).map(|_| queue.get().unwrap()).collect() };
        let got = Process::spawn(all, (queue.clone(),)).unwrap();
        assert_eq!(got.join().unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(queue.is_empty() && !queue.is_full());
    });
}

#[test]
fn it_knows_how_many_wait() {
    //
    let queue = Queue::new().unwrap();
    assert_eq!(queue.len(), 0);
    for len in [1, 2] {
        queue.put(len).unwrap();
        assert_eq!(queue.len(), len);
    }
    for len in [1, 0] {
        queue.get().unwrap();
        assert_eq!(queue.len(), len);
    }
}

#[test]
fn gets_wait_as_long_as_they_say() {
    // A `try_get` has no timeout that could be ignored.
    isolated(|| {
        let queue = Queue::new().unwrap();
        queue.put_many(1..=5).unwrap();
        assert_eq!(queue.get(), Ok(1));
        assert_eq!(queue.try_get(), Ok(2));
        assert_eq!(queue.get_timeout(SOON), Ok(3));
        assert_eq!(queue.get_timeout(Duration::ZERO), Ok(4));
        assert_eq!(queue.get_many(10), Ok(vec![5]));
        assert_eq!(queue.try_get(), Err(GetError::Empty));
        let start = Instant::now();
        assert_eq!(queue.get_timeout(SOON * 2), Err(GetError::Empty));
        assert!(start.elapsed() >= SOON * 2);
        let start = Instant::now();
        let error = queue.get_many_timeout(3, SOON).unwrap_err();
        assert_eq!((error.got, error.reason), (vec![], GetError::Empty));
        assert!(start.elapsed() >= SOON);
    });
}

#[test]
fn a_waiting_get_is_woken_by_a_put_and_a_waiting_put_by_a_get() {
    isolated(|| {
        let (questions, answers) = (Queue::bounded(1).unwrap(), Queue::bounded(1).unwrap());
        fn echo(questions: Queue<u32>, answers: Queue<u32>) {
            for question in questions.iter() {
                answers.put(question.unwrap() + 1).unwrap();
            }
        }
        let child: Process<()> =
            Process::spawn(echo, (questions.clone(), answers.clone())).unwrap();
        for number in 0..2000 {
            questions.put(number).unwrap();
            if number % 500 == 0 {
                // Long enough that both sleep.
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(answers.get_timeout(LONG), Ok(number + 1));
        }
        questions.close();
        child.join().unwrap();
    });
}

#[test]
fn a_childs_messages_come_behind_those_that_were_there() {
    //
    isolated(|| {
        let child = |queue: Queue<u32>, from: u32| queue.put_many(from..20).unwrap();
        for from in [0, 10] {
            let queue = Queue::new().unwrap();
            queue.put_many(0..from).unwrap();
            assert_eq!(queue.is_empty(), from == 0);
            let child: Process<()> = Process::spawn(child, (queue.clone(), from)).unwrap();
            child.join().unwrap();
            for number in 0..20 {
                assert!(!queue.is_empty());
                assert_eq!(queue.try_get(), Ok(number));
            }
            assert!(queue.is_empty());
            assert_eq!(queue.try_get(), Err(GetError::Empty));
        }
    });
}

#[test]
fn each_producers_messages_come_in_its_order() {
    //
    isolated(|| {
        fn producer(queue: Queue<(u32, u32)>, me: u32) {
            for number in 0..2000 {
                queue.put((me, number)).unwrap();
            }
        }
        let queue = Queue::new().unwrap();
        let producers: Vec<Process<()>> = (0..3)
            .map(|me| Process::spawn(producer, (queue.clone(), me)).unwrap())
            .collect();
        let mut next = [0; 3];
        for _ in 0..6000 {
            let (who, number) = queue.get_timeout(LONG).unwrap();
            assert_eq!(number, next[who as usize]);
            next[who as usize] += 1;
        }
        assert_eq!(queue.try_get(), Err(GetError::Empty));
        producers.iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn an_unserialisable_value_comes_back_and_takes_no_room() {
    //
    #[derive(Deserialize)]
    struct Odd(u8);
    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                13 => Err(serde::ser::Error::custom("unlucky")),
                number => serializer.serialize_u8(number),
            }
        }
    }
    let queue = Queue::bounded(1).unwrap();
    let error = queue.put(Odd(13)).unwrap_err();
    assert_eq!(error.value.0, 13);
    assert!(matches!(&error.reason, PutReason::Encode(_)), "{error}");
    assert!(error.to_string().contains("unlucky"), "{error}");
    assert_eq!(queue.len(), 0);
    queue.put(Odd(7)).unwrap();
    assert_eq!(queue.get().unwrap().0, 7);
    assert!(queue.is_empty());

    let queue = Queue::new().unwrap();
    let error = queue.put_many([Odd(1), Odd(13), Odd(2)]).unwrap_err();
    assert_eq!((error.put, error.rest.len(), error.rest[0].0), (1, 2, 13));
    assert_eq!(queue.get().unwrap().0, 1);
}

#[test]
fn a_closed_queue_drains_and_then_ends() {
    // here `is_empty` is no error; no thread has to be joined.
    isolated(|| {
        let unused = Queue::<u8>::new().unwrap();
        unused.close();
        assert!(unused.is_empty());
        assert_eq!(unused.get(), Err(GetError::Closed));

        let queue = Queue::new().unwrap();
        queue.put_many([1, 2, 3]).unwrap();
        let close = |queue: Queue<i32>| queue.close();
        Process::<()>::spawn(close, (queue.clone(),))
            .unwrap()
            .join()
            .unwrap();
        queue.close();
        assert!(queue.is_closed() && !queue.is_empty());
        let error = queue.put(4).unwrap_err();
        assert_eq!((error.value, error.reason), (4, PutReason::Closed));
        let error = queue.put_many([5, 6]).unwrap_err();
        assert_eq!((error.put, error.rest), (0, vec![5, 6]));
        assert_eq!(queue.get(), Ok(1));
        let rest: Result<Vec<_>, _> = queue.iter().collect();
        assert_eq!(rest, Ok(vec![2, 3]));
        assert_eq!(queue.get(), Err(GetError::Closed));
        assert_eq!(queue.try_get(), Err(GetError::Closed));
        assert!(queue.is_empty());
    });
}

#[test]
fn closing_wakes_everybody() {
    isolated(|| {
        let (empty, full) = (Queue::<u32>::new().unwrap(), Queue::bounded(1).unwrap());
        full.put(1).unwrap();
        let getter = |queue: Queue<u32>| queue.get().is_err();
        let putter = |queue: Queue<u32>| queue.put(2).is_err();
        let waiting = [
            Process::spawn(getter, (empty.clone(),)).unwrap(),
            Process::spawn(getter, (empty.clone(),)).unwrap(),
            Process::spawn(putter, (full.clone(),)).unwrap(),
            Process::spawn(putter, (full.clone(),)).unwrap(),
        ];
        std::thread::sleep(SOON); // Most likely they sleep now; it is right if not.
        empty.close();
        full.close();
        assert!(waiting.iter().all(|process| process.join().unwrap()));
    });
}

#[test]
fn messages_of_all_sizes_go_through_a_small_queue() {
    isolated(|| {
        fn sender(queue: Queue<Vec<u16>>) {
            for size in [0, 1, 100, 30_000, 2, 1_000_000, 0, 32_000, 33_000] {
                queue.put(vec![size as u16; size]).unwrap();
            }
        }
        let queue = Queue::builder().capacity(1 << 16).build().unwrap();
        let sender: Process<()> = Process::spawn(sender, (queue.clone(),)).unwrap();
        for size in [0, 1, 100, 30_000, 2, 1_000_000, 0, 32_000, 33_000] {
            assert_eq!(queue.get_timeout(LONG), Ok(vec![size as u16; size]));
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_producer_may_end_before_anybody_reads() {
    // What is put is in the queue, so that there is nothing to be
    // flushed, and nothing to be given up.
    isolated(|| {
        let queue = Queue::new().unwrap();
        let sender = |queue: Queue<String>, len: usize| queue.put("x".repeat(len)).unwrap();
        for len in [6, 100_000, 1_000_000] {
            let sender: Process<()> = Process::spawn(sender, (queue.clone(), len)).unwrap();
            sender.join().unwrap();
        }
        for len in [6, 100_000, 1_000_000] {
            assert_eq!(queue.try_get().unwrap().len(), len);
        }
    });
}

#[test]
fn one_bad_message_takes_no_good_ones_with_it() {
    #[derive(Debug, PartialEq, Serialize)]
    struct Even(u8);
    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match u8::deserialize(from)? {
                odd if odd % 2 == 1 => Err(serde::de::Error::custom("odd")),
                even => Ok(Even(even)),
            }
        }
    }
    let queue = Queue::new().unwrap();
    let put = || queue.put_many([0, 1, 2, 3, 4].map(Even)).unwrap();
    put();
    let error = queue.get_many(10).unwrap_err();
    assert_eq!(error.got, [0, 2, 4].map(Even));
    assert!(matches!(error.reason, GetError::Decode(_)));
    put();
    queue.close();
    assert_eq!(queue.iter().filter_map(Result::ok).count(), 3);
}

#[test]
fn a_bound_of_nothing_is_none() {
    // Q-027; there are no negative ones.
    let queue = Queue::bounded(0).unwrap();
    for number in 0..1000 {
        queue.try_put(number).unwrap();
    }
    assert!(!queue.is_full());
    assert_eq!(queue.get_many(2000).unwrap().len(), 1000);
}

#[test]
fn a_queue_travels_inside_anything() {
    isolated(|| {
        #[derive(Serialize, Deserialize)]
        struct Job {
            number: u32,
            reply: Queue<u32>,
        }
        fn server(jobs: Queue<Job>) {
            for job in jobs.iter() {
                let job = job.unwrap();
                job.reply.put(job.number * 2).unwrap();
            }
        }
        fn grandparent(jobs: Queue<Job>) {
            Process::<()>::spawn(server, (jobs,))
                .unwrap()
                .join()
                .unwrap();
        }
        let jobs = Queue::new().unwrap();
        let server: Process<()> = Process::spawn(grandparent, (jobs.clone(),)).unwrap();
        for number in 0..10 {
            let reply = Queue::new().unwrap();
            let job = Job {
                number,
                reply: reply.clone(),
            };
            jobs.put(job).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reply.get_timeout(LONG), Ok(number * 2));
        }
        jobs.close();
        server.join().unwrap();
    });
}

#[test]
fn the_only_handle_may_be_given_away() {
    isolated(|| {
        let queue = Queue::new().unwrap();
        queue.put(5).unwrap();
        let child = Process::spawn(|queue: Queue<i32>| queue.get().unwrap(), (queue,)).unwrap();
        assert_eq!(child.join().unwrap(), 5);
        // The memory goes with the next queue that is made, or at the end, or now.
        common::shm::sweep();
    });
}

#[test]
fn another_type_is_an_error_that_names_both() {
    let queue = Queue::<String>::new().unwrap();
    let sent = codec::encode(&queue).unwrap();
    let error = codec::decode::<Queue<(u8, f64)>>(&sent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("String") && error.contains("(u8, f64)"),
        "{error}"
    );
    assert!(codec::decode::<Queue<String>>(&sent).is_ok());
}

#[test]
fn a_joinable_queue_waits_for_its_workers() {
    //
    isolated(|| {
        fn worker(tasks: JoinableQueue<Option<u32>>, done: Queue<u32>) {
            while let Some(task) = tasks.get().unwrap() {
                std::thread::sleep(Duration::from_millis(2));
                done.put(task).unwrap();
                tasks.task_done().unwrap();
            }
            tasks.task_done().unwrap();
        }
        let (tasks, done) = (JoinableQueue::new().unwrap(), Queue::new().unwrap());
        assert_eq!(tasks.join_timeout(SOON), Some(0));
        let workers: Vec<Process<()>> = (0..4)
            .map(|_| Process::spawn(worker, (tasks.clone(), done.clone())).unwrap())
            .collect();
        for task in 0..10 {
            tasks.put(Some(task)).unwrap();
        }
        assert_eq!(tasks.join(), 0);
        assert_eq!(done.len(), 10);
        for _ in 0..4 {
            tasks.put(None).unwrap();
        }
        workers.iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(tasks.task_done(), Err(TooManyDone));
        assert_eq!(format!("{TooManyDone:?}"), TooManyDone.to_string());
        tasks.put(Some(1)).unwrap();
        assert_eq!((tasks.unfinished(), tasks.join_timeout(SOON)), (1, None));
        let _ = tasks.get_guard().unwrap();
        assert_eq!(tasks.unfinished(), 0);
        assert_eq!(tasks.try_get_guard().unwrap_err(), GetError::Empty);
        let none = tasks.get_guard_timeout(SOON);
        assert_eq!(none.map(|_| ()), Err(GetError::Empty));
        tasks.put(Some(2)).unwrap();
        assert_eq!(*tasks.get_guard_timeout(SOON).unwrap(), Some(2));
        assert_eq!(tasks.unfinished(), 0);
    });
}

#[test]
fn statistics() {
    let queue = Queue::<[u8]>::new().unwrap();
    for _ in 0..10 {
        queue.put_bytes(&[0; 100]).unwrap();
    }
    let stats = queue.stats();
    assert_eq!((stats.messages, stats.bytes), (10, 10 * 112));
    let mut buffer = Vec::new();
    (0..10).for_each(|_| queue.get_into(&mut buffer).unwrap());
    let stats = queue.stats();
    assert_eq!(
        (stats.messages, stats.bytes, stats.high_water),
        (0, 0, 1120)
    );
    assert!(stats.capacity >= 1 << 16 && !stats.closed);
}
