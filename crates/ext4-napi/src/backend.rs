//! Which queue carries a volume's direct I/O.

use std::sync::Arc;

use block_io::{EventFd, FileDevice, Queue, ThreadsQueue, UringQueue};

use crate::options::EngineName;

/// A queue, what it is called, and why it was chosen.
pub struct Backend {
    /// The queue.
    pub queue: Box<dyn Queue>,
    /// `io_uring` or `threads`.
    pub name: &'static str,
    /// In words.
    pub reason: String,
}

/// Opens the queue that was asked for; with [`EngineName::Auto`], threads where the host refuses io_uring.
///
/// # Errors
/// With [`EngineName::IoUring`], the host's refusal; EAGAIN where it gives no threads.
pub fn open(device: &Arc<FileDevice>, event: &Arc<EventFd>, engine: EngineName) -> block_io::Result<Backend> {
    let threads = |reason: String| -> block_io::Result<Backend> {
        let queue = Box::new(ThreadsQueue::new(device.clone(), event.clone())?);
        Ok(Backend { queue, name: "threads", reason })
    };
    if engine == EngineName::Threads {
        return threads("asked for".into());
    }
    match UringQueue::new(device.clone(), event.clone()) {
        Ok(queue) => {
            let reason = if engine == EngineName::IoUring { "asked for" } else { "the host offers it" };
            Ok(Backend { queue: Box::new(queue), name: "io_uring", reason: reason.into() })
        }
        Err(refused) if engine == EngineName::IoUring => Err(refused),
        Err(refused) => threads(format!("io_uring is refused: {refused}")),
    }
}
