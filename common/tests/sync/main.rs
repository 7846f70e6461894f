//! Locks, signals and shared values between processes.

mod locks;
mod values;
mod waiting;

use std::time::Duration;

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);
