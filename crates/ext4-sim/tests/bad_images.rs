//! Images that are no volume, not ours, or damaged: refused with the right errno, or an error at use. Never a panic,
//! never a hang.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use block_io::{Recorder, RecordingDevice};
use ext4::{FallocateMode, Fs, Inode, MountOptions, NewInode, Result, Whence};
use ext4_format::Superblock;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::metadata_guard::{MetadataGuard, marked};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, format};

const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EBADMSG: i32 = 74;
const EOPNOTSUPP: i32 = 95;
const EUCLEAN: i32 = 117;

fn image_of(features: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 8 << 20, |options| {
        options.block_size = Some(1024);
        options.features = features.into();
    });
    (dir, image)
}

/// Something of each kind: a deep tree, an index, links, orphans if it is to be dirty.
fn fill(image: &Path, dirty: bool) {
    let mut volume = Runner::mount(image, Backend::Threads);
    volume.mkdir("/dir").unwrap();
    for index in 0..120 {
        volume.touch(&format!("/dir/{index:03} {}", "n".repeat(60))).unwrap();
    }
    let file = volume.create("/comb").unwrap();
    for index in 0..400 {
        let block = index * 37 % 400;
        volume.direct_write(file, block * 2048, &pattern::bytes(block as u32, 1024)).unwrap();
    }
    volume.sync(file).unwrap();
    let new = NewInode { mode: 0, uid: 0, gid: 0 };
    volume.fs().symlink("l".repeat(200).as_bytes(), b"/dir/long", new).unwrap();
    volume.fs().symlink(b"dir/long", b"/short", new).unwrap();
    volume.write_file("/file", &pattern::bytes(3, 100_000)).unwrap();
    volume.fs().sync().unwrap();
    if dirty {
        volume.fs().unlink(b"/comb").unwrap();
        let gone = volume.create("/gone").unwrap();
        volume.direct_write(gone, 0, &pattern::bytes(4, 8192)).unwrap();
        volume.fs().unlink(b"/gone").unwrap();
        volume.fs().sync().unwrap();
        volume.crash();
    } else {
        volume.unmount().unwrap();
    }
}

fn mount(bytes: Vec<u8>, read_only: bool) -> Result<Arc<Fs>> {
    let options = MountOptions { read_only, ..MountOptions::default() };
    Fs::mount(Arc::new(MemoryDevice::new(bytes)), &options).map(|(fs, _)| fs)
}

fn errno_of(bytes: &[u8], read_only: bool) -> Option<i32> {
    mount(bytes.to_vec(), read_only).err().map(|error| error.errno())
}

/// Changes the primary superblock, and makes its checksum right again.
fn with_superblock(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let superblock = &mut bytes[1024..2048];
    change(superblock);
    Superblock::seal(superblock);
    bytes
}

#[test]
fn refused_at_mount() {
    for length in [0, 512, 1024, 2048, 4096, 1 << 20] {
        assert_eq!(errno_of(&vec![0; length], false), Some(EINVAL), "{length} zeros");
        assert_eq!(errno_of(&vec![0xA5; length], false), Some(EINVAL), "{length} bytes");
    }
    let (_dir, image) = image_of("");
    fill(&image, false);
    let good = fs::read(&image).unwrap();
    assert_eq!(errno_of(&good, false), None);

    assert_eq!(errno_of(&good[..good.len() - 512], false), Some(EUCLEAN));
    assert_eq!(errno_of(&good[..4096], false), Some(EUCLEAN));
    let mut wrong_sum = good.clone();
    wrong_sum[1024 + 0x78] ^= 1;
    assert_eq!(errno_of(&wrong_sum, false), Some(EBADMSG));

    for bit in [11, 19, 21, 30] {
        let unknown = with_superblock(&good, |superblock| superblock[0x60 + bit / 8] |= 1 << (bit % 8));
        assert_eq!(errno_of(&unknown, false), Some(EOPNOTSUPP), "incompat {bit}");
        assert_eq!(errno_of(&unknown, true), Some(EOPNOTSUPP), "incompat {bit}");
    }
    for bit in [11, 17, 30] {
        let unknown = with_superblock(&good, |superblock| superblock[0x64 + bit / 8] |= 1 << (bit % 8));
        assert_eq!(errno_of(&unknown, false), Some(EROFS), "ro_compat {bit}");
        assert_eq!(errno_of(&unknown, true), None, "ro_compat {bit}");
    }
    for bit in [12, 31] {
        let unknown = with_superblock(&good, |superblock| superblock[0x5C + bit / 8] |= 1 << (bit % 8));
        assert_eq!(errno_of(&unknown, false), None, "compat {bit}");
    }
}

