//! Volumes that the kernel left in the middle of its work, replayed by us, by the kernel and by e2fsck: the same bytes from the
//! log (X52, CM9), and the same volume after orphans are processed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ext4::{Fs, MountOptions, OrphansProcessed};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, available, debugfs, tool, tool_ok};
use ext4_sim::pattern;
use jbd2::recovery::{self, RecoverOptions};
use jbd2::{LogExtent, LogMap};

const BLOCK: usize = 1024;
const JOURNAL_BLOCKS: u32 = 1024;

/// As mke2fs -O takes them.
const FEATURES: [&str; 6] =
    ["orphan_file", "^orphan_file", "^metadata_csum", "^64bit,^metadata_csum", "^flex_bg", "^dir_index"];

/// What happens before the volume stops; open files stay open until then.
type Work = fn(&Path) -> Vec<File>;

const WORKLOADS: [(&str, Work); 8] = [
    ("names", names),
    ("appends", appends),
    ("renames", renames),
    ("attributes", attributes),
    ("orphans", orphans),
    ("truncates", truncates),
    ("sparse files", sparse),
    ("a log that wraps", wrap),
];

fn write(path: &Path, seed: u32, len: usize) -> File {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).unwrap();
    file.write_all_at(&pattern::bytes(seed, len), 0).unwrap();
    file
}

fn names(root: &Path) -> Vec<File> {
    for n in 0..150u32 {
        write(&root.join(format!("file-{n}")), n, 700);
        if n % 3 == 0 {
            fs::create_dir(root.join(format!("dir-{n}"))).unwrap();
            std::os::unix::fs::symlink("x".repeat(40 + n as usize), root.join(format!("link-{n}"))).unwrap();
        }
    }
    File::open(root).unwrap().sync_all().unwrap();
    for n in 0..60 {
        fs::remove_file(root.join(format!("file-{n}"))).unwrap();
    }
    Vec::new()
}

fn appends(root: &Path) -> Vec<File> {
    let file = write(&root.join("log"), 1, 100);
    for n in 0..20u32 {
        file.write_all_at(&pattern::bytes(n, 3000), u64::from(n) * 3000).unwrap();
        file.sync_data().unwrap();
    }
    file.write_all_at(&[7; 9000], 70_000).unwrap();
    Vec::new()
}

fn renames(root: &Path) -> Vec<File> {
    fs::create_dir(root.join("a")).unwrap();
    fs::create_dir(root.join("b")).unwrap();
    for n in 0..25u32 {
        write(&root.join("a/new"), n, 5000).sync_all().unwrap();
        fs::rename(root.join("a/new"), root.join("b/current")).unwrap();
        fs::hard_link(root.join("b/current"), root.join(format!("a/kept{n}"))).unwrap();
        if n % 6 == 5 {
            fs::rename(root.join("b"), root.join("a/b")).unwrap();
            fs::rename(root.join("a/b"), root.join("b")).unwrap();
        }
    }
    Vec::new()
}

fn attributes(root: &Path) -> Vec<File> {
    use std::os::unix::fs::PermissionsExt;
    for n in 0..30u32 {
        let path = root.join(format!("f{n}"));
        write(&path, n, 10);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + n)).unwrap();
        set_xattr(&path, 20 + 15 * n as usize);
        if n % 7 == 6 {
            File::open(&path).unwrap().sync_all().unwrap();
        }
    }
    Vec::new()
}

/// setxattr(2) of `len` bytes: in the inode, or in a block.
fn set_xattr(path: &Path, len: usize) {
    let script = "my ($path, $len) = @ARGV; my ($name, $value) = ('user.crash', 'v' x $len); \
                  syscall(188, $path, $name, $value, $len + 0, 0) == 0 or die $!";
    let done = Command::new("perl").args(["-e", script]).arg(path).arg(len.to_string()).status();
    assert!(!cfg!(target_arch = "x86_64") || done.is_ok_and(|status| status.success()));
}

fn orphans(root: &Path) -> Vec<File> {
    let open = (0..12u32)
        .map(|n| {
            let path = root.join(format!("gone{n}"));
            let file = write(&path, n, 3000 * (1 + n as usize));
            file.sync_all().unwrap();
            fs::remove_file(path).unwrap();
            file
        })
        .collect();
    write(&root.join("stays"), 3, 4000).sync_all().unwrap();
    open
}

fn truncates(root: &Path) -> Vec<File> {
    let file = write(&root.join("f"), 1, 200_000);
    file.sync_all().unwrap();
    for size in [150_000, 180_000, 777, 60_000, 0, 4000] {
        file.set_len(size).unwrap();
        file.write_all_at(&pattern::bytes(size as u32, 2000), size).unwrap();
        file.sync_all().unwrap();
    }
    file.set_len(100).unwrap();
    Vec::new()
}

fn sparse(root: &Path) -> Vec<File> {
    let file = write(&root.join("deep"), 1, 10);
    for n in 0..400u32 {
        file.write_all_at(&pattern::bytes(n, BLOCK), u64::from(n) * 3 * BLOCK as u64).unwrap();
    }
    file.sync_all().unwrap();
    file.set_len(200 * BLOCK as u64).unwrap();
    file.sync_all().unwrap();
    // Extent blocks are freed: the log has revokes.
    fs::remove_file(root.join("deep")).unwrap();
    write(&root.join("after"), 5, 300_000).sync_all().unwrap();
    Vec::new()
}

