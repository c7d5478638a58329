//! The journal, in the volume or on its own device: found and read before anything else is mounted (J2, J28).

use std::ops::Range;
use std::sync::Arc;

use block_io::{AlignedBuf, Device};
use ext4_format::checksum::inode_seed;
use ext4_format::features::{compat, incompat};
use ext4_format::inode::{flags, special::ROOT};
use ext4_format::superblock::state;
use ext4_format::{Corrupt, GroupDesc, Ino, Inode as DiskInode, Lblk, Pblk, Superblock};
use jbd2::recovery::{self, RecoverOptions, Rest};
use jbd2::{Journal, LogExtent, LogMap, mutant};

use crate::block_cache::BlockCache;
use crate::extents::{MapState, Mapping, TreeOwner};
use crate::fast_commit::{self, FastCommits};
use crate::inode::MapRoot;
use crate::journal_host::JournalHost;
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::seal::Sealer;
use crate::superblock_io::{SUPERBLOCK_OFFSET, has_metadata_csum, needs_recovery, read_start};
use crate::{Error, MountOptions, Result, errno};

/// Reads blocks straight from the device, before there are caches and a journal.
struct RawReader {
    cache: BlockCache,
    sealer: Sealer,
    block_size: usize,
    blocks_count: u64,
}

impl RawReader {
    fn new(device: &Arc<dyn Device>, superblock: &Superblock) -> Self {
        let block_size = superblock.block_size() as usize;
        Self {
            cache: BlockCache::new(device.clone(), block_size, 1 << 20),
            sealer: Sealer {
                fs_seed: superblock.fs_seed(),
                has_csum: has_metadata_csum(superblock),
                superblock_offset: 0,
            },
            block_size,
            blocks_count: superblock.blocks_count(),
        }
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::refused(errno::EROFS, "nothing is mounted yet"))
}

impl Meta for RawReader {
    fn block_size(&self) -> usize {
        self.block_size
    }

    fn tid(&self) -> u32 {
        0
    }

    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        if block.0 >= self.blocks_count {
            return Err(Error::corrupt_block(block.0, Corrupt::structure("block", "outside the volume")));
        }
        let image = self.cache.read_device(block)?;
        self.sealer.verify(block, kind, &image)?;
        Ok(image)
    }

    fn update(&mut self, _block: Pblk, _kind: BlockKind, _change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        refused()
    }

    fn create(&mut self, _block: Pblk, _kind: BlockKind, _fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        refused()
    }

    fn allocate_block(&mut self, _owner: BlockOwner) -> Result<Pblk> {
        refused()
    }

    fn free_block(&mut self, _block: Pblk, _owner: Ino) -> Result<()> {
        refused()
    }

    fn free_data(&mut self, _start: Pblk, _len: u32, _owner: Ino) -> Result<()> {
        refused()
    }

    fn ensure_credits(&mut self, _credits: u32) -> Result<bool> {
        refused()
    }
}

/// Where each block of the log lies. `journal`: the device given for it.
///
/// # Errors
/// EINVAL where a journal's device is missing, is another volume's, or is given but not asked for. EUCLEAN: J2.
pub(crate) fn log_map(
    device: &Arc<dyn Device>,
    superblock: &Superblock,
    journal: Option<&Arc<dyn Device>>,
) -> Result<LogMap> {
    let refused = |detail: &str| Err(Error::refused(errno::EINVAL, detail));
    let external = superblock.journal_uuid != [0; 16] || superblock.journal_dev != 0;
    match (superblock.journal_inum, journal) {
        (0, _) if !external => refused("it has a journal, but says nowhere where"),
        (0, None) => {
            let uuid = uuid::Uuid::from_bytes(superblock.journal_uuid);
            refused(&format!("its journal is on another device, which was not given: UUID {uuid}"))
        }
        (0, Some(journal)) => external_log_map(superblock, journal),
        (_, Some(_)) => refused("a device for the journal was given, but it has one inside"),
        (_, None) if superblock.journal_dev != 0 => refused("two journals, one inside and one outside"),
        (ino, None) => internal_log_map(device, superblock, Ino(ino)),
    }
}

