//! Verdicts on one state (CM8).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use block_io::{Device, Event, Recorder, RecordingDevice};
use ext4::{Clock, Fs, Inode, MountOptions, Now};
use ext4_format::Superblock;
use ext4_format::inode::{S_IFDIR, S_IFLNK, S_IFMT};
use ext4_format::superblock::state;

use super::enumerate::{Choice, Replay, Tear};
use super::image::{Image, StateDevice};
use super::model::{Expectation, attributes, entry_hash};
use super::random::Random;
use super::volume::Volume;

/// A clock that stands still but for what a test adds.
#[derive(Default)]
pub struct TestClock(pub std::sync::atomic::AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let micros = self.0.load(std::sync::atomic::Ordering::Relaxed);
        Now { sec: 1_700_000_000 + (micros / 1_000_000) as i64, nsec: (micros % 1_000_000) as u32 * 1000 }
    }

    fn since_boot(&self) -> std::time::Duration {
        self.now().since_epoch()
    }
}

/// How test volumes are mounted: nothing happens by age.
pub fn mount_options(clock: Arc<TestClock>) -> MountOptions {
    MountOptions {
        commit_interval_ms: 3_600_000,
        write_back_age_ms: u64::MAX,
        clock,
        ..MountOptions::default()
    }
}

/// A verdict: the letter of CM8, and why.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// `a` to `g`.
    pub letter: char,
    /// For people.
    pub detail: String,
}

fn verdict(letter: char, detail: impl std::fmt::Display) -> Verdict {
    Verdict { letter, detail: detail.to_string() }
}

/// One name of a recovered tree.
#[derive(PartialEq, Eq, Clone)]
pub struct Found {
    ino: u32,
    mode: u16,
    links: u32,
    attributes: String,
    /// A file's bytes, a link's text.
    data: Vec<u8>,
}

/// A recovered tree: paths without a leading slash, "" the root; not lost+found.
pub type Tree = BTreeMap<String, Found>;

/// Reads all names and all contents.
///
/// # Errors
/// The first operation that failed.
pub fn read_tree(fs: &Arc<Fs>) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let mut dirs = vec![String::new()];
    let root = fs.lookup(b"/", true).map_err(|error| format!("/: {error}"))?;
    tree.insert(String::new(), found(fs, &root, "")?);
    while let Some(dir) = dirs.pop() {
        let mut names = Vec::new();
        fs.read_dir(format!("/{dir}").as_bytes(), &mut |name, _, _| {
            names.push(String::from_utf8_lossy(name).into_owned());
            true
        })
        .map_err(|error| format!("/{dir}: {error}"))?;
        for name in names.into_iter().filter(|name| name != "." && name != "..") {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if path == "lost+found" {
                continue;
            }
            let inode = fs
                .lookup(format!("/{path}").as_bytes(), false)
                .map_err(|error| format!("/{path}: {error}"))?;
            if inode.mode() & S_IFMT == S_IFDIR {
                dirs.push(path.clone());
            }
            let entry = found(fs, &inode, &path)?;
            if tree.insert(path.clone(), entry).is_some() {
                return Err(format!("/{path} is listed twice"));
            }
        }
    }
    Ok(tree)
}

fn found(fs: &Arc<Fs>, inode: &Arc<Inode>, path: &str) -> Result<Found, String> {
    let stat = fs.stat(inode);
    let failed = |error: ext4::Error| format!("/{path}: {error}");
    let mut xattrs = BTreeMap::new();
    for name in fs.listxattr(inode).map_err(failed)? {
        let value = fs.getxattr(inode, &name).map_err(failed)?;
        xattrs.insert(String::from_utf8_lossy(&name).into_owned(), value);
    }
    let attributes = attributes(stat.mode, &xattrs);
    let data = match stat.mode & S_IFMT {
        S_IFDIR => Vec::new(),
        S_IFLNK => fs.readlink(format!("/{path}").as_bytes()).map_err(failed)?,
        _ if stat.size > 1 << 26 => return Err(format!("/{path} has {} bytes", stat.size)),
        _ => {
            let mut data = vec![0; stat.size as usize];
            let read = fs.buffered_read(inode, 0, &mut data).map_err(failed)?;
            if read != data.len() {
                return Err(format!("/{path}: {read} of {} bytes read", data.len()));
            }
            data
        }
    };
    Ok(Found { ino: stat.ino.0, mode: stat.mode, links: stat.links, attributes, data })
}

