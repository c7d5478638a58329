//! Volumes made by mke2fs, judged by e2fsck after the allocators have been at work.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use block_io::AlignedBuf;
use ext4_format::{Ino, Pblk, Superblock};

use super::volume::Volume;
use super::{Request, RequestKind};
use crate::ialloc::NewInodeRequest;

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// All that is allocated is freed again, so every count must be as before, and the volume clean.
#[test]
fn e2fsck_finds_nothing() {
    let variants: [(&str, &[&str]); 6] = [
        ("4096", &["-O", "metadata_csum,64bit"]),
        ("1024", &["-O", "metadata_csum,64bit"]),
        ("1024", &["-O", "^metadata_csum,uninit_bg,^64bit"]),
        ("4096", &["-O", "^metadata_csum,^uninit_bg,^64bit,^flex_bg"]),
        ("4096", &["-O", "metadata_csum,bigalloc", "-C", "16384"]),
        ("1024", &["-O", "metadata_csum,meta_bg,^resize_inode,^64bit"]),
    ];
    for (block_size, arguments) in variants {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(300 << 20).unwrap();
        let path = file.path().to_str().unwrap();
        let (made, output) =
            run("mke2fs", &[&["-q", "-F", "-t", "ext4", "-b", block_size], arguments, &[path]].concat());
        assert!(made, "{output}");
        let bytes = std::fs::read(path).unwrap();
        let sb = Arc::new(Superblock::decode(&bytes[1024..]).unwrap());
        let chunks = bytes.chunks_exact(sb.block_size() as usize).enumerate();
        let used = chunks.filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
        let blocks: HashMap<_, _> =
            used.map(|(at, chunk)| (at as u64, Arc::new(AlignedBuf::copy_of(chunk)))).collect();
        let mut volume = Volume { sb: sb.clone(), blocks: Arc::new(Mutex::new(blocks)), tid: 1 };
        exercise(&mut volume);
        let mut bytes = bytes;
        for (block, image) in volume.blocks.lock().unwrap().iter() {
            let start = *block as usize * sb.block_size() as usize;
            bytes[start..start + image.len()].copy_from_slice(image);
        }
        std::fs::write(path, bytes).unwrap();
        let (clean, output) = run("e2fsck", &["-f", "-n", path]);
        assert!(clean, "{arguments:?}: {output}");
    }
}

fn exercise(volume: &mut Volume) {
    let allocator = volume.allocator().unwrap();
    let sb = volume.sb.clone();
    let before = allocator.totals();
    assert_eq!(before.free_blocks, sb.free_blocks_count());
    assert_eq!(before.free_inodes, u64::from(sb.free_inodes_count));
    let mut runs = Vec::new();
    for group in volume.groups().collect::<Vec<_>>() {
        let request = Request {
            ino: Ino(12),
            lblk: None,
            goal: Pblk(sb.group_first_block(group).0 + 300),
            len: 1000,
            min_len: 1,
            kind: RequestKind::Data,
            may_use_reserve: false,
            preallocate: false,
            below_2_32: true,
        };
        runs.push(allocator.allocate(volume, &request).unwrap());
    }
    let inodes: Vec<_> = (0..200)
        .map(|at| {
            let is_dir = at % 2 == 0;
            let wish = NewInodeRequest { parent: Ino(2), is_dir, is_top: false };
            (allocator.new_inode(volume, &wish).unwrap().ino, is_dir)
        })
        .collect();
    assert_ne!(allocator.totals(), before);
    for run in runs {
        allocator.free(volume, run.start, run.len).unwrap();
    }
    for (ino, is_dir) in inodes {
        allocator.free_inode(volume, ino, is_dir).unwrap();
    }
    assert_eq!(allocator.totals(), before);
    assert_eq!(volume.allocator().unwrap().totals(), before);
}
