//! The pages of one file: which are dirty, which were used lately, which go first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use block_io::{AlignedBuf, LineBuf};

use crate::{CacheBudget, Reserved};

/// Blocks that one device request of read-ahead covers at most.
pub(crate) const MAX_READ_BLOCKS: u64 = 256;

/// Bytes that one run of write-back covers at most: what is allocated at once.
const MAX_RUN_BYTES: u64 = 4 << 20;

/// Read-ahead starts with so many blocks, and doubles up to so many.
const READ_AHEAD_BLOCKS: Range<u64> = 4..64;

/// One block of the file. Its bytes beyond i_size are zeros, but for those of a write that is about to raise i_size.
pub(crate) struct Page {
    pub data: LineBuf,
    pub dirty: bool,
    /// Write-back has a copy of it in its hands.
    pub writing: bool,
    /// It has no block yet, but space is reserved for one.
    pub delayed: bool,
    /// Its block is not a written one yet, but what its conversion may need is set aside.
    pub converting: bool,
    /// End of what was written into it since it was clean.
    pub reach: usize,
    /// Used since the eviction looked at it last.
    pub recent: bool,
}

impl Page {
    fn is_clean(&self) -> bool {
        !self.dirty && !self.writing
    }

    fn reserved(&self) -> Reserved {
        Reserved { delayed: self.delayed.into(), converting: self.converting.into() }
    }
}

/// A read from the device under way, whose bytes become pages unless an invalidation met it.
struct ReadInFlight {
    id: u64,
    blocks: Range<u64>,
    is_stale: bool,
}

/// Adjacent dirty pages on their way to the device.
pub(crate) struct Run {
    pub blocks: Range<u64>,
    pub data: AlignedBuf,
    /// The last page holds bytes beyond i_size: their writer raises it soon, and the size on disk has to follow then.
    pub stays_dirty: bool,
}

/// The pages, by block number in the file.
pub(crate) struct Pages<E> {
    pub map: BTreeMap<u64, Page>,
    /// An error of write-back that no fsync has reported yet.
    pub unreported: Option<E>,
    /// When the first of the dirty pages became so.
    pub dirty_since_ms: Option<u64>,
    budget: Arc<CacheBudget>,
    block: u64,
    dirty: u64,
    delayed: u64,
    reads: Vec<ReadInFlight>,
    next_read: u64,
    /// Where the eviction goes on.
    hand: u64,
    /// The block that a sequential reader misses next, and how much it was given last.
    ahead: (u64, u64),
}

impl<E> Pages<E> {
    pub fn new(budget: Arc<CacheBudget>, block: u64) -> Self {
        Self {
            map: BTreeMap::new(),
            unreported: None,
            dirty_since_ms: None,
            budget,
            block,
            dirty: 0,
            delayed: 0,
            reads: Vec::new(),
            next_read: 0,
            hand: 0,
            ahead: (0, 0),
        }
    }

    /// No page, and nobody is about to add one.
    pub fn is_unused(&self) -> bool {
        self.map.is_empty() && self.reads.is_empty()
    }

    /// The same for a range of blocks.
    pub fn is_clear(&self, range: Range<u64>) -> bool {
        let being_read = |read: &ReadInFlight| read.blocks.start < range.end && range.start < read.blocks.end;
        !self.reads.iter().any(being_read) && self.map.range(range).next().is_none()
    }

    pub fn dirty_bytes(&self) -> u64 {
        self.dirty * self.block
    }

    pub fn delayed_bytes(&self) -> u64 {
        self.delayed * self.block
    }

    /// A clean page, unless there is one.
    pub fn insert(&mut self, index: u64, data: &[u8]) {
        self.map.entry(index).or_insert_with(|| {
            self.budget.take(self.block);
            let data = LineBuf::copy_of(data);
            Page {
                data,
                dirty: false,
                writing: false,
                delayed: false,
                converting: false,
                reach: 0,
                recent: true,
            }
        });
    }