#[test]
fn container_in_use_or_read_only() {
    use block_io::{FileDevice, OpenOptions};
    let (_dir, image) = image_of("");
    let open = |read_only| FileDevice::open(&image, OpenOptions { read_only, force: false, direct: true });
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(open(false).err().unwrap().errno, EBUSY);
    assert_eq!(open(true).err().unwrap().errno, EBUSY);
    volume.unmount().unwrap();
    let readers = (open(true).unwrap(), open(true).unwrap());
    assert_eq!(open(false).err().unwrap().errno, EBUSY);
    drop(readers);

    let device = Arc::new(open(true).unwrap());
    let error = Fs::mount(device, &MountOptions::default()).err().unwrap();
    assert_eq!(error.errno(), EROFS);
    let volume = Runner::mount_read_only(&image).unwrap();
    assert_eq!(volume.mkdir("/new").err().unwrap().errno(), EROFS);
}

/// Damage is found where it is used, and named.
#[test]
fn damage_found_at_use() {
    let (_dir, image) = image_of("");
    fill(&image, false);
    let good = fs::read(&image).unwrap();
    let fs = mount(good.clone(), true).unwrap();
    let ino = |path: &[u8]| fs.lookup(path, false).unwrap().ino;
    let (comb, dir) = (ino(b"/comb"), ino(b"/dir"));
    let superblock = fs.superblock();
    let desc = superblock.desc_location(ext4_format::Group(0));
    let desc = &good[desc.0.0 as usize * 1024 + desc.1..][..64];
    let field = |at: usize| u32::from_le_bytes(desc[at..at + 4].try_into().unwrap()) as usize * 1024;
    let (block_bitmap, inode_bitmap, table) = (field(0), field(4), field(8));
    let inode_at = |ino: ext4_format::Ino| table + (ino.0 as usize - 1) * 256;
    let damaged = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        mount(bytes, false).unwrap()
    };
    let is_damage = |errno: i32| errno == EBADMSG || errno == EUCLEAN;

    let fs = damaged(inode_at(comb) + 0x20);
    assert_eq!(fs.lookup(b"/comb", false).err().unwrap().errno(), EBADMSG);
    fs.lookup(b"/file", false).unwrap();

    // The root of the tree names an index block or a leaf; the leaf's bytes are damaged.
    let leaf =
        u32::from_le_bytes(good[inode_at(comb) + 0x28 + 12 + 4..][..4].try_into().unwrap()) as usize * 1024;
    let fs = damaged(leaf + 20);
    let inode = fs.lookup(b"/comb", false).unwrap();
    let error = fs.buffered_read(&inode, 0, &mut [0; 4096]).err().unwrap();
    assert!(is_damage(error.errno()), "{error}");
    assert!(fs.unlink(b"/comb").is_err());
    fs.lookup(b"/file", false).unwrap();

    let first =
        u32::from_le_bytes(good[inode_at(dir) + 0x28 + 12 + 8..][..4].try_into().unwrap()) as usize * 1024;
    let fs = damaged(first + 0x1C);
    let error = fs.read_dir(b"/dir", &mut |_, _, _| true).err().unwrap();
    assert!(is_damage(error.errno()), "{error}");

    for at in [block_bitmap + 100, inode_bitmap + 3] {
        let fs = damaged(at);
        let errors: Vec<_> = (0..20)
            .filter_map(|index| {
                let new = NewInode { mode: 0o755, uid: 0, gid: 0 };
                fs.mkdir(format!("/new{index}").as_bytes(), new).err()
            })
            .collect();
        assert!(is_damage(errors[0].errno()), "{}", errors[0]);
        // From then on the group counts as full, or the journal has aborted.
        let later = |errno| is_damage(errno) || errno == EROFS || errno == ENOSPC;
        assert!(errors.iter().all(|error| later(error.errno())), "{errors:?}");
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A few bytes of metadata changed: in the superblock, in descriptors, or in any block that is in use.
fn mutate(random: &mut Random, base: &[u8], used: &[usize]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for _ in 0..1 + random.below(6) {
        let block = match random.below(6) {
            0 => 1,
            1 => 2 + random.below(2),
            _ => used[random.below(used.len())],
        };
        // The start of a block says most.
        let inside = if random.below(3) == 0 { random.below(64) } else { random.below(1024) };
        let at = block * 1024 + inside;
        bytes[at] = match random.below(4) {
            0 => 0,
            1 => 0xFF,
            2 => bytes[at] ^ 1 << random.below(8),
            _ => random.next() as u8,
        };
    }
    if random.below(4) > 0 {
        Superblock::seal(&mut bytes[1024..2048]);
    }
    bytes
}

fn walk(fs: &Arc<Fs>, path: &str, depth: u32, budget: &mut u32) {
    let mut names = Vec::new();
    let _damaged = fs.read_dir(path.as_bytes(), &mut |name, _, _| {
        names.push(String::from_utf8_lossy(name).into_owned());
        names.len() < 300
    });
    for name in names.iter().filter(|name| *name != "." && *name != "..") {
        if *budget == 0 {
            return;
        }
        *budget -= 1;
        let path = format!("{path}{name}");
        let _damaged = fs.readlink(path.as_bytes());
        let Ok(inode) = fs.lookup(path.as_bytes(), false) else { continue };
        let stat = fs.stat(&inode);
        if stat.mode & 0o170_000 == 0o040_000 && depth < 4 {
            walk(fs, &format!("{path}/"), depth + 1, budget);
        }
        read_some(fs, &inode, stat.size);
    }
}

fn read_some(fs: &Arc<Fs>, inode: &Arc<Inode>, size: u64) {
    if inode.mode() & 0o170_000 == 0o100_000 {
        let mut data = vec![0; 65536];
        for pos in [0, size / 2, size.saturating_sub(65536)] {
            let _damaged = fs.buffered_read(inode, pos, &mut data);
        }
    }
}

fn ranges(fs: &Arc<Fs>, inode: &Arc<Inode>) {
    let size = fs.stat(inode).size;
    for (mode, pos, len) in [
        (FallocateMode::InsertRange, 8192, 4096),
        (FallocateMode::PunchHole, 20_001, 30_000),
        (FallocateMode::CollapseRange, 12_288, 65_536),
        (FallocateMode::ZeroRange { keep_size: true }, 5000, 100_000),
        (FallocateMode::Allocate { keep_size: false }, size / 2, 20_000),
    ] {
        let _damaged = fs.fallocate(inode, mode, pos, len);
        let _damaged = fs.extents(inode, pos, u64::MAX, 100);
        let _damaged = (fs.seek(inode, pos, Whence::Data), fs.seek(inode, pos, Whence::Hole));
    }
    let _damaged = fs.fsync(inode, false);
}

/// Whatever the image says: mounts, reads, writes, deletes, unmounts; and what that made of the metadata.
fn exercise(bytes: Vec<u8>) -> std::result::Result<(), String> {
    if let Ok(fs) = mount(bytes.clone(), true) {
        walk(&fs, "/", 0, &mut 400);
    }
    let memory = Arc::new(MemoryDevice::new(bytes));
    let recorder = Recorder::new();
    let device = Arc::new(RecordingDevice::new(memory.clone(), recorder.clone(), 0));
    let Ok((fs, _)) = Fs::mount(device, &MountOptions::default()) else { return Ok(()) };
    let mut guard = MetadataGuard::after_mount(memory.snapshot(), &recorder.take()).ok_or("no metadata")?;
    let data = marked(5000);
    walk(&fs, "/", 0, &mut 100);
    let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
    let _damaged = fs.mkdir(b"/dir/new", NewInode { mode: 0o755, ..new });
    for index in 0..10 {
        if let Ok((inode, _)) = fs.create(format!("/dir/new{index}").as_bytes(), new, false) {
            let _damaged = fs.buffered_write(&inode, index * 3000, &data);
            let _damaged = fs.fsync(&inode, false);
            let _damaged = fs.truncate(&inode, 100);
            let _damaged = fs.release(&inode);
        }
    }
    for name in ["comb", "file", "short", "dir/long", "dir/new", "gone"] {
        if let Ok(inode) = fs.open(format!("/{name}").as_bytes(), false) {
            let _damaged = fs.buffered_write(&inode, 50_000, &data[..3000]);
            ranges(&fs, &inode);
            let _damaged = fs.truncate(&inode, 10_000);
            let _damaged = fs.release(&inode);
        }
        let _damaged = fs.unlink(format!("/{name}").as_bytes());
        let _damaged = fs.rmdir(format!("/{name}").as_bytes());
    }
    for index in 0..10 {
        let _damaged = fs.unlink(format!("/dir/{index:03} {}", "n".repeat(60)).as_bytes());
    }
    let _damaged = fs.unmount();
    guard.judge(&recorder.take())
}

/// `UEXT4_FUZZ_ROUNDS` asks for more rounds.
#[test]
fn random_damage() {
    let rounds: u64 =
        std::env::var("UEXT4_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(250);
    for (features, dirty) in [
        ("", false),
        ("", true),
        ("^metadata_csum,^metadata_csum_seed", false),
        ("^metadata_csum,^metadata_csum_seed", true),
        ("^metadata_csum,^metadata_csum_seed,^has_journal,^orphan_file", false),
    ] {
        let (_dir, image) = image_of(features);
        fill(&image, dirty);
        let base = fs::read(&image).unwrap();
        let used: Vec<_> = (1..base.len() / 1024)
            .filter(|block| base[block * 1024..][..1024].iter().any(|&byte| byte != 0))
            .collect();
        let (sender, receiver) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            for round in 0..rounds {
                let bytes = mutate(&mut Random(round), &base, &used);
                sender.send((round, Ok(()))).unwrap();
                let judged = catch_unwind(AssertUnwindSafe(|| exercise(bytes)));
                if let Err(why) = judged.unwrap_or_else(|_| Err("panicked".into())) {
                    sender.send((round, Err(why))).unwrap();
                    return;
                }
            }
        });
        let mut last = 0;
        loop {
            match receiver.recv_timeout(Duration::from_secs(60)) {
                Ok((round, Ok(()))) => last = round,
                Ok((round, Err(why))) => panic!("'{features}', dirty: {dirty}: round {round}: {why}"),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("'{features}', dirty: {dirty}: round {last} hangs")
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        worker.join().unwrap();
        assert_eq!(last + 1, rounds);
    }
}
