//! Write-back: by age, by share of memory, out of a reservation; what a failing device costs. All by hand: no threads.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use block_io::sync::Mutex;
use block_io::{Device, Fault, FaultDevice, FaultOn, Limits};
use ext4::mkfs::{self, FormatOptions};
use ext4::{Clock, DataMode, Fs, Inode, MountOptions, NewInode, Now};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::FORMAT_TIME;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Time stands still until a test moves it.
struct Stopped(AtomicI64);

impl Clock for Stopped {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::Relaxed);
        Now { sec: FORMAT_TIME as i64 + ms / 1000, nsec: (ms % 1000) as u32 * 1_000_000 }
    }

    fn since_boot(&self) -> std::time::Duration {
        self.now().since_epoch()
    }
}

struct Volume {
    memory: Arc<MemoryDevice>,
    faults: Arc<FaultDevice>,
    clock: Arc<Stopped>,
    fs: Arc<Fs>,
}

impl Volume {
    fn new(size_bytes: usize, block_size: u32, change: impl FnOnce(&mut MountOptions)) -> Self {
        let memory = Arc::new(MemoryDevice::new(vec![0; size_bytes]));
        let mut options = FormatOptions::new(FORMAT_TIME);
        options.assume_zeroed = true;
        options.block_size = Some(block_size);
        mkfs::format(memory.as_ref(), &options).unwrap();
        let faults = Arc::new(FaultDevice::new(memory.clone()));
        let clock = Arc::new(Stopped(AtomicI64::new(0)));
        let mut options = MountOptions { clock: clock.clone(), ..MountOptions::default() };
        change(&mut options);
        let (fs, _) = Fs::mount(faults.clone(), &options).unwrap();
        Self { memory, faults, clock, fs }
    }

    fn create(&self, path: &str) -> Arc<Inode> {
        let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
        self.fs.create(path.as_bytes(), new, false).unwrap().0
    }

