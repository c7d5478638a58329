//! The io_uring queue: a ring of its own, one registered file, completions announced through an eventfd.
//!
//! With DEFER_TASKRUN the kernel does its part of a completion only when the ring's owner enters it, so a completion
//! rings the eventfd twice: for the task work, then for the queue entry. `reap` therefore turns notifications off,
//! enters, empties the queue, turns them on, and looks once more. The caller clears the eventfd before it reaps.
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
    /// Submitted, but the submission queue had no room, or to be continued.
    backlog: VecDeque<usize>,
    /// Pushed and not submitted.
    pushed: Vec<usize>,
    /// Entries that the kernel has and has not completed.
    in_kernel: usize,
    /// Requests that are over without the ring: refused, or carried out by whoever waited for them.
    ended: Vec<(usize, Result<()>)>,
}

fn error(operation: &'static str, error: &std::io::Error) -> Error {
    Error::new(operation, error.raw_os_error().unwrap_or(libc::EIO))
}

fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write { .. } => "write",
        Operation::Flush => "flush",
    }
}

/// What an errno of io_uring_setup usually means.
fn why(refused: &std::io::Error) -> &'static str {
    match refused.raw_os_error() {
        Some(libc::EPERM) => "forbidden by seccomp or kernel.io_uring_disabled",
        Some(libc::ENOSYS) => "the kernel has no io_uring",
        Some(libc::ENOMEM) => "RLIMIT_MEMLOCK or memory exhausted",
        _ => "the kernel refused a ring",
    }
}

/// A ring with the best flags that this kernel knows: 6.1 all of them, 5.19 the second set.
fn new_ring() -> std::io::Result<IoUring> {
    let mut deferred = IoUring::builder();
    deferred
        .setup_cqsize(COMPLETION_ENTRIES)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    let mut cooperative = IoUring::builder();
    cooperative.setup_cqsize(COMPLETION_ENTRIES).setup_coop_taskrun().setup_taskrun_flag();
    let mut plain = IoUring::builder();
    plain.setup_cqsize(COMPLETION_ENTRIES);
    for builder in [deferred, cooperative] {
        match builder.build(SUBMISSION_ENTRIES) {
            Err(unknown_flag) if unknown_flag.raw_os_error() == Some(libc::EINVAL) => {}
            other => return other,
        }
    }
    plain.build(SUBMISSION_ENTRIES)
}

impl UringQueue {
    /// Sets a ring up for `device`; `event` is signalled when completions arrive.
    ///
    /// # Errors
    /// EPERM, ENOSYS or ENOMEM where the host refuses io_uring.
    pub fn new(device: Arc<FileDevice>, event: Arc<EventFd>) -> Result<Self> {
        Self::with_setup(device, event, new_ring)
    }

