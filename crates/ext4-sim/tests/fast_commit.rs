//! Fast commits that Linux left behind: replayed to what Linux makes of them, or to what it should (R19–R25).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block_io::{Device, Event, Recorder, RecordingDevice};
use ext4::{Fs, MountOptions, MountReport, errno};
use ext4_format::checksum::crc32c;
use ext4_sim::crash::judge::{TestClock, Tree, mount_options, read_tree, same_tree_by_kernel};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::metadata_guard::{MetadataGuard, marked};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, e2fsck, tool_ok};
use ext4_sim::pattern;

/// What Linux 6.18 makes of the fast commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Linux {
    /// The same as we.
    Agrees,
    /// The same names and contents, but links or blocks for e2fsck to put right.
    Damages,
    /// It does not mount.
    Refuses,
}

struct Case {
    name: &'static str,
    /// On each of the volumes.
    linux: [Linux; 2],
    /// After what all cases begin with, synced: ends with an fsync.
    work: fn(&Path),
}

/// Memory, where there is some: images are large.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn touch(path: &Path, bytes: usize) -> File {
    fs::write(path, pattern::bytes(bytes as u32, bytes)).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn synced(path: &Path, bytes: usize) {
    touch(path, bytes).sync_all().unwrap();
}

fn fsync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn fallocate(path: &Path, args: &[&str]) {
    assert!(Command::new("fallocate").args(args).arg(path).status().unwrap().success());
}

/// At random places, written and synced a few at a time: more extents than an inode holds.
fn scattered(root: &Path) {
    let file = touch(&root.join("scattered"), 0);
    for round in 0..6u64 {
        for index in 0..40u64 {
            let at = (index * 37 + round * 11) % 251 * 8192;
            file.write_all_at(&pattern::bytes(at as u32, 4096), at).unwrap();
        }
        file.sync_all().unwrap();
    }
}

const CASES: &[Case] = &[
    Case { name: "new file", linux: [Linux::Agrees; 2], work: |root| synced(&root.join("new"), 12_345) },
    Case {
        name: "appends, a commit each",
        linux: [Linux::Agrees; 2],
        work: |root| {
            let file = touch(&root.join("log"), 0);
            for index in 0..12u64 {
                file.write_all_at(&pattern::bytes(index as u32, 3000), index * 3000).unwrap();
                file.sync_all().unwrap();
            }
        },
    },
    Case { name: "scattered extents", linux: [Linux::Agrees; 2], work: scattered },
    Case {
        name: "unlink, and its number used again",
        linux: [Linux::Agrees; 2],
        work: |root| {
            fs::remove_file(root.join("victim")).unwrap();
            synced(&root.join("again"), 7000);
        },
    },
    Case {
        name: "rename",
        linux: [Linux::Agrees; 2],
        work: |root| {
            fs::rename(root.join("keep"), root.join("base/kept")).unwrap();
            fsync(&root.join("base/kept"));
        },
    },
    Case {
        name: "rename over another",
        linux: [Linux::Agrees; 2],
        work: |root| {
            fs::rename(root.join("keep"), root.join("victim")).unwrap();
            fsync(&root.join("victim"));
        },
    },
    Case {
        name: "link and unlink",
        linux: [Linux::Agrees; 2],
        work: |root| {
            fs::hard_link(root.join("keep"), root.join("keep2")).unwrap();
            fs::hard_link(root.join("keep"), root.join("base/keep3")).unwrap();
            fs::remove_file(root.join("keep")).unwrap();
            fsync(&root.join("keep2"));
        },
    },
    Case {
        name: "truncate, and write again",
        linux: [Linux::Agrees; 2],
        work: |root| {
            let file = OpenOptions::new().write(true).open(root.join("victim")).unwrap();
            file.set_len(9000).unwrap();
            file.sync_all().unwrap();
            file.write_all_at(&pattern::bytes(3, 8192), 200_000).unwrap();
            file.sync_all().unwrap();
            file.set_len(1 << 20).unwrap();
            file.sync_all().unwrap();
        },
    },
    Case {
        name: "fallocate and punch",
        linux: [Linux::Agrees; 2],
        work: |root| {
            fallocate(&root.join("keep"), &["-n", "-l", "100000"]);
            fsync(&root.join("keep"));
            fallocate(&root.join("victim"), &["-p", "-o", "8192", "-l", "8192"]);
            fsync(&root.join("victim"));
            let file = OpenOptions::new().write(true).open(root.join("keep")).unwrap();
            file.write_all_at(&pattern::bytes(1, 4096), 40_960).unwrap();
            file.sync_all().unwrap();
        },
    },
    Case {
        name: "attributes",
        linux: [Linux::Agrees; 2],
        work: |root| {
            fs::set_permissions(root.join("keep"), fs::Permissions::from_mode(0o4711)).unwrap();
            fsync(&root.join("keep"));
        },
    },
    Case {
        name: "many names: the directory grows an index",
        linux: [Linux::Refuses, Linux::Damages],
        work: |root| {
            for index in 0..150 {
                drop(touch(&root.join(format!("base/a name that is long enough {index:04}")), 0));
            }
            synced(&root.join("base/the last"), 10);
        },
    },
    Case {
        name: "a new directory",
        linux: [Linux::Damages; 2],
        work: |root| {
            fs::create_dir(root.join("dir")).unwrap();
            fs::create_dir(root.join("dir/sub")).unwrap();
            synced(&root.join("dir/file"), 100);
        },
    },
    Case {
        name: "a directory that went",
        linux: [Linux::Damages; 2],
        work: |root| {
            fs::remove_dir(root.join("empty")).unwrap();
            synced(&root.join("new"), 100);
        },
    },
];