    fn pass(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn is_dirty(&self, inode: &Inode) -> bool {
        self.fs.next_dirty(inode, 0, u64::MAX).is_some()
    }

    /// Unmounts; the volume is clean and holds what it should.
    fn finish(self, files: &[(&str, Arc<Inode>, Vec<u8>)], test: &str) {
        for (_, inode, _) in files {
            self.fs.release(inode).unwrap();
        }
        self.fs.unmount().unwrap();
        let (fs, _) = Fs::mount(self.memory.clone(), &MountOptions::default()).unwrap();
        for (path, _, data) in files {
            let inode = fs.lookup(path.as_bytes(), true).unwrap();
            let mut found = vec![0; inode.size() as usize];
            fs.buffered_read(&inode, 0, &mut found).unwrap();
            assert!(found == *data, "{path}");
        }
        fs.unmount().unwrap();
        if available(Need::E2fsprogs, test) {
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("image");
            std::fs::write(&image, self.memory.snapshot()).unwrap();
            assert_clean(&image);
        }
    }
}

#[test]
fn by_age() {
    let volume = Volume::new(8 << 20, 1024, |options| options.write_back_age_ms = 30_000);
    let (old, new) = (volume.create("/old"), volume.create("/new"));
    let data = pattern::bytes(1, 100_000);
    volume.fs.buffered_write(&old, 0, &data).unwrap();
    assert_eq!(volume.fs.stat(&old).sectors, 98 * 2, "what is reserved counts");
    volume.pass(20_000);
    volume.fs.buffered_write(&new, 0, &data).unwrap();
    assert_eq!(volume.fs.write_back_step(), 5000);
    assert!(volume.is_dirty(&old));
    volume.pass(9_000);
    assert_eq!(volume.fs.write_back_step(), 1000, "says when to come again");
    volume.pass(1_000);
    volume.fs.write_back_step();
    assert!(!volume.is_dirty(&old) && volume.is_dirty(&new));
    assert_eq!(volume.fs.next_delayed(&new, 0, u64::MAX), Some(0..98 * 1024));
    // Without a sync: what write-back by age and a commit by age have done is there after a crash.
    volume.fs.tick();
    volume.pass(5_000);
    volume.fs.tick();
    let crashed = Arc::new(MemoryDevice::new(volume.memory.snapshot()));
    let (fs, _) = Fs::mount(crashed, &MountOptions::default()).unwrap();
    let inode = fs.lookup(b"/old", true).unwrap();
    let mut found = vec![0; inode.size() as usize];
    fs.buffered_read(&inode, 0, &mut found).unwrap();
    assert!(found == data);
    assert_eq!(fs.lookup(b"/new", true).unwrap().size(), 0, "its size waits for its data (D26)");
    drop(fs);
    volume.finish(&[("/old", old, data.clone()), ("/new", new, data)], "by_age");
}

#[test]
fn by_share_of_memory() {
    let volume = Volume::new(16 << 20, 4096, |options| {
        (options.page_cache_bytes, options.dirty_ratio) = (1 << 20, 50);
    });
    let (first, second) = (volume.create("/first"), volume.create("/second"));
    let data = pattern::bytes(1, 4 << 20);
    volume.fs.buffered_write(&first, 0, &data[..200 << 10]).unwrap();
    volume.pass(1);
    volume.fs.buffered_write(&second, 0, &data[..100 << 10]).unwrap();
    assert!(volume.is_dirty(&first));
    volume.fs.write_back_step();
    assert!(!volume.is_dirty(&first) && volume.is_dirty(&second), "the oldest, until a quarter is left");
    for (index, part) in data.chunks(64 << 10).enumerate() {
        volume.fs.buffered_write(&second, (index as u64) << 16, part).unwrap();
        let dirty: u64 = volume.fs.next_dirty(&second, 0, u64::MAX).map_or(0, |run| run.end - run.start);
        assert!(dirty <= 512 << 10, "{dirty} bytes are dirty");
    }
    let first_data = data[..200 << 10].to_vec();
    volume.finish(&[("/first", first, first_data), ("/second", second, data)], "by_share_of_memory");
}

/// Every byte that a write took reaches the disk, however scattered, and whoever else wants the space.
#[test]
fn a_full_volume_loses_nothing() {
    for (block_size, step) in [(1024, 2), (1024, 1), (4096, 2)] {
        let volume = Volume::new(8 << 20, block_size, |options| options.dirty_ratio = 100);
        let block = block_size as usize;
        let file = volume.create("/file");
        let other = volume.create("/other");
        let mut model = Vec::new();
        let mut refused = 0;
        for index in 0..20_000usize {
            let at = index * step * block;
            let data = pattern::bytes(index as u32, block);
            match volume.fs.buffered_write(&file, at as u64, &data) {
                Ok(taken) => {
                    assert_eq!(taken, block);
                    model.resize(at, 0);
                    model.extend(data);
                }
                Err(error) => {
                    assert_eq!(error.errno(), ENOSPC);
                    refused += 1;
                    if refused > 3 {
                        break;
                    }
                }
            }
        }
        assert!(refused > 3);
        // What is promised to one file is no other's, whichever way it asks.
        assert_eq!(volume.fs.buffered_write(&other, 0, &[1; 1]).unwrap_err().errno(), ENOSPC);
        assert!(volume.fs.superblock().free_blocks_count() < 300);
        volume.fs.fsync(&file, false).unwrap();
        assert_eq!(volume.fs.next_delayed(&file, 0, u64::MAX), None);
        volume
            .finish(&[("/file", file, model), ("/other", other, Vec::new())], "a_full_volume_loses_nothing");
    }
}

/// Reserved space comes back with what it was for: by truncation, by deletion.
#[test]
fn what_is_not_needed_is_free_again() {
    let volume = Volume::new(8 << 20, 1024, |_| ());
    let file = volume.create("/file");
    let free = volume.fs.superblock().free_blocks_count();
    volume.fs.buffered_write(&file, 0, &vec![7; 1 << 20]).unwrap();
    assert_eq!(volume.fs.superblock().free_blocks_count(), free - 1024);
    volume.fs.truncate(&file, 1024).unwrap();
    assert_eq!(volume.fs.superblock().free_blocks_count(), free - 1);
    volume.fs.unlink(b"/file").unwrap();
    volume.fs.release(&file).unwrap();
    assert!(volume.fs.superblock().free_blocks_count() >= free);
    volume.finish(&[], "what_is_not_needed_is_free_again");
}

/// An error of write-back is the next fsync's to report, once; nothing is lost while the memory lasts.
#[test]
fn an_error_is_reported_once() {
    let volume = Volume::new(8 << 20, 4096, |options| options.write_back_age_ms = 0);
    let file = volume.create("/file");
    let data = pattern::bytes(3, 50_000);
    volume.fs.fsync(&file, false).unwrap();
    volume.fs.buffered_write(&file, 0, &data).unwrap();
    let nth = volume.faults.counts().writes + 1;
    volume.faults.inject(Fault {
        on: FaultOn::Write,
        nth,
        from_then_on: false,
        errno: EIO,
        half_written: true,
    });
    volume.fs.write_back_step();
    assert!(volume.is_dirty(&file));
    assert_eq!(volume.fs.sizes(&file), (50_000, 0), "no size without data (D26)");
    assert_eq!(volume.fs.fsync(&file, true).unwrap_err().errno(), EIO);
    volume.fs.fsync(&file, true).unwrap();
    assert_eq!(volume.fs.sizes(&file), (50_000, 50_000));
    volume.finish(&[("/file", file, data)], "an_error_is_reported_once");
}

/// What happens just before the next write.
type Hook = Box<dyn FnOnce() + Send>;

/// A device in memory with a moment to look at it.
struct Hooked {
    memory: Arc<MemoryDevice>,
    hook: Mutex<Option<Hook>>,
}

impl Device for Hooked {
    fn limits(&self) -> &Limits {
        self.memory.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> block_io::Result<()> {
        self.memory.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> block_io::Result<()> {
        let hook = self.hook.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        self.memory.write(offset_bytes, buf, fua)
    }

    fn flush(&self) -> block_io::Result<()> {
        self.memory.flush()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> block_io::Result<()> {
        self.memory.discard(offset_bytes, len_bytes)
    }
}

/// T12: a commit comes, and the power goes, when write-back has allocated and not yet written.
#[test]
fn a_commit_before_the_data_is_written() {
    const MARKER: u8 = 0xA5;
    let data = pattern::bytes(1, 5 * 4096 + 77);
    for (mode, dioread_nolock) in
        [(DataMode::Ordered, true), (DataMode::Ordered, false), (DataMode::Writeback, false)]
    {
        let memory = Arc::new(MemoryDevice::new(vec![MARKER; 8 << 20]));
        let mut options = FormatOptions::new(FORMAT_TIME);
        options.block_size = Some(4096);
        mkfs::format(memory.as_ref(), &options).unwrap();
        let device = Arc::new(Hooked { memory: memory.clone(), hook: Mutex::new(None) });
        let options = MountOptions { data: Some(mode), dioread_nolock, ..MountOptions::default() };
        let (fs, _) = Fs::mount(device.clone(), &options).unwrap();
        let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
        let (file, _) = fs.create(b"/file", new, false).unwrap();
        fs.buffered_write(&file, 0, &data).unwrap();
        let (committing, crashed) = (fs.clone(), Arc::new(Mutex::new(Vec::new())));
        let (memory, snapshot) = (memory.clone(), crashed.clone());
        *device.hook.lock() = Some(Box::new(move || {
            committing.commit().unwrap();
            *snapshot.lock() = memory.snapshot();
        }));
        fs.write_and_wait(&file, 0, u64::MAX).unwrap();
        let crashed = Arc::new(MemoryDevice::new(std::mem::take(&mut *crashed.lock())));
        let (after, _) = Fs::mount(crashed, &MountOptions::default()).unwrap();
        let inode = after.lookup(b"/file", true).unwrap();
        let mut found = vec![0; inode.size() as usize];
        after.buffered_read(&inode, 0, &mut found).unwrap();
        match (mode, dioread_nolock) {
            (_, true) => assert!(found.is_empty(), "the size waits for the data (D26)"),
            (DataMode::Ordered, false) => assert!(found == data, "the commit waits for the data"),
            _ => assert!(found.iter().all(|&byte| byte == MARKER), "what data=writeback may show"),
        }
        fs.fsync(&file, false).unwrap();
        fs.release(&file).unwrap();
        drop(file);
        fs.unmount().unwrap();
    }
}

/// CM12 over buffered data: one write fails, whichever it is. Every byte is old or new, never foreign; what a later fsync
/// promises is there; and the volume is clean after recovery.
#[test]
fn a_failure_at_each_write() {
    for (mode, dioread_nolock) in [
        (DataMode::Ordered, true),
        (DataMode::Ordered, false),
        (DataMode::Journal, true),
        (DataMode::Writeback, true),
    ] {
        for nth in 1..40 {
            let volume = Volume::new(8 << 20, 4096, |options| {
                (options.data, options.dioread_nolock) = (Some(mode), dioread_nolock);
            });
            let (old, new) = (vec![0x11; 60_000], vec![0x22; 80_000]);
            let file = volume.create("/file");
            volume.fs.buffered_write(&file, 0, &old).unwrap();
            volume.fs.sync().unwrap();
            let on = FaultOn::Write;
            let nth = volume.faults.counts().writes + nth;
            volume.faults.inject(Fault { on, nth, from_then_on: false, errno: EIO, half_written: true });
            let mut promised = 0;
            for (at, end) in [(0, 30_000), (30_000, 70_000), (70_000, 80_000)] {
                let written = volume.fs.buffered_write(&file, at as u64, &new[at..end]);
                let synced = written.is_ok() && volume.fs.fsync(&file, false).is_ok();
                // What was written before an error is dirty still, and the next fsync's.
                if synced || written.is_ok() && volume.fs.fsync(&file, false).is_ok() {
                    promised = end;
                } else {
                    break;
                }
            }
            let crashed = Arc::new(MemoryDevice::new(volume.memory.snapshot()));
            let context = format!("{mode:?} {dioread_nolock} write {nth}");
            let (fs, _) = Fs::mount(crashed.clone(), &MountOptions::default())
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            let inode = fs.lookup(b"/file", true).unwrap();
            let mut found = vec![0; inode.size() as usize];
            fs.buffered_read(&inode, 0, &mut found).unwrap();
            assert!(found.len() >= promised.max(60_000) && found[..promised] == new[..promised], "{context}");
            for (at, byte) in found.iter().enumerate() {
                let may_be = [if at < old.len() { 0x11 } else { 0 }, 0x22];
                assert!(may_be.contains(byte), "{context}: {byte:#x} at {at}");
            }
            fs.unmount().unwrap();
            if nth.is_multiple_of(7) && available(Need::E2fsprogs, "a_failure_at_each_write") {
                let dir = tempfile::tempdir().unwrap();
                let image = dir.path().join("image");
                std::fs::write(&image, crashed.snapshot()).unwrap();
                assert_clean(&image);
            }
        }
    }
}

/// One write of more than the cache holds: nothing of it could be written back before its end, and each page looked for room
/// among all that were there, so that the cost grew with the square of the length.
#[test]
fn one_write_of_several_times_the_cache_is_written_back_on_the_way() {
    const CACHE: usize = 4 << 20;
    let volume = Volume::new(64 << 20, 4096, |options| options.page_cache_bytes = CACHE as u64);
    let inode = volume.create("/large");
    let data = pattern::bytes(1, 8 * CACHE);
    assert_eq!(volume.fs.buffered_write(&inode, 0, &data).unwrap(), data.len());
    let dirty = volume.fs.next_dirty(&inode, 0, u64::MAX).unwrap_or(u64::MAX..u64::MAX);
    assert!(dirty.start >= (5 * CACHE) as u64, "{dirty:?} waits");
    volume.finish(&[("/large", inode, data)], "one large write");
}
