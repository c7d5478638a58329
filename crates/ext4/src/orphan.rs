//! Orphans: inodes that a crash must delete or truncate (O1–O6). An inode stands in the orphan file, or, when
//! that is full or missing, in the list through the superblock and i_dtime.

use std::collections::HashSet;
use std::sync::Arc;

use ext4_format::inode::{flags, special::ROOT};
use ext4_format::superblock::state;
use ext4_format::{Corrupt, Ino, Pblk, Timestamp, orphan};

use crate::credits::ORPHAN_CREDITS;
use crate::fs::{Fs, OrphanFile, Orphans};
use crate::handle::Handle;
use crate::inode::{Change, Iget, Inode, OrphanPlace};
use crate::meta::{BlockKind, Meta};
use crate::ranges::RangeExtent;
use crate::{Error, Result};

/// What rmdir takes from a directory.
pub(crate) const ALL_LINKS: u16 = u16::MAX;

impl Handle<'_> {
    /// Records an inode as an orphan; nothing to do if it is one.
    pub(crate) fn add_orphan(&mut self, inode: &Arc<Inode>) -> Result<()> {
        let fs = self.fs();
        let mut orphans = fs.orphans.lock();
        self.record_orphan(&mut orphans, inode)
    }

    /// Takes links from an inode, which is recorded as an orphan if none is left. Both at once for whoever clears orphans:
    /// the end of an extending write must not take the entry away just before, and the last close elsewhere, which deletes
    /// the inode with its entry, must not find it without one, nor get it a new one when it is gone.
    pub(crate) fn drop_links(&mut self, inode: &Arc<Inode>, links: u16, now: Timestamp) -> Result<()> {
        let fs = self.fs();
        let mut orphans = fs.orphans.lock();
        if inode.state.lock().disk.links_count <= links {
            self.record_orphan(&mut orphans, inode)?;
        }
        self.change_inode(inode, Change::Attributes, |state| {
            state.disk.ctime = now;
            state.disk.links_count = state.disk.links_count.saturating_sub(links);
        })
    }

    fn record_orphan(&mut self, orphans: &mut Orphans, inode: &Arc<Inode>) -> Result<()> {
        let fs = self.fs();
        if inode.state.lock().orphan.is_some() {
            return Ok(());
        }
        if let Some(place) = self.add_to_file(orphans.file.as_mut(), inode.ino)? {
            inode.state.lock().orphan = Some(place);
            return Ok(());
        }
        let mut next = 0;
        fs.change_superblock(self, |superblock| {
            // The list in memory may be shorter than the one on disk, where that is damaged.
            next = std::mem::replace(&mut superblock.last_orphan, inode.ino.0);
        })?;
        self.change_inode(inode, Change::Attributes, |state| {
            state.disk.dtime = next;
            state.orphan = Some(OrphanPlace::List);
        })?;
        orphans.list.insert(0, inode.clone());
        Ok(())
    }

    fn add_to_file(&mut self, file: Option<&mut OrphanFile>, ino: Ino) -> Result<Option<OrphanPlace>> {
        let Some(file) = file else { return Ok(None) };
        let Some(block) = file.free.iter().position(|&free| free > 0) else { return Ok(None) };
        let mut slot = None;
        self.update(file.blocks[block], BlockKind::OrphanFile { seed: file.seed }, &mut |image| {
            slot = orphan::free_slot(image);
            if let Some(slot) = slot {
                orphan::set_slot(image, slot, ino.0);
            }
        })?;
        let Some(slot) = slot else {
            let corrupt = Corrupt::structure("orphan file", "free slots differ from their count");
            return Err(Error::corrupt_block(file.blocks[block].0, corrupt));
        };
        file.free[block] -= 1;
        Ok(Some(OrphanPlace::File { block, slot }))
    }

    /// Takes an inode off the orphans, in one handle with what makes it no orphan any more; nothing to do if it is
    /// none. `dtime` is what the inode's field says afterwards: 0 in use, the time of deletion otherwise.
    pub(crate) fn delete_orphan(&mut self, inode: &Arc<Inode>, dtime: u32) -> Result<()> {
        let fs = self.fs();
        let mut orphans = fs.orphans.lock();
        let place = {
            let state = inode.state.lock();
            // Unlinked meanwhile: it stays an orphan until it is deleted. So does a block map whose pages have written blocks
            // beyond i_disksize (D9), until write-back has raised that.
            let extends = !state.disk.has_flag(flags::EXTENTS) && state.size > state.disk.size;
            if dtime == 0 && (state.disk.links_count == 0 || extends) {
                return Ok(());
            }
            state.orphan
        };
        let Some(place) = place else { return Ok(()) };
        match place {
            OrphanPlace::File { block, slot } => {
                let Some(file) = orphans.file.as_mut() else { return Ok(()) };
                self.update(file.blocks[block], BlockKind::OrphanFile { seed: file.seed }, &mut |image| {
                    orphan::set_slot(image, slot, 0);
                })?;
                file.free[block] += 1;
                inode.state.lock().orphan = None;
            }
            OrphanPlace::List => {
                let Some(index) = orphans.list.iter().position(|other| other.ino == inode.ino) else {
                    return Ok(());
                };
                // Not by the list in memory, which may be shorter than the one on disk.
                let next = inode.state.lock().disk.dtime;
                if index == 0 {
                    fs.change_superblock(self, |superblock| superblock.last_orphan = next)?;
                } else {
                    let predecessor = orphans.list[index - 1].clone();
                    self.change_inode(&predecessor, Change::Attributes, |state| state.disk.dtime = next)?;
                }
                self.change_inode(inode, Change::Attributes, |state| {
                    state.disk.dtime = dtime;
                    state.orphan = None;
                })?;
                orphans.list.remove(index);
            }
        }
        Ok(())
    }
}

