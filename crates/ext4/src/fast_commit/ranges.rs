//! ADD_RANGE and DEL_RANGE.

use std::sync::Arc;

use ext4_format::extent::Extent;
use ext4_format::inode::flags;
use ext4_format::{Corrupt, Ino, Lblk, Pblk};

use super::replay::Replay;
use crate::credits::MAP_CREDITS;
use crate::extents::{MapState, Mapping, Progress, Tree};
use crate::inode::Inode;
use crate::mballoc::Run;
use crate::mballoc::Splitting;
use crate::meta::Meta;
use crate::{Error, Result};

impl Replay<'_> {
    /// Marks the blocks of a range as used; returns those that were not.
    pub fn claim(&self, extent: &Extent) -> Result<Vec<Run>> {
        let fs = self.fs;
        extent.check(fs.blocks_count).map_err(|corrupt| Error::corrupt_block(extent.start.0, corrupt))?;
        if fs.allocator.pending_frees() > 0 {
            // What was freed a moment ago is neither used nor free before a commit (D13).
            fs.journal.commit_running()?;
        }
        fs.with_handle(MAP_CREDITS, |handle| {
            let allocator = fs.allocator.clone();
            allocator.claim_run(handle, extent.start, extent.len)
        })
    }

    pub fn add_range(&mut self, ino: Ino, extent: &Extent, claimed: Vec<Run>) -> Result<()> {
        let Some(inode) = self.existing(ino)? else {
            self.unneeded.extend(claimed);
            return Ok(());
        };
        inode.check_data_supported()?;
        if inode.is_dir() || !inode.has_flag(flags::EXTENTS) {
            let corrupt = Corrupt::structure("fast commit", "a range of a directory, or of a block map");
            return Err(Error::corrupt_inode(ino.0, corrupt));
        }
        self.claim(extent)?;
        let touches = |run: &Run| {
            run.start.0 < extent.start.0 + u64::from(extent.len)
                && extent.start.0 < run.start.0 + u64::from(run.len)
        };
        self.unneeded.retain(|run| !touches(run));
        let mut done = 0;
        while done < extent.len {
            let rest = part(extent, done, extent.len - done);
            let found = self.fs.map_lookup(&inode, rest.lblk, rest.len)?;
            self.add_part(&inode, &part(&rest, 0, found.len), &found)?;
            done += found.len;
        }
        Ok(())
    }

    /// R24: unmapped → insert; mapped elsewhere → remap, and free the old; the same → set its state.
    fn add_part(&self, inode: &Arc<Inode>, wanted: &Extent, found: &Mapping) -> Result<()> {
        let state = if wanted.unwritten { MapState::Unwritten } else { MapState::Written };
        if (found.state, found.start) == (state, wanted.start) {
            return Ok(());
        }
        let fs = self.fs;
        if found.state != MapState::Hole {
            if found.start == wanted.start && state == MapState::Written {
                return fs.with_handle(MAP_CREDITS, |handle| {
                    match handle.convert_unwritten(inode, wanted.lblk, wanted.len, &mut Splitting::Zeroing)? {
                        Progress::Done => Ok(()),
                        Progress::More { .. } => {
                            Err(Error::refused(crate::errno::EIO, "credits of a conversion"))
                        }
                    }
                });
            }
            let last = Lblk(wanted.lblk.0 + (wanted.len - 1));
            fs.remove_range(inode, wanted.lblk, last)?;
            // The same blocks in another state were just freed.
            self.claim(wanted)?;
        }
        fs.with_handle(MAP_CREDITS, |handle| {
            let _map = inode.map_lock.write();
            let mut root = inode.state.lock().disk.i_block;
            handle.ensure_credits(0)?;
            let mut tree = Tree::new(handle, &mut root, inode.tree_owner(fs));
            tree.insert(*wanted)?;
            let tree_blocks = tree.meta_blocks_delta;
            inode.extents.lock().remove(wanted.lblk, Lblk(wanted.lblk.0 + (wanted.len - 1)));
            handle.store_root(inode, root, i64::from(wanted.len) + tree_blocks)
        })
    }

    pub fn delete_range(&mut self, ino: Ino, lblk: Lblk, len: u32) -> Result<()> {
        let Some(inode) = self.existing(ino)?.filter(|_| len > 0) else { return Ok(()) };
        inode.check_data_supported()?;
        if inode.is_dir() {
            return Ok(());
        }
        let last = Lblk(lblk.0.saturating_add(len - 1));
        self.fs.remove_range(&inode, lblk, last)
    }
}

/// `len` blocks of an extent from its block `skip` on.
fn part(extent: &Extent, skip: u32, len: u32) -> Extent {
    Extent { lblk: Lblk(extent.lblk.0 + skip), len, start: Pblk(extent.start.0 + u64::from(skip)), ..*extent }
}
