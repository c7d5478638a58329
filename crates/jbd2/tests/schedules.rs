//! X22. The threads of a journal under a model checker: which of them runs at every lock, wait and device request is its
//! choice.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::sync::Arc;

use block_io::sync::model::checking;
use block_io::{AlignedBuf, Device, Limits, Result};
use jbd2::format::create_superblock;
use jbd2::recovery::{self, RecoverOptions};
use jbd2::{Config, Error, Features, Host, Image, Journal, LogExtent, LogMap, SealTag, Tid};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::thread;

const BLOCK: usize = 1024;
const LOG_BLOCKS: u32 = 1024;
const HOME_BLOCKS: u64 = 16;
const SHARED: u64 = 3;
const FEATURES: Features = Features { wide: true, csum_v3: true, fast_commit: false };

/// Blocks that were written; requests are places where another thread may go on.
struct SparseDevice {
    limits: Limits,
    blocks: std::sync::Mutex<HashMap<u64, [u8; BLOCK]>>,
    /// `None`: nobody else has the device.
    request: Option<shuttle::sync::atomic::AtomicUsize>,
}

impl SparseDevice {
    fn new(blocks: HashMap<u64, [u8; BLOCK]>, shared: bool) -> Arc<Self> {
        let limits = Limits {
            size_bytes: (HOME_BLOCKS + u64::from(LOG_BLOCKS)) * BLOCK as u64,
            logical_block_bytes: 512,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only: false,
            direct: true,
        };
        Arc::new(Self {
            limits,
            blocks: std::sync::Mutex::new(blocks),
            request: shared.then(|| shuttle::sync::atomic::AtomicUsize::new(0)),
        })
    }

    fn switch(&self) {
        if let Some(request) = &self.request {
            request.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn snapshot(&self) -> HashMap<u64, [u8; BLOCK]> {
        self.blocks.lock().unwrap().clone()
    }
}

impl Device for SparseDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let blocks = self.blocks.lock().unwrap();
        for (block, part) in (offset / BLOCK as u64..).zip(buf.chunks_mut(BLOCK)) {
            part.copy_from_slice(&blocks.get(&block).unwrap_or(&[0; BLOCK])[..part.len()]);
        }
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.switch();
        let mut blocks = self.blocks.lock().unwrap();
        for (block, part) in (offset / BLOCK as u64..).zip(buf.chunks(BLOCK)) {
            blocks.insert(block, part.try_into().unwrap());
        }
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        self.switch();
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

struct PlainHost;

impl Host for PlainHost {
    fn seal(&self, _: u64, _: SealTag, _: &mut [u8]) {}
    fn retire(&self, _: u64, _: Image) {}
    fn forgotten(&self, _: u64) {}
    fn committed(&self, _: Tid) {}
    fn aborted(&self, errno: i32) {
        panic!("aborted: {errno}");
    }
    fn now(&self) -> (u64, u32) {
        (1, 0)
    }
}

fn log_map() -> LogMap {
    LogMap::new(vec![LogExtent { log_start: 0, len: LOG_BLOCKS, device_block: HOME_BLOCKS }]).unwrap()
}

fn open(device: &Arc<SparseDevice>) -> Arc<Journal> {
    let mut superblock = AlignedBuf::zeroed(BLOCK);
    create_superblock(BLOCK as u32, LOG_BLOCKS, [5; 16]).unwrap().encode(&mut superblock);
    device.write(HOME_BLOCKS * BLOCK as u64, &superblock, true).unwrap();
    let config = Config { write_bytes: 4 * BLOCK, ..Config::default() };
    Journal::open(device.clone(), BLOCK, log_map(), FEATURES, config, Arc::new(PlainHost)).unwrap()
}

fn number(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

/// Adds one to the number of a block.
fn add(handle: &mut jbd2::Handle, device: &SparseDevice, block: u64) -> u64 {
    let mut now = 0;
    let mut load = || {
        let mut image = AlignedBuf::zeroed(BLOCK);
        device.read(block * BLOCK as u64, &mut image).map_err(Error::from)?;
        Ok::<_, Error>(Arc::new(image))
    };
    handle
        .update(block, SealTag(0), &mut load, &mut |bytes| {
            now = number(bytes) + 1;
            bytes[..8].copy_from_slice(&now.to_le_bytes());
        })
        .unwrap();
    now
}

/// What a power cut after this moment leaves at home; every completed write is there (the flushes are other tests').
fn recovered(device: &SparseDevice) -> impl Fn(u64) -> u64 + use<> {
    let copy = SparseDevice::new(device.snapshot(), false);
    let options = RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: 4 * BLOCK };
    recovery::recover(&*copy, BLOCK, &log_map(), options).unwrap();
    let blocks = copy.snapshot();
    move |block| blocks.get(&block).map_or(0, |block| number(block))
}

/// Two writers that share a block and make their changes durable, beside one who commits and checkpoints: what was durable
/// stays so, and in the end everything is home.
fn two_writers_and_a_committer() {
    checking(|| {
        let device = SparseDevice::new(HashMap::new(), true);
        let journal = open(&device);
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (device, journal) = (device.clone(), journal.clone());
                thread::spawn(move || {
                    let mut handle = journal.start(3).unwrap();
                    let shared = add(&mut handle, &device, SHARED);
                    let own = add(&mut handle, &device, 5 + writer);
                    let tid = handle.tid();
                    handle.stop().unwrap();
                    journal.commit(tid).unwrap();
                    let found = recovered(&device);
                    assert!(found(SHARED) >= shared && found(5 + writer) >= own, "writer {writer}");
                })
            })
            .collect();
        let committer = {
            let journal = journal.clone();
            thread::spawn(move || {
                journal.commit_running().unwrap();
                journal.checkpoint_all().unwrap();
            })
        };
        for thread in writers.into_iter().chain([committer]) {
            thread.join().unwrap();
        }
        journal.close().unwrap();
        let home = device.snapshot();
        assert_eq!([SHARED, 5, 6].map(|block| number(&home[&block])), [2, 1, 1]);
        assert!(recovery::is_clean(
            recovery::plan(
                &*device,
                BLOCK,
                &log_map(),
                &RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: BLOCK }
            )
            .unwrap()
            .superblock()
        ));
    });
}

