//! A read-only mount of a dirty volume: what a replay would make of it, in memory (R17, R18).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ext4::{Fs, Look, MountOptions, Probe};
use ext4_format::superblock::state;
use ext4_sim::crash::judge::{mount_options, read_tree, same_tree_by_kernel};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, available, tool_ok};
use ext4_sim::pattern;

/// A volume as Linux leaves it when its power fails.
fn dirty(image: &Path, mount_with: &str) {
    fs::File::create(image).unwrap().set_len(64 << 20).unwrap();
    tool_ok("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", image.to_str().unwrap()]);
    let mount = KernelMount::new(image, mount_with);
    let root = mount.path();
    fs::create_dir(root.join("dir")).unwrap();
    for index in 0..40u32 {
        let path = root.join(format!("dir/{index}"));
        fs::write(&path, pattern::bytes(index, 9000)).unwrap();
        fs::File::open(path).unwrap().sync_all().unwrap();
    }
    for index in (0..40).step_by(3) {
        fs::remove_file(root.join(format!("dir/{index}"))).unwrap();
    }
    fs::File::open(root.join("dir/1")).unwrap().sync_all().unwrap();
    let script = "open(F, '<', $ARGV[0]) or die; my $f = pack('L', 2); ioctl(F, 0x8004587D, $f) or die $!";
    assert!(Command::new("perl").args(["-e", script]).arg(root).status().unwrap().success());
}

/// X34. The overlay's tree is the kernel's after its replay, file data that lies in the log alone included; the image does not
/// change. noload shows none of it.
#[test]
fn the_overlay_is_what_the_kernel_replays() {
    let test = "the_overlay_is_what_the_kernel_replays";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    if !Command::new("perl").arg("-v").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {test}: needs perl");
        return;
    }
    for data in ["data=ordered", "data=journal"] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        dirty(&image, &format!("rw,{data}"));
        let bytes = fs::read(&image).unwrap();
        let device = Arc::new(MemoryDevice::new(bytes.clone()));
        let options = MountOptions { read_only: true, ..mount_options(Arc::default()) };
        let (mounted, report) = Fs::mount(device.clone(), &options).unwrap();
        assert!(report.transactions_replayed > 0);
        let tree = read_tree(&mounted).unwrap();
        let file = mounted.lookup(b"/dir/1", true).unwrap();
        let probe = mounted.probe_write(&file, 0, 0, Look::Disk).unwrap();
        assert!(probe.has(Probe::DIO_UNSUPPORTED), "the device has not what the log has");
        mounted.unmount().unwrap();
        assert!(device.snapshot() == bytes, "{data}: nothing is written");

        let (stale, _) = Fs::mount(device.clone(), &MountOptions { noload: true, ..options }).unwrap();
        assert!(stale.lookup(b"/dir/1", true).is_err(), "it lies in the log alone");
        assert!(device.snapshot() == bytes);
        same_tree_by_kernel(KernelMount::new(&image, "rw").path(), &tree).unwrap();
    }
}

/// O7. A mount of a volume with errors forgot the list of its orphans, as Linux does, and a recovery did nothing about them and said
/// that all was well: e2fsck found them. Now a mount keeps them, and a recovery processes those that are sound and names the rest.
#[test]
fn orphans_of_a_volume_with_errors() {
    use ext4::NewInode;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let new = NewInode { mode: 0o100_644, uid: 0, gid: 0 };
    for features in ["^orphan_file", ""] {
        ext4_sim::runner::format(&image, 16 << 20, |options| options.features = features.into());
        let device = Arc::new(MemoryDevice::new(fs::read(&image).unwrap()));
        let (mounted, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
        let unlinked = |name: &[u8]| {
            let (inode, _) = mounted.create(name, new, false).unwrap();
            mounted.buffered_write(&inode, 0, &[7; 100_000]).unwrap();
            mounted.sync().unwrap();
            mounted.unlink(name).unwrap();
            inode
        };
        let damaged = unlinked(b"/damaged");
        let _sound = unlinked(b"/sound");
        let location = mounted.superblock().inode_location(damaged.ino).unwrap();
        mounted.unmount().unwrap();
        let mut bytes = device.snapshot();
        let mut superblock = ext4_format::Superblock::decode(&bytes[1024..2048]).unwrap();
        superblock.state |= state::ERROR;
        bytes[1024..2048].copy_from_slice(&superblock.encode());
        // Blocks of 1 KiB: the first descriptor, which says where the inode table is, lies at 2048.
        let table = u64::from(u32::from_le_bytes(bytes[2048 + 8..2048 + 12].try_into().unwrap()));
        let inode_at =
            (table + u64::from(location.table_block)) as usize * 1024 + location.offset_bytes as usize;
        let i_mtime = inode_at + 0x10;
        bytes[i_mtime] ^= 1;
        let device = Arc::new(MemoryDevice::new(bytes));

        let (mounted, report) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
        assert_eq!(report.orphans, ext4::OrphansProcessed::default());
        // New ones come and go beside them.
        let (another, _) = mounted.create(b"/another", new, false).unwrap();
        mounted.unlink(b"/another").unwrap();
        mounted.release(&another).unwrap();
        mounted.unmount().unwrap();
        let before = ext4::read_superblock(&*device).unwrap();
        assert_eq!(before.last_orphan != 0, features == "^orphan_file", "they are still known");

        for deleted in [1, 0] {
            let recovery = ext4::recover(device.clone(), MountOptions::default(), false).unwrap();
            assert!(recovery.needed && recovery.has_errors);
            let orphans = recovery.report.orphans;
            assert_eq!((orphans.deleted, orphans.left), (deleted, vec![damaged.ino.0]));
        }
        // What was damaged is well again.
        let mut bytes = device.snapshot();
        bytes[i_mtime] ^= 1;
        let device = Arc::new(MemoryDevice::new(bytes));
        let orphans = ext4::recover(device.clone(), MountOptions::default(), false).unwrap().report.orphans;
        assert_eq!((orphans.deleted, orphans.left), (1, vec![]));
        if available(Need::E2fsprogs, "orphans_of_a_volume_with_errors") {
            fs::write(&image, device.snapshot()).unwrap();
            ext4_sim::oracle::e2fsck(&image).unwrap();
        }
    }
}