/// J28.
fn external_log_map(superblock: &Superblock, journal: &Arc<dyn Device>) -> Result<LogMap> {
    const S_MAGIC: usize = 0x38;
    const S_LOG_BLOCK_SIZE: usize = 0x18;
    const S_FEATURE_INCOMPAT: usize = 0x60;
    const S_UUID: usize = 0x68;
    let refused = |detail: &str| Err(Error::refused(errno::EINVAL, format!("the journal's device {detail}")));
    let limits = journal.limits();
    if limits.logical_block_bytes > superblock.block_size() || limits.size_bytes < 4096 {
        return refused("is too small, or has sectors larger than a block");
    }
    let mut start = AlignedBuf::zeroed(4096);
    journal.read(0, &mut start)?;
    // Its geometry is none of a volume, so it is not decoded as one.
    let own = &start[1024..2048];
    let le32 = |at: usize| u32::from_le_bytes([own[at], own[at + 1], own[at + 2], own[at + 3]]);
    if own[S_MAGIC..S_MAGIC + 2] != Superblock::MAGIC.to_le_bytes()
        || le32(S_FEATURE_INCOMPAT) & incompat::JOURNAL_DEV == 0
    {
        return refused("is none");
    }
    if own[S_UUID..S_UUID + 16] != superblock.journal_uuid {
        return refused("is another journal");
    }
    if 1024u32.checked_shl(le32(S_LOG_BLOCK_SIZE)) != Some(superblock.block_size()) {
        return refused("has another block size");
    }
    Ok(LogMap::external(journal.clone(), superblock.block_size() as usize, superblock.uuid)?)
}

/// J2.
fn internal_log_map(device: &Arc<dyn Device>, superblock: &Superblock, ino: Ino) -> Result<LogMap> {
    let reader = RawReader::new(device, superblock);
    let disk = read_inode(&reader, superblock, ino)?;
    let corrupt = |detail: &str| Error::corrupt_inode(ino.0, Corrupt::structure("journal inode", detail));
    if disk.links_count == 0 || !disk.is_reg() || disk.flags & flags::ENCRYPT != 0 {
        return Err(corrupt("free, not a regular file, or encrypted"));
    }
    let blocks =
        u32::try_from(disk.size / u64::from(superblock.block_size())).map_err(|_| corrupt("too large"))?;
    let owner = TreeOwner {
        ino,
        seed: inode_seed(superblock.fs_seed(), ino, disk.generation),
        goal: Pblk(0),
        blocks: superblock.blocks_count(),
        apart: false,
    };
    let root = match disk.has_flag(flags::EXTENTS) {
        true => MapRoot::Extents(disk.i_block),
        false => MapRoot::Indirect(disk.i_block),
    };
    let runs = map_whole_file(&reader, &root, owner, blocks)?;
    debug_assert!(runs.iter().all(|run| run.state == MapState::Written));
    let inside = |run: &Mapping| run.start.0 + u64::from(run.len) <= superblock.blocks_count();
    if blocks == 0 || !runs.iter().all(inside) {
        return Err(corrupt("empty, or outside the volume"));
    }
    let extent = |run: Mapping| LogExtent { log_start: run.lblk.0, len: run.len, device_block: run.start.0 };
    Ok(LogMap::new(runs.into_iter().map(extent).collect())?)
}

/// The root must be a directory that is there: without it there is nothing to mount, and nothing is written. Asked once the
/// journal is replayed.
pub(crate) fn check_root(device: &Arc<dyn Device>, superblock: &Superblock) -> Result<()> {
    let disk = read_inode(&RawReader::new(device, superblock), superblock, ROOT)?;
    let blocks = disk.blocks > 0 || disk.has_flag(flags::INLINE_DATA);
    if disk.links_count > 0 && disk.is_dir() && disk.size > 0 && blocks {
        return Ok(());
    }
    let corrupt = Corrupt::structure("root inode", "free, empty, or not a directory");
    Err(Error::corrupt_inode(ROOT.0, corrupt))
}

