//! Group descriptors (F19–F26) and their two kinds of checksum (F4).

use crate::checksum::{crc16, crc32c};
use crate::codec::{get, put};
use crate::features::ro_compat;
use crate::{Corrupt, Group, Result, Superblock};

const WHAT: &str = "group descriptor";

/// Bits of `GroupDesc::flags`; they mean something with group checksums only (F19).
pub mod bg {
    /// F21: the inode bitmap and table are not initialised.
    pub const INODE_UNINIT: u16 = 1;
    /// F20: the block bitmap is not initialised.
    pub const BLOCK_UNINIT: u16 = 2;
    /// F23: the unused rest of the inode table is zero.
    pub const ITABLE_ZEROED: u16 = 4;
}

/// One group descriptor. Numbers join the lo and hi halves; with 32-byte descriptors the upper ones do not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDesc {
    raw: Vec<u8>,
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Free clusters.
    pub free_clusters: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// Directories among the group's inodes.
    pub used_dirs: u32,
    /// [`bg`] bits.
    pub flags: u16,
    /// F22: inodes at the end of the table that were never used.
    pub itable_unused: u32,
    /// Of the block bitmap, 32 bits; the low 16 with 32-byte descriptors (F6).
    pub block_bitmap_csum: u32,
    /// Of the inode bitmap, likewise.
    pub inode_bitmap_csum: u32,
}

/// Offsets of a pair: low half, high half.
struct Pair(usize, usize);

impl GroupDesc {
    /// Bytes without 64bit.
    pub const SIZE_32: usize = 32;
    /// Bytes that mean something with 64bit.
    pub const SIZE_64: usize = 64;
    const BLOCK_BITMAP: Pair = Pair(0x00, 0x20);
    const INODE_BITMAP: Pair = Pair(0x04, 0x24);
    const INODE_TABLE: Pair = Pair(0x08, 0x28);
    const FREE_BLOCKS_COUNT: Pair = Pair(0x0C, 0x2C);
    const FREE_INODES_COUNT: Pair = Pair(0x0E, 0x2E);
    const USED_DIRS_COUNT: Pair = Pair(0x10, 0x30);
    const FLAGS: usize = 0x12;
    const BLOCK_BITMAP_CSUM: Pair = Pair(0x18, 0x38);
    const INODE_BITMAP_CSUM: Pair = Pair(0x1A, 0x3A);
    const ITABLE_UNUSED: Pair = Pair(0x1C, 0x32);
    const CHECKSUM: usize = 0x1E;

    /// All zero, of the volume's descriptor size.
    pub fn new(sb: &Superblock) -> Self {
        Self::parse(&vec![0; sb.desc_size()])
    }

    /// Decodes `bytes` (the volume's descriptor size), its checksum verified. That the blocks lie in the volume
    /// is [`GroupDesc::check`]'s.
    pub fn decode(bytes: &[u8], sb: &Superblock, group: Group) -> Result<Self> {
        assert_eq!(bytes.len(), sb.desc_size());
        if let Some(expected) = checksum(bytes, sb, group) {
            let found: u16 = get(bytes, Self::CHECKSUM);
            if found != expected {
                return Err(Corrupt::Checksum { what: WHAT, found: found.into(), expected: expected.into() });
            }
        }
        let desc = Self::parse(bytes);
        desc.check(sb, group)?;
        Ok(desc)
    }

