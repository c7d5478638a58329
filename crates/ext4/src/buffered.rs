//! Buffered reads and writes of regular files, through the page cache.

use std::ops::Range;
use std::sync::Arc;

use block_io::Device;
use block_io::sync::Mutex;
use ext4_format::Lblk;
use iomap::{Backing, FileMapping, Mapping as IoMapping, Reserved};
use jbd2::Tid;

use crate::credits::{MAP_CREDITS, ORPHAN_CREDITS};
use crate::extents::MapState;
use crate::file::block_range;
use crate::fs::Fs;
use crate::handle::Handle;
use crate::indirect;
use crate::inode::{Change, Inode, InodeMapping, PageCache};
use crate::logged_data::DataMode;
use crate::map_blocks::{Allocate, check_lblk};
use crate::mballoc::Splitting;
use crate::meta::Meta;
use crate::page_splits::PageSplits;
use crate::{Error, Result, errno, mballoc};

/// Bytes of one buffered write between two looks at memory, and at what others wait for.
const WRITE_STEP_BYTES: usize = 4 << 20;

/// Space to set aside for a block of data: in a block map, where none is kept for metadata (D14), its tables too.
fn reserved_per_block(inode: &Inode) -> u64 {
    if inode.is_bitmap_format() { 1 + indirect::MAX_TABLES } else { 1 }
}

impl InodeMapping {
    fn both(&self) -> Result<(Arc<Fs>, Arc<Inode>)> {
        let gone = || Error::refused(errno::EIO, "the volume is closed");
        Ok((self.fs.upgrade().ok_or_else(gone)?, self.inode.upgrade().ok_or_else(gone)?))
    }

    /// Runs `f` with what the pages have claimed for one conversion.
    fn converting<R>(
        &self,
        fs: &Fs,
        inode: &Inode,
        f: impl FnOnce(&mut Splitting<'_>) -> Result<R>,
    ) -> Result<R> {
        let most = fs.blocks_for_conversion(inode)?;
        let mut claim = self.splits.lock().lend(most);
        let lent = claim.clusters();
        let result = f(&mut Splitting::Claimed(&mut claim));
        self.splits.lock().take_back(lent, claim);
        result
    }
}

impl FileMapping for InodeMapping {
    type Error = Error;

    fn map_read(&self, pos: u64, len_bytes: u64) -> Result<IoMapping> {
        let (fs, inode) = self.both()?;
        let blocks = block_range(fs.block_size(), pos, len_bytes)?;
        let lblk = Lblk(blocks.start as u32);
        let mapping = fs.map_lookup(&inode, lblk, (blocks.end - blocks.start) as u32)?;
        Ok(fs.to_io_mapping(&mapping, false))
    }

    fn try_backing(&self, pos: u64) -> Option<Backing> {
        let (fs, inode) = self.both().ok()?;
        let lblk = check_lblk(pos / fs.block_size() as u64).ok()?;
        let mapping = fs.try_map_cached(&inode, lblk, 1)?;
        Some(Backing::of(fs.to_io_mapping(&mapping, false).address))
    }

    fn reserve(&self, pages: Reserved) -> Result<()> {
        let (fs, inode) = self.both()?;
        let blocks = pages.delayed * self.reserved_per_block;
        fs.allocator.reserve_delayed(blocks)?;
        fs.blocks_for_pages(&inode)
            .and_then(|need| self.splits.lock().add(pages.converting, need))
            .inspect_err(|_| fs.allocator.release_delayed(blocks))
    }

    fn release(&self, pages: Reserved) {
        // Without its volume nobody counts.
        let Some(fs) = self.fs.upgrade() else { return };
        fs.allocator.release_delayed(pages.delayed * self.reserved_per_block);
        // The inode may be gone already: it drops its pages last, and the claim with them.
        if let Some(inode) = self.inode.upgrade() {
            match fs.blocks_for_pages(&inode) {
                Ok(need) => self.splits.lock().remove(pages.converting, need),
                // A damaged root: what waits for write-back will hear of it.
                Err(_) => self.splits.lock().remove(pages.converting, |_| 0),
            }
        }
    }

