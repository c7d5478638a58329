//! Multi-mount protection with time that passes only where somebody waits (M1–M5).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use block_io::sync::Mutex;
use block_io::{AlignedBuf, Device};
use ext4::{Cancel, Clock, Fs, MountOptions, MountReport, NewInode, Now, Result, errno, read_superblock};
use ext4_format::mmp::{Mmp, SEQ_CLEAN, SEQ_FSCK};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, tool_ok};

const START: i64 = 1_700_000_000;

/// Another host's work while we wait.
type Meanwhile = Box<dyn FnMut() + Send>;

#[derive(Default)]
struct World {
    slept: Vec<u64>,
    /// Somebody set the wall's clock.
    set_by: i64,
    cancelled: bool,
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
        let set_by = self.0.lock().set_by;
        Now { sec: START + set_by + self.slept().iter().sum::<u64>() as i64, nsec: 0 }
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.slept().iter().sum())
    }

    fn wait(&self, duration: Duration, _cancel: &Cancel) -> bool {
        let mut world = self.0.lock();
        world.slept.push(duration.as_secs());
        if let Some(meanwhile) = &mut world.meanwhile {
            meanwhile();
        }
        !world.cancelled
    }
}

/// A volume of mke2fs with the feature.
fn volume(dir: &Path, features: &str) -> Arc<MemoryDevice> {
    let image = dir.join("image");
    drop(fs::remove_file(&image));
    tool_ok("mke2fs", &["-q", "-t", "ext4", "-O", &format!("mmp{features}"), image.to_str().unwrap(), "16M"]);
    Arc::new(MemoryDevice::new(fs::read(&image).unwrap()))
}

/// A clean volume with the feature, and a clock; nothing where mke2fs is missing.
fn start() -> Option<(tempfile::TempDir, Arc<MemoryDevice>, Waiting)> {
    if !available(Need::E2fsprogs, "mmp") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "");
    Some((dir, device, Waiting::default()))
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
    let Some((_dir, device, clock)) = start() else { return };
    let (fs, _) = mount(&device, &clock).unwrap();
    let first = seq(&*device);
    fs.claim_step();
    assert_eq!(seq(&*device), first, "not yet");
    clock.pass(5);
    fs.claim_step();
    assert_eq!(seq(&*device), first + 1);
    clock.pass(60);
    fs.claim_step();
    let mut interval = 0;
    change(&*device, |mmp, _| interval = mmp.check_interval);
    assert_eq!((seq(&*device), interval), (first + 2, 120), "late, but still ours");

    // Another host took a long silence for a crash.
    change(&*device, |mmp, _| mmp.seq = 99);
    clock.pass(130);
    let before = device.snapshot();
    fs.claim_step();
    let late = fs.mkdir(b"/late", NewInode { mode: 0o755, uid: 0, gid: 0 }).err().unwrap();
    assert_eq!(late.errno(), errno::EIO);
    assert!(fs.unmount().is_err());
    assert!(before == device.snapshot(), "nothing is written on their volume");
}

/// With the wall's clock an hour back the sign of life stood still for that hour, and another host took the volume while it
/// was written to.
#[test]
fn a_clock_set_back_stops_neither_the_sign_of_life_nor_commits() {
    let Some((dir, device, clock)) = start() else { return };
    let (fs, _) = mount(&device, &clock).unwrap();
    let first = seq(&*device);
    clock.0.lock().set_by = -3600;
    fs.mkdir(b"/made", NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
    let commits = fs.journal_stats().commits;
    clock.pass(5);
    fs.claim_step();
    assert_eq!(seq(&*device), first + 1);
    fs.tick();
    assert_eq!(fs.journal_stats().commits, commits + 1, "5 seconds old");
    fs.unmount().unwrap();
    check(dir.path(), &device);
}

/// A machine that is paused as a whole has no clock that tells: the block is read before it is written.
#[test]
fn a_takeover_that_no_clock_has_seen_is_noticed() {
    let Some((_dir, device, clock)) = start() else { return };
    let (fs, _) = mount(&device, &clock).unwrap();
    change(&*device, |mmp, _| mmp.seq = 99);
    clock.pass(5);
    let before = device.snapshot();
    fs.claim_step();
    assert_eq!(fs.sync().unwrap_err().errno(), errno::EIO);
    assert!(before == device.snapshot(), "nothing is written on their volume");
}

/// An interval of hours is no interval: it was taken for 300 seconds, and so was a wait cut short that another host relied on.
#[test]
fn intervals_that_no_tool_writes_are_damage_unless_forced() {
    let Some((_dir, device, clock)) = start() else { return };
    change(&*device, |mmp, _| mmp.check_interval = 301);
    let refused = mount(&device, &clock).err().unwrap();
    assert_eq!(refused.errno(), errno::EUCLEAN);
    assert!(refused.to_string().contains("mmp_check_interval of 301 seconds"), "{refused}");
    assert!(clock.slept().is_empty());
    let options = MountOptions { clock: Arc::new(clock.clone()), force: true, ..MountOptions::default() };
    Fs::mount(device.clone(), &options).unwrap().0.unmount().unwrap();
}

/// Whoever opens a volume after a crash may change his mind.
#[test]
fn a_wait_can_be_cancelled() {
    let Some((_dir, device, clock)) = start() else { return };
    drop(mount(&device, &clock).unwrap());
    let before = device.snapshot();
    clock.0.lock().cancelled = true;
    assert_eq!(errno_of(&device, &clock), errno::ECANCELED);
    assert_eq!(clock.slept().len(), 1);
    assert!(before == device.snapshot());
    let cancel = Cancel::default();
    cancel.cancel();
    assert!(!cancel.wait(Duration::from_secs(3600)), "at once");
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
