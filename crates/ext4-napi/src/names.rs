//! Calls that take a path inside a volume.

use std::sync::Arc;

use ext4::aio::Value as Outcome;
use ext4::{Error, Fs, Inode, Look, NewInode, Probe, Result, XattrSet, errno};
use ext4_format::Timestamp;

use crate::call::{Call, UNDEFINED};
use crate::js::{JsResult, Thrown, Value};
use crate::state::Ending;

const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFLNK: u16 = 0o120_000;

/// What a job leaves where nothing is to be said.
pub fn nothing(result: Result<()>) -> Result<(u64, Outcome)> {
    result.map(|()| (0, Outcome::None))
}

fn check_path(path: &[u8]) -> Result<()> {
    match path {
        [] => Err(Error::errno_only(errno::ENOENT)),
        _ if path.contains(&0) => Err(Error::errno_only(errno::EINVAL)),
        _ => Ok(()),
    }
}

impl<const N: usize> Call<'_, N> {
    /// Runs a job on the volume of argument 1, with the path of argument `at`.
    fn on_path(
        &self,
        at: usize,
        ending: Ending,
        job: impl FnOnce(&Arc<Fs>, &[u8]) -> Result<(u64, Outcome)> + Send + 'static,
    ) -> JsResult<Value> {
        let (op, volume) = (self.op()?, self.handle(1)?);
        let path = self.js.get_path(self.arguments[at], "path")?;
        let mut state = self.environment.state();
        state.begin(op)?;
        if let Err(error) = check_path(&path) {
            state.fail(op, &error);
            return Ok(UNDEFINED);
        }
        state.run(op, volume, ending, move |fs| job(fs, &path));
        Ok(UNDEFINED)
    }

    /// Permission bits.
    pub fn mode(&self, index: usize) -> JsResult<u16> {
        self.js.get_u32(self.arguments[index], "mode").map(|mode| (mode & 0o7777) as u16)
    }

    /// Two owners from argument `first` on; -1: as it is.
    pub fn owners(&self, first: usize) -> JsResult<(Option<u32>, Option<u32>)> {
        let owner = |at: usize, name: &str| -> JsResult<Option<u32>> {
            let id = self.js.get_integer(self.arguments[at], name, -1.0, f64::from(u32::MAX))?;
            Ok((0.0..f64::from(u32::MAX)).contains(&(id as f64)).then_some(id as u32))
        };
        Ok((owner(first, "uid")?, owner(first + 1, "gid")?))
    }

    /// Two times, as seconds and nanoseconds from argument `first` on.
    pub fn times(&self, first: usize) -> JsResult<(Timestamp, Timestamp)> {
        let limit = 1e14;
        let time = |at: usize| -> JsResult<Timestamp> {
            let sec = self.js.get_integer(self.arguments[at], "seconds", -limit, limit)?;
            let nsec = self.js.get_integer(self.arguments[at + 1], "nanoseconds", 0.0, 999_999_999.0)?;
            Ok(Timestamp { sec: sec.clamp(Timestamp::MIN_SEC, Timestamp::MAX_SEC), nsec: nsec as u32 })
        };
        Ok((time(first)?, time(first + 2)?))
    }

    fn new_inode(&self, mode: u16) -> NewInode {
        let (uid, gid) = self.environment.owner;
        NewInode { mode, uid, gid }
    }

    /// The permission bits of argument `index`, less the umask's.
    fn new_mode(&self, index: usize) -> JsResult<u16> {
        self.mode(index).map(|mode| mode & !self.environment.umask)
    }
}

/// open(op, volume, path, flags, mode)
pub fn open(call: &Call<'_, 5>) -> JsResult<Value> {
    let flags = call.js.get_u32(call.arguments[3], "flags")? as i32;
    let new = call.new_inode(S_IFREG | call.new_mode(4)?);
    call.on_path(2, Ending::Open, move |fs, path| {
        open_file(fs, path, flags, new).map(|inode| (0, Outcome::Inode(inode)))
    })
}

