//! Tree blocks kept for conversions that are on their way: an unwritten extent whose middle becomes written is split,
//! and that may take blocks, at a moment when the data is on the device already.
//!
//! A claim is made before any data leaves, in memory alone, and may reach into the reserve (D14). What is claimed is
//! nobody else's: it is not among the unclaimed clusters.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Allocator;
use crate::error::errno;
use crate::{Error, Result};

/// Clusters that conversions of one caller may still take. What is left goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct SplitClaim {
    allocator: Arc<Allocator>,
    clusters: u64,
}

/// Where the blocks of a conversion's splits come from.
pub(crate) enum Splitting<'c> {
    /// A claim; what it lacks, the reserve. Others' I/O may be in flight.
    Claimed(&'c mut SplitClaim),
    /// The reserve (D14). Others' I/O may be in flight.
    Reserve,
    /// The reserve, and where that is empty neighbours are zeroed and marked written (D7): the caller excludes everybody.
    Zeroing,
}

impl SplitClaim {
    /// A claim on nothing.
    pub fn none(allocator: Arc<Allocator>) -> Self {
        Self { allocator, clusters: 0 }
    }

    /// Clusters that are left of it.
    pub fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Claims what is missing to `clusters`, or gives back what is beyond.
    ///
    /// # Errors
    /// ENOSPC: not even the reserve has them; the claim is as it was.
    pub fn resize(&mut self, clusters: u64) -> Result<()> {
        if let Some(more) = clusters.checked_sub(self.clusters) {
            self.allocator.take_for_splits(more)?;
        } else {
            self.allocator.give_from_splits(self.clusters - clusters);
        }
        self.clusters = clusters;
        Ok(())
    }

    /// A claim on up to `most` clusters of this one.
    pub fn split_off(&mut self, most: u64) -> Self {
        let clusters = most.min(self.clusters);
        self.clusters -= clusters;
        Self { allocator: self.allocator.clone(), clusters }
    }

    /// Both claims as one.
    pub fn join(&mut self, mut other: Self) {
        self.clusters += std::mem::take(&mut other.clusters);
    }

    /// `clusters` of it were allocated.
    pub fn used(&mut self, clusters: u64) {
        debug_assert!(clusters <= self.clusters, "a handle takes no more than it was given");
        self.clusters = self.clusters.saturating_sub(clusters);
    }
}

impl Drop for SplitClaim {
    fn drop(&mut self) {
        self.allocator.give_from_splits(self.clusters);
    }
}

impl Allocator {
    fn take_for_splits(&self, clusters: u64) -> Result<()> {
        // Only what delayed data will need to be mapped is kept from it, and what lies in damaged groups is nobody's.
        let kept = self.condemned.load(Relaxed) + self.kept_leaves(0);
        let taken = self.unclaimed.fetch_update(Relaxed, Relaxed, |unclaimed| {
            unclaimed.checked_sub(clusters).filter(|left| clusters == 0 || *left >= kept)
        });
        taken.map_err(|_| Error::errno_only(errno::ENOSPC))?;
        self.claimed.fetch_add(clusters, Relaxed);
        Ok(())
    }

    fn give_from_splits(&self, clusters: u64) {
        let before = self.claimed.fetch_sub(clusters, Relaxed);
        debug_assert!(before >= clusters, "no claim is given back twice");
        self.unclaimed.fetch_add(clusters, Relaxed);
    }

    /// Clusters claimed now.
    pub fn claimed_clusters(&self) -> u64 {
        self.claimed.load(Relaxed)
    }
}
