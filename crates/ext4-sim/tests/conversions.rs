//! Conversions of unwritten extents where hardly a block is free. They used to zero neighbours when the tree had no room for
//! a split: two of three writes that had been reported as done were zeros afterwards, and e2fsck saw nothing wrong.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;

use ext4::FallocateMode;
use ext4::aio::FileId;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, DirectWriteInFlight, Runner, format};

const ENOSPC: i32 = 28;
const EAGAIN: i32 = 11;
const BLOCK: usize = 4096;
const PREPARED: usize = 1024;

fn image_of(size_bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, size_bytes, |options| options.block_size = Some(BLOCK as u32));
    (dir, image)
}

fn fill(volume: &mut Runner, path: &str) {
    let file = volume.create(path).unwrap();
    let mut end = 0;
    for len in [1 << 20, 1 << 16, BLOCK] {
        while let Ok(written) = volume.direct_write(file, end, &pattern::bytes(2, len)) {
            end += written;
        }
    }
    volume.close(file).unwrap();
}

/// A volume whose free blocks beyond the reserve all wait for a commit, and a preallocated file on it.
fn full_with_pending_frees(image: &Path) -> (Runner, FileId) {
    let mut volume = Runner::mount(image, Backend::Uring);
    let prepared = volume.create("/prepared").unwrap();
    let mode = FallocateMode::Allocate { keep_size: false };
    volume.fs().fallocate(&volume.inode(prepared), mode, 0, (PREPARED * BLOCK) as u64).unwrap();
    volume.write_file("/victim", &pattern::bytes(1, 8 << 20)).unwrap();
    fill(&mut volume, "/filler");
    volume.sync(prepared).unwrap();
    let before = volume.fs().superblock().free_blocks_count();
    volume.fs().unlink(b"/victim").unwrap();
    let pending = volume.fs().superblock().free_blocks_count() - before;
    let rest = volume.create("/rest").unwrap();
    let mut end = 0;
    while volume.fs().superblock().free_blocks_count() > pending {
        end += volume.direct_write(rest, end, &pattern::bytes(3, BLOCK)).unwrap();
    }
    volume.close(rest).unwrap();
    (volume, prepared)
}

/// Blocks of the file, each once, in no order.
fn scattered(seed: usize, count: usize) -> Vec<usize> {
    let mut blocks = Vec::new();
    let mut at = seed * 7919;
    while blocks.len() < count {
        at = (at * 1_103_515_245 + 12345) & 0x7fff_ffff;
        let block = at % PREPARED;
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    blocks
}

fn content(block: usize) -> Vec<u8> {
    pattern::bytes(block as u32 + 1, BLOCK)
}

/// Writes blocks, all in flight together; returns those that were reported as done. Who was sent away by the shared lock
/// comes again alone, as the policy does.
fn write_side_by_side(volume: &mut Runner, file: FileId, blocks: &[usize]) -> Vec<usize> {
    let begun: Vec<(usize, DirectWriteInFlight)> = blocks
        .iter()
        .map(|&block| {
            let pos = (block * BLOCK) as u64;
            (block, volume.begin_direct_write(file, pos, &content(block), false).unwrap())
        })
        .collect();
    let (mut done, mut again) = (Vec::new(), Vec::new());
    for (block, write) in begun {
        match volume.end_direct_write(&write) {
            Ok(_) => done.push(block),
            Err(error) if error.errno() == EAGAIN => again.push(block),
            Err(error) => assert_eq!(error.errno(), ENOSPC, "{error}"),
        }
    }
    for block in again {
        match volume.exclusive_direct_write(file, (block * BLOCK) as u64, &content(block)) {
            Ok(_) => done.push(block),
            Err(error) => assert_eq!(error.errno(), ENOSPC, "{error}"),
        }
    }
    done
}

fn expect(volume: &Runner, done: &[usize]) {
    let data = volume.read_file("/prepared").unwrap();
    for block in 0..PREPARED {
        let found = &data[block * BLOCK..][..BLOCK];
        match done.contains(&block) {
            true => assert!(found == content(block), "block {block} was reported as written"),
            false => assert!(found.iter().all(|&byte| byte == 0), "block {block} was never written"),
        }
    }
}

#[test]
fn direct_writes_side_by_side_while_free_blocks_wait_for_a_commit() {
    for seed in 1..=3 {
        let (_dir, image) = image_of(64 << 20);
        let (mut volume, file) = full_with_pending_frees(&image);
        let blocks = scattered(seed, 24);
        let done = write_side_by_side(&mut volume, file, &blocks);
        // There is reserve: nobody hears of a full volume.
        assert_eq!(done.len(), blocks.len());
        expect(&volume, &done);
        volume.close(file).unwrap();
        volume.unmount().unwrap();
        let volume = Runner::mount(&image, Backend::Threads);
        expect(&volume, &done);
        volume.unmount().unwrap();
        if available(Need::E2fsprogs, "conversions") {
            assert_clean(&image);
        }
    }
}

#[test]
fn buffered_pages_are_not_lost_for_want_of_a_tree_block() {
    let (_dir, image) = image_of(64 << 20);
    let (mut volume, file) = full_with_pending_frees(&image);
    let inode = volume.inode(file);
    // Every other block: each is an extent of its own in the end, so that the tree grows by many blocks.
    let blocks: Vec<_> = (0..PREPARED).step_by(2).collect();
    for &block in &blocks {
        let taken = volume.fs().buffered_write(&inode, (block * BLOCK) as u64, &content(block)).unwrap();
        assert_eq!(taken, BLOCK);
    }
    // What else is free goes, but for what the pages have claimed.
    fill(&mut volume, "/more");
    volume.sync(file).unwrap();
    expect(&volume, &blocks);
    drop(inode);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, "conversions") {
        assert_clean(&image);
    }
}

/// Nothing is left to be claimed: a range is split off before its data goes, where the leaf has room, or is refused.
#[test]
fn direct_writes_on_a_volume_that_the_kernel_filled() {
    if !available(Need::KernelMount, "conversions on a volume that the kernel filled") {
        return;
    }
    let (_dir, image) = image_of(64 << 20);
    {
        let mount = KernelMount::new(&image, "rw");
        let script = r#"
            set -e
            device=$(basename "$(findmnt -n -o SOURCE --mountpoint "$1")")
            echo 0 > "/sys/fs/ext4/$device/reserved_clusters"
            fallocate -l "$2" "$1/prepared"
            dd if=/dev/zero of="$1/filler" bs=64k 2>/dev/null || true
            dd if=/dev/zero of="$1/rest" bs=4k 2>/dev/null || true
            test "$(stat -f -c %f "$1")" = 0
        "#;
        let filled = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(mount.path())
            .arg((PREPARED * BLOCK).to_string())
            .status()
            .unwrap();
        assert!(filled.success());
    }
    let mut volume = Runner::mount(&image, Backend::Uring);
    assert_eq!(volume.fs().superblock().free_blocks_count(), 0);
    let file = volume.open("/prepared").unwrap();
    let done = write_side_by_side(&mut volume, file, &scattered(5, 24));
    // The root has room for three more extents.
    assert!(!done.is_empty() && done.len() < 24, "{}", done.len());
    expect(&volume, &done);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    assert_clean(&image);
}
