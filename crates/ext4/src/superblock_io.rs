//! The primary superblock on the device, read and written past the journal, and what its fields say of a mount.

use block_io::{AlignedBuf, Device};
use ext4_format::features::{compat, incompat, ro_compat};
use ext4_format::superblock::state;
use ext4_format::{Corrupt, Superblock};

use crate::{Error, Result, errno, torn_superblock};

/// Where it starts, in bytes.
pub(crate) const SUPERBLOCK_OFFSET: usize = 1024;

/// Reads and checks the superblock. One that mount or unmount tore is repaired, in memory (EP7).
///
/// # Errors
/// EINVAL where there is no ext4 volume, EBADMSG for a wrong checksum, EUCLEAN for impossible geometry, a volume
/// larger than its device included.
pub fn read_superblock(device: &dyn Device) -> Result<Superblock> {
    let start = read_start(device)?;
    let superblock =
        torn_superblock::decode(&start[SUPERBLOCK_OFFSET..]).map_err(torn_superblock::unreadable)?;
    let size_bytes = device.limits().size_bytes;
    let needed = superblock.blocks_count().saturating_mul(u64::from(superblock.block_size()));
    if needed > size_bytes {
        let detail = format!("the volume has {needed} bytes, its device {size_bytes}: truncated image?");
        return Err(Error::Corrupt {
            place: "superblock".into(),
            corrupt: Corrupt::structure("superblock", detail),
        });
    }
    Ok(superblock)
}

/// The first bytes of a device that has room and a magic for a superblock.
pub(crate) fn read_start(device: &dyn Device) -> Result<AlignedBuf> {
    let limits = device.limits();
    if limits.size_bytes < 2 * SUPERBLOCK_OFFSET as u64 {
        return Err(Error::refused(errno::EINVAL, "too small for an ext4 volume"));
    }
    let lbs = u64::from(limits.logical_block_bytes);
    let mut start = AlignedBuf::zeroed((4096.min(limits.size_bytes) / lbs * lbs) as usize);
    device.read(0, &mut start)?;
    if start[SUPERBLOCK_OFFSET + 0x38..SUPERBLOCK_OFFSET + 0x3A] != Superblock::MAGIC.to_le_bytes() {
        return Err(Error::refused(errno::EINVAL, "not an ext4 volume: no superblock magic"));
    }
    Ok(start)
}

/// Changes the primary superblock outside the journal, which only mount and unmount may (T27), durably. By EP7 (1), in its
/// feature bits alone.
pub(crate) fn write_superblock_directly(
    device: &dyn Device,
    change: impl FnOnce(&mut Superblock),
) -> Result<()> {
    let lbs = device.limits().logical_block_bytes as usize;
    let len = (2 * SUPERBLOCK_OFFSET).next_multiple_of(lbs);
    let mut start = AlignedBuf::zeroed(len);
    device.read(0, &mut start)?;
    let bytes = &mut start[SUPERBLOCK_OFFSET..2 * SUPERBLOCK_OFFSET];
    let mut superblock = torn_superblock::decode(bytes).map_err(torn_superblock::unreadable)?;
    change(&mut superblock);
    bytes.copy_from_slice(&superblock.encode());
    Ok(device.write(0, &start, true)?)
}

/// T27, EP4: what says that the volume is in use.
pub(crate) fn mark_mounted(superblock: &mut Superblock) {
    if has_journal(superblock) {
        superblock.feature_incompat |= incompat::RECOVER;
    } else {
        superblock.state &= !state::VALID;
    }
    if superblock.features().has_compat(compat::ORPHAN_FILE) {
        superblock.feature_ro_compat |= ro_compat::ORPHAN_PRESENT;
    }
}

/// has_journal.
pub(crate) fn has_journal(superblock: &Superblock) -> bool {
    superblock.features().has_compat(compat::HAS_JOURNAL)
}

/// RECOVER: the journal may hold what the volume lacks.
pub(crate) fn needs_recovery(superblock: &Superblock) -> bool {
    superblock.features().has_incompat(incompat::RECOVER)
}

/// metadata_csum.
pub(crate) fn has_metadata_csum(superblock: &Superblock) -> bool {
    superblock.features().has_ro_compat(ro_compat::METADATA_CSUM)
}
