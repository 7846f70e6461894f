//! Coroutines: what people coming from `asyncio` look for and the ecosystem does not have.
//!
//! Most of `asyncio` has an equal in `tokio` and `futures`, and then that is the thing to use:
//!
//! | asyncio | Rust |
//! |---|---|
//! | `await coro()`, one after another | `coro().await`: alone it makes the program sequential |
//! | `asyncio.run(main())` | `#[tokio::main(flavor = "current_thread")]`, or `Runtime::block_on` |
//! | `gather(a(), b())`, nothing fails | `tokio::join!(a(), b())`; of a list: `futures::future::join_all` |
//! | `gather(...)`: the first error ends it, siblings go on | [`gather`] |
//! | the same, siblings dropped | `tokio::try_join!`, `futures::future::try_join_all` |
//! | `gather(..., return_exceptions=True)` | [`gather_settled`]: errors, panics and cancelled ones in place |
//! | cancelling the `gather` cancels its children | drop the [`Gather`], or abort the task that awaits it |
//! | one awaitable given to `gather` twice | `futures::FutureExt::shared` and its clones |
//! | `TaskGroup` with its `ExceptionGroup` | [`TaskGroup`] with its [`GroupError`] |
//! | `create_task(coro())` | `tokio::spawn(coro())`; it starts at once, and unlike Python's is not lost when its handle is dropped |
//! | `task.cancel()` | `JoinHandle::abort`; the task ends at its next await and cannot refuse |
//! | `shield(aw)` | `tokio::spawn(aw)`: dropping the handle does not cancel the task |
//! | `wait_for(aw, t)`, `timeout(t)` | `tokio::time::timeout(t, aw)`: `aw` has been dropped when it returns |
//! | `timeout.reschedule(t)` | `tokio::time::Sleep::reset` beside the work in `tokio::select!` |
//! | `wait(aws)` | `futures::future::join_all` of the handles |
//! | `wait(aws, FIRST_COMPLETED)` | `JoinSet::join_next`, or `futures::future::select_all` |
//! | `wait(aws, FIRST_EXCEPTION)` | [`gather`] |
//! | `wait(aws, timeout=t)`, nothing is cancelled | `timeout(t, join_all(handles.iter_mut()))` |
//! | `as_completed(aws)` | `futures::stream::FuturesUnordered`, or a loop over `JoinSet::join_next` |
//! | a `Semaphore` around each coroutine | `futures::StreamExt::buffered(n)`, `buffer_unordered(n)`; `tokio::sync::Semaphore` |
//! | `sleep(t)`, `sleep(0)` | `tokio::time::sleep(t)`, `tokio::task::yield_now()` |
//! | `to_thread(f)` | `tokio::task::spawn_blocking(f)` |
//! | `run_in_executor(ProcessPoolExecutor(), f, x)` | [`run_in_pool`]`(f, (x,))`; dropping it cancels |
//! | `run_coroutine_threadsafe(coro, loop)` | `tokio::runtime::Handle::spawn` |
//! | `Lock`, `Event`, `Condition`, `Queue` | `tokio::sync::{Mutex, Notify, Semaphore, Barrier, mpsc}` |
//!
//! Two differences to know. A Rust coroutine does nothing until it is awaited or spawned. And
//! cancelling one is dropping it at the await where it stands: its destructors are the cleanup,
//! it cannot catch the cancellation, and an error in its cleanup has nowhere to go.
//!
//! And for work that computes as well as waits, [`pool`]: processes, each with many coroutines.
//!
//! To copy: aio/gather.rs, aio/group.rs, panic.rs.

mod executor;
mod gather;
mod group;
pub mod pool;

pub use executor::{run_in, run_in_pool};
pub use gather::{ChildError, Gather, GatherSettled, gather, gather_settled};
pub use group::{GroupClosed, GroupError, Member, MemberLost, TaskGroup};
