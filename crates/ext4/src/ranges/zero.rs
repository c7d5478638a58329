//! FALLOC_FL_ZERO_RANGE, and zeros in parts of blocks.

use std::sync::Arc;

use ext4_format::Lblk;

use crate::credits::MAP_CREDITS;
use crate::extents::{MapState, Progress, Tree};
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::{Result, file};

impl Fs {
    /// Gives [pos, end) blocks, and makes it read as zeros: whole blocks by their state, the rest by their contents.
    pub(crate) fn zero_range(
        &self,
        inode: &Arc<Inode>,
        pos: u64,
        end: u64,
        new_size: Option<u64>,
    ) -> Result<()> {
        let block_size = self.block_size() as u64;
        self.allocate_range(inode, file::block_range(self.block_size(), pos, end - pos)?, new_size)?;
        self.zero_partial_blocks(inode, pos, end)?;
        self.drop_cached(inode, pos, end)?;
        let (first, behind) = (pos.div_ceil(block_size), end / block_size);
        if first < behind { self.unwrite_range(inode, first as u32, behind as u32) } else { Ok(()) }
    }

    /// Blocks `first` to before `behind` become unwritten, in transaction-sized steps.
    fn unwrite_range(&self, inode: &Inode, first: u32, behind: u32) -> Result<()> {
        self.with_handle(MAP_CREDITS, |handle| {
            let mut from = Lblk(first);
            while let Progress::More { from: next, .. } =
                handle.convert_to_unwritten(inode, from, behind - from.0)?
            {
                from = next;
                handle.restart(MAP_CREDITS)?;
            }
            Ok(())
        })
    }

    /// Zeroes those parts of [pos, end) that do not fill a block.
    pub(super) fn zero_partial_blocks(&self, inode: &Inode, pos: u64, end: u64) -> Result<()> {
        let block_size = self.block_size() as u64;
        let head_end = end.min(pos.next_multiple_of(block_size));
        if !pos.is_multiple_of(block_size) {
            self.zero_in_block(inode, pos, head_end)?;
        }
        // The head may be the tail too.
        let tail = end - end % block_size;
        if tail < end && tail >= head_end { self.zero_in_block(inode, tail, end) } else { Ok(()) }
    }

    /// Zeroes [pos, end), which lies in one block, on the device, if that block is written. Whatever commits afterwards
    /// has it under its flush (T12).
    pub(crate) fn zero_in_block(&self, inode: &Inode, pos: u64, end: u64) -> Result<()> {
        let block_size = self.block_size() as u64;
        let start = pos - pos % block_size;
        self.write_and_wait(inode, start, block_size)?;
        let mapping = self.map_lookup(inode, Lblk((start / block_size) as u32), 1)?;
        if mapping.state != MapState::Written {
            return Ok(());
        }
        let mut data = self.read_data_block(inode, mapping.blocks()?)?;
        let part = &mut data[(pos - start) as usize..(end - start) as usize];
        if part.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        part.fill(0);
        self.write_data_block(inode, mapping.blocks()?, &data)
    }

    /// The page cache holds zeros for [pos, end). Dirty pages that go take along what would have raised i_disksize.
    pub(super) fn drop_cached(&self, inode: &Inode, pos: u64, end: u64) -> Result<()> {
        let (size, disk_size) = self.sizes(inode);
        if disk_size < size && pos <= size && end >= size {
            self.with_handle(MAP_CREDITS, |handle| {
                self.require_large_file(handle, size)?;
                handle.change_inode(inode, Change::Data, |state| {
                    state.disk.size = state.disk.size.max(size);
                })
            })?;
        }
        if let Some(pages) = inode.pages.get() {
            pages.zero(pos, end - pos);
        }
        Ok(())
    }
}

impl Handle<'_> {
    /// Marks `len` blocks from `lblk` on as unwritten, as far as this handle's credits go. Holes stay holes.
    fn convert_to_unwritten(&mut self, inode: &Inode, lblk: Lblk, len: u32) -> Result<Progress> {
        let fs = self.fs();
        let _map = inode.map_lock.write();
        let mut root = inode.state.lock().disk.i_block;
        let mut tree = Tree::new(self, &mut root, inode.tree_owner(fs));
        let converted = tree.convert_to_unwritten(lblk, len, &mut |start, len| {
            fs.zero_blocks(fs.check_data_blocks(inode.ino, start, len)?)
        });
        let tree_blocks = tree.meta_blocks_delta;
        if let Some((first, last)) = tree.changed {
            inode.extents.lock().remove(first, last);
        }
        self.store_root(inode, root, tree_blocks)?;
        converted
    }
}
