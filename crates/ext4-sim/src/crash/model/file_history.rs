//! The contents and sizes that a file may have.

use std::sync::Arc;

use super::{FileHistory, Op, Version};
use crate::crash::image::SECTOR;

impl FileHistory {
    pub(super) fn note_sectors(&mut self, op: Op, from: u64, to: u64, buffered: bool, any_size: bool) {
        let sector_bytes = SECTOR as u64;
        for sector in from / sector_bytes..to.div_ceil(sector_bytes) {
            let at = (sector * sector_bytes) as usize;
            let bytes = (at < self.current.len()).then(|| {
                let mut bytes = vec![0; SECTOR];
                let end = self.current.len().min(at + SECTOR);
                bytes[..end - at].copy_from_slice(&self.current[at..end]);
                Arc::from(bytes)
            });
            self.sectors.entry(sector).or_default().push(Version {
                op,
                bytes,
                buffered,
                any_size,
                perhaps: false,
            });
        }
    }

    /// Sizes in force in `acked..=now`: that of `acked` and all later ones.
    pub(super) fn sizes_since(&self, acked: Op, now: Op) -> impl Iterator<Item = (Op, u64, bool)> + '_ {
        let mut base = self.sizes.partition_point(|(op, ..)| *op <= acked).saturating_sub(1);
        while base > 0 && self.failed.contains(&self.sizes[base].0) {
            base -= 1;
        }
        self.sizes[base..].iter().copied().filter(move |(op, ..)| *op <= now)
    }

    /// Size only as some operation set it; write-back of one write may end at any block (A15).
    pub(super) fn check_size(
        &self,
        size: u64,
        acked: Op,
        now: Op,
        block_size: u64,
        may_be: &dyn Fn(Op) -> bool,
    ) -> Result<(), String> {
        let mut before = u64::MAX;
        for (op, after, buffered) in self.sizes_since(acked, now).filter(|(op, ..)| may_be(*op)) {
            let between =
                buffered && op > acked && size.is_multiple_of(block_size) && (before..after).contains(&size);
            if size == after || between {
                return Ok(());
            }
            before = after;
        }
        let sizes: Vec<_> = self.sizes_since(acked, now).collect();
        Err(format!("size {size}, which none of {sizes:?} (operation, size, buffered) set"))
    }

    pub(super) fn check_sector(
        &self,
        sector: u64,
        found: &[u8],
        size: u64,
        acked: Op,
        now: Op,
    ) -> Result<(), String> {
        let end = (sector * SECTOR as u64 + found.len() as u64).min(size);
        let zero = Version { op: 0, bytes: None, buffered: false, any_size: false, perhaps: false };
        let none = Vec::new();
        let history = self.sectors.get(&sector).unwrap_or(&none);
        let versions: Vec<&Version> = std::iter::once(&zero).chain(history).collect();
        let matches = |version: &Version| match &version.bytes {
            Some(bytes) => bytes[..found.len()] == *found,
            None => found.iter().all(|&byte| byte == 0),
        };
        for (index, version) in versions.iter().enumerate() {
            // In force from its operation to the next one's.
            let until =
                versions[index + 1..].iter().find(|next| !next.perhaps).map_or(Op::MAX, |next| next.op);
            if until <= acked || version.op > now {
                continue;
            }
            let since = version.op.max(acked);
            let covered = self
                .sizes_since(since, now)
                .any(|(op, after, _)| (op < until || op <= since) && after >= end);
            let allowed = covered
                || version.any_size
                || self.is_late(index, &versions, end, acked, now)
                || self.is_early(version, size, acked);
            if allowed && matches(version) {
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

    /// Whether the version is newer than the size: bytes written in place are there before the truncation that came before
    /// them has committed, with the zeros behind what was then the end.
    fn is_early(&self, version: &Version, size: u64, acked: Op) -> bool {
        let before = |(op, after, _): (Op, u64, bool)| op < version.op && after == size;
        // What a truncation took away has no bytes: only its size may take it away.
        version.bytes.is_some() && version.op > acked && self.sizes_since(acked, version.op).any(before)
    }

    /// Whether the next version may have stayed in the page cache while the size grew past it: a direct write or a
    /// truncation writes back the pages that it meets, not those before them. With the size first any write is met so.
    fn is_late(&self, index: usize, versions: &[&Version], end: u64, acked: Op, now: Op) -> bool {
        match versions.get(index + 1) {
            Some(next) if next.buffered && next.op > acked && next.op <= now => {
                let met = self.size_first || self.touched.iter().any(|&op| op > next.op && op <= now);
                met && self.sizes_since(next.op, now).any(|(_, after, _)| after >= end)
            }
            _ => false,
        }
    }
}
