//! Ranges of files: refusals, a full volume, dirty pages, trees too large for one transaction, crashes and failing devices.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use block_io::{Device, Event, Fault, FaultDevice, FaultOn, Recorder, RecordingDevice};
use ext4::{FallocateMode, Fs, Inode, MountOptions, NewInode, Whence};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available, debugfs};
use ext4_sim::runner::format;

const BLOCK: u64 = 1024;
/// Blocks of the fragmented file: each second one is written, the others are not.
const BLOCKS: u64 = 16_000;

const ALLOCATE: FallocateMode = FallocateMode::Allocate { keep_size: false };
const KEEP: FallocateMode = FallocateMode::Allocate { keep_size: true };
const ZERO: FallocateMode = FallocateMode::ZeroRange { keep_size: false };

fn mount(device: Arc<dyn Device>) -> Arc<Fs> {
    Fs::mount(device, &MountOptions::default()).unwrap().0
}

fn create(fs: &Arc<Fs>, path: &str) -> Arc<Inode> {
    fs.create(path.as_bytes(), NewInode { mode: 0o100644, uid: 0, gid: 0 }, false).unwrap().0
}

/// An empty volume's bytes.
fn empty(size_bytes: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, size_bytes, |options| {
        options.block_size = Some(BLOCK as u32);
        options.journal_blocks = Some(1024);
    });
    fs::read(&image).unwrap()
}

fn judge(bytes: &[u8]) {
    if available(Need::E2fsprogs, "ranges") {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, bytes).unwrap();
        assert_clean(&image);
    }
}

fn read(fs: &Arc<Fs>, inode: &Arc<Inode>) -> Vec<u8> {
    let mut data = vec![0; inode.size() as usize];
    assert_eq!(fs.buffered_read(inode, 0, &mut data).unwrap(), data.len());
    data
}

/// The block that the fragmented file has at `index`.
fn block_of(index: u64) -> Vec<u8> {
    match index % 2 {
        0 => (index as u32 + 1).to_be_bytes().repeat(BLOCK as usize / 4),
        _ => vec![0; BLOCK as usize],
    }
}

/// A volume with a file whose tree of depth 2 has more leaves than a transaction of its journal takes blocks.
fn fragmented() -> &'static Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(make_fragmented)
}

fn make_fragmented() -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(empty(32 << 20)));
    let fs = mount(device.clone());
    let inode = create(&fs, "/file");
    fs.fallocate(&inode, ALLOCATE, 0, BLOCKS * BLOCK).unwrap();
    for index in (0..BLOCKS).step_by(2) {
        fs.buffered_write(&inode, index * BLOCK, &block_of(index)).unwrap();
    }
    fs.fsync(&inode, false).unwrap();
    assert_eq!(fs.extents(&inode, 0, u64::MAX, usize::MAX).unwrap().len() as u64, BLOCKS);
    // As many as are asked for, and the rest from there on.
    let some = fs.extents(&inode, 5 * BLOCK, u64::MAX, 3).unwrap();
    let seen: Vec<_> = some.iter().map(|e| (e.logical / BLOCK, e.len / BLOCK, e.unwritten, e.last)).collect();
    assert_eq!(seen, [(5, 1, true, false), (6, 1, false, false), (7, 1, true, false)]);
    fs.release(&inode).unwrap();
    fs.unmount().unwrap();
    device.snapshot()
}

type Model = fn(&mut Vec<u8>);
type Change = fn(&Arc<Fs>, &Arc<Inode>) -> ext4::Result<()>;

