//! A device in memory, sparse: only pages that were written take space.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::{Dax, Device, Error, Limits, Result};

const PAGE_BYTES: usize = 4096;
/// Locks that the pages are spread over, so that threads rarely meet.
const SHARDS: usize = 16;

type Page = [u8; PAGE_BYTES];
type Shard = HashMap<u64, Arc<Page>>;

/// Bytes in memory. A snapshot shares its pages until one side writes them (CM7).
///
/// A request is atomic within each 4096-byte page only. It reports a volatile cache, so that its user orders flushes
/// as on a disk; nothing outlives the process (CM16).
pub struct MemoryDevice {
    limits: Limits,
    shards: [Mutex<Shard>; SHARDS],
}

impl MemoryDevice {
    /// A device of zeros; `size_bytes` is a multiple of `logical_block_bytes`, a power of two in 512…4096.
    ///
    /// # Panics
    /// Where that is not so.
    pub fn new(size_bytes: u64, logical_block_bytes: u32) -> Self {
        assert!(
            logical_block_bytes.is_power_of_two() && (512..=4096).contains(&logical_block_bytes),
            "the block"
        );
        assert!(size_bytes.is_multiple_of(u64::from(logical_block_bytes)), "a device of whole blocks");
        let limits = Limits {
            size_bytes,
            logical_block_bytes,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: true,
        };
        Self { limits, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// A device that holds `bytes`, under the conditions of [`MemoryDevice::new`].
    pub fn from_bytes(bytes: &[u8], logical_block_bytes: u32) -> Self {
        let device = Self::new(bytes.len() as u64, logical_block_bytes);
        for (index, page) in bytes.chunks(PAGE_BYTES).enumerate() {
            if page.iter().any(|&byte| byte != 0) {
                device.put(index as u64, 0, page);
            }
        }
        device
    }

    /// A device that starts as this one is now and goes its own way.
    pub fn snapshot(&self) -> Self {
        // All locks at once: one moment, not one a shard. No one else takes two.
        let shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        let copies = std::array::from_fn(|index| Mutex::new(shards[index].clone()));
        Self { limits: self.limits.clone(), shards: copies }
    }

    /// A copy of `len_bytes` bytes at any offset and of any length.
    ///
    /// # Panics
    /// Outside the device.
    pub fn read_bytes(&self, offset_bytes: u64, len_bytes: usize) -> Vec<u8> {
        let inside =
            offset_bytes.checked_add(len_bytes as u64).is_some_and(|end| end <= self.limits.size_bytes);
        assert!(inside, "bytes of the device");
        let mut bytes = vec![0; len_bytes];
        self.get(offset_bytes, &mut bytes);
        bytes
    }

    /// Memory that pages take, in bytes; shared ones count on both sides.
    pub fn allocated_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| (shard.lock().len() * PAGE_BYTES) as u64).sum()
    }

    fn shard(&self, page: u64) -> &Mutex<Shard> {
        &self.shards[page as usize % SHARDS]
    }

    fn get(&self, offset_bytes: u64, mut buf: &mut [u8]) {
        for (page, start, len) in pieces(offset_bytes, buf.len() as u64) {
            let (piece, rest) = buf.split_at_mut(len);
            match self.shard(page).lock().get(&page) {
                Some(bytes) => piece.copy_from_slice(&bytes[start..start + len]),
                None => piece.fill(0),
            }
            buf = rest;
        }
    }

    fn put_all(&self, offset_bytes: u64, mut bytes: &[u8]) {
        for (page, start, len) in pieces(offset_bytes, bytes.len() as u64) {
            let (piece, rest) = bytes.split_at(len);
            self.put(page, start, piece);
            bytes = rest;
        }
    }

    fn put(&self, page: u64, start: usize, bytes: &[u8]) {
        const ZEROS: Page = [0; PAGE_BYTES];
        let mut shard = self.shard(page).lock();
        // New blocks get zeros first: pages only for what is more than that.
        if bytes == &ZEROS[..bytes.len()] && !shard.contains_key(&page) {
            return;
        }
        let page = shard.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
        Arc::make_mut(page)[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

/// The range by pages: number, first byte within it, bytes.
fn pieces(offset_bytes: u64, len_bytes: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset_bytes + len_bytes;
    let mut position = offset_bytes;
    std::iter::from_fn(move || {
        let start = (position % PAGE_BYTES as u64) as usize;
        let len = (end - position).min((PAGE_BYTES - start) as u64) as usize;
        let piece = (position / PAGE_BYTES as u64, start, len);
        position += len as u64;
        (len > 0).then_some(piece)
    })
}

impl MemoryDevice {
    fn check_inside(&self, operation: &'static str, offset: u64, len: usize) -> Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.limits.size_bytes => Ok(()),
            _ => Err(Error::at(operation, offset, libc::EINVAL).with_detail(format!("{len} bytes"))),
        }
    }
}

impl Dax for MemoryDevice {
    fn load(&self, offset_bytes: u64, out: &mut [u8]) -> Result<()> {
        self.check_inside("load", offset_bytes, out.len())?;
        self.get(offset_bytes, out);
        Ok(())
    }

    fn store(&self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        self.check_inside("store", offset_bytes, bytes.len())?;
        self.put_all(offset_bytes, bytes);
        Ok(())
    }
}

impl Device for MemoryDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.limits.check("read", offset_bytes, buf.len() as u64)?;
        self.get(offset_bytes, buf);
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.limits.check("write", offset_bytes, buf.len() as u64)?;
        self.put_all(offset_bytes, buf);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// The bytes read as zeros afterwards.
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.limits.check("discard", offset_bytes, len_bytes)?;
        let end = offset_bytes + len_bytes;
        let whole = offset_bytes.div_ceil(PAGE_BYTES as u64)..end / PAGE_BYTES as u64;
        // By what is there: a discard of a huge empty device costs nothing.
        for shard in &self.shards {
            shard.lock().retain(|page, _| !whole.contains(page));
        }
        let ends = [offset_bytes / PAGE_BYTES as u64, end / PAGE_BYTES as u64];
        for page in ends.into_iter().filter(|page| !whole.contains(page)) {
            let first = (page * PAGE_BYTES as u64).max(offset_bytes);
            let last = ((page + 1) * PAGE_BYTES as u64).min(end);
            if let Some(bytes) = self.shard(page).lock().get_mut(&page)
                && first < last
            {
                let start = (first % PAGE_BYTES as u64) as usize;
                Arc::make_mut(bytes)[start..start + (last - first) as usize].fill(0);
            }
        }
        Ok(())
    }

    fn dax(&self) -> Option<&dyn Dax> {
        Some(self)
    }
}
