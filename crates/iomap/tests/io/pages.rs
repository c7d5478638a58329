//! The page cache against a model of the file's bytes, alone and mixed with direct I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{BLOCK, FILE_BLOCKS, FakeFile, GARBAGE, TestDevice, pattern, write_model, write_request};
use block_io::sync::RwLock;
use iomap::{Busy, CacheBudget, PageCache, WritePlan, write_blocking};
use proptest::prelude::*;

struct Rig {
    device: Arc<TestDevice>,
    file: FakeFile,
    budget: Arc<CacheBudget>,
    cache: Arc<PageCache<FakeFile>>,
}

impl Rig {
    fn new(gap: u64, budget_blocks: u64) -> Self {
        let (device, file) = (TestDevice::new(), FakeFile::new(gap));
        let budget = Arc::new(CacheBudget::new(budget_blocks * BLOCK, 100));
        let cache = PageCache::new(file.clone(), device.clone(), budget.clone(), BLOCK as usize);
        Self { device, file, budget, cache: Arc::new(cache) }
    }

    /// As a file system does it: i_size rises after the write.
    fn write(&self, pos: u64, data: &[u8]) {
        if pos > self.file.size() {
            self.zero_end();
        }
        self.cache.write(pos, data).unwrap();
        self.file.raise_size(pos + data.len() as u64);
    }

    fn read(&self, pos: u64, len: usize) -> Vec<u8> {
        let mut out = vec![GARBAGE; len.min(self.file.size().saturating_sub(pos) as usize)];
        self.cache.read(pos, &mut out).unwrap();
        out
    }

    fn delayed_blocks(&self) -> u64 {
        let (mut at, mut blocks) = (0, 0);
        while let Some(run) = self.cache.next_delayed(at, u64::MAX) {
            blocks += (run.end - run.start) / BLOCK;
            at = run.end;
        }
        blocks
    }

    fn whole(&self) -> Vec<u8> {
        self.read(0, usize::MAX)
    }

    /// The device's side of C22.
    fn zero_end(&self) {
        let size = self.file.size();
        self.cache.write_back(size - size % BLOCK, BLOCK).unwrap();
        let disk_size = self.file.0.lock().disk_size;
        self.file.set_size(&self.device, size);
        self.file.0.lock().disk_size = disk_size;
    }

    fn set_size(&self, size: u64) {
        if size < self.file.size() {
            self.cache.truncate(size);
        } else {
            self.zero_end();
        }
        self.file.set_size(&self.device, size);
    }

