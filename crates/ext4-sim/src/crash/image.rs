//! One image that advances with the log, and states over it (CM7).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use block_io::sync::Mutex;
use block_io::{Device, Limits, Result};

/// Bytes that a device writes whole or not at all (CM3).
pub const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Where the primary superblock lies: mounts count there.
const SUPERBLOCK: Range<u64> = 1024..2048;

type Page = [u8; PAGE];
type Pages = HashMap<u32, Arc<Page>>;

/// A piece of a write: `range` of `bytes`, at `offset` of the image.
#[derive(Clone)]
pub struct Patch {
    /// Byte offset in the image, a multiple of 512.
    pub offset: u64,
    /// The whole write that it is from.
    pub bytes: Arc<[u8]>,
    /// Its part of it, whole sectors.
    pub range: Range<usize>,
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

/// Sums over sectors: they change with them one by one, and equal contents have equal sums (CM6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of everything.
    pub all: u64,
    /// Of the volume: not the log, not the superblock.
    pub volume: u64,
}

fn sector_sum(sector: u64, bytes: &[u8]) -> u64 {
    let mut sum = sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        sum = (sum ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        sum ^= sum >> 32;
    }
    sum
}

/// Bytes that states share.
#[derive(Clone)]
pub struct Base {
    bytes: Vec<u8>,
    /// Relative to where it started: only changes count.
    sums: Sums,
    journal: Vec<Range<u64>>,
}

impl Base {
    /// `bytes`, a multiple of 4096, with a log at `journal`.
    pub fn new(bytes: Vec<u8>, journal: Vec<Range<u64>>) -> Self {
        assert!(bytes.len().is_multiple_of(PAGE));
        Self { bytes, sums: Sums::default(), journal }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the log is, its superblock first.
    pub fn journal(&self) -> &[Range<u64>] {
        &self.journal
    }

    /// Whether a byte belongs to the log.
    pub fn in_journal(&self, at: u64) -> bool {
        self.journal.iter().any(|range| range.contains(&at))
    }

    fn page(&self, page: u32) -> &[u8] {
        &self.bytes[page as usize * PAGE..][..PAGE]
    }

    /// `sums` with one sector changed.
    fn changed(&self, sums: &mut Sums, sector: u64, old: &[u8], new: &[u8]) {
        if old == new {
            return;
        }
        let change = sector_sum(sector, new).wrapping_sub(sector_sum(sector, old));
        sums.all = sums.all.wrapping_add(change);
        let at = sector * SECTOR as u64;
        if !self.in_journal(at) && !SUPERBLOCK.contains(&at) {
            sums.volume = sums.volume.wrapping_add(change);
        }
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        let mut sums = self.sums;
        for (sector, new) in (offset / SECTOR as u64..).zip(data.chunks(SECTOR)) {
            self.changed(&mut sums, sector, &self.bytes[sector as usize * SECTOR..][..SECTOR], new);
        }
        self.sums = sums;
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
    }
}

fn put(base: &Base, pages: &mut Pages, offset: u64, data: &[u8]) {
    let (mut at, mut rest) = (offset as usize, data);
    while !rest.is_empty() {
        let start = at % PAGE;
        let len = rest.len().min(PAGE - start);
        let number = (at / PAGE) as u32;
        let page =
            pages.entry(number).or_insert_with(|| Arc::new(base.page(number).try_into().expect("a page")));
        Arc::make_mut(page)[start..start + len].copy_from_slice(&rest[..len]);
        (at, rest) = (at + len, &rest[len..]);
    }
}

/// What is durable.
#[derive(Clone)]
pub struct Image {
    base: Arc<Base>,
    /// What differs from `base`, where others share that.
    pages: Pages,
}

impl Image {
    /// Starts as a copy of `base`.
    pub fn new(base: &Base) -> Self {
        Self { base: Arc::new(base.clone()), pages: Pages::new() }
    }

    /// The same with `patches`.
    pub fn with(&self, patches: &[Patch]) -> Self {
        let mut pages = self.pages.clone();
        for patch in patches {
            put(&self.base, &mut pages, patch.offset, patch.data());
        }
        Self { base: self.base.clone(), pages }
    }

    /// Makes a write durable.
    pub fn apply(&mut self, patch: &Patch) {
        match Arc::get_mut(&mut self.base).filter(|_| self.pages.is_empty()) {
            Some(base) => base.put(patch.offset, patch.data()),
            None => put(&self.base, &mut self.pages, patch.offset, patch.data()),
        }
    }

    /// A device that holds the image with `patches`, in their order, and goes its own way.
    pub fn device(&self, patches: &[Patch]) -> StateDevice {
        let Self { base, pages } = self.with(patches);
        StateDevice { limits: limits(base.bytes.len()), base, pages: Mutex::new(pages) }
    }
}

fn limits(size: usize) -> Limits {
    Limits {
        size_bytes: size as u64,
        logical_block_bytes: SECTOR as u32,
        memory_alignment_bytes: 1,
        volatile_cache: true,
        read_only: false,
        direct: true,
    }
}

/// A device over shared bytes: what is written is kept in pages of its own.
pub struct StateDevice {
    base: Arc<Base>,
    limits: Limits,
    pages: Mutex<Pages>,
}

impl StateDevice {
    /// A device that holds `base`.
    pub fn new(base: Arc<Base>) -> Self {
        Self { limits: limits(base.bytes.len()), base, pages: Mutex::default() }
    }

    /// All its bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.base.bytes.clone();
        for (&page, data) in self.pages.lock().iter() {
            bytes[page as usize * PAGE..][..PAGE].copy_from_slice(&data[..]);
        }
        bytes
    }

    /// Sums over what it holds now.
    pub fn sums(&self) -> Sums {
        let mut sums = self.base.sums;
        for (&page, data) in self.pages.lock().iter() {
            let first = u64::from(page) * (PAGE / SECTOR) as u64;
            for ((sector, old), new) in
                (first..).zip(self.base.page(page).chunks(SECTOR)).zip(data.chunks(SECTOR))
            {
                self.base.changed(&mut sums, sector, old, new);
            }
        }
        sums
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
                None => piece.copy_from_slice(&self.base.bytes[at..at + len]),
            }
            (at, rest) = (at + len, after);
        }
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.limits.check("write", offset_bytes, buf.len() as u64)?;
        put(&self.base, &mut self.pages.lock(), offset_bytes, buf);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.limits.check("discard", offset_bytes, len_bytes)
    }
}

/// One of several devices that share an image (CM4): a volume, or its journal's device behind it.
pub struct Part {
    whole: Arc<StateDevice>,
    start: u64,
    limits: Limits,
}

impl Part {
    /// The bytes `range` of an image.
    pub fn new(whole: Arc<StateDevice>, range: Range<u64>) -> Self {
        Self { whole, start: range.start, limits: limits((range.end - range.start) as usize) }
    }
}

impl Device for Part {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.limits.check("read", offset_bytes, buf.len() as u64)?;
        self.whole.read(self.start + offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.limits.check("write", offset_bytes, buf.len() as u64)?;
        self.whole.write(self.start + offset_bytes, buf, fua)
    }

    fn flush(&self) -> Result<()> {
        self.whole.flush()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.limits.check("discard", offset_bytes, len_bytes)
    }
}