/// A volume as Linux leaves it when its power fails after `work`. `None` where perl is missing.
fn left_by_linux(
    image: &Path,
    size: u64,
    features: &str,
    block_size: &str,
    work: impl FnOnce(&Path),
) -> Option<()> {
    File::create(image).unwrap().set_len(size).unwrap();
    let features = format!("fast_commit,{features}");
    let features = features.trim_end_matches(',');
    tool_ok("mke2fs", &["-q", "-F", "-t", "ext4", "-b", block_size, "-O", features, image.to_str().unwrap()]);
    let mount = KernelMount::new(image, "rw");
    let root = mount.path();
    fs::create_dir(root.join("base")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    drop((touch(&root.join("keep"), 5000), touch(&root.join("victim"), 50_000)));
    assert!(Command::new("sync").arg("-f").arg(root).status().unwrap().success());
    work(root);
    let script = "open(F, '<', $ARGV[0]) or die; my $f = pack('L', 2); ioctl(F, 0x8004587D, $f) or die $!";
    let done = Command::new("perl").args(["-e", script]).arg(root).status();
    done.is_ok_and(|status| status.success()).then_some(())
}

/// Recovers in memory and unmounts: what it did, the tree, and the volume.
fn recovered(bytes: &[u8]) -> ext4::Result<(MountReport, Tree, Vec<u8>)> {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    let (fs, report) = Fs::mount(device.clone(), &mount_options(Arc::new(TestClock::default())))?;
    let tree = read_tree(&fs).unwrap();
    fs.unmount()?;
    Ok((report, tree, device.snapshot()))
}

fn assert_bytes_clean(dir: &Path, bytes: &[u8]) {
    let path = dir.join("ours");
    fs::write(&path, bytes).unwrap();
    assert_clean(&path);
}

/// Without times, which neither says.
fn compare_with_linux(case: &Case, linux: Linux, image: &Path, tree: &Tree) {
    match (KernelMount::try_new(image, "rw"), linux) {
        (Err(_), Linux::Refuses) => return,
        (Ok(mount), Linux::Agrees) => same_tree_by_kernel(mount.path(), tree).unwrap(),
        (Ok(_mount), Linux::Damages) => {}
        (found, expected) => {
            panic!("{} on {}: {expected:?}, but {:?}", case.name, image.display(), found.err())
        }
    }
    assert_eq!(e2fsck(image).is_ok(), linux == Linux::Agrees, "{}", case.name);
}

/// X37. Each tag, alone and with others: our tree is the kernel's, and e2fsck finds nothing; a read-only mount shows the same
/// and writes nothing.
#[test]
fn replayed_as_linux_does() {
    let test = "replayed_as_linux_does";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    for (volume, (features, block_size)) in
        [("", "4096"), ("^metadata_csum,orphan_file", "1024")].into_iter().enumerate()
    {
        // Every third one on the other volume.
        for case in CASES.iter().skip(volume).step_by(2 * volume + 1) {
            let dir = dir();
            let image = dir.path().join("image");
            if left_by_linux(&image, 64 << 20, features, block_size, case.work).is_none() {
                eprintln!("skipped: {test}: needs perl");
                return;
            }
            let bytes = fs::read(&image).unwrap();
            let (report, tree, after) =
                recovered(&bytes).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert!(report.fast_commits > 0, "{}", case.name);
            assert_bytes_clean(dir.path(), &after);
            let reader = MountOptions { read_only: true, ..mount_options(Arc::default()) };
            let device = Arc::new(MemoryDevice::new(bytes.clone()));
            let (fs, _) = Fs::mount(device.clone(), &reader).unwrap();
            assert!(read_tree(&fs).unwrap() == tree, "{}: read-only", case.name);
            assert!(device.snapshot() == bytes);
            compare_with_linux(case, case.linux[volume], &image, &tree);
        }
    }
}

/// A file without a name, open and synced: Linux cannot mount that volume any more. We delete the file.
#[test]
fn an_open_file_without_a_name() {
    let test = "an_open_file_without_a_name";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    let dir = dir();
    let image = dir.path().join("image");
    let left = left_by_linux(&image, 64 << 20, "", "4096", |root| {
        let file = OpenOptions::new().write(true).open(root.join("victim")).unwrap();
        fs::remove_file(root.join("victim")).unwrap();
        file.write_all_at(b"zz", 0).unwrap();
        file.sync_all().unwrap();
    });
    if left.is_none() {
        eprintln!("skipped: {test}: needs perl");
        return;
    }
    let (report, tree, after) = recovered(&fs::read(&image).unwrap()).unwrap();
    assert!(report.fast_commits > 0);
    assert_eq!(report.orphans.deleted, 1);
    assert!(!tree.contains_key("victim"));
    assert_bytes_clean(dir.path(), &after);
}

struct Area {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    /// Where the first fast commit begins.
    at: usize,
}

/// A volume with fast commits of three new files, one block each.
fn three_commits(test: &str) -> Option<Area> {
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return None;
    }
    let dir = dir();
    let image = dir.path().join("image");
    left_by_linux(&image, 24 << 20, "", "4096", |root| {
        for name in ["one", "two", "three"] {
            synced(&root.join(name), 5000);
        }
    })?;
    let bytes = fs::read(image).unwrap();
    let head = |block: &[u8]| block.starts_with(&[9, 0, 8, 0, 0, 0, 0, 0]);
    let at = bytes.chunks(4096).position(head).unwrap() * 4096;
    Some(Area { dir, bytes, at })
}

