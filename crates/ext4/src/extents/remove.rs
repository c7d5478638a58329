//! Truncation and hole punching.

use ext4_format::Lblk;
use ext4_format::extent::Extent;

use super::convert::slice;
use super::path::Path;
use super::rewrite::spliced;
use super::{Progress, Tree, credits_for_remove};
use crate::Result;

/// How many runs one step frees at most; each wants credits of its own.
const RUNS_PER_STEP: usize = 16;

impl Tree<'_> {
    /// Unmaps the blocks `from` to `to`, both included, from right to left, and frees their data and the nodes that become
    /// empty. An extent that reaches over both ends is split.
    ///
    /// Each step asks for [`credits_for_remove`] credits; without them the answer is [`Progress::More`].
    ///
    /// # Errors
    /// ENOSPC if the split of an extent needs a node; the tree is then consistent, and what was removed stays removed.
    pub fn remove(&mut self, from: Lblk, to: Lblk) -> Result<Progress> {
        let mut end = u64::from(to.0) + 1;
        while u64::from(from.0) < end {
            // Above `from`, at most 2^32.
            let last = Lblk((end - 1) as u32);
            let mut path = Path::find(self.meta, self.root, self.owner, last)?;
            // Empty leaves, which we do not write but may find, are passed over.
            while path.extents().is_empty() {
                match path.previous_leaf(self.meta, self.owner)? {
                    Some(previous) => path = previous,
                    None => return Ok(Progress::Done),
                }
            }
            end = match self.remove_in_leaf(path, u64::from(from.0), end)? {
                Step::NoCredits => return Ok(Progress::More { from, to: last }),
                Step::NothingLeft => return Ok(Progress::Done),
                Step::Removed { down_to } => down_to.0.into(),
            };
        }
        Ok(Progress::Done)
    }

    /// One step: the last few extents of one leaf between `from` and before `end`.
    fn remove_in_leaf(&mut self, path: Path, from: u64, end: u64) -> Result<Step> {
        let extents = path.extents();
        let low = extents.partition_point(|extent| extent.end() <= from);
        let high = extents.partition_point(|extent| u64::from(extent.lblk.0) < end);
        // Extents ascend: if none of this leaf overlaps the range, none of an earlier one does.
        if low >= high {
            return Ok(Step::NothingLeft);
        }
        let Some(runs) = self.affordable_runs(path.depth(), high - low)? else { return Ok(Step::NoCredits) };
        let low = high - runs;
        let gone: Vec<_> = extents[low..high].iter().filter_map(|extent| slice(extent, from, end)).collect();
        let left = slice(&extents[low], 0, from);
        let right = slice(&extents[high - 1], end, u64::MAX);
        let down_to = extents[low].lblk;
        let kept: Vec<Extent> = left.into_iter().chain(right).collect();
        let new = spliced(extents, low..high, &kept, self.owner.apart);
        gone.iter().for_each(|run| self.touch(run));
        // Unmapped first: an error in between then loses space rather than sharing it.
        self.rewrite_leaf(path, new)?;
        for run in gone.iter().rev() {
            self.meta.free_data(run.start, run.len, self.owner.ino)?;
            self.data_blocks_freed += u64::from(run.len);
        }
        Ok(Step::Removed { down_to })
    }

    /// How many of `runs` the handle has credits for; `None` if not even for one.
    fn affordable_runs(&mut self, depth: u16, runs: usize) -> Result<Option<usize>> {
        let block_size = self.meta.block_size();
        for runs in [runs.min(RUNS_PER_STEP), 1] {
            if self.meta.ensure_credits(credits_for_remove(depth, block_size, runs as u32))? {
                return Ok(Some(runs));
            }
        }
        Ok(None)
    }
}

enum Step {
    NoCredits,
    NothingLeft,
    /// Nothing of the range is left from here on.
    Removed {
        down_to: Lblk,
    },
}