    /// B4 and B11. False: the range is in use, so that the write has to be buffered.
    fn direct_write(&self, pos: u64, data: &[u8]) -> bool {
        if pos > self.file.size() {
            self.zero_end();
        }
        self.cache.write_back(pos, data.len() as u64).unwrap();
        if self.cache.invalidate(pos, data.len() as u64).is_err() {
            return false;
        }
        let mappings = self.file.map_for_write(pos, data.len() as u64);
        let request = write_request(pos, data, self.file.size());
        let outcome = write_blocking(&*self.device, &request, &WritePlan::new(&request, &mappings).unwrap());
        outcome.result.unwrap();
        self.file.convert(outcome.convert.unwrap_or(0..0));
        self.file.raise_size(pos + data.len() as u64);
        let mut state = self.file.0.lock();
        state.disk_size = state.disk_size.max(pos + data.len() as u64);
        drop(state);
        self.cache.invalidate(pos, data.len() as u64).is_ok()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, usize, u64),
    TryWrite(u64, usize, u64),
    DirectWrite(u64, u64, u64),
    Read(u64, usize),
    TryRead(u64, usize),
    WriteBack(u64, u64),
    Invalidate(u64, u64),
    SetSize(u64),
    Preallocate(u64, u64),
    GiveBack,
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    const SIZE: u64 = (FILE_BLOCKS - 6) * BLOCK;
    const LEN: u64 = 6 * BLOCK;
    prop_oneof![
        6 => (0..SIZE, 1..LEN as usize, any::<u64>()).prop_map(|(pos, len, seed)| Op::Write(pos, len, seed)),
        4 => (0..SIZE, 1..LEN as usize, any::<u64>()).prop_map(|(pos, len, seed)| Op::TryWrite(pos, len, seed)),
        3 => (0..SIZE / 512, 1..LEN / 512, any::<u64>()).prop_map(|(at, n, seed)| Op::DirectWrite(at * 512, n * 512, seed)),
        4 => (0..SIZE, 1..LEN as usize).prop_map(|(pos, len)| Op::Read(pos, len)),
        3 => (0..SIZE, 1..LEN as usize).prop_map(|(pos, len)| Op::TryRead(pos, len)),
        2 => (0..SIZE, 1..LEN).prop_map(|(pos, len)| Op::WriteBack(pos, len)),
        2 => (0..SIZE, 1..LEN).prop_map(|(pos, len)| Op::Invalidate(pos, len)),
        2 => (0..SIZE).prop_map(Op::SetSize),
        1 => (0..FILE_BLOCKS - 6, 1..6u64).prop_map(|(block, blocks)| Op::Preallocate(block, blocks)),
        1 => Just(Op::GiveBack),
        1 => Just(Op::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_cache_is_the_file(
        gap in 2..12u64,
        budget in prop_oneof![Just(2u64), Just(9), Just(1000)],
        sync_at_end in any::<bool>(),
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let rig = Rig::new(gap, budget);
        let mut model = Vec::new();
        for op in ops {
            match op {
                Op::Write(pos, len, seed) => {
                    let data = pattern(seed, len);
                    rig.write(pos, &data);
                    write_model(&mut model, pos, &data);
                }
                Op::TryWrite(pos, len, seed) => {
                    let data = pattern(seed, len);
                    let reads = rig.device.reads.load(Ordering::Relaxed);
                    // Its caller sends what leaves a gap the long way.
                    if pos <= rig.file.size() && rig.cache.try_write(pos, &data) {
                        rig.file.raise_size(pos + len as u64);
                        write_model(&mut model, pos, &data);
                    }
                    prop_assert_eq!(rig.device.reads.load(Ordering::Relaxed), reads);
                }
                Op::TryRead(pos, len) => {
                    let end = model.len().min(pos as usize + len);
                    let expected = model.get(pos as usize..end).unwrap_or_default();
                    let mut out = vec![GARBAGE; expected.len()];
                    let reads = rig.device.reads.load(Ordering::Relaxed);
                    if rig.cache.try_read(pos, &mut out) {
                        prop_assert_eq!(out, expected);
                    }
                    prop_assert_eq!(rig.device.reads.load(Ordering::Relaxed), reads);
                }
                Op::DirectWrite(pos, len, seed) => {
                    let data = pattern(seed, len as usize);
                    prop_assert!(rig.direct_write(pos, &data), "nobody else is at work");
                    write_model(&mut model, pos, &data);
                }
                Op::Read(pos, len) => {
                    let end = model.len().min(pos as usize + len);
                    prop_assert_eq!(rig.read(pos, len), model.get(pos as usize..end).unwrap_or_default());
                }
                Op::WriteBack(pos, len) => rig.cache.write_back(pos, len).unwrap(),
                Op::Invalidate(pos, len) => {
                    let before = rig.cache.dirty_bytes();
                    let _busy = rig.cache.invalidate(pos, len);
                    prop_assert_eq!(rig.cache.dirty_bytes(), before);
                }
                Op::SetSize(size) => {
                    rig.set_size(size);
                    model.resize(size as usize, 0);
                }
                Op::Preallocate(block, blocks) => rig.file.preallocate(block..block + blocks),
                Op::GiveBack => {
                    rig.cache.give_back();
                    prop_assert!(!rig.budget.is_exceeded());
                }
                Op::Sync => {
                    rig.cache.sync().unwrap();
                    prop_assert_eq!(rig.cache.dirty_bytes(), 0);
                    prop_assert!(rig.file.on_disk(&rig.device) == model, "what sync reported is on the device");
                }
            }
        }
        prop_assert!(rig.whole() == model);
        let delayed = rig.delayed_blocks();
        prop_assert_eq!(rig.file.0.lock().reserved, delayed, "what is reserved is what has no block yet");
        prop_assert_eq!(rig.budget.dirty_bytes(), rig.cache.dirty_bytes());
        if sync_at_end {
            rig.cache.sync().unwrap();
            prop_assert_eq!(rig.file.0.lock().reserved, 0);
            prop_assert!(rig.file.on_disk(&rig.device) == model);
        }
        drop(rig.cache);
        prop_assert_eq!((rig.budget.used_bytes(), rig.budget.dirty_bytes()), (0, 0));
        prop_assert_eq!(rig.file.0.lock().reserved, 0);
    }
}

/// Memory runs short in the middle of an append, before i_size has risen: the size on disk has to follow all the same.
#[test]
fn an_append_under_memory_pressure_reaches_the_disk() {
    let rig = Rig::new(100, 2);
    let data = pattern(1, 20 * BLOCK as usize + 700);
    rig.cache.write(0, &data).unwrap();
    rig.cache.give_back();
    rig.cache.write_back(0, u64::MAX).unwrap();
    assert_eq!(rig.device.writes.lock().len(), 0, "nothing of it is in the file yet (D9)");
    rig.file.raise_size(data.len() as u64);
    rig.cache.give_back();
    assert!(!rig.budget.is_exceeded());
    rig.cache.sync().unwrap();
    assert!(rig.file.on_disk(&rig.device) == data);
}

/// An fsync beside an append to the last block: what was written earlier is durable, and the append not forgotten.
#[test]
fn a_sync_during_an_append_keeps_both() {
    let rig = Rig::new(100, 100);
    let data = pattern(1, 900);
    rig.write(0, &data[..500]);
    rig.cache.write(500, &data[500..]).unwrap();
    rig.cache.sync().unwrap();
    assert!(rig.file.on_disk(&rig.device) == data[..500]);
    rig.file.raise_size(900);
    assert_eq!(rig.cache.dirty_bytes(), BLOCK);
    rig.cache.sync().unwrap();
    assert!(rig.file.on_disk(&rig.device) == data);
    assert_eq!(rig.cache.dirty_bytes(), 0);
}

/// E27: another driver left bytes behind the end of the file. However it grows, they read as zeros.
#[test]
fn garbage_behind_the_end_of_the_file_stays_hidden() {
    for read_first in [false, true] {
        for append_at in [100, 101, 1500, BLOCK - 1, BLOCK, 3 * BLOCK] {
            let rig = Rig::new(100, 100);
            rig.file.preallocate(0..1);
            rig.file.convert(0..BLOCK);
            rig.file.set_size(&rig.device, 100);
            let home = rig.file.map(0, BLOCK)[0].address;
            let iomap::Address::Mapped { device_offset_bytes } = home else { panic!("{home:?}") };
            rig.device.poke(device_offset_bytes, &[7; 100]);
            rig.device.poke(device_offset_bytes + 100, &[GARBAGE; 1900]);
            if read_first {
                assert_eq!(rig.whole(), [7; 100]);
            }
            // Without the file system's own zeroing.
            rig.cache.write(append_at, &[9; 10]).unwrap();
            rig.file.raise_size(append_at + 10);
            let mut model = vec![7; 100];
            write_model(&mut model, append_at, &[9; 10]);
            if append_at < BLOCK || read_first {
                assert!(rig.whole() == model, "{append_at} {read_first}");
            }
            rig.cache.sync().unwrap();
            if append_at < BLOCK {
                assert!(rig.file.on_disk(&rig.device) == model, "{append_at} {read_first}");
            }
        }
    }
}

#[test]
fn write_back_joins_what_lies_together() {
    for (gap, writes) in [(100, 1), (4, 3)] {
        let rig = Rig::new(gap, 100);
        for block in (0..8).rev() {
            rig.file.preallocate(0..8);
            rig.write(block * BLOCK, &pattern(block, BLOCK as usize));
        }
        rig.cache.sync().unwrap();
        assert_eq!(rig.device.writes.lock().len(), writes, "gap every {gap} blocks");
        let total: usize = rig.device.writes.lock().iter().map(|(_, len)| len).sum();
        assert_eq!(total, 8 * BLOCK as usize);
    }
}

#[test]
fn a_failed_write_back_is_reported_by_one_sync_and_loses_nothing() {
    let rig = Rig::new(2, 100);
    let data = pattern(1, 6 * BLOCK as usize);
    rig.write(0, &data);
    *rig.device.fail_write.lock() = Some(2);
    assert_eq!(rig.cache.write_back(0, u64::MAX).unwrap_err().errno, 5);
    assert_eq!(rig.whole(), data, "reads are not concerned");
    assert!(!rig.file.on_disk(&rig.device).contains(&GARBAGE), "no conversion without data");
    *rig.device.fail_write.lock() = None;
    assert_eq!(rig.cache.sync().unwrap_err().errno, 5, "once");
    rig.cache.sync().unwrap();
    assert!(rig.file.on_disk(&rig.device) == data);
}

#[test]
fn a_failing_device_bounds_the_memory() {
    let rig = Rig::new(100, 4);
    *rig.device.fail_write.lock() = Some(0);
    let refused =
        (0..FILE_BLOCKS).find(|&block| match rig.cache.write(block * BLOCK, &[1; BLOCK as usize]) {
            Ok(()) => {
                rig.file.raise_size((block + 1) * BLOCK);
                false
            }
            Err((taken, error)) => taken == 0 && error.errno == 5,
        });
    assert_eq!(refused, Some(5), "the first write beyond the budget");
}

#[test]
fn space_that_runs_out_is_reported_by_the_write() {
    let rig = Rig::new(100, 100);
    rig.file.0.lock().device_blocks = 11;
    let (taken, error) = rig.cache.write(100, &pattern(1, 5 * BLOCK as usize)).unwrap_err();
    assert_eq!((taken as u64, error.errno), (3 * BLOCK - 100, 28));
    rig.file.raise_size(100 + taken as u64);
    rig.cache.sync().unwrap();
    assert_eq!(rig.file.on_disk(&rig.device)[100..], pattern(1, 5 * BLOCK as usize)[..taken]);
}

/// A read has the old bytes in its hands while a direct write to the same block ends (E9).
#[test]
fn an_invalidation_during_a_read_leaves_nothing_stale() {
    let rig = Rig::new(100, 100);
    rig.write(0, &[1; BLOCK as usize]);
    rig.cache.sync().unwrap();
    rig.cache.invalidate(0, BLOCK).unwrap();
    assert!(rig.cache.is_empty());
    let iomap::Address::Mapped { device_offset_bytes } = rig.file.map(0, BLOCK)[0].address else { panic!() };
    let cache = rig.cache.clone();
    *rig.device.after_read.lock() = Some(Box::new(move |device| {
        assert!(!cache.is_empty(), "somebody is about to add a page");
        device.poke(device_offset_bytes, &[2; BLOCK as usize]);
        assert_eq!(cache.invalidate(0, BLOCK), Err(Busy));
    }));
    assert_eq!(rig.whole(), [1; BLOCK as usize]);
    assert_eq!(rig.whole(), [2; BLOCK as usize]);
}

/// C5, B4: what NOWAIT asks, and takes.
#[test]
fn what_is_cached_is_told_and_read_without_waiting() {
    let rig = Rig::new(100, 100);
    let data = pattern(1, 3 * BLOCK as usize);
    rig.write(0, &data);
    assert!(!rig.cache.is_clear(2 * BLOCK, 1) && rig.cache.is_clear(3 * BLOCK, BLOCK));
    assert!(!rig.cache.is_written_back(0, BLOCK) && rig.cache.is_written_back(3 * BLOCK, BLOCK));
    rig.cache.sync().unwrap();
    assert!(rig.cache.is_written_back(0, 3 * BLOCK) && !rig.cache.is_clear(0, 3 * BLOCK));
    rig.cache.invalidate(2 * BLOCK, BLOCK).unwrap();
    let mut out = vec![GARBAGE; 3 * BLOCK as usize];
    let cached = 2 * BLOCK as usize - 100;
    assert_eq!(rig.cache.read_cached(100, &mut out), cached);
    assert_eq!(out[..cached], data[100..100 + cached]);
    assert_eq!(out[cached..], vec![GARBAGE; out.len() - cached]);
    assert_eq!(rig.cache.read_cached(2 * BLOCK, &mut out), 0);
}

#[test]
fn invalidation_spares_dirty_pages() {
    let rig = Rig::new(100, 100);
    rig.write(0, &pattern(1, 3 * BLOCK as usize));
    rig.cache.sync().unwrap();
    rig.write(BLOCK, &pattern(2, 10));
    assert_eq!(rig.cache.invalidate(0, 3 * BLOCK), Err(Busy));
    assert_eq!(rig.cache.invalidate(2 * BLOCK, BLOCK), Ok(()));
    assert_eq!(rig.budget.used_bytes(), BLOCK, "the dirty one alone is left");
    assert_eq!(rig.read(BLOCK, 10), pattern(2, 10));
}

#[test]
fn a_bad_sector_fails_only_who_asked_for_it() {
    let rig = Rig::new(100, 100);
    let data = pattern(1, 8 * BLOCK as usize);
    rig.write(0, &data);
    rig.cache.sync().unwrap();
    rig.cache.invalidate(0, u64::MAX).unwrap();
    let iomap::Address::Mapped { device_offset_bytes } = rig.file.map(0, BLOCK)[0].address else { panic!() };
    *rig.device.fail_read_at.lock() = Some(device_offset_bytes + 3 * BLOCK);
    for block in [0, 1, 2, 4, 5] {
        assert_eq!(rig.read(block * BLOCK, 100), data[(block * BLOCK) as usize..][..100]);
    }
    let mut out = [0; 10];
    assert_eq!(rig.cache.read(3 * BLOCK, &mut out).unwrap_err().errno, 5);
}

/// Readers, a writer that appends and overwrites, and one who writes back, evicts and invalidates at any time.
#[test]
fn threads_agree() {
    let rig = Rig::new(5, 6);
    let inode_lock = RwLock::new(Vec::new());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2000u64 {
                let mut model = inode_lock.write();
                let pos = round.wrapping_mul(7919) % ((FILE_BLOCKS - 4) * BLOCK);
                let data = pattern(round, 1 + (round as usize * 131) % (3 * BLOCK as usize));
                if round % 5 == 0 {
                    assert!(rig.direct_write_retrying(pos - pos % 512, &data[..data.len() / 512 * 512]));
                    write_model(&mut model, pos - pos % 512, &data[..data.len() / 512 * 512]);
                } else {
                    if pos <= rig.file.size() && rig.cache.try_write(pos, &data) {
                        rig.file.raise_size(pos + data.len() as u64);
                    } else {
                        rig.write(pos, &data);
                    }
                    write_model(&mut model, pos, &data);
                }
                if round % 97 == 0 {
                    rig.set_size(pos);
                    model.resize(pos as usize, 0);
                }
            }
            over.store(true, Ordering::Release);
        });
        for reader in 0..2u64 {
            let (rig, inode_lock, over) = (&rig, &inode_lock, &over);
            scope.spawn(move || {
                let mut round = reader;
                while !over.load(Ordering::Acquire) {
                    let model = inode_lock.read();
                    let pos = round.wrapping_mul(6007) % (FILE_BLOCKS * BLOCK);
                    let end = model.len().min(pos as usize + 5000);
                    let expected = model.get(pos as usize..end).unwrap_or_default();
                    let mut out = vec![GARBAGE; expected.len()];
                    if !rig.cache.try_read(pos, &mut out) {
                        out = rig.read(pos, 5000);
                    }
                    assert!(out == expected);
                    round += 2;
                }
            });
        }
        scope.spawn(|| {
            let mut round = 0u64;
            while !over.load(Ordering::Acquire) {
                round += 1;
                match round % 4 {
                    0 => rig.cache.write_back(0, u64::MAX).unwrap(),
                    1 => rig.cache.give_back(),
                    2 => drop(rig.cache.invalidate(round * 512 % (FILE_BLOCKS * BLOCK), 4 * BLOCK)),
                    _ => rig.cache.sync().unwrap(),
                }
                std::thread::yield_now();
            }
        });
    });
    rig.cache.sync().unwrap();
    assert!(rig.file.on_disk(&rig.device) == *inode_lock.read());
    assert_eq!(rig.file.0.lock().reserved, 0);
}

