//! The descriptor that wakes an event loop.
#![expect(unsafe_code, reason = "system calls of the C library")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// An eventfd: signalled from any thread and by the kernel, waited for by one.
#[derive(Debug)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// A new one, not signalled. EMFILE and the like where the host has no descriptors left.
    pub fn new() -> Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return Err(Error::new("eventfd", errno));
        }
        // SAFETY: just made.
        Ok(Self { file: unsafe { File::from_raw_fd(fd) } })
    }

    /// Wakes whoever waits.
    pub fn signal(&self) {
        // Refused only where the counter is full, and then it is signalled already.
        let _full = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Takes the signal back. `false` if there was none.
    pub fn clear(&self) -> bool {
        (&self.file).read(&mut [0; 8]).is_ok()
    }

    /// Waits for a signal, without taking it; `None`: for ever. `false` after the time is up.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            // Rounded up, so that the time is not spent spinning.
            let milliseconds = deadline.map_or(-1, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                left.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32
            });
            let mut poll = libc::pollfd { fd: self.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one structure that outlives the call.
            match unsafe { libc::poll(&mut poll, 1, milliseconds) } {
                0 => return false,
                1.. => return true,
                // A signal; poll fails for nothing else that passes by itself.
                _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
