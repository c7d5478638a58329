//! The kernel's allocator test in its declarative form: `layouts`, `ranges` and `properties` of mballoc-cases.json. Its
//! groups are empty; ours hold their own metadata, so an expected block is the first free one from there on. The speed
//! test among the properties compares nothing and is left out.

use ext4_format::{Group, Lblk, Pblk, bitmap};
use serde_json::Value;

use super::tests::request;
use super::volume::{Layout, Volume};
use super::{Allocator, Buddy};

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/mballoc-cases.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap() as u32
}

fn property(cases: &Value, name: &str) -> Value {
    let found = cases["properties"].as_array().unwrap().iter().find(|property| property["name"] == name);
    found.unwrap_or_else(|| panic!("no property {name}")).clone()
}

fn layouts(cases: &Value) -> Vec<(Layout, u32)> {
    let layout = |layout: &Value| {
        let block_size = number(&layout["blockSize"]);
        let made = Layout {
            block_size,
            cluster_bits: number(&layout["clusterBits"]),
            clusters_per_group: number(&layout["clustersPerGroup"]),
            groups: number(&layout["groups"]),
            short_by: 0,
            inodes_per_group: 8 * block_size / 256,
            ..Layout::default()
        };
        assert_eq!(Buddy::orders(block_size), number(&layout["orders"]));
        (made, number(&layout["orders"]))
    };
    cases["layouts"].as_array().unwrap().iter().map(layout).collect()
}

/// One range in each of so many equal parts of a group, by the rule of the file, from a fixed seed.
fn ranges(cases: &Value, clusters: u32, seed: &mut u64) -> Vec<(u32, u32)> {
    let count = number(&cases["ranges"]["count"]);
    let part = clusters / count;
    let mut random = |below: u32| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 33) % u64::from(below)) as u32
    };
    let all = (0..count).map(|index| {
        let start = random(part);
        (index * part + start, random(part).min(part - start))
    });
    all.filter(|(_, len)| *len > 0).collect()
}

fn assert_equal(a: &Buddy, b: &Buddy) {
    assert_eq!(a.first_free(), b.first_free());
    assert_eq!((a.free_count(), a.fragments()), (b.free_count(), b.fragments()));
    assert_eq!(a.largest_order(), b.largest_order());
    assert_eq!(a.chunk_counts(), b.chunk_counts());
    assert_eq!(a, b);
}

#[test]
fn buddy_from_bitmap_mark_and_free() {
    let cases = cases();
    for name in ["buddy from bitmap", "mark used in a loaded buddy", "free in a loaded buddy"] {
        property(&cases, name);
    }
    let mut seed = 1;
    for (layout, orders) in layouts(&cases) {
        let clusters = layout.clusters_per_group;
        for _ in 0..50 {
            let mut bits = vec![0; clusters as usize / 8];
            let mut marked = Buddy::from_bitmap(&bits, clusters, orders);
            let mut full = vec![0xFF; clusters as usize / 8];
            let mut freed = Buddy::all_used(clusters, orders);
            for (start, len) in ranges(&cases, clusters, &mut seed) {
                bitmap::set_range(&mut bits, start, len);
                marked.mark_used(start, len);
                assert_equal(&marked, &Buddy::from_bitmap(&bits, clusters, orders));
                bitmap::clear_range(&mut full, start, len);
                freed.free(start, len);
                assert_equal(&freed, &Buddy::from_bitmap(&full, clusters, orders));
            }
        }
    }
}

/// The free cluster at `block`, or the next one in its group. Metadata and what an earlier step took are in the way.
fn free_from(volume: &Volume, block: u64, layout: Layout) -> u64 {
    let ratio = 1u64 << layout.cluster_bits;
    let (group, first) = (block / ratio / u64::from(layout.clusters_per_group), block / ratio);
    let bits = &volume.check()[group as usize];
    let start = group * u64::from(layout.clusters_per_group);
    let cluster = (first - start..).find(|&cluster| !bits[cluster as usize]).unwrap();
    (start + cluster) * ratio
}

