//! Multi-mount protection with time that passes only where somebody waits (M1–M5).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use block_io::sync::Mutex;
use block_io::{AlignedBuf, Device};
use ext4::{Clock, Fs, MountOptions, MountReport, NewInode, Now, Result, errno, read_superblock};
use ext4_format::mmp::{Mmp, SEQ_CLEAN, SEQ_FSCK};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, tool_ok};

const START: i64 = 1_700_000_000;

/// Another host's work while we wait.
type Meanwhile = Box<dyn FnMut() + Send>;

#[derive(Default)]
struct World {
    slept: Vec<u64>,
    meanwhile: Option<Meanwhile>,
}

/// A clock that a sleep sets forward.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<World>>);

impl Waiting {
    fn slept(&self) -> Vec<u64> {
        self.0.lock().slept.clone()
    }

    /// Time passes without us.
    fn pass(&self, seconds: u64) {
        self.0.lock().slept.push(seconds);
    }
}

impl Clock for Waiting {
    fn now(&self) -> Now {
        Now { sec: START + self.slept().iter().sum::<u64>() as i64, nsec: 0 }
    }

    fn sleep(&self, duration: std::time::Duration) {
        let mut world = self.0.lock();
        world.slept.push(duration.as_secs());
        if let Some(meanwhile) = &mut world.meanwhile {
            meanwhile();
        }
    }
}

/// A volume of mke2fs with the feature.
fn volume(dir: &Path, features: &str) -> Arc<MemoryDevice> {
    let image = dir.join("image");
    drop(fs::remove_file(&image));
    tool_ok("mke2fs", &["-q", "-t", "ext4", "-O", &format!("mmp{features}"), image.to_str().unwrap(), "16M"]);
    Arc::new(MemoryDevice::new(fs::read(&image).unwrap()))
}

fn mount(device: &Arc<MemoryDevice>, clock: &Waiting) -> Result<(Arc<Fs>, MountReport)> {
    Fs::mount(device.clone(), &MountOptions { clock: Arc::new(clock.clone()), ..MountOptions::default() })
}

fn errno_of(device: &Arc<MemoryDevice>, clock: &Waiting) -> i32 {
    mount(device, clock).err().unwrap().errno()
}

/// Reads the block, changes it, writes it.
fn change(device: &dyn Device, with: impl FnOnce(&mut Mmp, &mut [u8])) {
    let superblock = read_superblock(device).unwrap();
    let mut block = AlignedBuf::zeroed(superblock.block_size() as usize);
    let offset = superblock.mmp_block * u64::from(superblock.block_size());
    device.read(offset, &mut block).unwrap();
    let mut mmp = Mmp::decode(&block, Some(superblock.fs_seed())).unwrap();
    let before = mmp;
    with(&mut mmp, &mut block);
    if mmp != before {
        mmp.encode(&mut block, Some(superblock.fs_seed()));
    }
    device.write(offset, &block, true).unwrap();
}

fn seq(device: &dyn Device) -> u32 {
    let mut seq = 0;
    change(device, |mmp, _| seq = mmp.seq);
    seq
}

fn check(dir: &Path, device: &MemoryDevice) {
    let image = dir.join("result");
    fs::write(&image, device.snapshot()).unwrap();
    assert_clean(&image);
}

/// X43.
#[test]
fn a_clean_volume_is_claimed_at_once_and_released() {
    if !available(Need::E2fsprogs, "mmp") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for features in ["", ",^metadata_csum,^metadata_csum_seed", ",^has_journal"] {
        let device = volume(dir.path(), features);
        let clock = Waiting::default();
        let (fs, _) = mount(&device, &clock).unwrap();
        fs.mkdir(b"/dir", NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
        fs.unmount().unwrap();
        assert!(clock.slept().is_empty());
        check(dir.path(), &device);
        if available(Need::KernelMount, "mmp") {
            let image = dir.path().join("result");
            assert!(KernelMount::new(&image, "rw").path().join("dir").is_dir());
            let device = Arc::new(MemoryDevice::new(fs::read(&image).unwrap()));
            mount(&device, &clock).unwrap().0.unmount().unwrap();
            assert!(clock.slept().is_empty(), "the kernel left it clean");
        }
    }
}

/// X43.
#[test]
fn after_a_crash_the_mount_waits_twice() {
    if !available(Need::E2fsprogs, "mmp") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "");
    let (fs, _) = mount(&device, &Waiting::default()).unwrap();
    let crashed = seq(&*device);
    assert!(crashed < SEQ_FSCK);
    fs.shut_down();
    let clock = Waiting::default();
    let (fs, _) = mount(&device, &clock).unwrap();
    assert_eq!(clock.slept(), [11, 11]);
    assert_ne!(seq(&*device), crashed);
    fs.unmount().unwrap();
    assert_eq!(seq(&*device), SEQ_CLEAN);
    check(dir.path(), &device);
}