    fn map_write(&self, pos: u64, len_bytes: u64, delayed_bytes: u64) -> Result<IoMapping> {
        let (fs, inode) = self.both()?;
        let blocks = block_range(fs.block_size(), pos, len_bytes)?;
        let (lblk, count) = (Lblk(blocks.start as u32), (blocks.end - blocks.start) as u32);
        // Lest the journal writes what it has of these blocks over what the caller is about to write.
        fs.settle_data(&inode)?;
        let found = fs.map_lookup(&inode, lblk, count)?;
        if found.state != MapState::Hole {
            return Ok(fs.to_io_mapping(&found, false));
        }
        let bitmap_format = inode.is_bitmap_format();
        let delayed = (delayed_bytes / fs.block_size() as u64) as u32;
        let (len, kind) = match delayed {
            0 => (found.len, mballoc::RequestKind::Data),
            delayed => (found.len.min(delayed), mballoc::RequestKind::Delayed),
        };
        let at_once = !fs.dioread_nolock && !bitmap_format;
        let how = if at_once { Allocate::Written } else { Allocate::Unwritten };
        let (mapping, new) = fs.with_handle_reserved(MAP_CREDITS + ORPHAN_CREDITS, |handle| {
            let created = handle.map_create(&inode, lblk, len, how, kind)?;
            if at_once && created.1 {
                fs.order_data(handle, &inode, pos, created.0.end() * fs.block_size() as u64)?;
            }
            // Written zeros beyond i_disksize: a crash must free them (D9), until write-back raises it.
            let disk_blocks = fs.sizes(&inode).1.div_ceil(fs.block_size() as u64);
            if bitmap_format && created.0.end() > disk_blocks {
                handle.add_orphan(&inode)?;
            }
            Ok(created)
        })?;
        if jbd2::mutant(13) {
            self.end_write(pos, pos + u64::from(mapping.len) * fs.block_size() as u64)?;
            fs.journal.commit_running()?;
        }
        Ok(fs.to_io_mapping(&mapping, new))
    }

    fn read_mapped(&self, _device: &dyn Device, device_offset_bytes: u64, out: &mut [u8]) -> Result<()> {
        let (fs, inode) = self.both()?;
        fs.read_data(&inode, device_offset_bytes, out)
    }

    fn is_journalled(&self) -> bool {
        self.both().is_ok_and(|(fs, inode)| fs.journals_data(&inode))
    }

    fn journal(&self, pos: u64, data: &[u8], delayed_bytes: u64) -> Result<IoMapping> {
        let (fs, inode) = self.both()?;
        let block_size = fs.block_size() as u64;
        let lblk = check_lblk(pos / block_size)?;
        let (mapping, new) = self.converting(&fs, &inode, |splitting| {
            fs.log_blocks(&inode, lblk, data, (delayed_bytes / block_size) as u32, splitting)
        })?;
        Ok(fs.to_io_mapping(&mapping, new))
    }

    fn end_write(&self, pos: u64, end: u64) -> Result<()> {
        let (fs, inode) = self.both()?;
        let (size, disk_size) = fs.sizes(&inode);
        let end_of_data = end.min(size);
        let unwritten =
            fs.map_range(&inode, pos, end - pos, crate::file::Look::Disk)?.is_some_and(|mappings| {
                mappings.iter().any(|mapping| matches!(mapping.address, iomap::Address::Unwritten { .. }))
            });
        let is_orphan = inode.is_bitmap_format() && inode.state.lock().orphan.is_some();
        if !unwritten && !is_orphan && end_of_data <= disk_size {
            return Ok(());
        }
        self.converting(&fs, &inode, |splitting| {
            fs.with_handle_reserved(MAP_CREDITS + ORPHAN_CREDITS, |handle| {
                // The size first: a conversion may take several transactions, and written blocks beyond i_disksize are damage.
                fs.require_large_file(handle, end_of_data)?;
                handle.change_inode(&inode, Change::Data, |state| {
                    state.disk.size = state.disk.size.max(end_of_data);
                })?;
                if is_orphan {
                    handle.delete_orphan(&inode, 0)?;
                }
                match unwritten {
                    true => fs.convert_range(handle, &inode, pos, end - pos, splitting),
                    false => Ok(()),
                }
            })
        })
    }

    fn size_bytes(&self) -> u64 {
        self.inode.upgrade().map_or(0, |inode| inode.size())
    }

