//! The inode allocator: bits, counts and checksums of inode bitmaps, and where new inodes go.

use std::sync::atomic::Ordering::Relaxed;

use ext4_format::{Corrupt, Group, Ino, Pblk, bg, bitmap};

use crate::error::errno;
use crate::mballoc::{Allocator, GroupState};
use crate::meta::{BlockKind, Meta};
use crate::{Error, Result};

const ROOT: Ino = Ino(2);

/// What an inode is allocated for.
#[derive(Debug, Clone, Copy)]
pub struct NewInodeRequest {
    /// The directory it will be in.
    pub parent: Ino,
    /// Directories are counted (F26) and spread.
    pub is_dir: bool,
    /// Spread like the children of the root: the parent has EXT4_TOPDIR_FL.
    pub is_top: bool,
}

/// An inode just allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewInode {
    /// Its number.
    pub ino: Ino,
    /// Its block of the inode table.
    pub block: Pblk,
    /// Where in that block, in bytes.
    pub offset: usize,
    /// No inode of that block was ever used, so it may hold garbage: it is to be made anew from zeros
    /// ([`Meta::create`]), neighbours included (F22).
    pub block_never_used: bool,
}

/// What a directory's group must have: a share of the volume's average.
#[derive(Debug, Clone, Copy)]
struct Averages {
    free_inodes: u64,
    free_clusters: u64,
    dirs: u64,
}

