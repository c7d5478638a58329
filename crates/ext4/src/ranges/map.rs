//! What a range of a file lies on, as FIEMAP tells it.

use ext4_format::inode::flags;
use ext4_format::{Lblk, extent};

use crate::extents::{MapState, Mapping};
use crate::fs::Fs;
use crate::handle::Reader;
use crate::inode::Inode;
use crate::{Error, Result, errno};

/// One piece of a file that is more than a hole. Positions and lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeExtent {
    /// Where in the file.
    pub logical: u64,
    /// Where on the device; 0 while `delalloc`.
    pub physical: u64,
    /// How long.
    pub len: u64,
    /// It reads as zeros.
    pub unwritten: bool,
    /// In memory alone: it has no block yet.
    pub delalloc: bool,
    /// Nothing follows it in the file.
    pub last: bool,
    /// Inside the inode.
    pub inline: bool,
}

impl RangeExtent {
    fn end(&self) -> u64 {
        self.logical.saturating_add(self.len)
    }

    /// Whether `next` only goes on with it.
    fn continues(&self, next: &Self) -> bool {
        let states = |extent: &Self| (extent.unwritten, extent.delalloc, extent.inline);
        let touch = self.delalloc || self.physical + self.len == next.physical;
        self.end() == next.logical && touch && states(self) == states(next)
    }
}

impl Fs {
    /// The extents of the blocks that [pos, pos + len) touches, in order, adjacent ones as one; at most `limit` of them:
    /// whoever gets so many asks again from the end of the last. The caller holds the inode lock.
    ///
    /// # Errors
    /// EINVAL for an empty range; EFBIG for one that begins beyond the largest file;
    /// EOPNOTSUPP for data in a format that is not built.
    pub fn extents(&self, inode: &Inode, pos: u64, len: u64, limit: usize) -> Result<Vec<RangeExtent>> {
        self.check_alive()?;
        if len == 0 || limit == 0 {
            return Err(Error::errno_only(errno::EINVAL));
        }
        if pos > self.max_file_bytes() {
            return Err(Error::errno_only(errno::EFBIG));
        }
        if inode.has_flag(flags::INLINE_DATA) {
            return self.inline_extent(inode);
        }
        inode.check_data_supported()?;
        let block_size = self.block_size() as u64;
        let end = pos.saturating_add(len).div_ceil(block_size).min(u64::from(extent::MAX_LBLK));
        let mut found: Vec<RangeExtent> = Vec::new();
        let mut block = pos / block_size;
        while block < end {
            let Some(next) = self.next_piece(inode, block)? else { break };
            block = next.end() / block_size;
            let from = next.logical / block_size;
            if from >= end {
                return Ok(found);
            }
            let piece = RangeExtent { len: (block.min(end) - from) * block_size, ..next };
            if let Some(last) = found.last_mut().filter(|last| last.continues(&piece)) {
                last.len += piece.len;
            } else if found.len() == limit {
                return Ok(found);
            } else {
                found.push(piece);
            }
        }
        if self.next_piece(inode, block)?.is_none()
            && let Some(last) = found.last_mut()
        {
            last.last = true;
        }
        Ok(found)
    }

    /// The first piece that ends behind `block`, from `block` on: an extent, or dirty pages that wait for one.
    fn next_piece(&self, inode: &Inode, block: u64) -> Result<Option<RangeExtent>> {
        let block_size = self.block_size() as u64;
        let Ok(lblk) = u32::try_from(block).map(Lblk) else { return Ok(None) };
        let mapped = {
            let _map = inode.map_lock.read();
            let found = inode.map_root().next_allocated(&Reader(self), inode.tree_owner(self), lblk)?;
            found.map(|mapping| self.check_mapping(inode.ino, mapping)).transpose()?
        };
        let hole_end = mapped.map_or(u64::from(u32::MAX), |mapping| u64::from(mapping.lblk.0));
        let dirty = inode
            .pages
            .get()
            .filter(|_| hole_end > block)
            .and_then(|pages| pages.next_dirty(block * block_size, (hole_end - block) * block_size));
        Ok(match (dirty, mapped) {
            (Some(range), _) => Some(RangeExtent {
                logical: range.start,
                physical: 0,
                len: range.end - range.start,
                unwritten: false,
                delalloc: true,
                last: false,
                inline: false,
            }),
            (None, Some(mapping)) => Some(self.piece_of(&mapping)),
            (None, None) => None,
        })
    }

    fn piece_of(&self, mapping: &Mapping) -> RangeExtent {
        let block_size = self.block_size() as u64;
        RangeExtent {
            logical: u64::from(mapping.lblk.0) * block_size,
            physical: mapping.start.0 * block_size,
            len: u64::from(mapping.len) * block_size,
            unwritten: mapping.state == MapState::Unwritten,
            delalloc: false,
            last: false,
            inline: false,
        }
    }

    /// i_block, where the first bytes of inline data are.
    fn inline_extent(&self, inode: &Inode) -> Result<Vec<RangeExtent>> {
        const I_BLOCK: u64 = 0x28;
        let (block, offset) = self.allocator.inode_location(inode.ino)?;
        Ok(vec![RangeExtent {
            logical: 0,
            physical: block.0 * self.block_size() as u64 + offset as u64 + I_BLOCK,
            len: inode.size(),
            unwritten: false,
            delalloc: false,
            last: true,
            inline: true,
        }])
    }
}
