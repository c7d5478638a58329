//! Orphan lists and files that say what cannot be, and orphan processing that is cut short (O4, O6).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use block_io::{Device, Event, Recorder, RecordingDevice};
use ext4::{Fs, MountOptions, MountReport, NewInode};
use ext4_format::features::ro_compat;
use ext4_format::{Ino, Superblock, orphan};
use ext4_sim::crash::judge::{Tree, mount_options, read_tree};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::format;

const BLOCK: usize = 1024;
const FILE: NewInode = NewInode { mode: 0o100_644, uid: 0, gid: 0 };

fn volume(dir: &Path, features: &str) -> Arc<MemoryDevice> {
    let image = dir.join("image");
    format(&image, 16 << 20, |options| {
        options.block_size = Some(BLOCK as u32);
        options.features = features.into();
    });
    Arc::new(MemoryDevice::new(std::fs::read(image).unwrap()))
}

fn mount(device: Arc<dyn Device>) -> ext4::Result<(Arc<Fs>, MountReport)> {
    Fs::mount(device, &mount_options(Arc::default()))
}

/// Three files without a name, open at the crash, and one with a name: their inode numbers.
fn left_open(device: &Arc<MemoryDevice>) -> Vec<u32> {
    let (fs, _) = mount(device.clone()).unwrap();
    let named = fs.create(b"/named", FILE, true).unwrap().0;
    fs.buffered_write(&named, 0, &pattern::bytes(1, 20_000)).unwrap();
    let mut open = Vec::new();
    for index in 0..3u32 {
        let path = format!("/open {index}");
        let (inode, _) = fs.create(path.as_bytes(), FILE, true).unwrap();
        fs.buffered_write(&inode, 0, &pattern::bytes(index, 30_000)).unwrap();
        fs.unlink(path.as_bytes()).unwrap();
        open.push(inode);
    }
    fs.release(&named).unwrap();
    fs.unmount().unwrap();
    open.iter().map(|inode| inode.ino.0).collect()
}

fn superblock(bytes: &[u8]) -> Superblock {
    Superblock::decode(&bytes[1024..2048]).unwrap()
}

/// Changes an inode in its table, sum and all.
fn change_inode(bytes: &mut [u8], ino: u32, change: impl FnOnce(&mut ext4_format::Inode)) {
    let sb = superblock(bytes);
    let location = sb.inode_location(Ino(ino)).unwrap();
    let (block, offset) = sb.desc_location(location.group);
    let at = block.0 as usize * BLOCK + offset;
    let desc = ext4_format::GroupDesc::decode(&bytes[at..at + sb.desc_size()], &sb, location.group).unwrap();
    let at =
        (desc.inode_table as usize + location.table_block as usize) * BLOCK + location.offset_bytes as usize;
    let slot = &mut bytes[at..at + usize::from(sb.inode_size())];
    let mut inode = ext4_format::Inode::decode(slot, &sb, Ino(ino)).unwrap();
    change(&mut inode);
    inode.encode_into(slot, &sb, Ino(ino));
}

fn recovered(dir: &Path, bytes: Vec<u8>, clean: bool) -> MountReport {
    let device = Arc::new(MemoryDevice::new(bytes));
    let (fs, report) = mount(device.clone()).unwrap();
    assert!(fs.lookup(b"/named", true).is_ok());
    fs.unmount().unwrap();
    if clean && available(Need::E2fsprogs, "orphans") {
        let image = dir.join("recovered");
        std::fs::write(&image, device.snapshot()).unwrap();
        assert_clean(&image);
    }
    report
}

