//! Files of every shape: large, sparse, fragmented, truncated, deleted while open. debugfs and the kernel read the same
//! bytes, and we read what the kernel writes into them.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_io::EventFd;
use ext4_sim::crash::held::{HeldQueue, Holds};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, debugfs};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, format, open_device};

const MIB: usize = 1 << 20;

fn image_of(size_bytes: u64, block_size: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, size_bytes, |options| options.block_size = Some(block_size));
    (dir, image)
}

/// Everybody reads the files of the model: we, debugfs, the kernel.
fn compare(image: &Path, files: &BTreeMap<String, Vec<u8>>, test: &str) {
    let volume = Runner::mount(image, Backend::Threads);
    for (path, data) in files {
        assert!(volume.read_file(path).unwrap() == *data, "{path}");
    }
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
        let out = image.with_extension("dump");
        for (path, data) in files {
            debugfs(image, &format!("dump {path} {}", out.display()));
            assert!(fs::read(&out).unwrap() == *data, "debugfs reads {path} otherwise");
        }
    }
    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(image, "ro");
        for (path, data) in files {
            let read = fs::read(mount.path().join(&path[1..])).unwrap();
            assert!(read == *data, "the kernel reads {path} otherwise");
        }
    }
}

/// Writes into a model as into a file.
fn put(file: &mut Vec<u8>, pos: usize, data: &[u8]) {
    file.resize(file.len().max(pos + data.len()), 0);
    file[pos..pos + data.len()].copy_from_slice(data);
}

#[test]
fn sizes() {
    for block_size in [1024, 4096] {
        let (_dir, image) = image_of(256 << 20, block_size);
        let mut volume = Runner::mount(&image, Backend::Uring);
        let mut files = BTreeMap::new();
        let sizes = [
            0,
            1,
            59,
            60,
            511,
            512,
            1023,
            1024,
            1025,
            4095,
            4096,
            4097,
            65535,
            65536,
            300_001,
            12 * MIB + 345,
            48 * MIB,
        ];
        for (index, len) in sizes.into_iter().enumerate() {
            let data = pattern::bytes(index as u32, len);
            let path = format!("/size{len}");
            volume.write_file(&path, &data).unwrap();
            files.insert(path, data);
        }
        volume.unmount().unwrap();
        compare(&image, &files, "sizes");
    }
}

#[test]
fn half_a_gibibyte_by_direct_writes() {
    let test = "half_a_gibibyte_by_direct_writes";
    let (_dir, image) = image_of(1 << 30, 4096);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let file = volume.create("/large").unwrap();
    let part = |index: usize| pattern::bytes(index as u32, MIB);
    for index in 0..512 {
        volume.direct_write(file, (index * MIB) as u64, &part(index)).unwrap();
    }
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, test) {
        assert_clean(&image);
    }
    let mut volume = Runner::mount(&image, Backend::Uring);
    let file = volume.open("/large").unwrap();
    for index in 0..512 {
        assert!(volume.direct_read(file, (index * MIB) as u64, MIB).unwrap() == part(index), "MiB {index}");
    }
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(&image, "ro");
        let file = fs::File::open(mount.path().join("large")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 512 << 20);
        let mut data = vec![0; MIB];
        for index in 0..512 {
            file.read_exact_at(&mut data, (index * MIB) as u64).unwrap();
            assert!(data == part(index), "the kernel reads MiB {index} otherwise");
        }
    }
}

#[test]
fn sparse_and_overwritten() {
    let test = "sparse_and_overwritten";
    let (_dir, image) = image_of(256 << 20, 4096);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let mut files = BTreeMap::new();

    // Holes by direct writes; then writes into the holes, over their edges, and over what is there.
    let file = volume.create("/direct").unwrap();
    let mut model = Vec::new();
    let places = [
        (20 * MIB, 8192),
        (4096, 4096),
        (3 * MIB, MIB),
        (3 * MIB - 8192, 3 * 4096),
        (3 * MIB + 4096, 512),
        (512, 1024),
        (0, 4096),
        (7 * MIB + 512, 65536),
        (20 * MIB + 4096, 2 * MIB),
        (19 * MIB, 2 * MIB),
    ];
    for (seed, (pos, len)) in places.into_iter().enumerate() {
        let data = pattern::bytes(seed as u32, len);
        let written = volume.direct_write(file, pos as u64, &data).unwrap();
        assert_eq!(written, len as u64, "at {pos}");
        put(&mut model, pos, &data);
    }
    volume.close(file).unwrap();
    files.insert("/direct".into(), model);

    // The same through the page cache, at odd places.
    let file = volume.create("/buffered").unwrap();
    let inode = volume.inode(file);
    let mut model = Vec::new();
    for (seed, (pos, len)) in
        [(9 * MIB + 3, 5000), (17, 3), (100_000, 200_001), (4095, 2), (8 * MIB, 2 * MIB)]
            .into_iter()
            .enumerate()
    {
        let data = pattern::bytes(100 + seed as u32, len);
        assert_eq!(volume.fs().buffered_write(&inode, pos as u64, &data).unwrap(), len);
        put(&mut model, pos, &data);
    }
    drop(inode);
    volume.close(file).unwrap();
    files.insert("/buffered".into(), model);

    // A hole alone, and holes with an end in the middle of a block.
    for (path, size) in [("/hole", 5 * MIB), ("/odd", 5 * MIB + 1)] {
        let file = volume.create(path).unwrap();
        volume.fs().truncate(&volume.inode(file), size as u64).unwrap();
        volume.close(file).unwrap();
        files.insert(path.into(), vec![0; size]);
    }
    volume.unmount().unwrap();
    compare(&image, &files, test);

    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(&image, "rw");
        for (index, (path, model)) in files.iter_mut().enumerate() {
            let file = fs::OpenOptions::new().write(true).open(mount.path().join(&path[1..])).unwrap();
            for (pos, len) in [(0, 10), (2 * MIB + 77, 9000), (4 * MIB, MIB), (21 * MIB, 100_000)] {
                let data = pattern::bytes(200 + index as u32, len);
                file.write_all_at(&data, pos as u64).unwrap();
                put(model, pos, &data);
            }
        }
    }
    compare(&image, &files, test);
}

