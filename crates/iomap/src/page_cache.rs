//! Buffered I/O: a page cache per file, its pages one block each.
//!
//! A page is clean or dirty; it is busy while an operation holds the file's cache, which is never longer than that
//! operation's own reads and write-back. Blocks for dirty pages are allocated, unwritten, when they are written to, so
//! that a full volume is reported by the write; they become written after their data is on the device (D26).

use std::ops::Range;
use std::sync::Arc;

use block_io::sync::{Mutex, MutexGuard};
use block_io::{AlignedBuf, Device};

use crate::pages::{MAX_RUN_BLOCKS, Page, Pages};
use crate::{Address, CacheBudget, Mapping};

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

/// The range could not be invalidated: a page is dirty or in use (B4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The page cache of one file.
pub struct PageCache<M: FileMapping> {
    mapping: M,
    device: Arc<dyn Device>,
    budget: Arc<CacheBudget>,
    block: u64,
    pages: Mutex<Pages<M::Error>>,
    /// Blocks whose clean pages may be stale: an invalidation met somebody at work. Whoever locks next drops them.
    doomed: Mutex<Option<Range<u64>>>,
}

impl<M: FileMapping> PageCache<M> {
    /// An empty cache.
    pub fn new(mapping: M, device: Arc<dyn Device>, budget: Arc<CacheBudget>, block_size: usize) -> Self {
        let (pages, doomed) = (Mutex::new(Pages::new()), Mutex::new(None));
        Self { mapping, device, budget, block: block_size as u64, pages, doomed }
    }

    /// Whether there is no page, and nobody is about to add one. Does not wait.
    pub fn is_empty(&self) -> bool {
        self.pages.try_lock().is_some_and(|pages| pages.map.is_empty())
    }

    /// Whether no page of a byte range is cached, and nobody is about to add one. Does not wait.
    pub fn is_clear(&self, pos: u64, len_bytes: u64) -> bool {
        self.pages
            .try_lock()
            .is_some_and(|pages| pages.map.range(self.blocks(pos, len_bytes)).next().is_none())
    }

    /// Whether no page of a byte range is dirty, and nobody is at work on the file. Does not wait.
    pub fn is_written_back(&self, pos: u64, len_bytes: u64) -> bool {
        self.pages.try_lock().is_some_and(|pages| pages.next_dirty_run(self.blocks(pos, len_bytes)).is_none())
    }

    /// Copies what is cached from `pos` on, up to the first missing page, into `out`; returns how many bytes. Does not wait:
    /// 0 also where somebody is at work on the file.
    pub fn read_cached(&self, pos: u64, out: &mut [u8]) -> usize {
        let Some(mut pages) = self.pages.try_lock() else { return 0 };
        self.drop_doomed(&mut pages);
        let mut done = 0;
        while done < out.len() {
            let at = pos + done as u64;
            let Some(page) = pages.map.get_mut(&(at / self.block)) else { break };
            page.recent = true;
            let inside = (at % self.block) as usize;
            let part = (page.data.len() - inside).min(out.len() - done);
            out[done..done + part].copy_from_slice(&page.data[inside..inside + part]);
            done += part;
        }
        done
    }

    /// Bytes of dirty pages.
    pub fn dirty_bytes(&self) -> u64 {
        self.lock().map.values().filter(|page| page.dirty).count() as u64 * self.block
    }

