//! Buffered I/O: a page cache per file, its pages one block each.
//!
//! The lock on the pages is held for what happens in memory alone, so that a hit never waits for a device: see
//! [`PageCache::try_read`] and [`PageCache::try_write`]. Blocks are allocated when dirty pages are written back (delayed
//! allocation): a write only reserves space, so that it is the one to report a full volume.

use std::ops::Range;
use std::sync::Arc;

use block_io::sync::{Mutex, MutexGuard};
use block_io::{AlignedBuf, Device};

use crate::pages::{MAX_READ_BLOCKS, Page, Pages};
use crate::{Address, Backing, CacheBudget, FileMapping, Reserved};

/// The range could not be invalidated: a page is dirty or in use (B4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The page cache of one file.
pub struct PageCache<M: FileMapping> {
    pub(crate) mapping: M,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) budget: Arc<CacheBudget>,
    pub(crate) block: u64,
    /// The right to write back: there is one. Whoever has it, and no journal handle, may wait for the device.
    pub(crate) turn: Mutex<()>,
    pub(crate) pages: Mutex<Pages<M::Error>>,
}

/// Bytes of a write that go into one page.
struct Part<'a> {
    index: u64,
    inside: usize,
    bytes: &'a [u8],
}

impl<M: FileMapping> PageCache<M> {
    /// An empty cache.
    pub fn new(mapping: M, device: Arc<dyn Device>, budget: Arc<CacheBudget>, block_size: usize) -> Self {
        let block = block_size as u64;
        let pages = Mutex::new(Pages::new(budget.clone(), block));
        Self { mapping, device, budget, block, turn: Mutex::new(()), pages }
    }

    /// Whether there is no page, and nobody is about to add one. Does not wait.
    pub fn is_empty(&self) -> bool {
        self.pages.try_lock().is_some_and(|pages| pages.is_unused())
    }

    /// Whether no page of a byte range is cached, and nobody is about to add one. Does not wait.
    pub fn is_clear(&self, pos: u64, len_bytes: u64) -> bool {
        self.pages.try_lock().is_some_and(|pages| pages.is_clear(self.blocks(pos, len_bytes)))
    }

    /// Whether no page of a byte range is dirty or on its way to the device. Does not wait.
    pub fn is_written_back(&self, pos: u64, len_bytes: u64) -> bool {
        let is_newer = |page: &Page| page.dirty || page.writing;
        let range = self.blocks(pos, len_bytes);
        self.pages.try_lock().is_some_and(|pages| pages.next_run(range, 1, is_newer).is_none())
    }

    /// Copies what is cached from `pos` on, up to the first missing page, into `out`; returns how many bytes. Does not wait:
    /// 0 also where somebody is at work on the pages.
    pub fn read_cached(&self, pos: u64, out: &mut [u8]) -> usize {
        self.pages.try_lock().map_or(0, |mut pages| self.copy_cached(&mut pages, pos, out))
    }

    /// Bytes of dirty pages.
    pub fn dirty_bytes(&self) -> u64 {
        self.pages.lock().dirty_bytes()
    }

    /// Bytes that have space reserved and no blocks.
    pub fn delayed_bytes(&self) -> u64 {
        self.pages.lock().delayed_bytes()
    }

    /// When the first of the dirty pages became so, by the file system's clock; `None`: none is dirty.
    pub fn dirty_since_ms(&self) -> Option<u64> {
        self.pages.lock().dirty_since_ms
    }

    /// The first run of bytes in a range, block-rounded, whose data is newer here than on the device.
    pub fn next_dirty(&self, pos: u64, len_bytes: u64) -> Option<Range<u64>> {
        let run = self
            .pages
            .lock()
            .next_run(self.blocks(pos, len_bytes), u64::MAX, |page| page.dirty || page.writing)?;
        Some(run.start * self.block..run.end * self.block)
    }

    /// The first run of bytes in a range, block-rounded, that have space reserved and no blocks.
    pub fn next_delayed(&self, pos: u64, len_bytes: u64) -> Option<Range<u64>> {
        let run = self.pages.lock().next_run(self.blocks(pos, len_bytes), u64::MAX, |page| page.delayed)?;
        Some(run.start * self.block..run.end * self.block)
    }

    /// Blocks that a byte range touches.
    pub(crate) fn blocks(&self, pos: u64, len_bytes: u64) -> Range<u64> {
        pos / self.block..pos.saturating_add(len_bytes).div_ceil(self.block)
    }

