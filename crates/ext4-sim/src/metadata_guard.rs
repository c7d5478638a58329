//! An oracle for damaged volumes: whatever block a damaged map names as data, every metadata block that the workload did not
//! change through the journal stays as it was.
//!
//! It knows what was changed by the log: an image of a metadata block that is written home was written into the log before. What
//! reaches such a block in any other way is data, or zeros meant for data. The metadata is found here once more, by the format
//! alone.

use std::collections::{BTreeSet, HashSet};

use block_io::Event;
use ext4_format::extent::{Entries, Place, decode_node};
use ext4_format::features::{compat, incompat};
use ext4_format::inode::flags;
use ext4_format::{Group, GroupDesc, Ino, Inode, Superblock, block_map};

/// What file data of a workload is made of, so that it is known wherever it lies: see [`marked`].
const MARK: &[u8; 16] = b"\xFEdata of a file\xFE";

/// `len` bytes of data that the guard knows.
pub fn marked(len: usize) -> Vec<u8> {
    MARK.iter().copied().cycle().take(len).collect()
}

/// Deepest tree, or highest block map, that is followed.
const MAX_DEPTH: u16 = 5;

/// What is done with a block that is written.
type LookAtBlock<'l> = dyn FnMut(&mut MetadataGuard, u64, &[u8]) -> Result<(), String> + 'l;

/// The metadata of a mounted volume.
pub struct MetadataGuard {
    block_size: usize,
    before: Vec<u8>,
    metadata: BTreeSet<u64>,
    log: BTreeSet<u64>,
    /// Written past the log, by what may: superblock and MMP block.
    direct: BTreeSet<u64>,
    /// Images that the log has held.
    logged: HashSet<Vec<u8>>,
}

impl MetadataGuard {
    /// Of a volume just mounted: what its device holds, and what was recorded of the mount. `None` if there is nothing to know.
    pub fn after_mount(before: Vec<u8>, mount: &[Event]) -> Option<Self> {
        let superblock = Superblock::decode(before.get(1024..2048)?).ok()?;
        let block_size = superblock.block_size() as usize;
        let mut this = Self {
            block_size,
            metadata: metadata(&superblock, &before)?,
            log: log_blocks(&superblock, &before).unwrap_or_default(),
            direct: BTreeSet::from([superblock.super_block().0]),
            before,
            logged: HashSet::new(),
        };
        if superblock.features().has_incompat(incompat::MMP) {
            this.direct.insert(superblock.mmp_block);
        }
        this.writes(mount, &mut |guard, block, bytes| {
            if guard.log.contains(&block) {
                guard.logged.insert(bytes.to_vec());
            }
            Ok(())
        })
        .ok()?;
        Some(this)
    }

    /// Blocks of fixed metadata.
    pub fn metadata(&self) -> &BTreeSet<u64> {
        &self.metadata
    }

    /// Blocks of the log.
    pub fn log(&self) -> &BTreeSet<u64> {
        &self.log
    }

    /// What was recorded since.
    ///
    /// # Errors
    /// Which block was written as data that is none.
    pub fn judge(&mut self, events: &[Event]) -> Result<(), String> {
        self.writes(events, &mut |guard, block, bytes| guard.judge_write(block, bytes))
    }

    fn judge_write(&mut self, block: u64, bytes: &[u8]) -> Result<(), String> {
        let (in_log, fixed) = (self.log.contains(&block), self.metadata.contains(&block));
        if !in_log && !fixed {
            return Ok(());
        }
        if bytes.windows(MARK.len()).any(|window| window == MARK) {
            return Err(format!("file data went to metadata block {block}"));
        }
        if in_log {
            self.logged.insert(bytes.to_vec());
            return Ok(());
        }
        let at = block as usize * self.block_size;
        let same = self.before.get(at..at + bytes.len()).is_some_and(|before| before == bytes);
        match self.log.is_empty() || self.direct.contains(&block) || same || self.logged.contains(bytes) {
            true => Ok(()),
            false => Err(format!("metadata block {block} was written past the log")),
        }
    }

    /// Every block written, in order.
    fn writes(&mut self, events: &[Event], look: &mut LookAtBlock<'_>) -> Result<(), String> {
        for event in events {
            let Event::WriteSubmitted { offset_bytes, bytes, .. } = event else { continue };
            let (mut at, mut rest) = (*offset_bytes, &bytes[..]);
            while !rest.is_empty() {
                let (block, inside) = (at / self.block_size as u64, at as usize % self.block_size);
                let (part, behind) = rest.split_at(rest.len().min(self.block_size - inside));
                look(self, block, part)?;
                (at, rest) = (at + part.len() as u64, behind);
            }
        }
        Ok(())
    }
}

