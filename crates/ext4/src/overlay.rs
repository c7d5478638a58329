//! A device that keeps what is written to it in memory (R18): recovery for a read-only mount runs on it unchanged.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use block_io::sync::Mutex;
use block_io::{AlignedBuf, Device, Limits, Result};

use crate::meta::Image;

/// Reads fall through to the device below where nothing was written.
pub(crate) struct Overlay {
    below: Arc<dyn Device>,
    limits: Limits,
    /// By logical block of the device.
    written: Mutex<HashMap<u64, AlignedBuf>>,
}

impl Overlay {
    pub fn new(below: Arc<dyn Device>) -> Self {
        // What is written stays here, whatever the device below allows.
        let limits = Limits { read_only: false, ..below.limits().clone() };
        Self { below, limits, written: Mutex::new(HashMap::new()) }
    }
}

impl Overlay {
    /// Every block of `block_size` bytes that was written to, ascending.
    pub fn written_blocks(&self, block_size: usize) -> crate::Result<Vec<(u64, Image)>> {
        let per_block = block_size as u64 / u64::from(self.limits.logical_block_bytes);
        let blocks: BTreeSet<u64> = self.written.lock().keys().map(|sector| sector / per_block).collect();
        let read = |block| {
            let mut image = AlignedBuf::zeroed(block_size);
            self.read(block * block_size as u64, &mut image)?;
            Ok((block, Arc::new(image)))
        };
        blocks.into_iter().map(read).collect()
    }
}

impl Device for Overlay {
    fn lost(&self) -> Option<&block_io::Error> {
        self.below.lost()
    }

    fn check_whole(&self) -> Result<()> {
        self.below.check_whole()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.below.read(offset_bytes, buf)?;
        let written = self.written.lock();
        if written.is_empty() {
            return Ok(());
        }
        let lbs = u64::from(self.limits.logical_block_bytes);
        for (block, part) in (offset_bytes / lbs..).zip(buf.chunks_mut(lbs as usize)) {
            if let Some(bytes) = written.get(&block) {
                part.copy_from_slice(&bytes[..part.len()]);
            }
        }
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        let lbs = u64::from(self.limits.logical_block_bytes);
        let mut written = self.written.lock();
        for (block, part) in (offset_bytes / lbs..).zip(buf.chunks(lbs as usize)) {
            written.insert(block, AlignedBuf::copy_of(part));
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _offset_bytes: u64, _len_bytes: u64) -> Result<()> {
        Ok(())
    }
}
