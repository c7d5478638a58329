//! A volume in memory, freshly laid out, for the tests of the allocators.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use block_io::AlignedBuf;
use ext4_format::features::{incompat, ro_compat};
use ext4_format::{Features, Group, GroupDesc, Ino, Pblk, Superblock, bg, bitmap};

use super::Allocator;
use super::zones::SystemZones;
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::{Error, Result};

/// What to lay out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub block_size: u32,
    pub cluster_bits: u32,
    pub clusters_per_group: u32,
    pub groups: u32,
    /// Clusters that the last group lacks.
    pub short_by: u32,
    pub inodes_per_group: u32,
    pub bit64: bool,
    /// METADATA_CSUM, GDT_CSUM or 0.
    pub checksums: u32,
    /// All groups but the first and last start BLOCK_UNINIT and INODE_UNINIT.
    pub uninit: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            block_size: 1024,
            cluster_bits: 0,
            clusters_per_group: 512,
            groups: 4,
            short_by: 100,
            inodes_per_group: 32,
            bit64: true,
            checksums: ro_compat::METADATA_CSUM,
            uninit: true,
        }
    }
}

/// The blocks of a volume; shared by the handles of several threads.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub sb: Arc<Superblock>,
    pub blocks: Arc<Mutex<HashMap<u64, Image>>>,
    pub tid: u32,
}

impl Layout {
    fn superblock(&self) -> Superblock {
        let mut sb = Superblock::new();
        sb.log_block_size = self.block_size.ilog2() - 10;
        sb.log_cluster_size = sb.log_block_size + self.cluster_bits;
        sb.clusters_per_group = self.clusters_per_group;
        sb.blocks_per_group = self.clusters_per_group << self.cluster_bits;
        sb.first_data_block = u32::from(self.block_size == 1024 && self.cluster_bits == 0);
        let clusters = u64::from(self.clusters_per_group) * u64::from(self.groups) - u64::from(self.short_by);
        sb.set_blocks_count((clusters << self.cluster_bits) + u64::from(sb.first_data_block));
        sb.inodes_per_group = self.inodes_per_group;
        sb.inodes_count = self.inodes_per_group * self.groups;
        sb.checksum_type = 1;
        sb.first_ino_raw = 11;
        sb.inode_size_raw = 256;
        sb.desc_size_raw = if self.bit64 { 64 } else { 0 };
        sb.log_groups_per_flex = 1;
        sb.uuid = *b"a uuid of a test";
        let mut features =
            Features { compat: 0, incompat: incompat::EXTENTS | incompat::FLEX_BG, ro_compat: 0 };
        features.incompat |= if self.bit64 { incompat::BIT64 } else { 0 };
        features.ro_compat |= self.checksums | ro_compat::SPARSE_SUPER;
        features.ro_compat |= if self.cluster_bits > 0 { ro_compat::BIGALLOC } else { 0 };
        sb.set_features(features);
        Superblock::decode(&sb.encode()).unwrap()
    }

    /// Bitmaps and tables of two groups at a time lie behind the superblock of the first.
    fn descs(&self, sb: &Superblock) -> Vec<GroupDesc> {
        let mut next = 0;
        let uninit = self.uninit && self.checksums != 0;
        let descs = (0..self.groups).map(|group| {
            if group % 2 == 0 {
                let own = sb.super_and_desc_blocks(Group(group));
                next = sb.group_first_block(Group(group)).0 + u64::from(own);
            }
            let mut desc = GroupDesc::new(sb);
            desc.block_bitmap = next;
            desc.inode_bitmap = next + 1;
            desc.inode_table = next + 2;
            next += 2 + u64::from(sb.inode_table_blocks());
            desc.free_inodes = self.inodes_per_group - if group == 0 { 10 } else { 0 };
            if uninit && group > 0 {
                desc.flags = if group + 1 < self.groups { bg::BLOCK_UNINIT } else { 0 } | bg::INODE_UNINIT;
                desc.itable_unused = self.inodes_per_group;
            }
            desc
        });
        descs.collect()
    }

    /// Lays the volume out.
    pub fn format(&self) -> Volume {
        let sb = Arc::new(self.superblock());
        let mut descs = self.descs(&sb);
        let zones = SystemZones::of_volume(&sb, &descs).unwrap();
        let mut volume = Volume { sb: sb.clone(), blocks: Arc::default(), tid: 1 };
        for (index, desc) in descs.iter_mut().enumerate() {
            let group = Group(index as u32);
            let bits = zones.derive_bitmap(&sb, group);
            desc.free_clusters = bitmap::count_zero(&bits, sb.clusters_in_group(group));
            // What is UNINIT is garbage on the disk: nobody may read it.
            let garbage = vec![0xA5; sb.block_size() as usize];
            let is_unread = desc.has_flag(&sb, bg::BLOCK_UNINIT);
            if !is_unread {
                desc.set_block_bitmap_csum(&sb, &bits);
            }
            volume.put(desc.block_bitmap, if is_unread { &garbage } else { &bits });
            let mut inodes = vec![0; sb.block_size() as usize];
            bitmap::set_padding(&mut inodes, sb.inodes_per_group);
            bitmap::set_range(&mut inodes, 0, sb.inodes_per_group - desc.free_inodes);
            let is_unread = desc.has_flag(&sb, bg::INODE_UNINIT);
            if !is_unread {
                desc.set_inode_bitmap_csum(&sb, &inodes);
            }
            volume.put(desc.inode_bitmap, if is_unread { &garbage } else { &inodes });
        }
        for (index, desc) in descs.iter().enumerate() {
            let (block, offset) = sb.desc_location(Group(index as u32));
            let mut bytes = volume.get(block.0).to_vec();
            desc.encode_into(&mut bytes[offset..offset + sb.desc_size()], &sb, Group(index as u32));
            volume.put(block.0, &bytes);
        }
        volume
    }
}

