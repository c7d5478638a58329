//! e2fsck, debugfs, mke2fs and the kernel's own mount. A test asks [`available`] first and skips in the open.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// What an oracle needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// e2fsck, mke2fs, debugfs and dumpe2fs.
    E2fsprogs,
    /// Root and loop devices: the kernel mounts an image.
    KernelMount,
    /// The same with FUSE, in a mount namespace: the kernel mounts what a process of ours serves.
    KernelMountOfOurs,
}

/// Whether an oracle can be asked here. If not, prints one line that says what is skipped.
pub fn available(need: Need, test: &str) -> bool {
    let missing = match need {
        Need::E2fsprogs => ["e2fsck", "mke2fs", "debugfs"].into_iter().find(|tool| find(tool).is_none()),
        Need::KernelMount => (!kernel_mount_works()).then_some("root with loop devices"),
        Need::KernelMountOfOurs => (!kernel_mount_works() || !fuse_works())
            .then_some("root with loop devices, FUSE and mount namespaces"),
    };
    if let Some(missing) = missing {
        // Past the test harness's capture, which would hide it in a test that passes.
        let _unseen = writeln!(std::io::stderr(), "skipped: {test}: needs {missing}");
    }
    missing.is_none()
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/sbin", "/usr/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|candidate| candidate.is_file())
}

fn kernel_mount_works() -> bool {
    use std::sync::OnceLock;
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"));
        let ext4 = std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("ext4"));
        is_root && ext4 && Path::new("/dev/loop-control").exists()
    })
}

fn fuse_works() -> bool {
    use std::sync::OnceLock;
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let known = std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\tfuse\n"));
        let tools = ["nsenter", "losetup", "fallocate"].iter().all(|tool| find(tool).is_some());
        let unshared = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).status();
        known
            && tools
            && std::fs::File::open("/dev/fuse").is_ok()
            && unshared.is_ok_and(|done| done.success())
    })
}

/// No tool takes as long.
const STUCK: Duration = Duration::from_secs(300);

/// Runs a tool of e2fsprogs; it is killed if it does not end.
pub fn tool(name: &str, args: &[&str]) -> Output {
    let path = find(name).unwrap_or_else(|| panic!("{name} is missing"));
    let mut command = Command::new(path);
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let pid = child.id().to_string();
    // timeout(1) would cost as much again as a run of e2fsck on a small volume.
    let (over, watched) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if watched.recv_timeout(STUCK) == Err(RecvTimeoutError::Timeout) {
            let _killed = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{name}: {error}"));
    drop(over);
    watch.join().expect("the watch does not panic");
    output
}

/// The same; panics with the output if the tool fails.
pub fn tool_ok(name: &str, args: &[&str]) -> String {
    let output = tool(name, args);
    let text = text_of(&output);
    assert!(output.status.success(), "{name} {args:?}: {}\n{text}", output.status);
    text
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// *e2fsck-clean*: exit status 0 and no question but "Optimize?". `Err` holds e2fsck's output.
pub fn e2fsck(image: &Path) -> Result<(), String> {
    e2fsck_with(image, None)
}

/// The same, for a volume that has its journal in another file.
pub fn e2fsck_with(image: &Path, journal: Option<&Path>) -> Result<(), String> {
    let mut args = vec!["-fn"];
    args.extend(journal.into_iter().flat_map(|journal| ["-j", path_str(journal)]));
    args.push(path_str(image));
    let output = tool("e2fsck", &args);
    let text = text_of(&output);
    let asks = text.lines().any(|line| line.contains('?') && !line.contains("Optimize?"));
    if output.status.code() == Some(0) && !asks { Ok(()) } else { Err(format!("{}\n{text}", output.status)) }
}

/// Panics with e2fsck's output unless the image is clean.
pub fn assert_clean(image: &Path) {
    if let Err(text) = e2fsck(image) {
        panic!("e2fsck on {}: {text}", image.display());
    }
}

/// What debugfs answers to one request.
pub fn debugfs(image: &Path, request: &str) -> String {
    tool_ok("debugfs", &["-R", request, path_str(image)])
}

fn path_str(path: &Path) -> &str {
    path.to_str().expect("a path of ours is UTF-8")
}

/// An image mounted by the kernel; unmounted on drop.
pub struct KernelMount {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl KernelMount {
    /// Mounts `image` through a loop device. Options as for mount(8), `ro` or `rw` among them.
    pub fn new(image: &Path, options: &str) -> Self {
        Self::try_new(image, options).unwrap_or_else(|text| panic!("mount {}: {text}", image.display()))
    }

    /// The same, with what mount(8) said if it failed.
    pub fn try_new(image: &Path, options: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let output = Command::new("mount")
            .args(["-t", "ext4", "-o", &format!("loop,{options}")])
            .args([image, dir.path()])
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(Self { dir, image: image.to_owned() }),
            false => Err(text_of(&output)),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        // A tool that another test starts just now holds a copy of every file of this process until it executes.
        let unmounted = (0..100).any(|_| {
            let output = Command::new("umount").arg(self.dir.path()).output();
            let done = output.is_ok_and(|output| output.status.success());
            if !done {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done
        });
        if !unmounted {
            eprintln!("umount {} failed", self.dir.path().display());
        }
        // The loop device goes away by itself, but later; a new mount would take it over, old cache and all.
        for _ in 0..500 {
            let users = Command::new("losetup").arg("-j").arg(&self.image).output();
            if users.is_ok_and(|out| out.stdout.is_empty()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} keeps its loop device", self.image.display());
    }
}
