//! Extended attributes: ours read by the kernel, and the kernel's by us, in the inode and in its block.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use ext4::{Inode, Look, NewInode, Probe, XattrSet};
use ext4_format::Timestamp;
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, debugfs, tool_ok};
use ext4_sim::runner::{Backend, Runner, format};

const ENODATA: i32 = 61;
const EOPNOTSUPP: i32 = 95;
const ENOSPC: i32 = 28;

/// Sets name=value pairs with the kernel; "name=*N" is N bytes of x.
const SET: &str = "import os, sys
for pair in sys.argv[2:]:
    name, value = pair.split('=', 1)
    value = b'x' * int(value[1:]) if value.startswith('*') else value.encode()
    os.setxattr(sys.argv[1], name, value)";
const GET: &str = "import os, sys
for name in sorted(os.listxattr(sys.argv[1])):
    value = os.getxattr(sys.argv[1], name)
    print(name + '=' + ('*%d' % len(value) if set(value) == set(b'x') else value.decode()))";

fn python(script: &str, path: &Path, args: &[&str]) -> Vec<String> {
    let output = Command::new("python3").args(["-c", script]).arg(path).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn can_ask(test: &str) -> bool {
    let has_python = Command::new("python3").arg("-V").output().is_ok_and(|output| output.status.success());
    if !has_python {
        eprintln!("skipped: {test}: needs python3");
    }
    has_python && available(Need::KernelMount, test) && available(Need::E2fsprogs, test)
}

fn fresh(inode_size: u16) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |options| {
        options.block_size = Some(4096);
        options.inode_size = Some(inode_size);
    });
    (dir, image)
}

fn set(volume: &Runner, path: &str, name: &str, value: &[u8], how: XattrSet) -> i32 {
    let inode = volume.fs().lookup(path.as_bytes(), false).unwrap();
    let result = volume.fs().setxattr(&inode, name.as_bytes(), value, how);
    result.err().map_or(0, |error| error.errno())
}

fn get(volume: &Runner, path: &str, name: &str) -> Result<Vec<u8>, i32> {
    let inode = volume.fs().lookup(path.as_bytes(), false).unwrap();
    volume.fs().getxattr(&inode, name.as_bytes()).map_err(|error| error.errno())
}

fn remove(volume: &Runner, path: &str, name: &str) -> i32 {
    let inode = volume.fs().lookup(path.as_bytes(), false).unwrap();
    volume.fs().removexattr(&inode, name.as_bytes()).err().map_or(0, |error| error.errno())
}

fn list(volume: &Runner, path: &str) -> Vec<String> {
    let inode = volume.fs().lookup(path.as_bytes(), false).unwrap();
    let names = volume.fs().listxattr(&inode).unwrap();
    let mut names: Vec<_> = names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
    names.sort();
    names
}

const ANY: XattrSet = XattrSet::Either;

#[test]
fn names_and_values_are_checked_as_linux_does() {
    let (_dir, image) = fresh(256);
    let volume = Runner::mount(&image, Backend::Threads);
    volume.touch("/file").unwrap();
    volume.fs().symlink(b"file", b"/link", NewInode { mode: 0, uid: 0, gid: 0 }).unwrap();
    let long = format!("user.{}", "n".repeat(251));
    for (name, errno) in [
        ("", 34),
        (long.as_str(), 34),
        ("user.", 22),
        ("trusted.", 22),
        ("user", EOPNOTSUPP),
        ("nope.x", EOPNOTSUPP),
        ("system.data", EOPNOTSUPP),
        ("system.posix_acl_access", EOPNOTSUPP),
        ("system.posix_acl_default", EOPNOTSUPP),
        ("system.posix_acl_access.x", EOPNOTSUPP),
        ("user.a\0b", 22),
    ] {
        assert_eq!(set(&volume, "/file", name, b"v", ANY), errno, "{name}");
    }
    assert_eq!(set(&volume, "/file", "user.big", &vec![0; 65537], ANY), 7);
    assert_eq!(set(&volume, "/file", "user.big", &[0; 1000], ANY), ENOSPC);
    assert_eq!(set(&volume, "/file", "user.a", b"1", XattrSet::Replace), ENODATA);
    assert_eq!(set(&volume, "/file", "user.a", b"1", XattrSet::Create), 0);
    assert_eq!(set(&volume, "/file", "user.a", b"2", XattrSet::Create), 17);
    assert_eq!(set(&volume, "/file", "user.a", b"3", XattrSet::Replace), 0);
    assert_eq!(get(&volume, "/file", "user.a").unwrap(), b"3");
    assert_eq!(get(&volume, "/file", "user.b"), Err(ENODATA));
    assert_eq!(get(&volume, "/file", "nope.b"), Err(EOPNOTSUPP));
    assert_eq!(remove(&volume, "/file", "user.b"), ENODATA);
    assert_eq!(set(&volume, "/link", "user.a", b"1", ANY), 1);
    assert_eq!(get(&volume, "/link", "user.a"), Err(ENODATA));
    assert_eq!(set(&volume, "/link", "trusted.a", b"1", ANY), 0);
    assert_eq!(list(&volume, "/link"), ["trusted.a"]);
    // 88 bytes: an entry of 16, its name of 4, a value of 68.
    volume.touch("/full").unwrap();
    assert_eq!(set(&volume, "/full", "user.full", &[b'x'; 69], ANY), ENOSPC);
    assert_eq!(set(&volume, "/full", "user.full", &[b'x'; 68], ANY), 0);
    assert_eq!(set(&volume, "/full", "user.b", b"", ANY), ENOSPC);
    assert_eq!(set(&volume, "/full", "user.full", &[b'x'; 3], ANY), 0);
    assert_eq!(set(&volume, "/full", "user.b", b"", ANY), 0);
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, "names_and_values_are_checked_as_linux_does") {
        assert_clean(&image);
    }
}

