//! Names under a random load, against a model in memory; and what a crash or a full volume leaves of them.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod namespace_model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ext4::{Inode, NewInode, XattrSet};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::runner::{Backend, Runner, format};
use namespace_model::{Kind, Model, Random};

const MODE: NewInode = NewInode { mode: 0o644, uid: 0, gid: 0 };

fn clean(image: &Path, test: &str) {
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
    }
}

fn errno<T>(result: ext4::Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

fn exists(volume: &Runner, path: &str) -> bool {
    volume.fs().lookup(path.as_bytes(), false).is_ok()
}

/// One random operation on both: the same errno.
fn step(volume: &Runner, model: &mut Model, random: &mut Random, open: &mut Vec<Arc<Inode>>) -> String {
    let fs = volume.fs();
    let (one, two) = (random.path(), random.path());
    let (a, b) = (one.as_bytes(), two.as_bytes());
    let (what, ours, expected) = match random.below(16) {
        0..=1 => {
            let made = fs.create(a, NewInode { mode: 0o100644, ..MODE }, true);
            let result = made.and_then(|(inode, _)| fs.release(&inode));
            (format!("create {one}"), errno(result), model.make(&one, Kind::File))
        }
        2..=3 => (format!("mkdir {one}"), errno(fs.mkdir(a, MODE)), model.make(&one, Kind::Dir)),
        4 => (format!("symlink {one}"), errno(fs.symlink(b"x", a, MODE)), model.make(&one, Kind::Symlink)),
        5..=9 => (format!("rename {one} {two}"), errno(fs.rename(a, b)), model.rename(&one, &two)),
        10 => (format!("link {one} {two}"), errno(fs.link(a, b)), model.link(&one, &two)),
        11 => (format!("unlink {one}"), errno(fs.unlink(a)), model.unlink(&one)),
        12 => (format!("rmdir {one}"), errno(fs.rmdir(a)), model.rmdir(&one)),
        13 => {
            let (name, value) = (random.xattr_name(), vec![b'v'; random.below(50)]);
            let how = [XattrSet::Either, XattrSet::Create, XattrSet::Replace][random.below(3)];
            let result =
                fs.lookup(a, false).and_then(|inode| fs.setxattr(&inode, name.as_bytes(), &value, how));
            let what = format!("setxattr {one} {name} {} {how:?}", value.len());
            (what, errno(result), model.setxattr(&one, name, value, how))
        }
        14 => {
            let name = random.xattr_name();
            let result = fs.lookup(a, false).and_then(|inode| fs.removexattr(&inode, name.as_bytes()));
            (format!("removexattr {one} {name}"), errno(result), model.removexattr(&one, name))
        }
        // Open files outlive their names, and are closed some time later.
        _ => {
            if let Ok(inode) = fs.open(a, false) {
                open.push(inode);
            }
            if open.len() > 8 {
                fs.release(&open.swap_remove(random.below(8))).unwrap();
            }
            return String::new();
        }
    };
    assert_eq!(ours, expected, "{what}");
    what
}

/// The model's tree, as our own volume shows it.
fn compare_with_us(volume: &Runner, model: &Model) {
    let fs = volume.fs();
    let mut seen = 0;
    for (path, node) in model.tree() {
        let inode = fs.lookup(path.as_bytes(), false).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(fs.stat(&inode).links, node.links, "{path}");
        if node.kind == Kind::Dir {
            seen += volume.names(&path).unwrap().len();
        }
        let names = fs.listxattr(&inode).unwrap();
        let xattrs: BTreeMap<_, _> = names
            .into_iter()
            .map(|name| {
                let value = fs.getxattr(&inode, &name).unwrap();
                (String::from_utf8(name).unwrap(), value)
            })
            .collect();
        assert_eq!(xattrs, node.xattrs, "{path}");
    }
    assert_eq!(seen + 1, model.tree().len(), "names that the model does not have");
}

/// Every path under the kernel's mount: links and extended attributes, one line each.
const WALK: &str = "import os, sys
root = sys.argv[1]
for folder, dirs, files in os.walk(root):
    for name in dirs + files:
        path = os.path.join(folder, name)
        xattrs = [n + '=' + os.getxattr(path, n, follow_symlinks=False).decode()
                  for n in sorted(os.listxattr(path, follow_symlinks=False))]
        print(path[len(root):], os.lstat(path).st_nlink, *xattrs)";

fn compare_with_kernel(image: &Path, model: &Model) {
    if !available(Need::KernelMount, "namespace: the kernel's view") {
        return;
    }
    let mount = KernelMount::new(image, "ro");
    let Ok(output) = Command::new("python3").args(["-c", WALK]).arg(mount.path()).output() else {
        eprintln!("skipped: namespace: the kernel's view: needs python3");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut theirs: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    theirs.sort();
    let mut ours: Vec<_> = model
        .tree()
        .into_iter()
        .filter(|(path, _)| path != "/")
        .map(|(path, node)| {
            let mut line = format!("{path} {}", node.links);
            for (name, value) in &node.xattrs {
                line += &format!(" {name}={}", String::from_utf8_lossy(value));
            }
            line
        })
        .collect();
    ours.sort();
    assert_eq!(ours, theirs);
}

fn random_load(seed: u64, block_size: u32, features: &str, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |options| {
        options.block_size = Some(block_size);
        options.features = features.into();
    });
    let (mut model, mut random, mut open) = (Model::new(), Random(seed), Vec::new());
    let mut log = Vec::new();
    for _ in 0..3 {
        let volume = Runner::mount(&image, Backend::Threads);
        for _ in 0..steps / 3 {
            log.push(step(&volume, &mut model, &mut random, &mut open));
        }
        compare_with_us(&volume, &model);
        for inode in open.drain(..) {
            volume.fs().release(&inode).unwrap();
        }
        volume.unmount().unwrap();
        clean(&image, "namespace: random load");
    }
    let moved = log.iter().filter(|what| what.starts_with("rename")).count();
    assert!(moved > steps / 5 && model.tree().len() > 20, "the load does too little");
    let volume = Runner::mount(&image, Backend::Threads);
    compare_with_us(&volume, &model);
    volume.unmount().unwrap();
    clean(&image, "namespace: random load");
    compare_with_kernel(&image, &model);
}

#[test]
fn random_operations_do_what_the_model_says() {
    random_load(0x5EED_0001, 4096, "", 6000);
}

#[test]
fn random_operations_on_small_blocks() {
    random_load(0x5EED_0002, 1024, "", 6000);
    random_load(0x5EED_0003, 1024, "^metadata_csum,^metadata_csum_seed,^orphan_file", 3000);
}

#[test]
fn random_operations_without_index_and_with_an_orphan_list() {
    random_load(0x5EED_0004, 2048, "^dir_index,^dir_nlink,^orphan_file", 3000);
    random_load(0x5EED_0005, 4096, "^64bit,^has_journal", 3000);
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 32 << 20, |options| options.block_size = Some(1024));
    (dir, image)
}

