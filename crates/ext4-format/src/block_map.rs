//! The block map of inodes without extents (F54): twelve direct blocks, then trees of one, two and three levels of tables
//! of block numbers. A number is 32 bits, 0 is a hole. No table has a checksum (F5).

use crate::codec::{get, put};
use crate::features::{Features, ro_compat};

/// Entries of the root, i_block.
pub const ROOT_ENTRIES: usize = 15;

/// Direct entries of the root; the next one has height 1.
pub const DIRECT: usize = 12;

/// Most tables between the root and a block.
pub const MAX_HEIGHT: u32 = 3;

/// Which logical blocks an entry leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// How many.
    pub len: u64,
    /// Tables between the entry and a block; 0: the entry is a block.
    pub height: u32,
}

impl Span {
    /// The first logical block after it.
    pub fn end(&self) -> u64 {
        self.first + self.len
    }
}

/// The shape of block maps with blocks of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    per_table: u64,
}

impl Shape {
    /// For blocks of `block_size` bytes, 1 to 64 KiB.
    pub fn new(block_size: usize) -> Self {
        Self { per_table: (block_size / 4) as u64 }
    }

    /// Entries of a table.
    pub fn per_table(self) -> usize {
        self.per_table as usize
    }

    /// Blocks under an entry with `height` tables below it.
    fn blocks_under(self, height: u32) -> u64 {
        self.per_table.pow(height)
    }

    /// Blocks that a map can hold.
    pub fn end(self) -> u64 {
        self.root_span(ROOT_ENTRIES - 1).end()
    }

    /// What an entry of the root leads to.
    pub fn root_span(self, slot: usize) -> Span {
        assert!(slot < ROOT_ENTRIES);
        if slot < DIRECT {
            return Span { first: slot as u64, len: 1, height: 0 };
        }
        let height = (slot - DIRECT + 1) as u32;
        let first = DIRECT as u64 + (1..height).map(|below| self.blocks_under(below)).sum::<u64>();
        Span { first, len: self.blocks_under(height), height }
    }

    /// The entry of the root that leads to a logical block; `None` beyond the map.
    pub fn root_slot(self, lblk: u64) -> Option<usize> {
        if lblk < DIRECT as u64 {
            return Some(lblk as usize);
        }
        (DIRECT..ROOT_ENTRIES).find(|&slot| lblk < self.root_span(slot).end())
    }

    /// What an entry of a table leads to; `table` is what the table itself covers.
    pub fn table_span(self, table: Span, slot: usize) -> Span {
        assert!(table.height > 0 && slot < self.per_table());
        let height = table.height - 1;
        let len = self.blocks_under(height);
        Span { first: table.first + slot as u64 * len, len, height }
    }

    /// The entry of a table that leads to a logical block in its span.
    pub fn table_slot(self, table: Span, lblk: u64) -> usize {
        assert!(table.height > 0 && (table.first..table.end()).contains(&lblk));
        ((lblk - table.first) / self.blocks_under(table.height - 1)) as usize
    }

    /// Blocks from `lblk` on whose entries are in one table (or in the root); `None` beyond the map.
    pub fn room(self, lblk: u64) -> Option<u64> {
        let span = self.root_span(self.root_slot(lblk)?);
        if span.height == 0 {
            return Some(DIRECT as u64 - lblk);
        }
        Some(self.per_table - (lblk - span.first) % self.per_table)
    }

    /// Tables that a map of `blocks` blocks without holes has.
    fn tables(self, blocks: u64) -> u64 {
        (DIRECT..ROOT_ENTRIES)
            .map(|slot| {
                let span = self.root_span(slot);
                let under = blocks.min(span.end()).saturating_sub(span.first);
                (1..=span.height).map(|height| under.div_ceil(self.blocks_under(height))).sum::<u64>()
            })
            .sum()
    }
}

/// The longest file of a block map, in bytes (A5): what the map can hold, and what i_blocks can count.
pub fn max_bytes(block_size: usize, features: &Features) -> u64 {
    let shape = Shape::new(block_size);
    let mut blocks = shape.end();
    let countable = max_i_blocks(block_size, features);
    if blocks + shape.tables(blocks) > countable {
        blocks = countable - shape.tables(countable);
    }
    blocks.min(u64::from(u32::MAX)) * block_size as u64
}

/// Blocks that i_blocks can count (F50): 2^48−1 of them with huge_file, else 2^32−1 sectors.
pub fn max_i_blocks(block_size: usize, features: &Features) -> u64 {
    if features.has_ro_compat(ro_compat::HUGE_FILE) {
        (1 << 48) - 1
    } else {
        u64::from(u32::MAX) / (block_size as u64 / 512)
    }
}

/// An entry of a table or of the root; 0 is a hole.
pub fn entry(table: &[u8], slot: usize) -> u32 {
    get(table, 4 * slot)
}

/// Changes an entry of a table or of the root.
pub fn set_entry(table: &mut [u8], slot: usize, block: u32) {
    put(table, 4 * slot, block);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(list: &str) -> Features {
        let mut features = Features::default();
        features.apply(list).unwrap();
        features
    }

    #[test]
    fn f54_sizes_by_block_size() {
        for (block_size, blocks) in [(1024, 16_843_020), (2048, 134_480_396), (4096, 1_074_791_436)] {
            assert_eq!(Shape::new(block_size).end(), blocks);
        }
    }

    #[test]
    fn a5_the_longest_file() {
        let huge = features("huge_file");
        assert_eq!(max_bytes(4096, &huge), 4_402_345_721_856);
        assert_eq!(max_bytes(1024, &huge), 16_843_020 * 1024);
        assert_eq!(max_bytes(65536, &huge), u64::from(u32::MAX) * 65536);
        // 2^32−1 sectors: 1 KiB is bounded by the map, 4 KiB by i_blocks, to what the kernel allows.
        let small = Features::default();
        assert_eq!(max_bytes(1024, &small), 16_843_020 * 1024);
        let shape = Shape::new(4096);
        let blocks = max_bytes(4096, &small) / 4096;
        assert!(blocks + shape.tables(blocks) <= u64::from(u32::MAX) / 8);
        assert_eq!(blocks, 536_346_110);
    }

    #[test]
    fn every_block_has_one_entry() {
        for block_size in [1024, 2048, 4096, 65536] {
            let shape = Shape::new(block_size);
            let per_table = shape.per_table() as u64;
            let edges = (0..ROOT_ENTRIES).flat_map(|slot| {
                let span = shape.root_span(slot);
                [span.first, span.first + span.len / 2, span.end() - 1]
            });
            for lblk in edges {
                let mut slot = shape.root_slot(lblk).unwrap();
                let mut span = shape.root_span(slot);
                let mut tables = 0;
                while span.height > 0 {
                    slot = shape.table_slot(span, lblk);
                    span = shape.table_span(span, slot);
                    tables += 1;
                }
                assert_eq!((span.first, span.len), (lblk, 1));
                let entries = if tables == 0 { DIRECT as u64 } else { per_table };
                assert_eq!(shape.room(lblk), Some(entries - slot as u64));
            }
            assert_eq!(shape.root_slot(shape.end()), None);
            assert_eq!(shape.room(shape.end()), None);
        }
    }

    #[test]
    fn tables_of_dense_maps() {
        let shape = Shape::new(1024);
        for (blocks, tables) in [(0, 0), (12, 0), (13, 1), (268, 1), (269, 3), (268 + 65536, 258)] {
            assert_eq!(shape.tables(blocks), tables, "{blocks}");
        }
        assert_eq!(shape.tables(268 + 65536 + 1), 258 + 3);
    }
}
