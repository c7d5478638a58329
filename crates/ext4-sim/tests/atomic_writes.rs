//! Atomic writes (C24, E55, E56): wherever the power goes, a file has all of one or nothing; what is written there directly
//! afterwards stays.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::sync::{Arc, OnceLock};

use block_io::{
    AlignedBuf, Device, Event, EventFd, Fault, FaultDevice, FaultOn, ImmediateQueue, Memory, Recorder,
    RecordingDevice,
};
use ext4::aio::{DirectWrite, FileId, LockMode};
use ext4::{FallocateMode, Result};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Runner, format};

const BLOCK: u64 = 1024;
const LEN: u64 = 16 * BLOCK;

fn mount(device: Arc<dyn Device>) -> Runner {
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    Runner::over(device, queue, event).unwrap()
}

fn empty() -> &'static Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 16 << 20, |options| {
            options.block_size = Some(BLOCK as u32);
            options.journal_blocks = Some(1024);
        });
        fs::read(&image).unwrap()
    })
}

fn judge(bytes: &[u8]) {
    if available(Need::E2fsprogs, "atomic_writes") {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, bytes).unwrap();
        assert_clean(&image);
    }
}

fn submit(volume: &mut Runner, file: FileId, lock: LockMode, pos: u64, data: &[u8]) -> Result<u64> {
    let op = volume.op();
    let memory = Memory::Owned(AlignedBuf::copy_of(data));
    let write = DirectWrite { op, file, lock, dsync: false, nowait: false, atomic: true, pos, memory };
    volume.engine().direct_write(write);
    let finished = volume.wait(op);
    assert!(finished.memory.is_some(), "the memory comes back");
    finished.result
}

/// What lies under the write: a file made by the calls of `prepare`, and synced.
type Prepare = fn(&mut Runner, FileId);
const GROUNDS: [(&str, Prepare); 6] = [
    ("nothing", |_, _| {}),
    ("written", |volume, file| {
        volume.direct_write(file, 0, &pattern::bytes(1, 3 * LEN as usize)).unwrap();
    }),
    ("unwritten", |volume, file| {
        let inode = volume.inode(file);
        volume.fs().fallocate(&inode, FallocateMode::Allocate { keep_size: false }, 0, 3 * LEN).unwrap();
    }),
    ("pieces", |volume, file| {
        let inode = volume.inode(file);
        let fs = volume.fs().clone();
        fs.fallocate(&inode, FallocateMode::Allocate { keep_size: false }, 0, 3 * LEN).unwrap();
        for block in (0..3 * LEN / BLOCK).step_by(3) {
            volume.direct_write(file, block * BLOCK, &pattern::bytes(2, BLOCK as usize)).unwrap();
            fs.fallocate(&inode, FallocateMode::PunchHole, (block + 1) * BLOCK, BLOCK).unwrap();
        }
    }),
    ("the end", |volume, file| {
        volume.direct_write(file, 0, &pattern::bytes(3, (LEN + LEN / 2) as usize)).unwrap();
        let inode = volume.inode(file);
        volume.fs().fallocate(&inode, FallocateMode::Allocate { keep_size: true }, 0, 3 * LEN).unwrap();
    }),
    ("a short end", |volume, file| {
        let inode = volume.inode(file);
        volume.fs().buffered_write(&inode, 0, &pattern::bytes(4, 700)).unwrap();
    }),
];

/// The device after every write and every flush of a recording; and, as the worst that a cache may do, without whatever no
/// flush followed.
fn states(base: &[u8], events: &[Event]) -> Vec<Vec<u8>> {
    let (mut now, mut durable) = (base.to_vec(), base.to_vec());
    let mut states = Vec::new();
    for event in events {
        match event {
            Event::WriteSubmitted { offset_bytes, bytes, fua, .. } => {
                let range = *offset_bytes as usize..*offset_bytes as usize + bytes.len();
                now[range.clone()].copy_from_slice(bytes);
                states.push(now.clone());
                if *fua {
                    durable[range].copy_from_slice(bytes);
                    states.push(durable.clone());
                }
            }
            Event::FlushSubmitted { .. } => durable.clone_from(&now),
            _ => {}
        }
    }
    states
}

fn contents(state: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let device = Arc::new(MemoryDevice::new(state));
    let volume = mount(device.clone());
    let data = volume.read_file("/file").unwrap();
    volume.unmount().unwrap();
    (data, device.snapshot())
}