/// T24: an fsync of what was renamed or linked makes its new name durable.
#[test]
fn fsync_makes_the_new_name_durable() {
    let (_dir, image) = fresh();
    let mut volume = Runner::mount(&image, Backend::Threads);
    for path in ["/from", "/to", "/other"] {
        volume.mkdir(path).unwrap();
    }
    for path in ["/from/file", "/from/linked", "/from/over", "/to/over", "/from/bydir"] {
        volume.write_file(path, path.as_bytes()).unwrap();
    }
    volume.fs().sync().unwrap();
    let fs = volume.fs().clone();
    fs.rename(b"/from/file", b"/to/file").unwrap();
    let file = volume.open("/to/file").unwrap();
    volume.sync(file).unwrap();
    fs.link(b"/from/linked", b"/to/linked").unwrap();
    let file = volume.open("/from/linked").unwrap();
    volume.sync(file).unwrap();
    fs.rename(b"/from/over", b"/to/over").unwrap();
    let file = volume.open("/to/over").unwrap();
    volume.sync(file).unwrap();
    fs.rename(b"/from/bydir", b"/to/bydir").unwrap();
    fs.fsync(&fs.lookup(b"/from", false).unwrap(), false).unwrap();
    fs.rename(b"/other", b"/to/other").unwrap();
    fs.fsync(&fs.lookup(b"/to/other", false).unwrap(), false).unwrap();
    let inode = fs.lookup(b"/to/file", false).unwrap();
    fs.setxattr(&inode, b"user.kept", b"yes", XattrSet::Either).unwrap();
    fs.fsync(&inode, false).unwrap();
    drop((fs, inode));
    volume.crash();

    let volume = Runner::mount(&image, Backend::Threads);
    assert!(volume.names("/from").unwrap().into_iter().eq(["linked"]));
    let expected = ["bydir", "file", "linked", "other", "over"];
    assert!(volume.names("/to").unwrap().into_iter().eq(expected));
    assert_eq!(volume.read_file("/to/over").unwrap(), b"/from/over");
    let inode = volume.fs().lookup(b"/to/file", false).unwrap();
    assert_eq!(volume.fs().getxattr(&inode, b"user.kept").unwrap(), b"yes");
    volume.unmount().unwrap();
    clean(&image, "fsync_makes_the_new_name_durable");
}

