//! The order of what reaches the device, and what handles may do.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use jbd2::format::{Header, JournalSuperblock, block_type, feature};
use jbd2::{Config, Error, Features, Journal, Tid, recovery};

const FEATURES: Features = Features { wide: true, csum_v3: true, fast_commit: false };
const OPTIONS: recovery::RecoverOptions =
    recovery::RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: 1 << 20 };

fn open(device: &Arc<TestDevice>) -> (Arc<Journal>, Arc<TestHost>) {
    open_with(device, FEATURES)
}

/// The trace in words: what each write is, per block.
fn words(trace: &[Event]) -> Vec<String> {
    let mut words = Vec::new();
    for event in trace {
        let Event::Write { offset, bytes, fua } = event else {
            words.push("flush".to_string());
            continue;
        };
        for (index, block) in bytes.chunks(BS).enumerate() {
            let number = offset / BS as u64 + index as u64;
            let name = if number == log_block(0) {
                let jsb = JournalSuperblock::decode(block, BS as u32, LOG_BLOCKS).unwrap();
                format!("jsb {} {}", jsb.s_start, jsb.s_sequence)
            } else if number < HOME_BLOCKS {
                format!("home {number}")
            } else {
                match Header::decode(block).map(|header| header.kind) {
                    Some(block_type::DESCRIPTOR) => "descriptor".into(),
                    Some(block_type::COMMIT) => "commit".into(),
                    Some(block_type::REVOKE) => "revoke".into(),
                    _ => "data".to_string(),
                }
            };
            words.push(if *fua { name + " fua" } else { name });
        }
    }
    words
}

fn one(journal: &Arc<Journal>, device: &TestDevice, block: u64, value: u64) -> Tid {
    let mut handle = journal.start(1).unwrap();
    set(&mut handle, device, block, value).unwrap();
    let tid = handle.tid();
    handle.stop().unwrap();
    tid
}

/// X13, X14.
#[test]
fn t15_commit_t20_checkpoint_t25_close() {
    let device = TestDevice::of(formatted(5, 10));
    let (journal, host) = open(&device);
    assert!(device.take_trace().is_empty());
    let mut handle = journal.start(4).unwrap();
    assert_eq!(handle.tid(), Tid(11));
    set(&mut handle, &device, 3, 1).unwrap();
    set(&mut handle, &device, 9, 2).unwrap();
    set(&mut handle, &device, 3, 4).unwrap();
    assert_eq!(handle.credits(), 2);
    handle.forget(20).unwrap();
    handle.stop().unwrap();
    assert!(device.take_trace().is_empty());
    journal.commit(Tid(11)).unwrap();
    let commit = ["jsb 5 11", "revoke", "descriptor", "data", "data", "flush", "commit fua"];
    assert_eq!(words(&device.take_trace()), commit);
    assert_eq!((*host.committed.lock()).clone(), [Tid(11)]);
    assert_eq!((*host.forgotten.lock()).clone(), [20]);
    journal.commit(Tid(11)).unwrap();
    journal.commit_running().unwrap();
    assert!(device.take_trace().is_empty());

    one(&journal, &device, 9, 5);
    journal.commit_running().unwrap();
    assert_eq!(words(&device.take_trace()), ["descriptor", "data", "flush", "commit fua"]);
    journal.checkpoint_all().unwrap();
    assert_eq!(words(&device.take_trace()), ["home 3", "home 9", "flush", "jsb 13 13 fua"]);
    assert_eq!(device.block(3), sealed(4));
    assert_eq!(device.block(9), sealed(5));
    assert_eq!(host.retired.lock().len(), 2);
    assert!(journal.lookup(3).is_none());

    one(&journal, &device, 1, 7);
    journal.close().unwrap();
    let close = [
        "descriptor",
        "data",
        "flush",
        "commit fua",
        "home 1",
        "flush",
        "jsb 16 14 fua",
        "flush",
        "jsb 0 15 fua",
    ];
    assert_eq!(words(&device.take_trace()), close);
    let (journal, _) = open(&device);
    assert_eq!(journal.last_committed(), Tid(15));
}

#[test]
fn t14_an_empty_transaction_writes_nothing_and_keeps_its_tid() {
    let device = TestDevice::of(formatted(0, 1));
    let (journal, host) = open(&device);
    let tid = journal.start(5).unwrap().tid();
    journal.commit(tid).unwrap();
    assert_eq!(journal.start(5).unwrap().tid(), tid);
    assert!(device.take_trace().is_empty() && host.committed.lock().is_empty());
}

