//! Room for the splits of conversions: what becomes written inside an unwritten extent is split off, which may take tree
//! blocks when the data is on the device already (D7, D14).
//!
//! Whoever sends data to unwritten blocks first claims the blocks that its conversion may take, in memory, reserve
//! included. Without a claim a direct write has its range split off before any data leaves, under the exclusive lock, and
//! keeps it apart until it is converted; or it is ENOSPC. Nothing is ever zeroed beside I/O in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ext4_format::Lblk;
use ext4_format::extent::{ROOT_SIZE, capacity};
use iomap::{Address, Mapping as IoMapping};

use crate::credits::MAP_CREDITS;
use crate::extents::{self, Tree};
use crate::file::block_range;
use crate::fs::Fs;
use crate::inode::{Inode, MapRoot};
use crate::mballoc::{SplitClaim, Splitting};
use crate::{Result, errno};

/// Pieces of unwritten extents that were split off for I/O under way: while there are any, the tree merges no unwritten
/// neighbours.
pub(crate) struct Apart(Arc<Inode>);

impl Apart {
    fn new(inode: &Arc<Inode>) -> Self {
        inode.apart.fetch_add(1, Ordering::AcqRel);
        Self(inode.clone())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.0.apart.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a direct write into unwritten blocks holds until they are converted.
pub(crate) enum SplitRoom {
    /// The blocks that the conversion may take.
    Claimed(SplitClaim),
    /// Its range is split off already.
    Apart(#[expect(dead_code, reason = "held for its end")] Apart),
}

impl SplitRoom {
    pub fn splitting(&mut self) -> Splitting<'_> {
        match self {
            Self::Claimed(claim) => Splitting::Claimed(claim),
            Self::Apart(_) => Splitting::Reserve,
        }
    }
}

/// Tree blocks that splitting off one range may take at most: on each level a new half, and a new level. The first and
/// last extent of a longer range are split each.
fn blocks_for_range(depth: u16, extents: usize) -> u64 {
    (u64::from(depth) + 1) * extents.min(2) as u64
}

/// Tree blocks that inserting and splitting off `pages` blocks one by one may take at most: each adds two extents; a node
/// that is full at the first is half full after it.
fn blocks_for_pages(root: &[u8; ROOT_SIZE], depth: u16, pages: u64, block_size: usize) -> u64 {
    if pages == 0 {
        return 0;
    }
    let per_node = capacity(block_size).max(4) as u64;
    // eh_entries: with one level there are no more leaves than that.
    let entries = u64::from(u16::from_le_bytes([root[2], root[3]]));
    let full = match depth {
        0 => 0,
        1 => pages.min(entries),
        _ => pages,
    };
    let leaves = full + (4 * pages) / per_node;
    let inner = if depth >= 2 { full } else { 0 } + (2 * leaves) / per_node;
    leaves + inner + u64::from(depth) + 1
}

impl Fs {
    /// How many tree blocks so many dirty pages of a file may take, those over holes and unwritten blocks alike.
    pub(crate) fn blocks_for_pages(&self, inode: &Inode) -> Result<impl FnOnce(u64) -> u64 + use<>> {
        let (tree, block_size) = (self.tree_depth(inode)?, self.block_size());
        Ok(move |pages| tree.map_or(0, |(depth, root)| blocks_for_pages(&root, depth, pages, block_size)))
    }

    /// How many one conversion may take.
    pub(crate) fn blocks_for_conversion(&self, inode: &Inode) -> Result<u64> {
        Ok(self.tree_depth(inode)?.map_or(0, |(depth, _)| blocks_for_range(depth, 2)))
    }

    fn tree_depth(&self, inode: &Inode) -> Result<Option<(u16, [u8; ROOT_SIZE])>> {
        match inode.map_root() {
            MapRoot::Extents(root) => Ok(Some((extents::depth(&root, inode.tree_owner(self))?, root))),
            MapRoot::Indirect(_) => Ok(None),
        }
    }

    /// Claims what converting unwritten ones of `mappings` may take, from memory alone. `None`: nothing is unwritten.
    ///
    /// # Errors
    /// ENOSPC: the space is not there, not even in the reserve.
    pub(crate) fn claim_split(&self, inode: &Inode, mappings: &[IoMapping]) -> Result<Option<SplitRoom>> {
        let is_unwritten = |mapping: &&IoMapping| matches!(mapping.address, Address::Unwritten { .. });
        let unwritten = mappings.iter().filter(is_unwritten).count();
        if unwritten == 0 {
            return Ok(None);
        }
        let Some((depth, _)) = self.tree_depth(inode)? else { return Ok(None) };
        let mut claim = SplitClaim::none(self.allocator.clone());
        claim.resize(blocks_for_range(depth, unwritten))?;
        Ok(Some(SplitRoom::Claimed(claim)))
    }

    /// [`Fs::claim_split`], or the range split off at once. The caller holds the inode lock exclusive, and no data of the
    /// range is in flight.
    ///
    /// # Errors
    /// ENOSPC: neither is possible.
    pub(crate) fn room_to_convert(
        &self,
        inode: &Arc<Inode>,
        pos: u64,
        len: u64,
        mappings: &[IoMapping],
    ) -> Result<Option<SplitRoom>> {
        match self.claim_split(inode, mappings) {
            Err(error) if error.errno() == errno::ENOSPC => {}
            claimed => return claimed,
        }
        let blocks = block_range(self.block_size(), pos, len)?;
        let apart = Apart::new(inode);
        self.with_handle(MAP_CREDITS, |handle| {
            let _map = inode.map_lock.write();
            let MapRoot::Extents(mut root) = inode.map_root() else { return Ok(()) };
            handle.set_use_reserve(true);
            let mut tree = Tree::new(handle, &mut root, inode.tree_owner(self));
            let split = [blocks.start, blocks.end]
                .into_iter()
                .filter_map(|edge| u32::try_from(edge).ok())
                .try_for_each(|edge| tree.split_at(Lblk(edge)));
            let tree_blocks = tree.meta_blocks_delta;
            handle.set_use_reserve(false);
            handle.store_root(inode, root, tree_blocks)?;
            split
        })?;
        Ok(Some(SplitRoom::Apart(apart)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(entries: u16) -> [u8; ROOT_SIZE] {
        let mut root = [0; ROOT_SIZE];
        root[2..4].copy_from_slice(&entries.to_le_bytes());
        root
    }

    #[test]
    fn a_claim_covers_every_level() {
        assert_eq!(blocks_for_range(0, 1), 1);
        assert_eq!(blocks_for_range(3, 1), 4);
        assert_eq!(blocks_for_range(1, 5), 4);
    }

    #[test]
    fn pages_of_a_small_tree_claim_little() {
        assert_eq!(blocks_for_pages(&root(0), 0, 0, 4096), 0);
        assert_eq!(blocks_for_pages(&root(1), 0, 1, 4096), 1);
        assert_eq!(blocks_for_pages(&root(2), 1, 1, 4096), 3);
        assert!(blocks_for_pages(&root(1), 0, 16384, 4096) < 200);
        // One page in each of 500 full leaves splits each of them, and perhaps what is above.
        assert!(blocks_for_pages(&root(2), 2, 500, 4096) >= 1003);
    }
}
