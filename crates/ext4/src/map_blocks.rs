//! From blocks of a file to blocks of the volume, as ext4_map_blocks: the extent-status cache first, then the
//! tree; allocation, conversion and removal under the extent lock.

use ext4_format::extent::{Extent, ROOT_SIZE};
use ext4_format::{Lblk, Pblk};

use crate::data_blocks::DataMapping;
use crate::extents::{self, MapState, Mapping, Progress, Tree};
use crate::fs::Fs;
use crate::handle::{Handle, Reader};
use crate::indirect::{self, BlockMap};
use crate::inode::{Change, Inode, MapRoot};
use crate::mballoc::Splitting;
use crate::meta::Meta;
use crate::{Error, Result, errno, mballoc};

/// Most blocks mapped by one transaction (A12).
pub(crate) const MAX_MAP_BLOCKS: u32 = 4096;

/// How blocks are allocated for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocate {
    /// Unwritten: the data is not on the device yet, and the blocks are inside i_size (A12, C4). In a block map they are
    /// written zeros instead.
    Unwritten,
    /// Written zeros: nobody waits for the data, which is stored in place (A12, A18).
    Zeroed,
    /// Written: beyond i_size, where nobody can read before the size moves (A12); journalled contents.
    Written,
}

impl Fs {
    /// The mapping at `lblk`, at most `len` blocks of it, from memory alone. `None`: not in memory, or in use.
    pub(crate) fn try_map_cached(&self, inode: &Inode, lblk: Lblk, len: u32) -> Option<DataMapping> {
        Some(inode.extents.try_lock()?.lookup(lblk)?.clip(len))
    }

    /// The mapping at `lblk`, at most `len` blocks of it.
    ///
    /// # Errors
    /// EUCLEAN for a damaged map, one that leads to the volume's metadata among them (F27); EBADMSG, EIO.
    pub(crate) fn map_lookup(&self, inode: &Inode, lblk: Lblk, len: u32) -> Result<DataMapping> {
        let known = inode.extents.lock().lookup(lblk);
        if let Some(mapping) = known {
            return Ok(mapping.clip(len));
        }
        let found = self.map_from_disk(inode, lblk);
        found.map(|mapping| mapping.clip(len)).inspect_err(|error| self.error_found(error, "map_blocks"))
    }

    fn map_from_disk(&self, inode: &Inode, lblk: Lblk) -> Result<DataMapping> {
        let _map = inode.map_lock.read();
        let mapping = inode.map_root().lookup(&Reader(self), inode.tree_owner(self), lblk)?;
        let mapping = self.check_mapping(inode.ino, mapping)?;
        inode.extents.lock().insert(&mapping);
        Ok(mapping)
    }

    /// Where a directory or symlink block lies. A hole there is damage (F60).
    pub(crate) fn map_metadata_block(&self, inode: &Inode, lblk: Lblk) -> Result<Pblk> {
        let mapping = self.map_lookup(inode, lblk, 1)?;
        if mapping.state == MapState::Written {
            return Ok(mapping.start);
        }
        let corrupt = ext4_format::Corrupt::structure("directory", format!("no block at {lblk}"));
        Err(Error::corrupt_inode(inode.ino.0, corrupt))
    }
}

