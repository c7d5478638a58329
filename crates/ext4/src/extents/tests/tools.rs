//! Trees that mke2fs made, read by us; and ours in their place, judged by e2fsck and debugfs.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use block_io::AlignedBuf;
use ext4_format::checksum::{CRC32C_SEED, crc32c, inode_seed};
use ext4_format::extent::{Extent, empty_root};
use ext4_format::{Ino, Lblk, Pblk};

use crate::error::errno;
use crate::extents::{MapState, Tree, TreeOwner, lookup, next_allocated, tree_blocks};
use crate::meta::{BlockKind, BlockOwner, Image, Meta};
use crate::{Error, Result};

const BLOCK: usize = 1024;
const RUNS: u32 = 600;

/// A volume whose only file has `RUNS` runs of two blocks with holes of one between.
fn volume(dir: &Path) -> Option<Vec<u8>> {
    let (source, image) = (dir.join("source"), dir.join("image"));
    fs::create_dir(&source).unwrap();
    let mut file = File::create(source.join("f")).unwrap();
    for i in 0..u64::from(RUNS) {
        file.seek(SeekFrom::Start(i * 3 * BLOCK as u64)).unwrap();
        file.write_all(&[b'x'; 2 * BLOCK]).unwrap();
    }
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "1024", "-I", "256", "-O", "metadata_csum,64bit", "-d"])
        .args([source.as_os_str(), image.as_os_str(), "8M".as_ref()])
        .status();
    match made {
        Ok(status) if status.success() => Some(fs::read(image).unwrap()),
        _ => {
            eprintln!("skipped: no mke2fs that can fill a volume");
            None
        }
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Inode 12, the first that is not special, as bytes of the image.
fn inode_at(image: &[u8]) -> usize {
    le32(image, 2 * BLOCK + 8) as usize * BLOCK + 11 * 256
}

fn owner(image: &[u8]) -> TreeOwner {
    let uuid = &image[1024 + 0x68..][..16];
    let generation = le32(image, inode_at(image) + 0x64);
    let seed = inode_seed(crc32c(CRC32C_SEED, uuid), Ino(12), generation);
    TreeOwner { ino: Ino(12), seed, goal: Pblk(100), blocks: 8192, apart: false }
}

fn root(image: &[u8]) -> [u8; 60] {
    image[inode_at(image) + 0x28..][..60].try_into().unwrap()
}

/// An image's blocks; gives out those of the old tree for the new one.
struct Volume {
    image: Vec<u8>,
    free: Vec<Pblk>,
}

impl Volume {
    fn block(&mut self, block: Pblk) -> &mut [u8] {
        &mut self.image[block.0 as usize * BLOCK..][..BLOCK]
    }
}

fn seed(kind: BlockKind) -> u32 {
    let BlockKind::ExtentNode { seed } = kind else { panic!("{kind:?}") };
    seed
}

impl Meta for Volume {
    fn block_size(&self) -> usize {
        BLOCK
    }
    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image> {
        let bytes = &self.image[block.0 as usize * BLOCK..][..BLOCK];
        ext4_format::extent::verify_tail(bytes, seed(kind)).map_err(|e| Error::corrupt_block(block.0, e))?;
        Ok(AlignedBuf::copy_of(bytes).into())
    }
    fn update(&mut self, block: Pblk, kind: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let bytes = self.block(block);
        change(bytes);
        ext4_format::extent::seal_tail(bytes, seed(kind));
        Ok(())
    }
    fn create(&mut self, block: Pblk, kind: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.block(block).fill(0);
        self.update(block, kind, fill)
    }
    fn allocate_block(&mut self, _: BlockOwner) -> Result<Pblk> {
        self.free.pop().ok_or(Error::errno_only(errno::ENOSPC))
    }
    fn free_block(&mut self, block: Pblk, _: Ino) -> Result<()> {
        self.free.push(block);
        Ok(())
    }
    fn free_data(&mut self, _: Pblk, _: u32, _: Ino) -> Result<()> {
        unreachable!("nothing is removed")
    }
    fn ensure_credits(&mut self, _: u32) -> Result<bool> {
        Ok(true)
    }
}

fn all(volume: &Volume, owner: TreeOwner) -> Vec<Extent> {
    let (mut found, mut from, root) = (Vec::new(), 0, root(&volume.image));
    while let Some(run) = next_allocated(volume, &root, owner, Lblk(from)).unwrap() {
        let unwritten = run.state == MapState::Unwritten;
        found.push(Extent { lblk: run.lblk, len: run.len, start: run.start, unwritten });
        from = run.lblk.0 + run.len;
    }
    found
}

/// The old tree's blocks: what the root and the nodes below it point to.
fn nodes(volume: &Volume, root: &[u8]) -> Vec<Pblk> {
    let (entries, depth) = (usize::from(root[2]), root[6]);
    let child = |i: usize| Pblk(le32(root, 12 + 12 * i + 4).into());
    let below = (0..if depth == 0 { 0 } else { entries }).map(child);
    below
        .flat_map(|at| [vec![at], nodes(volume, &volume.image[at.0 as usize * BLOCK..][..BLOCK])].concat())
        .collect()
}

#[test]
fn mke2fs_trees_are_read_and_ours_are_clean() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path()) else { return };
    let owner = owner(&image);
    let mut volume = Volume { image, free: Vec::new() };
    let mut root = root(&volume.image);
    let old = all(&volume, owner);
    assert_eq!(old.iter().map(|extent| extent.len).sum::<u32>(), 2 * RUNS);
    for i in 0..RUNS {
        for at in [3 * i, 3 * i + 1] {
            assert_eq!(lookup(&volume, &root, owner, Lblk(at)).unwrap().state, MapState::Written);
        }
        assert_eq!(lookup(&volume, &root, owner, Lblk(3 * i + 2)).unwrap().state, MapState::Hole);
    }
    volume.free = nodes(&volume, &root);
    let given = volume.free.len();
    assert_eq!(tree_blocks(&volume, &root, owner), Ok(given as u64));

    // The same blocks in a tree of ours, some unwritten, in as many nodes.
    root = empty_root();
    let mut tree = Tree::new(&mut volume, &mut root, owner);
    old.iter().for_each(|extent| tree.insert(*extent).unwrap());
    let mut zero = |_: Pblk, _: u32| panic!("there is room");
    for i in (0..RUNS).step_by(50) {
        let _ = tree.convert_to_unwritten(Lblk(3 * i), 2, &mut zero).unwrap();
    }
    let _ = tree.convert_zeroing(Lblk(150), 2, 0, &mut zero).unwrap();
    assert_eq!(tree.meta_blocks_delta, given as i64, "so that i_blocks and the bitmap stay right");
    store_root(&mut volume.image, &root, owner);
    judge(dir.path(), &volume.image);
}

fn store_root(image: &mut [u8], root: &[u8; 60], owner: TreeOwner) {
    let at = inode_at(image);
    let inode = &mut image[at..at + 256];
    inode[0x28..0x28 + 60].copy_from_slice(root);
    inode[0x7C..0x7E].fill(0);
    inode[0x82..0x84].fill(0);
    let sum = crc32c(owner.seed, inode).to_le_bytes();
    inode[0x7C..0x7E].copy_from_slice(&sum[..2]);
    inode[0x82..0x84].copy_from_slice(&sum[2..]);
}

fn judge(dir: &Path, image: &[u8]) {
    let path = dir.join("ours");
    fs::write(&path, image).unwrap();
    let check = Command::new("e2fsck").arg("-fn").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said}");
    let dump = Command::new("debugfs").args(["-R", "ex <12>"]).arg(&path).output().unwrap();
    let dump = String::from_utf8_lossy(&dump.stdout);
    assert_eq!(dump.matches("Uninit").count(), RUNS.div_ceil(50) as usize - 1, "{dump}");
}