#[test]
fn e56_all_or_nothing_whatever_is_under_it() {
    for (name, prepare) in GROUNDS {
        let device = Arc::new(MemoryDevice::new(empty().clone()));
        let recorder = Recorder::new();
        let mut volume = mount(Arc::new(RecordingDevice::new(device.clone(), recorder.clone(), 0)));
        let file = volume.create("/file").unwrap();
        prepare(&mut volume, file);
        volume.fs().sync().unwrap();
        let old = volume.read_file("/file").unwrap();
        let (base, _earlier) = (device.snapshot(), recorder.take());
        let data = pattern::bytes(9, LEN as usize);
        assert_eq!(volume.atomic_write(file, LEN, &data).unwrap(), LEN, "{name}");
        let written = recorder.take();
        let mut new = old.clone();
        new.resize(old.len().max(2 * LEN as usize), 0);
        new[LEN as usize..2 * LEN as usize].copy_from_slice(&data);
        assert!(volume.read_file("/file").unwrap() == new, "{name}");
        assert!(volume.direct_read(file, 0, new.len()).unwrap() == new, "{name}: directly");
        volume.crash();
        // It had reported: the worst cache has it too.
        let after = states(&base, &written);
        assert!(contents(after.last().unwrap().clone()).0 == new, "{name}");
        let step = (after.len() / 12).max(1);
        for (index, state) in after.into_iter().enumerate().step_by(step) {
            let (found, repaired) = contents(state);
            assert!(found == old || found == new, "{name}: neither, after write {index}");
            judge(&repaired);
        }
    }
}

/// T9, E49: the log must not put an atomic write back over what was written directly later; nor over a file that got its
/// blocks.
#[test]
fn direct_data_over_an_atomic_write_stays() {
    type Later = fn(&mut Runner, FileId) -> Vec<u8>;
    let cases: [(&str, Later); 4] = [
        ("overwritten", |volume, file| {
            let data = pattern::bytes(20, LEN as usize);
            volume.direct_write_with(file, 0, &data, true).unwrap();
            data
        }),
        ("buffered", |volume, file| {
            let data = pattern::bytes(21, LEN as usize);
            let inode = volume.inode(file);
            volume.fs().buffered_write(&inode, 0, &data).unwrap();
            volume.sync(file).unwrap();
            data
        }),
        ("freed and used again", |volume, file| {
            let inode = volume.inode(file);
            volume.fs().truncate(&inode, 0).unwrap();
            volume.sync(file).unwrap();
            let data = pattern::bytes(22, LEN as usize);
            volume.direct_write_with(file, 0, &data, true).unwrap();
            data
        }),
        ("zeroed", |volume, file| {
            let inode = volume.inode(file);
            let zero = FallocateMode::ZeroRange { keep_size: false };
            volume.fs().fallocate(&inode, zero, 0, LEN).unwrap();
            volume.sync(file).unwrap();
            vec![0; LEN as usize]
        }),
    ];
    for (name, later) in cases {
        let device = Arc::new(MemoryDevice::new(empty().clone()));
        let mut volume = mount(device.clone());
        let file = volume.create("/file").unwrap();
        for seed in 10..13 {
            volume.atomic_write(file, 0, &pattern::bytes(seed, LEN as usize)).unwrap();
        }
        let expected = later(&mut volume, file);
        let state = device.snapshot();
        volume.crash();
        let (found, repaired) = contents(state);
        assert!(found == expected, "{name}");
        judge(&repaired);
    }
}

#[test]
fn limits_and_refusals() {
    let device = Arc::new(MemoryDevice::new(empty().clone()));
    let mut volume = mount(device.clone());
    let file = volume.create("/file").unwrap();
    let (min, max) = volume.fs().atomic_write_units();
    assert_eq!(min, BLOCK);
    assert!(max.is_power_of_two() && max >= 64 * BLOCK, "{max}");
    let inode = volume.inode(file);
    let direct = volume.fs().stat(&inode).direct;
    assert_eq!((direct.atomic_min, direct.atomic_max), (min, max));
    assert_eq!((direct.offset_align, direct.memory_align), (512, 1));
    let dir = volume.mkdir("/dir").unwrap();
    assert_eq!(volume.fs().stat(&dir).direct, ext4::DirectLimits::default());

    let mut write = |pos, len: u64| {
        let data = pattern::bytes(5, len as usize);
        volume.atomic_write(file, pos, &data).map_err(|error| error.errno())
    };
    assert_eq!(write(0, max), Ok(max));
    assert_eq!(write(0, min), Ok(min));
    for (pos, len) in [(0, 512), (0, 3 * BLOCK), (0, 2 * max), (BLOCK, 2 * BLOCK), (512, BLOCK)] {
        assert_eq!(write(pos, len), Err(22), "{len} bytes at {pos}");
    }
    // Their lock is exclusive: the policy is told so.
    let data = pattern::bytes(6, LEN as usize);
    let shared = submit(&mut volume, file, LockMode::Shared, 0, &data);
    assert_eq!(shared.unwrap_err().errno(), 11);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    judge(&device.snapshot());
}

