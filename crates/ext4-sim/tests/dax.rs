//! Files on devices in memory (A18): against a model, e2fsck and the kernel.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::sync::Arc;

use block_io::{Device, EventFd, ImmediateQueue, MappedDevice, MemoryContainer};
use ext4::mkfs::{self, FormatOptions};
use ext4::{Inode, Look, MountOptions, Result};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, tool_ok};
use ext4_sim::pattern;
use ext4_sim::runner::{FORMAT_TIME, Runner};

const MIB: u64 = 1 << 20;
const EOPNOTSUPP: i32 = 95;
const ENOSPC: i32 = 28;

fn mount(device: Arc<dyn Device>) -> Runner {
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    Runner::with_options(device, queue, event, &MountOptions { dax: true, ..MountOptions::default() })
        .unwrap()
}

/// As dax-write.ts does it.
fn write(volume: &Runner, inode: &Arc<Inode>, pos: u64, data: &[u8]) -> Result<usize> {
    let fs = volume.fs();
    if let Ok(done) = fs.try_dax_write(inode, pos, data) {
        return Ok(done);
    }
    let end = pos + data.len() as u64;
    let (size, disk_size) = fs.sizes(inode);
    let extending = end > size || end > disk_size;
    if extending {
        fs.add_orphan(inode)?;
    }
    let written = fs.dax_write(inode, pos, data);
    if extending && written != Ok(data.len()) {
        fs.truncate_to_size(inode)?;
    }
    written
}

fn read(volume: &Runner, inode: &Arc<Inode>, pos: u64, len: usize) -> Vec<u8> {
    let mut out = vec![1; len];
    let read = volume.fs().dax_read(inode, pos, &mut out, Look::Disk).unwrap();
    out.truncate(read);
    out
}

/// A new volume in a container in memory, whose bytes before it are no zeros.
fn memory_volume(name: &str, block_size: u32, features: &str) -> Arc<MemoryContainer> {
    MemoryContainer::create(name.as_bytes(), 32 * MIB).unwrap();
    let container = Arc::new(MemoryContainer::open(name.as_bytes(), false).unwrap());
    (0..32).for_each(|mib| container.write(mib * MIB, &[0xA5; MIB as usize], false).unwrap());
    let mut options = FormatOptions::new(FORMAT_TIME);
    options.block_size = Some(block_size);
    options.features = features.into();
    mkfs::format(container.as_ref(), &options).unwrap();
    container
}

/// What is in the container, in a file for the oracles.
fn dump(container: &MemoryContainer) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = vec![0; 32 * MIB as usize];
    container.read(0, &mut bytes).unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn a_model_of_one_file() {
    for (block_size, features) in [(1024, ""), (4096, ""), (4096, "^has_journal")] {
        let name = format!("a_model_of_one_file {block_size} {features}");
        let container = memory_volume(&name, block_size, features);
        let mut volume = mount(container.clone());
        let file = volume.create("/file").unwrap();
        let inode = volume.inode(file);
        assert!(volume.fs().is_dax(&inode));
        let mut model: Vec<u8> = Vec::new();
        let mut random = 12345u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for step in 0..400 {
            let (pos, len) = (next(300_000), next(20_000) as usize + 1);
            match next(10) {
                0 => {
                    let size = next(300_000);
                    volume.fs().truncate(&inode, size).unwrap();
                    model.resize(size as usize, 0);
                }
                1 => {
                    let mode = ext4::FallocateMode::Allocate { keep_size: true };
                    volume.fs().fallocate(&inode, mode, pos, len as u64).unwrap();
                }
                2 => {
                    volume.fs().fallocate(&inode, ext4::FallocateMode::PunchHole, pos, len as u64).unwrap();
                    let end = (pos as usize + len).min(model.len());
                    if (pos as usize) < end {
                        model[pos as usize..end].fill(0);
                    }
                }
                _ => {
                    let data = pattern::bytes(step, len);
                    assert_eq!(write(&volume, &inode, pos, &data), Ok(len), "step {step}");
                    model.resize(model.len().max(pos as usize + len), 0);
                    model[pos as usize..pos as usize + len].copy_from_slice(&data);
                }
            }
            assert_eq!(inode.size(), model.len() as u64);
            let found = read(&volume, &inode, pos, len);
            let end = (pos as usize + len).min(model.len());
            assert!(found == model[(pos as usize).min(end)..end], "step {step}");
        }
        assert!(read(&volume, &inode, 0, model.len() + 10) == model);
        drop(inode);
        volume.close(file).unwrap();
        volume.unmount().unwrap();
        let image = dump(&container);
        if available(Need::E2fsprogs, "a_model_of_one_file") {
            assert_clean(image.path());
        }
        if available(Need::KernelMount, "a_model_of_one_file") {
            let mount = KernelMount::new(image.path(), "ro");
            assert!(fs::read(mount.path().join("file")).unwrap() == model);
        }
        drop(container);
        MemoryContainer::remove(name.as_bytes()).unwrap();
    }
}

