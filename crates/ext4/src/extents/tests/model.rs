//! Random operations against a map of blocks.

use std::collections::BTreeMap;

use ext4_format::extent::{Extent, empty_root};
use ext4_format::{Lblk, Pblk};
use proptest::prelude::*;

use super::store::{FIRST_NODE, OWNER, Store};
use super::validate::{Run, validate};
use crate::error::errno;
use crate::extents::{self, MapState, Progress, Tree};

/// Per mapped block: its physical block and whether it is unwritten.
type Model = BTreeMap<u32, (u64, bool)>;

/// In place of the end of the file: the caller excludes nobody.
pub const EXACTLY: u64 = u64::MAX - 1;

#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub root: [u8; 60],
    pub model: Model,
    meta_blocks: i64,
}

pub fn extent(lblk: u32, len: u32, start: u64, unwritten: bool) -> Extent {
    Extent { lblk: Lblk(lblk), len, start: Pblk(start), unwritten }
}

pub fn blocks_of(runs: &[Run]) -> Model {
    let block = |run: &Run, i: u64| ((run.0 + i) as u32, (run.2 + i, run.3));
    runs.iter().flat_map(|run| (0..run.1).map(move |i| block(run, i))).collect()
}

impl World {
    pub fn new() -> Self {
        Self { store: Store::new(), root: empty_root(), model: Model::new(), meta_blocks: 0 }
    }