#[test]
fn truncated() {
    let test = "truncated";
    for block_size in [1024, 4096] {
        let (_dir, image) = image_of(128 << 20, block_size);
        let mut volume = Runner::mount(&image, Backend::Uring);
        let mut files = BTreeMap::new();
        let base = pattern::bytes(7, 3 * MIB + 100);
        let steps: [&[usize]; 8] = [
            &[0],
            &[1],
            &[4096],
            &[MIB + 1],
            &[5000, 3 * MIB],
            &[3 * MIB + 99, 3 * MIB + 100, 10 * MIB],
            &[0, 77, 0, 2 * MIB],
            &[MIB, 4 * MIB, 2 * MIB + 13, 2 * MIB + 600],
        ];
        for (index, sizes) in steps.into_iter().enumerate() {
            let path = format!("/truncated{index}");
            volume.write_file(&path, &base).unwrap();
            let mut model = base.clone();
            let file = volume.open(&path).unwrap();
            for &size in sizes {
                volume.fs().truncate(&volume.inode(file), size as u64).unwrap();
                model.resize(size, 0);
            }
            // What comes behind the end must not bring anything back.
            let tail = pattern::bytes(8, 10);
            let inode = volume.inode(file);
            volume.fs().buffered_write(&inode, model.len() as u64 + 3000, &tail).unwrap();
            drop(inode);
            let end = model.len() + 3000;
            put(&mut model, end, &tail);
            volume.close(file).unwrap();
            files.insert(path, model);
        }
        volume.unmount().unwrap();
        compare(&image, &files, test);
    }
}

#[test]
fn unlinked_while_open() {
    let (_dir, image) = image_of(64 << 20, 4096);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let before = volume.fs().superblock();
    let file = volume.create("/open").unwrap();
    volume.direct_write(file, 0, &pattern::bytes(1, MIB)).unwrap();
    volume.fs().unlink(b"/open").unwrap();
    assert_eq!(volume.fs().lookup(b"/open", true).err().unwrap().errno(), 2);
    // It still reads, writes and grows, and a new file of the name is another one.
    volume.direct_write(file, MIB as u64, &pattern::bytes(2, MIB)).unwrap();
    volume.write_file("/open", b"another").unwrap();
    assert!(volume.direct_read(file, 0, MIB).unwrap() == pattern::bytes(1, MIB));
    assert!(volume.direct_read(file, MIB as u64, MIB).unwrap() == pattern::bytes(2, MIB));
    volume.close(file).unwrap();
    assert_eq!(volume.read_file("/open").unwrap(), b"another");
    volume.fs().unlink(b"/open").unwrap();
    let after = volume.fs().superblock();
    assert_eq!(after.free_blocks_count(), before.free_blocks_count());
    assert_eq!(after.free_inodes_count, before.free_inodes_count);
    volume.unmount().unwrap();
    compare(&image, &BTreeMap::new(), "unlinked_while_open");
}

