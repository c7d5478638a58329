//! X50: a device that fails at the n-th read, write or flush, once or from then on (CM12): no panic and no hang, no lie to
//! the caller, no half operation in the log, and a volume that the next mount repairs.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use block_io::{EventFd, Fault, FaultDevice, FaultOn, ImmediateQueue};
use ext4::{Fs, MountOptions, NewInode, Result};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Runner, format};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What was promised: contents of files that an fsync said are durable; and what calls said.
#[derive(Default)]
struct Told {
    files: BTreeMap<String, Vec<u8>>,
    errors: Vec<i32>,
    /// Syncs that succeeded after the first error of one.
    lies: usize,
    sync_failed: bool,
}

impl Told {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push(error.errno())).ok()
    }

    /// Once the journal is aborted, no sync may succeed.
    fn note_sync(&mut self, result: Result<()>) -> bool {
        self.lies += usize::from(self.sync_failed && result.is_ok());
        self.sync_failed |= result.is_err();
        self.note(result).is_some()
    }
}

fn write_synced(fs: &Arc<Fs>, told: &mut Told, path: &str, data: &[u8]) {
    let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
    let Some((inode, _)) = told.note(fs.create(path.as_bytes(), new, false)) else { return };
    let taken = told.note(fs.buffered_write(&inode, 0, data));
    if taken == Some(data.len()) && told.note_sync(fs.fsync(&inode, false)) {
        told.files.insert(path.into(), data.to_vec());
    }
    told.note(fs.release(&inode));
}

/// Names and buffered data. Goes on after errors, as a program may; after an aborted journal everything is refused.
fn names_and_buffered(volume: &mut Runner, told: &mut Told) {
    let fs = volume.fs().clone();
    let dir = NewInode { mode: 0o755, uid: 0, gid: 0 };
    for index in 0..9u32 {
        told.note(fs.mkdir(format!("/d{index}").as_bytes(), dir));
        let (path, data) = (format!("/d{index}/file"), pattern::bytes(index, 20_000 + index as usize));
        write_synced(&fs, told, &path, &data);
        if index % 3 == 2 {
            let path = format!("/d{}/file", index - 2);
            // From the call on nothing is promised of it.
            told.files.remove(&path);
            told.note(fs.unlink(path.as_bytes()));
            told.note(fs.rmdir(format!("/d{}", index - 2).as_bytes()));
        }
        if index % 4 == 3 {
            let path = format!("/d{}/file", index - 1);
            if let Ok(inode) = fs.open(path.as_bytes(), true) {
                told.files.remove(&path);
                told.note(fs.truncate(&inode, 5000));
                told.note(fs.release(&inode));
            }
            let synced = fs.sync();
            told.note_sync(synced);
        }
    }
}

/// Appends, overwrites and holes by direct I/O; renames over a file.
fn direct(volume: &mut Runner, told: &mut Told) {
    let Some(file) = told.note(volume.create("/log")) else { return };
    let mut data = Vec::new();
    for index in 0..8u32 {
        let (pos, len) = if index % 4 == 3 { (4096, 8192) } else { (data.len(), 8192) };
        let bytes = pattern::bytes(index, len);
        // Until the next sync a failed write may be there in part.
        told.files.remove("/log");
        let dsync = index % 3 == 1;
        let written = volume.direct_write_with(file, pos as u64, &bytes, dsync);
        if dsync {
            told.note_sync(written.as_ref().map(|_| ()).map_err(Clone::clone));
        } else if let Err(error) = &written {
            told.errors.push(error.errno());
        }
        if written.is_err() {
            break;
        }
        data.resize(data.len().max(pos + len), 0);
        data[pos..pos + len].copy_from_slice(&bytes);
        let synced = volume.sync_with(file, index % 2 == 0);
        if told.note_sync(synced) {
            told.files.insert("/log".into(), data.clone());
        }
    }
    let closed = volume.close(file);
    told.note(closed);
    let fs = volume.fs().clone();
    for index in 0..3 {
        write_synced(&fs, told, "/new", &pattern::bytes(100 + index, 5000));
        let Some(new) = told.files.remove("/new") else { continue };
        told.files.remove("/current");
        let renamed = fs.rename(b"/new", b"/current");
        if told.note(renamed).is_some() && told.note_sync(fs.sync()) {
            told.files.insert("/current".into(), new);
        }
    }
}