/// What is done to the fragmented file, and what that makes of its contents.
const CHANGES: [(&str, Change, Model); 7] = [
    (
        "collapse",
        |fs, inode| fs.fallocate(inode, FallocateMode::CollapseRange, 11 * BLOCK, 100 * BLOCK),
        |data| drop(data.drain(11 * BLOCK as usize..111 * BLOCK as usize)),
    ),
    (
        "insert",
        |fs, inode| fs.fallocate(inode, FallocateMode::InsertRange, 12 * BLOCK, 77 * BLOCK),
        |data| drop(data.splice(12 * BLOCK as usize..12 * BLOCK as usize, vec![0; 77 * BLOCK as usize])),
    ),
    (
        "punch",
        |fs, inode| fs.fallocate(inode, FallocateMode::PunchHole, 10 * BLOCK + 5, (BLOCKS - 20) * BLOCK),
        |data| data[10 * BLOCK as usize + 5..][..((BLOCKS - 20) * BLOCK) as usize].fill(0),
    ),
    (
        "zero",
        |fs, inode| fs.fallocate(inode, ZERO, 3 * BLOCK + 1, (BLOCKS - 9) * BLOCK + 3),
        |data| data[3 * BLOCK as usize + 1..][..((BLOCKS - 9) * BLOCK) as usize + 3].fill(0),
    ),
    ("truncate", |fs, inode| fs.truncate(inode, 6 * BLOCK + 7), |data| data.truncate(6 * BLOCK as usize + 7)),
    (
        "truncate up",
        |fs, inode| fs.truncate(inode, 6 * BLOCK + 7).and_then(|()| fs.truncate(inode, 17_000 * BLOCK)),
        |data| {
            data.truncate(6 * BLOCK as usize + 7);
            data.resize(17_000 * BLOCK as usize, 0);
        },
    ),
    (
        "allocate",
        |fs, inode| fs.fallocate(inode, ALLOCATE, 15_000 * BLOCK, 3000 * BLOCK),
        |data| data.resize(18_000 * BLOCK as usize, 0),
    ),
];

/// Blocks with data, in order.
fn stamps(data: &[u8]) -> Vec<&[u8]> {
    data.chunks(BLOCK as usize).filter(|block| block.iter().any(|&byte| byte != 0)).collect()
}

fn is_subsequence(part: &[&[u8]], whole: &[&[u8]]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|block| rest.any(|other| other == block))
}

/// The device's bytes at every flush of a recording.
fn states(base: &[u8], events: &[Event]) -> Vec<Vec<u8>> {
    let mut bytes = base.to_vec();
    let mut states = Vec::new();
    for event in events {
        match event {
            Event::WriteSubmitted { offset_bytes, bytes: written, .. } => {
                bytes[*offset_bytes as usize..][..written.len()].copy_from_slice(written);
            }
            Event::FlushSubmitted { .. } => states.push(bytes.clone()),
            _ => {}
        }
    }
    states.push(bytes);
    states
}

/// D30: a tree of many leaves changes in transaction-sized steps; wherever the power goes, the volume is consistent, the file
/// has its old size or a new one, and no block is lost or out of order but those that had to go.
#[test]
fn d30_every_commit_of_a_large_change_is_consistent() {
    let base = fragmented();
    for (name, change, model) in CHANGES {
        let device = Arc::new(MemoryDevice::new(base.clone()));
        let recorder = Recorder::new();
        let fs = mount(Arc::new(RecordingDevice::new(device.clone(), recorder.clone(), 0)));
        let inode = fs.open(b"/file", true).unwrap();
        let old = read(&fs, &inode);
        let mut new = old.clone();
        model(&mut new);
        change(&fs, &inode).unwrap();
        assert!(read(&fs, &inode) == new, "{name}");
        fs.fsync(&inode, false).unwrap();
        fs.release(&inode).unwrap();
        fs.unmount().unwrap();
        judge(&device.snapshot());

        for state in states(base, &recorder.take()) {
            let device = Arc::new(MemoryDevice::new(state));
            let fs = mount(device.clone());
            let inode = fs.open(b"/file", true).unwrap();
            let data = read(&fs, &inode);
            let sizes = [old.len(), new.len(), 6 * BLOCK as usize + 7];
            assert!(sizes.contains(&data.len()) || name == "allocate", "{name}: {} bytes", data.len());
            let (found, before, after) = (stamps(&data), stamps(&old), stamps(&new));
            let whole = |blocks: &[&[u8]]| blocks.iter().filter(|block| block[0] == block[4]).count();
            assert!(whole(&found) >= whole(&after).min(whole(&before)), "{name}: blocks are lost");
            let known: HashSet<_> = before.iter().copied().collect();
            let intact: Vec<_> = found.iter().copied().filter(|block| known.contains(block)).collect();
            assert!(is_subsequence(&intact, &before), "{name}: out of order");
            fs.release(&inode).unwrap();
            fs.unmount().unwrap();
            judge(&device.snapshot());
        }
    }
}