/// A12: new blocks have zeros in them before anything calls them written, in holes, beyond the end, and where they were
/// preallocated; and what a write did not get to is gone.
#[test]
fn new_blocks_are_zeroed_and_a_short_write_is_cut() {
    let name = "new_blocks_are_zeroed";
    let container = memory_volume(name, 4096, "");
    let mut volume = mount(container.clone());
    let file = volume.create("/file").unwrap();
    let inode = volume.inode(file);
    volume.fs().truncate(&inode, 100_000).unwrap();
    write(&volume, &inode, 20_001, b"in a hole").unwrap();
    let mode = ext4::FallocateMode::Allocate { keep_size: true };
    volume.fs().fallocate(&inode, mode, 40_960, 8192).unwrap();
    write(&volume, &inode, 45_000, b"preallocated").unwrap();
    write(&volume, &inode, 150_001, b"beyond").unwrap();
    let all = read(&volume, &inode, 0, 200_000);
    let mut model = vec![0; 150_007];
    for (at, text) in [(20_001, &b"in a hole"[..]), (45_000, b"preallocated"), (150_001, b"beyond")] {
        model[at..at + text.len()].copy_from_slice(text);
    }
    assert!(all == model);
    // More than there is.
    let big = vec![9; 40 * MIB as usize];
    let written = write(&volume, &inode, 150_007, &big).unwrap();
    assert!(written > 0 && written < big.len());
    assert_eq!(inode.size(), 150_007 + written as u64);
    assert_eq!(write(&volume, &inode, inode.size(), &big).unwrap_err().errno(), ENOSPC);
    assert_eq!(inode.size(), 150_007 + written as u64);
    drop(inode);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, name) {
        assert_clean(dump(&container).path());
    }
    drop(container);
    MemoryContainer::remove(name.as_bytes()).unwrap();
}

/// A10: a crash between allocation and size leaves the old size and no blocks beyond it; what was synced is there.
#[test]
fn a_crash_of_the_process() {
    let name = "a_crash_of_the_process";
    let container = memory_volume(name, 4096, "");
    let mut volume = mount(container.clone());
    let file = volume.create("/synced").unwrap();
    let inode = volume.inode(file);
    write(&volume, &inode, 0, &pattern::bytes(1, 50_000)).unwrap();
    volume.sync(file).unwrap();
    // No handle, so nothing that a crash could undo.
    assert_eq!(volume.fs().try_dax_write(&inode, 1000, b"in place"), Ok(8));
    volume.fs().add_orphan(&inode).unwrap();
    let other = volume.create("/other").unwrap();
    volume.sync(other).unwrap();
    write(&volume, &inode, 50_000, &pattern::bytes(2, 50_000)).unwrap();
    drop(inode);
    volume.crash();
    let volume = mount(container.clone());
    assert!(volume.report.transactions_replayed > 0);
    assert_eq!(volume.report.orphans.truncated, 1);
    let inode = volume.fs().lookup(b"/synced", true).unwrap();
    let mut model = pattern::bytes(1, 50_000);
    model[1000..1008].copy_from_slice(b"in place");
    assert!(read(&volume, &inode, 0, 100_000) == model);
    drop(inode);
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, name) {
        assert_clean(dump(&container).path());
    }
    drop(container);
    MemoryContainer::remove(name.as_bytes()).unwrap();
}

/// A container file on tmpfs, mapped; block maps too. What the kernel made we change in place, and it reads it.
#[test]
fn mapped_files() {
    let test = "mapped_files";
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("skipped: {test}: no /dev/shm") };
    if !available(Need::E2fsprogs, test) || !available(Need::KernelMount, test) {
        return;
    }
    for (block_size, options) in [("4096", &["-t", "ext4"][..]), ("1024", &["-t", "ext3"])] {
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(64 * MIB).unwrap();
        let fixed = ["-q", "-F", "-b", block_size];
        tool_ok("mke2fs", &[&fixed[..], options, &[image.to_str().unwrap()]].concat());
        fs::write(KernelMount::new(&image, "rw").path().join("file"), pattern::bytes(1, 700_000)).unwrap();
        let device = match MappedDevice::open(&image, false, false) {
            Err(error) if error.errno == EOPNOTSUPP => {
                return eprintln!("skipped: {test}: /dev/shm is no tmpfs");
            }
            device => Arc::new(device.unwrap()),
        };
        let mut volume = mount(device);
        let file = volume.open("/file").unwrap();
        let inode = volume.inode(file);
        let mut model = pattern::bytes(1, 700_000);
        assert!(read(&volume, &inode, 0, 800_000) == model);
        assert_eq!(volume.fs().try_dax_write(&inode, 333, b"stored in place").unwrap(), 15);
        model[333..348].copy_from_slice(b"stored in place");
        write(&volume, &inode, 900_000, b"far behind").unwrap();
        model.resize(900_000, 0);
        model.extend_from_slice(b"far behind");
        drop(inode);
        volume.close(file).unwrap();
        volume.unmount().unwrap();
        assert_clean(&image);
        let mount = KernelMount::new(&image, "ro");
        assert!(fs::read(mount.path().join("file")).unwrap() == model);
    }
}

#[test]
fn only_on_memory() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    ext4_sim::runner::format(&image, 16 * MIB, |_| ());
    let device = ext4_sim::runner::open_device(&image);
    let refused = ext4::Fs::mount(device, &MountOptions { dax: true, ..MountOptions::default() });
    assert_eq!(refused.err().unwrap().errno(), EOPNOTSUPP);
}
