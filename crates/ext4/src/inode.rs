//! Inodes in memory: one object per inode number while anybody uses it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use block_io::sync::{Mutex, RwLock};
use ext4_format::checksum::inode_seed;
use ext4_format::extent::ROOT_SIZE;
use ext4_format::inode::{flags, special::ROOT};
use ext4_format::{Corrupt, Ino, Inode as DiskInode, Lblk, Pblk};
use jbd2::Tid;

use crate::data_blocks::KnownRuns;
use crate::extents::{self, Mapping, TreeOwner};
use crate::fs::Fs;
use crate::handle::Handle;
use crate::logged_data::LoggedData;
use crate::meta::{BlockKind, Meta};
use crate::ordered::OrderedFile;
use crate::page_splits::PageSplits;
use crate::{Error, Result, errno, indirect};

/// Runs of the map that an inode keeps in memory.
const STATUS_EXTENTS: usize = 4096;

/// Where an orphan is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrphanPlace {
    /// In the list of D27.
    List,
    /// In the orphan file: index of the block in `OrphanFile::blocks`, slot in the block.
    File { block: usize, slot: usize },
}

/// The page cache of an inode.
pub(crate) type PageCache = iomap::PageCache<InodeMapping>;

/// What the page cache knows of its file. Weak on both sides: they own the cache.
pub(crate) struct InodeMapping {
    pub fs: Weak<Fs>,
    pub inode: Weak<Inode>,
    pub reserved_per_block: u64,
    pub splits: Mutex<PageSplits>,
}

/// The part of an inode that changes.
pub(crate) struct InodeState {
    /// As on disk once the running handle commits; its `size` is i_disksize.
    pub disk: DiskInode,
    /// i_size: what readers see. At least `disk.size` but for a truncate under way.
    pub size: u64,
    /// Where the inode stands as an orphan, if it is one (C18: one predicate for both forms).
    pub orphan: Option<OrphanPlace>,
    /// tid of the last change of any kind (T24).
    pub sync_tid: Tid,
    /// tid of the last change that fdatasync must wait for: size, mapping (T24).
    pub datasync_tid: Tid,
    /// Whether it has `security.capability`, once somebody looked.
    pub has_capability: Option<bool>,
    /// Somebody is deleting it.
    pub evicting: bool,
    /// Freed: no operation may revive it.
    pub deleted: bool,
}

/// An inode in memory.
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Its generation; with the number it names the inode for as long as it lives.
    pub generation: u32,
    /// F4.
    pub(crate) seed: u32,
    pub(crate) state: Mutex<InodeState>,
    /// The extent lock (i_data_sem): shared to look the map up, exclusive to change it.
    pub(crate) map_lock: RwLock<()>,
    pub(crate) extents: Mutex<KnownRuns>,
    /// Buffered data, made at the first buffered access.
    pub(crate) pages: OnceLock<PageCache>,
    /// What the journal may hold of its data.
    pub(crate) logged_data: LoggedData,
    /// Open files.
    pub(crate) opens: AtomicU32,
    /// Ranges that I/O under way keeps split off.
    pub(crate) apart: AtomicU32,
}

impl Inode {
    pub(crate) fn new(fs: &Fs, ino: Ino, disk: DiskInode) -> Self {
        let size = disk.size;
        // Its last change may still be on its way to the log (T24).
        let tid = fs.journal.newest_tid();
        Self {
            ino,
            generation: disk.generation,
            seed: inode_seed(fs.sealer.fs_seed, ino, disk.generation),
            state: Mutex::new(InodeState {
                disk,
                size,
                orphan: None,
                sync_tid: tid,
                datasync_tid: tid,
                has_capability: None,
                evicting: false,
                deleted: false,
            }),
            map_lock: RwLock::new(()),
            extents: Mutex::new(KnownRuns::new(STATUS_EXTENTS)),
            pages: OnceLock::new(),
            logged_data: fs.logged_data.inherited(),
            opens: AtomicU32::new(0),
            apart: AtomicU32::new(0),
        }
    }

    /// i_size.
    pub fn size(&self) -> u64 {
        self.state.lock().size
    }

    /// i_mode.
    pub fn mode(&self) -> u16 {
        self.state.lock().disk.mode
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.state.lock().disk.is_dir()
    }

    pub(crate) fn is_regular(&self) -> bool {
        self.state.lock().disk.is_reg()
    }

    pub(crate) fn is_symlink(&self) -> bool {
        self.state.lock().disk.is_symlink()
    }

    pub(crate) fn has_flag(&self, flag: u32) -> bool {
        self.state.lock().disk.flags & flag != 0
    }

    /// Its blocks are in a block map (F54), not in extents.
    pub fn is_bitmap_format(&self) -> bool {
        !self.has_flag(flags::EXTENTS) && !self.has_flag(flags::INLINE_DATA)
    }

    /// Whether i_block is the root of a map: not a device's number, a link's text or inline data.
    pub(crate) fn has_map(&self) -> bool {
        let state = self.state.lock();
        let disk = &state.disk;
        let of_type = disk.is_reg() || disk.is_dir() || disk.is_symlink() && !disk.is_fast_symlink();
        disk.has_flag(flags::EXTENTS) || of_type && !disk.has_flag(flags::INLINE_DATA)
    }

