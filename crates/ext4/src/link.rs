//! link(2): another name for an inode.

use std::sync::Arc;

use ext4_format::inode::flags;

use crate::dir_file::DirFile;
use crate::fs::Fs;
use crate::inode::{Change, Inode};
use crate::namei::{LINK_MAX, file_type_of_mode};
use crate::path::Parent;
use crate::{Error, Result, dir, errno};

impl Fs {
    /// link(2): `new` becomes another name of what `existing` names; a symbolic link there is not followed. EPERM for
    /// directories and for immutable and append-only inodes, EMLINK above 65000 links (F72), EEXIST, ENOSPC.
    pub fn link(&self, existing: &[u8], new: &[u8]) -> Result<()> {
        self.check_alive()?;
        let _names = self.namespace.write();
        let inode = self.resolve(existing, false)?;
        self.enter_link(&inode, new)
    }

    /// The same for an open file, as link(2) of its entry in /proc/self/fd. ENOENT for one that has no name any more.
    pub fn link_inode(&self, inode: &Arc<Inode>, new: &[u8]) -> Result<()> {
        self.check_alive()?;
        let _names = self.namespace.write();
        self.enter_link(inode, new)
    }

    fn enter_link(&self, inode: &Arc<Inode>, new: &[u8]) -> Result<()> {
        let parent = self.parent_of(new)?;
        self.check_new_name(&parent)?;
        let Parent { dir, name: Some(name), must_be_dir } = parent else {
            return Err(Error::errno_only(errno::EEXIST));
        };
        if must_be_dir {
            return Err(Error::errno_only(errno::ENOENT));
        }
        self.check_writable()?;
        self.check_may_enter(&dir)?;
        if inode.has_flag(flags::IMMUTABLE | flags::APPEND) || inode.is_dir() {
            return Err(Error::errno_only(errno::EPERM));
        }
        let (links, mode) = {
            let state = inode.state.lock();
            (state.disk.links_count, state.disk.mode)
        };
        if links == 0 {
            return Err(Error::errno_only(errno::ENOENT));
        }
        if links >= LINK_MAX {
            return Err(Error::errno_only(errno::EMLINK));
        }
        self.check_project(&dir, inode)?;
        let now = self.timestamp();
        self.with_handle(self.dir_credits(), |handle| {
            // First what may find no room.
            let params = self.dir_params(dir.ino);
            let mut entries = DirFile { handle, inode: &dir };
            dir::insert(&mut entries, &params, &name, inode.ino, file_type_of_mode(mode))?;
            handle.change_inode(inode, Change::Attributes, |state| {
                state.disk.links_count += 1;
                state.disk.ctime = now;
            })?;
            handle.change_inode(&dir, Change::Attributes, |state| {
                state.disk.mtime = now;
                state.disk.ctime = now;
            })
        })
    }
}
