//! F63–F77: names in a directory, whether it is a list of blocks or indexed by hash (htree).
//!
//! Written against [`DirBlocks`] alone. A change that runs out of space leaves a valid directory: space comes first.

mod block;
mod htree;
mod linear;
mod list;

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use ext4_format::dirent::{DirFormat, NAME_MAX};
use ext4_format::hash::HashVersion;
use ext4_format::{Corrupt, Ino};

use crate::error::errno;
use crate::meta::Image;
use crate::{Error, Result};

pub use list::{END_POSITION, Listed, list};

pub(crate) use block::{
    add as insert_into_leaf, find as find_in_leaf, find_room as find_room_in_leaf, write_dots,
};
pub(crate) use linear::append as append_linear;

/// The blocks of one directory, by logical number, within a running handle.
///
/// `index` says what a block is: an htree root or node (F70), or else a leaf (F66). Block 0 changes from a leaf to
/// a root once, when the directory becomes indexed: in an `update` with `index` set, after which the block must be
/// sealed as an index block.
pub trait DirBlocks {
    /// Block size in bytes.
    fn block_size(&self) -> usize;

    /// i_size in blocks.
    fn block_count(&self) -> u32;

    /// A block below [`Self::block_count`], its checksum verified for its kind.
    fn read(&self, lblk: u32, index: bool) -> Result<Image>;

    /// Changes a block; what it is from now on says `index`. `change` runs once.
    fn update(&mut self, lblk: u32, index: bool, change: &mut dyn FnMut(&mut [u8])) -> Result<()>;

    /// Allocates the block after the last one and raises i_size; `fill` gets zeros. On failure (ENOSPC) the
    /// directory is as it was.
    fn append(&mut self, index: bool, fill: &mut dyn FnMut(&mut [u8])) -> Result<u32>;

    /// EXT4_INDEX_FL.
    fn indexed(&self) -> bool;

    /// Sets EXT4_INDEX_FL.
    fn set_indexed(&mut self, on: bool) -> Result<()>;
}

/// What the superblock says about directories, and the inode number of this one.
#[derive(Debug, Clone, Copy)]
pub struct DirParams {
    /// metadata_csum.
    pub has_csum: bool,
    /// The filetype feature.
    pub filetype: bool,
    /// The dir_index feature.
    pub dir_index: bool,
    /// The large_dir feature: three levels of index, more than 2 GiB.
    pub large_dir: bool,
    /// F74: s_def_hash_version, for directories that become indexed, and the sign of chars, for all.
    pub hash_version: HashVersion,
    /// s_hash_seed as four little-endian words.
    pub hash_seed: [u32; 4],
    /// The directory.
    pub self_ino: Ino,
}

impl DirParams {
    /// The format of the blocks of `dir`.
    pub fn format(&self, dir: &dyn DirBlocks) -> DirFormat {
        self.format_of(dir.block_size())
    }

    fn format_of(&self, block_size: usize) -> DirFormat {
        DirFormat { block_size, filetype: self.filetype, has_csum: self.has_csum }
    }

    /// Damage in this directory.
    pub(crate) fn corrupt(&self, corrupt: Corrupt) -> Error {
        Error::corrupt_inode(self.self_ino.0, corrupt)
    }

    /// A broken rule in this directory.
    pub(crate) fn damage(&self, what: &'static str, detail: impl Into<String>) -> Error {
        self.corrupt(Corrupt::structure(what, detail))
    }

