//! Metadata in a map: seals what is written, verifies what is read, counts what is allocated and freed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use block_io::AlignedBuf;
use ext4_format::extent::{seal_tail, verify_tail};
use ext4_format::{Ino, Pblk};

use crate::error::errno;
use crate::extents::TreeOwner;
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::{Error, Result};

pub const SEED: u32 = 0x5EED;
pub const BLOCKS: u64 = 1 << 40;
/// Tree blocks are allocated from here on.
pub const FIRST_NODE: u64 = 1 << 39;
pub const OWNER: TreeOwner =
    TreeOwner { ino: Ino(12), seed: SEED, goal: Pblk(5000), blocks: BLOCKS, apart: false };

#[derive(Clone)]
pub struct Store {
    pub block_size: usize,
    pub nodes: HashMap<Pblk, AlignedBuf>,
    pub allocated: BTreeSet<Pblk>,
    next: u64,
    /// How many more allocations succeed.
    pub allocations_left: usize,
    /// How many more times `ensure_credits` says yes.
    pub steps_left: usize,
    /// Data that was freed: start → length.
    pub freed_data: BTreeMap<u64, u32>,
    /// Credits used since `ensure_credits` or a reset.
    pub updates: BTreeSet<Pblk>,
}

impl Store {
    pub fn new() -> Self {
        Self {
            block_size: 1024,
            nodes: HashMap::new(),
            allocated: BTreeSet::new(),
            next: FIRST_NODE,
            allocations_left: usize::MAX,
            steps_left: usize::MAX,
            freed_data: BTreeMap::new(),
            updates: BTreeSet::new(),
        }
    }
}

fn seed_of(kind: BlockKind) -> u32 {
    let BlockKind::ExtentNode { seed } = kind else { panic!("not an extent node: {kind:?}") };
    seed
}

impl Meta for Store {
    fn block_size(&self) -> usize {
        self.block_size
    }

    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        let image = self.nodes.get(&block).ok_or(Error::errno_only(errno::EIO))?;
        verify_tail(image, seed_of(kind)).map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?;
        Ok(Arc::new(image.clone()))
    }

    fn update(&mut self, block: Pblk, kind: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        assert!(self.allocated.contains(&block), "an update of a block that is not ours");
        let image = self.nodes.get_mut(&block).expect("an update of a block never created");
        change(image);
        seal_tail(image, seed_of(kind));
        self.updates.insert(block);
        Ok(())
    }

    fn create(&mut self, block: Pblk, kind: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        assert!(self.allocated.contains(&block), "a creation of a block that is not ours");
        let mut image = AlignedBuf::zeroed(self.block_size);
        fill(&mut image);
        seal_tail(&mut image, seed_of(kind));
        self.nodes.insert(block, image);
        self.updates.insert(block);
        Ok(())
    }

    fn allocate_block(&mut self, _: BlockOwner) -> Result<Pblk> {
        self.allocations_left =
            self.allocations_left.checked_sub(1).ok_or(Error::errno_only(errno::ENOSPC))?;
        let block = Pblk(self.next);
        self.next += 1;
        self.allocated.insert(block);
        Ok(block)
    }

    fn free_block(&mut self, block: Pblk, _: Ino) -> Result<()> {
        assert!(self.allocated.remove(&block), "freed twice: {block}");
        self.nodes.remove(&block);
        Ok(())
    }

    fn free_data(&mut self, start: Pblk, len: u32, _: Ino) -> Result<()> {
        assert!(len > 0);
        assert!(self.freed_data.insert(start.0, len).is_none(), "freed twice: {start}");
        Ok(())
    }

    fn ensure_credits(&mut self, _: u32) -> Result<bool> {
        if self.steps_left == 0 {
            return Ok(false);
        }
        self.steps_left -= 1;
        Ok(true)
    }
}
