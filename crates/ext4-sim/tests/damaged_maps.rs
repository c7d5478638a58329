//! Volumes without checksums, damaged at random: every operation ends, where damage is in the way with an error that says so,
//! and no metadata is touched but by what changes it through the journal.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use block_io::{Device, EventFd, ImmediateQueue, Recorder, RecordingDevice};
use ext4::errno;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::metadata_guard::{MetadataGuard, marked};
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

/// What damage may be answered with: that it is damage, or what follows from a wrong number, size, mode or count. Anything else,
/// an EINVAL or EIO, would be a check that nobody made.
const ANSWERS: &[i32] = &[
    errno::EUCLEAN,
    errno::EBADMSG,
    errno::EROFS,
    errno::ENOSPC,
    errno::EFBIG,
    errno::ENOENT,
    errno::ENOTDIR,
    errno::EISDIR,
    errno::EOPNOTSUPP,
];

/// How often each error was heard.
type Heard = BTreeMap<i32, u32>;

fn hear<T>(heard: &mut Heard, result: ext4::Result<T>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    // What cannot be durable any more, since damage was met.
    let is_abort = error.errno() == errno::EIO && error.to_string().contains("aborted");
    assert!(is_abort || ANSWERS.contains(&error.errno()), "{error}");
    *heard.entry(error.errno()).or_default() += 1;
    None
}

/// All that a user may do. Returns what it was answered.
fn use_it(bytes: Vec<u8>) -> Result<Heard, String> {
    let memory = Arc::new(MemoryDevice::new(bytes));
    let recorder = Recorder::new();
    let device: Arc<dyn Device> = Arc::new(RecordingDevice::new(memory.clone(), recorder.clone(), 0));
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    let mut heard = Heard::new();
    let mut volume = match Runner::over(device, queue, event) {
        Ok(volume) => volume,
        // J7: no journal at all.
        Err(error) if error.errno() == errno::EINVAL => return Ok(Heard::from([(errno::EINVAL, 1)])),
        Err(error) => {
            hear::<()>(&mut heard, Err(error));
            return Ok(heard);
        }
    };
    let mut guard = MetadataGuard::after_mount(memory.snapshot(), &recorder.take()).ok_or("no metadata")?;
    hear(&mut heard, volume.fs().read_dir(b"/dir", &mut |_, _, _| true));
    let block = marked(4096);
    for path in ["/deep", "/dir/file0", "/dir/file20", "/dir/file39"] {
        let Some(file) = hear(&mut heard, volume.open(path)) else { continue };
        let inode = volume.inode(file);
        for lblk in [0, 12, 300, 70_000] {
            hear(&mut heard, volume.fs().buffered_read(&inode, lblk * 1024, &mut [0; 4096]));
            hear(&mut heard, volume.fs().buffered_write(&inode, lblk * 1024 + 3000, &block));
        }
        hear(&mut heard, volume.fs().extents(&inode, 0, u64::MAX, 1000));
        hear(&mut heard, volume.fs().truncate(&inode, 13_000));
        hear(&mut heard, volume.direct_write(file, 13_312, &block[..1024]));
        drop(inode);
        hear(&mut heard, volume.close(file));
        hear(&mut heard, volume.fs().unlink(path.as_bytes()));
    }
    hear(&mut heard, volume.mkdir("/new"));
    hear(&mut heard, volume.unmount());
    guard.judge(&recorder.take())?;
    Ok(heard)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// One of the volumes that a seed leads to.
fn damaged(sound: &[u8], blocks: &[usize], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..1 + random(8) {
        let block = blocks[random(blocks.len())];
        // A pointer, or what looks like one, to where metadata is.
        let words = (block * 1024..(block + 1) * 1024).step_by(4);
        let is_pointer = |at: &usize| (200..8192).contains(&word(&bytes, *at));
        let pointers: Vec<usize> = words.filter(is_pointer).collect();
        if random(2) == 0 && !pointers.is_empty() {
            let at = pointers[random(pointers.len())];
            bytes[at..at + 4].copy_from_slice(&(1 + random(300) as u32).to_le_bytes());
            continue;
        }
        let nonzero: Vec<usize> =
            (block * 1024..(block + 1) * 1024).filter(|&at| bytes[at] != 0 || at % 97 == 0).collect();
        if let Some(&at) = nonzero.get(random(nonzero.len().max(1))) {
            bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, bytes[at] ^ 1, bytes[at].wrapping_add(1)][random(7)];
        }
    }
    bytes
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
    assert_eq!(use_it(sound.clone()), Ok(Heard::new()), "a sound volume has no errors");
    let (sender, rounds) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let mut state = 7u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..ROUNDS {
            sender.send(use_it(damaged(&sound, &blocks, &mut random))).unwrap();
        }
    });
    let (mut with_errors, mut all) = (0, Heard::new());
    for round in 0..ROUNDS {
        let heard = match rounds.recv_timeout(Duration::from_secs(60)) {
            Ok(heard) => heard.unwrap_or_else(|why| panic!("round {round}: {why}")),
            Err(why) => panic!("round {round} panics or hangs: {why}"),
        };
        with_errors += usize::from(!heard.is_empty());
        for (errno, count) in heard {
            *all.entry(errno).or_default() += count;
        }
    }
    worker.join().unwrap();
    // Most damage lies where nobody looks; without checksums the rest is found where it is used.
    assert!(with_errors > ROUNDS / 20, "only {with_errors} rounds met damage: {all:?}");
    assert!(all.contains_key(&errno::EUCLEAN), "{all:?}");
}
