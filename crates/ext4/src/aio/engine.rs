//! The engine: jobs, direct I/O and files of one volume.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use block_io::{AlignedBuf, Completion, Memory, Queue};
use slab::Slab;

use super::completions::Completions;
use super::direct::{Direct, Step};
use super::lanes::Lane;
use super::ticker::Ticker;
use crate::attr::{Stat, SyncScope};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::{Error, Result, errno};

/// An open file of the engine.
pub type FileId = u32;

/// What an operation leaves besides its number.
pub enum Value {
    /// Nothing.
    None,
    /// stat.
    Stat(Stat),
    /// Names, inode numbers and types (F63) of a directory.
    Entries(Vec<(Vec<u8>, u32, u8)>),
    /// A symbolic link's text.
    Text(Vec<u8>),
    /// Bytes that a buffered read found.
    Bytes(AlignedBuf),
    /// What a range of a file lies on.
    Extents(Vec<crate::RangeExtent>),
    /// An inode to be opened with [`Engine::adopt`].
    Inode(Arc<Inode>),
}

/// An operation that is over.
pub struct Finished {
    /// As given at its start.
    pub op: u64,
    /// A number (bytes, a handle), or why it failed.
    pub result: Result<u64>,
    /// The memory of a direct operation, back to its owner.
    pub memory: Option<Memory>,
    /// Anything else.
    pub value: Value,
}

/// What workers report.
pub(super) enum Message {
    Finished {
        op: u64,
        result: Result<(u64, Value)>,
    },
    /// A direct operation's job is done.
    Step {
        slot: usize,
        step: Step,
    },
}

/// What [`Engine::submit_and_wait`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Nothing: the caller waits for the signal.
    No,
    /// Waited for the device, which gave no signal.
    ForDevice,
    /// Did a worker's job, which gave its signal.
    DidJob,
}

/// Worker threads per lane.
const GENERAL_THREADS: usize = 4;
const END_IO_THREADS: usize = 2;

/// Counts of how direct writes went.
#[derive(Debug, Default)]
pub struct Counters {
    /// Mapped from the extent-status cache, without a job.
    pub mapped_in_place: AtomicU64,
    /// Needed a job to map or allocate.
    pub mapped_by_job: AtomicU64,
    /// Ended without a job (B13).
    pub ended_in_place: AtomicU64,
    /// Refused under the shared lock and sent back to the policy.
    pub refused_shared: AtomicU64,
}

/// The asynchronous face of a volume. Not for sharing between threads: its owner submits and collects.
pub struct Engine {
    pub(super) fs: Arc<Fs>,
    pub(super) queue: Box<dyn Queue>,
    pub(super) completions: Arc<Completions<Message>>,
    pub(super) direct: Slab<Direct>,
    pub(super) finished: Vec<Finished>,
    pub(super) counters: Counters,
    files: Slab<Arc<Inode>>,
    general: Lane,
    end_io: Lane,
    sync: SyncLane,
    tickers: Vec<Ticker>,
    reaped: Vec<Completion>,
}

impl Engine {
    /// Starts the threads. `wake` is called from any thread when there is something to collect.
    ///
    /// # Errors
    /// EAGAIN where the host gives no threads.
    pub fn start(fs: Arc<Fs>, queue: Box<dyn Queue>, wake: Box<dyn Fn() + Send + Sync>) -> Result<Self> {
        let no_thread = |error: std::io::Error| {
            Error::refused(error.raw_os_error().unwrap_or(errno::EAGAIN), "no worker thread")
        };
        let completions = Arc::new(Completions::new(wake));
        let mut tickers = Vec::new();
        if !fs.is_read_only() {
            // M4 must not wait for a commit, nor T14 for write-back.
            if fs.has_mmp() {
                tickers.push(Ticker::start(fs.clone(), "uext4-mmp", Fs::claim_step).map_err(no_thread)?);
            }
            tickers.push(Ticker::start(fs.clone(), "uext4-journal", Fs::tick).map_err(no_thread)?);
            let flusher = Ticker::start(fs.clone(), "uext4-flush", Fs::write_back_step).map_err(no_thread)?;
            fs.set_flusher_wake(flusher.wake());
            tickers.push(flusher);
        }
        Ok(Self {
            sync: SyncLane::start(fs.clone(), completions.clone()).map_err(no_thread)?,
            fs,
            queue,
            completions,
            direct: Slab::new(),
            finished: Vec::new(),
            counters: Counters::default(),
            files: Slab::new(),
            general: Lane::start("work", GENERAL_THREADS).map_err(no_thread)?,
            end_io: Lane::start("end-io", END_IO_THREADS).map_err(no_thread)?,
            tickers,
            reaped: Vec::new(),
        })
    }

