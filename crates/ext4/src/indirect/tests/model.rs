//! Random operations against a map of blocks, and what lies on disk after each.

use std::collections::BTreeMap;

use ext4_format::block_map::{ROOT_ENTRIES, Shape, Span, entry};
use ext4_format::{Lblk, Pblk};
use proptest::prelude::*;

use super::store::{BLOCK_SIZE, FIRST_TABLE, OWNER, PER_TABLE, Store};
use crate::error::errno;
use crate::extents::{MapState, Progress};
use crate::indirect::{self, BlockMap};

const SHAPE_END: u32 = 12 + PER_TABLE + PER_TABLE * PER_TABLE + PER_TABLE * PER_TABLE * PER_TABLE;

/// Logical blocks where a height begins.
const SINGLE: u32 = 12;
const DOUBLE: u32 = SINGLE + PER_TABLE;
const TRIPLE: u32 = DOUBLE + PER_TABLE * PER_TABLE;

#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub root: [u8; 60],
    pub model: BTreeMap<u32, u64>,
    meta_blocks: i64,
}

/// Every block of the map, read entry by entry; no table may be empty.
fn on_disk(store: &Store, root: &[u8; 60]) -> BTreeMap<u32, u64> {
    fn visit(store: &Store, block: u32, span: Span, found: &mut BTreeMap<u32, u64>, tables: &mut usize) {
        if span.height == 0 {
            found.insert(span.first as u32, block.into());
            return;
        }
        *tables += 1;
        let table = &store.tables[&Pblk(block.into())];
        let before = found.len();
        let shape = Shape::new(BLOCK_SIZE);
        for slot in 0..shape.per_table() {
            match entry(table, slot) {
                0 => {}
                below => visit(store, below, shape.table_span(span, slot), found, tables),
            }
        }
        assert!(found.len() > before, "an empty table stays");
    }
    let (mut found, mut tables) = (BTreeMap::new(), 0);
    for slot in (0..ROOT_ENTRIES).filter(|&slot| entry(root, slot) != 0) {
        let span = Shape::new(BLOCK_SIZE).root_span(slot);
        visit(store, entry(root, slot), span, &mut found, &mut tables);
    }
    assert_eq!(tables, store.allocated.len(), "tables to which nothing points");
    found
}

impl World {
    pub fn new() -> Self {
        Self { store: Store::new(), root: [0; 60], model: BTreeMap::new(), meta_blocks: 0 }
    }

