//! What the threads do, and what must hold in every schedule.

use jbd2::{Error, SealTag};

use super::device::{add, log_is_empty, open, recovered};
use super::{is_left, join, spawn};

const SHARED: u64 = 3;
const OWN: [u64; 2] = [5, 6];

/// Two writers that share a block and make their changes durable, beside one who commits and checkpoints: what was durable
/// stays so, changes of one handle are there together, and in the end everything is home.
pub fn two_writers_and_a_committer() {
    let (device, journal) = open();
    let writers = OWN.map(|own| {
        let (device, journal) = (device.clone(), journal.clone());
        spawn(move || {
            let mut handle = journal.start(3).unwrap();
            let shared = add(&mut handle, &device, SHARED);
            handle.create(own, SealTag(0), &mut |bytes| bytes[0] = 1).unwrap();
            let tid = handle.tid();
            handle.stop().unwrap();
            journal.commit(tid).unwrap();
            if is_left() {
                return;
            }
            let found = recovered(&device);
            assert!(found(SHARED) >= shared && found(own) == 1, "the writer of {own}");
            assert_eq!(found(SHARED), OWN.map(&found).iter().sum(), "half a handle");
        })
    });
    let committer = {
        let journal = journal.clone();
        spawn(move || {
            journal.commit_running().unwrap();
            journal.checkpoint_all().unwrap();
        })
    };
    for thread in writers.into_iter().chain([committer]) {
        join(thread);
    }
    if is_left() {
        return;
    }
    journal.close().unwrap();
    assert_eq!([SHARED, OWN[0], OWN[1]].map(|block| device.number(block)), [2, 1, 1]);
    assert!(log_is_empty(&device));
}

/// A freeze beside a writer that restarts: nothing changes between freeze and thaw, and what began is finished after it.
pub fn a_writer_and_a_freeze() {
    let (device, journal) = open();
    let writer = {
        let (device, journal) = (device.clone(), journal.clone());
        spawn(move || {
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
    let frozen = device.number(SHARED);
    if !is_left() {
        assert_eq!(recovered(&device)(SHARED), frozen);
    }
    journal.thaw();
    let written = join(writer);
    if is_left() {
        return;
    }
    journal.close().unwrap();
    assert_eq!(recovered(&device)(SHARED), written);
}

/// A writer frees one block of metadata, and one that it takes for metadata again, beside one who commits and checkpoints.
/// What left the journal is then written directly, as data: no recovery and no checkpoint may write over it.
pub fn blocks_freed_and_used_again() {
    const FREED: u64 = 7;
    const REUSED: u64 = 8;
    const SETTLED: u64 = 9;
    const DATA: u64 = 1000;
    let (device, journal) = open();
    let mut handle = journal.start(2).unwrap();
    add(&mut handle, &device, FREED);
    add(&mut handle, &device, REUSED);
    handle.stop().unwrap();
    journal.commit_running().unwrap();
    let writer = {
        let (device, journal) = (device.clone(), journal.clone());
        spawn(move || {
            let mut handle = journal.start(1).unwrap();
            handle.forget(FREED).unwrap();
            handle.forget(REUSED).unwrap();
            handle.restart(2).unwrap();
            handle.create(REUSED, SealTag(0), &mut |bytes| bytes[0] = 2).unwrap();
            add(&mut handle, &device, SETTLED);
            let tid = handle.tid();
            handle.stop().unwrap();
            journal.commit(tid).unwrap();
            device.set_number(FREED, DATA);
            if !is_left() {
                assert_eq!([FREED, REUSED, SETTLED].map(recovered(&device)), [DATA, 2, 1]);
            }
            if !journal.is_checkpointed(tid) {
                journal.checkpoint_all().unwrap();
            }
            device.set_number(SETTLED, DATA);
            if !is_left() {
                assert_eq!([FREED, REUSED, SETTLED].map(recovered(&device)), [DATA, 2, DATA]);
            }
        })
    };
    let committer = {
        let journal = journal.clone();
        spawn(move || {
            journal.commit_running().unwrap();
            journal.checkpoint_all().unwrap();
        })
    };
    for thread in [writer, committer] {
        join(thread);
    }
    if is_left() {
        return;
    }
    journal.close().unwrap();
    assert_eq!([FREED, REUSED, SETTLED].map(|block| device.number(block)), [DATA, 2, DATA]);
}
