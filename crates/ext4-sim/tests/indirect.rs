//! Block maps: volumes without extents, which mke2fs, the kernel and we fill and change in turn.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_io::{EventFd, Fault, FaultDevice, FaultOn, ThreadsQueue};

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, debugfs, tool_ok};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, open_device};

const MIB: u64 = 1 << 20;
const ENOTBLK: i32 = 15;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EUCLEAN: i32 = 117;

/// Block size, and what else mke2fs is told: without a journal, with the journal on indirect blocks, with checksums.
const VOLUMES: [(usize, &[&str]); 6] = [
    (1024, &["-t", "ext2"]),
    (4096, &["-t", "ext2", "-O", "none", "-I", "128"]),
    (1024, &["-t", "ext3"]),
    (2048, &["-t", "ext3"]),
    (4096, &["-t", "ext4", "-O", "^extent,^64bit"]),
    (1024, &["-t", "ext4", "-O", "^extent,^64bit,orphan_file"]),
];

fn image_of(size_bytes: u64, block_size: usize, options: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(size_bytes).unwrap();
    let block_size = block_size.to_string();
    let fixed = ["-q", "-F", "-m", "0", "-b", &block_size];
    tool_ok("mke2fs", &[&fixed[..], options, &[image.to_str().unwrap()]].concat());
    (dir, image)
}

/// Clean, and no block leaked.
fn assert_clean_and_free(image: &Path, free_blocks: u64) {
    assert_clean(image);
    let volume = Runner::mount(image, Backend::Threads);
    assert_eq!(volume.fs().superblock().free_blocks_count(), free_blocks);
    volume.unmount().unwrap();
}

/// A file as a map of pieces; what is between them is a hole.
type Pieces = Vec<(u64, Vec<u8>)>;

/// Files that end and have holes where a map's shape changes: at 12 blocks, at one table, at p tables, and beyond.
fn files(block_size: usize) -> BTreeMap<String, (u64, Pieces)> {
    let (block, p) = (block_size as u64, block_size as u64 / 4);
    let edges = [12, 12 + p, 12 + 2 * p, 12 + p + p * p];
    let mut files = BTreeMap::new();
    for (index, edge) in edges.into_iter().enumerate() {
        let seed = index as u32 * 10;
        let around = (edge - 2) * block;
        let bytes = pattern::bytes(seed, 4 * block_size);
        files.insert(format!("around{index}"), ((edge + 2) * block, vec![(around, bytes.clone())]));
        // Not a whole block, and a hole behind it.
        let short = bytes[..block_size + 77].to_vec();
        files.insert(format!("before{index}"), ((edge + 40) * block + 5, vec![((edge - 2) * block, short)]));
    }
    let dense = pattern::bytes(99, 300 * block_size + 321);
    files.insert("dense".into(), (dense.len() as u64, vec![(0, dense)]));
    files.insert("empty".into(), (0, Vec::new()));
    files
}

/// What is in a file at the pieces and around them.
fn check(read: &dyn Fn(u64, &mut [u8]) -> usize, size: u64, pieces: &Pieces, what: &str) {
    for (pos, bytes) in pieces {
        let from = pos.saturating_sub(3000);
        let mut expected = vec![0; (pos - from) as usize];
        expected.extend_from_slice(bytes);
        expected.extend_from_slice(&[0; 3000]);
        expected.truncate(size.saturating_sub(from) as usize);
        let mut found = vec![1; expected.len()];
        assert_eq!(read(from, &mut found), expected.len(), "{what} at {from}");
        assert!(found == expected, "{what} at {pos}");
    }
}

fn check_by_kernel(root: &Path, files: &BTreeMap<String, (u64, Pieces)>) {
    for (name, (size, pieces)) in files {
        let file = fs::File::open(root.join(name)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), *size, "{name}");
        let read = |pos, out: &mut [u8]| {
            file.read_exact_at(out, pos).unwrap();
            out.len()
        };
        check(&read, *size, pieces, name);
    }
}

fn check_by_us(volume: &Runner, files: &BTreeMap<String, (u64, Pieces)>) {
    for (name, (size, pieces)) in files {
        let inode = volume.fs().lookup(format!("/{name}").as_bytes(), true).unwrap();
        assert_eq!(inode.size(), *size, "{name}");
        let read = |pos, out: &mut [u8]| volume.fs().buffered_read(&inode, pos, out).unwrap();
        check(&read, *size, pieces, name);
    }
}