    /// The same with another way to get a ring, so that tests can refuse it.
    pub(crate) fn with_setup(
        device: Arc<FileDevice>,
        event: Arc<EventFd>,
        setup: impl FnOnce() -> std::io::Result<IoUring>,
    ) -> Result<Self> {
        let ring = setup().map_err(|refused| error("io_uring_setup", &refused).with_detail(why(&refused)))?;
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
            pushed: Vec::new(),
            in_kernel: 0,
            ended: Vec::new(),
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

    /// The host's limits, which it would enforce only in part (a file grows where a device ends), and the latch.
    fn check(&self, request: &Request) -> Result<()> {
        let limits = self.device.limits();
        if let Some(lost) = self.device.lost() {
            return Err(lost.clone());
        }
        if matches!(request.operation, Operation::Flush | Operation::Write { fua: true })
            && let Some(failed) = self.device.failed_flush()
        {
            return Err(failed.clone());
        }
        let (name, offset) = (name(request.operation), request.offset_bytes);
        if request.operation == Operation::Flush {
            return Ok(());
        }
        limits.check(name, offset, request.memory.len() as u64)?;
        if limits.read_only && request.operation != Operation::Read {
            return Err(Error::at(name, offset, libc::EROFS));
        }
        if request.operation != Operation::Read {
            self.device.before_write(offset + request.memory.len() as u64)?;
        }
        let start = match &request.memory {
            Memory::Owned(buf) => buf.as_ptr(),
            Memory::Pinned { start, .. } => start.cast_const(),
        };
        match (start as usize).is_multiple_of(limits.memory_alignment_bytes as usize) {
            true => Ok(()),
            false => Err(Error::at(name, offset, libc::EINVAL).with_detail("misaligned memory")),
        }
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
        let failed = |errno| Error::at(name(request.operation), request.offset_bytes, errno);
        if result < 0 {
            if result == -libc::EINTR || result == -libc::EAGAIN {
                self.backlog.push_back(key);
                return None;
            }
            return Some(Err(match request.operation {
                Operation::Flush => self.device.latch(Error::new("flush", -result)),
                Operation::Write { fua: true } => self.device.latch_fua(failed(-result)),
                _ => failed(-result),
            }));
        }
        if request.operation == Operation::Flush {
            return Some(self.device.check_whole());
        }
        *moved += result as usize;
        if *moved == request.memory.len() {
            // What is said to be durable, or was under way when the container was found cut.
            let is_fua = request.operation == Operation::Write { fua: true };
            return Some(match self.device.lost() {
                None if is_fua => self.device.check_whole(),
                None => Ok(()),
                Some(lost) => Err(lost.clone()),
            });
        }
        if let Err(cut) = self.device.check_whole() {
            return Some(Err(cut));
        }
        let lbs = self.device.limits().logical_block_bytes as usize;
        if result == 0 || (self.device.limits().direct && !moved.is_multiple_of(lbs)) {
            return Some(Err(failed(libc::EIO).with_detail("ended early")));
        }
        self.backlog.push_back(key);
        None
    }

    fn submit_backlog(&mut self) -> Result<()> {
        while self.has_unsubmitted() {
            let before = (self.backlog.len(), self.ring.submission().len());
            self.fill();
            self.enter(0)?;
            if (self.backlog.len(), self.ring.submission().len()) == before {
                break; // The kernel is full; completions make room.
            }
        }
        let unsubmitted = self.ring.submission().len();
        if unsubmitted > 0 && self.in_kernel == unsubmitted {
            self.event.signal(); // No completion will wake the caller to try again.
        }
        Ok(())
    }

    /// Entries that wait for io_uring_enter, or for room to become one.
    fn has_unsubmitted(&mut self) -> bool {
        !self.backlog.is_empty() || !self.ring.submission().is_empty()
    }
}

impl Queue for UringQueue {
    fn push(&mut self, request: Request) {
        let checked = self.check(&request);
        if checked.is_ok() {
            self.device.io_counts().add(request.operation, request.memory.len());
        }
        let key = self.requests.insert(InFlight { request, moved: 0 });
        match checked {
            Ok(()) => self.pushed.push(key),
            Err(error) => self.ended.push((key, Err(error))),
        }
    }

    fn submit(&mut self) -> Result<()> {
        if !self.ended.is_empty() {
            self.event.signal();
        }
        self.backlog.extend(self.pushed.drain(..));
        self.submit_backlog()
    }

    fn submit_and_wait(&mut self) -> Result<bool> {
        self.backlog.extend(self.pushed.drain(..));
        if !self.ended.is_empty() {
            return self.submit().map(|()| false);
        }
        // One system call instead of a ring's round: a request alone gains nothing from it.
        if let [key] = self.backlog.make_contiguous()
            && self.in_kernel == 0
        {
            let key = *key;
            self.backlog.clear();
            let InFlight { request, moved } = &mut self.requests[key];
            let result = self.device.carry_out(request, *moved);
            self.ended.push((key, result));
            return Ok(true);
        }
        self.fill();
        if self.in_kernel == 0 {
            return self.submit().map(|()| false);
        }
        // Who waits here needs no signal; `reap` turns them on again.
        self.ring.completion().disable_eventfd();
        self.enter(1)?;
        Ok(true)
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        if self.requests.is_empty() {
            return;
        }
        for (key, result) in self.ended.drain(..) {
            let InFlight { request, .. } = self.requests.remove(key);
            done.push(Completion { id: request.id, result, memory: request.memory });
        }
        if self.requests.is_empty() {
            return;
        }
        self.ring.completion().disable_eventfd();
        self.run_task_work();
        self.take(done);
        self.ring.completion().enable_eventfd();
        fence(Ordering::SeqCst);
        self.run_task_work();
        self.take(done);
        if self.has_unsubmitted() {
            // An error of io_uring_enter here shows again, and is reported, at the next submit.
            let _later = self.submit_backlog();
        }
    }

    fn in_flight(&self) -> usize {
        self.requests.len()
    }

    fn drain(&mut self) {
        self.ended.clear();
        self.pushed.clear();
        self.backlog.clear();
        if self.in_kernel > 0 {
            let _nothing_to_cancel = self
                .enter(0)
                .map(|()| self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any()));
        }
        let mut done = Vec::new();
        while self.in_kernel > 0 {
            if self.enter(1).is_err() {
                // The ring is broken and the kernel may still use the memory: leak it rather than free it.
                std::mem::forget(std::mem::take(&mut self.requests));
                self.in_kernel = 0;
                return;
            }
            self.take(&mut done);
            self.backlog.clear();
        }
        self.requests.clear();
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        self.drain();
        // Closing the ring lets the file go only later, and a block device would be busy until then.
        let _never_registered = self.ring.submitter().unregister_files();
    }
}
