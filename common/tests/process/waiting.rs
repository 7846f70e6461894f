//! Waiting for processes: for many, with other things, in coroutines.

use super::{FOREVER, sleeper};
use common::process::{self, Process, StartMethod, wait};
use futures::FutureExt;
use std::future::IntoFuture;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use testkit::{METHODS, isolated};
use tokio::io::unix::AsyncFd;

#[test]
fn many_processes() {
    isolated(|| {
        for method in METHODS {
            let start = |f: fn(StartMethod) -> Process<()>| (0..30).map(move |_| f(method));
            // P-024
            let short = |method| {
                Process::builder()
                    .start_method(method)
                    .spawn(|| (), ())
                    .unwrap()
            };
            for process in start(short).collect::<Vec<_>>() {
                process.join().unwrap();
                assert_eq!(process.exit_code(), Some(0));
            }
            // P-025
            let long: Vec<_> = start(sleeper).collect();
            long.iter().for_each(|process| process.terminate().unwrap());
            for process in long {
                process.join().unwrap_err();
                assert_eq!(process.exit_code(), Some(-15));
            }
        }
    });
}

#[test]
fn the_handle_is_readable_when_it_has_ended() {
    isolated(|| {
        for method in METHODS {
            // P-020
            let process = sleeper(method);
            assert_eq!(wait(&[&process], Some(Duration::ZERO)).unwrap(), []);
            process.kill().unwrap();
            assert_eq!(wait(&[&process], Some(FOREVER)).unwrap(), [0]);
            let _ = process.join();
            assert_eq!(wait(&[&process], Some(Duration::ZERO)).unwrap(), [0]);
        }
    });
}

#[test]
fn waiting_for_processes_and_pipes_at_once() {
    isolated(|| {
        // C-027, C-028
        let (reader, mut writer) = std::io::pipe().unwrap();
        let process = sleeper(StartMethod::Spawn);
        let items: [&dyn AsFd; 2] = [&reader, &process];
        let start = Instant::now();
        assert_eq!(wait(&items, Some(Duration::from_millis(30))).unwrap(), []);
        assert!(start.elapsed() >= Duration::from_millis(30));
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(&items, None).unwrap(), [0]);
        process.kill().unwrap();
        let _ = process.join();
        assert_eq!(wait(&items, None).unwrap(), [0, 1]);
        assert_eq!(wait(&[], Some(Duration::from_millis(1))).unwrap(), []);
    });
}

#[test]
fn a_handled_signal_does_not_end_a_join() {
    isolated(|| {
        // P-038
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        extern "C" fn handler(_: i32) {}
        let action = SigAction::new(
            SigHandler::Handler(handler),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        #[allow(unsafe_code)]
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let signals_parent = || {
            let parent = nix::unistd::Pid::from_raw(process::parent().unwrap().pid() as i32);
            for _ in 0..20 {
                nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGUSR1).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            7
        };
        assert_eq!(
            Process::spawn(signals_parent, ()).unwrap().join().unwrap(),
            7
        );
    });
}

#[test]
fn awaited_under_several_executors() {
    isolated(|| {
        let start = |n: u32| Process::spawn(|n: u32| n + 1, (n,)).unwrap();
        assert_eq!(
            futures::executor::block_on(async { start(1).await }).unwrap(),
            2
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let both = runtime.block_on(async {
            let (a, b) = (start(2), start(3));
            futures::future::join((&a).into_future(), (&b).into_future()).await
        });
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (3, 4));
        // Giving up waiting leaves the process as it is.
        let process = sleeper(StartMethod::Spawn);
        let waiting = (&process).into_future();
        drop(waiting);
        assert!(process.is_alive());
        process.kill().unwrap();
        let _ = process.join();
    });
}

#[test]
fn tokio_can_wait_for_the_handle() {
    isolated(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_io().build().unwrap();
        for method in METHODS {
            let process = sleeper(method);
            runtime.block_on(async {
                // SAFETY: the process keeps its descriptor open for longer.
                #[allow(unsafe_code)]
                let handle = unsafe { AsyncFd::register(process.as_fd()) }.unwrap();
                assert!(handle.readable().now_or_never().is_none());
                process.kill().unwrap();
                let _ended = handle.readable().await.unwrap();
                assert!(!process.is_alive());
            });
        }
    });
}