impl Allocator {
    /// Allocates an inode in this handle: its bit, itable_unused (F22), counts and checksums. Nothing is written to
    /// the table. ENOSPC: none is left. Needs two credits.
    pub fn new_inode(&self, meta: &mut dyn Meta, request: &NewInodeRequest) -> Result<NewInode> {
        if self.free_inodes.load(Relaxed) == 0 {
            return Err(Error::errno_only(errno::ENOSPC));
        }
        let parent = self.sb.inode_location(request.parent).map_or(Group(0), |location| location.group);
        let first =
            if request.is_dir { self.directory_group(request, parent) } else { self.file_group(parent) };
        for step in 0..self.group_count() {
            let group = self.group_after(first, step);
            if self.slot(group).free_inodes.load(Relaxed) == 0 {
                continue;
            }
            match self.take_inode(meta, group, request.is_dir) {
                Ok(Some(inode)) => return Ok(inode),
                Ok(None) => {}
                // As if it were full; its damage was noted.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::errno_only(errno::ENOSPC))
    }

    /// Frees an inode in this handle: bit, counts and checksums. EUCLEAN if it is free or reserved. Needs two
    /// credits. Where the bitmap is damaged the inode is lost until e2fsck has seen it.
    pub fn free_inode(&self, meta: &mut dyn Meta, ino: Ino, is_dir: bool) -> Result<()> {
        let refuse = |why: &str| Error::corrupt_inode(ino.0, Corrupt::structure("freeing", why));
        let location = self.sb.inode_location(ino).ok_or_else(|| refuse("outside the volume"))?;
        if ino.0 < self.sb.first_ino() {
            return Err(refuse("reserved"));
        }
        let slot = self.slot(location.group);
        let mut state = slot.lock();
        let bits = match self.inode_bitmap(meta, location.group, &mut state) {
            Ok(bits) => bits,
            Err(Error::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !bitmap::test(&bits, location.index) {
            return Err(refuse("free already"));
        }
        let mut next = state.desc.clone();
        next.free_inodes = (next.free_inodes + 1).min(self.sb.inodes_per_group);
        if is_dir {
            next.used_dirs = next.used_dirs.checked_sub(1).ok_or_else(|| refuse("directory count"))?;
        }
        // Pinned before the first change, after which the handle must not wait.
        meta.read(self.sb.desc_location(location.group).0, BlockKind::Plain)?;
        meta.update(Pblk(next.inode_bitmap), BlockKind::Plain, &mut |bits| {
            bitmap::clear(bits, location.index);
            next.set_inode_bitmap_csum(&self.sb, bits);
        })?;
        self.write_desc(meta, location.group, &mut state, next)?;
        slot.publish(&state);
        self.free_inodes.fetch_add(1, Relaxed);
        if is_dir {
            self.dirs.fetch_sub(1, Relaxed);
        }
        Ok(())
    }

    /// The block of an inode and its offset there in bytes. EUCLEAN for a number that the volume has not.
    pub fn inode_location(&self, ino: Ino) -> Result<(Pblk, usize)> {
        let outside =
            || Error::corrupt_inode(ino.0, Corrupt::structure("inode number", "outside the volume"));
        let location = self.sb.inode_location(ino).ok_or_else(outside)?;
        let block = self.slot(location.group).inode_table + u64::from(location.table_block);
        Ok((Pblk(block), location.offset_bytes as usize))
    }

    /// Whether the inode's bit is set.
    pub fn inode_in_use(&self, meta: &dyn Meta, ino: Ino) -> Result<bool> {
        let Some(location) = self.sb.inode_location(ino) else { return Ok(false) };
        let mut state = self.slot(location.group).lock();
        let bits = self.inode_bitmap(meta, location.group, &mut state)?;
        Ok(bitmap::test(&bits, location.index))
    }

    fn group_after(&self, first: Group, step: u32) -> Group {
        Group(((u64::from(first.0) + u64::from(step)) % u64::from(self.group_count())) as u32)
    }

    /// The inode bitmap as the disk has it, or would have it (F21); verified once (F7).
    fn inode_bitmap(&self, meta: &dyn Meta, group: Group, state: &mut GroupState) -> Result<Vec<u8>> {
        if let Some(bad) = &state.inode_bitmap_bad {
            return Err(bad.clone());
        }
        let ipg = self.sb.inodes_per_group;
        if state.desc.has_flag(&self.sb, bg::INODE_UNINIT) {
            if state.desc.free_inodes != ipg {
                let corrupt =
                    Corrupt::structure("group descriptor", "inodes in use in a group without inode bitmap");
                let error = Error::corrupt_block(state.desc.inode_bitmap, corrupt);
                self.note_damage(&error);
                return Err(error);
            }
            let mut bits = vec![0; self.sb.block_size() as usize];
            bitmap::set_padding(&mut bits, ipg);
            return Ok(bits);
        }
        let bits = meta.read(Pblk(state.desc.inode_bitmap), BlockKind::Plain)?.to_vec();
        if !state.inode_bitmap_verified {
            let free = bitmap::count_zero(&bits, ipg);
            let checked = state.desc.verify_inode_bitmap(&self.sb, &bits).and_then(|()| {
                if free == state.desc.free_inodes {
                    return Ok(());
                }
                let detail = format!("group {group}: {free} inodes are free, not {}", state.desc.free_inodes);
                Err(Corrupt::structure("inode bitmap", detail))
            });
            if let Err(corrupt) = checked {
                let error = Error::corrupt_block(state.desc.inode_bitmap, corrupt);
                state.inode_bitmap_bad = Some(error.clone());
                self.slot(group).free_inodes.store(0, Relaxed);
                self.note_damage(&error);
                return Err(error);
            }
            state.inode_bitmap_verified = true;
        }
        Ok(bits)
    }

    fn take_inode(&self, meta: &mut dyn Meta, group: Group, is_dir: bool) -> Result<Option<NewInode>> {
        let (sb, slot) = (&*self.sb, self.slot(group));
        let ipg = sb.inodes_per_group;
        let mut state = slot.lock();
        if is_dir && state.desc.used_dirs >= ipg {
            let corrupt = Corrupt::structure("group descriptor", format!("group {group}: directory count"));
            return Err(Error::corrupt_block(sb.desc_location(group).0.0, corrupt));
        }
        let bits = self.inode_bitmap(meta, group, &mut state)?;
        // Special inodes are never given out, even if their bits are clear.
        let reserved = (u64::from(sb.first_ino()) - 1).saturating_sub(u64::from(group.0) * u64::from(ipg));
        let Some(index) = bitmap::next_zero(&bits, reserved.min(ipg.into()) as u32, ipg) else {
            return Ok(None);
        };
        self.take_inode_at(meta, group, &mut state, (bits, index), is_dir).map(Some)
    }

    /// Takes the inode `ino`, which a fast commit says is in use, unless its bit is set already (R24). EUCLEAN if it is
    /// reserved or outside. Needs two credits.
    pub(crate) fn claim_inode(
        &self,
        meta: &mut dyn Meta,
        ino: Ino,
        is_dir: bool,
    ) -> Result<Option<NewInode>> {
        let refuse = |why: &str| Error::corrupt_inode(ino.0, Corrupt::structure("fast commit", why));
        let location = self.sb.inode_location(ino).ok_or_else(|| refuse("inode outside the volume"))?;
        if ino.0 < self.sb.first_ino() {
            return Err(refuse("reserved inode"));
        }
        let mut state = self.slot(location.group).lock();
        let bits = self.inode_bitmap(meta, location.group, &mut state)?;
        if bitmap::test(&bits, location.index) {
            return Ok(None);
        }
        self.take_inode_at(meta, location.group, &mut state, (bits, location.index), is_dir).map(Some)
    }

    fn take_inode_at(
        &self,
        meta: &mut dyn Meta,
        group: Group,
        state: &mut GroupState,
        (bits, index): (Vec<u8>, u32),
        is_dir: bool,
    ) -> Result<NewInode> {
        let (sb, slot) = (&*self.sb, self.slot(group));
        let ipg = sb.inodes_per_group;
        meta.read(sb.desc_location(group).0, BlockKind::Plain)?;
        let mut next = state.desc.clone();
        let mut change = |bits: &mut [u8]| {
            bitmap::set(bits, index);
            next.set_inode_bitmap_csum(sb, bits);
        };
        let mut unused = state.desc.itable_unused(sb);
        if state.desc.has_flag(sb, bg::INODE_UNINIT) {
            unused = ipg;
            meta.create(Pblk(state.desc.inode_bitmap), BlockKind::Plain, &mut |block| {
                block.copy_from_slice(&bits);
                change(block);
            })?;
            next.flags &= !bg::INODE_UNINIT;
        } else {
            meta.update(Pblk(state.desc.inode_bitmap), BlockKind::Plain, &mut change)?;
        }
        next.free_inodes -= 1;
        next.used_dirs += u32::from(is_dir);
        if sb.features().has_group_checksum() {
            next.itable_unused = unused.min(ipg - (index + 1));
        }
        self.write_desc(meta, group, state, next)?;
        state.inode_bitmap_verified = true;
        slot.publish(state);
        self.free_inodes.fetch_sub(1, Relaxed);
        self.dirs.fetch_add(is_dir.into(), Relaxed);
        let per_block = sb.block_size() / u32::from(sb.inode_size());
        Ok(NewInode {
            ino: Ino(group.0 * ipg + index + 1),
            block: Pblk(slot.inode_table + u64::from(index / per_block)),
            offset: (index % per_block * u32::from(sb.inode_size())) as usize,
            block_never_used: index / per_block * per_block >= ipg - unused,
        })
    }

    /// Near the parent: its group, or one at growing distance that has inodes and space.
    fn file_group(&self, parent: Group) -> Group {
        let good = |group: Group| {
            let slot = self.slot(group);
            slot.free_inodes.load(Relaxed) > 0 && slot.available.load(Relaxed) > 0
        };
        let near = std::iter::successors(Some(1u32), |step| {
            step.checked_mul(2).filter(|step| *step < self.group_count())
        });
        let mut candidates = std::iter::once(0).chain(near).map(|step| self.group_after(parent, step));
        candidates.find(|group| good(*group)).unwrap_or(parent)
    }

    /// Orlov: children of the root (or of a top directory) go to the flex group with the fewest directories that has
    /// an average share of inodes and space; others stay in the parent's unless it falls far behind.
    fn directory_group(&self, request: &NewInodeRequest, parent: Group) -> Group {
        let per_flex = self.sb.groups_per_flex().min(self.group_count()).max(1);
        let flexes = self.group_count().div_ceil(per_flex);
        let averages = self.averages(flexes);
        let own = parent.0 / per_flex;
        let chosen = if request.is_top || request.parent == ROOT {
            let good = (0..flexes).map(|flex| (flex, self.sums(flex, per_flex))).filter(|(_, sums)| {
                sums.free_inodes > 0
                    && sums.free_inodes >= averages.free_inodes
                    && sums.free_clusters >= averages.free_clusters
            });
            good.min_by_key(|(_, sums)| sums.dirs).map(|(flex, _)| flex)
        } else {
            let limits = self.debt_limits(averages, per_flex);
            (0..flexes).map(|step| (own + step) % flexes).find(|flex| {
                let sums = self.sums(*flex, per_flex);
                sums.free_inodes > 0
                    && sums.free_inodes >= limits.free_inodes
                    && sums.free_clusters >= limits.free_clusters
                    && sums.dirs <= limits.dirs
            })
        };
        let flex = chosen.unwrap_or(own);
        let groups =
            flex * per_flex..(flex.saturating_add(1)).saturating_mul(per_flex).min(self.group_count());
        let in_parent = groups.contains(&parent.0).then_some(parent.0);
        let mut candidates = in_parent.into_iter().chain(groups).map(Group);
        candidates.find(|group| self.slot(*group).free_inodes.load(Relaxed) > 0).unwrap_or(parent)
    }

    /// How far a flex group may fall behind the average before directories leave their parent.
    fn debt_limits(&self, averages: Averages, per_flex: u32) -> Averages {
        let inodes = u64::from(self.sb.inodes_per_group) * u64::from(per_flex);
        let clusters = u64::from(self.sb.clusters_per_group) * u64::from(per_flex);
        Averages {
            free_inodes: averages.free_inodes.saturating_sub(inodes / 4),
            free_clusters: averages.free_clusters.saturating_sub(clusters / 4),
            dirs: averages.dirs + inodes / 16,
        }
    }

    fn averages(&self, flexes: u32) -> Averages {
        let totals = self.totals();
        Averages {
            free_inodes: totals.free_inodes / u64::from(flexes),
            free_clusters: self.free_clusters() / u64::from(flexes),
            dirs: totals.dirs / u64::from(flexes),
        }
    }

    fn sums(&self, flex: u32, per_flex: u32) -> Averages {
        let mut sums = Averages { free_inodes: 0, free_clusters: 0, dirs: 0 };
        let first = flex * per_flex;
        for group in first..first.saturating_add(per_flex).min(self.group_count()) {
            let slot = self.slot(Group(group));
            sums.free_inodes += u64::from(slot.free_inodes.load(Relaxed));
            sums.free_clusters += u64::from(slot.available.load(Relaxed));
            sums.dirs += u64::from(slot.dirs.load(Relaxed));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ext4_format::features::ro_compat;
    use proptest::prelude::*;

    use super::*;
    use crate::mballoc::volume::Layout;

    fn request(parent: u32, is_dir: bool) -> NewInodeRequest {
        NewInodeRequest { parent: Ino(parent), is_dir, is_top: false }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_a_set_of_inodes(
            checksums in prop_oneof![Just(ro_compat::METADATA_CSUM), Just(ro_compat::GDT_CSUM), Just(0)],
            bit64 in any::<bool>(),
            uninit in any::<bool>(),
            steps in proptest::collection::vec((0u32..3, any::<bool>(), any::<u32>()), 1..160),
        ) {
            let mut volume = Layout { checksums, bit64, uninit, ..Layout::default() }.format();
            let allocator = volume.allocator().unwrap();
            let all = volume.sb.inodes_count;
            let mut model: HashMap<u32, bool> = HashMap::new();
            for (step, is_dir, pick) in steps {
                if step < 2 {
                    match allocator.new_inode(&mut volume, &request(pick % all + 1, is_dir)) {
                        Ok(new) => {
                            prop_assert!(new.ino.0 >= 11 && new.ino.0 <= all);
                            prop_assert_eq!(allocator.inode_location(new.ino).unwrap(), (new.block, new.offset));
                            prop_assert!(model.insert(new.ino.0, is_dir).is_none());
                        }
                        Err(error) => {
                            prop_assert_eq!(error.errno(), errno::ENOSPC);
                            prop_assert_eq!(model.len() as u32, all - 10);
                        }
                    }
                } else if let Some(ino) = model.keys().copied().nth(pick as usize % model.len().max(1)) {
                    let is_dir = model.remove(&ino).unwrap();
                    allocator.free_inode(&mut volume, Ino(ino), is_dir).unwrap();
                    let again = allocator.free_inode(&mut volume, Ino(ino), is_dir).unwrap_err();
                    prop_assert_eq!(again.errno(), errno::EUCLEAN);
                }
                volume.check();
                for ino in 1..=all {
                    let expected = ino < 11 || model.contains_key(&ino);
                    prop_assert_eq!(allocator.inode_in_use(&volume, Ino(ino)).unwrap(), expected);
                }
                let dirs = model.values().filter(|is_dir| **is_dir).count() as u64;
                let totals = allocator.totals();
                prop_assert_eq!((totals.dirs, totals.free_inodes), (dirs, u64::from(all) - 10 - model.len() as u64));
                let on_disk: u32 = volume.groups().map(|group| volume.desc(group).used_dirs).sum();
                prop_assert_eq!(u64::from(on_disk), dirs);
                prop_assert_eq!(volume.allocator().unwrap().totals(), totals);
            }
        }
    }

    #[test]
    fn top_directories_spread_and_files_stay() {
        let mut volume = Layout { groups: 8, short_by: 0, ..Layout::default() }.format();
        let allocator = volume.allocator().unwrap();
        let group = |ino: Ino| (ino.0 - 1) / 32;
        let mut flexes = Vec::new();
        for _ in 0..3 {
            let dir = allocator.new_inode(&mut volume, &request(2, true)).unwrap();
            flexes.push(group(dir.ino) / 2);
            let file = allocator.new_inode(&mut volume, &request(dir.ino.0, false)).unwrap();
            assert_eq!(group(file.ino), group(dir.ino));
            let child = allocator.new_inode(&mut volume, &request(dir.ino.0, true)).unwrap();
            assert_eq!(group(child.ino), group(dir.ino));
        }
        flexes.sort_unstable();
        flexes.dedup();
        assert_eq!(flexes.len(), 3);
    }

    /// F22: the first inode of a block that was never used announces it, the others do not.
    #[test]
    fn announces_blocks_never_used() {
        let mut volume = Layout::default().format();
        let allocator = volume.allocator().unwrap();
        let parent = 32 + 1;
        let fresh: Vec<bool> = (0..9)
            .map(|_| allocator.new_inode(&mut volume, &request(parent, false)).unwrap().block_never_used)
            .collect();
        assert_eq!(fresh, [true, false, false, false, true, false, false, false, true]);
        allocator.free_inode(&mut volume, Ino(33), false).unwrap();
        assert!(!allocator.new_inode(&mut volume, &request(parent, false)).unwrap().block_never_used);
        assert_eq!(allocator.free_inode(&mut volume, Ino(5), false).unwrap_err().errno(), errno::EUCLEAN);
        assert!(
            allocator.inode_location(Ino(0)).is_err() && allocator.inode_location(Ino(u32::MAX)).is_err()
        );
    }
}
