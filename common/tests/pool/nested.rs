//! Tasks that use a pool: one of their own, or that which they run in.

use super::{pool, square, wait_until_running};
use common::pool::{Pool, PoolError, TaskError, wait_any};
use common::process::{self, Process, StartMethod};
use common::sync::Event;
use futures::executor::block_on;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;
use testkit::isolated;

#[test]
fn nested_pools() {
    isolated(|| {
        fn sum_of_squares(n: u64) -> u64 {
            Pool::new(2)
                .unwrap()
                .map(square, 0..n)
                .unwrap()
                .into_iter()
                .sum()
        }
        assert_eq!(pool(2).map(sum_of_squares, [3, 4]), Ok(vec![5, 14]));
        // M-013: in a process that is no worker.
        let process = Process::spawn(sum_of_squares, (4,)).unwrap();
        assert_eq!(process.join().unwrap(), 14);
    });
}

/// A process that has only a copy of the pool gets an error from every call, and the pool does not
/// notice.
#[test]
fn a_copy_of_the_pool_in_a_fork_is_refused() {
    isolated(|| {
        let pool = pool(2);
        let owner = std::process::id();
        let mut some = pool.imap(square, 0..40);
        let mut any = pool.imap_unordered(square, 0..40);
        let mut sum = some.next().unwrap().unwrap() + any.next().unwrap().unwrap();
        // Both workers are busy until this process lets them go on, so what is drawn now waits.
        let go = Event::new().unwrap();
        let gates = [(); 2].map(|()| pool.apply_async(|go: Event| go.wait(), (go.clone(),)));
        sum += some.next().unwrap().unwrap() + any.next().unwrap().unwrap();
        let queued = pool.map_async(square, 0..4);
        let other = Pool::new(1).unwrap();
        let of_two =
            [&pool, &other].map(|pool| pool.apply_async(|go: Event| go.wait(), (go.clone(),)));
        wait_until_running(&other, 1);
        // SAFETY: glibc keeps its own locks right, the copy takes none that a thread of the pool
        // may have held, and the child ends without a destructor of this process.
        #[allow(unsafe_code)]
        let forked = unsafe { nix::unistd::fork() }.unwrap();
        let ForkResult::Parent { child } = forked else {
            let refused = std::panic::AssertUnwindSafe(|| {
                assert!(wait_any(&of_two, None).is_some());
                let error = TaskError::NotOwner { owner };
                assert_eq!(pool.apply(square, (3,)), Err(error.clone()));
                assert_eq!(pool.apply_async(square, (3,)).get(), Err(error.clone()));
                assert_eq!(pool.map(square, 0..3), Err(error.clone()));
                assert_eq!(pool.imap(square, 0..3).next(), Some(Err(error.clone())));
                assert_eq!(pool.imap_unordered(square, 0..3).next(), Some(Err(error)));
                assert!(matches!(pool.join(), Err(PoolError::NotOwner { owner: o }) if o == owner));
                // What the process waits for is not the copy's either, nor can that cancel it.
                let error = TaskError::NotOwner { owner };
                assert_eq!(gates[0].get(), Err(error.clone()));
                assert!(!gates[0].cancel() && !queued.cancel());
                assert_eq!(queued.progress(), 0);
                assert_eq!(block_on(queued), Err(error.clone()));
                let told = Arc::new(Mutex::new(None));
                let tell = told.clone();
                gates[0].on_error(move |error| *tell.lock().unwrap() = Some(error));
                assert_eq!(told.lock().unwrap().take(), Some(error.clone()));
                assert_eq!(some.by_ref().find_map(Result::err), Some(error.clone()));
                assert_eq!(any.by_ref().find_map(Result::err), Some(error));
                drop((some, any));
            });
            let code = i32::from(std::panic::catch_unwind(refused).is_err());
            // SAFETY: it only ends this process.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(code)
            }
        };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        go.set();
        assert!(gates.iter().chain(&of_two).all(|gate| gate.get().is_ok()));
        assert_eq!(queued.get(), Ok(vec![0, 1, 4, 9]));
        sum += some.chain(any).map(Result::unwrap).sum::<u64>();
        assert_eq!(sum, 2 * (0..40).map(square).sum::<u64>());
        assert_eq!(pool.apply(square, (3,)), Ok(9));
        pool.finish().unwrap();
    });
}

/// A spawned worker has the program's statics anew: a task that uses the static its pool is in
/// gets another pool, of its own worker.
#[test]
fn a_task_that_uses_its_pools_static() {
    isolated(|| {
        static POOL: LazyLock<Pool> = LazyLock::new(|| pool(1));
        fn inner() -> (u32, u32) {
            (std::process::id(), process::parent().unwrap().pid())
        }
        fn outer() -> (u32, Result<(u32, u32), TaskError>) {
            (std::process::id(), POOL.apply(inner, ()))
        }
        // In a process that ends, for a static is never dropped.
        let program = Process::spawn(|| POOL.apply(outer, ()), ()).unwrap();
        let (worker, told) = program.join().unwrap().unwrap();
        let (innermost, parent) = told.unwrap();
        assert_eq!(parent, worker);
        assert_ne!(innermost, worker);
    });
}

/// A forked worker has the statics as they were when it was started: before there was a pool.
#[test]
fn a_forked_worker_has_no_copy_of_its_pool() {
    isolated(|| {
        static POOL: OnceLock<Pool> = OnceLock::new();
        fn program() -> (Option<StartMethod>, bool) {
            let builder = Pool::builder().workers(1).start_method(StartMethod::Fork);
            let pool = POOL.get_or_init(|| builder.build().unwrap());
            let look = || (process::current().start_method(), POOL.get().is_some());
            pool.apply(look, ()).unwrap()
        }
        let seen = Process::spawn(program, ()).unwrap().join().unwrap();
        assert_eq!(seen, (Some(StartMethod::Fork), false));
    });
}

/// One that was forked while a `LazyLock` made the pool would wait for that for ever.
#[test]
fn a_forked_task_that_uses_its_pools_static() {
    isolated(|| {
        static POOL: LazyLock<Pool> = LazyLock::new(|| {
            let builder = Pool::builder().workers(2).start_method(StartMethod::Fork);
            builder.build().unwrap()
        });
        fn outer() -> Result<u64, TaskError> {
            POOL.apply(square, (3,))
        }
        fn program() -> (
            Result<Result<u64, TaskError>, TaskError>,
            Result<u64, TaskError>,
        ) {
            let stuck = POOL.apply_async(outer, ());
            // The other worker works on: this wait ends, after several looks.
            let patient = || {
                std::thread::park_timeout(Duration::from_millis(1200));
                16
            };
            let other = POOL.apply(patient, ());
            (stuck.get(), other)
        }
        let (stuck, other) = Process::spawn(program, ()).unwrap().join().unwrap();
        assert!(
            matches!(stuck, Err(TaskError::Deadlocked { .. })),
            "{stuck:?}"
        );
        assert_eq!(other, Ok(16));
    });
}
