//! What the kernel does before its volume stops.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use ext4_sim::pattern;

const BLOCK: usize = 1024;

/// Files that it returns stay open until the volume has stopped.
pub type Work = fn(&Path) -> Vec<File>;

/// On volumes of 1 KiB blocks.
pub const MANY: [(&str, Work); 8] = [
    ("names", names),
    ("appends", appends),
    ("renames", renames),
    ("attributes", attributes),
    ("orphans", orphans),
    ("truncates", truncates),
    ("sparse files", sparse),
    ("a log that wraps", wrap),
];

/// On volumes of several block sizes; each ends with an fsync.
pub const SYNCED: [(&str, Work); 6] = [
    ("files and directories", files_and_directories),
    ("names of one directory, and half of them gone", half_gone),
    ("directories that went: revokes", directories_that_went),
    ("renames and links", renames_and_links),
    ("a fragmented file: blocks of its tree", fragmented),
    ("permissions and owners", owners),
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
            symlink("x".repeat(40 + n as usize), root.join(format!("link-{n}"))).unwrap();
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

/// In place of what was there.
fn new(path: &Path, len: usize) -> File {
    fs::write(path, pattern::bytes(len as u32, len)).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn synced(path: &Path, len: usize) {
    new(path, len).sync_all().unwrap();
}

fn files_and_directories(root: &Path) -> Vec<File> {
    for index in 0..30 {
        fs::create_dir(root.join(format!("d{index}"))).unwrap();
        synced(&root.join(format!("d{index}/file")), 1000 * index);
    }
    Vec::new()
}

fn half_gone(root: &Path) -> Vec<File> {
    for index in 0..200 {
        drop(new(&root.join(format!("a name of some length {index}")), 10));
    }
    synced(&root.join("all"), 1);
    for index in (0..200).step_by(2) {
        fs::remove_file(root.join(format!("a name of some length {index}"))).unwrap();
    }
    synced(&root.join("half"), 1);
    Vec::new()
}

fn directories_that_went(root: &Path) -> Vec<File> {
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
    Vec::new()
}

fn renames_and_links(root: &Path) -> Vec<File> {
    synced(&root.join("a"), 3000);
    for index in 0..20 {
        fs::hard_link(root.join("a"), root.join(format!("link {index}"))).unwrap();
        fs::rename(root.join(format!("link {index}")), root.join(format!("moved {index}"))).unwrap();
        symlink(format!("target {index}"), root.join(format!("symlink {index}"))).unwrap();
        synced(&root.join("b"), 100 * index);
    }
    Vec::new()
}

fn fragmented(root: &Path) -> Vec<File> {
    let file = new(&root.join("fragmented"), 0);
    for index in 0..400u64 {
        file.write_all_at(&pattern::bytes(index as u32, 1024), index * 37 % 401 * 8192).unwrap();
        if index % 40 == 0 {
            file.sync_all().unwrap();
        }
    }
    file.sync_all().unwrap();
    file.set_len(500_000).unwrap();
    file.sync_all().unwrap();
    Vec::new()
}

fn owners(root: &Path) -> Vec<File> {
    for index in 0..20u32 {
        let path = root.join(format!("file {index}"));
        drop(new(&path, 100));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + index)).unwrap();
        chown(&path, Some(70_000 + index), Some(5)).unwrap();
        synced(&path, 2000);
    }
    Vec::new()
}
