//! Workloads of our own (CM14): the paths that a direct-I/O engine adds, and the corners of the journal.

use std::ops::Range;
use std::sync::Arc;

use block_io::FaultOn;
use ext4::FallocateMode;

use super::data_modes;
use super::driver::{Driver, Recording};
use super::mix;
use super::ranges;
use super::volume::Volume;

type Run = Arc<dyn Fn(&str, Volume) -> Recording + Send + Sync>;

/// A workload by name.
#[derive(Clone)]
pub struct Workload {
    /// What it is called in a failure.
    pub name: String,
    /// Its share of the states, beside those of others.
    pub share: usize,
    /// It writes data, in ways that depend on how the volume is mounted.
    pub in_all_modes: bool,
    /// Runs it under a name on a volume.
    run: Run,
}

impl Workload {
    /// A workload, and how to run it.
    pub fn new(
        name: impl Into<String>,
        run: impl Fn(&str, Volume) -> Recording + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), share: 10, in_all_modes: false, run: Arc::new(run) }
    }

    /// With data that takes another way in each mode.
    pub fn in_all_modes(self) -> Self {
        Self { in_all_modes: true, ..self }
    }

    /// With another share than most.
    pub fn with_share(self, share: usize) -> Self {
        Self { share, ..self }
    }

    /// What it is called on such a volume.
    pub fn name_on(&self, volume: Volume) -> String {
        format!("{} {}", self.name, volume.label())
    }

    /// Runs it on a volume.
    pub fn run(&self, volume: Volume) -> Recording {
        (self.run)(&self.name_on(volume), volume)
    }
}

/// Writes of a failing device that fail, one a run.
pub const FAILING_WRITES: u64 = 14;
/// Flushes, likewise.
pub const FAILING_FLUSHES: u64 = 5;

/// All that have a plan.
pub fn all() -> Vec<Workload> {
    let mut all = vec![
        Workload::new("direct append and fsync", direct_append).in_all_modes(),
        Workload::new("O_DSYNC append", dsync_append).in_all_modes(),
        Workload::new("group commit", group_commit).in_all_modes(),
        Workload::new("overwrite of unwritten blocks", unwritten).in_all_modes(),
        Workload::new("overwrite and fdatasync", overwrite).in_all_modes(),
        Workload::new("short write with fallback", fallback).in_all_modes(),
        Workload::new("create and delete storm", storm),
        Workload::new("ten thousand files", ten_thousand),
        Workload::new("truncate of a deep file", deep_truncate),
        Workload::new("freed metadata as direct data", reuse).in_all_modes(),
        Workload::new("freed and wanted at once", freed_at_once).in_all_modes(),
        Workload::new("unwritten blocks on a full volume", unwritten_on_a_full_volume).in_all_modes(),
        Workload::new("directory with index splits", index_splits),
        // Thousands of orphans to delete in each recovery take their time.
        Workload::new("orphan overflow", orphan_overflow).with_share(1),
        Workload::new("unlinked while open", unlinked_open).in_all_modes(),
        Workload::new("truncates and extensions", truncates).in_all_modes(),
        Workload::new("the same again after a remount", remounts),
        Workload::new("rename storm", renames).in_all_modes(),
        Workload::new("attributes", change_attributes),
        Workload::new("blocks that start with the magic", magic),
        Workload::new("data that starts with the magic", magic_data).in_all_modes(),
        Workload::new("buffered", data_modes::buffered).in_all_modes(),
        Workload::new("buffered, to written blocks", data_modes::written_at_once),
        Workload::new("holes, zeros and moved ranges", ranges::ranges).in_all_modes(),
        Workload::new("moved ranges and writes", ranges::moved_ranges).in_all_modes(),
        Workload::new("atomic writes", ranges::atomic_writes).in_all_modes(),
        Workload::new("changes beside a commit", beside_a_commit).in_all_modes(),
        Workload::new("journal on its own device", journal_outside).in_all_modes(),
    ];
    let failing = |on, nth| {
        Workload::new(format!("{on:?} {nth} fails"), move |name, volume| failing(name, volume, on, nth))
            .with_share(2)
    };
    all.extend((1..=FAILING_WRITES).map(|nth| failing(FaultOn::Write, nth)));
    all.extend((1..=FAILING_FLUSHES).map(|nth| failing(FaultOn::Flush, nth)));
    all
}