/// Takes every free cluster of a group.
fn use_up(allocator: &Allocator, volume: &mut Volume, group: u32, layout: Layout) {
    let ratio = 1u64 << layout.cluster_bits;
    let start = u64::from(group) * u64::from(layout.clusters_per_group) * ratio;
    let end = start + u64::from(layout.clusters_per_group) * ratio;
    let free: Vec<u64> = (start..end)
        .step_by(ratio as usize)
        .filter(|&block| !used(volume, Group(group), ((block - start) / ratio) as u32))
        .collect();
    for block in free {
        let run = allocator.allocate(volume, &request(block, 1)).unwrap();
        assert_eq!(run.start, Pblk(block));
    }
}

fn used(volume: &Volume, group: Group, cluster: u32) -> bool {
    volume.check()[group.0 as usize][cluster as usize]
}

#[test]
fn allocate_one_cluster_at_a_goal() {
    let cases = cases();
    let property = property(&cases, "allocate one cluster at a goal, simple path");
    for (layout, _) in layouts(&cases) {
        let mut volume = layout.format();
        let allocator = volume.allocator().unwrap();
        for step in property["steps"].as_array().unwrap() {
            match step["before"].as_str().unwrap() {
                "none" => {}
                "group 1 all used" => use_up(&allocator, &mut volume, 1, layout),
                "groups 1, 2, 3 all used" => {
                    (2..4).for_each(|group| use_up(&allocator, &mut volume, group, layout))
                }
                "all groups all used" => use_up(&allocator, &mut volume, 0, layout),
                other => panic!("a state of the volume that this test does not know: {other}"),
            }
            let goal = u64::from(number(&step["goalBlock"]));
            let expected =
                step.get("expectedBlock").map(|block| free_from(&volume, u64::from(number(block)), layout));
            let got = allocator.allocate(&mut volume, &request(goal, 1));
            match expected {
                Some(expected) => assert_eq!(got.unwrap().start, Pblk(expected), "{step}"),
                None => assert_eq!(got.unwrap_err().errno(), crate::errno::ENOSPC),
            }
        }
        volume.check();
    }
}

#[test]
fn a_goal_inside_a_cluster_is_its_start() {
    for (layout, _) in layouts(&cases()) {
        let mut volume = layout.format();
        let allocator = volume.allocator().unwrap();
        let run = allocator.allocate(&mut volume, &request(8192 + 8 * 7 + 3, 1)).unwrap();
        assert_eq!(run.start, Pblk(8192 + 8 * 7));
        // With a place in the file, the place in the cluster is that one's (D16).
        let wish = super::Request { lblk: Some(Lblk(5)), ..request(8192 + 8 * 9, 1) };
        assert_eq!(allocator.allocate(&mut volume, &wish).unwrap().start, Pblk(8192 + 8 * 9 + 5));
    }
}

#[test]
fn free_and_mark_ranges_on_disk() {
    let cases = cases();
    for name in ["free clusters, simple path", "mark disk space used"] {
        assert_eq!(number(&property(&cases, name)["goalGroup"]), 1);
    }
    let mut seed = 2;
    for (layout, _) in layouts(&cases) {
        let ratio = 1u64 << layout.cluster_bits;
        let mut volume = layout.format();
        let allocator = volume.allocator().unwrap();
        (0..layout.groups).for_each(|group| use_up(&allocator, &mut volume, group, layout));
        for (start, len) in ranges(&cases, layout.clusters_per_group, &mut seed) {
            let first = u64::from(layout.clusters_per_group + start) * ratio;
            allocator.free(&mut volume, Pblk(first), len * ratio as u32).unwrap();
            allocator.committed(volume.tid);
            let bits = volume.check();
            for (group, bits) in bits.iter().enumerate() {
                for (cluster, used) in (0..).zip(bits) {
                    let freed = group == 1 && (start..start + len).contains(&cluster);
                    assert_eq!(*used, !freed, "group {group}, cluster {cluster}");
                }
            }
            // What was found free is the only space there is: it is applied whole, and nothing else changes.
            let run = allocator.allocate(&mut volume, &request(first, len * ratio as u32)).unwrap();
            assert_eq!((run.start, run.len), (Pblk(first), len * ratio as u32));
            assert!(volume.check()[1].iter().all(|used| *used));
        }
    }
}