impl Area {
    fn names(&self, tree: &Tree) -> Vec<&'static str> {
        ["one", "two", "three"].into_iter().filter(|name| tree.contains_key(*name)).collect()
    }

    fn linux_mounts(&self, bytes: &[u8]) -> bool {
        let path: PathBuf = self.dir.path().join("linux");
        fs::write(&path, bytes).unwrap();
        KernelMount::try_new(&path, "rw").is_ok()
    }
}

/// X36. R21–R23: what counts of damaged and stale fast commits.
#[test]
fn what_is_damaged_ends_them() {
    let Some(area) = three_commits("what_is_damaged_ends_them") else { return };
    let at = area.at;
    let cases: [(&str, usize, u8, &[&str], bool); 7] = [
        ("nothing", at + 4090, 0, &["one", "two", "three"], true),
        ("a sum in the last", at + 2 * 4096 + 40, 0x10, &["one", "two"], true),
        ("a tag in the second", at + 4096, 0x70, &["one"], true),
        ("a length in the second", at + 4096 + 3, 0x70, &["one"], true),
        ("a sum in the first", at + 40, 0x10, &[], false),
        ("another tid", at + 8, 0x01, &[], true),
        ("no head", at, 0x08, &[], true),
    ];
    for (what, place, flip, names, linux) in cases {
        let mut bytes = area.bytes.clone();
        bytes[place] ^= flip;
        let (_, tree, after) = recovered(&bytes).unwrap();
        assert_eq!(area.names(&tree), names, "{what}");
        assert_bytes_clean(area.dir.path(), &after);
        assert_eq!(area.linux_mounts(&bytes), linux, "{what}");
    }
    // R22: with its sum made right.
    let mut bytes = area.bytes.clone();
    bytes[at + 4] = 1;
    let before = bytes.clone();
    assert_eq!(recovered(&bytes).err().map(|error| error.errno()), Some(errno::EOPNOTSUPP));
    assert!(bytes == before && !area.linux_mounts(&bytes));
}