/// Random mixes by their numbers.
pub fn mixes(seed: u64, numbers: Range<u64>) -> Vec<Workload> {
    let mix = |n| {
        let mix = seed.wrapping_mul(1 << 20).wrapping_add(n);
        Workload::new(format!("random mix {mix}"), move |name, volume| mix::run(name, volume, mix))
            .in_all_modes()
    };
    numbers.map(mix).collect()
}

/// E46: extending writes, cut at every write.
fn direct_append(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("log");
    for n in 0..12 {
        driver.direct("log", file, n * 4096, 4096, false);
        driver.fsync("log", file, n % 2 == 1);
    }
    driver.close(file);
    driver.finish()
}

fn dsync_append(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("log");
    for n in 0..8 {
        driver.direct("log", file, n * 4096, 4096, true);
    }
    // Overwrites of what is durable: FUA alone (B8).
    for n in [3, 1, 7] {
        driver.direct("log", file, n * 4096, 4096, true);
    }
    driver.close(file);
    driver.finish()
}

fn group_commit(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let files: Vec<_> = (0..32).map(|n| (format!("file{n}"), driver.create(&format!("file{n}")))).collect();
    for round in 0..3 {
        for (path, file) in &files {
            driver.direct(path, *file, round * 4096, 4096, false);
        }
        driver.fsync_all(&files);
    }
    files.into_iter().for_each(|(_, file)| driver.close(file));
    driver.finish()
}

/// E47: zeros or data, whichever of the conversion has committed.
fn unwritten(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("sparse");
    driver.truncate("sparse", file, 256 << 10);
    driver.fsync("sparse", file, false);
    // Into a hole: unwritten, written to, converted. Start, middle and end of what is there then.
    for pos in [64 << 10, 68 << 10, 60 << 10, 128 << 10, 0, 252 << 10] {
        driver.direct("sparse", file, pos, 4096, false);
        driver.fsync("sparse", file, true);
    }
    for pos in [16 << 10, 32 << 10, 24 << 10] {
        driver.direct("sparse", file, pos, 8192, false);
    }
    driver.direct("sparse", file, (100 << 10) + 512, 512, false);
    driver.sync();
    driver.close(file);
    driver.finish()
}

fn overwrite(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("data");
    driver.direct("data", file, 0, 64 << 10, false);
    driver.fsync("data", file, false);
    for n in [0, 5, 9, 5] {
        driver.direct("data", file, n * 4096, 4096, false);
        driver.fsync("data", file, true);
    }
    driver.close(file);
    driver.finish()
}

fn fallback(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("odd");
    driver.direct("odd", file, 0, 8192, false);
    driver.buffered("odd", file, 8192, 777);
    driver.fsync("odd", file, false);
    driver.direct("odd", file, 12288, 4096, false);
    driver.buffered("odd", file, 8000, 3000);
    driver.fsync("odd", file, true);
    driver.close(file);
    driver.finish()
}

/// E51: more metadata than the log has room for: it wraps, and checkpoints on the way.
fn storm(name: &str, volume: Volume) -> Recording {
    storm_of(name, volume, 2)
}

/// The same with 10,000 files and more.
fn ten_thousand(name: &str, volume: Volume) -> Recording {
    storm_of(name, volume, if volume.block_size == 1024 { 9 } else { 5 })
}

fn storm_of(name: &str, volume: Volume, rounds: usize) -> Recording {
    let block_size = volume.block_size;
    let mut driver = Driver::new(name, volume);
    let count = if block_size == 1024 { 1200 } else { 2000 };
    for round in 0..rounds {
        for n in 0..count {
            driver.touch(&format!("r{round}n{n}"));
            if n % 5 == 4 {
                driver.unlink(&format!("r{round}n{}", n - 2));
            }
            if n % 200 == 199 {
                driver.fsync_dir("");
            }
        }
        for n in (0..count).filter(|n| n % 5 != 2) {
            driver.unlink(&format!("r{round}n{n}"));
            if n % 250 == 0 {
                driver.sync();
            }
        }
        // Each round is a log's worth in many transactions.
        driver.sync();
    }
    driver.finish()
}

