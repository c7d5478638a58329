use std::collections::HashSet;

use ext4_format::features::ro_compat;
use ext4_format::{Group, Ino, Lblk, Pblk, bitmap};
use proptest::prelude::*;

use super::volume::{Layout, Volume};
use super::{Allocator, Request, RequestKind, Run};
use crate::error::errno;

pub(super) fn request(goal: u64, len: u32) -> Request {
    Request {
        ino: Ino(12),
        lblk: None,
        goal: Pblk(goal),
        len,
        min_len: 1,
        kind: RequestKind::Data,
        may_use_reserve: true,
        preallocate: false,
        below_2_32: false,
    }
}

/// The used blocks of the volume, from its bitmaps.
fn used_blocks(volume: &Volume) -> HashSet<u64> {
    let ratio = 1u64 << volume.sb.cluster_bits();
    let groups = volume.check();
    let clusters = groups.iter().zip(volume.groups()).flat_map(|(bits, group)| {
        let first = volume.sb.group_first_block(group).0;
        let used = bits.iter().enumerate().filter(|(_, bit)| **bit);
        used.map(move |(at, _)| first + at as u64 * ratio)
    });
    clusters.flat_map(|start| start..start + ratio).collect()
}

fn fill(allocator: &Allocator, volume: &mut Volume) -> Vec<Run> {
    let mut runs = Vec::new();
    loop {
        match allocator.allocate(volume, &request(0, 1 << 20)) {
            Ok(run) => runs.push(run),
            Err(error) => {
                assert_eq!(error.errno(), errno::ENOSPC);
                return runs;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Allocate { goal: u64, len: u32, lblk: u32, ino: u32, preallocate: bool },
    Free { pick: usize, from: u32, len: u32 },
    Commit,
    Discard,
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u64..3000, 1u32..400, 0u32..600, 12u32..15, any::<bool>()).prop_map(
            |(goal, len, lblk, ino, preallocate)| Step::Allocate { goal, len, lblk, ino, preallocate }),
        4 => (any::<usize>(), 0u32..300, 1u32..400).prop_map(|(pick, from, len)| Step::Free { pick, from, len }),
        1 => Just(Step::Commit),
        1 => Just(Step::Discard),
        1 => Just(Step::Reload),
    ];
    proptest::collection::vec(step, 1..60)
}

fn layouts() -> impl Strategy<Value = Layout> {
    let checksums = prop_oneof![Just(ro_compat::METADATA_CSUM), Just(ro_compat::GDT_CSUM), Just(0)];
    (checksums, any::<bool>(), any::<bool>(), 0u32..300).prop_map(|(checksums, bit64, uninit, short_by)| {
        Layout { checksums, bit64, uninit, short_by, ..Layout::default() }
    })
}

/// A set of blocks beside the volume, and what a crash-safe allocator may not give out.
fn run_model(layout: Layout, steps: Vec<Step>) {
    let mut volume = layout.format();
    let mut allocator = volume.allocator().unwrap();
    let mut model = used_blocks(&volume);
    let mut runs: Vec<Run> = Vec::new();
    let mut waiting: HashSet<u64> = HashSet::new();
    for step in steps {
        match step {
            Step::Allocate { goal, len, lblk, ino, preallocate } => {
                let mut wish = request(goal, len);
                (wish.ino, wish.preallocate, wish.lblk) =
                    (Ino(ino), preallocate, preallocate.then_some(Lblk(lblk)));
                match allocator.allocate(&mut volume, &wish) {
                    Ok(run) => {
                        assert!(run.len >= 1 && run.len <= len);
                        for block in run.start.0..run.start.0 + u64::from(run.len) {
                            assert!(model.insert(block), "block {block} was in use");
                            assert!(
                                !waiting.contains(&block),
                                "D13: block {block} was freed in a running transaction"
                            );
                        }
                        runs.push(run);
                    }
                    Err(error) => {
                        assert_eq!(error.errno(), errno::ENOSPC);
                        assert_eq!(model.len() + waiting.len(), layout_blocks(&volume));
                    }
                }
            }
            Step::Free { pick, from, len } if !runs.is_empty() => {
                let at = pick % runs.len();
                let run = runs.swap_remove(at);
                let from = from % run.len;
                let len = len.min(run.len - from);
                allocator.free(&mut volume, Pblk(run.start.0 + u64::from(from)), len).unwrap();
                for block in run.start.0 + u64::from(from)..run.start.0 + u64::from(from + len) {
                    model.remove(&block);
                    waiting.insert(block);
                }
                let again = allocator.free(&mut volume, Pblk(run.start.0 + u64::from(from)), len);
                assert_eq!(again.unwrap_err().errno(), errno::EUCLEAN);
                let rest = from + len;
                runs.extend(
                    [(0, from), (rest, run.len - rest)]
                        .into_iter()
                        .filter(|part| part.1 > 0)
                        .map(|(offset, len)| Run { start: Pblk(run.start.0 + u64::from(offset)), len }),
                );
            }
            Step::Free { .. } => {}
            Step::Commit => {
                allocator.committed(volume.tid);
                volume.tid = volume.tid.wrapping_add(1);
                waiting.clear();
            }
            Step::Discard => {
                allocator.discard_preallocations(None);
            }
            Step::Reload => {
                let totals = allocator.totals();
                allocator = volume.allocator().unwrap();
                assert_eq!(allocator.totals(), totals);
                waiting.clear();
            }
        }
        assert_eq!(used_blocks(&volume), model);
        assert_eq!(allocator.totals().free_blocks as usize, layout_blocks(&volume) - model.len());
        assert_eq!(allocator.pending_frees() as usize, waiting.len());
    }
}

fn layout_blocks(volume: &Volume) -> usize {
    (volume.sb.blocks_count() - u64::from(volume.sb.first_data_block)) as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_a_set_of_blocks(layout in layouts(), steps in steps()) {
        run_model(layout, steps);
    }
}

#[test]
fn tid_wraps() {
    let mut volume = Layout::default().format();
    let allocator = volume.allocator().unwrap();
    let run = allocator.allocate(&mut volume, &request(0, 10)).unwrap();
    volume.tid = u32::MAX;
    allocator.free(&mut volume, run.start, 5).unwrap();
    volume.tid = 1;
    allocator.free(&mut volume, Pblk(run.start.0 + 5), 5).unwrap();
    allocator.committed(u32::MAX);
    assert_eq!(allocator.pending_frees(), 5);
    allocator.committed(0);
    assert_eq!(allocator.pending_frees(), 5);
    allocator.committed(1);
    assert_eq!(allocator.pending_frees(), 0);
}

/// X18. E53, with a full volume: there is nothing but what was just freed.
#[test]
fn freed_blocks_come_back_after_the_commit() {
    let mut volume = Layout::default().format();
    let allocator = volume.allocator().unwrap();
    let runs = fill(&allocator, &mut volume);
    assert_eq!(allocator.totals().free_blocks, 0);
    assert!(volume.check().iter().flatten().all(|used| *used));
    allocator.free(&mut volume, runs[1].start, 7).unwrap();
    assert_eq!(allocator.allocate(&mut volume, &request(0, 1)).unwrap_err().errno(), errno::ENOSPC);
    assert_eq!(allocator.pending_frees(), 7);
    allocator.committed(volume.tid - 1);
    assert!(allocator.allocate(&mut volume, &request(0, 1)).is_err());
    allocator.committed(volume.tid);
    assert_eq!(
        allocator.allocate(&mut volume, &request(0, 9)).unwrap(),
        Run { start: runs[1].start, len: 7 }
    );
    volume.check();
}

#[test]
fn the_reserve_is_kept() {
    let mut volume = Layout::default().format();
    let allocator = volume.allocator().unwrap();
    let reserve = allocator.reserved_clusters();
    assert_eq!(reserve, (4 * 512 - 100 + 1) / 50);
    let ordinary = Request { may_use_reserve: false, ..request(0, 64) };
    while allocator.allocate(&mut volume, &ordinary).is_ok() {}
    assert_eq!(allocator.free_clusters(), reserve);
    assert!(allocator.allocate(&mut volume, &request(0, 64)).is_ok());
}

#[test]
fn refuses_to_free_what_is_not_data() {
    let mut volume = Layout::default().format();
    let allocator = volume.allocator().unwrap();
    let before = volume.check();
    let bitmap = volume.desc(Group(0)).block_bitmap;
    let end = volume.sb.blocks_count();
    for (start, len) in
        [(1, 1), (bitmap, 1), (bitmap - 1, 5), (0, 1), (end, 1), (end - 1, 2), (u64::MAX, 2), (600, 1)]
    {
        assert_eq!(
            allocator.free(&mut volume, Pblk(start), len).unwrap_err().errno(),
            errno::EUCLEAN,
            "{start}"
        );
    }
    assert_eq!(volume.check(), before);
    allocator.add_system_zone(Pblk(600), 10);
    assert!(allocator.metadata_zone(Pblk(590), 11) && !allocator.metadata_zone(Pblk(590), 10));
}

#[test]
fn a_damaged_bitmap_is_stepped_over() {
    let mut volume = Layout { uninit: false, ..Layout::default() }.format();
    let block = volume.desc(Group(1)).block_bitmap;
    let mut bytes = volume.get(block).to_vec();
    bitmap::set(&mut bytes, 300);
    volume.put(block, &bytes);
    let allocator = volume.allocator().unwrap();
    let goal = volume.sb.group_first_block(Group(1)).0 + 200;
    let run = allocator.allocate(&mut volume, &request(goal, 16)).unwrap();
    assert_ne!(volume.sb.group_of_block(run.start), Some(Group(1)));
    assert_eq!(allocator.take_damage().unwrap().errno(), errno::EBADMSG);
    // As on Linux, what is freed there is lost: a truncation must not fail in its midst.
    let before = allocator.free_clusters();
    allocator.free(&mut volume, Pblk(goal), 1).unwrap();
    assert_eq!(allocator.free_clusters(), before);
    assert_eq!(volume.get(block)[..], bytes[..]);
}

#[test]
fn sequential_writes_of_two_files_stay_apart() {
    let layout = Layout { block_size: 4096, clusters_per_group: 32768, short_by: 0, ..Layout::default() };
    let mut volume = layout.format();
    let allocator = volume.allocator().unwrap();
    let mut ends = [Pblk(500), Pblk(500)];
    let mut breaks = 0;
    for lblk in 0..512 {
        for (file, end) in ends.iter_mut().enumerate() {
            let lblk = Some(Lblk(64 + lblk));
            let wish = Request { ino: Ino(12 + file as u32), lblk, preallocate: true, ..request(end.0, 1) };
            let run = allocator.allocate(&mut volume, &wish).unwrap();
            breaks += u32::from(run.start != *end);
            *end = Pblk(run.start.0 + 1);
        }
    }
    assert!(breaks <= 12, "{breaks}");
    let run = allocator.allocate(&mut volume, &request(0, 256)).unwrap();
    assert_eq!(run.len, 256);
    volume.check();
}

/// The kernel's allocator test, its first two properties, with clusters of 8 blocks.
#[test]
fn clusters() {
    for (block_size, bits) in [(1024, 3), (4096, 3), (65536, 3)] {
        let layout = Layout {
            block_size,
            cluster_bits: bits,
            clusters_per_group: 1024,
            short_by: 0,
            inodes_per_group: 8 * block_size / 256,
            ..Layout::default()
        };
        let mut volume = layout.format();
        let allocator = volume.allocator().unwrap();
        let goal = 8192 + 8 * 500;
        let take =
            |volume: &mut Volume, goal| allocator.allocate(volume, &request(goal, 1)).map(|run| run.start.0);
        assert_eq!(take(&mut volume, goal).unwrap(), goal);
        assert_eq!(take(&mut volume, goal).unwrap(), goal + 8);
        assert_eq!(take(&mut volume, goal + 8 * 4 + 3).unwrap(), goal + 8 * 4);
        // D16: the place in the cluster is that of the file.
        let wish = Request { lblk: Some(Lblk(13)), ..request(goal + 8 * 10, 20) };
        let run = allocator.allocate(&mut volume, &wish).unwrap();
        assert_eq!(run, Run { start: Pblk(goal + 8 * 10 + 5), len: 20 });
        allocator.free(&mut volume, Pblk(run.start.0 - 5), 32).unwrap();
        allocator.committed(volume.tid);
        assert_eq!(allocator.pending_frees(), 0);
        let runs = fill(&allocator, &mut volume);
        assert!(take(&mut volume, goal).is_err());
        let data = |block: &u64| !allocator.metadata_zone(Pblk(block & !7), 8);
        // Only one free cluster, in the group before the goal's: the search wraps.
        let last = (0..8192).rev().find(data).unwrap() & !7;
        allocator.free(&mut volume, Pblk(last), 8).unwrap();
        allocator.committed(volume.tid);
        assert_eq!(take(&mut volume, goal).unwrap(), last);
        assert!(!runs.is_empty());
        volume.check();
    }
}

#[test]
fn fragments_are_used_up() {
    let mut volume = Layout::default().format();
    let allocator = volume.allocator().unwrap();
    for run in fill(&allocator, &mut volume) {
        for block in (run.start.0..run.start.0 + u64::from(run.len)).step_by(2) {
            allocator.free(&mut volume, Pblk(block), 1).unwrap();
        }
    }
    allocator.committed(volume.tid);
    let free = allocator.free_clusters();
    assert!(allocator.allocate(&mut volume, &Request { min_len: 4, ..request(0, 4) }).is_err());
    let runs = fill(&allocator, &mut volume);
    assert_eq!(runs.iter().map(|run| u64::from(run.len)).sum::<u64>(), free);
    volume.check();
}

#[test]
fn threads_never_share_a_block() {
    let volume = Layout { groups: 8, ..Layout::default() }.format();
    let allocator = volume.allocator().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (mut volume, allocator) = (volume.clone(), &allocator);
            scope.spawn(move || {
                let mut runs: Vec<Run> = Vec::new();
                for round in 0..300u32 {
                    let lblk = Some(Lblk(round * 3));
                    let preallocate = round % 3 == 0;
                    let goal = u64::from(thread * 700 + round);
                    let wish =
                        Request { ino: Ino(12 + thread), lblk, preallocate, ..request(goal, 1 + round % 40) };
                    match allocator.allocate(&mut volume, &wish) {
                        Ok(run) => runs.push(run),
                        Err(_) => allocator.committed(1),
                    }
                    if round % 2 == 0 && !runs.is_empty() {
                        let run = runs.swap_remove(round as usize % runs.len());
                        allocator.free(&mut volume, run.start, run.len).unwrap();
                    }
                }
                // Two threads with one block would free it twice.
                for run in runs {
                    allocator.free(&mut volume, run.start, run.len).unwrap();
                }
            });
        }
    });
    allocator.committed(1);
    assert!(allocator.take_damage().is_none());
    assert_eq!(volume.check(), Layout { groups: 8, ..Layout::default() }.format().check());
}
