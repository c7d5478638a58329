//! Workloads on volumes of mke2fs without extents, whose journals are on block maps too.

use std::path::Path;
use std::process::Command;

use super::driver::{Driver, Recording};
use super::random::Random;
use super::volume::Volume;
use super::workloads::Workload;

/// They need mke2fs.
pub fn all() -> Vec<Workload> {
    vec![
        Workload::new("block map, direct and buffered", both_paths).in_all_modes(),
        Workload::new("block map of two heights", two_heights).in_all_modes(),
        Workload::new("block map, tables freed and reused", reuse).in_all_modes(),
    ]
}

/// What tells [`Volume::small`] from a volume of ours.
const FEATURES: &str = "^extent,^64bit";

fn driver(name: &str, volume: Volume) -> Driver {
    Driver::new(name, Volume { features: FEATURES, ..volume })
}

/// Whether our mkfs does not make such volumes.
pub fn needs_mke2fs(features: &str) -> bool {
    features == FEATURES
}

/// A volume as mke2fs makes it in a file that holds something else, the same each time.
pub fn format(image: &Path, block_size: u32) {
    let journal = if block_size == 1024 { "size=1" } else { "size=4" };
    let uuid = "07070707-0707-0707-0707-070707070707";
    let seed = format!("hash_seed={uuid},nodiscard,lazy_itable_init=0,lazy_journal_init=0");
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-J", journal, "-U", uuid, "-E", &seed])
        .args(["-O", &format!("{FEATURES},orphan_file"), "-b", &block_size.to_string()])
        .arg(image)
        .env("E2FSPROGS_FAKE_TIME", crate::runner::FORMAT_TIME.to_string())
        .output()
        .expect("mke2fs runs");
    assert!(output.status.success(), "mke2fs: {}", String::from_utf8_lossy(&output.stderr));
}

/// Appends over the ends of i_block and of the first table by both paths, holes by the page cache, commits in between.
fn both_paths(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let mut driver = driver(name, volume);
    let block = u64::from(block_size);
    let mut random = Random(block);
    let direct = driver.create("direct");
    let buffered = driver.create("buffered");
    let sparse = driver.create("sparse");
    let mut end = 8 * block;
    driver.direct("direct", direct, 0, end as usize, false);
    let mut tail = 0;
    for n in 0..24 {
        driver.direct("direct", direct, end, 2 * block as usize, n % 5 == 0);
        end += 2 * block;
        let len = 1 + random.below(4 * block_size as usize);
        driver.buffered("buffered", buffered, tail, len);
        tail += len as u64;
        driver.buffered("sparse", sparse, random.below(600) as u64 * block, 1 + random.below(3000));
        match n % 6 {
            0 => driver.fsync("direct", direct, true),
            1 => driver.write_back("buffered", buffered),
            2 => driver.commit(),
            3 => driver.fsync("buffered", buffered, false),
            4 => driver.direct("direct", direct, random.below(8) as u64 * block, block as usize, true),
            _ => driver.truncate("sparse", sparse, random.below(600) as u64 * block + 77),
        }
    }
    driver.sync();
    driver.truncate("direct", direct, 10 * block + 5);
    driver.fsync("direct", direct, false);
    [direct, buffered, sparse].into_iter().for_each(|file| driver.close(file));
    driver.finish()
}

/// A file with blocks at both heights that files of this size have, which is cut, cut again, extended and deleted.
fn two_heights(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let mut driver = driver(name, volume);
    let block = u64::from(block_size);
    let (p, run) = (block / 4, 3000);
    let places = [0, 11, 12, 12 + p - 1, 12 + p, 12 + 2 * p - 1, 12 + 2 * p, 12 + 2 * p + 7];
    let file = driver.create("deep");
    for (n, lblk) in places.into_iter().enumerate() {
        driver.buffered("deep", file, lblk * block, run);
        if n % 3 == 0 {
            driver.fsync("deep", file, false);
        }
    }
    driver.sync();
    for lblk in [12 + 2 * p, 12 + p + 1, 12] {
        driver.truncate("deep", file, lblk * block + 100);
        driver.commit();
    }
    driver.buffered("deep", file, (12 + p) * block, run);
    driver.fsync("deep", file, false);
    driver.close(file);
    driver.unlink("deep");
    driver.sync();
    driver.finish()
}

/// D21: tables that were logged are freed, and their blocks become data before the log is gone.
fn reuse(name: &str, volume: Volume) -> Recording {
    let block_size = volume.block_size;
    let mut driver = driver(name, volume);
    let block = block_size as usize;
    for round in 0..4u64 {
        for n in 0..3 {
            let path = format!("file{n}");
            let file = driver.create(&path);
            driver.direct(&path, file, 0, 40 * block, false);
            driver.buffered(&path, file, (300 + 10 * round) * block as u64, 3 * block);
            driver.fsync(&path, file, false);
            driver.close(file);
        }
        for n in 0..3 {
            driver.unlink(&format!("file{n}"));
        }
        driver.commit();
        let path = format!("data{round}");
        let file = driver.create(&path);
        driver.direct(&path, file, 0, 200 * block, round % 2 == 0);
        driver.close(file);
    }
    driver.finish()
}