    /// Drops pages, whatever their state; returns what was set aside for them.
    pub fn remove(&mut self, indices: impl IntoIterator<Item = u64>) -> Reserved {
        let mut gone = Reserved::default();
        for index in indices {
            let Some(page) = self.map.remove(&index) else { continue };
            self.budget.give(self.block);
            gone += page.reserved();
            if page.dirty {
                self.undirty(1);
            }
        }
        self.delayed -= gone.delayed;
        gone
    }

    /// What was set aside is for a page of the cache; returns what of it the page had already.
    pub fn set_reserved(&mut self, index: u64, reserved: Reserved) -> Reserved {
        let Some(page) = self.map.get_mut(&index) else { return reserved };
        let had = page.reserved();
        page.delayed |= reserved.delayed > 0;
        page.converting |= reserved.converting > 0;
        let surplus = Reserved {
            delayed: reserved.delayed.min(had.delayed),
            converting: reserved.converting.min(had.converting),
        };
        self.delayed += reserved.delayed - surplus.delayed;
        surplus
    }

    /// A page of the cache becomes dirty.
    pub fn set_dirty(&mut self, index: u64, now_ms: u64) {
        let Some(page) = self.map.get_mut(&index) else { return };
        if !std::mem::replace(&mut page.dirty, true) {
            self.dirty += 1;
            self.budget.take_dirty(self.block);
            self.dirty_since_ms.get_or_insert(now_ms);
        }
    }

    fn undirty(&mut self, count: u64) {
        self.dirty -= count;
        self.budget.give_dirty(count * self.block);
        if self.dirty == 0 {
            self.dirty_since_ms = None;
        }
    }

    /// Notes that blocks are being read.
    pub fn begin_read(&mut self, blocks: Range<u64>) -> u64 {
        self.next_read += 1;
        self.reads.push(ReadInFlight { id: self.next_read, blocks, is_stale: false });
        self.next_read
    }

    /// The read is over. `false`: what it found may be stale by now.
    pub fn end_read(&mut self, id: u64) -> bool {
        match self.reads.iter().position(|read| read.id == id) {
            Some(at) => !self.reads.swap_remove(at).is_stale,
            None => false,
        }
    }

    /// What is being read of a range becomes no page; returns whether there is such a read.
    pub fn disown_reads(&mut self, range: &Range<u64>) -> bool {
        let mut met = false;
        for read in &mut self.reads {
            if read.blocks.start < range.end && range.start < read.blocks.end {
                (read.is_stale, met) = (true, true);
            }
        }
        met
    }

    /// Blocks to read at a miss of `wanted` blocks at `index`.
    pub fn read_ahead(&mut self, index: u64, wanted: u64) -> u64 {
        let (expected, last) = self.ahead;
        let window = match index == expected {
            true => (last * 2).clamp(READ_AHEAD_BLOCKS.start, READ_AHEAD_BLOCKS.end),
            false => 0,
        };
        self.ahead.1 = window;
        wanted.max(window).min(MAX_READ_BLOCKS)
    }

    /// Blocks up to `next` have been read.
    pub fn read_up_to(&mut self, next: u64) {
        self.ahead.0 = next;
    }

    /// The first run of adjacent pages in a range for which `wanted` holds.
    pub fn next_run(
        &self,
        range: Range<u64>,
        max: u64,
        wanted: impl Fn(&Page) -> bool,
    ) -> Option<Range<u64>> {
        if range.is_empty() {
            return None;
        }
        let mut found = self.map.range(range).filter(|(_, page)| wanted(page)).map(|(&index, _)| index);
        let start = found.next()?;
        let mut end = start + 1;
        for index in found {
            if index != end || end - start >= max {
                break;
            }
            end += 1;
        }
        Some(start..end)
    }

