//! A volume that the kernel has mounted over a recorded device: ext4 on a loop device on a file that this process serves.
//!
//! The mounts are in a mount namespace of a child, which makes the system calls. This process only serves, so that it never
//! waits for itself; and however it ends, its end of /dev/fuse closes, the child reads the end of its input, and with the
//! namespace go the mounts and the loop device.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use block_io::Device;
use fuser::BackgroundSession;

use super::device::{self, serve};

/// The kernel's mount, and who uses it.
pub struct Host {
    dir: tempfile::TempDir,
    child: Child,
    calls: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    session: Option<BackgroundSession>,
}

/// With the loop device marked to go with its last user, whatever becomes of the mount.
const MOUNT: &str = r#"
device=$(losetup --show --find --direct-io=on "$1") || exit 1
mount -t ext4 -o "$2" "$device" "$3"; status=$?
cat /sys/block/${device#/dev/}/queue/write_cache /sys/block/${device#/dev/}/loop/dio
losetup --detach "$device"
exit $status
"#;

/// A new namespace has copies of all mounts, which would keep the loop devices of other tests after these have unmounted.
const ALONE: &str = r#"
while read -r source dir rest; do
    case $source in /dev/loop*) umount --lazy "$dir" ;; esac
done < /proc/self/mounts
exec "$@"
"#;

impl Host {
    /// Mounts the volume on `device` with `options` of mount(8).
    pub fn mount(device: Arc<dyn Device>, options: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory to mount in");
        for name in ["fuse", "volume"] {
            std::fs::create_dir(dir.path().join(name)).expect("a mount point");
        }
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", ALONE, "sh"])
            .args([Path::new(env!("CARGO_BIN_EXE_system_calls")), &dir.path().join("volume")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let calls = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut host = Self { dir, child, calls, answers, session: None };
        host.answer("start").expect("a process in a namespace of its own");
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        host.mount_fuse(fuse.try_clone().expect("a descriptor"));
        host.session = Some(serve(device, OwnedFd::from(fuse)).expect("a FUSE session"));
        let file = host.path("fuse").join(device::NAME);
        let args = [file.as_path(), Path::new(options), &host.path("volume")].map(Path::to_owned);
        let settings = host.inside("sh", |sh| sh.args(["-c", MOUNT, "sh"]).args(args));
        assert_eq!(settings, "write back\n1\n", "a write cache, and direct I/O below");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a tool in the namespace. Its output; panics if it fails.
    fn inside(&self, tool: &str, set: impl FnOnce(&mut Command) -> &mut Command) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.child.id())).arg(tool);
        let output = set(&mut command).output().expect("nsenter");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool}: {} {error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn mount_fuse(&self, fuse: File) {
        const OPTIONS: &str = "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other";
        self.inside("mount", |mount| {
            let mount = mount.args(["-i", "-t", "fuse", "-o", OPTIONS, "recorded"]);
            mount.arg(self.path("fuse")).stdin(Stdio::from(fuse))
        });
    }

    fn answer(&mut self, call: &str) -> Result<u64, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| format!("{call}: {error}"))?;
        let value = line.strip_prefix("ok ").and_then(|value| value.trim().parse().ok());
        value.ok_or_else(|| format!("{call}: {line}"))
    }

    /// Makes a system call: an inode number, if it has one. Panics if it fails.
    pub fn call(&mut self, words: &[&str]) -> u64 {
        let line = words.join("\t");
        let calls = self.calls.as_mut().expect("it lives as long as the mount");
        writeln!(calls, "{line}").expect("a pipe");
        self.answer(&line).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Unmounts the volume.
    pub fn unmount(self) {
        self.inside("umount", |umount| umount.arg(self.path("volume")));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its end is the namespace's, with all that is mounted there.
        self.calls = None;
        let ended = self.child.wait();
        let served = self.session.take().map(BackgroundSession::join);
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success()), "the calling process");
            assert!(served.is_none_or(|served| served.is_ok()), "the FUSE session");
        }
    }
}
