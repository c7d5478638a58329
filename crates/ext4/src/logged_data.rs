//! What becomes of file data, and which transaction logged some last.

use std::sync::atomic::{AtomicU64, Ordering};

use ext4_format::Superblock;
use jbd2::Tid;

/// What becomes of file data before the metadata that leads to it commits: data= of mount(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataMode {
    /// It is on the device by then.
    Ordered,
    /// It is in the journal, in the same transaction.
    Journal,
    /// Nothing: after a crash a file may hold what was on the device before.
    Writeback,
}

impl DataMode {
    /// What the superblock asks for by default.
    pub(crate) fn of_superblock(superblock: &Superblock) -> Self {
        match superblock.default_mount_opts & 0x60 {
            0x20 => Self::Journal,
            0x60 => Self::Writeback,
            _ => Self::Ordered,
        }
    }
}

/// The last transaction that logged data of somebody, if any did.
#[derive(Debug, Default)]
pub(crate) struct LoggedData(AtomicU64);

impl LoggedData {
    const SOME: u64 = 1 << 32;

    /// The same knowledge, for an inode that comes into memory: who logged what before is not known of each.
    pub fn inherited(&self) -> Self {
        Self(self.0.load(Ordering::Acquire).into())
    }

    pub fn tid(&self) -> Option<Tid> {
        let value = self.0.load(Ordering::Acquire);
        (value & Self::SOME != 0).then_some(Tid(value as u32))
    }

    pub fn note(&self, tid: Tid) {
        self.0.store(Self::SOME | u64::from(tid.0), Ordering::Release);
    }

    /// Nothing was logged after `tid`, and what was before does not matter any more.
    pub fn forget(&self, tid: Tid) {
        let noted = Self::SOME | u64::from(tid.0);
        let _newer = self.0.compare_exchange(noted, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}
