//! The block allocator: buddies per group, preallocation in memory, frees that wait for their commit (D10–D16).
//!
//! Bits, group counts and the buddy are in clusters; the interface is in blocks.

mod allocate;
mod buddy;
mod claim;
mod delayed;
mod free;
mod group;
mod preallocation;
mod split_claims;
mod zones;

#[cfg(test)]
mod kernel_cases;
#[cfg(test)]
mod real_volume;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod volume;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use block_io::sync::{Mutex, RwLock};
use ext4_format::features::incompat;
use ext4_format::{Corrupt, Group, GroupDesc, Pblk, Superblock};

pub use allocate::{Request, RequestKind, Run};
pub use buddy::Buddy;
pub(crate) use group::{GroupState, Slot};
pub(crate) use split_claims::{SplitClaim, Splitting};

use crate::meta::Image;
use crate::{Error, Result};
use free::Freed;
use preallocation::Preallocations;
use zones::SystemZones;

/// The allocator of a volume, for blocks and inodes. Threads share it. Each group has a lock, which is taken before
/// those of blocks; never are two held. Free clusters that a thread has in its hands are nobody's to find: whoever is about to say
/// that there are none waits until nobody has any (`hands`).
#[derive(Debug)]
pub struct Allocator {
    pub(crate) sb: Arc<Superblock>,
    slots: Vec<Slot>,
    zones: RwLock<SystemZones>,
    /// Free clusters as the descriptors count them.
    free: AtomicU64,
    /// Of those, what no running allocation has set its eyes on (D14).
    unclaimed: AtomicU64,
    /// Free clusters of groups whose bitmaps are damaged, counted as free, and used for nothing.
    condemned: AtomicU64,
    /// Set aside for data in memory that has no blocks yet. Not among the unclaimed ones.
    delayed: AtomicU64,
    /// Kept for the splits of conversions ([`SplitClaim`]). Not among the unclaimed ones.
    claimed: AtomicU64,
    pub(crate) free_inodes: AtomicU64,
    pub(crate) dirs: AtomicU64,
    /// D13, in the order of freeing.
    pending: Mutex<Vec<Freed>>,
    /// How often a commit has made frees allocatable.
    releases: AtomicU64,
    /// Shared by whoever has claimed clusters, or moves free ones between buddies, preallocations and what is pending; exclusive
    /// for a last search. Outside of all other locks here.
    hands: RwLock<()>,
    preallocations: Mutex<Preallocations>,
    damage: Mutex<Option<Error>>,
}

/// Volume-wide counts, for the superblock (F26) and statfs (F36).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Free blocks (not clusters), those that wait for a commit included.
    pub free_blocks: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Directories.
    pub dirs: u64,
}

impl Allocator {
    /// Reads and verifies all group descriptors. EBADMSG, EUCLEAN: a bad checksum, metadata outside the volume or
    /// upon other metadata.
    pub fn load(sb: Arc<Superblock>, read_block: &dyn Fn(Pblk) -> Result<Image>) -> Result<Self> {
        let ratio = 1u64 << sb.cluster_bits();
        if !(sb.blocks_count() - u64::from(sb.first_data_block)).is_multiple_of(ratio) {
            let corrupt = Corrupt::structure("superblock", "the last cluster is cut off");
            return Err(Error::corrupt_block(sb.super_block().0, corrupt));
        }
        let groups = sb.group_count();
        // Grows with what is verified: the number of groups alone proves nothing.
        let mut descs = Vec::new();
        let mut current: Option<(Pblk, Image)> = None;
        for group in (0..groups).map(Group) {
            let (block, offset) = sb.desc_location(group);
            if current.as_ref().is_none_or(|(at, _)| *at != block) {
                current = Some((block, read_block(block)?));
            }
            let (_, image) = current.as_ref().expect("just read");
            let desc = GroupDesc::decode(&image[offset..offset + sb.desc_size()], &sb, group);
            descs.push(desc.map_err(|corrupt| Error::corrupt_block(block.0, corrupt))?);
        }
        let zones = SystemZones::of_volume(&sb, &descs)
            .map_err(|corrupt| Error::corrupt_block(sb.super_block().0, corrupt))?;
        let sum =
            |count: &dyn Fn(&GroupDesc) -> u32| descs.iter().map(|desc| u64::from(count(desc))).sum::<u64>();
        let free = sum(&|desc| desc.free_clusters);
        Ok(Self {
            free: free.into(),
            unclaimed: free.into(),
            condemned: 0.into(),
            delayed: 0.into(),
            claimed: 0.into(),
            free_inodes: sum(&|desc| desc.free_inodes).into(),
            dirs: sum(&|desc| desc.used_dirs).into(),
            slots: descs.into_iter().map(Slot::new).collect(),
            zones: RwLock::new(zones),
            pending: Mutex::default(),
            releases: 0.into(),
            hands: RwLock::default(),
            preallocations: Mutex::default(),
            damage: Mutex::default(),
            sb,
        })
    }

    /// Counts for superblock and statfs.
    pub fn totals(&self) -> Totals {
        Totals {
            free_blocks: self.free_clusters() << self.sb.cluster_bits(),
            free_inodes: self.free_inodes.load(Relaxed),
            dirs: self.dirs.load(Relaxed),
        }
    }

    /// Free clusters as the descriptors count them: those that wait for a commit included.
    pub fn free_clusters(&self) -> u64 {
        self.free.load(Relaxed).saturating_sub(self.condemned.load(Relaxed))
    }

    /// D14, F36: clusters kept for unwritten conversion and removal.
    pub fn reserved_clusters(&self) -> u64 {
        if !self.sb.features().has_incompat(incompat::EXTENTS) {
            return 0;
        }
        let clusters = self.sb.blocks_count() >> self.sb.cluster_bits();
        (clusters / 50).min(4096)
    }

    /// Adds blocks that are never data, such as the journal's (F27).
    pub fn add_system_zone(&self, start: Pblk, len: u64) {
        self.zones.write().add(start.0, len);
    }

    /// F27: whether a run of blocks touches metadata of the volume.
    pub fn metadata_zone(&self, start: Pblk, len: u64) -> bool {
        self.zones.read().overlap(start.0, len)
    }

    /// The first damage found since the last call, for the volume's `errors=` policy. A search steps over damaged
    /// groups and so may succeed all the same.
    pub fn take_damage(&self) -> Option<Error> {
        self.damage.lock().take()
    }

    pub(crate) fn note_damage(&self, error: &Error) {
        self.damage.lock().get_or_insert_with(|| error.clone());
    }

    pub(crate) fn slot(&self, group: Group) -> &Slot {
        &self.slots[group.0 as usize]
    }

    pub(crate) fn group_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Group and cluster of a block of the volume that is in a group.
    fn cluster_of(&self, block: Pblk) -> Option<(Group, u32)> {
        let group = self.sb.group_of_block(block)?;
        Some((group, ((block.0 - self.sb.group_first_block(group).0) as u32) >> self.sb.cluster_bits()))
    }

    /// The first block of a cluster.
    fn block_of(&self, group: Group, cluster: u32) -> Pblk {
        Pblk(self.sb.group_first_block(group).0 + (u64::from(cluster) << self.sb.cluster_bits()))
    }
}
