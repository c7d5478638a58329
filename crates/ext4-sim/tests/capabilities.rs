//! A write strips setuid and file capabilities, wherever the kernel put them (A4.9, F89, E25).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::runner::{Backend, Runner, format};

const SET: &str = "import os, sys
os.setxattr(sys.argv[1], 'user.note', b'x' * int(sys.argv[2]))
os.setxattr(sys.argv[1], 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))";
const GET: &str = "import os, sys
print(*sorted(os.listxattr(sys.argv[1])))";

fn python(script: &str, args: &[&str]) -> Option<String> {
    let output = Command::new("python3").arg("-c").arg(script).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn e25_privileges_do_not_survive_a_write() {
    if !available(Need::KernelMount, "e25") || !available(Need::E2fsprogs, "e25") {
        return;
    }
    if python("print(1)", &[]).is_none() {
        eprintln!("skipped: e25: needs python3");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 64 << 20, |_| ());
    // In the inode; in a block of its own; in a block that two files share.
    let cases = [("inode", 8), ("block", 700), ("shared1", 600), ("shared2", 600)];
    {
        let mount = KernelMount::new(&image, "rw");
        for (name, len) in cases {
            let path = mount.path().join(name);
            std::fs::write(&path, b"old contents").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
            python(SET, &[path.to_str().unwrap(), &len.to_string()]).expect("setxattr");
        }
    }
    write_each(&image, &["inode", "block", "shared1"]);
    assert_clean(&image);
    let mount = KernelMount::new(&image, "ro");
    for (name, stripped) in [("inode", true), ("block", true), ("shared1", true), ("shared2", false)] {
        let path = mount.path().join(name);
        let expected = if stripped { "user.note" } else { "security.capability user.note" };
        assert_eq!(python(GET, &[path.to_str().unwrap()]).unwrap(), expected, "{name}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if stripped { 0o755 } else { 0o4755 }, "{name}");
    }
}

fn write_each(image: &Path, names: &[&str]) {
    let mut volume = Runner::mount(image, Backend::Uring);
    for name in names {
        let file = volume.create(&format!("/{name}")).unwrap();
        let probe = volume.fs().probe_write(&volume.inode(file), 0, 1, ext4::Look::Cached).unwrap();
        assert!(probe.has(ext4::Probe::MAY_STRIP), "{name}");
        volume.direct_write(file, 0, &[7; 4096]).unwrap();
        let probe = volume.fs().probe_write(&volume.inode(file), 0, 1, ext4::Look::Cached).unwrap();
        assert!(!probe.has(ext4::Probe::MAY_STRIP), "{name}");
        volume.close(file).unwrap();
    }
    volume.unmount().unwrap();
}
