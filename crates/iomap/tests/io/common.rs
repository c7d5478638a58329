//! A device in memory and a file on it, whose blocks hold garbage before they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use block_io::sync::Mutex;
use block_io::{Device, Error, Limits, Result};
use iomap::{Address, Backing, FileMapping, Mapping, MappingFlags, Reserved, WriteRequest};

pub const BLOCK: u64 = 2048;
pub const SECTOR: u64 = 512;
pub const FILE_BLOCKS: u64 = 32;
pub const DEVICE_BLOCKS: u64 = 2048;
/// What the device holds where nobody wrote: no test data contains it, so it must never be read.
pub const GARBAGE: u8 = 0xEE;

type Hook = Box<dyn FnOnce(&TestDevice) + Send>;

pub struct TestDevice {
    limits: Limits,
    data: Mutex<Vec<u8>>,
    /// Offset and length of each write.
    pub writes: Mutex<Vec<(u64, usize)>>,
    /// Writes that succeed before one fails, while there is a number.
    pub fail_write: Mutex<Option<usize>>,
    pub fail_read_at: Mutex<Option<u64>>,
    /// Called when the next read has its bytes and has not returned.
    pub after_read: Mutex<Option<Hook>>,
    /// Called when the next write begins.
    pub before_write: Mutex<Option<Hook>>,
    /// Reads so far.
    pub reads: AtomicUsize,
}

impl TestDevice {
    pub fn new() -> Arc<Self> {
        let size_bytes = DEVICE_BLOCKS * BLOCK;
        let limits = Limits {
            size_bytes,
            logical_block_bytes: SECTOR as u32,
            memory_alignment_bytes: 1,
            volatile_cache: false,
            read_only: false,
            direct: true,
        };
        let data = Mutex::new(vec![GARBAGE; size_bytes as usize]);
        let (writes, fail_write) = (Mutex::default(), Mutex::new(None));
        Arc::new(Self {
            limits,
            data,
            writes,
            fail_write,
            fail_read_at: Mutex::new(None),
            after_read: Mutex::new(None),
            before_write: Mutex::new(None),
            reads: AtomicUsize::new(0),
        })
    }

    pub fn poke(&self, offset: u64, bytes: &[u8]) {
        self.data.lock()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        self.data.lock()[offset as usize..][..len].to_vec()
    }

    fn check(offset: u64, len: usize) {
        assert!(
            offset.is_multiple_of(SECTOR) && (len as u64).is_multiple_of(SECTOR) && len > 0,
            "{offset}+{len}"
        );
    }
}

impl Device for TestDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Self::check(offset, buf.len());
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fail_read_at.lock().is_some_and(|at| (offset..offset + buf.len() as u64).contains(&at)) {
            return Err(Error::at("read", offset, 5));
        }
        buf.copy_from_slice(&self.peek(offset, buf.len()));
        let hook = self.after_read.lock().take();
        if let Some(hook) = hook {
            hook(self);
        }
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8], _fua: bool) -> Result<()> {
        Self::check(offset, buf.len());
        let hook = self.before_write.lock().take();
        if let Some(hook) = hook {
            hook(self);
        }
        if let Some(left) = self.fail_write.lock().as_mut() {
            if *left == 0 {
                return Err(Error::at("write", offset, 5));
            }
            *left -= 1;
        }
        self.writes.lock().push((offset, buf.len()));
        self.poke(offset, buf);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        Err(Error::new("discard", 95))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    Hole,
    Unwritten(u64),
    Written(u64),
}

