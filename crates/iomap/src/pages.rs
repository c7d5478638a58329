//! The pages of one file: which are dirty, which were used lately, which go first.

use std::collections::BTreeMap;
use std::ops::Range;

/// Blocks that one device request of write-back or read-ahead covers at most.
pub(crate) const MAX_RUN_BLOCKS: u64 = 256;

/// Read-ahead starts with so many blocks, and doubles up to so many.
const READ_AHEAD_BLOCKS: Range<u64> = 4..64;

/// One block of the file. Its bytes beyond i_size are zeros, but for those of a write that is about to raise i_size.
pub(crate) struct Page {
    pub data: Box<[u8]>,
    pub dirty: bool,
    /// End of what was written into it since it was clean.
    pub reach: usize,
    /// Used since the eviction looked at it last.
    pub recent: bool,
}

impl Page {
    pub fn clean(data: Box<[u8]>) -> Self {
        Self { data, dirty: false, reach: 0, recent: true }
    }
}

/// The pages, by block number in the file.
pub(crate) struct Pages<E> {
    pub map: BTreeMap<u64, Page>,
    /// An error of write-back that no fsync has reported yet.
    pub unreported: Option<E>,
    /// Where the eviction goes on.
    hand: u64,
    /// The block that a sequential reader misses next, and how much it was given last.
    ahead: (u64, u64),
}

impl<E> Pages<E> {
    pub fn new() -> Self {
        Self { map: BTreeMap::new(), unreported: None, hand: 0, ahead: (0, 0) }
    }

    /// Blocks to read at a miss of `wanted` blocks at `index`.
    pub fn read_ahead(&mut self, index: u64, wanted: u64) -> u64 {
        let (expected, last) = self.ahead;
        let window = match index == expected {
            true => (last * 2).clamp(READ_AHEAD_BLOCKS.start, READ_AHEAD_BLOCKS.end),
            false => 0,
        };
        self.ahead.1 = window;
        wanted.max(window).min(MAX_RUN_BLOCKS)
    }

    /// Blocks up to `next` have been read.
    pub fn read_up_to(&mut self, next: u64) {
        self.ahead.0 = next;
    }

    /// The first run of adjacent dirty pages in a range.
    pub fn next_dirty_run(&self, range: Range<u64>) -> Option<Range<u64>> {
        if range.is_empty() {
            return None;
        }
        let mut dirty = self.map.range(range).filter(|(_, page)| page.dirty).map(|(&index, _)| index);
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
                if !page.dirty && !std::mem::take(&mut page.recent) {
                    victims.push(index);
                }
            }
        }
        victims
    }

    /// The clean pages of a range.
    pub fn clean_in(&self, range: Range<u64>) -> Vec<u64> {
        self.map.range(range).filter(|(_, page)| !page.dirty).map(|(&index, _)| index).collect()
    }
}