/// E48: a tree of depth 2 goes in several transactions.
fn deep_truncate(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let mut driver = Driver::new(name, volume);
    let file = driver.create("deep");
    let step = 2 * u64::from(block_size);
    let extents = if block_size == 1024 { 400 } else { 700 };
    for n in 0..extents {
        driver.direct("deep", file, n * step, block_size as usize, false);
    }
    driver.fsync("deep", file, false);
    driver.truncate("deep", file, step * 100 + 100);
    driver.fsync("deep", file, false);
    driver.direct("deep", file, step * 200, 4096, false);
    driver.truncate("deep", file, 0);
    driver.sync();
    driver.close(file);
    driver.finish()
}

/// A volume on which little more than `blocks` blocks are free.
fn nearly_full(name: &str, volume: Volume, blocks: usize) -> Driver {
    let block = volume.block_size as usize;
    let volume = Volume { size: if block == 1024 { 4 << 20 } else { 8 << 20 }, ..volume };
    let mut driver = Driver::new(name, volume);
    let filler = driver.create("filler");
    let mut pos = 0;
    while driver.free_blocks() > blocks + 20 {
        let count = (driver.free_blocks() - blocks).min(128);
        driver.direct("filler", filler, pos, count * block, false);
        pos += (count * block) as u64;
    }
    driver.sync();
    driver
}

/// Free blocks that data cannot have (D14).
const RESERVED: usize = 110;

/// E53: there is nothing to write to but what was just freed, and that may be the old file's again after a crash until
/// the unlink is committed.
fn freed_at_once(name: &str, volume: Volume) -> Recording {
    let block = volume.block_size as usize;
    let mut driver = nearly_full(name, volume, RESERVED + 40);
    for round in 0..3 {
        let [old, new] = ["old", "new"].map(|which| format!("{which}{round}"));
        let file = driver.create(&old);
        let len = (driver.free_blocks() - RESERVED) / 8 * 8 * block;
        driver.direct(&old, file, 0, len, false);
        driver.fsync(&old, file, false);
        driver.close(file);
        driver.unlink(&old);
        let file = driver.create(&new);
        driver.direct(&new, file, 0, len, false);
        driver.fsync(&new, file, round == 1);
        driver.close(file);
        driver.unlink(&new);
    }
    driver.finish()
}

/// Conversions in flight together, whose splits find only blocks that wait for a commit.
fn unwritten_on_a_full_volume(name: &str, volume: Volume) -> Recording {
    let block = u64::from(volume.block_size);
    let mut driver = nearly_full(name, volume, RESERVED + 120);
    let prepared = driver.create("prepared");
    driver.fallocate("prepared", prepared, FallocateMode::Allocate { keep_size: false }, 0..64 * block);
    driver.fsync("prepared", prepared, false);
    let old = driver.create("old");
    let len = (driver.free_blocks() - RESERVED) / 8 * 8 * block as usize;
    driver.direct("old", old, 0, len, false);
    driver.sync();
    driver.close(old);
    driver.unlink("old");
    let mut in_flight = Vec::new();
    for n in [9, 40, 21, 33, 2, 55, 13] {
        in_flight.push(driver.launch("prepared", prepared, n * block, block as usize, n % 2 == 0));
        if in_flight.len() == 3 {
            driver.land(in_flight.remove(1));
        }
    }
    while let Some(direct) = in_flight.pop() {
        driver.land(direct);
    }
    driver.buffered("prepared", prepared, 17 * block, 2 * block as usize);
    driver.buffered("prepared", prepared, 47 * block, block as usize);
    driver.fsync("prepared", prepared, true);
    driver.close(prepared);
    driver.finish()
}