impl Fs {
    /// O6: after recovery, before anything else changes. The list first, then the file. What remains recorded
    /// (a bad number) is skipped and reported as damage by the count returned.
    ///
    /// O7: on a volume with errors nothing is freed by what may be damaged. Unlike Linux, a mount keeps the list for
    /// [`crate::recover`], which (`despite_errors`) processes those orphans that are sound, and leaves and names the rest.
    pub(crate) fn process_orphans(&self, despite_errors: bool) -> Result<OrphansProcessed> {
        let has_errors = self.superblock.lock().state & state::ERROR != 0;
        if !has_errors {
            let mut processed = OrphansProcessed::default();
            for inode in self.load_orphans(&mut processed, Unreadable::Fails)? {
                self.finish_orphan(&inode, &mut processed)?;
            }
            return Ok(processed);
        }
        let mut processed = OrphansProcessed::default();
        let inodes = self.load_orphans(&mut processed, Unreadable::IsLeft)?;
        if !despite_errors {
            self.orphans.lock().kept = inodes;
            return Ok(OrphansProcessed::default());
        }
        for inode in inodes {
            match self.is_sound(&inode) {
                true => self.finish_orphan(&inode, &mut processed)?,
                false => processed.left.push(inode.ino.0),
            }
        }
        Ok(processed)
    }

    /// The inodes of the list, then those of the file, which know from here on that they are orphans.
    pub(crate) fn load_orphans(
        &self,
        processed: &mut OrphansProcessed,
        unreadable: Unreadable,
    ) -> Result<Vec<Arc<Inode>>> {
        self.load_orphan_list(processed, unreadable)?;
        let from_file = self.load_orphan_file(processed, unreadable)?;
        let mut inodes = self.orphans.lock().list.clone();
        inodes.extend(from_file);
        Ok(inodes)
    }

    /// Whether an orphan's map can be read and leads to blocks that are in use and no metadata, in groups whose bitmaps are
    /// sound. Its inode was read, and its bit is set.
    fn is_sound(&self, inode: &Arc<Inode>) -> bool {
        if inode.check_data_supported().is_err() {
            return false;
        }
        if !inode.has_map() {
            return true;
        }
        let block_size = self.block_size() as u64;
        let is_in_use = |extent: &RangeExtent| {
            let (start, len) = (Pblk(extent.physical / block_size), extent.len.div_ceil(block_size));
            u32::try_from(len).is_ok_and(|len| {
                let reader = crate::handle::Reader(self);
                self.allocator.blocks_in_use(&reader, start, len).unwrap_or(false)
            })
        };
        let extents = self.extents(inode, 0, i64::MAX as u64, usize::MAX);
        extents.is_ok_and(|extents| extents.iter().all(is_in_use))
    }

