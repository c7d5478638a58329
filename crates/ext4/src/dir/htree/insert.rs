//! F71, F73: adding names to an index. Every step takes its new block first and is a valid index by itself.

use ext4_format::htree::{DxEntry, DxKind, RootInfo, init_node};

use crate::dir::{DirBlocks, DirParams, NewEntry, find_room_in_leaf, insert_into_leaf};
use crate::error::errno;
use crate::{Error, Result};

use super::cursor::{Cursor, Frame};
use super::leaf::Leaf;
use super::max_levels;

/// Adds a name that is not there.
pub(crate) fn insert(dir: &mut dyn DirBlocks, params: &DirParams, new: NewEntry<'_>) -> Result<()> {
    let format = params.format(dir);
    let mut cursor = Cursor::open(dir, params)?;
    let version = cursor.version;
    let hash = version.hash(&params.hash_seed, new.name).hash;
    cursor.seek(dir, hash)?;
    let lblk = cursor.leaf();
    let image = dir.read(lblk, false)?;
    let room =
        find_room_in_leaf(format, &image, new.name.len()).map_err(|corrupt| params.corrupt(corrupt))?;
    if let Some(offset) = room {
        return dir.update(lblk, false, &mut |bytes| insert_into_leaf(format, bytes, offset, new));
    }
    let leaf = Leaf::with_new(params, format, version, &image, new)?;
    if leaf.fits() {
        // Scattered slack. Positions of an index are hashes, so its names may move.
        return dir.update(lblk, false, &mut |bytes| leaf.write(bytes));
    }
    if !leaf.is_within(cursor.key(), cursor.next_key()) {
        return Err(params.damage("htree", format!("block {lblk} has a name of another block")));
    }
    make_room(dir, params, &mut cursor, hash)?;
    split_leaf(dir, params, &mut cursor, leaf)
}

/// Moves the upper names of the cursor's leaf to a new block. The index has room for its key.
fn split_leaf(
    dir: &mut dyn DirBlocks,
    params: &DirParams,
    cursor: &mut Cursor<'_>,
    leaf: Leaf,
) -> Result<()> {
    let halves = leaf.split();
    params.check_growth(dir, 1)?;
    let block = dir.append(false, &mut |bytes| halves.upper.write(bytes))?;
    dir.update(cursor.leaf(), false, &mut |bytes| halves.lower.write(bytes))?;
    let parent = cursor.frames.last_mut().expect("the root is always there");
    parent.entries.insert(parent.at + 1, DxEntry { hash: halves.key, block });
    write_entries(dir, params, parent)
}

/// Splits index blocks until the parent of the cursor's leaf has room for one more entry.
fn make_room<'a>(
    dir: &mut dyn DirBlocks,
    params: &'a DirParams,
    cursor: &mut Cursor<'a>,
    hash: u32,
) -> Result<()> {
    let format = params.format(dir);
    let has_room = |frame: &Frame| frame.entries.len() < frame.kind().limit(format);
    // Each round fills the level above or is the last for its level.
    while !has_room(cursor.frames.last().expect("the root is always there")) {
        match cursor.frames.iter().rposition(has_room) {
            Some(depth) => split_node(dir, params, &mut cursor.frames[depth..])?,
            None => add_level(dir, params, cursor)?,
        }
        *cursor = Cursor::open(dir, params)?;
        cursor.seek(dir, hash)?;
    }
    Ok(())
}

/// Moves the upper half of the second frame, a full node, to a new one, whose key goes to the first frame.
fn split_node(dir: &mut dyn DirBlocks, params: &DirParams, frames: &mut [Frame]) -> Result<()> {
    let [parent, node, ..] = frames else { unreachable!("a full block under one with room") };
    let upper = node.entries.split_off(node.entries.len() / 2);
    let block = append_node(dir, params, &upper)?;
    write_entries(dir, params, node)?;
    parent.entries.insert(parent.at + 1, DxEntry { hash: upper[0].hash, block });
    write_entries(dir, params, parent)
}

/// Moves the entries of a full root to a new node below it.
fn add_level(dir: &mut dyn DirBlocks, params: &DirParams, cursor: &Cursor<'_>) -> Result<()> {
    let indirect_levels = cursor.info.indirect_levels + 1;
    if u32::from(indirect_levels) >= max_levels(params.large_dir) {
        return Err(Error::refused(errno::ENOSPC, "the directory's index is full"));
    }
    let root = &cursor.frames[0];
    let block = append_node(dir, params, &root.entries)?;
    let (format, kind) = (params.format(dir), root.kind());
    dir.update(0, true, &mut |bytes| {
        RootInfo { indirect_levels, ..cursor.info }.encode(bytes);
        kind.encode(format, bytes, &[DxEntry { hash: 0, block }]);
    })
}

fn append_node(dir: &mut dyn DirBlocks, params: &DirParams, entries: &[DxEntry]) -> Result<u32> {
    params.check_growth(dir, 1)?;
    let format = params.format(dir);
    dir.append(true, &mut |bytes| {
        init_node(format, bytes);
        DxKind::Node.encode(format, bytes, entries);
    })
}

fn write_entries(dir: &mut dyn DirBlocks, params: &DirParams, frame: &Frame) -> Result<()> {
    let format = params.format(dir);
    dir.update(frame.lblk, true, &mut |bytes| frame.kind().encode(format, bytes, &frame.entries))
}
