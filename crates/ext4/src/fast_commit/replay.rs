//! One tag after the other (R24), and what has to be right at the end (R25).

use std::collections::BTreeSet;
use std::sync::Arc;

use ext4_format::Ino;
use ext4_format::fast_commit::Tag;

use crate::Result;
use crate::credits::{MAP_CREDITS, ORPHAN_CREDITS};
use crate::fs::Fs;
use crate::inode::{Iget, Inode};
use crate::mballoc::Run;

/// A replay under way.
pub(super) struct Replay<'f> {
    pub fs: &'f Fs,
    /// Directories whose names, and so perhaps whose links, changed.
    pub directories: BTreeSet<Ino>,
    /// Inodes that lost a link: without one at the end they are orphans.
    pub unlinked: BTreeSet<Ino>,
    /// What was claimed for inodes that are not there.
    pub unneeded: Vec<Run>,
}

impl<'f> Replay<'f> {
    pub fn new(fs: &'f Fs) -> Self {
        let (directories, unlinked) = (BTreeSet::new(), BTreeSet::new());
        Self { fs, directories, unlinked, unneeded: Vec::new() }
    }

    pub fn run(mut self, tags: &[Tag]) -> Result<()> {
        // R25: what the tags map must not be allocated for anything else on the way.
        let mut claimed = Vec::with_capacity(tags.len());
        for tag in tags {
            claimed.push(match tag {
                Tag::AddRange(_, extent) => self.claim(extent)?,
                _ => Vec::new(),
            });
        }
        for (tag, claimed) in tags.iter().zip(claimed) {
            self.tag(tag, claimed)?;
        }
        self.finish()
    }

    fn tag(&mut self, tag: &Tag, claimed: Vec<Run>) -> Result<()> {
        match tag {
            Tag::AddRange(ino, extent) => self.add_range(*ino, extent, claimed),
            Tag::DelRange(ino, lblk, len) => self.delete_range(*ino, *lblk, *len),
            Tag::Create(dentry) => self.create(dentry),
            Tag::Link(dentry) => self.link(dentry).map(|_| ()),
            Tag::Unlink(dentry) => self.unlink(dentry),
            Tag::Inode(ino, raw) => self.inode(*ino, raw),
            Tag::Pad | Tag::Head { .. } | Tag::Tail { .. } => Ok(()),
        }
    }

    /// The inode of a number that a tag names; `None`: it is free, or none that has names and data.
    pub fn existing(&self, ino: Ino) -> Result<Option<Arc<Inode>>> {
        let fs = self.fs;
        let ordinary = fs.may_be(ino, Iget::Normal);
        let reader = crate::handle::Reader(fs);
        if !ordinary || !fs.allocator.inode_in_use(&reader, ino)? {
            return Ok(None);
        }
        fs.iget(ino, Iget::Normal).map(Some)
    }

    fn finish(mut self) -> Result<()> {
        let fs = self.fs;
        for ino in std::mem::take(&mut self.directories) {
            self.count_links(ino)?;
        }
        for ino in std::mem::take(&mut self.unlinked) {
            if let Some(inode) = self.existing(ino)?.filter(|inode| inode.state.lock().disk.links_count == 0)
            {
                fs.with_handle(ORPHAN_CREDITS, |handle| handle.add_orphan(&inode))?;
            }
        }
        for run in std::mem::take(&mut self.unneeded) {
            fs.with_handle(MAP_CREDITS, |handle| {
                let allocator = fs.allocator.clone();
                allocator.free(handle, run.start, run.len)
            })?;
        }
        fs.with_handle(4, |handle| fs.change_superblock(handle, |_| ()))?;
        Ok(fs.journal.commit_running()?)
    }
}