/// X10, X36. A recovered journal goes on with ours; the fast commits are void for everybody.
#[test]
fn they_are_void_afterwards() {
    let Some(area) = three_commits("they_are_void_afterwards") else { return };
    let device = Arc::new(MemoryDevice::new(area.bytes.clone()));
    let (fs, report) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    assert_eq!(report.fast_commits, 3);
    fs.unlink(b"/one").unwrap();
    fs.sync().unwrap();
    fs.shut_down();
    assert!(device.snapshot()[area.at..area.at + 4096].iter().all(|byte| *byte == 0), "R25: block L + 1");
    let (report, tree, after) = recovered(&device.snapshot()).unwrap();
    assert_eq!(report.fast_commits, 0);
    assert_eq!(area.names(&tree), ["two", "three"]);
    assert_bytes_clean(area.dir.path(), &after);
    assert!(area.linux_mounts(&device.snapshot()));
}

/// X35, X37. A crash after any write or flush of a recovery, even one that tears a block: recovered again, it is the same.
#[test]
fn recovery_can_be_repeated() {
    let Some(area) = three_commits("recovery_can_be_repeated") else { return };
    let (_, tree, _) = recovered(&area.bytes).unwrap();
    let recorder = Recorder::new();
    let memory: Arc<dyn Device> = Arc::new(MemoryDevice::new(area.bytes.clone()));
    let device = Arc::new(RecordingDevice::new(memory, recorder.clone(), 0));
    let (fs, _) = Fs::mount(device, &mount_options(Arc::default())).unwrap();
    fs.shut_down();
    let mut bytes = area.bytes.clone();
    let mut states = 0;
    for event in recorder.events() {
        let Event::WriteSubmitted { offset_bytes, bytes: written, .. } = event else { continue };
        let at = offset_bytes as usize;
        for end in [512.min(written.len()), written.len()] {
            bytes[at..at + end].copy_from_slice(&written[..end]);
            let (_, again, after) = recovered(&bytes).unwrap();
            assert!(again == tree, "after {states} states, at {at:#x}");
            if states % 5 == 0 {
                assert_bytes_clean(area.dir.path(), &after);
            }
            states += 1;
        }
    }
    assert!(states > 20, "{states}");
}