    fn parse(raw: &[u8]) -> Self {
        let wide = raw.len() >= Self::SIZE_64;
        let long = |pair: &Pair| {
            let hi: u32 = if wide { get(raw, pair.1) } else { 0 };
            u64::from(hi) << 32 | u64::from(get::<u32>(raw, pair.0))
        };
        let short = |pair: &Pair| {
            let hi: u16 = if wide { get(raw, pair.1) } else { 0 };
            u32::from(hi) << 16 | u32::from(get::<u16>(raw, pair.0))
        };
        Self {
            block_bitmap: long(&Self::BLOCK_BITMAP),
            inode_bitmap: long(&Self::INODE_BITMAP),
            inode_table: long(&Self::INODE_TABLE),
            free_clusters: short(&Self::FREE_BLOCKS_COUNT),
            free_inodes: short(&Self::FREE_INODES_COUNT),
            used_dirs: short(&Self::USED_DIRS_COUNT),
            flags: get(raw, Self::FLAGS),
            itable_unused: short(&Self::ITABLE_UNUSED),
            block_bitmap_csum: short(&Self::BLOCK_BITMAP_CSUM),
            inode_bitmap_csum: short(&Self::INODE_BITMAP_CSUM),
            raw: raw.to_vec(),
        }
    }

    /// Writes the descriptor with its checksum. `bytes` has the volume's descriptor size.
    pub fn encode_into(&self, bytes: &mut [u8], sb: &Superblock, group: Group) {
        assert_eq!(bytes.len(), sb.desc_size());
        assert_eq!(bytes.len(), self.raw.len());
        bytes.copy_from_slice(&self.raw);
        let wide = bytes.len() >= Self::SIZE_64;
        let mut long = |pair: &Pair, value: u64| {
            put(bytes, pair.0, value as u32);
            if wide {
                put(bytes, pair.1, (value >> 32) as u32);
            } else {
                assert!(value >> 32 == 0, "a block above 2^32 without 64bit");
            }
        };
        long(&Self::BLOCK_BITMAP, self.block_bitmap);
        long(&Self::INODE_BITMAP, self.inode_bitmap);
        long(&Self::INODE_TABLE, self.inode_table);
        let mut short = |pair: &Pair, value: u32| {
            put(bytes, pair.0, value as u16);
            if wide {
                put(bytes, pair.1, (value >> 16) as u16);
            }
        };
        assert!(
            wide || (self.free_clusters | self.free_inodes | self.used_dirs | self.itable_unused) >> 16 == 0
        );
        short(&Self::FREE_BLOCKS_COUNT, self.free_clusters);
        short(&Self::FREE_INODES_COUNT, self.free_inodes);
        short(&Self::USED_DIRS_COUNT, self.used_dirs);
        short(&Self::ITABLE_UNUSED, self.itable_unused);
        short(&Self::BLOCK_BITMAP_CSUM, self.block_bitmap_csum);
        short(&Self::INODE_BITMAP_CSUM, self.inode_bitmap_csum);
        put(bytes, Self::FLAGS, self.flags);
        let sum = checksum(bytes, sb, group).unwrap_or_else(|| get(bytes, Self::CHECKSUM));
        put(bytes, Self::CHECKSUM, sum);
    }

    /// The bytes, with their checksum.
    pub fn encode(&self, sb: &Superblock, group: Group) -> Vec<u8> {
        let mut bytes = vec![0; sb.desc_size()];
        self.encode_into(&mut bytes, sb, group);
        bytes
    }

    /// Bitmaps and table inside the volume (and inside the group without flex_bg, F27), counts inside the group.
    pub fn check(&self, sb: &Superblock, group: Group) -> Result<()> {
        let fail = |detail: &str| Err(Corrupt::structure(WHAT, format!("group {group}: {detail}")));
        let flex = sb.features().has_incompat(crate::features::incompat::FLEX_BG);
        let (first, end) = if flex {
            (u64::from(sb.first_data_block), sb.blocks_count())
        } else {
            let first = sb.group_first_block(group).0;
            (first, first + u64::from(sb.blocks_in_group(group)))
        };
        let inside = |block: u64, len: u32| {
            block > first.saturating_sub(1)
                && block > 0
                && block.checked_add(u64::from(len)).is_some_and(|after| after <= end)
        };
        if !inside(self.block_bitmap, 1) {
            return fail("block bitmap outside");
        }
        if !inside(self.inode_bitmap, 1) {
            return fail("inode bitmap outside");
        }
        if !inside(self.inode_table, sb.inode_table_blocks()) {
            return fail("inode table outside");
        }
        if self.free_clusters > sb.clusters_in_group(group) {
            return fail("free block count");
        }
        let ipg = sb.inodes_per_group;
        if self.free_inodes > ipg || self.used_dirs > ipg || self.itable_unused(sb) > ipg {
            return fail("inode counts");
        }
        Ok(())
    }

