//! What mke2fs decides before it lays anything out (F37, F39, D32): block size, features, numbers.

use ext4_format::features::{Features, compat, incompat, ro_compat};
use ext4_format::{Access, mount_policy};

use super::FormatOptions;
use crate::error::errno;
use crate::{Error, Result};

/// D32: the features of a volume that nobody asked anything special of.
pub(super) const UPSTREAM: &str = "has_journal,ext_attr,resize_inode,dir_index,orphan_file,filetype,extent,64bit,\
    flex_bg,metadata_csum_seed,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Decided numbers.
#[derive(Debug)]
pub(super) struct Params {
    pub(super) features: Features,
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) blocks_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) inodes: u32,
    pub(super) reserved_blocks: u64,
    pub(super) log_groups_per_flex: u8,
    /// Without the fast-commit area; 0 = no journal.
    pub(super) journal_blocks: u32,
    pub(super) fast_commit_blocks: u32,
    /// 0 = none.
    pub(super) orphan_blocks: u32,
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::refused(errno::EINVAL, detail)
}

/// F37: block size and bytes per inode by the volume's size.
fn usage_type(size_bytes: u64) -> (u32, u32) {
    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;
    match size_bytes {
        size if size < 3 * MIB => (1024, 8192),
        size if size < 512 * MIB => (1024, 4096),
        size if size < 4 * TIB => (4096, 16384),
        size if size < 16 * TIB => (4096, 32768),
        _ => (4096, 65536),
    }
}

/// F39.
fn default_journal_blocks(blocks: u64) -> u32 {
    const KI: u64 = 1 << 10;
    const MI: u64 = 1 << 20;
    match blocks {
        n if n < 2048 => 0,
        n if n < 32 * KI => 1024,
        n if n < 256 * KI => 4096,
        n if n < 512 * KI => 8192,
        n if n < 4 * MI => 16384,
        n if n < 8 * MI => 32768,
        n if n < 16 * MI => 65536,
        n if n < 32 * MI => 131_072,
        _ => 262_144,
    }
}

/// F42.
fn orphan_blocks(blocks: u64) -> u32 {
    match blocks {
        n if n < 128 << 10 => 32,
        n if n < 2 << 20 => (n / 4096) as u32,
        _ => 512,
    }
}

fn resolve_features(options: &FormatOptions, blocks: u64) -> Result<Features> {
    let mut features = Features::default();
    let unknown = |name: String| invalid(format!("unknown feature {name}"));
    features.apply(UPSTREAM).map_err(unknown)?;
    features.apply(&options.features).map_err(unknown)?;

    if features.has_ro_compat(ro_compat::METADATA_CSUM) {
        features.ro_compat &= !ro_compat::GDT_CSUM;
    }
    let transient = incompat::RECOVER;
    if features.incompat & transient != 0 || features.ro_compat & ro_compat::ORPHAN_PRESENT != 0 {
        return Err(invalid("needs_recovery and orphan_present are states, not features to ask for"));
    }
    if features.has_incompat(incompat::CSUM_SEED) && !features.has_ro_compat(ro_compat::METADATA_CSUM) {
        return Err(invalid("metadata_csum_seed needs metadata_csum"));
    }
    // Mounted, but not made: nothing here places its block.
    if features.has_incompat(incompat::MMP) {
        return Err(Error::refused(errno::EOPNOTSUPP, "multi-mount protection cannot be set up by mkfs"));
    }
    if !features.has_incompat(incompat::EXTENTS) {
        return Err(Error::refused(errno::EOPNOTSUPP, "mkfs makes no volumes without extents"));
    }
    match mount_policy(&features) {
        Ok(Access::ReadWrite) => {}
        Ok(Access::ReadOnly(reason)) => return Err(Error::refused(errno::EOPNOTSUPP, reason)),
        Err(refusal) => return Err(Error::refused(errno::EOPNOTSUPP, refusal.0)),
    }
    let bits = if features.has_incompat(incompat::BIT64) { 48 } else { 32 };
    if blocks > (1 << bits) - 1 {
        return Err(Error::refused(errno::EFBIG, format!("{blocks} blocks need more than {bits} bits")));
    }
    if blocks > u64::from(u32::MAX) {
        features.compat &= !compat::RESIZE_INODE; // F28.
    }
    if features.has_compat(compat::RESIZE_INODE) {
        if features.has_incompat(incompat::META_BG) {
            return Err(invalid("resize_inode and meta_bg exclude each other"));
        }
        if !features.has_ro_compat(ro_compat::SPARSE_SUPER) {
            return Err(invalid("resize_inode needs sparse_super"));
        }
    }
    if !features.has_compat(compat::HAS_JOURNAL) && features.has_compat(compat::ORPHAN_FILE) {
        if options.features.contains("orphan_file") {
            return Err(invalid("orphan_file needs a journal"));
        }
        features.compat &= !compat::ORPHAN_FILE;
    }
    Ok(features)
}

