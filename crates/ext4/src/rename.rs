//! rename(2): a name moves, and takes the place of what was there, in one handle.

use std::collections::HashSet;
use std::sync::Arc;

use ext4_format::dirent::file_type;
use ext4_format::inode::flags;
use ext4_format::{Corrupt, Ino};

use crate::credits::ORPHAN_CREDITS;
use crate::dir_file::{DirFile, DirReader};
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::namei::{LINK_MAX, file_type_of_mode, with_subdirectory};
use crate::orphan::ALL_LINKS;
use crate::path::Parent;
use crate::{Error, Result, dir, errno};

/// Inodes of a rename: two parents, what moves, what is replaced.
const INODE_CREDITS: u32 = 4;

/// What moves, and where to.
struct Renamed {
    old_dir: Arc<Inode>,
    old_name: Vec<u8>,
    inode: Arc<Inode>,
    is_dir: bool,
    new_dir: Arc<Inode>,
    new_name: Vec<u8>,
    /// What has the new name so far.
    target: Option<Arc<Inode>>,
}

impl Renamed {
    fn across(&self) -> bool {
        self.old_dir.ino != self.new_dir.ino
    }
}

impl Fs {
    /// rename(2): after a crash either name stands for the inode, and `new` is never missing if it was there. What it replaces
    /// goes with its last name and its last open file. Nothing happens if both name one inode.
    ///
    /// As on Linux: EBUSY for "/", "." and "..", ENOTDIR and EISDIR for kinds that do not match, ENOTEMPTY, EINVAL for a
    /// directory below itself, EMLINK (F72), EPERM for immutable and append-only inodes and directories, ENOSPC before
    /// anything has changed.
    pub fn rename(&self, old: &[u8], new: &[u8]) -> Result<()> {
        self.check_alive()?;
        let _names = self.namespace.write();
        let Some(renamed) = self.look_up_rename(old, new)? else { return Ok(()) };
        self.check_rename(&renamed)?;
        if let (Some(_), Some(pages)) = (&renamed.target, renamed.inode.pages.get()) {
            // The new contents of a file are on the device before they take the place of the old ones. Should that fail,
            // the next fsync says so.
            let _kept_for_fsync = pages.write_back(0, u64::MAX);
        }
        let credits = 2 * self.dir_credits() + 2 * dir::CREDITS_FOR_CHANGE + INODE_CREDITS + ORPHAN_CREDITS;
        self.with_handle(credits, |handle| self.move_entry(handle, &renamed))?;
        match &renamed.target {
            Some(target) => self.evict_if_unused(target),
            None => Ok(()),
        }
    }

    /// The inodes concerned, the paths themselves checked; `None` if both names are one inode's.
    fn look_up_rename(&self, old: &[u8], new: &[u8]) -> Result<Option<Renamed>> {
        let (old, new) = (self.parent_of(old)?, self.parent_of(new)?);
        let slashes = old.must_be_dir || new.must_be_dir;
        let (
            Parent { dir: old_dir, name: Some(old_name), .. },
            Parent { dir: new_dir, name: Some(new_name), .. },
        ) = (old, new)
        else {
            return Err(Error::errno_only(errno::EBUSY));
        };
        self.check_writable()?;
        let inode = self.lookup_in(&old_dir, &old_name)?.ok_or(Error::errno_only(errno::ENOENT))?;
        let target = self.lookup_in(&new_dir, &new_name)?;
        let is_dir = inode.is_dir();
        if slashes && !is_dir {
            return Err(Error::errno_only(errno::ENOTDIR));
        }
        let renamed = Renamed { old_dir, old_name, inode, is_dir, new_dir, new_name, target };
        if renamed.across() {
            self.check_ancestors(&renamed)?;
        }
        let same = renamed.target.as_ref().is_some_and(|target| target.ino == renamed.inode.ino);
        Ok((!same).then_some(renamed))
    }

    /// A directory cannot move below itself (EINVAL), nor take the place of one that it is below (ENOTEMPTY).
    fn check_ancestors(&self, renamed: &Renamed) -> Result<()> {
        if renamed.is_dir && self.is_below(&renamed.new_dir, renamed.inode.ino)? {
            return Err(Error::errno_only(errno::EINVAL));
        }
        match &renamed.target {
            Some(target) if target.is_dir() && self.is_below(&renamed.old_dir, target.ino)? => {
                Err(Error::errno_only(errno::ENOTEMPTY))
            }
            _ => Ok(()),
        }
    }

