//! The extent tree of an inode on disk (D1–D7), as fs/ext4/extents.c: root in the inode, other nodes in blocks.
//!
//! Every change computes the nodes' new contents in memory, from a path that was read and validated as a whole, and
//! allocates what it needs, before the first block is changed. So an operation that fails for lack of space, or on a
//! damaged node, leaves the tree as it was.

mod convert;
mod insert;
mod lookup;
mod path;
mod remove;
mod rewrite;
mod shift;

#[cfg(test)]
mod tests;

use ext4_format::extent::{Extent, ROOT_SIZE};
use ext4_format::{Ino, Lblk, Pblk};

use crate::meta::{BlockKind, BlockOwner, Meta};
use crate::{Error, Result};

pub use lookup::{depth, goal, last_block, lookup, next_allocated, tree_blocks};

/// Whose tree it is, and what its nodes are checked against.
#[derive(Debug, Clone, Copy)]
pub struct TreeOwner {
    /// The inode.
    pub ino: Ino,
    /// The inode's checksum seed (F4).
    pub seed: u32,
    /// Where its blocks go when nothing better is known: the owner's group's first block (D11).
    pub goal: Pblk,
    /// Blocks of the volume; no entry may point beyond it.
    pub blocks: u64,
    /// Unwritten neighbours stay two extents: some were split off for I/O under way.
    pub apart: bool,
}

impl TreeOwner {
    fn kind(&self) -> BlockKind {
        BlockKind::ExtentNode { seed: self.seed }
    }

    fn block_owner(&self, goal: Pblk) -> BlockOwner {
        BlockOwner { ino: self.ino, goal, below_2_32: false }
    }
}

/// What a logical block has below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapState {
    /// Nothing.
    Hole,
    /// Blocks with data.
    Written,
    /// Blocks that read as zeros.
    Unwritten,
}

/// A run of logical blocks of one state, physically contiguous unless a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The first logical block: the one asked for.
    pub lblk: Lblk,
    /// Blocks from there on, at least 1.
    pub len: u32,
    /// The physical block of `lblk`; 0 for a hole.
    pub start: Pblk,
    /// Hole, written or unwritten.
    pub state: MapState,
}

impl Mapping {
    /// The first logical block after it.
    pub fn end(&self) -> u64 {
        u64::from(self.lblk.0) + u64::from(self.len)
    }
}

impl From<Extent> for Mapping {
    fn from(extent: Extent) -> Self {
        let state = if extent.unwritten { MapState::Unwritten } else { MapState::Written };
        Self { lblk: extent.lblk, len: extent.len, start: extent.start, state }
    }
}

/// How far an operation over a range came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// To the end.
    Done,
    /// The handle has no credits left. The tree is consistent; the caller restarts the handle and calls again with this
    /// range.
    More {
        /// First logical block still to do.
        from: Lblk,
        /// Last logical block still to do.
        to: Lblk,
    },
}

/// Zeroes data blocks on the device, before the metadata that calls them written may commit (D7). They are unwritten
/// neighbours in the tree: only who excludes all I/O to the file may have them zeroed.
pub type Zero<'z> = dyn FnMut(Pblk, u32) -> Result<()> + 'z;

/// A tree open for change within one handle. The caller stores `root` back into the inode, whatever the result, and adds
/// `meta_blocks_delta` and the data blocks to i_blocks (F50).
pub struct Tree<'a> {
    meta: &'a mut dyn Meta,
    root: &'a mut [u8; ROOT_SIZE],
    owner: TreeOwner,
    /// Tree blocks allocated less tree blocks freed so far.
    pub meta_blocks_delta: i64,
    /// Data blocks freed so far.
    pub data_blocks_freed: u64,
    /// First and last logical block of what has, or may have, changed its state so far, errors included. It may reach beyond
    /// the range asked for (D7): the caller drops it from the status cache whatever the result.
    pub changed: Option<(Lblk, Lblk)>,
}

impl<'a> Tree<'a> {
    /// `root` is i_block of an inode with the EXTENTS flag.
    pub fn new(meta: &'a mut dyn Meta, root: &'a mut [u8; ROOT_SIZE], owner: TreeOwner) -> Self {
        Self { meta, root, owner, meta_blocks_delta: 0, data_blocks_freed: 0, changed: None }
    }

    /// As the function [`lookup`].
    pub fn lookup(&self, lblk: Lblk) -> Result<Mapping> {
        lookup(self.meta, self.root, self.owner, lblk)
    }

    /// As the function [`goal`].
    pub fn goal(&self, lblk: Lblk) -> Result<Pblk> {
        goal(self.meta, self.root, self.owner, lblk)
    }

    /// As the function [`depth`].
    pub fn depth(&self) -> Result<u16> {
        depth(self.root, self.owner)
    }
}

impl Tree<'_> {
    fn touch(&mut self, extent: &Extent) {
        let last = Lblk(extent.lblk.0.saturating_add(extent.len.saturating_sub(1)));
        self.changed = Some(match self.changed {
            Some((from, to)) => (from.min(extent.lblk), to.max(last)),
            None => (extent.lblk, last),
        });
    }
}

/// Credits of one allocated or freed block: its bitmap and its group's descriptor.
const CREDITS_PER_BLOCK: u32 = 2;

/// Credits that one [`Tree::insert`] needs at most, for a tree of this depth (the inode's own block not counted): on each
/// level the node and its new half, and a new block below the root.
pub fn credits_for_insert(depth: u16) -> u32 {
    let levels = u32::from(depth);
    levels + (levels + 1) * (1 + CREDITS_PER_BLOCK)
}

/// Credits that each step of a conversion needs at most: one extent, whose split may be tried twice (D7).
pub fn credits_for_convert(depth: u16) -> u32 {
    2 * credits_for_insert(depth)
}

/// Credits that a step of [`Tree::remove`] needs at most, for `runs` runs of data. It revokes at most `depth` blocks (T9).
pub fn credits_for_remove(depth: u16, block_size: usize, runs: u32) -> u32 {
    // A bitmap is one block: a run of 32768 blocks may touch this many groups.
    let blocks_per_group = u32::try_from(block_size).unwrap_or(u32::MAX).saturating_mul(8).max(1);
    let groups = ext4_format::extent::MAX_WRITTEN_LEN / blocks_per_group + 2;
    credits_for_insert(depth).saturating_add(runs.saturating_mul(groups * CREDITS_PER_BLOCK))
}

fn is_enospc(error: &Error) -> bool {
    error.errno() == crate::error::errno::ENOSPC
}
