//! Deaths at each step of a worker's round, one by one.

use super::{Event, Pool, PoolBuilder, TaskError, lock};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use testkit::isolated;

/// Where this worker is to die, and the file that says that one has.
static DIES_AT: OnceLock<(String, PathBuf)> = OnceLock::new();

/// A worker kills itself here if it was told to, the first to come of all workers.
pub(super) fn step(name: &'static str) {
    let Some((step, done)) = DIES_AT.get() else {
        return;
    };
    if step == name && std::fs::File::create_new(done).is_ok() {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

fn die_at(step: String, done: PathBuf) {
    DIES_AT.set((step, done)).unwrap();
}

fn file(name: &str) -> PathBuf {
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    std::env::temp_dir().join(format!("pool-{name}-{}", std::process::id()))
}

fn dying(step: &str, retries: u32) -> (Pool, PathBuf) {
    let (builder, done) = describe_dying(step, &format!("{step}-{retries}"));
    (builder.retries(retries).build().unwrap(), done)
}

fn describe_dying(step: &str, name: &str) -> (PoolBuilder, PathBuf) {
    let done = file(name);
    let _ = std::fs::remove_file(&done);
    let args = (step.to_string(), done.clone());
    let builder = Pool::builder().workers(2).initializer(die_at, args);
    (builder, done)
}

fn square(x: u64) -> u64 {
    x * x
}

/// Runs 60 tasks while a worker dies at `step`; how many tasks that cost.
fn lost_by(step: &str, chunk: usize) -> u64 {
    let (pool, done) = dying(step, 0);
    let each: Vec<_> = pool.imap(square, 0..60).chunk_size(chunk).collect();
    assert_eq!(each.len(), 60, "{step}");
    let mut lost = 0;
    for (x, result) in (0..).zip(each) {
        match result {
            Ok(value) => assert_eq!(value, x * x, "{step}"),
            Err(TaskError::WorkerDied { task, .. }) => {
                assert_eq!(task.index, Some(x as usize), "{step}");
                lost += 1;
            }
            Err(other) => panic!("{step}: {other}"),
        }
    }
    assert!(done.exists(), "{step}: nobody died");
    assert_eq!(pool.apply(square, (3,)), Ok(9), "{step}");
    let workers = pool.stats().workers;
    let answered: u64 = workers.iter().map(|worker| worker.tasks).sum();
    assert_eq!(answered, 61 - lost, "{step}");
    std::fs::remove_file(done).unwrap();
    lost
}

#[test]
fn what_was_not_begun_is_not_lost() {
    for step in ["take: claimed", "take: got"] {
        assert_eq!(lost_by(step, 1), 0, "{step}");
        assert_eq!(lost_by(step, 10), 0, "{step}");
    }
}

#[test]
fn what_was_begun_and_not_sent_costs_one_task() {
    for step in ["run: begun", "send: marked", "send: before"] {
        assert_eq!(lost_by(step, 1), 1, "{step}");
        assert_eq!(lost_by(step, 10), 1, "{step}");
    }
}

#[test]
fn what_was_done_is_not_lost() {
    assert_eq!(lost_by("send: after", 1), 0);
    assert_eq!(lost_by("send: after", 10), 0);
    assert_eq!(lost_by("item: kept", 10), 0);
}

#[test]
fn what_was_done_and_not_sent_is_told() {
    let (builder, done) = describe_dying("item: kept", "told");
    let (tell, told) = std::sync::mpsc::channel();
    let builder = builder.on_event(move |event| {
        if let Event::TaskEnded { tasks, ok, .. } = event {
            assert!(ok);
            tell.send(*tasks).unwrap();
        }
    });
    let pool = builder.build().unwrap();
    let squares: Vec<u64> = (0..10).map(square).collect();
    assert_eq!(pool.map_chunked(square, 0..10, 10), Ok(squares));
    assert!(done.exists());
    std::fs::remove_file(done).unwrap();
    drop(pool);
    assert_eq!(told.iter().sum::<usize>(), 10);
}

#[test]
fn a_lost_task_is_tried_again_if_that_was_asked_for() {
    for step in ["take: got", "run: begun", "send: before"] {
        let (pool, done) = dying(step, 1);
        let squares: Vec<u64> = (0..60).map(square).collect();
        assert_eq!(pool.map_chunked(square, 0..60, 10), Ok(squares), "{step}");
        std::fs::remove_file(done).unwrap();
    }
}

/// A task is not lost with a worker that is killed for another's sake: cancelling is exact.
#[test]
fn cancelling_what_has_just_ended_changes_nothing() {
    let pool = Pool::new(2).unwrap();
    let end = Instant::now() + Duration::from_millis(300);
    let mut cancelled = 0;
    while Instant::now() < end {
        let results: Vec<_> = (0..20).map(|x| pool.apply_async(square, (x,))).collect();
        let third = results[3].cancel();
        cancelled += usize::from(third);
        for (x, result) in (0..).zip(&results) {
            let expected = match third && x == 3 {
                true => Err(TaskError::Cancelled),
                false => Ok(x * x),
            };
            assert_eq!(result.get(), expected);
        }
    }
    assert!(cancelled > 0);
}

/// Who copies the pool by a fork and asks the copy for figures takes no results from the pool.
#[test]
fn the_figures_of_a_copy_cost_no_results() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        let engine = &pool.engine;
        // Nobody here takes results until the child has ended.
        let inbox = lock(&engine.inbox);
        let result = pool.apply_async(square, (3,));
        while engine.results.stats().bytes == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let core = lock(&engine.core);
        let crew = lock(&engine.crew);
        // SAFETY: glibc keeps its own locks right, the locks of the copy that it takes are this
        // thread's, and the child ends without a destructor of this process.
        #[allow(unsafe_code)]
        let forked = unsafe { nix::unistd::fork() }.unwrap();
        drop((crew, core));
        let ForkResult::Parent { child } = forked else {
            drop(inbox);
            let code = i32::from(pool.stats().workers.len() != 1);
            // SAFETY: it only ends this process.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(code)
            }
        };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        drop(inbox);
        let got = result.get_timeout(Duration::from_secs(10));
        assert_eq!(got, Some(Ok(9)));
    });
}