    /// What is in i_block, of an inode that has a map at all.
    pub(crate) fn map_root(&self) -> MapRoot {
        let state = self.state.lock();
        let root = state.disk.i_block;
        if state.disk.has_flag(flags::EXTENTS) { MapRoot::Extents(root) } else { MapRoot::Indirect(root) }
    }

    /// What extent operations need to know of their inode.
    pub(crate) fn tree_owner(&self, fs: &Fs) -> TreeOwner {
        TreeOwner {
            ino: self.ino,
            seed: self.seed,
            goal: fs.inode_goal(self.ino),
            blocks: fs.blocks_count,
            apart: self.apart.load(Ordering::Acquire) > 0,
        }
    }

    /// Refuses data of formats that are not built, instead of guessing (DESIGN, "Safety of volumes").
    pub(crate) fn check_data_supported(&self) -> Result<()> {
        const UNBUILT: [(u32, &str); 3] =
            [(flags::INLINE_DATA, "inline data"), (flags::ENCRYPT, "encryption"), (flags::VERITY, "verity")];
        let state = self.state.lock();
        for (flag, name) in UNBUILT {
            if state.disk.flags & flag != 0 {
                return Err(Error::refused(errno::EOPNOTSUPP, format!("inode {}: {name}", self.ino)));
            }
        }
        Ok(())
    }
}

impl OrderedFile for Inode {
    fn write_ordered(&self, range: Range<u64>) {
        if let Some(pages) = self.pages.get() {
            pages.write_ordered(range.start, range.end - range.start);
        }
    }
}

/// The root of one of the two maps from logical to physical blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapRoot {
    /// An extent tree (F58).
    Extents([u8; ROOT_SIZE]),
    /// A block map (F54).
    Indirect([u8; ROOT_SIZE]),
}

impl MapRoot {
    /// What `lblk` has; the caller holds the extent lock.
    pub fn lookup(&self, meta: &dyn Meta, owner: TreeOwner, lblk: Lblk) -> Result<Mapping> {
        match self {
            Self::Extents(root) => extents::lookup(meta, root, owner, lblk),
            Self::Indirect(root) => indirect::lookup(meta, root, owner, lblk),
        }
    }

    /// The first run that ends after `lblk`, from `lblk` on; the caller holds the extent lock.
    pub fn next_allocated(&self, meta: &dyn Meta, owner: TreeOwner, lblk: Lblk) -> Result<Option<Mapping>> {
        match self {
            Self::Extents(root) => extents::next_allocated(meta, root, owner, lblk),
            Self::Indirect(root) => indirect::next_allocated(meta, root, owner, lblk),
        }
    }
}

/// What a change of an inode means to fsync (T24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Size or mapping: fdatasync waits for it too.
    Data,
    /// Times, mode, link count.
    Attributes,
}

impl Handle<'_> {
    /// Changes an inode: in memory, and in its table block as part of this handle.
    pub(crate) fn change_inode<R>(
        &mut self,
        inode: &Inode,
        change: Change,
        f: impl FnOnce(&mut InodeState) -> R,
    ) -> Result<R> {
        let fs = self.fs();
        let (block, offset) = fs.allocator.inode_location(inode.ino)?;
        let tid = self.tid();
        let mut state = inode.state.lock();
        let result = f(&mut state);
        state.sync_tid = Tid(tid);
        if change == Change::Data {
            state.datasync_tid = Tid(tid);
        }
        state.disk.keep_stored_times();
        let bytes = state.disk.encode(&fs.geometry, inode.ino);
        self.update(block, BlockKind::Plain, &mut |image| {
            image[offset..offset + bytes.len()].copy_from_slice(&bytes);
        })?;
        Ok(result)
    }
}

/// How many inodes that nobody has open stay in memory.
const KEPT_INODES: usize = 4096;

/// Every inode in memory, by number.
pub(crate) struct InodeCache {
    live: Mutex<Live>,
    kept: quick_cache::sync::Cache<Ino, Arc<Inode>>,
}

struct Live {
    inodes: HashMap<Ino, Weak<Inode>>,
    /// At this many entries those of inodes that are gone are dropped: they keep memory.
    prune_at: usize,
}

impl Live {
    fn insert(&mut self, inode: &Arc<Inode>) {
        self.inodes.insert(inode.ino, Arc::downgrade(inode));
        if self.inodes.len() >= self.prune_at {
            self.inodes.retain(|_, weak| weak.strong_count() > 0);
            // Twice what is left: each insertion pays for one visit.
            self.prune_at = 2 * self.inodes.len().max(KEPT_INODES);
        }
    }
}

impl InodeCache {
    pub fn new() -> Self {
        let live = Live { inodes: HashMap::new(), prune_at: 2 * KEPT_INODES };
        Self { live: Mutex::new(live), kept: quick_cache::sync::Cache::new(KEPT_INODES) }
    }

