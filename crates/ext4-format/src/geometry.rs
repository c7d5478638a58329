//! Where things lie, derived from a superblock (F10, F15–F18, F30).

use crate::features::{compat, incompat, ro_compat};
use crate::{Group, Ino, Pblk, Superblock};

/// A byte range of one inode in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InodeLocation {
    /// The inode's group.
    pub group: Group,
    /// Index in the group's inode bitmap and table.
    pub index: u32,
    /// Block of the group's table, from its first.
    pub table_block: u32,
    /// Byte offset in that block.
    pub offset_bytes: u32,
}

impl Superblock {
    /// Bytes: 1024 … 65536.
    pub fn block_size(&self) -> u32 {
        1024 << self.log_block_size
    }

    /// Bytes; the block size without bigalloc.
    pub fn cluster_size(&self) -> u64 {
        1024 << self.log_cluster_size
    }

    /// log2 of blocks per cluster; 0 without bigalloc.
    pub fn cluster_bits(&self) -> u32 {
        self.log_cluster_size - self.log_block_size
    }

    /// Bytes of an inode, 128 … block size; 128 in revision 0.
    pub fn inode_size(&self) -> u16 {
        if self.rev_level == 0 { 128 } else { self.inode_size_raw }
    }

    /// The first inode that is not special; 11 in revision 0.
    pub fn first_ino(&self) -> u32 {
        if self.rev_level == 0 { 11 } else { self.first_ino_raw }
    }

    /// Bytes of a group descriptor: 32, or 64 … 1024 with 64bit.
    pub fn desc_size(&self) -> usize {
        if self.features().has_incompat(incompat::BIT64) { usize::from(self.desc_size_raw) } else { 32 }
    }

    /// Group descriptors in a block.
    pub fn desc_per_block(&self) -> u32 {
        self.block_size() / self.desc_size() as u32
    }

    /// Block groups of the volume.
    pub fn group_count(&self) -> u32 {
        let blocks = self.blocks_count() - u64::from(self.first_data_block);
        blocks.div_ceil(u64::from(self.blocks_per_group)) as u32
    }

    /// Blocks that hold group descriptors, of either layout.
    pub fn desc_blocks(&self) -> u32 {
        self.group_count().div_ceil(self.desc_per_block())
    }

    /// First block of a group (F15).
    pub fn group_first_block(&self, group: Group) -> Pblk {
        Pblk(u64::from(self.first_data_block) + u64::from(group.0) * u64::from(self.blocks_per_group))
    }

    /// Blocks in a group: fewer in the last one.
    pub fn blocks_in_group(&self, group: Group) -> u32 {
        let rest = self.blocks_count().saturating_sub(self.group_first_block(group).0);
        rest.min(u64::from(self.blocks_per_group)) as u32
    }

    /// Clusters in a group.
    pub fn clusters_in_group(&self, group: Group) -> u32 {
        self.blocks_in_group(group).div_ceil(1 << self.cluster_bits())
    }

    /// The group of a block of the volume; `None` before the first or after the last.
    pub fn group_of_block(&self, block: Pblk) -> Option<Group> {
        if block.0 >= self.blocks_count() {
            return None;
        }
        let index = block.0.checked_sub(u64::from(self.first_data_block))?;
        Some(Group((index / u64::from(self.blocks_per_group)) as u32))
    }

    /// Blocks of a group's inode table (F32).
    pub fn inode_table_blocks(&self) -> u32 {
        let bytes = u64::from(self.inodes_per_group) * u64::from(self.inode_size());
        bytes.div_ceil(u64::from(self.block_size())) as u32
    }

    /// Where an inode lies; `None` for 0 and above `inodes_count`.
    pub fn inode_location(&self, ino: Ino) -> Option<InodeLocation> {
        if ino.0 == 0 || ino.0 > self.inodes_count {
            return None;
        }
        let index = (ino.0 - 1) % self.inodes_per_group;
        let per_block = self.block_size() / u32::from(self.inode_size());
        Some(InodeLocation {
            group: Group((ino.0 - 1) / self.inodes_per_group),
            index,
            table_block: index / per_block,
            offset_bytes: index % per_block * u32::from(self.inode_size()),
        })
    }

