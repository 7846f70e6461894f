//! A queue that closes with the last of its senders or receivers.

use super::{LONG, SOON};
use common::process::{self, Process};
use common::queue::{GetError, PutReason, Queue, Receiver, Sender};
use testkit::isolated;

#[test]
fn the_last_sender_and_the_last_receiver_close() {
    isolated(|| {
        let (sender, receiver) = Queue::new().unwrap().split();
        assert!(sender.is_empty() && receiver.is_empty());
        sender.put(9).unwrap();
        assert_eq!((sender.len(), receiver.len()), (1, 1));
        let produce = |sender: Sender<u32>| (0..3).for_each(|n| sender.put(n).unwrap());
        let producers: Vec<Process<()>> = (0..2)
            .map(|_| Process::spawn(produce, (sender.clone(),)).unwrap())
            .collect();
        drop(sender);
        assert_eq!(receiver.iter().map(Result::unwrap).count(), 7);
        producers.iter().for_each(|one| one.join().unwrap());

        let (sender, receiver) = Queue::bounded(1).unwrap().split();
        let consume = |receiver: Receiver<u32>| receiver.get().unwrap();
        let consumer = Process::spawn(consume, (receiver,)).unwrap();
        sender.put(1).unwrap();
        assert_eq!(consumer.join().unwrap(), 1);
        let error = (0..).find_map(|n| sender.put(n).err()).unwrap();
        assert_eq!(error.reason, PutReason::Closed);
    });
}

#[test]
fn a_killed_sender_closes_too() {
    isolated(|| {
        let (sender, receiver) = Queue::new().unwrap().split();
        fn sleeper(sender: Sender<u32>) {
            sender.put(1).unwrap();
            std::thread::sleep(LONG);
        }
        let child: Process<()> = Process::spawn(sleeper, (sender,)).unwrap();
        assert_eq!(receiver.get(), Ok(1));
        child.kill().unwrap();
        assert_eq!(receiver.get_timeout(LONG), Err(GetError::Closed));
        assert!(child.join().is_err());
    });
}

/// On one core nobody spins, and each piece takes its sleep.
#[test]
fn a_sender_has_all_the_time_that_a_long_message_takes() {
    isolated(|| {
        use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
        use nix::unistd::Pid;
        let (this, mut one) = (Pid::from_raw(0), CpuSet::new());
        let all = sched_getaffinity(this).unwrap();
        let first = (0..CpuSet::count()).find(|core| all.is_set(*core).unwrap());
        one.set(first.unwrap()).unwrap();
        sched_setaffinity(this, &one).unwrap();

        let queue = Queue::builder().capacity(256).build().unwrap();
        let (sender, receiver) = queue.split();
        let send = |sender: Sender<String>| sender.put("x".repeat(6_000_000)).unwrap();
        let child: Process<()> = Process::spawn(send, (sender,)).unwrap();
        assert_eq!(receiver.get().unwrap().len(), 6_000_000);
        child.join().unwrap();
    });
}

#[test]
fn a_long_message_to_a_killed_receiver_comes_back() {
    isolated(|| {
        fn sleeper(_receiver: Receiver<String>, ready: Queue<()>) {
            ready.put(()).unwrap();
            std::thread::sleep(LONG);
        }
        let queue = Queue::builder().capacity(256).build().unwrap();
        let (sender, receiver) = queue.clone().split();
        let ready = Queue::new().unwrap();
        let child: Process<()> = Process::spawn(sleeper, (receiver, ready.clone())).unwrap();
        ready.get_timeout(LONG).unwrap();
        std::thread::scope(|scope| {
            let put = scope.spawn(|| sender.put("x".repeat(10_000)));
            while queue.stats().bytes == 0 {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            let error = put.join().unwrap().unwrap_err();
            assert_eq!(
                (error.value.len(), error.reason),
                (10_000, PutReason::Closed)
            );
        });
        assert!(child.join().is_err());
    });
}

#[test]
fn a_forked_sender_counts_from_its_first_use_to_its_end() {
    isolated(|| {
        let (sender, receiver) = Queue::new().unwrap().split();
        let go = Queue::new().unwrap();
        let (theirs, told) = (sender.clone(), go.clone());
        let child = process::fork(move || {
            theirs.put(1).unwrap();
            told.get().unwrap();
            theirs.put(2).unwrap();
        })
        .unwrap();
        assert_eq!(receiver.get_timeout(LONG), Ok(1));
        drop(sender);
        go.put(()).unwrap();
        assert_eq!(receiver.get_timeout(LONG), Ok(2));
        assert_eq!(receiver.get_timeout(LONG), Err(GetError::Closed));
        child.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_in_a_future_counts_once() {
    isolated(|| {
        use futures::FutureExt;
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        let carrier = Queue::bounded(1).unwrap();
        carrier.put(sender.clone()).unwrap();
        let mut put = carrier.put_async(sender);
        for _ in 0..3 {
            assert!((&mut put).now_or_never().is_none());
        }
        drop(carrier.get().unwrap());
        put.now_or_never().unwrap().unwrap();
        drop(carrier.get().unwrap());
        assert_eq!(receiver.get_timeout(LONG), Err(GetError::Closed));
    });
}

#[test]
fn a_sender_that_was_not_sent_does_not_count() {
    isolated(|| {
        use futures::FutureExt;
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        let one = |sender: &Sender<u32>| (sender.clone(), String::new());
        let carrier = Queue::builder().items(1).capacity(256).build().unwrap();
        carrier.put(one(&sender)).unwrap();
        // Full; the second of several; longer than the queue; and closed.
        drop(carrier.try_put(one(&sender)).unwrap_err());
        assert!(carrier.put_async(one(&sender)).now_or_never().is_none());
        drop(carrier.get().unwrap());
        let several = [one(&sender), one(&sender)];
        let error = carrier.put_many_timeout(several, SOON / 10).unwrap_err();
        assert_eq!(error.put, 1);
        drop(error);
        drop(carrier.get().unwrap());
        let long = (sender.clone(), "x".repeat(1000));
        assert!(carrier.put_async(long).now_or_never().is_none());
        let long = (sender.clone(), "x".repeat(1000));
        drop(carrier.put_timeout(long, SOON / 10).unwrap_err());
        carrier.close();
        drop(carrier.put(one(&sender)).unwrap_err());
        drop(sender);
        assert_eq!(receiver.get_timeout(LONG), Err(GetError::Closed));
    });
}

#[test]
fn a_sender_that_a_future_gave_back_does_not_count() {
    isolated(|| {
        use futures::FutureExt;
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        let carrier = Queue::bounded(1).unwrap();
        carrier.put(None).unwrap();
        let mut put = carrier.put_async(Some(sender));
        assert!((&mut put).now_or_never().is_none());
        carrier.close();
        drop((&mut put).now_or_never().unwrap().unwrap_err());
        assert_eq!(receiver.get_timeout(LONG), Err(GetError::Closed));
        drop(put);
    });
}
