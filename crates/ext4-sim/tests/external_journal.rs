//! A journal on its own device (X9): ours, e2fsprogs' and the kernel's view of it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block_io::Device;
use ext4::{Fs, MountOptions, MountReport, NewInode, Result};
use ext4_format::Superblock;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, available, tool, tool_ok};
use ext4_sim::runner::format;

const EINVAL: i32 = 22;
const COMPAT_HAS_JOURNAL: u32 = 0x4;

/// A volume and its journal, as bytes.
#[derive(Clone, PartialEq)]
struct Pair {
    volume: Vec<u8>,
    journal: Vec<u8>,
}

/// Where the journal superblock lies: behind the block of the device's ext superblock.
fn jsb_at(block_size: usize) -> usize {
    if block_size == 1024 { 2048 } else { block_size }
}

/// As `mke2fs -J device=` links them, which asks for block devices.
fn make(dir: &Path, block_size: u32) -> Pair {
    let (volume, journal) = (dir.join("volume"), dir.join("journal"));
    format(&volume, 16 << 20, |options| {
        options.block_size = Some(block_size);
        options.features = "^has_journal".into();
    });
    std::fs::File::create(&journal).unwrap().set_len(u64::from(block_size) * 1100).unwrap();
    let size = block_size.to_string();
    tool_ok("mke2fs", &["-q", "-F", "-O", "journal_dev", "-b", &size, journal.to_str().unwrap()]);
    let mut volume = std::fs::read(volume).unwrap();
    let mut journal = std::fs::read(journal).unwrap();
    let mut superblock = Superblock::decode(&volume[1024..2048]).unwrap();
    superblock.feature_compat |= COMPAT_HAS_JOURNAL;
    superblock.journal_uuid.copy_from_slice(&journal[1024 + 0x68..1024 + 0x78]);
    superblock.journal_dev = 0x700;
    volume[1024..2048].copy_from_slice(&superblock.encode());
    let jsb = &mut journal[jsb_at(block_size as usize)..][..1024];
    jsb[0x40..0x44].copy_from_slice(&1u32.to_be_bytes());
    jsb[0x100..0x110].copy_from_slice(&superblock.uuid);
    Pair { volume, journal }
}

/// What a mount gave.
type Mounted = Result<(Arc<Fs>, MountReport)>;

fn mount(pair: &Pair, read_only: bool) -> (Arc<MemoryDevice>, Arc<MemoryDevice>, Mounted) {
    let volume = Arc::new(MemoryDevice::new(pair.volume.clone()));
    let journal = Arc::new(MemoryDevice::new(pair.journal.clone()));
    let options = MountOptions {
        read_only,
        journal_device: Some(journal.clone() as Arc<dyn Device>),
        ..MountOptions::default()
    };
    let mounted = Fs::mount(volume.clone(), &options);
    (volume, journal, mounted)
}

/// A volume with ten synced directories that was not unmounted.
fn crashed(pair: &Pair) -> Pair {
    let (volume, journal, mounted) = mount(pair, false);
    let (fs, report) = mounted.unwrap();
    assert_eq!(report.transactions_replayed, 0);
    for n in 0..10 {
        fs.mkdir(format!("/dir {n}").as_bytes(), NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
        fs.sync().unwrap();
    }
    fs.shut_down();
    Pair { volume: volume.snapshot(), journal: journal.snapshot() }
}

fn assert_directories(fs: &Fs) {
    for n in 0..10 {
        fs.lookup(format!("/dir {n}").as_bytes(), false).unwrap();
    }
}

fn write_out(dir: &Path, pair: &Pair) -> (PathBuf, PathBuf) {
    let (volume, journal) = (dir.join("volume"), dir.join("journal"));
    std::fs::write(&volume, &pair.volume).unwrap();
    std::fs::write(&journal, &pair.journal).unwrap();
    (volume, journal)
}

/// X9.
#[test]
fn x9_recovered_by_us_and_by_e2fsck() {
    if !available(Need::E2fsprogs, "x9_recovered_by_us_and_by_e2fsck") {
        return;
    }
    for block_size in [1024, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let dirty = crashed(&make(dir.path(), block_size));
        // Read-only: replayed into memory, neither device written.
        let (volume, journal, mounted) = mount(&dirty, true);
        assert_directories(&mounted.unwrap().0);
        assert!(Pair { volume: volume.snapshot(), journal: journal.snapshot() } == dirty);
        // Read-write.
        let (volume, journal, mounted) = mount(&dirty, false);
        let (fs, report) = mounted.unwrap();
        assert!(report.transactions_replayed >= 10, "{report:?}");
        assert_directories(&fs);
        fs.unmount().unwrap();
        let clean = Pair { volume: volume.snapshot(), journal: journal.snapshot() };
        let (volume, journal) = write_out(dir.path(), &clean);
        let (volume, journal) = (volume.to_str().unwrap(), journal.to_str().unwrap());
        tool_ok("e2fsck", &["-fn", "-j", journal, volume]);
        // e2fsck replays what we logged.
        write_out(dir.path(), &dirty);
        let checked = tool("e2fsck", &["-fy", "-j", journal, volume]);
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.code().is_some_and(|code| code <= 1), "{text}");
        assert!(text.contains("recovering journal"), "{text}");
        let names = tool_ok("debugfs", &["-R", "ls -p /", volume]);
        assert!((0..10).all(|n| names.contains(&format!("/dir {n}/"))), "{names}");
    }
}

