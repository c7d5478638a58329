//! Many handles and little log (CM13, X20): no deadlock, no abort, and every acknowledged value survives.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other test programs need the rest")]
mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use block_io::{Device, Limits, Result};
use common::*;
use jbd2::{Config, Error, Features, Journal, LogExtent, LogMap, recovery};

const FEATURES: Features = Features { wide: true, csum_v3: true, fast_commit: false };
/// Home blocks behind the log: as many as a transaction can have.
const HOME: u64 = 512;

fn small_log() -> (Arc<TestDevice>, LogMap) {
    let mut bytes = formatted(700, u32::MAX - 20);
    bytes.resize(bytes.len() + HOME as usize * BS, 0);
    let map = LogMap::new(vec![
        LogExtent { log_start: 0, len: 600, device_block: HOME_BLOCKS + 424 },
        LogExtent { log_start: 600, len: 424, device_block: HOME_BLOCKS },
    ]);
    (TestDevice::of(bytes), map.unwrap())
}

fn home(n: u64) -> u64 {
    if n < HOME_BLOCKS { n } else { n + u64::from(LOG_BLOCKS) }
}

fn open() -> (Arc<TestDevice>, Arc<Journal>) {
    let (device, map) = small_log();
    let host = Arc::new(TestHost::default());
    let journal = Journal::open(device.clone(), BS, map, FEATURES, Config::default(), host).unwrap();
    (device, journal)
}

