//! What a crash may have left of a workload, and whether it did.

use std::collections::BTreeMap;
use std::ops::Range;

use super::file_history::Known;
use super::layout::{Layout, SectorId};
use super::{FileAck, FileHistory, How, Kind, Model, Node, Op, Operation};
use crate::crash::image::SECTOR;

/// What may be there.
pub struct Expectation<'m> {
    model: &'m Model,
    events: usize,
    now: Op,
    pub(super) versions: Range<usize>,
    /// The last transaction that is there.
    tid: Option<i64>,
}
impl Model {
    /// What may be seen after a crash once `events` have happened.
    pub fn expectation(&self, events: usize) -> Expectation<'_> {
        let now = self.ops.partition_point(|operation| operation.events <= events) - 1;
        let least = self.acks.iter().filter(|(event, _)| *event <= events).map(|(_, version)| *version).max();
        let versions = least.unwrap_or(0)..self.ops[now].version + 1;
        Expectation { model: self, events, now: now as Op, versions, tid: None }
    }

    fn node_at(&self, path: &str, version: usize) -> Option<&Node> {
        let history = self.names.get(path)?;
        let index = history.partition_point(|(from, _)| *from <= version).checked_sub(1)?;
        history[index].1.as_ref()
    }
}

impl Expectation<'_> {
    /// The operation that was running, or the last.
    pub fn operation(&self) -> &str {
        &self.model.ops[self.now as usize].what
    }

    /// The last operations that had begun, a line each: the events before each, its transactions, the names' version after
    /// it.
    pub fn last_operations(&self, count: usize) -> String {
        let now = self.now as usize;
        let line = |operation: &Operation| {
            let Operation { events, version, what, tids } = operation;
            let last = tids.last.map_or("?".into(), |last| last.to_string());
            format!("  {events}: {what} (transactions {} to {last}, version {version})", tids.first)
        };
        let shown = &self.model.ops[(now + 1).saturating_sub(count)..=now];
        shown.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The promises in force, as versions of names.
    fn kept_versions(&self) -> Vec<(usize, usize)> {
        self.model.acks.iter().copied().filter(|(event, _)| *event <= self.events).collect()
    }

    /// The stronger rule of CM8 (d): recovery found `tid` to be the last whole transaction, so that metadata is as at its
    /// end.
    pub fn at_end_of(&self, tid: i64) -> Self {
        let tids = &self.model.version_tids;
        let least = tids.iter().rposition(|tids| tids.is_in(tid)).unwrap_or(0);
        let end = tids.iter().rposition(|tids| tids.first <= tid).map_or(0, |version| version + 1);
        let versions = self.versions.start.max(least)..self.versions.end.min(end);
        Self { versions, tid: Some(tid), ..*self }
    }

    /// Whether all of an operation is in the transactions that are there.
    pub(super) fn is_in(&self, op: Op) -> bool {
        self.tid.is_some_and(|tid| self.model.ops[op as usize].tids.is_in(tid))
    }

    /// Whether a part of it may be.
    pub(super) fn may_be(&self, op: Op) -> bool {
        self.tid.is_none_or(|tid| self.model.ops[op as usize].tids.first <= tid)
    }

    /// Which promises are in force: equal numbers, equal expectations of what is durable.
    pub fn promises(&self) -> usize {
        self.model.acks.partition_point(|(event, _)| *event <= self.events)
    }

    /// The versions of names that a tree with this sum may be, latest first.
    pub fn versions_of(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        self.versions.clone().rev().filter(move |&version| self.model.hashes[version] == hash)
    }

    /// The file of a path in a version of names.
    pub fn file_at(&self, path: &str, version: usize) -> Option<&FileHistory> {
        match self.model.node_at(path, version)?.kind {
            Kind::File(file) => Some(&self.model.files[file]),
            _ => None,
        }
    }

    /// How a tree differs from the versions that it may be, for people.
    pub fn describe(&self, found: &BTreeMap<String, String>) -> String {
        let kept = self.kept_versions();
        let mut text = format!(
            "names may be of versions {:?}; transaction {:?}; promises (event, version) {:?}\n",
            self.versions,
            self.tid,
            &kept[kept.len().saturating_sub(4)..]
        );
        for version in [self.versions.start, self.versions.end - 1] {
            for (path, history) in &self.model.names {
                let wanted = self
                    .model
                    .node_at(path, version)
                    .map(|node| format!("{} {:?} {} {}", node.ino, node.kind, node.links, node.attributes));
                let is = found.get(path);
                let same = match (&wanted, is) {
                    (None, None) => true,
                    (Some(_), Some(is)) => {
                        let node = self.model.node_at(path, version).expect("just found");
                        is.starts_with(&format!("{} ", node.ino))
                            && is.ends_with(&format!(" {} {}", node.links, node.attributes))
                    }
                    _ => false,
                };
                if !same {
                    text += &format!(
                        "version {version}: {path:?} wanted {wanted:?} found {is:?} ({} changes)\n",
                        history.len()
                    );
                }
            }
        }
        for (path, is) in found.iter().filter(|(path, _)| !self.model.names.contains_key(*path)) {
            text += &format!("{path:?} found {is}, which never was\n");
        }
        text
    }

    fn acks_in_force<'f>(&self, file: &'f FileHistory) -> impl Iterator<Item = &'f FileAck> + use<'f> {
        let events = self.events;
        file.acks.iter().filter(move |ack| ack.event <= events)
    }

    /// Whether a file may have these contents.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_file(&self, file: &FileHistory, data: &[u8], block_size: u64) -> Result<(), String> {
        let acked = self.acks_in_force(file).map(|ack| ack.op).max().unwrap_or(0);
        let mut wrong = None;
        for (index, (op, layout)) in file.layouts.iter().enumerate().rev() {
            if *op > self.now || !self.may_be(*op) {
                continue;
            }
            let until = file.layouts.get(index + 1).map_or(Op::MAX, |(next, _)| *next);
            match self.check_with_layout(file, data, block_size, (*op, until, layout)) {
                Ok(()) => return Ok(()),
                Err(text) => wrong = wrong.or(Some(text)),
            }
            // What moved by then has moved for good.
            if *op <= acked || self.is_in(*op) {
                break;
            }
        }
        Err(wrong.unwrap_or_else(|| "no order of its sectors may be".into()))
    }

    /// The same with sectors where they were from an operation to another.
    fn check_with_layout(
        &self,
        file: &FileHistory,
        data: &[u8],
        block_size: u64,
        (from, until, layout): (Op, Op, &Layout),
    ) -> Result<(), String> {
        let in_force = || self.acks_in_force(file);
        let acked = in_force().filter(|ack| ack.range.is_none()).map(|ack| ack.op).max().unwrap_or(0);
        let size = data.len() as u64;
        let known = |acked| Known { acked, now: self.now, expectation: self };
        // Write-back of the page cache sets a size later than the write.
        let committed = file.sizes.iter().rev().find(|(op, _, how)| *how != How::Buffered && self.is_in(*op));
        let least = acked.max(committed.map_or(0, |(op, ..)| *op)).max(from);
        file.check_size(size, Known { now: self.now.min(until - 1), ..known(least) }, block_size)?;
        // O_DSYNC promises the size that its range needs, unless somebody shortens the file after it.
        for ack in in_force() {
            let Some(end) = ack.range.as_ref().map(|range| range.end).filter(|end| *end > size) else {
                continue;
            };
            if file.sizes_since(ack.op, self.now).all(|(_, after, _)| after >= end) {
                return Err(format!("size {size}, but O_DSYNC promised {end}"));
            }
        }
        for (sector, found) in (0u64..).zip(data.chunks(SECTOR)) {
            let id = layout.id(sector);
            let acked = in_force().filter(|ack| ack.covers(file, id)).map(|ack| ack.op).max().unwrap_or(0);
            file.check_sector(sector, id, found, size, known(acked))?;
        }
        file.check_atomic(data, layout, known(acked))
    }
}

impl FileAck {
    /// Whether it promises a sector, wherever it was then.
    fn covers(&self, file: &FileHistory, id: SectorId) -> bool {
        self.range.as_ref().is_none_or(|range| {
            let position = file.layout_at(self.op).position(id);
            position.is_some_and(|position| range.contains(&(position * SECTOR as u64)))
        })
    }
}
