//! The first whole slice: format, mount, write, unmount; e2fsck and the kernel agree.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, format};

fn fill(image: &Path, backend: Backend) {
    let mut volume = Runner::mount(image, backend);
    volume.mkdir("/dir").unwrap();
    volume.mkdir("/dir/sub").unwrap();
    for (index, len) in [0usize, 1, 511, 4096, 5000, 1 << 20, (3 << 20) + 17].into_iter().enumerate() {
        volume.write_file(&format!("/dir/sub/file{index}"), &pattern::bytes(index as u32, len)).unwrap();
    }
    volume.fs().symlink(b"sub/file3", b"/dir/short", ext4::NewInode { mode: 0, uid: 0, gid: 0 }).unwrap();
    let long = "x/".repeat(100);
    volume.fs().symlink(long.as_bytes(), b"/dir/long", ext4::NewInode { mode: 0, uid: 0, gid: 0 }).unwrap();
    volume.write_file("/gone", &pattern::bytes(9, 100_000)).unwrap();
    volume.fs().unlink(b"/gone").unwrap();
    volume.mkdir("/empty").unwrap();
    volume.fs().rmdir(b"/empty").unwrap();
    volume.unmount().unwrap();
}

fn check(image: &Path, test: &str) {
    let volume = Runner::mount(image, Backend::Threads);
    for (index, len) in [0usize, 1, 511, 4096, 5000, 1 << 20, (3 << 20) + 17].into_iter().enumerate() {
        let path = format!("/dir/sub/file{index}");
        assert!(volume.read_file(&path).unwrap() == pattern::bytes(index as u32, len), "{path}");
    }
    assert_eq!(volume.read_file("/dir/short").unwrap(), pattern::bytes(3, 4096));
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
    }
    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(image, "ro");
        for (index, len) in [0usize, 1, 511, 4096, 5000, 1 << 20, (3 << 20) + 17].into_iter().enumerate() {
            let path = mount.path().join(format!("dir/sub/file{index}"));
            assert!(std::fs::read(&path).unwrap() == pattern::bytes(index as u32, len), "{}", path.display());
        }
        assert_eq!(std::fs::read_link(mount.path().join("dir/long")).unwrap().as_os_str().len(), 200);
        assert!(!mount.path().join("gone").exists());
    }
}

#[test]
fn default_features() {
    for (name, backend) in [("uring", Backend::Uring), ("threads", Backend::Threads)] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 1 << 30, |_| ());
        fill(&image, backend);
        check(&image, name);
    }
}

#[test]
fn other_feature_sets() {
    for (block_size, features) in [
        (1024, ""),
        (2048, ""),
        (4096, "^64bit"),
        (4096, "^flex_bg"),
        (4096, "^metadata_csum,^metadata_csum_seed,^orphan_file"),
        (1024, "^metadata_csum,^metadata_csum_seed,uninit_bg"),
        (4096, "^has_journal,^orphan_file"),
        (1024, "^has_journal,^orphan_file,^metadata_csum,^metadata_csum_seed,^64bit"),
        (4096, "^dir_index"),
        (4096, "^orphan_file"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 128 << 20, |options| {
            options.block_size = Some(block_size);
            options.features = features.into();
        });
        fill(&image, Backend::Uring);
        check(&image, features);
    }
}
