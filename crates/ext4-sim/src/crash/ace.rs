//! The one-operation workloads of ACE (CM14), as its generator prints them.

use std::collections::HashMap;

use ext4::FallocateMode;
use ext4::aio::FileId;

use super::driver::{Driver, Recording};
use super::volume::Volume;
use super::workloads;

const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/ace-seq1.txt"));

/// One workload: its number and its lines.
pub struct Workload {
    /// As in the file.
    pub number: u32,
    /// One operation each.
    pub lines: Vec<&'static str>,
}

/// All 435.
pub fn workloads() -> Vec<Workload> {
    let mut workloads: Vec<Workload> = Vec::new();
    for line in TEXT.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("# run ") {
            Some(number) => {
                let number = number.trim().parse().expect("a number after # run");
                workloads.push(Workload { number, lines: Vec::new() });
            }
            None => workloads.last_mut().expect("# run comes first").lines.push(line),
        }
    }
    workloads
}

/// ACE writes `ACfoo` for A/C/foo, and `test` for the root.
fn path(name: &str) -> String {
    if name == "test" {
        return String::new();
    }
    let dirs = name.bytes().take_while(u8::is_ascii_uppercase).count();
    let mut parts: Vec<&str> = (0..dirs).map(|index| &name[index..=index]).collect();
    parts.extend(Some(&name[dirs..]).filter(|rest| !rest.is_empty()));
    parts.join("/")
}

impl Workload {
    /// As those of ours are.
    pub fn on_any_volume(self) -> workloads::Workload {
        workloads::Workload::new(format!("ace {}", self.number), move |name, volume| self.run(name, volume))
            .with_share(1)
            .in_all_modes()
    }

    fn run(&self, name: &str, volume: Volume) -> Recording {
        let mut driver = Driver::new(name, volume);
        let mut open = HashMap::new();
        for line in &self.lines {
            step(&mut driver, &mut open, line);
        }
        for (_, file) in open.drain() {
            driver.close(file);
        }
        driver.finish()
    }
}

fn mode(flags: &str) -> FallocateMode {
    let keep_size = flags.ends_with("FALLOC_FL_KEEP_SIZE");
    match flags.split('|').next() {
        Some("0" | "FALLOC_FL_KEEP_SIZE") => FallocateMode::Allocate { keep_size },
        Some("FALLOC_FL_PUNCH_HOLE") => FallocateMode::PunchHole,
        Some("FALLOC_FL_ZERO_RANGE") => FallocateMode::ZeroRange { keep_size },
        _ => panic!("ACE has no {flags}"),
    }
}

fn step(driver: &mut Driver, open: &mut HashMap<String, FileId>, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let name = words.get(1).map(|name| path(name)).unwrap_or_default();
    let number = |index: usize| words[index].parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
    match words[0] {
        "open" => {
            let file = driver.create(&name);
            if let Some(before) = open.insert(name, file) {
                driver.close(before);
            }
        }
        "close" => {
            if let Some(file) = open.remove(&name) {
                driver.close(file);
            }
        }
        // The generator does not know that its rename of a directory into itself is refused.
        "mkdir" if driver.model.get(&name).is_some() => {}
        "mkdir" => driver.mkdir(&name),
        "symlink" => driver.symlink(words[1].as_bytes(), &path(words[2])),
        "link" => driver.link(&name, &path(words[2])),
        "rename" => rename(driver, open, &name, &path(words[2])),
        "fsetxattr" => driver.xattr(&name, Some(b"value")),
        "removexattr" => driver.xattr(&name, None),
        "unlink" => driver.unlink(&name),
        "rmdir" => driver.rmdir(&name),
        "remove" => {
            match open.contains_key(&name) || driver.model.get(&name).is_some_and(|node| node.links == 1) {
                true => driver.unlink(&name),
                false => driver.rmdir(&name),
            }
        }
        "write" => driver.buffered(&name, open[&name], number(2), number(3) as usize),
        "dwrite" => driver.direct(&name, open[&name], number(2), number(3) as usize, false),
        "mmapwrite" => {
            driver.buffered(&name, open[&name], number(2), number(3) as usize);
            driver.fsync(&name, open[&name], true);
        }
        "falloc" => {
            let range = number(3)..number(3) + number(4);
            driver.fallocate(&name, open[&name], mode(words[2]), range);
        }
        "truncate" => {
            let file = driver.create(&name);
            driver.truncate(&name, file, number(2));
            driver.close(file);
        }
        "fsync" | "fdatasync" => match open.get(&name) {
            Some(&file) if driver.model.get(&name).is_some() => {
                driver.fsync(&name, file, words[0] == "fdatasync");
            }
            Some(&file) => driver.fsync_unnamed(file),
            // The generator also syncs what it never made.
            None if driver.model.get(&name).is_none() => {}
            None => driver.fsync_dir(&name),
        },
        "sync" => driver.sync(),
        "opendir" | "checkpoint" => {}
        _ => panic!("ACE has no {line}"),
    }
}

/// Open files keep their descriptors under the names that they have now.
fn rename(driver: &mut Driver, open: &mut HashMap<String, FileId>, old: &str, new: &str) {
    if !driver.rename(old, new) {
        return;
    }
    if let Some(replaced) = open.remove(new) {
        driver.close(replaced);
    }
    if let Some(file) = open.remove(old) {
        open.insert(new.to_owned(), file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_read() {
        assert_eq!(workloads().len(), 435);
        assert_eq!(path("ACfoo"), "A/C/foo");
        assert_eq!(path("bar"), "bar");
        assert_eq!(path("B"), "B");
        assert_eq!(path("test"), "");
    }
}
