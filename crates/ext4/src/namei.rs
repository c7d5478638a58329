//! Names: create, mkdir, symlink, unlink, rmdir. Everything here runs under the namespace lock, and each operation
//! is one handle.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ext4_format::dirent::file_type;
use ext4_format::extent::empty_root;
use ext4_format::features::incompat;
use ext4_format::inode::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, flags};
use ext4_format::{Ino, Inode as DiskInode, Lblk};

use crate::credits::{MAP_CREDITS, ORPHAN_CREDITS};
use crate::dir_file::{DirFile, DirReader};
use crate::fs::Fs;
use crate::handle::Handle;
use crate::ialloc::NewInodeRequest;
use crate::inode::{Change, Inode};
use crate::map_blocks::Allocate;
use crate::meta::{BlockKind, Meta};
use crate::orphan::ALL_LINKS;
use crate::path::Parent;
use crate::{Error, Result, dir, errno, mballoc};

/// F72: the most links of an inode.
pub(crate) const LINK_MAX: u16 = 65000;

/// What a new inode is to be.
#[derive(Debug, Clone, Copy)]
pub struct NewInode {
    /// S_IFMT and permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group; the parent's with a setgid parent.
    pub gid: u32,
}

impl Fs {
    /// open(2) without O_CREAT, or a look at what is there.
    pub fn lookup(&self, path: &[u8], follow: bool) -> Result<Arc<Inode>> {
        self.check_alive()?;
        let _names = self.namespace.read();
        self.resolve(path, follow)
    }

    /// Looks a path up and counts the caller among the inode's open files, so that it outlives its last name.
    pub fn open(&self, path: &[u8], follow: bool) -> Result<Arc<Inode>> {
        self.check_alive()?;
        let _names = self.namespace.read();
        let inode = self.resolve(path, follow)?;
        inode.opens.fetch_add(1, Ordering::AcqRel);
        Ok(inode)
    }

    /// What `path` names, for one call on it: meanwhile nobody deletes the inode, whose number and blocks could be another
    /// file's before the call is over.
    pub fn at_path<R>(
        self: &Arc<Self>,
        path: &[u8],
        follow: bool,
        call: impl FnOnce(&Arc<Inode>) -> Result<R>,
    ) -> Result<R> {
        let inode = self.open(path, follow)?;
        let result = call(&inode);
        // That the inode had to be deleted, or could not be, is not the caller's business.
        let _unlinked_meanwhile = self.release(&inode);
        result
    }

    /// O_CREAT: the inode of `path`, made if it is missing (then `true`), counted as open. EEXIST with `exclusive`
    /// if it was there; a dangling symbolic link is followed to the name that it lacks.
    pub fn create(&self, path: &[u8], new: NewInode, exclusive: bool) -> Result<(Arc<Inode>, bool)> {
        self.check_alive()?;
        let _names = self.namespace.write();
        let mut path = path.to_vec();
        for _ in 0..40 {
            let parent = self.parent_of(&path)?;
            let Some(name) = &parent.name else { return Err(Error::errno_only(errno::EISDIR)) };
            match self.lookup_in(&parent.dir, name)? {
                Some(_) if exclusive => return Err(Error::errno_only(errno::EEXIST)),
                Some(found) if found.is_symlink() => {
                    path = self.redirect(&path, self.symlink_target(&found)?);
                }
                Some(_) if parent.must_be_dir => return Err(Error::errno_only(errno::EISDIR)),
                Some(found) => {
                    found.opens.fetch_add(1, Ordering::AcqRel);
                    return Ok((found, false));
                }
                None if parent.must_be_dir => return Err(Error::errno_only(errno::EISDIR)),
                None => {
                    let inode = self.make_node(&parent, new, |_, _| Ok(()))?;
                    inode.opens.fetch_add(1, Ordering::AcqRel);
                    return Ok((inode, true));
                }
            }
        }
        Err(Error::errno_only(errno::ELOOP))
    }

    /// The path that a symbolic link in the last place of `path` leads to.
    fn redirect(&self, path: &[u8], target: Vec<u8>) -> Vec<u8> {
        if target.starts_with(b"/") {
            return target;
        }
        let end = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        [&path[..end], &target].concat()
    }

