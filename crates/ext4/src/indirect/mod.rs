//! The block map of an inode without extents (F54), as fs/ext4/indirect.c: i_block, and tables of block numbers in up to
//! three levels below it. It knows no unwritten blocks: what is mapped is readable.
//!
//! A change reads and checks the way to its table, and allocates what it needs, before the first block is changed. So an
//! operation that fails for lack of space, or on a damaged table, leaves the map as it was.

mod insert;
mod lookup;
mod path;
mod remove;

#[cfg(test)]
mod tests;

use ext4_format::block_map::Shape;
use ext4_format::extent::ROOT_SIZE;
use ext4_format::{Lblk, Pblk};

use crate::Result;
use crate::extents::{Mapping, TreeOwner};
use crate::meta::Meta;

pub use lookup::{goal, last_block, lookup, next_allocated};

/// Tables that one block may need of its own: at three levels.
pub(crate) const MAX_TABLES: u64 = 3;

/// A map open for change within one handle. The caller stores `root` back into the inode, whatever the result, and adds
/// `meta_blocks_delta` and the data blocks to i_blocks (F50).
pub struct BlockMap<'a> {
    meta: &'a mut dyn Meta,
    root: &'a mut [u8; ROOT_SIZE],
    owner: TreeOwner,
    /// Tables allocated less tables freed so far.
    pub meta_blocks_delta: i64,
    /// Data blocks freed so far.
    pub data_blocks_freed: u64,
}

impl<'a> BlockMap<'a> {
    /// `root` is i_block of an inode without the EXTENTS flag that has a map.
    pub fn new(meta: &'a mut dyn Meta, root: &'a mut [u8; ROOT_SIZE], owner: TreeOwner) -> Self {
        Self { meta, root, owner, meta_blocks_delta: 0, data_blocks_freed: 0 }
    }

    fn shape(&self) -> Shape {
        Shape::new(self.meta.block_size())
    }

    /// As the function [`lookup`].
    pub fn lookup(&self, lblk: Lblk) -> Result<Mapping> {
        lookup(self.meta, self.root, self.owner, lblk)
    }

    /// As the function [`goal`].
    pub fn goal(&self, lblk: Lblk) -> Result<Pblk> {
        goal(self.meta, self.root, self.owner, lblk)
    }
}

/// Blocks from `lblk` on that one [`BlockMap::insert`] can take: those of its table. `None` beyond the map.
pub fn room(block_size: usize, lblk: Lblk) -> Option<u32> {
    Shape::new(block_size).room(lblk.0.into()).map(|room| room as u32)
}

/// Credits of one allocated or freed block: its bitmap and its group's descriptor.
const CREDITS_PER_BLOCK: u32 = 2;

/// Tables between the root and a block, at most.
const HEIGHT: u32 = ext4_format::block_map::MAX_HEIGHT;

/// Credits that one [`BlockMap::insert`] needs at most (the inode's own block not counted): the new tables, and the one that
/// points to them.
pub fn credits_for_insert() -> u32 {
    HEIGHT * (1 + CREDITS_PER_BLOCK) + 1
}

/// Credits that a step of [`BlockMap::remove`] needs at most, for `runs` runs of data. It revokes at most three tables (T9).
pub fn credits_for_remove(runs: u32) -> u32 {
    // A table's blocks in one run touch at most two groups, whose bitmaps are 32 times as long.
    1 + HEIGHT * CREDITS_PER_BLOCK + runs.saturating_mul(2 * CREDITS_PER_BLOCK)
}
