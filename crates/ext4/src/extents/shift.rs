//! Moving extents to other logical blocks: what collapses a range or makes room for one.
//!
//! A step moves one leaf, and its ancestors' keys with it; between two steps the tree is consistent, with a hole of the
//! shift's length where the moved extents and the others part.

use ext4_format::Lblk;
use ext4_format::extent::{Extent, MAX_LBLK};

use super::convert::slice;
use super::path::Path;
use super::rewrite::spliced;
use super::{MapState, Progress, Tree, credits_for_insert};
use crate::error::errno;
use crate::{Error, Result};

impl Tree<'_> {
    /// Makes `at` the beginning of an extent, if it lies inside one. Needs [`credits_for_insert`].
    ///
    /// # Errors
    /// ENOSPC without room for a node; the tree is unchanged.
    pub fn split_at(&mut self, at: Lblk) -> Result<()> {
        let path = Path::find(self.meta, self.root, self.owner, at)?;
        let extents = path.extents();
        let Some(index) =
            extents.iter().position(|extent| extent.lblk < at && extent.end() > u64::from(at.0))
        else {
            return Ok(());
        };
        let whole = extents[index];
        let halves = [slice(&whole, 0, at.0.into()), slice(&whole, at.0.into(), u64::MAX)];
        // As they are: merged, they would be one again.
        let mut new = extents.to_vec();
        new.splice(index..=index, halves.into_iter().flatten());
        self.rewrite_leaf(path, new)
    }

    /// Moves everything from `from` on down by `by` blocks, from left to right. After [`Progress::More`] the caller goes
    /// on with its `from`.
    ///
    /// # Errors
    /// EINVAL unless the `by` blocks before `from` are a hole; the tree is unchanged.
    pub fn shift_left(&mut self, from: Lblk, by: u32) -> Result<Progress> {
        let target = from.0.checked_sub(by).filter(|_| by > 0).ok_or(Error::errno_only(errno::EINVAL))?;
        let gap = self.lookup(Lblk(target))?;
        if gap.state != MapState::Hole || gap.len < by {
            return Err(Error::refused(errno::EINVAL, format!("logical block {target} is mapped")));
        }
        let mut from = from;
        loop {
            let mut path = Path::find(self.meta, self.root, self.owner, from)?;
            let mut low = first_from(&path, from);
            while low == path.extents().len() {
                match path.next_leaf(self.meta, self.owner)? {
                    Some(next) => path = next,
                    None => return Ok(Progress::Done),
                }
                low = first_from(&path, from);
            }
            if !self.meta.ensure_credits(credits_for_insert(path.depth()))? {
                return Ok(Progress::More { from, to: Lblk(u32::MAX) });
            }
            let extents = path.extents();
            // An extent ends within 32 bits, MAX_LBLK.
            let next = Lblk(extents[extents.len() - 1].end() as u32);
            let moved: Vec<_> =
                extents[low..].iter().map(|e| Extent { lblk: Lblk(e.lblk.0 - by), ..*e }).collect();
            let new = spliced(extents, low..extents.len(), &moved, self.owner.apart);
            self.rewrite_leaf(path, new)?;
            from = next;
        }
    }

    /// Moves everything from `from` to `to` up by `by` blocks, from right to left. No extent may begin before `from` and
    /// reach over it: see [`Tree::split_at`]. After [`Progress::More`] the caller goes on with its `to`.
    ///
    /// # Errors
    /// EINVAL if the last extent would end beyond the largest block number; the tree is unchanged.
    pub fn shift_right(&mut self, from: Lblk, to: Lblk, by: u32) -> Result<Progress> {
        let mut end = u64::from(to.0) + 1;
        while u64::from(from.0) < end {
            // Above `from`, at most 2^32.
            let last = Lblk((end - 1) as u32);
            let mut path = Path::find(self.meta, self.root, self.owner, last)?;
            while path.extents().is_empty() {
                match path.previous_leaf(self.meta, self.owner)? {
                    Some(previous) => path = previous,
                    None => return Ok(Progress::Done),
                }
            }
            let extents = path.extents();
            let low = first_from(&path, from);
            let high = extents.partition_point(|extent| u64::from(extent.lblk.0) < end);
            if low >= high {
                return Ok(Progress::Done);
            }
            if extents[high - 1].end() + u64::from(by) > u64::from(MAX_LBLK) {
                return Err(Error::refused(errno::EINVAL, "beyond the largest block of a file"));
            }
            if !self.meta.ensure_credits(credits_for_insert(path.depth()))? {
                return Ok(Progress::More { from, to: last });
            }
            end = extents[low].lblk.0.into();
            let moved: Vec<_> =
                extents[low..high].iter().map(|e| Extent { lblk: Lblk(e.lblk.0 + by), ..*e }).collect();
            let new = spliced(extents, low..high, &moved, self.owner.apart);
            self.rewrite_leaf(path, new)?;
        }
        Ok(Progress::Done)
    }
}

/// The index of the leaf's first extent that begins at `from` or later.
fn first_from(path: &Path, from: Lblk) -> usize {
    path.extents().partition_point(|extent| extent.lblk < from)
}
