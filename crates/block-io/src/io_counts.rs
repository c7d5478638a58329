//! What a device was asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Operation;

/// Requests to a device since it was opened, by kind, from both of its faces. A request that is refused before it
/// reaches the host is not counted; one that the host moves in parts is one.
#[derive(Debug, Default)]
pub struct IoCounts {
    reads: AtomicU64,
    writes: AtomicU64,
    fua_writes: AtomicU64,
    flushes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// [`IoCounts`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoTotals {
    /// Read requests.
    pub reads: u64,
    /// Write requests, those with FUA included.
    pub writes: u64,
    /// Write requests that had to be durable when they completed.
    pub fua_writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes of the reads.
    pub bytes_read: u64,
    /// Bytes of the writes.
    pub bytes_written: u64,
}

impl IoCounts {
    /// Counts one request of `len` bytes.
    pub(crate) fn add(&self, operation: Operation, len: usize) {
        let (requests, bytes) = match operation {
            Operation::Read => (&self.reads, &self.bytes_read),
            Operation::Write { fua } => {
                self.fua_writes.fetch_add(u64::from(fua), Ordering::Relaxed);
                (&self.writes, &self.bytes_written)
            }
            Operation::Flush => {
                self.flushes.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        requests.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn totals(&self) -> IoTotals {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoTotals {
            reads: count(&self.reads),
            writes: count(&self.writes),
            fua_writes: count(&self.fua_writes),
            flushes: count(&self.flushes),
            bytes_read: count(&self.bytes_read),
            bytes_written: count(&self.bytes_written),
        }
    }
}
