//! A mounted volume.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block_io::Device;
use block_io::sync::{Mutex, RwLock};
use ext4_format::features::{compat, incompat};
use ext4_format::hash::HashVersion;
use ext4_format::{Ino, Pblk, Superblock};
use jbd2::Journal;

use crate::block_cache::BlockCache;
use crate::clock::{Cancel, Clock};
use crate::dir::DirParams;
use crate::flusher_state::Flusher;
use crate::handle::Handle;
use crate::inode::{Inode, InodeCache};
use crate::journal_host::JournalHost;
use crate::logged_data::{DataMode, LoggedData};
use crate::mballoc::Allocator;
use crate::meta::{BlockKind, Image, Meta};
use crate::mmp::MmpClaim;
use crate::seal::Sealer;
use crate::{Error, Result, errno};

/// Block and cluster numbers, caches, journal and allocator of one mounted ext4 file system.
pub struct Fs {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) block_size: usize,
    pub(crate) blocks_count: u64,
    pub(crate) sealer: Sealer,
    /// The superblock as it was mounted: geometry and what decodes inodes and descriptors.
    pub(crate) geometry: Arc<Superblock>,
    /// As the running transaction has it; counters are brought up to date when it is written.
    pub(crate) superblock: Mutex<Superblock>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) host: Arc<JournalHost>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) allocator: Arc<Allocator>,
    pub(crate) inodes: InodeCache,
    pub(crate) orphans: Mutex<Orphans>,
    /// Held from reading to changing the count of a shared xattr block (F86).
    pub(crate) xattr_counts: Mutex<()>,
    /// Directories and what they name: look-ups read, changes write.
    pub(crate) namespace: RwLock<()>,
    /// Extended attributes of all inodes (xattr_sem): setting one may move it. Taken before a handle starts.
    pub(crate) xattrs: RwLock<()>,
    pub(crate) hash_version: HashVersion,
    pub(crate) clock: Arc<dyn Clock>,
    /// Ends waits for other hosts.
    pub(crate) cancel: Cancel,
    pub(crate) page_budget: Arc<iomap::CacheBudget>,
    pub(crate) flusher: Flusher,
    /// File data is loaded and stored in place (A18).
    pub(crate) dax: bool,
    pub(crate) data_mode: DataMode,
    pub(crate) dioread_nolock: bool,
    /// The last data of any file that was logged.
    pub(crate) logged_data: LoggedData,
    pub(crate) read_only: AtomicBool,
    /// The log was replayed into memory (R18): its blocks, file data among them, are not on the device.
    pub(crate) reads_overlay: bool,
    /// Unlinked inodes whose last close came while the volume was frozen.
    pub(crate) released_frozen: Mutex<Vec<Arc<Inode>>>,
    /// Shared by evictions, which take several handles; exclusive where a freeze begins and ends: closes pass no gate.
    pub(crate) evictions: RwLock<()>,
    /// The claim on a volume that several hosts could mount (M3).
    pub(crate) mmp: Mutex<Option<MmpClaim>>,
    /// EP6: what was written before the mount.
    pub(crate) written_before: WrittenBefore,
    /// EP4: the superblock called the volume clean before this mount.
    pub(crate) was_clean: bool,
    pub(crate) shut_down: AtomicBool,
}

/// Milliseconds until the next look where there is nothing to do.
const IDLE_MS: u64 = 1000;

/// What an operation frees of trees, maps and attributes, in blocks.
pub(crate) const FEW_REVOKES: u32 = 64;

/// What had been written when a volume was mounted.
pub(crate) struct WrittenBefore {
    /// To the volume, as its superblock says.
    pub kbytes: u64,
    /// To the device, since it was opened.
    pub bytes: u64,
}

/// The orphan file of D28 in memory.
pub(crate) struct OrphanFile {
    /// F4 of the file's inode.
    pub seed: u32,
    pub blocks: Vec<Pblk>,
    /// Free slots per block.
    pub free: Vec<usize>,
}

/// All orphans of a volume.
#[derive(Default)]
pub(crate) struct Orphans {
    /// The list, head first; each in memory, because deleting one rewrites its predecessor.
    pub list: Vec<Arc<Inode>>,
    pub file: Option<OrphanFile>,
    /// Those of the file that a mount left alone (O7): they know their slots as long as they are in memory.
    pub kept: Vec<Arc<Inode>>,
}