fn wrap(root: &Path) -> Vec<File> {
    for round in 0..14u32 {
        let dir = root.join(format!("round{round}"));
        fs::create_dir(&dir).unwrap();
        for n in 0..90u32 {
            write(&dir.join(format!("a-longer-name-for-file-{n}")), n, 50);
        }
        File::open(&dir).unwrap().sync_all().unwrap();
        if round > 3 {
            fs::remove_dir_all(root.join(format!("round{}", round - 3))).unwrap();
        }
    }
    Vec::new()
}

/// EXT4_IOC_SHUTDOWN, with the log flushed before (1) or not (2). `false`: no perl.
fn shut_down(root: &Path, flags: u32) -> bool {
    let script =
        "open(F, '<', $ARGV[0]) or die; my $f = pack('L', $ARGV[1]); ioctl(F, 0x8004587D, $f) or die $!";
    let done =
        Command::new("perl").args(["-e", script]).arg(root.join("handle")).arg(flags.to_string()).status();
    done.is_ok_and(|status| status.success())
}

/// An image that the kernel left.
fn dirty(image: &Path, features: &str, flags: u32, work: Work) -> bool {
    File::create(image).unwrap().set_len(24 << 20).unwrap();
    let (size, journal) = (BLOCK.to_string(), format!("size={}", (JOURNAL_BLOCKS as usize * BLOCK) >> 20));
    let path = image.to_str().unwrap();
    tool_ok(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", &size, "-J", &journal, "-N", "8192", "-O", features, path],
    );
    let mount = KernelMount::new(image, "rw");
    write(&mount.path().join("handle"), 0, 0);
    let open = work(mount.path());
    let stopped = shut_down(mount.path(), flags);
    drop(open);
    stopped
}

fn log_map(image: &Path) -> LogMap {
    // Its version, in words, comes along.
    let blocks = debugfs(image, "blocks <8>");
    let blocks = blocks.split_whitespace().filter_map(|word| word.parse().ok());
    let runs = blocks.take(JOURNAL_BLOCKS as usize).zip(0..);
    LogMap::new(runs.map(|(device_block, log_start)| LogExtent { log_start, len: 1, device_block }).collect())
        .unwrap()
}

/// R26: what replay alone makes of an image equals e2fsck's in every block but the two superblocks.
fn compare_replay(bytes: &[u8], theirs: &Path, what: &str) {
    fs::write(theirs, bytes).unwrap();
    let checked = tool("e2fsck", &["-y", "-E", "journal_only", theirs.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.code().is_some_and(|code| code <= 1), "{what}: {text}");
    let map = log_map(theirs);
    let device = MemoryDevice::new(bytes.to_vec());
    let options = RecoverOptions { volume_blocks: (bytes.len() / BLOCK) as u64, write_bytes: 1 << 20 };
    let replayed =
        recovery::recover(&device, BLOCK, &map, options).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(replayed.transactions > 0, "{what}: an empty log");
    let (ours, theirs) = (device.snapshot(), fs::read(theirs).unwrap());
    let jsb = map.run(0).unwrap().0 as usize;
    let blocks = ours.chunks(BLOCK).zip(theirs.chunks(BLOCK)).enumerate();
    let different: Vec<usize> = blocks
        .filter(|(block, (ours, theirs))| *block != 1 && *block != jsb && ours != theirs)
        .map(|(block, _)| block)
        .collect();
    assert!(different.is_empty(), "{what}: blocks {different:?}");
}

/// Everything that a mount shows but the times of access, as an archive.
fn archive(image: &Path) -> Vec<u8> {
    let mount = KernelMount::new(image, "ro,noatime");
    let output = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--sort=name", "--format=posix"])
        .args(["--pax-option=exthdr.name=%d/%f,delete=atime", "--warning=no-all", "-cf", "-", "-C"])
        .arg(mount.path())
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

#[test]
fn x52_kernel_volumes_are_replayed_alike() {
    const TEST: &str = "x52_kernel_volumes_are_replayed_alike";
    if !available(Need::KernelMount, TEST) || !available(Need::E2fsprogs, TEST) {
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let [image, theirs, ours, kernels] =
        ["image", "e2fsck", "ours", "kernel"].map(|name| dir.path().join(name));
    let (mut compared, mut replays) = (0, 0);
    for (index, (name, work)) in WORKLOADS.into_iter().enumerate() {
        for (at, features) in FEATURES.into_iter().enumerate() {
            let flags = 1 + (index + at) as u32 % 2;
            let what = format!("{name} on {features}, shut down by {flags}");
            if !dirty(&image, features, flags, work) {
                eprintln!("skipped: {TEST}: needs perl");
                return;
            }
            let bytes = fs::read(&image).unwrap();
            let device = Arc::new(MemoryDevice::new(bytes.clone()));
            let (fs, report) = Fs::mount(device.clone(), &MountOptions::default())
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // e2fsck would go on to process orphans.
            if report.orphans == OrphansProcessed::default() {
                compare_replay(&bytes, &theirs, &what);
                replays += 1;
            }
            assert!(name != "orphans" || report.orphans.deleted == 12, "{what}: {:?}", report.orphans);
            fs.unmount().unwrap();
            fs::write(&ours, device.snapshot()).unwrap();
            fs::copy(&image, &kernels).unwrap();
            drop(KernelMount::new(&kernels, "rw"));
            assert_eq!(verdict(&ours), verdict(&kernels), "{what}");
            assert!(archive(&ours) == archive(&kernels), "{what}: the trees differ");
            compared += 1;
        }
    }
    assert!(compared == 48 && replays >= 30, "{compared} compared, {replays} of them in bytes");
}
