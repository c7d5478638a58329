//! A directory without an index: every block is a leaf.

use crate::Result;

use super::{DirBlocks, DirParams, Found, NewEntry, block, htree};

pub(super) fn find(dir: &dyn DirBlocks, params: &DirParams, name: &[u8]) -> Result<Option<Found>> {
    let format = params.format(dir);
    for lblk in 0..dir.block_count() {
        let image = dir.read(lblk, false)?;
        let found = block::find(format, &image, lblk, name).map_err(|corrupt| params.corrupt(corrupt))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// F73: into the first block with room; else the only block becomes an index, or one more is appended.
pub(super) fn insert(dir: &mut dyn DirBlocks, params: &DirParams, new: NewEntry<'_>) -> Result<()> {
    let format = params.format(dir);
    for lblk in 0..dir.block_count() {
        let image = dir.read(lblk, false)?;
        let room =
            block::find_room(format, &image, new.name.len()).map_err(|corrupt| params.corrupt(corrupt))?;
        if let Some(offset) = room {
            return dir.update(lblk, false, &mut |bytes| block::add(format, bytes, offset, new));
        }
    }
    if dir.block_count() == 1 && params.dir_index {
        return htree::convert(dir, params, new);
    }
    append(dir, params, new)
}

/// Adds a block with one entry.
pub(crate) fn append(dir: &mut dyn DirBlocks, params: &DirParams, new: NewEntry<'_>) -> Result<()> {
    params.check_growth(dir, 1)?;
    let format = params.format(dir);
    dir.append(false, &mut |bytes| {
        format.init_leaf(bytes);
        block::add(format, bytes, 0, new);
    })?;
    Ok(())
}
