//! File data in the journal: data=journal, the inode's own flag, and what either leaves behind (T9, T24, J16).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use block_io::{EventFd, ImmediateQueue};
use ext4::mkfs::{self, FormatOptions};
use ext4::{DataMode, Fs, Inode, MountOptions, NewInode, RangeExtent};
use ext4_sim::crowd::Crowd;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, FORMAT_TIME, Runner, format};

const BLOCK: usize = 4096;
const FLAG: u32 = 0x4000;

fn formatted() -> Arc<MemoryDevice> {
    let memory = Arc::new(MemoryDevice::new(vec![0; 16 << 20]));
    let mut options = FormatOptions::new(FORMAT_TIME);
    (options.assume_zeroed, options.block_size) = (true, Some(BLOCK as u32));
    mkfs::format(memory.as_ref(), &options).unwrap();
    memory
}

fn mount(device: Arc<MemoryDevice>, data: Option<DataMode>) -> Arc<Fs> {
    Fs::mount(device, &MountOptions { data, ..MountOptions::default() }).unwrap().0
}

fn create(fs: &Arc<Fs>, path: &str) -> Arc<Inode> {
    fs.create(path.as_bytes(), NewInode { mode: 0o100644, uid: 0, gid: 0 }, false).unwrap().0
}

fn read(fs: &Arc<Fs>, path: &str) -> Vec<u8> {
    let inode = fs.lookup(path.as_bytes(), true).unwrap();
    let mut data = vec![0; inode.size() as usize];
    fs.buffered_read(&inode, 0, &mut data).unwrap();
    data
}

/// What is at home of a file's blocks, whatever the journal has.
fn at_home(memory: &MemoryDevice, extents: &[RangeExtent], len: usize) -> Vec<u8> {
    let bytes = memory.snapshot();
    let mut home: Vec<u8> = extents
        .iter()
        .flat_map(|extent| bytes[extent.physical as usize..][..extent.len as usize].to_vec())
        .collect();
    home.truncate(len);
    home
}

/// The volume as a power cut leaves it, mounted again, clean, and unmounted.
fn after_a_crash(memory: &MemoryDevice, files: &[(&str, &[u8])], test: &str) {
    let crashed = Arc::new(MemoryDevice::new(memory.snapshot()));
    let fs = mount(crashed.clone(), None);
    for (path, data) in files {
        assert!(read(&fs, path) == *data, "{path}");
    }
    fs.unmount().unwrap();
    if available(Need::E2fsprogs, test) {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, crashed.snapshot()).unwrap();
        assert_clean(&image);
    }
}

/// X5.
#[test]
fn data_is_in_the_journal_before_it_is_at_home() {
    let memory = formatted();
    let fs = mount(memory.clone(), Some(DataMode::Journal));
    let file = create(&fs, "/file");
    // Blocks that look like the journal's own (J16), and an end within a block.
    let mut data = pattern::bytes(1, 10 * BLOCK + 100);
    for block in data.chunks_mut(BLOCK) {
        block[..4].copy_from_slice(&[0xC0, 0x3B, 0x39, 0x98]);
    }
    fs.buffered_write(&file, 0, &data).unwrap();
    assert!(fs.next_dirty(&file, 0, u64::MAX).is_none(), "part of the transaction already");
    fs.fsync(&file, true).unwrap();
    let extents = fs.extents(&file, 0, u64::MAX, 100).unwrap();
    assert!(at_home(&memory, &extents, data.len()).iter().all(|&byte| byte == 0));
    after_a_crash(&memory, &[("/file", &data)], "data_is_in_the_journal_before_it_is_at_home");
    // The journal's copy is what readers see, also without a page.
    fs.invalidate(&file, 0, u64::MAX).unwrap();
    assert!(read(&fs, "/file") == data);
    fs.unmount().unwrap();
    assert!(at_home(&memory, &extents, data.len()) == data);
}

