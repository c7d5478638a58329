//! The io_uring queue: a ring of its own, one registered file, completions announced through an eventfd.
//!
//! With DEFER_TASKRUN the kernel does its part of a completion only when the ring's owner enters it, so a completion
//! rings the eventfd twice: for the task work, then for the queue entry. `reap` therefore turns notifications off,
//! enters, empties the queue, turns them on, and looks once more.
#![expect(unsafe_code, reason = "the ring takes raw addresses")]

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use io_uring::{IoUring, opcode, squeue, types};
use slab::Slab;

use crate::{Completion, Device, Error, EventFd, FileDevice, Memory, Operation, Queue, Request, Result};

/// Entries of the submission queue; more requests wait in a backlog.
const SUBMISSION_ENTRIES: u32 = 256;
const COMPLETION_ENTRIES: u32 = 4096;
/// The registered file's index.
const FILE: types::Fixed = types::Fixed(0);
const IORING_ENTER_GETEVENTS: u32 = 1;

struct InFlight {
    request: Request,
    /// Bytes that earlier parts of a short transfer moved.
    moved: usize,
}

/// A queue over a container file or block device. All calls come from one thread.
pub struct UringQueue {
    ring: IoUring,
    /// Keeps the descriptor open until the last completion.
    device: Arc<FileDevice>,
    event: Arc<EventFd>,
    requests: Slab<InFlight>,
    backlog: VecDeque<usize>,
    /// Entries that the kernel has and has not completed.
    in_kernel: usize,
    /// Requests outside the device's limits, to be completed with EINVAL.
    refused: Vec<usize>,
}

fn error(operation: &'static str, error: &std::io::Error) -> Error {
    Error::new(operation, error.raw_os_error().unwrap_or(libc::EIO))
}

fn new_ring() -> std::io::Result<IoUring> {
    let preferred = IoUring::builder()
        .setup_cqsize(COMPLETION_ENTRIES)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(SUBMISSION_ENTRIES);
    match preferred {
        // A kernel before 6.1 does not know these flags.
        Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_cqsize(COMPLETION_ENTRIES).build(SUBMISSION_ENTRIES)
        }
        other => other,
    }
}

impl UringQueue {
    /// Sets a ring up for `device`; `event` is signalled when completions arrive.
    ///
    /// # Errors
    /// EPERM, ENOSYS or ENOMEM where the host refuses io_uring.
    pub fn new(device: Arc<FileDevice>, event: Arc<EventFd>) -> Result<Self> {
        let ring = new_ring().map_err(|refused| error("io_uring_setup", &refused))?;
        let register =
            |result: std::io::Result<()>| result.map_err(|refused| error("io_uring_register", &refused));
        register(ring.submitter().register_files(&[device.as_raw_fd()]))?;
        register(ring.submitter().register_eventfd(event.as_raw_fd()))?;
        Ok(Self {
            ring,
            device,
            event,
            requests: Slab::new(),
            backlog: VecDeque::new(),
            in_kernel: 0,
            refused: Vec::new(),
        })
    }

    fn entry(&mut self, key: usize) -> squeue::Entry {
        let InFlight { request, moved } = &mut self.requests[key];
        let offset = request.offset_bytes + *moved as u64;
        let (start, len) = match &mut request.memory {
            Memory::Owned(buf) => (buf.as_mut_ptr(), buf.len()),
            Memory::Pinned { start, len, .. } => (*start, *len),
        };
        let start = start.wrapping_add(*moved);
        // One entry moves at most what a signed 32-bit result can say; a longer request is a short transfer.
        let len = (len - *moved).min(1 << 30) as u32;
        let entry = match request.operation {
            Operation::Read => opcode::Read::new(FILE, start, len).offset(offset).build(),
            Operation::Write { fua } => {
                let flags = if fua { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(FILE, start, len).offset(offset).rw_flags(flags).build()
            }
            Operation::Flush => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
        };
        entry.user_data(key as u64)
    }

    /// The host's limits, which it would enforce only in part (a file grows where a device ends).
    fn is_allowed(&self, request: &Request) -> bool {
        let limits = self.device.limits();
        let lbs = u64::from(limits.logical_block_bytes);
        let len = request.memory.len() as u64;
        let start = match &request.memory {
            Memory::Owned(buf) => buf.as_ptr(),
            Memory::Pinned { start, .. } => start.cast_const(),
        };
        request.operation == Operation::Flush
            || ((request.offset_bytes | len).is_multiple_of(lbs)
                && (start as usize).is_multiple_of(limits.memory_alignment_bytes as usize)
                && request.offset_bytes.checked_add(len).is_some_and(|end| end <= limits.size_bytes))
    }

    /// Moves the backlog into the submission queue as far as it goes.
    fn fill(&mut self) {
        // Completions must not overflow their queue: that would stop the kernel from taking more.
        while self.in_kernel < COMPLETION_ENTRIES as usize {
            let Some(&key) = self.backlog.front() else { break };
            let entry = self.entry(key);
            // SAFETY: the request owns its memory and the ring's file until its completion is reaped.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
            self.in_kernel += 1;
        }
    }

    fn enter(&mut self, wait: usize) -> Result<()> {
        loop {
            match self.ring.submit_and_wait(wait) {
                Ok(_) => return Ok(()),
                Err(refused) => match refused.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The kernel has no room just now: what is pushed stays and goes with the next call.
                    Some(libc::EAGAIN | libc::EBUSY) => return Ok(()),
                    _ => return Err(error("io_uring_enter", &refused)),
                },
            }
        }
    }

