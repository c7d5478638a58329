//! Worker threads, in lanes: what waits for a commit must never stand in front of what completes I/O.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use block_io::sync::{Condvar, Mutex};

/// Work of a lane.
pub(super) type Job = Box<dyn FnOnce() + Send>;

struct State {
    jobs: VecDeque<Job>,
    /// Jobs at the end of the queue that no thread was woken for.
    unannounced: usize,
    stopping: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A queue of jobs and the threads that serve it.
pub(super) struct Lane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    /// Starts `threads` threads. EAGAIN-like errors of the host surface as an I/O error.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { jobs: VecDeque::new(), unannounced: 0, stopping: false }),
            changed: Condvar::new(),
        });
        let mut lane = Self { shared: shared.clone(), threads: Vec::new() };
        for index in 0..threads {
            let shared = shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("uext4-{name}-{index}"))
                .spawn(move || serve(&shared))?;
            lane.threads.push(thread);
        }
        Ok(lane)
    }

    /// Queues a job; jobs start in order, from the next [`Lane::wake`] on. After [`Lane::stop`] it is dropped.
    pub fn push(&self, job: Job) {
        let mut state = self.shared.state.lock();
        if !state.stopping {
            state.jobs.push_back(job);
            state.unannounced += 1;
        }
    }

    /// Hands what was pushed to the threads.
    pub fn wake(&self) {
        let fresh = std::mem::take(&mut self.shared.state.lock().unannounced);
        for _ in 0..fresh.min(self.threads.len()) {
            self.shared.changed.notify_one();
        }
    }

    /// The next job, if no thread has it yet: for a caller who would only wait for it.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.shared.state.lock();
        let job = state.jobs.pop_front()?;
        state.unannounced = state.unannounced.min(state.jobs.len());
        Some(job)
    }

    /// Drops jobs that have not started, and waits for those that have.
    pub fn stop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            state.jobs.clear();
            state.unannounced = 0;
        }
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Jobs catch their panics; a thread that died all the same has nothing left to wait for.
            let _died = thread.join();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(shared: &Shared) {
    loop {
        let job = {
            let mut state = shared.state.lock();
            loop {
                if let Some(job) = state.jobs.pop_front() {
                    state.unannounced = state.unannounced.min(state.jobs.len());
                    break job;
                }
                if state.stopping {
                    return;
                }
                shared.changed.wait(&mut state);
            }
        };
        // Each job reports its own panic; this keeps the thread for the others.
        let _panicked = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn jobs_run_and_a_panic_does_not_stop_the_lane() {
        let mut lane = Lane::start("test", 2).unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let (sender, receiver) = std::sync::mpsc::channel();
        for index in 0..100 {
            let (count, sender) = (count.clone(), sender.clone());
            lane.push(Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
                sender.send(()).unwrap();
                assert!(index % 10 != 3, "a job that panics");
            }));
        }
        lane.wake();
        for _ in 0..100 {
            receiver.recv().unwrap();
        }
        lane.stop();
        assert_eq!(count.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn who_waits_may_do_the_job() {
        let lane = Lane::start("test", 1).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        for index in 0..3 {
            let sender = sender.clone();
            lane.push(Box::new(move || {
                sender.send((index, std::thread::current().id())).unwrap();
            }));
        }
        lane.take().unwrap()();
        let here = std::thread::current().id();
        assert_eq!(receiver.recv().unwrap(), (0, here));
        lane.wake();
        for index in 1..3 {
            let (done, thread) = receiver.recv().unwrap();
            assert!(done == index && thread != here);
        }
        assert!(lane.take().is_none());
    }
}
