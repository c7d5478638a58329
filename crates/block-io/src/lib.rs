//! Block devices and what they promise.
//!
//! A device has two faces. [`Device`] blocks its caller and may be shared between threads: commit, checkpoint,
//! write-back, recovery and mkfs use it. [`Queue`] carries the direct data I/O of one thread: requests are
//! pushed, submitted together and reaped as completions.

mod aligned;
mod device;
mod error;
mod queue;
mod shared_memory;
pub mod sync;

pub use aligned::AlignedBuf;
pub use device::{Device, Limits};
pub use error::{Error, Result};
pub use queue::{Completion, Memory, Operation, Queue, Request};
pub use shared_memory::SharedMemory;
