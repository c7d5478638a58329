//! What the dirty pages of one file have claimed for the splits of their conversions.

use std::sync::Arc;

use crate::Result;
use crate::mballoc::{Allocator, SplitClaim};

/// Pages whose blocks are delayed or unwritten, and one claim for all of them.
pub(crate) struct PageSplits {
    pages: u64,
    claim: SplitClaim,
    /// What of the claim conversions under way have in their hands.
    lent: u64,
}

impl PageSplits {
    /// No page.
    pub fn new(allocator: Arc<Allocator>) -> Self {
        Self { pages: 0, claim: SplitClaim::none(allocator), lent: 0 }
    }

    /// So many more pages; `need` says how many clusters that makes for all.
    ///
    /// # Errors
    /// ENOSPC: not even the reserve has them; nothing has changed.
    pub fn add(&mut self, pages: u64, need: impl FnOnce(u64) -> u64) -> Result<()> {
        let needed = need(self.pages + pages);
        if needed > self.claim.clusters() + self.lent {
            self.claim.resize(needed - self.lent)?;
        }
        self.pages += pages;
        Ok(())
    }

    /// So many fewer.
    pub fn remove(&mut self, pages: u64, need: impl FnOnce(u64) -> u64) {
        self.pages = self.pages.saturating_sub(pages);
        let kept = need(self.pages).saturating_sub(self.lent);
        if kept < self.claim.clusters() {
            let _smaller = self.claim.resize(kept);
        }
    }

    /// What one conversion may take of the claim, `most` clusters, until [`PageSplits::take_back`].
    pub fn lend(&mut self, most: u64) -> SplitClaim {
        let lent = self.claim.split_off(most);
        self.lent += lent.clusters();
        lent
    }

    /// The conversion to which so many clusters were lent is over.
    pub fn take_back(&mut self, lent: u64, rest: SplitClaim) {
        self.lent = self.lent.saturating_sub(lent);
        self.claim.join(rest);
    }
}