impl Fs {
    /// Block size in bytes.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The device under the volume.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// What the journal did since the mount.
    pub fn journal_stats(&self) -> jbd2::Stats {
        self.journal.stats()
    }

    /// A copy of the superblock, with what is free now: what is reserved for delayed allocation is not.
    pub fn superblock(&self) -> Superblock {
        let mut superblock = self.superblock.lock().clone();
        self.refresh_counts(&mut superblock);
        let delayed = self.allocator.delayed_clusters() << superblock.cluster_bits();
        superblock.set_free_blocks_count(superblock.free_blocks_count().saturating_sub(delayed));
        superblock
    }

    /// What the operations of one directory need to know of the volume.
    pub(crate) fn dir_params(&self, self_ino: Ino) -> DirParams {
        let features = self.geometry.features();
        DirParams {
            has_csum: self.sealer.has_csum,
            filetype: features.has_incompat(incompat::FILETYPE),
            dir_index: features.has_compat(compat::DIR_INDEX),
            large_dir: features.has_incompat(incompat::LARGE_DIR),
            hash_version: self.hash_version,
            hash_seed: self.geometry.hash_seed,
            self_ino,
        }
    }

    /// Where an inode's blocks go when nothing better is known: its flex group, behind the first group's metadata for files
    /// (D11).
    pub(crate) fn inode_goal(&self, ino: Ino) -> Pblk {
        let group =
            self.geometry.inode_location(ino).map_or(ext4_format::Group(0), |location| location.group);
        self.geometry.group_first_block(group)
    }