fn write_by_kernel(root: &Path, files: &BTreeMap<String, (u64, Pieces)>) {
    for (name, (size, pieces)) in files {
        let file = fs::File::create(root.join(name)).unwrap();
        file.set_len(*size).unwrap();
        pieces.iter().for_each(|(pos, bytes)| file.write_all_at(bytes, *pos).unwrap());
    }
}

fn write_by_us(volume: &mut Runner, files: &BTreeMap<String, (u64, Pieces)>) {
    for (name, (size, pieces)) in files {
        let file = volume.create(&format!("/{name}")).unwrap();
        let inode = volume.inode(file);
        for (pos, bytes) in pieces {
            assert_eq!(volume.fs().buffered_write(&inode, *pos, bytes).unwrap(), bytes.len(), "{name}");
        }
        volume.fs().truncate(&inode, *size).unwrap();
        assert!(inode.is_bitmap_format());
        volume.close(file).unwrap();
    }
}

#[test]
fn what_the_kernel_wrote() {
    let test = "what_the_kernel_wrote";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    for (block_size, options) in VOLUMES {
        let (_dir, image) = image_of(64 * MIB, block_size, options);
        let mut files = files(block_size);
        let mut sectors = BTreeMap::new();
        {
            let mount = KernelMount::new(&image, "rw");
            write_by_kernel(mount.path(), &files);
            fs::create_dir(mount.path().join("dir")).unwrap();
            for index in 0..200 {
                fs::write(mount.path().join(format!("dir/a file of a rather long name {index}")), "x")
                    .unwrap();
            }
            std::os::unix::fs::symlink("./".repeat(100) + "dense", mount.path().join("long")).unwrap();
            // Delayed allocation: i_blocks does not count tables before.
            assert!(
                std::process::Command::new("sync").arg("-f").arg(mount.path()).status().unwrap().success()
            );
            mount.path().read_dir().unwrap().for_each(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                sectors.insert(name, entry.metadata().unwrap().blocks());
            });
        }
        let mut volume = Runner::mount(&image, Backend::Threads);
        check_by_us(&volume, &files);
        for (name, sectors) in &sectors {
            let inode = volume.fs().lookup(format!("/{name}").as_bytes(), false).unwrap();
            assert_eq!(volume.fs().stat(&inode).sectors, *sectors, "{name}");
        }
        assert_eq!(volume.names("/dir").unwrap().len(), 200);
        assert_eq!(volume.fs().readlink(b"/long").unwrap().len(), 205);
        // Now change all of it: cut, extend, fill holes, delete.
        for (name, (size, pieces)) in &mut files {
            let file = volume.open(&format!("/{name}")).unwrap();
            let inode = volume.inode(file);
            if let Some((_, bytes)) = pieces.last_mut() {
                let keep = bytes.len() / 2 + 1;
                bytes.truncate(keep);
                *size = pieces.last().map_or(0, |(pos, bytes)| pos + bytes.len() as u64);
                volume.fs().truncate(&inode, *size).unwrap();
            }
            let pos = *size + 7777;
            let more = pattern::bytes(5, 9000);
            assert_eq!(volume.fs().buffered_write(&inode, pos, &more).unwrap(), 9000);
            *size = pos + 9000;
            pieces.push((pos, more));
            volume.close(file).unwrap();
        }
        for index in 0..100 {
            let name = format!("/dir/a file of a rather long name {index}");
            volume.fs().unlink(name.as_bytes()).unwrap();
        }
        volume.fs().unlink(b"/long").unwrap();
        volume.mkdir("/ours").unwrap();
        (0..200).for_each(|index| {
            volume.touch(&format!("/ours/a file with a rather long name {index}")).unwrap()
        });
        let new = ext4::NewInode { mode: 0, uid: 0, gid: 0 };
        volume.fs().symlink("./".repeat(120).as_bytes(), b"/ourlink", new).unwrap();
        check_by_us(&volume, &files);
        volume.unmount().unwrap();
        assert_clean(&image);
        let mount = KernelMount::new(&image, "rw");
        check_by_kernel(mount.path(), &files);
        assert_eq!(mount.path().join("ours").read_dir().unwrap().count(), 200);
        assert_eq!(mount.path().join("dir").read_dir().unwrap().count(), 100);
        assert_eq!(fs::read_link(mount.path().join("ourlink")).unwrap().as_os_str().len(), 240);
        fs::remove_dir_all(mount.path().join("ours")).unwrap();
        files.keys().for_each(|name| fs::remove_file(mount.path().join(name)).unwrap());
        drop(mount);
        assert_clean(&image);
    }
}

