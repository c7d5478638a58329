//! No space left: by data, by inodes, by directory blocks. Nothing is lost, and what is deleted can be written again.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ext4::{FallocateMode, Fs, NewInode};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, format};

const ENOSPC: i32 = 28;

fn image_of(size_bytes: u64, block_size: u32, inodes: Option<u32>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, size_bytes, |options| {
        options.block_size = Some(block_size);
        options.inodes_count = inodes;
    });
    (dir, image)
}

fn compare(image: &Path, files: &BTreeMap<String, Vec<u8>>, test: &str) {
    let volume = Runner::mount(image, Backend::Threads);
    for (path, data) in files {
        assert!(volume.read_file(path).unwrap() == *data, "{path}");
    }
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
    }
    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(image, "ro");
        for (path, data) in files {
            assert!(std::fs::read(mount.path().join(&path[1..])).unwrap() == *data, "{path}");
        }
    }
}

#[test]
fn by_direct_writes() {
    for block_size in [1024, 4096] {
        let (_dir, image) = image_of(32 << 20, block_size, None);
        let mut volume = Runner::mount(&image, Backend::Uring);
        let mut files = BTreeMap::new();
        let mut free_before = volume.fs().superblock().free_blocks_count();
        for round in 0..3 {
            let mut full = false;
            for index in 0..200 {
                let path = format!("/file{index}");
                if files.contains_key(&path) {
                    continue;
                }
                let file = volume.create(&path).unwrap();
                let mut model = Vec::new();
                for part in 0..4 {
                    let data = pattern::bytes(round * 1000 + index, 65536);
                    match volume.direct_write(file, part * 65536, &data) {
                        Ok(written) => {
                            model.extend(&data[..written as usize]);
                            if written < 65536 {
                                full = true;
                                break;
                            }
                        }
                        Err(error) => {
                            assert_eq!(error.errno(), ENOSPC, "{error}");
                            full = true;
                            break;
                        }
                    }
                }
                assert_eq!(volume.inode(file).size(), model.len() as u64, "{path}");
                volume.close(file).unwrap();
                files.insert(path, model);
                if full {
                    break;
                }
            }
            assert!(full, "the volume never gets full");
            let free = volume.fs().superblock().free_blocks_count();
            assert!(free < free_before / 8, "{free} of {free_before} blocks left");
            // Every other file goes; without any sync the space must come back.
            let gone: Vec<_> = files.keys().step_by(2).cloned().collect();
            for path in gone {
                volume.fs().unlink(path.as_bytes()).unwrap();
                files.remove(&path);
            }
            free_before = volume.fs().superblock().free_blocks_count();
        }
        volume.unmount().unwrap();
        compare(&image, &files, "by_direct_writes");
    }
}

/// Appends one byte behind a hole, again and again: the extent tree wants blocks too.
#[test]
fn by_sparse_extents() {
    let (_dir, image) = image_of(16 << 20, 1024, None);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let file = volume.create("/comb").unwrap();
    let mut model = Vec::new();
    let mut errors = 0;
    for index in 0..40_000u64 {
        let data = pattern::bytes(index as u32, 1024);
        match volume.direct_write(file, index * 2048, &data) {
            Ok(written) => {
                assert_eq!(written, 1024);
                model.resize(index as usize * 2048, 0);
                model.extend(data);
            }
            Err(error) => {
                assert_eq!(error.errno(), ENOSPC, "{error}");
                errors += 1;
                if errors > 5 {
                    break;
                }
            }
        }
    }
    assert!(errors > 5, "the volume never gets full");
    assert_eq!(volume.inode(file).size(), model.len() as u64);
    // Inside i_size too.
    for index in 0..50u64 {
        let error = volume.direct_write(file, index * 2048 + 1024, &pattern::bytes(1, 1024)).err();
        if let Some(error) = error {
            assert_eq!(error.errno(), ENOSPC, "{error}");
            continue;
        }
        let at = index as usize * 2048 + 1024;
        model[at..at + 1024].copy_from_slice(&pattern::bytes(1, 1024));
    }
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    compare(&image, &BTreeMap::from([("/comb".into(), model)]), "by_sparse_extents");
    let volume = Runner::mount(&image, Backend::Threads);
    volume.fs().unlink(b"/comb").unwrap();
    volume.unmount().unwrap();
    compare(&image, &BTreeMap::new(), "by_sparse_extents");
}

