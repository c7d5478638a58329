//! What the journal asks of the file system.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use ext4_format::Pblk;
use jbd2::{Host, SealTag, Tid};

use crate::block_cache::BlockCache;
use crate::clock::Clock;
use crate::error_policy::ErrorPolicy;
use crate::mballoc::Allocator;
use crate::meta::Image;
use crate::ordered::OrderedData;
use crate::seal::Sealer;

/// Shared by the journal and the mounted file system.
pub(crate) struct JournalHost {
    pub cache: Arc<BlockCache>,
    pub sealer: Sealer,
    pub clock: Arc<dyn Clock>,
    /// Set once the group descriptors are loaded, which is after recovery.
    pub allocator: OnceLock<Arc<Allocator>>,
    /// Errno of the abort, 0 while the journal lives.
    pub aborted: AtomicI32,
    /// T12.
    pub ordered: OrderedData,
    /// What an abort is told to.
    pub errors: ErrorPolicy,
}

impl Host for JournalHost {
    fn write_ordered(&self, tid: Tid) {
        self.ordered.write(tid);
    }

    fn seal(&self, block: u64, tag: SealTag, image: &mut [u8]) {
        self.sealer.seal(Pblk(block), tag, image);
    }

    fn retire(&self, block: u64, image: Image) {
        let _shard = self.cache.lock(Pblk(block));
        self.cache.insert(Pblk(block), image);
    }

    fn forgotten(&self, block: u64) {
        let _shard = self.cache.lock(Pblk(block));
        self.cache.remove(Pblk(block));
    }

    fn committed(&self, tid: Tid) {
        if let Some(allocator) = self.allocator.get() {
            allocator.committed(tid.0);
        }
    }

    fn aborted(&self, errno: i32) {
        self.aborted.store(errno, Ordering::Release);
        self.errors.aborted(errno);
    }

    fn elapsed_ms(&self) -> u64 {
        self.clock.since_boot().as_millis() as u64
    }

    fn now(&self) -> (u64, u32) {
        let now = self.clock.now();
        (now.sec.max(0) as u64, now.nsec)
    }
}