/// open(2), but for O_TRUNC and O_APPEND, which are the policy's.
fn open_file(fs: &Arc<Fs>, path: &[u8], flags: i32, new: NewInode) -> Result<Arc<Inode>> {
    let follow = flags & libc::O_NOFOLLOW == 0;
    let inode = if flags & libc::O_CREAT != 0 {
        if flags & libc::O_DIRECTORY != 0 {
            return Err(Error::errno_only(errno::EINVAL));
        }
        let exclusive = flags & libc::O_EXCL != 0;
        if !follow && !exclusive && fs.lookup(path, false).is_ok_and(|found| found.mode() & S_IFMT == S_IFLNK)
        {
            return Err(Error::errno_only(errno::ELOOP));
        }
        match fs.create(path, new, exclusive)? {
            (created, true) => return Ok(created),
            (found, false) => found,
        }
    } else {
        fs.open(path, follow)?
    };
    match check_open(fs, &inode, flags) {
        Ok(()) => Ok(inode),
        Err(error) => {
            let _first_error_counts = fs.release(&inode);
            Err(error)
        }
    }
}

fn check_open(fs: &Fs, inode: &Inode, flags: i32) -> Result<()> {
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let refused = |errno| Err(Error::errno_only(errno));
    let kind = inode.mode() & S_IFMT;
    if kind == S_IFLNK {
        return refused(errno::ELOOP);
    }
    if flags & libc::O_DIRECTORY != 0 && kind != S_IFDIR {
        return refused(errno::ENOTDIR);
    }
    if kind == S_IFDIR {
        return if writes || flags & libc::O_CREAT != 0 { refused(errno::EISDIR) } else { Ok(()) };
    }
    if kind != S_IFREG {
        return refused(libc::ENXIO); // No device or pipe is behind it here.
    }
    if !writes {
        return Ok(());
    }
    let probe = fs.probe_write(inode, 0, 0, Look::Cached)?;
    let appends = flags & libc::O_APPEND != 0 && flags & libc::O_TRUNC == 0;
    if probe.has(Probe::SHUT_DOWN) {
        refused(errno::EIO)
    } else if probe.has(Probe::READ_ONLY) {
        refused(errno::EROFS)
    } else if probe.has(Probe::IMMUTABLE) || probe.has(Probe::APPEND) && !appends {
        refused(errno::EPERM)
    } else {
        Ok(())
    }
}

/// stat(op, volume, path, follow)
pub fn stat(call: &Call<'_, 4>) -> JsResult<Value> {
    let follow = call.js.get_bool(call.arguments[3], "follow")?;
    call.on_path(2, Ending::Plain, move |fs, path| {
        // In memory it stays what it was, even if somebody deletes it now.
        let inode = fs.lookup(path, follow)?;
        Ok((0, Outcome::Stat(fs.stat(&inode))))
    })
}

/// readdir(op, volume, path)
pub fn readdir(call: &Call<'_, 3>) -> JsResult<Value> {
    call.on_path(2, Ending::Plain, |fs, path| {
        let mut entries = Vec::new();
        fs.read_dir(path, &mut |name, ino, kind| {
            if name != b"." && name != b".." {
                entries.push((name.to_vec(), ino.0, kind));
            }
            true
        })?;
        Ok((entries.len() as u64, Outcome::Entries(entries)))
    })
}

/// mkdir(op, volume, path, mode)
pub fn mkdir(call: &Call<'_, 4>) -> JsResult<Value> {
    let new = call.new_inode(S_IFDIR | call.new_mode(3)?);
    call.on_path(2, Ending::Plain, move |fs, path| nothing(fs.mkdir(path, new).map(drop)))
}

/// rmdir(op, volume, path)
pub fn rmdir(call: &Call<'_, 3>) -> JsResult<Value> {
    call.on_path(2, Ending::Plain, |fs, path| nothing(fs.rmdir(path)))
}

/// unlink(op, volume, path)
pub fn unlink(call: &Call<'_, 3>) -> JsResult<Value> {
    call.on_path(2, Ending::Plain, |fs, path| nothing(fs.unlink(path)))
}

/// rename(op, volume, oldPath, newPath)
pub fn rename(call: &Call<'_, 4>) -> JsResult<Value> {
    let new = call.js.get_path(call.arguments[3], "newPath")?;
    call.on_path(2, Ending::Plain, move |fs, old| {
        check_path(&new)?;
        nothing(fs.rename(old, &new))
    })
}