#[test]
fn the_kernel_reads_ours() {
    if !can_ask("the_kernel_reads_ours") {
        return;
    }
    for inode_size in [256, 1024] {
        let (_dir, image) = fresh(inode_size);
        let volume = Runner::mount(&image, Backend::Threads);
        volume.touch("/file").unwrap();
        volume.mkdir("/dir").unwrap();
        for path in ["/file", "/dir"] {
            assert_eq!(set(&volume, path, "user.empty", b"", ANY), 0);
            assert_eq!(set(&volume, path, "trusted.t", b"12345", ANY), 0);
            assert_eq!(set(&volume, path, "user.gone", b"1", ANY), 0);
            assert_eq!(remove(&volume, path, "user.gone"), 0);
        }
        volume.touch("/emptied").unwrap();
        assert_eq!(set(&volume, "/emptied", "user.gone", b"1", ANY), 0);
        assert_eq!(remove(&volume, "/emptied", "user.gone"), 0);
        if inode_size == 1024 {
            assert_eq!(set(&volume, "/file", "user.big", &[b'x'; 700], ANY), 0);
        }
        volume.unmount().unwrap();
        assert_clean(&image);
        {
            let mount = KernelMount::new(&image, "rw");
            let mut expected = vec!["trusted.t=12345", "user.big=*700", "user.empty="];
            if inode_size == 256 {
                expected.remove(1);
            }
            assert_eq!(python(GET, &mount.path().join("file"), &[]), expected);
            assert_eq!(python(GET, &mount.path().join("dir"), &[]), ["trusted.t=12345", "user.empty="]);
            assert!(python(GET, &mount.path().join("emptied"), &[]).is_empty());
            // And adds to them.
            python(SET, &mount.path().join("file"), &["user.theirs=1", "trusted.t=new", "user.empty=*9"]);
            python(SET, &mount.path().join("emptied"), &["user.theirs=1"]);
        }
        let volume = Runner::mount(&image, Backend::Threads);
        assert_eq!(get(&volume, "/file", "user.theirs").unwrap(), b"1");
        assert_eq!(get(&volume, "/file", "trusted.t").unwrap(), b"new");
        assert_eq!(get(&volume, "/file", "user.empty").unwrap(), b"xxxxxxxxx");
        assert_eq!(list(&volume, "/emptied"), ["user.theirs"]);
        volume.unmount().unwrap();
        assert_clean(&image);
    }
}

