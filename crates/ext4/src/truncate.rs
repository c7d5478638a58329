//! Truncation and deletion (D30): every commit point on the way is a consistent volume.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ext4_format::Lblk;
use ext4_format::features::ro_compat;
use ext4_format::inode::flags;

use jbd2::mutant;

use crate::credits::{MAP_CREDITS, ORPHAN_CREDITS};
use crate::extents::Progress;
use crate::fs::{FEW_REVOKES, Fs};
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::{Error, Result, errno};

/// Blocks that one handle frees and revokes: at most nine log blocks of records.
const REVOKES_PER_HANDLE: u32 = 1024;

impl Fs {
    /// ftruncate. The caller holds the inode lock exclusive and has drained direct I/O.
    ///
    /// # Errors
    /// EPERM: immutable or append-only; EFBIG.
    pub fn truncate(&self, inode: &Arc<Inode>, new_size: u64) -> Result<()> {
        self.check_writable()?;
        if inode.has_flag(flags::IMMUTABLE | flags::APPEND) {
            return Err(Error::errno_only(errno::EPERM));
        }
        inode.check_data_supported()?;
        if new_size > self.max_bytes(inode) {
            return Err(Error::errno_only(errno::EFBIG));
        }
        self.file_modified(inode)?;
        let old_size = inode.size();
        if new_size > old_size {
            return self.grow(inode, old_size, new_size);
        }
        // First what may fail, while nothing has changed.
        self.zero_eof_block(inode, new_size)?;
        if let Some(pages) = inode.pages.get() {
            pages.truncate(new_size);
        }
        inode.state.lock().size = new_size;
        if mutant(30) {
            let first = Lblk(new_size.div_ceil(self.block_size() as u64) as u32);
            self.remove_range(inode, first, Lblk(u32::MAX))?;
            self.journal.commit_running()?;
        }
        self.with_handle(MAP_CREDITS + ORPHAN_CREDITS, |handle| {
            handle.add_orphan(inode)?;
            self.touch_for_truncate(handle, inode, new_size)
        })?;
        // Also where the size stays: blocks that were preallocated beyond it go (D30).
        self.remove_beyond_size(inode)
    }

    /// The size goes up: what lies between the sizes reads as zeros (E27), KEEP_SIZE blocks stay.
    fn grow(&self, inode: &Arc<Inode>, old_size: u64, new_size: u64) -> Result<()> {
        self.zero_eof_block(inode, old_size)?;
        // Buffered data may still raise i_disksize to a size below this one: never the reverse (A15).
        inode.state.lock().size = new_size;
        self.with_handle(MAP_CREDITS, |handle| self.touch_for_truncate(handle, inode, new_size))
    }

    fn touch_for_truncate(&self, handle: &mut Handle<'_>, inode: &Arc<Inode>, new_size: u64) -> Result<()> {
        self.require_large_file(handle, new_size)?;
        let now = self.timestamp();
        handle.change_inode(inode, Change::Data, |state| {
            state.disk.size = new_size;
            state.disk.mtime = now;
            state.disk.ctime = now;
        })
    }

    /// D33: the feature precedes the first file of 2 GiB.
    pub(crate) fn require_large_file(&self, handle: &mut Handle<'_>, size: u64) -> Result<()> {
        if size < 1 << 31 || self.superblock.lock().features().has_ro_compat(ro_compat::LARGE_FILE) {
            return Ok(());
        }
        self.change_superblock(handle, |superblock| superblock.feature_ro_compat |= ro_compat::LARGE_FILE)
    }

    /// Zeroes what lies behind `size` in its block, on the device, if it is written. A cached page has zeros there.
    pub(crate) fn zero_eof_block(&self, inode: &Inode, size: u64) -> Result<()> {
        match size.next_multiple_of(self.block_size() as u64) {
            end if end == size => Ok(()),
            end => self.zero_in_block(inode, size, end),
        }
    }

    /// Frees every block beyond i_size, then the inode is no orphan any more. The caller holds the inode lock
    /// exclusive.
    pub(crate) fn remove_beyond_size(&self, inode: &Arc<Inode>) -> Result<()> {
        let first = Lblk(inode.size().div_ceil(self.block_size() as u64).min(u64::from(u32::MAX)) as u32);
        self.remove_range(inode, first, Lblk(u32::MAX))?;
        self.with_handle(ORPHAN_CREDITS, |handle| handle.delete_orphan(inode, 0))
    }