/// X9.
#[test]
fn x9_recovered_by_the_kernel() {
    const TEST: &str = "x9_recovered_by_the_kernel";
    if !available(Need::E2fsprogs, TEST) || !available(Need::KernelMount, TEST) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dirty = crashed(&make(dir.path(), 4096));
    let (volume, journal) = write_out(dir.path(), &dirty);
    let output = Command::new("losetup").args(["-f", "--show"]).arg(&journal).output().unwrap();
    assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
    let device = String::from_utf8(output.stdout).unwrap().trim().to_string();
    let mounted = KernelMount::try_new(&volume, &format!("rw,journal_path={device}"));
    let seen = mounted
        .as_ref()
        .map_err(Clone::clone)
        .map(|mounted| (0..10).filter(|n| mounted.path().join(format!("dir {n}")).is_dir()).count());
    if let Ok(mounted) = &mounted {
        std::fs::create_dir(mounted.path().join("by the kernel")).unwrap();
    }
    drop(mounted);
    Command::new("losetup").args(["-d", &device]).status().unwrap();
    assert_eq!(seen, Ok(10));
    // And the log that the kernel leaves is one for us.
    let after = Pair { volume: std::fs::read(&volume).unwrap(), journal: std::fs::read(&journal).unwrap() };
    let (_, _, mounted) = mount(&after, false);
    let (fs, _) = mounted.unwrap();
    fs.lookup(b"/by the kernel", false).unwrap();
    fs.unmount().unwrap();
}

/// X9.
#[test]
fn x9_refused_without_the_right_device() {
    if !available(Need::E2fsprogs, "x9_refused_without_the_right_device") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pair = make(dir.path(), 1024);
    let volume = Arc::new(MemoryDevice::new(pair.volume.clone()));
    let missing = Fs::mount(volume.clone(), &MountOptions::default());
    assert_eq!(missing.err().map(|error| error.errno()), Some(EINVAL));
    assert!(volume.snapshot() == pair.volume);
    let jsb = jsb_at(1024);
    for (what, at, value) in [
        ("another UUID", 1024 + 0x68, pair.journal[1024 + 0x68] ^ 1),
        ("no journal device", 1024 + 0x60, 0),
        ("another block size", 1024 + 0x18, 2),
        ("a shift too far", 1024 + 0x18, 200),
        ("two users", jsb + 0x43, 2),
        ("another user", jsb + 0x100, pair.journal[jsb + 0x100] ^ 1),
        ("no magic", 1024 + 0x38, 0),
    ] {
        let mut damaged = pair.clone();
        damaged.journal[at] = value;
        let (volume, journal, mounted) = mount(&damaged, false);
        assert_eq!(mounted.err().map(|error| error.errno()), Some(EINVAL), "{what}");
        assert!(volume.snapshot() == damaged.volume && journal.snapshot() == damaged.journal, "{what}");
    }
    // A device for a volume that has its journal inside.
    let inside = dir.path().join("inside");
    format(&inside, 16 << 20, |_| {});
    let mixed = Pair { volume: std::fs::read(inside).unwrap(), ..pair };
    assert_eq!(mount(&mixed, false).2.err().map(|error| error.errno()), Some(EINVAL));
}