/// X43.
#[test]
fn a_volume_in_use_is_busy_and_is_not_written() {
    if !available(Need::E2fsprogs, "mmp") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "");
    let (_theirs, _) = mount(&device, &Waiting::default()).unwrap();
    // They update while we wait.
    let clock = Waiting::default();
    let beside = device.clone();
    clock.0.lock().meanwhile = Some(Box::new(move || change(&*beside, |mmp, _| mmp.seq += 1)));
    let before = device.snapshot();
    assert_eq!(errno_of(&device, &clock), errno::EBUSY);
    assert_eq!(clock.slept(), [11]);
    change(&*device, |mmp, _| mmp.seq -= 1);
    assert!(before == device.snapshot());

    // They come between our claim and our second look.
    let beside = device.clone();
    let mut waits = 0;
    let second = move || {
        waits += 1;
        if waits == 2 {
            change(&*beside, |mmp, _| mmp.seq = 4711);
        }
    };
    let clock = Waiting::default();
    clock.0.lock().meanwhile = Some(Box::new(second));
    assert_eq!(errno_of(&device, &clock), errno::EBUSY);
    assert_eq!((clock.slept(), seq(&*device)), (vec![11, 11], 4711));

    for checked in [SEQ_FSCK, SEQ_FSCK + 1, u32::MAX] {
        change(&*device, |mmp, _| mmp.seq = checked);
        let clock = Waiting::default();
        assert_eq!(errno_of(&device, &clock), errno::EBUSY);
        assert!(clock.slept().is_empty());
    }
    // Who only reads takes no part.
    let options = MountOptions { read_only: true, ..MountOptions::default() };
    Fs::mount(device.clone(), &options).unwrap();
}

/// X43.
#[test]
fn updates_and_a_takeover() {
    if !available(Need::E2fsprogs, "mmp") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "");
    let clock = Waiting::default();
    let (fs, _) = mount(&device, &clock).unwrap();
    let first = seq(&*device);
    fs.tick();
    assert_eq!(seq(&*device), first, "not yet");
    clock.pass(5);
    fs.tick();
    assert_eq!(seq(&*device), first + 1);
    clock.pass(60);
    fs.tick();
    let mut interval = 0;
    change(&*device, |mmp, _| interval = mmp.check_interval);
    assert_eq!((seq(&*device), interval), (first + 2, 120), "late, but still ours");

    // Another host took a long silence for a crash.
    change(&*device, |mmp, _| mmp.seq = 99);
    clock.pass(130);
    let before = device.snapshot();
    fs.tick();
    let late = fs.mkdir(b"/late", NewInode { mode: 0o755, uid: 0, gid: 0 }).err().unwrap();
    assert_eq!(late.errno(), errno::EIO);
    assert!(fs.unmount().is_err());
    assert!(before == device.snapshot(), "nothing is written on their volume");
}

#[test]
fn a_damaged_block_is_refused() {
    if !available(Need::E2fsprogs, "mmp") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "");
    let clean = device.snapshot();
    for (at, errno) in [(0, errno::EUCLEAN), (4, errno::EBADMSG), (1000, errno::EBADMSG)] {
        let device = Arc::new(MemoryDevice::new(clean.clone()));
        change(&*device, |_, block| block[at] ^= 0x40);
        assert_eq!(errno_of(&device, &Waiting::default()), errno);
    }
}
