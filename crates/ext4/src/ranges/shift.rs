//! FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE.
//!
//! A file whose tree fits one transaction changes as a whole; a larger one in steps, as in the kernel, and a crash between
//! them leaves the hole on its way.

use std::sync::Arc;

use ext4_format::Lblk;

use crate::credits::MAP_CREDITS;
use crate::extents::{self, Progress, Tree};
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::{Error, Result, errno};

impl Fs {
    /// Takes [pos, end) out of the file.
    pub(crate) fn collapse_range(&self, inode: &Arc<Inode>, pos: u64, end: u64) -> Result<()> {
        let size = inode.size();
        self.check_aligned(pos, end)?;
        if end >= size {
            return Err(Error::refused(errno::EINVAL, "a range that reaches the end of the file"));
        }
        self.settle_pages(inode, pos)?;
        let (first, behind) = (self.lblk_of(pos), self.lblk_of(end));
        let len = end - pos;
        self.allocator.discard_preallocations(Some(inode.ino));
        self.with_handle(MAP_CREDITS, |handle| {
            // Nothing that may fail for lack of space comes after the first move.
            while let Progress::More { .. } = handle.remove_blocks(inode, first, Lblk(behind.0 - 1))? {
                handle.restart(MAP_CREDITS)?;
            }
            let mut from = behind;
            while let Progress::More { from: next, .. } =
                handle.change_tree(inode, first, |tree| tree.shift_left(from, behind.0 - first.0))?
            {
                from = next;
                handle.restart(MAP_CREDITS)?;
            }
            handle.change_inode(inode, Change::Data, |state| {
                state.size = size - len;
                state.disk.size = size - len;
            })
        })
    }

    /// Makes room for `len` bytes before what is at `pos`.
    pub(crate) fn insert_range(&self, inode: &Arc<Inode>, pos: u64, len: u64) -> Result<()> {
        let size = inode.size();
        self.check_aligned(pos, len)?;
        if len > self.max_file_bytes() - size.min(self.max_file_bytes()) {
            return Err(Error::errno_only(errno::EFBIG));
        }
        if pos >= size {
            return Err(Error::refused(errno::EINVAL, "a position behind the end of the file"));
        }
        self.settle_pages(inode, pos)?;
        let (first, by) = (self.lblk_of(pos), self.lblk_of(len).0);
        self.allocator.discard_preallocations(Some(inode.ino));
        self.with_handle(MAP_CREDITS, |handle| {
            handle.check_room_above(inode, by)?;
            handle.set_use_reserve(true);
            let split = handle.change_tree(inode, first, |tree| tree.split_at(first));
            handle.set_use_reserve(false);
            split?;
            // Before anything moves: blocks beyond i_size would be damage (D9).
            self.raise_sizes(handle, inode, size + len)?;
            let mut to = Lblk(u32::MAX);
            while let Progress::More { to: next, .. } =
                handle.change_tree(inode, first, |tree| tree.shift_right(first, to, by))?
            {
                to = next;
                handle.restart(MAP_CREDITS)?;
            }
            Ok(())
        })
    }

    fn check_aligned(&self, pos: u64, len: u64) -> Result<()> {
        let cluster = (self.block_size() as u64) << self.geometry.cluster_bits();
        match (pos | len).is_multiple_of(cluster) {
            true => Ok(()),
            false => Err(Error::refused(errno::EINVAL, format!("no multiple of {cluster} bytes"))),
        }
    }

    /// A block number of a position below the largest file size.
    fn lblk_of(&self, pos: u64) -> Lblk {
        Lblk(u32::try_from(pos / self.block_size() as u64).unwrap_or(u32::MAX))
    }

    /// Nothing from `pos` on is in the page cache: pages keep their place in the file, and it moves.
    fn settle_pages(&self, inode: &Inode, pos: u64) -> Result<()> {
        self.write_and_wait(inode, pos, u64::MAX)?;
        if let Some(pages) = inode.pages.get() {
            pages.truncate(pos);
        }
        Ok(())
    }
}

impl Handle<'_> {
    /// Changes the tree of an inode from `first` on without taking or giving data blocks.
    fn change_tree<R>(
        &mut self,
        inode: &Inode,
        first: Lblk,
        change: impl FnOnce(&mut Tree<'_>) -> Result<R>,
    ) -> Result<R> {
        let _map = inode.map_lock.write();
        let mut root = inode.state.lock().disk.i_block;
        let owner = inode.tree_owner(self.fs());
        let mut tree = Tree::new(self, &mut root, owner);
        let changed = change(&mut tree);
        let tree_blocks = tree.meta_blocks_delta;
        inode.extents.lock().remove(first, Lblk(u32::MAX));
        self.store_root(inode, root, tree_blocks)?;
        changed
    }

    /// EINVAL unless the last extent, which may lie beyond i_size, can move up by `by` blocks.
    fn check_room_above(&self, inode: &Inode, by: u32) -> Result<()> {
        let root = inode.state.lock().disk.i_block;
        let last = extents::last_block(self, &root, inode.tree_owner(self.fs()))?;
        match last.is_none_or(|last| last.0.checked_add(by).is_some_and(|moved| moved < u32::MAX)) {
            true => Ok(()),
            false => Err(Error::refused(errno::EINVAL, "beyond the largest block of a file")),
        }
    }
}
