//! What recovery keeps of errors (X32, X33): fields written outside the journal survive a replay of an older
//! superblock, and an aborted journal leaves its mark on the volume.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use ext4::{Fs, MountOptions, NewInode};
use ext4_format::Superblock;
use ext4_format::superblock::state;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::runner::format;

const S_STATE: usize = 1024 + 0x3A;
const S_ERROR_COUNT: usize = 1024 + 0x194;
const S_LAST_ERROR_FUNC: usize = 1024 + 0x1E0;

/// A volume with synced directories, whose log holds its superblock too, that was not unmounted.
fn crashed(block_size: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 16 << 20, |options| options.block_size = Some(block_size));
    let device = Arc::new(MemoryDevice::new(std::fs::read(&image).unwrap()));
    let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    for n in 0..5 {
        fs.mkdir(format!("/dir {n}").as_bytes(), NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
    }
    fs.sync().unwrap();
    fs.shut_down();
    device.snapshot()
}

fn superblock(bytes: &[u8]) -> Superblock {
    Superblock::decode(&bytes[1024..2048]).unwrap()
}

/// Mounts, unmounts, and returns what the device holds then.
fn remounted(bytes: &[u8]) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    let (fs, report) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    assert!(report.transactions_replayed > 0);
    fs.lookup(b"/dir 4", false).unwrap();
    fs.unmount().unwrap();
    device.snapshot()
}

/// X32.
#[test]
fn x32_error_fields_survive_a_replay() {
    for block_size in [1024, 4096] {
        let mut bytes = crashed(block_size);
        assert_eq!(superblock(&bytes).state & state::ERROR, 0);
        bytes[S_STATE] |= state::ERROR as u8;
        bytes[S_ERROR_COUNT..S_ERROR_COUNT + 4].copy_from_slice(&7u32.to_le_bytes());
        bytes[S_LAST_ERROR_FUNC..S_LAST_ERROR_FUNC + 5].copy_from_slice(b"punch");
        Superblock::seal(&mut bytes[1024..2048]);
        let after = remounted(&bytes);
        assert_eq!(superblock(&after).state, state::ERROR | state::VALID);
        assert_eq!(after[1024 + 0x194..1024 + 0x200], bytes[1024 + 0x194..1024 + 0x200]);
    }
}

/// X33.
#[test]
fn x33_an_abort_marks_the_volume() {
    for block_size in [1024usize, 4096] {
        let mut bytes = crashed(block_size as u32);
        let magic = [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4];
        let jsb = bytes.chunks(block_size).position(|block| block[..8] == magic).unwrap() * block_size;
        let s_errno = jsb + 0x20;
        bytes[s_errno..s_errno + 4].copy_from_slice(&(-5i32).to_be_bytes());
        bytes[jsb + 0xFC..jsb + 0x100].fill(0);
        let sum = !crc32c::crc32c(&bytes[jsb..jsb + 1024]);
        bytes[jsb + 0xFC..jsb + 0x100].copy_from_slice(&sum.to_be_bytes());
        let after = remounted(&bytes);
        assert_eq!(superblock(&after).state, state::ERROR | state::VALID);
        assert_eq!(after[s_errno..s_errno + 4], [0; 4]);
        // Read-only: nothing is written.
        let device = Arc::new(MemoryDevice::new(bytes.clone()));
        let options = MountOptions { read_only: true, ..MountOptions::default() };
        Fs::mount(device.clone(), &options).unwrap().0.lookup(b"/dir 4", false).unwrap();
        assert!(device.snapshot() == bytes);
    }
}
