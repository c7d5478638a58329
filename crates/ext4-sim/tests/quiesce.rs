//! Freeze and thaw, remount, shutdown, barrier=0 and noload: what they write, and what is on the device then.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block_io::{Device, Event, Fault, FaultDevice, FaultOn, Recorder, RecordingDevice};
use ext4::{Fs, MountOptions, NewInode, Shutdown, errno, read_superblock};
use ext4_format::features::{incompat, ro_compat};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available};
use ext4_sim::runner::format;

const DIR: NewInode = NewInode { mode: 0o755, uid: 0, gid: 0 };
const FILE: NewInode = NewInode { mode: 0o100644, uid: 0, gid: 0 };
const BLOCK: u64 = 4096;

struct Volume {
    device: Arc<MemoryDevice>,
    recorder: Recorder,
    dir: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 32 << 20, |options| options.block_size = Some(BLOCK as u32));
        let device = Arc::new(MemoryDevice::new(std::fs::read(image).unwrap()));
        Self { device, recorder: Recorder::new(), dir }
    }

    fn mount(&self, options: &MountOptions) -> Arc<Fs> {
        let inner: Arc<dyn Device> = self.device.clone();
        let device = Arc::new(RecordingDevice::new(inner, self.recorder.clone(), 0));
        Fs::mount(device, options).unwrap().0
    }

    /// RECOVER and ORPHAN_PRESENT, as the device has them.
    fn in_use(&self) -> (bool, bool) {
        let features = read_superblock(&*self.device).unwrap().features();
        (features.has_incompat(incompat::RECOVER), features.has_ro_compat(ro_compat::ORPHAN_PRESENT))
    }

    fn assert_clean(&self) {
        if available(Need::E2fsprogs, "quiesce") {
            let path = self.dir.path().join("copy");
            std::fs::write(&path, self.device.snapshot()).unwrap();
            assert_clean(Path::new(&path));
        }
    }

    /// The trace since the last look: `s` the superblock, `j` JSB, `w` any other write, capital letters with FUA, `f` a flush.
    fn trace(&self, jsb: u64) -> String {
        let mut trace = String::new();
        for event in self.recorder.take() {
            match event {
                Event::WriteSubmitted { offset_bytes, fua, .. } => {
                    let letter = match offset_bytes {
                        0 => 's',
                        offset if offset == jsb => 'j',
                        _ => 'w',
                    };
                    let letter = if fua { letter.to_ascii_uppercase() } else { letter };
                    if !(letter == 'w' && trace.ends_with('w')) {
                        trace.push(letter);
                    }
                }
                Event::FlushSubmitted { .. } => trace.push('f'),
                _ => {}
            }
        }
        trace
    }

    /// Where JSB is: after an unmount, the last but one FUA write.
    fn jsb(&self) -> u64 {
        let writes: Vec<u64> = self
            .recorder
            .take()
            .into_iter()
            .filter_map(|event| match event {
                Event::WriteSubmitted { offset_bytes, fua: true, .. } => Some(offset_bytes),
                _ => None,
            })
            .collect();
        writes[writes.len() - 2]
    }
}