#[test]
fn a_full_volume_and_a_failing_device_change_nothing() {
    // Full.
    let device = Arc::new(MemoryDevice::new(empty().clone()));
    let mut volume = mount(device.clone());
    let (file, rest) = (volume.create("/file").unwrap(), volume.create("/rest").unwrap());
    volume.direct_write(file, 0, &pattern::bytes(1, LEN as usize)).unwrap();
    let inode = volume.inode(rest);
    let keep = FallocateMode::Allocate { keep_size: true };
    assert_eq!(volume.fs().fallocate(&inode, keep, 0, 64 << 20).unwrap_err().errno(), 28);
    let data = pattern::bytes(2, LEN as usize);
    assert_eq!(volume.atomic_write(file, 4 * LEN, &data).unwrap_err().errno(), 28);
    assert_eq!(volume.inode(file).size(), LEN);
    assert_eq!(volume.atomic_write(file, 0, &data).unwrap(), LEN, "where it has its blocks");
    volume.close(file).unwrap();
    volume.close(rest).unwrap();
    drop(inode);
    volume.unmount().unwrap();
    judge(&device.snapshot());

    // Failing at every write or flush on the way.
    for nth in 1.. {
        let device = Arc::new(MemoryDevice::new(empty().clone()));
        let faults = Arc::new(FaultDevice::new(device.clone()));
        let mut volume = mount(faults.clone());
        let file = volume.create("/file").unwrap();
        let old = pattern::bytes(1, 2 * LEN as usize);
        volume.direct_write(file, 0, &old).unwrap();
        volume.fs().sync().unwrap();
        let done = faults.counts();
        for (on, before) in [(FaultOn::Write, done.writes), (FaultOn::Flush, done.flushes)] {
            let fault = Fault { on, nth: before + nth, from_then_on: false, errno: 5, half_written: true };
            faults.inject(fault);
        }
        let written = volume.atomic_write(file, LEN, &data);
        volume.crash();
        let (found, repaired) = contents(device.snapshot());
        let mut new = old.clone();
        new[LEN as usize..].copy_from_slice(&data);
        match &written {
            Ok(_) => assert!(found == new, "request {nth}"),
            Err(error) => {
                assert!([5, 30].contains(&error.errno()), "request {nth}: {error}");
                assert!(found == old || found == new, "request {nth}: torn");
            }
        }
        judge(&repaired);
        if written.is_ok() {
            break;
        }
    }
}

/// E55: contiguous extents that lie in several leaves are one write.
#[test]
fn e55_across_leaves() {
    let device = Arc::new(MemoryDevice::new(empty().clone()));
    let mut volume = mount(device.clone());
    let file = volume.create("/file").unwrap();
    let inode = volume.inode(file);
    let fs = volume.fs().clone();
    let blocks = 600;
    fs.fallocate(&inode, FallocateMode::Allocate { keep_size: false }, 0, blocks * BLOCK).unwrap();
    for block in (0..blocks).step_by(2) {
        volume.direct_write(file, block * BLOCK, &pattern::bytes(3, BLOCK as usize)).unwrap();
    }
    assert!(fs.extents(&inode, 0, u64::MAX, 1000).unwrap().len() as u64 == blocks);
    let data = pattern::bytes(4, 64 * BLOCK as usize);
    for pos in (0..512 * BLOCK).step_by(64 * BLOCK as usize) {
        volume.atomic_write(file, pos, &data).unwrap();
    }
    let state = device.snapshot();
    drop(inode);
    volume.crash();
    let (found, repaired) = contents(state);
    assert!(found[..512 * BLOCK as usize].chunks(data.len()).all(|part| part == data));
    judge(&repaired);
}