    fn finish_orphan(&self, inode: &Arc<Inode>, processed: &mut OrphansProcessed) -> Result<()> {
        let deleted = inode.state.lock().disk.links_count == 0;
        if deleted {
            self.evict(inode)?;
            processed.deleted += 1;
        } else if inode.check_data_supported().is_err() {
            processed.unsupported += 1;
        } else {
            let size = inode.size();
            self.zero_eof_block(inode, size)?;
            self.remove_beyond_size(inode)?;
            processed.truncated += 1;
        }
        Ok(())
    }

    /// Follows s_last_orphan. A bad number or a loop drops the rest of the list (O6).
    fn load_orphan_list(&self, processed: &mut OrphansProcessed, unreadable: Unreadable) -> Result<()> {
        let mut next = self.superblock.lock().last_orphan;
        let mut list: Vec<Arc<Inode>> = Vec::new();
        let mut seen = HashSet::new();
        while next != 0 {
            let ino = Ino(next);
            if !seen.insert(ino) || !self.may_be_orphan(ino) {
                processed.bad += 1;
                break;
            }
            let inode = match (self.iget(ino, Iget::Normal), unreadable) {
                (Ok(inode), _) => inode,
                (Err(Error::Corrupt { .. }), Unreadable::IsLeft) => {
                    processed.left.push(ino.0);
                    break;
                }
                (Err(error), _) => return Err(error),
            };
            next = {
                let mut state = inode.state.lock();
                state.orphan = Some(OrphanPlace::List);
                state.disk.dtime
            };
            list.push(inode);
        }
        self.orphans.lock().list = list;
        if processed.bad > 0 && unreadable == Unreadable::Fails {
            self.with_handle(ORPHAN_CREDITS, |handle| self.cut_orphan_list(handle))?;
        }
        Ok(())
    }

    fn cut_orphan_list(&self, handle: &mut Handle<'_>) -> Result<()> {
        let last = self.orphans.lock().list.last().cloned();
        match last {
            Some(last) => handle.change_inode(&last, Change::Attributes, |state| state.disk.dtime = 0),
            None => self.change_superblock(handle, |superblock| superblock.last_orphan = 0),
        }
    }

    /// Every slot of the orphan file; the file is scanned at every mount, flag or not (O4).
    fn load_orphan_file(
        &self,
        processed: &mut OrphansProcessed,
        unreadable: Unreadable,
    ) -> Result<Vec<Arc<Inode>>> {
        let (blocks, seed) = match self.orphans.lock().file.as_ref() {
            Some(file) => (file.blocks.clone(), file.seed),
            None => return Ok(Vec::new()),
        };
        let mut found = Vec::new();
        for (block, &pblk) in blocks.iter().enumerate() {
            let image = self.read_metadata(pblk, BlockKind::OrphanFile { seed })?;
            for slot in 0..orphan::slots(image.len()) {
                let number = orphan::slot(&image, slot);
                if number == 0 {
                    continue;
                }
                if !self.may_be_orphan(Ino(number)) {
                    processed.bad += 1;
                    continue;
                }
                let inode = match (self.iget(Ino(number), Iget::Normal), unreadable) {
                    (Ok(inode), _) => inode,
                    (Err(Error::Corrupt { .. }), Unreadable::IsLeft) => {
                        processed.left.push(number);
                        continue;
                    }
                    (Err(error), _) => return Err(error),
                };
                inode.state.lock().orphan = Some(OrphanPlace::File { block, slot });
                found.push(inode);
            }
        }
        Ok(found)
    }

    fn may_be_orphan(&self, ino: Ino) -> bool {
        let ordinary = ino != ROOT && self.may_be(ino, Iget::Normal);
        ordinary && self.allocator.inode_in_use(&crate::handle::Reader(self), ino).unwrap_or(false)
    }
}

/// What becomes of an orphan whose inode is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The mount fails.
    Fails,
    /// It stays recorded, and is named.
    IsLeft,
}

/// What a mount found among the orphans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrphansProcessed {
    /// Unlinked inodes that were deleted.
    pub deleted: u32,
    /// Inodes that were truncated to their size.
    pub truncated: u32,
    /// Records that name no inode; skipped.
    pub bad: u32,
    /// Inodes with a map that is not built; they stay orphans, for the kernel or e2fsck.
    pub unsupported: u32,
    /// Numbers of inodes that a recovery left as they are, because they, their maps or bitmaps are damaged.
    pub left: Vec<u32>,
}
