//! What fsync and fdatasync wait for (T24), told by the commit blocks that they make.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use block_io::{Device, Event, EventFd, ImmediateQueue, Recorder, RecordingDevice};
use ext4::aio::FileId;
use ext4::{FallocateMode, XattrSet};
use ext4_format::Timestamp;
use ext4_sim::crash::judge::{TestClock, mount_options};
use ext4_sim::crowd::Crowd;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::runner::{Runner, format};

const BLOCK: u64 = 4096;
const KEEP_SIZE: u32 = FallocateMode::KEEP_SIZE;
const PUNCH_HOLE: u32 = FallocateMode::PUNCH_HOLE;

struct Volume {
    runner: Runner,
    recorder: Recorder,
    clock: Arc<TestClock>,
    /// 16 written blocks, a hole of 16, 16 unwritten blocks.
    file: FileId,
    _dir: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 32 << 20, |options| {
            options.block_size = Some(BLOCK as u32);
            options.inodes_count = Some(6144);
        });
        let inner: Arc<dyn Device> = Arc::new(MemoryDevice::new(std::fs::read(image).unwrap()));
        let recorder = Recorder::new();
        let device: Arc<dyn Device> = Arc::new(RecordingDevice::new(inner, recorder.clone(), 0));
        let (clock, event) = (Arc::new(TestClock::default()), Arc::new(EventFd::new().unwrap()));
        let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
        let mut runner = Runner::with_options(device, queue, event, &mount_options(clock.clone())).unwrap();
        let file = runner.create("/file").unwrap();
        runner.direct_write(file, 0, &vec![1; 16 * BLOCK as usize]).unwrap();
        let inode = runner.inode(file);
        runner.fs().truncate(&inode, 48 * BLOCK).unwrap();
        let keep_size = FallocateMode::from_bits(KEEP_SIZE).unwrap();
        runner.fs().fallocate(&inode, keep_size, 32 * BLOCK, 16 * BLOCK).unwrap();
        runner.mkdir("/dir").unwrap();
        runner.touch("/other").unwrap();
        runner.fs().sync().unwrap();
        Self { runner, recorder, clock, file, _dir: dir }
    }

    /// Whether there was a commit since the last call: its block is the one FUA write.
    fn committed(&self) -> bool {
        let is_commit = |event: &Event| matches!(event, Event::WriteSubmitted { fua: true, .. });
        self.recorder.take().iter().any(is_commit)
    }
}

type Work = fn(&mut Volume);

fn write(volume: &mut Volume, block: u64) {
    volume.runner.direct_write(volume.file, block * BLOCK, &vec![7; BLOCK as usize]).unwrap();
}

fn buffered(volume: &mut Volume, pos: u64) {
    let inode = volume.runner.inode(volume.file);
    volume.runner.fs().file_modified(&inode).unwrap();
    volume.runner.fs().buffered_write(&inode, pos, b"buffered").unwrap();
}

fn fallocate(volume: &mut Volume, bits: u32, block: u64) {
    let inode = volume.runner.inode(volume.file);
    volume
        .runner
        .fs()
        .fallocate(&inode, FallocateMode::from_bits(bits).unwrap(), block * BLOCK, BLOCK)
        .unwrap();
}

fn truncate(volume: &mut Volume, size: u64) {
    let inode = volume.runner.inode(volume.file);
    volume.runner.fs().truncate(&inode, size).unwrap();
}

