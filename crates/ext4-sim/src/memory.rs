//! A device in memory, for volumes that are made by the hundred.

use block_io::sync::Mutex;
use block_io::{Device, Error, Limits, Result};

/// A small volume's bytes.
pub struct MemoryDevice {
    limits: Limits,
    bytes: Mutex<Vec<u8>>,
}

impl MemoryDevice {
    /// Over `bytes`, a multiple of 512.
    pub fn new(bytes: Vec<u8>) -> Self {
        assert!(bytes.len().is_multiple_of(512));
        let limits = Limits {
            size_bytes: bytes.len() as u64,
            logical_block_bytes: 512,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: false,
        };
        Self { limits, bytes: Mutex::new(bytes) }
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }

    fn range(&self, offset_bytes: u64, len: usize) -> Result<std::ops::Range<usize>> {
        let end = offset_bytes.checked_add(len as u64).filter(|&end| end <= self.limits.size_bytes);
        match end {
            Some(end) if offset_bytes.is_multiple_of(512) && len.is_multiple_of(512) => {
                Ok(offset_bytes as usize..end as usize)
            }
            _ => Err(Error::at("request", offset_bytes, 22)),
        }
    }
}

impl Device for MemoryDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        let range = self.range(offset_bytes, buf.len())?;
        buf.copy_from_slice(&self.bytes.lock()[range]);
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        let range = self.range(offset_bytes, buf.len())?;
        self.bytes.lock()[range].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _offset_bytes: u64, _len_bytes: u64) -> Result<()> {
        Ok(())
    }
}