/// An overwrite changes no metadata, and fdatasync waits for it all the same.
#[test]
fn fdatasync_commits_an_overwrite() {
    let memory = formatted();
    let fs = mount(memory.clone(), Some(DataMode::Journal));
    let file = create(&fs, "/file");
    for round in 0..5 {
        let data = pattern::bytes(round, 3 * BLOCK);
        fs.buffered_write(&file, 0, &data).unwrap();
        fs.fsync(&file, true).unwrap();
        after_a_crash(&memory, &[("/file", &data)], "fdatasync_commits_an_overwrite");
    }
}

/// What was logged before the flag went must not be replayed over what was written in place since.
#[test]
fn a_switch_settles_what_was_logged() {
    let memory = formatted();
    let fs = mount(memory.clone(), None);
    let file = create(&fs, "/file");
    let mut data = Vec::new();
    for round in 0..4 {
        let on = round % 2 == 0;
        fs.set_journal_data(&file, on).unwrap();
        assert_eq!(fs.stat(&file).flags & FLAG != 0, on);
        data = pattern::bytes(round, 5 * BLOCK);
        fs.buffered_write(&file, 0, &data).unwrap();
        fs.fsync(&file, false).unwrap();
        after_a_crash(&memory, &[("/file", &data)], "a_switch_settles_what_was_logged");
    }
    fs.truncate(&file, BLOCK as u64 + 10).unwrap();
    fs.fsync(&file, false).unwrap();
    data.truncate(BLOCK + 10);
    after_a_crash(&memory, &[("/file", &data)], "a_switch_settles_what_was_logged");
}

/// T9: the blocks of a journalled file go to another one, whose data no journal holds.
#[test]
fn freed_blocks_are_revoked() {
    let memory = formatted();
    let fs = mount(memory.clone(), None);
    let file = create(&fs, "/journalled");
    fs.set_journal_data(&file, true).unwrap();
    let len = 200 * BLOCK;
    for round in 0..3 {
        fs.buffered_write(&file, 0, &pattern::bytes(round, len)).unwrap();
        fs.fsync(&file, false).unwrap();
        let old: Vec<_> = fs.extents(&file, 0, u64::MAX, 100).unwrap();
        fs.truncate(&file, 0).unwrap();
        fs.fsync(&file, false).unwrap();
        // All that is free, so that what was freed is among it.
        let path = format!("/plain{round}");
        let other = create(&fs, &path);
        let free = fs.superblock().free_blocks_count() as usize - 120;
        let data = pattern::bytes(100 + round, free * BLOCK);
        fs.buffered_write(&other, 0, &data).unwrap();
        fs.fsync(&other, false).unwrap();
        let new = fs.extents(&other, 0, u64::MAX, 1000).unwrap();
        let reused =
            |at: u64| new.iter().any(|extent| (extent.physical..extent.physical + extent.len).contains(&at));
        assert!(old.iter().any(|extent| reused(extent.physical)), "the test is of no use");
        after_a_crash(&memory, &[("/journalled", &[]), (&path, &data)], "freed_blocks_are_revoked");
        fs.unlink(path.as_bytes()).unwrap();
        fs.release(&other).unwrap();
        fs.sync().unwrap();
    }
}

