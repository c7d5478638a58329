//! Reading the map.

use ext4_format::extent::ROOT_SIZE;
use ext4_format::{Lblk, Pblk};

use super::path::{Path, Step};
use crate::Result;
use crate::extents::{MapState, Mapping, TreeOwner};
use crate::meta::Meta;

/// One past the last number a logical block can have.
const LBLK_END: u64 = 1 << 32;

/// What `lblk` has, and how far from there on that is so in the same table. Beyond the map there is a hole, to 2^32 (but no
/// length is above 2^32−1).
pub fn lookup(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner, lblk: Lblk) -> Result<Mapping> {
    let at = u64::from(lblk.0);
    let hole = |end: u64| {
        let len = u32::try_from(end.min(LBLK_END) - at).unwrap_or(u32::MAX);
        Mapping { lblk, len, start: Pblk(0), state: MapState::Hole }
    };
    let Some(path) = Path::find(meta, root, owner, at)? else { return Ok(hole(LBLK_END)) };
    let step = path.last();
    if step.entry() == 0 {
        return Ok(hole(end_of_hole(step)));
    }
    let (start, len) = (Pblk(step.entry().into()), run_length(step));
    step.table.check_blocks(meta, owner, start, len.into())?;
    Ok(Mapping { lblk, len, start, state: MapState::Written })
}

/// The first run that ends after `lblk`, from `lblk` on; `None` when there is none. Each round passes a whole hole of a table.
pub fn next_allocated(
    meta: &dyn Meta,
    root: &[u8; ROOT_SIZE],
    owner: TreeOwner,
    lblk: Lblk,
) -> Result<Option<Mapping>> {
    let mut at = lblk;
    loop {
        let found = lookup(meta, root, owner, at)?;
        if found.state != MapState::Hole {
            return Ok(Some(found));
        }
        match u32::try_from(found.end()) {
            Ok(end) => at = Lblk(end),
            Err(_) => return Ok(None),
        }
    }
}

/// Where the zero entries from this one on end; behind the whole map there is nothing any more.
fn end_of_hole(step: &Step) -> u64 {
    match (step.slot + 1..step.table.len()).find(|&slot| step.table.entry(slot) != 0) {
        Some(next) => step.table.span(next).first,
        None if step.table.block.is_none() => LBLK_END,
        None => step.table.span(step.table.len() - 1).end(),
    }
}

/// How many entries from this one on name blocks in a row.
fn run_length(step: &Step) -> u32 {
    let is_next = |slot: usize| {
        let ahead = (slot - step.slot) as u32;
        step.table.span(slot).height == 0 && step.entry().checked_add(ahead) == Some(step.table.entry(slot))
    };
    1 + (step.slot + 1..step.table.len()).take_while(|&slot| is_next(slot)).count() as u32
}

/// The last block that is mapped; `None` for an empty map.
pub fn last_block(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner) -> Result<Option<Lblk>> {
    let mut end = LBLK_END;
    loop {
        match Rightmost::find(meta, root, owner, 0, end)? {
            Rightmost::Block(path) => return Ok(Some(Lblk(path.last().span().first as u32))),
            Rightmost::EmptyTable(path) => end = path.last().table.first(),
            Rightmost::Nothing => return Ok(None),
        }
    }
}

/// What lies at the right end of a range of the map.
pub(super) enum Rightmost {
    /// The path to the last block.
    Block(Path),
    /// The path into a table that points nowhere, which we do not leave behind but may find.
    EmptyTable(Path),
    /// Nothing is mapped.
    Nothing,
}

impl Rightmost {
    /// The last block from `from` on and before `end`. It ends: each round looks further left.
    pub fn find(
        meta: &dyn Meta,
        root: &[u8; ROOT_SIZE],
        owner: TreeOwner,
        from: u64,
        end: u64,
    ) -> Result<Self> {
        let mut end = end.min(ext4_format::block_map::Shape::new(meta.block_size()).end());
        while from < end {
            let Some(mut path) = Path::find(meta, root, owner, end - 1)? else { break };
            let step = path.steps.last_mut().expect("a path has a root");
            if step.entry() != 0 {
                return Ok(Self::Block(path));
            }
            let table = &step.table;
            let low = table.slot(from.max(table.first())).unwrap_or(0);
            match (low..step.slot).rev().find(|&slot| table.entry(slot) != 0) {
                Some(slot) if table.span(slot).height == 0 => {
                    step.slot = slot;
                    return Ok(Self::Block(path));
                }
                Some(slot) => end = table.span(slot).end(),
                None if table.block.is_some() && table.is_empty_but(0..=0) && table.entry(0) == 0 => {
                    return Ok(Self::EmptyTable(path));
                }
                None => end = table.first(),
            }
        }
        Ok(Self::Nothing)
    }
}

/// D11: where the block of `lblk` should go: behind the nearest block before it in its table, as far as logically; without
/// one, behind the table; for the first blocks of a file, at the owner's goal.
pub fn goal(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner, lblk: Lblk) -> Result<Pblk> {
    let at = u64::from(lblk.0);
    let Some(path) = Path::find(meta, root, owner, at)? else { return Ok(owner.goal) };
    let step = path.last();
    let before = (0..step.slot).rev().find(|&slot| step.table.entry(slot) != 0).and_then(|slot| {
        let span = step.table.span(slot);
        // A table before a hole tells nothing about where data goes, but it is near.
        let distance = if span.height == 0 { at - span.first } else { 1 };
        u64::from(step.table.entry(slot)).checked_add(distance)
    });
    let near = before.or_else(|| step.table.block.map(|block| block.0 + 1));
    Ok(near.filter(|block| (1..owner.blocks).contains(block)).map_or(owner.goal, Pblk))
}
