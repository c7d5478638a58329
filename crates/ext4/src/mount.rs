//! Mount and unmount: from a device to a running file system, and back to a clean volume.

use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Arc, OnceLock};

use block_io::sync::{Mutex, RwLock};
use block_io::{Device, NoBarrierDevice};
use ext4_format::features::{compat, incompat, ro_compat};
use ext4_format::hash::HashVersion;
use ext4_format::superblock::state;
use ext4_format::{Access, Corrupt, Ino, Lblk, Pblk, Superblock, block_map, hash, mount_policy, orphan};
use jbd2::{Journal, mutant};

use crate::block_cache::BlockCache;
use crate::error_policy::ErrorPolicy;
use crate::extents::MapState;
use crate::flusher_state::Flusher;
use crate::fs::{Fs, OrphanFile, Orphans, WrittenBefore};
use crate::inode::{Iget, Inode, InodeCache};
use crate::journal_host::JournalHost;
use crate::journal_inode;
use crate::logged_data::{DataMode, LoggedData};
use crate::mballoc::Allocator;
use crate::mmp::MmpClaim;
use crate::mount_options::{MountOptions, MountReport};
use crate::ordered::OrderedData;
use crate::overlay::Overlay;
use crate::seal::Sealer;
use crate::superblock_io::{
    SUPERBLOCK_OFFSET, has_journal, has_metadata_csum, mark_mounted, needs_recovery, read_start,
    read_superblock, write_superblock_directly,
};
use crate::{Error, Result, errno, superblock_in_log};

/// The superblock to mount by: the device's, or the log's copy where a checkpoint tore it (EP7 (2)).
fn superblock_to_mount(device: &Arc<dyn Device>, journal: Option<&Arc<dyn Device>>) -> Result<Superblock> {
    let damage = match read_superblock(device.as_ref()) {
        Err(damage @ Error::Corrupt { corrupt: Corrupt::Checksum { .. }, .. }) => damage,
        other => return other,
    };
    let start = read_start(device.as_ref())?;
    match superblock_in_log::from_log(device, journal, &start[SUPERBLOCK_OFFSET..]) {
        Ok(Some(superblock)) => Ok(superblock),
        Ok(None) | Err(_) => Err(damage),
    }
}

impl Fs {
    /// Mounts the volume on `device`: replays its journal, processes its orphans, and is then ready.
    ///
    /// # Errors
    /// Those of [`read_superblock`]; EOPNOTSUPP for a feature that no mount supports; EROFS for one that
    /// forbids writing, and for a read-only device, unless `read_only` is asked for; EINVAL where a journal's
    /// device is missing or wrong, and for `noload` without `read_only`; EOPNOTSUPP for `dax` where the CPU does not reach
    /// the device.
    pub fn mount(device: Arc<dyn Device>, options: &MountOptions) -> Result<(Arc<Self>, MountReport)> {
        if options.noload && !options.read_only {
            return Err(Error::refused(errno::EINVAL, "noload needs a read-only mount"));
        }
        let with_barrier = |device: Arc<dyn Device>| match options.barrier {
            true => device,
            false => Arc::new(NoBarrierDevice::new(device)) as Arc<dyn Device>,
        };
        let device = with_barrier(device);
        let journal_device = options.journal_device.clone().map(with_barrier);
        let options = &MountOptions { journal_device, ..options.clone() };
        let superblock = superblock_to_mount(&device, options.journal_device.as_ref())?;
        let read_only = check_access(&superblock, device.as_ref(), options.read_only)?;
        if options.dax && !read_only && device.dax().is_none() {
            return Err(Error::refused(errno::EOPNOTSUPP, "the device is not in memory"));
        }
        let device: Arc<dyn Device> = if read_only { Arc::new(Overlay::new(device)) } else { device };
        let mmp = if read_only { None } else { MmpClaim::take(&device, &superblock, &options.mmp_wishes())? };
        let mounted = Self::mount_claimed(device, superblock, read_only, options);
        match mounted {
            Ok((mut fs, report)) => {
                *fs.mmp.get_mut() = mmp;
                Ok((Arc::new(fs), report))
            }
            Err(error) => {
                // The first failure is the one to tell.
                let _released = mmp.map(|claim| claim.release());
                Err(error)
            }
        }
    }

