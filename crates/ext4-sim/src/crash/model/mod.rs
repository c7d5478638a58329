//! What a workload did, and what a crash may have left of it (CM10).
//!
//! Names, link counts and symbolic links are one sequence of versions: the log keeps them in order, so a crash leaves
//! one of them: that of the last transaction that it left whole. Contents are kept by sector and sizes by operation,
//! because data has no order of its own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

mod expectation;
mod file_history;
mod layout;
#[cfg(test)]
mod tests;

pub use expectation::Expectation;

use super::image::SECTOR;
use layout::{Layout, SectorId};

/// Counts operations, from 1; 0 is the empty volume.
pub type Op = u32;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file, by its place in [`Model::files`].
    File(usize),
    /// A directory.
    Dir,
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
}

/// A name's inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Inode number.
    pub ino: u32,
    /// What it is.
    pub kind: Kind,
    /// Links.
    pub links: u32,
    /// Permissions and extended attributes, as [`attributes`] writes them.
    pub attributes: String,
}

/// Permission bits and extended attributes as one text.
pub fn attributes(mode: u16, xattrs: &BTreeMap<String, Vec<u8>>) -> String {
    format!("{:o} {xattrs:?}", mode & 0o7777)
}

/// The contents of a sector from `op` on; no bytes: zeros.
struct Version {
    op: Op,
    bytes: Option<Arc<[u8]>>,
    how: How,
    /// Zeroed by a truncation before its size is durable (T12): may be seen with the old size.
    any_size: bool,
    /// Of a write that failed: may be there, and what was before it may stay.
    perhaps: bool,
}

/// An operation, as the model remembers it.
struct Operation {
    /// Events before it.
    events: usize,
    /// The version of names after it.
    version: usize,
    what: String,
    tids: Tids,
}

/// Transactions that an operation's handles may have been in; the last one is not known before its end.
#[derive(Debug, Clone, Copy)]
struct Tids {
    first: i64,
    last: Option<i64>,
}

impl Tids {
    /// Of what was there before.
    const ANY: Self = Self { first: i64::MIN, last: Some(i64::MIN) };

    /// Whether all of it is there once `tid` is.
    fn is_in(self, tid: i64) -> bool {
        self.last.is_some_and(|last| last <= tid)
    }
}

/// What an fsync or its like will promise, noted when it began.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Files, and the last operation on each that is covered.
    files: Vec<(usize, Op)>,
    /// The version of names that is covered.
    names: usize,
}

/// Something durable from `event` on.
struct FileAck {
    event: usize,
    op: Op,
    /// `None`: all of the file.
    range: Option<Range<u64>>,
}

/// A regular file through its life.
#[derive(Default)]
pub struct FileHistory {
    /// Size after an operation, and how what it wrote got to the device.
    sizes: Vec<(Op, u64, How)>,
    /// Operations that failed.
    failed: Vec<Op>,
    sectors: BTreeMap<SectorId, Vec<Version>>,
    /// Where its sectors are, from an operation on; the first is in force from the beginning.
    layouts: Vec<(Op, Layout)>,
    /// Ranges that were written all or not at all.
    atomic: Vec<(Op, Range<u64>)>,
    acks: Vec<FileAck>,
    /// Operations on its contents.
    touched: Vec<Op>,
    /// Those that have not returned yet.
    in_flight: Vec<Op>,
    current: Vec<u8>,
    size_first: bool,
}

/// How a write gets to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Past the page cache.
    Direct,
    /// Through it.
    Buffered,
    /// Through the log: it is there once its transaction is (data=journal).
    Logged,
    /// The same, in one transaction (C24).
    Atomic,
}

impl How {
    fn is_logged(self) -> bool {
        matches!(self, Self::Logged | Self::Atomic)
    }
}

