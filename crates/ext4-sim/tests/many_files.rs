//! Many files: in many directories, and so many in one that its index grows levels; the kernel goes on in them.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::runner::{Backend, Runner, format};

fn image_of(size_bytes: u64, block_size: u32, inodes: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, size_bytes, |options| {
        options.block_size = Some(block_size);
        options.inodes_count = Some(inodes);
    });
    (dir, image)
}

fn clean(image: &Path, test: &str) {
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
    }
}

fn kernel_names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn files_in_500_directories() {
    let (_dir, image) = image_of(1 << 30, 4096, 65536);
    let volume = Runner::mount(&image, Backend::Threads);
    for dir in 0..500 {
        volume.mkdir(&format!("/d{dir}")).unwrap();
    }
    // Across the directories, as a build does it, not one directory after the other.
    for file in 0..44 {
        for dir in 0..500 {
            volume.touch(&format!("/d{dir}/a file with a longer name {file}")).unwrap();
        }
    }
    volume.unmount().unwrap();
    clean(&image, "files_in_500_directories");

    let expected: BTreeSet<_> = (0..44).map(|file| format!("a file with a longer name {file}")).collect();
    if available(Need::KernelMount, "files_in_500_directories") {
        let mount = KernelMount::new(&image, "ro");
        for dir in 0..500 {
            assert_eq!(kernel_names(&mount.path().join(format!("d{dir}"))), expected);
        }
    }
    let volume = Runner::mount(&image, Backend::Threads);
    for dir in 0..500 {
        assert_eq!(volume.names(&format!("/d{dir}")).unwrap(), expected);
        if dir % 2 == 0 {
            for file in 0..44 {
                volume.fs().unlink(format!("/d{dir}/a file with a longer name {file}").as_bytes()).unwrap();
            }
            volume.fs().rmdir(format!("/d{dir}").as_bytes()).unwrap();
        }
    }
    assert_eq!(volume.names("/").unwrap().len(), 251);
    volume.unmount().unwrap();
    clean(&image, "files_in_500_directories");
}

/// Fills one directory, lets the kernel compare, deletes every other name, lets the kernel create and delete, compares.
fn one_large_directory(test: &str, size_bytes: u64, block_size: u32, count: usize) {
    let name = |index: usize| format!("file {index} of a large directory");
    let (_dir, image) = image_of(size_bytes, block_size, count as u32 + 3000);
    let volume = Runner::mount(&image, Backend::Threads);
    volume.mkdir("/large").unwrap();
    for index in 0..count {
        volume.touch(&format!("/large/{}", name(index))).unwrap();
    }
    volume.unmount().unwrap();
    clean(&image, test);

    let mut expected: BTreeSet<_> = (0..count).map(name).collect();
    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(&image, "ro");
        assert!(kernel_names(&mount.path().join("large")) == expected);
        // By name, so through the index.
        for index in (0..count).step_by(97) {
            assert!(mount.path().join("large").join(name(index)).exists(), "{index}");
        }
    }
    let volume = Runner::mount(&image, Backend::Threads);
    assert!(volume.names("/large").unwrap() == expected);
    for index in (0..count).step_by(2) {
        volume.fs().unlink(format!("/large/{}", name(index)).as_bytes()).unwrap();
        expected.remove(&name(index));
    }
    volume.unmount().unwrap();
    clean(&image, test);

    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(&image, "rw");
        let large = mount.path().join("large");
        for index in 0..2000 {
            let new = format!("the kernel's file {index}");
            fs::write(large.join(&new), b"").unwrap();
            expected.insert(new);
            let old = name(2 * index + 1);
            fs::remove_file(large.join(&old)).unwrap();
            expected.remove(&old);
        }
    }
    let volume = Runner::mount(&image, Backend::Threads);
    assert!(volume.names("/large").unwrap() == expected);
    for each in expected.iter().step_by(53) {
        volume.fs().lookup(format!("/large/{each}").as_bytes(), true).unwrap();
    }
    for each in &expected {
        volume.fs().unlink(format!("/large/{each}").as_bytes()).unwrap();
    }
    volume.fs().rmdir(b"/large").unwrap();
    volume.unmount().unwrap();
    clean(&image, test);
}

#[test]
fn hundred_thousand_in_one_directory() {
    one_large_directory("hundred_thousand_in_one_directory", 1 << 30, 4096, 100_000);
}

#[test]
fn two_index_levels_at_1k() {
    one_large_directory("two_index_levels_at_1k", 256 << 20, 1024, 20_000);
}

/// Two levels of index at 1 KiB are full at last: ENOSPC, and nothing is broken. The removal revokes every block.
#[test]
fn an_index_that_is_full() {
    let test = "an_index_that_is_full";
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 192 << 20, |options| {
        options.block_size = Some(1024);
        options.journal_blocks = Some(1024);
    });
    let volume = Runner::mount(&image, Backend::Threads);
    volume.mkdir("/large").unwrap();
    let name = |index: u32| format!("/large/{index:06}{}", "n".repeat(240));
    let mut count = 0;
    let error = loop {
        match volume.touch(&name(count)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.errno(), 28, "{error}");
    assert!(count > 15_000, "{count}");
    volume.unmount().unwrap();
    clean(&image, test);
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(volume.names("/large").unwrap().len(), count as usize);
    for index in 0..count {
        volume.fs().unlink(name(index).as_bytes()).unwrap();
    }
    volume.fs().rmdir(b"/large").unwrap();
    volume.unmount().unwrap();
    clean(&image, test);
}
