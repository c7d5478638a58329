//! INODE.

use std::sync::Arc;

use ext4_format::extent::empty_root;
use ext4_format::inode::{S_IFDIR, S_IFMT, flags};
use ext4_format::{Corrupt, Ino, Inode as DiskInode};

use super::replay::Replay;
use crate::credits::MAP_CREDITS;
use crate::inode::{Change, Iget, Inode};
use crate::meta::{BlockKind, Meta};
use crate::{Error, Result};

impl Replay<'_> {
    /// All but the map, which ranges give, and what a directory is made of: its entries are replayed, perhaps into other
    /// blocks than before. Linux takes a directory's size and index flag as they are and may damage it.
    pub fn inode(&mut self, ino: Ino, logged: &[u8]) -> Result<()> {
        let fs = self.fs;
        if !fs.may_be(ino, Iget::Normal) {
            let corrupt = Corrupt::structure("fast commit", "a special inode");
            return Err(Error::corrupt_inode(ino.0, corrupt));
        }
        let zeros = DiskInode::new(&fs.geometry);
        let decode = |base: &DiskInode| {
            base.replayed(logged, &fs.geometry, ino).map_err(|corrupt| Error::corrupt_inode(ino.0, corrupt))
        };
        let fresh = decode(&zeros)?;
        let existing = match self.existing(ino)? {
            Some(inode) if inode.generation != fresh.generation => {
                self.remove(&inode)?;
                None
            }
            other => other,
        };
        match existing {
            Some(inode) => {
                let current = inode.state.lock().disk.clone();
                self.change(&inode, decode(&current)?, &current)?;
            }
            None => self.make(ino, fresh, logged)?,
        }
        self.unlinked.insert(ino);
        Ok(())
    }

    /// Another inode has the number now.
    fn remove(&mut self, inode: &Arc<Inode>) -> Result<()> {
        let fs = self.fs;
        fs.with_handle(MAP_CREDITS, |handle| {
            handle.change_inode(inode, Change::Attributes, |state| state.disk.links_count = 0)
        })?;
        fs.evict(inode)
    }

    fn change(&self, inode: &Inode, mut disk: DiskInode, current: &DiskInode) -> Result<()> {
        disk.blocks = current.blocks;
        disk.dtime = current.dtime;
        if current.is_dir() {
            disk.size = current.size;
            disk.links_count = current.links_count;
            disk.flags = disk.flags & !flags::INDEX | current.flags & flags::INDEX;
        }
        self.fs.with_handle(MAP_CREDITS, |handle| {
            handle.change_inode(inode, Change::Data, |state| {
                state.size = disk.size;
                state.disk = disk.clone();
            })
        })
    }

    fn make(&self, ino: Ino, mut disk: DiskInode, logged: &[u8]) -> Result<()> {
        let fs = self.fs;
        let is_dir = disk.mode & S_IFMT == S_IFDIR;
        disk.i_block = match disk.has_flag(flags::EXTENTS) {
            true => empty_root(),
            false => DiskInode::logged_i_block(logged),
        };
        if is_dir {
            disk.size = 0;
            disk.flags &= !flags::INDEX;
        }
        disk.dtime = 0;
        disk.blocks = if disk.file_acl == 0 { 0 } else { fs.block_size() as u64 / 512 };
        fs.with_handle(MAP_CREDITS, |handle| {
            let allocator = fs.allocator.clone();
            let place = allocator.claim_inode(handle, ino, is_dir)?;
            if let Some(place) = place.filter(|place| place.block_never_used) {
                handle.create(place.block, BlockKind::Plain, &mut |_| ())?;
            }
            let inode = Arc::new(Inode::new(fs, ino, disk.clone()));
            handle.change_inode(&inode, Change::Data, |_| ())?;
            fs.inodes.insert_new(inode);
            Ok(())
        })
    }
}
