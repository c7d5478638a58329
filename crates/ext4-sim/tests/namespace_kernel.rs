//! rename(2) and link(2) beside the kernel's: the same calls on two copies of one volume must end the same.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, tool_ok};
use ext4_sim::runner::{Backend, Runner, format};

/// A call, and its paths in the folder of its case; LONG stands for a name of 256 bytes.
const CASES: [(&str, &str, &str); 92] = [
    // Plain moves.
    ("rename", "file", "new"),
    ("rename", "file", "dir/new"),
    ("rename", "dir/inside", "new"),
    ("rename", "link", "new"),
    ("rename", "dangling", "dir/new"),
    ("rename", "dir", "new"),
    ("rename", "dir", "empty/new"),
    ("rename", "deep/a/b", "b"),
    ("rename", "deep/a/b", "deep/b"),
    ("rename", "deep/a/b", "empty/b"),
    ("rename", "empty", "deep/a/b/c/d"),
    ("rename", "dlink/inside", "dir/moved"),
    ("rename", "dir/../file", "dir/./new"),
    // Replacing.
    ("rename", "file", "file2"),
    ("rename", "file", "dir/inside"),
    ("rename", "file", "link"),
    ("rename", "link", "file"),
    ("rename", "link", "dlink"),
    ("rename", "fifo", "file"),
    ("rename", "empty", "empty2"),
    ("rename", "dir", "empty"),
    ("rename", "deep/a", "empty"),
    ("rename", "deep/a/b/c", "empty"),
    ("rename", "empty", "deep/a/b/c"),
    ("rename", "two", "file"),
    ("rename", "file2", "two"),
    // The same inode.
    ("rename", "file", "file"),
    ("rename", "dir", "dir"),
    ("rename", "hard", "hard2"),
    ("rename", "hard", "dir/hard3"),
    ("rename", "empty/.", "empty"),
    // Kinds that do not match.
    ("rename", "dir", "file"),
    ("rename", "dir", "link"),
    ("rename", "dir", "dlink"),
    ("rename", "file", "empty"),
    ("rename", "file", "dir"),
    ("rename", "link", "empty"),
    ("rename", "empty", "dir"),
    ("rename", "dir", "deep"),
    ("rename", "empty", "deep/a"),
    // Below itself, and over what it is below.
    ("rename", "dir", "dir/new"),
    ("rename", "deep", "deep/a/new"),
    ("rename", "deep", "deep/a/b"),
    ("rename", "deep/a", "deep/a/b/c"),
    ("rename", "deep/a/b/c", "deep"),
    ("rename", "deep/a", "deep"),
    ("rename", "dir/inside", "dir"),
    ("rename", "dir", "dir/inside"),
    ("rename", "dir", "dlink/new"),
    // What is missing, or no directory.
    ("rename", "none", "new"),
    ("rename", "none", "file"),
    ("rename", "none/x", "new"),
    ("rename", "file", "none/x"),
    ("rename", "file/x", "new"),
    ("rename", "file", "file2/x"),
    ("rename", "none", "none2/x"),
    ("rename", "file", "dangling/x"),
    ("rename", "dangling/x", "new"),
    ("rename", "file", "loop/x"),
    ("rename", "file", "LONG"),
    ("rename", "LONG", "file"),
    // Slashes and dots.
    ("rename", "file/", "new"),
    ("rename", "file", "new/"),
    ("rename", "file", "file2/"),
    ("rename", "file", "empty/"),
    ("rename", "dir/", "new/"),
    ("rename", "dir", "new/"),
    ("rename", "dir/", "file"),
    ("rename", "dir//", "empty//"),
    ("rename", "dlink/", "new"),
    ("rename", "dir", "dlink/"),
    ("rename", "dir/.", "new"),
    ("rename", "dir/..", "new"),
    ("rename", "file", "dir/."),
    ("rename", "file", "dir/.."),
    ("rename", "none", "dir/."),
    // Flags.
    ("rename", "immutable", "new"),
    ("rename", "append", "new"),
    ("rename", "file", "immutable"),
    ("rename", "file", "append"),
    ("rename", "frozen/file", "new"),
    ("rename", "file", "frozen/new"),
    ("rename", "growing/file", "new"),
    ("rename", "file", "growing/new"),
    ("rename", "file", "growing/file"),
    ("rename", "frozen", "new"),
    // link(2).
    ("link", "file", "dir/new"),
    ("link", "link", "new"),
    ("link", "dir", "new"),
    ("link", "file", "file2"),
    ("link", "immutable", "new"),
    ("link", "file", "frozen/new"),
];