#[test]
fn what_we_wrote() {
    let test = "what_we_wrote";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for (block_size, options) in VOLUMES {
        let (_dir, image) = image_of(64 * MIB, block_size, options);
        let mut volume = Runner::mount(&image, Backend::Threads);
        let free = volume.fs().superblock().free_blocks_count();
        let files = files(block_size);
        write_by_us(&mut volume, &files);
        check_by_us(&volume, &files);
        volume.unmount().unwrap();
        assert_clean(&image);
        if available(Need::KernelMount, test) {
            check_by_kernel(KernelMount::new(&image, "ro").path(), &files);
        }
        let dumped = image.with_extension("dump");
        debugfs(&image, &format!("dump /dense {}", dumped.display()));
        assert!(fs::read(&dumped).unwrap() == files["dense"].1[0].1);
        let volume = Runner::mount(&image, Backend::Threads);
        check_by_us(&volume, &files);
        files.keys().for_each(|name| volume.fs().unlink(format!("/{name}").as_bytes()).unwrap());
        volume.unmount().unwrap();
        assert_clean_and_free(&image, free);
    }
}

/// E31, B10: overwrites and extensions are direct; a hole inside i_size is the page cache's, and ends the request before it.
#[test]
fn direct_io() {
    let test = "direct_io";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for (block_size, options) in [VOLUMES[2], VOLUMES[4]] {
        let (_dir, image) = image_of(64 * MIB, block_size, options);
        let mut volume = Runner::mount(&image, Backend::Threads);
        let block = block_size as u64;
        let file = volume.create("/file").unwrap();
        let inode = volume.inode(file);
        // Past EOF: allocated, over all tables up to the second height.
        let mut model = pattern::bytes(1, 300 * block_size);
        assert_eq!(volume.direct_write(file, 0, &model), Ok(300 * block));
        let part = pattern::bytes(2, 4 * block_size);
        assert_eq!(volume.direct_write(file, 11 * block, &part), Ok(4 * block), "an overwrite");
        model[11 * block_size..15 * block_size].copy_from_slice(&part);
        volume.fs().truncate(&inode, 310 * block).unwrap();
        model.resize(310 * block_size, 0);
        let hole = volume.direct_write(file, 302 * block, &part).unwrap_err();
        assert_eq!(hole.errno(), ENOTBLK);
        assert_eq!(volume.direct_write(file, 298 * block, &part), Ok(2 * block), "up to the hole");
        model[298 * block_size..300 * block_size].copy_from_slice(&part[..2 * block_size]);
        // It begins in a hole and ends past EOF.
        let beyond = volume.direct_write(file, 308 * block, &part).unwrap_err();
        assert_eq!(beyond.errno(), ENOTBLK);
        assert_eq!(inode.size(), 310 * block);
        assert_eq!(volume.fs().buffered_write(&inode, 308 * block, &part).unwrap(), part.len());
        model.resize(308 * block_size, 0);
        model.extend_from_slice(&part);
        assert!(volume.direct_read(file, 0, model.len()).unwrap() == model);
        drop(inode);
        volume.close(file).unwrap();
        volume.unmount().unwrap();
        assert_clean(&image);
        let volume = Runner::mount(&image, Backend::Threads);
        assert!(volume.read_file("/file").unwrap() == model);
        volume.unmount().unwrap();
    }
}