/// E49: extent and directory blocks are freed, and become file data that no journal orders. Little space is free, so
/// that they do.
fn reuse(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let block = block_size as usize;
    let mut driver = nearly_full(name, volume, 360);
    for round in 0..2 {
        let path = format!("fragments{round}");
        let file = driver.create(&path);
        for n in 0..100 {
            driver.direct(&path, file, n * 2 * u64::from(block_size), block, false);
        }
        driver.mkdir("dir");
        for n in 0..30 {
            driver.symlink(&[b'x'; 100], &format!("dir/link{n}"));
        }
        driver.fsync(&path, file, false);
        for n in 0..30 {
            driver.unlink(&format!("dir/link{n}"));
        }
        driver.rmdir("dir");
        driver.truncate(&path, file, 0);
        driver.fsync(&path, file, false);
        // What was freed goes to data now; overwritten, it is durable without a commit of its own.
        let data = format!("data{round}");
        let other = driver.create(&data);
        let len = (driver.free_blocks() - RESERVED) / 8 * 8 * block;
        driver.direct(&data, other, 0, len, false);
        driver.fsync(&data, other, false);
        driver.direct(&data, other, 0, len, false);
        driver.fsync(&data, other, true);
        driver.truncate(&data, other, 0);
        driver.close(other);
        driver.close(file);
        driver.sync();
    }
    driver.finish()
}

fn index_splits(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    driver.mkdir("d");
    for n in 0..200 {
        driver.touch(&format!("d/{}{n:03}", "long-name-".repeat(15)));
        if n % 40 == 39 {
            driver.fsync_dir("d");
        }
    }
    driver.sync();
    for n in (0..200).step_by(3) {
        driver.unlink(&format!("d/{}{n:03}", "long-name-".repeat(15)));
    }
    driver.finish()
}

/// E52: more orphans than the orphan file has slots for.
fn orphan_overflow(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let volume = Volume { features: "^orphan_file", ..volume };
    // The list alone first; then file and list on a volume with enough inodes.
    let (volume, count) = match block_size {
        1024 => (Volume { size: 16 << 20, features: "", inodes: Some(9500), ..volume }, 8300),
        _ => (volume, 40),
    };
    let mut driver = Driver::new(name, volume);
    let mut open = Vec::new();
    for n in 0..count {
        let path = format!("o{n}");
        open.push(driver.create(&path));
        driver.unlink(&path);
    }
    driver.sync();
    let from = count - 40;
    for n in (0..40).rev().step_by(3) {
        driver.close(open.swap_remove(from + n));
    }
    let kept = driver.create("kept");
    driver.direct("kept", kept, 0, 8192, false);
    driver.fsync("kept", kept, false);
    open.push(kept);
    open.into_iter().for_each(|file| driver.close(file));
    driver.finish()
}

fn unlinked_open(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("gone");
    driver.direct("gone", file, 0, 64 << 10, false);
    driver.fsync("gone", file, false);
    driver.unlink("gone");
    driver.fsync_unnamed(file);
    driver.touch("other");
    driver.fsync_dir("");
    driver.close(file);
    driver.sync();
    driver.touch("last");
    driver.finish()
}

fn truncates(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("f");
    driver.direct("f", file, 0, 32 << 10, false);
    driver.fsync("f", file, false);
    for size in [20_000, 40_000, 100, 5000, 0, 9000] {
        driver.truncate("f", file, size);
        driver.fsync("f", file, size % 8 == 0);
        driver.direct("f", file, size.next_multiple_of(4096), 4096, false);
    }
    driver.buffered("f", file, 50_000, 10_000);
    driver.truncate("f", file, 52_000);
    driver.sync();
    driver.close(file);
    driver.finish()
}

fn renames(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    driver.mkdir("a");
    driver.mkdir("b");
    for n in 0..30 {
        let temporary = format!("a/new{n}");
        let file = driver.create(&temporary);
        driver.direct(&temporary, file, 0, 4096, false);
        driver.fsync(&temporary, file, false);
        assert!(driver.rename(&temporary, "b/current"));
        match n % 5 {
            0 => driver.fsync_dir("b"),
            1 => driver.link("b/current", &format!("a/kept{n}")),
            2 => driver.fsync("b/current", file, false),
            3 => {
                let elsewhere = if n % 2 == 0 { "c" } else { "a/c" };
                assert!(driver.rename("b", elsewhere) && driver.rename(elsewhere, "b"));
            }
            _ => {}
        }
        driver.close(file);
    }
    driver.finish()
}

