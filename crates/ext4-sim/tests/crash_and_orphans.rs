//! What a crash leaves: replayed by us, by the kernel and by e2fsck; and the orphans in it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, tool, tool_ok};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, format};

const MIB: usize = 1 << 20;

fn image_of(features: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 128 << 20, |options| {
        options.block_size = Some(4096);
        options.features = features.into();
    });
    (dir, image)
}

fn clean(image: &Path, test: &str) {
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
    }
}

/// A volume that stopped in the middle of its work: what was synced before, and what was not.
fn leave_dirty(image: &Path) {
    let mut volume = Runner::mount(image, Backend::Uring);
    volume.mkdir("/dir").unwrap();
    for index in 0..50 {
        volume.write_file(&format!("/dir/file{index}"), &pattern::bytes(index, 10_000)).unwrap();
    }
    volume.fs().symlink(b"file1", b"/dir/link", ext4::NewInode { mode: 0, uid: 0, gid: 0 }).unwrap();
    let file = volume.create("/synced").unwrap();
    volume.direct_write(file, 0, &pattern::bytes(77, MIB)).unwrap();
    volume.fs().unlink(b"/dir/file7").unwrap();
    volume.sync(file).unwrap();
    // From here on nothing was promised.
    volume.mkdir("/perhaps").unwrap();
    volume.write_file("/perhaps/file", &pattern::bytes(78, MIB)).unwrap();
    volume.crash();
}

/// What [`leave_dirty`] promised.
fn check_promises(root: &Path) {
    for index in (0..50).filter(|&index| index != 7) {
        let path = root.join(format!("dir/file{index}"));
        assert!(fs::read(&path).unwrap() == pattern::bytes(index, 10_000), "{index}");
    }
    assert!(!root.join("dir/file7").exists());
    assert!(fs::read(root.join("synced")).unwrap() == pattern::bytes(77, MIB));
    assert_eq!(fs::read_link(root.join("dir/link")).unwrap().to_str(), Some("file1"));
}

fn check_promises_by_us(volume: &Runner) {
    for index in (0..50).filter(|&index| index != 7) {
        let data = volume.read_file(&format!("/dir/file{index}")).unwrap();
        assert!(data == pattern::bytes(index, 10_000), "{index}");
    }
    assert_eq!(volume.fs().lookup(b"/dir/file7", true).err().unwrap().errno(), 2);
    assert!(volume.read_file("/synced").unwrap() == pattern::bytes(77, MIB));
    assert_eq!(volume.fs().readlink(b"/dir/link").unwrap(), b"file1");
    // All or nothing of what was not promised.
    if let Ok(data) = volume.read_file("/perhaps/file") {
        assert!(data.len() <= MIB && pattern::bytes(78, MIB).starts_with(&data));
    }
}

#[test]
fn replayed_by_us() {
    for features in ["", "^orphan_file", "^metadata_csum,^metadata_csum_seed,^orphan_file", "^64bit"] {
        let (_dir, image) = image_of(features);
        leave_dirty(&image);
        let volume = Runner::mount(&image, Backend::Threads);
        assert!(volume.report.transactions_replayed > 0);
        check_promises_by_us(&volume);
        // A crash right after recovery, and another recovery.
        volume.crash();
        let volume = Runner::mount(&image, Backend::Threads);
        check_promises_by_us(&volume);
        volume.unmount().unwrap();
        clean(&image, "replayed_by_us");
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.transactions_replayed, 0);
        check_promises_by_us(&volume);
        volume.unmount().unwrap();
        clean(&image, "replayed_by_us");
    }
}

#[test]
fn crash_without_fsync() {
    let (_dir, image) = image_of("");
    let mut volume = Runner::mount(&image, Backend::Uring);
    volume.write_file("/file", &pattern::bytes(1, MIB)).unwrap();
    volume.crash();
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(volume.names("/").unwrap().into_iter().collect::<Vec<_>>(), ["lost+found"]);
    volume.unmount().unwrap();
    clean(&image, "crash_without_fsync");
}