/// X16.
#[test]
fn x16_the_log_keeps_the_frozen_bytes() {
    struct Changing {
        inner: TestHost,
        journal: block_io::sync::Mutex<Option<Arc<Journal>>>,
        device: Arc<TestDevice>,
    }
    impl jbd2::Host for Changing {
        fn seal(&self, block: u64, tag: jbd2::SealTag, image: &mut [u8]) {
            // The transaction is on its way to the log: the next one changes the block.
            if let Some(journal) = self.journal.lock().take() {
                one(&journal, &self.device, block, 222);
            }
            self.inner.seal(block, tag, image);
        }
        fn retire(&self, block: u64, image: jbd2::Image) {
            self.inner.retire(block, image);
        }
        fn forgotten(&self, block: u64) {
            self.inner.forgotten(block);
        }
        fn committed(&self, tid: Tid) {
            self.inner.committed(tid);
        }
        fn aborted(&self, errno: i32) {
            self.inner.aborted(errno);
        }
        fn now(&self) -> (u64, u32) {
            self.inner.now()
        }
    }
    let device = TestDevice::of(formatted(0, 1));
    let host = Arc::new(Changing {
        inner: TestHost::default(),
        journal: block_io::sync::Mutex::new(None),
        device: device.clone(),
    });
    let journal =
        Journal::open(device.clone(), BS, log_map(), FEATURES, Config::default(), host.clone()).unwrap();
    let tid = one(&journal, &device, 8, 111);
    *host.journal.lock() = Some(journal.clone());
    journal.commit(tid).unwrap();
    assert_eq!(journal.running_tid(), Some(tid.next()));
    journal.checkpoint_all().unwrap();
    assert_eq!(device.block(8), sealed(111));
    let mut current = vec![0; BS];
    content(222, &mut current);
    assert_eq!(**journal.lookup(8).unwrap(), current[..]);
    let plan = recovery::plan(&*device, BS, &log_map(), &OPTIONS).unwrap();
    assert_eq!(plan.summary().transactions, 0);
    journal.close().unwrap();
    assert_eq!(device.block(8), sealed(222));
}

/// X12.
#[test]
fn x12_a_transaction_wraps_at_every_position() {
    for head in LOG_BLOCKS - 12..LOG_BLOCKS {
        let device = TestDevice::of(formatted(head, 1));
        let (journal, _) = open(&device);
        let mut handle = journal.start(6).unwrap();
        for block in 0..6 {
            set(&mut handle, &device, block, block * 3).unwrap();
        }
        handle.forget(40).unwrap();
        handle.stop().unwrap();
        journal.commit_running().unwrap();
        let recovered = recovery::recover(&*device, BS, &log_map(), OPTIONS).unwrap();
        assert_eq!((recovered.transactions, recovered.blocks), (1, 6), "head {head}");
        for block in 0..6 {
            assert_eq!(device.block(block), sealed(block * 3));
        }
    }
}

/// X17.
#[test]
fn t10_writing_cancels_the_revoke_r9_later_copies_survive() {
    let device = TestDevice::of(formatted(0, 1));
    let (journal, _) = open(&device);
    one(&journal, &device, 5, 1);
    one(&journal, &device, 6, 1);
    journal.commit_running().unwrap();
    let mut handle = journal.start(2).unwrap();
    handle.forget(5).unwrap();
    handle.forget(6).unwrap();
    set(&mut handle, &device, 5, 2).unwrap();
    handle.stop().unwrap();
    journal.commit_running().unwrap();
    assert_eq!(journal.stats().revokes, 1);
    assert!(journal.lookup(6).is_none());
    let recovered = recovery::recover(&*device, BS, &log_map(), OPTIONS).unwrap();
    assert_eq!((recovered.blocks, recovered.revoked), (1, 1));
    assert_eq!(device.block(5), sealed(2));
    assert_eq!(device.block(6), vec![0; BS]);
}

/// X21.
#[test]
fn x21_credits() {
    let device = TestDevice::of(formatted(0, 1));
    let (journal, host) = open(&device);
    let most = journal.max_transaction_credits();
    assert!(matches!(journal.start(most + 1), Err(Error::TooManyCredits { .. })));
    let mut handle = journal.start(most).unwrap();
    assert!(journal.try_start(10).unwrap().is_none());
    assert!(!handle.extend(10).unwrap());
    set(&mut handle, &device, 1, 1).unwrap();
    handle.restart(1).unwrap();
    set(&mut handle, &device, 1, 2).unwrap();
    assert!(handle.extend(1).unwrap());
    set(&mut handle, &device, 2, 2).unwrap();
    handle.forget(2).unwrap();
    // Block 1 was paid for before the restart, which found room in the same transaction.
    assert_eq!(handle.credits(), 2);
    set(&mut handle, &device, 3, 2).unwrap();
    set(&mut handle, &device, 5, 2).unwrap();
    assert_eq!(set(&mut handle, &device, 4, 2).unwrap_err(), Error::CreditsExceeded { block: 4 });
    assert!(handle.stop().is_err());
    assert_eq!(journal.aborted(), Some(5));
    assert_eq!((*host.aborted.lock()).clone(), [5]);
    assert!(matches!(journal.start(1), Err(Error::Aborted { errno: 5 })));
    let jsb = JournalSuperblock::decode(&device.block(log_block(0)), BS as u32, LOG_BLOCKS).unwrap();
    assert_eq!(jsb.s_errno, -5);
}

