//! The buddy of one group: which clusters are free, as chunks of 2^order clusters (D12). Pure memory.

use std::ops::Range;

use ext4_format::bitmap;

/// Free clusters of a group. A chunk of order k is 2^k clusters, aligned to 2^k, all free, and not part of a free
/// chunk of order k + 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buddy {
    clusters: u32,
    /// A bit per cluster, 1 = used; the last byte is padded with ones.
    used: Vec<u8>,
    /// Per order a bit per chunk, 1 = free.
    chunks: Vec<Vec<u8>>,
    chunk_counts: Vec<u32>,
    free: u32,
    fragments: u32,
}

fn bytes_for(bits: u32) -> usize {
    bits.div_ceil(8) as usize
}

impl Buddy {
    /// Orders of a volume: 0 … log2(block size) + 1 (D12).
    pub fn orders(block_size: u32) -> u32 {
        block_size.ilog2() + 2
    }

    /// A group without a free cluster.
    pub fn all_used(clusters: u32, orders: u32) -> Self {
        Self {
            clusters,
            used: vec![0xFF; bytes_for(clusters)],
            chunks: (0..orders).map(|order| vec![0; bytes_for((clusters >> order).max(1))]).collect(),
            chunk_counts: vec![0; orders as usize],
            free: 0,
            fragments: 0,
        }
    }

    /// From the first `clusters` bits of a bitmap.
    pub fn from_bitmap(bits: &[u8], clusters: u32, orders: u32) -> Self {
        let mut buddy = Self::all_used(clusters, orders);
        for (start, len) in bitmap::zero_runs(bits, 0, clusters) {
            buddy.free(start, len);
        }
        buddy
    }

    /// Clusters of the group.
    pub fn clusters(&self) -> u32 {
        self.clusters
    }

    /// Free clusters.
    pub fn free_count(&self) -> u32 {
        self.free
    }

    /// Maximal runs of free clusters.
    pub fn fragments(&self) -> u32 {
        self.fragments
    }

    /// The first free cluster.
    pub fn first_free(&self) -> Option<u32> {
        bitmap::next_zero(&self.used, 0, self.clusters)
    }

    /// The largest order that has a free chunk.
    pub fn largest_order(&self) -> Option<u32> {
        self.chunk_counts.iter().rposition(|count| *count > 0).map(|order| order as u32)
    }

    /// Free chunks of each order.
    pub fn chunk_counts(&self) -> &[u32] {
        &self.chunk_counts
    }

    /// Whether all of a range is free.
    pub fn is_free(&self, start: u32, len: u32) -> bool {
        bitmap::all_clear(&self.used, start, len)
    }

    /// Whether all of a range is used.
    pub fn is_used(&self, start: u32, len: u32) -> bool {
        bitmap::all_set(&self.used, start, len)
    }

    /// How many clusters are free from `start` on, at most `max`.
    pub fn run_at(&self, start: u32, max: u32) -> u32 {
        let end = start.saturating_add(max).min(self.clusters);
        if start >= end {
            return 0;
        }
        bitmap::next_set(&self.used, start, end).unwrap_or(end) - start
    }

    /// The first free cluster in a range.
    pub fn next_free(&self, range: Range<u32>) -> Option<u32> {
        bitmap::next_zero(&self.used, range.start, range.end.min(self.clusters))
    }

    /// The start of a free chunk of at least `order`: of the smallest order that has one, the first at or after
    /// `near`, or else the first.
    pub fn find_chunk(&self, order: u32, near: u32) -> Option<u32> {
        let order = (order as usize..self.chunks.len()).find(|order| self.chunk_counts[*order] > 0)?;
        let (chunks, end) = (&self.chunks[order], self.clusters >> order);
        let from = near.div_ceil(1 << order).min(end);
        let found = bitmap::next_set(chunks, from, end).or_else(|| bitmap::next_set(chunks, 0, end))?;
        Some(found << order)
    }