    pub fn with<T>(&mut self, act: impl FnOnce(&mut Tree<'_>) -> T) -> T {
        let mut tree = Tree::new(&mut self.store, &mut self.root, OWNER);
        let result = act(&mut tree);
        self.meta_blocks += tree.meta_blocks_delta;
        result
    }

    pub fn check(&self) {
        let runs = validate(&self.store, &self.root);
        assert_eq!(blocks_of(&runs), self.model);
        assert_eq!(self.meta_blocks, self.store.allocated.len() as i64);
        assert_eq!(
            extents::tree_blocks(&self.store, &self.root, OWNER),
            Ok(self.store.allocated.len() as u64)
        );
        let last = self.model.keys().next_back().map(|last| Lblk(*last));
        assert_eq!(extents::last_block(&self.store, &self.root, OWNER), Ok(last));
    }

    pub fn check_lookup(&self, lblk: u32) {
        let mapping = extents::lookup(&self.store, &self.root, OWNER, Lblk(lblk)).unwrap();
        assert!(mapping.len > 0 && mapping.lblk == Lblk(lblk));
        let state = |block: Option<&(u64, bool)>| match block {
            None => MapState::Hole,
            Some((_, true)) => MapState::Unwritten,
            Some((_, false)) => MapState::Written,
        };
        assert_eq!(mapping.state, state(self.model.get(&lblk)));
        if mapping.state == MapState::Hole {
            assert_eq!(mapping.start, Pblk(0));
            let next = self.model.range(lblk..).next().map_or(1 << 32, |(next, _)| u64::from(*next));
            assert_eq!(u64::from(mapping.len), (next - u64::from(lblk)).min(u32::MAX.into()));
        } else {
            for i in 0..mapping.len {
                let expected = (mapping.start.0 + u64::from(i), mapping.state == MapState::Unwritten);
                assert_eq!(self.model.get(&(lblk + i)), Some(&expected));
            }
        }
        let next = extents::next_allocated(&self.store, &self.root, OWNER, Lblk(lblk)).unwrap();
        assert_eq!(next.map(|next| next.lblk.0), self.model.range(lblk..).next().map(|(next, _)| *next));
    }

    pub fn insert(&mut self, extent: Extent) {
        let result = self.with(|tree| tree.insert(extent));
        let range = extent.lblk.0..extent.lblk.0 + extent.len;
        if self.model.range(range).next().is_some() {
            assert_eq!(result.unwrap_err().errno(), errno::EEXIST);
            return;
        }
        match result {
            Ok(()) => {
                for i in 0..extent.len {
                    let block = (extent.start.0 + u64::from(i), extent.unwritten);
                    self.model.insert(extent.lblk.0 + i, block);
                }
            }
            Err(error) => assert_eq!(error.errno(), errno::ENOSPC),
        }
    }

    /// Converts; what may become written besides the range must have been zeroed first. With [`EXACTLY`] for `eof` nothing
    /// may be zeroed at all.
    pub fn convert(&mut self, lblk: u32, len: u32, unwritten: bool, eof: u64) {
        let mut zeroed = Vec::new();
        let mut zero = |start: Pblk, len: u32| {
            zeroed.extend(start.0..start.0 + u64::from(len));
            Ok(())
        };
        let mut tree = Tree::new(&mut self.store, &mut self.root, OWNER);
        let result = if unwritten {
            tree.convert_to_unwritten(Lblk(lblk), len, &mut zero)
        } else {
            match eof {
                EXACTLY => tree.convert_to_written(Lblk(lblk), len),
                _ => tree.convert_zeroing(Lblk(lblk), len, eof, &mut zero),
            }
        };
        self.meta_blocks += tree.meta_blocks_delta;
        let in_range = |at: u32| (lblk..lblk + len).contains(&at);
        if result == Ok(Progress::Done) {
            for i in lblk..lblk + len {
                assert!(unwritten || self.model.contains_key(&i), "a hole became written");
            }
        } else {
            let errno = result.as_ref().unwrap_err().errno();
            assert!(errno == errno::ENOSPC || (errno == errno::EIO && !unwritten), "errno {errno}");
        }
        let now = blocks_of(&validate(&self.store, &self.root));
        assert!(now.keys().eq(self.model.keys()), "nothing lost, nothing new");
        for (at, (block, is_unwritten)) in &now {
            let (old_block, was_unwritten) = self.model[at];
            assert_eq!(*block, old_block);
            if unwritten {
                // The range reads as zeros, by state or by content; nothing else changes.
                assert!(in_range(*at) || *is_unwritten == was_unwritten);
                if in_range(*at) && result.is_ok() {
                    assert!(*is_unwritten || zeroed.contains(block));
                }
                assert!(in_range(*at) || !zeroed.contains(block), "zeroed what it must keep");
            } else {
                assert!(was_unwritten || !*is_unwritten);
                if was_unwritten && !is_unwritten && !in_range(*at) {
                    assert!(zeroed.contains(block), "written, but neither valid nor zeroed");
                    assert!(u64::from(*at) < eof.max((lblk + len).into()), "written past EOF");
                }
                if zeroed.contains(block) {
                    assert!(was_unwritten && !in_range(*at), "zeroed data");
                }
                assert!(!(result.is_ok() && in_range(*at) && *is_unwritten));
            }
        }
        self.model = now;
    }

    pub fn remove(&mut self, from: u32, to: u32) {
        let before = self.store.freed_data.values().map(|len| u64::from(*len)).sum::<u64>();
        let result = self.with(|tree| {
            let result = tree.remove(Lblk(from), Lblk(to));
            (result, tree.data_blocks_freed)
        });
        let freed = self.store.freed_data.values().map(|len| u64::from(*len)).sum::<u64>() - before;
        assert_eq!(freed, result.1);
        let removed_from = match result.0 {
            Ok(Progress::Done) => Some(from),
            Ok(Progress::More { from: again, to: left }) => {
                assert_eq!(again.0, from);
                left.0.checked_add(1)
            }
            Err(error) => {
                // The split of the one extent around the range failed; nothing else can.
                assert_eq!(error.errno(), errno::ENOSPC);
                None
            }
        };
        let old = self.model.len();
        if let Some(removed_from) = removed_from
            && removed_from <= to
        {
            self.model.retain(|at, _| !(removed_from..=to).contains(at));
        }
        assert_eq!((old - self.model.len()) as u64, freed);
        // What is freed is not mapped.
        for (block, _) in self.model.values() {
            if let Some((start, len)) = self.store.freed_data.range(..=block).next_back() {
                assert!(start + u64::from(*len) <= *block, "freed and mapped: {block}");
            }
        }
    }
}

impl World {
    /// Moves everything from `from` on down, going on after every lack of credits; the tree is consistent each time.
    pub fn shift_left(&mut self, from: u32, by: u32) {
        let clear = from >= by && by > 0 && self.model.range(from - by..from).next().is_none();
        let mut cursor = from;
        loop {
            match self.with(|tree| tree.shift_left(Lblk(cursor), by)) {
                Ok(progress) => {
                    assert!(clear, "moved onto what is mapped");
                    let done = match progress {
                        Progress::Done => u32::MAX,
                        Progress::More { from, .. } => from.0,
                    };
                    let moved = |at: u32| (cursor..done).contains(&at);
                    self.move_blocks(moved, |at| at - by);
                    self.check();
                    if progress == Progress::Done {
                        return;
                    }
                    cursor = done;
                    self.store.steps_left = 2;
                }
                Err(error) => {
                    assert_eq!((error.errno(), clear), (errno::EINVAL, false));
                    return;
                }
            }
        }
    }

