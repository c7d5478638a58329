//! Write-back: from dirty pages to the device, or into the journal.
//!
//! It works on copies, so that pages stay readable and writable meanwhile. Who holds the turn is the only one to do it for
//! a file; no journal handle is held across data I/O.

use std::ops::Range;

use crate::pages::{MAX_READ_BLOCKS as MAX_ORDERED_BLOCKS, Run};
use crate::{Address, FileMapping, Mapping, PageCache, Reserved};

impl<M: FileMapping> PageCache<M> {
    /// Writes the dirty pages of a byte range to the device and ends their I/O (B4). Durable after a flush and commit.
    /// An error does not keep the other pages from being tried; the first is returned, and kept for the next fsync.
    pub fn write_back(&self, pos: u64, len_bytes: u64) -> Result<(), M::Error> {
        if self.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock();
        self.write_back_in_turn(self.blocks(pos, len_bytes))
    }

    fn write_back_in_turn(&self, range: Range<u64>) -> Result<(), M::Error> {
        // Blocks beyond i_size belong to a write that is about to raise it. They wait: nobody would raise the size on disk
        // for them later on, and written blocks beyond it are damage (D9).
        let size = self.mapping.size_bytes();
        let end = range.end.min(size.div_ceil(self.block));
        let (mut next, mut result) = (range.start, Ok(()));
        loop {
            let run = self.pages.lock().take_run(next..end, size);
            let Some(run) = run else { return result };
            next = run.blocks.end;
            if let Err(error) = self.write_run(&run) {
                self.pages.lock().unreported.get_or_insert(error.clone());
                result = result.and(Err(error));
            }
        }
    }

    /// Writes a run, in pieces that are contiguous on the device.
    fn write_run(&self, run: &Run) -> Result<(), M::Error> {
        let mut index = run.blocks.start;
        while index < run.blocks.end {
            let written = self.write_piece(run, index);
            let now_ms = self.mapping.now_ms();
            let stays_dirty = run.stays_dirty.then(|| run.blocks.end - 1);
            match written {
                Ok(stop) => {
                    self.pages.lock().put_back(index..stop, true, stays_dirty, now_ms);
                    index = stop;
                }
                Err(error) => {
                    self.pages.lock().put_back(index..run.blocks.end, false, None, now_ms);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes what one mapping takes of a run from `index` on; returns where that ends.
    fn write_piece(&self, run: &Run, index: u64) -> Result<u64, M::Error> {
        let start = index * self.block;
        let data = &run.data[((index - run.blocks.start) * self.block) as usize..];
        let delayed_bytes = self.pages.lock().delayed_prefix(index..run.blocks.end) * self.block;
        if self.mapping.is_journalled() {
            let mapping = self.mapping.journal(start, data, delayed_bytes)?;
            let stop = self.settle(run, index, &mapping, delayed_bytes);
            self.converted(index..stop);
            return Ok(stop);
        }
        let mapping = self.mapping.map_write(start, data.len() as u64, delayed_bytes)?;
        let stop = self.settle(run, index, &mapping, delayed_bytes);
        let (Address::Mapped { device_offset_bytes } | Address::Unwritten { device_offset_bytes }) =
            mapping.address
        else {
            let error = block_io::Error::new("write-back", 5).with_detail("a dirty page without a block");
            return Err(error.into());
        };
        let data = &data[..((stop - index) * self.block) as usize];
        self.device.write(device_offset_bytes + (start - mapping.offset_bytes), data, false)?;
        self.mapping.end_write(start, stop * self.block)?;
        self.converted(index..stop);
        Ok(stop)
    }

    /// Nothing of these blocks is left to be converted.
    fn converted(&self, blocks: Range<u64>) {
        let converting = self.pages.lock().converted(blocks);
        if converting > 0 {
            self.mapping.release(Reserved { delayed: 0, converting });
        }
    }

    /// The blocks of a mapping exist now: what was reserved for them is used up, or was not needed after all. Returns the
    /// first block behind it.
    fn settle(&self, run: &Run, index: u64, mapping: &Mapping, delayed_bytes: u64) -> u64 {
        let mapped = mapping.end_bytes().saturating_sub(index * self.block) / self.block;
        let stop = run.blocks.end.min(index + mapped.max(1));
        if mapping.is_allocated() {
            let delayed = self.pages.lock().settle(index..stop);
            if delayed > 0 && !(mapping.flags.new && delayed_bytes > 0) {
                self.mapping.release(Reserved { delayed, converting: 0 });
            }
        }
        stop
    }

    /// Writes what is dirty, or on its way, of a byte range to the blocks that it has, for a commit that must not be ahead of
    /// it (T12): allocates nothing, starts no handle, waits for nobody's turn. The pages stay as dirty as they are.
    pub fn write_ordered(&self, pos: u64, len_bytes: u64) {
        let range = self.blocks(pos, len_bytes);
        let mut next = range.start;
        loop {
            let copied = {
                let pages = self.pages.lock();
                let run =
                    pages.next_run(next..range.end, MAX_ORDERED_BLOCKS, |page| page.dirty || page.writing);
                run.map(|run| (pages.copy(run.clone()), run))
            };
            let Some((data, run)) = copied else { return };
            next = run.end;
            if let Err(error) = self.write_mapped(&run, &data) {
                self.pages.lock().unreported.get_or_insert(error);
            }
        }
    }

    fn write_mapped(&self, run: &Range<u64>, data: &[u8]) -> Result<(), M::Error> {
        let mut index = run.start;
        while index < run.end {
            let start = index * self.block;
            let mapping = self.mapping.map_read(start, (run.end - index) * self.block)?;
            let mapped = mapping.end_bytes().saturating_sub(start) / self.block;
            let stop = run.end.min(index + mapped.max(1));
            if let Address::Mapped { device_offset_bytes } = mapping.address {
                let bytes =
                    ((index - run.start) * self.block) as usize..((stop - run.start) * self.block) as usize;
                self.device.write(
                    device_offset_bytes + (start - mapping.offset_bytes),
                    &data[bytes],
                    false,
                )?;
            }
            index = stop;
        }
        Ok(())
    }

    /// Writes everything back; returns the first error that nobody was told of, once.
    pub fn sync(&self) -> Result<(), M::Error> {
        let written = {
            let _turn = self.turn.lock();
            self.write_back_in_turn(0..u64::MAX)
        };
        match self.pages.lock().unreported.take() {
            Some(error) => Err(error),
            None => written,
        }
    }

    /// Gives pages back if the budget is exceeded: clean ones, and if that is not enough, dirty ones after write-back.
    ///
    /// # Errors
    /// Write-back failed, so the budget stays exceeded.
    pub(crate) fn make_room(&self) -> Result<(), M::Error> {
        if !self.evict() {
            return Ok(());
        }
        let written = {
            let _turn = self.turn.lock();
            self.write_back_in_turn(0..u64::MAX)
        };
        self.evict();
        written
    }

    /// Drops clean pages if the budget is exceeded; returns whether it still is.
    fn evict(&self) -> bool {
        if self.budget.is_exceeded() {
            self.pages.lock().evict_clean();
        }
        self.budget.is_exceeded()
    }

    /// Gives pages back if the volume's budget is exceeded, unless somebody writes the file back already.
    pub fn give_back(&self) {
        if !self.evict() {
            return;
        }
        if let Some(_turn) = self.turn.try_lock() {
            // An error is kept for the next fsync of this file.
            let _kept = self.write_back_in_turn(0..u64::MAX);
        }
        self.evict();
    }
}
