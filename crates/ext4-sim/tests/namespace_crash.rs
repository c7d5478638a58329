//! Power cuts in the middle of renames and links: every name is where it was or where it went, and nothing that a sync
//! had promised is gone.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use block_io::{Event, Recorder, RecordingDevice};
use ext4::mkfs::{self, FormatOptions};
use ext4::{Fs, MountOptions, NewInode};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::runner::FORMAT_TIME;

const VOLUME_BYTES: usize = 8 << 20;
const DIR: NewInode = NewInode { mode: 0o755, uid: 0, gid: 0 };
const FILE: NewInode = NewInode { mode: 0o100644, uid: 0, gid: 0 };

/// Every path with its links and contents.
type Tree = BTreeMap<String, (u32, Vec<u8>)>;

fn mount(bytes: Vec<u8>) -> (Arc<MemoryDevice>, Arc<Fs>) {
    let device = Arc::new(MemoryDevice::new(bytes));
    let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    (device, fs)
}

fn formatted() -> Vec<u8> {
    let device = MemoryDevice::new(vec![0; VOLUME_BYTES]);
    let mut options = FormatOptions::new(FORMAT_TIME);
    options.assume_zeroed = true;
    options.block_size = Some(1024);
    mkfs::format(&device, &options).unwrap();
    device.snapshot()
}

fn tree(fs: &Arc<Fs>, dir: &str, into: &mut Tree) {
    let mut names = Vec::new();
    let path = if dir.is_empty() { "/" } else { dir };
    fs.read_dir(path.as_bytes(), &mut |name, _, _| {
        names.push(String::from_utf8(name.to_vec()).unwrap());
        true
    })
    .unwrap();
    for name in names.into_iter().filter(|name| name != "." && name != "..") {
        let path = format!("{dir}/{name}");
        let inode = fs.lookup(path.as_bytes(), false).unwrap();
        let stat = fs.stat(&inode);
        let is_dir = stat.mode & 0o170000 == 0o040000;
        let mut contents = vec![0; if is_dir { 0 } else { stat.size as usize }];
        fs.buffered_read(&inode, 0, &mut contents).map_or_else(|error| assert!(is_dir, "{error}"), drop);
        into.insert(path.clone(), (stat.links, contents));
        if is_dir {
            tree(fs, &path, into);
        }
    }
}

fn tree_of(fs: &Arc<Fs>) -> Tree {
    let mut all = Tree::new();
    tree(fs, "", &mut all);
    all
}

fn write_file(fs: &Arc<Fs>, path: &str, contents: &str) {
    let (inode, _) = fs.create(path.as_bytes(), FILE, true).unwrap();
    fs.buffered_write(&inode, 0, contents.as_bytes()).unwrap();
    fs.release(&inode).unwrap();
}

fn furnish(fs: &Arc<Fs>) {
    for dir in ["/a", "/b", "/a/sub", "/a/sub/deep", "/empty"] {
        fs.mkdir(dir.as_bytes(), DIR).unwrap();
    }
    for file in ["/a/one", "/a/two", "/b/three", "/a/sub/deep/four", "/config"] {
        write_file(fs, file, file);
    }
    fs.sync().unwrap();
}

/// "rename" and "link" with two paths, "sync", or "replace": a new file takes the place of one.
const WORKLOAD: [[&str; 3]; 26] = [
    ["rename", "/a/one", "/b/one"],
    ["sync", "", ""],
    ["rename", "/b/one", "/a/two"],
    ["rename", "/a/sub", "/b/sub"],
    ["sync", "", ""],
    ["link", "/b/three", "/a/linked"],
    ["rename", "/b/sub/deep", "/empty"],
    ["sync", "", ""],
    ["rename", "/empty", "/b/sub/moved"],
    ["rename", "/b/sub/moved", "/empty"],
    ["sync", "", ""],
    ["replace", "/config", "first"],
    ["sync", "", ""],
    ["replace", "/config", "second"],
    ["replace", "/config", "third"],
    ["sync", "", ""],
    ["rename", "/a/linked", "/b/three"],
    ["link", "/config", "/a/config"],
    ["rename", "/b", "/a/b"],
    ["sync", "", ""],
    ["rename", "/a/b/sub", "/sub"],
    ["rename", "/config", "/sub/config"],
    ["sync", "", ""],
    ["rename", "/a", "/sub/a"],
    ["rename", "/sub", "/everything"],
    ["sync", "", ""],
];