fn journal_blocks(options: &FormatOptions, blocks: u64) -> Result<u32> {
    let Some(asked) = options.journal_blocks else { return Ok(default_journal_blocks(blocks)) };
    if asked < 1024 || u64::from(asked) > blocks / 2 || asked > 10_240_000 {
        return Err(invalid(format!("a journal of {asked} blocks: 1024 to half of the volume")));
    }
    Ok(asked)
}

/// Decides everything; `size_bytes` is the device's, `logical_block_bytes` its smallest request.
pub(super) fn resolve(options: &FormatOptions, size_bytes: u64, logical_block_bytes: u32) -> Result<Params> {
    let size = options.size_bytes.unwrap_or(size_bytes & !4095);
    if size > size_bytes {
        return Err(invalid(format!("{size} bytes on a device of {size_bytes}")));
    }
    let (type_block_size, type_ratio) = usage_type(size);
    let block_size = options.block_size.unwrap_or(type_block_size.max(logical_block_bytes));
    if !block_size.is_power_of_two() || !(1024..=65536).contains(&block_size) {
        return Err(invalid(format!("block size {block_size}")));
    }
    if block_size < logical_block_bytes {
        return Err(invalid(format!("blocks of {block_size} on sectors of {logical_block_bytes} bytes")));
    }
    let blocks = size / u64::from(block_size);
    let mut features = resolve_features(options, blocks)?;

    let inode_size = options.inode_size.unwrap_or(256);
    if !inode_size.is_power_of_two() || inode_size < 128 || u32::from(inode_size) > block_size {
        return Err(invalid(format!("inode size {inode_size}")));
    }
    let ratio = options.inode_ratio.unwrap_or(type_ratio).max(block_size);
    let inodes = match options.inodes_count {
        Some(0) => return Err(invalid("no inodes")),
        Some(count) => count,
        None => (blocks * u64::from(block_size) / u64::from(ratio)).min(u32::MAX.into()) as u32,
    };
    let max_group = (8 * block_size).min(65528);
    let blocks_per_group = options.blocks_per_group.unwrap_or(max_group);
    if !blocks_per_group.is_multiple_of(8) || !(256..=max_group).contains(&blocks_per_group) {
        return Err(invalid(format!("{blocks_per_group} blocks per group")));
    }
    let percent = options.reserved_percent;
    if !(0.0..=50.0).contains(&percent) {
        return Err(invalid(format!("{percent} % reserved")));
    }
    let flex = options.groups_per_flex.unwrap_or(16);
    if !flex.is_power_of_two() {
        return Err(invalid(format!("{flex} groups per flex group")));
    }

    let mut journal = 0;
    if features.has_compat(compat::HAS_JOURNAL) {
        journal = journal_blocks(options, blocks)?;
    }
    if journal == 0 {
        features.compat &= !(compat::HAS_JOURNAL | compat::ORPHAN_FILE | compat::FAST_COMMIT);
    }
    let fast_commit = features.has_compat(compat::FAST_COMMIT);
    let has_orphan_file = features.has_compat(compat::ORPHAN_FILE);
    Ok(Params {
        features,
        block_size,
        blocks,
        blocks_per_group,
        inode_size,
        inodes,
        reserved_blocks: (blocks as f64 * percent / 100.0) as u64,
        log_groups_per_flex: if features.has_incompat(incompat::FLEX_BG) { flex.ilog2() as u8 } else { 0 },
        journal_blocks: journal,
        fast_commit_blocks: if fast_commit { journal / 64 } else { 0 },
        orphan_blocks: if has_orphan_file { orphan_blocks(blocks) } else { 0 },
    })
}