    /// Frees the blocks `first` to `last`, both included, from right to left, in transaction-sized steps.
    pub(crate) fn remove_range(&self, inode: &Inode, first: Lblk, last: Lblk) -> Result<()> {
        // What the journal may hold of it is forgotten and revoked.
        let metadata = !inode.is_regular() || inode.has_logged_data();
        let revokes = if metadata { REVOKES_PER_HANDLE } else { 0 };
        self.with_handle_revoking(MAP_CREDITS, revokes + FEW_REVOKES, |handle| {
            handle.set_data_is_metadata(metadata);
            let mut last = last;
            loop {
                // Each block is revoked (T9): so many at a time as the handle has reserved.
                let from = match metadata {
                    true => {
                        let few = Lblk(last.0.saturating_sub(REVOKES_PER_HANDLE - 1));
                        handle.last_blocks(inode, REVOKES_PER_HANDLE)?.min(few).max(first)
                    }
                    false => first,
                };
                match handle.remove_blocks(inode, from, last)? {
                    Progress::Done if from == first => return Ok(()),
                    Progress::Done => last = Lblk(from.0 - 1),
                    Progress::More { to, .. } => last = to,
                }
                handle.restart(MAP_CREDITS)?;
            }
        })
    }

    /// Whether this call is the one that deletes an inode: without a name, without an open file, and nobody else does.
    fn claim_eviction(&self, inode: &Inode) -> bool {
        let mut state = inode.state.lock();
        let unused = state.disk.links_count == 0 && inode.opens.load(Ordering::Acquire) == 0;
        unused && !std::mem::replace(&mut state.evicting, true)
    }

    /// Deletes an unlinked inode unless it is open: blocks, xattr block, orphan entry, number.
    pub(crate) fn evict(&self, inode: &Arc<Inode>) -> Result<()> {
        if !self.claim_eviction(inode) {
            return Ok(());
        }
        if let Some(pages) = inode.pages.get() {
            pages.truncate(0);
        }
        self.allocator.discard_preallocations(Some(inode.ino));
        let is_dir = inode.is_dir();
        // Not by the size: a crash between these transactions leaves an inode of size 0 with blocks.
        if inode.has_map() {
            // A symbolic link's size says whether there is a map (F56); its one block goes in one transaction.
            if !inode.is_symlink() {
                self.with_handle(MAP_CREDITS, |handle| {
                    handle.change_inode(inode, Change::Data, |state| {
                        state.size = 0;
                        state.disk.size = 0;
                    })
                })?;
            }
            self.remove_range(inode, Lblk(0), Lblk(u32::MAX))?;
        }
        self.with_handle(MAP_CREDITS, |handle| {
            self.release_xattr_block(handle, inode)?;
            let dtime = self.clock.now().sec as u32;
            handle.delete_orphan(inode, dtime)?;
            handle.change_inode(inode, Change::Attributes, |state| {
                state.disk.dtime = dtime;
                state.disk.links_count = 0;
                state.size = 0;
                state.disk.size = 0;
                state.deleted = true;
            })?;
            self.inodes.forget(inode.ino);
            let allocator = self.allocator.clone();
            allocator.free_inode(handle, inode.ino, is_dir)
        })
    }

    /// [`Fs::evict`], or what [`Fs::thaw`] does of it.
    pub(crate) fn evict_unless_frozen(&self, inode: &Arc<Inode>) -> Result<()> {
        let _whole = self.evictions.read();
        if self.journal.is_frozen() {
            self.released_frozen.lock().push(inode.clone());
            return Ok(());
        }
        self.evict(inode)
    }

    /// The last file on an inode was closed: an unlinked one goes away (O5).
    pub fn release(&self, inode: &Arc<Inode>) -> Result<()> {
        if inode.opens.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        if self.journal.is_shut_down() {
            return Ok(());
        }
        let unlinked = inode.state.lock().disk.links_count == 0;
        if unlinked {
            return match self.check_writable() {
                Ok(()) => self.evict_unless_frozen(inode),
                Err(_) => Ok(()),
            };
        }
        let written = inode.pages.get().map_or(Ok(()), |pages| pages.write_back(0, u64::MAX));
        // Unless somebody opened it again meanwhile.
        if inode.opens.load(Ordering::Acquire) == 0 {
            self.allocator.discard_preallocations(Some(inode.ino));
        }
        written
    }
}
