//! From a path to an inode.

use std::sync::Arc;

use ext4_format::inode::special::ROOT;

use crate::dir_file::DirReader;
use crate::fs::Fs;
use crate::inode::{Iget, Inode};
use crate::{Error, Result, dir, errno};

/// Most symbolic links followed in one path, as Linux.
const MAX_LINKS: u32 = 40;
/// Longest path, its end included.
const PATH_MAX: usize = 4096;

/// The directory of a path's last name, and that name. `None` for the root itself, "." and "..".
pub(crate) struct Parent {
    pub dir: Arc<Inode>,
    pub name: Option<Vec<u8>>,
    /// The path ended in '/': the name must be a directory.
    pub must_be_dir: bool,
}

impl Fs {
    /// The root directory.
    pub fn root(&self) -> Result<Arc<Inode>> {
        self.iget(ROOT, Iget::Normal)
    }

    /// Looks one name up. ENOTDIR if `dir` is none; the caller holds the namespace lock.
    pub(crate) fn lookup_in(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Option<Arc<Inode>>> {
        if !dir.is_dir() {
            return Err(Error::errno_only(errno::ENOTDIR));
        }
        if name.len() > 255 {
            return Err(Error::errno_only(errno::ENAMETOOLONG));
        }
        dir.check_data_supported()?;
        match dir::lookup(&DirReader { fs: self, inode: dir }, &self.dir_params(dir.ino), name)? {
            Some(entry) => Ok(Some(self.inode_of_entry(entry.ino)?)),
            None => Ok(None),
        }
    }

    /// Resolves a path from the root. `follow`: also a symbolic link in the last place. The caller holds the
    /// namespace lock.
    pub(crate) fn resolve(&self, path: &[u8], follow: bool) -> Result<Arc<Inode>> {
        let mut links = 0;
        let parent = self.walk(self.root()?, path, &mut links)?;
        self.resolve_last(parent, follow, &mut links)
    }

    fn resolve_last(&self, parent: Parent, follow: bool, links: &mut u32) -> Result<Arc<Inode>> {
        let Some(name) = parent.name else { return Ok(parent.dir) };
        let inode = self.lookup_in(&parent.dir, &name)?.ok_or(Error::errno_only(errno::ENOENT))?;
        let inode = match (follow || parent.must_be_dir) && inode.is_symlink() {
            true => self.follow(&parent.dir, &inode, links)?,
            false => inode,
        };
        if parent.must_be_dir && !inode.is_dir() {
            return Err(Error::errno_only(errno::ENOTDIR));
        }
        Ok(inode)
    }

    fn follow(&self, dir: &Arc<Inode>, link: &Arc<Inode>, links: &mut u32) -> Result<Arc<Inode>> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Error::errno_only(errno::ELOOP));
        }
        let target = self.symlink_target(link)?;
        let parent = self.walk(dir.clone(), &target, links)?;
        self.resolve_last(parent, true, links)
    }

    /// The directory and name that a path ends in. The caller holds the namespace lock.
    pub(crate) fn parent_of(&self, path: &[u8]) -> Result<Parent> {
        self.walk(self.root()?, path, &mut 0)
    }

    /// Walks all but the last name of `path`, from the root if it starts with '/', else from `start`.
    fn walk(&self, start: Arc<Inode>, path: &[u8], links: &mut u32) -> Result<Parent> {
        if path.is_empty() {
            return Err(Error::errno_only(errno::ENOENT));
        }
        if path.len() >= PATH_MAX {
            return Err(Error::errno_only(errno::ENAMETOOLONG));
        }
        let mut dir = if path[0] == b'/' { self.root()? } else { start };
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
        let ends_in_slash = path.ends_with(b"/");
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            if last && name != b"." && name != b".." {
                if !dir.is_dir() {
                    return Err(Error::errno_only(errno::ENOTDIR));
                }
                return Ok(Parent { dir, name: Some(name.to_vec()), must_be_dir: ends_in_slash });
            }
            if name == b"." {
                if !dir.is_dir() {
                    return Err(Error::errno_only(errno::ENOTDIR));
                }
                continue;
            }
            let inode = self.lookup_in(&dir, name)?.ok_or(Error::errno_only(errno::ENOENT))?;
            dir = match inode.is_symlink() {
                true => self.follow(&dir, &inode, links)?,
                false => inode,
            };
        }
        Ok(Parent { dir, name: None, must_be_dir: true })
    }
}