fn read_inode(reader: &RawReader, superblock: &Superblock, ino: Ino) -> Result<DiskInode> {
    let Some(location) = superblock.inode_location(ino) else {
        return Err(Error::corrupt_inode(ino.0, Corrupt::structure("superblock", "inode out of range")));
    };
    let (block, offset) = superblock.desc_location(location.group);
    let image = reader.read(block, BlockKind::Plain)?;
    let desc = GroupDesc::decode(&image[offset..offset + superblock.desc_size()], superblock, location.group)
        .map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?;
    let block = Pblk(desc.inode_table.saturating_add(u64::from(location.table_block)));
    let image = reader.read(block, BlockKind::Plain)?;
    let offset = location.offset_bytes as usize;
    DiskInode::decode(&image[offset..offset + usize::from(superblock.inode_size())], superblock, ino)
        .map_err(|corrupt| Error::corrupt_inode(ino.0, corrupt))
}

/// What recovery means to the mount.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Replayed {
    /// Transactions written home.
    pub transactions: u32,
    /// Blocks written home.
    pub blocks: u64,
    /// Copies that were revoked.
    pub revoked: u64,
    /// Fast commits that followed.
    pub fast_commits: u32,
    /// J20: no later commit may bear an earlier time.
    pub last_commit_seconds: u64,
}

/// Replays what the journal holds, if the volume says that it needs it; else a log that is there is void (R1).
pub(crate) fn recover(
    device: &Arc<dyn Device>,
    superblock: &Superblock,
    mount: &MountOptions,
) -> Result<Replayed> {
    let map = log_map(device, superblock, mount.journal_device.as_ref())?;
    let block_size = superblock.block_size() as usize;
    let options = RecoverOptions {
        volume_blocks: superblock.blocks_count(),
        write_bytes: jbd2::Config::default().write_bytes,
    };
    let is_dirty = needs_recovery(superblock);
    if !is_dirty {
        recovery::discard(device.as_ref(), block_size, &map)?;
    }
    let keeper = SuperblockKeeper::read(device.as_ref(), block_size)?;
    let mut patch = |home, image: &mut [u8]| keeper.patch(home, image);
    let plan = recovery::plan(device.as_ref(), block_size, &map, &options)?;
    let commits = match plan.fast_commits(device.as_ref(), &map) {
        Some((tid, blocks)) => fast_commit::scan(superblock, tid, blocks)?,
        None => None,
    };
    let rest = if commits.is_some() { Rest::FastCommits } else { Rest::Empty };
    let recovered = plan.carry_out(device.as_ref(), &map, &options, rest, &mut patch)?;
    if let Some(commits) = &commits {
        replay_fast_commits(device, map.clone(), mount, commits, recovered.last_commit_seconds)?;
    }
    Ok(match is_dirty {
        true => Replayed {
            transactions: recovered.transactions,
            blocks: recovered.blocks,
            revoked: recovered.revoked,
            fast_commits: commits.map_or(0, |commits| commits.count),
            last_commit_seconds: recovered.last_commit_seconds,
        },
        false => Replayed::default(),
    })
}

/// R24, R25: the log is home; what the fast commits add to it goes the same way, as a full commit.
fn replay_fast_commits(
    device: &Arc<dyn Device>,
    map: LogMap,
    mount: &MountOptions,
    commits: &FastCommits,
    last_commit_seconds: u64,
) -> Result<()> {
    let superblock = crate::read_superblock(device.as_ref())?;
    let blocks = fast_commit::replay(device, &superblock, &map, &mount.clock, commits)?;
    let now = mount.clock.now();
    let now = (now.sec.max(0) as u64, now.nsec).max((last_commit_seconds, 0));
    Ok(recovery::commit_fast(device, superblock.block_size() as usize, map, &blocks, now)?)
}

