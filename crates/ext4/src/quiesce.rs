//! A mounted volume comes to rest: unmount, freeze and thaw, remount, shutdown (T25, T26, T28).

use std::sync::atomic::Ordering;

use ext4_format::features::{incompat, ro_compat};
use ext4_format::superblock::state;
use ext4_format::{Superblock, orphan};
use jbd2::mutant;

use crate::fs::Fs;
use crate::mmp::{MmpClaim, Wishes};
use crate::mount::check_access;
use crate::superblock_io::{mark_mounted, write_superblock_directly};
use crate::{Error, Result, errno};

/// How [`Fs::force_shutdown`] goes down (T28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Everything is written and the volume is clean, as if frozen.
    Default,
    /// What changed is committed, and nothing else is written.
    LogFlush,
    /// Nothing is written: to the volume it is a power cut.
    NoLogFlush,
}

impl Fs {
    /// Unmounts: everything is written, the journal is empty, and the volume says that it is clean (T25). Files that
    /// are still open lose their unlinked inodes at the next mount (they stay orphans). What [`Fs::force_shutdown`]
    /// stopped is let go as it is.
    ///
    /// # Errors
    /// The first error of write-back or of the journal; the volume then stays marked for recovery.
    pub fn unmount(&self) -> Result<()> {
        if self.is_read_only() || self.journal.is_shut_down() {
            return Ok(());
        }
        if self.journal.is_frozen() {
            self.thaw()?;
        }
        self.write_everything()?;
        if !mutant(20) {
            self.journal.close()?;
        }
        self.say_clean()?;
        if mutant(20) {
            self.journal.close()?;
        }
        self.shut_down();
        self.device.flush()?;
        self.release_claim()
    }

    /// T26: everything is written and the volume on the device is clean until [`Fs::thaw`]; changes fail with EBUSY, reads go
    /// on. The caller keeps changes of file data away.
    ///
    /// # Errors
    /// EROFS: read-only. EBUSY: frozen already. Else the first error of write-back or of the journal; nothing is frozen then.
    pub fn freeze(&self) -> Result<()> {
        self.check_writable()?;
        if self.journal.is_frozen() {
            return Err(Error::refused(errno::EBUSY, "the volume is frozen already"));
        }
        self.write_everything()?;
        let _none = self.evictions.write();
        self.journal.freeze()?;
        self.say_clean().inspect_err(|_| self.journal.thaw())
    }

    /// Ends a freeze: the volume says that it is in use, durably, before the first change (T26).
    ///
    /// # Errors
    /// EINVAL: not frozen. Those of the device; the volume stays frozen then.
    pub fn thaw(&self) -> Result<()> {
        self.check_alive()?;
        if !self.journal.is_frozen() {
            return Err(Error::refused(errno::EINVAL, "the volume is not frozen"));
        }
        write_superblock_directly(self.device.as_ref(), mark_mounted)?;
        // Their last close could not delete them.
        let unlinked = {
            let _none = self.evictions.write();
            self.journal.thaw();
            std::mem::take(&mut *self.released_frozen.lock())
        };
        unlinked.iter().try_for_each(|inode| self.evict_unless_frozen(inode))
    }

    /// Makes the mount read-only, with the volume clean as after an unmount, or writable again. The caller sees to it that no
    /// file is open for writing.
    ///
    /// # Errors
    /// EBUSY: frozen, or there are unlinked files that are open. EROFS: what was mounted read-only has no writable device, and
    /// what became so by an error stays so. Those of [`Fs::freeze`] and of a mount.
    pub fn remount(&self, read_only: bool) -> Result<()> {
        self.check_alive()?;
        if read_only == self.is_read_only() {
            return Ok(());
        }
        if self.journal.is_frozen() && !read_only {
            return self.remount_writable();
        }
        self.check_writable()?;
        if self.journal.is_frozen() {
            return Err(Error::refused(errno::EBUSY, "the volume is frozen"));
        }
        if !self.has_no_orphans() {
            return Err(Error::refused(errno::EBUSY, "a file without a name is open"));
        }
        self.freeze()?;
        self.read_only.store(true, Ordering::Release);
        self.release_claim()
    }

    fn remount_writable(&self) -> Result<()> {
        let superblock = self.superblock();
        check_access(&superblock, self.device.as_ref(), false)?;
        let claim = {
            // Intervals were judged by the first mount.
            let wishes = Wishes { clock: self.clock.clone(), cancel: self.cancel.clone(), force: true };
            MmpClaim::take(&self.device, &superblock, &wishes)?
        };
        *self.mmp.lock() = claim;
        self.read_only.store(false, Ordering::Release);
        self.thaw().inspect_err(|_| self.read_only.store(true, Ordering::Release))?;
        self.record_mount()
    }

    /// T28: stops the volume for good; later calls fail with EIO. Stopping twice is no error.
    ///
    /// # Errors
    /// Those of [`Fs::freeze`] (Default) or of the commit (LogFlush); the volume is stopped all the same.
    pub fn force_shutdown(&self, how: Shutdown) -> Result<()> {
        if self.journal.is_shut_down() {
            return Ok(());
        }
        let last = match how {
            _ if self.is_read_only() || self.journal.is_frozen() => Ok(()),
            Shutdown::Default => self.freeze(),
            Shutdown::LogFlush => self.journal.commit_running().map_err(Error::from),
            Shutdown::NoLogFlush => Ok(()),
        };
        self.shut_down();
        self.journal.shut_down();
        last
    }

    /// Stops at once, without a commit: to the volume it is a crash (DESIGN, environments that are torn down).
    pub fn shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
        // A remount may wait for other hosts: nobody wants it any more.
        self.cancel.cancel();
    }

    fn write_everything(&self) -> Result<()> {
        self.sync()?;
        self.with_handle(4, |handle| self.change_superblock(handle, |_| ()))
    }

    /// The journal is empty: says so in the superblock, durably.
    fn say_clean(&self) -> Result<()> {
        let no_orphans = self.has_no_orphans();
        write_superblock_directly(self.device.as_ref(), |superblock| {
            mark_unmounted(superblock, self.was_clean, no_orphans);
        })
    }

    fn has_no_orphans(&self) -> bool {
        let orphans = self.orphans.lock();
        let slots = orphan::slots(self.block_size);
        orphans.list.is_empty()
            && orphans.file.as_ref().is_none_or(|file| file.free.iter().all(|&free| free == slots))
    }

    fn release_claim(&self) -> Result<()> {
        self.mmp.lock().take().map_or(Ok(()), |claim| claim.release())
    }
}

/// T25: the reverse. ORPHAN_PRESENT stays while there are orphans (O4). A volume that was suspect before stays so until
/// e2fsck has seen it.
fn mark_unmounted(superblock: &mut Superblock, was_clean: bool, no_orphans: bool) {
    superblock.feature_incompat &= !incompat::RECOVER;
    if was_clean {
        superblock.state |= state::VALID;
    }
    if no_orphans {
        superblock.feature_ro_compat &= !ro_compat::ORPHAN_PRESENT;
    }
}