/// link(op, volume, existingPath, newPath)
pub fn link(call: &Call<'_, 4>) -> JsResult<Value> {
    let new = call.js.get_path(call.arguments[3], "newPath")?;
    call.on_path(2, Ending::Plain, move |fs, existing| {
        check_path(&new)?;
        nothing(fs.link(existing, &new))
    })
}

/// getxattr(op, volume, path, name)
pub fn getxattr(call: &Call<'_, 4>) -> JsResult<Value> {
    let name = call.js.get_path(call.arguments[3], "name")?;
    call.on_path(2, Ending::Plain, move |fs, path| {
        let value = fs.at_path(path, true, |inode| fs.getxattr(inode, &name))?;
        Ok((value.len() as u64, Outcome::Text(value)))
    })
}

/// setxattr(op, volume, path, name, value, flags): flags as those of setxattr(2).
pub fn setxattr(call: &Call<'_, 6>) -> JsResult<Value> {
    let name = call.js.get_path(call.arguments[3], "name")?;
    let value = call.js.get_path(call.arguments[4], "value")?;
    let how = match call.js.get_u32(call.arguments[5], "flags")? as i32 {
        0 => XattrSet::Either,
        libc::XATTR_CREATE => XattrSet::Create,
        libc::XATTR_REPLACE => XattrSet::Replace,
        flags => return Err(Thrown::Range(format!("flags must be 0, 1 or 2, not {flags}"))),
    };
    call.on_path(2, Ending::Plain, move |fs, path| {
        nothing(fs.at_path(path, true, |inode| fs.setxattr(inode, &name, &value, how)))
    })
}

/// listxattr(op, volume, path): every name with a zero byte behind it, as listxattr(2).
pub fn listxattr(call: &Call<'_, 3>) -> JsResult<Value> {
    call.on_path(2, Ending::Plain, |fs, path| {
        let mut names = fs.at_path(path, true, |inode| fs.listxattr(inode))?.join(&0);
        if !names.is_empty() {
            names.push(0);
        }
        Ok((names.len() as u64, Outcome::Text(names)))
    })
}

/// removexattr(op, volume, path, name)
pub fn removexattr(call: &Call<'_, 4>) -> JsResult<Value> {
    let name = call.js.get_path(call.arguments[3], "name")?;
    call.on_path(2, Ending::Plain, move |fs, path| {
        nothing(fs.at_path(path, true, |inode| fs.removexattr(inode, &name)))
    })
}

/// symlink(op, volume, target, path)
pub fn symlink(call: &Call<'_, 4>) -> JsResult<Value> {
    let target = call.js.get_path(call.arguments[2], "target")?;
    let new = call.new_inode(S_IFLNK | 0o777);
    call.on_path(3, Ending::Plain, move |fs, path| nothing(fs.symlink(&target, path, new).map(drop)))
}

/// readlink(op, volume, path)
pub fn readlink(call: &Call<'_, 3>) -> JsResult<Value> {
    call.on_path(2, Ending::Plain, |fs, path| fs.readlink(path).map(|text| (0, Outcome::Text(text))))
}

/// chmod(op, volume, path, mode)
pub fn chmod(call: &Call<'_, 4>) -> JsResult<Value> {
    let mode = call.mode(3)?;
    call.on_path(2, Ending::Plain, move |fs, path| {
        nothing(fs.at_path(path, true, |inode| fs.chmod(inode, mode)))
    })
}

/// chown(op, volume, path, uid, gid, follow)
pub fn chown(call: &Call<'_, 6>) -> JsResult<Value> {
    let (uid, gid) = call.owners(3)?;
    let follow = call.js.get_bool(call.arguments[5], "follow")?;
    call.on_path(2, Ending::Plain, move |fs, path| {
        nothing(fs.at_path(path, follow, |inode| fs.chown(inode, uid, gid)))
    })
}

/// utimes(op, volume, path, atimeSec, atimeNsec, mtimeSec, mtimeNsec, follow)
pub fn utimes(call: &Call<'_, 8>) -> JsResult<Value> {
    let (atime, mtime) = call.times(3)?;
    let follow = call.js.get_bool(call.arguments[7], "follow")?;
    call.on_path(2, Ending::Plain, move |fs, path| {
        nothing(fs.at_path(path, follow, |inode| fs.set_times(inode, atime, mtime)))
    })
}