fn tree_hash(tree: &Tree) -> u64 {
    tree.iter().fold(0, |sum, (path, found)| {
        let kind = match found.mode & S_IFMT {
            S_IFDIR => (2, &[][..]),
            S_IFLNK => (3, &found.data[..]),
            _ => (1, &[][..]),
        };
        sum.wrapping_add(entry_hash(path, found.ino, kind, found.links, &found.attributes))
    })
}

/// CM8 (c) to (e): whether a tree is one that a crash may leave.
///
/// # Errors
/// The verdict.
pub fn check_tree(tree: &Tree, expectation: &Expectation<'_>, block_size: u64) -> Result<(), Verdict> {
    let mut worst = None;
    for version in expectation.versions_of(tree_hash(tree)) {
        let wrong = tree.iter().find_map(|(path, found)| {
            let file = expectation.file_at(path, version)?;
            let text = expectation.check_file(file, &found.data, block_size).err()?;
            Some(verdict('e', format!("/{path}: {text}")))
        });
        match wrong {
            None => return Ok(()),
            Some(wrong) => worst = Some(wrong),
        }
    }
    Err(worst.unwrap_or_else(|| {
        let lines = tree
            .iter()
            .map(|(path, found)| {
                (path.clone(), format!("{} {:o} {} {}", found.ino, found.mode, found.links, found.attributes))
            })
            .collect();
        verdict('d', expectation.describe(&lines))
    }))
}

/// A state after recovery.
pub struct Recovered {
    /// The device, unmounted cleanly.
    pub device: Arc<StateDevice>,
    /// What was there.
    pub tree: Tree,
    /// The last transaction that was in the log, or is home.
    pub tid: i64,
}

/// What a recovery came to, as a sum over all blocks but the log's and the superblock, in which mounts are counted: equal
/// ones are of equal volumes, and so of equal trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome(u64);

impl Recovered {
    /// As a sum.
    pub fn outcome(&self) -> Outcome {
        Outcome(self.device.sums().volume)
    }
}

/// The superblock of a device, unless it is torn.
fn superblock(device: &StateDevice) -> Option<Superblock> {
    let mut bytes = vec![0; 1024];
    device.read(1024, &mut bytes).ok()?;
    Superblock::decode(&bytes).ok()
}

/// CM8 (a): mounts a state, reads it and unmounts it.
///
/// # Errors
/// The verdict.
pub fn recover(volume: Volume, device: Arc<StateDevice>) -> Result<Recovered, Verdict> {
    let mut tree = Tree::new();
    let tid = remount(volume, &device, |fs| {
        tree = read_tree(fs)?;
        Ok(())
    })?;
    Ok(Recovered { device, tree, tid })
}

/// Mounts a state and unmounts it; `look` sees it in between. Returns the last transaction.
fn remount(
    volume: Volume,
    device: &Arc<StateDevice>,
    look: impl FnOnce(&Arc<Fs>) -> Result<(), String>,
) -> Result<i64, Verdict> {
    // R11: two transactions after the end of the log are never used.
    const UNUSED: i64 = 2;
    let before = superblock(device);
    let (below, journal) = volume.devices(device);
    let options = MountOptions { journal_device: journal, ..mount_options(Arc::default()) };
    let (fs, report) = Fs::mount(below, &options).map_err(|error| verdict('a', format!("mount: {error}")))?;
    if report.orphans.bad > 0 {
        return Err(verdict('a', format!("{:?}", report.orphans)));
    }
    look(&fs).map_err(|text| verdict('a', text))?;
    fs.unmount().map_err(|error| verdict('a', format!("unmount: {error}")))?;
    let after = superblock(device).ok_or_else(|| verdict('a', "no superblock after it"))?;
    if let Some(before) = before {
        keeps_errors(&before, &after)?;
    }
    Ok(i64::from(report.first_tid) - UNUSED - 1)
}

/// R14: what was recorded of errors on disk is newer than what the log has of it.
fn keeps_errors(before: &Superblock, after: &Superblock) -> Result<(), Verdict> {
    let errors = |superblock: &Superblock| {
        (superblock.error_count, superblock.first_error_time(), superblock.state & state::ERROR)
    };
    let ((count, first, flag), now) = (errors(before), errors(after));
    if count == 0 || now.0 >= count && now.1 == first && now.2 == flag {
        return Ok(());
    }
    Err(verdict('a', format!("recorded errors {:?} became {now:?}", errors(before))))
}

