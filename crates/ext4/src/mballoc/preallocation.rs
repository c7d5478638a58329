//! D12: clusters set aside in memory. The buddy holds them as used, the disk does not.

use std::collections::HashMap;

use ext4_format::{Group, Ino};

use super::Allocator;

/// Preallocations an inode may hold; random writers would collect them without end.
const MAX_PER_INODE: usize = 8;

/// Inodes that may hold preallocations before all are dropped.
const MAX_INODES: usize = 4096;

/// Blocks of the locality group's preallocation.
pub(crate) const LOCALITY_BLOCKS: u32 = 512;

/// Blocks up to which a file is small.
pub(crate) const SMALL_FILE_BLOCKS: u64 = 16;

/// A run of clusters set aside; `logical` is the first one's place in the file, in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preallocation {
    pub logical: u64,
    pub group: Group,
    pub start: u32,
    pub len: u32,
}

impl Preallocation {
    /// Cuts `len` clusters out, `offset` clusters from the start: before, piece, after.
    fn cut(self, offset: u32, len: u32) -> (Self, Self, Self) {
        let part = |from: u32, to: u32| Self {
            logical: self.logical + u64::from(from),
            start: self.start + from,
            len: to - from,
            ..self
        };
        (part(0, offset), part(offset, offset + len), part(offset + len, self.len))
    }
}

/// All preallocations of a volume.
#[derive(Debug, Default)]
pub(crate) struct Preallocations {
    inodes: HashMap<Ino, Vec<Preallocation>>,
    locality: Option<Preallocation>,
}

impl Preallocations {
    /// Takes up to `len` clusters for a place in a file.
    pub fn take(&mut self, ino: Ino, logical: u64, len: u32) -> Option<Preallocation> {
        let list = self.inodes.get_mut(&ino)?;
        let covers =
            |found: &Preallocation| (found.logical..found.logical + u64::from(found.len)).contains(&logical);
        let index = list.iter().position(covers)?;
        let found = list.remove(index);
        let offset = (logical - found.logical) as u32;
        let (before, piece, after) = found.cut(offset, len.min(found.len - offset));
        list.extend([before, after].into_iter().filter(|rest| rest.len > 0));
        if list.is_empty() {
            self.inodes.remove(&ino);
        }
        Some(piece)
    }

    /// Takes exactly `len` clusters from the locality group's.
    pub fn take_local(&mut self, len: u32) -> Option<Preallocation> {
        let found = self.locality.filter(|found| found.len >= len)?;
        let (_, piece, after) = found.cut(0, len);
        self.locality = (after.len > 0).then_some(after);
        Some(piece)
    }

    /// Keeps a preallocation for an inode; returns those to be released instead.
    #[must_use]
    pub fn keep(&mut self, ino: Ino, new: Preallocation) -> Vec<Preallocation> {
        let mut dropped = if self.inodes.len() >= MAX_INODES { self.drain_inodes() } else { Vec::new() };
        let list = self.inodes.entry(ino).or_default();
        list.push(new);
        let surplus = list.len().saturating_sub(MAX_PER_INODE);
        dropped.extend(list.drain(..surplus));
        dropped
    }

    /// Keeps a preallocation for the locality group; returns the one to be released instead.
    #[must_use]
    pub fn keep_local(&mut self, new: Preallocation) -> Option<Preallocation> {
        self.locality.replace(new)
    }

    fn drain_inodes(&mut self) -> Vec<Preallocation> {
        self.inodes.drain().flat_map(|(_, list)| list).collect()
    }

    fn drain(&mut self, ino: Option<Ino>) -> Vec<Preallocation> {
        match ino {
            Some(ino) => self.inodes.remove(&ino).unwrap_or_default(),
            None => {
                let mut all = self.drain_inodes();
                all.extend(self.locality.take());
                all
            }
        }
    }
}

/// D12: the size that a request ending `end_bytes` into a file is rounded up to.
pub(crate) fn normalised_bytes(end_bytes: u64) -> u64 {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    end_bytes.next_power_of_two().clamp(16 * KIB, 8 * MIB)
}

impl Allocator {
    /// Gives up the preallocations of an inode, or of all. Returns whether there were any.
    pub fn discard_preallocations(&self, ino: Option<Ino>) -> bool {
        let _hands = self.hands.read();
        self.drop_preallocations(ino)
    }

    /// The same; the caller has the lock of hands.
    pub(super) fn drop_preallocations(&self, ino: Option<Ino>) -> bool {
        let dropped = self.preallocations.lock().drain(ino);
        self.release_all(&dropped);
        !dropped.is_empty()
    }

    pub(crate) fn release_all(&self, dropped: &[Preallocation]) {
        for each in dropped {
            self.release(each.group, each.start, each.len);
        }
    }
}
