//! The manager: real processes, real SIGKILL.

mod calls;
