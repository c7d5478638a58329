//! Workloads on ranges of files: space, holes, zeros, moves, and writes that are atomic.

use ext4::FallocateMode;

use super::driver::{Driver, Recording};
use super::volume::Volume;

/// CM14: punch, zero, collapse and insert, each at block boundaries and, where it may, beside them.
pub fn ranges(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let mut driver = Driver::new(name, volume);
    let block = u64::from(block_size);
    let file = driver.create("f");
    driver.direct("f", file, 0, 64 << 10, false);
    driver.fsync("f", file, false);
    let (kept, grows) = (true, false);
    for (n, (mode, range)) in [
        (FallocateMode::PunchHole, 2 * block..5 * block),
        (FallocateMode::ZeroRange { keep_size: kept }, 4 * block + 100..7 * block + 50),
        (FallocateMode::PunchHole, 8 * block + 700..9 * block + 3),
        (FallocateMode::CollapseRange, block..3 * block),
        (FallocateMode::InsertRange, 4 * block..6 * block),
        (FallocateMode::Allocate { keep_size: kept }, 60 << 10..90 << 10),
        (FallocateMode::Allocate { keep_size: grows }, 60 << 10..100 << 10),
        (FallocateMode::ZeroRange { keep_size: grows }, 95 << 10..120 << 10),
    ]
    .into_iter()
    .enumerate()
    {
        driver.fallocate("f", file, mode, range);
        match n % 3 {
            0 => driver.fsync("f", file, n % 2 == 0),
            1 => driver.commit(),
            _ => driver.direct("f", file, 12 * block, block as usize * 2, true),
        }
    }
    driver.direct("f", file, 96 << 10, 8192, false);
    driver.sync();
    driver.close(file);
    driver.finish()
}

/// What moves takes later writes with it, whether a crash shows it before or after the move. Nothing is synced between.
pub fn moved_ranges(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let block = u64::from(volume.block_size);
    let file = driver.create("f");
    driver.direct("f", file, 0, 24 * block as usize, false);
    driver.fsync("f", file, false);
    for round in 0..3 {
        driver.fallocate("f", file, FallocateMode::CollapseRange, 2 * block..4 * block);
        driver.direct("f", file, 3 * block, 2 * block as usize, false);
        driver.buffered("f", file, 7 * block + 100, 3000);
        driver.fallocate("f", file, FallocateMode::InsertRange, 5 * block..8 * block);
        driver.direct("f", file, 6 * block, 4 * block as usize, round == 1);
        match round {
            0 => driver.write_back("f", file),
            1 => driver.commit(),
            _ => driver.fallocate("f", file, FallocateMode::PunchHole, block..4 * block),
        }
        driver.buffered("f", file, 4 * block, 2 * block as usize + 7);
        driver.direct("f", file, 20 * block, block as usize, false);
        if round == 0 {
            driver.fsync("f", file, true);
        }
    }
    // What was taken out goes to somebody else.
    driver.fallocate("f", file, FallocateMode::CollapseRange, 0..8 * block);
    driver.commit();
    let other = driver.create("other");
    driver.direct("other", other, 0, 16 * block as usize, true);
    driver.close(other);
    driver.close(file);
    driver.finish()
}

/// C24: over nothing, over itself, beside and under other writes; of each all is there or nothing.
pub fn atomic_writes(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let unit = 4 * u64::from(volume.block_size);
    let file = driver.create("pages");
    for n in [0, 3, 1, 0, 2, 3] {
        driver.atomic("pages", file, n * unit, unit as usize);
    }
    driver.buffered("pages", file, unit + 77, 1000);
    driver.atomic("pages", file, unit, unit as usize);
    // Directly over it (T9), over it again, and its blocks to somebody else.
    driver.direct("pages", file, 0, 2 * unit as usize, true);
    driver.atomic("pages", file, unit, unit as usize);
    driver.truncate("pages", file, unit + 5);
    driver.fsync("pages", file, false);
    let other = driver.create("other");
    driver.direct("other", other, 0, 4 * unit as usize, true);
    driver.fallocate("pages", file, FallocateMode::Allocate { keep_size: false }, unit..4 * unit);
    driver.atomic("pages", file, 2 * unit, unit as usize);
    driver.close(other);
    driver.close(file);
    driver.finish()
}