    /// The volume.
    pub fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }

    /// How direct writes went so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Runs `job` on a worker; its result is collected as [`Finished`].
    pub fn run(&self, op: u64, job: impl FnOnce(&Arc<Fs>) -> Result<(u64, Value)> + Send + 'static) {
        let (fs, completions) = (self.fs.clone(), self.completions.clone());
        self.general.push(Box::new(move || {
            let result = guarded(&fs, || job(&fs)).and_then(|result| result);
            if let Err(error @ Error::Corrupt { .. }) = &result {
                fs.error_found(error, "operation");
            }
            completions.push(Message::Finished { op, result });
        }));
    }

    pub(super) fn run_step(
        &self,
        slot: usize,
        end_io: bool,
        job: impl FnOnce(&Arc<Fs>) -> Step + Send + 'static,
    ) {
        let (fs, completions) = (self.fs.clone(), self.completions.clone());
        let lane = if end_io { &self.end_io } else { &self.general };
        lane.push(Box::new(move || {
            let step = guarded(&fs, || job(&fs)).unwrap_or_else(Step::Failed);
            if let Step::Failed(error @ Error::Corrupt { .. }) = &step {
                fs.error_found(error, "direct I/O");
            }
            completions.push(Message::Step { slot, step });
        }));
    }

    /// fsync or fdatasync of a file; everybody who asks at the same time shares a commit (T13).
    pub fn sync(&self, op: u64, file: FileId, datasync: bool) -> Result<()> {
        let inode = self.file(file)?.clone();
        let scope = if datasync { SyncScope::Data } else { SyncScope::File };
        self.sync.push(SyncRequest { reply: Reply::Operation(op), inode, scope });
        Ok(())
    }

    pub(super) fn sync_step(&self, slot: usize, inode: Arc<Inode>, scope: SyncScope) {
        self.sync.push(SyncRequest { reply: Reply::Direct(slot), inode, scope });
    }

    /// Takes over an inode that is counted as open.
    pub fn adopt(&mut self, inode: Arc<Inode>) -> FileId {
        self.files.insert(inode) as FileId
    }

    /// The inode of an open file. EBADF if there is none.
    pub fn file(&self, file: FileId) -> Result<&Arc<Inode>> {
        self.files.get(file as usize).ok_or(Error::errno_only(errno::EBADF))
    }

    /// Closes a file; the job writes back what is dirty, and deletes an unlinked inode.
    pub fn close_file(&mut self, op: u64, file: FileId) -> Result<()> {
        let inode = self.files.try_remove(file as usize).ok_or(Error::errno_only(errno::EBADF))?;
        self.run(op, move |fs| fs.release(&inode).map(|()| (0, Value::None)));
        Ok(())
    }

    /// Hands queued device requests to the host, and jobs to the workers.
    pub fn submit(&mut self) -> Result<()> {
        self.lanes().into_iter().for_each(Lane::wake);
        Ok(self.queue.submit()?)
    }

    fn lanes(&self) -> [&Lane; 3] {
        [&self.general, &self.end_io, &self.sync.lane]
    }

    /// As [`Engine::submit`]. Where `operations` are under way and all of them wait for the device alone, also waits for it;
    /// where the one that is waits for a job of this volume, does the job. The caller collects next.
    pub fn submit_and_wait(&mut self, operations: usize) -> Result<Waited> {
        let device_alone = operations > 0
            && self.direct.len() == operations
            && self.direct.iter().all(|(_, direct)| direct.waits_for_device());
        if device_alone {
            let waited = self.queue.submit_and_wait()?;
            return Ok(if waited { Waited::ForDevice } else { Waited::No });
        }
        // Nobody else's: a job may take its time, and whoever waits here wants one only.
        let job = match operations {
            1 => self.lanes().into_iter().find_map(Lane::take),
            _ => None,
        };
        self.submit()?;
        Ok(job.map_or(Waited::No, |job| {
            job();
            Waited::DidJob
        }))
    }

    /// Operations under way: not yet collected.
    pub fn in_flight(&self) -> usize {
        self.direct.len() + self.queue.in_flight()
    }

    /// Moves along whatever device and workers have finished, and collects what is over. That may queue requests: submit
    /// afterwards, also where nothing was over.
    pub fn collect(&mut self, into: &mut Vec<Finished>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.queue.reap(&mut reaped);
        for completion in reaped.drain(..) {
            self.device_done(completion);
        }
        self.reaped = reaped;
        for message in self.completions.take() {
            match message {
                Message::Finished { op, result } => {
                    let (result, value) = match result {
                        Ok((number, value)) => (Ok(number), value),
                        Err(error) => (Err(error), Value::None),
                    };
                    self.finished.push(Finished { op, result, memory: None, value });
                }
                Message::Step { slot, step } => self.step(slot, step),
            }
        }
        into.append(&mut self.finished);
    }

    /// Unmounts. Every operation must be over and every file closed; the engine is of no use afterwards.
    pub fn unmount(&mut self) -> Result<()> {
        self.stop();
        self.fs.unmount()
    }

    /// Stops all threads and drops everything in flight, without a commit: to the volume it is a crash.
    pub fn stop(&mut self) {
        self.queue.drain();
        self.general.stop();
        self.end_io.stop();
        self.sync.stop();
        self.tickers.clear();
        self.direct.clear();
        self.files.clear();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.fs.shut_down();
        self.stop();
    }
}