/// Whatever request fails: an error or a result, no panic, and a volume that the next mount repairs.
#[test]
fn a_failure_at_every_few_requests() {
    let base = fragmented();
    for (index, (name, change, _)) in CHANGES.into_iter().enumerate() {
        let (mut nth, mut for_ever) = (1 + index as u64, index % 2 == 0);
        loop {
            let device = Arc::new(MemoryDevice::new(base.clone()));
            let faults = Arc::new(FaultDevice::new(device.clone()));
            let fs = mount(faults.clone());
            let before = faults.counts();
            let inode = fs.open(b"/file", true).unwrap();
            for (on, done) in [
                (FaultOn::Write, before.writes),
                (FaultOn::Read, before.reads),
                (FaultOn::Flush, before.flushes),
            ] {
                let fault =
                    Fault { on, nth: done + nth, from_then_on: for_ever, errno: 5, half_written: false };
                faults.inject(fault);
            }
            let changed = change(&fs, &inode).and_then(|()| fs.fsync(&inode, false));
            let failed = match &changed {
                Ok(()) => false,
                Err(error) => {
                    assert!([5, 30].contains(&error.errno()), "{name}: {error}");
                    true
                }
            };
            faults.clear();
            drop(inode);
            drop(fs);
            let fs = mount(device.clone());
            fs.unmount().unwrap();
            judge(&device.snapshot());
            if !failed {
                break;
            }
            nth = 2 * nth + 1;
            for_ever = !for_ever;
        }
    }
}

#[test]
fn a_full_volume_keeps_what_it_gave() {
    let device = Arc::new(MemoryDevice::new(empty(8 << 20)));
    let fs = mount(device.clone());
    let inode = create(&fs, "/file");
    fs.buffered_write(&inode, 0, &block_of(2)[..100]).unwrap();
    let error = fs.fallocate(&inode, ALLOCATE, 0, 64 << 20).unwrap_err();
    assert_eq!(error.errno(), 28);
    let got: u64 = fs.extents(&inode, 0, u64::MAX, usize::MAX).unwrap().iter().map(|e| e.len).sum();
    assert!(got > 4 << 20 && fs.stat(&inode).size == got, "{got} bytes, size {}", fs.stat(&inode).size);
    assert_eq!(read(&fs, &inode)[..100], block_of(2)[..100]);
    // With KEEP_SIZE the size stays; a hole gives space back at once.
    let other = create(&fs, "/other");
    assert_eq!(fs.fallocate(&other, KEEP, 0, 1 << 20).unwrap_err().errno(), 28);
    assert_eq!(other.size(), 0);
    fs.fallocate(&inode, FallocateMode::PunchHole, 1 << 20, 2 << 20).unwrap();
    fs.fallocate(&other, KEEP, 0, 1 << 20).unwrap();
    // Zeroing what is written takes no space where the tree has none: D7's way out.
    fs.fallocate(&inode, FallocateMode::PunchHole, 5 << 20, 4096).unwrap();
    fs.release(&other).unwrap();
    fs.release(&inode).unwrap();
    fs.unmount().unwrap();
    judge(&device.snapshot());
}

