//! A running handle on a mounted volume: the only way to change metadata.

use ext4_format::{Ino, Pblk};

use crate::credits::CREDITS_BESIDE_TREE;
use crate::fs::Fs;
use crate::mballoc;
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::seal::Sealer;
use crate::{Error, Result};

/// Metadata changes of one operation, in one transaction unless it is restarted (T3, T4).
pub struct Handle<'f> {
    fs: &'f Fs,
    journal: jbd2::Handle,
    /// The tree that is being changed maps journalled blocks (a directory's, a symlink's): what it frees is
    /// forgotten and revoked as metadata (T9).
    data_is_metadata: bool,
    /// Allocation may use the reserve of D14.
    use_reserve: bool,
    /// Metadata is allocated out of what was set aside for delayed data.
    use_delayed: bool,
    /// Tree blocks come out of a claim of which so many clusters are left.
    split_left: u64,
    /// Something was changed since the last point where the volume was consistent.
    changed: bool,
}

impl<'f> Handle<'f> {
    /// T3. Waits for log space or a locked transaction; EROFS after an abort and on a read-only volume.
    pub(crate) fn start(fs: &'f Fs, credits: u32, revokes: u32) -> Result<Self> {
        fs.check_writable()?;
        Ok(Self {
            fs,
            journal: fs.journal.start_revoking(credits, revokes)?,
            data_is_metadata: false,
            use_reserve: false,
            use_delayed: false,
            split_left: 0,
            changed: false,
        })
    }

    /// The same, but WouldBlock where it would have to wait.
    pub(crate) fn try_start(fs: &'f Fs, credits: u32) -> Result<Self> {
        fs.check_writable()?;
        let journal = fs.journal.try_start(credits)?.ok_or(Error::WouldBlock)?;
        Ok(Self {
            fs,
            journal,
            data_is_metadata: false,
            use_reserve: false,
            use_delayed: false,
            split_left: 0,
            changed: false,
        })
    }

    /// The volume.
    pub(crate) fn fs(&self) -> &'f Fs {
        self.fs
    }

    /// Treats freed data blocks as metadata from here on.
    pub(crate) fn set_data_is_metadata(&mut self, on: bool) {
        self.data_is_metadata = on;
    }

    /// Lets conversions and removals use the reserve (D14).
    pub(crate) fn set_use_reserve(&mut self, on: bool) {
        self.use_reserve = on;
    }

    /// Takes metadata out of what [`mballoc::Allocator::reserve_delayed`] has set aside.
    pub(crate) fn set_use_delayed(&mut self, on: bool) {
        self.use_delayed = on;
    }

    /// Takes tree blocks out of a claim of so many clusters; returns how many of the one before were left.
    pub(crate) fn set_split_claim(&mut self, clusters: u64) -> u64 {
        std::mem::replace(&mut self.split_left, clusters)
    }

    /// T4: the caller left the volume consistent; what follows may commit in a later transaction.
    pub(crate) fn restart(&mut self, credits: u32) -> Result<()> {
        self.changed = false;
        Ok(self.journal.restart(credits)?)
    }

    /// An operation failed. If a broken device or a damaged volume left it half done, the journal aborts: half an operation
    /// must never commit (T30). A refusal (ENOSPC, EEXIST, …) comes before any change, or was undone.
    pub(crate) fn fail(self, error: &Error) {
        let broken = matches!(error, Error::Device(_) | Error::Corrupt { .. });
        self.fs.error_found(error, "with_handle");
        if broken && self.changed {
            self.fs.journal.abort(error.errno());
        }
    }

    /// Ends the handle. Errors of an aborted journal surface here.
    pub(crate) fn stop(self) -> Result<()> {
        Ok(self.journal.stop()?)
    }

    /// Allocates a run of data blocks for a file.
    pub(crate) fn allocate_data(&mut self, request: &mballoc::Request) -> Result<mballoc::Run> {
        let allocator = self.fs.allocator.clone();
        allocator.allocate(self, request)
    }
}

