//! Buffered I/O: a page cache per file, its pages one block each.
//!
//! A page is clean or dirty; it is busy while an operation holds the file's cache, which is never longer than that
//! operation's own reads and write-back. Blocks for dirty pages are allocated, unwritten, when they are written to, so
//! that a full volume is reported by the write; they become written after their data is on the device (D26).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block_io::sync::Mutex;
use block_io::{AlignedBuf, Device};

use crate::{Address, Mapping};

/// What the cache asks of a file system about one file.
pub trait FileMapping {
    /// The file system's error.
    type Error: From<block_io::Error> + Clone;

    /// The mapping at a position, at least one block and at most `len_bytes` of it.
    fn map_read(&self, pos: u64, len_bytes: u64) -> Result<Mapping, Self::Error>;

    /// The same, after allocating a hole there as unwritten. ENOSPC: none is left.
    fn map_write(&self, pos: u64, len_bytes: u64) -> Result<Mapping, Self::Error>;

    /// The data of a range, whole blocks, is on the device: unwritten blocks become written, and the size on disk rises
    /// to `end` or the file's size, whichever is less.
    fn end_write(&self, pos: u64, end: u64) -> Result<(), Self::Error>;

    /// i_size.
    fn size_bytes(&self) -> u64;
}

/// Memory that the caches of a volume share.
#[derive(Debug)]
pub struct CacheBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl CacheBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// Bytes in pages now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether pages should be given back.
    pub fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }
}

struct Page {
    data: AlignedBuf,
    dirty: bool,
}

/// The range could not be invalidated: a page is dirty or in use (B4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

struct Pages<E> {
    /// By block number in the file.
    pages: BTreeMap<u64, Page>,
    /// An error of write-back that no fsync has reported yet.
    unreported: Option<E>,
}

/// The page cache of one file.
pub struct PageCache<M: FileMapping> {
    mapping: M,
    device: Arc<dyn Device>,
    budget: Arc<CacheBudget>,
    block: u64,
    pages: Mutex<Pages<M::Error>>,
    /// Pages held, for a look without the lock.
    count: AtomicU64,
}

/// Blocks that one device request of write-back or read-ahead covers at most.
const MAX_RUN_BLOCKS: u64 = 256;

impl<M: FileMapping> PageCache<M> {
    /// An empty cache.
    pub fn new(mapping: M, device: Arc<dyn Device>, budget: Arc<CacheBudget>, block_size: usize) -> Self {
        let pages = Mutex::new(Pages { pages: BTreeMap::new(), unreported: None });
        Self { mapping, device, budget, block: block_size as u64, pages, count: AtomicU64::new(0) }
    }

    /// Whether there is any page at all.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Copies `out.len()` bytes at `pos`, all below i_size, into `out`.
    pub fn read(&self, pos: u64, out: &mut [u8]) -> Result<(), M::Error> {
        let mut pages = self.pages.lock();
        let end = pos + out.len() as u64;
        let last = end.div_ceil(self.block);
        let mut at = pos;
        while at < end {
            let index = at / self.block;
            if !pages.pages.contains_key(&index) {
                self.fill(&mut pages, index, (last - index).min(MAX_RUN_BLOCKS))?;
            }
            let inside = (at % self.block) as usize;
            let part = (self.block - at % self.block).min(end - at) as usize;
            let page = &pages.pages[&index];
            out[(at - pos) as usize..][..part].copy_from_slice(&page.data[inside..inside + part]);
            at += part as u64;
        }
        self.shrink(&mut pages)
    }

    /// Writes `data` at `pos` into the cache. The caller raises i_size. On an error the first so many bytes are in, as the
    /// error's pair says.
    pub fn write(&self, pos: u64, data: &[u8]) -> Result<(), (usize, M::Error)> {
        let mut pages = self.pages.lock();
        let end = pos + data.len() as u64;
        let mut at = pos;
        while at < end {
            let part = (self.block - at % self.block).min(end - at);
            let from = (at - pos) as usize;
            let bytes = &data[from..from + part as usize];
            self.write_page(&mut pages, at, bytes, end - at).map_err(|error| (from, error))?;
            at += part;
        }
        self.shrink(&mut pages).map_err(|error| (data.len(), error))
    }