/// In the kernel's order of checks.
#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::write(&image, empty(16 << 20)).unwrap();
    let fill = |image: &Path, requests: &[&str]| {
        for request in requests {
            ext4_sim::oracle::tool_ok("debugfs", &["-w", "-R", request, image.to_str().unwrap()]);
        }
    };
    let device = Arc::new(MemoryDevice::new(fs::read(&image).unwrap()));
    let fs_ = mount(device.clone());
    for path in ["/plain", "/immutable", "/append"] {
        let inode = create(&fs_, path);
        fs_.buffered_write(&inode, 0, &[1; 4 * BLOCK as usize]).unwrap();
        fs_.release(&inode).unwrap();
    }
    fs_.mkdir(b"/dir", NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
    fs_.unmount().unwrap();
    if !available(Need::E2fsprogs, "refusals") {
        return;
    }
    fs::write(&image, device.snapshot()).unwrap();
    fill(
        &image,
        &["sif /immutable flags 0x80010", "sif /append flags 0x80020", "mknod fifo p", "mknod null c 1 3"],
    );
    assert!(debugfs(&image, "stat /immutable").contains("0x80010"));

    let fs = mount(Arc::new(MemoryDevice::new(fs::read(&image).unwrap())));
    let modes = [
        ALLOCATE,
        KEEP,
        ZERO,
        FallocateMode::ZeroRange { keep_size: true },
        FallocateMode::PunchHole,
        FallocateMode::CollapseRange,
        FallocateMode::InsertRange,
    ];
    let call = |path: &str, mode, pos, len| {
        let inode = fs.lookup(path.as_bytes(), false).unwrap();
        fs.fallocate(&inode, mode, pos, len).map_or_else(|error| error.errno(), |()| 0)
    };
    let max = fs.max_file_bytes();
    for mode in modes {
        let allocates = matches!(mode, FallocateMode::Allocate { .. });
        assert_eq!(call("/plain", mode, 0, 0), 22);
        assert_eq!(call("/immutable", mode, 0, 0), 22);
        assert_eq!(call("/immutable", mode, 0, BLOCK), 1);
        assert_eq!(call("/append", mode, 0, BLOCK), if allocates { 0 } else { 1 });
        assert_eq!(call("/dir", mode, 0, BLOCK), 21);
        assert_eq!(call("/fifo", mode, 0, BLOCK), 29);
        assert_eq!(call("/null", mode, 0, BLOCK), 19);
        assert_eq!(call("/plain", mode, max, 1), 27);
        assert_eq!(call("/plain", mode, u64::MAX, 2), 27);
    }
    for (mode, pos, len, errno) in [
        (FallocateMode::CollapseRange, 1, BLOCK, 22),
        (FallocateMode::CollapseRange, 0, BLOCK + 1, 22),
        (FallocateMode::CollapseRange, 0, 4 * BLOCK, 22),
        (FallocateMode::CollapseRange, 3 * BLOCK, 2 * BLOCK, 22),
        (FallocateMode::InsertRange, 4 * BLOCK, BLOCK, 22),
        (FallocateMode::InsertRange, 0, 512, 22),
        (FallocateMode::InsertRange, 0, max - 4 * BLOCK, 0),
        (FallocateMode::InsertRange, 0, BLOCK, 27),
    ] {
        assert_eq!(call("/plain", mode, pos, len), errno, "{mode:?} {pos} {len}");
    }
    // The immutable and the append-only are not truncated either.
    for path in ["/immutable", "/append"] {
        let inode = fs.lookup(path.as_bytes(), true).unwrap();
        assert_eq!(fs.truncate(&inode, 0).unwrap_err().errno(), 1);
    }
}

/// A block beyond i_size cannot move past the end of all blocks: nothing changes.
#[test]
fn insert_before_preallocated_blocks_at_the_very_end() {
    let device = Arc::new(MemoryDevice::new(empty(16 << 20)));
    let fs = mount(device.clone());
    let inode = create(&fs, "/file");
    fs.buffered_write(&inode, 0, &[7; 2 * BLOCK as usize]).unwrap();
    fs.fallocate(&inode, KEEP, fs.max_file_bytes() - BLOCK, BLOCK).unwrap();
    assert_eq!(fs.fallocate(&inode, FallocateMode::InsertRange, 0, BLOCK).unwrap_err().errno(), 22);
    assert_eq!(fs.sizes(&inode), (2 * BLOCK, 2 * BLOCK));
    assert_eq!(read(&fs, &inode), [7; 2 * BLOCK as usize]);
    // D30: truncation, here to the same size, takes them away.
    fs.truncate(&inode, 2 * BLOCK).unwrap();
    assert_eq!(fs.extents(&inode, 0, u64::MAX, 9).unwrap().len(), 1);
    fs.fallocate(&inode, FallocateMode::InsertRange, 0, BLOCK).unwrap();
    fs.release(&inode).unwrap();
    fs.unmount().unwrap();
    judge(&device.snapshot());
}