    pub fn with<T>(&mut self, act: impl FnOnce(&mut BlockMap<'_>) -> T) -> T {
        let mut map = BlockMap::new(&mut self.store, &mut self.root, OWNER);
        let result = act(&mut map);
        self.meta_blocks += map.meta_blocks_delta;
        result
    }

    pub fn check(&self) {
        assert_eq!(on_disk(&self.store, &self.root), self.model);
        assert_eq!(self.meta_blocks, self.store.allocated.len() as i64);
        let last = self.model.keys().next_back().map(|last| Lblk(*last));
        assert_eq!(indirect::last_block(&self.store, &self.root, OWNER), Ok(last));
    }

    fn check_lookup(&self, lblk: u32) {
        let mapping = indirect::lookup(&self.store, &self.root, OWNER, Lblk(lblk)).unwrap();
        assert!(mapping.len > 0 && mapping.lblk == Lblk(lblk));
        match self.model.get(&lblk) {
            None => {
                assert_eq!((mapping.state, mapping.start), (MapState::Hole, Pblk(0)));
                let next = self.model.range(lblk..).next().map_or(1 << 32, |(next, _)| u64::from(*next));
                assert!(mapping.end() <= next);
            }
            Some(_) => {
                assert_eq!(mapping.state, MapState::Written);
                for i in 0..mapping.len {
                    assert_eq!(self.model.get(&(lblk + i)), Some(&(mapping.start.0 + u64::from(i))));
                }
            }
        }
        let next = indirect::next_allocated(&self.store, &self.root, OWNER, Lblk(lblk)).unwrap();
        assert_eq!(next.map(|next| next.lblk.0), self.model.range(lblk..).next().map(|(next, _)| *next));
        let goal = indirect::goal(&self.store, &self.root, OWNER, Lblk(lblk)).unwrap();
        assert!(goal.0 > 0 && goal.0 < OWNER.blocks);
    }

    /// Inserts as map_create does: table by table.
    pub fn insert(&mut self, mut lblk: u32, mut len: u32, mut start: u64) {
        while len > 0 {
            let Some(room) = indirect::room(BLOCK_SIZE, Lblk(lblk)) else {
                let refused = self.with(|map| map.insert(Lblk(lblk), len, Pblk(start)));
                assert_eq!(refused.unwrap_err().errno(), errno::EFBIG);
                return;
            };
            let part = room.min(len);
            self.store.grant(indirect::credits_for_insert());
            let result = self.with(|map| map.insert(Lblk(lblk), part, Pblk(start)));
            let taken = self.model.range(lblk..lblk + part).next().is_some();
            match result {
                Ok(()) => {
                    assert!(!taken);
                    self.model.extend((0..part).map(|i| (lblk + i, start + u64::from(i))));
                }
                Err(error) if taken => assert_eq!(error.errno(), errno::EEXIST),
                Err(error) => {
                    assert_eq!(error.errno(), errno::ENOSPC);
                    assert_eq!(self.store.allocations_left, 0);
                }
            }
            (lblk, len, start) = (lblk + part, len - part, start + u64::from(part));
        }
    }

    pub fn remove(&mut self, from: u32, to: u32) -> Progress {
        let freed_before = self.store.freed_data.len();
        let (progress, freed) = self.with(|map| {
            let progress = map.remove(Lblk(from), Lblk(to));
            (progress.unwrap(), map.data_blocks_freed)
        });
        let removed_from = match progress {
            Progress::Done => from,
            Progress::More { from: again, to: left } => {
                assert_eq!(again.0, from);
                left.0.saturating_add(1)
            }
        };
        let old = self.model.len();
        self.model.retain(|at, _| !(removed_from..=to).contains(at));
        assert_eq!((old - self.model.len()) as u64, freed);
        assert_eq!(self.store.freed_data.len() - freed_before, old - self.model.len());
        assert!(self.model.values().all(|block| !self.store.freed_data.contains(block)));
        progress
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert { lblk: u32, len: u32 },
    Remove { from: u32, len: u32 },
    Allow { allocations: Option<usize>, steps: Option<usize> },
}

/// Around the places where a height or a table begins or ends, and anywhere.
fn places() -> impl Strategy<Value = u32> {
    let edges = [0, SINGLE, DOUBLE, DOUBLE + PER_TABLE, TRIPLE, TRIPLE + PER_TABLE * PER_TABLE, SHAPE_END];
    prop_oneof![
        4 => (0..edges.len(), 0u32..40).prop_map(move |(edge, offset)| (edges[edge] + offset).saturating_sub(20)),
        1 => 0..SHAPE_END,
        2 => 0..DOUBLE + 3 * PER_TABLE,
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (places(), 1u32..60).prop_map(|(lblk, len)| Op::Insert { lblk, len }),
        1 => (places(), 200u32..700).prop_map(|(lblk, len)| Op::Insert { lblk, len }),
        3 => (places(), 1u32..60).prop_map(|(from, len)| Op::Remove { from, len }),
        1 => (places(), 1u32..100_000).prop_map(|(from, len)| Op::Remove { from, len }),
        1 => (prop::option::of(0usize..4), prop::option::of(0usize..4))
            .prop_map(|(allocations, steps)| Op::Allow { allocations, steps }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_agree_with_a_map(ops in prop::collection::vec(ops(), 1..60)) {
        let mut world = World::new();
        for (i, op) in ops.iter().enumerate() {
            match *op {
                // Every insertion has blocks of its own, so that a second free of one is found.
                Op::Insert { lblk, len } => {
                    let start = 1000 + i as u64 * 1000;
                    assert!(start < FIRST_TABLE);
                    world.insert(lblk, len, start);
                }
                Op::Remove { from, len } => {
                    let _progress = world.remove(from, from + (len - 1));
                }
                Op::Allow { allocations, steps } => {
                    world.store.allocations_left = allocations.unwrap_or(usize::MAX);
                    world.store.steps_left = steps.unwrap_or(usize::MAX);
                }
            }
            world.check();
            if let Op::Insert { lblk, len } | Op::Remove { from: lblk, len } = *op {
                for at in [lblk, lblk + len - 1, lblk + len / 2, lblk + len] {
                    world.check_lookup(at);
                    world.check_lookup(at.saturating_sub(1));
                }
            }
        }
        world.store.steps_left = usize::MAX;
        while world.remove(0, u32::MAX) != Progress::Done {}
        world.check();
        prop_assert!(world.model.is_empty() && world.store.allocated.is_empty());
        prop_assert_eq!(world.root, [0; 60]);
    }
}

/// D30: a file of all three heights goes in restarted steps, each of which leaves a whole map.
#[test]
fn truncation_in_steps() {
    let mut world = World::new();
    world.insert(0, DOUBLE + 5 * PER_TABLE, 1000);
    world.insert(TRIPLE - 300, 900, 200_000);
    world.insert(SHAPE_END - 1, 1, 300_000);
    world.check();
    let mut calls = 0;
    loop {
        world.store.steps_left = 3;
        let progress = world.remove(0, u32::MAX);
        world.check();
        calls += 1;
        match progress {
            Progress::Done => break,
            Progress::More { .. } => assert!(calls < 1000, "it does not end"),
        }
    }
    assert!(calls > 3);
    assert!(world.store.allocated.is_empty());
}

/// T9: what one call revokes is bounded.
#[test]
fn a_call_frees_a_bounded_number_of_tables() {
    let mut world = World::new();
    for table in 0..1500 {
        world.insert(DOUBLE + table * PER_TABLE + 7, 1, 1000 + u64::from(table) * 3);
    }
    let tables = world.store.allocated.len();
    assert!(matches!(world.remove(0, u32::MAX), Progress::More { .. }));
    let freed = tables - world.store.allocated.len();
    assert!((1024..1030).contains(&freed), "{freed}");
    assert_eq!(world.remove(0, u32::MAX), Progress::Done);
    world.check();
}

#[test]
fn no_run_that_no_table_may_hold() {
    let mut world = World::new();
    for (lblk, len, start) in [(0, 0, 100), (0, 13, 100), (12, 257, 100), (0, 2, (1 << 31) - 1), (0, 1, 0)] {
        let refused = world.with(|map| map.insert(Lblk(lblk), len, Pblk(start)));
        assert_eq!(refused.unwrap_err().errno(), errno::EINVAL, "{lblk} {len} {start}");
    }
    let beyond = world.with(|map| map.insert(Lblk(SHAPE_END), 1, Pblk(100)));
    assert_eq!(beyond.unwrap_err().errno(), errno::EFBIG);
    world.check();
    let hole = indirect::lookup(&world.store, &world.root, OWNER, Lblk(SHAPE_END)).unwrap();
    assert_eq!((hole.state, hole.end()), (MapState::Hole, 1 << 32));
    let whole = indirect::lookup(&world.store, &world.root, OWNER, Lblk(0)).unwrap();
    assert_eq!((whole.state, whole.len), (MapState::Hole, u32::MAX));
}

#[test]
fn d11_goals() {
    let mut world = World::new();
    let goal = |world: &World, at| indirect::goal(&world.store, &world.root, OWNER, Lblk(at)).unwrap().0;
    assert_eq!(goal(&world, 7), OWNER.goal.0);
    world.insert(0, 2, 1000);
    assert_eq!([2, 5].map(|at| goal(&world, at)), [1002, 1005]);
    world.insert(SINGLE + 4, 1, 2000);
    assert_eq!([SINGLE + 5, SINGLE].map(|at| goal(&world, at)), [2001, FIRST_TABLE + 1]);
}
