//! errors=: what follows from damage, and what the tools of e2fsprogs then read (EP1–EP4).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use block_io::Device;
use ext4::{ErrorMode, Fs, MountOptions, NewInode, Result, errno};
use ext4_format::superblock::state;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, available, tool, tool_ok};
use ext4_sim::runner::format;

const DIR: NewInode = NewInode { mode: 0o755, uid: 0, gid: 0 };
const NAMES: u32 = 300;

/// A volume with a wrong checksum in a block of directory /damaged, and the number of that block.
fn damaged(image: &Path) -> (Arc<MemoryDevice>, u64) {
    format(image, 16 << 20, |options| options.block_size = Some(1024));
    let device = Arc::new(MemoryDevice::new(fs::read(image).unwrap()));
    let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    fs.mkdir(b"/damaged", DIR).unwrap();
    for index in 0..NAMES {
        let file = NewInode { mode: 0o100_644, ..DIR };
        let (inode, _) = fs.create(format!("/damaged/name-{index}").as_bytes(), file, false).unwrap();
        fs.release(&inode).unwrap();
    }
    fs.unmount().unwrap();
    let bytes = device.snapshot();
    // The first leaf holds this name.
    let at = bytes.windows(6).position(|bytes| bytes == b"name-0").unwrap() as u64;
    let block = at / 1024;
    let mut content = block_io::AlignedBuf::zeroed(1024);
    device.read(block * 1024, &mut content).unwrap();
    content[1023] ^= 1;
    device.write(block * 1024, &content, false).unwrap();
    (device, block)
}

fn mount(device: &Arc<MemoryDevice>, errors: ErrorMode) -> Arc<Fs> {
    let options = MountOptions { errors: Some(errors), ..MountOptions::default() };
    Fs::mount(device.clone(), &options).unwrap().0
}

/// Looks every name up; damage is met on the way.
fn meet_damage(fs: &Arc<Fs>) -> Vec<i32> {
    let look = |index: u32| -> Result<()> {
        fs.lookup(format!("/damaged/name-{index}").as_bytes(), true).map(|_| ())
    };
    let mut errnos: Vec<i32> = (0..NAMES).filter_map(|index| look(index).err()).map(|e| e.errno()).collect();
    errnos.dedup();
    errnos
}

/// What dumpe2fs says about errors, by name.
fn fields(device: &MemoryDevice, image: &Path) -> impl Fn(&str) -> Option<String> + use<> {
    fs::write(image, device.snapshot()).unwrap();
    let text = match available(Need::E2fsprogs, "error_policy") {
        true => tool_ok("dumpe2fs", &["-h", image.to_str().unwrap()]),
        false => String::new(),
    };
    move |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    }
}

fn assert_recorded(device: &MemoryDevice, image: &Path, block: u64) {
    let superblock = ext4::read_superblock(device).unwrap();
    assert_ne!(superblock.state & state::ERROR, 0);
    assert!(superblock.error_count >= 1);
    assert_eq!((superblock.first_error_block, superblock.first_error_errcode), (block, 4));
    assert_ne!(superblock.first_error_time(), 0);
    if !available(Need::E2fsprogs, "error_policy") {
        return;
    }
    let field = fields(device, image);
    assert!(field("Filesystem state").unwrap().contains("with errors"));
    assert_eq!(field("First error function").as_deref(), Some("read_metadata"));
    assert_eq!(field("First error block #"), Some(block.to_string()));
    assert_eq!(field("First error err").as_deref(), Some("EFSBADCRC"));
    assert_eq!(field("FS Error count"), Some(superblock.error_count.to_string()));
}

