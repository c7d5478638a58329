//! The lock that keeps a container to one writer or several readers.
#![expect(unsafe_code, reason = "fcntl locks have no wrapper in std")]

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::os_error::last_errno;
use crate::{Error, Result};

/// How long a lock is waited for: the kernel takes a killed process's ring apart, and closes the file that it had registered,
/// a moment after the process is gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

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
    /// Locks a file, shared for reading only; may wait a second. EBUSY: another opening excludes this one.
    pub fn new(file: File, read_only: bool) -> Result<Self> {
        let kind = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
        let begin = Instant::now();
        loop {
            match set_lock(&file, kind) {
                Ok(()) => return Ok(Self { file, locked: true }),
                Err(libc::EAGAIN | libc::EACCES) if begin.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Err(libc::EAGAIN | libc::EACCES) => {
                    return Err(Error::new("lock", libc::EBUSY).with_detail("in use by another opening"));
                }
                Err(errno) => return Err(Error::new("lock", errno)),
            }
        }
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