    /// The inode, read from its table block if it is not in memory. ESTALE-like states are ENOENT: a free inode
    /// has no object.
    fn get(&self, fs: &Fs, ino: Ino) -> Result<Arc<Inode>> {
        if let Some(inode) = self.kept.get(&ino) {
            return Ok(inode);
        }
        let mut live = self.live.lock();
        if let Some(inode) = live.inodes.get(&ino).and_then(Weak::upgrade) {
            return Ok(inode);
        }
        let inode = Arc::new(Inode::new(fs, ino, fs.read_disk_inode(ino)?));
        live.insert(&inode);
        drop(live);
        self.kept.insert(ino, inode.clone());
        Ok(inode)
    }

    /// A newly allocated inode, which must not have an object yet.
    pub fn insert_new(&self, inode: Arc<Inode>) {
        self.live.lock().insert(&inode);
        self.kept.insert(inode.ino, inode);
    }

    /// The number was freed: the next user of it gets an object of its own.
    pub fn forget(&self, ino: Ino) {
        self.kept.remove(&ino);
        self.live.lock().inodes.remove(&ino);
    }

    /// Inodes that are in memory now.
    pub fn all(&self) -> Vec<Arc<Inode>> {
        self.live.lock().inodes.values().filter_map(Weak::upgrade).collect()
    }
}

/// What an inode is got for (EXT4_IGET_*): numbers come from the disk, and may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Iget {
    /// What names lead to: the root, and what is neither reserved nor the volume's own.
    Normal,
    /// The value of an extended attribute.
    Ea,
    /// The volume's own, by a number of the superblock.
    Special,
}

impl Fs {
    /// The inode of a number.
    ///
    /// # Errors
    /// EUCLEAN for a number outside the volume or not of this kind, for an inode that is damaged, and for one whose flag
    /// EA_INODE says that it is of another kind; ENOENT once it is deleted.
    pub(crate) fn iget(&self, ino: Ino, kind: Iget) -> Result<Arc<Inode>> {
        self.try_iget(ino, kind).inspect_err(|error| self.error_found(error, "iget"))
    }

    fn try_iget(&self, ino: Ino, kind: Iget) -> Result<Arc<Inode>> {
        if !self.may_be(ino, kind) {
            let corrupt = Corrupt::structure("inode number", "reserved, or outside the volume");
            return Err(Error::corrupt_inode(ino.0, corrupt));
        }
        let inode = self.inodes.get(self, ino)?;
        let (deleted, is_ea) = {
            let state = inode.state.lock();
            (state.deleted, state.disk.has_flag(flags::EA_INODE))
        };
        if is_ea != (kind == Iget::Ea) {
            let why = if is_ea { "the value of an attribute" } else { "no value of an attribute" };
            return Err(Error::corrupt_inode(ino.0, Corrupt::structure("inode", why)));
        }
        if deleted {
            return Err(Error::refused(errno::ENOENT, format!("inode {ino} is deleted")));
        }
        Ok(inode)
    }

    /// Whether an inode of this kind may have the number.
    pub(crate) fn may_be(&self, ino: Ino, kind: Iget) -> bool {
        let volume = &self.geometry;
        let own = [
            volume.usr_quota_inum,
            volume.grp_quota_inum,
            volume.prj_quota_inum,
            volume.orphan_file_inum,
            volume.journal_inum,
        ];
        let ordinary = ino == ROOT || ino.0 >= volume.first_ino() && !own.contains(&ino.0);
        ino >= ROOT && ino.0 <= volume.inodes_count && (ordinary || kind == Iget::Special)
    }

    /// Decodes an inode from its table. EUCLEAN if it is damaged, or its attributes lie on the volume's metadata (F27).
    fn read_disk_inode(&self, ino: Ino) -> Result<DiskInode> {
        let (block, offset) = self.allocator.inode_location(ino)?;
        let image = self.read_metadata(block, BlockKind::Plain)?;
        let bytes = &image[offset..offset + usize::from(self.geometry.inode_size())];
        let disk = DiskInode::decode(bytes, &self.geometry, ino)
            .map_err(|corrupt| Error::corrupt_inode(ino.0, corrupt))?;
        if disk.file_acl != 0 {
            self.check_data_blocks(ino, Pblk(disk.file_acl), 1)?;
        }
        Ok(disk)
    }

    /// The inode that a directory names. EUCLEAN for one that is free, or that no name may lead to.
    pub(crate) fn inode_of_entry(&self, ino: Ino) -> Result<Arc<Inode>> {
        let inode = self.iget(ino, Iget::Normal)?;
        let links = inode.state.lock().disk.links_count;
        if links == 0 && inode.opens.load(Ordering::Acquire) == 0 {
            let corrupt = Corrupt::structure("inode", "named by a directory, but free");
            return Err(Error::corrupt_inode(ino.0, corrupt));
        }
        Ok(inode)
    }

    /// A block pointer that a disk or a caller gave: inside the volume, or EUCLEAN.
    pub(crate) fn check_block(&self, block: Pblk) -> Result<()> {
        if block.0 < self.blocks_count {
            return Ok(());
        }
        Err(Error::corrupt_block(block.0, Corrupt::structure("block", "outside the volume")))
    }
}