/// What nobody synced happened or did not; a file that was written and took another's place is never empty.
#[test]
fn a_crash_leaves_the_old_or_the_new() {
    let (_dir, image) = fresh();
    for round in 0..12u32 {
        let mut volume = Runner::mount(&image, Backend::Threads);
        volume.write_file_buffered("/config", format!("old {round}").as_bytes()).unwrap();
        volume.fs().sync().unwrap();
        volume.write_file_buffered("/config.new", format!("new {round}").as_bytes()).unwrap();
        volume.fs().rename(b"/config.new", b"/config").unwrap();
        if round % 3 == 0 {
            volume.fs().sync().unwrap();
        }
        volume.crash();
        let volume = Runner::mount(&image, Backend::Threads);
        let text = String::from_utf8(volume.read_file("/config").unwrap()).unwrap();
        let is_new = text == format!("new {round}");
        assert!(is_new || round % 3 != 0 && text == format!("old {round}"), "{text}");
        assert!(!(is_new && exists(&volume, "/config.new")));
        if exists(&volume, "/config.new") {
            volume.fs().unlink(b"/config.new").unwrap();
        }
        volume.unmount().unwrap();
        clean(&image, "a_crash_leaves_the_old_or_the_new");
    }
}

/// A new name that finds no room changes nothing; one that replaces another needs none.
#[test]
fn a_full_volume_refuses_new_names_whole() {
    let (_dir, image) = fresh();
    let mut volume = Runner::mount(&image, Backend::Threads);
    for path in ["/from", "/to"] {
        volume.mkdir(path).unwrap();
    }
    for index in 0..40 {
        volume.touch(&format!("/from/{index}")).unwrap();
    }
    volume.mkdir("/from/dir").unwrap();
    volume.touch("/replaced").unwrap();
    let mut full = 0;
    for index in 0..64 {
        let error = volume.write_file_buffered(&format!("/fill{index}"), &vec![1; 1 << 20]).err();
        full += u32::from(error.is_some_and(|error| error.errno() == 28));
    }
    assert!(full > 5);
    let fs = volume.fs().clone();
    let mut refused = 0;
    for index in 0..40 {
        let old = format!("/from/{index}");
        for call in ["link", "rename"] {
            let new = format!("/to/{call} {index} {}", "n".repeat(200));
            let links = fs.stat(&fs.lookup(old.as_bytes(), false).unwrap()).links;
            let result = match call {
                "link" => fs.link(old.as_bytes(), new.as_bytes()),
                _ => fs.rename(old.as_bytes(), new.as_bytes()),
            };
            let Err(error) = result else { continue };
            assert_eq!(error.errno(), 28, "{error}");
            assert!(exists(&volume, &old) && !exists(&volume, &new));
            assert_eq!(fs.stat(&fs.lookup(old.as_bytes(), false).unwrap()).links, links);
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused}");
    let long = format!("/to/{}", "d".repeat(250));
    assert_eq!(errno(fs.rename(b"/from/dir", long.as_bytes())), 28);
    assert_eq!(fs.stat(&fs.lookup(b"/from", false).unwrap()).links, 3);
    assert_eq!(fs.stat(&fs.lookup(b"/to", false).unwrap()).links, 2);
    fs.rename(b"/from/39", b"/replaced").unwrap();
    drop(fs);
    volume.unmount().unwrap();
    clean(&image, "a_full_volume_refuses_new_names_whole");
}

/// link(2) of an open file without a name: ENOENT; and what is replaced while open lives until its last close.
#[test]
fn open_files_without_a_name() {
    let (_dir, image) = fresh();
    let mut volume = Runner::mount(&image, Backend::Threads);
    volume.write_file("/old", b"old contents").unwrap();
    volume.write_file("/new", b"new contents").unwrap();
    let file = volume.open("/old").unwrap();
    let inode = volume.inode(file);
    let free = volume.fs().superblock().free_inodes_count;
    volume.fs().rename(b"/new", b"/old").unwrap();
    let mut data = [0; 12];
    assert_eq!(volume.fs().buffered_read(&inode, 0, &mut data).unwrap(), 12);
    assert_eq!(&data, b"old contents");
    assert_eq!(volume.read_file("/old").unwrap(), b"new contents");
    assert_eq!(errno(volume.fs().link_inode(&inode, b"/again")), 2);
    assert!(!exists(&volume, "/again"));
    drop(inode);
    volume.close(file).unwrap();
    assert_eq!(volume.fs().superblock().free_inodes_count, free + 1);
    let file = volume.open("/old").unwrap();
    let inode = volume.inode(file);
    volume.fs().link_inode(&inode, b"/again").unwrap();
    assert_eq!(volume.fs().stat(&inode).links, 2);
    drop(inode);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    clean(&image, "open_files_without_a_name");
}

/// The same across a crash: the mount deletes what had lost its name.
#[test]
fn what_was_replaced_while_open_goes_at_the_next_mount() {
    let (_dir, image) = fresh();
    let mut volume = Runner::mount(&image, Backend::Threads);
    let free = volume.fs().superblock().free_inodes_count;
    for path in ["/old", "/new"] {
        volume.write_file(path, path.as_bytes()).unwrap();
    }
    volume.mkdir("/dir").unwrap();
    volume.mkdir("/replaced").unwrap();
    let fs = volume.fs().clone();
    let open = [fs.open(b"/old", false).unwrap(), fs.open(b"/replaced", false).unwrap()];
    fs.rename(b"/new", b"/old").unwrap();
    fs.rename(b"/dir", b"/replaced").unwrap();
    fs.sync().unwrap();
    drop((fs, open));
    volume.crash();
    let volume = Runner::mount(&image, Backend::Threads);
    assert_eq!(volume.report.orphans.deleted, 2);
    assert_eq!(volume.read_file("/old").unwrap(), b"/new");
    assert_eq!(volume.fs().superblock().free_inodes_count, free - 2);
    volume.unmount().unwrap();
    clean(&image, "what_was_replaced_while_open_goes_at_the_next_mount");
}

/// Directories that are indexed, several levels deep at the end.
#[test]
fn thousands_of_names_move() {
    const COUNT: usize = 3000;
    let (_dir, image) = fresh();
    let volume = Runner::mount(&image, Backend::Threads);
    for path in ["/one", "/two"] {
        volume.mkdir(path).unwrap();
    }
    let fs = volume.fs().clone();
    let name = |dir: &str, index: usize| format!("/{dir}/{:1$}", index, 20 + index % 60).into_bytes();
    for index in 0..COUNT {
        volume.touch(std::str::from_utf8(&name("one", index)).unwrap()).unwrap();
    }
    for index in (0..COUNT).step_by(10) {
        fs.unlink(&name("one", index)).unwrap();
        fs.mkdir(&name("one", index), MODE).unwrap();
    }
    for index in 0..COUNT {
        fs.rename(&name("one", index), &name("two", index)).unwrap();
    }
    // Inside one directory, onto what is there and onto new names.
    for index in (1..COUNT - 1).filter(|index| index % 10 == 1) {
        fs.rename(&name("two", index), &name("two", index + 1)).unwrap();
        let renamed = format!("/two/renamed {index} {}", "n".repeat(100));
        fs.rename(&name("two", index + 2), renamed.as_bytes()).unwrap();
    }
    assert!(volume.names("/one").unwrap().is_empty());
    let names = volume.names("/two").unwrap();
    assert_eq!(names.len(), COUNT - COUNT / 10);
    let links = |path: &[u8]| fs.stat(&fs.lookup(path, false).unwrap()).links as usize;
    assert_eq!((links(b"/one"), links(b"/two")), (2, 2 + COUNT / 10));
    drop(fs);
    volume.unmount().unwrap();
    clean(&image, "thousands_of_names_move");
    if available(Need::KernelMount, "thousands_of_names_move") {
        let mount = KernelMount::new(&image, "ro");
        let theirs: Vec<_> =
            names.iter().filter(|name| mount.path().join("two").join(name).exists()).collect();
        assert_eq!(theirs.len(), names.len());
    }
}

/// Renames, links, removals and attributes by several threads at once: nothing hangs, nothing is damaged.
#[test]
fn several_threads() {
    let (_dir, image) = fresh();
    let volume = Runner::mount(&image, Backend::Threads);
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let fs = volume.fs().clone();
            scope.spawn(move || {
                let mut random = Random(seed * 0x9E37_79B9);
                for _ in 0..1500 {
                    let (one, two) = (random.path(), random.path());
                    let (a, b) = (one.as_bytes(), two.as_bytes());
                    let name = random.xattr_name().as_bytes();
                    let result = match random.below(8) {
                        0 => {
                            fs.create(a, NewInode { mode: 0o100644, ..MODE }, false).and_then(|(inode, _)| {
                                let written = fs.buffered_write(&inode, 0, one.as_bytes());
                                fs.release(&inode)?;
                                written.map(drop)
                            })
                        }
                        1 => fs.mkdir(a, MODE).map(drop),
                        2 => fs.unlink(a),
                        3 => fs.link(a, b),
                        4 => fs.at_path(a, false, |inode| fs.setxattr(inode, name, b, XattrSet::Either)),
                        5 => fs.at_path(a, false, |inode| fs.removexattr(inode, name)),
                        _ => fs.rename(a, b),
                    };
                    if let Err(error) = result {
                        assert!([1, 2, 17, 20, 21, 22, 28, 39, 61].contains(&error.errno()), "{error}");
                    }
                }
            });
        }
    });
    volume.unmount().unwrap();
    clean(&image, "several_threads");
}
