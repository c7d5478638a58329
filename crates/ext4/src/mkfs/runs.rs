//! The blocks in use while a volume is laid out, as runs: a bitmap of 15 TiB would not fit.

use std::collections::BTreeMap;

/// A set of blocks.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// First block → the block after the last. Runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
}

impl Runs {
    /// Adds blocks that are not in the set.
    pub(super) fn insert(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        assert!(self.is_free(start, len), "blocks {start}+{len} used twice");
        let (mut first, mut end) = (start, start + len);
        if let Some((&before, &before_end)) = self.runs.range(..start).next_back()
            && before_end == start
        {
            first = before;
        }
        if let Some(after_end) = self.runs.remove(&end) {
            end = after_end;
        }
        self.runs.insert(first, end);
    }

    /// Whether none of the blocks is in the set.
    pub(super) fn is_free(&self, start: u64, len: u64) -> bool {
        self.runs.range(..start + len).next_back().is_none_or(|(_, &end)| end <= start)
    }

    /// The first block from `from` on that is not in the set.
    fn next_free(&self, from: u64) -> u64 {
        match self.runs.range(..=from).next_back() {
            Some((_, &end)) if end > from => end,
            _ => from,
        }
    }

    /// The first gap in `from..end`: start and length, clipped to `end`.
    pub(super) fn next_gap(&self, from: u64, end: u64) -> Option<(u64, u64)> {
        let start = self.next_free(from);
        if start >= end {
            return None;
        }
        let after = self.runs.range(start..).next().map_or(end, |(&next, _)| next.min(end));
        Some((start, after - start))
    }

    /// The first place in `from..end` with `len` free blocks in a row.
    pub(super) fn find(&self, from: u64, end: u64, len: u64) -> Option<u64> {
        let mut at = from;
        while let Some((start, gap)) = self.next_gap(at, end) {
            if gap >= len {
                return Some(start);
            }
            at = start + gap;
        }
        None
    }

    /// The runs that touch `start..end`, clipped to it, as start and length.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.runs.range(..start).next_back().filter(|(_, e)| **e > start);
        first.into_iter().chain(self.runs.range(start..end)).map(move |(&s, &e)| {
            let from = s.max(start);
            (from, e.min(end) - from)
        })
    }

    /// How many blocks of `start..end` are in the set.
    pub(super) fn count(&self, start: u64, end: u64) -> u64 {
        self.within(start, end).map(|(_, len)| len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_list_of_bools(
            inserts in proptest::collection::vec((0u64..100, 1u64..20), 0..20),
            from in 0u64..120, end in 0u64..120, len in 1u64..30,
        ) {
            let mut runs = Runs::default();
            let mut model = [false; 120];
            for (start, len) in inserts {
                let range = start as usize..(start + len) as usize;
                let free = model[range.clone()].iter().all(|used| !used);
                prop_assert_eq!(runs.is_free(start, len), free);
                if free {
                    runs.insert(start, len);
                    model[range].fill(true);
                }
            }
            let fits = |at: u64| (at..at + len).all(|block| block < end && !model[block as usize]);
            prop_assert_eq!(runs.find(from, end, len), (from..end).find(|at| fits(*at)));
            let used = (from..end).filter(|block| model[*block as usize]).count() as u64;
            prop_assert_eq!(runs.count(from, from.max(end)), used);
            let edges = model.windows(2).filter(|pair| pair[0] && !pair[1]).count();
            prop_assert_eq!(runs.runs.len(), edges + usize::from(model[119]));
        }
    }
}