#[test]
fn replayed_by_the_kernel() {
    if !available(Need::KernelMount, "replayed_by_the_kernel") {
        return;
    }
    for features in ["", "^orphan_file", "^metadata_csum,^metadata_csum_seed"] {
        let (_dir, image) = image_of(features);
        leave_dirty(&image);
        check_promises(KernelMount::new(&image, "rw").path());
        clean(&image, "replayed_by_the_kernel");
        let volume = Runner::mount(&image, Backend::Threads);
        check_promises_by_us(&volume);
        volume.unmount().unwrap();
        clean(&image, "replayed_by_the_kernel");
    }
}

#[test]
fn replayed_by_e2fsck() {
    if !available(Need::E2fsprogs, "replayed_by_e2fsck") {
        return;
    }
    for features in ["", "^orphan_file", "^metadata_csum,^metadata_csum_seed"] {
        let (_dir, image) = image_of(features);
        leave_dirty(&image);
        let output = tool("e2fsck", &["-fy", image.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{text}");
        // The superblock's counts may lag (EP6), and ORPHAN_PRESENT is set while mounted (O4): nothing else is repaired.
        let repairs: Vec<_> =
            text.lines().filter(|line| line.contains("count wrong") || line.ends_with('.')).collect();
        let expected = |line: &&str| {
            line.starts_with("Free blocks count wrong (")
                || line.starts_with("Free inodes count wrong (")
                || line.starts_with("Feature orphan_present is set")
        };
        assert!(repairs.iter().all(expected), "{text}");
        assert!(text.matches("? yes").count() <= 3, "{text}");
        assert_clean(&image);
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.transactions_replayed, 0);
        check_promises_by_us(&volume);
        volume.unmount().unwrap();
        assert_clean(&image);
    }
}

#[test]
fn read_only_writes_nothing() {
    let (_dir, image) = image_of("");
    leave_dirty(&image);
    let before = fs::read(&image).unwrap();
    let volume = Runner::mount_read_only(&image).unwrap();
    check_promises_by_us(&volume);
    assert_eq!(volume.touch("/new").unwrap_err().errno(), 30);
    assert_eq!(volume.fs().unlink(b"/synced").unwrap_err().errno(), 30);
    volume.unmount().unwrap();
    assert!(fs::read(&image).unwrap() == before);
}

/// X40. Unlinked files that are open, and files that grow, at the time of a crash.
#[test]
fn orphans_are_processed() {
    for features in ["", "^orphan_file"] {
        let (_dir, image) = image_of(features);
        let mut volume = Runner::mount(&image, Backend::Uring);
        let free = {
            let file = volume.create("/warm").unwrap();
            volume.close(file).unwrap();
            let superblock = volume.fs().superblock();
            (superblock.free_blocks_count(), superblock.free_inodes_count)
        };
        for index in 0..20 {
            let path = format!("/gone{index}");
            let file = volume.create(&path).unwrap();
            volume.direct_write(file, 0, &pattern::bytes(index, 200_704)).unwrap();
            volume.fs().unlink(path.as_bytes()).unwrap();
        }
        // Recorded as growing, and blocks behind its end: a write that did not finish.
        let file = volume.create("/warm").unwrap();
        let inode = volume.inode(file);
        volume.fs().add_orphan(&inode).unwrap();
        volume.sync(file).unwrap();
        drop(inode);
        volume.crash();
        if available(Need::KernelMount, "orphans_are_processed") {
            let copy = image.with_extension("copy");
            fs::copy(&image, &copy).unwrap();
            drop(KernelMount::new(&copy, "rw"));
            assert_clean(&copy);
        }
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.orphans.deleted, 20, "{features}");
        assert_eq!(volume.report.orphans.truncated, 1);
        assert_eq!(volume.report.orphans.bad, 0);
        let superblock = volume.fs().superblock();
        assert_eq!((superblock.free_blocks_count(), superblock.free_inodes_count), free);
        volume.unmount().unwrap();
        clean(&image, "orphans_are_processed");
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.orphans, ext4::OrphansProcessed::default());
        volume.unmount().unwrap();
    }
}

