//! One group: its descriptor, its buddy, and how both change together with the bitmap on disk (D10).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use block_io::sync::{Mutex, MutexGuard};
use ext4_format::{Corrupt, Group, GroupDesc, Pblk, bg, bitmap};

use super::{Allocator, Buddy};
use crate::meta::{BlockKind, Meta};
use crate::{Error, Result};

/// `Slot::largest` and `Slot::fragments` of a group whose bitmap was not read yet.
pub(crate) const UNKNOWN: u32 = u32::MAX;

/// A group, and what a search may know about it without its lock.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<GroupState>,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Clusters that can be allocated.
    pub available: AtomicU32,
    /// Largest free order.
    pub largest: AtomicU32,
    /// Runs of free clusters.
    pub fragments: AtomicU32,
    /// Free inodes.
    pub free_inodes: AtomicU32,
    /// Directories.
    pub dirs: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct GroupState {
    pub desc: GroupDesc,
    buddy: Option<Buddy>,
    /// The damage for which the group's block bitmap is not used again.
    bad: Option<Error>,
    pub inode_bitmap_verified: bool,
    pub inode_bitmap_bad: Option<Error>,
}

impl Slot {
    pub fn new(desc: GroupDesc) -> Self {
        Self {
            inode_table: desc.inode_table,
            available: desc.free_clusters.into(),
            largest: UNKNOWN.into(),
            fragments: UNKNOWN.into(),
            free_inodes: desc.free_inodes.into(),
            dirs: desc.used_dirs.into(),
            state: Mutex::new(GroupState {
                desc,
                buddy: None,
                bad: None,
                inode_bitmap_verified: false,
                inode_bitmap_bad: None,
            }),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock()
    }

    /// Publishes what changed under the lock.
    pub fn publish(&self, state: &GroupState) {
        let free_inodes = if state.inode_bitmap_bad.is_some() { 0 } else { state.desc.free_inodes };
        self.free_inodes.store(free_inodes, Relaxed);
        self.dirs.store(state.desc.used_dirs, Relaxed);
        if state.bad.is_some() {
            self.available.store(0, Relaxed);
        } else if let Some(buddy) = &state.buddy {
            self.available.store(buddy.free_count(), Relaxed);
            self.largest.store(buddy.largest_order().unwrap_or(0), Relaxed);
            self.fragments.store(buddy.fragments(), Relaxed);
        }
    }
}

impl GroupState {
    /// The buddy of a group that was loaded before.
    pub fn buddy(&mut self) -> &mut Buddy {
        self.buddy.as_mut().expect("the group was loaded")
    }

    /// The buddy, unless the group is unread or bad.
    pub fn buddy_if_loaded(&mut self) -> Option<&mut Buddy> {
        self.buddy.as_mut()
    }
}

impl Allocator {
    /// Reads and verifies the group's bitmap if that has not been done (F7, F20), and builds its buddy.
    pub(crate) fn load_group(&self, meta: &dyn Meta, group: Group, state: &mut GroupState) -> Result<()> {
        if let Some(bad) = &state.bad {
            return Err(bad.clone());
        }
        if state.buddy.is_some() {
            return Ok(());
        }
        let bits = self.block_bitmap(meta, group, state)?;
        let clusters = self.sb.clusters_in_group(group);
        let free = bitmap::count_zero(&bits, clusters);
        let checked = state.desc.verify_block_bitmap(&self.sb, &bits).and_then(|()| {
            if free == state.desc.free_clusters {
                return Ok(());
            }
            let detail = format!("group {group}: {free} clusters are free, not {}", state.desc.free_clusters);
            Err(Corrupt::structure("block bitmap", detail))
        });
        if let Err(corrupt) = checked {
            return Err(self.condemn(group, state, corrupt));
        }
        state.buddy = Some(Buddy::from_bitmap(&bits, clusters, Buddy::orders(self.sb.block_size())));
        self.slot(group).publish(state);
        Ok(())
    }

    /// Notes that the group's block bitmap is damaged; nothing is allocated or freed there again.
    pub(crate) fn condemn(&self, group: Group, state: &mut GroupState, corrupt: Corrupt) -> Error {
        let error = Error::corrupt_block(state.desc.block_bitmap, corrupt);
        if state.bad.is_none() {
            self.condemned.fetch_add(state.desc.free_clusters.into(), Relaxed);
        }
        state.bad = Some(error.clone());
        self.slot(group).publish(state);
        self.note_damage(&error);
        error
    }

    /// The bitmap as the disk has it, or would have it (F20).
    fn block_bitmap(&self, meta: &dyn Meta, group: Group, state: &GroupState) -> Result<Vec<u8>> {
        if state.desc.has_flag(&self.sb, bg::BLOCK_UNINIT) {
            return Ok(self.zones.read().derive_bitmap(&self.sb, group));
        }
        Ok(meta.read(Pblk(state.desc.block_bitmap), BlockKind::Plain)?.to_vec())
    }

    /// Whether all bits of a range of clusters are set (or clear) on disk.
    pub(crate) fn disk_bits_are(
        &self,
        meta: &dyn Meta,
        group: Group,
        state: &GroupState,
        range: (u32, u32),
        used: bool,
    ) -> Result<bool> {
        let bits = self.block_bitmap(meta, group, state)?;
        let matches = if used { bitmap::all_set } else { bitmap::all_clear };
        Ok(matches(&bits, range.0, range.1))
    }

    /// D10: changes the bits of clusters in the bitmap, the group's free count and all checksums, in this handle.
    /// That the bits are the opposite now was checked by the caller.
    pub(crate) fn change_bits(
        &self,
        meta: &mut dyn Meta,
        group: Group,
        state: &mut GroupState,
        range: (u32, u32),
        used: bool,
    ) -> Result<()> {
        let (start, len) = range;
        let sb = &*self.sb;
        // Pinned before the first change, after which the handle must not wait.
        meta.read(self.desc_location(group).0, BlockKind::Plain)?;
        let mut next = state.desc.clone();
        let block = Pblk(next.block_bitmap);
        let mut change = |bits: &mut [u8]| {
            if used {
                bitmap::set_range(bits, start, len)
            } else {
                bitmap::clear_range(bits, start, len)
            }
            next.set_block_bitmap_csum(sb, bits);
        };
        if state.desc.has_flag(sb, bg::BLOCK_UNINIT) {
            let derived = self.zones.read().derive_bitmap(sb, group);
            meta.create(block, BlockKind::Plain, &mut |bits| {
                bits.copy_from_slice(&derived);
                change(bits);
            })?;
            next.flags &= !bg::BLOCK_UNINIT;
        } else {
            meta.update(block, BlockKind::Plain, &mut change)?;
        }
        next.free_clusters = if used { next.free_clusters - len } else { next.free_clusters + len };
        self.write_desc(meta, group, state, next)
    }

    /// Writes the changed descriptor in this handle.
    pub(crate) fn write_desc(
        &self,
        meta: &mut dyn Meta,
        group: Group,
        state: &mut GroupState,
        next: GroupDesc,
    ) -> Result<()> {
        let (block, offset) = self.desc_location(group);
        let sb = &*self.sb;
        meta.update(block, BlockKind::Plain, &mut |bytes| {
            next.encode_into(&mut bytes[offset..offset + sb.desc_size()], sb, group);
        })?;
        state.desc = next;
        Ok(())
    }

    fn desc_location(&self, group: Group) -> (Pblk, usize) {
        self.sb.desc_location(group)
    }
}