impl Rig {
    /// Others may have the cache in their hands when it is to be invalidated.
    fn direct_write_retrying(&self, pos: u64, data: &[u8]) -> bool {
        data.is_empty() || (0..1_000_000).any(|_| self.direct_write(pos, data))
    }
}

/// A hit neither waits nor reads; a miss, a block to be read and a full memory are sent the long way.
#[test]
fn what_a_try_does_and_what_it_leaves() {
    let rig = Rig::new(100, 8);
    let data = pattern(1, 2 * BLOCK as usize);
    assert!(rig.cache.try_write(0, &data), "an append needs nothing but space");
    rig.file.raise_size(2 * BLOCK);
    let mut out = vec![0; 100];
    assert!(rig.cache.try_read(BLOCK - 50, &mut out));
    assert_eq!(out, data[BLOCK as usize - 50..][..100]);
    rig.cache.sync().unwrap();
    assert!(rig.cache.try_write(10, &[7; 10]), "into a page that is clean and has a block");
    assert_eq!(rig.file.0.lock().reserved, 0);
    rig.cache.sync().unwrap();
    rig.cache.invalidate(0, 2 * BLOCK).unwrap();
    assert!(!rig.cache.try_read(0, &mut out), "not cached");
    assert!(!rig.cache.try_write(10, &[7; 10]), "the rest of the block must be read");
    assert!(rig.cache.try_write(0, &data[..BLOCK as usize]), "a whole block need not");
    let whole = vec![1; 9 * BLOCK as usize];
    assert!(rig.cache.try_write(2 * BLOCK, &whole), "the budget was not exceeded before");
    rig.file.raise_size(11 * BLOCK);
    assert!(!rig.cache.try_write(0, &[1; 10]), "but is now");
    rig.cache.sync().unwrap();
    assert_eq!(rig.file.on_disk(&rig.device)[2 * BLOCK as usize..], whole);
}

