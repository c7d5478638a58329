//! A log on a device of its own (X9, X13, X14): what reaches which device, and in what order.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other test programs need the rest")]
mod common;

use std::sync::Arc;

use block_io::sync::Mutex;
use block_io::{Device, Limits, Result};
use common::*;
use jbd2::format::{JournalSuperblock, create_superblock};
use jbd2::{Config, Error, Features, Journal, LogMap, recovery};

const VOLUME: [u8; 16] = *b"the volume's own";
const JSB: u64 = 2;
const FEATURES: Features = Features { wide: true, csum_v3: true, fast_commit: false };
const OPTIONS: recovery::RecoverOptions =
    recovery::RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: 1 << 20 };

/// One of two devices, whose events come in one list.
struct Named {
    name: &'static str,
    inner: Arc<TestDevice>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Device for Named {
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8], fua: bool) -> Result<()> {
        let (block, blocks) = (offset / BS as u64, buf.len() / BS);
        let fua_word = if fua { " fua" } else { "" };
        self.events.lock().push(format!("{} {block}+{blocks}{fua_word}", self.name));
        self.inner.write(offset, buf, fua)
    }
    fn flush(&self) -> Result<()> {
        self.events.lock().push(format!("{} flush", self.name));
        self.inner.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.discard(offset, len)
    }
}

struct Pair {
    volume: Arc<Named>,
    log: Arc<Named>,
}

impl Pair {
    fn of(volume: Vec<u8>, log: Vec<u8>) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let named =
            |name, bytes| Arc::new(Named { name, inner: TestDevice::of(bytes), events: events.clone() });
        Self { volume: named("volume", volume), log: named("log", log) }
    }

    fn new(change: impl FnOnce(&mut JournalSuperblock, &mut [u8])) -> Self {
        let mut log = vec![0; (LOG_BLOCKS as usize + 100) * BS];
        let mut superblock = create_superblock(BS as u32, LOG_BLOCKS + 100, [5; 16]).unwrap();
        superblock.s_first = 3;
        let block = &mut log[JSB as usize * BS..][..BS];
        superblock.encode(block);
        block[0x100..0x110].copy_from_slice(&VOLUME);
        let mut superblock = JournalSuperblock::decode(block, BS as u32, LOG_BLOCKS + 100).unwrap();
        change(&mut superblock, block);
        superblock.encode(block);
        Self::of(vec![0; HOME_BLOCKS as usize * BS], log)
    }

    fn map(&self) -> LogMap {
        LogMap::external(self.log.clone(), BS, VOLUME).unwrap()
    }

    fn open(&self) -> jbd2::Result<Arc<Journal>> {
        let host = Arc::new(TestHost::default());
        Journal::open(self.volume.clone(), BS, self.map(), FEATURES, Config::default(), host)
    }

    fn recover(&self) -> jbd2::Result<recovery::Recovered> {
        recovery::recover(&*self.volume, BS, &self.map(), OPTIONS)
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.volume.events.lock())
    }

    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        (self.volume.inner.inner.lock().bytes.clone(), self.log.inner.inner.lock().bytes.clone())
    }
}

fn write(journal: &Arc<Journal>, pair: &Pair, block: u64, value: u64) {
    let mut handle = journal.start(1).unwrap();
    set(&mut handle, &pair.volume.inner, block, value).unwrap();
    handle.stop().unwrap();
}

/// X13.
#[test]
fn t16_both_devices_are_flushed() {
    let pair = Pair::new(|_, _| {});
    let journal = pair.open().unwrap();
    // The log's device has blocks of the same numbers: they are not the log's on the volume.
    write(&journal, &pair, JSB, 1);
    write(&journal, &pair, 9, 2);
    journal.commit_running().unwrap();
    assert_eq!(pair.events(), ["log 2+1", "log 3+3", "volume flush", "log flush", "log 6+1 fua"]);
    let crashed = pair.bytes();
    journal.close().unwrap();
    // The volume's blocks are durable before the log forgets them.
    let close = ["volume 2+1", "volume 9+1", "volume flush", "log 2+1 fua", "volume flush", "log 2+1 fua"];
    assert_eq!(pair.events(), close);
    assert_eq!(pair.volume.inner.block(9), sealed(2));

    let pair = Pair::of(crashed.0, crashed.1);
    assert!(matches!(pair.open(), Err(Error::Corrupt(_))));
    let plan = recovery::plan(&*pair.volume, BS, &pair.map(), &OPTIONS).unwrap();
    assert_eq!(plan.blocks().collect::<Vec<_>>(), [2, 9]);
    let recovered = pair.recover().unwrap();
    assert_eq!((recovered.transactions, recovered.blocks), (1, 2));
    assert_eq!(pair.events(), ["volume 2+1", "volume 9+1", "volume flush", "log 2+1 fua"]);
    assert_eq!(pair.volume.inner.block(JSB), sealed(1));
    assert_eq!(pair.volume.inner.block(9), sealed(2));
    let journal = pair.open().unwrap();
    write(&journal, &pair, 1, 7);
    journal.commit_running().unwrap();
    assert_eq!(pair.recover().unwrap().transactions, 1);
}

/// X9.
#[test]
fn x9_a_journal_that_is_not_ours() {
    assert!(Pair::new(|_, _| {}).open().is_ok());
    for pair in [
        Pair::new(|superblock, _| superblock.s_nr_users = 2),
        Pair::new(|superblock, _| superblock.s_nr_users = 0),
        Pair::new(|superblock, _| superblock.s_first = 2),
    ] {
        assert_eq!(pair.open().err().map(|error| error.errno()), Some(22));
        assert_eq!(pair.recover().err().map(|error| error.errno()), Some(22));
        assert!(pair.events().is_empty());
    }
    let pair = Pair::new(|_, _| {});
    let other = LogMap::external(pair.log.clone(), BS, [1; 16]).unwrap();
    assert_eq!(recovery::recover(&*pair.volume, BS, &other, OPTIONS).unwrap_err().errno(), 22);
    assert!(LogMap::external(TestDevice::of(vec![0; 2 * BS]), BS, VOLUME).is_err());
}

#[test]
fn t30_a_failure_of_either_device_aborts() {
    for (fail_log, errors) in [(true, 12), (false, 4)] {
        for n in 1..=errors {
            let pair = Pair::new(|_, _| {});
            let journal = pair.open().unwrap();
            let failing = if fail_log { &pair.log } else { &pair.volume };
            failing.inner.inner.lock().fail_from = Some(n);
            let mut acknowledged = 0;
            for value in 1..=3 {
                let Ok(mut handle) = journal.start(1) else { break };
                let _ = set(&mut handle, &pair.volume.inner, 4, value);
                drop(handle);
                if journal.commit_running().is_err() {
                    break;
                }
                acknowledged = value;
            }
            let closed = journal.close().is_ok();
            assert_eq!(closed, journal.aborted().is_none());
            failing.inner.inner.lock().fail_from = None;
            let pair = {
                let (volume, log) = pair.bytes();
                Pair::of(volume, log)
            };
            pair.recover().unwrap();
            let found = pair.volume.inner.block(4);
            let legal = [acknowledged, acknowledged + 1];
            let holds = |value| found == if value == 0 { vec![0; BS] } else { sealed(value) };
            assert!(legal.into_iter().any(holds), "{n}, {acknowledged}");
        }
    }
}
