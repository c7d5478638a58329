//! Tables in a map: counts what is allocated and freed, and refuses what no handle may do.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use block_io::AlignedBuf;
use ext4_format::{Ino, Pblk};

use crate::error::errno;
use crate::extents::TreeOwner;
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::{Error, Result};

pub const BLOCK_SIZE: usize = 1024;
/// Entries of a table.
pub const PER_TABLE: u32 = 256;
/// Tables are allocated from here on.
pub const FIRST_TABLE: u64 = 1 << 30;
/// Blocks below this are the volume's own.
pub const SYSTEM_BLOCKS: u64 = 50;
pub const OWNER: TreeOwner =
    TreeOwner { ino: Ino(12), seed: 0, goal: Pblk(5000), blocks: 1 << 31, apart: false };

#[derive(Clone)]
pub struct Store {
    pub tables: HashMap<Pblk, AlignedBuf>,
    pub allocated: BTreeSet<Pblk>,
    next: u64,
    /// How many more allocations succeed.
    pub allocations_left: usize,
    /// How many more times `ensure_credits` says yes.
    pub steps_left: usize,
    /// Data that was freed.
    pub freed_data: BTreeSet<u64>,
    /// Blocks changed since `ensure_credits`, and what it granted.
    touched: BTreeSet<u64>,
    granted: u32,
}

impl Store {
    pub fn new() -> Self {
        Self {
            tables: HashMap::new(),
            allocated: BTreeSet::new(),
            next: FIRST_TABLE,
            allocations_left: usize::MAX,
            steps_left: usize::MAX,
            freed_data: BTreeSet::new(),
            touched: BTreeSet::new(),
            granted: u32::MAX,
        }
    }

    /// What may be changed from here on.
    pub fn grant(&mut self, credits: u32) {
        self.touched.clear();
        self.granted = credits;
    }

    /// A block of metadata changes: within what was granted.
    fn touch(&mut self, block: u64) {
        self.touched.insert(block);
        assert!(self.touched.len() <= self.granted as usize, "more credits used than asked for");
    }

    /// So does the bitmap and the descriptor of each group of 8 × 1024 blocks.
    fn touch_group(&mut self, block: u64) {
        let group = block / (8 * BLOCK_SIZE as u64);
        self.touch(u64::MAX / 2 + group);
        self.touch(u64::MAX / 4 + group);
    }
}

impl Meta for Store {
    fn block_size(&self) -> usize {
        BLOCK_SIZE
    }

    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        assert_eq!(kind, BlockKind::Plain);
        let image = self.tables.get(&block).ok_or(Error::errno_only(errno::EIO))?;
        Ok(Arc::new(image.clone()))
    }

    fn is_system_zone(&self, start: Pblk, _len: u64) -> bool {
        start.0 < SYSTEM_BLOCKS
    }

    fn update(&mut self, block: Pblk, _: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        assert!(self.allocated.contains(&block), "an update of a block that is not ours");
        change(self.tables.get_mut(&block).expect("an update of a block never created"));
        self.touch(block.0);
        Ok(())
    }

    fn create(&mut self, block: Pblk, _: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        assert!(self.allocated.contains(&block), "a creation of a block that is not ours");
        let mut image = AlignedBuf::zeroed(BLOCK_SIZE);
        fill(&mut image);
        self.tables.insert(block, image);
        self.touch(block.0);
        Ok(())
    }

    fn allocate_block(&mut self, owner: BlockOwner) -> Result<Pblk> {
        assert!(owner.below_2_32);
        self.allocations_left =
            self.allocations_left.checked_sub(1).ok_or(Error::errno_only(errno::ENOSPC))?;
        let block = Pblk(self.next);
        self.next += 1;
        self.allocated.insert(block);
        self.touch_group(block.0);
        Ok(block)
    }

    fn free_block(&mut self, block: Pblk, _: Ino) -> Result<()> {
        assert!(self.allocated.remove(&block), "freed twice: {block}");
        self.tables.remove(&block);
        self.touch_group(block.0);
        Ok(())
    }

    fn free_data(&mut self, start: Pblk, len: u32, _: Ino) -> Result<()> {
        assert!(len > 0);
        for block in start.0..start.0 + u64::from(len) {
            assert!(self.freed_data.insert(block), "freed twice: {block}");
            self.touch_group(block);
        }
        Ok(())
    }

    fn ensure_credits(&mut self, credits: u32) -> Result<bool> {
        if self.steps_left == 0 {
            return Ok(false);
        }
        self.steps_left -= 1;
        self.grant(credits);
        Ok(true)
    }
}
