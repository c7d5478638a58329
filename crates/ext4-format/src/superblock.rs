//! The superblock (format section 2). Geometry derived from it is in `geometry.rs`.

use crate::checksum::{CRC32C_SEED, crc32c};
use crate::codec::{get, put};
use crate::features::{Features, incompat, ro_compat};
use crate::{Corrupt, Result};

const WHAT: &str = "superblock";

macro_rules! superblock {
    ($($(#[$doc:meta])* $field:ident: $ty:ty = $offset:literal,)*) => {
        /// A superblock that passed F8 and F12. Fields have the format's names without `s_`; `*_lo`/`*_hi` pairs
        /// have accessors that join them. Reserved and unknown bytes are kept and written back.
        #[derive(Clone, PartialEq, Eq)]
        pub struct Superblock {
            raw: Box<[u8; Superblock::SIZE]>,
            $($(#[$doc])* pub $field: $ty,)*
        }

        const _: () = {
            $(assert!($offset + size_of::<$ty>() <= Superblock::SIZE);)*
        };

        impl Superblock {
            fn from_raw(raw: Box<[u8; Self::SIZE]>) -> Self {
                $(let $field = get(&raw[..], $offset);)*
                Self { raw, $($field,)* }
            }

            fn put_fields(&self, raw: &mut [u8; Self::SIZE]) {
                $(put(&mut raw[..], $offset, self.$field);)*
            }
        }
    };
}

superblock! {
    /// = groups · inodes_per_group.
    inodes_count: u32 = 0x00,
    /// In blocks, also with bigalloc.
    blocks_count_lo: u32 = 0x04,
    /// Reserved for root, in blocks.
    r_blocks_count_lo: u32 = 0x08,
    /// In blocks.
    free_blocks_count_lo: u32 = 0x0C,
    /// Free inodes.
    free_inodes_count: u32 = 0x10,
    /// First block of group 0.
    first_data_block: u32 = 0x14,
    /// Block size = 1024 << this.
    log_block_size: u32 = 0x18,
    /// Cluster size = 1024 << this.
    log_cluster_size: u32 = 0x1C,
    /// Blocks in a full group.
    blocks_per_group: u32 = 0x20,
    /// Clusters in a full group.
    clusters_per_group: u32 = 0x24,
    /// Inodes in every group.
    inodes_per_group: u32 = 0x28,
    /// Last mount, low 32 bits.
    mtime_lo: u32 = 0x2C,
    /// Last write, low 32 bits.
    wtime_lo: u32 = 0x30,
    /// Mounts since the last check.
    mnt_count: u16 = 0x34,
    /// 0xFFFF = never check.
    max_mnt_count: u16 = 0x36,
    /// [`Superblock::MAGIC`].
    magic: u16 = 0x38,
    /// [`state`] bits.
    state: u16 = 0x3A,
    /// 1 continue, 2 remount read-only, 3 panic.
    errors: u16 = 0x3C,
    /// 0.
    minor_rev_level: u16 = 0x3E,
    /// Last check, low 32 bits.
    lastcheck_lo: u32 = 0x40,
    /// Seconds between checks, 0 = no limit.
    checkinterval: u32 = 0x44,
    /// 0 = Linux.
    creator_os: u32 = 0x48,
    /// 1; 0 means no features, 128-byte inodes, first inode 11.
    rev_level: u32 = 0x4C,
    /// Who may use the reserve, low 16 bits.
    def_resuid: u16 = 0x50,
    /// Which group may use the reserve, low 16 bits.
    def_resgid: u16 = 0x52,
    /// First ordinary inode; read it through [`Superblock::first_ino`].
    first_ino_raw: u32 = 0x54,
    /// Bytes; read it through [`Superblock::inode_size`].
    inode_size_raw: u16 = 0x58,
    /// Group of this copy.
    block_group_nr: u16 = 0x5A,
    /// [`crate::features::compat`] bits.
    feature_compat: u32 = 0x5C,
    /// [`crate::features::incompat`] bits.
    feature_incompat: u32 = 0x60,
    /// [`crate::features::ro_compat`] bits.
    feature_ro_compat: u32 = 0x64,
    /// As printed, from left to right.
    uuid: [u8; 16] = 0x68,
    /// Label, padded with NULs.
    volume_name: [u8; 16] = 0x78,
    /// Path of the last mount, padded with NULs.
    last_mounted: [u8; 64] = 0x88,
    /// Blocks kept free behind the descriptor table (F28).
    reserved_gdt_blocks: u16 = 0xCE,
    /// UUID of an external journal.
    journal_uuid: [u8; 16] = 0xD0,
    /// Inode of the internal journal, 8.
    journal_inum: u32 = 0xE0,
    /// Device of an external journal.
    journal_dev: u32 = 0xE4,
    /// Head of the orphan list (D27), 0 = empty.
    last_orphan: u32 = 0xE8,
    /// Seed of directory hashes.
    hash_seed: [u32; 4] = 0xEC,
    /// 0 legacy, 1 half_md4, 2 tea.
    def_hash_version: u8 = 0xFC,
    /// 1 = `jnl_blocks` is valid.
    jnl_backup_type: u8 = 0xFD,
    /// Bytes; read it through [`Superblock::desc_size`].
    desc_size_raw: u16 = 0xFE,
    /// F9.
    default_mount_opts: u32 = 0x100,
    /// F30.
    first_meta_bg: u32 = 0x104,
    /// Creation, low 32 bits.
    mkfs_time_lo: u32 = 0x108,
    /// Journal inode: i_block, i_size_high, i_size_lo (J27).
    jnl_blocks: [u32; 17] = 0x10C,
    /// With 64bit only.
    blocks_count_hi: u32 = 0x150,
    /// With 64bit only.
    r_blocks_count_hi: u32 = 0x154,
    /// With 64bit only.
    free_blocks_count_hi: u32 = 0x158,
    /// i_extra_isize that every inode has at least.
    min_extra_isize: u16 = 0x15C,
    /// i_extra_isize of new inodes.
    want_extra_isize: u16 = 0x15E,
    /// 1 signed hash, 2 unsigned hash, 4 test file system.
    flags: u32 = 0x160,
    /// Blocks.
    raid_stride: u16 = 0x164,
    /// Seconds.
    mmp_update_interval: u16 = 0x166,
    /// Block of the MMP structure.
    mmp_block: u64 = 0x168,
    /// Blocks.
    raid_stripe_width: u32 = 0x170,
    /// Flex group = 1 << this groups.
    log_groups_per_flex: u8 = 0x174,
    /// 1 = crc32c.
    checksum_type: u8 = 0x175,
    /// 0.
    encryption_level: u8 = 0x176,
    /// KiB written in the volume's life.
    kbytes_written: u64 = 0x178,
    /// EP3: errors since the last check.
    error_count: u32 = 0x194,
    /// EP3: first error, low 32 bits; 0 = none.
    first_error_time_lo: u32 = 0x198,
    /// EP3.
    first_error_ino: u32 = 0x19C,
    /// EP3.
    first_error_block: u64 = 0x1A0,
    /// EP3: where in the code, padded with NULs.
    first_error_func: [u8; 32] = 0x1A8,
    /// EP3.
    first_error_line: u32 = 0x1C8,
    /// EP3: last error, low 32 bits.
    last_error_time_lo: u32 = 0x1CC,
    /// EP3.
    last_error_ino: u32 = 0x1D0,
    /// EP3.
    last_error_line: u32 = 0x1D4,
    /// EP3.
    last_error_block: u64 = 0x1D8,
    /// EP3.
    last_error_func: [u8; 32] = 0x1E0,
    /// Default mount options as text, padded with NULs.
    mount_opts: [u8; 64] = 0x200,
    /// Inode of user quota.
    usr_quota_inum: u32 = 0x240,
    /// Inode of group quota.
    grp_quota_inum: u32 = 0x244,
    /// F35.
    overhead_clusters: u32 = 0x248,
    /// sparse_super2: groups with copies, 0 = none.
    backup_bgs: [u32; 2] = 0x24C,
    /// With encrypt.
    encrypt_algos: [u8; 4] = 0x254,
    /// With encrypt.
    encrypt_pw_salt: [u8; 16] = 0x258,
    /// Never set by anyone.
    lpf_ino: u32 = 0x268,
    /// Inode of project quota.
    prj_quota_inum: u32 = 0x26C,
    /// F3: the seed with metadata_csum_seed.
    checksum_seed: u32 = 0x270,
    /// Bits 32–39.
    wtime_hi: u8 = 0x274,
    /// Bits 32–39.
    mtime_hi: u8 = 0x275,
    /// Bits 32–39.
    mkfs_time_hi: u8 = 0x276,
    /// Bits 32–39.
    lastcheck_hi: u8 = 0x277,
    /// Bits 32–39.
    first_error_time_hi: u8 = 0x278,
    /// Bits 32–39.
    last_error_time_hi: u8 = 0x279,
    /// EP3's code.
    first_error_errcode: u8 = 0x27A,
    /// EP3's code.
    last_error_errcode: u8 = 0x27B,
    /// casefold.
    encoding: u16 = 0x27C,
    /// casefold.
    encoding_flags: u16 = 0x27E,
    /// O2.
    orphan_file_inum: u32 = 0x280,
    /// Kernel 6.18 and later.
    def_resuid_hi: u16 = 0x284,
    /// Kernel 6.18 and later.
    def_resgid_hi: u16 = 0x286,
}

/// Bits of `Superblock::state`.
pub mod state {
    /// Cleanly unmounted.
    pub const VALID: u16 = 1;
    /// Errors seen.
    pub const ERROR: u16 = 2;
    /// Orphans being recovered.
    pub const ORPHAN: u16 = 4;
}

impl std::fmt::Debug for Superblock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Superblock({} blocks of {}, {} inodes, {})",
            self.blocks_count(),
            self.block_size(),
            self.inodes_count,
            self.features()
        )
    }
}

impl Superblock {
    /// Bytes of the structure.
    pub const SIZE: usize = 1024;
    /// Byte offset of the primary copy on the volume, whatever the block size.
    pub const OFFSET_BYTES: u64 = 1024;
    /// `magic`.
    pub const MAGIC: u16 = 0xEF53;
    const S_MAGIC: usize = 0x38;
    const S_FEATURE_RO_COMPAT: usize = 0x64;
    const S_REV_LEVEL: usize = 0x4C;
    const S_CHECKSUM: usize = 0x3FC;

    /// All zero but the magic and revision 1: what mkfs fills.
    pub fn new() -> Self {
        let mut sb = Self::from_raw(Box::new([0; Self::SIZE]));
        sb.magic = Self::MAGIC;
        sb.rev_level = 1;
        sb
    }

    /// Decodes the first 1024 of `bytes`: magic, then the checksum before any other field (F8), then F12. That
    /// the device is large enough is the caller's check.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(bytes) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(Corrupt::structure(WHAT, format!("{} bytes", bytes.len())));
        };
        let magic: u16 = get(bytes, Self::S_MAGIC);
        if magic != Self::MAGIC {
            return Err(Corrupt::structure(WHAT, format!("magic {magic:#06x}")));
        }
        let ro_compat: u32 = get(bytes, Self::S_FEATURE_RO_COMPAT);
        let rev_level: u32 = get(bytes, Self::S_REV_LEVEL);
        if rev_level > 0 && ro_compat & ro_compat::METADATA_CSUM != 0 {
            let found: u32 = get(bytes, Self::S_CHECKSUM);
            let expected = crc32c(CRC32C_SEED, &bytes[..Self::S_CHECKSUM]);
            if found != expected {
                return Err(Corrupt::Checksum { what: WHAT, found, expected });
            }
        }
        let sb = Self::from_raw(Box::new(*bytes));
        sb.check().map_err(|detail| Corrupt::structure(WHAT, detail))?;
        Ok(sb)
    }

    /// The bytes, with their checksum. Panics if the fields break F12: our own bug.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        if let Err(detail) = self.check() {
            panic!("encoding an invalid superblock: {detail}");
        }
        let mut raw = *self.raw;
        self.put_fields(&mut raw);
        let checksum = if self.features().has_ro_compat(ro_compat::METADATA_CSUM) {
            crc32c(CRC32C_SEED, &raw[..Self::S_CHECKSUM])
        } else {
            get(&raw, Self::S_CHECKSUM)
        };
        put(&mut raw, Self::S_CHECKSUM, checksum);
        raw
    }

    /// Stores the checksum of `bytes`, a superblock's [`Superblock::SIZE`], if it has metadata_csum.
    pub fn seal(bytes: &mut [u8]) {
        let ro_compat: u32 = get(bytes, Self::S_FEATURE_RO_COMPAT);
        if ro_compat & ro_compat::METADATA_CSUM != 0 {
            let checksum = crc32c(CRC32C_SEED, &bytes[..Self::S_CHECKSUM]);
            put(bytes, Self::S_CHECKSUM, checksum);
        }
    }

    /// F12.
    fn check(&self) -> std::result::Result<(), String> {
        let rule = |ok: bool, detail: &str| if ok { Ok(()) } else { Err(detail.to_string()) };
        let features = self.features();
        rule(self.magic == Self::MAGIC, "magic")?;
        rule(self.log_block_size <= 6, "block size above 64 KiB")?;
        let bigalloc = features.has_ro_compat(ro_compat::BIGALLOC);
        if bigalloc {
            let cluster_ok = (self.log_block_size..=20).contains(&self.log_cluster_size);
            rule(cluster_ok, "cluster size below the block size or above 1 GiB")?;
        } else {
            rule(self.log_cluster_size == self.log_block_size, "cluster size without bigalloc")?;
        }
        let bits = 8 * self.block_size();
        rule((8..=bits).contains(&self.clusters_per_group), "clusters per group")?;
        let bpg = u64::from(self.clusters_per_group) << (self.log_cluster_size - self.log_block_size);
        rule(u64::from(self.blocks_per_group) == bpg, "blocks per group")?;
        rule((1..=bits).contains(&self.inodes_per_group), "inodes per group")?;
        let inode_size = u32::from(self.inode_size());
        let inode_size_ok = inode_size.is_power_of_two() && (128..=self.block_size()).contains(&inode_size);
        rule(inode_size_ok, "inode size")?;
        let bit64 = features.has_incompat(incompat::BIT64);
        if bit64 {
            let size = self.desc_size_raw;
            rule(size.is_power_of_two() && (64..=1024).contains(&size), "descriptor size")?;
        }
        let first = u32::from(self.block_size() == 1024 && !bigalloc);
        rule(self.first_data_block == first, "first data block")?;
        rule(u32::from(self.reserved_gdt_blocks) <= self.block_size() / 4, "reserved GDT blocks")?;
        rule(self.blocks_count() < 1 << 48, "2^48 blocks or more")?;
        rule(self.blocks_count() > u64::from(first) + 1, "no blocks")?;
        let groups = (self.blocks_count() - u64::from(first)).div_ceil(bpg);
        rule(groups <= u64::from(u32::MAX), "2^32 groups or more")?;
        let inodes = groups * u64::from(self.inodes_per_group);
        rule(u64::from(self.inodes_count) == inodes, "inode count")?;
        rule(self.first_ino() >= 11 && self.first_ino() <= self.inodes_count, "first inode")?;
        let desc_blocks = groups.div_ceil(u64::from(self.desc_per_block()));
        let table = if features.has_incompat(incompat::META_BG) {
            rule(u64::from(self.first_meta_bg) <= desc_blocks, "first_meta_bg")?;
            u64::from(self.first_meta_bg)
        } else {
            desc_blocks
        };
        rule(table + 2 < self.blocks_count(), "descriptor table outside the volume")?;
        if features.has_ro_compat(ro_compat::METADATA_CSUM) {
            rule(self.checksum_type == 1, "checksum type")?;
        }
        rule(self.log_groups_per_flex < 32, "groups per flex")
    }

    /// The feature words; none in revision 0.
    pub fn features(&self) -> Features {
        if self.rev_level == 0 {
            return Features::default();
        }
        Features {
            compat: self.feature_compat,
            incompat: self.feature_incompat,
            ro_compat: self.feature_ro_compat,
        }
    }

    /// Replaces the feature words.
    pub fn set_features(&mut self, features: Features) {
        self.feature_compat = features.compat;
        self.feature_incompat = features.incompat;
        self.feature_ro_compat = features.ro_compat;
    }

    /// D31: the seed of all metadata checksums but the superblock's.
    pub fn fs_seed(&self) -> u32 {
        if self.features().has_incompat(incompat::CSUM_SEED) {
            self.checksum_seed
        } else {
            crc32c(CRC32C_SEED, &self.uuid)
        }
    }

    /// F11: this superblock as the copy that belongs into `group`.
    pub fn backup(&self, group: crate::Group) -> Self {
        let mut copy = self.clone();
        if group.0 != 0 {
            copy.state &= !state::VALID;
            copy.feature_incompat &= !incompat::RECOVER;
            copy.block_group_nr = group.0.min(0xFFFF) as u16;
        }
        copy
    }
}