/// R24 by hand: ranges for inodes that are not there take no space; a range in the journal is refused.
#[test]
fn crafted_tags() {
    let Some(area) = three_commits("crafted_tags") else { return };
    let tag = |kind: u16, value: &[u8]| {
        [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat()
    };
    let range = |ino: u32, block: u64| {
        let extent = ext4_format::extent::Extent {
            lblk: ext4_format::Lblk(0),
            len: 10,
            start: ext4_format::Pblk(block),
            unwritten: false,
        };
        let mut value = vec![0; 16];
        value[..4].copy_from_slice(&ino.to_le_bytes());
        extent.encode(&mut value[4..]);
        tag(1, &value)
    };
    let with = |tags: &[Vec<u8>]| {
        let mut bytes = area.bytes.clone();
        let tid = &area.bytes[area.at + 8..area.at + 12];
        let mut block = [&tag(9, &[&[0; 4], tid].concat())[..], &tags.concat()].concat();
        block.extend([8, 0]);
        block.extend((4096 - block.len() as u16 - 2).to_le_bytes());
        block.extend(tid);
        let sum = crc32c(0, &block);
        block.extend(sum.to_le_bytes());
        block.resize(4096, 0);
        block.resize(3 * 4096, 0);
        bytes[area.at..area.at + block.len()].copy_from_slice(&block);
        bytes
    };
    let (report, _, after) = recovered(&with(&[range(5000, 5_000), range(5001, 5_005)])).unwrap();
    assert_eq!(report.fast_commits, 1);
    assert_bytes_clean(area.dir.path(), &after);
    let journal = (area.at / 4096) as u64 - 100;
    for bad in [
        range(12, journal),
        range(12, 1 << 40),
        range(12, 1),
        tag(6, &[&[8, 0, 0, 0][..], &[0; 160]].concat()),
    ] {
        let bytes = with(&[bad]);
        assert_eq!(recovered(&bytes).err().map(|error| error.errno()), Some(errno::EUCLEAN));
    }
}

/// Makes the sum of every TAIL right, as far as the tags can be followed.
fn seal(area: &mut [u8]) {
    let mut from = 0;
    let mut sum = 0;
    for start in (0..area.len()).step_by(4096) {
        let mut at = start;
        while at + 4 <= start + 4096 {
            let le16 = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
            let (kind, len) = (le16(at), usize::from(le16(at + 2)));
            let next = at + 4 + len;
            if !(1..=9).contains(&kind) || next > start + 4096 || (kind == 8 && len < 8) {
                return;
            }
            if kind == 8 {
                sum = crc32c(sum, &area[from.max(start)..at + 8]);
                area[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
                (from, sum) = (next, 0);
            }
            at = next;
        }
        if from < start + 4096 {
            sum = crc32c(sum, &area[from.max(start)..at.max(from)]);
            from = start + 4096;
        }
    }
}

/// Overwrites the beginning of every file of a directory and of those below, as far as that works.
fn write_to_all(fs: &Arc<Fs>, path: &str) {
    let mut names = Vec::new();
    let _damaged = fs.read_dir(path.as_bytes(), &mut |name, _, _| {
        names.push(String::from_utf8_lossy(name).into_owned());
        names.len() < 100
    });
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        let path = format!("{path}{name}");
        let Ok(inode) = fs.lookup(path.as_bytes(), false) else { continue };
        match inode.mode() >> 12 {
            4 if path.len() < 100 => write_to_all(fs, &format!("{path}/")),
            8 => {
                let _damaged = fs.buffered_write(&inode, 0, &marked(10_000));
                let _damaged = fs.fsync(&inode, false);
            }
            _ => {}
        }
    }
}

/// X39. Any bytes of the tags, with their sums made right: an error, or a mount that can be read and whose files can be written
/// without harm to the volume; no panic, no hang.
#[test]
fn any_tags_with_their_sums_made_right() {
    let Some(area) = three_commits("any_tags_with_their_sums_made_right") else { return };
    let range = area.at..area.at + 3 * 4096;
    let mut same = area.bytes.clone();
    seal(&mut same[range.clone()]);
    assert!(same == area.bytes, "the kernel's sums are these");
    // Where the tags are: before the filler of each block's TAIL.
    let used: Vec<usize> = range.clone().filter(|at| at % 4096 < 640 && area.bytes[*at] != 0).collect();
    let mut state: u64 = 39;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut replayed, mut refused) = (0, 0);
    for _ in 0..120 {
        let mut bytes = area.bytes.clone();
        for _ in 0..=random(3) {
            let at = used[random(used.len())] + random(3);
            bytes[at] = [random(256) as u8, 0, 0xFF, bytes[at] ^ 1 << random(8)][random(4)];
        }
        seal(&mut bytes[range.clone()]);
        let memory = Arc::new(MemoryDevice::new(bytes));
        let recorder = Recorder::new();
        let device = Arc::new(RecordingDevice::new(memory.clone(), recorder.clone(), 0));
        match Fs::mount(device, &mount_options(Arc::default())) {
            Ok((fs, report)) => {
                let mut guard = MetadataGuard::after_mount(memory.snapshot(), &recorder.take()).unwrap();
                // What the tags say may make no sense: an error, then.
                let _any = read_tree(&fs);
                write_to_all(&fs, "/");
                let _any = fs.unmount();
                guard.judge(&recorder.take()).unwrap();
                replayed += u32::from(report.fast_commits > 0);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(replayed > 30 && refused > 1, "{replayed} replayed, {refused} refused");
}