#[test]
fn ten_thousand_extents() {
    let test = "ten_thousand_extents";
    let (_dir, image) = image_of(256 << 20, 1024);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let file = volume.create("/comb").unwrap();
    let blocks = 24_000;
    volume.fs().truncate(&volume.inode(file), blocks * 1024).unwrap();
    let mut model = vec![0; blocks as usize * 1024];
    // Every other block, in an order that neither appends nor comes from behind.
    for step in 0..blocks / 2 {
        let block = 2 * (step * 7919 % (blocks / 2));
        let data = pattern::bytes(block as u32, 1024);
        volume.direct_write(file, block * 1024, &data).unwrap();
        put(&mut model, block as usize * 1024, &data);
    }
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    let mut files = BTreeMap::from([("/comb".to_owned(), model)]);
    compare(&image, &files, test);
    if available(Need::E2fsprogs, test) {
        let shown = debugfs(&image, "ex /comb");
        let depth: u32 = shown
            .lines()
            .filter_map(|line| line.split_once('/')?.1.split_whitespace().next()?.parse().ok())
            .max()
            .unwrap();
        assert!(depth >= 2, "{}", &shown[..500]);
        assert!(shown.lines().count() > 10_000);
    }
    if available(Need::KernelMount, test) {
        let model = files.get_mut("/comb").unwrap();
        let mount = KernelMount::new(&image, "rw");
        let file = fs::OpenOptions::new().write(true).open(mount.path().join("comb")).unwrap();
        for block in (1..3000).step_by(2) {
            let data = pattern::bytes(block as u32, 1024);
            file.write_all_at(&data, block as u64 * 1024).unwrap();
            put(model, block * 1024, &data);
        }
    }
    compare(&image, &files, test);

    // Holes filled again, the end cut in the middle, and all of it removed.
    let mut volume = Runner::mount(&image, Backend::Uring);
    let file = volume.open("/comb").unwrap();
    let model = files.get_mut("/comb").unwrap();
    for part in 10..14 {
        let data = pattern::bytes(part as u32, MIB);
        volume.direct_write(file, (part * MIB) as u64, &data).unwrap();
        put(model, part * MIB, &data);
    }
    let size = 17 * MIB + 300;
    volume.fs().truncate(&volume.inode(file), size as u64).unwrap();
    model.truncate(size);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    compare(&image, &files, test);
    let volume = Runner::mount(&image, Backend::Uring);
    volume.fs().unlink(b"/comb").unwrap();
    volume.unmount().unwrap();
    compare(&image, &BTreeMap::new(), test);
}

/// What was set aside for a file that is closed goes to the next one: files of one directory lie side by side.
#[test]
fn preallocations_end_with_the_last_close() {
    let test = "preallocations_end_with_the_last_close";
    if !available(Need::E2fsprogs, test) {
        return;
    }
    let (_dir, image) = image_of(256 << 20, 4096);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let count = 10;
    for index in 0..count {
        volume.write_file(&format!("/file{index}"), &pattern::bytes(index, MIB + MIB / 4)).unwrap();
    }
    volume.unmount().unwrap();
    let mut places: Vec<u64> = (0..count)
        .map(|index| {
            debugfs(&image, &format!("bmap /file{index} 0")).lines().next().unwrap().trim().parse().unwrap()
        })
        .collect();
    places.sort_unstable();
    // 320 blocks each, found in chunks of 256; with what was set aside for its growth a file would take 768.
    let spread = places[places.len() - 1] - places[0];
    assert!(spread <= 9 * 512, "{places:?}");
}

/// E36: a truncate up between a write and its completion, which must not take the sizes back.
#[test]
fn truncate_up_before_a_write_completes() {
    let test = "truncate_up_before_a_write_completes";
    let (_dir, image) = image_of(16 << 20, 4096);
    let mut files = BTreeMap::new();
    let (device, event, holds) = (open_device(&image), Arc::new(EventFd::new().unwrap()), Holds::default());
    let queue = Box::new(HeldQueue::new(device.clone(), event.clone(), holds.clone()));
    let mut volume = Runner::over(device, queue, event).unwrap();

    let mut model = pattern::bytes(1, 8192);
    let file = volume.create("/direct").unwrap();
    holds.hold(Some(1));
    let write = volume.begin_direct_write(file, 0, &model, false).unwrap();
    volume.progress_until(&write, || holds.has(1));
    let inode = volume.inode(file);
    assert_eq!(volume.fs().sizes(&inode), (0, 0));
    volume.fs().truncate(&inode, 50_000).unwrap();
    holds.hold(None);
    holds.release(1);
    assert_eq!(volume.end_direct_write(&write).unwrap(), 8192);
    assert_eq!(volume.fs().sizes(&inode), (50_000, 50_000));
    volume.close(file).unwrap();
    model.resize(50_000, 0);
    files.insert("/direct".to_owned(), model);

    // The completion of a buffered write is that of its write-back.
    let mut model = pattern::bytes(2, 10_000);
    let file = volume.create("/buffered").unwrap();
    let inode = volume.inode(file);
    volume.fs().buffered_write(&inode, 0, &model).unwrap();
    assert_eq!(volume.fs().sizes(&inode), (10_000, 0));
    volume.fs().truncate(&inode, 50_000).unwrap();
    assert_eq!(volume.fs().sizes(&inode), (50_000, 50_000));
    volume.fs().write_and_wait(&inode, 0, 50_000).unwrap();
    assert_eq!(volume.fs().sizes(&inode), (50_000, 50_000));
    volume.close(file).unwrap();
    model.resize(50_000, 0);
    files.insert("/buffered".to_owned(), model);

    // Whoever holds an inode holds its volume's container.
    drop(inode);
    volume.unmount().unwrap();
    compare(&image, &files, test);
}
