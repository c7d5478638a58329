//! Damaged tables, which no checksum protects (F5), and space that ends at any point.

use ext4_format::block_map::{entry, set_entry};
use ext4_format::{Lblk, Pblk};

use super::model::World;
use super::store::{OWNER, PER_TABLE, SYSTEM_BLOCKS, Store};
use crate::error::errno;
use crate::extents::MapState;
use crate::indirect::{self, BlockMap};

const TRIPLE: u32 = 12 + PER_TABLE + PER_TABLE * PER_TABLE;

/// All heights.
fn world() -> World {
    let mut world = World::new();
    for (lblk, start) in [(3, 100), (20, 200), (12 + PER_TABLE + 300, 300), (TRIPLE + 70_000, 400)] {
        world.insert(lblk, 5, start);
    }
    world.check();
    world
}

fn exercise(store: &Store, root: &[u8; 60]) {
    for lblk in [0, 3, 20, 12 + PER_TABLE + 300, TRIPLE, TRIPLE + 70_000, u32::MAX].map(Lblk) {
        let _ = indirect::lookup(store, root, OWNER, lblk);
        let _ = indirect::goal(store, root, OWNER, lblk);
    }
    let _ = indirect::last_block(store, root, OWNER);
}

#[test]
fn every_damaged_entry_is_an_error_or_legal() {
    let world = world();
    let tables: Vec<Pblk> = world.store.allocated.iter().copied().collect();
    let values = [1, SYSTEM_BLOCKS as u32, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, 1 << 31, u32::MAX];
    for value in values {
        for slot in 0..15 {
            let mut root = world.root;
            set_entry(&mut root, slot, value);
            exercise(&world.store, &root);
        }
        for table in &tables {
            let mut store = world.store.clone();
            for slot in (0..PER_TABLE as usize).step_by(3) {
                let before = entry(&store.tables[table], slot);
                set_entry(store.tables.get_mut(table).unwrap(), slot, value);
                exercise(&store, &world.root);
                set_entry(store.tables.get_mut(table).unwrap(), slot, before);
            }
        }
    }
}

/// F54, for blocks and for tables, on every operation; nothing is changed.
#[test]
fn blocks_outside_the_volume_and_of_metadata_are_euclean() {
    for value in [7, 1 << 31, u32::MAX] {
        for slot in [3, 12, 13, 14] {
            let mut world = world();
            set_entry(&mut world.root, slot, value);
            let at = [(3, 3), (12, 20), (13, 12 + PER_TABLE + 300), (14, TRIPLE + 70_000)];
            let lblk = Lblk(at.iter().find(|at| at.0 == slot).unwrap().1);
            let found = indirect::lookup(&world.store, &world.root, OWNER, lblk).unwrap_err();
            assert_eq!(found.errno(), errno::EUCLEAN, "{slot} {value}");
            let root = world.root;
            let mut map = BlockMap::new(&mut world.store, &mut world.root, OWNER);
            assert_eq!(map.remove(lblk, lblk).unwrap_err().errno(), errno::EUCLEAN);
            if slot != 3 {
                assert_eq!(map.insert(lblk, 1, Pblk(9000)).unwrap_err().errno(), errno::EUCLEAN);
            }
            assert_eq!(world.root, root);
            assert!(world.store.freed_data.is_empty());
        }
    }
}

/// A table that names itself: depth bounds the way down.
#[test]
fn a_table_that_points_to_itself_ends() {
    let mut world = world();
    let top = entry(&world.root, 14);
    let table = world.store.tables.get_mut(&Pblk(top.into())).unwrap();
    (0..PER_TABLE as usize).for_each(|slot| set_entry(table, slot, top));
    let found = indirect::lookup(&world.store, &world.root, OWNER, Lblk(TRIPLE)).unwrap();
    assert_eq!((found.state, found.start), (MapState::Written, Pblk(top.into())));
    assert!(indirect::last_block(&world.store, &world.root, OWNER).unwrap().is_some());
}

/// Empty tables, which we do not write but others may: they read as holes, and go with the rest.
#[test]
fn empty_tables_are_removed() {
    let mut world = world();
    let top = Pblk(entry(&world.root, 14).into());
    let below = Pblk(entry(&world.store.tables[&top], 1).into());
    world.store.tables.get_mut(&below).unwrap().fill(0);
    // Nothing names the table below it any more.
    let lost = *world.store.allocated.iter().next_back().unwrap();
    world.store.allocated.remove(&lost);
    world.store.tables.remove(&lost);
    world.model.retain(|at, _| *at < TRIPLE);
    let hole = indirect::lookup(&world.store, &world.root, OWNER, Lblk(TRIPLE + 70_000)).unwrap();
    assert_eq!(hole.state, MapState::Hole);
    let last = indirect::last_block(&world.store, &world.root, OWNER).unwrap();
    assert_eq!(last, Some(Lblk(12 + PER_TABLE + 304)));
    let _done = world.remove(12, u32::MAX);
    assert!(world.store.allocated.is_empty());
    assert_eq!(world.model.len(), 5);
}

#[test]
fn enospc_at_every_table() {
    for allowed in 0..=3 {
        let mut world = World::new();
        world.store.allocations_left = allowed;
        world.insert(TRIPLE + 70_000, 5, 400);
        world.check();
        assert_eq!(world.model.is_empty(), allowed < 3);
    }
}