impl Default for Superblock {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! time {
    ($($(#[$doc:meta])* $get:ident $set:ident $lo:ident $hi:ident;)*) => {
        impl Superblock {
            $(
                $(#[$doc])*
                pub fn $get(&self) -> u64 {
                    u64::from(self.$hi) << 32 | u64::from(self.$lo)
                }

                /// Seconds since 1970, of which 40 bits are kept.
                pub fn $set(&mut self, seconds: u64) {
                    self.$lo = seconds as u32;
                    self.$hi = (seconds >> 32) as u8;
                }
            )*
        }
    };
}
time! {
    /// Last mount, in seconds since 1970.
    mtime set_mtime mtime_lo mtime_hi;
    /// Last write, in seconds since 1970.
    wtime set_wtime wtime_lo wtime_hi;
    /// Creation, in seconds since 1970.
    mkfs_time set_mkfs_time mkfs_time_lo mkfs_time_hi;
    /// Last check, in seconds since 1970.
    lastcheck set_lastcheck lastcheck_lo lastcheck_hi;
    /// First recorded error, in seconds since 1970; 0 = none.
    first_error_time set_first_error_time first_error_time_lo first_error_time_hi;
    /// Last recorded error, in seconds since 1970; 0 = none.
    last_error_time set_last_error_time last_error_time_lo last_error_time_hi;
}

macro_rules! count {
    ($($(#[$doc:meta])* $get:ident $set:ident $lo:ident $hi:ident;)*) => {
        impl Superblock {
            $(
                $(#[$doc])*
                pub fn $get(&self) -> u64 {
                    let hi = if self.features().has_incompat(incompat::BIT64) { self.$hi } else { 0 };
                    u64::from(hi) << 32 | u64::from(self.$lo)
                }

                /// Sets both halves; without 64bit the value fits 32 bits.
                pub fn $set(&mut self, blocks: u64) {
                    self.$lo = blocks as u32;
                    if self.features().has_incompat(incompat::BIT64) {
                        self.$hi = (blocks >> 32) as u32;
                    } else {
                        assert!(blocks >> 32 == 0, "2^32 blocks without 64bit");
                    }
                }
            )*
        }
    };
}
count! {
    /// Blocks of the volume.
    blocks_count set_blocks_count blocks_count_lo blocks_count_hi;
    /// Blocks reserved for root.
    r_blocks_count set_r_blocks_count r_blocks_count_lo r_blocks_count_hi;
    /// Free blocks (not clusters).
    free_blocks_count set_free_blocks_count free_blocks_count_lo free_blocks_count_hi;
}
