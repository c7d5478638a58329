//! The superblock that the log still has where a checkpoint of it was torn (EP7 (2)).

use std::sync::Arc;

use block_io::Device;
use ext4_format::Superblock;
use ext4_format::features::incompat;
use jbd2::recovery::{self, RecoverOptions};

use crate::{Result, journal_inode};

/// EP7 (2): a checkpoint of the superblock was torn, so the log still has it (T20). `bytes` are what the device holds;
/// both halves agree on the geometry, which leads to the log. `None`: the log has no such copy.
pub(crate) fn from_log(
    device: &Arc<dyn Device>,
    journal: Option<&Arc<dyn Device>>,
    bytes: &[u8],
) -> Result<Option<Superblock>> {
    let mut sealed = bytes[..Superblock::SIZE].to_vec();
    Superblock::seal(&mut sealed);
    let Ok(torn) = Superblock::decode(&sealed) else { return Ok(None) };
    let block_size = torn.block_size() as usize;
    let size_bytes = device.limits().size_bytes;
    if torn.blocks_count().saturating_mul(block_size as u64) > size_bytes {
        return Ok(None);
    }
    let map = journal_inode::log_map(device, &torn, journal)?;
    let options = RecoverOptions { volume_blocks: torn.blocks_count(), write_bytes: block_size };
    let plan = recovery::plan(device.as_ref(), block_size, &map, &options)?;
    let (block, offset) = if block_size == 1024 { (1, 0) } else { (0, 1024) };
    let Some(copy) = plan.read(device.as_ref(), &map, block)? else { return Ok(None) };
    let Ok(mut superblock) = Superblock::decode(&copy[offset..]) else { return Ok(None) };
    if geometry(&superblock) != geometry(&torn) {
        return Ok(None);
    }
    superblock.feature_incompat |= incompat::RECOVER;
    Ok(Some(superblock))
}

/// What no write to a mounted volume changes.
fn geometry(superblock: &Superblock) -> impl PartialEq + use<> {
    (
        superblock.uuid,
        (superblock.block_size(), superblock.blocks_count(), superblock.blocks_per_group),
        (superblock.inodes_per_group, superblock.inode_size(), superblock.desc_size()),
        superblock.journal_inum,
    )
}