type Work = fn(&mut Runner, &mut Told);

/// Runs `work` on a failing device; whether the fault came.
fn fail(base: &[u8], fault: Fault, work: Work, image: &Path) -> bool {
    let memory = Arc::new(MemoryDevice::new(base.to_vec()));
    let device = Arc::new(FaultDevice::new(memory.clone()));
    device.inject(fault);
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    let mut told = Told::default();
    match Runner::over(device.clone(), queue, event) {
        Ok(mut volume) => {
            work(&mut volume, &mut told);
            let unmounted = volume.unmount();
            told.note_sync(unmounted);
        }
        Err(error) => told.errors.push(error.errno()),
    }
    let counts = device.counts();
    let failed = fault.nth
        <= match fault.on {
            FaultOn::Read => counts.reads,
            FaultOn::Write => counts.writes,
            FaultOn::Flush => counts.flushes,
        };
    let what = format!("{fault:?}: {:?}", told.errors);
    assert!(failed || told.errors.is_empty(), "errors without a cause: {what}");
    assert!(!failed || !told.errors.is_empty(), "nobody was told: {what}");
    // What follows from a lost write: ENOENT, EEXIST, ENOTEMPTY of names that were not made or removed.
    let expected = |errno: &i32| [fault.errno, EIO, EROFS, 2, 17, 39].contains(errno);
    assert!(told.errors.iter().all(expected), "{what}");
    assert!(failed || told.lies == 0, "{what}");
    if failed && fault.on == FaultOn::Flush {
        assert_eq!((counts.flushes, told.lies), (fault.nth, 0), "the first failed flush is the last: {what}");
    }
    check(&memory.snapshot(), &told, &what, image);
    failed
}

/// The device works again: what was promised is there, and nothing else is wrong.
fn check(bytes: &[u8], told: &Told, what: &str, image: &Path) {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    let (fs, _) =
        Fs::mount(device.clone(), &MountOptions::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (path, data) in &told.files {
        let inode =
            fs.lookup(path.as_bytes(), true).unwrap_or_else(|error| panic!("{what}: {path}: {error}"));
        let mut found = vec![0; data.len() + 1];
        let read = fs.buffered_read(&inode, 0, &mut found).unwrap();
        assert!(found[..read] == data[..], "{what}: {path}");
    }
    fs.unmount().unwrap();
    if available(Need::E2fsprogs, "faults") {
        fs::write(image, device.snapshot()).unwrap();
        assert_clean(image);
    }
}

fn volume(dir: &Path) -> Vec<u8> {
    let image = dir.join("image");
    format(&image, 8 << 20, |options| options.block_size = Some(1024));
    fs::read(&image).unwrap()
}

/// Every n until none fails; at least `least` of them.
fn sweep(work: Work, on: FaultOn, errno: i32, half_written: bool, least: u64) {
    let dir = tempfile::tempdir().unwrap();
    let base = volume(dir.path());
    let copy = dir.path().join("copy");
    for from_then_on in [false, true] {
        let fault = |nth| Fault { on, nth, from_then_on, errno, half_written };
        let mut nth = 1;
        while fail(&base, fault(nth), work, &copy) {
            nth += 1;
        }
        assert!(nth > least, "only {nth} of {on:?}");
    }
}

/// X50.
#[test]
fn x50_a_failure_at_every_write() {
    sweep(names_and_buffered, FaultOn::Write, EIO, false, 40);
    sweep(direct, FaultOn::Write, EIO, false, 40);
}

/// CM12: half of the write is there; a container's host may also have no space left.
#[test]
fn x50_a_short_write_and_a_full_host() {
    sweep(names_and_buffered, FaultOn::Write, EIO, true, 40);
    sweep(direct, FaultOn::Write, ENOSPC, true, 40);
}

#[test]
fn x50_a_failure_at_every_flush() {
    sweep(names_and_buffered, FaultOn::Flush, EIO, false, 10);
    sweep(direct, FaultOn::Flush, EIO, false, 10);
}

#[test]
fn x50_a_failure_at_every_read() {
    sweep(names_and_buffered, FaultOn::Read, EIO, false, 10);
    sweep(direct, FaultOn::Read, EIO, false, 10);
}