    /// ENOSPC if the directory may not have another block (F60; block numbers have 28 bits, F68).
    pub(crate) fn check_growth(&self, dir: &dyn DirBlocks, blocks: u32) -> Result<()> {
        let grown = u64::from(dir.block_count()) + u64::from(blocks);
        let too_long = !self.large_dir && grown * dir.block_size() as u64 > 1 << 31;
        if too_long || grown > u64::from(ext4_format::htree::BLOCK_MASK) {
            return Err(Error::refused(errno::ENOSPC, "the directory cannot grow"));
        }
        Ok(())
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its inode.
    pub ino: Ino,
    /// One of [`ext4_format::dirent::file_type`]; 0 if the volume does not store it.
    pub file_type: u8,
    /// The block that holds the entry.
    pub lblk: u32,
}

/// Most blocks of the directory that one [`insert`] changes: the root, two halves of a node at each level below it,
/// two halves of a leaf. What the inode, the allocator and the extent tree change for [`appends_for_insert`] blocks
/// comes on top.
pub const fn credits_for_insert(large_dir: bool) -> u32 {
    2 * htree::max_levels(large_dir) + 1
}

/// Most blocks that one [`insert`] appends.
pub const fn appends_for_insert(large_dir: bool) -> u32 {
    htree::max_levels(large_dir)
}

/// Blocks that [`remove`] and [`replace`] change.
pub const CREDITS_FOR_CHANGE: u32 = 1;

/// Finds a name; also "." and "..".
pub fn lookup(dir: &dyn DirBlocks, params: &DirParams, name: &[u8]) -> Result<Option<Entry>> {
    Ok(locate(dir, params, name)?.map(|found| found.entry))
}

/// Adds a name: EEXIST if it is there, ENOSPC without room, ENAMETOOLONG, EINVAL.
pub fn insert(
    dir: &mut dyn DirBlocks,
    params: &DirParams,
    name: &[u8],
    ino: Ino,
    file_type: u8,
) -> Result<()> {
    assert_ne!(ino.0, 0);
    if locate(dir, params, name)?.is_some() {
        return Err(Error::errno_only(errno::EEXIST));
    }
    let new = NewEntry { name, ino, file_type };
    if dir.indexed() { htree::insert(dir, params, new) } else { linear::insert(dir, params, new) }
}

/// F65: removes a name and says what it stood for: ENOENT without it, EINVAL for "." and "..".
pub fn remove(dir: &mut dyn DirBlocks, params: &DirParams, name: &[u8]) -> Result<Entry> {
    if is_dot(name) {
        return Err(Error::errno_only(errno::EINVAL));
    }
    let found = locate(dir, params, name)?.ok_or_else(|| Error::errno_only(errno::ENOENT))?;
    let format = params.format(dir);
    dir.update(found.entry.lblk, false, &mut |bytes| block::remove(format, bytes, &found))?;
    Ok(found.entry)
}

/// Makes an existing name stand for another inode (".." of a moved directory, the target of a rename) and says what
/// it stood for. ENOENT without it.
pub fn replace(
    dir: &mut dyn DirBlocks,
    params: &DirParams,
    name: &[u8],
    ino: Ino,
    file_type: u8,
) -> Result<Entry> {
    assert_ne!(ino.0, 0);
    let found = locate(dir, params, name)?.ok_or_else(|| Error::errno_only(errno::ENOENT))?;
    let format = params.format(dir);
    let index = dir.indexed() && found.entry.lblk == 0;
    dir.update(found.entry.lblk, index, &mut |bytes| {
        format.set_target(bytes, found.offset, ino, file_type);
    })?;
    Ok(found.entry)
}

/// F65: makes `block` the first block of a new directory.
pub fn init_block(params: &DirParams, block: &mut [u8], parent: Ino) {
    let format = params.format_of(block.len());
    format.init_leaf(block);
    block::write_dots(format, block, params.self_ino, parent, format.records_end());
}

/// Whether the directory has no names but "." and "..".
pub fn is_empty(dir: &dyn DirBlocks, params: &DirParams) -> Result<bool> {
    let format = params.format(dir);
    if dir.indexed() {
        return htree::is_empty(dir, params);
    }
    dots(dir, params)?;
    for lblk in 0..dir.block_count() {
        let image = dir.read(lblk, false)?;
        for record in format.records(&image) {
            let record = record.map_err(|corrupt| params.corrupt(corrupt))?;
            if record.ino.0 != 0 && !is_dot(record.name) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// F65: the inode that ".." stands for.
pub fn parent(dir: &dyn DirBlocks, params: &DirParams) -> Result<Ino> {
    Ok(dots(dir, params)?[1].entry.ino)
}

/// A name to be added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEntry<'a> {
    pub name: &'a [u8],
    pub ino: Ino,
    pub file_type: u8,
}

/// An entry and where its record is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub entry: Entry,
    /// Of the record in its block, in bytes.
    pub offset: usize,
    /// Of the record before it in the block.
    pub previous: Option<usize>,
}

pub(crate) fn is_dot(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::errno_only(errno::ENAMETOOLONG));
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(Error::refused(errno::EINVAL, "not a file name"));
    }
    Ok(())
}

fn locate(dir: &dyn DirBlocks, params: &DirParams, name: &[u8]) -> Result<Option<Found>> {
    check_name(name)?;
    match name {
        b"." => Ok(Some(dots(dir, params)?[0])),
        b".." => Ok(Some(dots(dir, params)?[1])),
        _ if dir.indexed() => htree::find(dir, params, name),
        _ => linear::find(dir, params, name),
    }
}

/// F65: "." and "..", which lead block 0 of either form.
pub(crate) fn dots(dir: &dyn DirBlocks, params: &DirParams) -> Result<[Found; 2]> {
    if dir.block_count() == 0 {
        return Err(params.damage("directory", "without blocks"));
    }
    let format = params.format(dir);
    let image = dir.read(0, dir.indexed())?;
    let decode = |offset, name: &[u8], previous: Option<usize>| {
        let record = format.decode(&image, offset, format.block_size).map_err(|e| params.corrupt(e))?;
        if record.name != name || record.ino.0 == 0 || (previous.is_none() && record.rec_len != 12) {
            return Err(
                params.damage("directory", format!("does not start with \"{}\"", name.escape_ascii()))
            );
        }
        let entry = Entry { ino: record.ino, file_type: record.file_type, lblk: 0 };
        Ok(Found { entry, offset, previous })
    };
    Ok([decode(0, b".", None)?, decode(12, b"..", Some(0))?])
}
