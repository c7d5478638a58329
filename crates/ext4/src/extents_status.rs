//! What is known about an inode's logical blocks without reading its tree, as fs/ext4/extents_status.c.

use std::collections::BTreeMap;

use ext4_format::extent::ROOT_SIZE;
use ext4_format::{Lblk, Pblk};

use crate::Result;
use crate::extents::{self, MapState, Mapping, TreeOwner};
use crate::meta::Meta;

/// The state of a cached run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Blocks with data.
    Written,
    /// Blocks that read as zeros.
    Unwritten,
    /// No blocks.
    Hole,
}

impl Status {
    /// Has physical blocks.
    pub fn is_allocated(self) -> bool {
        matches!(self, Self::Written | Self::Unwritten)
    }
}

impl From<MapState> for Status {
    fn from(state: MapState) -> Self {
        match state {
            MapState::Hole => Self::Hole,
            MapState::Written => Self::Written,
            MapState::Unwritten => Self::Unwritten,
        }
    }
}

/// A run of one status, physically contiguous where it has blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusExtent {
    /// First logical block.
    pub lblk: Lblk,
    /// Blocks, at least 1.
    pub len: u32,
    /// The physical block of `lblk`; 0 without blocks.
    pub start: Pblk,
    /// Its state.
    pub status: Status,
}

impl From<Mapping> for StatusExtent {
    fn from(mapping: Mapping) -> Self {
        Self { lblk: mapping.lblk, len: mapping.len, start: mapping.start, status: mapping.state.into() }
    }
}

/// What the map holds under a run's first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The first block after it, at most 2^32.
    end: u64,
    start: Pblk,
    status: Status,
}

impl Run {
    /// The run from `from` on, of a run that begins at `lblk`.
    fn tail(self, lblk: u32, from: u32) -> Self {
        let skip = u64::from(from - lblk);
        let start = if self.status.is_allocated() { Pblk(self.start.0 + skip) } else { Pblk(0) };
        Self { start, ..self }
    }

    /// Whether `next`, which begins where this run, from `lblk` on, ends, goes on with it.
    fn continues(&self, lblk: u32, next: &Run) -> bool {
        self.status == next.status
            && (!self.status.is_allocated() || self.start.0 + (self.end - u64::from(lblk)) == next.start.0)
    }
}

/// The extent-status cache of one inode: disjoint runs, merged where they touch. Unlike the tree's extents they know no
/// greatest length and no leaves, so that one look tells whether a range is one run (E55).
#[derive(Debug)]
pub struct ExtentStatus {
    runs: BTreeMap<u32, Run>,
    limit: usize,
    /// Reclaim goes round: the next run to drop begins here or later.
    hand: u32,
}

impl ExtentStatus {
    /// An empty cache that holds about `limit` runs (at least 2).
    pub fn new(limit: usize) -> Self {
        Self { runs: BTreeMap::new(), limit: limit.max(2), hand: 0 }
    }

    /// Runs held.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What is known about `lblk`, and how far from there on; `None`: look into the tree.
    pub fn lookup(&self, lblk: Lblk) -> Option<StatusExtent> {
        let (first, run) = self.runs.range(..=lblk.0).next_back()?;
        let len = run.end.checked_sub(lblk.0.into()).filter(|len| *len > 0)?;
        let rest = run.tail(*first, lblk.0);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Some(StatusExtent { lblk, len, start: rest.start, status: run.status })
    }

    /// The state of a range that is known to be one allocated run: C25's "overwrite", without the disk. `None`: it is
    /// not, or that is not known.
    pub fn allocated_run(&self, lblk: Lblk, len: u32) -> Option<StatusExtent> {
        self.lookup(lblk).filter(|run| run.status.is_allocated() && run.len >= len)
    }

    /// Records a run over whatever was known of its blocks.
    pub fn insert(&mut self, extent: StatusExtent) {
        let first = extent.lblk.0;
        let end = (u64::from(first) + u64::from(extent.len)).min(1 << 32);
        if end == u64::from(first) {
            return;
        }
        self.cut_out(first, end);
        let mut lblk = first;
        let start = if extent.status.is_allocated() { extent.start } else { Pblk(0) };
        let mut run = Run { end, start, status: extent.status };
        if let Some((before, previous)) = self.runs.range(..first).next_back()
            && previous.end == u64::from(first)
            && previous.continues(*before, &run)
        {
            (lblk, run) = (*before, Run { end, ..*previous });
        }
        if let Ok(after) = u32::try_from(end)
            && let Some(next) = self.runs.get(&after).copied()
            && run.continues(lblk, &next)
        {
            self.runs.remove(&after);
            run.end = next.end;
        }
        self.runs.insert(lblk, run);
        self.reclaim(lblk);
    }