/// A freeze beside a writer that restarts: nothing changes between freeze and thaw, and what began is finished after it.
fn a_writer_and_a_freeze() {
    checking(|| {
        let device = SparseDevice::new(HashMap::new(), true);
        let journal = open(&device);
        let writer = {
            let (device, journal) = (device.clone(), journal.clone());
            thread::spawn(move || {
                let mut handle = match journal.start(2) {
                    Ok(handle) => handle,
                    Err(Error::Frozen) => return 0,
                    Err(error) => panic!("{error}"),
                };
                add(&mut handle, &device, SHARED);
                handle.restart(2).unwrap();
                add(&mut handle, &device, SHARED);
                handle.stop().unwrap();
                2
            })
        };
        journal.freeze().unwrap();
        let frozen = number(device.snapshot().get(&SHARED).unwrap_or(&[0; BLOCK]));
        assert_eq!(recovered(&device)(SHARED), frozen);
        journal.thaw();
        let written = writer.join().unwrap();
        journal.close().unwrap();
        assert_eq!(recovered(&device)(SHARED), written);
    });
}

/// One decision: who could go on, and who did.
struct Choice {
    options: Vec<TaskId>,
    chosen: usize,
}

/// Every schedule in which at most so many threads are interrupted where they could go on, one after the other.
struct Bounded {
    preemptions: usize,
    schedules_left: usize,
    path: Vec<Choice>,
    depth: usize,
    used: usize,
    begun: bool,
    exhausted: Arc<std::sync::atomic::AtomicBool>,
}

impl Bounded {
    fn new(preemptions: usize, most: usize) -> Self {
        let exhausted = Arc::default();
        Self {
            preemptions,
            schedules_left: most,
            path: Vec::new(),
            depth: 0,
            used: 0,
            begun: false,
            exhausted,
        }
    }
}

impl Scheduler for Bounded {
    fn new_execution(&mut self) -> Option<Schedule> {
        if std::mem::replace(&mut self.begun, true) {
            while self.path.last().is_some_and(|choice| choice.chosen + 1 == choice.options.len()) {
                self.path.pop();
            }
            match self.path.last_mut() {
                Some(choice) => choice.chosen += 1,
                None => {
                    self.exhausted.store(true, std::sync::atomic::Ordering::Relaxed);
                    return None;
                }
            }
        }
        self.schedules_left = self.schedules_left.checked_sub(1)?;
        (self.depth, self.used) = (0, 0);
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yielding: bool) -> Option<TaskId> {
        let goes_on = current.filter(|task| !yielding && runnable.iter().any(|other| other.id() == *task));
        if self.depth == self.path.len() {
            let others = runnable.iter().map(|task| task.id()).filter(|task| Some(*task) != goes_on);
            let options = match goes_on {
                Some(task) if self.used == self.preemptions => vec![task],
                Some(task) => std::iter::once(task).chain(others).collect(),
                None => others.collect(),
            };
            self.path.push(Choice { options, chosen: 0 });
        }
        let choice = &self.path[self.depth];
        let task = choice.options[choice.chosen];
        self.used += usize::from(goes_on.is_some_and(|current| current != task));
        self.depth += 1;
        Some(task)
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18;
    config
}

fn explore(preemptions: usize, most: usize, body: fn()) -> (usize, bool) {
    let scheduler = Bounded::new(preemptions, most);
    let exhausted = scheduler.exhausted.clone();
    let schedules = shuttle::Runner::new(scheduler, config()).run(body);
    (schedules, exhausted.load(std::sync::atomic::Ordering::Relaxed))
}

/// X22. All schedules with few preemptions, and a sample of those with three.
#[test]
fn lock_switch_commit_and_checkpoint() {
    for (body, preemptions) in [(two_writers_and_a_committer as fn(), 1), (a_writer_and_a_freeze, 3)] {
        let (schedules, all) = explore(preemptions, 50_000, body);
        assert!(all && schedules > 100, "{schedules} schedules, all: {all}");
        let sample = shuttle::scheduler::PctScheduler::new(4, 10_000);
        shuttle::Runner::new(sample, config()).run(body);
    }
}
