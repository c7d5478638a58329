//! The kernel's cases of splitting and converting one extent of three blocks.

use std::collections::HashMap;

use ext4_format::{Lblk, Pblk};
use serde_json::Value;

use super::model::{EXACTLY, World, blocks_of, extent};
use super::store::{OWNER, Store};
use super::validate::validate;
use crate::extents::{MapState, Progress, Tree, TreeOwner, lookup};
use crate::extents_status::{ExtentStatus, Status, StatusExtent};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number: {value}"))
}

fn extents(value: &Value) -> impl Iterator<Item = ext4_format::extent::Extent> {
    value.as_array().unwrap().iter().map(|e| {
        let (lblk, len) = (number(&e["lblk"]) as u32, number(&e["len"]) as u32);
        extent(lblk, len, number(&e["pblk"]), e["unwritten"].as_bool().unwrap())
    })
}

/// The case's extent; where insertions must fail, with others far away that fill the root while no block is to be had.
fn prepared(case: &Value) -> World {
    let mut world = World::new();
    extents(&case["initial"]).for_each(|extent| world.insert(extent));
    if !case["insertFails"].is_null() {
        assert_eq!(case["insertFails"], "ENOSPC");
        (1..4).for_each(|i| world.insert(extent(1000 * i, 1, u64::from(5000 * i), false)));
        world.store.allocations_left = 0;
    }
    world
}

fn convert(
    world: &mut World,
    operation: &Value,
    eof: u64,
) -> (HashMap<u64, &'static str>, Option<(Lblk, Lblk)>) {
    let (lblk, len) = (number(&operation["lblk"]) as u32, number(&operation["len"]) as u32);
    let mut data = HashMap::new();
    let mut zero = |start: Pblk, len: u32| {
        data.extend((start.0..start.0 + u64::from(len)).map(|block| (block, "zero")));
        Ok(())
    };
    let changed = world.with(|tree: &mut Tree<'_>| {
        let result = match operation["flag"].as_str().unwrap() {
            "convertToUnwritten" => tree.convert_to_unwritten(Lblk(lblk), len, &mut zero),
            _ => tree.convert_zeroing(Lblk(lblk), len, eof, &mut zero),
        };
        assert_eq!(result, Ok(Progress::Done));
        tree.changed
    });
    (data, changed)
}

fn fill(status: &mut ExtentStatus, store: &Store, root: &[u8; 60], from: u64, end: u64) {
    let mut at = from;
    while at < end {
        let known = status.map(store, root, OWNER, Lblk(at as u32)).unwrap();
        at += u64::from(known.len);
    }
}

