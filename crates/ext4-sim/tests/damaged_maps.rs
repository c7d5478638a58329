//! Volumes without checksums, damaged at random: every operation ends, with an error or not.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::sync::Arc;

use block_io::{EventFd, ImmediateQueue};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, available, tool_ok};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner};

const ROUNDS: usize = 1000;

/// Files on every height of an ext3 volume of 1 KiB blocks.
fn volume() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    tool_ok("mke2fs", &["-q", "-F", "-t", "ext3", "-b", "1024", image.to_str().unwrap()]);
    let mut volume = Runner::mount(&image, Backend::Threads);
    volume.mkdir("/dir").unwrap();
    for index in 0..40 {
        volume.write_file(&format!("/dir/file{index}"), &pattern::bytes(index, 20_000)).unwrap();
    }
    let file = volume.create("/deep").unwrap();
    let inode = volume.inode(file);
    for lblk in [0u64, 12, 300, 70_000] {
        volume.fs().buffered_write(&inode, lblk * 1024, &pattern::bytes(1, 5000)).unwrap();
    }
    drop(inode);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    fs::read(&image).unwrap()
}

/// All that a user may do; nothing is expected of it but an end.
fn use_it(bytes: Vec<u8>) {
    let device = Arc::new(MemoryDevice::new(bytes));
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    let Ok(mut volume) = Runner::over(device, queue, event) else { return };
    let _listed = volume.fs().read_dir(b"/dir", &mut |_, _, _| true);
    for path in ["/deep", "/dir/file0", "/dir/file20", "/dir/file39"] {
        let Ok(file) = volume.open(path) else { continue };
        let inode = volume.inode(file);
        let mut block = [0; 4096];
        for lblk in [0, 12, 300, 70_000] {
            let _read = volume.fs().buffered_read(&inode, lblk * 1024, &mut block);
            let _written = volume.fs().buffered_write(&inode, lblk * 1024 + 3000, &block);
        }
        let _extents = volume.fs().extents(&inode, 0, u64::MAX, 1000);
        let _truncated = volume.fs().truncate(&inode, 13_000);
        let _direct = volume.direct_write(file, 13_312, &block[..1024]);
        drop(inode);
        let _closed = volume.close(file);
        let _unlinked = volume.fs().unlink(path.as_bytes());
    }
    let _made = volume.mkdir("/new");
    let _unmounted = volume.unmount();
}

#[test]
fn damage_without_checksums_ends_in_errors() {
    if !available(Need::E2fsprogs, "damage_without_checksums_ends_in_errors") {
        return;
    }
    let sound = volume();
    // Where there is metadata, tables among it: blocks that are no pattern and not empty.
    let blocks: Vec<usize> = (1..sound.len() / 1024)
        .filter(|block| sound[block * 1024..][..1024].iter().filter(|&&byte| byte == 0).count() > 100)
        .filter(|block| sound[block * 1024..][..1024].iter().any(|&byte| byte != 0))
        .collect();
    let mut random = 7u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..ROUNDS {
        let mut bytes = sound.clone();
        for _ in 0..1 + next(8) {
            let block = blocks[next(blocks.len())];
            let nonzero: Vec<usize> =
                (block * 1024..(block + 1) * 1024).filter(|&at| bytes[at] != 0 || at % 97 == 0).collect();
            if let Some(&at) = nonzero.get(next(nonzero.len().max(1))) {
                bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, bytes[at] ^ 1, bytes[at].wrapping_add(1)][next(7)];
            }
        }
        use_it(bytes);
    }
}