/// CM8 (f): recovery cut after each of its own writes and flushes comes to the same. `thorough`: with all of CM5, else
/// with none and all of what was in flight. `known` has what states came to, by their sums. Returns how many states
/// that were.
///
/// # Errors
/// The verdict.
pub fn cut_recovery(
    volume: Volume,
    state: &Image,
    outcome: Outcome,
    mut thorough: Option<&mut Random>,
    known: &mut HashMap<u64, Outcome>,
) -> Result<usize, Verdict> {
    let mut replay = Replay::new(state.clone(), volume.starts(), volume.block_size as usize);
    let mut count = 0;
    for event in recovery_events(volume, state)? {
        if !replay.step(&event) {
            continue;
        }
        let choices = match &mut thorough {
            Some(random) => replay.choices(random, &|_| Tear::Pattern),
            None => vec![Choice::None, Choice::All],
        };
        for choice in choices {
            count += 1;
            second_crash(volume, &replay, choice, outcome, known)?;
        }
    }
    Ok(count)
}

/// What recovery asks its devices.
fn recovery_events(volume: Volume, state: &Image) -> Result<Vec<Event>, Verdict> {
    let recorder = Recorder::new();
    let (below, journal) = volume.devices(&Arc::new(state.device()));
    let recording = |device, number| -> Arc<dyn Device> {
        Arc::new(RecordingDevice::new(device, recorder.clone(), number))
    };
    let journal = journal.map(|journal| recording(journal, 1));
    let options = MountOptions { journal_device: journal, ..mount_options(Arc::default()) };
    let (fs, _) = Fs::mount(recording(below, 0), &options).map_err(|error| verdict('a', error))?;
    fs.shut_down();
    Ok(recorder.take())
}

fn second_crash(
    volume: Volume,
    replay: &Replay,
    choice: Choice,
    outcome: Outcome,
    known: &mut HashMap<u64, Outcome>,
) -> Result<(), Verdict> {
    let failed = |text: String| verdict('f', format!("{}: {text}", replay.describe(choice)));
    let state = replay.state(choice);
    let again = match known.entry(state.sums().all) {
        Entry::Occupied(known) => *known.get(),
        Entry::Vacant(unknown) => {
            let device = Arc::new(state.device());
            remount(volume, &device, |_| Ok(())).map_err(|verdict| failed(verdict.detail))?;
            *unknown.insert(Outcome(device.sums().volume))
        }
    };
    if again == outcome { Ok(()) } else { Err(failed("another volume than without the second crash".into())) }
}

/// Whether a tree that the kernel mounted is this one.
///
/// # Errors
/// The first difference.
pub fn same_tree_by_kernel(root: &Path, tree: &Tree) -> Result<(), String> {
    let mut paths = vec![String::new()];
    let mut count = 0;
    while let Some(path) = paths.pop() {
        let at = root.join(&path);
        let failed = |error: std::io::Error| format!("/{path}: {error}");
        let found = tree.get(&path).ok_or_else(|| format!("only the kernel has /{path}"))?;
        count += 1;
        let metadata = std::fs::symlink_metadata(&at).map_err(failed)?;
        let data = if metadata.is_dir() {
            for entry in std::fs::read_dir(&at).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                if !(path.is_empty() && name == "lost+found") {
                    paths.push(if path.is_empty() { name } else { format!("{path}/{name}") });
                }
            }
            Vec::new()
        } else if metadata.is_symlink() {
            std::fs::read_link(&at).map_err(failed)?.as_os_str().as_encoded_bytes().to_vec()
        } else {
            std::fs::read(&at).map_err(failed)?
        };
        let same = metadata.ino() == u64::from(found.ino)
            && metadata.mode() == u32::from(found.mode)
            && metadata.nlink() == u64::from(found.links)
            && data == found.data;
        if !same {
            return Err(format!("the kernel sees another /{path}: {metadata:?}, {} bytes", data.len()));
        }
    }
    if count == tree.len() { Ok(()) } else { Err(format!("the kernel has {count} of {} names", tree.len())) }
}
