//! Making container files.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::host_use::refuse_looped;
use crate::lock::LockedFile;
use crate::os_error::os;
use crate::{Error, Result};

/// How a container file is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerOptions {
    /// The size it gets, in bytes; what is beyond it is cut off.
    pub size_bytes: u64,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// Refuse (EEXIST) a file that is there already instead of resizing it.
    pub must_be_new: bool,
    /// Allocate the space now, so that a later write meets no ENOSPC of the host; otherwise by use.
    pub preallocate: bool,
}

/// Makes a container file of `size_bytes`, or resizes one, and makes that durable (CM16). Space is allocated by use.
///
/// # Errors
/// Those of [`create_container_with`].
pub fn create_container(path: &Path, size_bytes: u64) -> Result<()> {
    let options = ContainerOptions { size_bytes, mode: 0o666, must_be_new: false, preallocate: false };
    create_container_with(path, options)
}

/// Makes or resizes a container file and makes that durable: the file's metadata and its name (CM16).
///
/// # Errors
/// EEXIST if it must be new and is not; EBUSY if it is open as a device or the host's kernel has it in use; EINVAL if it is not a regular file or
/// the size exceeds what a file can have; EOPNOTSUPP or ENOSPC where the host cannot preallocate; else those of
/// open(2), ftruncate(2) and fsync(2).
pub fn create_container_with(path: &Path, options: ContainerOptions) -> Result<()> {
    i64::try_from(options.size_bytes).map_err(|_| Error::new("truncate", libc::EINVAL))?;
    let mut open = File::options();
    open.read(true).write(true).mode(options.mode);
    match options.must_be_new {
        true => open.create_new(true),
        false => open.create(true).truncate(false),
    };
    let file = open.open(path).map_err(|error| os("open", &error).with_detail(path.display().to_string()))?;
    let metadata = file.metadata().map_err(|error| os("stat", &error))?;
    if !metadata.is_file() {
        return Err(Error::new("open", libc::EINVAL).with_detail("not a regular file"));
    }
    // A volume in use must not lose its end.
    let file = LockedFile::new(file, false)?;
    refuse_looped(&metadata, false)?;
    file.set_len(options.size_bytes).map_err(|error| os("truncate", &error))?;
    if options.preallocate && options.size_bytes > 0 {
        fallocate(&*file, FallocateFlags::empty(), 0, options.size_bytes)
            .map_err(|errno| Error::new("preallocate", errno.raw_os_error()))?;
    }
    file.sync_all().map_err(|error| os("sync", &error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = File::open(parent).map_err(|error| os("open", &error))?;
    dir.sync_all().map_err(|error| os("sync", &error))
}