    /// The best run of free clusters for `len`: the shortest that is long enough, or else the longest.
    pub fn find_best(&self, len: u32) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        for run in bitmap::zero_runs(&self.used, 0, self.clusters) {
            if run.1 == len {
                return Some(run);
            }
            let better = match best {
                None => true,
                Some((_, size)) if size >= len => run.1 >= len && run.1 < size,
                Some((_, size)) => run.1 > size,
            };
            if better {
                best = Some(run);
            }
        }
        best
    }

    /// Marks free clusters used. Panics unless all of them are free and in the group: our own bug.
    pub fn mark_used(&mut self, start: u32, len: u32) {
        assert!(len > 0 && self.is_free(start, len));
        self.count(start, len, false);
        bitmap::set_range(&mut self.used, start, len);
        let end = start + len;
        let mut at = start;
        while at < end {
            let (order, chunk) = self.chunk_of(at);
            self.take_chunk(order, chunk);
            let (first, after) = (chunk << order, (chunk + 1) << order);
            // What of the chunk lies outside the range stays free, in smaller chunks.
            self.add_run(first, at - first);
            if after > end {
                self.add_run(end, after - end);
            }
            at = after;
        }
    }

    /// Marks used clusters free. Panics unless all of them are used and in the group: our own bug.
    pub fn free(&mut self, start: u32, len: u32) {
        assert!(len > 0 && self.is_used(start, len));
        bitmap::clear_range(&mut self.used, start, len);
        self.count(start, len, true);
        self.add_run(start, len);
    }

    /// Counts of a range that becomes free or used: it joins or parts the runs beside it.
    fn count(&mut self, start: u32, len: u32, becomes_free: bool) {
        let end = start + len;
        let left = start > 0 && !bitmap::test(&self.used, start - 1);
        let right = end < self.clusters && !bitmap::test(&self.used, end);
        let neighbours = u32::from(left) + u32::from(right);
        if becomes_free {
            self.free += len;
            self.fragments = self.fragments + 1 - neighbours;
        } else {
            self.free -= len;
            self.fragments = self.fragments + neighbours - 1;
        }
    }

    /// The free chunk that a free cluster is part of: order and index.
    fn chunk_of(&self, cluster: u32) -> (u32, u32) {
        let found = (0..self.chunks.len() as u32).find(|order| {
            cluster >> order < self.clusters >> order && self.has_chunk(*order, cluster >> order)
        });
        let order = found.expect("every free cluster is in a chunk");
        (order, cluster >> order)
    }

    fn has_chunk(&self, order: u32, index: u32) -> bool {
        bitmap::test(&self.chunks[order as usize], index)
    }

    fn take_chunk(&mut self, order: u32, index: u32) {
        bitmap::clear(&mut self.chunks[order as usize], index);
        self.chunk_counts[order as usize] -= 1;
    }

    /// Adds free clusters as chunks, each as large as its alignment allows, joined with their buddies.
    fn add_run(&mut self, start: u32, len: u32) {
        let end = start + len;
        let mut at = start;
        while at < end {
            let top = self.chunks.len() as u32 - 1;
            let order = at.trailing_zeros().min((end - at).ilog2()).min(top);
            self.add_chunk(order, at >> order);
            at += 1 << order;
        }
    }

    fn add_chunk(&mut self, mut order: u32, mut index: u32) {
        while (order as usize) + 1 < self.chunks.len()
            && index ^ 1 < self.clusters >> order
            && self.has_chunk(order, index ^ 1)
        {
            self.take_chunk(order, index ^ 1);
            order += 1;
            index >>= 1;
        }
        bitmap::set(&mut self.chunks[order as usize], index);
        self.chunk_counts[order as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn cases() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/mballoc-cases.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn number(value: &Value) -> u32 {
        value.as_u64().unwrap() as u32
    }

    fn assert_state(buddy: &Buddy, state: &Value) {
        assert_eq!(buddy.first_free().unwrap_or(buddy.clusters()), number(&state["firstFree"]), "{state}");
        assert_eq!(buddy.free_count(), number(&state["free"]), "{state}");
        assert_eq!(buddy.fragments(), number(&state["fragments"]), "{state}");
        let largest = buddy.largest_order().map_or(-1, i64::from);
        assert_eq!(largest, state["largestFreeOrder"].as_i64().unwrap(), "{state}");
        let chunks: Vec<u32> = state["chunksPerOrder"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(buddy.chunk_counts(), chunks, "{state}");
    }

    #[test]
    fn sequences() {
        for sequence in cases()["buddySequences"].as_array().unwrap() {
            let orders = Buddy::orders(number(&sequence["blockSize"]));
            let mut buddy = Buddy::all_used(1024, orders);
            let frees = sequence["operation"] == "free";
            if !frees {
                buddy.free(0, 1024);
            }
            for step in sequence["steps"].as_array().unwrap() {
                let (start, len) = (number(&step["start"]), number(&step["len"]));
                match (len, frees) {
                    (0, _) => {}
                    (_, true) => buddy.free(start, len),
                    (_, false) => buddy.mark_used(start, len),
                }
                assert_state(&buddy, step);
                assert_eq!(buddy, Buddy::from_bitmap(&buddy.used, 1024, orders));
            }
        }
    }

    #[test]
    fn states() {
        for state in cases()["buddyStates"].as_array().unwrap() {
            let clusters = number(&state["clustersPerGroup"]);
            let mut bits = vec![0; bytes_for(clusters)];
            for range in state["used"].as_array().unwrap() {
                bitmap::set_range(&mut bits, number(&range[0]), number(&range[1]));
            }
            assert_state(&Buddy::from_bitmap(&bits, clusters, number(&state["orders"])), state);
        }
    }

    /// By the definition: order by order from the top, over a list of bools.
    fn reference_chunks(used: &[bool], orders: u32) -> Vec<u32> {
        let mut covered = vec![false; used.len()];
        let mut counts = vec![0; orders as usize];
        for order in (0..orders).rev() {
            for chunk in 0..used.len() >> order {
                let range = chunk << order..(chunk + 1) << order;
                if range.clone().all(|at| !used[at] && !covered[at]) {
                    covered[range].fill(true);
                    counts[order as usize] += 1;
                }
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            clusters in 1u32..700,
            orders in 2u32..12,
            steps in proptest::collection::vec((0u32..700, 1u32..200), 1..40),
        ) {
            let mut buddy = Buddy::all_used(clusters, orders);
            let mut used = vec![true; clusters as usize];
            for (start, len) in steps {
                let start = start % clusters;
                let len = len.min(clusters - start);
                let value = used[start as usize];
                let same = used[start as usize..].iter().take(len as usize).take_while(|bit| **bit == value);
                let len = same.count() as u32;
                if value { buddy.free(start, len) } else { buddy.mark_used(start, len) }
                used[start as usize..(start + len) as usize].fill(!value);
                prop_assert_eq!(buddy.chunk_counts(), reference_chunks(&used, orders));
                prop_assert_eq!(buddy.free_count() as usize, used.iter().filter(|bit| !**bit).count());
                let runs: Vec<_> = used.chunk_by(|a, b| a == b).filter(|run| !run[0]).map(<[bool]>::len).collect();
                prop_assert_eq!(buddy.fragments() as usize, runs.len());
                let best = runs.iter().copied().filter(|run| *run >= len as usize).min().or(runs.iter().copied().max());
                prop_assert_eq!(buddy.find_best(len).map(|run| run.1 as usize), best);
                prop_assert_eq!(&buddy, &Buddy::from_bitmap(&buddy.used, clusters, orders));
            }
        }
    }
}
