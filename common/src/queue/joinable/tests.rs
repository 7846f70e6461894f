use super::*;

/// The stamp of a process that has ended: init has another start time.
const DEAD: u64 = u64::MAX << 22 | 1;

fn write(queue: &JoinableQueue<u32>, slot: usize, values: [u64; 3]) {
    for (word, value) in values.into_iter().enumerate() {
        queue.word(slot, word).store(value, SeqCst);
    }
}

/// How many are newly counted as lost.
fn buried(queue: &JoinableQueue<u32>) -> u64 {
    queue.bury();
    queue.lost().swap(0, SeqCst)
}

#[test]
fn a_process_with_two_slots_can_be_done_with_both() {
    let queue = JoinableQueue::<u32>::new().unwrap();
    let me = Owner::current().stamp();
    // Two threads got their first values together, and a third value came.
    write(&queue, 0, [me, 2, 1]);
    write(&queue, 1, [me, 1, 0]);
    assert_eq!([queue.task_done(), queue.task_done()], [Ok(()); 2]);
    assert_eq!(queue.task_done(), Err(TooManyDone));
    assert_eq!(queue.join_timeout(Duration::ZERO), Some(0));
}

#[test]
fn what_was_got_through_the_shared_slot_can_be_done_when_another_is_free() {
    let queue = JoinableQueue::<u32>::new().unwrap();
    for slot in 0..SLOTS - 1 {
        write(&queue, slot, [DEAD, 1, 0]);
    }
    queue.put(1).unwrap();
    queue.get().unwrap();
    assert_eq!(queue.in_hands(SLOTS - 1), 1);
    assert_eq!(buried(&queue), SLOTS as u64 - 1);
    assert_eq!(queue.task_done(), Ok(()));
    assert_eq!(queue.task_done(), Err(TooManyDone));
    assert_eq!(queue.join_timeout(Duration::ZERO), Some(0));
}

#[test]
fn what_the_dead_held_is_counted_once() {
    let queue = JoinableQueue::<u32>::new().unwrap();
    write(&queue, 3, [DEAD, 5, 2]);
    write(&queue, 4, [Owner::current().stamp(), 4, 0]);
    assert_eq!(queue.unfinished(), 7);
    assert_eq!((buried(&queue), buried(&queue)), (3, 0));
    assert_eq!(queue.unfinished(), 4);
}

#[test]
fn nobody_is_buried_while_another_may_be_putting_the_count_right() {
    let queue = JoinableQueue::<u32>::new().unwrap();
    write(&queue, 3, [DEAD, 1, 0]);
    queue.put(1).unwrap();
    let read = |_: &[u8]| std::thread::scope(|scope| scope.spawn(|| buried(&queue)).join());
    let meanwhile = queue.queue.ring().get_in_place(Deadline::Now, read);
    assert_eq!(meanwhile.unwrap().unwrap(), 0);
    assert_eq!(buried(&queue), 1);
}

#[test]
fn overwritten_counts_are_no_panic() {
    let queue = JoinableQueue::<u32>::new().unwrap();
    queue.put(1).unwrap();
    for slot in 0..SLOTS {
        queue.word(slot, 0).store(DEAD, SeqCst);
        queue.word(slot, 1).store(u64::MAX, SeqCst);
    }
    assert_eq!(queue.unfinished(), usize::MAX);
    assert_eq!(buried(&queue), u64::MAX);
    assert_eq!(queue.get(), Ok(1));
}