/// X44.
#[test]
fn goes_on_and_records_it_through_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (device, block) = damaged(&image);
    let fs = mount(&device, ErrorMode::Continue);
    assert_eq!(meet_damage(&fs), [errno::EBADMSG]);
    fs.mkdir(b"/goes-on", DIR).unwrap();
    fs.tick();
    fs.sync().unwrap();
    fs.shut_down();
    // Durable with the commit: a crash does not lose it.
    let (fs, report) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    assert!(report.transactions_replayed > 0);
    assert!(fs.lookup(b"/goes-on", true).is_ok());
    let count = fs.superblock().error_count;
    assert_eq!(meet_damage(&fs), [errno::EBADMSG]);
    fs.unmount().unwrap();
    assert_recorded(&device, &image, block);
    assert!(ext4::read_superblock(&*device).unwrap().error_count > count, "earlier errors still count");
}

/// X44. One damaged bitmap, of the only group with space, made a volume with errors=continue EROFS for good after one EUCLEAN,
/// and what had been acknowledged and not synced was lost. As on Linux the group is used no more: what needs space is ENOSPC, what
/// is freed there waits for e2fsck, all else goes on.
#[test]
fn goes_on_without_the_groups_whose_bitmaps_are_damaged() {
    const BLOCK: u64 = 4096;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 64 << 20, |options| options.block_size = Some(4096));
    let formatted = fs::read(&image).unwrap();
    for inode_bitmap in [false, true] {
        let device = Arc::new(MemoryDevice::new(formatted.clone()));
        let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
        for name in [&b"/old"[..], b"/gone"] {
            fs.mkdir(name, DIR).unwrap();
        }
        fs.unmount().unwrap();
        let mut block = block_io::AlignedBuf::zeroed(BLOCK as usize);
        // The descriptors follow the superblock; there is one, of the only group.
        device.read(BLOCK, &mut block).unwrap();
        let at = if inode_bitmap { 4 } else { 0 };
        let bitmap = u64::from(u32::from_le_bytes(block[at..at + 4].try_into().unwrap()));
        device.read(bitmap * BLOCK, &mut block).unwrap();
        block[1000] ^= 1;
        device.write(bitmap * BLOCK, &block, false).unwrap();

        let fs = mount(&device, ErrorMode::Continue);
        fs.rename(b"/old", b"/kept").unwrap();
        let create = || fs.create(b"/no-block", NewInode { mode: 0o100_644, ..DIR }, false).map(drop);
        assert_eq!(create().err().map(|error| error.errno()), inode_bitmap.then_some(errno::EBADMSG));
        let mkdir = || fs.mkdir(b"/new", DIR).map(drop).unwrap_err().errno();
        // Who finds it hears of it.
        assert_eq!(mkdir(), if inode_bitmap { errno::ENOSPC } else { errno::EBADMSG });
        assert_eq!([mkdir(), mkdir()], [errno::ENOSPC; 2]);
        fs.rmdir(b"/gone").unwrap();
        fs.tick();
        fs.sync().unwrap();
        fs.shut_down();
        drop(fs);
        let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
        assert!(fs.lookup(b"/kept", true).is_ok());
        assert_eq!(fs.lookup(b"/no-block", true).is_ok(), !inode_bitmap);
        assert!(fs.lookup(b"/gone", true).is_err());
        fs.sync().unwrap();
        fs.unmount().unwrap();
        assert_ne!(ext4::read_superblock(&*device).unwrap().state & state::ERROR, 0);
        if available(Need::E2fsprogs, "error_policy") {
            fs::write(&image, device.snapshot()).unwrap();
            let repaired = tool("e2fsck", &["-fy", image.to_str().unwrap()]);
            assert_eq!(repaired.status.code(), Some(1), "{}", String::from_utf8_lossy(&repaired.stdout));
            tool_ok("e2fsck", &["-fn", image.to_str().unwrap()]);
        }
    }
}

