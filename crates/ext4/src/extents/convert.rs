//! D7: written and unwritten, on exactly the blocks named.

use ext4_format::extent::{Extent, MAX_UNWRITTEN_LEN};
use ext4_format::{Lblk, Pblk};

use super::path::Path;
use super::rewrite::spliced;
use super::{Progress, Tree, Zero, credits_for_convert, is_enospc};
use crate::error::errno;
use crate::{Error, Result};

/// An extent and the part of it that changes its state: what lies before, in and after the part.
struct Cut {
    path: Path,
    at: usize,
    left: Option<Extent>,
    part: Extent,
    right: Option<Extent>,
}

impl Cut {
    fn whole(&self) -> Extent {
        self.path.extents()[self.at]
    }

    fn pieces(&self) -> Vec<Extent> {
        self.left.into_iter().chain([self.part]).chain(self.right).collect()
    }
}

/// The blocks of `extent` from `from` to before `end`; `None` if there are none.
pub(super) fn slice(extent: &Extent, from: u64, end: u64) -> Option<Extent> {
    let from = from.max(extent.lblk.0.into());
    let end = end.min(extent.end());
    if from >= end {
        return None;
    }
    // Both lie within the extent, which lies within 32 bits.
    let skip = from - u64::from(extent.lblk.0);
    Some(Extent {
        lblk: Lblk(from as u32),
        len: (end - from) as u32,
        start: Pblk(extent.start.0 + skip),
        unwritten: extent.unwritten,
    })
}

impl Tree<'_> {
    /// Marks `len` blocks from `lblk` on as written: their data is valid. Blocks that are written stay so. Exactly these:
    /// data for others in the extent may be in flight.
    ///
    /// # Errors
    /// EIO if a block is not mapped at all; ENOSPC if there is no room for a split. What was converted before stays.
    pub fn convert_to_written(&mut self, lblk: Lblk, len: u32) -> Result<Progress> {
        self.convert(lblk, len, false, &mut |tree, cut| tree.replace(&cut, &cut.pieces()))
    }

    /// [`Tree::convert_to_written`] for a caller that excludes all other I/O.
    ///
    /// Where there is no room for a split, unwritten neighbours in the extent are zeroed and become written too, but those
    /// after the range only if the extent ends within `eof_block` (blocks that i_size needs) or the range (D7, D9).
    ///
    /// # Errors
    /// EIO if a block is not mapped at all; ENOSPC if neither a split nor zeroing is possible. What was converted before
    /// stays.
    pub fn convert_zeroing(
        &mut self,
        lblk: Lblk,
        len: u32,
        eof_block: u64,
        zero: &mut Zero<'_>,
    ) -> Result<Progress> {
        let may_reach = eof_block.max(u64::from(lblk.0) + u64::from(len));
        self.convert(lblk, len, false, &mut |tree, cut| tree.write_extent(cut, may_reach, zero))
    }

    /// Marks `len` blocks from `lblk` on as unwritten: they read as zeros from now on. Holes stay holes. Where there is no
    /// room for a split, the blocks are zeroed and their whole extent stays written (D7).
    pub fn convert_to_unwritten(&mut self, lblk: Lblk, len: u32, zero: &mut Zero<'_>) -> Result<Progress> {
        self.convert(lblk, len, true, &mut |tree, cut| tree.unwrite_extent(cut, zero))
    }

    fn convert(
        &mut self,
        lblk: Lblk,
        len: u32,
        unwritten: bool,
        step: &mut dyn FnMut(&mut Self, Cut) -> Result<()>,
    ) -> Result<Progress> {
        let mut from = u64::from(lblk.0);
        let end = (from + u64::from(len)).min(1 << 32);
        while from < end {
            // Below 2^32, as `end` says.
            let first = Lblk(from as u32);
            let path = Path::find(self.meta, self.root, self.owner, first)?;
            let extents = path.extents();
            let Some(at) = extents.iter().position(|e| u64::from(e.lblk.0) <= from && from < e.end()) else {
                if !unwritten {
                    return Err(Error::refused(errno::EIO, format!("logical block {first} is not mapped")));
                }
                from = super::next_allocated(self.meta, self.root, self.owner, first)?
                    .map_or(end, |next| u64::from(next.lblk.0));
                continue;
            };
            let whole = extents[at];
            let next = whole.end();
            if whole.unwritten != unwritten {
                if !self.meta.ensure_credits(credits_for_convert(path.depth()))? {
                    return Ok(Progress::More { from: first, to: Lblk((end - 1) as u32) });
                }
                let part = slice(&whole, from, end).expect("it holds `from`");
                let part = Extent { unwritten, ..part };
                let (left, right) = (slice(&whole, 0, from), slice(&whole, end, u64::MAX));
                self.touch(&whole);
                step(self, Cut { path, at, left, part, right })?;
            }
            from = next;
        }
        Ok(Progress::Done)
    }

    fn write_extent(&mut self, cut: Cut, may_reach: u64, zero: &mut Zero<'_>) -> Result<()> {
        let Err(error) = self.replace(&cut, &cut.pieces()) else { return Ok(()) };
        if !is_enospc(&error) {
            return Err(error);
        }
        // One entry less: the left edge need not be split off if it is zeroed.
        if let (Some(left), Some(right)) = (cut.left, cut.right) {
            zero(left.start, left.len)?;
            let written = Extent { len: left.len + cut.part.len, unwritten: false, ..left };
            match self.replace(&cut, &[written, right]) {
                Err(error) if is_enospc(&error) => {}
                done => return done,
            }
        }
        let whole = cut.whole();
        if whole.end() > may_reach {
            return Err(error);
        }
        // After a left edge with a right one the left has been zeroed above.
        if let (Some(left), None) = (cut.left, cut.right) {
            zero(left.start, left.len)?;
        }
        if let Some(right) = cut.right {
            zero(right.start, right.len)?;
        }
        self.replace(&cut, &[Extent { unwritten: false, ..whole }])
    }

    fn unwrite_extent(&mut self, cut: Cut, zero: &mut Zero<'_>) -> Result<()> {
        // D3: 32768 written blocks are one too many for one unwritten extent.
        let reach = u64::from(cut.part.lblk.0) + u64::from(MAX_UNWRITTEN_LEN);
        let parts = [slice(&cut.part, 0, reach), slice(&cut.part, reach, u64::MAX)];
        let pieces: Vec<_> =
            cut.left.into_iter().chain(parts.into_iter().flatten()).chain(cut.right).collect();
        match self.replace(&cut, &pieces) {
            Err(error) if is_enospc(&error) => zero(cut.part.start, cut.part.len),
            done => done,
        }
    }

    fn replace(&mut self, cut: &Cut, pieces: &[Extent]) -> Result<()> {
        let new = spliced(cut.path.extents(), cut.at..cut.at + 1, pieces, self.owner.apart);
        self.rewrite_leaf(cut.path.clone(), new)
    }
}
