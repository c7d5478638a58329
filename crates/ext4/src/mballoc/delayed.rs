//! Space set aside for delayed allocation, so that a full volume is reported by the write and never by write-back.

use std::sync::atomic::Ordering::Relaxed;

use super::Allocator;
use crate::error::errno;
use crate::{Error, Result};

impl Allocator {
    /// Sets `blocks` blocks aside, and keeps others away from what may have to map them.
    ///
    /// # Errors
    /// ENOSPC: there are not as many beyond the reserve (D14).
    pub fn reserve_delayed(&self, blocks: u64) -> Result<()> {
        // A cluster each: where the others of a cluster lie is not known yet.
        let clusters = blocks;
        let kept = self.kept_clusters(clusters);
        let reserved = self.unclaimed.fetch_update(Relaxed, Relaxed, |unclaimed| {
            unclaimed.checked_sub(clusters).filter(|left| *left >= kept)
        });
        reserved.map_err(|_| Error::errno_only(errno::ENOSPC))?;
        self.delayed.fetch_add(clusters, Relaxed);
        Ok(())
    }

    /// Gives back what was set aside and is not needed.
    pub fn release_delayed(&self, blocks: u64) {
        let mut given = 0;
        let _never_fails = self.delayed.fetch_update(Relaxed, Relaxed, |delayed| {
            given = blocks.min(delayed);
            Some(delayed - given)
        });
        self.unclaimed.fetch_add(given, Relaxed);
    }

    /// Blocks that were allocated out of what was set aside were freed again in the same handle: their data still waits.
    pub(crate) fn delay_again(&self, blocks: u64) {
        let mut taken = 0;
        let _never_fails = self.unclaimed.fetch_update(Relaxed, Relaxed, |unclaimed| {
            taken = blocks.min(unclaimed);
            Some(unclaimed - taken)
        });
        self.delayed.fetch_add(taken, Relaxed);
    }

    /// Clusters set aside now.
    pub fn delayed_clusters(&self) -> u64 {
        self.delayed.load(Relaxed)
    }

    /// What ordinary allocations leave: what lies in damaged groups, the reserve (D14), and the leaves of delayed data.
    pub(super) fn kept_clusters(&self, more: u64) -> u64 {
        // What splits have claimed of the reserve is out of sight already.
        let reserve = self.reserved_clusters().saturating_sub(self.claimed.load(Relaxed));
        self.condemned.load(Relaxed) + reserve + self.kept_leaves(more)
    }

    /// The leaves that extents of one block each would fill if everything delayed, and `more`, ended up so scattered.
    pub(super) fn kept_leaves(&self, more: u64) -> u64 {
        let per_leaf = u64::from(self.sb.block_size()) / 12 - 1;
        let delayed = self.delayed.load(Relaxed) + more;
        if delayed > 0 { delayed.div_ceil(per_leaf) } else { 0 }
    }
}
