//! Buffered data in all the ways that it may take to the disk (data=, dioread_nolock).

use super::driver::{Driver, Recording};
use super::random::Random;
use super::volume::Volume;

/// To written blocks at once (T12).
pub fn written_at_once(name: &str, volume: Volume) -> Recording {
    buffered(name, Volume { dioread_nolock: false, ..volume })
}

/// Appends, overwrites, holes, truncation, deletion and reuse of what was freed, with write-back, commits and fsync in
/// between; and direct writes, which fall back where data is journalled.
pub fn buffered(name: &str, volume: Volume) -> Recording {
    let mut driver = Driver::new(name, volume);
    let mut random = Random(u64::from(volume.block_size));
    let log = driver.create("log");
    let sparse = driver.create("sparse");
    let mut end = 0;
    for n in 0..30 {
        let len = 1 + random.below(6000);
        driver.buffered("log", log, end, len);
        end += len as u64;
        match n % 6 {
            0 => driver.fsync("log", log, false),
            1 => driver.write_back("log", log),
            2 => driver.commit(),
            3 => driver.buffered("log", log, end / 2, 3000),
            4 => driver.fsync("log", log, true),
            _ => {}
        }
        driver.buffered("sparse", sparse, random.below(40) as u64 * 3000, 1 + random.below(5000));
        if n % 7 == 6 {
            driver.truncate("sparse", sparse, random.below(60_000) as u64);
            driver.commit();
        }
        if n % 9 == 8 {
            driver.direct("sparse", sparse, random.below(8) as u64 * 4096, 8192, n % 2 == 0);
        }
        let path = format!("short{}", n % 3);
        if n >= 3 {
            driver.unlink(&path);
        }
        let file = driver.create(&path);
        driver.buffered(&path, file, 0, 100 + random.below(20_000));
        if n % 4 == 0 {
            driver.fsync(&path, file, false);
        }
        driver.close(file);
    }
    driver.sync();
    driver.truncate("log", log, 1000);
    driver.buffered("log", log, 1000, 2000);
    driver.fsync("log", log, false);
    driver.close(log);
    driver.close(sparse);
    driver.finish()
}
