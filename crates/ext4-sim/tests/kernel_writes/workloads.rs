//! What the kernel is asked to do.

use super::driver::{Driver, Write};

/// Name, and what is done.
pub type Workload = (&'static str, fn(&mut Driver));

pub const ALL: &[Workload] = &[
    ("appends and overwrites", appends),
    ("replaced by rename", renames),
    ("names", names),
    ("truncates", truncates),
    ("direct and synchronous writes", direct),
    ("holes", holes),
    ("orphans", orphans),
    ("a log that wraps", wrap),
];

pub fn appends(driver: &mut Driver) {
    driver.create("log");
    driver.create("pages");
    driver.write("pages", 0, 20_000, Write::Buffered);
    driver.syncfs();
    let mut end = 0;
    for n in 0..8 {
        let len = 700 + 1900 * n;
        driver.write("log", end, len, Write::Buffered);
        end += len as u64;
        driver.fsync("log");
        driver.write("pages", 2048 * n as u64, 3000, Write::Buffered);
        if n % 3 == 2 {
            driver.fdatasync("pages");
        }
    }
    driver.write("log", end, 9000, Write::Buffered);
    driver.fdatasync("log");
    driver.write("pages", 0, 20_000, Write::Buffered);
    driver.fdatasync("pages");
}

fn renames(driver: &mut Driver) {
    driver.mkdir("a");
    driver.mkdir("a/b");
    for n in 0..6 {
        driver.create("a/new");
        driver.write("a/new", 0, 4000 + 1000 * n, Write::Buffered);
        if n % 2 == 0 {
            driver.fsync("a/new");
        }
        driver.rename("a/new", "a/b/current");
        if n % 3 == 1 {
            driver.fsync("a/b/current");
        } else {
            driver.fsync_dir("a/b");
        }
        driver.link("a/b/current", &format!("kept{n}"));
    }
    driver.rename("a/b", "b");
    driver.create("other");
    driver.fsync("other");
    driver.rename("b", "a/b");
    driver.rename("kept1", "kept2");
    driver.fsync_dir("");
}

fn names(driver: &mut Driver) {
    for n in 0..40 {
        driver.create(&format!("file{n}"));
        driver.write(&format!("file{n}"), 0, 100 + 90 * n, Write::Buffered);
        if n % 4 == 0 {
            driver.mkdir(&format!("dir{n}"));
            driver.symlink(&"x".repeat(30 + n * 2), &format!("dir{n}/link"));
        }
        if n % 10 == 7 {
            driver.fsync(&format!("file{n}"));
        }
    }
    driver.chmod("file3", 0o600);
    driver.fsync("file3");
    for n in 0..20 {
        driver.link(&format!("file{}", n + 20), &format!("again{n}"));
        driver.unlink(&format!("file{n}"));
        if n % 8 == 4 {
            driver.unlink(&format!("dir{n}/link"));
            driver.rmdir(&format!("dir{n}"));
            driver.fsync_dir("");
        }
    }
    driver.unlink("file20");
    driver.syncfs();
    for n in 0..10 {
        driver.unlink(&format!("again{n}"));
    }
    driver.create("last");
    driver.fsync("last");
}

fn truncates(driver: &mut Driver) {
    driver.create("f");
    driver.write("f", 0, 50_000, Write::Buffered);
    driver.fsync("f");
    for size in [30_000, 45_000, 777, 9_000, 0, 4_000] {
        driver.truncate("f", size);
        driver.fsync("f");
        driver.write("f", size, 2_000, Write::Buffered);
        driver.fdatasync("f");
    }
    driver.truncate("f", 100);
    driver.create("g");
    driver.write("g", 0, 10_000, Write::Buffered);
    driver.fsync("g");
    driver.truncate("g", 5_000);
    driver.write("g", 5_000, 300, Write::Buffered);
    driver.syncfs();
}

fn direct(driver: &mut Driver) {
    driver.create("f");
    for n in 0..4u64 {
        driver.write("f", n * 8192, 8192, Write::Direct);
        driver.fdatasync("f");
    }
    driver.write("f", 4096, 12_288, Write::Direct);
    driver.fdatasync("f");
    driver.write("f", 8192, 4096, Write::DirectDsync);
    driver.write("f", 32_768, 8192, Write::DirectDsync);
    driver.create("sparse");
    driver.write("sparse", 65_536, 4096, Write::Direct);
    driver.write("sparse", 8192, 4096, Write::DirectDsync);
    driver.write("sparse", 20_480, 4096, Write::Direct);
    driver.fsync("sparse");
    driver.create("log");
    for n in 0..5 {
        driver.write("log", n * 1500, 1500, Write::BufferedDsync);
    }
    driver.write("log", 1000, 2000, Write::BufferedDsync);
    driver.write("log", 4096, 4096, Write::Direct);
    driver.fsync("log");
}

fn holes(driver: &mut Driver) {
    driver.create("f");
    driver.fallocate("f", "", 0..65_536);
    driver.fsync("f");
    driver.write("f", 8192, 8192, Write::Direct);
    driver.write("f", 20_000, 5_000, Write::Buffered);
    driver.fdatasync("f");
    driver.fallocate("f", "--punch-hole", 10_000..22_000);
    driver.fsync("f");
    driver.write("f", 12_288, 4096, Write::DirectDsync);
    driver.fallocate("f", "--zero-range", 4096..16_384);
    driver.fdatasync("f");
    driver.write("f", 0, 40_000, Write::Buffered);
    driver.fsync("f");
    driver.fallocate("f", "--collapse-range", 8192..16_384);
    driver.fsync("f");
    driver.fallocate("f", "--insert-range", 4096..12_288);
    driver.fsync("f");
    driver.create("kept");
    driver.fallocate("kept", "--keep-size", 0..50_000);
    driver.write("kept", 0, 3000, Write::Buffered);
    driver.fsync("kept");
}

fn orphans(driver: &mut Driver) {
    for n in 0..6 {
        let path = format!("gone{n}");
        driver.create(&path);
        driver.write(&path, 0, 3000 * (n + 1), Write::Buffered);
        driver.fsync(&path);
        driver.hold(&path);
    }
    for n in 0..6 {
        driver.unlink(&format!("gone{n}"));
        driver.create(&format!("stays{n}"));
        driver.write(&format!("stays{n}"), 0, 4000, Write::Buffered);
        driver.fsync(&format!("stays{n}"));
        if n % 2 == 1 {
            driver.let_go(&format!("gone{}", n - 1));
        }
    }
    driver.fsync_dir("");
    for n in [1, 3, 5] {
        driver.let_go(&format!("gone{n}"));
    }
    driver.write("stays0", 0, 8000, Write::Buffered);
    driver.syncfs();
}

fn wrap(driver: &mut Driver) {
    for round in 0..24 {
        let dir = format!("round{round}");
        driver.mkdir(&dir);
        for n in 0..24 {
            driver.create(&format!("{dir}/a-name-of-some-length-{n}"));
        }
        driver.write(&format!("{dir}/a-name-of-some-length-0"), 0, 2000, Write::Buffered);
        driver.fsync(&format!("{dir}/a-name-of-some-length-0"));
        if round >= 3 {
            let dir = format!("round{}", round - 3);
            for n in 0..24 {
                driver.unlink(&format!("{dir}/a-name-of-some-length-{n}"));
            }
            driver.rmdir(&dir);
            driver.fsync_dir("");
        }
    }
}