/// X41. A list that goes round, or leads nowhere, is followed as far as it makes sense; the rest is dropped.
#[test]
fn a_list_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "^orphan_file");
    let open = left_open(&device);
    let bytes = device.snapshot();
    // The last that was added is the head.
    assert_eq!(superblock(&bytes).last_orphan, open[2]);
    assert_eq!(recovered(dir.path(), bytes.clone(), true).orphans.deleted, 3);
    let free = superblock(&bytes).inodes_count - 1;
    for next in [open[2], open[0], u32::MAX, 3, free] {
        let mut bytes = bytes.clone();
        change_inode(&mut bytes, open[0], |inode| inode.dtime = next);
        let report = recovered(dir.path(), bytes, true);
        assert_eq!((report.orphans.deleted, report.orphans.bad), (3, 1), "the list goes on at {next}");
    }
    for head in [u32::MAX, 3, free] {
        let mut bytes = bytes.clone();
        let mut sb = superblock(&bytes);
        sb.last_orphan = head;
        bytes[1024..2048].copy_from_slice(&sb.encode());
        // Those behind it are lost to us; e2fsck finds them.
        let report = recovered(dir.path(), bytes, false);
        assert_eq!((report.orphans.deleted, report.orphans.bad), (0, 1), "head {head}");
    }
}

/// X41. Bad numbers in the orphan file are stepped over, here and by the kernel.
#[test]
fn a_file_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let device = volume(dir.path(), "");
    let open = left_open(&device);
    let bytes = device.snapshot();
    let sb = superblock(&bytes);
    let start = bytes
        .chunks(BLOCK)
        .position(|block| {
            orphan::slot(block, 0) != 0 && block[BLOCK - 8..BLOCK - 4] == [0x04, 0xCA, 0x10, 0x0B]
        })
        .unwrap();
    let seed = {
        let file = Ino(sb.orphan_file_inum);
        let mut generation = 0;
        change_inode(&mut bytes.clone(), file.0, |inode| generation = inode.generation);
        ext4_format::checksum::inode_seed(sb.fs_seed(), file, generation)
    };
    for bad in [u32::MAX, 3, sb.inodes_count - 1] {
        let mut bytes = bytes.clone();
        let block = &mut bytes[start * BLOCK..][..BLOCK];
        orphan::set_slot(block, 5, bad);
        orphan::seal(block, seed, ext4_format::Pblk(start as u64));
        if available(Need::KernelMount, "a_file_that_cannot_be") {
            let image = dir.path().join("kernel");
            std::fs::write(&image, &bytes).unwrap();
            assert!(KernelMount::new(&image, "rw").path().join("named").exists());
        }
        let report = recovered(dir.path(), bytes, false);
        assert_eq!((report.orphans.deleted, report.orphans.bad), (open.len() as u32, 1), "{bad}");
    }
}

/// X41, X42. Cut short after any write, processing goes on where it was; ORPHAN_PRESENT stays as long as there is an orphan.
#[test]
fn processing_that_is_cut_short() {
    for features in ["", "^orphan_file"] {
        let dir = tempfile::tempdir().unwrap();
        let device = volume(dir.path(), features);
        left_open(&device);
        let before = device.snapshot();
        let present = |bytes: &[u8]| superblock(bytes).features().has_ro_compat(ro_compat::ORPHAN_PRESENT);
        assert_eq!(present(&before), features.is_empty());
        let reader = MountOptions { read_only: true, ..MountOptions::default() };
        Fs::mount(device.clone(), &reader).unwrap().0.unmount().unwrap();
        assert!(device.snapshot() == before, "a read-only mount leaves them");

        let recorder = Recorder::new();
        let recording: Arc<dyn Device> = Arc::new(RecordingDevice::new(device.clone(), recorder.clone(), 0));
        let (fs, report) = mount(recording).unwrap();
        assert_eq!(report.orphans.deleted, 3);
        assert!(!features.is_empty() || present(&device.snapshot()), "in use");
        let tree: Tree = read_tree(&fs).unwrap();
        fs.unmount().unwrap();
        assert!(!present(&device.snapshot()));
        let mut bytes = before;
        for event in recorder.take() {
            let Event::WriteSubmitted { offset_bytes, bytes: written, .. } = event else { continue };
            bytes[offset_bytes as usize..][..written.len()].copy_from_slice(&written);
            let again = Arc::new(MemoryDevice::new(bytes.clone()));
            let (fs, _) = mount(again.clone()).unwrap();
            assert!(read_tree(&fs).unwrap() == tree);
            fs.unmount().unwrap();
            assert!(!present(&again.snapshot()));
            if available(Need::E2fsprogs, "processing_that_is_cut_short") {
                let image = dir.path().join("cut");
                std::fs::write(&image, again.snapshot()).unwrap();
                assert_clean(&image);
            }
        }
    }
}