/// X40. More than the orphan file has slots for: the rest stands in the list.
#[test]
fn more_orphans_than_slots() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    // 32 blocks of 1 KiB with 254 slots each.
    format(&image, 64 << 20, |options| {
        options.block_size = Some(1024);
        options.inodes_count = Some(16384);
    });
    let volume = Runner::mount(&image, Backend::Threads);
    let mut open = Vec::new();
    for index in 0..9000 {
        let path = format!("/o{index}");
        let new = ext4::NewInode { mode: 0o100644, uid: 0, gid: 0 };
        let (inode, _) = volume.fs().create(path.as_bytes(), new, true).unwrap();
        volume.fs().unlink(path.as_bytes()).unwrap();
        open.push(inode);
    }
    // Some of them go, from the middle of file and list alike.
    for index in (0..9000).step_by(900).rev() {
        volume.fs().release(&open.swap_remove(index)).unwrap();
    }
    volume.fs().sync().unwrap();
    assert_ne!(volume.fs().superblock().last_orphan, 0);
    drop(open);
    volume.crash();
    let copy = image.with_extension("copy");
    fs::copy(&image, &copy).unwrap();
    if available(Need::KernelMount, "more_orphans_than_slots") {
        drop(KernelMount::new(&copy, "rw"));
        clean(&copy, "more_orphans_than_slots");
    }
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(volume.report.orphans.deleted, 8990);
    assert_eq!(volume.names("/").unwrap().len(), 1);
    volume.unmount().unwrap();
    clean(&image, "more_orphans_than_slots");
}

/// Unmounted with an unlinked file open: it stays an orphan until the next mount, whoever that is.
#[test]
fn unmounted_with_orphans() {
    for features in ["", "^orphan_file"] {
        let (_dir, image) = image_of(features);
        let mut volume = Runner::mount(&image, Backend::Threads);
        let file = volume.create("/gone").unwrap();
        volume.direct_write(file, 0, &pattern::bytes(1, MIB)).unwrap();
        volume.fs().unlink(b"/gone").unwrap();
        volume.unmount().unwrap();
        if available(Need::KernelMount, "unmounted_with_orphans") {
            let copy = image.with_extension("copy");
            fs::copy(&image, &copy).unwrap();
            drop(KernelMount::new(&copy, "rw"));
            assert_clean(&copy);
        }
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.orphans.deleted, 1);
        volume.unmount().unwrap();
        clean(&image, "unmounted_with_orphans");
    }
}

