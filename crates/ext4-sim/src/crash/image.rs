//! Images that share most of their bytes: one advances with the log, states are copies of it with more written (CM7).

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

impl Sums {
    /// One sector changes.
    fn change(&mut self, base: &Base, sector: u64, old: &[u8], new: &[u8]) {
        let change = sector_sum(sector, new).wrapping_sub(sector_sum(sector, old));
        self.all = self.all.wrapping_add(change);
        let at = sector * SECTOR as u64;
        if !base.in_journal(at) && !SUPERBLOCK.contains(&at) {
            self.volume = self.volume.wrapping_add(change);
        }
    }
}

fn sector_sum(sector: u64, bytes: &[u8]) -> u64 {
    // Four chains at once: a processor has that many multiplications under way.
    let start = sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
    let mut lanes = [start, start.rotate_left(16), start.rotate_left(32), start.rotate_left(48)];
    let mix = |sum: u64, word: u64| {
        let sum = (sum ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        sum ^ sum >> 32
    };
    for words in bytes.chunks_exact(32) {
        for (lane, word) in lanes.iter_mut().zip(words.chunks_exact(8)) {
            *lane = mix(*lane, u64::from_le_bytes(word.try_into().expect("8 bytes")));
        }
    }
    lanes.into_iter().fold(start, mix)
}

/// Bytes that states share.
#[derive(Clone)]
pub struct Base {
    bytes: Vec<u8>,
    journal: Vec<Range<u64>>,
}

impl Base {
    /// `bytes`, a multiple of 4096, with a log at `journal`.
    pub fn new(bytes: Vec<u8>, journal: Vec<Range<u64>>) -> Self {
        assert!(bytes.len().is_multiple_of(PAGE));
        Self { bytes, journal }
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

    fn page(&self, page: usize) -> &Page {
        self.bytes[page * PAGE..][..PAGE].try_into().expect("a page")
    }
}

/// What a device holds: a base, and pages that differ from it. A copy shares both.
#[derive(Clone)]
pub struct Image {
    base: Arc<Base>,
    pages: Vec<Option<Arc<Page>>>,
    /// Relative to the base's: only changes count.
    sums: Sums,
}

impl Image {
    /// Starts as `base`.
    pub fn new(base: &Arc<Base>) -> Self {
        let pages = vec![None; base.bytes.len() / PAGE];
        Self { base: base.clone(), pages, sums: Sums::default() }
    }

    /// What it started as.
    pub fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// Sums over what it holds.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The same with `patches`, in their order.
    pub fn with<'p>(&self, patches: impl IntoIterator<Item = &'p Patch>) -> Self {
        let mut image = self.clone();
        patches.into_iter().for_each(|patch| image.apply(patch));
        image
    }

    /// Makes a write.
    pub fn apply(&mut self, patch: &Patch) {
        self.write(patch.offset, patch.data());
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset as usize, data);
        while !rest.is_empty() {
            let (start, len) = (at % PAGE, rest.len().min(PAGE - at % PAGE));
            self.write_page(at / PAGE, start, &rest[..len]);
            (at, rest) = (at + len, &rest[len..]);
        }
    }

    /// Changes sectors of one page, and the sums with them.
    fn write_page(&mut self, number: usize, start: usize, data: &[u8]) {
        if self.page(number)[start..start + data.len()] == *data {
            return;
        }
        let Self { base, pages, sums } = self;
        let page = pages[number].get_or_insert_with(|| Arc::new(*base.page(number)));
        let old = &page[start..start + data.len()];
        let first = (number * PAGE + start) / SECTOR;
        for ((sector, old), new) in (first as u64..).zip(old.chunks(SECTOR)).zip(data.chunks(SECTOR)) {
            if old != new {
                sums.change(base, sector, old, new);
            }
        }
        Arc::make_mut(page)[start..start + data.len()].copy_from_slice(data);
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        let (mut at, mut rest) = (offset as usize, buf);
        while !rest.is_empty() {
            let (start, len) = (at % PAGE, rest.len().min(PAGE - at % PAGE));
            let (piece, after) = rest.split_at_mut(len);
            piece.copy_from_slice(&self.page(at / PAGE)[start..start + len]);
            (at, rest) = (at + len, after);
        }
    }

    fn page(&self, number: usize) -> &Page {
        self.pages[number].as_deref().unwrap_or_else(|| self.base.page(number))
    }

    /// All its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        (0..self.pages.len()).flat_map(|number| self.page(number)).copied().collect()
    }

    /// Pages that may differ from those of another image of the same base: byte offset and bytes.
    pub fn unlike<'i>(&'i self, other: &'i Self) -> impl Iterator<Item = (u64, &'i [u8])> {
        let is_other = |ours: &Option<Arc<Page>>, theirs: &Option<Arc<Page>>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => !Arc::ptr_eq(ours, theirs),
            (None, None) => false,
            _ => true,
        };
        let numbers = 0..self.pages.len();
        numbers
            .filter(move |&number| is_other(&self.pages[number], &other.pages[number]))
            .map(|number| ((number * PAGE) as u64, &self.page(number)[..]))
    }

    /// A device that holds it, and goes its own way.
    pub fn device(&self) -> StateDevice {
        StateDevice { limits: limits(self.base.bytes.len()), image: Mutex::new(self.clone()) }
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

/// An image as a device.
pub struct StateDevice {
    limits: Limits,
    image: Mutex<Image>,
}

impl StateDevice {
    /// A device that holds `base`.
    pub fn new(base: Arc<Base>) -> Self {
        Image::new(&base).device()
    }

    /// What it holds now.
    pub fn image(&self) -> Image {
        self.image.lock().clone()
    }

    /// All its bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        self.image.lock().bytes()
    }

    /// Sums over what it holds now.
    pub fn sums(&self) -> Sums {
        self.image.lock().sums
    }
}

impl Device for StateDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.limits.check("read", offset_bytes, buf.len() as u64)?;
        self.image.lock().read(offset_bytes, buf);
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.limits.check("write", offset_bytes, buf.len() as u64)?;
        self.image.lock().write(offset_bytes, buf);
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