    /// Forgets the blocks from `from` to `to`, both included.
    pub fn remove(&mut self, from: Lblk, to: Lblk) {
        if from <= to {
            self.cut_out(from.0, u64::from(to.0) + 1);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    /// What is known about `lblk`, from the tree if need be.
    pub fn map(
        &mut self,
        meta: &dyn Meta,
        root: &[u8; ROOT_SIZE],
        owner: TreeOwner,
        lblk: Lblk,
    ) -> Result<StatusExtent> {
        if let Some(known) = self.lookup(lblk) {
            return Ok(known);
        }
        let found = StatusExtent::from(extents::lookup(meta, root, owner, lblk)?);
        self.insert(found);
        Ok(found)
    }

    fn cut_out(&mut self, from: u32, end: u64) {
        if let Some((first, run)) = self.runs.range(..from).next_back().map(|(first, run)| (*first, *run))
            && run.end > u64::from(from)
        {
            self.runs.insert(first, Run { end: from.into(), ..run });
            self.runs.insert(from, run.tail(first, from));
        }
        while let Some((first, run)) = self.runs.range(from..).next().map(|(first, run)| (*first, *run)) {
            if u64::from(first) >= end {
                break;
            }
            self.runs.remove(&first);
            if let Ok(after) = u32::try_from(end)
                && run.end > end
            {
                self.runs.insert(after, run.tail(first, after));
                break;
            }
        }
    }

    /// Drops runs, round and round, until the limit holds; never `keep`.
    fn reclaim(&mut self, keep: u32) {
        while self.runs.len() > self.limit {
            let may_go = |(first, _): &(&u32, &Run)| **first != keep;
            let victim = self.runs.range(self.hand..).find(may_go).or_else(|| self.runs.iter().find(may_go));
            let Some(victim) = victim.map(|(first, _)| *first) else { return };
            self.runs.remove(&victim);
            self.hand = victim;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(lblk: u32, len: u32, start: u64, status: Status) -> StatusExtent {
        StatusExtent { lblk: Lblk(lblk), len, start: Pblk(start), status }
    }

    fn check(cache: &ExtentStatus) {
        let runs: Vec<_> = cache.runs.iter().collect();
        assert!(runs.iter().all(|(first, run)| u64::from(**first) < run.end));
        for pair in runs.windows(2) {
            let ((first, run), (next, after)) = (pair[0], pair[1]);
            assert!(run.end <= u64::from(*next), "overlap");
            assert!(run.end < u64::from(*next) || !run.continues(*first, after), "unmerged");
        }
    }

    #[test]
    fn one_lookup_over_merged_runs() {
        let mut cache = ExtentStatus::new(100);
        cache.insert(extent(20, 10, 120, Status::Written));
        cache.insert(extent(0, 10, 100, Status::Written));
        assert_eq!(cache.allocated_run(Lblk(0), 11), None);
        cache.insert(extent(10, 10, 110, Status::Written));
        assert_eq!(cache.len(), 1);
        assert_eq!(cache.allocated_run(Lblk(5), 25), Some(extent(5, 25, 105, Status::Written)));
        cache.insert(extent(12, 2, 112, Status::Unwritten));
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.lookup(Lblk(14)), Some(extent(14, 16, 114, Status::Written)));
        cache.remove(Lblk(5), Lblk(12));
        assert_eq!(cache.lookup(Lblk(12)), None);
        assert_eq!(cache.lookup(Lblk(13)), Some(extent(13, 1, 113, Status::Unwritten)));
    }

    #[test]
    fn the_last_block_and_the_longest_hole() {
        let mut cache = ExtentStatus::new(100);
        cache.insert(extent(0, u32::MAX, 0, Status::Hole));
        cache.insert(extent(u32::MAX, 1, 0, Status::Hole));
        assert_eq!(cache.lookup(Lblk(0)), Some(extent(0, u32::MAX, 0, Status::Hole)));
        assert_eq!(cache.lookup(Lblk(u32::MAX)), Some(extent(u32::MAX, 1, 0, Status::Hole)));
        cache.remove(Lblk(u32::MAX), Lblk(u32::MAX));
        assert_eq!(cache.lookup(Lblk(u32::MAX)), None);
        check(&cache);
    }

    #[test]
    fn the_limit_spares_the_newest() {
        let mut cache = ExtentStatus::new(8);
        for i in 0..100 {
            cache.insert(extent(i * 2, 1, 1000 + u64::from(i) * 5, Status::Written));
            assert!(cache.lookup(Lblk(i * 2)).is_some());
        }
        assert_eq!(cache.len(), 8);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_blocks(
            ops in prop::collection::vec((0u32..200, 1u32..60, 0u64..3, 0u8..4), 1..60),
        ) {
            let mut cache = ExtentStatus::new(1000);
            let mut model = BTreeMap::new();
            for (lblk, len, lane, what) in ops {
                let status = match what {
                    0 => Some(Status::Written),
                    1 => Some(Status::Unwritten),
                    2 => Some(Status::Hole),
                    _ => None,
                };
                let start = 1 + lane * 1000 + u64::from(lblk);
                match status {
                    Some(status) => cache.insert(extent(lblk, len, start, status)),
                    None => cache.remove(Lblk(lblk), Lblk(lblk + len - 1)),
                }
                for i in 0..len {
                    match status {
                        Some(status) => {
                            let block = if status.is_allocated() { start + u64::from(i) } else { 0 };
                            model.insert(lblk + i, (status, block));
                        }
                        None => {
                            model.remove(&(lblk + i));
                        }
                    }
                }
                check(&cache);
                for at in 0..260 {
                    let found = cache.lookup(Lblk(at)).map(|run| (run.status, run.start.0));
                    prop_assert_eq!(found, model.get(&at).copied());
                }
            }
        }
    }
}