    /// Whether `dir` is `above` or below it. EUCLEAN if its parents never end.
    fn is_below(&self, dir: &Arc<Inode>, above: Ino) -> Result<bool> {
        let root = self.root()?.ino;
        let (mut dir, mut seen) = (dir.clone(), HashSet::new());
        while dir.ino != above {
            if dir.ino == root {
                return Ok(false);
            }
            if !seen.insert(dir.ino) {
                let corrupt = Corrupt::structure("directory", "is its own ancestor");
                return Err(Error::corrupt_inode(dir.ino.0, corrupt));
            }
            dir.check_data_supported()?;
            let parent = dir::parent(&DirReader { fs: self, inode: &dir }, &self.dir_params(dir.ino))?;
            dir = self.inode_of_entry(parent)?;
            if !dir.is_dir() {
                let corrupt = Corrupt::structure("directory", "a parent that is none");
                return Err(Error::corrupt_inode(dir.ino.0, corrupt));
            }
        }
        Ok(true)
    }

    fn check_rename(&self, renamed: &Renamed) -> Result<()> {
        let Renamed { old_dir, inode, is_dir, new_dir, target, .. } = renamed;
        self.check_not_frozen(old_dir, inode)?;
        match target {
            None => self.check_may_enter(new_dir)?,
            Some(target) => {
                self.check_not_frozen(new_dir, target)?;
                match (is_dir, target.is_dir()) {
                    (true, false) => return Err(Error::errno_only(errno::ENOTDIR)),
                    (false, true) => return Err(Error::errno_only(errno::EISDIR)),
                    _ => self.check_not_frozen(new_dir, target)?,
                }
            }
        }
        self.check_project(new_dir, inode)?;
        if *is_dir {
            inode.check_data_supported()?;
        }
        match target {
            Some(target) if *is_dir => {
                let reader = DirReader { fs: self, inode: target };
                if !dir::is_empty(&reader, &self.dir_params(target.ino))? {
                    return Err(Error::errno_only(errno::ENOTEMPTY));
                }
                Ok(())
            }
            None if *is_dir && renamed.across() => self.check_may_have_subdirectory(new_dir),
            _ => Ok(()),
        }
    }

    fn move_entry(&self, handle: &mut Handle<'_>, renamed: &Renamed) -> Result<()> {
        let Renamed { old_dir, old_name, inode, new_dir, new_name, .. } = renamed;
        let kind = file_type_of_mode(inode.mode());
        let new_params = self.dir_params(new_dir.ino);
        let mut entries = DirFile { handle, inode: new_dir };
        // A new name comes first: it may find no room, and nothing has changed yet.
        match renamed.target {
            None => dir::insert(&mut entries, &new_params, new_name, inode.ino, kind)?,
            Some(_) => drop(dir::replace(&mut entries, &new_params, new_name, inode.ino, kind)?),
        }
        dir::remove(&mut DirFile { handle, inode: old_dir }, &self.dir_params(old_dir.ino), old_name)?;
        if renamed.is_dir && renamed.across() {
            let mut own = DirFile { handle, inode };
            dir::replace(&mut own, &self.dir_params(inode.ino), b"..", new_dir.ino, file_type::DIR)?;
        }
        self.change_renamed_inodes(handle, renamed)
    }

    fn change_renamed_inodes(&self, handle: &mut Handle<'_>, renamed: &Renamed) -> Result<()> {
        let Renamed { old_dir, inode, is_dir, new_dir, target, .. } = renamed;
        let now = self.timestamp();
        handle.change_inode(inode, Change::Attributes, |state| state.disk.ctime = now)?;
        // The subdirectory that is replaced makes room for the one that comes.
        let loses = *is_dir && (renamed.across() || target.is_some());
        let gains = *is_dir && renamed.across() && target.is_none();
        handle.change_inode(old_dir, Change::Attributes, |state| {
            state.disk.mtime = now;
            state.disk.ctime = now;
            // 1 means "unknown" and stays (F72).
            if loses && state.disk.links_count > 2 {
                state.disk.links_count -= 1;
            }
        })?;
        handle.change_inode(new_dir, Change::Attributes, |state| {
            state.disk.mtime = now;
            state.disk.ctime = now;
            if gains {
                state.disk.links_count = with_subdirectory(state.disk.links_count);
            }
        })?;
        match target {
            Some(target) => handle.drop_links(target, if *is_dir { ALL_LINKS } else { 1 }, now),
            None => Ok(()),
        }
    }

    /// Whether a directory may get one more subdirectory (F72): EMLINK.
    pub(crate) fn check_may_have_subdirectory(&self, dir: &Inode) -> Result<()> {
        use ext4_format::features::ro_compat::DIR_NLINK;
        let links = dir.state.lock().disk.links_count;
        let may_overflow = self.geometry.features().has_ro_compat(DIR_NLINK) && dir.has_flag(flags::INDEX);
        if links >= LINK_MAX && !may_overflow { Err(Error::errno_only(errno::EMLINK)) } else { Ok(()) }
    }

    /// EXDEV into a directory whose files belong to another project.
    pub(crate) fn check_project(&self, dir: &Inode, inode: &Inode) -> Result<()> {
        let project = |inode: &Inode| inode.state.lock().disk.projid;
        let other = dir.has_flag(flags::PROJINHERIT) && project(dir) != project(inode);
        if other { Err(Error::errno_only(errno::EXDEV)) } else { Ok(()) }
    }
}