/// Runs a job. After a panic its volume may be half changed in memory: it is shut down, and only closing it works.
fn guarded<R>(fs: &Fs, job: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|_payload| {
        fs.shut_down();
        Error::refused(errno::EIO, "an operation panicked; the volume is shut down")
    })
}

enum Reply {
    Operation(u64),
    Direct(usize),
}

struct SyncRequest {
    reply: Reply,
    inode: Arc<Inode>,
    scope: SyncScope,
}

/// One thread that answers all sync requests that wait for it with one commit.
struct SyncLane {
    requests: Arc<block_io::sync::Mutex<Vec<SyncRequest>>>,
    fs: Arc<Fs>,
    completions: Arc<Completions<Message>>,
    lane: Lane,
}

impl SyncLane {
    fn start(fs: Arc<Fs>, completions: Arc<Completions<Message>>) -> std::io::Result<Self> {
        Ok(Self { requests: Arc::default(), fs, completions, lane: Lane::start("sync", 1)? })
    }

    fn push(&self, request: SyncRequest) {
        let waiting = {
            let mut requests = self.requests.lock();
            requests.push(request);
            requests.len()
        };
        if waiting > 1 {
            return; // The job that the first of them queued takes this one along.
        }
        let (requests, fs, completions) = (self.requests.clone(), self.fs.clone(), self.completions.clone());
        self.lane.push(Box::new(move || {
            let batch = std::mem::take(&mut *requests.lock());
            let wanted: Vec<_> = batch.iter().map(|request| (request.inode.clone(), request.scope)).collect();
            let results =
                guarded(&fs, || fs.fsync_all(&wanted)).unwrap_or_else(|error| vec![Err(error); wanted.len()]);
            for (request, result) in batch.into_iter().zip(results) {
                completions.push(match request.reply {
                    Reply::Operation(op) => {
                        Message::Finished { op, result: result.map(|()| (0, Value::None)) }
                    }
                    Reply::Direct(slot) => Message::Step { slot, step: Step::Synced(result) },
                });
            }
        }));
    }

    fn stop(&mut self) {
        self.lane.stop();
    }
}