    /// Copies `out.len()` bytes at `pos`, all below i_size, into `out`.
    pub fn read(&self, pos: u64, out: &mut [u8]) -> Result<(), M::Error> {
        let end = pos.checked_add(out.len() as u64).expect("below i_size");
        let mut at = pos;
        loop {
            let hit = self.copy_cached(&mut self.pages.lock(), at, &mut out[(at - pos) as usize..]);
            at += hit as u64;
            if at >= end {
                return Ok(());
            }
            let index = at / self.block;
            let data = self.read_in(index, end.div_ceil(self.block) - index)?;
            // From what was read and not from the page, which may be gone again.
            let inside = (at % self.block) as usize;
            let part = (data.len() - inside).min((end - at) as usize);
            out[(at - pos) as usize..][..part].copy_from_slice(&data[inside..inside + part]);
            at += part as u64;
        }
    }

    /// [`PageCache::read`] if all of it is cached and nobody has to be waited for. `false`: nothing was done.
    pub fn try_read(&self, pos: u64, out: &mut [u8]) -> bool {
        let Some(mut pages) = self.pages.try_lock() else { return false };
        let blocks = self.blocks(pos, out.len() as u64);
        let count = blocks.end - blocks.start;
        let all_cached = || blocks.into_iter().all(|index| pages.map.contains_key(&index));
        (count <= 1 || count <= MAX_READ_BLOCKS && all_cached())
            && self.copy_cached(&mut pages, pos, out) == out.len()
    }

