//! Volumes that the kernel left in the middle of its work, replayed by us, by the kernel and by e2fsck: the same bytes from the
//! log (X52, CM9), and the same volume after orphans are processed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod workloads;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use ext4::{Fs, OrphansProcessed};
use ext4_sim::crash::judge::{mount_options, read_tree, same_tree_by_kernel};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, debugfs, tool, tool_ok};
use ext4_sim::pattern;
use jbd2::recovery::{self, RecoverOptions};
use jbd2::{LogExtent, LogMap};
use workloads::{MANY, SYNCED, Work};

/// For [`MANY`], on blocks of 1 KiB: features as mke2fs -O takes them.
const FEATURES: [&str; 6] =
    ["orphan_file", "^orphan_file", "^metadata_csum", "^64bit,^metadata_csum", "^flex_bg", "^dir_index"];

/// For [`SYNCED`]: features, bytes of a block.
const FORMATS: [(&str, usize); 5] = [
    ("none", 4096),
    ("none", 1024),
    ("^metadata_csum", 4096),
    ("^64bit,orphan_file", 2048),
    ("^extent,^64bit,^metadata_csum", 1024),
];

/// How a volume came to be as it is.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    work: Work,
    features: &'static str,
    block_size: usize,
    /// As mke2fs -J takes it.
    journal: &'static str,
    /// The log is flushed before the volume stops.
    flushed: bool,
}

fn cases() -> Vec<Case> {
    let many = MANY.into_iter().enumerate().flat_map(|(index, (name, work))| {
        FEATURES.into_iter().enumerate().map(move |(at, features)| Case {
            name,
            work,
            features,
            block_size: 1024,
            journal: "size=1",
            flushed: (index + at) % 2 == 0,
        })
    });
    let synced = SYNCED.into_iter().flat_map(|(name, work)| {
        FORMATS.into_iter().map(move |(features, block_size)| Case {
            name,
            work,
            features,
            block_size,
            journal: "size=4",
            flushed: false,
        })
    });
    many.chain(synced).collect()
}

/// EXT4_IOC_SHUTDOWN. `false`: no perl.
fn shut_down(root: &Path, flushed: bool) -> bool {
    let script =
        "open(F, '<', $ARGV[0]) or die; my $f = pack('L', $ARGV[1]); ioctl(F, 0x8004587D, $f) or die $!";
    let flags = if flushed { "1" } else { "2" };
    let done = Command::new("perl").args(["-e", script]).arg(root).arg(flags).status();
    done.is_ok_and(|status| status.success())
}

/// An image that the kernel left.
fn dirty(image: &Path, case: Case) -> bool {
    File::create(image).unwrap().set_len(24 << 20).unwrap();
    let block_size = case.block_size.to_string();
    let mut args = vec!["-q", "-F", "-t", "ext4", "-b", &block_size, "-N", "8192", "-J", case.journal];
    if case.features != "none" {
        args.extend(["-O", case.features]);
    }
    args.push(image.to_str().unwrap());
    tool_ok("mke2fs", &args);
    let mount = KernelMount::new(image, "rw");
    let open = (case.work)(mount.path());
    let stopped = shut_down(mount.path(), case.flushed);
    drop(open);
    stopped
}

/// Where the log lies, as debugfs tells it: `(first-last):first-last`, and `(IND):block`, which is not the log's.
fn log_map(image: &Path) -> LogMap {
    let stat = debugfs(image, "stat <8>");
    let mut extents = Vec::new();
    for run in stat.split(|c: char| c == ',' || c.is_whitespace()) {
        let Some((lblks, blocks)) = run.strip_prefix('(').and_then(|run| run.split_once("):")) else {
            continue;
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
        };
        if let (Some((first, last)), Some((device_block, _))) = (range(lblks), range(blocks)) {
            let len = (last - first + 1) as u32;
            extents.push(LogExtent { log_start: first as u32, len, device_block });
        }
    }
    LogMap::new(extents).unwrap()
}

