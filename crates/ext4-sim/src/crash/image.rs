//! One image that advances with the log, and states over it (CM7).

use std::collections::HashMap;
use std::sync::Arc;

use block_io::sync::Mutex;
use block_io::{Device, Limits, Result};

/// Bytes that a device writes whole or not at all (CM3).
pub const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A piece of a write: `range` of `bytes`, at `offset` on the device.
#[derive(Clone)]
pub struct Patch {
    /// Byte offset on the device, a multiple of 512.
    pub offset: u64,
    /// The whole write that it is from.
    pub bytes: Arc<[u8]>,
    /// Its part of it, whole sectors.
    pub range: std::ops::Range<usize>,
}

impl Patch {
    /// What it writes.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// Its sectors `from..to`.
    pub fn sectors(&self, from: usize, to: usize) -> Self {
        let start = self.range.start + from * SECTOR;
        Self {
            offset: self.offset + (from * SECTOR) as u64,
            bytes: self.bytes.clone(),
            range: start..self.range.start + to * SECTOR,
        }
    }

    /// How many sectors it has.
    pub fn sector_count(&self) -> usize {
        self.range.len() / SECTOR
    }
}

/// A sum over an image's sectors: it changes with them one by one, and equal images have equal sums (CM6).
fn sector_hash(sector: u64, bytes: &[u8]) -> u64 {
    let mut hash = sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        hash = (hash ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash ^= hash >> 32;
    }
    hash
}

/// What is durable: the bytes and their sum.
pub struct Image {
    bytes: Arc<Vec<u8>>,
    hash: u64,
}

impl Image {
    /// Starts at `bytes`, a multiple of 4096 long.
    pub fn new(bytes: Arc<Vec<u8>>) -> Self {
        assert!(bytes.len().is_multiple_of(PAGE));
        // Relative to where it starts: only changes count.
        Self { bytes, hash: 0 }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes a write durable.
    pub fn apply(&mut self, patch: &Patch) {
        let bytes = Arc::make_mut(&mut self.bytes);
        for (sector, new) in (patch.offset / SECTOR as u64..).zip(patch.data().chunks(SECTOR)) {
            let old = &mut bytes[sector as usize * SECTOR..][..SECTOR];
            self.hash =
                self.hash.wrapping_sub(sector_hash(sector, old)).wrapping_add(sector_hash(sector, new));
            old.copy_from_slice(new);
        }
    }

    /// The sum that the image would have after `patches`, in their order.
    pub fn hash_with(&self, patches: &[Patch]) -> u64 {
        let mut sectors: HashMap<u64, &[u8]> = HashMap::new();
        for patch in patches {
            let first = patch.offset / SECTOR as u64;
            sectors.extend((first..).zip(patch.data().chunks(SECTOR)));
        }
        sectors.into_iter().fold(self.hash, |hash, (sector, new)| {
            let old = &self.bytes[sector as usize * SECTOR..][..SECTOR];
            hash.wrapping_sub(sector_hash(sector, old)).wrapping_add(sector_hash(sector, new))
        })
    }

    /// A device that holds the image with `patches`, and goes its own way.
    pub fn device(&self, patches: &[Patch]) -> StateDevice {
        let device = StateDevice::new(self.bytes.clone());
        for patch in patches {
            device.put(patch.offset, patch.data());
        }
        device
    }
}

/// A device over shared bytes: what is written is kept in pages of its own.
pub struct StateDevice {
    base: Arc<Vec<u8>>,
    limits: Limits,
    pages: Mutex<HashMap<u32, Box<[u8; PAGE]>>>,
}

impl StateDevice {
    /// A device that holds `base`.
    pub fn new(base: Arc<Vec<u8>>) -> Self {
        let limits = Limits {
            size_bytes: base.len() as u64,
            logical_block_bytes: SECTOR as u32,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: true,
        };
        Self { base, limits, pages: Mutex::default() }
    }

    /// All its bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::clone(&self.base);
        for (&page, data) in self.pages.lock().iter() {
            bytes[page as usize * PAGE..][..PAGE].copy_from_slice(&data[..]);
        }
        bytes
    }

    fn put(&self, offset: u64, data: &[u8]) {
        let mut pages = self.pages.lock();
        let (mut at, mut rest) = (offset as usize, data);
        while !rest.is_empty() {
            let start = at % PAGE;
            let len = rest.len().min(PAGE - start);
            let page = pages.entry((at / PAGE) as u32).or_insert_with(|| {
                let base = &self.base[at / PAGE * PAGE..][..PAGE];
                Box::new(base.try_into().expect("a page"))
            });
            page[start..start + len].copy_from_slice(&rest[..len]);
            (at, rest) = (at + len, &rest[len..]);
        }
    }
}

impl Device for StateDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.limits.check("read", offset_bytes, buf.len() as u64)?;
        let pages = self.pages.lock();
        let (mut at, mut rest) = (offset_bytes as usize, buf);
        while !rest.is_empty() {
            let start = at % PAGE;
            let len = rest.len().min(PAGE - start);
            let (piece, after) = rest.split_at_mut(len);
            match pages.get(&((at / PAGE) as u32)) {
                Some(page) => piece.copy_from_slice(&page[start..start + len]),
                None => piece.copy_from_slice(&self.base[at..at + len]),
            }
            (at, rest) = (at + len, after);
        }
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.limits.check("write", offset_bytes, buf.len() as u64)?;
        self.put(offset_bytes, buf);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.limits.check("discard", offset_bytes, len_bytes)
    }
}