    /// Copies up to the first byte that is not cached; returns how many.
    fn copy_cached(&self, pages: &mut Pages<M::Error>, pos: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let at = pos + done as u64;
            let Some(page) = pages.map.get_mut(&(at / self.block)) else { break };
            let inside = (at % self.block) as usize;
            let part = (page.data.len() - inside).min(out.len() - done);
            page.recent = true;
            out[done..done + part].copy_from_slice(&page.data[inside..inside + part]);
            done += part;
        }
        done
    }

    /// Reads a missing block and, of the `wanted` ones and those a sequential reader wants next, what one request can.
    fn read_in(&self, index: u64, wanted: u64) -> Result<AlignedBuf, M::Error> {
        // A failed write-back is the business of the next fsync.
        let _kept = self.make_room();
        let below_size = self.mapping.size_bytes().div_ceil(self.block).saturating_sub(index);
        let count = self.pages.lock().read_ahead(index, wanted).min(below_size).max(1);
        // What nobody asked for may not fail the read.
        let data = match self.fill(index, count) {
            Err(_) if count > 1 => self.fill(index, 1)?,
            read => read?,
        };
        self.pages.lock().read_up_to(index + data.len() as u64 / self.block);
        Ok(data)
    }

    /// Reads up to `count` blocks from `index` on, which is not cached, and stops at the first that is; caches them.
    fn fill(&self, index: u64, count: u64) -> Result<AlignedBuf, M::Error> {
        let (blocks, read) = {
            let mut pages = self.pages.lock();
            let next_cached = pages.map.range(index..).next().map_or(u64::MAX, |(&next, _)| next);
            let count = count.min(next_cached - index).max(1);
            (count, pages.begin_read(index..index + count))
        };
        let data = self.read_blocks(index, blocks);
        let mut pages = self.pages.lock();
        // B11: an invalidation while the device was read leaves nothing stale behind.
        if pages.end_read(read)
            && let Ok(data) = &data
        {
            for (index, bytes) in (index..).zip(data.chunks(self.block as usize)) {
                pages.insert(index, bytes);
            }
        }
        data
    }

    fn read_blocks(&self, index: u64, count: u64) -> Result<AlignedBuf, M::Error> {
        let start = index * self.block;
        let mapping = self.mapping.map_read(start, count * self.block)?;
        let mapped = (mapping.end_bytes().saturating_sub(start) / self.block).max(1);
        let mut data = AlignedBuf::zeroed((count.min(mapped) * self.block) as usize);
        if let Address::Mapped { device_offset_bytes } = mapping.address {
            let offset = device_offset_bytes + (start - mapping.offset_bytes);
            self.mapping.read_mapped(&*self.device, offset, &mut data)?;
            // E27: whatever is behind the end of the file on the device, it is not the file's when that grows.
            let valid = self.mapping.size_bytes().saturating_sub(start).min(data.len() as u64);
            data[valid as usize..].fill(0);
        }
        Ok(data)
    }

    /// Writes `data` at `pos` into the cache. The caller, who keeps other writers out, raises i_size before its next
    /// call. On an error the first so many bytes are in, as the error's pair says.
    pub fn write(&self, pos: u64, data: &[u8]) -> Result<(), (usize, M::Error)> {
        let mut done = 0;
        for part in self.parts(pos, data) {
            if done == 0 || part.index.is_multiple_of(MAX_READ_BLOCKS) {
                self.make_room().map_err(|error| (done, error))?;
            }
            self.write_part(&part).map_err(|error| (done, error))?;
            done += part.bytes.len();
        }
        Ok(())
    }

    fn parts<'d>(&self, pos: u64, data: &'d [u8]) -> impl Iterator<Item = Part<'d>> + use<'d, M> {
        assert!(pos.checked_add(data.len() as u64).is_some(), "below the largest file size");
        let (block, mut done) = (self.block, 0);
        std::iter::from_fn(move || {
            let at = pos + done as u64;
            let inside = (at % block) as usize;
            let len = (block as usize - inside).min(data.len() - done);
            let bytes = &data[done..done + len];
            done += len;
            (len > 0).then_some(Part { index: at / block, inside, bytes })
        })
    }

    fn write_part(&self, part: &Part<'_>) -> Result<(), M::Error> {
        let has_space = {
            let pages = self.pages.lock();
            let page = pages.map.get(&part.index);
            page.is_some_and(|page| page.dirty || page.writing || page.delayed)
        };
        // ENOSPC belongs to the write, not to a later write-back.
        let reserved = match has_space {
            true => Reserved::default(),
            false => Reserved::for_page(self.backing(part.index * self.block)?),
        };
        self.reserve(reserved)?;
        self.put_filled(part, reserved).inspect_err(|_| self.release(reserved))
    }

    /// [`PageCache::put`], after the rest of the page was read where it must be. A page that is there now may be gone before
    /// its part is in: others give clean pages back.
    fn put_filled(&self, part: &Part<'_>, reserved: Reserved) -> Result<(), M::Error> {
        let mut filled: Option<AlignedBuf> = None;
        loop {
            let mut pages = self.pages.lock();
            if !pages.map.contains_key(&part.index) {
                match filled.take() {
                    Some(data) => pages.insert(part.index, &data),
                    None if self.must_read(part) => {
                        drop(pages);
                        filled = Some(self.fill(part.index, 1)?);
                        continue;
                    }
                    None => {}
                }
            }
            self.put(&mut pages, part, reserved);
            return Ok(());
        }
    }

    /// What one page needs. Dirty pages may hold more than they will turn out to need: write-back settles that.
    fn reserve(&self, page: Reserved) -> Result<(), M::Error> {
        if page.is_none() {
            return Ok(());
        }
        let reserved = self.mapping.reserve(page);
        if reserved.is_ok() || self.dirty_bytes() == 0 {
            return reserved;
        }
        // An error is kept for the next fsync.
        let _kept = self.write_back(0, u64::MAX);
        self.mapping.reserve(page)
    }

    fn release(&self, pages: Reserved) {
        if !pages.is_none() {
            self.mapping.release(pages);
        }
    }

    /// Whether a page that is not cached must be read before a part is written into it.
    fn must_read(&self, part: &Part<'_>) -> bool {
        part.bytes.len() as u64 != self.block && part.index * self.block < self.mapping.size_bytes()
    }

    fn backing(&self, pos: u64) -> Result<Backing, M::Error> {
        match self.mapping.try_backing(pos) {
            Some(known) => Ok(known),
            None => Ok(Backing::of(self.mapping.map_read(pos, self.block)?.address)),
        }
    }

    /// Copies a part into its page, which is made unless it is there.
    fn put(&self, pages: &mut Pages<M::Error>, part: &Part<'_>, reserved: Reserved) {
        let start = part.index * self.block;
        let size = self.mapping.size_bytes();
        if !pages.map.contains_key(&part.index) {
            pages.insert(part.index, &vec![0; self.block as usize]);
        }
        let page = pages.map.get_mut(&part.index).expect("just made");
        let end = part.inside + part.bytes.len();
        // C22: what lies behind the end of the file becomes part of it, as zeros.
        let valid = size.saturating_sub(start).min(self.block) as usize;
        if end > valid {
            page.data[valid..].fill(0);
        }
        page.data[part.inside..end].copy_from_slice(part.bytes);
        page.reach = page.reach.max(end);
        page.recent = true;
        pages.set_dirty(part.index, self.mapping.now_ms());
        let surplus = pages.set_reserved(part.index, reserved);
        self.release(surplus);
    }

    /// [`PageCache::write`] if nobody has to be waited for: neither for a block to be read, nor for memory, nor for
    /// space. `false`: nothing was done.
    pub fn try_write(&self, pos: u64, data: &[u8]) -> bool {
        if self.budget.is_exceeded() || self.budget.is_dirty_exceeded() || self.mapping.is_journalled() {
            return false;
        }
        let blocks = self.blocks(pos, data.len() as u64);
        if blocks.end - blocks.start > MAX_READ_BLOCKS {
            return false;
        }
        let Some(mut pages) = self.pages.try_lock() else { return false };
        let (mut needs, mut all) = (Vec::new(), Reserved::default());
        for part in self.parts(pos, data) {
            let page = pages.map.get(&part.index);
            if page.is_none() && self.must_read(&part) {
                return false;
            }
            if page.is_some_and(|page| page.dirty || page.writing || page.delayed) {
                continue;
            }
            let Some(backing) = self.mapping.try_backing(part.index * self.block) else { return false };
            let need = Reserved::for_page(backing);
            if !need.is_none() {
                needs.push((part.index, need));
                all += need;
            }
        }
        if !all.is_none() && self.mapping.reserve(all).is_err() {
            return false; // A commit may free space.
        }
        let mut needs = needs.into_iter().peekable();
        for part in self.parts(pos, data) {
            let reserved = needs.next_if(|(index, _)| *index == part.index);
            self.put(&mut pages, &part, reserved.map_or(Reserved::default(), |(_, need)| need));
        }
        true
    }

    /// Drops the clean pages of a byte range. [`Busy`] if one is dirty or on its way to the device, or being read: that
    /// read makes no page, so that an invalidation after a direct write leaves nothing stale (B11).
    pub fn invalidate(&self, pos: u64, len_bytes: u64) -> Result<(), Busy> {
        let range = self.blocks(pos, len_bytes);
        let mut pages = self.pages.lock();
        let being_read = pages.disown_reads(&range);
        let clean = pages.clean_in(range.clone());
        pages.remove(clean);
        if being_read || pages.map.range(range).next().is_some() { Err(Busy) } else { Ok(()) }
    }

    /// The file ends at `size` from now on: pages behind it go, dirty or not, and the rest of its last page is zero.
    /// Waits for write-back. The caller holds no journal handle.
    pub fn truncate(&self, size: u64) {
        let _turn = self.turn.lock();
        let mut pages = self.pages.lock();
        self.drop_all(&mut pages, size.div_ceil(self.block)..u64::MAX);
        let inside = (size % self.block) as usize;
        if inside != 0
            && let Some(page) = pages.map.get_mut(&(size / self.block))
        {
            page.data[inside..].fill(0);
            page.reach = page.reach.min(inside);
        }
    }

    /// A byte range reads as zeros from now on, which the caller sees to on the device: pages wholly inside go, dirty or
    /// not, and of the others the part inside is zero. Waits for write-back. The caller holds no journal handle.
    pub fn zero(&self, pos: u64, len_bytes: u64) {
        let _turn = self.turn.lock();
        let mut pages = self.pages.lock();
        let end = pos.saturating_add(len_bytes);
        self.drop_all(&mut pages, pos.div_ceil(self.block)..end / self.block);
        for index in [pos / self.block, end / self.block] {
            let start = index * self.block;
            let (from, to) = (pos.clamp(start, start + self.block), end.clamp(start, start + self.block));
            if let Some(page) = pages.map.get_mut(&index) {
                page.data[(from - start) as usize..(to - start) as usize].fill(0);
            }
        }
    }

    fn drop_all(&self, pages: &mut MutexGuard<'_, Pages<M::Error>>, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        pages.disown_reads(&range);
        let gone = pages.all_in(range);
        let reserved = pages.remove(gone);
        self.release(reserved);
    }
}

impl<M: FileMapping> Drop for PageCache<M> {
    fn drop(&mut self) {
        let pages = self.pages.get_mut();
        let all = pages.all_in(0..u64::MAX);
        let reserved = pages.remove(all);
        self.release(reserved);
    }
}
