//! Volumes of mke2fs that the kernel filled: we read everything, change it, and the kernel reads what we left.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, debugfs, tool_ok};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner};

const KIB: usize = 1024;

/// Blocks size and features, for mke2fs.
const VOLUMES: [(u32, &str); 16] = [
    (4096, ""),
    (1024, ""),
    (2048, ""),
    (4096, "^64bit"),
    (1024, "^metadata_csum"),
    (4096, "^metadata_csum,uninit_bg"),
    (4096, "^flex_bg"),
    (1024, "^flex_bg,^64bit"),
    (4096, "^has_journal"),
    (1024, "^has_journal,^metadata_csum"),
    (4096, "orphan_file"),
    (1024, "orphan_file,metadata_csum_seed"),
    (4096, "metadata_csum_seed"),
    (4096, "sparse_super2"),
    (1024, "meta_bg,^resize_inode"),
    (4096, "^dir_index,^extra_isize,^dir_nlink,^huge_file"),
];

fn run(command: &str, args: &[&str]) {
    let output = Command::new(command).args(args).output().unwrap();
    assert!(output.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// setxattr(2) by Python, as setfattr is not everywhere. `false` if that is missing too.
fn set_xattr(path: &Path, name: &str, value: &str) -> bool {
    let script = "import os,sys; os.setxattr(sys.argv[1], sys.argv[2], sys.argv[3].encode())";
    let done = Command::new("python3").args(["-c", script]).arg(path).args([name, value]).status();
    done.is_ok_and(|status| status.success())
}

fn get_xattr(path: &Path, name: &str) -> Option<String> {
    let script = "import os,sys; print(os.getxattr(sys.argv[1], sys.argv[2]).decode(), end='')";
    let output = Command::new("python3").args(["-c", script]).arg(path).arg(name).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn contents() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (index, len) in
        [0, 1, 60, 1023, 1024, 4096, 5000, 70_000, 1 << 20, (3 << 20) + 7].into_iter().enumerate()
    {
        files.insert(format!("file{len}"), pattern::bytes(index as u32, len));
    }
    let mut sparse = vec![0; 2 << 20];
    sparse[1 << 20..(1 << 20) + 5000].copy_from_slice(&pattern::bytes(50, 5000));
    files.insert("sparse".into(), sparse);
    let mut fallocated = vec![0; 600 * KIB];
    fallocated[100 * KIB..100 * KIB + 3000].copy_from_slice(&pattern::bytes(51, 3000));
    files.insert("fallocated".into(), fallocated);
    for index in 0..300 {
        files.insert(format!("dir/sub/one of many files {index}"), format!("{index}").into_bytes());
    }
    files
}

/// Fills a volume by the kernel. Whether extended attributes were set.
fn fill_by_kernel(image: &Path, files: &BTreeMap<String, Vec<u8>>) -> bool {
    let mount = KernelMount::new(image, "rw");
    let root = mount.path();
    fs::create_dir_all(root.join("dir/sub/deep/er")).unwrap();
    for (path, data) in files {
        let path = root.join(path);
        match path.file_name().unwrap().to_str().unwrap() {
            "sparse" => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(data.len() as u64).unwrap();
                file.write_all_at(&data[1 << 20..(1 << 20) + 5000], 1 << 20).unwrap();
            }
            "fallocated" => {
                run("fallocate", &["-l", "600KiB", path.to_str().unwrap()]);
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&data[100 * KIB..100 * KIB + 3000], 100 * KIB as u64).unwrap();
            }
            _ => fs::write(&path, data).unwrap(),
        }
    }
    symlink("file5000", root.join("short")).unwrap();
    symlink("./".repeat(150) + "file5000", root.join("long")).unwrap();
    symlink("dir/sub", root.join("into")).unwrap();
    fs::hard_link(root.join("file1024"), root.join("dir/hard")).unwrap();
    run("mknod", &[root.join("chr").to_str().unwrap(), "c", "5", "1"]);
    run("mknod", &[root.join("blk").to_str().unwrap(), "b", "7", "300"]);
    run("mknod", &[root.join("fifo").to_str().unwrap(), "p"]);
    fs::set_permissions(root.join("file4096"), std::os::unix::fs::PermissionsExt::from_mode(0o4751)).unwrap();
    // Too large for the inode: a block, which files of the same attributes share.
    let value = "an attribute ".repeat(50);
    let shared = ["file5000", "file70000", "file1048576"];
    shared.iter().all(|name| set_xattr(&root.join(name), "user.large", &value))
        && set_xattr(&root.join("file1"), "user.small", "in the inode")
        && set_xattr(&root.join("dir/sub/deep"), "user.large", &value)
        && set_xattr(&root.join("sparse"), "user.large", &("its own ".repeat(70)))
}