impl Handle<'_> {
    /// Maps up to `len` blocks from `lblk` on, allocating a hole. Returns what is there now, and whether it was
    /// allocated by this call.
    pub(crate) fn map_create(
        &mut self,
        inode: &Inode,
        lblk: Lblk,
        len: u32,
        how: Allocate,
        kind: mballoc::RequestKind,
    ) -> Result<(DataMapping, bool)> {
        let fs = self.fs();
        let found = fs.map_lookup(inode, lblk, len.min(MAX_MAP_BLOCKS))?;
        if found.state != MapState::Hole {
            return Ok((found, false));
        }
        let _map = inode.map_lock.write();
        let owner = inode.tree_owner(fs);
        let root = inode.map_root();
        let found = root.lookup(self, owner, lblk)?;
        if found.state != MapState::Hole {
            return Ok((fs.check_mapping(inode.ino, found)?.clip(len), false));
        }
        let found = Mapping { len: found.len.min(len).min(MAX_MAP_BLOCKS), ..found };
        let mut root = match root {
            MapRoot::Extents(root) => root,
            MapRoot::Indirect(root) => {
                let mapping = self.create_indirect(inode, root, found, how, kind)?;
                return Ok((mapping, true));
            }
        };
        let goal = extents::goal(self, &root, owner, lblk)?;
        let request = mballoc::Request {
            ino: inode.ino,
            lblk: Some(lblk),
            goal,
            len: found.len,
            min_len: 1,
            kind,
            may_use_reserve: false,
            preallocate: kind != mballoc::RequestKind::Metadata,
            below_2_32: false,
        };
        let run = self.allocate_data(&request)?;
        // What maps delayed data must be there too: it was kept for it.
        let delayed = kind == mballoc::RequestKind::Delayed;
        self.set_use_reserve(delayed);
        let unwritten = how == Allocate::Unwritten;
        let state = if unwritten { MapState::Unwritten } else { MapState::Written };
        let mapping = fs.check_mapping(inode.ino, Mapping { lblk, len: run.len, start: run.start, state })?;

        let zeroed = match how {
            Allocate::Zeroed => mapping.blocks().and_then(|blocks| fs.zero_blocks(blocks)),
            Allocate::Unwritten | Allocate::Written => Ok(()),
        };
        let mut tree = Tree::new(self, &mut root, owner);
        let extent = Extent { lblk, len: run.len, start: run.start, unwritten };
        let inserted = zeroed.and_then(|()| tree.insert(extent));
        let tree_blocks = tree.meta_blocks_delta;
        self.set_use_reserve(false);
        if let Err(error) = inserted {
            // The tree is as it was: give the run back, in the same transaction.
            self.free_data(run.start, run.len, inode.ino)?;
            if delayed {
                fs.allocator.delay_again(run.len.into());
            }
            return Err(error);
        }
        self.store_root(inode, root, i64::from(run.len) + tree_blocks)?;
        inode.extents.lock().insert(&mapping);
        Ok((mapping, true))
    }

    /// Marks `len` blocks from `lblk` on as written, their data being on the device (D7, A14). Holes and written
    /// parts of the range are left alone.
    pub(crate) fn convert_unwritten(
        &mut self,
        inode: &Inode,
        lblk: Lblk,
        len: u32,
        splitting: &mut Splitting<'_>,
    ) -> Result<Progress> {
        let fs = self.fs();
        let _map = inode.map_lock.write();
        let MapRoot::Extents(mut root) = inode.map_root() else { return Ok(Progress::Done) };
        let owner = inode.tree_owner(fs);
        self.set_use_reserve(true);
        let claimed = if let Splitting::Claimed(claim) = splitting { claim.clusters() } else { 0 };
        self.set_split_claim(claimed);
        let mut tree = Tree::new(self, &mut root, owner);
        let converted = match splitting {
            Splitting::Zeroing => {
                let eof_block = inode.size().div_ceil(fs.block_size() as u64);
                tree.convert_zeroing(lblk, len, eof_block, &mut |start, len| {
                    fs.zero_blocks(fs.check_data_blocks(inode.ino, start, len)?)
                })
            }
            Splitting::Claimed(_) | Splitting::Reserve => tree.convert_to_written(lblk, len),
        };
        let tree_blocks = tree.meta_blocks_delta;
        // A failed split may have moved mappings about: believe the tree alone from here on.
        if let Some((first, last)) = tree.changed {
            inode.extents.lock().remove(first, last);
        }
        self.set_use_reserve(false);
        let used = claimed - self.set_split_claim(0);
        if let Splitting::Claimed(claim) = splitting {
            claim.used(used);
            if converted.is_err() {
                // What a failed split had taken is free again, and will be wanted again.
                let _as_far_as_possible = claim.resize(claimed);
            }
        }
        self.store_root(inode, root, tree_blocks)?;
        // What was converted is about to be overwritten or read, by somebody who may not wait (C5).
        if converted.is_ok()
            && let Ok(mapping) = extents::lookup(self, &root, owner, lblk)
            && let Ok(mapping) = fs.check_mapping(inode.ino, mapping)
        {
            inode.extents.lock().insert(&mapping);
        }
        converted
    }

    /// Removes blocks `from`…`to` (inclusive) of the map, right to left, as far as this handle's credits go.
    pub(crate) fn remove_blocks(&mut self, inode: &Inode, from: Lblk, to: Lblk) -> Result<Progress> {
        let fs = self.fs();
        let _map = inode.map_lock.write();
        let owner = inode.tree_owner(fs);
        self.set_use_reserve(true);
        let (removed, root, delta) = match inode.map_root() {
            MapRoot::Extents(mut root) => {
                let mut tree = Tree::new(self, &mut root, owner);
                let removed = tree.remove(from, to);
                let delta = tree.meta_blocks_delta - tree.data_blocks_freed as i64;
                (removed, root, delta)
            }
            MapRoot::Indirect(mut root) => {
                let mut map = BlockMap::new(self, &mut root, owner);
                let removed = map.remove(from, to);
                let delta = map.meta_blocks_delta - map.data_blocks_freed as i64;
                (removed, root, delta)
            }
        };
        inode.extents.lock().remove(from, to);
        self.set_use_reserve(false);
        self.store_root(inode, root, delta)?;
        removed
    }

    /// Where the last `count` blocks of the map begin.
    pub(crate) fn last_blocks(&self, inode: &Inode, count: u32) -> Result<Lblk> {
        let owner = inode.tree_owner(self.fs());
        let last = match inode.map_root() {
            MapRoot::Extents(root) => extents::last_block(self, &root, owner)?,
            MapRoot::Indirect(root) => indirect::last_block(self, &root, owner)?,
        };
        Ok(Lblk(last.map_or(0, |last| last.0.saturating_sub(count - 1))))
    }

    /// [`Handle::map_create`] in a block map, which has no unwritten blocks: where readers may look before the data is on
    /// the device, zeros go there first.
    fn create_indirect(
        &mut self,
        inode: &Inode,
        mut root: [u8; ROOT_SIZE],
        hole: Mapping,
        how: Allocate,
        kind: mballoc::RequestKind,
    ) -> Result<DataMapping> {
        let fs = self.fs();
        let owner = inode.tree_owner(fs);
        let lblk = hole.lblk;
        let room = indirect::room(fs.block_size(), lblk).ok_or(Error::errno_only(errno::EFBIG))?;
        let request = mballoc::Request {
            ino: inode.ino,
            lblk: Some(lblk),
            goal: indirect::goal(self, &root, owner, lblk)?,
            len: hole.len.min(room),
            min_len: 1,
            kind,
            may_use_reserve: false,
            preallocate: kind != mballoc::RequestKind::Metadata,
            below_2_32: true,
        };
        let run = self.allocate_data(&request)?;
        let mapping = Mapping { lblk, len: run.len, start: run.start, state: MapState::Written };
        let mapping = fs.check_mapping(inode.ino, mapping)?;
        let zeroed = match how {
            Allocate::Written => Ok(()),
            Allocate::Unwritten | Allocate::Zeroed => {
                mapping.blocks().and_then(|blocks| fs.zero_blocks(blocks))
            }
        };
        let delayed = kind == mballoc::RequestKind::Delayed;
        self.set_use_delayed(delayed);
        let mut map = BlockMap::new(self, &mut root, owner);
        let inserted = zeroed.and_then(|()| map.insert(lblk, run.len, run.start));
        let tables = map.meta_blocks_delta;
        self.set_use_delayed(false);
        if let Err(error) = inserted {
            // The map is as it was: give the run back, in the same transaction.
            self.free_data(run.start, run.len, inode.ino)?;
            if delayed {
                fs.allocator.delay_again(run.len.into());
            }
            return Err(error);
        }
        if delayed {
            // Each block had tables of its own set aside; most share them.
            let unused = u64::from(run.len) * indirect::MAX_TABLES;
            fs.allocator.release_delayed(unused.saturating_sub(tables.unsigned_abs()));
        }
        self.store_root(inode, root, i64::from(run.len) + tables)?;
        inode.extents.lock().insert(&mapping);
        Ok(mapping)
    }

    pub(crate) fn store_root(&mut self, inode: &Inode, root: [u8; 60], blocks_delta: i64) -> Result<()> {
        let sectors_per_block = (self.fs().block_size() / 512) as i64;
        self.change_inode(inode, Change::Data, |state| {
            state.disk.i_block = root;
            state.disk.blocks = state.disk.blocks.saturating_add_signed(blocks_delta * sectors_per_block);
        })
    }

    /// Appends a block to a directory: allocated, mapped, counted in i_size, filled by `fill` as `kind`.
    pub(crate) fn append_metadata_block(
        &mut self,
        inode: &Inode,
        kind: crate::meta::BlockKind,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Lblk> {
        let block_size = self.fs().block_size() as u64;
        let lblk = Lblk((inode.size() / block_size) as u32);
        let (mapping, new) =
            self.map_create(inode, lblk, 1, Allocate::Written, mballoc::RequestKind::Metadata)?;
        if !new {
            let corrupt = ext4_format::Corrupt::structure("directory", format!("block {lblk} beyond i_size"));
            return Err(Error::corrupt_inode(inode.ino.0, corrupt));
        }
        self.create(mapping.start, kind, fill)?;
        self.change_inode(inode, Change::Data, |state| {
            state.size += block_size;
            state.disk.size = state.size;
        })?;
        Ok(lblk)
    }
}

/// The largest block number that a file may have (A12).
pub(crate) fn check_lblk(block: u64) -> Result<Lblk> {
    match u32::try_from(block) {
        Ok(block) if block <= 0xFFFF_FFFE => Ok(Lblk(block)),
        _ => Err(Error::errno_only(errno::EFBIG)),
    }
}
