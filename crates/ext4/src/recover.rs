//! Recovery by itself: what a mount does first, and nothing else.

use std::sync::Arc;

use block_io::Device;
use ext4_format::features::ro_compat;
use ext4_format::superblock::state;
use ext4_format::{Corrupt, Superblock};

use crate::overlay::Overlay;
use crate::superblock_io::needs_recovery;
use crate::{Error, Fs, MountOptions, MountReport, Result, read_superblock};

/// What a recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The volume was not unmounted, or has orphans: there is something to do, or was.
    pub needed: bool,
    /// The superblock says that errors were seen (EP1): e2fsck should look at the volume.
    pub has_errors: bool,
    /// What was replayed and processed.
    pub report: MountReport,
}

/// Replays the journal and processes the orphans of the volume on `device`, and leaves it unmounted. With `dry_run` that
/// happens in memory and the device is only read: it takes as much memory as recovery would write. A volume that needs no
/// recovery is only read, too. `options`: of the mount that does it.
///
/// # Errors
/// Those of [`Fs::mount`] and [`Fs::unmount`].
pub fn recover(device: Arc<dyn Device>, options: MountOptions, dry_run: bool) -> Result<Recovery> {
    match read_superblock(device.as_ref()) {
        Ok(before) if !is_needed(&before) => {
            let has_errors = before.state & state::ERROR != 0;
            return Ok(Recovery { needed: false, has_errors, report: MountReport::default() });
        }
        // A torn superblock is the mount's to repair (EP7).
        Ok(_) | Err(Error::Corrupt { corrupt: Corrupt::Checksum { .. }, .. }) => {}
        Err(error) => return Err(error),
    }
    let over = |device: Arc<dyn Device>| match dry_run {
        true => Arc::new(Overlay::new(device)) as Arc<dyn Device>,
        false => device,
    };
    let journal_device = options.journal_device.clone().map(over);
    let options = MountOptions { journal_device, orphans_despite_errors: true, ..options };
    let (fs, report) = Fs::mount(over(device), &options)?;
    fs.unmount()?;
    Ok(Recovery { needed: true, has_errors: fs.superblock().state & state::ERROR != 0, report })
}

fn is_needed(superblock: &Superblock) -> bool {
    let has_orphans =
        superblock.last_orphan != 0 || superblock.features().has_ro_compat(ro_compat::ORPHAN_PRESENT);
    needs_recovery(superblock) || has_orphans
}