/// X44. On Linux 6.18 too an error under errors=remount-ro makes direct and buffered writes, fsync and opening for writing EROFS,
/// and reads go on; under errors=continue all goes on; after a shutdown everything is EIO (A1). An aborted journal (a log that
/// could not be written) is EROFS there under either, after the fsync that met it; under errors=continue from the first change
/// that needs a handle on.
#[test]
fn becomes_read_only_and_the_next_mount_knows() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (device, block) = damaged(&image);
    let fs = mount(&device, ErrorMode::RemountReadOnly);
    fs.mkdir(b"/before", DIR).unwrap();
    fs.sync().unwrap();
    assert_eq!(meet_damage(&fs), [errno::EBADMSG]);
    assert_eq!(fs.mkdir(b"/late", DIR).err().unwrap().errno(), errno::EROFS);
    assert!(fs.lookup(b"/before", true).is_ok(), "it can be read");
    assert_recorded(&device, &image, block);
    assert!(fs.unmount().is_err());
    // The log holds older superblocks: what was written beside it stays (R14, R15).
    let (fs, report) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    assert!(report.transactions_replayed > 0);
    assert!(fs.lookup(b"/before", true).is_ok());
    fs.unmount().unwrap();
    assert_recorded(&device, &image, block);
}

/// X44.
#[test]
fn stops() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (device, block) = damaged(&image);
    let fs = mount(&device, ErrorMode::Shutdown);
    let errnos = meet_damage(&fs);
    assert_eq!(errnos.first(), Some(&errno::EBADMSG));
    assert_eq!(errnos.last(), Some(&errno::EIO));
    assert_eq!(fs.mkdir(b"/late", DIR).err().unwrap().errno(), errno::EIO);
    assert_recorded(&device, &image, block);
}

#[test]
fn the_volume_says_what_follows_and_nothing_is_written_when_it_is_only_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (device, _) = damaged(&image);
    let reader = MountOptions { read_only: true, ..MountOptions::default() };
    let before = device.snapshot();
    let (fs, _) = Fs::mount(device.clone(), &reader).unwrap();
    assert_eq!(meet_damage(&fs), [errno::EBADMSG]);
    drop(fs);
    assert!(before == device.snapshot());
    if !available(Need::E2fsprogs, "error_policy") {
        return;
    }
    fs::write(&image, before).unwrap();
    tool_ok("tune2fs", &["-e", "remount-ro", image.to_str().unwrap()]);
    let device = Arc::new(MemoryDevice::new(fs::read(&image).unwrap()));
    let (fs, _) = Fs::mount(device, &MountOptions::default()).unwrap();
    assert_eq!(meet_damage(&fs), [errno::EBADMSG]);
    assert_eq!(fs.mkdir(b"/late", DIR).err().unwrap().errno(), errno::EROFS);
}

/// X44. EP5, EP6: what mounts and writes leave in the superblock.
#[test]
fn counters_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |_| ());
    let read = || ext4::read_superblock(&*ext4_sim::runner::open_device(&image)).unwrap();
    let before = read();
    for mounts in 1..=2u16 {
        let device = ext4_sim::runner::open_device(&image);
        let (fs, _) = Fs::mount(device, &MountOptions::default()).unwrap();
        let file = NewInode { mode: 0o100_644, ..DIR };
        let (inode, _) = fs.create(format!("/{mounts}").as_bytes(), file, true).unwrap();
        fs.buffered_write(&inode, 0, &vec![1; 2 << 20]).unwrap();
        fs.release(&inode).unwrap();
        fs.unmount().unwrap();
        drop((inode, fs));
        let after = read();
        assert_eq!(after.mnt_count, before.mnt_count + mounts);
        let kbytes = after.kbytes_written - before.kbytes_written;
        let expected = u64::from(mounts) * 2048;
        assert!((expected..expected + 1024).contains(&kbytes), "{kbytes} of {expected}");
        assert_eq!(
            before.free_blocks_count() - after.free_blocks_count(),
            expected / 4 * (4096 / u64::from(after.block_size()))
        );
        assert_eq!(before.free_inodes_count - after.free_inodes_count, u32::from(mounts));
        assert!(after.wtime() >= before.wtime() && after.mtime() > before.mtime());
    }
}