fn change_attributes(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("f");
    driver.fsync("f", file, false);
    for (n, mode) in [0o600, 0o640, 0o4755, 0o644].into_iter().enumerate() {
        driver.chmod("f", mode);
        driver.fsync("f", file, n == 2);
    }
    driver.xattr("f", Some(b"one"));
    driver.fsync("f", file, false);
    driver.xattr("f", Some(&[7; 40]));
    driver.fsync("f", file, false);
    driver.xattr("f", None);
    driver.fsync("f", file, false);
    driver.link("f", "g");
    driver.fsync("f", file, false);
    driver.unlink("f");
    driver.fsync("g", file, false);
    driver.close(file);
    driver.finish()
}

/// E50, J16: what looks like a block of the log is escaped in it.
fn magic(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let text = [&[0xC0, 0x3B, 0x39, 0x98, 1, 1, 1, 2, 1, 1, 1, 3][..], &[b'm'; 80]].concat();
    for n in 0..6 {
        driver.symlink(&text, &format!("link{n}"));
        driver.fsync_dir("");
    }
    driver.finish()
}

/// The same of a file's data, which is in the log with data=journal. Each block is a commit block, but for its checksum.
fn magic_data(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let block = volume.block_size as usize;
    let file = driver.create("f");
    for n in 0..10 {
        let header = [&[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 2, 0, 0, 0][..], &[n]].concat();
        let mut data = [&header[..], &vec![0x80 + n; block - header.len()]].concat();
        data.extend_from_within(..);
        driver.buffered_bytes("f", file, u64::from(n % 6) * block as u64, &data);
        match n % 3 {
            0 => driver.commit(),
            1 => driver.fsync("f", file, true),
            _ => driver.direct("f", file, 7 * block as u64, block, false),
        }
    }
    driver.truncate("f", file, block as u64 + 9);
    driver.sync();
    driver.close(file);
    driver.finish()
}

/// Transactions of equal sizes before and after: only their numbers tell them apart.
fn remounts(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    for round in 0..3 {
        for n in 0..6 {
            driver.mkdir(&format!("r{round}n{n}"));
            driver.fsync_dir("");
        }
        driver.remount();
    }
    driver.finish()
}

/// T5b: blocks of a transaction on its way to the log are changed by the next one.
fn beside_a_commit(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    for round in 0..4 {
        let path = format!("f{round}");
        let file = driver.create(&path);
        driver.direct(&path, file, 0, 8192, false);
        driver.fsync_with_changes(&path, file, |driver| {
            driver.mkdir(&format!("d{round}"));
            driver.touch_only(&format!("d{round}/beside"));
            driver.chmod(&path, 0o600 + round as u16);
            if round > 0 {
                assert!(driver.rename(&format!("f{}", round - 1), &format!("d{round}/moved")));
            }
        });
        driver.fsync_dir("");
        driver.close(file);
        // So that the next commit begins with the journal's superblock again.
        driver.remount();
    }
    driver.finish()
}

/// J28, T16: two devices, each with a cache of its own (CM4).
fn journal_outside(name: &str, volume: Volume) -> Recording {
    let volume = Volume { journal_outside: true, ..volume };
    let mut driver = Driver::new(name, volume);
    let file = driver.create("log");
    for n in 0..6 {
        driver.direct("log", file, n * 4096, 4096, n % 3 == 2);
        driver.mkdir(&format!("d{n}"));
        driver.fsync("log", file, n % 2 == 1);
    }
    driver.direct("log", file, 0, 8192, false);
    driver.fsync("log", file, true);
    driver.truncate("log", file, 5000);
    driver.close(file);
    driver.remount();
    driver.mkdir("after");
    driver.sync();
    driver.finish()
}

/// CM12: one write or flush fails, and whatever was promised before that is there.
fn failing(name: &str, volume: Volume, on: FaultOn, nth: u64) -> Recording {
    let mut driver = Driver::new(name, volume);
    let file = driver.create("log");
    driver.direct("log", file, 0, 4096, false);
    driver.mkdir("before");
    driver.sync();
    driver.fail(on, nth);
    for n in 0..3 {
        driver.mkdir(&format!("d{n}"));
        driver.direct("log", file, (n + 1) * 4096, 4096, false);
        driver.fsync("log", file, n == 1);
        driver.fsync_dir("");
    }
    driver.finish_with(&[file])
}