/// The threads' results; fails instead of hanging for ever.
fn join_all(threads: Vec<JoinHandle<()>>) {
    for _ in 0..60_000 {
        if threads.iter().all(JoinHandle::is_finished) {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("a thread hangs");
}

fn recover(device: &TestDevice) -> recovery::Recovered {
    let (_, map) = small_log();
    let volume_blocks = HOME + HOME_BLOCKS + u64::from(LOG_BLOCKS);
    let options = recovery::RecoverOptions { volume_blocks, write_bytes: 1 << 16 };
    recovery::recover(device, BS, &map, options).unwrap()
}

/// X21, X50.
#[test]
fn cm13_handles_of_exactly_the_maximum() {
    let (device, journal) = open();
    let most = journal.max_transaction_credits();
    assert!(u64::from(most) < HOME);
    for round in 0..30 {
        assert!(matches!(journal.start(most + 1), Err(Error::TooManyCredits { .. })));
        let mut handle = journal.start(most).unwrap();
        for block in 0..u64::from(most) {
            set(&mut handle, &device, home(block), round * 1000 + block).unwrap();
        }
        assert_eq!(handle.credits(), 0);
        // Their revokes fit as well.
        for block in 0..u64::from(journal.max_transaction_credits()) / 2 {
            handle.forget(home(block)).unwrap();
            set(&mut handle, &device, home(block), round * 1000 + block).unwrap();
        }
        handle.stop().unwrap();
    }
    journal.commit_running().unwrap();
    assert_eq!(journal.aborted(), None);
    recover(&device);
    for block in 0..u64::from(most) {
        assert_eq!(device.block(home(block)), sealed(29_000 + block));
    }
}

/// X21, X50.
#[test]
fn cm13_64_writers_and_restart_storms() {
    let (device, journal) = open();
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..64).map(|_| AtomicU64::new(0)).collect());
    let writers = (0..64u64)
        .map(|writer| {
            let (device, journal, acknowledged) = (device.clone(), journal.clone(), acknowledged.clone());
            thread::spawn(move || {
                for round in 1..=40u64 {
                    // Asks for much, as a deep truncate does, goes on in pieces, and is often told to restart.
                    let mut handle = journal.start(60).unwrap();
                    for piece in 0..4 {
                        set(&mut handle, &device, home(writer * 4 + piece), round).unwrap();
                        if !handle.extend(60).unwrap() || (writer + piece) % 3 == 0 {
                            handle.restart(60).unwrap();
                        }
                        set(&mut handle, &device, home(256 + (writer + piece) % 64), round).unwrap();
                    }
                    let tid = handle.tid();
                    handle.stop().unwrap();
                    if (round + writer) % 5 == 0 {
                        journal.commit(tid).unwrap();
                        acknowledged[writer as usize].store(round, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    join_all(writers);
    assert_eq!(journal.aborted(), None);
    let stats = journal.stats();
    assert!(stats.checkpoints > 0, "{stats:?}");
    recover(&device);
    for writer in 0..64u64 {
        let acknowledged = acknowledged[writer as usize].load(Ordering::Relaxed);
        assert!(acknowledged >= 36);
        for piece in 0..4 {
            let found = device.block(home(writer * 4 + piece));
            assert!((acknowledged..=40).any(|round| found == sealed(round)), "writer {writer}");
        }
    }
}

/// A device whose flushes take their time.
struct Slow(Arc<TestDevice>);

impl Device for Slow {
    fn limits(&self) -> &Limits {
        self.0.limits()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.0.write(offset, buf, fua)
    }
    fn flush(&self) -> Result<()> {
        thread::sleep(Duration::from_millis(20));
        self.0.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.0.discard(offset, len)
    }
}

/// X20.
#[test]
fn x20_64_fsyncs_share_few_commits() {
    let (device, map) = small_log();
    let host = Arc::new(TestHost::default());
    let journal =
        Journal::open(Arc::new(Slow(device.clone())), BS, map, FEATURES, Config::default(), host).unwrap();
    let barrier = Arc::new(Barrier::new(64));
    let threads = (0..64u64)
        .map(|n| {
            let (device, journal, barrier) = (device.clone(), journal.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                for round in 0..4 {
                    let mut handle = journal.start(1).unwrap();
                    set(&mut handle, &device, home(n), round * 100 + n).unwrap();
                    let tid = handle.tid();
                    handle.stop().unwrap();
                    journal.commit(tid).unwrap();
                    assert!(journal.last_committed().is_at_or_after(tid));
                }
            })
        })
        .collect();
    join_all(threads);
    let commits = journal.stats().commits;
    assert!((4..=40).contains(&commits), "{commits} commits for 256 fsyncs");
}

/// X21. T3: records that a handle may still make count as log blocks before it starts.
#[test]
fn t3_revokes_are_reserved() {
    let (_device, journal) = open();
    let per_block = ((BS - 16 - 4) / 8) as u32;
    let most = (LOG_BLOCKS - 1) / 4;
    assert!(matches!(journal.start_revoking(1, most * per_block), Err(Error::TooManyCredits { .. })));
    let first = journal.start_revoking(100, 80 * per_block).unwrap();
    assert!(journal.try_start(most - 100 - 80 - 10).unwrap().is_some(), "beside it");
    assert!(journal.try_start(most - 100 - 40).unwrap().is_none(), "its records have the room");
    first.stop().unwrap();
    assert!(journal.try_start(most - 100 - 40).unwrap().is_some(), "it made none");
    // As many as there is room for, in one transaction after the other: the log never overflows.
    for round in 0..6u64 {
        let mut handle = journal.start_revoking(2, 200 * per_block).unwrap();
        for n in 0..200 * u64::from(per_block) {
            handle.forget(1_000_000 * (round + 1) + n).unwrap();
        }
        handle.stop().unwrap();
    }
    journal.close().unwrap();
    assert_eq!(journal.stats().revokes, 6 * 200 * u64::from(per_block));
    assert!(journal.stats().commits >= 6);
}

/// R25: what fast commits lead to is one full commit where it fits the log, and goes home directly where it does not; cut
/// anywhere, a commit is there wholly or not at all.
#[test]
fn r25_fast_commits_of_any_size() {
    use jbd2::format::JournalSuperblock;
    const MORE: u64 = 1500;
    let (device, map) = small_log();
    let mut bytes = device.inner.lock().bytes.clone();
    bytes.resize(bytes.len() + MORE as usize * BS, 0);
    let jsb = map.run(0).unwrap().0 as usize * BS;
    let mut superblock = JournalSuperblock::decode(&bytes[jsb..], BS as u32, LOG_BLOCKS).unwrap();
    (superblock.s_start, superblock.s_sequence) = (1000, 77);
    superblock.encode(&mut bytes[jsb..]);
    let first = HOME + HOME_BLOCKS + u64::from(LOG_BLOCKS);
    let options = recovery::RecoverOptions { volume_blocks: first + MORE, write_bytes: 1 << 16 };
    for (count, fits) in [(3, true), (900, true), (MORE, false)] {
        let image = |n: u64| {
            let mut image = block_io::AlignedBuf::zeroed(BS);
            image[..8].copy_from_slice(&(n + 1).to_le_bytes());
            Arc::new(image)
        };
        let blocks: Vec<_> = (0..count).map(|n| (first + n, image(n))).collect();
        let device = TestDevice::of(bytes.clone());
        let shared: Arc<dyn Device> = device.clone();
        recovery::commit_fast(&shared, BS, map.clone(), &blocks, (1, 0)).unwrap();
        assert!((0..count).all(|n| device.block(first + n) == image(n).to_vec()));
        let after =
            JournalSuperblock::decode(&device.inner.lock().bytes[jsb..], BS as u32, LOG_BLOCKS).unwrap();
        assert!(after.s_start == 0 && after.s_sequence > 77, "empty, and the tid is void");
        let mut cut = bytes.clone();
        for event in device.take_trace().into_iter().filter(|_| fits && count < 10) {
            let Event::Write { offset, bytes: written, .. } = event else { continue };
            cut[offset as usize..][..written.len()].copy_from_slice(&written);
            let again = TestDevice::of(cut.clone());
            recovery::recover(&*again, BS, &map, options).unwrap();
            let there = (0..count).filter(|n| again.block(first + n) == image(*n).to_vec()).count() as u64;
            assert!(there == 0 || there == count, "{there} of {count}");
        }
    }
}