    /// mkdir(2).
    pub fn mkdir(&self, path: &[u8], new: NewInode) -> Result<Arc<Inode>> {
        self.check_alive()?;
        let _names = self.namespace.write();
        let parent = self.parent_of(path)?;
        self.check_new_name(&parent)?;
        self.check_may_have_subdirectory(&parent.dir)?;
        let mode = new.mode & 0o7777 | S_IFDIR;
        self.make_node(&parent, NewInode { mode, ..new }, |handle, inode| {
            let (params, above) = (self.dir_params(inode.ino), parent.dir.ino);
            let kind = BlockKind::DirLeaf { seed: inode.seed };
            handle.append_metadata_block(inode, kind, &mut |image| {
                dir::init_block(&params, image, above);
            })?;
            handle.change_inode(inode, Change::Attributes, |state| state.disk.links_count = 2)
        })
    }

    /// symlink(2): in the inode below 60 bytes, else in a block of its own (F56).
    pub fn symlink(&self, target: &[u8], path: &[u8], new: NewInode) -> Result<Arc<Inode>> {
        self.check_alive()?;
        if target.is_empty() {
            return Err(Error::errno_only(errno::ENOENT));
        }
        if target.len() >= self.block_size().min(4096) {
            return Err(Error::errno_only(errno::ENAMETOOLONG));
        }
        let _names = self.namespace.write();
        let parent = self.parent_of(path)?;
        self.check_new_name(&parent)?;
        let mode = 0o777 | S_IFLNK;
        self.make_node(&parent, NewInode { mode, ..new }, |handle, inode| {
            if target.len() < 60 {
                return handle.change_inode(inode, Change::Data, |state| {
                    state.disk.flags &= !flags::EXTENTS;
                    state.disk.i_block = [0; 60];
                    state.disk.i_block[..target.len()].copy_from_slice(target);
                    state.disk.size = target.len() as u64;
                    state.size = state.disk.size;
                });
            }
            let (mapping, _) =
                handle.map_create(inode, Lblk(0), 1, Allocate::Written, mballoc::RequestKind::Metadata)?;
            handle.create(mapping.start, BlockKind::Plain, &mut |image| {
                image[..target.len()].copy_from_slice(target);
            })?;
            handle.change_inode(inode, Change::Data, |state| {
                state.disk.size = target.len() as u64;
                state.size = state.disk.size;
            })
        })
    }

    /// The text of a symbolic link.
    pub(crate) fn symlink_target(&self, inode: &Arc<Inode>) -> Result<Vec<u8>> {
        let (size, i_block) = {
            let state = inode.state.lock();
            (state.disk.size as usize, state.disk.i_block)
        };
        if size < 60 && !inode.has_flag(flags::INLINE_DATA | flags::ENCRYPT) {
            return Ok(i_block[..size].to_vec());
        }
        inode.check_data_supported()?;
        if size >= self.block_size() {
            let corrupt = ext4_format::Corrupt::structure("symlink", format!("{size} bytes long"));
            return Err(Error::corrupt_inode(inode.ino.0, corrupt));
        }
        let block = self.map_metadata_block(inode, Lblk(0))?;
        Ok(self.read_metadata(block, BlockKind::Plain)?[..size].to_vec())
    }

    /// readlink(2). EINVAL if it is none.
    pub fn readlink(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.check_alive()?;
        let _names = self.namespace.read();
        let inode = self.resolve(path, false)?;
        if !inode.is_symlink() {
            return Err(Error::errno_only(errno::EINVAL));
        }
        self.symlink_target(&inode)
    }

    /// unlink(2). An inode that is open lives on as an orphan.
    pub fn unlink(&self, path: &[u8]) -> Result<()> {
        self.check_alive()?;
        let _names = self.namespace.write();
        let parent = self.parent_of(path)?;
        let Some(name) = &parent.name else { return Err(Error::errno_only(errno::EISDIR)) };
        let inode = self.lookup_in(&parent.dir, name)?.ok_or(Error::errno_only(errno::ENOENT))?;
        if inode.is_dir() {
            return Err(Error::errno_only(errno::EISDIR));
        }
        if parent.must_be_dir {
            return Err(Error::errno_only(errno::ENOTDIR));
        }
        self.check_not_frozen(&parent.dir, &inode)?;
        let now = self.timestamp();
        self.with_handle(self.dir_credits() + ORPHAN_CREDITS, |handle| {
            dir::remove(&mut DirFile { handle, inode: &parent.dir }, &self.dir_params(parent.dir.ino), name)?;
            handle.change_inode(&parent.dir, Change::Attributes, |state| {
                state.disk.mtime = now;
                state.disk.ctime = now;
            })?;
            handle.drop_links(&inode, 1, now)
        })?;
        self.evict_if_unused(&inode)
    }