fn errno_of<T>(result: ext4::Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

/// X14. T25, T26: the order of an unmount, a freeze, a thaw and of remounts: log and home, flush, JSB empty, superblock; and
/// the reverse begins with the superblock.
#[test]
fn the_journal_is_empty_before_the_volume_says_so() {
    let volume = Volume::new();
    let fs = volume.mount(&MountOptions::default());
    fs.unmount().unwrap();
    let jsb = volume.jsb();

    let fs = volume.mount(&MountOptions::default());
    fs.sync().unwrap();
    drop(volume.recorder.take());
    fs.mkdir(b"/a", DIR).unwrap();
    fs.freeze().unwrap();
    let commit_and_empty = volume.trace(jsb);
    // One commit (log, flush, commit block), sync's own flush, perhaps a second commit of the superblock; then home.
    let end = commit_and_empty.len() - "swfJS".len();
    assert!(commit_and_empty.contains("wfW"), "{commit_and_empty}");
    assert!(commit_and_empty[end..].ends_with("fJS"), "home, flush, JSB, superblock: {commit_and_empty}");
    assert_eq!(volume.in_use(), (false, false));
    volume.assert_clean();
    assert!(
        Fs::mount(volume.device.clone(), &MountOptions { read_only: true, ..MountOptions::default() })
            .is_ok()
    );

    assert_eq!(errno_of(fs.mkdir(b"/b", DIR)), errno::EBUSY);
    assert_eq!(errno_of(fs.freeze()), errno::EBUSY);
    assert!(fs.lookup(b"/a", true).is_ok(), "reads go on");
    fs.sync().unwrap();
    assert_eq!(fs.tick(), fs.tick());
    assert_eq!(volume.trace(jsb), "f", "only sync's flush");

    fs.thaw().unwrap();
    assert_eq!(volume.trace(jsb), "S", "before the first handle");
    assert_eq!(volume.in_use(), (true, true));
    assert_eq!(errno_of(fs.thaw()), errno::EINVAL);
    fs.mkdir(b"/b", DIR).unwrap();

    fs.remount(true).unwrap();
    assert!(volume.trace(jsb).ends_with("fJS"));
    assert_eq!(volume.in_use(), (false, false));
    assert_eq!(errno_of(fs.mkdir(b"/c", DIR)), errno::EROFS);
    volume.assert_clean();
    fs.remount(false).unwrap();
    assert!(volume.trace(jsb).starts_with('S'), "as at a mount");
    assert_eq!(volume.in_use(), (true, true));
    fs.mkdir(b"/c", DIR).unwrap();

    fs.unmount().unwrap();
    assert!(volume.trace(jsb).ends_with("fJSf"));
    volume.assert_clean();
    let fs = volume.mount(&MountOptions::default());
    for name in [&b"/a"[..], b"/b", b"/c"] {
        assert!(fs.lookup(name, true).is_ok());
    }
}

/// An inode whose last name and last opening go while the volume is frozen is deleted by the thaw.
#[test]
fn a_file_that_goes_while_frozen() {
    let volume = Volume::new();
    let fs = volume.mount(&MountOptions::default());
    let (inode, _) = fs.create(b"/gone", NewInode { mode: 0o100_644, uid: 0, gid: 0 }, false).unwrap();
    fs.unlink(b"/gone").unwrap();
    assert_eq!(errno_of(fs.remount(true)), errno::EBUSY, "it is open");
    fs.freeze().unwrap();
    assert_eq!(volume.in_use(), (false, true), "an orphan is left (O4)");
    fs.release(&inode).unwrap();
    fs.thaw().unwrap();
    fs.unmount().unwrap();
    assert_eq!(volume.in_use(), (false, false));
    volume.assert_clean();
}

/// T28: what each mode leaves, and that nothing works afterwards.
#[test]
fn shutdown() {
    for (how, synced, recover) in [
        (Shutdown::Default, true, false),
        (Shutdown::LogFlush, true, true),
        (Shutdown::NoLogFlush, false, true),
    ] {
        let volume = Volume::new();
        let fs = volume.mount(&MountOptions::default());
        fs.mkdir(b"/late", DIR).unwrap();
        fs.force_shutdown(how).unwrap();
        assert_eq!(errno_of(fs.mkdir(b"/b", DIR)), errno::EIO);
        assert_eq!(errno_of(fs.lookup(b"/late", true)), errno::EIO);
        assert_eq!(errno_of(fs.sync()), errno::EIO);
        fs.force_shutdown(Shutdown::Default).unwrap();
        assert_eq!(volume.in_use().0, recover, "{how:?}");
        drop(volume.recorder.take());
        fs.unmount().unwrap();
        fs.tick();
        assert!(volume.recorder.take().is_empty(), "nothing is written any more");
        let fs = volume.mount(&MountOptions::default());
        assert_eq!(fs.lookup(b"/late", true).is_ok(), synced, "{how:?}");
        assert_eq!(fs.superblock().error_count, 0, "s_errno was 0");
        fs.unmount().unwrap();
        volume.assert_clean();
    }
}

/// T29: the first errno wins, but a later shutdown overrides it: s_errno is 0 in JSB.
#[test]
fn a_shutdown_after_an_abort_clears_the_errno() {
    let volume = Volume::new();
    let device = Arc::new(FaultDevice::new(volume.device.clone()));
    let fs = Fs::mount(device.clone(), &MountOptions::default()).unwrap().0;
    let s_errno = || {
        let image = volume.device.snapshot();
        let at = image.windows(8).position(|bytes| bytes == [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4]).unwrap();
        i32::from_be_bytes(image[at + 0x20..at + 0x24].try_into().unwrap())
    };
    let nth = device.counts().writes + 2;
    device.inject(Fault {
        on: FaultOn::Write,
        nth,
        from_then_on: false,
        errno: errno::EIO,
        half_written: false,
    });
    fs.mkdir(b"/a", DIR).unwrap();
    assert_eq!(errno_of(fs.sync()), errno::EIO);
    assert_eq!(s_errno(), -errno::EIO);
    assert_eq!(errno_of(fs.mkdir(b"/b", DIR)), errno::EROFS);
    fs.force_shutdown(Shutdown::NoLogFlush).unwrap();
    assert_eq!(s_errno(), 0);
    assert_eq!(errno_of(fs.mkdir(b"/b", DIR)), errno::EIO);
}

/// T17: no flush, no FUA anywhere.
#[test]
fn barrier_0_never_flushes() {
    let volume = Volume::new();
    let fs = volume.mount(&MountOptions { barrier: false, ..MountOptions::default() });
    for n in 0..20 {
        fs.mkdir(format!("/{n}").as_bytes(), DIR).unwrap();
        fs.sync().unwrap();
    }
    fs.unmount().unwrap();
    for event in volume.recorder.take() {
        assert!(
            !matches!(event, Event::FlushSubmitted { .. } | Event::WriteSubmitted { fua: true, .. }),
            "{event:?}"
        );
    }
    volume.assert_clean();
}

/// R17: noload shows what the last checkpoint left, and is refused for a mount that writes.
#[test]
fn noload_shows_the_stale_state() {
    let volume = Volume::new();
    let fs = volume.mount(&MountOptions::default());
    fs.mkdir(b"/old", DIR).unwrap();
    fs.unmount().unwrap();
    let fs = volume.mount(&MountOptions::default());
    fs.mkdir(b"/new", DIR).unwrap();
    fs.sync().unwrap();
    fs.shut_down();
    let options = MountOptions { noload: true, ..MountOptions::default() };
    assert_eq!(errno_of(Fs::mount(volume.device.clone(), &options)), errno::EINVAL);
    let before = volume.device.snapshot();
    let fs = volume.mount(&MountOptions { read_only: true, ..options });
    assert!(fs.lookup(b"/old", true).is_ok());
    assert_eq!(errno_of(fs.lookup(b"/new", true)), errno::ENOENT);
    fs.unmount().unwrap();
    assert!(before == volume.device.snapshot());
    let fs = volume.mount(&MountOptions { read_only: true, ..MountOptions::default() });
    assert!(fs.lookup(b"/new", true).is_ok(), "R18");
    assert_eq!(errno_of(fs.remount(false)), errno::EROFS);
}

/// Last closes are no changes that a caller could hold back: whatever a freeze interrupts, the thaw takes up again.
#[test]
fn closes_against_freezes() {
    let volume = Volume::new();
    let fs = volume.mount(&MountOptions::default());
    let before = fs.superblock();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (fs, over, path) = (&fs, &over, format!("/{thread}"));
            scope.spawn(move || {
                let retried = |call: &dyn Fn() -> ext4::Result<()>| {
                    while let Err(error) = call() {
                        assert_eq!(error.errno(), errno::EBUSY, "{error}");
                    }
                };
                while !over.load(Ordering::Relaxed) {
                    retried(&|| fs.create(path.as_bytes(), FILE, true).map(|_open| ()));
                    let inode = fs.lookup(path.as_bytes(), false).unwrap();
                    retried(&|| fs.unlink(path.as_bytes()));
                    fs.release(&inode).unwrap();
                }
            });
        }
        let rested = (0..60).try_for_each(|_| {
            fs.freeze()?;
            std::thread::yield_now();
            fs.thaw()
        });
        over.store(true, Ordering::Relaxed);
        rested.unwrap();
    });
    let after = fs.superblock();
    assert_eq!(after.free_inodes_count, before.free_inodes_count);
    assert_eq!(after.free_blocks_count(), before.free_blocks_count());
    fs.unmount().unwrap();
    volume.assert_clean();
}
