//! Reading the tree.

use ext4_format::extent::{Entries, Extent, ROOT_SIZE};
use ext4_format::{Lblk, Pblk};

use super::path::{Node, Path};
use super::{MapState, Mapping, TreeOwner};
use crate::Result;
use crate::meta::Meta;

/// One past the last number a logical block can have.
const LBLK_END: u64 = 1 << 32;

/// What `lblk` has, and how far from there on that is so. A hole reaches to the next extent, or to 2^32 (but no length
/// is above 2^32−1). Extents of different leaves are different mappings even where they touch.
pub fn lookup(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner, lblk: Lblk) -> Result<Mapping> {
    let path = Path::find(meta, root, owner, lblk)?;
    let extents = path.extents();
    let next = extents.partition_point(|extent| extent.lblk <= lblk);
    if let Some(extent) = next.checked_sub(1).and_then(|at| extents.get(at))
        && extent.end() > u64::from(lblk.0)
    {
        let skip = lblk.0 - extent.lblk.0;
        let state = if extent.unwritten { MapState::Unwritten } else { MapState::Written };
        return Ok(Mapping {
            lblk,
            len: extent.len - skip,
            start: Pblk(extent.start.0 + u64::from(skip)),
            state,
        });
    }
    let end = match (extents.get(next), path.next_key()) {
        (Some(extent), _) => u64::from(extent.lblk.0),
        (None, Some(key)) => u64::from(key.0),
        (None, None) => LBLK_END,
    };
    let len = u32::try_from(end - u64::from(lblk.0)).unwrap_or(u32::MAX);
    Ok(Mapping { lblk, len, start: Pblk(0), state: MapState::Hole })
}

/// The first extent that ends after `lblk`, cut to begin there at the earliest; `None` when there is none.
pub fn next_allocated(
    meta: &dyn Meta,
    root: &[u8; ROOT_SIZE],
    owner: TreeOwner,
    lblk: Lblk,
) -> Result<Option<Mapping>> {
    let mut path = Path::find(meta, root, owner, lblk)?;
    loop {
        if let Some(extent) = path.extents().iter().find(|extent| extent.end() > u64::from(lblk.0)) {
            let skip = lblk.0.saturating_sub(extent.lblk.0);
            let rest = Extent {
                lblk: Lblk(extent.lblk.0 + skip),
                len: extent.len - skip,
                start: Pblk(extent.start.0 + u64::from(skip)),
                unwritten: extent.unwritten,
            };
            return Ok(Some(rest.into()));
        }
        match path.next_leaf(meta, owner)? {
            Some(next) => path = next,
            None => return Ok(None),
        }
    }
}

/// The last block of the last extent; `None` for an empty tree.
pub fn last_block(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner) -> Result<Option<Lblk>> {
    let mut path = Path::find(meta, root, owner, Lblk(u32::MAX))?;
    loop {
        if let Some(extent) = path.extents().last() {
            return Ok(Some(Lblk(extent.lblk.0 + (extent.len - 1))));
        }
        match path.previous_leaf(meta, owner)? {
            Some(previous) => path = previous,
            None => return Ok(None),
        }
    }
}

/// D11: where the block of `lblk` should go: beside the nearest extent, as far from it as logically; without one, at
/// the owner's goal.
pub fn goal(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner, lblk: Lblk) -> Result<Pblk> {
    let path = Path::find(meta, root, owner, lblk)?;
    let extents = path.extents();
    let before = extents.partition_point(|extent| extent.lblk <= lblk).saturating_sub(1);
    let near = extents.get(before).and_then(|extent| {
        let delta = i64::from(lblk.0) - i64::from(extent.lblk.0);
        extent.start.0.checked_add_signed(delta)
    });
    Ok(near.filter(|block| (1..owner.blocks).contains(block)).map_or(owner.goal, Pblk))
}

/// The depth of the tree: 0 when all extents are in the inode.
pub fn depth(root: &[u8; ROOT_SIZE], owner: TreeOwner) -> Result<u16> {
    Ok(Node::root(root, owner)?.depth)
}

/// How many blocks the tree itself takes (part of i_blocks). Reads every index node, and no leaf.
pub fn tree_blocks(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner) -> Result<u64> {
    let mut count = 0;
    let mut pending = vec![Node::root(root, owner)?];
    // Grows by one node's children at a time, and depth bounds it.
    while let Some(node) = pending.pop() {
        let Entries::Index(children) = &node.entries else { continue };
        count += children.len() as u64;
        if node.depth == 1 {
            continue;
        }
        for (at, child) in children.iter().enumerate() {
            let end = children.get(at + 1).map_or(node.end, |next| u64::from(next.lblk.0));
            pending.push(Node::read(meta, owner, *child, node.depth - 1, end)?);
        }
    }
    Ok(count)
}
