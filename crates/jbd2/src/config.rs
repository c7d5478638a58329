//! What the file system tells the journal.

use std::sync::Arc;

use block_io::AlignedBuf;

use crate::Tid;

/// An immutable snapshot of a block.
pub type Image = Arc<AlignedBuf>;

/// Opaque to jbd2: tells the host how to seal a block.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SealTag(pub u64);

/// What jbd2 needs of a file system. Called without any lock of the journal that `lookup`, `start` or a handle
/// needs (`now` excepted: it must not call the journal at all), but within `commit`, `checkpoint_all`, `tick`,
/// `start` and `close`: do not start, commit or checkpoint in it.
pub trait Host: Send + Sync {
    /// T12, T15.3 and T15.5: writes the data that has to be on the device before the commit block of `tid`, and waits for
    /// it. No handle of `tid` lives any more; later ones may.
    fn write_ordered(&self, tid: Tid) {
        let _none = tid;
    }
    /// Computes the checksums inside a block when its bytes for the log are fixed (T6).
    fn seal(&self, block: u64, tag: SealTag, image: &mut [u8]);
    /// `image` is what the home location now holds. Called before the journal drops its own entry, so that a
    /// reader that misses in the journal finds it in the host's cache. If the block is changed again meanwhile, the
    /// journal keeps its entry, which stays ahead of the cache.
    fn retire(&self, block: u64, image: Image);
    /// The block was forgotten (freed) and the journal lets go of it: cached copies are void. Called before
    /// [`Host::committed`] of the forgetting transaction.
    fn forgotten(&self, block: u64);
    /// Everything in `tid` is durable: blocks freed in it are usable again (D13).
    fn committed(&self, tid: Tid);
    /// The journal aborted with a positive errno (T29). Called once.
    fn aborted(&self, errno: i32);
    /// The wall's clock, for commit blocks: seconds since the epoch and nanoseconds.
    fn now(&self) -> (u64, u32);
    /// Milliseconds since any moment, for ages: by a clock that nobody sets, where there is one.
    fn elapsed_ms(&self) -> u64 {
        let (seconds, nanoseconds) = self.now();
        seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds / 1_000_000))
    }
}

/// How the journal behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A transaction is committed by `tick` when it is this old, in milliseconds (T14: commit=).
    pub commit_interval_ms: u64,
    /// Commit times in seconds never go below this: that of the last commit that recovery saw (J20).
    pub last_commit_seconds: u64,
    /// Blocks that one transaction may hold on a volume without a log.
    pub max_blocks_without_log: u32,
    /// Device writes gather up to this many bytes; at least one block.
    pub write_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commit_interval_ms: 5000,
            last_commit_seconds: 0,
            max_blocks_without_log: 8192,
            write_bytes: 1 << 20,
        }
    }
}

/// Features that the volume gives its journal at a read-write mount (J8, J29).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// 64BIT: the volume has it.
    pub wide: bool,
    /// CSUM_V3: the volume has metadata_csum.
    pub csum_v3: bool,
    /// The volume has COMPAT FAST_COMMIT: the ring ends before the fast-commit area (J29).
    pub fast_commit: bool,
}

/// Counters since the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Transactions committed.
    pub commits: u64,
    /// Metadata blocks that these wrote to the log (home, without a log).
    pub blocks_logged: u64,
    /// Handles started.
    pub handles: u64,
    /// Times that the tail was moved.
    pub checkpoints: u64,
    /// Revoke records written.
    pub revokes: u64,
}
