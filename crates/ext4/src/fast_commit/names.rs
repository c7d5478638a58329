//! CREAT, LINK and UNLINK.

use std::sync::Arc;

use ext4_format::Ino;
use ext4_format::dirent::file_type;
use ext4_format::fast_commit::Dentry;
use ext4_format::features::ro_compat;

use super::replay::Replay;
use crate::Result;
use crate::dir::{self, Entry, init_block};
use crate::dir_file::{DirFile, DirReader};
use crate::inode::{Change, Iget, Inode};
use crate::meta::BlockKind;
use crate::namei::{LINK_MAX, file_type_of_mode};

impl Replay<'_> {
    /// A new inode's first name.
    pub fn create(&mut self, dentry: &Dentry) -> Result<()> {
        let Some(inode) = self.existing(dentry.ino)? else { return Ok(()) };
        if inode.is_dir() && inode.size() == 0 {
            self.begin_directory(&inode, dentry.parent)?;
        }
        if self.link(dentry)? && !inode.is_dir() {
            self.set_links(&inode, |_| 1)?;
        }
        Ok(())
    }

    /// One more name, unless it is there. Whether it was entered.
    pub fn link(&mut self, dentry: &Dentry) -> Result<bool> {
        let (Some(inode), Some(parent)) = (self.existing(dentry.ino)?, self.directory(dentry.parent)?) else {
            return Ok(false);
        };
        let fs = self.fs;
        let params = fs.dir_params(parent.ino);
        let is_there = dir::lookup(&DirReader { fs, inode: &parent }, &params, &dentry.name)?.is_some();
        if is_there {
            return Ok(false);
        }
        let file_type = file_type_of_mode(inode.mode());
        fs.with_handle(2 * fs.dir_credits(), |handle| {
            let mut dir = DirFile { handle, inode: &parent };
            dir::insert(&mut dir, &params, &dentry.name, inode.ino, file_type)
        })?;
        self.changed(&parent)?;
        if !inode.is_dir() {
            self.set_links(&inode, |links| links.saturating_add(1).min(LINK_MAX))?;
        }
        Ok(true)
    }

    /// A name that went, if it stands for that inode. A directory goes with it.
    pub fn unlink(&mut self, dentry: &Dentry) -> Result<()> {
        let (Some(inode), Some(parent)) = (self.existing(dentry.ino)?, self.directory(dentry.parent)?) else {
            return Ok(());
        };
        let fs = self.fs;
        let params = fs.dir_params(parent.ino);
        let found = dir::lookup(&DirReader { fs, inode: &parent }, &params, &dentry.name)?;
        if found.is_none_or(|entry| entry.ino != dentry.ino) {
            return Ok(());
        }
        fs.with_handle(fs.dir_credits(), |handle| {
            dir::remove(&mut DirFile { handle, inode: &parent }, &params, &dentry.name).map(|_| ())
        })?;
        self.changed(&parent)?;
        let is_dir = inode.is_dir();
        self.set_links(&inode, |links| if is_dir { 0 } else { links.saturating_sub(1) })?;
        self.unlinked.insert(inode.ino);
        self.directories.remove(&inode.ino);
        Ok(())
    }

    fn directory(&self, ino: Ino) -> Result<Option<Arc<Inode>>> {
        let Some(inode) = self.existing(ino)?.filter(|inode| inode.is_dir()) else { return Ok(None) };
        inode.check_data_supported()?;
        Ok(Some(inode))
    }

    fn begin_directory(&self, inode: &Arc<Inode>, parent: Ino) -> Result<()> {
        let fs = self.fs;
        let params = fs.dir_params(inode.ino);
        fs.with_handle(fs.dir_credits(), |handle| {
            let kind = BlockKind::DirLeaf { seed: inode.seed };
            handle.append_metadata_block(inode, kind, &mut |block| init_block(&params, block, parent))?;
            handle.change_inode(inode, Change::Attributes, |state| state.disk.links_count = 2)
        })
    }

    /// When, the tags do not say; an INODE of the directory that follows does.
    fn changed(&mut self, directory: &Arc<Inode>) -> Result<()> {
        let fs = self.fs;
        self.directories.insert(directory.ino);
        let now = fs.timestamp();
        fs.with_handle(2, |handle| {
            handle.change_inode(directory, Change::Attributes, |state| {
                (state.disk.mtime, state.disk.ctime) = (now, now);
            })
        })
    }

    fn set_links(&self, inode: &Inode, links: impl Fn(u16) -> u16) -> Result<()> {
        self.fs.with_handle(2, |handle| {
            handle.change_inode(inode, Change::Attributes, |state| {
                state.disk.links_count = links(state.disk.links_count);
            })
        })
    }

    /// F72: a directory has as many links as its entries say, which Linux leaves to e2fsck.
    pub fn count_links(&mut self, ino: Ino) -> Result<()> {
        let Some(inode) = self.directory(ino)? else { return Ok(()) };
        let fs = self.fs;
        let mut links: u32 = 2;
        let mut unknown: Vec<Ino> = Vec::new();
        let reader = DirReader { fs, inode: &inode };
        dir::list(&reader, &fs.dir_params(ino), 0, &mut |listed, _next| {
            let Entry { ino, file_type, .. } = listed.entry;
            if listed.name != b"." && listed.name != b".." {
                match file_type {
                    file_type::DIR => links = links.saturating_add(1),
                    file_type::UNKNOWN => unknown.push(ino),
                    _ => {}
                }
            }
            true
        })?;
        for ino in unknown {
            links += u32::from(fs.iget(ino, Iget::Normal)?.is_dir());
        }
        let unlimited = fs.geometry.features().has_ro_compat(ro_compat::DIR_NLINK);
        let links = match u16::try_from(links) {
            Ok(links) if links < LINK_MAX || !unlimited => links,
            _ => 1,
        };
        self.set_links(&inode, |_| links)
    }
}