/// What the volume looked like after each step, and the device's events with marks of the steps.
fn record(base: &[u8]) -> (Vec<Tree>, Vec<Event>) {
    let recorder = Recorder::new();
    let inner = Arc::new(MemoryDevice::new(base.to_vec()));
    let device = Arc::new(RecordingDevice::new(inner, recorder.clone(), 0));
    let (fs, _) = Fs::mount(device, &MountOptions::default()).unwrap();
    let mut states = vec![tree_of(&fs)];
    let mut new = 0;
    for [call, one, two] in WORKLOAD {
        match call {
            "rename" => fs.rename(one.as_bytes(), two.as_bytes()).unwrap(),
            "link" => fs.link(one.as_bytes(), two.as_bytes()).unwrap(),
            "sync" => {
                fs.sync().unwrap();
                recorder.mark(format!("synced {}", states.len() - 1));
                continue;
            }
            _ => {
                // Two steps, seen one by one.
                new += 1;
                let temporary = format!("/new{new}");
                write_file(&fs, &temporary, two);
                states.push(tree_of(&fs));
                recorder.mark("step");
                fs.rename(temporary.as_bytes(), one.as_bytes()).unwrap();
            }
        }
        states.push(tree_of(&fs));
        recorder.mark("step");
    }
    (states, recorder.take())
}

/// The device after a cut before `events[cut]`: what a flush or FUA made durable, and of the rest what `chosen` picks.
fn cut_image(base: &[u8], events: &[Event], cut: usize, mut chosen: u64) -> Vec<u8> {
    let mut image = base.to_vec();
    let done: HashSet<u64> = events[..cut]
        .iter()
        .filter_map(|event| match event {
            Event::Completed { request, .. } => Some(*request),
            _ => None,
        })
        .collect();
    let is_flush =
        |event: &Event| matches!(event, Event::FlushSubmitted { request, .. } if done.contains(request));
    let flushed = events[..cut].iter().rposition(is_flush).unwrap_or(0);
    for (index, event) in events[..cut].iter().enumerate() {
        let Event::WriteSubmitted { offset_bytes, bytes, fua, request, .. } = event else { continue };
        // Whether a write was over when the flush began is not looked at: one thread waits for each.
        if index < flushed || *fua && done.contains(request) {
            image[*offset_bytes as usize..][..bytes.len()].copy_from_slice(bytes);
            continue;
        }
        for (sector, data) in bytes.chunks(512).enumerate() {
            chosen = chosen.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if chosen >> 63 == 1 {
                image[*offset_bytes as usize + sector * 512..][..data.len()].copy_from_slice(data);
            }
        }
    }
    image
}

#[test]
fn a_power_cut_leaves_a_state_between_two_steps() {
    let (device, fs) = mount(formatted());
    furnish(&fs);
    fs.unmount().unwrap();
    drop(fs);
    let base = device.snapshot();
    let (states, events) = record(&base);
    assert!(events.len() > 80, "{}", events.len());
    let has_e2fsck = available(Need::E2fsprogs, "a_power_cut_leaves_a_state_between_two_steps");
    let dir = tempfile::tempdir().unwrap();
    let (mut synced, mut now, mut judged, mut seen) = (0, 0, 0, BTreeSet::new());
    for cut in 0..=events.len() {
        if let Some(Event::Mark(text)) = cut.checked_sub(1).map(|last| &events[last]) {
            match text.strip_prefix("synced ") {
                Some(state) => synced = state.parse().unwrap(),
                None => now += 1,
            }
        }
        // The operation under way may be there already.
        let last = (now + 1).min(states.len() - 1);
        for round in 0..4u64 {
            let (device, fs) = mount(cut_image(&base, &events, cut, (cut as u64) << 8 | round));
            let found = tree_of(&fs);
            let state = (synced..=last).find(|&state| states[state] == found);
            let Some(state) = state else {
                panic!(
                    "cut before event {cut}, round {round}: between states {synced} and {last}: {found:#?}"
                )
            };
            seen.insert(state);
            judged += 1;
            if has_e2fsck && judged % 40 == 0 {
                fs.unmount().unwrap();
                let image = dir.path().join("image");
                std::fs::write(&image, device.snapshot()).unwrap();
                assert_clean(&image);
            }
        }
    }
    assert!(judged > 300 && seen.len() > 8, "{judged} cuts, {} states", seen.len());
}
