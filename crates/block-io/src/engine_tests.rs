use std::path::Path;

use super::*;
use crate::OpenOptions;

fn container_in(dir: &Path, direct: bool) -> (tempfile::NamedTempFile, Arc<FileDevice>) {
    let file = tempfile::NamedTempFile::new_in(dir).unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let device =
        FileDevice::open(file.path(), OpenOptions { read_only: false, force: false, direct }).unwrap();
    (file, Arc::new(device))
}

fn refuse(errno: i32) -> impl FnOnce(Arc<FileDevice>, Arc<EventFd>) -> Result<UringQueue> {
    move |device, event| {
        UringQueue::with_setup(device, event, || Err(std::io::Error::from_raw_os_error(errno)))
    }
}

fn chosen(
    device: &Arc<FileDevice>,
    engine: Engine,
    variable: Option<&str>,
    uring: impl FnOnce(Arc<FileDevice>, Arc<EventFd>) -> Result<UringQueue>,
) -> Result<BackendInfo> {
    choose(device, engine, variable, Arc::new(EventFd::new().unwrap()), uring).map(|(_, info)| info)
}

#[test]
fn auto_says_why_it_fell_back() {
    let (_file, device) = container_in(&std::env::temp_dir(), true);
    if why_not_uring(&device).is_some() {
        return eprintln!("skipped: no direct I/O without waiting in the temporary directory");
    }
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let info = chosen(&device, Engine::Auto, None, refuse(errno)).unwrap();
        assert_eq!(info.name, "threads");
        assert!(info.reason.starts_with("io_uring_setup: "), "{}", info.reason);
        assert!(info.reason.contains(&format!("(os error {errno})")), "{}", info.reason);
    }
}

#[test]
fn io_uring_asked_for_and_refused_is_an_error() {
    let (_file, device) = container_in(&std::env::temp_dir(), true);
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let error = chosen(&device, Engine::IoUring, None, refuse(errno)).unwrap_err();
        assert_eq!((error.operation, error.errno), ("io_uring_setup", errno));
        assert!(error.detail.is_some());
    }
}

#[test]
fn the_environment_overrides() {
    let (_file, device) = container_in(&std::env::temp_dir(), true);
    let threads = chosen(&device, Engine::IoUring, Some("threads"), refuse(libc::EPERM)).unwrap();
    assert_eq!((threads.name, threads.reason.as_str()), ("threads", "UEXT4_ENGINE=threads"));
    let refused = chosen(&device, Engine::Threads, Some("io_uring"), refuse(libc::EPERM)).unwrap_err();
    assert_eq!(refused.errno, libc::EPERM);
    let wrong = chosen(&device, Engine::Auto, Some("iouring"), refuse(libc::EPERM)).unwrap_err();
    assert_eq!(wrong.errno, libc::EINVAL);
    let empty = chosen(&device, Engine::Threads, Some(""), refuse(libc::EPERM)).unwrap();
    assert_eq!(empty.reason, "asked for");
}

#[test]
fn auto_takes_threads_where_io_uring_would_not_help() {
    let (_file, buffered) = container_in(&std::env::temp_dir(), false);
    let info = chosen(&buffered, Engine::Auto, None, |_, _| panic!("not to be tried")).unwrap();
    assert_eq!(info.name, "threads");
    assert!(info.reason.contains("page cache"));
}

/// What a directory lies on, as stat(1) names it.
fn kind_of_fs(dir: &Path) -> String {
    let said = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output();
    said.map_or_else(|error| error.to_string(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// It skipped itself wherever something else was chosen, and so could not fail. What a host offers is asked of the host here.
#[test]
fn auto_takes_io_uring_for_a_plain_file() {
    let dir = std::env::temp_dir();
    let kind = kind_of_fs(&dir);
    if !["ext2/ext3", "xfs", "btrfs"].contains(&kind.as_str()) {
        return eprintln!("skipped: {} lies on {kind}", dir.display());
    }
    let (_file, device) = container_in(&dir, true);
    let offered = UringQueue::new(device.clone(), Arc::new(EventFd::new().unwrap())).map(drop);
    let mut is_tried = false;
    let info = chosen(&device, Engine::Auto, None, |device, event| {
        is_tried = true;
        UringQueue::new(device, event)
    })
    .unwrap();
    assert!(is_tried, "{}", info.reason);
    let expected = match &offered {
        Ok(()) => ("io_uring", "the host offers io_uring".to_owned()),
        Err(refused) => ("threads", refused.to_string()),
    };
    assert_eq!((info.name, info.reason), expected);
    if let Err(refused) = offered {
        eprintln!("skipped: no io_uring here: {refused}");
    }
}

#[test]
fn auto_takes_threads_where_io_uring_would_punt() {
    // A tmpfs refuses RWF_NOWAIT on many kernels.
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return eprintln!("skipped: no /dev/shm");
    }
    let (_file, device) = container_in(shm, true);
    if !device.limits().direct || !punts(&device) {
        return eprintln!("skipped: direct I/O there {}, punting {}", device.limits().direct, punts(&device));
    }
    let info = chosen(&device, Engine::Auto, None, |_, _| panic!("not to be tried")).unwrap();
    assert_eq!(info.name, "threads");
    assert!(info.reason.contains("kernel threads"));
}
