//! Times as they are stored. Inodes of 128 bytes hold whole seconds up to 2038, and showed nanoseconds and years past it until
//! they were read anew: a program that compared times after a restart found every file changed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use ext4::{Fs, Inode, MountOptions, NewInode, Stat};
use ext4_format::Timestamp;
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{Need, assert_clean, available, tool_ok};

const NEW: NewInode = NewInode { mode: 0o100644, uid: 0, gid: 0 };

fn times(stat: &Stat) -> [Timestamp; 4] {
    [stat.atime, stat.mtime, stat.ctime, stat.crtime]
}

/// Each way in which a time changes, on a file of its own.
fn change(fs: &Arc<Fs>) -> Vec<(String, Arc<Inode>)> {
    let far = Timestamp { sec: (1 << 31) + 5, nsec: 500_000_000 };
    let past = Timestamp { sec: 1, nsec: 250_000_000 };
    let mut files = Vec::new();
    let mut file = |name: &str, work: &dyn Fn(&str, &Arc<Inode>)| {
        let path = format!("/{name}");
        let inode = fs.create(path.as_bytes(), NEW, false).unwrap().0;
        work(&path, &inode);
        files.push((path, inode));
    };
    file("created", &|_, _| {});
    file("utimes", &|_, inode| fs.set_times(inode, past, far).unwrap());
    file("written", &|_, inode| {
        fs.file_modified(inode).unwrap();
        fs.buffered_write(inode, 0, b"data").unwrap();
    });
    file("truncated", &|_, inode| fs.truncate(inode, 10).unwrap());
    file("chmod", &|_, inode| fs.chmod(inode, 0o600).unwrap());
    file("linked", &|path, _| fs.link(path.as_bytes(), b"/other").unwrap());
    file("renamed", &|path, _| {
        fs.rename(path.as_bytes(), b"/x").unwrap();
        fs.rename(b"/x", path.as_bytes()).unwrap();
    });
    files
}

#[test]
fn what_is_shown_is_what_the_next_mount_shows() {
    if !available(Need::E2fsprogs, "stored times") {
        return;
    }
    for inode_size in ["128", "256", "512"] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let arguments = ["-q", "-t", "ext4", "-I", inode_size, image.to_str().unwrap(), "16M"];
        tool_ok("mke2fs", &arguments);
        let device = Arc::new(MemoryDevice::new(std::fs::read(&image).unwrap()));
        let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
        let files = change(&fs);
        let root = fs.stat(&fs.lookup(b"/", true).unwrap());
        let shown: Vec<_> =
            files.iter().map(|(path, inode)| (path.clone(), times(&fs.stat(inode)))).collect();
        for (_, inode) in files {
            fs.release(&inode).unwrap();
        }
        fs.unmount().unwrap();
        std::fs::write(&image, device.snapshot()).unwrap();
        assert_clean(&image);
        let (fs, _) = Fs::mount(device, &MountOptions::default()).unwrap();
        for (path, before) in shown {
            let after = times(&fs.stat(&fs.lookup(path.as_bytes(), true).unwrap()));
            assert_eq!(before, after, "{path}, inodes of {inode_size} bytes");
        }
        assert_eq!(times(&root), times(&fs.stat(&fs.lookup(b"/", true).unwrap())));
        fs.unmount().unwrap();
    }
}
