//! The descriptor that wakes an event loop.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::{Error, Result};

/// An eventfd: signalled from any thread and by the kernel, waited for by one.
#[derive(Debug)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// A new one, not signalled. EMFILE and the like where the host has no descriptors left.
    pub fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::new("eventfd", errno.raw_os_error()))?;
        Ok(Self { file: fd.into() })
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
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return ready > 0,
                // A signal; poll fails for nothing else that passes by itself.
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