/// Ends a kernel mount as a crash does: EXT4_IOC_SHUTDOWN, with the log flushed before (1) or not (2).
fn shut_down(mount: &KernelMount, flags: u32) -> bool {
    let script =
        "open(F, '<', $ARGV[0]) or die; my $f = pack('L', $ARGV[1]); ioctl(F, 0x8004587D, $f) or die $!";
    let file = mount.path().join("handle");
    let done = Command::new("perl").args(["-e", script]).arg(file).arg(flags.to_string()).status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn left_dirty_by_the_kernel() {
    let test = "left_dirty_by_the_kernel";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    for (features, flags) in
        [("", 1), ("", 2), ("orphan_file", 1), ("orphan_file", 2), ("^metadata_csum", 2), ("^64bit", 1)]
    {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        let mut args = vec!["-q", "-F", "-t", "ext4", "-b", "4096"];
        if !features.is_empty() {
            args.extend(["-O", features]);
        }
        args.push(image.to_str().unwrap());
        tool_ok("mke2fs", &args);
        {
            let mount = KernelMount::new(&image, "rw");
            let root = mount.path();
            fs::write(root.join("handle"), "").unwrap();
            fs::create_dir(root.join("dir")).unwrap();
            for index in 0..300 {
                fs::write(root.join(format!("dir/{index}")), pattern::bytes(index, 3000)).unwrap();
            }
            for index in 0..100 {
                fs::remove_file(root.join(format!("dir/{index}"))).unwrap();
            }
            // Orphans: one unlinked and open, and one whose blocks are revoked.
            fs::write(root.join("open"), pattern::bytes(9, MIB)).unwrap();
            let open = fs::File::open(root.join("open")).unwrap();
            fs::remove_file(root.join("open")).unwrap();
            let synced = fs::File::create(root.join("synced")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&synced, &pattern::bytes(5, MIB), 0).unwrap();
            synced.sync_all().unwrap();
            fs::write(root.join("perhaps"), pattern::bytes(6, MIB)).unwrap();
            if !shut_down(&mount, flags) {
                eprintln!("skipped: {test}: needs perl");
                return;
            }
            drop(open);
        }
        let read_only = Runner::mount_read_only(&image).unwrap();
        assert_eq!(read_only.names("/dir").unwrap().len(), 200);
        drop(read_only);
        let volume = Runner::mount(&image, Backend::Threads);
        assert!(volume.report.transactions_replayed > 0);
        assert!(volume.read_file("/synced").unwrap() == pattern::bytes(5, MIB));
        assert_eq!(volume.names("/dir").unwrap().len(), 200);
        assert_eq!(volume.report.orphans.deleted, 1, "{features}");
        volume.touch("/ours").unwrap();
        volume.unmount().unwrap();
        assert_clean(&image);
        assert!(KernelMount::new(&image, "ro").path().join("ours").exists());
    }
}

/// Orphans of the kernel without extents are deleted like the others.
#[test]
fn orphans_on_indirect_blocks() {
    let test = "orphans_on_indirect_blocks";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    for features in ["^orphan_file", "orphan_file"] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        tool_ok("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", "-O", features, image.to_str().unwrap()]);
        {
            let mount = KernelMount::new(&image, "rw");
            let path = mount.path().join("indirect");
            fs::write(mount.path().join("handle"), "").unwrap();
            fs::write(&path, pattern::bytes(1, 30_000)).unwrap();
            fs::File::open(&path).unwrap().sync_all().unwrap();
            let changed = Command::new("chattr").arg("-e").arg(&path).status();
            if !changed.is_ok_and(|status| status.success()) {
                eprintln!("skipped: {test}: needs chattr -e");
                return;
            }
            let open = fs::File::open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            open.sync_all().unwrap();
            if !shut_down(&mount, 1) {
                eprintln!("skipped: {test}: needs perl");
                return;
            }
        }
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.orphans.deleted, 1);
        volume.touch("/ours").unwrap();
        volume.unmount().unwrap();
        assert!(KernelMount::new(&image, "rw").path().join("ours").exists());
        assert_clean(&image);
    }
}

/// Without a journal a volume that was not unmounted stays suspect until e2fsck has seen it.
#[test]
fn an_unclean_volume_without_journal_stays_so() {
    let test = "an_unclean_volume_without_journal_stays_so";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    let (_dir, image) = image_of("^has_journal,^orphan_file");
    let state = || {
        let shown = tool_ok("dumpe2fs", &["-h", image.to_str().unwrap()]);
        shown.lines().find_map(|line| line.strip_prefix("Filesystem state:")).unwrap().trim().to_owned()
    };
    Runner::mount(&image, Backend::Threads).unmount().unwrap();
    assert_eq!(state(), "clean");
    Runner::mount(&image, Backend::Threads).crash();
    assert_eq!(state(), "not clean");
    Runner::mount(&image, Backend::Threads).unmount().unwrap();
    assert_eq!(state(), "not clean");
    let output = tool("e2fsck", &["-fy", image.to_str().unwrap()]);
    assert!(matches!(output.status.code(), Some(0 | 1)));
    Runner::mount(&image, Backend::Threads).unmount().unwrap();
    assert_eq!(state(), "clean");
}