    fn now_ms(&self) -> u64 {
        self.fs.upgrade().map_or(0, |fs| fs.now_ms())
    }
}

impl Fs {
    fn pages<'i>(self: &Arc<Self>, inode: &'i Arc<Inode>) -> &'i PageCache {
        inode.pages.get_or_init(|| {
            let mapping = InodeMapping {
                fs: Arc::downgrade(self),
                inode: Arc::downgrade(inode),
                reserved_per_block: reserved_per_block(inode),
                splits: Mutex::new(PageSplits::new(self.allocator.clone())),
            };
            PageCache::new(mapping, self.device.clone(), self.page_budget.clone(), self.block_size())
        })
    }

    /// Copies up to `out.len()` bytes at `pos`; returns how many the file has there.
    pub fn buffered_read(self: &Arc<Self>, inode: &Arc<Inode>, pos: u64, out: &mut [u8]) -> Result<usize> {
        self.check_alive()?;
        inode.check_data_supported()?;
        let available = (out.len() as u64).min(inode.size().saturating_sub(pos)) as usize;
        if available > 0 {
            self.pages(inode).read(pos, &mut out[..available])?;
            self.balance_memory();
        }
        Ok(available)
    }

    /// Blocks of [pos, end) became written before their data: i_disksize rises with them, for nothing may be written beyond it
    /// (D9), and the commit sees to the data (T12).
    fn order_data(&self, handle: &mut Handle<'_>, inode: &Arc<Inode>, pos: u64, end: u64) -> Result<()> {
        if self.data_mode == DataMode::Ordered {
            self.host.ordered.add(Tid(handle.tid()), inode.clone(), pos..end);
        }
        let end = end.min(inode.size());
        self.require_large_file(handle, end)?;
        handle.change_inode(inode, Change::Data, |state| state.disk.size = state.disk.size.max(end))
    }

    /// [`Fs::buffered_read`] of what is cached, without waiting.
    ///
    /// # Errors
    /// WouldBlock where the disk or a lock would have to be waited for.
    pub fn try_buffered_read(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        pos: u64,
        out: &mut [u8],
    ) -> Result<usize> {
        self.check_alive()?;
        inode.check_data_supported()?;
        let size = {
            let state = inode.state.try_lock().ok_or(Error::WouldBlock)?;
            if self.moves_access(&state) {
                return Err(Error::WouldBlock);
            }
            state.size
        };
        let available = (out.len() as u64).min(size.saturating_sub(pos)) as usize;
        let done = available == 0 || self.pages(inode).try_read(pos, &mut out[..available]);
        if done { Ok(available) } else { Err(Error::WouldBlock) }
    }

    /// [`Fs::buffered_read`] of what needs no waiting: cached pages, and blocks that are known to read as zeros. Fewer bytes than
    /// there are where that stops.
    ///
    /// # Errors
    /// EAGAIN where the first byte would have to be waited for.
    pub fn buffered_read_nowait(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        pos: u64,
        out: &mut [u8],
    ) -> Result<usize> {
        self.check_alive()?;
        inode.check_data_supported()?;
        let available = (out.len() as u64).min(inode.size().saturating_sub(pos)) as usize;
        let (pages, block) = (self.pages(inode), self.block_size() as u64);
        let mut done = 0;
        while done < available {
            let at = pos + done as u64;
            let mut copied = pages.read_cached(at, &mut out[done..available]);
            if copied == 0 {
                let lblk = block_range(self.block_size(), at, 1)?.start;
                let run = self.try_map_cached(inode, Lblk(lblk as u32), 1);
                if run.is_none_or(|run| run.state == MapState::Written) || !pages.is_clear(at, 1) {
                    break;
                }
                copied = ((block - at % block) as usize).min(available - done);
                out[done..done + copied].fill(0);
            }
            done += copied;
        }
        if done == 0 && available > 0 { Err(Error::errno_only(errno::EAGAIN)) } else { Ok(done) }
    }

    /// Writes into the page cache and raises i_size. The caller holds the inode lock exclusive and has done the checks of
    /// A4. Returns the bytes taken: fewer than given if space ran out on the way.
    pub fn buffered_write(self: &Arc<Self>, inode: &Arc<Inode>, pos: u64, data: &[u8]) -> Result<usize> {
        self.check_buffered_write(inode, pos, data.len())?;
        let size = inode.size();
        if pos > size {
            self.zero_eof_block(inode, size)?;
        }
        let mut done = 0;
        for part in data.chunks(WRITE_STEP_BYTES) {
            match self.write_step(inode, pos + done as u64, part) {
                Ok(taken) => done += taken,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if done % WRITE_STEP_BYTES != 0 {
                break;
            }
        }
        Ok(done)
    }

    /// A part of a buffered write. i_size rises with each: what lies beyond it nobody can write back, so that one write of more
    /// than the cache holds would look for room in vain at every page.
    fn write_step(self: &Arc<Self>, inode: &Arc<Inode>, pos: u64, data: &[u8]) -> Result<usize> {
        let (taken, result) = match self.pages(inode).write(pos, data) {
            Ok(()) => (data.len(), Ok(data.len())),
            Err((0, error)) => (0, Err(error)),
            Err((taken, _)) => (taken, Ok(taken)),
        };
        if taken > 0 {
            raise_size(inode, pos + taken as u64);
            if self.journals_data(inode) {
                // Part of the running transaction when the call returns, as on Linux: it commits by age.
                self.write_and_wait(inode, pos, taken as u64)?;
            }
        }
        self.balance_memory();
        self.throttle_writer(inode);
        self.wake_flusher();
        result
    }

    /// [`Fs::buffered_write`] of all of `data`, if neither the disk, nor space, nor memory has to be waited for.
    ///
    /// # Errors
    /// WouldBlock, with nothing done.
    pub fn try_buffered_write(self: &Arc<Self>, inode: &Arc<Inode>, pos: u64, data: &[u8]) -> Result<usize> {
        self.check_buffered_write(inode, pos, data.len())?;
        if pos > inode.size() || !self.pages(inode).try_write(pos, data) {
            return Err(Error::WouldBlock);
        }
        raise_size(inode, pos + data.len() as u64);
        self.wake_flusher();
        Ok(data.len())
    }

    fn check_buffered_write(&self, inode: &Inode, pos: u64, len: usize) -> Result<()> {
        self.check_writable()?;
        inode.check_data_supported()?;
        match pos.checked_add(len as u64) {
            Some(end) if end <= self.max_bytes(inode) => Ok(()),
            _ => Err(Error::errno_only(errno::EFBIG)),
        }
    }

    /// The first run of bytes in a range, block-rounded, whose data is newer in the page cache than on the device: it is
    /// data even where the map shows a hole or unwritten blocks.
    pub fn next_dirty(&self, inode: &Inode, pos: u64, len: u64) -> Option<Range<u64>> {
        inode.pages.get()?.next_dirty(pos, len)
    }

    /// The first run of bytes in a range, block-rounded, whose allocation is delayed: data without blocks.
    pub fn next_delayed(&self, inode: &Inode, pos: u64, len: u64) -> Option<Range<u64>> {
        inode.pages.get()?.next_delayed(pos, len)
    }

    /// Writes back and waits for the dirty pages of a range (B4).
    pub fn write_and_wait(&self, inode: &Inode, pos: u64, len: u64) -> Result<()> {
        match inode.pages.get() {
            Some(pages) => pages.write_back(pos, len),
            None => Ok(()),
        }
    }

    /// Drops the clean pages of a range. EBUSY if one is dirty or in use (B4: the caller falls back).
    pub fn invalidate(&self, inode: &Inode, pos: u64, len: u64) -> Result<()> {
        match inode.pages.get() {
            Some(pages) => pages.invalidate(pos, len).map_err(|_busy| Error::errno_only(errno::EBUSY)),
            None => Ok(()),
        }
    }

    /// B4 for a direct write: write back, wait, invalidate. ENOTBLK where the cache does not let go: the caller writes
    /// through it instead.
    pub(crate) fn prepare_direct_write(&self, inode: &Inode, pos: u64, len: u64) -> Result<()> {
        self.write_and_wait(inode, pos, len)?;
        self.settle_data(inode)?;
        self.invalidate(inode, pos, len).map_err(|_busy| Error::errno_only(errno::ENOTBLK))
    }

    /// Whether the page cache may hold something of a range: a direct write then prepares first (B4). Does not wait.
    pub(crate) fn has_pages(&self, inode: &Inode, pos: u64, len: u64) -> bool {
        inode.pages.get().is_some_and(|pages| !pages.is_clear(pos, len))
    }

    /// Whether a direct read of a range may have to wait for write-back first (B4). Does not wait itself.
    pub(crate) fn has_dirty_pages(&self, inode: &Inode, pos: u64, len: u64) -> bool {
        inode.pages.get().is_some_and(|pages| !pages.is_written_back(pos, len))
    }

    /// Lets other files give pages back while the volume's budget is exceeded.
    fn balance_memory(&self) {
        if !self.page_budget.is_exceeded() {
            return;
        }
        for inode in self.inodes.all() {
            if let Some(pages) = inode.pages.get() {
                pages.give_back();
            }
        }
    }
}

fn raise_size(inode: &Inode, end: u64) {
    let mut state = inode.state.lock();
    state.size = state.size.max(end);
}