fn block_of<'a>(superblock: &Superblock, image: &'a [u8], block: u64) -> Option<&'a [u8]> {
    let size = superblock.block_size() as usize;
    let at = usize::try_from(block).ok()?.checked_mul(size)?;
    image.get(at..at.checked_add(size)?)
}

fn desc(superblock: &Superblock, image: &[u8], group: Group) -> Option<GroupDesc> {
    let (block, offset) = superblock.desc_location(group);
    let bytes = block_of(superblock, image, block.0)?.get(offset..offset + superblock.desc_size())?;
    GroupDesc::decode(bytes, superblock, group).ok()
}

/// F27, without the log.
fn metadata(superblock: &Superblock, image: &[u8]) -> Option<BTreeSet<u64>> {
    let mut blocks = BTreeSet::new();
    for group in (0..superblock.group_count()).map(Group) {
        let first = superblock.group_first_block(group).0;
        let desc = desc(superblock, image, group)?;
        blocks.extend(first..first + u64::from(superblock.super_and_desc_blocks(group)));
        blocks.extend([desc.block_bitmap, desc.inode_bitmap]);
        blocks.extend(desc.inode_table..desc.inode_table + u64::from(superblock.inode_table_blocks()));
    }
    if superblock.features().has_incompat(incompat::MMP) {
        blocks.insert(superblock.mmp_block);
    }
    Some(blocks)
}

/// The inode of the volume that `image` is.
pub fn inode(superblock: &Superblock, image: &[u8], ino: Ino) -> Option<Inode> {
    let location = superblock.inode_location(ino)?;
    let table = desc(superblock, image, location.group)?.inode_table;
    let block = block_of(superblock, image, table.checked_add(location.table_block.into())?)?;
    let at = location.offset_bytes as usize;
    Inode::decode(block.get(at..at + usize::from(superblock.inode_size()))?, superblock, ino).ok()
}

fn log_blocks(superblock: &Superblock, image: &[u8]) -> Option<BTreeSet<u64>> {
    if !superblock.features().has_compat(compat::HAS_JOURNAL) {
        return None;
    }
    let inode = inode(superblock, image, Ino(superblock.journal_inum))?;
    let mut blocks = BTreeSet::new();
    if inode.has_flag(flags::EXTENTS) {
        let place = Place::root(superblock.blocks_count());
        extents(superblock, image, &inode.i_block, place, &mut blocks)?;
        return Some(blocks);
    }
    for slot in 0..block_map::ROOT_ENTRIES {
        let height = slot.saturating_sub(11) as u16;
        pointers(superblock, image, block_map::entry(&inode.i_block, slot), height, &mut blocks)?;
    }
    Some(blocks)
}

fn extents(
    superblock: &Superblock,
    image: &[u8],
    node: &[u8],
    place: Place,
    blocks: &mut BTreeSet<u64>,
) -> Option<()> {
    let (header, entries) = decode_node(node, place).ok()?;
    match entries {
        Entries::Leaf(extents) => {
            extents.iter().for_each(|e| blocks.extend(e.start.0..e.start.0 + u64::from(e.len)));
        }
        Entries::Index(children) if header.depth <= MAX_DEPTH => {
            for (at, child) in children.iter().enumerate() {
                let end = children.get(at + 1).map_or(place.end, |next| next.lblk.0.into());
                let depth = Some(header.depth - 1);
                let below = Place { depth, first: Some(child.lblk), end, blocks: place.blocks };
                extents(superblock, image, block_of(superblock, image, child.leaf.0)?, below, blocks)?;
            }
        }
        Entries::Index(_) => return None,
    }
    Some(())
}

fn pointers(
    superblock: &Superblock,
    image: &[u8],
    block: u32,
    height: u16,
    blocks: &mut BTreeSet<u64>,
) -> Option<()> {
    if block == 0 {
        return Some(());
    }
    if height == 0 {
        blocks.insert(block.into());
        return Some(());
    }
    let table = block_of(superblock, image, block.into())?;
    for slot in 0..table.len() / 4 {
        pointers(superblock, image, block_map::entry(table, slot), height - 1, blocks)?;
    }
    Some(())
}
