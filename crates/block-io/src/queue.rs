//! The queueing face of a device: direct data I/O of one thread.

use std::any::Any;

use crate::{AlignedBuf, Result};

/// Memory of a request, owned by it until its completion is reaped.
pub enum Memory {
    /// Memory of ours.
    Owned(AlignedBuf),
    /// A part of memory that somebody else owns and `keeper` keeps alive and in place.
    Pinned {
        /// First byte.
        start: *mut u8,
        /// Length in bytes.
        len: usize,
        /// Dropped with the request.
        keeper: Box<dyn Any>,
    },
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Device to memory.
    Read,
    /// Memory to device; with `fua`, durable at completion.
    Write {
        /// Force unit access (RWF_DSYNC on a file).
        fua: bool,
    },
    /// Make completed writes durable. Has no memory and no offset.
    Flush,
}

/// One device request.
pub struct Request {
    /// Comes back in the completion; chosen by the caller.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
    /// Byte offset on the device, a multiple of the logical block.
    pub offset_bytes: u64,
    /// The bytes; its length is the request's. Must satisfy the device's limits.
    pub memory: Memory,
}

/// A finished request.
pub struct Completion {
    /// The request's id.
    pub id: u64,
    /// Nothing, or the error. Short transfers have been continued or turned into EIO.
    pub result: Result<()>,
    /// The request's memory, back to its owner.
    pub memory: Memory,
}

/// A queue of direct requests, used by one thread alone.
pub trait Queue {
    /// Takes a request; nothing reaches the device before [`Queue::submit`].
    fn push(&mut self, request: Request);

    /// Hands everything pushed to the device, in one system call where the host allows it.
    fn submit(&mut self) -> Result<()>;

    /// As [`Queue::submit`], and waits for a completion, which the caller reaps next, where one system call does both.
    /// `false`: it did not wait.
    fn submit_and_wait(&mut self) -> Result<bool> {
        self.submit().map(|()| false)
    }

    /// Moves finished requests to `done` without waiting.
    fn reap(&mut self, done: &mut Vec<Completion>);

    /// Pushed and not yet reaped.
    fn in_flight(&self) -> usize;

    /// Waits until nothing is in flight, cancelling what can be cancelled, and drops all memory. Called by `drop`.
    fn drain(&mut self);
}
