//! A host that refuses io_uring, as Docker's seccomp profile does: the queue falls back and says why.
#![expect(unsafe_code, reason = "prctl installs the filter")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::Command;
use std::sync::Arc;

use block_io::{Device, Engine, EventFd, FileDevice, OpenOptions, create_container, open_queue};

/// Set in the child process: the errno that its io_uring system calls get.
const REFUSED_WITH: &str = "BLOCK_IO_TEST_REFUSED_WITH";

/// Makes io_uring_setup, io_uring_enter and io_uring_register (425–427) fail in this process.
fn refuse_io_uring(errno: u32) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(IF_AT_LEAST, 0, 2, 425),
        step(IF_AT_LEAST, 1, 0, 428),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the calls; the filter affects this process alone.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    assert!(installed, "{}", std::io::Error::last_os_error());
}

/// Runs in the child process.
fn open_under_the_filter(errno: i32) {
    refuse_io_uring(errno as u32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container");
    create_container(&path, 1 << 20).unwrap();
    let device = Arc::new(
        FileDevice::open(&path, OpenOptions { read_only: false, force: false, direct: true }).unwrap(),
    );
    let event = || Arc::new(EventFd::new().unwrap());
    let (_queue, chosen) = open_queue(&device, Engine::Auto, event()).unwrap();
    assert_eq!(chosen.name, "threads");
    let refused = open_queue(&device, Engine::IoUring, event()).map(|_| ()).unwrap_err();
    if device.limits().direct {
        assert!(chosen.reason.contains("io_uring"), "{}", chosen.reason);
    }
    assert_eq!(refused.errno, errno, "{refused}");
    println!("threads instead of io_uring: {}", chosen.reason);
}

#[test]
fn io_uring_refused_by_seccomp() {
    if let Ok(errno) = std::env::var(REFUSED_WITH) {
        return open_under_the_filter(errno.parse().unwrap());
    }
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "io_uring_refused_by_seccomp", "--nocapture"])
            .env(REFUSED_WITH, errno.to_string())
            .env_remove("UEXT4_ENGINE")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("threads instead of io_uring"), "{text}");
    }
}