    /// rmdir(2). EBUSY-like cases of POSIX: EINVAL for ".", ENOTEMPTY for "..", EBUSY for the root.
    pub fn rmdir(&self, path: &[u8]) -> Result<()> {
        self.check_alive()?;
        let _names = self.namespace.write();
        let parent = self.parent_of(path)?;
        let Some(name) = &parent.name else { return Err(self.rmdir_special(path)) };
        let inode = self.lookup_in(&parent.dir, name)?.ok_or(Error::errno_only(errno::ENOENT))?;
        if !inode.is_dir() {
            return Err(Error::errno_only(errno::ENOTDIR));
        }
        self.check_not_frozen(&parent.dir, &inode)?;
        if !dir::is_empty(&DirReader { fs: self, inode: &inode }, &self.dir_params(inode.ino))? {
            return Err(Error::errno_only(errno::ENOTEMPTY));
        }
        let now = self.timestamp();
        self.with_handle(self.dir_credits() + ORPHAN_CREDITS, |handle| {
            dir::remove(&mut DirFile { handle, inode: &parent.dir }, &self.dir_params(parent.dir.ino), name)?;
            handle.change_inode(&parent.dir, Change::Attributes, |state| {
                state.disk.mtime = now;
                state.disk.ctime = now;
                // 1 means "unknown" and stays (F72).
                if state.disk.links_count > 2 {
                    state.disk.links_count -= 1;
                }
            })?;
            handle.drop_links(&inode, ALL_LINKS, now)
        })?;
        self.evict_if_unused(&inode)
    }