/// An operation; whether fdatasync commits after it; whether fsync then commits too.
const TABLE: &[(&str, Work, bool, bool)] = &[
    ("nothing", |_| (), false, false),
    ("direct overwrite: the time alone", |v| write(v, 1), false, true),
    ("buffered overwrite: the time alone", |v| buffered(v, 100), false, true),
    ("direct append", |v| write(v, 48), true, false),
    ("buffered append", |v| buffered(v, 48 * BLOCK), true, false),
    ("direct write into a hole", |v| write(v, 20), true, false),
    ("buffered write into a hole", |v| buffered(v, 20 * BLOCK), true, false),
    ("direct write into unwritten blocks", |v| write(v, 40), true, false),
    ("buffered write into unwritten blocks", |v| buffered(v, 40 * BLOCK), true, false),
    ("truncate, shorter", |v| truncate(v, 3 * BLOCK + 5), true, false),
    ("truncate, longer", |v| truncate(v, 100 * BLOCK), true, false),
    ("fallocate, keeping the size", |v| fallocate(v, KEEP_SIZE, 60), true, false),
    ("punch a hole", |v| fallocate(v, PUNCH_HOLE | KEEP_SIZE, 3), true, false),
    ("chmod", |v| v.runner.fs().chmod(&v.runner.inode(v.file), 0o600).unwrap(), false, true),
    ("chown", |v| v.runner.fs().chown(&v.runner.inode(v.file), Some(5), None).unwrap(), false, true),
    (
        "utimes",
        |v| {
            let time = Timestamp { sec: 5, nsec: 6 };
            v.runner.fs().set_times(&v.runner.inode(v.file), time, time).unwrap();
        },
        false,
        true,
    ),
    (
        "setxattr",
        |v| v.runner.fs().setxattr(&v.runner.inode(v.file), b"user.a", b"b", XattrSet::Either).unwrap(),
        false,
        true,
    ),
    ("rename", |v| v.runner.fs().rename(b"/file", b"/dir/file").unwrap(), false, true),
    ("link", |v| v.runner.fs().link(b"/file", b"/dir/link").unwrap(), false, true),
    ("unlink of its only name", |v| v.runner.fs().unlink(b"/file").unwrap(), false, true),
    ("another file's append", another_file, false, false),
    ("a new file", |v| v.file = v.runner.create("/new").unwrap(), true, false),
    ("its directory, that got a name", |v| v.file = directory(v), false, true),
];

fn another_file(volume: &mut Volume) {
    let other = volume.runner.open("/other").unwrap();
    volume.runner.direct_write(other, 0, &vec![7; BLOCK as usize]).unwrap();
    volume.runner.close(other).unwrap();
}

fn directory(volume: &mut Volume) -> FileId {
    volume.runner.touch("/dir/name").unwrap();
    volume.runner.open("/dir").unwrap()
}

/// X19.
#[test]
fn what_each_operation_has_to_wait_for() {
    for (name, work, datasync, sync) in TABLE {
        let mut volume = Volume::new();
        volume.clock.0.fetch_add(10_000_000, Ordering::Relaxed);
        volume.committed();
        work(&mut volume);
        assert!(!volume.committed(), "{name}: nothing commits by itself");
        volume.runner.sync_with(volume.file, true).unwrap();
        assert_eq!(volume.committed(), *datasync, "{name}: fdatasync");
        volume.runner.sync_with(volume.file, false).unwrap();
        assert_eq!(volume.committed(), *sync, "{name}: fsync after it");
        volume.runner.sync_with(volume.file, false).unwrap();
        assert!(!volume.committed(), "{name}: once is enough");
        volume.runner.unmount().unwrap();
    }
}

/// X15. T14, T24: an idle volume writes nothing; syncfs flushes once.
#[test]
fn an_idle_volume() {
    let volume = Volume::new();
    drop(volume.recorder.take());
    for _ in 0..5 {
        volume.clock.0.fetch_add(3_600_000_000, Ordering::Relaxed);
        volume.runner.fs().tick();
    }
    assert!(volume.recorder.take().is_empty());
    volume.runner.fs().sync().unwrap();
    let events = volume.recorder.take();
    assert!(matches!(events[..], [Event::FlushSubmitted { .. }, Event::Completed { .. }]), "{events:?}");
}

/// An inode left memory with its last change still in the running transaction; read anew it knew of none, so fsync returned at
/// once, and a power cut then took the change that it had promised.
#[test]
fn a_pending_change_of_an_inode_that_left_memory() {
    let mut volume = Volume::new();
    let crowd = Crowd::new(volume.runner.fs()).unwrap();
    for datasync in [false, true] {
        for (name, work) in [("append", (|v| write(v, 48)) as Work), ("truncate", |v| truncate(v, 5 * BLOCK))]
        {
            work(&mut volume);
            volume.committed();
            let inode = Arc::downgrade(&volume.runner.inode(volume.file));
            volume.runner.close(volume.file).unwrap();
            crowd.push_out(&inode);
            assert!(!volume.committed(), "{name}: it was to stay pending");
            volume.file = volume.runner.open("/file").unwrap();
            volume.runner.sync_with(volume.file, datasync).unwrap();
            assert!(volume.committed(), "{name}, datasync {datasync}: its change is not durable");
        }
    }
    volume.runner.unmount().unwrap();
}
