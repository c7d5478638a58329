//! The contents and sizes that a file may have.

use std::sync::Arc;

use super::layout::{Layout, SectorId};
use super::{Expectation, FileHistory, How, Op, Version};
use crate::crash::image::SECTOR;

/// What is known of a crash: what was promised of a place up to an operation, and which was the last to begin.
#[derive(Clone, Copy)]
pub(super) struct Known<'e> {
    pub acked: Op,
    pub now: Op,
    /// Which transactions are there.
    pub expectation: &'e Expectation<'e>,
}

impl FileHistory {
    pub(super) fn note_sectors(&mut self, op: Op, from: u64, to: u64, how: How, any_size: bool) {
        let sector_bytes = SECTOR as u64;
        for sector in from / sector_bytes..to.div_ceil(sector_bytes) {
            let at = (sector * sector_bytes) as usize;
            let bytes = (at < self.current.len()).then(|| {
                let mut bytes = vec![0; SECTOR];
                let end = self.current.len().min(at + SECTOR);
                bytes[..end - at].copy_from_slice(&self.current[at..end]);
                Arc::from(bytes)
            });
            let id = self.layout_at(op).id(sector);
            let version = Version { op, bytes, how, any_size, perhaps: false };
            self.sectors.entry(id).or_default().push(version);
        }
    }

    /// Where sectors are after an operation.
    pub(super) fn layout_at(&self, op: Op) -> &Layout {
        let after = self.layouts.partition_point(|(from, _)| *from <= op);
        &self.layouts[after.saturating_sub(1)].1
    }

    /// Where the first bytes of a sector end after an operation.
    fn end_at(&self, op: Op, id: SectorId, len: usize) -> u64 {
        let position = self.layout_at(op).position(id);
        position.map_or(u64::MAX, |position| position * SECTOR as u64 + len as u64)
    }

    /// Sizes in force in `acked..=now`: that of `acked` and all later ones.
    pub(super) fn sizes_since(&self, acked: Op, now: Op) -> impl Iterator<Item = (Op, u64, How)> + '_ {
        let mut base = self.sizes.partition_point(|(op, ..)| *op <= acked).saturating_sub(1);
        while base > 0 && self.failed.contains(&self.sizes[base].0) {
            base -= 1;
        }
        self.sizes[base..].iter().copied().filter(move |(op, ..)| *op <= now)
    }

    /// Size only as some operation set it; write-back of one write may end at any block (A15).
    pub(super) fn check_size(&self, size: u64, known: Known<'_>, block_size: u64) -> Result<(), String> {
        let Known { acked, now, expectation } = known;
        let mut before = u64::MAX;
        for (op, after, how) in self.sizes_since(acked, now).filter(|(op, ..)| expectation.may_be(*op)) {
            let between = matches!(how, How::Buffered | How::Logged)
                && op > acked
                && size.is_multiple_of(block_size)
                && (before..after).contains(&size);
            if size == after || between {
                return Ok(());
            }
            before = after;
        }
        let sizes: Vec<_> = self.sizes_since(acked, now).collect();
        Err(format!("size {size}, which none of {sizes:?} (operation, size, how) set"))
    }

    pub(super) fn check_sector(
        &self,
        sector: u64,
        id: SectorId,
        found: &[u8],
        size: u64,
        known: Known<'_>,
    ) -> Result<(), String> {
        let Known { now, expectation, .. } = known;
        let zero = Version { op: 0, bytes: None, how: How::Direct, any_size: false, perhaps: false };
        let none = Vec::new();
        let history = self.sectors.get(&id).unwrap_or(&none);
        let versions: Vec<&Version> = std::iter::once(&zero).chain(history).collect();
        let logged =
            history.iter().filter(|version| version.how.is_logged() && expectation.is_in(version.op));
        let acked = logged.map(|version| version.op).max().unwrap_or(0).max(known.acked);
        for (index, version) in versions.iter().enumerate() {
            // In force from its operation to the next one's.
            let until =
                versions[index + 1..].iter().find(|next| !next.perhaps).map_or(Op::MAX, |next| next.op);
            let may_be = !version.how.is_logged() || expectation.may_be(version.op);
            if until <= acked || version.op > now || !may_be {
                continue;
            }
            let since = version.op.max(acked);
            let covers = |(op, after, _): (Op, u64, How)| after >= self.end_at(op, id, found.len());
            let covered =
                self.sizes_since(since, now).any(|size| (size.0 < until || size.0 <= since) && covers(size));
            let late = || match versions.get(index + 1) {
                Some(next) => self.is_late(next, acked, now) && self.sizes_since(next.op, now).any(covers),
                None => false,
            };
            let allowed = covered || version.any_size || late() || self.is_early(version, size, acked);
            if allowed && version.is(found) {
                return Ok(());
            }
        }
        let known = versions
            .iter()
            .map(|version| (version.op, version.bytes.as_ref().map(|bytes| bytes[0])))
            .collect::<Vec<_>>();
        Err(format!(
            "sector {sector} of {size} bytes starts {:02x?}, may be of operations {acked}..={now}, versions {known:02x?}",
            &found[..found.len().min(16)]
        ))
    }

    /// C24: of an atomic write all is there, or nothing; `layout` tells what is where in `data`.
    pub(super) fn check_atomic(&self, data: &[u8], layout: &Layout, known: Known<'_>) -> Result<(), String> {
        for (op, range) in self.atomic.iter().filter(|(op, _)| (known.acked + 1..=known.now).contains(op)) {
            let size = data.len() as u64;
            let shortened = || self.sizes_since(*op, known.now).any(|(_, after, _)| after < range.end);
            let (mut all, mut nothing) = (size >= range.end || shortened(), true);
            for sector in super::sectors(range.clone()) {
                let id = self.layout_at(*op).id(sector);
                let Some(at) = layout.position(id).map(|position| position as usize * SECTOR) else {
                    continue;
                };
                let Some(found) = data.get(at..data.len().min(at + SECTOR)).filter(|found| !found.is_empty())
                else {
                    continue;
                };
                let history = self.sectors.get(&id).into_iter().flatten();
                let (since, before): (Vec<_>, Vec<_>) = history.partition(|version| version.op >= *op);
                all &= since.iter().any(|version| version.is(found));
                nothing &=
                    before.iter().any(|version| version.is(found)) || found.iter().all(|&byte| byte == 0);
            }
            if !all && !nothing {
                return Err(format!("a part of the atomic write {range:?} of operation {op}"));
            }
        }
        Ok(())
    }

    /// Whether the version is newer than the size: bytes written in place are there before the truncation that came before
    /// them has committed, with the zeros behind what was then the end.
    fn is_early(&self, version: &Version, size: u64, acked: Op) -> bool {
        let before = |(op, after, _): (Op, u64, How)| op < version.op && after == size;
        // What a truncation took away has no bytes: only its size may take it away.
        version.bytes.is_some() && version.op > acked && self.sizes_since(acked, version.op).any(before)
    }

    /// Whether the next version may have stayed in the page cache while the size grew past it: a direct write or a
    /// truncation writes back the pages that it meets, not those before them. With the size first any write is met so.
    fn is_late(&self, next: &Version, acked: Op, now: Op) -> bool {
        next.how == How::Buffered
            && next.op > acked
            && next.op <= now
            && (self.size_first || self.touched.iter().any(|&op| op > next.op && op <= now))
    }
}

impl Version {
    fn is(&self, found: &[u8]) -> bool {
        match &self.bytes {
            Some(bytes) => bytes[..found.len()] == *found,
            None => found.iter().all(|&byte| byte == 0),
        }
    }
}