/// As iomap_seek_data: what is dirty over a hole or unwritten blocks is data. Punching takes dirty pages along.
#[test]
fn dirty_pages_are_data() {
    let device = Arc::new(MemoryDevice::new(empty(16 << 20)));
    let fs = mount(device.clone());
    let inode = create(&fs, "/file");
    fs.fallocate(&inode, ALLOCATE, 0, 20 * BLOCK).unwrap();
    fs.truncate(&inode, 40 * BLOCK + 10).unwrap();
    let seek = |pos, whence| fs.seek(&inode, pos, whence).map_err(|error| error.errno());
    let (data, hole) = (Whence::Data, Whence::Hole);
    assert_eq!(seek(0, data), Err(6));
    assert_eq!([seek(0, hole), seek(40 * BLOCK + 9, hole)], [Ok(0), Ok(40 * BLOCK + 9)]);
    assert_eq!([seek(40 * BLOCK + 10, hole), seek(u64::MAX, data)], [Err(6), Err(6)]);
    for block in [3, 4, 30] {
        fs.buffered_write(&inode, block * BLOCK + 100, &[9; 10]).unwrap();
    }
    let expected = [
        (0, Ok(3 * BLOCK), Ok(0)),
        (3 * BLOCK + 5, Ok(3 * BLOCK + 5), Ok(5 * BLOCK)),
        (5 * BLOCK, Ok(30 * BLOCK), Ok(5 * BLOCK)),
        (30 * BLOCK + 1, Ok(30 * BLOCK + 1), Ok(31 * BLOCK)),
        (31 * BLOCK, Err(6), Ok(31 * BLOCK)),
    ];
    let seen: Vec<_> = fs
        .extents(&inode, 0, u64::MAX, 9)
        .unwrap()
        .iter()
        .map(|e| (e.logical / BLOCK, e.len / BLOCK, e.physical != 0, e.unwritten, e.delalloc, e.last))
        .collect();
    assert_eq!(seen, [(0, 20, true, true, false, false), (30, 1, false, false, true, true)]);
    for (pos, at_data, at_hole) in expected {
        assert_eq!((seek(pos, data), seek(pos, hole)), (at_data, at_hole), "at {pos}");
    }
    fs.fallocate(&inode, FallocateMode::PunchHole, 4 * BLOCK - 1, 30 * BLOCK).unwrap();
    assert_eq!([seek(0, data), seek(3 * BLOCK, hole)], [Ok(3 * BLOCK), Ok(4 * BLOCK)]);
    let mut model = vec![0; 40 * BLOCK as usize + 10];
    model[3 * BLOCK as usize + 100..][..10].fill(9);
    assert!(read(&fs, &inode) == model);
    fs.fsync(&inode, false).unwrap();
    assert!(read(&fs, &inode) == model);
    fs.release(&inode).unwrap();
    fs.unmount().unwrap();
    judge(&device.snapshot());
}

/// Dirty pages that a hole takes along would have raised i_disksize: the hole does.
#[test]
fn a_hole_at_the_end_of_buffered_data_keeps_the_size() {
    for mode in [FallocateMode::PunchHole, ZERO, FallocateMode::ZeroRange { keep_size: true }] {
        let device = Arc::new(MemoryDevice::new(empty(16 << 20)));
        let fs = mount(device.clone());
        let inode = create(&fs, "/file");
        fs.buffered_write(&inode, 0, &[7; 5 * BLOCK as usize]).unwrap();
        fs.fallocate(&inode, mode, 2 * BLOCK, 3 * BLOCK).unwrap();
        fs.fsync(&inode, true).unwrap();
        assert_eq!(fs.sizes(&inode), (5 * BLOCK, 5 * BLOCK), "{mode:?}");
        drop((inode, fs));
        let fs = mount(device.clone());
        let inode = fs.open(b"/file", true).unwrap();
        let mut model = vec![0; 5 * BLOCK as usize];
        model[..2 * BLOCK as usize].fill(7);
        assert!(read(&fs, &inode) == model, "{mode:?}");
        fs.release(&inode).unwrap();
        fs.unmount().unwrap();
        judge(&device.snapshot());
    }
}