    /// The bytes of adjacent pages.
    pub fn copy(&self, blocks: Range<u64>) -> AlignedBuf {
        let mut data = AlignedBuf::zeroed(((blocks.end - blocks.start) * self.block) as usize);
        for (bytes, (_, page)) in data.chunks_mut(self.block as usize).zip(self.map.range(blocks)) {
            bytes.copy_from_slice(&page.data);
        }
        data
    }

    /// Takes the first dirty run of a range into write-back. `size` is i_size.
    pub fn take_run(&mut self, range: Range<u64>, size: u64) -> Option<Run> {
        let max = (MAX_RUN_BYTES / self.block).max(1);
        let blocks = self.next_run(range, max, |page| page.dirty)?;
        let data = self.copy(blocks.clone());
        let mut stays_dirty = false;
        for (&index, page) in self.map.range_mut(blocks.clone()) {
            (page.dirty, page.writing) = (false, true);
            stays_dirty = index * self.block + page.reach as u64 > size;
        }
        self.undirty(blocks.end - blocks.start);
        Some(Run { blocks, data, stays_dirty })
    }

    /// Pages of a run have been written, or have not. A page that `stays_dirty`, or that was not written, is dirty again.
    pub fn put_back(&mut self, blocks: Range<u64>, written: bool, stays_dirty: Option<u64>, now_ms: u64) {
        let mut again = Vec::new();
        for (&index, page) in self.map.range_mut(blocks) {
            page.writing = false;
            if !written || stays_dirty == Some(index) {
                again.push(index);
            } else if !page.dirty {
                page.reach = 0;
            }
        }
        for index in again {
            self.set_dirty(index, now_ms);
        }
    }

    /// How many pages from the start of a range on are delayed, one after the other.
    pub fn delayed_prefix(&self, range: Range<u64>) -> u64 {
        let pages = self.map.range(range.clone()).zip(range);
        pages.take_while(|((index, page), expected)| *index == expected && page.delayed).count() as u64
    }

    /// The pages of a range have blocks now; returns how many of them were delayed.
    pub fn settle(&mut self, range: Range<u64>) -> u64 {
        let pages = self.map.range_mut(range);
        let settled = pages.map(|(_, page)| u64::from(std::mem::take(&mut page.delayed))).sum();
        self.delayed -= settled;
        settled
    }

    /// The blocks of a range are written ones now; returns for how many of its pages something was set aside.
    pub fn converted(&mut self, range: Range<u64>) -> u64 {
        let pages = self.map.range_mut(range);
        pages.map(|(_, page)| u64::from(std::mem::take(&mut page.converting))).sum()
    }

    /// Up to `count` clean pages to drop: each page that was used gets a second chance, in a circle.
    pub fn victims(&mut self, count: u64) -> Vec<u64> {
        let mut victims = Vec::new();
        let hand = self.hand;
        for range in [hand..u64::MAX, 0..hand] {
            for (&index, page) in self.map.range_mut(range) {
                if victims.len() as u64 >= count {
                    self.hand = index;
                    return victims;
                }
                if page.is_clean() && !std::mem::take(&mut page.recent) {
                    victims.push(index);
                }
            }
        }
        victims
    }

    /// The clean pages of a range.
    pub fn clean_in(&self, range: Range<u64>) -> Vec<u64> {
        self.map.range(range).filter(|(_, page)| page.is_clean()).map(|(&index, _)| index).collect()
    }

    /// All pages of a range.
    pub fn all_in(&self, range: Range<u64>) -> Vec<u64> {
        self.map.range(range).map(|(&index, _)| index).collect()
    }

    /// Drops clean pages while the budget is exceeded.
    pub fn evict_clean(&mut self) {
        // The first round may do no more than take the second chances away.
        for _round in 0..2 {
            let count = self.budget.excess_bytes().div_ceil(self.block);
            if count == 0 {
                return;
            }
            let victims = self.victims(count);
            self.remove(victims);
        }
    }
}