    fn write_page(
        &self,
        pages: &mut Pages<M::Error>,
        at: u64,
        bytes: &[u8],
        rest: u64,
    ) -> Result<(), M::Error> {
        let index = at / self.block;
        let inside = (at % self.block) as usize;
        let start = index * self.block;
        // ENOSPC belongs to this call, not to a later write-back.
        self.mapping.map_write(start, rest.next_multiple_of(self.block).max(self.block))?;
        if !pages.pages.contains_key(&index) {
            let whole = bytes.len() as u64 == self.block;
            if whole || start >= self.mapping.size_bytes() {
                self.insert(pages, index, AlignedBuf::zeroed(self.block as usize));
            } else {
                self.fill(pages, index, 1)?;
            }
        }
        let size = self.mapping.size_bytes();
        let page = pages.pages.get_mut(&index).expect("just made");
        // C22: what lies behind the end of the file becomes part of it, as zeros.
        let valid = size.saturating_sub(start).min(self.block) as usize;
        if inside > valid {
            page.data[valid..inside].fill(0);
        }
        page.data[inside..inside + bytes.len()].copy_from_slice(bytes);
        page.dirty = true;
        Ok(())
    }

    fn insert(&self, pages: &mut Pages<M::Error>, index: u64, data: AlignedBuf) {
        pages.pages.insert(index, Page { data, dirty: false });
        self.count.fetch_add(1, Ordering::Release);
        self.budget.used_bytes.fetch_add(self.block, Ordering::Relaxed);
    }

    fn remove(&self, pages: &mut Pages<M::Error>, index: u64) {
        if pages.pages.remove(&index).is_some() {
            self.count.fetch_sub(1, Ordering::Release);
            self.budget.used_bytes.fetch_sub(self.block, Ordering::Relaxed);
        }
    }

    /// Reads up to `count` blocks from `index` on that are not cached.
    fn fill(&self, pages: &mut Pages<M::Error>, index: u64, count: u64) -> Result<(), M::Error> {
        let start = index * self.block;
        let mapping = self.mapping.map_read(start, count * self.block)?;
        let next_cached = pages.pages.range(index..).next().map_or(u64::MAX, |(&next, _)| next);
        let mapped = ((mapping.offset_bytes + mapping.len_bytes).saturating_sub(start) / self.block).max(1);
        let blocks = count.min(mapped).min(next_cached - index);
        let mut data = AlignedBuf::zeroed((blocks * self.block) as usize);
        if let Address::Mapped { device_offset_bytes } = mapping.address {
            self.device.read(device_offset_bytes + (start - mapping.offset_bytes), &mut data)?;
        }
        for (index, bytes) in (index..).zip(data.chunks(self.block as usize)) {
            self.insert(pages, index, AlignedBuf::copy_of(bytes));
        }
        Ok(())
    }

    /// Writes the dirty pages of a byte range to the device and ends their I/O (B4). Durable after a flush and commit.
    pub fn write_back(&self, pos: u64, len_bytes: u64) -> Result<(), M::Error> {
        if self.is_empty() {
            return Ok(());
        }
        let range = pos / self.block..pos.saturating_add(len_bytes).div_ceil(self.block);
        self.write_back_blocks(&mut self.pages.lock(), range)
    }