    /// F10: whether a group starts with a copy of the superblock.
    pub fn has_super(&self, group: Group) -> bool {
        let features = self.features();
        if group.0 == 0 {
            return true;
        }
        if features.has_compat(compat::SPARSE_SUPER2) {
            return self.backup_bgs.contains(&group.0);
        }
        if !features.has_ro_compat(ro_compat::SPARSE_SUPER) || group.0 == 1 {
            return true;
        }
        [3, 5, 7].into_iter().any(|base| is_power_of(group.0, base))
    }

    /// Block of the primary superblock: 1 with 1 KiB blocks, else 0.
    pub fn super_block(&self) -> Pblk {
        Pblk(u64::from(self.block_size() == 1024))
    }

    /// Whether descriptor block `index` lies in its metagroup rather than behind the superblock (F30).
    pub fn is_meta_bg(&self, index: u32) -> bool {
        self.features().has_incompat(incompat::META_BG) && index >= self.first_meta_bg
    }

    /// The primary copy of descriptor block `index` (F18, F30).
    pub fn desc_block(&self, index: u32) -> Pblk {
        if !self.is_meta_bg(index) {
            return Pblk(self.super_block().0 + 1 + u64::from(index));
        }
        let group = Group(index.saturating_mul(self.desc_per_block()));
        self.meta_bg_desc_block(group)
    }

    /// Where a descriptor block lies in a group that holds one under meta_bg.
    fn meta_bg_desc_block(&self, group: Group) -> Pblk {
        let start = if group.0 == 0 { self.super_block() } else { self.group_first_block(group) };
        Pblk(start.0 + u64::from(self.has_super(group)))
    }

    /// Blocks of the old-layout descriptor table.
    pub fn old_desc_blocks(&self) -> u32 {
        if self.features().has_incompat(incompat::META_BG) {
            self.first_meta_bg.min(self.desc_blocks())
        } else {
            self.desc_blocks()
        }
    }

    /// The descriptor blocks that a group holds under meta_bg: its index and its place.
    pub fn meta_bg_desc_in(&self, group: Group) -> Option<(u32, Pblk)> {
        let per_block = self.desc_per_block();
        let index = group.0 / per_block;
        let position = group.0 % per_block;
        let holds = position == 0 || position == 1 || position == per_block - 1;
        (self.is_meta_bg(index) && holds).then(|| (index, self.meta_bg_desc_block(group)))
    }

    /// Blocks that a group starts with: superblock copy, descriptors, reserved GDT blocks (F10, F28, F30).
    pub fn super_and_desc_blocks(&self, group: Group) -> u32 {
        let mut blocks = 0;
        if self.has_super(group) {
            blocks += 1 + self.old_desc_blocks() + u32::from(self.reserved_gdt_blocks);
            if group.0 == 0 {
                // Block 0 with 1 KiB clusters of bigalloc: the superblock is block 1 of the group (F17).
                blocks += (self.super_block().0 - u64::from(self.first_data_block)) as u32;
            }
        }
        blocks + u32::from(self.meta_bg_desc_in(group).is_some())
    }

    /// The descriptor block of a group and the byte offset in it.
    pub fn desc_location(&self, group: Group) -> (Pblk, usize) {
        let index = group.0 / self.desc_per_block();
        (self.desc_block(index), (group.0 % self.desc_per_block()) as usize * self.desc_size())
    }

    /// Groups in a flex group; 1 without flex_bg.
    pub fn groups_per_flex(&self) -> u32 {
        if self.features().has_incompat(incompat::FLEX_BG) { 1 << self.log_groups_per_flex } else { 1 }
    }
}

fn is_power_of(mut n: u32, base: u32) -> bool {
    while n > 1 && n.is_multiple_of(base) {
        n /= base;
    }
    n == 1
}
