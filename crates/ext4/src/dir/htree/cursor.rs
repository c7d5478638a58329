//! A path from the root to a leaf, and the way to the next leaf.

use ext4_format::hash::HashVersion;
use ext4_format::htree::{DxEntry, DxKind, RootInfo, follows};

use crate::Result;
use crate::dir::{DirBlocks, DirParams};

use super::max_levels;

/// An index block on the path, and the entry that the path takes.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub lblk: u32,
    pub entries: Vec<DxEntry>,
    pub at: usize,
}

impl Frame {
    pub fn kind(&self) -> DxKind {
        if self.lblk == 0 { DxKind::Root } else { DxKind::Node }
    }

    fn child(&self) -> u32 {
        self.entries[self.at].block
    }
}

/// A position in the order of hashes. The depth is fixed by the root, so that a damaged index cannot make a path
/// endless; [`Cursor::advance`] counts leaves for the same reason.
pub(crate) struct Cursor<'a> {
    params: &'a DirParams,
    pub info: RootInfo,
    /// F74: of this directory.
    pub version: HashVersion,
    /// From the root to the parent of the leaf.
    pub frames: Vec<Frame>,
    leaves_seen: u32,
}

impl<'a> Cursor<'a> {
    /// Reads the root. Only [`Cursor::seek`] makes a path.
    pub fn open(dir: &dyn DirBlocks, params: &'a DirParams) -> Result<Self> {
        if dir.block_count() == 0 {
            return Err(params.damage("directory", "without blocks"));
        }
        let format = params.format(dir);
        let image = dir.read(0, true)?;
        let corrupt = |corrupt| params.corrupt(corrupt);
        let info = RootInfo::decode(format, &image).map_err(corrupt)?;
        if u32::from(info.indirect_levels) >= max_levels(params.large_dir) {
            let detail = format!("{} indirect levels without large_dir", info.indirect_levels);
            return Err(params.damage("htree root", detail));
        }
        let version =
            HashVersion::from_stored(info.hash_version, params.hash_version.unsigned).map_err(corrupt)?;
        let entries = DxKind::Root.decode(format, &image).map_err(corrupt)?;
        Ok(Self { params, info, version, frames: vec![Frame { lblk: 0, entries, at: 0 }], leaves_seen: 0 })
    }

    /// The first leaf that may hold names of `hash`: the last key that is not above it.
    pub fn seek(&mut self, dir: &dyn DirBlocks, hash: u32) -> Result<()> {
        self.leaves_seen = 0;
        self.frames.truncate(1);
        self.frames[0].at = position(&self.frames[0].entries, hash);
        self.descend(dir, |entries| position(entries, hash))
    }

    fn descend(&mut self, dir: &dyn DirBlocks, choose: impl Fn(&[DxEntry]) -> usize) -> Result<()> {
        let format = self.params.format(dir);
        loop {
            let lblk = self.last().child();
            if lblk == 0 || lblk >= dir.block_count() {
                let detail = format!("block {lblk} of {}", dir.block_count());
                return Err(self.params.damage("htree entry", detail));
            }
            if self.frames.len() > usize::from(self.info.indirect_levels) {
                return Ok(());
            }
            let image = dir.read(lblk, true)?;
            let entries = DxKind::Node.decode(format, &image).map_err(|e| self.params.corrupt(e))?;
            if !self.bounds_hold(&entries) {
                return Err(self
                    .params
                    .damage("htree", format!("keys of block {lblk} against its parent's")));
            }
            let at = choose(&entries);
            self.frames.push(Frame { lblk, entries, at });
        }
    }

    fn last(&self) -> &Frame {
        self.frames.last().expect("the root is always there")
    }

    /// The leaf at this position.
    pub fn leaf(&self) -> u32 {
        self.last().child()
    }

    /// The key of this leaf, 0 at the first one.
    pub fn key(&self) -> u32 {
        // Entry 0 continues its parent's entry.
        self.frames.iter().rev().find(|frame| frame.at > 0).map_or(0, |frame| frame.entries[frame.at].hash)
    }

    /// F69: whether the keys of a node below the last frame lie between that frame's.
    fn bounds_hold(&self, entries: &[DxEntry]) -> bool {
        let [Some(first), Some(last)] = [entries.get(1), entries.last()] else { return true };
        let key = self.key();
        (key == 0 || follows(key, first.hash)) && self.next_key().is_none_or(|next| follows(last.hash, next))
    }

    /// The key of the next leaf, with its continuation bit (F71); `None` at the last one.
    pub fn next_key(&self) -> Option<u32> {
        self.frames.iter().rev().find_map(|frame| frame.entries.get(frame.at + 1)).map(|entry| entry.hash)
    }

    /// Moves on to the next leaf, across nodes. `false`: there is none.
    pub fn advance(&mut self, dir: &dyn DirBlocks) -> Result<bool> {
        let Some(depth) = self.frames.iter().rposition(|frame| frame.at + 1 < frame.entries.len()) else {
            return Ok(false);
        };
        self.leaves_seen += 1;
        if self.leaves_seen >= dir.block_count() {
            return Err(self.params.damage("htree", "refers to a leaf twice"));
        }
        self.frames.truncate(depth + 1);
        self.frames[depth].at += 1;
        self.descend(dir, |_| 0)?;
        Ok(true)
    }
}

fn position(entries: &[DxEntry], hash: u32) -> usize {
    entries[1..].partition_point(|entry| entry.hash <= hash)
}
