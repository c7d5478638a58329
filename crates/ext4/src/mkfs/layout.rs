//! Groups, inode tables and metadata zones (F28, F31, F34, F38).

use ext4_format::features::{compat, incompat, ro_compat};
use ext4_format::{Group, GroupDesc, Pblk, Superblock};

use super::FormatOptions;
use super::params::Params;
use super::runs::Runs;
use crate::error::errno;
use crate::{Error, Result};

/// The volume while it is laid out.
pub(super) struct Layout {
    pub(super) sb: Superblock,
    pub(super) descs: Vec<GroupDesc>,
    pub(super) used: Runs,
    /// Groups with something beyond their own superblock and descriptors: not BLOCK_UNINIT (F20).
    pub(super) touched: Vec<bool>,
}

fn no_space(what: &str) -> Error {
    Error::refused(errno::ENOSPC, format!("no room for {what}"))
}

/// F28.
fn reserved_gdt_blocks(sb: &Superblock) -> u16 {
    if !sb.features().has_compat(compat::RESIZE_INODE) {
        return 0;
    }
    let first = u64::from(sb.first_data_block);
    let room = sb.blocks_count().saturating_mul(1024).min(u64::from(u32::MAX));
    let groups = (room - first).div_ceil(u64::from(sb.blocks_per_group));
    let blocks = groups.div_ceil(u64::from(sb.desc_per_block()));
    let reserved = blocks.saturating_sub(u64::from(sb.desc_blocks()));
    reserved.min(u64::from(sb.block_size() / 4)) as u16
}

/// sparse_super2: which groups hold copies.
fn backup_groups(groups: u32, wanted: u32) -> [u32; 2] {
    match (groups, wanted) {
        (0 | 1, _) | (_, 0) => [0, 0],
        (2, _) | (_, 1) => [0, 1],
        _ => [1, groups - 1],
    }
}

/// F38: inodes per group, whole table blocks and a multiple of 8. `None`: too many for a bitmap.
fn inodes_per_group(sb: &Superblock, inodes: u32) -> Option<u32> {
    let (block_size, inode_size) = (u64::from(sb.block_size()), u64::from(sb.inode_size()));
    let groups = u64::from(sb.group_count());
    let least = u64::from(sb.first_ino()) + 1;
    let wanted = u64::from(inodes).max(least).div_ceil(groups);
    if wanted > 8 * block_size {
        return None;
    }
    let mut per_group = wanted.min(65536 - block_size / inode_size);
    loop {
        let table_blocks = (per_group * inode_size).div_ceil(block_size);
        let mut rounded = ((table_blocks * block_size / inode_size) & !7).max(8);
        if rounded * groups < least {
            rounded += 8;
        }
        if rounded * groups <= u64::from(u32::MAX) {
            return Some(rounded as u32);
        }
        per_group = per_group.min(rounded) - 1;
    }
}

/// F34, F38: sets blocks, groups and inodes in the superblock, cutting off a last group that is too small.
fn size_groups(sb: &mut Superblock, params: &Params, options: &FormatOptions) -> Result<()> {
    let mut blocks = params.blocks;
    sb.set_r_blocks_count(params.reserved_blocks);
    loop {
        sb.set_blocks_count(blocks);
        sb.clusters_per_group = sb.blocks_per_group;
        let groups = sb.group_count();
        if sb.features().has_compat(compat::SPARSE_SUPER2) {
            sb.backup_bgs = backup_groups(groups, options.backup_superblocks);
        }
        let Some(per_group) = inodes_per_group(sb, params.inodes) else {
            if sb.blocks_per_group < 256 {
                return Err(Error::refused(errno::EINVAL, "too many inodes"));
            }
            sb.blocks_per_group -= 8;
            blocks = params.blocks;
            continue;
        };
        sb.inodes_per_group = per_group;
        sb.inodes_count = per_group * groups;
        sb.reserved_gdt_blocks = reserved_gdt_blocks(sb);
        let table = u32::from(sb.reserved_gdt_blocks) + sb.desc_blocks();
        if table > sb.blocks_per_group / 4 * 3 && !sb.features().has_incompat(incompat::META_BG) {
            sb.feature_incompat |= incompat::META_BG;
            sb.feature_compat &= !compat::RESIZE_INODE;
            sb.reserved_gdt_blocks = 0;
        }

        let mut need = 2 + u64::from(sb.inode_table_blocks());
        if sb.has_super(Group(groups - 1)) {
            need += 1 + u64::from(sb.desc_blocks()) + u64::from(sb.reserved_gdt_blocks);
        }
        let rest = (blocks - u64::from(sb.first_data_block)) % u64::from(sb.blocks_per_group);
        if groups == 1 && rest > 0 && rest < need {
            return Err(no_space("one block group"));
        }
        if rest == 0 || groups == 1 || rest >= need + 50 {
            return Ok(());
        }
        blocks -= rest;
        let reserved = u128::from(params.reserved_blocks) * u128::from(blocks) / u128::from(params.blocks);
        sb.set_r_blocks_count(reserved as u64);
    }
}

