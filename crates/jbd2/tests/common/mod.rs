//! A device that records what reaches it and can fail, and a host that counts its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block_io::sync::Mutex;
use block_io::{AlignedBuf, Device, Error, Limits, Result};
use jbd2::format::create_superblock;
use jbd2::{Config, Features, Host, Image, Journal, LogExtent, LogMap, SealTag, Tid};

pub const BS: usize = 1024;
pub const HOME_BLOCKS: u64 = 64;
pub const LOG_BLOCKS: u32 = 1024;
pub const TAG: SealTag = SealTag(7);
/// Where `TestHost::seal` puts its checksum.
pub const SUM_AT: usize = BS - 8;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Write { offset: u64, bytes: Vec<u8>, fua: bool },
    Flush,
}

#[derive(Default)]
pub struct Inner {
    pub bytes: Vec<u8>,
    pub trace: Vec<Event>,
    pub operations: usize,
    pub fail_from: Option<usize>,
    pub fail_once: bool,
    /// A write that fails has written its first half.
    pub fail_half: bool,
}

pub struct TestDevice {
    limits: Limits,
    pub inner: Mutex<Inner>,
}

impl TestDevice {
    pub fn of(bytes: Vec<u8>) -> Arc<Self> {
        let limits = Limits {
            size_bytes: bytes.len() as u64,
            logical_block_bytes: 512,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: true,
        };
        Arc::new(Self { limits, inner: Mutex::new(Inner { bytes, ..Inner::default() }) })
    }

    pub fn take_trace(&self) -> Vec<Event> {
        std::mem::take(&mut self.inner.lock().trace)
    }

    pub fn block(&self, block: u64) -> Vec<u8> {
        let at = block as usize * BS;
        self.inner.lock().bytes[at..at + BS].to_vec()
    }
}

impl Inner {
    fn count(&mut self, operation: &'static str) -> Result<()> {
        self.operations += 1;
        match self.fail_from {
            Some(n) if self.operations == n || (self.operations > n && !self.fail_once) => {
                Err(Error::new(operation, 5))
            }
            _ => Ok(()),
        }
    }
}

impl Device for TestDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = offset as usize;
        buf.copy_from_slice(self.inner.lock().bytes.get(at..at + buf.len()).ok_or(Error::new("read", 22))?);
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8], fua: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        let at = offset as usize;
        if let Err(error) = inner.count("write") {
            let half = if inner.fail_half { buf.len() / 2 } else { 0 };
            if let Some(bytes) = inner.bytes.get_mut(at..at + half) {
                bytes.copy_from_slice(&buf[..half]);
            }
            return Err(error);
        }
        inner.bytes.get_mut(at..at + buf.len()).ok_or(Error::new("write", 22))?.copy_from_slice(buf);
        inner.trace.push(Event::Write { offset, bytes: buf.to_vec(), fua });
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.count("flush")?;
        inner.trace.push(Event::Flush);
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(Error::new("discard", 95))
    }
}

#[derive(Default)]
pub struct TestHost {
    pub retired: Mutex<Vec<(u64, Image)>>,
    pub forgotten: Mutex<Vec<u64>>,
    pub committed: Mutex<Vec<Tid>>,
    pub aborted: Mutex<Vec<i32>>,
    pub clock_ms: AtomicU64,
}

pub fn sum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(&bytes[..SUM_AT])
}

impl Host for TestHost {
    fn seal(&self, _: u64, tag: SealTag, image: &mut [u8]) {
        assert_eq!(tag, TAG);
        let sum = sum(image);
        image[SUM_AT..SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    }
    fn retire(&self, block: u64, image: Image) {
        self.retired.lock().push((block, image));
    }
    fn forgotten(&self, block: u64) {
        self.forgotten.lock().push(block);
    }
    fn committed(&self, tid: Tid) {
        self.committed.lock().push(tid);
    }
    fn aborted(&self, errno: i32) {
        self.aborted.lock().push(errno);
    }
    fn now(&self) -> (u64, u32) {
        let ms = self.clock_ms.load(Ordering::Relaxed);
        (ms / 1000, (ms % 1000) as u32 * 1_000_000)
    }
}

/// The log behind the home blocks, in two pieces that lie the wrong way round.
pub fn log_map() -> LogMap {
    LogMap::new(vec![
        LogExtent { log_start: 0, len: 600, device_block: HOME_BLOCKS + 424 },
        LogExtent { log_start: 600, len: 424, device_block: HOME_BLOCKS },
    ])
    .unwrap()
}

pub fn log_block(n: u32) -> u64 {
    log_map().run(n).unwrap().0
}

/// A device with an empty journal whose next transaction starts at log block `head`.
pub fn formatted(head: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0; (HOME_BLOCKS as usize + LOG_BLOCKS as usize) * BS];
    let mut superblock = create_superblock(BS as u32, LOG_BLOCKS, [9; 16]).unwrap();
    superblock.s_head = head;
    superblock.s_sequence = sequence;
    superblock.encode(&mut bytes[log_block(0) as usize * BS..][..BS]);
    bytes
}

pub fn open_with(device: &Arc<TestDevice>, features: Features) -> (Arc<Journal>, Arc<TestHost>) {
    let host = Arc::new(TestHost::default());
    let journal =
        Journal::open(device.clone(), BS, log_map(), features, Config::default(), host.clone()).unwrap();
    (journal, host)
}

/// An image filled with `value`, whose first word may be the journal's magic.
pub fn content(value: u64, bytes: &mut [u8]) {
    for chunk in bytes[..SUM_AT].chunks_exact_mut(8) {
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    bytes[SUM_AT..].fill(0);
    if value.is_multiple_of(3) {
        bytes[..4].copy_from_slice(&0xC03B_3998u32.to_be_bytes());
    }
}

pub fn sealed(value: u64) -> Vec<u8> {
    let mut bytes = vec![0; BS];
    content(value, &mut bytes);
    let sum = sum(&bytes);
    bytes[SUM_AT..SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

pub fn load(device: &TestDevice, block: u64) -> Image {
    Arc::new(AlignedBuf::copy_of(&device.block(block)))
}

pub fn set(handle: &mut jbd2::Handle, device: &TestDevice, block: u64, value: u64) -> jbd2::Result<()> {
    handle.update::<jbd2::Error>(block, TAG, &mut || Ok(load(device, block)), &mut |bytes| {
        content(value, bytes)
    })
}