    fn mount_claimed(
        device: Arc<dyn Device>,
        superblock: Superblock,
        read_only: bool,
        options: &MountOptions,
    ) -> Result<(Self, MountReport)> {
        let journal_device = match (&options.journal_device, read_only) {
            (Some(journal), true) => Some(Arc::new(Overlay::new(journal.clone())) as Arc<dyn Device>),
            (Some(journal), false) if journal.limits().read_only => {
                return Err(Error::refused(errno::EROFS, "the journal's device is read-only"));
            }
            (journal, _) => journal.clone(),
        };
        let options = &MountOptions { journal_device, ..options.clone() };
        let mut report = MountReport::default();
        let mut last_commit_seconds = 0;
        let superblock = match has_journal(&superblock) {
            true if options.noload => superblock,
            true => {
                let recovered = journal_inode::recover(&device, &superblock, options)?;
                report.transactions_replayed = recovered.transactions;
                report.blocks_replayed = recovered.blocks;
                report.copies_revoked = recovered.revoked;
                report.fast_commits = recovered.fast_commits;
                last_commit_seconds = recovered.last_commit_seconds;
                if mutant(22) { superblock } else { read_superblock(device.as_ref())? }
            }
            false if needs_recovery(&superblock) => {
                let corrupt = Corrupt::structure("superblock", "needs recovery, but has no journal");
                return Err(Error::Corrupt { place: "superblock".into(), corrupt });
            }
            false => superblock,
        };
        journal_inode::check_root(&device, &superblock)?;
        let mut fs = Self::assemble(device, superblock, read_only, last_commit_seconds, options)?;
        report.first_tid = fs.next_tid();
        fs.load_orphan_file_blocks()?;
        if !read_only {
            report.orphans = fs.process_orphans(options.orphans_despite_errors)?;
            fs.record_mount()?;
            fs.take_over_abort()?;
        } else {
            fs.reads_overlay = report.transactions_replayed > 0 || report.fast_commits > 0;
        }
        Ok((fs, report))
    }

    /// R15: the volume remembers an abort that the journal knows of, then the journal forgets it. Through the log: a torn
    /// superblock could not be repaired (EP7).
    fn take_over_abort(&self) -> Result<()> {
        if self.journal.recorded_errno() == 0 {
            return Ok(());
        }
        self.with_handle(4, |handle| {
            self.change_superblock(handle, |superblock| superblock.state |= state::ERROR)
        })?;
        self.journal.commit_running()?;
        Ok(self.journal.clear_errno()?)
    }