impl Meta for Handle<'_> {
    fn block_size(&self) -> usize {
        self.fs.block_size()
    }

    fn tid(&self) -> u32 {
        self.journal.tid().0
    }

    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        self.fs.read_metadata(block, kind)
    }

    fn is_system_zone(&self, start: Pblk, len: u64) -> bool {
        self.fs.allocator.metadata_zone(start, len)
    }

    fn update(&mut self, block: Pblk, kind: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let fs = self.fs;
        fs.check_block(block)?;
        let _shard = fs.cache.lock(block);
        self.journal.update::<Error>(
            block.0,
            Sealer::tag(kind),
            &mut || -> Result<Image> {
                let image = fs.read_clean(block, kind)?;
                fs.cache.remove(block);
                Ok(image)
            },
            change,
        )?;
        self.changed = true;
        Ok(())
    }

    fn create(&mut self, block: Pblk, kind: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.fs.check_block(block)?;
        let _shard = self.fs.cache.lock(block);
        self.fs.cache.remove(block);
        self.journal.create(block.0, Sealer::tag(kind), fill)?;
        self.changed = true;
        Ok(())
    }

    fn allocate_block(&mut self, owner: BlockOwner) -> Result<Pblk> {
        let allocator = self.fs.allocator.clone();
        let request = mballoc::Request {
            ino: owner.ino,
            lblk: None,
            goal: owner.goal,
            len: 1,
            min_len: 1,
            kind: match (self.split_left, self.use_delayed) {
                (1.., _) => mballoc::RequestKind::Split,
                (0, true) => mballoc::RequestKind::Delayed,
                (0, false) => mballoc::RequestKind::Metadata,
            },
            may_use_reserve: self.use_reserve,
            preallocate: false,
            below_2_32: owner.below_2_32,
        };
        let block = allocator.allocate(self, &request)?.start;
        self.split_left = self.split_left.saturating_sub(1);
        Ok(block)
    }

    fn free_block(&mut self, block: Pblk, _owner: Ino) -> Result<()> {
        let allocator = self.fs.allocator.clone();
        allocator.free(self, block, 1)?;
        Ok(self.journal.forget(block.0)?)
    }

    fn free_data(&mut self, start: Pblk, len: u32, owner: Ino) -> Result<()> {
        if self.data_is_metadata {
            for block in start.0..start.0 + u64::from(len) {
                self.free_block(Pblk(block), owner)?;
            }
            return Ok(());
        }
        let allocator = self.fs.allocator.clone();
        allocator.free(self, start, len)
    }

    fn ensure_credits(&mut self, credits: u32) -> Result<bool> {
        let credits = credits.saturating_add(CREDITS_BESIDE_TREE);
        if self.journal.credits() >= credits {
            return Ok(true);
        }
        let missing = credits - self.journal.credits();
        Ok(self.journal.extend(missing)?)
    }
}

/// Metadata reading without a handle: everything that changes is refused.
pub(crate) struct Reader<'f>(pub &'f Fs);

fn read_only<T>() -> Result<T> {
    Err(Error::refused(crate::errno::EROFS, "a reader cannot change metadata"))
}

impl Meta for Reader<'_> {
    fn block_size(&self) -> usize {
        self.0.block_size()
    }

    fn tid(&self) -> u32 {
        0
    }

    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        self.0.read_metadata(block, kind)
    }

    fn is_system_zone(&self, start: Pblk, len: u64) -> bool {
        self.0.allocator.metadata_zone(start, len)
    }

    fn update(&mut self, _block: Pblk, _kind: BlockKind, _change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        read_only()
    }

    fn create(&mut self, _block: Pblk, _kind: BlockKind, _fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        read_only()
    }

    fn allocate_block(&mut self, _owner: BlockOwner) -> Result<Pblk> {
        read_only()
    }

    fn free_block(&mut self, _block: Pblk, _owner: Ino) -> Result<()> {
        read_only()
    }

    fn free_data(&mut self, _start: Pblk, _len: u32, _owner: Ino) -> Result<()> {
        read_only()
    }

    fn ensure_credits(&mut self, _credits: u32) -> Result<bool> {
        read_only()
    }
}