    /// Lets the kernel do deferred work of completions.
    fn run_task_work(&mut self) {
        // SAFETY: reading the flags word of our own ring.
        if self.ring.submission().taskrun() || self.ring.submission().cq_overflow() {
            // SAFETY: no argument is passed.
            let _interrupted =
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, IORING_ENTER_GETEVENTS, None) };
        }
    }

    fn take(&mut self, done: &mut Vec<Completion>) {
        loop {
            let Some(entry) = self.ring.completion().next() else { break };
            self.in_kernel -= 1;
            let key = entry.user_data() as usize;
            if let Some(result) = self.judge(key, entry.result()) {
                let InFlight { request, .. } = self.requests.remove(key);
                done.push(Completion { id: request.id, result, memory: request.memory });
            }
        }
    }

    /// The end of a request, or `None` if it goes on.
    fn judge(&mut self, key: usize, result: i32) -> Option<Result<()>> {
        let InFlight { request, moved } = &mut self.requests[key];
        let name = match request.operation {
            Operation::Read => "read",
            Operation::Write { .. } => "write",
            Operation::Flush => "flush",
        };
        let failed = |errno| Some(Err(Error::at(name, request.offset_bytes, errno)));
        if result < 0 {
            if result == -libc::EINTR || result == -libc::EAGAIN {
                self.backlog.push_back(key);
                return None;
            }
            return failed(-result);
        }
        if request.operation == Operation::Flush {
            return Some(Ok(()));
        }
        *moved += result as usize;
        if *moved == request.memory.len() {
            return Some(Ok(()));
        }
        if result == 0 {
            return failed(libc::EIO);
        }
        self.backlog.push_back(key);
        None
    }
}

impl Queue for UringQueue {
    fn push(&mut self, request: Request) {
        let allowed = self.is_allowed(&request);
        let key = self.requests.insert(InFlight { request, moved: 0 });
        if allowed {
            self.backlog.push_back(key);
        } else {
            self.refused.push(key);
            self.event.signal();
        }
    }

    fn submit(&mut self) -> Result<()> {
        while !self.backlog.is_empty() {
            let before = self.backlog.len();
            self.fill();
            self.enter(0)?;
            if self.backlog.len() == before {
                break; // The kernel is full; completions make room.
            }
        }
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        if self.requests.is_empty() {
            return;
        }
        let before = done.len();
        for key in self.refused.drain(..) {
            let InFlight { request, .. } = self.requests.remove(key);
            let result = Err(Error::at("direct I/O", request.offset_bytes, libc::EINVAL));
            done.push(Completion { id: request.id, result, memory: request.memory });
        }
        self.ring.completion().disable_eventfd();
        self.run_task_work();
        self.take(done);
        self.ring.completion().enable_eventfd();
        fence(Ordering::SeqCst);
        self.run_task_work();
        self.take(done);
        if !self.backlog.is_empty() && done.len() > before {
            // An error of io_uring_enter here shows again, and is reported, at the next submit.
            let _later = self.submit();
        }
    }

    fn in_flight(&self) -> usize {
        self.requests.len()
    }

    fn drain(&mut self) {
        self.refused.clear();
        for key in std::mem::take(&mut self.backlog) {
            self.requests.remove(key);
        }
        let _may_be_late = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        let mut done = Vec::new();
        while self.in_kernel > 0 {
            if self.enter(1).is_err() {
                // The ring is broken and the kernel may still use the memory: leak it rather than free it.
                std::mem::forget(std::mem::take(&mut self.requests));
                return;
            }
            self.take(&mut done);
            for key in std::mem::take(&mut self.backlog) {
                self.requests.remove(key);
            }
        }
        let _gone = self.event.clear();
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        self.drain();
    }
}
