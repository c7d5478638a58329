//! The blocking face of a device.

use crate::{Dax, Error, IoTotals, Result};

/// What a device is and what it asks of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Capacity in bytes; requests end at or below it.
    pub size_bytes: u64,
    /// Offsets and lengths of requests are multiples of this (lbs of the specification): 512…4096.
    pub logical_block_bytes: u32,
    /// Addresses of direct requests' memory are multiples of this: 1…4096.
    pub memory_alignment_bytes: u32,
    /// A completed write may be lost in a power cut until a flush completed (CM2).
    pub volatile_cache: bool,
    /// Writing was refused by the host, or not asked for.
    pub read_only: bool,
    /// Requests bypass the host's page cache.
    pub direct: bool,
}

impl Limits {
    /// Whether a request of `len_bytes` may be made.
    ///
    /// # Errors
    /// EINVAL outside the device or where offset or length is no multiple of the logical block.
    pub fn check(&self, operation: &'static str, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        let inside = offset_bytes.checked_add(len_bytes).is_some_and(|end| end <= self.size_bytes);
        if inside && (offset_bytes | len_bytes).is_multiple_of(u64::from(self.logical_block_bytes)) {
            return Ok(());
        }
        Err(Error::at(operation, offset_bytes, libc::EINVAL).with_detail(format!("{len_bytes} bytes")))
    }
}

/// A device for blocking I/O, shared by threads.
///
/// Offsets and lengths are in bytes and multiples of [`Limits::logical_block_bytes`]; a request outside the
/// device is an error (EINVAL), never clipped. Memory of any address is accepted: what the host's direct I/O
/// refuses is copied through an [`crate::AlignedBuf`].
pub trait Device: Send + Sync {
    /// What the device is; constant while it is open.
    fn limits(&self) -> &Limits;

    /// Fills `buf` from `offset_bytes`. A short read is an error (EIO).
    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes all of `buf`. With `fua` it is durable when this returns, whatever else is (CM16: RWF_DSYNC).
    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()>;

    /// Makes every write that completed before this call durable.
    fn flush(&self) -> Result<()>;

    /// Why every request is refused from here on: the container was found shorter than it was at opening. Looks at no
    /// device.
    fn lost(&self) -> Option<&Error> {
        None
    }

    /// Asks the host whether the container is as long as at opening; a flush does so too. EIO where it is not.
    fn check_whole(&self) -> Result<()> {
        Ok(())
    }

    /// What it was asked for since it was opened, where that is counted, by this face and by queues over it.
    fn io_totals(&self) -> Option<IoTotals> {
        None
    }

    /// Tells the device that the bytes are unused; they read as anything (zeros on a container file) afterwards.
    /// A device that cannot returns EOPNOTSUPP.
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()>;

    /// The device's bytes in place, if the CPU reaches them.
    fn dax(&self) -> Option<&dyn Dax> {
        None
    }
}