/// The tree and its history.
#[derive(Default)]
pub struct Model {
    /// As Linux with dioread_nolock: the size of buffered writes is durable with their blocks, which show zeros until their
    /// data has become so too. Ours is durable after the data (A15).
    pub size_first: bool,
    /// Every file that ever was.
    pub files: Vec<FileHistory>,
    tree: BTreeMap<String, Node>,
    ops: Vec<Operation>,
    /// Per version of names, a sum over the tree.
    hashes: Vec<u64>,
    /// Per version of names, when its operation was committed.
    version_tids: Vec<Tids>,
    /// Per name, what it was from a version on.
    names: BTreeMap<String, Vec<(usize, Option<Node>)>>,
    /// Version of the last change of a directory's names, or of an inode's own names.
    changed: HashMap<u32, usize>,
    /// Version in which each file got its first name: what fdatasync promises.
    created: Vec<usize>,
    /// (event, version): names up to the version are durable from the event on.
    acks: Vec<(usize, usize)>,
}

/// One entry's part of a tree's sum.
pub fn entry_hash(path: &str, ino: u32, kind_and_text: (u8, &[u8]), links: u32, attributes: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (path, ino, kind_and_text, links, attributes).hash(&mut hasher);
    hasher.finish()
}

fn of_mode(mode: u16) -> String {
    attributes(mode, &BTreeMap::new())
}

fn node_hash(path: &str, node: &Node) -> u64 {
    let kind = match &node.kind {
        Kind::File(_) => (1, &[][..]),
        Kind::Dir => (2, &[][..]),
        Kind::Symlink(text) => (3, &text[..]),
    };
    entry_hash(path, node.ino, kind, node.links, &node.attributes)
}

fn sectors(bytes: Range<u64>) -> Range<u64> {
    bytes.start / SECTOR as u64..bytes.end / SECTOR as u64
}

/// The directory of a path; "" is the root.
pub fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..slash])
}

impl Model {
    /// A volume with a root of `root_links` links.
    pub fn new(root_ino: u32, root_links: u32) -> Self {
        let root = Node { ino: root_ino, kind: Kind::Dir, links: root_links, attributes: of_mode(0o755) };
        let mut model =
            Self { hashes: vec![node_hash("", &root)], version_tids: vec![Tids::ANY], ..Self::default() };
        model.names.insert(String::new(), vec![(0, Some(root.clone()))]);
        model.tree.insert(String::new(), root);
        let what = "the empty volume".into();
        model.ops.push(Operation { events: 0, version: 0, what, tids: Tids::ANY });
        model
    }

    /// An operation begins after so many events; its handles will be in transaction `tid` or later.
    pub fn begin(&mut self, events: usize, what: String, tid: u32) -> Op {
        let tids = Tids { first: tid.into(), last: None };
        self.ops.push(Operation { events, version: self.version(), what, tids });
        self.op()
    }

    /// An operation has returned; a handle started now would be in transaction `tid`.
    pub fn ended(&mut self, op: Op, tid: u32) {
        self.ops[op as usize].tids.last = Some(tid.into());
    }

    /// The operation that began last.
    pub fn op(&self) -> Op {
        self.ops.len() as Op - 1
    }

    fn version(&self) -> usize {
        self.hashes.len() - 1
    }