fn check_as_kernel_left_it(
    volume: &Runner,
    image: &Path,
    files: &BTreeMap<String, Vec<u8>>,
    stats: &[(String, Stat)],
) {
    for (path, data) in files {
        assert!(volume.read_file(&format!("/{path}")).unwrap() == *data, "{path} on {}", image.display());
    }
    for (path, expected) in stats {
        let inode = volume.fs().lookup(format!("/{path}").as_bytes(), false).unwrap();
        let found = volume.fs().stat(&inode);
        let found = Stat {
            ino: u64::from(found.ino.0),
            mode: u32::from(found.mode),
            links: u64::from(found.links),
            size: found.size,
            sectors: found.sectors,
            owner: (found.uid, found.gid),
            device: found.device,
            mtime: (found.mtime.sec, i64::from(found.mtime.nsec)),
            ctime: (found.ctime.sec, i64::from(found.ctime.nsec)),
        };
        assert_eq!(found, *expected, "{path}");
    }
    assert_eq!(volume.fs().readlink(b"/short").unwrap(), b"file5000");
    assert_eq!(volume.fs().readlink(b"/long").unwrap().len(), 308);
    assert!(volume.read_file("/long").unwrap() == files["file5000"]);
    assert_eq!(volume.read_file("/into/one of many files 7").unwrap(), b"7");
    let names = volume.names("/dir/sub").unwrap();
    assert_eq!(names.len(), 301);
    assert!(names.contains("deep"));
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ino: u64,
    mode: u32,
    links: u64,
    size: u64,
    sectors: u64,
    owner: (u32, u32),
    device: (u32, u32),
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// lstat(2) of every name of a mounted volume.
fn kernel_stats(root: &Path, dir: &str, into: &mut Vec<(String, Stat)>) {
    for entry in fs::read_dir(root.join(dir)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        let meta = fs::symlink_metadata(root.join(&path)).unwrap();
        let rdev = meta.rdev();
        let is_device = meta.mode() & 0o170_000 == 0o020_000 || meta.mode() & 0o170_000 == 0o060_000;
        let major = (rdev >> 8 & 0xFFF) as u32;
        let minor = (rdev & 0xFF | rdev >> 12 & 0xF_FF00) as u32;
        let stat = Stat {
            ino: meta.ino(),
            mode: meta.mode(),
            links: meta.nlink(),
            size: meta.size(),
            sectors: meta.blocks(),
            owner: (meta.uid(), meta.gid()),
            device: if is_device { (major, minor) } else { (0, 0) },
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        };
        if meta.is_dir() {
            kernel_stats(root, &path, into);
        }
        into.push((path, stat));
    }
}

fn change(volume: &mut Runner, files: &mut BTreeMap<String, Vec<u8>>) {
    // What shares its attributes goes, first one, then another, then what has them alone.
    for gone in ["file5000", "file1048576", "sparse", "file0", "dir/sub/one of many files 3"] {
        volume.fs().unlink(format!("/{gone}").as_bytes()).unwrap();
        files.remove(gone);
    }
    for gone in ["chr", "fifo", "short", "long"] {
        volume.fs().unlink(format!("/{gone}").as_bytes()).unwrap();
    }
    volume.fs().rmdir(b"/dir/sub/deep/er").unwrap();
    volume.fs().rmdir(b"/dir/sub/deep").unwrap();
    // One of two names.
    volume.fs().unlink(b"/file1024").unwrap();
    let data = files.remove("file1024").unwrap();
    files.insert("dir/hard".into(), data);

    let file = volume.open("/fallocated").unwrap();
    let data = pattern::bytes(60, 128 * KIB);
    volume.direct_write(file, 256 * KIB as u64, &data).unwrap();
    files.get_mut("fallocated").unwrap()[256 * KIB..384 * KIB].copy_from_slice(&data);
    volume.close(file).unwrap();

    let file = volume.open("/file70000").unwrap();
    let inode = volume.inode(file);
    volume.fs().buffered_write(&inode, 69_000, &pattern::bytes(61, 50_000)).unwrap();
    drop(inode);
    let data = files.get_mut("file70000").unwrap();
    data.truncate(69_000);
    data.extend(pattern::bytes(61, 50_000));
    volume.close(file).unwrap();

    volume.mkdir("/dir/ours").unwrap();
    for index in 0..200 {
        let (path, data) = (format!("dir/ours/{index}"), pattern::bytes(index, 100 * index as usize));
        volume.write_file(&format!("/{path}"), &data).unwrap();
        files.insert(path, data);
    }
}

fn check_by_kernel(image: &Path, files: &BTreeMap<String, Vec<u8>>, xattrs: bool) {
    let mount = KernelMount::new(image, "rw");
    for (path, data) in files {
        assert!(fs::read(mount.path().join(path)).unwrap() == *data, "the kernel reads {path} otherwise");
    }
    assert!(!mount.path().join("file5000").exists());
    assert_eq!(fs::metadata(mount.path().join("dir/hard")).unwrap().nlink(), 1);
    if xattrs {
        let value = get_xattr(&mount.path().join("file70000"), "user.large").unwrap();
        assert_eq!(value, "an attribute ".repeat(50));
        let value = get_xattr(&mount.path().join("file1"), "user.small").unwrap();
        assert_eq!(value, "in the inode");
    }
    // It goes on where we stopped.
    fs::write(mount.path().join("dir/ours/the kernel's"), "new").unwrap();
    fs::remove_file(mount.path().join("dir/ours/7")).unwrap();
    fs::remove_file(mount.path().join("file70000")).unwrap();
}

fn there_and_back(block_size: u32, features: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
    let block_size_text = block_size.to_string();
    let mut args = vec!["-q", "-F", "-t", "ext4", "-b", &block_size_text];
    if !features.is_empty() {
        args.extend(["-O", features]);
    }
    args.push(image.to_str().unwrap());
    tool_ok("mke2fs", &args);

    let mut files = contents();
    let xattrs = fill_by_kernel(&image, &files);
    if !xattrs {
        eprintln!("skipped: extended attributes on {features}: need python3");
    }
    let mut stats = Vec::new();
    kernel_stats(KernelMount::new(&image, "ro").path(), "", &mut stats);

    let mut volume = Runner::mount(&image, Backend::Uring);
    check_as_kernel_left_it(&volume, &image, &files, &stats);
    change(&mut volume, &mut files);
    volume.unmount().unwrap();
    assert_clean(&image);
    let shown = debugfs(&image, "stat /file70000");
    assert!(!xattrs || shown.contains("user.large"), "{shown}");

    check_by_kernel(&image, &files, xattrs);
    assert_clean(&image);
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(volume.read_file("/dir/ours/the kernel's").unwrap(), b"new");
    assert_eq!(volume.fs().lookup(b"/dir/ours/7", true).err().unwrap().errno(), 2);
    volume.unmount().unwrap();
    assert_clean(&image);
}

#[test]
fn of_every_kind() {
    if !available(Need::E2fsprogs, "of_every_kind") || !available(Need::KernelMount, "of_every_kind") {
        return;
    }
    // Most of the time is the kernel's, waiting for mounts.
    std::thread::scope(|scope| {
        for part in VOLUMES.chunks(4) {
            scope.spawn(move || {
                for &(block_size, features) in part {
                    eprintln!("blocks of {block_size}, -O '{features}'");
                    there_and_back(block_size, features);
                }
            });
        }
    });
}
