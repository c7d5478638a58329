//! What a mount refuses of superblock and root inode, as the kernel does. A volume without a root directory was mounted, and so
//! was one whose fields lie outside its inodes: the first error came from the middle of the work.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use ext4::{Fs, MountOptions, errno};
use ext4_format::inode::{S_IFREG, special};
use ext4_format::{Group, GroupDesc, Inode, Superblock};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::metadata_guard::inode;
use ext4_sim::oracle::{KernelMount, Need, available};
use ext4_sim::runner::format;

const S_CREATOR_OS: usize = 0x48;
const S_FEATURE_INCOMPAT: usize = 0x60;
const S_MIN_EXTRA_ISIZE: usize = 0x15C;
const S_WANT_EXTRA_ISIZE: usize = 0x15E;
const HURD: u8 = 1;
const EA_INODE: u8 = 4;

fn volume(features: &str, inode_size: u16) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 8 << 20, |options| {
        options.block_size = Some(1024);
        options.inode_size = Some(inode_size);
        options.features = features.into();
    });
    std::fs::read(&image).unwrap()
}

fn with_superblock(image: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = image.to_vec();
    change(&mut image[1024..2048]);
    Superblock::seal(&mut image[1024..2048]);
    image
}

fn with_root(image: &[u8], change: impl FnOnce(&mut Inode)) -> Vec<u8> {
    let mut image = image.to_vec();
    let superblock = Superblock::decode(&image[1024..2048]).unwrap();
    let (block, offset) = superblock.desc_location(Group(0));
    let desc = &image[block.0 as usize * 1024 + offset..][..superblock.desc_size()];
    let table = GroupDesc::decode(desc, &superblock, Group(0)).unwrap().inode_table;
    let mut root = inode(&superblock, &image, special::ROOT).unwrap();
    change(&mut root);
    let at = table as usize * 1024 + superblock.inode_location(special::ROOT).unwrap().offset_bytes as usize;
    let bytes = root.encode(&superblock, special::ROOT);
    image[at..at + bytes.len()].copy_from_slice(&bytes);
    image
}

/// What we say, for writing and for reading; nothing is written where we refuse.
fn ours(image: &[u8]) -> Option<i32> {
    let mount = |read_only| {
        let device = Arc::new(MemoryDevice::new(image.to_vec()));
        let options = MountOptions { read_only, ..MountOptions::default() };
        let refused = Fs::mount(device.clone(), &options).err().map(|error| error.errno());
        assert!(refused.is_none() || device.snapshot() == image, "a refusal that writes");
        refused
    };
    let (writing, reading) = (mount(false), mount(true));
    assert_eq!(writing, reading);
    writing
}

fn check(image: &[u8], expected: Option<i32>, what: &str) {
    assert_eq!(ours(image), expected, "{what}");
    if !available(Need::KernelMount, what) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("image");
    std::fs::write(path, image).unwrap();
    let kernel = KernelMount::try_new(path, "ro");
    assert_eq!(kernel.is_err(), expected.is_some(), "{what}, the kernel");
}

#[test]
fn a_root_that_is_none() {
    let sound = volume("", 256);
    check(&sound, None, "a sound root");
    check(&with_root(&sound, |root| root.links_count = 0), Some(errno::EUCLEAN), "a free root");
    let file = with_root(&sound, |root| root.mode = S_IFREG | 0o644);
    check(&file, Some(errno::EUCLEAN), "a root that is a file");
    check(&with_root(&sound, |root| root.size = 0), Some(errno::EUCLEAN), "an empty root");
    check(&with_root(&sound, |root| root.blocks = 0), Some(errno::EUCLEAN), "a root without blocks");
    check(&with_root(&sound, |root| root.mode &= !0o777), None, "a root that nobody may enter");
}

#[test]
fn a_volume_of_the_hurd() {
    let hurd = |image: &[u8]| with_superblock(image, |superblock| superblock[S_CREATOR_OS] = HURD);
    check(&hurd(&volume("", 256)), Some(errno::EINVAL), "the Hurd's with 64bit");
    let narrow = volume("^64bit", 256);
    let values = with_superblock(&hurd(&narrow), |superblock| superblock[S_FEATURE_INCOMPAT + 1] |= EA_INODE);
    check(&values, Some(errno::EINVAL), "the Hurd's with ea_inode");
    check(&hurd(&narrow), None, "the Hurd's");
}

#[test]
fn fields_outside_the_inode() {
    let with = |image: &[u8], at: usize, size: u16| {
        with_superblock(image, |superblock| superblock[at..at + 2].copy_from_slice(&size.to_le_bytes()))
    };
    let sound = volume("", 256);
    for at in [S_WANT_EXTRA_ISIZE, S_MIN_EXTRA_ISIZE] {
        check(&with(&sound, at, 129), Some(errno::EINVAL), "one byte too many");
        check(&with(&sound, at, u16::MAX), Some(errno::EINVAL), "far too many");
        check(&with(&sound, at, 128), None, "as many as there are");
    }
    let old = volume("^extra_isize", 256);
    check(&with(&old, S_WANT_EXTRA_ISIZE, 129), None, "without the feature they mean nothing");
}