    fn rmdir_special(&self, path: &[u8]) -> Error {
        let last = path.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty());
        Error::errno_only(match last {
            Some(b".") => errno::EINVAL,
            Some(_) => errno::ENOTEMPTY,
            None => errno::EBUSY,
        })
    }

    pub(crate) fn evict_if_unused(&self, inode: &Arc<Inode>) -> Result<()> {
        let unlinked = inode.state.lock().disk.links_count == 0;
        if unlinked { self.evict_unless_frozen(inode) } else { Ok(()) }
    }

    /// EPERM for a name that cannot go: an immutable or append-only inode's, or one in such a directory.
    pub(crate) fn check_not_frozen(&self, dir: &Inode, inode: &Inode) -> Result<()> {
        const FROZEN: u32 = flags::IMMUTABLE | flags::APPEND;
        let frozen = inode.has_flag(FROZEN) || dir.has_flag(FROZEN);
        if frozen { Err(Error::errno_only(errno::EPERM)) } else { Ok(()) }
    }

    /// Whether a directory takes a new name: EPERM if it is immutable, ENOENT if it was removed.
    pub(crate) fn check_may_enter(&self, dir: &Inode) -> Result<()> {
        if dir.has_flag(flags::IMMUTABLE) {
            return Err(Error::errno_only(errno::EPERM));
        }
        let state = dir.state.lock();
        let removed = state.deleted || state.disk.links_count == 0;
        if removed { Err(Error::errno_only(errno::ENOENT)) } else { Ok(()) }
    }

    pub(crate) fn check_new_name(&self, parent: &Parent) -> Result<()> {
        let Some(name) = &parent.name else { return Err(Error::errno_only(errno::EEXIST)) };
        match self.lookup_in(&parent.dir, name)? {
            Some(_) => Err(Error::errno_only(errno::EEXIST)),
            None => Ok(()),
        }
    }

    pub(crate) fn dir_credits(&self) -> u32 {
        dir::credits_for_insert(false) + MAP_CREDITS
    }

    /// Allocates an inode, lets `fill` complete it, and enters it into its directory, all in one handle. If any of
    /// that fails, what was allocated is given back in the same handle.
    fn make_node(
        &self,
        parent: &Parent,
        new: NewInode,
        mut fill: impl FnMut(&mut Handle<'_>, &Arc<Inode>) -> Result<()>,
    ) -> Result<Arc<Inode>> {
        self.check_writable()?;
        let Some(name) = &parent.name else { return Err(Error::errno_only(errno::EEXIST)) };
        self.check_may_enter(&parent.dir)?;
        let now = self.timestamp();
        let is_dir = new.mode & S_IFMT == S_IFDIR;
        self.with_handle(2 * self.dir_credits(), |handle| {
            let inode = self.new_inode(handle, &parent.dir, new)?;
            let file_type = file_type_of_mode(new.mode);
            let entered = fill(handle, &inode).and_then(|()| {
                let mut dir = DirFile { handle, inode: &parent.dir };
                dir::insert(&mut dir, &self.dir_params(parent.dir.ino), name, inode.ino, file_type)
            });
            if let Err(error) = entered {
                self.undo_new_inode(handle, &inode)?;
                return Err(error);
            }
            handle.change_inode(&parent.dir, Change::Attributes, |state| {
                state.disk.mtime = now;
                state.disk.ctime = now;
                if is_dir {
                    state.disk.links_count = with_subdirectory(state.disk.links_count);
                }
            })?;
            Ok(inode)
        })
    }

    fn new_inode(&self, handle: &mut Handle<'_>, dir: &Inode, new: NewInode) -> Result<Arc<Inode>> {
        let is_dir = new.mode & S_IFMT == S_IFDIR;
        let allocator = self.allocator.clone();
        let request = NewInodeRequest { parent: dir.ino, is_dir, is_top: dir.has_flag(flags::TOPDIR) };
        let place = allocator.new_inode(handle, &request)?;
        let ino = place.ino;
        if place.block_never_used {
            handle.create(place.block, BlockKind::Plain, &mut |_| ())?;
        }
        let (dir_flags, dir_mode, dir_gid) = {
            let state = dir.state.lock();
            (state.disk.flags, state.disk.mode, state.disk.gid)
        };
        let mut disk = DiskInode::new_in_use(&self.geometry);
        let setgid = dir_mode & 0o2000 != 0;
        disk.mode = if setgid && is_dir { new.mode | 0o2000 } else { new.mode };
        disk.uid = new.uid;
        disk.gid = if setgid { dir_gid } else { new.gid };
        disk.links_count = 1;
        disk.flags = flags::inherited(dir_flags, new.mode);
        if self.geometry.features().has_incompat(incompat::EXTENTS) {
            disk.flags |= flags::EXTENTS;
            disk.i_block = empty_root();
        }
        disk.generation = self.next_generation();
        let now = self.timestamp();
        (disk.atime, disk.mtime, disk.ctime, disk.crtime) = (now, now, now, now);
        let inode = Arc::new(Inode::new(self, ino, disk));
        handle.change_inode(&inode, Change::Data, |_| ())?;
        self.inodes.insert_new(inode.clone());
        Ok(inode)
    }

    fn undo_new_inode(&self, handle: &mut Handle<'_>, inode: &Arc<Inode>) -> Result<()> {
        let is_dir = inode.is_dir();
        // A link's text is set together with its size (F56).
        if !inode.is_symlink() || inode.size() == 0 || inode.size() >= 60 {
            handle.set_data_is_metadata(true);
            let _all = handle.remove_blocks(inode, Lblk(0), Lblk(u32::MAX))?;
            handle.set_data_is_metadata(false);
        }
        let dtime = self.clock.now().sec as u32;
        handle.change_inode(inode, Change::Attributes, |state| {
            state.disk.links_count = 0;
            state.disk.dtime = dtime;
            state.disk.size = 0;
            state.deleted = true;
        })?;
        self.inodes.forget(inode.ino);
        let allocator = self.allocator.clone();
        allocator.free_inode(handle, inode.ino, is_dir)
    }

    /// Entries of a directory: `sink` gets name, inode number and type, and says whether to go on.
    pub fn read_dir(&self, path: &[u8], sink: &mut dyn FnMut(&[u8], Ino, u8) -> bool) -> Result<()> {
        self.check_alive()?;
        let _names = self.namespace.read();
        let inode = self.resolve(path, true)?;
        if !inode.is_dir() {
            return Err(Error::errno_only(errno::ENOTDIR));
        }
        inode.check_data_supported()?;
        let reader = DirReader { fs: self, inode: &inode };
        dir::list(&reader, &self.dir_params(inode.ino), 0, &mut |listed, _next| {
            sink(listed.name, listed.entry.ino, listed.entry.file_type)
        })
    }
}

/// F63: the type byte of a directory entry.
pub(crate) fn file_type_of_mode(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => file_type::REG_FILE,
        S_IFDIR => file_type::DIR,
        S_IFCHR => file_type::CHRDEV,
        S_IFBLK => file_type::BLKDEV,
        S_IFIFO => file_type::FIFO,
        S_IFSOCK => file_type::SOCK,
        S_IFLNK => file_type::SYMLINK,
        _ => file_type::UNKNOWN,
    }
}

/// F72: the link count of a directory with one more subdirectory; 1 is "unknown".
pub(crate) fn with_subdirectory(links: u16) -> u16 {
    if links == 1 || links >= LINK_MAX { 1 } else { links + 1 }
}