/// What replay alone makes of an image equals e2fsck's (R26) in every block but the two superblocks.
fn compare_replay(bytes: &[u8], theirs: &Path, block_size: usize, what: &str) {
    fs::write(theirs, bytes).unwrap();
    let checked = tool("e2fsck", &["-y", "-E", "journal_only", theirs.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.code().is_some_and(|code| code <= 1), "{what}: {text}");
    let map = log_map(theirs);
    let device = MemoryDevice::new(bytes.to_vec());
    let options = RecoverOptions { volume_blocks: (bytes.len() / block_size) as u64, write_bytes: 1 << 16 };
    let replayed = recovery::recover(&device, block_size, &map, options)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(replayed.transactions > 0, "{what}: an empty log");
    let (ours, theirs) = (device.snapshot(), fs::read(theirs).unwrap());
    let superblocks = [1024 / block_size, map.run(0).unwrap().0 as usize];
    let blocks = ours.chunks(block_size).zip(theirs.chunks(block_size)).enumerate();
    let different: Vec<usize> = blocks
        .filter(|(block, (ours, theirs))| !superblocks.contains(block) && ours != theirs)
        .map(|(block, _)| block)
        .collect();
    assert!(different.is_empty(), "{what}: blocks {different:?}");
}

/// Everything that a mount shows but the times of access, as an archive.
fn archive(root: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--sort=name", "--format=posix"])
        .args(["--pax-option=exthdr.name=%d/%f,delete=atime", "--warning=no-all", "-cf", "-", "-C"])
        .arg(root)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// e2fsck's verdict, and the free counts.
fn verdict(image: &Path) -> String {
    let path = image.to_str().unwrap();
    let checked = tool("e2fsck", &["-fn", path]);
    let text = String::from_utf8_lossy(&checked.stdout).replace(path, "image");
    let shown = tool_ok("dumpe2fs", &["-h", path]);
    let counts = |line: &&str| {
        ["Free blocks:", "Free inodes:", "First orphan", "Filesystem state:"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    format!(
        "{:?}\n{text}{}",
        checked.status.code(),
        shown.lines().filter(counts).collect::<Vec<_>>().join("\n")
    )
}

/// Whether the log alone could be compared; `None` where a tool is missing.
fn compare(dir: &Path, case: Case) -> Option<bool> {
    let [image, theirs, ours] = ["image", "e2fsck", "ours"].map(|name| dir.join(name));
    let Case { name, features, block_size, flushed, .. } = case;
    let what = format!("{name} on {features}, blocks of {block_size}, log flushed: {flushed}");
    if !dirty(&image, case) {
        return None;
    }
    let bytes = fs::read(&image).unwrap();
    let device = Arc::new(MemoryDevice::new(bytes.clone()));
    let (mounted, report) = Fs::mount(device.clone(), &mount_options(Arc::default()))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    // e2fsck would go on to process orphans.
    let comparable = report.orphans == OrphansProcessed::default();
    if comparable {
        compare_replay(&bytes, &theirs, block_size, &what);
    }
    assert!(name != "orphans" || report.orphans.deleted == 12, "{what}: {:?}", report.orphans);
    let tree = read_tree(&mounted).unwrap();
    mounted.unmount().unwrap();
    fs::write(&ours, device.snapshot()).unwrap();
    let kernel = KernelMount::new(&image, "rw,noatime");
    same_tree_by_kernel(kernel.path(), &tree).unwrap_or_else(|error| panic!("{what}: {error}"));
    let by_kernel = archive(kernel.path());
    drop(kernel);
    assert_clean(&ours);
    assert_eq!(verdict(&ours), verdict(&image), "{what}");
    let by_us = archive(KernelMount::new(&ours, "ro,noatime").path());
    assert!(by_us == by_kernel, "{what}: the trees differ");
    Some(comparable)
}

/// 78 volumes. The time is mostly spent waiting for mounts: more threads than processors.
#[test]
fn x52_kernel_volumes_are_replayed_alike() {
    const TEST: &str = "x52_kernel_volumes_are_replayed_alike";
    if !available(Need::KernelMount, TEST) || !available(Need::E2fsprogs, TEST) {
        return;
    }
    let cases = Mutex::new(cases().into_iter());
    let worker = || {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let next = || cases.lock().unwrap().next();
        std::iter::from_fn(next).map(|case| compare(dir.path(), case)).collect::<Vec<_>>()
    };
    let compared: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    if compared.contains(&None) {
        eprintln!("skipped: {TEST}: needs perl");
        return;
    }
    let replays = compared.iter().filter(|replay| **replay == Some(true)).count();
    assert!(compared.len() == 78 && replays >= 60, "{} compared, {replays} of them in bytes", compared.len());
}

/// J6. A v1 journal superblock: used as it is, revokes included; Linux and we replay the same.
#[test]
fn a_v1_journal() {
    let test = "a_v1_journal";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let make = |features: &str| {
        File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let path = image.to_str().unwrap();
        let args = ["-q", "-F", "-t", "ext4", "-b", "1024", "-O", features, "-J", "size=4", path];
        assert!(tool("mke2fs", &args).status.success());
        let mut bytes = fs::read(&image).unwrap();
        let jsb = log_map(&image).run(0).unwrap().0 as usize * 1024;
        bytes[jsb + 4..jsb + 8].copy_from_slice(&3u32.to_be_bytes());
        bytes[jsb + 0x24..jsb + 1024].fill(0);
        Arc::new(MemoryDevice::new(bytes))
    };
    let device = make("^metadata_csum,^64bit");
    let new = |mode| ext4::NewInode { mode, uid: 0, gid: 0 };
    let (mounted, _) = Fs::mount(device.clone(), &mount_options(Arc::default())).unwrap();
    for round in 0..3 {
        for index in 0..20 {
            mounted.mkdir(format!("/d{index}").as_bytes(), new(0o755)).unwrap();
        }
        mounted.sync().unwrap();
        for index in 0..20 {
            mounted.rmdir(format!("/d{index}").as_bytes()).unwrap();
        }
        let (file, _) = mounted.create(format!("/file {round}").as_bytes(), new(0o100_644), true).unwrap();
        mounted.buffered_write(&file, 0, &pattern::bytes(round, 60_000)).unwrap();
        mounted.release(&file).unwrap();
        mounted.sync().unwrap();
    }
    let tree = read_tree(&mounted).unwrap();
    mounted.shut_down();
    fs::write(&image, device.snapshot()).unwrap();
    let (again, report) = Fs::mount(device, &mount_options(Arc::default())).unwrap();
    assert!(report.transactions_replayed > 3 && report.copies_revoked > 0);
    assert!(read_tree(&again).unwrap() == tree);
    same_tree_by_kernel(KernelMount::new(&image, "rw").path(), &tree).unwrap();
    assert_clean(&image);

    let wide = make("^metadata_csum,64bit");
    let refused = Fs::mount(wide, &mount_options(Arc::default())).err().map(|error| error.errno());
    assert_eq!(refused, Some(ext4::errno::EINVAL));
}
