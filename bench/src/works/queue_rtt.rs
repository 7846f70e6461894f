//! A small message there and another back: hot, and with both sides asleep in between.

use super::daemon;
use crate::harness::time::mean_us;
use crate::harness::{
    Account, Better, Check, Failed, Must, Reading, Repetition, Side, Skip, Work, stat,
};
use crate::kernel::{self, RobustLock, Shared};
use common::queue::Queue;
use ipc_channel::ipc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One after the other, as fast as it goes.
pub const HOT: Work = Work {
    name: "queue_rtt",
    what: "16 bytes to another process and back, one after the other",
    metric: "latency",
    unit: "us",
    better: Better::Lower,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust(OURS, "two queues, 20,000 rounds", || hot(our_echo()?)),
        Side::rust(
            "rust:ipc-channel(typed)",
            "two channels, 2,000 rounds",
            || hot(ipc_echo()?),
        ),
        Side::python(
            "py:mp.Queue",
            "two queues, 1,000 rounds",
            "mp_queue.py",
            &["rtt"],
        ),
        Side::rust("limit:futex", "blocking at once, 5,000 rounds", || {
            hot(futex_echo(LetterBox::put, LetterBox::get)?)
        }),
    ],
    musts: HOT_MUSTS,
};

/// With 10 ms of sleep before each.
pub const IDLE: Work = Work {
    name: "queue_rtt_idle",
    what: "16 bytes to another process and back, both idle for 10 ms before (median of 50)",
    metric: "latency",
    unit: "us",
    better: Better::Lower,
    reps: 5,
    account: Account::Beside,
    sides: &[
        Side::rust(OURS, "two queues", || idle(our_echo()?)),
        Side::rust("rust:ipc-channel(typed)", "two channels", || {
            idle(ipc_echo()?)
        }),
        Side::python("py:mp.Queue", "two queues", "mp_queue.py", &["rtt_idle"]),
        Side::rust("limit:futex", "blocking at once", || {
            idle(futex_echo(LetterBox::put, LetterBox::get)?)
        }),
        Side::rust(
            "limit:futex+locks",
            "the same with a robust lock about each put and each get",
            || idle(futex_echo(LetterBox::put_locked, LetterBox::get_locked)?),
        ),
    ],
    musts: IDLE_MUSTS,
};

const HOT_MUSTS: &[Must] = &[Must {
    text: "1.5 us, or 30 x better than ipc-channel",
    any: &[
        Check::AtMost {
            ours: OURS,
            limit: 1.5,
        },
        Check::Better {
            ours: OURS,
            than: "rust:ipc-channel(typed)",
            times: 30.0,
        },
    ],
}];

const IDLE_MUSTS: &[Must] = &[
    Must {
        text: "no slower than a blocking futex (5 % for noise)",
        any: &[Check::AtMostTimes {
            ours: OURS,
            of: "limit:futex",
            times: 1.05,
        }],
    },
    Must {
        text: "no CPU burnt while idle: both processes together over the 0.5 s, beside the futex",
        any: &[Check::ExtraAtMostTimes {
            ours: OURS,
            of: "limit:futex",
            metric: "cpu",
            times: 1.5,
        }],
    },
];

const OURS: &str = "ours:Queue<(u64, u64)>";

/// One round trip, and how many of them take about 50 ms.
struct Echo {
    once: Box<dyn FnMut() -> Result<(), Failed>>,
    rounds: usize,
}

impl Echo {
    fn new(rounds: usize, once: impl FnMut() -> Result<(), Failed> + 'static) -> Echo {
        let once = Box::new(once);
        Echo { once, rounds }
    }
}

fn hot(mut echo: Echo) -> Result<Repetition, Skip> {
    Ok(mean_us(echo.rounds, move || {
        (0..echo.rounds).try_for_each(|_| (echo.once)())
    }))
}

fn idle(mut echo: Echo) -> Result<Repetition, Skip> {
    Ok(Box::new(move || {
        let mut samples = Vec::new();
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(10));
            let start = Instant::now();
            (echo.once)()?;
            samples.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(Reading::from(stat::median(&samples)))
    }))
}

fn echo(arrivals: Queue<(u64, u64)>, back: Queue<(u64, u64)>) {
    for message in arrivals.iter().map_while(Result::ok) {
        back.put(message).expect("nobody closes it");
    }
}

fn our_echo() -> Result<Echo, Skip> {
    let (there, back) = (Queue::new()?, Queue::new()?);
    let child = daemon(echo, (there.clone(), back.clone()))?;
    Ok(Echo::new(20_000, move || {
        let _ = &child;
        there.put((1, 2))?;
        assert_eq!(back.get()?, (1, 2));
        Ok(())
    }))
}

fn ipc_echo() -> Result<Echo, Skip> {
    let (there, arrivals) = ipc::channel::<(u64, u64)>()?;
    let (back, answers) = ipc::channel::<(u64, u64)>()?;
    let child = kernel::fork(move || {
        while let Ok(message) = arrivals.recv() {
            back.send(message).expect("the other side lives");
        }
    })?;
    Ok(Echo::new(2_000, move || {
        let _ = &child;
        there.send((1, 2))?;
        assert_eq!(answers.recv()?, (1, 2));
        Ok(())
    }))
}

/// A letter box each way: the message, and a word that counts them.
#[derive(Default)]
struct LetterBoxes {
    there: LetterBox,
    back: LetterBox,
}

#[derive(Default)]
#[repr(align(128))]
struct LetterBox {
    count: AtomicU32,
    message: [AtomicU64; 2],
    put_end: RobustLock,
    get_end: RobustLock,
}

impl LetterBox {
    fn put(&self, count: u32) {
        self.write(count);
        kernel::futex_wake(&self.count);
    }

    fn get(&self, count: u32) -> u64 {
        self.wait(count);
        self.read()
    }

    fn put_locked(&self, count: u32) {
        self.put_end.with(|| self.write(count));
        kernel::futex_wake(&self.count);
    }

    fn get_locked(&self, count: u32) -> u64 {
        self.wait(count);
        self.get_end.with(|| self.read())
    }

    fn write(&self, count: u32) {
        self.message
            .iter()
            .for_each(|word| word.store(u64::from(count), Ordering::Relaxed));
        self.count.store(count, Ordering::Release);
    }

    fn wait(&self, count: u32) {
        while self.count.load(Ordering::Acquire) != count {
            kernel::futex_wait(&self.count, count.wrapping_sub(1));
        }
    }

    fn read(&self) -> u64 {
        self.message[1].load(Ordering::Relaxed)
    }
}

fn futex_echo(put: fn(&LetterBox, u32), get: fn(&LetterBox, u32) -> u64) -> Result<Echo, Skip> {
    let boxes = Shared::<LetterBoxes>::new()?;
    let child = kernel::fork(|| {
        for count in 1.. {
            get(&boxes.there, count);
            put(&boxes.back, count);
        }
    })?;
    let mut count = 0;
    Ok(Echo::new(5_000, move || {
        let _ = &child;
        count += 1;
        put(&boxes.there, count);
        assert_eq!(get(&boxes.back, count), u64::from(count));
        Ok(())
    }))
}
