//! Dirty volumes that Linux left: our replay against e2fsck's, byte for byte, and our mount against the kernel's (CM9).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ext4::Fs;
use ext4_sim::crash::judge::{mount_options, read_tree, same_tree_by_kernel};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, debugfs, tool};
use ext4_sim::pattern;
use jbd2::recovery::{self, RecoverOptions};
use jbd2::{LogExtent, LogMap};

type Work = fn(&Path);

fn write(path: &Path, bytes: usize) -> File {
    fs::write(path, pattern::bytes(bytes as u32, bytes)).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn synced(path: &Path, bytes: usize) {
    write(path, bytes).sync_all().unwrap();
}

const WORKLOADS: &[(&str, Work)] = &[
    ("files and directories", |root| {
        for index in 0..30 {
            fs::create_dir(root.join(format!("d{index}"))).unwrap();
            synced(&root.join(format!("d{index}/file")), 1000 * index);
        }
    }),
    ("names of one directory, and half of them gone", |root| {
        for index in 0..200 {
            drop(write(&root.join(format!("a name of some length {index}")), 10));
        }
        synced(&root.join("all"), 1);
        for index in (0..200).step_by(2) {
            fs::remove_file(root.join(format!("a name of some length {index}"))).unwrap();
        }
        synced(&root.join("half"), 1);
    }),
    ("directories that went: revokes", |root| {
        for round in 0..4 {
            for index in 0..20 {
                fs::create_dir(root.join(format!("d{index}"))).unwrap();
            }
            synced(&root.join(format!("made {round}")), 5000);
            for index in 0..20 {
                fs::remove_dir(root.join(format!("d{index}"))).unwrap();
            }
            synced(&root.join(format!("gone {round}")), 50_000);
        }
    }),
    ("renames and links", |root| {
        synced(&root.join("a"), 3000);
        for index in 0..20 {
            fs::hard_link(root.join("a"), root.join(format!("link {index}"))).unwrap();
            fs::rename(root.join(format!("link {index}")), root.join(format!("moved {index}"))).unwrap();
            symlink(format!("target {index}"), root.join(format!("symlink {index}"))).unwrap();
            synced(&root.join("b"), 100 * index);
        }
    }),
    ("a fragmented file: blocks of its tree", |root| {
        let file = write(&root.join("fragmented"), 0);
        for index in 0..400u64 {
            file.write_all_at(&pattern::bytes(index as u32, 1024), index * 37 % 401 * 8192).unwrap();
            if index % 40 == 0 {
                file.sync_all().unwrap();
            }
        }
        file.sync_all().unwrap();
        file.set_len(500_000).unwrap();
        file.sync_all().unwrap();
    }),
    ("attributes", |root| {
        for index in 0..20u32 {
            let path = root.join(format!("file {index}"));
            drop(write(&path, 100));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + index)).unwrap();
            chown(&path, Some(70_000 + index), Some(5)).unwrap();
            synced(&path, 2000);
        }
    }),
];

const FEATURES: &[(&str, &str)] = &[
    ("", "4096"),
    ("", "1024"),
    ("^metadata_csum", "4096"),
    ("^64bit,orphan_file", "2048"),
    ("^extent,^64bit,^metadata_csum", "1024"),
];

/// `None` where a tool is missing.
fn left_by_linux(image: &Path, (features, block_size): (&str, &str), work: Work) -> Option<()> {
    File::create(image).unwrap().set_len(24 << 20).unwrap();
    let mut args = vec!["-q", "-F", "-t", "ext4", "-b", block_size, "-J", "size=4"];
    if !features.is_empty() {
        args.extend(["-O", features]);
    }
    args.push(image.to_str().unwrap());
    assert!(tool("mke2fs", &args).status.success());
    let mount = KernelMount::new(image, "rw");
    let root = mount.path();
    work(root);
    let script = "open(F, '<', $ARGV[0]) or die; my $f = pack('L', 2); ioctl(F, 0x8004587D, $f) or die $!";
    let done = Command::new("perl").args(["-e", script]).arg(root).status();
    done.is_ok_and(|status| status.success()).then_some(())
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

/// X52. In every block but the two superblocks.
fn assert_same_replay(image: &Path, bytes: &[u8], block_size: usize) {
    let device = MemoryDevice::new(bytes.to_vec());
    let volume_blocks = (bytes.len() / block_size) as u64;
    let map = log_map(image);
    let options = RecoverOptions { volume_blocks, write_bytes: 1 << 16 };
    let recovered = recovery::recover(&device, block_size, &map, options).unwrap();
    assert!(recovered.transactions > 0);
    let by_e2fsck = image.with_extension("e2fsck");
    fs::write(&by_e2fsck, bytes).unwrap();
    let replayed = tool("e2fsck", &["-y", "-E", "journal_only", by_e2fsck.to_str().unwrap()]);
    assert!(matches!(replayed.status.code(), Some(0 | 1)), "{replayed:?}");
    let (ours, theirs) = (device.snapshot(), fs::read(by_e2fsck).unwrap());
    let superblocks = [1024 / block_size, map.run(0).unwrap().0 as usize];
    let differ: Vec<usize> = (0..volume_blocks as usize)
        .filter(|block| !superblocks.contains(block))
        .filter(|block| {
            ours[block * block_size..][..block_size] != theirs[block * block_size..][..block_size]
        })
        .collect();
    assert!(differ.is_empty(), "blocks {differ:?}");
}

/// 30 volumes: six workloads, five sets of features.
#[test]
fn replayed_as_by_e2fsck_and_the_kernel() {
    let test = "replayed_as_by_e2fsck_and_the_kernel";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    for features in FEATURES {
        for (name, work) in WORKLOADS {
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("image");
            if left_by_linux(&image, *features, *work).is_none() {
                eprintln!("skipped: {test}: needs perl");
                return;
            }
            let bytes = fs::read(&image).unwrap();
            let what = format!("{name}, {features:?}");
            assert_same_replay(&image, &bytes, features.1.parse().unwrap());
            let device = Arc::new(MemoryDevice::new(bytes));
            let (mounted, report) = Fs::mount(device.clone(), &mount_options(Arc::default())).unwrap();
            assert!(report.transactions_replayed > 0, "{what}");
            let tree = read_tree(&mounted).unwrap();
            mounted.unmount().unwrap();
            let ours = dir.path().join("ours");
            fs::write(&ours, device.snapshot()).unwrap();
            assert_clean(&ours);
            let kernel = KernelMount::new(&image, "rw");
            same_tree_by_kernel(kernel.path(), &tree).unwrap_or_else(|error| panic!("{what}: {error}"));
            drop(kernel);
            assert_clean(&image);
        }
    }
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