#[test]
fn the_kernels_blocks_are_read_moved_and_emptied() {
    if !can_ask("the_kernels_blocks_are_read_moved_and_emptied") {
        return;
    }
    let (_dir, image) = fresh(256);
    // Two attributes of one kind each in a block that two files share, and one in the inode.
    let set_by_kernel = ["user.small=in the inode", "user.long=*300", "trusted.longer=*400"];
    {
        let mount = KernelMount::new(&image, "rw");
        for name in ["one", "two", "three", "four"] {
            let path = mount.path().join(name);
            std::fs::write(&path, name).unwrap();
            python(SET, &path, &set_by_kernel);
        }
    }
    assert!(debugfs(&image, "stat /one").contains("File ACL: "));
    let volume = Runner::mount(&image, Backend::Threads);
    let names = ["trusted.longer", "user.long", "user.small"];
    for path in ["/one", "/two", "/three", "/four"] {
        assert_eq!(list(&volume, path), names);
        assert_eq!(get(&volume, path, "user.long").unwrap(), [b'x'; 300]);
        assert_eq!(get(&volume, path, "trusted.longer").unwrap(), [b'x'; 400]);
        assert_eq!(get(&volume, path, "user.small").unwrap(), b"in the inode");
    }
    // From the shared block into the inode; too big for the inode; out of the block.
    assert_eq!(set(&volume, "/one", "user.long", b"short", XattrSet::Replace), 0);
    assert_eq!(set(&volume, "/one", "user.long", b"again", XattrSet::Create), 17);
    assert_eq!(set(&volume, "/two", "user.long", &[b'x'; 300], XattrSet::Either), ENOSPC);
    assert_eq!(get(&volume, "/two", "user.long").unwrap(), [b'x'; 300]);
    for name in names {
        assert_eq!(remove(&volume, "/three", name), 0);
    }
    assert!(list(&volume, "/three").is_empty());
    volume.unmount().unwrap();
    assert_clean(&image);
    {
        let mount = KernelMount::new(&image, "rw");
        let read = |name: &str| python(GET, &mount.path().join(name), &[]);
        assert_eq!(read("one"), ["trusted.longer=*400", "user.long=short", "user.small=in the inode"]);
        let untouched = ["trusted.longer=*400", "user.long=*300", "user.small=in the inode"];
        assert_eq!(read("two"), untouched);
        assert!(read("three").is_empty());
        assert_eq!(read("four"), untouched);
    }
    assert_clean(&image);
}

#[test]
fn inodes_without_room() {
    if !can_ask("inodes_without_room") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let at = image.to_str().unwrap();
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    tool_ok("mke2fs", &["-q", "-F", "-t", "ext4", "-I", "128", at]);
    {
        let mount = KernelMount::new(&image, "rw");
        std::fs::write(mount.path().join("file"), "").unwrap();
        python(SET, &mount.path().join("file"), &["user.theirs=1"]);
    }
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(get(&volume, "/file", "user.theirs").unwrap(), b"1");
    assert_eq!(set(&volume, "/file", "user.ours", b"", ANY), ENOSPC);
    assert_eq!(remove(&volume, "/file", "user.theirs"), 0);
    assert!(list(&volume, "/file").is_empty());
    volume.unmount().unwrap();
    assert_clean(&image);
}

/// An inode of 256 bytes that an ext3 made has no fixed part past 0x80 (F47); it gets one.
#[test]
fn inodes_without_a_fixed_part() {
    if !can_ask("inodes_without_a_fixed_part") {
        return;
    }
    let (_dir, image) = fresh(256);
    let volume = Runner::mount(&image, Backend::Threads);
    volume.touch("/file").unwrap();
    let file = volume.fs().lookup(b"/file", false).unwrap();
    let mtime = volume.fs().stat(&file).mtime.sec;
    drop(file);
    volume.unmount().unwrap();
    tool_ok("debugfs", &["-w", "-R", "set_inode_field /file extra_isize 0", image.to_str().unwrap()]);
    let volume = Runner::mount(&image, Backend::Threads);
    assert!(list(&volume, "/file").is_empty());
    assert_eq!(get(&volume, "/file", "user.a"), Err(ENODATA));
    assert_eq!(set(&volume, "/file", "user.long", &[b'x'; 80], ANY), ENOSPC);
    assert_eq!(set(&volume, "/file", "user.a", b"ours", ANY), 0);
    volume.unmount().unwrap();
    assert_clean(&image);
    let mount = KernelMount::new(&image, "ro");
    assert_eq!(python(GET, &mount.path().join("file"), &[]), ["user.a=ours"]);
    let seen = std::os::unix::fs::MetadataExt::mtime(&std::fs::metadata(mount.path().join("file")).unwrap());
    assert_eq!(seen, mtime);
}

#[test]
fn the_feature_comes_with_the_first_attribute() {
    if !can_ask("the_feature_comes_with_the_first_attribute") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    tool_ok("mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^ext_attr", image.to_str().unwrap()]);
    let features = || debugfs(&image, "features");
    assert!(!features().contains("ext_attr"));
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(set(&volume, "/lost+found", "user.a", b"1", ANY), 0);
    volume.unmount().unwrap();
    assert!(features().contains("ext_attr"));
    assert_clean(&image);
    let mount = KernelMount::new(&image, "ro");
    assert_eq!(python(GET, &mount.path().join("lost+found"), &[]), ["user.a=1"]);
}

