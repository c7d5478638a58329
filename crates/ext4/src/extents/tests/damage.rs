//! Damaged nodes, and space that ends at any point.

use ext4_format::extent::seal_tail;
use ext4_format::{Lblk, Pblk};

use super::model::{World, extent};
use super::store::{OWNER, SEED, Store};
use super::validate::validate;
use crate::error::errno;
use crate::extents::{self, Tree};

/// Depth 2, with the least number of nodes that get there: some 5 × 84 extents.
fn depth_2() -> World {
    let mut world = World::new();
    (0..500).for_each(|i| world.insert(extent(4 * i, 2, 100 + 5 * u64::from(i), i % 2 == 0)));
    assert_eq!(extents::depth(&world.root, OWNER), Ok(2));
    world
}

/// Every operation must end, with an error or not.
fn exercise(store: &Store, root: &[u8; 60]) {
    for lblk in [0, 3, 999, 2500, u32::MAX].map(Lblk) {
        let _ = extents::lookup(store, root, OWNER, lblk);
        let _ = extents::next_allocated(store, root, OWNER, lblk);
        let _ = extents::goal(store, root, OWNER, lblk);
    }
    let _ = extents::last_block(store, root, OWNER);
    let _ = extents::tree_blocks(store, root, OWNER);
}

/// Changes too; the store asserts that only blocks of ours are updated, so the tree's own pointers must be undamaged.
fn change(store: &Store, root: &[u8; 60]) {
    let (mut store, mut root) = (store.clone(), *root);
    let mut zero = |_: Pblk, _: u32| Ok(());
    let mut tree = Tree::new(&mut store, &mut root, OWNER);
    let _ = tree.insert(extent(3, 1, 9000, false));
    let _ = tree.convert_zeroing(Lblk(0), 20, 0, &mut zero);
    let _ = tree.convert_to_unwritten(Lblk(0), 20, &mut zero);
}

#[test]
fn unsealed_damage_is_a_bad_checksum() {
    let world = depth_2();
    let node = *world.store.nodes.keys().min().unwrap();
    for at in 0..1024 {
        let mut store = world.store.clone();
        store.nodes.get_mut(&node).unwrap()[at] ^= 0x10;
        let error = extents::lookup(&store, &world.root, OWNER, Lblk(0)).unwrap_err();
        assert!([errno::EBADMSG, errno::EUCLEAN].contains(&error.errno()), "byte {at}: {error}");
    }
}

#[test]
fn sealed_damage_is_an_error_or_legal() {
    let world = depth_2();
    let mut store = world.store.clone();
    for node in world.store.nodes.keys() {
        for at in 0..1020 {
            for flip in [0x01, 0x80, 0xFF] {
                let block = store.nodes.get_mut(node).unwrap();
                block[at] ^= flip;
                // A header without room for a checksum cannot be sealed, nor verified.
                if extents_header_is_sane(block) {
                    seal_tail(block, SEED);
                }
                exercise(&store, &world.root);
                let leaf = world.store.nodes[node][6] == 0;
                if leaf && at % 7 == 0 && flip == 0x80 {
                    change(&store, &world.root);
                }
                *store.nodes.get_mut(node).unwrap() = world.store.nodes[node].clone();
            }
        }
    }
}

fn extents_header_is_sane(block: &[u8]) -> bool {
    ext4_format::extent::ExtentHeader::decode(block).is_ok()
}

#[test]
fn damaged_roots_are_an_error_or_legal() {
    let world = depth_2();
    for at in 0..60 {
        for value in 0..=255 {
            let mut root = world.root;
            root[at] = value;
            exercise(&world.store, &root);
        }
    }
}

#[test]
fn a_node_that_points_to_itself_ends() {
    let world = depth_2();
    let mut store = world.store.clone();
    let top = u64::from(u32::from_le_bytes(world.root[16..20].try_into().unwrap()))
        | u64::from(u16::from_le_bytes(world.root[20..22].try_into().unwrap())) << 32;
    let block = store.nodes.get_mut(&Pblk(top)).unwrap();
    block[16..22].copy_from_slice(&world.root[16..22]);
    seal_tail(block, SEED);
    let error = extents::lookup(&store, &world.root, OWNER, Lblk(0)).unwrap_err();
    assert_eq!(error.errno(), errno::EUCLEAN);
}

/// A full tree of depth 2 in which every insertion splits up to the root; extents of three blocks.
fn packed() -> World {
    let mut world = World::new();
    let mut i = 0;
    // Four full children of the root, each of 84 full leaves.
    while i < 4 * 84 * 84 {
        world.insert(extent(5 * i, 3, 100 + 5 * u64::from(i), true));
        i += 1;
    }
    assert_eq!(extents::depth(&world.root, OWNER), Ok(2));
    world.check();
    world
}

#[test]
fn enospc_at_every_allocation_of_a_split() {
    let base = packed();
    let middle = 5 * 200 + 1;
    for allowed in 0..=3 {
        let mut world = base.clone();
        world.store.allocations_left = allowed;
        world.remove(middle, middle);
        world.check();
        assert_eq!(world.model.contains_key(&middle), allowed < 3);
        // Once refused for the blocks after EOF, once zeroed, once split.
        for eof in [0, u64::MAX] {
            let mut world = base.clone();
            world.store.allocations_left = allowed;
            world.convert(middle, 1, false, eof);
            world.check();
            let states = [middle - 1, middle, middle + 1].map(|at| world.model[&at].1);
            let expected = match (allowed, eof) {
                (3, _) => [true, false, true],
                (_, 0) => [true, true, true],
                _ => [false, false, false],
            };
            assert_eq!(states, expected, "{allowed} allocations, EOF {eof}");
        }
    }
}

#[test]
fn enospc_at_every_allocation_changes_nothing() {
    let base = packed();
    for unwritten in [false, true] {
        for allowed in 0..=3 {
            let (mut store, mut root) = (base.store.clone(), base.root);
            store.allocations_left = allowed;
            let mut tree = Tree::new(&mut store, &mut root, OWNER);
            let result = tree.insert(extent(5 * 200 + 4, 1, 1 << 30, unwritten));
            // A leaf, an index node and the old root's copy.
            assert_eq!(result.is_ok(), allowed == 3, "{allowed} allocations: {result:?}");
            let delta = tree.meta_blocks_delta;
            let runs = validate(&store, &root);
            assert_eq!(delta, store.allocated.len() as i64 - base.store.allocated.len() as i64);
            if allowed < 3 {
                assert_eq!(result.unwrap_err().errno(), errno::ENOSPC);
                assert_eq!(root, base.root);
                assert_eq!(runs, validate(&base.store, &base.root));
            }
        }
    }
}

#[test]
fn credits_bound_the_updates() {
    let base = packed();
    let (mut store, mut root) = (base.store.clone(), base.root);
    store.updates.clear();
    Tree::new(&mut store, &mut root, OWNER).insert(extent(1004, 1, 1 << 30, true)).unwrap();
    let new = store.allocated.len() - base.store.allocated.len();
    let used = store.updates.len() + 2 * new;
    assert!(used <= extents::credits_for_insert(2) as usize, "{used}");
}
