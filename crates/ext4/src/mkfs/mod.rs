//! Creates a volume, as mke2fs 1.47 does with upstream's configuration (F37–F46).

mod files;
mod layout;
mod params;
mod runs;
mod signatures;
mod write;

#[cfg(test)]
mod tests;

use block_io::Device;
use ext4_format::checksum::{CRC32C_SEED, crc32c};
use ext4_format::features::{incompat, ro_compat};

use crate::error::errno;
use crate::{Error, Result};

pub use signatures::found_on;

/// What to create. [`FormatOptions::new`] has mke2fs's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct FormatOptions {
    /// Size of the volume in bytes, rounded down to whole blocks; `None`: the whole device.
    pub size_bytes: Option<u64>,
    /// 1024 … 65536, a power of two; `None`: 1024 below 512 MiB, else 4096.
    pub block_size: Option<u32>,
    /// Volume name, at most 16 bytes.
    pub label: String,
    /// `None`: a random one.
    pub uuid: Option<[u8; 16]>,
    /// Seed of directory hashes; `None`: a random one.
    pub hash_seed: Option<[u8; 16]>,
    /// Changes to the default features, as `mke2fs -O` takes them: `^has_journal,fast_commit`.
    pub features: String,
    /// 128 … block size, a power of two; `None`: 256.
    pub inode_size: Option<u16>,
    /// Bytes per inode; `None`: by the volume's size (F37).
    pub inode_ratio: Option<u32>,
    /// Least number of inodes, instead of a ratio.
    pub inodes_count: Option<u32>,
    /// Blocks reserved for root: 0 … 50 %.
    pub reserved_percent: f64,
    /// Blocks of the journal, at least 1024; `None`: by the volume's size (F39).
    pub journal_blocks: Option<u32>,
    /// A multiple of 8, at least 256; `None`: as many as a bitmap holds.
    pub blocks_per_group: Option<u32>,
    /// A power of two; `None`: 16.
    pub groups_per_flex: Option<u32>,
    /// sparse_super2: how many backups, 0 … 2.
    pub backup_superblocks: u32,
    /// RAID chunk in blocks; 0 = none.
    pub raid_stride: u16,
    /// RAID stripe in blocks; 0 = none.
    pub raid_stripe_width: u32,
    /// Time of creation, in seconds since 1970.
    pub now: u64,
    /// The device reads as zeros everywhere (a new container file): zeros need not be written.
    pub assume_zeroed: bool,
    /// On a device that is not known to be zero: leave the unused inode tables to the kernel (F45).
    pub lazy_itable_init: bool,
}

impl FormatOptions {
    /// The defaults, with the time of creation in seconds since 1970.
    pub fn new(now: u64) -> Self {
        Self {
            size_bytes: None,
            block_size: None,
            label: String::new(),
            uuid: None,
            hash_seed: None,
            features: String::new(),
            inode_size: None,
            inode_ratio: None,
            inodes_count: None,
            reserved_percent: 5.0,
            journal_blocks: None,
            blocks_per_group: None,
            groups_per_flex: None,
            backup_superblocks: 2,
            raid_stride: 0,
            raid_stripe_width: 0,
            now,
            assume_zeroed: false,
            lazy_itable_init: false,
        }
    }
}

/// What was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatReport {
    /// Bytes.
    pub block_size: u32,
    /// Blocks of the volume; fewer than asked for if a last group was too small (F34).
    pub blocks_count: u64,
    /// Block groups.
    pub group_count: u32,
    /// Inodes.
    pub inodes_count: u32,
    /// Blocks of the journal; 0 = none.
    pub journal_blocks: u32,
    /// First block of the journal.
    pub journal_start: Option<u64>,
    /// As mke2fs names them.
    pub features: Vec<String>,
    /// The volume's.
    pub uuid: [u8; 16],
    /// What it took.
    pub bytes_written: u64,
}

/// Creates a volume on `device`; whatever was there is gone. EINVAL: options that contradict each other or the
/// device; EFBIG: more blocks than the format can number; EOPNOTSUPP: features that a mount could not write;
/// ENOSPC: no room for the metadata. Until it returns, the device holds no volume that could be mounted.
pub fn format(device: &dyn Device, options: &FormatOptions) -> Result<FormatReport> {
    let limits = device.limits();
    let params = params::resolve(options, limits.size_bytes, limits.logical_block_bytes)?;
    if options.label.len() > 16 {
        return Err(Error::refused(errno::EINVAL, "a label has at most 16 bytes"));
    }
    let mut layout = layout::Layout::new(&params, options)?;
    describe(&mut layout.sb, options);
    let files = files::place(&mut layout, &params, options.now)?;
    let lazy = options.lazy_itable_init && !options.assume_zeroed;
    let bitmaps = write::account(&mut layout, &files, !lazy);

    let mut writer = write::Writer {
        device,
        block_size: params.block_size as usize,
        assume_zeroed: options.assume_zeroed,
        bytes_written: 0,
    };
    write::write(&mut writer, &mut layout, &files, &bitmaps, lazy)?;
    let sb = &layout.sb;
    Ok(FormatReport {
        block_size: sb.block_size(),
        blocks_count: sb.blocks_count(),
        group_count: sb.group_count(),
        inodes_count: sb.inodes_count,
        journal_blocks: params.journal_blocks + params.fast_commit_blocks,
        journal_start: files.journal_start,
        features: sb.features().names(),
        uuid: sb.uuid,
        bytes_written: writer.bytes_written,
    })
}

/// Everything in the superblock that no placement depends on.
fn describe(sb: &mut ext4_format::Superblock, options: &FormatOptions) {
    let random = || uuid::Uuid::new_v4().into_bytes();
    sb.set_mkfs_time(options.now);
    sb.set_lastcheck(options.now);
    sb.set_wtime(options.now);
    sb.max_mnt_count = 0xFFFF;
    sb.state = ext4_format::superblock::state::VALID;
    sb.errors = 1;
    sb.uuid = options.uuid.unwrap_or_else(random);
    sb.volume_name[..options.label.len()].copy_from_slice(options.label.as_bytes());
    let seed = options.hash_seed.unwrap_or_else(random);
    for (word, bytes) in sb.hash_seed.iter_mut().zip(seed.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    }
    sb.def_hash_version = 1; // half_md4
    sb.flags = 1; // Signed: as on x86, so that a volume does not depend on the machine that made it.
    sb.default_mount_opts = 0x0C; // user_xattr, acl
    if sb.inode_size() >= 256 {
        sb.min_extra_isize = ext4_format::Inode::WANT_EXTRA_ISIZE;
        sb.want_extra_isize = ext4_format::Inode::WANT_EXTRA_ISIZE;
    }
    if sb.features().has_ro_compat(ro_compat::METADATA_CSUM)
        && sb.features().has_incompat(incompat::CSUM_SEED)
    {
        sb.checksum_seed = crc32c(CRC32C_SEED, &sb.uuid);
    }
    sb.raid_stride = options.raid_stride;
    sb.raid_stripe_width = options.raid_stripe_width;
}