#[test]
fn d7_every_case() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/extent-cases.json"));
    let file: Value = serde_json::from_str(text).unwrap();
    let eof = number(&file["setup"]["sizeOnDiskBlocks"]);
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 30);
    for case in cases {
        let name = &case["name"];
        let mut world = prepared(case);
        let mut status = ExtentStatus::new(100);
        fill(&mut status, &world.store, &world.root, 0, 20);
        let (data, changed) = convert(&mut world, &case["operation"], eof);
        let expected: Vec<_> = extents(&case["expected"])
            .map(|e| (u64::from(e.lblk.0), u64::from(e.len), e.start.0, e.unwritten))
            .collect();
        let runs: Vec<_> =
            validate(&world.store, &world.root).into_iter().filter(|run| run.0 < 1000).collect();
        assert_eq!(runs, expected, "{name}");
        for part in case["expectedData"].as_array().into_iter().flatten() {
            for i in 0..number(&part["count"]) {
                let content = *data.get(&(100 + number(&part["block"]) + i)).unwrap_or(&"old");
                assert_eq!(content, part["content"], "{name}");
            }
        }
        let (from, to) = changed.expect("something changed");
        status.remove(from, to);
        fill(&mut status, &world.store, &world.root, 0, 20);
        for part in case["expectedStatus"].as_array().into_iter().flatten() {
            let state = if part["status"] == "written" { Status::Written } else { Status::Unwritten };
            let (lblk, len) = (Lblk(number(&part["lblk"]) as u32), number(&part["len"]) as u32);
            let found = status.allocated_run(lblk, len).expect("cached");
            let expected =
                StatusExtent { lblk, len: found.len, start: Pblk(number(&part["pblk"])), status: state };
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn d7_no_block_past_eof_becomes_written() {
    let mut world = World::new();
    (0..4).for_each(|i| world.insert(extent(1000 * i, 10, u64::from(100 + 5000 * i), true)));
    world.store.allocations_left = 0;
    // Splitting off block 3 of 0 to 9 needs room for two entries; the extent ends after EOF.
    world.convert(3, 1, false, 9);
    assert!(world.model[&3].1, "refused, so unchanged");
    world.convert(3, 1, false, 10);
    assert!(!world.model[&3].1 && !world.model[&9].1);
    world.check();
}

#[test]
fn d7_one_free_entry_zeroes_only_the_left_edge() {
    let mut world = World::new();
    (0..3).for_each(|i| world.insert(extent(1000 * i, 10, u64::from(100 + 5000 * i), true)));
    world.store.allocations_left = 0;
    world.convert(3, 1, false, 0);
    let states: Vec<_> = (0..10).map(|at| world.model[&at].1).collect();
    assert_eq!(states, [false, false, false, false, true, true, true, true, true, true]);
    world.check();
}

#[test]
fn without_room_nothing_is_converted_beside_io_of_others() {
    let mut world = World::new();
    (0..4).for_each(|i| world.insert(extent(1000 * i, 10, u64::from(100 + 5000 * i), true)));
    world.store.allocations_left = 0;
    world.convert(3, 1, false, EXACTLY);
    assert!((0..10).all(|at| world.model[&at].1), "there was no room for the split");
    world.store.allocations_left = 1;
    world.convert(3, 1, false, EXACTLY);
    assert!((0..10).all(|at| world.model[&at].1 == (at != 3)));
    world.check();
}

#[test]
fn pieces_split_off_for_io_stay_apart() {
    let mut world = World::new();
    world.insert(extent(0, 10, 100, true));
    let apart = TreeOwner { apart: true, ..OWNER };
    let mut tree = Tree::new(&mut world.store, &mut world.root, apart);
    tree.split_at(Lblk(3)).unwrap();
    tree.split_at(Lblk(5)).unwrap();
    tree.insert(extent(10, 2, 110, true)).unwrap();
    // Written neighbours merge as ever.
    assert_eq!(tree.convert_to_written(Lblk(4), 1), Ok(Progress::Done));
    assert_eq!(tree.convert_to_written(Lblk(3), 1), Ok(Progress::Done));
    let found = validate(&world.store, &world.root);
    assert_eq!(found, [(0, 3, 100, true), (3, 2, 103, false), (5, 5, 105, true), (10, 2, 110, true)]);
}

#[test]
fn e54_lengths_at_the_limit() {
    let mut world = World::new();
    // 32767 + 1 written merge; one more does not.
    world.insert(extent(0, 32767, 1000, false));
    world.insert(extent(32767, 1, 33767, false));
    world.insert(extent(32768, 1, 33768, false));
    assert_eq!(validate(&world.store, &world.root), [(0, 32768, 1000, false), (32768, 1, 33768, false)]);
    // 32768 written are two unwritten; the second and the next one merge when both are.
    world.convert(0, 32769, true, 0);
    assert_eq!(validate(&world.store, &world.root), [(0, 32767, 1000, true), (32767, 2, 33767, true)]);
    world.convert(0, 32767, false, 0);
    world.convert(32767, 1, false, 0);
    assert_eq!(validate(&world.store, &world.root), [(0, 32768, 1000, false), (32768, 1, 33768, true)]);
    world.check();
    for (len, unwritten) in [(0, false), (32769, false), (32768, true)] {
        let refused = world.with(|tree| tree.insert(extent(100_000, len, 200_000, unwritten)));
        assert_eq!(refused.unwrap_err().errno(), crate::error::errno::EINVAL);
    }
}

#[test]
fn the_end_of_the_logical_space() {
    let mut world = World::new();
    world.insert(extent(u32::MAX - 5, 5, 1000, true));
    let beyond = world.with(|tree| tree.insert(extent(u32::MAX, 1, 2000, false)));
    assert_eq!(beyond.unwrap_err().errno(), crate::error::errno::EINVAL);
    world.check();
    for at in [0, 1, u32::MAX - 6, u32::MAX - 5, u32::MAX - 1, u32::MAX] {
        world.check_lookup(at);
    }
    world.convert(u32::MAX - 3, 3, false, 0);
    world.check();
    let mut zero = |_: Pblk, _: u32| Ok(());
    let past = world.with(|tree| tree.convert_to_unwritten(Lblk(u32::MAX - 1), u32::MAX, &mut zero));
    assert_eq!(past, Ok(Progress::Done));
    world.model = blocks_of(&validate(&world.store, &world.root));
    world.remove(u32::MAX - 4, u32::MAX);
    world.check();
    let hole = lookup(&world.store, &world.root, OWNER, Lblk(u32::MAX)).unwrap();
    assert_eq!((hole.len, hole.state), (1, MapState::Hole));
}
