//! A sparse device in memory.

use std::collections::HashMap;

use block_io::{Device, Error, Limits, Result, sync::Mutex};

const PAGE: u64 = 4096;

/// Reads as `fill` where nothing was written.
pub struct SparseDevice {
    limits: Limits,
    fill: u8,
    pages: Mutex<HashMap<u64, Box<[u8]>>>,
}

impl SparseDevice {
    pub fn new(size_bytes: u64, fill: u8) -> Self {
        let limits = Limits {
            size_bytes,
            logical_block_bytes: 512,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: false,
        };
        Self { limits, fill, pages: Mutex::default() }
    }

    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes).unwrap();
        bytes
    }

    /// Calls back for every piece that lies in one page: page, offset in it, range of the request.
    fn each(
        &self,
        offset: u64,
        len: usize,
        mut piece: impl FnMut(u64, usize, std::ops::Range<usize>),
    ) -> Result<()> {
        let outside = offset.checked_add(len as u64).is_none_or(|end| end > self.limits.size_bytes);
        if outside || !offset.is_multiple_of(512) || !len.is_multiple_of(512) {
            return Err(Error::at("test", offset, 22));
        }
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let inside = (at % PAGE) as usize;
            let count = (PAGE as usize - inside).min(len - done);
            piece(at / PAGE, inside, done..done + count);
            done += count;
        }
        Ok(())
    }
}

impl Device for SparseDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        let pages = self.pages.lock();
        self.each(offset_bytes, buf.len(), |page, inside, range| match pages.get(&page) {
            Some(bytes) => {
                let len = range.len();
                buf[range].copy_from_slice(&bytes[inside..inside + len]);
            }
            None => buf[range].fill(self.fill),
        })
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        let mut pages = self.pages.lock();
        self.each(offset_bytes, buf.len(), |page, inside, range| {
            let bytes = pages.entry(page).or_insert_with(|| vec![self.fill; PAGE as usize].into());
            bytes[inside..inside + range.len()].copy_from_slice(&buf[range]);
        })
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, _len_bytes: u64) -> Result<()> {
        Err(Error::at("discard", offset_bytes, 95))
    }
}