    /// Whether a [`bg`] flag is set and means something (F19).
    pub fn has_flag(&self, sb: &Superblock, flag: u16) -> bool {
        sb.features().has_group_checksum() && self.flags & flag != 0
    }

    /// F22, F19: 0 without group checksums.
    pub fn itable_unused(&self, sb: &Superblock) -> u32 {
        if sb.features().has_group_checksum() { self.itable_unused } else { 0 }
    }

    /// Stores the checksum of a changed block bitmap (F4, F6); does nothing without metadata_csum.
    pub fn set_block_bitmap_csum(&mut self, sb: &Superblock, bitmap: &[u8]) {
        if let Some(sum) = crate::bitmap::block_bitmap_csum(sb, bitmap) {
            self.block_bitmap_csum = sum & self.csum_mask();
        }
    }

    /// Stores the checksum of a changed inode bitmap (F4, F6); does nothing without metadata_csum.
    pub fn set_inode_bitmap_csum(&mut self, sb: &Superblock, bitmap: &[u8]) {
        if let Some(sum) = crate::bitmap::inode_bitmap_csum(sb, bitmap) {
            self.inode_bitmap_csum = sum & self.csum_mask();
        }
    }

    /// Checks a block bitmap that was read. F7: not one that is BLOCK_UNINIT, which is not read at all.
    pub fn verify_block_bitmap(&self, sb: &Superblock, bitmap: &[u8]) -> Result<()> {
        if self.has_flag(sb, bg::BLOCK_UNINIT) {
            return Ok(());
        }
        let expected = crate::bitmap::block_bitmap_csum(sb, bitmap);
        self.compare("block bitmap", self.block_bitmap_csum, expected)
    }

    /// Checks an inode bitmap that was read. F7: not one that is INODE_UNINIT.
    pub fn verify_inode_bitmap(&self, sb: &Superblock, bitmap: &[u8]) -> Result<()> {
        if self.has_flag(sb, bg::INODE_UNINIT) {
            return Ok(());
        }
        let expected = crate::bitmap::inode_bitmap_csum(sb, bitmap);
        self.compare("inode bitmap", self.inode_bitmap_csum, expected)
    }

    fn compare(&self, what: &'static str, found: u32, expected: Option<u32>) -> Result<()> {
        match expected.map(|sum| sum & self.csum_mask()) {
            Some(expected) if found != expected => Err(Corrupt::Checksum { what, found, expected }),
            _ => Ok(()),
        }
    }

    /// F6.
    fn csum_mask(&self) -> u32 {
        if self.raw.len() >= Self::SIZE_64 { u32::MAX } else { 0xFFFF }
    }
}

/// F4's two kinds; `None` without either. metadata_csum wins.
fn checksum(bytes: &[u8], sb: &Superblock, group: Group) -> Option<u16> {
    let (before, after) = (&bytes[..GroupDesc::CHECKSUM], &bytes[GroupDesc::CHECKSUM + 2..]);
    let group = group.0.to_le_bytes();
    if sb.features().has_ro_compat(ro_compat::METADATA_CSUM) {
        let state = crc32c(crc32c(sb.fs_seed(), &group), before);
        return Some(crc32c(crc32c(state, &[0, 0]), after) as u16);
    }
    if sb.features().has_ro_compat(ro_compat::GDT_CSUM) {
        let state = crc16(crc16(0xFFFF, &sb.uuid), &group);
        return Some(crc16(crc16(state, before), after));
    }
    None
}