/// As before, while the log still has the old data, which a file made since would settle first: otherwise nothing would be
/// replayed, and no revoke missed. After a power cut, or by the next checkpoint, a file would get what another had logged.
#[test]
fn freed_blocks_whose_data_is_still_logged() {
    for power_cut in [true, false] {
        let memory = formatted();
        let fs = mount(memory.clone(), None);
        // In memory since before anything was logged: it knows of nothing that it had to settle before it writes.
        let path = "/plain";
        let other = create(&fs, path);
        let file = create(&fs, "/journalled");
        fs.set_journal_data(&file, true).unwrap();
        fs.buffered_write(&file, 0, &pattern::bytes(1, 8 * BLOCK)).unwrap();
        fs.fsync(&file, false).unwrap();
        let old = fs.extents(&file, 0, u64::MAX, 100).unwrap();
        fs.truncate(&file, 0).unwrap();
        fs.fsync(&file, false).unwrap();
        // All that is free, so that what was freed is among it.
        let data = pattern::bytes(2, (fs.superblock().free_blocks_count() as usize - 120) * BLOCK);
        fs.buffered_write(&other, 0, &data).unwrap();
        fs.fsync(&other, false).unwrap();
        let new = fs.extents(&other, 0, u64::MAX, 1000).unwrap();
        let holds =
            |extent: &RangeExtent| (extent.physical..extent.physical + extent.len).contains(&old[0].physical);
        assert!(new.iter().any(holds), "the test is of no use");
        if !power_cut {
            fs.unmount().unwrap();
            let fs = mount(memory.clone(), None);
            assert!(read(&fs, path) == data, "the checkpoint wrote over it");
            continue;
        }
        let crashed = Arc::new(MemoryDevice::new(memory.snapshot()));
        let (again, report) = Fs::mount(crashed, &MountOptions::default()).unwrap();
        assert!(report.copies_revoked >= 8, "{report:?}");
        assert!(read(&again, path) == data, "the replay wrote over it");
        after_a_crash(&memory, &[(path, &data)], "freed_blocks_whose_data_is_still_logged");
    }
}

/// Who logged data is not known of an inode that left memory: it takes over what the volume knows, so that its reads look into
/// the log, and what it frees is revoked.
#[test]
fn logged_data_of_an_inode_that_left_memory() {
    let memory = Arc::new(MemoryDevice::new(vec![0; 32 << 20]));
    let mut options = FormatOptions::new(FORMAT_TIME);
    (options.assume_zeroed, options.block_size) = (true, Some(BLOCK as u32));
    options.inodes_count = Some(6144);
    mkfs::format(memory.as_ref(), &options).unwrap();
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(memory.clone(), Some(event.clone())));
    let mut volume = Runner::over(memory.clone(), queue, event).unwrap();
    let crowd = Crowd::new(volume.fs()).unwrap();
    let file = volume.create("/file").unwrap();
    volume.direct_write(file, 0, &pattern::bytes(1, 4 * BLOCK)).unwrap();
    let data = pattern::bytes(2, 4 * BLOCK);
    volume.atomic_write(file, 0, &data).unwrap();
    let inode = Arc::downgrade(&volume.inode(file));
    volume.close(file).unwrap();
    crowd.push_out(&inode);

    let file = volume.open("/file").unwrap();
    assert!(volume.direct_read(file, 0, 4 * BLOCK).unwrap() == data, "a direct read of what is at home");
    volume.atomic_write(file, 0, &data).unwrap();
    let inode = Arc::downgrade(&volume.inode(file));
    volume.close(file).unwrap();
    crowd.push_out(&inode);
    volume.fs().unlink(b"/file").unwrap();
    volume.fs().sync().unwrap();
    let (_, report) =
        Fs::mount(Arc::new(MemoryDevice::new(memory.snapshot())), &MountOptions::default()).unwrap();
    assert!(report.copies_revoked >= 4, "{report:?}");
    volume.unmount().unwrap();
}

