//! A device that the threads of a schedule share, a journal on it, and what a power cut would leave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use block_io::sync::model::history;
use block_io::{AlignedBuf, Device, Limits, Result};
use jbd2::format::create_superblock;
use jbd2::recovery::{self, RecoverOptions};
use jbd2::{Config, Error, Features, Host, Image, Journal, LogExtent, LogMap, SealTag, Tid};

pub const BLOCK: usize = 1024;
pub const HOME_BLOCKS: u64 = 16;
const LOG_BLOCKS: u32 = 1024;
const FEATURES: Features = Features { wide: true, csum_v3: true, fast_commit: false };
/// In the history: all blocks, as one who reads them all sees them.
const ALL: u64 = u64::MAX;

/// Blocks that were written; requests are places where another thread may go on.
pub struct SparseDevice {
    limits: Limits,
    blocks: Mutex<Blocks>,
    /// `None`: nobody else has the device.
    request: Option<shuttle::sync::atomic::AtomicUsize>,
}

#[derive(Clone, Default)]
struct Blocks {
    written: BTreeMap<u64, [u8; BLOCK]>,
    /// Of all of them, in no order.
    hash: u64,
}

fn hash(block: u64, bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let found = (0u64..).zip(words).filter(|(_, word)| *word != 0);
    found.fold(block, |hash, (index, word)| history::mix(hash ^ index << 32, word))
}

impl SparseDevice {
    fn new(blocks: Blocks, shared: bool) -> Arc<Self> {
        let limits = Limits {
            size_bytes: (HOME_BLOCKS + u64::from(LOG_BLOCKS)) * BLOCK as u64,
            logical_block_bytes: 512,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: true,
        };
        let request = shared.then(|| shuttle::sync::atomic::AtomicUsize::new(0));
        Arc::new(Self { limits, blocks: Mutex::new(blocks), request })
    }

    fn switch(&self) {
        if let Some(request) = &self.request {
            request.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn note_read(&self, block: u64) {
        if self.request.is_some() {
            history::read(block);
        }
    }

    /// The number that a block holds.
    pub fn number(&self, block: u64) -> u64 {
        self.note_read(block);
        self.blocks.lock().unwrap().written.get(&block).map_or(0, |bytes| number(bytes))
    }

    /// Writes a number without the journal, as direct I/O does.
    pub fn set_number(&self, block: u64, number: u64) {
        let mut bytes = AlignedBuf::zeroed(BLOCK);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        self.write(block * BLOCK as u64, &bytes, false).unwrap();
    }
}

impl Device for SparseDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let blocks = self.blocks.lock().unwrap();
        for (block, part) in (offset / BLOCK as u64..).zip(buf.chunks_mut(BLOCK)) {
            self.note_read(block);
            part.copy_from_slice(&blocks.written.get(&block).unwrap_or(&[0; BLOCK])[..part.len()]);
        }
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.switch();
        let mut blocks = self.blocks.lock().unwrap();
        for (block, part) in (offset / BLOCK as u64..).zip(buf.chunks(BLOCK)) {
            let before = blocks.written.insert(block, part.try_into().unwrap());
            if self.request.is_some() {
                let now = hash(block, part);
                blocks.hash ^= now ^ before.map_or(0, |bytes| hash(block, &bytes));
                history::write(block, now);
                history::write(ALL, blocks.hash);
            }
        }
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

struct PlainHost;

impl Host for PlainHost {
    fn seal(&self, _: u64, _: SealTag, _: &mut [u8]) {}
    fn retire(&self, _: u64, _: Image) {}
    fn forgotten(&self, _: u64) {}
    fn committed(&self, _: Tid) {}
    fn aborted(&self, errno: i32) {
        panic!("aborted: {errno}");
    }
    fn now(&self) -> (u64, u32) {
        (1, 0)
    }
}

fn log_map() -> LogMap {
    LogMap::new(vec![LogExtent { log_start: 0, len: LOG_BLOCKS, device_block: HOME_BLOCKS }]).unwrap()
}

/// A new journal on a device of zeros.
pub fn open() -> (Arc<SparseDevice>, Arc<Journal>) {
    let device = SparseDevice::new(Blocks::default(), true);
    let mut superblock = AlignedBuf::zeroed(BLOCK);
    create_superblock(BLOCK as u32, LOG_BLOCKS, [5; 16]).unwrap().encode(&mut superblock);
    device.write(HOME_BLOCKS * BLOCK as u64, &superblock, true).unwrap();
    let config = Config { write_bytes: 4 * BLOCK, ..Config::default() };
    let journal =
        Journal::open(device.clone(), BLOCK, log_map(), FEATURES, config, Arc::new(PlainHost)).unwrap();
    (device, journal)
}

fn number(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

/// Adds one to the number of a block; returns what it is now.
pub fn add(handle: &mut jbd2::Handle, device: &SparseDevice, block: u64) -> u64 {
    let mut now = 0;
    let mut load = || {
        let mut image = AlignedBuf::zeroed(BLOCK);
        device.read(block * BLOCK as u64, &mut image).map_err(Error::from)?;
        Ok::<_, Error>(Arc::new(image))
    };
    let mut change = |bytes: &mut [u8]| {
        now = number(bytes) + 1;
        bytes[..8].copy_from_slice(&now.to_le_bytes());
    };
    handle.update(block, SealTag(0), &mut load, &mut change).unwrap();
    now
}

/// What a power cut after this moment leaves at home; every completed write is there (the flushes are other tests').
pub fn recovered(device: &SparseDevice) -> impl Fn(u64) -> u64 + use<> {
    device.note_read(ALL);
    let blocks = device.blocks.lock().unwrap().clone();
    let copy = SparseDevice::new(blocks, false);
    let options = RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: 4 * BLOCK };
    recovery::recover(&*copy, BLOCK, &log_map(), options).unwrap();
    move |block| copy.number(block)
}

/// Whether the log is empty, so that a recovery would do nothing.
pub fn log_is_empty(device: &SparseDevice) -> bool {
    let options = RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: BLOCK };
    recovery::is_clean(recovery::plan(device, BLOCK, &log_map(), &options).unwrap().superblock())
}