    pub(crate) fn assemble(
        device: Arc<dyn Device>,
        superblock: Superblock,
        read_only: bool,
        last_commit_seconds: u64,
        options: &MountOptions,
    ) -> Result<Self> {
        let block_size = superblock.block_size() as usize;
        let cache = Arc::new(BlockCache::new(device.clone(), block_size, options.metadata_cache_bytes));
        let sealer = Sealer {
            fs_seed: superblock.fs_seed(),
            has_csum: has_metadata_csum(&superblock),
            superblock_offset: if block_size == SUPERBLOCK_OFFSET { 0 } else { SUPERBLOCK_OFFSET },
        };
        let host = Arc::new(JournalHost {
            cache: cache.clone(),
            sealer,
            clock: options.clock.clone(),
            allocator: OnceLock::new(),
            aborted: AtomicI32::new(0),
            ordered: OrderedData::default(),
            errors: ErrorPolicy::new(device.clone(), &superblock, options.errors, options.clock.clone()),
        });
        let allocator =
            Arc::new(Allocator::load(Arc::new(superblock.clone()), &|block| cache.read_device(block))?);
        if superblock.features().has_incompat(incompat::MMP) {
            allocator.add_system_zone(Pblk(superblock.mmp_block), 1);
        }
        host.allocator.set(allocator.clone()).unwrap_or_else(|_| unreachable!("set once"));
        if !read_only && !mutant(21) {
            write_superblock_directly(device.as_ref(), mark_mounted)?;
        }
        let config = jbd2::Config {
            commit_interval_ms: options.commit_interval_ms,
            last_commit_seconds,
            ..jbd2::Config::default()
        };
        let journal = match has_journal(&superblock) && !options.noload {
            true => {
                let map = journal_inode::log_map(&device, &superblock, options.journal_device.as_ref())?;
                let mut block = 0;
                while let Some((start, len)) = map.run(block).filter(|_| !map.is_external()) {
                    if allocator.metadata_zone(Pblk(start), len.into()) {
                        let corrupt = Corrupt::structure("journal", "lies on fixed metadata");
                        return Err(Error::corrupt_block(start, corrupt));
                    }
                    allocator.add_system_zone(Pblk(start), len.into());
                    block += len;
                }
                journal_inode::open(&device, &superblock, map, config, host.clone())?
            }
            false => Journal::without_log(device.clone(), block_size, config, host.clone()),
        };
        let data_mode = match (options.data, journal.has_log()) {
            (Some(_), false) if !read_only => {
                return Err(Error::refused(errno::EINVAL, "data= on a volume without a journal"));
            }
            (mode, _) => mode.unwrap_or_else(|| DataMode::of_superblock(&superblock)),
        };
        let written_before = WrittenBefore {
            kbytes: superblock.kbytes_written,
            bytes: device.io_totals().map_or(0, |totals| totals.bytes_written),
        };
        let was_clean = superblock.state & state::VALID != 0;
        let mut superblock = superblock;
        if !read_only {
            mark_mounted(&mut superblock);
        }
        Ok(Self {
            block_size,
            blocks_count: superblock.blocks_count(),
            sealer,
            geometry: Arc::new(superblock.clone()),
            hash_version: HashVersion::from_stored(
                superblock.def_hash_version,
                hash::uses_unsigned_chars(superblock.flags),
            )
            .map_err(|corrupt| Error::Corrupt { place: "superblock".into(), corrupt })?,
            superblock: Mutex::new(superblock),
            journal,
            host,
            dax: options.dax && device.dax().is_some(),
            cache,
            allocator,
            inodes: InodeCache::new(),
            orphans: Mutex::new(Orphans::default()),
            xattr_counts: Mutex::new(()),
            namespace: RwLock::new(()),
            xattrs: RwLock::new(()),
            clock: options.clock.clone(),
            cancel: options.cancel.clone(),
            page_budget: Arc::new(iomap::CacheBudget::new(options.page_cache_bytes, options.dirty_ratio)),
            flusher: Flusher::new(options.write_back_age_ms),
            data_mode,
            dioread_nolock: options.dioread_nolock,
            logged_data: LoggedData::default(),
            read_only: AtomicBool::new(read_only),
            reads_overlay: false,
            released_frozen: Mutex::default(),
            evictions: RwLock::default(),
            mmp: Mutex::new(None),
            was_clean,
            written_before,
            shut_down: AtomicBool::new(false),
            device,
        })
    }

    /// O2: the blocks of the orphan file, and how many slots of each are free.
    pub(crate) fn load_orphan_file_blocks(&self) -> Result<()> {
        let (number, on) = {
            let superblock = self.superblock.lock();
            (superblock.orphan_file_inum, superblock.features().has_compat(compat::ORPHAN_FILE))
        };
        if !on {
            return Ok(());
        }
        let inode = self.iget(Ino(number), Iget::Special)?;
        inode.check_data_supported()?;
        let count = inode.size() / self.block_size as u64;
        let mut file = OrphanFile { seed: inode.seed, blocks: Vec::new(), free: Vec::new() };
        let mut lblk = 0;
        while u64::from(lblk) < count {
            let mapping = self.map_lookup(&inode, Lblk(lblk), (count - u64::from(lblk)) as u32)?;
            if mapping.state != MapState::Written || count > 1 << 16 {
                let corrupt = Corrupt::structure("orphan file", "has holes, or is too large");
                return Err(Error::corrupt_inode(number, corrupt));
            }
            for block in mapping.start.0..mapping.start.0 + u64::from(mapping.len) {
                let image =
                    self.read_metadata(Pblk(block), crate::meta::BlockKind::OrphanFile { seed: file.seed })?;
                let slots = orphan::slots(image.len());
                file.free.push((0..slots).filter(|&slot| orphan::slot(&image, slot) == 0).count());
                file.blocks.push(Pblk(block));
            }
            lblk += mapping.len;
        }
        self.orphans.lock().file = Some(file);
        Ok(())
    }