/// A5: what a map can hold, to the byte, in every way to get there.
#[test]
fn the_longest_file() {
    let test = "the_longest_file";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for (block_size, options, longest) in
        [(1024, VOLUMES[2].1, 17_247_252_480), (4096, VOLUMES[4].1, 4_402_345_721_856u64)]
    {
        let (_dir, image) = image_of(64 * MIB, block_size, options);
        let mut volume = Runner::mount(&image, Backend::Threads);
        let file = volume.create("/file").unwrap();
        let inode = volume.inode(file);
        assert_eq!(volume.fs().max_bytes(&inode), longest);
        let block = pattern::bytes(3, block_size);
        let last = longest - block_size as u64;
        assert_eq!(volume.direct_write(file, last, &block), Ok(block_size as u64));
        assert_eq!(volume.fs().truncate(&inode, longest + 1).unwrap_err().errno(), EFBIG);
        assert_eq!(volume.fs().buffered_write(&inode, longest, &[1]).unwrap_err().errno(), EFBIG);
        assert_eq!(volume.direct_write(file, longest, &block).unwrap_err().errno(), EFBIG);
        assert!(volume.direct_read(file, last, block_size).unwrap() == block);
        volume.close(file).unwrap();
        volume.unmount().unwrap();
        assert_clean(&image);
        if available(Need::KernelMount, test) {
            let mount = KernelMount::new(&image, "rw");
            let file = fs::OpenOptions::new().read(true).write(true).open(mount.path().join("file")).unwrap();
            let mut read = vec![0; block_size];
            file.read_exact_at(&mut read, last).unwrap();
            assert!(read == block);
            assert_eq!(file.set_len(longest + 1).unwrap_err().raw_os_error(), Some(EFBIG));
        }
    }
}

/// A file of all heights goes in steps, each in a transaction of a small journal; a crash in between goes on at the next mount.
#[test]
fn e48_truncation_resumes() {
    let test = "e48_truncation_resumes";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for options in [
        &["-t", "ext3", "-J", "size=1"][..],
        &["-t", "ext4", "-O", "^extent,^64bit,orphan_file", "-J", "size=1"],
    ] {
        let (_dir, image) = image_of(96 * MIB, 1024, options);
        let mut volume = Runner::mount(&image, Backend::Threads);
        let free = volume.fs().superblock().free_blocks_count();
        let data = pattern::bytes(7, 40 << 20);
        volume.write_file("/large", &data).unwrap();
        let file = volume.create("/sparse").unwrap();
        let inode = volume.inode(file);
        for index in 0..1500u64 {
            volume.fs().buffered_write(&inode, index * 1_500_000, &[7; 100]).unwrap();
        }
        volume.close(file).unwrap();
        drop(inode);
        volume.unmount().unwrap();
        assert_clean(&image);
        let volume = Runner::mount(&image, Backend::Threads);
        volume.fs().unlink(b"/large").unwrap();
        let inode = volume.fs().lookup(b"/sparse", true).unwrap();
        volume.fs().truncate(&inode, 1_000_000_000).unwrap();
        // What is committed by now is some of the steps.
        volume.crash();
        let mut volume = Runner::mount(&image, Backend::Threads);
        let file = volume.open("/sparse").unwrap();
        let inode = volume.inode(file);
        let mut byte = [0];
        volume.fs().buffered_read(&inode, 1_500_000 * 600, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        drop(inode);
        volume.close(file).unwrap();
        volume.fs().unlink(b"/sparse").unwrap();
        if volume.names("/").unwrap().contains("large") {
            volume.fs().unlink(b"/large").unwrap();
        }
        volume.unmount().unwrap();
        assert_clean_and_free(&image, free);
    }
}

/// A10, D9: blocks that were allocated beyond i_disksize, by direct and by buffered writes, are gone after a crash.
#[test]
fn a_crash_before_the_size_moves() {
    let test = "a_crash_before_the_size_moves";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for (block_size, options) in [VOLUMES[2], VOLUMES[4], VOLUMES[5]] {
        let (_dir, image) = image_of(64 * MIB, block_size, options);
        let (device, event) = (open_device(&image), Arc::new(EventFd::new().unwrap()));
        let queue = Box::new(ThreadsQueue::new(device.clone(), event.clone()).unwrap());
        let faults = Arc::new(FaultDevice::new(device));
        let mut volume = Runner::over(faults.clone(), queue, event).unwrap();
        volume.write_file("/other", b"x").unwrap();
        let file = volume.create("/buffered").unwrap();
        let inode = volume.inode(file);
        volume.fs().buffered_write(&inode, 0, &pattern::bytes(1, 100 * block_size)).unwrap();
        // Write-back allocates and zeroes, and then cannot write.
        let nth = faults.counts().writes + 2;
        let on = FaultOn::Write;
        faults.inject(Fault { on, nth, from_then_on: false, errno: 5, half_written: false });
        volume.fs().write_and_wait(&inode, 0, u64::MAX).unwrap_err();
        drop(faults);
        let direct = volume.create("/direct").unwrap();
        volume.fs().add_orphan(&volume.inode(direct)).unwrap();
        // Commits what was allocated, and nothing of the data.
        let other = volume.open("/other").unwrap();
        volume.sync(other).unwrap();
        drop(inode);
        volume.crash();
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.report.orphans.truncated, 2, "{options:?}");
        assert!(volume.read_file("/buffered").unwrap().is_empty());
        volume.unmount().unwrap();
        assert_clean(&image);
    }
}

