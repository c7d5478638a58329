//! The lock that keeps a container to one writer or several readers.
#![expect(unsafe_code, reason = "fcntl locks have no wrapper in std")]

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsRawFd;

use crate::file::last_errno;
use crate::{Error, Result};

/// An open file with an OFD lock, which belongs to the opening: a second one is refused in the same process too.
///
/// It is given up when this is dropped, not when the descriptor is closed: a ring that had the file registered, or a process
/// that is just being forked elsewhere in the program, keeps the opening alive a moment longer.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
    locked: bool,
}

impl LockedFile {
    /// Locks a file, shared for reading only. EBUSY: another opening excludes this one.
    pub fn new(file: File, read_only: bool) -> Result<Self> {
        set_lock(&file, if read_only { libc::F_RDLCK } else { libc::F_WRLCK }).map_err(
            |errno| match errno {
                libc::EAGAIN | libc::EACCES => {
                    Error::new("lock", libc::EBUSY).with_detail("in use by another opening")
                }
                errno => Error::new("lock", errno),
            },
        )?;
        Ok(Self { file, locked: true })
    }

    /// A block device, which O_EXCL keeps to one opening.
    pub fn exclusive_already(file: File) -> Self {
        Self { file, locked: false }
    }
}

impl Deref for LockedFile {
    type Target = File;
    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if self.locked {
            let _closing_unlocks_too = set_lock(&self.file, libc::F_UNLCK);
        }
    }
}

fn set_lock(file: &File, kind: libc::c_int) -> std::result::Result<(), i32> {
    let lock =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