/// Capabilities that we set are what a write strips (A4.9).
#[test]
fn a_write_strips_a_capability_of_ours() {
    let (_dir, image) = fresh(256);
    let mut volume = Runner::mount(&image, Backend::Threads);
    volume.write_file("/file", b"contents").unwrap();
    let file = volume.open("/file").unwrap();
    let may_strip = |volume: &Runner| {
        let probe = volume.fs().probe_write(&volume.inode(file), 0, 1, ext4::Look::Cached).unwrap();
        probe.has(ext4::Probe::MAY_STRIP)
    };
    assert!(!may_strip(&volume));
    assert_eq!(set(&volume, "/file", "security.capability", &CAPABILITIES, ANY), 0);
    assert_eq!(set(&volume, "/file", "user.note", b"stays", ANY), 0);
    assert!(may_strip(&volume));
    volume.direct_write(file, 0, &[7; 4096]).unwrap();
    assert!(!may_strip(&volume));
    assert_eq!(list(&volume, "/file"), ["user.note"]);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
}

const CAPABILITIES: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Capabilities given while a write takes them away: what the write remembers of them must not be older than they are, or
/// later writes leave them.
#[test]
fn a_capability_set_during_a_write_is_seen_by_the_next() {
    let test = "a_capability_set_during_a_write_is_seen_by_the_next";
    if !can_ask(test) {
        return;
    }
    let (_dir, image) = fresh(256);
    {
        // A block to look through too takes a while.
        let mount = KernelMount::new(&image, "rw");
        std::fs::write(mount.path().join("file"), "").unwrap();
        python(SET, &mount.path().join("file"), &["user.large=*3000"]);
    }
    let volume = Runner::mount(&image, Backend::Threads);
    let (fs, over) = (volume.fs(), AtomicBool::new(false));
    let inode = fs.open(b"/file", false).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sec = 0;
            while !over.load(Ordering::Relaxed) {
                sec += 1;
                let time = Timestamp { sec, nsec: 0 };
                fs.set_times(&inode, time, time).unwrap();
                fs.file_modified(&inode).unwrap();
            }
        });
        for _ in 0..5000 {
            fs.setxattr(&inode, b"security.capability", &CAPABILITIES, XattrSet::Either).unwrap();
            let is_there = || fs.getxattr(&inode, b"security.capability").is_ok();
            let (before, probe) = (is_there(), fs.probe_write(&inode, 0, 0, Look::Cached).unwrap());
            let forgotten = before && !probe.has(Probe::MAY_STRIP) && is_there();
            over.fetch_or(forgotten, Ordering::Relaxed);
            assert!(!forgotten);
        }
        over.store(true, Ordering::Relaxed);
    });
    fs.release(&inode).unwrap();
    volume.unmount().unwrap();
}

/// The last name in a block goes twice at once, with a write and with a call: one of them frees the block.
#[test]
fn a_capability_in_a_block_goes_once() {
    const FILES: usize = 400;
    let test = "a_capability_in_a_block_goes_once";
    if !can_ask(test) {
        return;
    }
    let (_dir, image) = fresh(256);
    {
        let mount = KernelMount::new(&image, "rw");
        let script = "import os, sys
for i in range(int(sys.argv[2])):
    path = '%s/%d' % (sys.argv[1], i)
    open(path, 'w').close()
    os.setxattr(path, 'user.fill', b'x' * 60)
    os.setxattr(path, 'security.capability', bytes.fromhex('01000002%032x' % i))";
        python(script, mount.path(), &[&FILES.to_string()]);
    }
    let volume = Runner::mount(&image, Backend::Threads);
    let fs = volume.fs();
    let inodes: Vec<_> =
        (0..FILES).map(|index| fs.open(format!("/{index}").as_bytes(), false).unwrap()).collect();
    let barrier = Barrier::new(2);
    // Judged later: who stops leaves the other at the barrier.
    let each = |remove: &dyn Fn(&Inode) -> ext4::Result<()>| {
        let results = inodes.iter().map(|inode| {
            barrier.wait();
            remove(inode).err().map_or(0, |error| error.errno())
        });
        results.collect::<Vec<_>>()
    };
    let (written, called) = std::thread::scope(|scope| {
        let written = scope.spawn(|| each(&|inode| fs.file_modified(inode)));
        let called = each(&|inode| fs.removexattr(inode, b"security.capability"));
        (written.join().unwrap(), called)
    });
    assert!(written.iter().all(|&errno| errno == 0), "{written:?}");
    assert!(called.iter().all(|&errno| errno == 0 || errno == ENODATA), "{called:?}");
    for inode in &inodes {
        assert_eq!(fs.listxattr(inode).unwrap(), [b"user.fill"]);
        fs.release(inode).unwrap();
    }
    volume.unmount().unwrap();
    assert_clean(&image);
}
