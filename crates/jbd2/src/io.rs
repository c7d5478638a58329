//! Device writes gathered into few.

use block_io::{AlignedBuf, Device};

use crate::Result;

/// Gathers blocks that are adjacent on the device, in the order in which they come, into large writes.
pub(crate) struct GatheringWriter<'a> {
    device: &'a dyn Device,
    block_size: usize,
    buf: AlignedBuf,
    used: usize,
    next_block: u64,
}

impl<'a> GatheringWriter<'a> {
    pub fn new(device: &'a dyn Device, block_size: usize, write_bytes: usize) -> Self {
        let blocks = (write_bytes / block_size).max(1);
        Self { device, block_size, buf: AlignedBuf::zeroed(blocks * block_size), used: 0, next_block: 0 }
    }

    /// Adds one block.
    pub fn push(&mut self, device_block: u64, bytes: &[u8]) -> Result<()> {
        assert!(bytes.len() == self.block_size);
        if self.used > 0 && (device_block != self.next_block || self.used == self.buf.len()) {
            self.write_out()?;
        }
        self.buf[self.used..self.used + self.block_size].copy_from_slice(bytes);
        self.used += self.block_size;
        self.next_block = device_block + 1;
        Ok(())
    }

    /// Writes what is left; every block pushed is complete at the device afterwards.
    pub fn write_out(&mut self) -> Result<()> {
        if self.used > 0 {
            let start = self.next_block * self.block_size as u64 - self.used as u64;
            self.device.write(start, &self.buf[..self.used], false)?;
            self.used = 0;
        }
        Ok(())
    }
}
