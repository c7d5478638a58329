//! An independent reading of the on-disk form: it decodes the bytes by the format's table, not by our codec.

use std::collections::BTreeSet;

use ext4_format::Pblk;
use ext4_format::checksum::crc32c;

use super::store::{SEED, Store};

/// (logical, length, physical, unwritten).
pub type Run = (u64, u64, u64, bool);

struct Walk<'a> {
    store: &'a Store,
    seen: BTreeSet<Pblk>,
    runs: Vec<Run>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Walk<'_> {
    fn node(&mut self, node: &[u8], depth: u64, bounds: Option<(u64, u64)>) {
        let (entries, max) = (number(&node[2..4]) as usize, number(&node[4..6]) as usize);
        assert_eq!(number(&node[0..2]), 0xF30A);
        assert_eq!(number(&node[6..8]), depth);
        assert_eq!(max, (node.len() - 12) / 12);
        assert!(entries <= max);
        assert!(entries > 0 || (bounds.is_none() && depth == 0), "an empty node");
        let at = |i: usize| &node[12 + 12 * i..24 + 12 * i];
        let key = |i: usize| number(&at(i)[0..4]);
        let (first, end) = bounds.unwrap_or((0, u64::from(u32::MAX)));
        if bounds.is_some() {
            assert_eq!(key(0), first, "the parent's key");
        }
        for i in 0..entries {
            let next = if i + 1 < entries { key(i + 1) } else { end };
            if depth == 0 {
                let raw = number(&at(i)[4..6]);
                let (len, unwritten) = if raw > 0x8000 { (raw - 0x8000, true) } else { (raw, false) };
                assert!(len > 0 && key(i) + len <= next, "overlap, misorder, or past the next key");
                let start = number(&at(i)[8..12]) | number(&at(i)[6..8]) << 32;
                assert!(start > 0);
                self.runs.push((key(i), len, start, unwritten));
            } else {
                assert!(key(i) < next, "misorder");
                let child = Pblk(number(&at(i)[4..8]) | number(&at(i)[8..10]) << 32);
                assert!(self.seen.insert(child), "two parents");
                let bytes = self.store.nodes.get(&child).expect("a child that exists");
                let tail = 12 + 12 * ((bytes.len() - 12) / 12);
                assert_eq!(number(&bytes[tail..tail + 4]), u64::from(crc32c(SEED, &bytes[..tail])));
                self.node(bytes, depth - 1, Some((key(i), next)));
            }
        }
    }
}

/// Checks the whole tree, and that exactly its nodes are allocated; returns the extents in order.
pub fn validate(store: &Store, root: &[u8; 60]) -> Vec<Run> {
    let mut walk = Walk { store, seen: BTreeSet::new(), runs: Vec::new() };
    walk.node(root, number(&root[6..8]), None);
    assert_eq!(walk.seen, store.allocated, "referenced = allocated");
    walk.runs
}
