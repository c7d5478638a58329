//! Container files.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use block_io::{
    AlignedBuf, ContainerOptions, Device, FileDevice, OpenOptions, create_container, create_container_with,
};

#[path = "common/container.rs"]
mod container;
use container::{container, open};

fn errno(result: block_io::Result<FileDevice>) -> i32 {
    result.err().expect("an error").errno
}

const RW: OpenOptions = OpenOptions { read_only: false, force: false, direct: false };
const RO: OpenOptions = OpenOptions { read_only: true, force: false, direct: false };

#[test]
fn a_writer_excludes_all_others_and_readers_share() {
    let file = container(1 << 20);
    let writer = FileDevice::open(file.path(), RW).unwrap();
    for options in [RW, RO] {
        let refused = FileDevice::open(file.path(), options).err().unwrap();
        assert_eq!(refused.errno, libc::EBUSY);
        assert_eq!(refused.detail.as_deref(), Some("in use by another opening"));
    }
    assert_eq!(create_container(file.path(), 512).unwrap_err().errno, libc::EBUSY, "nor is it cut short");
    drop(writer);
    let readers = [FileDevice::open(file.path(), RO).unwrap(), FileDevice::open(file.path(), RO).unwrap()];
    assert_eq!(errno(FileDevice::open(file.path(), RW)), libc::EBUSY);
    drop(readers);
    FileDevice::open(file.path(), RW).unwrap();
}

#[test]
fn what_is_no_container_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for options in [RW, RO] {
        assert_eq!(errno(FileDevice::open(dir.path(), options)), libc::EISDIR);
        assert_eq!(errno(FileDevice::open(Path::new("/dev/null"), options)), libc::EINVAL);
        assert_eq!(errno(FileDevice::open(&dir.path().join("absent"), options)), libc::ENOENT);
    }
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(errno(FileDevice::open(&fifo, RO)), libc::EINVAL, "without waiting for a writer");
}

#[test]
fn memory_at_any_address_is_accepted() {
    let file = container(1 << 20);
    for direct in [true, false] {
        let device = open(file.path(), direct);
        let bytes: Vec<u8> = (0..8192).map(|byte| (byte % 251) as u8).collect();
        let mut from = AlignedBuf::zeroed(8193);
        from[1..].copy_from_slice(&bytes);
        for fua in [false, true] {
            device.write(4096, &from[1..], fua).unwrap();
            let mut into = AlignedBuf::zeroed(8193);
            device.read(4096, &mut into[1..]).unwrap();
            assert_eq!(into[1..], bytes);
        }
        device.flush().unwrap();
    }
}

#[test]
fn requests_are_inside_the_device_and_whole_blocks() {
    let file = container(1 << 20);
    for direct in [true, false] {
        let device = open(file.path(), direct);
        for (offset, len) in
            [(1 << 20, 512), ((1 << 20) - 512, 1024), (u64::MAX - 511, 512), (1, 512), (0, 511)]
        {
            let mut buf = vec![0; len];
            let refused = [
                device.read(offset, &mut buf).unwrap_err(),
                device.write(offset, &buf, false).unwrap_err(),
                device.discard(offset, len as u64).unwrap_err(),
            ];
            assert!(
                refused.iter().all(|error| error.errno == libc::EINVAL && error.offset_bytes == Some(offset))
            );
        }
        device.read(1 << 20, &mut []).unwrap();
    }
    assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 20);
}

#[test]
fn a_read_only_device_takes_no_writes() {
    let file = container(1 << 20);
    let device = FileDevice::open(file.path(), RO).unwrap();
    assert_eq!(device.write(0, &[0; 512], false).unwrap_err().errno, libc::EROFS);
    assert_eq!(device.discard(0, 512).unwrap_err().errno, libc::EROFS);
    device.flush().unwrap();
}

#[test]
fn a_container_cut_short_gives_eio() {
    let file = container(1 << 20);
    for direct in [true, false] {
        let device = open(file.path(), direct);
        file.as_file().set_len(4096 + 100).unwrap();
        for (offset, len) in [(0, 8192), (8192, 4096)] {
            assert_eq!(device.read(offset, &mut vec![0; len]).unwrap_err().errno, libc::EIO);
        }
        file.as_file().set_len(1 << 20).unwrap();
    }
}

#[test]
fn discarded_bytes_are_zeros_and_take_no_space() {
    use std::os::unix::fs::MetadataExt;
    let file = container(1 << 20);
    let device = open(file.path(), false);
    device.write(0, &[5; 1 << 20], true).unwrap();
    let before = file.as_file().metadata().unwrap().blocks();
    match device.discard(65536, 1 << 19) {
        Err(error) if error.errno == libc::EOPNOTSUPP => return eprintln!("skipped: {error}"),
        result => result.unwrap(),
    }
    let mut bytes = vec![1; 1 << 20];
    device.read(0, &mut bytes).unwrap();
    for (index, &byte) in bytes.iter().enumerate() {
        assert_eq!(byte, if (65536..65536 + (1 << 19)).contains(&index) { 0 } else { 5 });
    }
    let after = file.as_file().metadata().unwrap();
    assert!(after.blocks() < before && after.len() == 1 << 20);
    device.discard(0, 0).unwrap();
}

#[test]
fn direct_or_a_reason_why_not() {
    let file = container(1 << 20);
    let device = open(file.path(), true);
    assert_eq!(device.limits().direct, device.direct_fallback_reason().is_none());
    drop(device);
    let buffered = open(file.path(), false);
    assert_eq!(buffered.direct_fallback_reason(), None);
    let limits = buffered.limits();
    assert_eq!((limits.logical_block_bytes, limits.memory_alignment_bytes, limits.direct), (512, 1, false));
    drop(buffered);
    // procfs files are regular and cannot do direct I/O.
    let proc = FileDevice::open(
        Path::new("/proc/version"),
        OpenOptions { read_only: true, force: false, direct: true },
    );
    match proc {
        Ok(device) => assert!(!device.limits().direct && device.direct_fallback_reason().is_some()),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn containers_are_made_and_resized() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    let options =
        ContainerOptions { size_bytes: 1 << 20, mode: 0o600, must_be_new: true, preallocate: false };
    create_container_with(&path, options).unwrap();
    let made = std::fs::metadata(&path).unwrap();
    assert_eq!((made.len(), made.permissions().mode() & 0o777), (1 << 20, 0o600));
    assert!(made.blocks() < 16, "sparse");
    assert_eq!(create_container_with(&path, options).unwrap_err().errno, libc::EEXIST);
    std::fs::write(&path, [7; 4096]).unwrap();
    create_container(&path, 1 << 21).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((bytes.len(), bytes[4095], bytes[4096]), (1 << 21, 7, 0), "what was there stays");
    let full = ContainerOptions { must_be_new: false, preallocate: true, ..options };
    match create_container_with(&path, full) {
        Err(error) if error.errno == libc::EOPNOTSUPP => eprintln!("skipped: {error}"),
        result => {
            result.unwrap();
            let made = std::fs::metadata(&path).unwrap();
            assert!(made.len() == 1 << 20 && made.blocks() * 512 >= 1 << 20);
        }
    }
    assert_eq!(create_container(&path, u64::MAX).unwrap_err().errno, libc::EINVAL);
    assert_eq!(create_container(dir.path(), 512).unwrap_err().errno, libc::EISDIR);
}