/// R14: what a logged copy of the superblock must not undo, for it was written outside the journal.
struct SuperblockKeeper {
    block: u64,
    offset: usize,
    on_disk: Vec<u8>,
}

impl SuperblockKeeper {
    const S_MAGIC: usize = 0x38;
    const S_STATE: usize = 0x3A;
    const S_FEATURE_INCOMPAT: usize = 0x60;
    /// The error fields.
    const ERRORS: Range<usize> = 0x194..0x200;
    /// What was added to them later.
    const ERROR_TIMES_AND_CODES: Range<usize> = 0x278..0x27C;

    fn read(device: &dyn Device, block_size: usize) -> Result<Self> {
        let on_disk = read_start(device)?[SUPERBLOCK_OFFSET..2 * SUPERBLOCK_OFFSET].to_vec();
        let block = (SUPERBLOCK_OFFSET / block_size) as u64;
        Ok(Self { block, offset: SUPERBLOCK_OFFSET % block_size, on_disk })
    }

    /// `image` is what goes home to `home`: error fields and ERROR stay as they are on the disk, if newer; RECOVER is set,
    /// for the log is needed until it is marked empty.
    fn patch(&self, home: u64, image: &mut [u8]) {
        if home != self.block {
            return;
        }
        let bytes = &mut image[self.offset..self.offset + Superblock::SIZE];
        if bytes[Self::S_MAGIC..Self::S_MAGIC + 2] != Superblock::MAGIC.to_le_bytes() {
            return; // No superblock: reading it again will say so.
        }
        // Written beside the journal they are newer than the log, written through it they may be older (EP2).
        let count = |bytes: &[u8]| {
            let field = &bytes[Self::ERRORS.start..Self::ERRORS.start + 4];
            u32::from_le_bytes(field.try_into().expect("four bytes"))
        };
        if count(&self.on_disk) >= count(bytes) && !mutant(23) {
            for fields in [Self::ERRORS, Self::ERROR_TIMES_AND_CODES] {
                bytes[fields.clone()].copy_from_slice(&self.on_disk[fields]);
            }
        }
        bytes[Self::S_STATE] |= self.on_disk[Self::S_STATE] & state::ERROR as u8;
        bytes[Self::S_FEATURE_INCOMPAT] |= incompat::RECOVER as u8;
        Superblock::seal(bytes);
    }
}

/// Attaches to the journal, which is clean or was just recovered (J8).
pub(crate) fn open(
    device: &Arc<dyn Device>,
    superblock: &Superblock,
    map: LogMap,
    config: jbd2::Config,
    host: Arc<JournalHost>,
) -> Result<Arc<Journal>> {
    let features = jbd2::Features {
        wide: superblock.features().has_incompat(incompat::BIT64),
        csum_v3: has_metadata_csum(superblock),
        fast_commit: superblock.features().has_compat(compat::FAST_COMMIT),
    };
    Ok(Journal::open(device.clone(), superblock.block_size() as usize, map, features, config, host)?)
}

/// Where the blocks of the journal or of another fixed inode lie, before anything is mounted.
fn map_whole_file(meta: &dyn Meta, root: &MapRoot, owner: TreeOwner, blocks: u32) -> Result<Vec<Mapping>> {
    let mut runs = Vec::new();
    let mut lblk = 0;
    while lblk < blocks {
        let mut mapping = root.lookup(meta, owner, Lblk(lblk))?;
        if mapping.state != MapState::Written {
            let corrupt = Corrupt::structure("journal", format!("no written block at {lblk}"));
            return Err(Error::corrupt_inode(owner.ino.0, corrupt));
        }
        mapping.len = mapping.len.min(blocks - lblk);
        lblk += mapping.len;
        runs.push(mapping);
    }
    Ok(runs)
}
