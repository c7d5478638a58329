//! Seeded mixes of operations by one to four tasks (CM14, X48).

use super::driver::{Direct, Driver, Recording};
use super::random::Random;
use super::volume::Volume;
use ext4::FallocateMode;
use ext4::aio::FileId;

const OPERATIONS: usize = 200;
const MOST_FILES: usize = 12;

struct File {
    path: String,
    id: FileId,
}

/// Tasks take turns; a direct write may be under way for each of them while others go on.
struct Mix {
    driver: Driver,
    random: Random,
    files: Vec<File>,
    dirs: Vec<String>,
    under_way: Vec<Direct>,
    tasks: usize,
    block_size: u64,
}

/// Runs the mix of a seed.
pub fn run(name: &str, volume: Volume, seed: u64) -> Recording {
    let mut random = Random(seed ^ u64::from(volume.block_size) << 40);
    let mut mix = Mix {
        driver: Driver::new(name, volume),
        tasks: 1 + random.below(4),
        block_size: volume.block_size.into(),
        random,
        files: Vec::new(),
        dirs: vec![String::new()],
        under_way: Vec::new(),
    };
    for n in 0..OPERATIONS {
        mix.step(n);
    }
    mix.land_all(|_| true);
    let Mix { mut driver, files, .. } = mix;
    files.into_iter().for_each(|file| driver.close(file.id));
    driver.finish()
}

impl Mix {
    fn step(&mut self, n: usize) {
        // A task whose write is under way waits for it.
        while self.under_way.len() >= self.tasks || !self.under_way.is_empty() && self.random.once_in(4) {
            let index = self.random.below(self.under_way.len());
            let direct = self.under_way.swap_remove(index);
            self.driver.land(direct);
        }
        match self.random.below(19) {
            0 | 1 if self.files.len() < MOST_FILES => self.create(n),
            2 => self.remove(),
            3 => self.names(n),
            4 => self.rename(n),
            5 => self.attributes(n),
            6 if self.random.once_in(3) => self.driver.sync(),
            _ if self.files.is_empty() => self.create(n),
            7 | 8 => self.sync_one(),
            9 => self.truncate(),
            10 | 11 => self.buffered(),
            12 | 13 => self.fallocate(),
            14 if self.random.once_in(2) => self.atomic(),
            _ => self.direct(),
        }
    }

    /// Waits for the writes that meet `is_met`.
    fn land_all(&mut self, is_met: impl Fn(&Direct) -> bool) {
        let (met, others) = std::mem::take(&mut self.under_way).into_iter().partition(is_met);
        self.under_way = others;
        let met: Vec<Direct> = met;
        met.into_iter().for_each(|direct| self.driver.land(direct));
    }

    /// The inode lock, exclusive: whatever is under way ends first.
    fn lock(&mut self, path: &str) {
        self.land_all(|direct| direct.path() == path);
    }

    fn any_dir(&mut self) -> String {
        let index = self.random.below(self.dirs.len());
        self.dirs[index].clone()
    }

    fn new_path(&mut self, kind: &str, n: usize) -> String {
        match self.any_dir() {
            dir if dir.is_empty() => format!("{kind}{n}"),
            dir => format!("{dir}/{kind}{n}"),
        }
    }

    fn any_file(&mut self) -> (String, FileId) {
        let index = self.random.below(self.files.len());
        let file = &self.files[index];
        (file.path.clone(), file.id)
    }

    fn create(&mut self, n: usize) {
        let path = self.new_path("f", n);
        let id = self.driver.create(&path);
        self.files.push(File { path, id });
    }

    fn remove(&mut self) {
        if self.files.len() < 4 {
            return;
        }
        let index = self.random.below(self.files.len());
        let File { path, id } = self.files.swap_remove(index);
        self.lock(&path);
        self.driver.unlink(&path);
        self.driver.close(id);
    }