    fn lock(&self) -> MutexGuard<'_, Pages<M::Error>> {
        let mut pages = self.pages.lock();
        self.drop_doomed(&mut pages);
        pages
    }

    fn drop_doomed(&self, pages: &mut Pages<M::Error>) {
        if let Some(range) = self.doomed.lock().take() {
            self.remove(pages, &pages.clean_in(range));
        }
    }

    /// Blocks that a byte range touches.
    fn blocks(&self, pos: u64, len_bytes: u64) -> Range<u64> {
        pos / self.block..pos.saturating_add(len_bytes).div_ceil(self.block)
    }

    /// Copies `out.len()` bytes at `pos`, all below i_size, into `out`.
    pub fn read(&self, pos: u64, out: &mut [u8]) -> Result<(), M::Error> {
        let mut pages = self.lock();
        let end = pos.checked_add(out.len() as u64).expect("below i_size");
        let last = end.div_ceil(self.block);
        let mut at = pos;
        while at < end {
            let index = at / self.block;
            if !pages.map.contains_key(&index) {
                self.read_in(&mut pages, index, last - index)?;
            }
            let inside = (at % self.block) as usize;
            let part = (self.block - at % self.block).min(end - at) as usize;
            let page = pages.map.get_mut(&index).expect("just read");
            page.recent = true;
            out[(at - pos) as usize..][..part].copy_from_slice(&page.data[inside..inside + part]);
            at += part as u64;
        }
        Ok(())
    }

    /// Reads a missing block and, of the `wanted` ones and those a sequential reader wants next, what one request can.
    fn read_in(&self, pages: &mut Pages<M::Error>, index: u64, wanted: u64) -> Result<(), M::Error> {
        // A failed write-back is the business of the next fsync.
        let _kept = self.make_room(pages);
        let below_size = self.mapping.size_bytes().div_ceil(self.block).saturating_sub(index);
        let count = pages.read_ahead(index, wanted).min(below_size).max(1);
        // What nobody asked for may not fail the read.
        let read = match self.fill(pages, index, count) {
            Err(_) if count > 1 => self.fill(pages, index, 1)?,
            read => read?,
        };
        pages.read_up_to(index + read);
        Ok(())
    }

    /// Writes `data` at `pos` into the cache. The caller, who keeps other writers out, raises i_size before its next
    /// call. On an error the first so many bytes are in, as the error's pair says.
    pub fn write(&self, pos: u64, data: &[u8]) -> Result<(), (usize, M::Error)> {
        let mut pages = self.lock();
        let end = pos.checked_add(data.len() as u64).expect("below the largest file size");
        let (mut at, mut allocated) = (pos, pos);
        while at < end {
            let from = (at - pos) as usize;
            let part = (self.block - at % self.block).min(end - at);
            let bytes = &data[from..from + part as usize];
            if at == pos || (at / self.block).is_multiple_of(MAX_RUN_BLOCKS) {
                self.make_room(&mut pages).map_err(|error| (from, error))?;
            }
            if allocated <= at {
                allocated = self.allocate(at, end).map_err(|error| (from, error))?;
            }
            self.write_page(&mut pages, at, bytes).map_err(|error| (from, error))?;
            at += part;
        }
        Ok(())
    }

    /// Gives `at` a block, and of what follows up to `end` as much as one mapping does; returns its end. ENOSPC belongs to
    /// the write, not to a later write-back.
    fn allocate(&self, at: u64, end: u64) -> Result<u64, M::Error> {
        let start = at - at % self.block;
        let mapping = self.mapping.map_write(start, end.next_multiple_of(self.block) - start)?;
        Ok(mapping.end_bytes().max(start + self.block))
    }

    fn write_page(&self, pages: &mut Pages<M::Error>, at: u64, bytes: &[u8]) -> Result<(), M::Error> {
        let index = at / self.block;
        let inside = (at % self.block) as usize;
        let start = index * self.block;
        let size = self.mapping.size_bytes();
        if !pages.map.contains_key(&index) {
            if bytes.len() as u64 == self.block || start >= size {
                self.insert(pages, index, vec![0; self.block as usize].into());
            } else {
                self.fill(pages, index, 1)?;
            }
        }
        let page = pages.map.get_mut(&index).expect("just made");
        let end = inside + bytes.len();
        // C22: what lies behind the end of the file becomes part of it, as zeros.
        let valid = size.saturating_sub(start).min(self.block) as usize;
        if end > valid {
            page.data[valid..].fill(0);
        }
        page.data[inside..end].copy_from_slice(bytes);
        page.reach = page.reach.max(end);
        (page.dirty, page.recent) = (true, true);
        Ok(())
    }

    fn insert(&self, pages: &mut Pages<M::Error>, index: u64, data: Box<[u8]>) {
        let before = pages.map.insert(index, Page::clean(data));
        assert!(before.is_none(), "a block has one page");
        self.budget.take(self.block);
    }

    fn remove(&self, pages: &mut Pages<M::Error>, indices: &[u64]) {
        for index in indices {
            if pages.map.remove(index).is_some() {
                self.budget.give(self.block);
            }
        }
    }

    /// Reads up to `count` blocks from `index` on, which is not cached, and stops at the first that is; returns how many.
    fn fill(&self, pages: &mut Pages<M::Error>, index: u64, count: u64) -> Result<u64, M::Error> {
        let start = index * self.block;
        let mapping = self.mapping.map_read(start, count * self.block)?;
        let next_cached = pages.map.range(index..).next().map_or(u64::MAX, |(&next, _)| next);
        let mapped = (mapping.end_bytes().saturating_sub(start) / self.block).max(1);
        let blocks = count.min(mapped).min(next_cached - index);
        let mut data = AlignedBuf::zeroed((blocks * self.block) as usize);
        if let Address::Mapped { device_offset_bytes } = mapping.address {
            self.device.read(device_offset_bytes + (start - mapping.offset_bytes), &mut data)?;
            // E27: whatever is behind the end of the file on the device, it is not the file's when that grows.
            let valid = self.mapping.size_bytes().saturating_sub(start).min(data.len() as u64);
            data[valid as usize..].fill(0);
        }
        for (index, bytes) in (index..).zip(data.chunks(self.block as usize)) {
            self.insert(pages, index, bytes.into());
        }
        Ok(blocks)
    }

    /// Writes the dirty pages of a byte range to the device and ends their I/O (B4). Durable after a flush and commit.
    /// An error does not keep the other pages from being tried; the first is returned, and kept for the next fsync.
    pub fn write_back(&self, pos: u64, len_bytes: u64) -> Result<(), M::Error> {
        if self.is_empty() {
            return Ok(());
        }
        self.write_back_blocks(&mut self.lock(), self.blocks(pos, len_bytes))
    }

    fn write_back_blocks(&self, pages: &mut Pages<M::Error>, range: Range<u64>) -> Result<(), M::Error> {
        // Blocks beyond i_size belong to a write that is about to raise it. They wait: nobody would raise the size on disk
        // for them later on, and written blocks beyond it are damage (D9).
        let size = self.mapping.size_bytes();
        let end = range.end.min(size.div_ceil(self.block));
        let (mut next, mut result) = (range.start, Ok(()));
        while let Some(run) = pages.next_dirty_run(next..end) {
            next = run.end;
            if let Err(error) = self.write_run(pages, run, size) {
                pages.unreported.get_or_insert(error.clone());
                result = result.and(Err(error));
            }
        }
        result
    }

    /// Writes adjacent dirty pages, in pieces that are contiguous on the device.
    fn write_run(&self, pages: &mut Pages<M::Error>, run: Range<u64>, size: u64) -> Result<(), M::Error> {
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
            let mapped = mapping.end_bytes().saturating_sub(start) / self.block;
            let stop = run.end.min(index + mapped.max(1));
            let mut data = AlignedBuf::zeroed(((stop - index) * self.block) as usize);
            for (bytes, index) in data.chunks_mut(self.block as usize).zip(index..) {
                bytes.copy_from_slice(&pages.map[&index].data);
            }
            self.device.write(device_offset_bytes + (start - mapping.offset_bytes), &data, false)?;
            self.mapping.end_write(start, stop * self.block)?;
            for (&index, page) in pages.map.range_mut(index..stop) {
                // Bytes beyond i_size: their writer raises it soon, and the size on disk has to follow then.
                page.dirty = index * self.block + page.reach as u64 > size;
                page.reach = if page.dirty { page.reach } else { 0 };
            }
            index = stop;
        }
        Ok(())
    }

    /// Writes everything back; returns the first error that nobody was told of, once.
    pub fn sync(&self) -> Result<(), M::Error> {
        let mut pages = self.lock();
        let written = self.write_back_blocks(&mut pages, 0..u64::MAX);
        match pages.unreported.take() {
            Some(error) => Err(error),
            None => written,
        }
    }

    /// Drops the clean pages of a byte range. [`Busy`] if one is dirty, or somebody is at work on the file: the clean
    /// pages of the range are then dropped when they are done, so that an invalidation after a direct write leaves
    /// nothing stale (B11).
    pub fn invalidate(&self, pos: u64, len_bytes: u64) -> Result<(), Busy> {
        let range = self.blocks(pos, len_bytes);
        let Some(mut pages) = self.pages.try_lock() else {
            self.doom(range);
            return Err(Busy);
        };
        self.drop_doomed(&mut pages);
        let clean = pages.clean_in(range.clone());
        self.remove(&mut pages, &clean);
        if pages.map.range(range).next().is_some() { Err(Busy) } else { Ok(()) }
    }

    /// Clean pages are never missed: one range that covers all is enough.
    fn doom(&self, range: Range<u64>) {
        let mut doomed = self.doomed.lock();
        *doomed = Some(match doomed.take() {
            Some(other) => other.start.min(range.start)..other.end.max(range.end),
            None => range,
        });
    }

    /// The file ends at `size` from now on: pages behind it go, dirty or not, and the rest of its last page is zero.
    pub fn truncate(&self, size: u64) {
        let mut pages = self.lock();
        let gone: Vec<u64> = pages.map.range(size.div_ceil(self.block)..).map(|(&index, _)| index).collect();
        self.remove(&mut pages, &gone);
        let inside = (size % self.block) as usize;
        if inside != 0
            && let Some(page) = pages.map.get_mut(&(size / self.block))
        {
            page.data[inside..].fill(0);
            page.reach = page.reach.min(inside);
        }
    }

    /// A byte range reads as zeros from now on, which the caller sees to on the device: pages wholly inside go, dirty or
    /// not, and of the others the part inside is zero.
    pub fn zero(&self, pos: u64, len_bytes: u64) {
        let mut pages = self.lock();
        let end = pos.saturating_add(len_bytes);
        let inside = pos.div_ceil(self.block)..end / self.block;
        if inside.start < inside.end {
            let gone: Vec<u64> = pages.map.range(inside).map(|(&index, _)| index).collect();
            self.remove(&mut pages, &gone);
        }
        for index in [pos / self.block, end / self.block] {
            let start = index * self.block;
            let (from, to) = (pos.clamp(start, start + self.block), end.clamp(start, start + self.block));
            if let Some(page) = pages.map.get_mut(&index) {
                page.data[(from - start) as usize..(to - start) as usize].fill(0);
            }
        }
    }

    /// The first run of dirty pages in a byte range, rounded to blocks, in bytes.
    pub fn next_dirty(&self, pos: u64, len_bytes: u64) -> Option<Range<u64>> {
        let run = self.lock().next_dirty_run(self.blocks(pos, len_bytes))?;
        Some(run.start * self.block..run.end * self.block)
    }

    /// Gives pages back if the budget is exceeded: clean ones, and if that is not enough, dirty ones after write-back.
    ///
    /// # Errors
    /// Write-back failed, so the budget stays exceeded.
    fn make_room(&self, pages: &mut Pages<M::Error>) -> Result<(), M::Error> {
        if !self.budget.is_exceeded() {
            return Ok(());
        }
        self.evict_clean(pages);
        if !self.budget.is_exceeded() {
            return Ok(());
        }
        let written = self.write_back_blocks(pages, 0..u64::MAX);
        self.evict_clean(pages);
        written
    }

    fn evict_clean(&self, pages: &mut Pages<M::Error>) {
        // The first round may do no more than take the second chances away.
        for _round in 0..2 {
            let count = self.budget.excess_bytes().div_ceil(self.block);
            if count == 0 {
                return;
            }
            let victims = pages.victims(count);
            self.remove(pages, &victims);
        }
    }

    /// Gives pages back if the volume's budget is exceeded, unless somebody is at work on the file.
    pub fn give_back(&self) {
        if let Some(mut pages) = self.pages.try_lock() {
            self.drop_doomed(&mut pages);
            // An error is kept for the next fsync of this file.
            let _kept = self.make_room(&mut pages);
        }
    }
}

impl<M: FileMapping> Drop for PageCache<M> {
    fn drop(&mut self) {
        self.budget.give(self.pages.get_mut().map.len() as u64 * self.block);
    }
}
