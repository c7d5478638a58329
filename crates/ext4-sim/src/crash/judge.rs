//! Verdicts on one state (CM8).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use block_io::{Device, Recorder, RecordingDevice};
use ext4::{Clock, Fs, Inode, MountOptions, Now};
use ext4_format::inode::{S_IFDIR, S_IFLNK, S_IFMT};

use super::enumerate::Replay;
use super::image::{Image, StateDevice};
use super::model::{Expectation, attributes, entry_hash};
use super::random::Random;

/// A clock that stands still but for what a test adds.
#[derive(Default)]
pub struct TestClock(pub std::sync::atomic::AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let micros = self.0.load(std::sync::atomic::Ordering::Relaxed);
        Now { sec: 1_700_000_000 + (micros / 1_000_000) as i64, nsec: (micros % 1_000_000) as u32 * 1000 }
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
}

/// CM8 (a): mounts a state, reads it and unmounts it.
///
/// # Errors
/// The verdict.
pub fn recover(device: Arc<StateDevice>) -> Result<Recovered, Verdict> {
    let options = mount_options(Arc::default());
    let (fs, report) =
        Fs::mount(device.clone(), &options).map_err(|error| verdict('a', format!("mount: {error}")))?;
    if report.orphans.bad > 0 {
        return Err(verdict('a', format!("{:?}", report.orphans)));
    }
    let tree = read_tree(&fs).map_err(|text| verdict('a', text))?;
    fs.unmount().map_err(|error| verdict('a', format!("unmount: {error}")))?;
    Ok(Recovered { device, tree })
}

/// CM8 (f): recovery cut at each of its own writes ends the same. `thorough`: with the subsets of CM5, else with none
/// and all of what was in flight. Returns how many states that were.
///
/// # Errors
/// The verdict.
pub fn cut_recovery(
    state: Arc<Vec<u8>>,
    tree: &Tree,
    block_size: usize,
    thorough: Option<&mut Random>,
) -> Result<usize, Verdict> {
    let recorder = Recorder::new();
    let device = Arc::new(StateDevice::new(state.clone()));
    let recording: Arc<dyn Device> = Arc::new(RecordingDevice::new(device, recorder.clone(), 0));
    let (fs, _) =
        Fs::mount(recording, &mount_options(Arc::default())).map_err(|error| verdict('a', error))?;
    fs.shut_down();
    let mut replay = Replay::new(Image::new(state), block_size);
    let mut count = 0;
    let mut random = thorough;
    for event in recorder.take() {
        if !replay.step(&event) {
            continue;
        }
        let mut two = Random(1);
        let (choices, budget) = match &mut random {
            Some(random) => (&mut **random, Some(20)),
            None => (&mut two, Some(0)),
        };
        for state in replay.states(choices, budget, &|_| false) {
            count += 1;
            let again = recover(Arc::new(replay.image.device(&state.patches))).map_err(|verdict| {
                Verdict { letter: 'f', detail: format!("{}: {}", state.choice, verdict.detail) }
            })?;
            if again.tree != *tree {
                return Err(verdict(
                    'f',
                    format!("{}: another tree than without the second crash", state.choice),
                ));
            }
        }
    }
    Ok(count)
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
