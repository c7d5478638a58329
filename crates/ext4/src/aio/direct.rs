//! Direct reads and writes as state machines over the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use block_io::{Completion, Memory, Operation, Request, SharedMemory};
use iomap::{Mapping, ReadPlan, ReadRequest, WritePlan, WriteRequest};

use super::engine::{Engine, FileId, Finished, Value};
use crate::file::Look;
use crate::inode::Inode;
use crate::{Error, Result, errno};

/// How the policy holds the inode lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// With others: the range must be one allocated run inside both sizes.
    Shared,
    /// Alone.
    Exclusive,
}

/// A direct write to start.
pub struct DirectWrite {
    /// Comes back in [`Finished`].
    pub op: u64,
    /// The file.
    pub file: FileId,
    /// How the inode is locked until the operation is over (or, in flight, counted).
    pub lock: LockMode,
    /// O_DSYNC: durable when it is over.
    pub dsync: bool,
    /// Byte position in the file.
    pub pos: u64,
    /// What to write.
    pub memory: Memory,
}

/// A direct read to start.
pub struct DirectRead {
    /// Comes back in [`Finished`].
    pub op: u64,
    /// The file.
    pub file: FileId,
    /// Byte position in the file.
    pub pos: u64,
    /// Where to.
    pub memory: Memory,
}

/// A worker's answer to a direct operation.
pub(super) enum Step {
    Mapped(Result<Vec<Mapping>>),
    Ended(Result<()>),
    Synced(Result<()>),
    Failed(Error),
}
