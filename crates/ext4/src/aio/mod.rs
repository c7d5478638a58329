//! Asynchronous operations on a mounted volume, for one thread that owns the direct-I/O queue.
//!
//! Everything that may wait runs as a job in a lane of worker threads; direct data I/O goes through the queue. Both
//! end as [`Finished`] operations, which the owner collects in batches. A direct write is a small state machine:
//! map (in place if the extent-status cache knows the range, else as a job), device requests, end of I/O (in place
//! for a pure overwrite, else as a job), and a commit where O_DSYNC asks for one.

mod completions;
mod direct;
mod engine;
mod lanes;
mod ticker;

pub use direct::{DirectRead, DirectWrite, LockMode};
pub use engine::{Engine, FileId, Finished, Value, Waited};
