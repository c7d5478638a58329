//! The blocks of a directory, for reading and within a handle.

use std::sync::Arc;

use ext4_format::inode::flags;
use ext4_format::{Corrupt, Lblk};

use crate::dir::DirBlocks;
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::meta::{BlockKind, Image, Meta};
use crate::{Error, Result, errno};

fn kind(inode: &Inode, index: bool) -> BlockKind {
    if index { BlockKind::DirIndex { seed: inode.seed } } else { BlockKind::DirLeaf { seed: inode.seed } }
}

fn block_count(fs: &Fs, inode: &Inode) -> u32 {
    (inode.size() / fs.block_size() as u64).min(u64::from(u32::MAX)) as u32
}

/// A block of a directory, by its number in it. EUCLEAN beyond the directory's size.
fn read(fs: &Fs, inode: &Inode, lblk: u32, index: bool) -> Result<Image> {
    if lblk >= block_count(fs, inode) {
        let corrupt = Corrupt::structure("directory", format!("block {lblk} is beyond its size"));
        return Err(Error::corrupt_inode(inode.ino.0, corrupt));
    }
    let block = fs.map_metadata_block(inode, Lblk(lblk))?;
    fs.read_metadata(block, kind(inode, index))
}

/// A directory that is only read.
pub(crate) struct DirReader<'f> {
    pub fs: &'f Fs,
    pub inode: &'f Arc<Inode>,
}

impl DirBlocks for DirReader<'_> {
    fn block_size(&self) -> usize {
        self.fs.block_size()
    }

    fn block_count(&self) -> u32 {
        block_count(self.fs, self.inode)
    }

    fn read(&self, lblk: u32, index: bool) -> Result<Image> {
        read(self.fs, self.inode, lblk, index)
    }

    fn update(&mut self, _lblk: u32, _index: bool, _change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        Err(Error::errno_only(errno::EROFS))
    }

    fn append(&mut self, _index: bool, _fill: &mut dyn FnMut(&mut [u8])) -> Result<u32> {
        Err(Error::errno_only(errno::EROFS))
    }

    fn indexed(&self) -> bool {
        self.inode.has_flag(flags::INDEX)
    }

    fn set_indexed(&mut self, _on: bool) -> Result<()> {
        Err(Error::errno_only(errno::EROFS))
    }
}

/// A directory that a handle changes.
pub(crate) struct DirFile<'d, 'f> {
    pub handle: &'d mut Handle<'f>,
    pub inode: &'d Arc<Inode>,
}

impl DirBlocks for DirFile<'_, '_> {
    fn block_size(&self) -> usize {
        self.handle.fs().block_size()
    }

    fn block_count(&self) -> u32 {
        block_count(self.handle.fs(), self.inode)
    }

    fn read(&self, lblk: u32, index: bool) -> Result<Image> {
        read(self.handle.fs(), self.inode, lblk, index)
    }

    fn update(&mut self, lblk: u32, index: bool, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let block = self.handle.fs().map_metadata_block(self.inode, Lblk(lblk))?;
        self.handle.update(block, kind(self.inode, index), change)
    }

    fn append(&mut self, index: bool, fill: &mut dyn FnMut(&mut [u8])) -> Result<u32> {
        Ok(self.handle.append_metadata_block(self.inode, kind(self.inode, index), fill)?.0)
    }

    fn indexed(&self) -> bool {
        self.inode.has_flag(flags::INDEX)
    }

    fn set_indexed(&mut self, on: bool) -> Result<()> {
        self.handle.change_inode(self.inode, Change::Attributes, |state| match on {
            true => state.disk.flags |= flags::INDEX,
            false => state.disk.flags &= !flags::INDEX,
        })
    }
}