    fn names(&mut self, n: usize) {
        match self.random.below(4) {
            0 => {
                let path = self.new_path("dir", n);
                self.driver.mkdir(&path);
                self.dirs.push(path);
            }
            1 => {
                let path = self.new_path("link", n);
                let long = "somewhere/".repeat(1 + self.random.below(12));
                self.driver.symlink(long.as_bytes(), &path);
            }
            2 if !self.files.is_empty() => {
                // A name that stays when the file's own goes.
                let (old, _) = self.any_file();
                let new = self.new_path("hard", n);
                self.driver.link(&old, &new);
            }
            _ => {
                let dir = self.any_dir();
                self.driver.fsync_dir(&dir);
            }
        }
    }

    fn rename(&mut self, n: usize) {
        if self.files.len() < 2 {
            return;
        }
        let from = self.random.below(self.files.len());
        let old = self.files[from].path.clone();
        // Onto a new name, or over another file.
        let over = (from + 1) % self.files.len();
        let new = match self.random.once_in(2) {
            true => self.files[over].path.clone(),
            false => self.new_path("n", n),
        };
        self.lock(&old);
        self.lock(&new);
        if !self.driver.rename(&old, &new) || !self.driver.has(&new) || self.driver.has(&old) {
            return;
        }
        self.files[from].path.clone_from(&new);
        if self.files[over].path == new && over != from {
            let replaced = self.files.swap_remove(over);
            self.driver.close(replaced.id);
        }
    }

    fn attributes(&mut self, n: usize) {
        if self.files.is_empty() {
            return;
        }
        let (path, _) = self.any_file();
        self.driver.chmod(&path, 0o600 | (n % 64) as u16);
    }

    fn sync_one(&mut self) {
        let (path, id) = self.any_file();
        let datasync = self.random.once_in(2);
        self.driver.fsync(&path, id, datasync);
    }

    fn truncate(&mut self) {
        let (path, id) = self.any_file();
        self.lock(&path);
        let size = self.random.below(80_000) as u64;
        self.driver.truncate(&path, id, size);
    }

    fn buffered(&mut self) {
        let (path, id) = self.any_file();
        self.lock(&path);
        let pos = self.random.below(96 << 10) as u64;
        let len = 1 + self.random.below(9000);
        self.driver.buffered(&path, id, pos, len);
    }

    fn fallocate(&mut self) {
        let (path, id) = self.any_file();
        self.lock(&path);
        let (block, size) = (self.block_size, self.driver.size(id));
        // At block boundaries, or beside them.
        let (pos, len) = (self.random.below(72 << 10) as u64, 1 + self.random.below(24 << 10) as u64);
        let (first, next) = (pos / block * block, (pos + len).next_multiple_of(block));
        let keep_size = self.random.once_in(2);
        match self.random.below(6) {
            0 => self.driver.fallocate(&path, id, FallocateMode::Allocate { keep_size }, pos..pos + len),
            1 => self.driver.fallocate(&path, id, FallocateMode::ZeroRange { keep_size }, pos..pos + len),
            2 if next < size => self.driver.fallocate(&path, id, FallocateMode::CollapseRange, first..next),
            3 if first < size => self.driver.fallocate(&path, id, FallocateMode::InsertRange, first..next),
            _ => self.driver.fallocate(&path, id, FallocateMode::PunchHole, pos..pos + len),
        }
    }

    fn atomic(&mut self) {
        let (path, id) = self.any_file();
        self.lock(&path);
        let len = self.block_size << self.random.below(3);
        let pos = self.random.below(24) as u64 * len;
        self.driver.atomic(&path, id, pos, len as usize);
    }

    fn direct(&mut self) {
        let (path, id) = self.any_file();
        let pos = self.random.below(24) as u64 * 4096;
        let len = 4096 * (1 + self.random.below(4));
        let range = pos..pos + len as u64;
        let overlaps = |other: &Direct| other.range().start < range.end && range.start < other.range().end;
        // The lock is shared among plain overwrites; those of one place would only blur what to expect.
        let overwrite = self.driver.is_overwrite(id, pos, len);
        self.land_all(|other| other.path() == path && (!overwrite || !other.is_shared() || overlaps(other)));
        let dsync = self.random.once_in(3);
        match self.tasks {
            1 => self.driver.direct(&path, id, pos, len, dsync),
            _ => {
                let direct = self.driver.launch(&path, id, pos, len, dsync);
                self.under_way.push(direct);
            }
        }
    }
}