const MORE_LINKS: [(&str, &str, &str); 19] = [
    ("link", "append", "new"),
    ("link", "file", "growing/new"),
    ("link", "none", "new"),
    ("link", "none", "file"),
    ("link", "file", "none/x"),
    ("link", "file", "new/"),
    ("link", "file", "empty/"),
    ("link", "file/", "new"),
    ("link", "link/", "new"),
    ("link", "dlink/", "new"),
    ("link", "dlink/inside", "new"),
    ("link", "dangling", "new"),
    ("link", "fifo", "new"),
    ("link", "file", "."),
    ("link", "file", "dir/.."),
    ("link", "dir/.", "new"),
    ("link", "file", "LONG"),
    ("link", "dir", "file"),
    ("link", "file/x", "new"),
];

fn cases() -> impl Iterator<Item = (usize, (&'static str, &'static str, &'static str))> {
    CASES.into_iter().chain(MORE_LINKS).enumerate()
}

fn run(command: &str, args: &[&str]) {
    let output = Command::new(command).args(args).output().unwrap();
    assert!(output.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What each case has in its folder.
fn furnish(root: &Path) {
    fs::create_dir_all(root.join("deep/a/b/c")).unwrap();
    for dir in ["dir", "empty", "empty2", "frozen", "growing"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    let files = ["file", "file2", "hard", "two", "immutable", "append"];
    for file in files.into_iter().chain(["dir/inside", "frozen/file", "growing/file"]) {
        fs::write(root.join(file), file).unwrap();
    }
    fs::hard_link(root.join("hard"), root.join("hard2")).unwrap();
    fs::hard_link(root.join("two"), root.join("dir/two")).unwrap();
    for (link, target) in [("link", "file"), ("dlink", "dir"), ("dangling", "nowhere"), ("loop", "loop")] {
        symlink(target, root.join(link)).unwrap();
    }
    run("mkfifo", &[root.join("fifo").to_str().unwrap()]);
    for (flag, names) in [("+i", ["immutable", "frozen"]), ("+a", ["append", "growing"])] {
        for name in names {
            run("chattr", &[flag, root.join(name).to_str().unwrap()]);
        }
    }
}

fn full(root: &str, case: usize, name: &str) -> String {
    format!("{root}/case{case}/{}", if name == "LONG" { "l".repeat(256) } else { name.to_owned() })
}

fn by_kernel(root: &str, case: usize, (call, old, new): (&str, &str, &str)) -> i32 {
    let (old, new) = (full(root, case, old), full(root, case, new));
    let result = if call == "link" { fs::hard_link(old, new) } else { fs::rename(old, new) };
    result.err().map_or(0, |error| error.raw_os_error().unwrap())
}

fn by_us(volume: &Runner, case: usize, (call, old, new): (&str, &str, &str)) -> i32 {
    let (old, new) = (full("", case, old), full("", case, new));
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let fs = volume.fs();
    let result = if call == "link" { fs.link(old, new) } else { fs.rename(old, new) };
    result.err().map_or(0, |error| error.errno())
}

/// Every path below `dir`, with inode number, mode, links and contents.
fn snapshot(dir: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let contents = match meta.file_type() {
            kind if kind.is_file() => fs::read_to_string(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().to_string_lossy().into_owned(),
            kind if kind.is_dir() => format!("parent {}", fs::metadata(path.join("..")).unwrap().ino()),
            _ => String::new(),
        };
        into.insert(name.clone(), format!("{} {:o} {} {contents}", meta.ino(), meta.mode(), meta.nlink()));
        if meta.is_dir() {
            snapshot(&path, &name, into);
        }
    }
}

fn tree(image: &Path) -> BTreeMap<String, String> {
    let mount = KernelMount::new(image, "ro");
    let mut tree = BTreeMap::new();
    snapshot(mount.path(), "", &mut tree);
    tree
}

#[test]
fn the_same_as_the_kernel() {
    if !available(Need::KernelMount, "the_same_as_the_kernel")
        || !available(Need::E2fsprogs, "the_same_as_the_kernel")
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    format(&theirs, 64 << 20, |_| ());
    {
        let mount = KernelMount::new(&theirs, "rw");
        for (case, _) in cases() {
            furnish(&mount.path().join(format!("case{case}")));
        }
    }
    fs::copy(&theirs, &ours).unwrap();
    let expected: Vec<i32> = {
        let mount = KernelMount::new(&theirs, "rw");
        let root = mount.path().to_str().unwrap();
        cases().map(|(number, case)| by_kernel(root, number, case)).collect()
    };
    let volume = Runner::mount(&ours, Backend::Threads);
    let wrong: Vec<_> = cases()
        .filter_map(|(number, case)| {
            let (errno, expected) = (by_us(&volume, number, case), expected[number]);
            (errno != expected).then(|| format!("{case:?}: {errno}, the kernel says {expected}"))
        })
        .collect();
    volume.unmount().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_clean(&ours);
    let (theirs, ours) = (tree(&theirs), tree(&ours));
    for (path, what) in &theirs {
        assert_eq!(ours.get(path), Some(what), "{path}");
    }
    assert_eq!(ours.len(), theirs.len());
}

/// F72, with link counts that debugfs made up.
#[test]
fn link_counts_have_an_end() {
    if !available(Need::E2fsprogs, "link_counts_have_an_end") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 64 << 20, |_| ());
    let volume = Runner::mount(&image, Backend::Threads);
    for path in ["/linear", "/indexed", "/unknown", "/a", "/b", "/c", "/d"] {
        volume.mkdir(path).unwrap();
    }
    for index in 0..400 {
        volume.touch(&format!("/indexed/a name that fills blocks {index}")).unwrap();
    }
    volume.touch("/file").unwrap();
    volume.touch("/almost").unwrap();
    volume.unmount().unwrap();
    for (path, links) in
        [("/linear", 65000), ("/indexed", 65000), ("/unknown", 1), ("/file", 65000), ("/almost", 64999)]
    {
        let request = format!("set_inode_field {path} links_count {links}");
        tool_ok("debugfs", &["-w", "-R", &request, image.to_str().unwrap()]);
    }
    let volume = Runner::mount(&image, Backend::Threads);
    let fs = volume.fs().clone();
    let errno = |result: ext4::Result<()>| result.err().map_or(0, |error| error.errno());
    let links = |path: &str| fs.stat(&fs.lookup(path.as_bytes(), false).unwrap()).links;
    assert_eq!(errno(fs.link(b"/file", b"/more")), 31);
    assert_eq!(errno(fs.link(b"/almost", b"/more")), 0);
    assert_eq!(links("/more"), 65000);
    assert_eq!(errno(fs.link(b"/almost", b"/evenmore")), 31);
    assert_eq!(errno(fs.rename(b"/a", b"/linear/a")), 31);
    assert_eq!(errno(fs.rename(b"/a", b"/indexed/a")), 0);
    assert_eq!(links("/indexed"), 1);
    assert_eq!(errno(fs.rename(b"/b", b"/unknown/b")), 0);
    assert_eq!(links("/unknown"), 1);
    assert_eq!(errno(fs.rename(b"/unknown/b", b"/b")), 0);
    assert_eq!(links("/unknown"), 1);
    // Files come and go as they like, and a subdirectory that is replaced makes room.
    assert_eq!(errno(fs.rename(b"/more", b"/linear/file")), 0);
    volume.unmount().unwrap();
}