#[test]
fn by_buffered_writes() {
    let (_dir, image) = image_of(16 << 20, 4096, None);
    let mut volume = Runner::mount(&image, Backend::Uring);
    let mut files = BTreeMap::new();
    let mut full = false;
    for index in 0..400 {
        let path = format!("/file{index}");
        let data = pattern::bytes(index, 100_001);
        match volume.write_file_buffered(&path, &data) {
            Ok(()) => drop(files.insert(path, data)),
            Err(error) => {
                assert_eq!(error.errno(), ENOSPC, "{error}");
                volume.fs().unlink(path.as_bytes()).unwrap();
                full = true;
                break;
            }
        }
    }
    assert!(full, "the volume never gets full");
    for path in ["/file1", "/file3"] {
        volume.fs().unlink(path.as_bytes()).unwrap();
        files.remove(path);
    }
    let data = pattern::bytes(999, 150_000);
    volume.write_file_buffered("/again", &data).unwrap();
    files.insert("/again".into(), data);
    volume.unmount().unwrap();
    compare(&image, &files, "by_buffered_writes");
}

#[test]
fn by_inodes() {
    let (_dir, image) = image_of(16 << 20, 1024, Some(512));
    let volume = Runner::mount(&image, Backend::Threads);
    for round in 0..3 {
        let mut made = Vec::new();
        let error = loop {
            let path = format!("/{round}-{}", made.len());
            let is_dir = made.len() % 5 == 0;
            let result = if is_dir { volume.mkdir(&path).map(|_| ()) } else { volume.touch(&path) };
            match result {
                Ok(()) => made.push((path, is_dir)),
                Err(error) => break error,
            }
        };
        assert_eq!(error.errno(), ENOSPC, "{error}");
        assert_eq!(volume.fs().superblock().free_inodes_count, 0);
        assert!(made.len() > 480);
        for (path, is_dir) in made {
            match is_dir {
                true => volume.fs().rmdir(path.as_bytes()).unwrap(),
                false => volume.fs().unlink(path.as_bytes()).unwrap(),
            }
        }
    }
    assert_eq!(volume.names("/").unwrap().len(), 1);
    volume.unmount().unwrap();
    compare(&image, &BTreeMap::new(), "by_inodes");
}

/// Names until no directory block is left, in an indexed directory, a new directory and a symlink alike.
#[test]
fn by_directory_blocks() {
    for features in ["", "^dir_index"] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 8 << 20, |options| {
            options.block_size = Some(1024);
            options.inodes_count = Some(12_000);
            options.features = features.into();
        });
        let mut volume = Runner::mount(&image, Backend::Uring);
        volume.mkdir("/dir").unwrap();
        // Data takes nearly all.
        let file = volume.create("/data").unwrap();
        let mut size = 0;
        while volume.fs().superblock().free_blocks_count() > 300 {
            match volume.direct_write(file, size, &pattern::bytes(1, 16384)) {
                Ok(written) => size += written,
                Err(error) => {
                    assert_eq!(error.errno(), ENOSPC);
                    break;
                }
            }
        }
        let name = |index: usize| format!("/dir/{index:05} {}", "x".repeat(180));
        let mut count = 0;
        let error = loop {
            match volume.touch(&name(count)) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.errno(), ENOSPC, "{error}");
        assert!(count > 10, "{count}");
        assert_eq!(volume.mkdir("/new").err().map(|error| error.errno()), Some(ENOSPC));
        let new = ext4::NewInode { mode: 0, uid: 0, gid: 0 };
        let long = "y".repeat(500);
        assert_eq!(
            volume.fs().symlink(long.as_bytes(), b"/link", new).err().map(|error| error.errno()),
            Some(ENOSPC)
        );
        assert_eq!(volume.names("/dir").unwrap().len(), count);
        assert_eq!(volume.names("/").unwrap().len(), 3);
        // Space again: everything goes on.
        volume.fs().truncate(&volume.inode(file), 4096).unwrap();
        volume.close(file).unwrap();
        volume.mkdir("/new").unwrap();
        for index in count..count + 200 {
            volume.touch(&name(index)).unwrap();
        }
        assert_eq!(volume.names("/dir").unwrap().len(), count + 200);
        volume.unmount().unwrap();
        let files = BTreeMap::from([("/data".to_owned(), pattern::bytes(1, 4096))]);
        compare(&image, &files, "by_directory_blocks");
    }
}