    /// Whether the mount is read-only; an aborted journal makes it so in effect only.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// EIO after a shutdown, EROFS after an abort or on a read-only mount (A1, C23, T29).
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_alive()?;
        if self.is_read_only() || self.host.aborted.load(Ordering::Acquire) != 0 {
            return Err(Error::errno_only(errno::EROFS));
        }
        Ok(())
    }

    /// EIO after a shutdown (A1).
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.shut_down.load(Ordering::Acquire) {
            return Err(Error::refused(errno::EIO, "the volume was shut down"));
        }
        // A container that was cut is as a volume that was shut down: the device carries out nothing more.
        self.device.lost().map_or(Ok(()), |lost| Err(Error::Device(lost.clone())))
    }

    /// The transaction that a change made now would be part of: the running one, or the next.
    pub fn next_tid(&self) -> u32 {
        self.journal.next_tid().0
    }

    /// Whether other hosts are to see that the volume is in use: then [`Fs::claim_step`] wants a thread of its own.
    pub fn has_mmp(&self) -> bool {
        self.geometry.features().has_incompat(incompat::MMP)
    }

    /// A step for a thread that calls it in a loop, and does nothing else: the sign of life that other hosts wait for (M4).
    /// Returns the milliseconds until the next useful call.
    pub fn claim_step(&self) -> u64 {
        if self.check_alive().is_err() {
            return IDLE_MS;
        }
        match self.mmp.lock().as_ref().map(MmpClaim::tick) {
            None => IDLE_MS,
            Some(Ok(pause_ms)) => pause_ms,
            Some(Err(_taken_over)) => {
                // M4: whoever has the volume now must not find our writes on it.
                self.shut_down();
                IDLE_MS
            }
        }
    }

    /// A step for a thread that calls it in a loop: what the journal waits for (T14). Returns the milliseconds until the next
    /// useful call.
    pub fn tick(&self) -> u64 {
        if self.check_alive().is_err() {
            return IDLE_MS;
        }
        // An error here has aborted the journal, which says so to whoever comes next.
        let _recorded = self.write_errors();
        self.journal.tick()
    }

    /// The current contents of a metadata block, verified when it comes from the device.
    pub(crate) fn read_metadata(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        self.try_read_metadata(block, kind).inspect_err(|error| self.error_found(error, "read_metadata"))
    }

    fn try_read_metadata(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        self.check_block(block)?;
        if let Some(image) = self.journal.lookup(block.0).or_else(|| self.cache.get(block)) {
            return Ok(image);
        }
        let _shard = self.cache.lock(block);
        if let Some(image) = self.journal.lookup(block.0) {
            return Ok(image);
        }
        self.read_clean(block, kind)
    }

    /// A block that the journal does not have. The caller holds its shard lock.
    pub(crate) fn read_clean(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        if let Some(image) = self.cache.get(block) {
            return Ok(image);
        }
        let image = self.cache.read_device(block)?;
        self.sealer.verify(block, kind, &image)?;
        self.cache.insert(block, image.clone());
        Ok(image)
    }

    /// Runs `f` in a handle of `credits`; on ENOSPC forces a commit that releases freed blocks and tries again, at
    /// most three times (A12).
    pub(crate) fn with_handle<R>(
        &self,
        credits: u32,
        f: impl FnMut(&mut Handle<'_>) -> Result<R>,
    ) -> Result<R> {
        self.with_handle_revoking(credits, FEW_REVOKES, f)
    }

    /// The same where space is reserved for what is allocated, so that there must be some: as long as commits bring frees, others
    /// may have been faster with them, and freed as much themselves.
    pub(crate) fn with_handle_reserved<R>(
        &self,
        credits: u32,
        mut f: impl FnMut(&mut Handle<'_>) -> Result<R>,
    ) -> Result<R> {
        const ROUNDS: u32 = 64;
        for _ in 1..ROUNDS {
            let releases = self.allocator.releases();
            match self.with_handle(credits, &mut f) {
                Err(error) if error.errno() == errno::ENOSPC && self.allocator.releases() != releases => {}
                result => return result,
            }
        }
        self.with_handle(credits, f)
    }

    /// [`Fs::with_handle`] for a handle that frees up to `revokes` blocks of metadata.
    pub(crate) fn with_handle_revoking<R>(
        &self,
        credits: u32,
        revokes: u32,
        mut f: impl FnMut(&mut Handle<'_>) -> Result<R>,
    ) -> Result<R> {
        let mut tries = 0;
        let mut stepped_over = None;
        loop {
            let releases = self.allocator.releases();
            let mut handle = Handle::start(self, credits, revokes)?;
            let result = f(&mut handle);
            let stopped = match &result {
                Err(error) => {
                    handle.fail(error);
                    Ok(())
                }
                Ok(_) => handle.stop(),
            };
            if let Some(damage) = self.allocator.take_damage() {
                self.error_found(&damage, "mballoc");
                stepped_over = Some(damage);
            }
            match result {
                Err(error) if error.errno() == errno::ENOSPC && tries < 3 => {
                    tries += 1;
                    stopped?;
                    if self.allocator.pending_frees() > 0 {
                        self.journal.commit_running()?;
                    } else if self.allocator.releases() == releases {
                        return Err(no_space(error, stepped_over));
                    }
                }
                Err(error) => return Err(no_space(error, stepped_over)),
                Ok(value) => {
                    stopped?;
                    return Ok(value);
                }
            }
        }
    }

    /// Changes the superblock inside a handle; free counts are brought up to date with it (EP6).
    pub(crate) fn change_superblock(
        &self,
        handle: &mut Handle<'_>,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        let mut superblock = self.superblock.lock();
        change(&mut superblock);
        self.refresh_counts(&mut superblock);
        self.host.errors.apply(&mut superblock);
        let bytes = superblock.encode();
        let offset = self.sealer.superblock_offset;
        handle.update(self.superblock_block(), BlockKind::Superblock, &mut |image| {
            image[offset..offset + bytes.len()].copy_from_slice(&bytes);
        })
    }

    fn refresh_counts(&self, superblock: &mut Superblock) {
        let totals = self.allocator.totals();
        superblock.set_free_blocks_count(totals.free_blocks);
        superblock.free_inodes_count = totals.free_inodes as u32;
        superblock.set_wtime(self.clock.now().sec.max(0) as u64);
        let written = self.device.io_totals().map_or(0, |totals| totals.bytes_written);
        let kbytes = written.saturating_sub(self.written_before.bytes) / 1024;
        superblock.kbytes_written = self.written_before.kbytes.saturating_add(kbytes);
    }

    /// The block that holds the primary superblock.
    pub(crate) fn superblock_block(&self) -> Pblk {
        Pblk(u64::from(self.sealer.superblock_offset == 0))
    }
}

/// Whoever finds a group damaged hears of that where the rest has no space, as on Linux; later calls get ENOSPC. It is a refusal:
/// nothing was left half done.
fn no_space(error: Error, stepped_over: Option<Error>) -> Error {
    match stepped_over {
        Some(damage) if error.errno() == errno::ENOSPC => {
            Error::refused(damage.errno(), format!("no space beside what is damaged: {damage}"))
        }
        _ => error,
    }
}