/// A workload with commits, checkpoints and log pressure; stops at the first error. Returns acknowledged values.
fn workload(journal: &Arc<Journal>, device: &TestDevice) -> Vec<Option<u64>> {
    let mut acked = vec![None; HOME_BLOCKS as usize];
    for round in 0..40u64 {
        let mut pending = Vec::new();
        for block in 0..HOME_BLOCKS {
            let Ok(mut handle) = journal.start(1) else { return acked };
            if set(&mut handle, device, block, round * 100 + block).is_err() || handle.stop().is_err() {
                return acked;
            }
            pending.push(block);
        }
        if journal.commit_running().is_err() {
            return acked;
        }
        for block in pending {
            acked[block as usize] = Some(round * 100 + block);
        }
    }
    let _ = journal.close();
    acked
}

/// X50.
#[test]
fn x50_any_failure_aborts_once_and_loses_nothing_acknowledged() {
    let operations = {
        let device = TestDevice::of(formatted(900, 1));
        workload(&open(&device).0, &device);
        device.inner.lock().operations
    };
    assert!(operations > 80);
    for n in 1..=operations {
        for (fail_once, fail_half) in [(true, false), (false, false), (true, true), (false, true)] {
            let device = TestDevice::of(formatted(900, 1));
            let (journal, host) = open(&device);
            {
                let mut inner = device.inner.lock();
                (inner.fail_from, inner.fail_once, inner.fail_half) = (Some(n), fail_once, fail_half);
            }
            let acked = workload(&journal, &device);
            assert_eq!(journal.aborted(), Some(5), "operation {n}");
            assert_eq!(host.aborted.lock().len(), 1);
            assert!(
                journal.start(1).is_err() && journal.commit_running().is_err() && journal.close().is_err()
            );
            assert!(journal.checkpoint_all().is_err() && journal.flush_device().is_err());
            device.inner.lock().fail_from = None;
            let recovered = recovery::recover(&*device, BS, &log_map(), OPTIONS).unwrap();
            assert!(!fail_once || recovered.s_errno == -5);
            for (block, value) in acked.iter().enumerate() {
                let Some(value) = value else { continue };
                let found = device.block(block as u64);
                // T31: the failed commit may have reached the log.
                assert!(
                    found == sealed(*value) || found == sealed(*value + 100),
                    "operation {n}, block {block}"
                );
            }
        }
    }
}

#[test]
fn without_a_log_a_commit_writes_home_then_flushes() {
    let device = TestDevice::of(formatted(0, 1));
    let host = Arc::new(TestHost::default());
    let journal = Journal::without_log(device.clone(), BS, Config::default(), host.clone());
    assert!(!journal.has_log());
    let mut handle = journal.start(3).unwrap();
    set(&mut handle, &device, 4, 1).unwrap();
    set(&mut handle, &device, 2, 2).unwrap();
    set(&mut handle, &device, 3, 2).unwrap();
    handle.forget(3).unwrap();
    let tid = handle.tid();
    handle.stop().unwrap();
    journal.commit(tid).unwrap();
    assert_eq!(words(&device.take_trace()), ["home 2", "home 4", "flush"]);
    assert_eq!((*host.committed.lock()).clone(), [tid]);
    assert_eq!((*host.forgotten.lock()).clone(), [3]);
    assert_eq!(device.block(4), sealed(1));
    assert!(journal.lookup(4).is_none());
    assert_eq!(host.retired.lock().len(), 2);
    journal.close().unwrap();
}

#[test]
fn t14_tick_commits_by_age() {
    let device = TestDevice::of(formatted(0, 1));
    let (journal, host) = open(&device);
    assert_eq!(journal.tick(), 5000);
    let tid = one(&journal, &device, 1, 1);
    host.clock_ms.store(3000, Ordering::Relaxed);
    assert_eq!(journal.tick(), 2000);
    assert_ne!(journal.last_committed(), tid);
    host.clock_ms.store(5000, Ordering::Relaxed);
    journal.tick();
    assert_eq!(journal.last_committed(), tid);
}

