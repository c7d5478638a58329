//! Whether a container is still as long as it was when it was opened.
//!
//! Who cuts it while it is open takes away what may have been promised. A write behind the new end would make the file
//! longer again, with zeros where data was, so the first sight of it is final: no request is carried out any more.

#![expect(unsafe_code, reason = "an ioctl has no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use crate::os_error::{last_errno, os};
use crate::{Error, Result};

const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

/// The size at opening, and the latch of its loss.
#[derive(Debug)]
pub(crate) struct Whole {
    size_bytes: u64,
    is_block_device: bool,
    lost: OnceLock<Error>,
}

impl Whole {
    pub fn new(size_bytes: u64, is_block_device: bool) -> Self {
        Self { size_bytes, is_block_device, lost: OnceLock::new() }
    }

    /// What was found missing, from when on everything is refused with EIO.
    pub fn lost(&self) -> Option<&Error> {
        self.lost.get()
    }

    /// The same as a result, before a request.
    pub fn refuse_if_lost(&self) -> Result<()> {
        self.lost().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Before a write: one that ends where the container does would hide that it was cut.
    pub fn before_write(&self, file: &File, end_bytes: u64) -> Result<()> {
        if end_bytes >= self.size_bytes { self.check(file) } else { self.refuse_if_lost() }
    }

    /// Asks the host, after each short transfer and each flush, before anybody is told how it ended.
    pub fn check(&self, file: &File) -> Result<()> {
        self.refuse_if_lost()?;
        let now_bytes = match self.is_block_device {
            true => block_device_size(file)?,
            false => file.metadata().map_err(|error| os("stat", &error))?.len(),
        };
        if now_bytes >= self.size_bytes {
            return Ok(());
        }
        let detail =
            format!("the container was cut from {} to {now_bytes} bytes while it was open", self.size_bytes);
        Err(self.lost.get_or_init(|| Error::new("size", libc::EIO).with_detail(detail)).clone())
    }
}

/// Of an open block device, in bytes.
pub(crate) fn block_device_size(file: &File) -> Result<u64> {
    let mut size = 0u64;
    // SAFETY: the ioctl writes one u64.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &mut size) };
    if result == 0 { Ok(size) } else { Err(Error::new("size", last_errno())) }
}