    fn write_back_blocks(&self, pages: &mut Pages<M::Error>, range: Range<u64>) -> Result<(), M::Error> {
        let mut next = range.start;
        while let Some(run) = next_dirty_run(&pages.pages, next..range.end) {
            next = run.end;
            if let Err(error) = self.write_run(pages, run) {
                pages.unreported.get_or_insert(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes adjacent dirty pages, in pieces that are contiguous on the device.
    fn write_run(&self, pages: &mut Pages<M::Error>, run: Range<u64>) -> Result<(), M::Error> {
        let mut index = run.start;
        while index < run.end {
            let start = index * self.block;
            let mapping = self.mapping.map_write(start, (run.end - index) * self.block)?;
            let (Address::Mapped { device_offset_bytes } | Address::Unwritten { device_offset_bytes }) =
                mapping.address
            else {
                return Err(block_io::Error::new("write-back", 5)
                    .with_detail("a dirty page without a block")
                    .into());
            };
            let mapped = (mapping.offset_bytes + mapping.len_bytes - start) / self.block;
            let stop = run.end.min(index + mapped.max(1));
            let mut data = AlignedBuf::zeroed(((stop - index) * self.block) as usize);
            for (bytes, index) in data.chunks_mut(self.block as usize).zip(index..) {
                bytes.copy_from_slice(&pages.pages[&index].data);
            }
            self.device.write(device_offset_bytes + (start - mapping.offset_bytes), &data, false)?;
            self.mapping.end_write(start, stop * self.block)?;
            for index in index..stop {
                if let Some(page) = pages.pages.get_mut(&index) {
                    page.dirty = false;
                }
            }
            index = stop;
        }
        Ok(())
    }

    /// Writes everything back; returns the first error that nobody was told of, once.
    pub fn sync(&self) -> Result<(), M::Error> {
        let mut pages = self.pages.lock();
        let written = self.write_back_blocks(&mut pages, 0..u64::MAX);
        match pages.unreported.take() {
            Some(error) => Err(error),
            None => written,
        }
    }

    /// Drops the clean pages of a byte range. [`Busy`] if one is dirty, or somebody is at work on the file.
    pub fn invalidate(&self, pos: u64, len_bytes: u64) -> Result<(), Busy> {
        if self.is_empty() {
            return Ok(());
        }
        let mut pages = self.pages.try_lock().ok_or(Busy)?;
        let range = pos / self.block..pos.saturating_add(len_bytes).div_ceil(self.block);
        if pages.pages.range(range.clone()).any(|(_, page)| page.dirty) {
            return Err(Busy);
        }
        let indices: Vec<u64> = pages.pages.range(range).map(|(&index, _)| index).collect();
        for index in indices {
            self.remove(&mut pages, index);
        }
        Ok(())
    }

    /// The file ends at `size` from now on: pages behind it go, dirty or not, and the rest of its last page is zero.
    pub fn truncate(&self, size: u64) {
        let mut pages = self.pages.lock();
        let kept = size.div_ceil(self.block);
        let gone: Vec<u64> = pages.pages.range(kept..).map(|(&index, _)| index).collect();
        for index in gone {
            self.remove(&mut pages, index);
        }
        let inside = (size % self.block) as usize;
        if inside != 0
            && let Some(page) = pages.pages.get_mut(&(size / self.block))
        {
            page.data[inside..].fill(0);
        }
    }

    /// Gives clean pages back while the budget is exceeded, after writing this file's dirty ones back.
    fn shrink(&self, pages: &mut Pages<M::Error>) -> Result<(), M::Error> {
        if !self.budget.is_exceeded() {
            return Ok(());
        }
        self.write_back_blocks(pages, 0..u64::MAX)?;
        while self.budget.is_exceeded() {
            let Some((&index, _)) = pages.pages.iter().next() else { break };
            self.remove(pages, index);
        }
        Ok(())
    }

    /// Gives all memory back that another file's work does not need: for a volume whose budget is exceeded.
    pub fn give_back(&self) {
        if let Some(mut pages) = self.pages.try_lock() {
            // An error is kept for the next fsync of this file.
            let _kept = self.shrink(&mut pages);
        }
    }
}

impl<M: FileMapping> Drop for PageCache<M> {
    fn drop(&mut self) {
        let held = self.count.load(Ordering::Acquire) * self.block;
        self.budget.used_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}

/// The first run of adjacent dirty pages in a range.
fn next_dirty_run(pages: &BTreeMap<u64, Page>, range: Range<u64>) -> Option<Range<u64>> {
    if range.is_empty() {
        return None;
    }
    let mut dirty = pages.range(range).filter(|(_, page)| page.dirty).map(|(&index, _)| index);
    let start = dirty.next()?;
    let mut end = start + 1;
    for index in dirty {
        if index != end || end - start >= MAX_RUN_BLOCKS {
            break;
        }
        end += 1;
    }
    Some(start..end)
}