/// X10.
#[test]
fn j29_fast_commit_ends_the_ring() {
    let device = TestDevice::of(formatted(0, 1));
    let features = Features { fast_commit: true, ..FEATURES };
    let refused = Journal::open(
        device.clone(),
        BS,
        log_map(),
        features,
        Config::default(),
        Arc::new(TestHost::default()),
    );
    // 1024 blocks are not enough for a ring and 256 fast-commit blocks (J7).
    assert!(matches!(refused, Err(Error::Invalid(_))));
}

#[test]
fn threads() {
    let device = TestDevice::of(formatted(1000, u32::MAX - 3));
    let (journal, _) = open(&device);
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let (journal, device) = (journal.clone(), device.clone());
            std::thread::spawn(move || {
                for round in 0..400u64 {
                    let mut handle = journal.start(4).unwrap();
                    for block in 0..4 {
                        set(&mut handle, &device, thread * 8 + block, thread << 32 | round).unwrap();
                    }
                    // All threads change this one.
                    if handle.extend(1).unwrap() {
                        set(&mut handle, &device, 60, round).unwrap();
                    }
                    let tid = handle.tid();
                    handle.stop().unwrap();
                    if round % 7 == thread {
                        journal.commit(tid).unwrap();
                        assert!(journal.last_committed().is_at_or_after(tid));
                    }
                }
            })
        })
        .collect();
    while threads.iter().any(|thread| !thread.is_finished()) {
        journal.commit_running().unwrap();
        journal.tick();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    journal.close().unwrap();
    for thread in 0..4u64 {
        for block in 0..4 {
            assert_eq!(device.block(thread * 8 + block), sealed(thread << 32 | 399));
        }
    }
}

/// T20: while the end of a commit is told, somebody else checkpoints it. What counts as checkpointed after that must not be
/// replayed: its home blocks may be written directly.
#[test]
fn t20_a_checkpoint_while_a_commit_is_told_passes_its_transaction() {
    #[derive(Default)]
    struct Telling {
        inner: TestHost,
        journal: block_io::sync::Mutex<Option<Arc<Journal>>>,
    }
    impl jbd2::Host for Telling {
        fn seal(&self, block: u64, tag: jbd2::SealTag, image: &mut [u8]) {
            self.inner.seal(block, tag, image);
        }
        fn retire(&self, _: u64, _: jbd2::Image) {}
        fn forgotten(&self, _: u64) {}
        fn committed(&self, _: Tid) {
            if let Some(journal) = self.journal.lock().take() {
                std::thread::spawn(move || journal.checkpoint_all().unwrap()).join().unwrap();
            }
        }
        fn aborted(&self, _: i32) {}
        fn now(&self) -> (u64, u32) {
            (0, 0)
        }
    }
    let device = TestDevice::of(formatted(0, 1));
    let host = Arc::new(Telling::default());
    let journal =
        Journal::open(device.clone(), BS, log_map(), FEATURES, Config::default(), host.clone()).unwrap();
    *host.journal.lock() = Some(journal.clone());
    let tid = one(&journal, &device, 3, 1);
    journal.commit(tid).unwrap();
    assert!(journal.is_checkpointed(tid));
    device.inner.lock().bytes[3 * BS..4 * BS].copy_from_slice(&sealed(2));
    recovery::recover(&*device, BS, &log_map(), OPTIONS).unwrap();
    assert_eq!(device.block(3), sealed(2), "a recovery replayed over a direct write");
}

/// X7.
#[test]
fn x7_features_on_disk() {
    let mut bytes = formatted(0, 1);
    let mut jsb =
        JournalSuperblock::decode(&bytes[log_block(0) as usize * BS..][..BS], BS as u32, LOG_BLOCKS).unwrap();
    jsb.s_feature_compat = feature::COMPAT_CHECKSUM;
    jsb.s_feature_incompat = feature::INCOMPAT_ASYNC_COMMIT;
    jsb.encode(&mut bytes[log_block(0) as usize * BS..][..BS]);
    let device = TestDevice::of(bytes);
    let (journal, _) = open(&device);
    let features = || {
        let jsb = JournalSuperblock::decode(&device.block(log_block(0)), BS as u32, LOG_BLOCKS).unwrap();
        (jsb.s_feature_compat, jsb.s_feature_incompat)
    };
    let basic = feature::INCOMPAT_64BIT | feature::INCOMPAT_CSUM_V3;
    assert_eq!(features(), (1, feature::INCOMPAT_ASYNC_COMMIT));
    one(&journal, &device, 1, 1);
    journal.commit_running().unwrap();
    assert_eq!(features(), (0, basic));
    journal.start(1).unwrap().forget(1).unwrap();
    journal.close().unwrap();
    assert_eq!(features(), (0, basic | feature::INCOMPAT_REVOKE));
}