    /// Makes room at `from`: the split, and the moves from right to left.
    pub fn shift_right(&mut self, from: u32, by: u32) {
        if let Err(error) = self.with(|tree| tree.split_at(Lblk(from))) {
            assert_eq!(error.errno(), errno::ENOSPC);
            return;
        }
        self.check();
        let fits = self.model.keys().next_back().is_none_or(|last| *last < from || *last < u32::MAX - by);
        let mut cursor = u32::MAX;
        loop {
            match self.with(|tree| tree.shift_right(Lblk(from), Lblk(cursor), by)) {
                Ok(progress) => {
                    assert!(fits);
                    let left = match progress {
                        Progress::Done => None,
                        Progress::More { to, .. } => Some(to.0),
                    };
                    let moved = |at: u32| at >= from && at <= cursor && left.is_none_or(|left| at > left);
                    self.move_blocks(moved, |at| at + by);
                    self.check();
                    let Some(left) = left else { return };
                    cursor = left;
                    self.store.steps_left = 2;
                }
                Err(error) => {
                    assert_eq!((error.errno(), fits), (errno::EINVAL, false));
                    return;
                }
            }
        }
    }

    fn move_blocks(&mut self, moved: impl Fn(u32) -> bool, to: impl Fn(u32) -> u32) {
        let old = std::mem::take(&mut self.model);
        let count = old.len();
        self.model =
            old.into_iter().map(|(at, block)| (if moved(at) { to(at) } else { at }, block)).collect();
        assert_eq!(self.model.len(), count, "one block moved onto another");
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert { lblk: u32, len: u32, apart: bool, unwritten: bool },
    Stripes { lblk: u32, count: u32, step: u32, unwritten: bool },
    Convert { lblk: u32, len: u32, unwritten: bool, eof: u64 },
    Remove { from: u32, len: u32 },
    Collapse { from: u32, len: u32 },
    Room { from: u32, len: u32 },
    Allow { allocations: Option<usize>, steps: Option<usize> },
}

fn ops() -> impl Strategy<Value = Op> {
    let at = 0u32..6000;
    prop_oneof![
        4 => (at.clone(), 1u32..40, any::<bool>(), any::<bool>())
            .prop_map(|(lblk, len, apart, unwritten)| Op::Insert { lblk, len, apart, unwritten }),
        2 => (at.clone(), 1u32..300, 2u32..9, any::<bool>())
            .prop_map(|(lblk, count, step, unwritten)| Op::Stripes { lblk, count, step, unwritten }),
        4 => (at.clone(), 1u32..60, any::<bool>(), prop_oneof![0u64..7000, Just(EXACTLY)])
            .prop_map(|(lblk, len, unwritten, eof)| Op::Convert { lblk, len, unwritten, eof }),
        2 => (at.clone(), 1u32..60).prop_map(|(from, len)| Op::Remove { from, len }),
        1 => (at.clone(), 1u32..4000).prop_map(|(from, len)| Op::Remove { from, len }),
        1 => (at.clone(), 1u32..400).prop_map(|(from, len)| Op::Collapse { from, len }),
        1 => (at.clone(), prop_oneof![1u32..400, 1u32..400, Just(u32::MAX - 5000)])
            .prop_map(|(from, len)| Op::Room { from, len }),
        1 => (prop::option::of(0usize..3), prop::option::of(0usize..4))
            .prop_map(|(allocations, steps)| Op::Allow { allocations, steps }),
    ]
}

/// Physical blocks that keep logical neighbours mergeable, in one of 2^20 lanes that never meet.
fn physical(lblk: u32, lane: u64) -> u64 {
    let block = 1 + u64::from(lblk) + lane * (1 << 14);
    assert!(block < FIRST_NODE);
    block
}

fn run(world: &mut World, op: &Op, lane: u64) {
    match *op {
        // Every insertion has fresh physical blocks, so that a second free of one is found.
        Op::Insert { lblk, len, apart, unwritten } => {
            let lane = if apart { lane } else { lane & !7 };
            let start = physical(lblk, 2 * lane);
            let reused = world.store.freed_data.range(..start + u64::from(len)).next_back();
            if reused.is_none_or(|(at, length)| at + u64::from(*length) <= start) {
                world.insert(extent(lblk, len, start, unwritten));
            }
        }
        Op::Stripes { lblk, count, step, unwritten } => {
            for i in 0..count {
                let at = lblk + i * step;
                world.insert(extent(at, 1, physical(at, 2 * lane + 1), unwritten));
            }
        }
        Op::Convert { lblk, len, unwritten, eof } => {
            let steps = std::mem::replace(&mut world.store.steps_left, usize::MAX);
            world.convert(lblk, len, unwritten, eof);
            world.store.steps_left = steps;
        }
        Op::Remove { from, len } => world.remove(from, from + len - 1),
        Op::Collapse { from, len } => {
            if lane.is_multiple_of(2) {
                world.remove(from, from + len - 1);
                world.check();
            }
            world.shift_left(from + len, len);
        }
        Op::Room { from, len } => world.shift_right(from, len),
        Op::Allow { allocations, steps } => {
            world.store.allocations_left = allocations.unwrap_or(usize::MAX);
            world.store.steps_left = steps.unwrap_or(usize::MAX);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_agree_with_a_map(ops in prop::collection::vec(ops(), 1..60)) {
        let mut world = World::new();
        for (i, op) in ops.iter().enumerate() {
            run(&mut world, op, i as u64);
            world.check();
            if let Op::Insert { lblk, .. }
            | Op::Convert { lblk, .. }
            | Op::Remove { from: lblk, .. }
            | Op::Collapse { from: lblk, .. }
            | Op::Room { from: lblk, .. } = *op
            {
                (lblk.saturating_sub(2)..lblk + 3).for_each(|at| world.check_lookup(at));
            }
        }
        world.store.steps_left = usize::MAX;
        world.store.allocations_left = usize::MAX;
        world.remove(0, u32::MAX);
        world.check();
        prop_assert!(world.model.is_empty() && world.store.allocated.is_empty());
        prop_assert_eq!(world.root, empty_root());
    }
}

/// Every second block, so that nothing merges.
fn striped(count: u32, order: impl Iterator<Item = u32>) -> World {
    let mut world = World::new();
    for (done, i) in order.enumerate() {
        world.insert(extent(2 * i, 1, 100 + 3 * u64::from(i), false));
        if done % 97 == 0 || done as u32 == count - 1 {
            world.check();
        }
    }
    world
}

#[test]
fn depth_3_in_every_order() {
    let count = 30_000u32;
    let forward = striped(count, 0..count);
    assert_eq!(extents::depth(&forward.root, OWNER), Ok(3));
    // Appending leaves full nodes.
    assert!(forward.store.allocated.len() <= count as usize / 84 + 8);
    let mut backward = striped(count, (0..count).rev());
    assert_eq!(extents::depth(&backward.root, OWNER), Ok(3));
    let mut scattered = striped(count, (0..count).map(|i| (i * 7919) % count));
    for world in [&mut backward, &mut scattered] {
        (0..2 * count).step_by(101).for_each(|at| world.check_lookup(at));
        // The steps of a truncation, restarted each time.
        while !world.model.is_empty() {
            world.store.steps_left = 50;
            world.remove(0, u32::MAX);
            world.check();
        }
        assert_eq!(world.root, empty_root());
    }
}

#[test]
fn a_tree_of_depth_2_moves_in_steps_of_a_leaf() {
    let mut world = striped(10_000, 0..10_000);
    assert_eq!(extents::depth(&world.root, OWNER), Ok(2));
    world.store.steps_left = 3;
    world.shift_right(5001, 300);
    world.check_lookup(5001);
    world.store.steps_left = usize::MAX;
    world.remove(2000, 2999);
    world.store.steps_left = 3;
    world.shift_left(3000, 1000);
    assert_eq!(world.model.keys().next_back(), Some(&(2 * 9999 + 300 - 1000)));
    // A move merges what comes to touch.
    let mut world = World::new();
    world.insert(extent(0, 10, 100, false));
    world.insert(extent(20, 10, 110, false));
    world.shift_left(20, 10);
    assert_eq!(validate(&world.store, &world.root), [(0, 20, 100, false)]);
}

#[test]
fn a_shift_that_cannot_be_changes_nothing() {
    let mut world = World::new();
    world.insert(extent(10, 10, 100, false));
    world.insert(extent(u32::MAX - 20, 10, 200, true));
    let before = world.clone();
    world.shift_left(5, 0);
    world.shift_left(5, 6);
    world.shift_left(21, 2);
    world.shift_right(10, 11);
    assert_eq!((world.root, &world.model), (before.root, &before.model));
    world.shift_right(10, 10);
    world.check();
    assert!(world.model.contains_key(&(u32::MAX - 1)));
}

#[test]
fn d5_a_small_leaf_returns_to_the_root() {
    let mut world = striped(20, 0..20);
    assert_eq!(extents::depth(&world.root, OWNER), Ok(1));
    world.remove(8, 100);
    world.check();
    assert_eq!(extents::depth(&world.root, OWNER), Ok(0));
    // Two leaves, of which the one that stays is small.
    let mut world = striped(100, 0..100);
    world.remove(8, 2 * 84 - 1);
    world.check();
    world.remove(2 * 84, 1000);
    world.check();
    assert_eq!(extents::depth(&world.root, OWNER), Ok(0));
}

#[test]
fn d6_the_next_leaf_takes_what_a_full_one_cannot() {
    let mut world = striped(170, 0..170);
    world.remove(2 * 84, 2 * 84);
    world.remove(2 * 84 + 2, 2 * 84 + 2);
    world.check();
    let nodes = world.store.allocated.len();
    world.insert(extent(2 * 84, 1, 1 << 20, false));
    world.check();
    assert_eq!(world.store.allocated.len(), nodes);
}

#[test]
fn d11_goals() {
    let mut world = World::new();
    let goal = |world: &World, at| extents::goal(&world.store, &world.root, OWNER, Lblk(at)).unwrap().0;
    assert_eq!(goal(&world, 7), OWNER.goal.0);
    world.insert(extent(100, 10, 1000, false));
    assert_eq!([110, 200, 90].map(|at| goal(&world, at)), [1010, 1100, 990]);
    world.insert(extent(5000, 10, 20, false));
    world.remove(100, 109);
    assert_eq!(goal(&world, 0), OWNER.goal.0, "before the volume's first block");
}