    /// EP5, through the journal.
    pub(crate) fn record_mount(&self) -> Result<()> {
        let now = self.clock.now().sec;
        self.with_handle(4, |handle| {
            self.change_superblock(handle, |superblock| {
                superblock.set_mtime(now.max(0) as u64);
                superblock.mnt_count = superblock.mnt_count.saturating_add(1);
                settle_hash_flags(superblock);
            })
        })
    }

    /// The longest file that an extent tree and i_blocks allow (A5), in bytes.
    pub fn max_file_bytes(&self) -> u64 {
        let countable = block_map::max_i_blocks(self.block_size, &self.geometry.features());
        countable.min(u64::from(u32::MAX)) * self.block_size as u64
    }

    /// The longest that this file may get with the map it has (A5), in bytes.
    pub fn max_bytes(&self, inode: &Inode) -> u64 {
        if !inode.is_bitmap_format() {
            return self.max_file_bytes();
        }
        block_map::max_bytes(self.block_size, &self.geometry.features()).min(self.max_file_bytes())
    }

    /// Generations are random per allocation (F4 table), so that a reused number has another seed.
    pub(crate) fn next_generation(&self) -> u32 {
        uuid::Uuid::new_v4().as_u128() as u32
    }
}

/// F74: a volume that does not say how its names were hashed gets the sign of this host's char, as the kernel does.
fn settle_hash_flags(superblock: &mut Superblock) {
    const EITHER: u32 = hash::FLAGS_SIGNED_HASH | hash::FLAGS_UNSIGNED_HASH;
    if superblock.flags & EITHER == 0 {
        let unsigned = hash::uses_unsigned_chars(superblock.flags);
        superblock.flags |= if unsigned { hash::FLAGS_UNSIGNED_HASH } else { hash::FLAGS_SIGNED_HASH };
    }
}

pub(crate) fn check_access(superblock: &Superblock, device: &dyn Device, read_only: bool) -> Result<bool> {
    let access = mount_policy(&superblock.features())
        .map_err(|refusal| Error::refused(errno::EOPNOTSUPP, refusal.to_string()))?;
    let lbs = device.limits().logical_block_bytes as usize;
    if (superblock.block_size() as usize) < lbs {
        let detail = format!("blocks of {} bytes on a device with sectors of {lbs}", superblock.block_size());
        return Err(Error::refused(errno::EINVAL, detail));
    }
    check_creator(superblock)?;
    match access {
        Access::ReadWrite if read_only => Ok(true),
        Access::ReadWrite if device.limits().read_only => {
            Err(Error::refused(errno::EROFS, "the device is read-only"))
        }
        Access::ReadWrite => Ok(false),
        Access::ReadOnly(_) if read_only => Ok(true),
        Access::ReadOnly(reason) => Err(Error::refused(errno::EROFS, reason.to_string())),
    }
}

/// EINVAL for what the kernel refuses of a superblock's claims about its inodes: the Hurd's have other things where 64-bit
/// block numbers and attribute inodes are, and fields past 0x80 must lie within the inode.
fn check_creator(superblock: &Superblock) -> Result<()> {
    const HURD: u32 = 1;
    const FIXED_BYTES: u16 = 128;
    let features = superblock.features();
    let refused = |detail: String| Err(Error::refused(errno::EINVAL, detail));
    for (bit, name) in [(incompat::BIT64, "64bit"), (incompat::EA_INODE, "ea_inode")] {
        if superblock.creator_os == HURD && features.has_incompat(bit) {
            return refused(format!("a volume of the Hurd with {name}"));
        }
    }
    let room = superblock.inode_size().saturating_sub(FIXED_BYTES);
    let sizes = [
        ("s_want_extra_isize", superblock.want_extra_isize),
        ("s_min_extra_isize", superblock.min_extra_isize),
    ];
    for (name, size) in sizes {
        if room > 0 && features.has_ro_compat(ro_compat::EXTRA_ISIZE) && size > room {
            return refused(format!("{name} of {size} bytes in inodes of {}", superblock.inode_size()));
        }
    }
    Ok(())
}