impl Volume {
    pub fn put(&mut self, block: u64, bytes: &[u8]) {
        self.blocks.lock().unwrap().insert(block, Arc::new(AlignedBuf::copy_of(bytes)));
    }

    pub fn get(&self, block: u64) -> Image {
        let zeros = || Arc::new(AlignedBuf::zeroed(self.sb.block_size() as usize));
        self.blocks.lock().unwrap().get(&block).cloned().unwrap_or_else(zeros)
    }

    pub fn allocator(&self) -> Result<Allocator> {
        Allocator::load(self.sb.clone(), &|block| Ok(self.get(block.0)))
    }

    pub fn groups(&self) -> impl Iterator<Item = Group> {
        (0..self.sb.group_count()).map(Group)
    }

    /// The descriptor on disk, its checksum verified.
    pub fn desc(&self, group: Group) -> GroupDesc {
        let (block, offset) = self.sb.desc_location(group);
        GroupDesc::decode(&self.get(block.0)[offset..offset + self.sb.desc_size()], &self.sb, group).unwrap()
    }

    /// Per group the used clusters on disk; every checksum, count and padding bit is checked, by other code than
    /// the allocator's.
    pub fn check(&self) -> Vec<Vec<bool>> {
        let descs: Vec<_> = self.groups().map(|group| self.desc(group)).collect();
        let zones = SystemZones::of_volume(&self.sb, &descs).unwrap();
        self.groups()
            .zip(&descs)
            .map(|(group, desc)| {
                let clusters = self.sb.clusters_in_group(group);
                let bits = if desc.has_flag(&self.sb, bg::BLOCK_UNINIT) {
                    zones.derive_bitmap(&self.sb, group)
                } else {
                    self.get(desc.block_bitmap).to_vec()
                };
                desc.verify_block_bitmap(&self.sb, &bits).unwrap();
                assert!(bitmap::padding_is_set(&bits, clusters));
                assert_eq!(desc.free_clusters, bitmap::count_zero(&bits, clusters));
                if desc.has_flag(&self.sb, bg::INODE_UNINIT) {
                    assert_eq!(desc.free_inodes, self.sb.inodes_per_group);
                    assert_eq!(desc.itable_unused, self.sb.inodes_per_group);
                } else {
                    let inodes = self.get(desc.inode_bitmap).to_vec();
                    let ipg = self.sb.inodes_per_group;
                    desc.verify_inode_bitmap(&self.sb, &inodes).unwrap();
                    assert!(bitmap::padding_is_set(&inodes, ipg));
                    assert_eq!(desc.free_inodes, bitmap::count_zero(&inodes, ipg));
                    let used_part = ipg - desc.itable_unused(&self.sb);
                    assert!(bitmap::all_clear(&inodes, used_part, ipg - used_part));
                }
                (0..clusters).map(|bit| bitmap::test(&bits, bit)).collect()
            })
            .collect()
    }
}

impl Meta for Volume {
    fn block_size(&self) -> usize {
        self.sb.block_size() as usize
    }

    fn tid(&self) -> u32 {
        self.tid
    }

    fn read(&self, block: Pblk, _: BlockKind) -> Result<Image> {
        Ok(self.get(block.0))
    }

    fn update(&mut self, block: Pblk, _: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let mut blocks = self.blocks.lock().unwrap();
        let zeros = || Arc::new(AlignedBuf::zeroed(self.sb.block_size() as usize));
        let image: &mut AlignedBuf = Arc::make_mut(blocks.entry(block.0).or_insert_with(zeros));
        change(image);
        Ok(())
    }

    fn create(&mut self, block: Pblk, kind: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.put(block.0, &vec![0; self.sb.block_size() as usize]);
        self.update(block, kind, fill)
    }

    fn allocate_block(&mut self, _: BlockOwner) -> Result<Pblk> {
        Err(Error::errno_only(95))
    }

    fn free_block(&mut self, _: Pblk, _: Ino) -> Result<()> {
        Err(Error::errno_only(95))
    }

    fn free_data(&mut self, _: Pblk, _: u32, _: Ino) -> Result<()> {
        Err(Error::errno_only(95))
    }

    fn ensure_credits(&mut self, _: u32) -> Result<bool> {
        Ok(true)
    }
}
