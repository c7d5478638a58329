//! How a volume is mounted, and what the mount had to do.

use std::sync::Arc;

use block_io::Device;

use crate::clock::{Cancel, Clock};
use crate::error_policy::ErrorMode;
use crate::logged_data::DataMode;
use crate::mmp::Wishes;
use crate::orphan::OrphansProcessed;

/// How a volume is mounted.
#[derive(Clone)]
pub struct MountOptions {
    /// Write nothing to the device; a dirty journal is replayed into memory (R18).
    pub read_only: bool,
    /// Age at which a transaction commits by itself, in milliseconds.
    pub commit_interval_ms: u64,
    /// Memory for clean metadata blocks, in bytes.
    pub metadata_cache_bytes: u64,
    /// What becomes of file data before metadata commits; `None`: what the volume itself says. EINVAL for a choice on a volume
    /// without a journal.
    pub data: Option<DataMode>,
    /// Buffered data goes to unwritten blocks, which are converted after it. `false`: to written ones, and the commit waits
    /// for it where data is ordered (T12).
    pub dioread_nolock: bool,
    /// Memory for buffered file data, in bytes.
    pub page_cache_bytes: u64,
    /// Percent of that which may be dirty before a writer has to write back itself; half of it starts write-back.
    pub dirty_ratio: u8,
    /// Age at which dirty data is written back by itself, in milliseconds.
    pub write_back_age_ms: u64,
    /// What follows from damage and from errors of the device; `None`: what the volume itself says (EP1).
    pub errors: Option<ErrorMode>,
    /// Where times come from.
    pub clock: Arc<dyn Clock>,
    /// Ends a wait for other hosts (M3) early: the mount is ECANCELED then.
    pub cancel: Cancel,
    /// Mount in spite of what a person must have looked at first: MMP intervals that no tool writes.
    pub force: bool,
    /// The device of an external journal (J28), for a volume that has one.
    pub journal_device: Option<Arc<dyn Device>>,
    /// `false`: no flush and no FUA, for devices without a volatile cache (T17).
    pub barrier: bool,
    /// The journal is neither replayed nor used: the volume as the last checkpoint left it. With `read_only` alone.
    pub noload: bool,
    /// File data is loaded and stored in place, past the page cache (A18). On a read-only mount there is nothing to gain.
    pub dax: bool,
    /// Process the orphans of a volume with errors, too, where they are sound (O7): a recovery does that.
    pub orphans_despite_errors: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            commit_interval_ms: 5000,
            metadata_cache_bytes: 64 << 20,
            data: None,
            dioread_nolock: true,
            page_cache_bytes: 64 << 20,
            dirty_ratio: 70,
            write_back_age_ms: 30_000,
            errors: None,
            clock: Arc::new(crate::clock::CoarseClock),
            cancel: Cancel::default(),
            force: false,
            journal_device: None,
            barrier: true,
            noload: false,
            dax: false,
            orphans_despite_errors: false,
        }
    }
}

impl MountOptions {
    pub(crate) fn mmp_wishes(&self) -> Wishes {
        Wishes { clock: self.clock.clone(), cancel: self.cancel.clone(), force: self.force }
    }
}

/// What a mount had to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountReport {
    /// Transactions replayed from the journal.
    pub transactions_replayed: u32,
    /// Blocks that they wrote home.
    pub blocks_replayed: u64,
    /// Copies in the log that were not, for their blocks were revoked (R9).
    pub copies_revoked: u64,
    /// Fast commits that were replayed after them (R19).
    pub fast_commits: u32,
    /// Orphans processed.
    pub orphans: OrphansProcessed,
    /// The first transaction of this mount. The last one before it is older by at least three (R11).
    pub first_tid: u32,
}
