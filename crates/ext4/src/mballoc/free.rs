//! Freeing: bits are cleared in the handle, but the clusters become allocatable only after its commit (D13).

use std::sync::atomic::Ordering::Relaxed;

use ext4_format::{Corrupt, Group, Pblk};

use super::Allocator;
use crate::meta::{BlockKind, Meta};
use crate::{Error, Result};

/// Clusters freed on disk that the buddy still holds as used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freed {
    tid: u32,
    group: Group,
    start: u32,
    len: u32,
}

impl Allocator {
    /// Frees `len` blocks in this handle: bits, counts and checksums. They are allocatable after
    /// [`Allocator::committed`]. Clusters touched are freed whole: the caller frees one with its last user (D16).
    /// In a group whose bitmap is damaged they are lost until e2fsck has seen it.
    /// EUCLEAN, and nothing is changed, if any of them is free already, metadata (F27) or outside the volume.
    /// Needs two credits per group touched.
    pub fn free(&self, meta: &mut dyn Meta, start: Pblk, len: u32) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mut parts = self.parts(start, len)?;
        let mut sound = Ok(());
        parts.retain(|(group, ..)| match self.is_sound(meta, *group) {
            Ok(is_sound) => is_sound,
            Err(error) => {
                sound = Err(error);
                true
            }
        });
        sound?;
        for (group, first, count) in &parts {
            let state = self.slot(*group).lock();
            if !self.disk_bits_are(meta, *group, &state, (*first, *count), true)? {
                return Err(refuse(start, len, "free already"));
            }
            // Pinned before the first change, after which the handle must not wait.
            meta.read(self.sb.desc_location(*group).0, BlockKind::Plain)?;
        }
        parts.into_iter().try_for_each(|part| self.free_in_group(meta, part))
    }

    /// Whether the group's bitmap can be used; its damage is noted.
    fn is_sound(&self, meta: &dyn Meta, group: Group) -> Result<bool> {
        match self.load_group(meta, group, &mut self.slot(group).lock()) {
            Ok(()) => Ok(true),
            Err(Error::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether all blocks of a run are in use, going by sound bitmaps. EUCLEAN outside the volume or upon metadata.
    pub(crate) fn blocks_in_use(&self, meta: &dyn Meta, start: Pblk, len: u32) -> Result<bool> {
        for (group, first, count) in self.parts(start, len)? {
            let mut state = self.slot(group).lock();
            self.load_group(meta, group, &mut state)?;
            if !self.disk_bits_are(meta, group, &state, (first, count), true)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The range as clusters of each group.
    pub(super) fn parts(&self, start: Pblk, len: u32) -> Result<Vec<(Group, u32, u32)>> {
        let last = start.0.checked_add(u64::from(len) - 1).ok_or_else(|| refuse(start, len, "outside"))?;
        let outside = || refuse(start, len, "outside the volume");
        let (first_group, first_cluster) = self.cluster_of(start).ok_or_else(outside)?;
        let (last_group, last_cluster) = self.cluster_of(Pblk(last)).ok_or_else(outside)?;
        let ratio = 1u64 << self.sb.cluster_bits();
        let from = self.block_of(first_group, first_cluster).0;
        if self.metadata_zone(Pblk(from), self.block_of(last_group, last_cluster).0 + ratio - from) {
            return Err(refuse(start, len, "metadata"));
        }
        let part = |group: Group| {
            let first = if group == first_group { first_cluster } else { 0 };
            let end = if group == last_group { last_cluster + 1 } else { self.sb.clusters_in_group(group) };
            (group, first, end - first)
        };
        Ok((first_group.0..=last_group.0).map(Group).map(part).collect())
    }

    fn free_in_group(&self, meta: &mut dyn Meta, (group, start, len): (Group, u32, u32)) -> Result<()> {
        let mut state = self.slot(group).lock();
        match self.load_group(meta, group, &mut state) {
            Ok(()) => {}
            Err(Error::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        // Again, now that the lock is held: a double free by two threads.
        if !self.disk_bits_are(meta, group, &state, (start, len), true)? {
            return Err(refuse(self.block_of(group, start), len, "free already"));
        }
        self.change_bits(meta, group, &mut state, (start, len), false)?;
        self.free.fetch_add(len.into(), Relaxed);
        self.unclaimed.fetch_add(len.into(), Relaxed);
        if jbd2::mutant(12) {
            if let Some(buddy) = state.buddy_if_loaded() {
                buddy.free(start, len);
            }
            return Ok(());
        }
        let tid = meta.tid();
        let mut pending = self.pending.lock();
        match pending.last_mut() {
            Some(last) if (last.tid, last.group, last.start + last.len) == (tid, group, start) => {
                last.len += len
            }
            _ => pending.push(Freed { tid, group, start, len }),
        }
        Ok(())
    }

    /// D13: transaction `tid` is on the disk, so what it and those before it freed can be allocated.
    pub fn committed(&self, tid: u32) {
        let _hands = self.hands.read();
        let mut done = Vec::new();
        {
            let mut pending = self.pending.lock();
            pending.retain(|freed| {
                // Tids wrap.
                let is_done = tid.wrapping_sub(freed.tid) as i32 >= 0;
                if is_done {
                    done.push(*freed);
                }
                !is_done
            });
            // Before anybody sees that nothing is pending.
            self.releases.fetch_add(u64::from(!done.is_empty()), Relaxed);
        }
        for freed in done {
            self.release(freed.group, freed.start, freed.len);
        }
    }

    /// Makes clusters allocatable that only memory holds as used.
    pub(crate) fn release(&self, group: Group, start: u32, len: u32) {
        let slot = self.slot(group);
        let mut state = slot.lock();
        if let Some(buddy) = state.buddy_if_loaded() {
            buddy.free(start, len);
            slot.publish(&state);
        }
    }

    /// How often frees have become allocatable: whoever got ENOSPC tries again if that was meanwhile.
    pub fn releases(&self) -> u64 {
        self.releases.load(Relaxed)
    }

    /// Blocks that wait for a commit: when there are some, a caller who got ENOSPC commits and tries again.
    pub fn pending_frees(&self) -> u64 {
        let clusters: u64 = self.pending.lock().iter().map(|freed| u64::from(freed.len)).sum();
        clusters << self.sb.cluster_bits()
    }
}

fn refuse(start: Pblk, len: u32, why: &str) -> Error {
    Error::corrupt_block(start.0, Corrupt::structure("freeing", format!("{len} blocks: {why}")))
}