impl Layout {
    /// Sizes the groups and places all metadata that lies at fixed or flexible places.
    pub(super) fn new(params: &Params, options: &FormatOptions) -> Result<Self> {
        let mut sb = Superblock::new();
        sb.set_features(params.features);
        sb.log_block_size = params.block_size.ilog2() - 10;
        sb.log_cluster_size = sb.log_block_size;
        sb.first_data_block = u32::from(params.block_size == 1024);
        sb.blocks_per_group = params.blocks_per_group;
        sb.inode_size_raw = params.inode_size;
        sb.first_ino_raw = 11;
        sb.desc_size_raw = if params.features.has_incompat(incompat::BIT64) { 64 } else { 0 };
        sb.log_groups_per_flex = params.log_groups_per_flex;
        if params.blocks <= u64::from(sb.first_data_block) + 1 {
            return Err(no_space("a superblock"));
        }
        size_groups(&mut sb, params, options)?;
        if params.features.has_ro_compat(ro_compat::METADATA_CSUM) {
            sb.checksum_type = 1;
        }

        let groups = sb.group_count() as usize;
        let mut layout = Self {
            descs: vec![GroupDesc::new(&sb); groups],
            used: Runs::default(),
            touched: vec![false; groups],
            sb,
        };
        layout.place_super_and_desc()?;
        layout.place_tables()?;
        layout.touched[0] = true;
        layout.touched[groups - 1] = true;
        Ok(layout)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        (0..self.sb.group_count()).map(Group)
    }

    pub(super) fn group_range(&self, group: Group) -> (u64, u64) {
        let first = self.sb.group_first_block(group).0;
        (first, first + u64::from(self.sb.blocks_in_group(group)))
    }

    fn place_super_and_desc(&mut self) -> Result<()> {
        for group in self.groups() {
            let (first, end) = self.group_range(group);
            let len = u64::from(self.sb.super_and_desc_blocks(group));
            if first + len > end {
                return Err(no_space("the group descriptors"));
            }
            self.used.insert(first, len);
        }
        Ok(())
    }

    /// F31.
    fn place_tables(&mut self) -> Result<()> {
        let flex = self.sb.groups_per_flex();
        let table_blocks = u64::from(self.sb.inode_table_blocks());
        let groups = self.sb.group_count();
        for run in (0..groups).step_by(flex as usize) {
            let members = flex.min(groups - run);
            // A last run of one group leaves the room that the whole run would take.
            let spread = u64::from(if members == 1 { flex } else { members });
            let (start, group_end) = self.group_range(Group(run));
            let end = if flex == 1 { group_end } else { self.sb.blocks_count() };
            let first = self.used.find(start, end, 1).ok_or_else(|| no_space("a bitmap"))?;
            let mut cursors = [first, first + spread, first + 2 * spread];
            for group in run..run + members {
                let mut place = [0; 3];
                for ((place, cursor), len) in place.iter_mut().zip(&mut cursors).zip([1, 1, table_blocks]) {
                    *place = self.take_table(*cursor, start, end, len)?;
                    *cursor = *place + len;
                }
                let desc = &mut self.descs[group as usize];
                [desc.block_bitmap, desc.inode_bitmap, desc.inode_table] = place;
            }
        }
        Ok(())
    }

    fn take_table(&mut self, from: u64, run_start: u64, end: u64, len: u64) -> Result<u64> {
        let place = self.used.find(from, end, len).or_else(|| self.used.find(run_start, end, len));
        let place = place.or_else(|| {
            let anywhere = self.sb.features().has_incompat(incompat::FLEX_BG);
            anywhere.then(|| self.used.find(0, self.sb.blocks_count(), len)).flatten()
        });
        let place = place.ok_or_else(|| no_space("bitmaps and inode tables"))?;
        self.used.insert(place, len);
        if self.sb.groups_per_flex() > 1 {
            self.touch(place, len);
        }
        Ok(place)
    }

    fn touch(&mut self, start: u64, len: u64) {
        let group = |block| self.sb.group_of_block(Pblk(block)).expect("a block of the volume").0 as usize;
        let (first, last) = (group(start), group(start + len - 1));
        self.touched[first..=last].fill(true);
    }

    /// Takes blocks for a file.
    pub(super) fn take(&mut self, start: u64, len: u64) {
        self.used.insert(start, len);
        self.touch(start, len);
    }

    /// The first gap from `goal` on, or from the start of the volume.
    pub(super) fn gap_from(&self, goal: u64) -> Result<(u64, u64)> {
        let (first, end) = (u64::from(self.sb.first_data_block), self.sb.blocks_count());
        let gap = self.used.next_gap(goal, end).or_else(|| self.used.next_gap(first, end));
        gap.ok_or_else(|| no_space("the first files"))
    }

    pub(super) fn free_in_group(&self, group: Group) -> u32 {
        let (first, end) = self.group_range(group);
        (end - first - self.used.count(first, end)) as u32
    }
}
