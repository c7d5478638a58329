//! Which queue a device gets.
#![expect(unsafe_code, reason = "preadv2 has no wrapper in std")]

use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::error::last_errno;
use crate::{AlignedBuf, Device, Error, EventFd, FileDevice, Queue, Result, ThreadsQueue, UringQueue};

/// The environment variable that overrides the engine asked for: `auto`, `io_uring` or `threads`.
pub const ENGINE_VARIABLE: &str = "UEXT4_ENGINE";

/// How direct I/O is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring where it works and helps, else threads.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// Threads that block in pread and pwrite.
    Threads,
}

impl std::str::FromStr for Engine {
    type Err = Error;

    /// EINVAL for any other word.
    fn from_str(word: &str) -> Result<Self> {
        match word {
            "auto" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "threads" => Ok(Self::Threads),
            _ => Err(Error::new("engine", libc::EINVAL).with_detail(format!("no engine is called {word:?}"))),
        }
    }
}

/// The queue that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// `io_uring` or `threads`.
    pub name: &'static str,
    /// Why this one, for people.
    pub reason: String,
}

/// A queue for `device`; `event` is signalled when completions arrive. To be called by the thread that will use it.
///
/// # Errors
/// EINVAL for a word in UEXT4_ENGINE that names no engine; the errno of io_uring_setup where io_uring was asked for
/// and refused; EAGAIN where the host gives no threads.
pub fn open_queue(
    device: &Arc<FileDevice>,
    engine: Engine,
    event: Arc<EventFd>,
) -> Result<(Box<dyn Queue>, BackendInfo)> {
    let variable = std::env::var(ENGINE_VARIABLE).ok();
    choose(device, engine, variable.as_deref(), event, UringQueue::new)
}

fn choose(
    device: &Arc<FileDevice>,
    engine: Engine,
    variable: Option<&str>,
    event: Arc<EventFd>,
    uring: impl FnOnce(Arc<FileDevice>, Arc<EventFd>) -> Result<UringQueue>,
) -> Result<(Box<dyn Queue>, BackendInfo)> {
    let (engine, asked) = match variable.filter(|word| !word.is_empty()) {
        Some(word) => (word.parse()?, format!("{ENGINE_VARIABLE}={word}")),
        None => (engine, "asked for".to_owned()),
    };
    let threads = |event, reason| -> Result<(Box<dyn Queue>, BackendInfo)> {
        let queue = ThreadsQueue::new(device.clone(), event)?;
        Ok((Box::new(queue), BackendInfo { name: "threads", reason }))
    };
    match engine {
        Engine::Threads => threads(event, asked),
        Engine::IoUring => {
            let queue = uring(device.clone(), event)?;
            Ok((Box::new(queue), BackendInfo { name: "io_uring", reason: asked }))
        }
        Engine::Auto => {
            if let Some(reason) = why_not_uring(device) {
                return threads(event, reason.to_owned());
            }
            match uring(device.clone(), event.clone()) {
                Ok(queue) => {
                    let reason = "the host offers io_uring".to_owned();
                    Ok((Box::new(queue), BackendInfo { name: "io_uring", reason }))
                }
                Err(refused) => threads(event, refused.to_string()),
            }
        }
    }
}

/// Why io_uring would be no gain although the host offers it.
fn why_not_uring(device: &FileDevice) -> Option<&'static str> {
    if !device.limits().direct {
        // Those wait for pages, or for the inode lock, in the kernel's own worker threads.
        return Some("io_uring does not help requests through the host's page cache");
    }
    punts(device).then_some("the device cannot promise not to wait, so io_uring would use kernel threads")
}

/// io_uring hands each request to a kernel thread where the file refuses RWF_NOWAIT; one read tells, without clocks.
fn punts(device: &FileDevice) -> bool {
    let limits = device.limits();
    let mut buf = AlignedBuf::zeroed(limits.logical_block_bytes as usize);
    if limits.size_bytes < buf.len() as u64 {
        return false;
    }
    let part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: one vector over a buffer that outlives the call.
    let read = unsafe { libc::preadv2(device.as_raw_fd(), &part, 1, 0, libc::RWF_NOWAIT) };
    read < 0 && last_errno() == libc::EOPNOTSUPP
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
