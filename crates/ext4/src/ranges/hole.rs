//! FALLOC_FL_PUNCH_HOLE.

use std::sync::Arc;

use ext4_format::Lblk;

use crate::Result;
use crate::fs::Fs;
use crate::inode::Inode;

/// The kernel rounds what it punches behind i_size to its pages.
const PAGE_BYTES: u64 = 4096;

impl Fs {
    /// Frees the blocks wholly inside [pos, end), and zeroes the rest of it.
    pub(crate) fn punch_hole(&self, inode: &Arc<Inode>, pos: u64, end: u64) -> Result<()> {
        let block_size = self.block_size() as u64;
        let size = inode.size();
        if pos >= size {
            return Ok(());
        }
        // Preallocated blocks behind the end of the file stay, but for those of its last page.
        let end = if end > size { size.next_multiple_of(PAGE_BYTES.max(block_size)) } else { end };
        self.zero_partial_blocks(inode, pos, end)?;
        self.drop_cached(inode, pos, end)?;
        let (first, behind) = (pos.div_ceil(block_size), end / block_size);
        if first >= behind {
            return Ok(());
        }
        // Below i_size's block, or its page, and so within 32 bits.
        self.remove_range(inode, Lblk(first as u32), Lblk(u32::try_from(behind - 1).unwrap_or(u32::MAX)))
    }
}