/// Delayed allocation: blocks written in any order lie together, and what is deleted before it was written back never
/// had a block.
#[test]
fn allocation_waits_for_write_back() {
    let rig = Rig::new(100, 100);
    rig.write(0, &[1; 8 * BLOCK as usize]);
    for block in [5, 3, 4, 2, 7, 6] {
        rig.write(block * BLOCK, &pattern(block, BLOCK as usize));
    }
    assert_eq!(rig.file.0.lock().reserved, 8);
    assert_eq!(rig.cache.next_dirty(BLOCK, u64::MAX), Some(BLOCK..8 * BLOCK));
    assert!(rig.file.map(0, 8 * BLOCK).iter().all(|mapping| !mapping.is_allocated()));
    rig.set_size(6 * BLOCK);
    assert_eq!(rig.file.0.lock().reserved, 6);
    rig.cache.sync().unwrap();
    assert_eq!(rig.file.0.lock().reserved, 0);
    assert_eq!(rig.device.writes.lock().len(), 1, "one run");
    assert_eq!(rig.cache.next_delayed(0, u64::MAX), None);
}

/// A page may be written to while its former bytes are on their way to the device, and is dirty again after it.
#[test]
fn a_write_during_write_back_is_not_lost() {
    let rig = Rig::new(100, 100);
    rig.write(0, &[1; BLOCK as usize]);
    let cache = rig.cache.clone();
    *rig.device.before_write.lock() = Some(Box::new(move |_| {
        assert!(cache.try_write(0, &[2; 10]), "nobody waits for the device");
        let mut out = [0; 20];
        assert!(cache.try_read(0, &mut out));
        assert_eq!(out[..11], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
        assert_eq!(cache.invalidate(0, BLOCK), Err(Busy));
    }));
    rig.cache.write_back(0, BLOCK).unwrap();
    assert_eq!(rig.file.on_disk(&rig.device), [1; BLOCK as usize]);
    assert_eq!(rig.cache.dirty_bytes(), BLOCK);
    rig.cache.sync().unwrap();
    assert_eq!(rig.file.on_disk(&rig.device)[..10], [2; 10]);
    assert_eq!(rig.file.0.lock().reserved, 0);
}

/// Dirty pages know since when, by the file system's clock.
/// Others run out of memory, and take the page while a part of it is being written.
#[test]
fn a_page_that_goes_during_a_write_is_read_again() {
    let rig = Rig::new(100, 8);
    let before = pattern(1, 3 * BLOCK as usize);
    rig.write(0, &before);
    rig.cache.sync().unwrap();
    let (other, cache) = (Rig::new(100, 8), rig.cache.clone());
    let greedy = PageCache::new(other.file.clone(), other.device.clone(), rig.budget.clone(), BLOCK as usize);
    rig.file.0.lock().meanwhile = Some(Box::new(move || {
        greedy.write(0, &pattern(2, 20 * BLOCK as usize)).unwrap();
        cache.give_back();
        assert!(cache.is_empty());
    }));
    rig.write(BLOCK + 100, b"part of a page");
    assert!(rig.file.0.lock().meanwhile.is_none());
    let mut expected = before;
    write_model(&mut expected, BLOCK + 100, b"part of a page");
    assert!(rig.whole() == expected);
    rig.cache.sync().unwrap();
    assert!(rig.file.on_disk(&rig.device) == expected);
}

#[test]
fn the_age_of_what_is_dirty() {
    let rig = Rig::new(100, 100);
    assert_eq!(rig.cache.dirty_since_ms(), None);
    rig.file.0.lock().now_ms = 100;
    rig.write(0, &[1; 10]);
    rig.file.0.lock().now_ms = 900;
    rig.write(10, &[1; BLOCK as usize]);
    assert_eq!(rig.cache.dirty_since_ms(), Some(100), "the oldest");
    rig.cache.sync().unwrap();
    assert_eq!(rig.cache.dirty_since_ms(), None);
    *rig.device.fail_write.lock() = Some(0);
    rig.write(0, &[2; 10]);
    rig.file.0.lock().now_ms = 2000;
    rig.cache.write_back(0, BLOCK).unwrap_err();
    assert_eq!(rig.cache.dirty_since_ms(), Some(2000), "tried again later, not at once");
}