/// E45. Every second block of a preallocated file is written while no other block is free: the splits take extent blocks from
/// the reserve (D14), or the write fails and its block reads as zeros (D7).
#[test]
fn splits_of_unwritten_extents() {
    const BLOCKS: u64 = 3000;
    let (_dir, image) = image_of(16 << 20, 1024, None);
    let mut volume = Runner::mount(&image, Backend::Threads);
    let (file, filler) = (volume.create("/prepared").unwrap(), volume.create("/filler").unwrap());
    volume
        .fs()
        .fallocate(&volume.inode(file), FallocateMode::Allocate { keep_size: false }, 0, BLOCKS * 1024)
        .unwrap();
    let mut filled = 0;
    for len in [65536, 1024] {
        while volume.direct_write(filler, filled, &pattern::bytes(7, len)).is_ok() {
            filled += len as u64;
        }
    }
    let mut model = vec![0; BLOCKS as usize * 1024];
    let mut written = 0;
    for block in (1..BLOCKS).step_by(2) {
        let data = pattern::bytes(block as u32, 1024);
        match volume.direct_write(file, block * 1024, &data) {
            Ok(_) => {
                model[block as usize * 1024..][..1024].copy_from_slice(&data);
                written += 1;
            }
            Err(error) => assert_eq!(error.errno(), ENOSPC, "block {block}: {error}"),
        }
    }
    // More extents than a root and one leaf hold: blocks of the tree came from somewhere.
    assert!(written > 200, "{written}");
    volume.close(file).unwrap();
    volume.close(filler).unwrap();
    volume.unmount().unwrap();
    compare(&image, &BTreeMap::from([("/prepared".into(), model)]), "splits_of_unwritten_extents");
}

/// Fills the volume from several threads, who delete and write again: a write may find no space, what it has taken does, and
/// in the end no space is missing.
fn write_and_delete(fs: &Arc<Fs>, thread: u32, rounds: u32) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut random = thread.wrapping_mul(0x9E37_79B9) | 1;
    let mut below = |bound: u32| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random % bound
    };
    for round in 0..rounds {
        let path = format!("/{thread}-{}", below(12));
        if files.remove(&path).is_some() {
            fs.unlink(path.as_bytes()).unwrap();
        }
        let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
        let inode = match fs.create(path.as_bytes(), new, true) {
            Ok((inode, _)) => inode,
            Err(error) => {
                assert_eq!(error.errno(), ENOSPC, "{error}");
                continue;
            }
        };
        let (mut model, gap) = (Vec::new(), below(3) as usize * 4096);
        for part in 0..below(12) {
            let data = pattern::bytes(thread * 1000 + round + part, 1 + below(40_000) as usize);
            let pos = model.len() + if part > 0 { gap } else { 0 };
            match fs.buffered_write(&inode, pos as u64, &data) {
                Ok(taken) => {
                    model.resize(pos, 0);
                    model.extend(&data[..taken]);
                }
                Err(error) => assert_eq!(error.errno(), ENOSPC, "{error}"),
            }
        }
        if below(3) == 0 {
            fs.fsync(&inode, true).unwrap_or_else(|error| panic!("fsync of {path}: {error}"));
        }
        fs.release(&inode).unwrap_or_else(|error| panic!("close of {path}: {error}"));
        files.insert(path, model);
    }
    files
}

#[test]
fn by_threads() {
    for block_size in [1024, 4096] {
        let (_dir, image) = image_of(8 << 20, block_size, None);
        let volume = Runner::mount(&image, Backend::Threads);
        let before = volume.fs().superblock().free_blocks_count();
        let mut files = BTreeMap::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|thread| {
                    let fs = volume.fs().clone();
                    scope.spawn(move || write_and_delete(&fs, thread, 100))
                })
                .collect();
            for thread in threads {
                files.extend(thread.join().unwrap());
            }
        });
        volume.unmount().unwrap();
        compare(&image, &files, "by_threads");
        let volume = Runner::mount(&image, Backend::Threads);
        for path in files.keys() {
            volume.fs().unlink(path.as_bytes()).unwrap();
        }
        assert_eq!(volume.fs().superblock().free_blocks_count(), before);
        volume.unmount().unwrap();
    }
}
