//! The queue where there is no io_uring: a few threads, each with one request at a time.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::sync::{Condvar, Mutex};
use crate::{Completion, Device, Error, EventFd, Operation, Queue, Request, Result};

/// Threads of a queue: what a fast device needs at the queue depths of a JavaScript program.
const THREADS: usize = 8;

/// What crosses to a worker. Pinned memory is not `Send`; its bytes are.
struct Job {
    key: usize,
    operation: Operation,
    offset_bytes: u64,
    bytes: Bytes,
}

/// Bytes of a request, on their way to a worker and back. Pinned memory of a request belongs to nobody else until its
/// completion, so the worker may use it by its address.
struct Bytes {
    start: *mut u8,
    len: usize,
}

#[expect(unsafe_code, reason = "a request owns its memory until its completion is reaped")]
// SAFETY: the queue keeps the memory alive and untouched while a worker has this.
unsafe impl Send for Bytes {}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// A worker finished and nothing else runs.
    idle: Condvar,
    device: Arc<dyn Device>,
    event: Arc<EventFd>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: Vec<(usize, Result<()>)>,
    running: usize,
    stopping: bool,
}

/// A queue over any device.
pub struct ThreadsQueue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    pushed: Vec<usize>,
    requests: slab::Slab<Request>,
}

impl ThreadsQueue {
    /// Starts the usual number of threads. `event` is signalled when completions arrive.
    ///
    /// # Errors
    /// EAGAIN where the host gives no threads.
    pub fn new(device: Arc<dyn Device>, event: Arc<EventFd>) -> Result<Self> {
        Self::with_threads(device, event, THREADS)
    }

    /// The same with `threads` of them, at least one.
    ///
    /// # Errors
    /// EAGAIN where the host gives no threads.
    pub fn with_threads(device: Arc<dyn Device>, event: Arc<EventFd>, threads: usize) -> Result<Self> {
        let (work, idle) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::default(), work, idle, device, event });
        let mut queue = Self {
            shared: shared.clone(),
            threads: Vec::new(),
            pushed: Vec::new(),
            requests: slab::Slab::new(),
        };
        for index in 0..threads.max(1) {
            let shared = shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("uext4-io-{index}"))
                .spawn(move || serve(&shared))
                .map_err(|error| Error::new("thread", error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
            queue.threads.push(thread);
        }
        Ok(queue)
    }
}

fn serve(shared: &Shared) {
    loop {
        let job = {
            let mut state = shared.state.lock();
            loop {
                if let Some(job) = state.jobs.pop_front() {
                    state.running += 1;
                    break job;
                }
                if state.stopping {
                    return;
                }
                shared.work.wait(&mut state);
            }
        };
        // A request whose worker died would never complete.
        let result =
            catch_unwind(AssertUnwindSafe(|| run(shared.device.as_ref(), &job))).unwrap_or_else(|_| {
                Err(Error::at("request", job.offset_bytes, libc::EIO).with_detail("panicked"))
            });
        let first = {
            let mut state = shared.state.lock();
            state.done.push((job.key, result));
            state.running -= 1;
            if state.running == 0 {
                shared.idle.notify_all();
            }
            state.done.len() == 1
        };
        if first {
            shared.event.signal();
        }
    }
}

#[expect(unsafe_code, reason = "a request owns its memory until its completion is reaped")]
fn run(device: &dyn Device, job: &Job) -> Result<()> {
    match job.operation {
        Operation::Flush => device.flush(),
        Operation::Read => {
            // SAFETY: see `Bytes`.
            let bytes = unsafe { std::slice::from_raw_parts_mut(job.bytes.start, job.bytes.len) };
            device.read(job.offset_bytes, bytes)
        }
        Operation::Write { fua } => {
            // SAFETY: see `Bytes`.
            let bytes = unsafe { std::slice::from_raw_parts(job.bytes.start, job.bytes.len) };
            device.write(job.offset_bytes, bytes, fua)
        }
    }
}

impl Queue for ThreadsQueue {
    fn push(&mut self, request: Request) {
        self.pushed.push(self.requests.insert(request));
    }

    fn submit(&mut self) -> Result<()> {
        if self.pushed.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.state.lock();
        for key in self.pushed.drain(..) {
            let request = &mut self.requests[key];
            let bytes = request.memory.bytes_mut();
            let bytes = Bytes { start: bytes.as_mut_ptr(), len: bytes.len() };
            let (operation, offset_bytes) = (request.operation, request.offset_bytes);
            state.jobs.push_back(Job { key, operation, offset_bytes, bytes });
        }
        let jobs = state.jobs.len();
        drop(state);
        for _ in 0..jobs.min(self.threads.len()) {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        let finished = std::mem::take(&mut self.shared.state.lock().done);
        for (key, result) in finished {
            let request = self.requests.remove(key);
            done.push(Completion { id: request.id, result, memory: request.memory });
        }
    }

    fn in_flight(&self) -> usize {
        self.requests.len()
    }

    fn drain(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.jobs.clear();
            while state.running > 0 {
                self.shared.idle.wait(&mut state);
            }
            state.done.clear();
        }
        self.pushed.clear();
        self.requests.clear();
    }
}

impl Drop for ThreadsQueue {
    fn drop(&mut self) {
        self.drain();
        self.shared.state.lock().stopping = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}
