//! The queue where there is no io_uring: a few threads, each with one request at a time.

use std::collections::VecDeque;
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
    device: Arc<dyn Device>,
    event: Arc<EventFd>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: Vec<(usize, Result<()>)>,
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
    /// Starts the threads. `event` is signalled when completions arrive.
    ///
    /// # Errors
    /// EAGAIN where the host gives no threads.
    pub fn new(device: Arc<dyn Device>, event: Arc<EventFd>) -> Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), device, event });
        let mut queue = Self {
            shared: shared.clone(),
            threads: Vec::new(),
            pushed: Vec::new(),
            requests: slab::Slab::new(),
        };
        for index in 0..THREADS {
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
                    break job;
                }
                if state.stopping {
                    return;
                }
                shared.work.wait(&mut state);
            }
        };
        let result = run(shared.device.as_ref(), &job);
        let first = {
            let mut state = shared.state.lock();
            state.done.push((job.key, result));
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
        drop(state);
        self.shared.work.notify_all();
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
            state.stopping = true;
        }
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
        self.pushed.clear();
        self.requests.clear();
    }
}

impl Drop for ThreadsQueue {
    fn drop(&mut self) {
        self.drain();
    }
}
