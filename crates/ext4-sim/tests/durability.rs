//! docs/durability.md, sentence by sentence, on a device whose cache forgets everything that was not flushed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use block_io::sync::Mutex;
use block_io::{Device, EventFd, ImmediateQueue, Limits};
use ext4::Result;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Runner, format};

const SECTOR: usize = 512;

/// Writes are in a cache until a flush, or FUA. A power cut leaves what is below the cache: the worst that a device may do.
struct Cached {
    durable: MemoryDevice,
    cache: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Device for Cached {
    fn limits(&self) -> &Limits {
        self.durable.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> block_io::Result<()> {
        self.durable.read(offset_bytes, buf)?;
        let cache = self.cache.lock();
        for (at, part) in (offset_bytes..).step_by(SECTOR).zip(buf.chunks_mut(SECTOR)) {
            if let Some(bytes) = cache.get(&at) {
                part.copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> block_io::Result<()> {
        let mut cache = self.cache.lock();
        for (at, part) in (offset_bytes..).step_by(SECTOR).zip(buf.chunks(SECTOR)) {
            match fua {
                true => drop(cache.remove(&at)),
                false => drop(cache.insert(at, part.to_vec())),
            }
        }
        if fua { self.durable.write(offset_bytes, buf, true) } else { Ok(()) }
    }

    fn flush(&self) -> block_io::Result<()> {
        for (at, bytes) in std::mem::take(&mut *self.cache.lock()) {
            self.durable.write(at, &bytes, false)?;
        }
        Ok(())
    }

    fn discard(&self, _offset_bytes: u64, _len_bytes: u64) -> block_io::Result<()> {
        Ok(())
    }
}

fn mount(device: Arc<dyn Device>) -> Runner {
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    Runner::over(device, queue, event).unwrap()
}

/// Runs `work` on a volume that has a durable file /old of 64 KiB, cuts the power, and shows what is left; e2fsck judges.
fn cut(work: impl FnOnce(&mut Runner), left: impl FnOnce(&mut Runner)) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |options| options.block_size = Some(4096));
    let durable = MemoryDevice::new(fs::read(&image).unwrap());
    let device = Arc::new(Cached { durable, cache: Mutex::default() });
    let mut volume = mount(device.clone());
    let file = volume.create("/old").unwrap();
    volume.direct_write(file, 0, &old()).unwrap();
    volume.sync(file).unwrap();
    work(&mut volume);
    let after = device.durable.snapshot();
    volume.crash();

    let device = Arc::new(MemoryDevice::new(after));
    let mut volume = mount(device.clone());
    left(&mut volume);
    volume.unmount().unwrap();
    judge(&image, &device.snapshot());
}

fn judge(image: &Path, bytes: &[u8]) {
    if available(Need::E2fsprogs, "durability") {
        fs::write(image, bytes).unwrap();
        assert_clean(image);
    }
}

fn old() -> Vec<u8> {
    pattern::bytes(1, 65536)
}

fn new() -> Vec<u8> {
    pattern::bytes(2, 65536)
}

fn names(volume: &Runner) -> Vec<String> {
    volume.names("/").unwrap().into_iter().filter(|name| name != "lost+found").collect()
}

fn read(volume: &Runner, path: &str) -> Result<Vec<u8>> {
    volume.read_file(path)
}

#[test]
fn a_write_alone_promises_nothing() {
    cut(
        |volume| {
            let file = volume.open("/old").unwrap();
            volume.direct_write(file, 0, &new()).unwrap();
            volume.write_file("/direct", &new()).unwrap();
            volume.write_file_buffered("/buffered", &new()).unwrap();
            volume.mkdir("/dir").unwrap();
        },
        |volume| {
            assert_eq!(names(volume), ["old"]);
            assert!(read(volume, "/old").unwrap() == old());
        },
    );
}

/// E17.
#[test]
fn a_write_with_o_dsync_is_durable_with_its_size() {
    cut(
        |volume| {
            let file = volume.open("/old").unwrap();
            volume.direct_write_with(file, 0, &new(), true).unwrap();
            volume.direct_write_with(file, 65536, &new(), true).unwrap();
        },
        |volume| assert!(read(volume, "/old").unwrap() == [new(), new()].concat()),
    );
}

#[test]
fn datasync_makes_all_writes_of_the_file_durable_with_their_size() {
    cut(
        |volume| {
            let file = volume.open("/old").unwrap();
            volume.direct_write(file, 65536, &new()).unwrap();
            volume.fs().buffered_write(&volume.inode(file), 2 * 65536, &old()).unwrap();
            volume.sync_with(file, true).unwrap();
        },
        |volume| assert!(read(volume, "/old").unwrap() == [old(), new(), old()].concat()),
    );
}

#[test]
fn sync_makes_a_new_file_durable_with_its_name_and_its_directories() {
    cut(
        |volume| {
            volume.mkdir("/a").unwrap();
            volume.mkdir("/a/b").unwrap();
            let file = volume.create("/a/b/file").unwrap();
            volume.direct_write(file, 0, &new()).unwrap();
            volume.fs().chmod(&volume.inode(file), 0o640).unwrap();
            volume.sync(file).unwrap();
        },
        |volume| {
            assert!(read(volume, "/a/b/file").unwrap() == new());
            let inode = volume.fs().lookup(b"/a/b/file", true).unwrap();
            assert_eq!(volume.fs().stat(&inode).mode & 0o7777, 0o640);
        },
    );
}

#[test]
fn volume_sync_makes_everything_durable() {
    cut(
        |volume| {
            volume.write_file("/direct", &new()).unwrap();
            volume.write_file_buffered("/buffered", &new()).unwrap();
            volume.mkdir("/dir").unwrap();
            volume.fs().unlink(b"/old").unwrap();
            volume.fs().sync().unwrap();
        },
        |volume| {
            assert_eq!(names(volume), ["buffered", "dir", "direct"]);
            assert!(read(volume, "/direct").unwrap() == new());
            assert!(read(volume, "/buffered").unwrap() == new());
        },
    );
}

#[test]
fn a_volume_at_rest_is_durable_and_clean() {
    let rest: [fn(&ext4::Fs) -> Result<()>; 3] =
        [|fs| fs.freeze(), |fs| fs.remount(true), |fs| fs.force_shutdown(ext4::Shutdown::Default)];
    for rest in rest {
        cut(
            |volume| {
                volume.write_file("/direct", &new()).unwrap();
                volume.write_file_buffered("/buffered", &new()).unwrap();
                volume.mkdir("/dir").unwrap();
                rest(volume.fs()).unwrap();
            },
            |volume| {
                assert_eq!(names(volume), ["buffered", "dir", "direct", "old"]);
                assert!(read(volume, "/buffered").unwrap() == new());
                assert_eq!(volume.report.transactions_replayed, 0, "there is nothing to recover");
            },
        );
    }
}

#[test]
fn shutdown_with_a_log_flush_keeps_what_is_committed() {
    cut(
        |volume| {
            volume.write_file("/direct", &new()).unwrap();
            volume.mkdir("/dir").unwrap();
            volume.fs().unlink(b"/old").unwrap();
            volume.fs().force_shutdown(ext4::Shutdown::LogFlush).unwrap();
        },
        |volume| {
            assert_eq!(names(volume), ["dir", "direct"]);
            assert!(volume.report.transactions_replayed > 0);
        },
    );
}

#[test]
fn an_unlinked_open_file_is_gone_with_its_blocks() {
    let free = std::cell::Cell::new(0);
    cut(
        |volume| {
            let kept = volume.open("/old").unwrap();
            volume.fs().unlink(b"/old").unwrap();
            free.set(volume.fs().superblock().free_blocks_count());
            volume.fs().sync().unwrap();
            assert!(volume.direct_read(kept, 0, 65536).unwrap() == old(), "until then it can be read");
        },
        |volume| {
            assert_eq!(names(volume), [] as [&str; 0]);
            assert_eq!(volume.report.orphans.deleted, 1);
            assert_eq!(volume.fs().superblock().free_blocks_count(), free.get() + 16);
        },
    );
}

#[test]
fn a_rename_over_a_file_leaves_the_one_or_the_other() {
    for (durable, expected) in [(false, old()), (true, new())] {
        cut(
            |volume| {
                let file = volume.create("/temporary").unwrap();
                volume.direct_write(file, 0, &new()).unwrap();
                volume.sync(file).unwrap();
                volume.fs().rename(b"/temporary", b"/old").unwrap();
                if durable {
                    volume.sync(file).unwrap();
                }
            },
            |volume| {
                assert!(read(volume, "/old").unwrap() == expected);
                assert_eq!(names(volume).len(), if durable { 1 } else { 2 });
            },
        );
    }
}

#[test]
fn closing_the_volume_makes_everything_durable() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |options| options.block_size = Some(4096));
    let durable = MemoryDevice::new(fs::read(&image).unwrap());
    let device = Arc::new(Cached { durable, cache: Mutex::default() });
    let mut volume = mount(device.clone());
    volume.write_file_buffered("/file", &new()).unwrap();
    volume.unmount().unwrap();
    let after = device.durable.snapshot();
    judge(&image, &after);
    let volume = mount(Arc::new(MemoryDevice::new(after)));
    assert_eq!(volume.report.transactions_replayed, 0);
    assert!(read(&volume, "/file").unwrap() == new());
    volume.unmount().unwrap();
}