/// Writes of many blocks, with a small journal, over everything a file may be made of.
#[test]
fn more_than_a_transaction_holds() {
    let memory = formatted();
    let fs = mount(memory.clone(), Some(DataMode::Journal));
    let file = create(&fs, "/file");
    let mut model = vec![0; 1000 * BLOCK];
    fs.truncate(&file, model.len() as u64).unwrap();
    fs.fallocate(
        &file,
        ext4::FallocateMode::Allocate { keep_size: true },
        100 * BLOCK as u64,
        300 * BLOCK as u64,
    )
    .unwrap();
    for (round, (at, len)) in [(50, 100), (390, 20), (0, 1000), (150, 3), (700, 300)].into_iter().enumerate()
    {
        let data = pattern::bytes(round as u32, len * BLOCK - 11);
        fs.buffered_write(&file, (at * BLOCK) as u64 + 5, &data).unwrap();
        model[at * BLOCK + 5..][..data.len()].copy_from_slice(&data);
        if round == 1 {
            let mode = ext4::FallocateMode::PunchHole;
            fs.fallocate(&file, mode, 60 * BLOCK as u64 + 1, 5 * BLOCK as u64).unwrap();
            model[60 * BLOCK + 1..][..5 * BLOCK].fill(0);
            let mode = ext4::FallocateMode::ZeroRange { keep_size: false };
            fs.fallocate(&file, mode, 120 * BLOCK as u64 + 1, 5 * BLOCK as u64).unwrap();
            model[120 * BLOCK + 1..][..5 * BLOCK].fill(0);
        }
        fs.fsync(&file, true).unwrap();
        after_a_crash(&memory, &[("/file", &model)], "more_than_a_transaction_holds");
    }
}

#[test]
fn the_modes_that_a_volume_can_have() {
    let memory = Arc::new(MemoryDevice::new(vec![0; 8 << 20]));
    let mut options = FormatOptions::new(FORMAT_TIME);
    options.features = "^has_journal".into();
    mkfs::format(memory.as_ref(), &options).unwrap();
    for data in [DataMode::Ordered, DataMode::Journal, DataMode::Writeback] {
        let options = MountOptions { data: Some(data), ..MountOptions::default() };
        assert_eq!(Fs::mount(memory.clone(), &options).err().unwrap().errno(), 22);
    }
    let fs = mount(memory, None);
    let file = create(&fs, "/file");
    assert_eq!(fs.set_journal_data(&file, true).unwrap_err().errno(), 95);
}

/// The kernel reads what we left in the journal, and we what it left.
#[test]
fn with_the_kernel() {
    let test = "with_the_kernel";
    if !available(Need::KernelMount, test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |options| options.block_size = Some(BLOCK as u32));
    let mut volume = Runner::mount(&image, Backend::Threads);
    let file = volume.create("/ours").unwrap();
    let inode = volume.inode(file);
    volume.fs().set_journal_data(&inode, true).unwrap();
    let ours = pattern::bytes(1, 20 * BLOCK + 7);
    volume.fs().buffered_write(&inode, 0, &ours[..10 * BLOCK]).unwrap();
    volume.sync(file).unwrap();
    // Direct I/O on it goes through the journal too (A3).
    assert!(volume.fs().journals_data(&inode));
    assert_eq!(
        volume.direct_write(file, 10 * BLOCK as u64, &ours[10 * BLOCK..20 * BLOCK]).unwrap(),
        10 * BLOCK as u64
    );
    volume.fs().buffered_write(&inode, 20 * BLOCK as u64, &ours[20 * BLOCK..]).unwrap();
    volume.sync(file).unwrap();
    drop(inode);
    volume.crash();
    let theirs = pattern::bytes(2, 100_000);
    {
        let mount = KernelMount::new(&image, "rw,data=journal");
        assert!(std::fs::read(mount.path().join("ours")).unwrap() == ours);
        assert!(lsattr(&mount.path().join("ours")).is_none_or(|flags| flags.contains('j')));
        std::fs::write(mount.path().join("theirs"), &theirs).unwrap();
    }
    let volume = Runner::mount(&image, Backend::Threads);
    assert!(volume.read_file("/theirs").unwrap() == theirs);
    assert!(volume.read_file("/ours").unwrap() == ours);
    volume.unmount().unwrap();
    assert_clean(&image);
}

/// The flags of a file; `None`: there is no lsattr.
fn lsattr(path: &Path) -> Option<String> {
    let output = std::process::Command::new("lsattr").arg(path).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned())
}