    /// The node of a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.tree.get(path)
    }

    /// Paths that are there.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.tree.keys()
    }

    fn file_of(&self, path: &str) -> usize {
        match self.tree.get(path).map(|node| &node.kind) {
            Some(Kind::File(file)) => *file,
            other => panic!("{path} is no file in the model but {other:?}"),
        }
    }

    /// One change of names: all of `changes` at once.
    fn change_names(&mut self, changes: Vec<(String, Option<Node>)>) {
        let version = self.hashes.len();
        let mut hash = self.hashes[version - 1];
        for (path, node) in changes {
            let old = match &node {
                Some(node) => self.tree.insert(path.clone(), node.clone()),
                None => self.tree.remove(&path),
            };
            for node in old.iter().chain(&node) {
                self.changed.insert(node.ino, version);
            }
            // Attributes of what a directory names are not the directory's.
            let is_entry = old.as_ref().map(|node| node.ino) != node.as_ref().map(|node| node.ino);
            if let Some(dir) = self.tree.get(parent(&path)).filter(|_| is_entry) {
                self.changed.insert(dir.ino, version);
            }
            hash = hash.wrapping_sub(old.map_or(0, |old| node_hash(&path, &old)));
            hash = hash.wrapping_add(node.as_ref().map_or(0, |node| node_hash(&path, node)));
            self.names.entry(path).or_default().push((version, node));
        }
        self.hashes.push(hash);
        let operation = self.ops.last_mut().expect("an operation has begun");
        operation.version = version;
        self.version_tids.push(operation.tids);
    }

    fn with_links(&self, path: &str, change: i32) -> (String, Option<Node>) {
        let mut node = self.tree[path].clone();
        node.links = node.links.checked_add_signed(change).expect("links stay in range");
        (path.to_owned(), Some(node))
    }

    /// A new regular file.
    pub fn create(&mut self, path: &str, ino: u32) {
        let mut file = FileHistory { size_first: self.size_first, ..FileHistory::default() };
        file.sizes.push((self.op(), 0, How::Direct));
        file.layouts.push((0, Layout::default()));
        self.files.push(file);
        self.created.push(self.hashes.len());
        let kind = Kind::File(self.files.len() - 1);
        self.change_names(vec![(
            path.to_owned(),
            Some(Node { ino, kind, links: 1, attributes: of_mode(0o644) }),
        )]);
    }

    /// A new directory.
    pub fn mkdir(&mut self, path: &str, ino: u32) {
        let above = self.with_links(parent(path), 1);
        let node = Node { ino, kind: Kind::Dir, links: 2, attributes: of_mode(0o755) };
        self.change_names(vec![above, (path.to_owned(), Some(node))]);
    }

    /// A new symbolic link.
    pub fn symlink(&mut self, path: &str, ino: u32, text: &[u8]) {
        let node = Node { ino, kind: Kind::Symlink(text.to_vec()), links: 1, attributes: of_mode(0o777) };
        self.change_names(vec![(path.to_owned(), Some(node))]);
    }

    fn other_names(&self, ino: u32, but: &str) -> Vec<String> {
        self.tree
            .iter()
            .filter(|(path, node)| node.ino == ino && *path != but)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// A name of a file or a symbolic link goes.
    pub fn unlink(&mut self, path: &str) {
        let node = self.tree[path].clone();
        let mut changes = vec![(path.to_owned(), None)];
        if node.links > 1 {
            changes.extend(self.other_names(node.ino, path).iter().map(|other| self.with_links(other, -1)));
        }
        self.change_names(changes);
    }

    /// A directory goes.
    pub fn rmdir(&mut self, path: &str) {
        let above = self.with_links(parent(path), -1);
        self.change_names(vec![above, (path.to_owned(), None)]);
    }

    /// Another name for a file.
    pub fn link(&mut self, old: &str, new: &str) {
        let ino = self.tree[old].ino;
        let mut node = self.tree[old].clone();
        node.links += 1;
        let mut changes = vec![(new.to_owned(), Some(node))];
        changes.extend(self.other_names(ino, new).iter().map(|other| self.with_links(other, 1)));
        self.change_names(changes);
    }

    /// Permissions or extended attributes change.
    pub fn change_attributes(&mut self, path: &str, attributes: String) {
        let ino = self.tree[path].ino;
        let mut paths = self.other_names(ino, path);
        paths.push(path.to_owned());
        let changed = |path: String| {
            let node = Node { attributes: attributes.clone(), ..self.tree[&path].clone() };
            (path, Some(node))
        };
        let changes = paths.into_iter().map(changed).collect();
        self.change_names(changes);
    }

    /// A name moves, and replaces what `new` was.
    pub fn rename(&mut self, old: &str, new: &str) {
        let moved = self.tree[old].clone();
        let replaced = self.tree.get(new).cloned();
        if replaced.as_ref().is_some_and(|node| node.ino == moved.ino) {
            return;
        }
        let mut changes = Vec::new();
        if let Some(node) = replaced.as_ref().filter(|node| node.kind != Kind::Dir && node.links > 1) {
            changes.extend(self.other_names(node.ino, new).iter().map(|other| self.with_links(other, -1)));
        }
        if moved.kind == Kind::Dir {
            let mut links: BTreeMap<&str, i32> = BTreeMap::new();
            *links.entry(parent(old)).or_default() -= 1;
            *links.entry(parent(new)).or_default() += i32::from(replaced.is_none());
            for (dir, change) in links.into_iter().filter(|(_, change)| *change != 0) {
                changes.push(self.with_links(dir, change));
            }
            let inside = format!("{old}/");
            for (path, node) in
                self.tree.range(inside.clone()..).take_while(|(path, _)| path.starts_with(&inside))
            {
                changes.push((path.clone(), None));
                changes.push((format!("{new}/{}", &path[inside.len()..]), Some(node.clone())));
            }
        }
        changes.push((old.to_owned(), None));
        changes.push((new.to_owned(), Some(moved)));
        self.change_names(changes);
    }

    /// Bytes are written to a file.
    pub fn write(&mut self, path: &str, pos: u64, data: &[u8], how: How) {
        let (op, file) = (self.op(), self.file_of(path));
        let file = &mut self.files[file];
        file.touched.push(op);
        let end = pos as usize + data.len();
        let grows = end > file.current.len();
        if grows {
            file.current.resize(end, 0);
            file.sizes.push((op, end as u64, how));
        }
        file.current[pos as usize..end].copy_from_slice(data);
        file.note_sectors(op, pos, end as u64, how, false);
        if how == How::Atomic {
            file.atomic.push((op, pos..end as u64));
        }
    }

    /// A file gets another size.
    pub fn truncate(&mut self, path: &str, size: u64, block_size: u64) {
        let (op, file) = (self.op(), self.file_of(path));
        let file = &mut self.files[file];
        file.touched.push(op);
        let old = file.current.len() as u64;
        file.current.resize(size as usize, 0);
        file.sizes.push((op, size, How::Direct));
        if size < old {
            let eof = size.next_multiple_of(block_size).min(old);
            file.note_sectors(op, size, eof, How::Direct, true);
            file.note_sectors(op, eof.next_multiple_of(SECTOR as u64), old, How::Direct, false);
        }
    }

    /// fallocate: `change` does to a file's bytes what it does to the file.
    pub fn fallocate(&mut self, path: &str, from: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let (op, file) = (self.op(), self.file_of(path));
        let file = &mut self.files[file];
        file.touched.push(op);
        let before = std::mem::take(&mut file.current);
        file.current.clone_from(&before);
        change(&mut file.current);
        let (old, new) = (before.len() as u64, file.current.len() as u64);
        if new != old {
            file.sizes.push((op, new, How::Direct));
        }
        // Sectors that stay as they are keep their history.
        let sector_bytes = SECTOR as u64;
        for sector in from / sector_bytes..old.max(new).div_ceil(sector_bytes) {
            let at = sector * sector_bytes;
            let bytes = |data: &[u8]| {
                let range = (at as usize).min(data.len())..((at + sector_bytes) as usize).min(data.len());
                let mut bytes = data[range].to_vec();
                bytes.resize(SECTOR, 0);
                bytes
            };
            if bytes(&before) != bytes(&file.current) {
                file.note_sectors(op, at, at + sector_bytes, How::Buffered, false);
            }
        }
    }

    /// Bytes are taken out of a file, whole sectors.
    pub fn collapse(&mut self, path: &str, range: Range<u64>) {
        let (start, end) = (range.start as usize, range.end as usize);
        self.change_layout(
            path,
            |layout, _| layout.collapse(sectors(range)),
            |data| drop(data.drain(start..end)),
        );
    }

    /// Zeros are put into a file, whole sectors.
    pub fn insert(&mut self, path: &str, range: Range<u64>) {
        let (start, len) = (range.start as usize, (range.end - range.start) as usize);
        self.change_layout(
            path,
            |layout, op| layout.insert(sectors(range), u64::from(op) << 32),
            |data| drop(data.splice(start..start, vec![0; len])),
        );
    }

    fn change_layout(
        &mut self,
        path: &str,
        new: impl FnOnce(&Layout, Op) -> Layout,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        let (op, file) = (self.op(), self.file_of(path));
        let file = &mut self.files[file];
        file.touched.push(op);
        let layout = new(file.layout_at(op), op);
        file.layouts.push((op, layout));
        change(&mut file.current);
        file.sizes.push((op, file.current.len() as u64, How::Direct));
    }

    /// A write that returns later than operations that begin after it.
    pub fn in_flight(&mut self, path: &str, op: Op) {
        let file = self.file_of(path);
        self.files[file].in_flight.push(op);
    }

    /// It has returned.
    pub fn landed(&mut self, path: &str, op: Op) {
        let file = self.file_of(path);
        self.files[file].in_flight.retain(|&other| other != op);
    }

    /// It has failed: it may be seen in whole, in part or not at all, and what it added to the file is cut off again.
    pub fn failed(&mut self, path: &str, op: Op) {
        let file = self.file_of(path);
        let file = &mut self.files[file];
        file.in_flight.retain(|&other| other != op);
        file.failed.push(op);
        file.sectors.values_mut().flatten().filter(|version| version.op == op).for_each(|version| {
            version.perhaps = true;
        });
        let size = file.sizes.iter().rev().find(|(other, ..)| !file.failed.contains(other));
        file.current.truncate(size.map_or(0, |(_, size, _)| *size as usize));
    }

    /// The last operation on a file that a sync that begins now covers.
    fn covered(&self, file: usize) -> Op {
        self.files[file].in_flight.iter().min().map_or(self.op(), |&op| op - 1)
    }

    /// fdatasync of a file: data, size, and that the file exists.
    pub fn promise_data(&self, path: &str) -> Promise {
        let file = self.file_of(path);
        Promise { files: vec![(file, self.covered(file))], names: self.created[file] }
    }

    /// fsync of a file: its names and attributes too.
    pub fn promise_file(&self, path: &str) -> Promise {
        Promise { names: self.promise_names(path).names, ..self.promise_data(path) }
    }

    /// fsync of a directory and what is in it.
    pub fn promise_names(&self, path: &str) -> Promise {
        let names = self.changed.get(&self.tree[path].ino).copied().unwrap_or(0);
        Promise { files: Vec::new(), names }
    }

    /// syncfs.
    pub fn promise_all(&self) -> Promise {
        let files = (0..self.files.len()).map(|file| (file, self.covered(file))).collect();
        Promise { files, names: self.version() }
    }

    /// It returned after so many events.
    pub fn kept(&mut self, promise: Promise, event: usize) {
        for (file, op) in promise.files {
            self.files[file].acks.push(FileAck { event, op, range: None });
        }
        self.acks.push((event, promise.names));
    }

    /// An O_DSYNC write of `range` returned: these bytes and the size that they need.
    pub fn kept_range(&mut self, path: &str, op: Op, event: usize, range: Range<u64>) {
        let file = self.file_of(path);
        self.files[file].acks.push(FileAck { event, op, range: Some(range) });
        self.acks.push((event, self.created[file]));
    }

    /// Events after which more is promised than before.
    pub fn ack_events(&self) -> Vec<usize> {
        let mut events: Vec<usize> = self.acks.iter().map(|(event, _)| *event).collect();
        events.dedup();
        events
    }
}
