//! Block devices and what they promise.
//!
//! A device has two faces. [`Device`] blocks its caller and may be shared between threads: commit, checkpoint,
//! write-back, recovery and mkfs use it. [`Queue`] carries the direct data I/O of one thread: requests are
//! pushed, submitted together and reaped as completions.

mod aligned;
mod device;
mod error;
mod eventfd;
mod file;
mod queue;
mod shared_memory;
pub mod sync;
mod threads;
mod uring;

pub use aligned::AlignedBuf;
pub use device::{Device, Limits};
pub use error::{Error, Result};
pub use eventfd::EventFd;
pub use file::{FileDevice, OpenOptions, create_container};
pub use queue::{Completion, Memory, Operation, Queue, Request};
pub use shared_memory::SharedMemory;
pub use threads::ThreadsQueue;
pub use uring::UringQueue;