/// A block map has no unwritten blocks: what write-back allocates inside i_size reads as zeros if the data never comes.
#[test]
fn allocated_blocks_are_zeroed() {
    let test = "allocated_blocks_are_zeroed";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::write(&image, vec![0xA5; 16 << 20]).unwrap();
    let options = ["-q", "-F", "-b", "1024", "-t", "ext3", "-E", "nodiscard", image.to_str().unwrap()];
    tool_ok("mke2fs", &options);
    let (device, event) = (open_device(&image), Arc::new(EventFd::new().unwrap()));
    let queue = Box::new(ThreadsQueue::new(device.clone(), event.clone()).unwrap());
    let faults = Arc::new(FaultDevice::new(device));
    let mut volume = Runner::over(faults.clone(), queue, event).unwrap();
    let file = volume.create("/file").unwrap();
    let inode = volume.inode(file);
    volume.fs().truncate(&inode, 300_000).unwrap();
    volume.fs().buffered_write(&inode, 100_000, &pattern::bytes(1, 50_000)).unwrap();
    let nth = faults.counts().writes + 2;
    faults.inject(Fault { on: FaultOn::Write, nth, from_then_on: false, errno: 5, half_written: false });
    volume.fs().write_and_wait(&inode, 0, u64::MAX).unwrap_err();
    drop(faults);
    let other = volume.create("/other").unwrap();
    volume.sync(other).unwrap();
    drop(inode);
    volume.crash();
    let volume = Runner::mount(&image, Backend::Threads);
    let inode = volume.fs().lookup(b"/file", true).unwrap();
    assert!(volume.fs().stat(&inode).sectors > 0, "the allocation was committed");
    let data = volume.read_file("/file").unwrap();
    assert!(data.len() == 300_000 && data.iter().all(|&byte| byte == 0));
    drop(inode);
    volume.unmount().unwrap();
    assert_clean(&image);
}

/// X8. The journal is on indirect blocks (J2): the kernel replays what we left, and we what it left.
#[test]
fn x8_a_journal_on_indirect_blocks() {
    let test = "x8_a_journal_on_indirect_blocks";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    for block_size in [1024, 2048, 4096] {
        let (_dir, image) = image_of(64 * MIB, block_size, &["-t", "ext3"]);
        assert!(debugfs(&image, "stat <8>").contains("IND"), "the journal has indirect blocks");
        let files = files(block_size);
        let mut volume = Runner::mount(&image, Backend::Threads);
        write_by_us(&mut volume, &files);
        let file = volume.create("/last").unwrap();
        volume.sync(file).unwrap();
        volume.crash();
        let by_us = image.with_extension("us");
        fs::copy(&image, &by_us).unwrap();
        check_by_kernel(KernelMount::new(&image, "rw").path(), &files);
        assert_clean(&image);
        let volume = Runner::mount(&by_us, Backend::Threads);
        assert!(volume.report.transactions_replayed > 0);
        check_by_us(&volume, &files);
        volume.unmount().unwrap();
        assert_clean(&by_us);
        // And the kernel's own: copied while it is mounted, after a sync.
        let left = image.with_extension("left");
        {
            let mount = KernelMount::new(&image, "rw");
            fs::create_dir(mount.path().join("kernel")).unwrap();
            let file = fs::File::create(mount.path().join("kernel/file")).unwrap();
            file.write_all_at(&pattern::bytes(9, 70_000), 0).unwrap();
            file.sync_all().unwrap();
            fs::copy(&image, &left).unwrap();
        }
        let volume = Runner::mount(&left, Backend::Threads);
        assert!(volume.report.transactions_replayed > 0);
        assert!(volume.read_file("/kernel/file").unwrap() == pattern::bytes(9, 70_000));
        check_by_us(&volume, &files);
        volume.unmount().unwrap();
        assert_clean(&left);
    }
}

