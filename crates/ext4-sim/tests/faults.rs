//! A device that fails at the n-th write or flush, once or from then on: no lie to the caller, no half operation in the
//! log, and a volume that the next mount repairs.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use block_io::{Device, Error, Limits};
use ext4::{Fs, MountOptions, NewInode, Result};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::format;

const EIO: i32 = 5;
const EROFS: i32 = 30;

/// Fails when the countdown of writes and flushes ends.
struct FailingDevice {
    inner: MemoryDevice,
    left: AtomicI64,
    for_ever: bool,
    failed: AtomicBool,
}

impl FailingDevice {
    fn count(&self, operation: &'static str, offset: u64) -> block_io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 || self.for_ever && left < 0 {
            self.failed.store(true, Ordering::SeqCst);
            return Err(Error::at(operation, offset, EIO));
        }
        Ok(())
    }
}

impl Device for FailingDevice {
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> block_io::Result<()> {
        self.inner.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> block_io::Result<()> {
        self.count("write", offset_bytes)?;
        self.inner.write(offset_bytes, buf, fua)
    }

    fn flush(&self) -> block_io::Result<()> {
        self.count("flush", 0)?;
        self.inner.flush()
    }

    fn discard(&self, _offset_bytes: u64, _len_bytes: u64) -> block_io::Result<()> {
        Ok(())
    }
}

/// What was promised: contents of files that an fsync said are durable.
#[derive(Default)]
struct Promised {
    files: BTreeMap<String, Vec<u8>>,
}

fn write_synced(fs: &Arc<Fs>, path: &str, data: &[u8]) -> Result<()> {
    let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
    let (inode, _) = fs.create(path.as_bytes(), new, false)?;
    let done = fs.buffered_write(&inode, 0, data).and_then(|taken| {
        if taken == data.len() { fs.fsync(&inode, false) } else { Err(ext4::Error::errno_only(EIO)) }
    });
    let closed = fs.release(&inode);
    done.and(closed)
}

/// Goes on after errors, as a program may; after an aborted journal everything is refused.
fn work(fs: &Arc<Fs>, promised: &mut Promised, errors: &mut Vec<i32>) {
    let mut note = |result: Result<()>| match result {
        Ok(()) => true,
        Err(error) => {
            errors.push(error.errno());
            false
        }
    };
    let dir = NewInode { mode: 0o755, uid: 0, gid: 0 };
    for index in 0..12u32 {
        note(fs.mkdir(format!("/d{index}").as_bytes(), dir).map(|_| ()));
        let (path, data) = (format!("/d{index}/file"), pattern::bytes(index, 20_000 + index as usize));
        if note(write_synced(fs, &path, &data)) {
            promised.files.insert(path, data);
        }
        if index % 3 == 2 {
            let path = format!("/d{}/file", index - 2);
            // From the call on nothing is promised of it.
            promised.files.remove(&path);
            note(fs.unlink(path.as_bytes()));
            note(fs.rmdir(format!("/d{}", index - 2).as_bytes()));
        }
        if index % 4 == 3 {
            let path = format!("/d{}/file", index - 1);
            if let Ok(inode) = fs.open(path.as_bytes(), true) {
                promised.files.remove(&path);
                note(fs.truncate(&inode, 5000));
                note(fs.release(&inode));
            }
            note(fs.sync());
        }
    }
}

fn fail_at(base: &[u8], nth: i64, for_ever: bool, image: &std::path::Path) -> bool {
    let device = Arc::new(FailingDevice {
        inner: MemoryDevice::new(base.to_vec()),
        left: AtomicI64::new(nth),
        for_ever,
        failed: AtomicBool::new(false),
    });
    let (mut promised, mut errors) = (Promised::default(), Vec::new());
    if let Ok((fs, _)) = Fs::mount(device.clone(), &MountOptions::default()) {
        work(&fs, &mut promised, &mut errors);
        if let Err(error) = fs.unmount() {
            errors.push(error.errno());
        }
    } else {
        errors.push(EIO);
    }
    let failed = device.failed.load(Ordering::SeqCst);
    assert!(failed || errors.is_empty(), "errors without a cause: {errors:?}");
    assert!(!failed || !errors.is_empty(), "write {nth} failed, and nobody was told");
    // What follows from a lost write: ENOENT, EEXIST, ENOTEMPTY of names that were not made or removed.
    let expected = |errno: &i32| [EIO, EROFS, 2, 17, 39].contains(errno);
    assert!(errors.iter().all(expected), "{errors:?}");

    let what = format!("failure at {nth}, for ever: {for_ever}");
    let device = Arc::new(MemoryDevice::new(device.inner.snapshot()));
    let (fs, _) =
        Fs::mount(device.clone(), &MountOptions::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (path, data) in &promised.files {
        let inode =
            fs.lookup(path.as_bytes(), true).unwrap_or_else(|error| panic!("{what}: {path}: {error}"));
        let mut found = vec![0; data.len() + 1];
        let read = fs.buffered_read(&inode, 0, &mut found).unwrap();
        assert!(found[..read] == data[..], "{what}: {path}");
    }
    // R15: the abort is remembered, unless even that could not be written.
    if !for_ever && errors.contains(&EROFS) {
        assert!(fs.superblock().state & ext4_format::superblock::state::ERROR != 0, "{what}");
    }
    fs.unmount().unwrap();
    if available(Need::E2fsprogs, "faults") {
        fs::write(image, device.snapshot()).unwrap();
        assert_clean(image);
    }
    failed
}

/// X50.
#[test]
fn a_failure_at_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 8 << 20, |options| options.block_size = Some(1024));
    if available(Need::E2fsprogs, "faults") {
        assert_clean(&image);
    }
    let base = fs::read(&image).unwrap();
    let copy = dir.path().join("copy");
    for for_ever in [false, true] {
        let mut nth = 0;
        while fail_at(&base, nth, for_ever, &copy) {
            nth += 1;
        }
        assert!(nth > 50, "only {nth} writes");
    }
}