pub struct FileState {
    pub blocks: Vec<Block>,
    pub size: u64,
    pub disk_size: u64,
    next_free: u64,
    /// Every so many blocks a gap on the device.
    gap_every: u64,
    /// ENOSPC from there on.
    pub device_blocks: u64,
    /// Blocks set aside for delayed allocation.
    pub reserved: u64,
    pub converting: u64,
    /// The clock.
    pub now_ms: u64,
    /// Happens when the page cache asks next whether a block is allocated.
    pub meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

/// A file as ext4 would keep it, in the least code.
#[derive(Clone)]
pub struct FakeFile(pub Arc<Mutex<FileState>>);

impl FakeFile {
    pub fn new(gap_every: u64) -> Self {
        let blocks = vec![Block::Hole; FILE_BLOCKS as usize];
        let device_blocks = DEVICE_BLOCKS;
        let state = FileState {
            blocks,
            size: 0,
            disk_size: 0,
            next_free: 8,
            gap_every,
            device_blocks,
            reserved: 0,
            converting: 0,
            now_ms: 0,
            meanwhile: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn size(&self) -> u64 {
        self.0.lock().size
    }

    pub fn raise_size(&self, size: u64) {
        let mut state = self.0.lock();
        state.size = state.size.max(size);
    }

    /// fallocate.
    pub fn preallocate(&self, blocks: std::ops::Range<u64>) {
        let mut state = self.0.lock();
        for index in blocks {
            state.allocate(index, false).unwrap();
        }
    }

    /// Mappings of a block-rounded range, allocating as A12 does; the second value says which are new.
    pub fn map_for_write(&self, pos: u64, len: u64) -> Vec<Mapping> {
        let mut state = self.0.lock();
        let range = pos / BLOCK..(pos + len).div_ceil(BLOCK);
        let size = state.size;
        let new: Vec<bool> =
            range.clone().map(|index| state.allocate(index, index * BLOCK >= size).unwrap()).collect();
        let mut mappings: Vec<Mapping> = Vec::new();
        for (index, new) in range.zip(new) {
            let mut mapping = state.run(index, 1);
            mapping.flags = MappingFlags { new, ..MappingFlags::default() };
            mappings.push(mapping);
        }
        mappings
    }

    pub fn map(&self, pos: u64, len: u64) -> Vec<Mapping> {
        let state = self.0.lock();
        let (mut index, end) = (pos / BLOCK, (pos + len).div_ceil(BLOCK));
        let mut mappings = Vec::new();
        while index < end {
            let run = state.run(index, end - index);
            index += run.len_bytes / BLOCK;
            mappings.push(run);
        }
        mappings
    }

    pub fn convert(&self, range: std::ops::Range<u64>) {
        self.0.lock().convert(range.start / BLOCK..range.end / BLOCK);
    }

    /// ftruncate below the page cache: frees blocks, zeroes the rest of the last block on the device.
    pub fn set_size(&self, device: &TestDevice, size: u64) {
        let mut state = self.0.lock();
        let eof = state.size.min(size);
        if let Some(&Block::Written(block)) = state.blocks.get((eof / BLOCK) as usize)
            && !eof.is_multiple_of(BLOCK)
        {
            let inside = eof % BLOCK;
            device.poke(block * BLOCK + inside, &vec![0; (BLOCK - inside) as usize]);
        }
        let first = size.div_ceil(BLOCK);
        if size < state.size {
            state.blocks[first as usize..].fill(Block::Hole);
        }
        (state.size, state.disk_size) = (size, size);
    }

    /// What a mount after a crash would find.
    pub fn on_disk(&self, device: &TestDevice) -> Vec<u8> {
        let state = self.0.lock();
        let mut bytes = Vec::new();
        for block in &state.blocks {
            match block {
                Block::Written(block) => bytes.extend(device.peek(block * BLOCK, BLOCK as usize)),
                Block::Hole | Block::Unwritten(_) => bytes.extend([0; BLOCK as usize]),
            }
        }
        bytes.truncate(state.disk_size as usize);
        bytes
    }
}

impl FileState {
    fn allocate(&mut self, index: u64, written: bool) -> std::result::Result<bool, Error> {
        if self.blocks[index as usize] != Block::Hole {
            return Ok(false);
        }
        if self.next_free.is_multiple_of(self.gap_every) {
            self.next_free += 1;
        }
        let block = self.next_free;
        if block >= self.device_blocks {
            return Err(Error::new("allocate", 28));
        }
        self.next_free += 1;
        self.blocks[index as usize] = if written { Block::Written(block) } else { Block::Unwritten(block) };
        Ok(true)
    }

    fn convert(&mut self, blocks: std::ops::Range<u64>) {
        for block in &mut self.blocks[blocks.start as usize..blocks.end as usize] {
            if let Block::Unwritten(at) = *block {
                *block = Block::Written(at);
            }
        }
    }

    fn run(&self, index: u64, max: u64) -> Mapping {
        let max = max.min(FILE_BLOCKS - index).max(1);
        let first = self.blocks[index as usize];
        let continues = |n: u64| {
            self.blocks[(index + n) as usize]
                == match first {
                    Block::Hole => Block::Hole,
                    Block::Unwritten(at) => Block::Unwritten(at + n),
                    Block::Written(at) => Block::Written(at + n),
                }
        };
        let len = (1..max).find(|&n| !continues(n)).unwrap_or(max);
        let address = match first {
            Block::Hole => Address::Hole,
            Block::Unwritten(at) => Address::Unwritten { device_offset_bytes: at * BLOCK },
            Block::Written(at) => Address::Mapped { device_offset_bytes: at * BLOCK },
        };
        let flags = MappingFlags::default();
        Mapping { offset_bytes: index * BLOCK, len_bytes: len * BLOCK, address, flags }
    }
}

impl FileMapping for FakeFile {
    type Error = Error;

    fn map_read(&self, pos: u64, len: u64) -> Result<Mapping> {
        Ok(self.0.lock().run(pos / BLOCK, len.div_ceil(BLOCK)))
    }

    fn try_backing(&self, pos: u64) -> Option<Backing> {
        let meanwhile = self.0.lock().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        Some(match self.0.lock().blocks[(pos / BLOCK) as usize] {
            Block::Hole => Backing::Hole,
            Block::Unwritten(_) => Backing::Unwritten,
            Block::Written(_) => Backing::Written,
        })
    }

    fn reserve(&self, pages: Reserved) -> Result<()> {
        let mut state = self.0.lock();
        let free = (state.next_free..state.device_blocks).filter(|at| !at.is_multiple_of(state.gap_every));
        if (free.count() as u64) < state.reserved + pages.delayed {
            return Err(Error::new("reserve", 28));
        }
        state.reserved += pages.delayed;
        state.converting += pages.converting;
        Ok(())
    }

    fn release(&self, pages: Reserved) {
        let mut state = self.0.lock();
        state.reserved -= pages.delayed;
        state.converting -= pages.converting;
    }

    fn map_write(&self, pos: u64, len: u64, delayed: u64) -> Result<Mapping> {
        let mut state = self.0.lock();
        let (first, count) = (pos / BLOCK, len.div_ceil(BLOCK));
        if state.blocks[first as usize] != Block::Hole {
            return Ok(state.run(first, count));
        }
        let count = if delayed > 0 { count.min(delayed / BLOCK) } else { count };
        let start = first..(first + count).min(FILE_BLOCKS);
        let holes = start.take_while(|&index| state.blocks[index as usize] == Block::Hole).count() as u64;
        // What is contiguous.
        let mut allocated = 0;
        while allocated < holes && state.run(first, allocated.max(1)).len_bytes == allocated * BLOCK
            || allocated == 0
        {
            if allocated > 0 && state.next_free.is_multiple_of(state.gap_every) {
                break;
            }
            state.allocate(first + allocated, false)?;
            allocated += 1;
        }
        if delayed > 0 {
            state.reserved -= allocated;
        }
        let mut mapping = state.run(first, allocated);
        mapping.flags.new = true;
        Ok(mapping)
    }

    fn end_write(&self, pos: u64, end: u64) -> Result<()> {
        let mut state = self.0.lock();
        assert!(pos.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK));
        assert!(end - BLOCK < state.size, "no written block beyond i_size (D9)");
        state.convert(pos / BLOCK..end / BLOCK);
        state.disk_size = state.disk_size.max(end.min(state.size));
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.size()
    }

    fn now_ms(&self) -> u64 {
        self.0.lock().now_ms
    }
}

/// Bytes that differ from their neighbours, from those of other seeds, from zero and from garbage.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| 1 + ((i.wrapping_mul(31) ^ (i >> 8) ^ seed.wrapping_mul(97)) % 200) as u8)
        .collect()
}

pub fn write_request(pos: u64, data: &[u8], size_bytes: u64) -> WriteRequest<'_> {
    WriteRequest {
        pos,
        data,
        size_bytes,
        block_size: BLOCK as u32,
        logical_block: SECTOR as u32,
        dsync: false,
    }
}

/// The model's side of a write: what lies between the old end and the write is zero.
pub fn write_model(model: &mut Vec<u8>, pos: u64, data: &[u8]) {
    let end = pos as usize + data.len();
    if model.len() < end {
        model.resize(end, 0);
    }
    model[pos as usize..end].copy_from_slice(data);
}