/// A file without extents on a volume that has them: it is older than the feature.
#[test]
fn mixed_volumes() {
    let test = "mixed_volumes";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    let (_dir, image) = image_of(64 * MIB, 1024, &["-t", "ext3"]);
    fs::write(KernelMount::new(&image, "rw").path().join("file"), pattern::bytes(1, 500_000)).unwrap();
    tool_ok("tune2fs", &["-O", "extent", image.to_str().unwrap()]);
    let mut volume = Runner::mount(&image, Backend::Threads);
    assert!(volume.read_file("/file").unwrap() == pattern::bytes(1, 500_000));
    let file = volume.open("/file").unwrap();
    let inode = volume.inode(file);
    assert!(inode.is_bitmap_format());
    volume.fs().truncate(&inode, 100_000).unwrap();
    volume.direct_write(file, 102_400, &pattern::bytes(2, 300 * 1024)).unwrap();
    volume.close(file).unwrap();
    let other = volume.create("/other").unwrap();
    assert!(!volume.inode(other).is_bitmap_format());
    volume.close(other).unwrap();
    volume.unmount().unwrap();
    assert_clean(&image);
    let mount = KernelMount::new(&image, "ro");
    let read = fs::read(mount.path().join("file")).unwrap();
    assert!(read[..100_000] == pattern::bytes(1, 100_000));
    assert!(read[100_000..102_400].iter().all(|&byte| byte == 0));
    assert!(read[102_400..] == pattern::bytes(2, 300 * 1024));
}

/// A full volume: what does not fit is not there, and nothing leaks.
#[test]
fn a_full_volume() {
    let test = "a_full_volume";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for (block_size, options) in [VOLUMES[0], VOLUMES[2], VOLUMES[4]] {
        let (_dir, image) = image_of(16 * MIB, block_size, options);
        let mut volume = Runner::mount(&image, Backend::Threads);
        let free = volume.fs().superblock().free_blocks_count();
        let file = volume.create("/buffered").unwrap();
        let inode = volume.inode(file);
        let mut pos = 0;
        loop {
            match volume.fs().buffered_write(&inode, pos, &pattern::bytes(1, 100_000)) {
                Ok(written) => pos += written as u64,
                Err(error) => {
                    assert_eq!(error.errno(), ENOSPC);
                    break;
                }
            }
        }
        assert_eq!(inode.size(), pos);
        let direct = volume.create("/direct").unwrap();
        let refused = volume.direct_write(direct, 0, &pattern::bytes(2, 64 * block_size));
        assert!(refused.is_err_and(|error| error.errno() == ENOSPC));
        assert_eq!(volume.inode(direct).size(), 0);
        volume.close(direct).unwrap();
        drop(inode);
        volume.close(file).unwrap();
        volume.unmount().unwrap();
        assert_clean(&image);
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(volume.fs().lookup(b"/buffered", true).unwrap().size(), pos);
        volume.fs().unlink(b"/buffered").unwrap();
        volume.fs().unlink(b"/direct").unwrap();
        volume.unmount().unwrap();
        assert_clean_and_free(&image, free);
    }
}

/// F54: a pointer to nowhere is EUCLEAN to whoever needs it, and the rest of the file is there.
#[test]
fn damaged_pointers() {
    let test = "damaged_pointers";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    for pointer in ["3", "99999999"] {
        for field in ["block[3]", "block[IND]", "block[DIND]"] {
            let (_dir, image) = image_of(16 * MIB, 1024, &["-t", "ext3"]);
            let mut volume = Runner::mount(&image, Backend::Threads);
            volume.write_file("/file", &pattern::bytes(1, 400 * 1024)).unwrap();
            volume.unmount().unwrap();
            tool_ok(
                "debugfs",
                &["-w", "-R", &format!("sif /file {field} {pointer}"), image.to_str().unwrap()],
            );
            let volume = Runner::mount(&image, Backend::Threads);
            let inode = volume.fs().lookup(b"/file", true).unwrap();
            let at = match field {
                "block[3]" => 3,
                "block[IND]" => 12,
                _ => 12 + 256,
            };
            let mut block = [0; 1024];
            let read = volume.fs().buffered_read(&inode, at * 1024, &mut block);
            assert_eq!(read.unwrap_err().errno(), EUCLEAN, "{field} {pointer}");
            assert_eq!(volume.fs().buffered_read(&inode, (at - 1) * 1024, &mut block).unwrap(), 1024);
            assert!(block[..] == pattern::bytes(1, 400 * 1024)[(at as usize - 1) * 1024..at as usize * 1024]);
            assert_eq!(volume.fs().truncate(&inode, 1024).unwrap_err().errno(), EUCLEAN);
        }
    }
}
