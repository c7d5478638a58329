//! What a workload did, and what a crash may have left of it (CM10).
//!
//! Names, link counts and symbolic links are one sequence of versions: the log keeps them in order, so a crash leaves
//! one of them. Contents are kept by sector and sizes by operation, because data has no order of its own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::image::SECTOR;

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
    /// In the page cache until it is written back.
    buffered: bool,
    /// Zeroed by a truncation before its size is durable (T12): may be seen with the old size.
    any_size: bool,
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
    /// Size after an operation; whether a buffered write set it.
    sizes: Vec<(Op, u64, bool)>,
    sectors: BTreeMap<u64, Vec<Version>>,
    acks: Vec<FileAck>,
    /// Operations on its contents.
    touched: Vec<Op>,
    current: Vec<u8>,
}

/// How a write gets to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Past the page cache.
    Direct,
    /// Through it.
    Buffered,
}

/// The tree and its history.
#[derive(Default)]
pub struct Model {
    /// Every file that ever was.
    pub files: Vec<FileHistory>,
    tree: BTreeMap<String, Node>,
    /// Per operation: the events before it, the version of names after it, and what it was.
    ops: Vec<(usize, usize, String)>,
    /// Per version of names, a sum over the tree.
    hashes: Vec<u64>,
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

/// The directory of a path; "" is the root.
pub fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..slash])
}

impl Model {
    /// A volume with a root of `root_links` links.
    pub fn new(root_ino: u32, root_links: u32) -> Self {
        let root = Node { ino: root_ino, kind: Kind::Dir, links: root_links, attributes: of_mode(0o755) };
        let mut model = Self { hashes: vec![node_hash("", &root)], ..Self::default() };
        model.names.insert(String::new(), vec![(0, Some(root.clone()))]);
        model.tree.insert(String::new(), root);
        model.ops.push((0, 0, "the empty volume".into()));
        model
    }

    /// An operation begins after so many events.
    pub fn begin(&mut self, events: usize, what: String) {
        let version = self.version();
        self.ops.push((events, version, what));
    }

    fn op(&self) -> Op {
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
            if let Some(dir) = self.tree.get(parent(&path)) {
                self.changed.insert(dir.ino, version);
            }
            hash = hash.wrapping_sub(old.map_or(0, |old| node_hash(&path, &old)));
            hash = hash.wrapping_add(node.as_ref().map_or(0, |node| node_hash(&path, node)));
            self.names.entry(path).or_default().push((version, node));
        }
        self.hashes.push(hash);
        self.ops.last_mut().expect("an operation has begun").1 = version;
    }

    fn with_links(&self, path: &str, change: i32) -> (String, Option<Node>) {
        let mut node = self.tree[path].clone();
        node.links = node.links.checked_add_signed(change).expect("links stay in range");
        (path.to_owned(), Some(node))
    }

    /// A new regular file.
    pub fn create(&mut self, path: &str, ino: u32) {
        let mut file = FileHistory::default();
        file.sizes.push((self.op(), 0, false));
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
            file.sizes.push((op, end as u64, how == How::Buffered));
        }
        file.current[pos as usize..end].copy_from_slice(data);
        file.note_sectors(op, pos, end as u64, how == How::Buffered, false);
    }

    /// A file gets another size.
    pub fn truncate(&mut self, path: &str, size: u64, block_size: u64) {
        let (op, file) = (self.op(), self.file_of(path));
        let file = &mut self.files[file];
        file.touched.push(op);
        let old = file.current.len() as u64;
        file.current.resize(size as usize, 0);
        file.sizes.push((op, size, false));
        if size < old {
            let eof = size.next_multiple_of(block_size).min(old);
            file.note_sectors(op, size, eof, false, true);
            file.note_sectors(op, eof.next_multiple_of(SECTOR as u64), old, false, false);
        }
    }

    /// fsync of a file returned after so many events.
    pub fn acked_file(&mut self, path: &str, event: usize) {
        self.acked_data(path, event, None);
        self.acked_names(path, event);
    }

    /// fdatasync of a file, or an O_DSYNC write of `range`, returned: data, size, and that the file exists.
    pub fn acked_data(&mut self, path: &str, event: usize, range: Option<Range<u64>>) {
        let (op, file) = (self.op(), self.file_of(path));
        self.files[file].acks.push(FileAck { event, op, range });
        self.acks.push((event, self.created[file]));
    }

    /// The names of a file, or of a directory and what is in it.
    pub fn acked_names(&mut self, path: &str, event: usize) {
        let version = self.changed.get(&self.tree[path].ino).copied().unwrap_or(0);
        self.acks.push((event, version));
    }

    /// syncfs returned after so many events.
    pub fn acked_all(&mut self, event: usize) {
        let op = self.op();
        for file in &mut self.files {
            file.acks.push(FileAck { event, op, range: None });
        }
        let version = self.version();
        self.acks.push((event, version));
    }

    /// Events after which more is promised than before.
    pub fn ack_events(&self) -> Vec<usize> {
        let mut events: Vec<usize> = self.acks.iter().map(|(event, _)| *event).collect();
        events.dedup();
        events
    }

    /// What may be seen after a crash once `events` have happened.
    pub fn expectation(&self, events: usize) -> Expectation<'_> {
        let now = self.ops.partition_point(|(start, ..)| *start <= events) - 1;
        let least = self.acks.iter().filter(|(event, _)| *event <= events).map(|(_, version)| *version).max();
        let versions = least.unwrap_or(0)..self.ops[now].1 + 1;
        Expectation { model: self, events, now: now as Op, versions }
    }

    fn node_at(&self, path: &str, version: usize) -> Option<&Node> {
        let history = self.names.get(path)?;
        let index = history.partition_point(|(from, _)| *from <= version).checked_sub(1)?;
        history[index].1.as_ref()
    }
}

/// What may be there.
pub struct Expectation<'m> {
    model: &'m Model,
    events: usize,
    now: Op,
    versions: Range<usize>,
}

impl Expectation<'_> {
    /// The operation that was running, or the last.
    pub fn operation(&self) -> &str {
        &self.model.ops[self.now as usize].2
    }

    /// Which promises are in force: equal numbers, equal expectations of what is durable.
    pub fn promises(&self) -> usize {
        self.model.acks.partition_point(|(event, _)| *event <= self.events)
    }

    /// The versions of names that a tree with this sum may be, latest first.
    pub fn versions_of(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        self.versions.clone().rev().filter(move |&version| self.model.hashes[version] == hash)
    }

    /// The file of a path in a version of names.
    pub fn file_at(&self, path: &str, version: usize) -> Option<&FileHistory> {
        match self.model.node_at(path, version)?.kind {
            Kind::File(file) => Some(&self.model.files[file]),
            _ => None,
        }
    }

    /// How a tree differs from the versions that it may be, for people.
    pub fn describe(&self, found: &BTreeMap<String, String>) -> String {
        let mut text = format!("names may be of versions {:?}\n", self.versions);
        for version in [self.versions.start, self.versions.end - 1] {
            for (path, history) in &self.model.names {
                let wanted = self
                    .model
                    .node_at(path, version)
                    .map(|node| format!("{} {:?} {} {}", node.ino, node.kind, node.links, node.attributes));
                let is = found.get(path);
                let same = match (&wanted, is) {
                    (None, None) => true,
                    (Some(_), Some(is)) => {
                        let node = self.model.node_at(path, version).expect("just found");
                        is.starts_with(&format!("{} ", node.ino))
                            && is.ends_with(&format!(" {} {}", node.links, node.attributes))
                    }
                    _ => false,
                };
                if !same {
                    text += &format!(
                        "version {version}: {path:?} wanted {wanted:?} found {is:?} ({} changes)\n",
                        history.len()
                    );
                }
            }
        }
        for (path, is) in found.iter().filter(|(path, _)| !self.model.names.contains_key(*path)) {
            text += &format!("{path:?} found {is}, which never was\n");
        }
        text
    }

    /// Whether a file may have these contents.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_file(&self, file: &FileHistory, data: &[u8], block_size: u64) -> Result<(), String> {
        let in_force = || file.acks.iter().filter(|ack| ack.event <= self.events);
        let acked = in_force().filter(|ack| ack.range.is_none()).map(|ack| ack.op).max().unwrap_or(0);
        let size = data.len() as u64;
        let promised_end = in_force()
            .filter(|ack| ack.op > acked)
            .filter_map(|ack| Some((ack.op, ack.range.clone()?.end)))
            .max();
        file.check_size(size, promised_end.map_or(acked, |(op, _)| op.max(acked)), self.now, block_size)?;
        for (sector, found) in (0u64..).zip(data.chunks(SECTOR)) {
            let at = sector * SECTOR as u64;
            let acked = in_force()
                .filter(|ack| ack.range.as_ref().is_none_or(|range| range.contains(&at)))
                .map(|ack| ack.op)
                .max()
                .unwrap_or(0);
            file.check_sector(sector, found, size, acked, self.now)?;
        }
        Ok(())
    }
}

impl FileHistory {
    fn note_sectors(&mut self, op: Op, from: u64, to: u64, buffered: bool, any_size: bool) {
        let sector_bytes = SECTOR as u64;
        for sector in from / sector_bytes..to.div_ceil(sector_bytes) {
            let at = (sector * sector_bytes) as usize;
            let bytes = (at < self.current.len()).then(|| {
                let mut bytes = vec![0; SECTOR];
                let end = self.current.len().min(at + SECTOR);
                bytes[..end - at].copy_from_slice(&self.current[at..end]);
                Arc::from(bytes)
            });
            self.sectors.entry(sector).or_default().push(Version { op, bytes, buffered, any_size });
        }
    }

    /// Sizes in force in `acked..=now`: that of `acked` and all later ones.
    fn sizes_since(&self, acked: Op, now: Op) -> impl Iterator<Item = (Op, u64, bool)> + '_ {
        let base = self.sizes.partition_point(|(op, ..)| *op <= acked).saturating_sub(1);
        self.sizes[base..].iter().copied().filter(move |(op, ..)| *op <= now)
    }

    /// Size only as some operation set it; write-back of one write may end at any block (A15).
    fn check_size(&self, size: u64, acked: Op, now: Op, block_size: u64) -> Result<(), String> {
        let mut before = u64::MAX;
        for (op, after, buffered) in self.sizes_since(acked, now) {
            let between =
                buffered && op > acked && size.is_multiple_of(block_size) && (before..after).contains(&size);
            if size == after || between {
                return Ok(());
            }
            before = after;
        }
        let sizes: Vec<_> = self.sizes_since(acked, now).collect();
        Err(format!("size {size}, which none of {sizes:?} (operation, size, buffered) set"))
    }

    fn check_sector(&self, sector: u64, found: &[u8], size: u64, acked: Op, now: Op) -> Result<(), String> {
        let end = (sector * SECTOR as u64 + found.len() as u64).min(size);
        let zero = Version { op: 0, bytes: None, buffered: false, any_size: false };
        let none = Vec::new();
        let history = self.sectors.get(&sector).unwrap_or(&none);
        let versions: Vec<&Version> = std::iter::once(&zero).chain(history).collect();
        let matches = |version: &Version| match &version.bytes {
            Some(bytes) => bytes[..found.len()] == *found,
            None => found.iter().all(|&byte| byte == 0),
        };
        for (index, version) in versions.iter().enumerate() {
            // In force from its operation to the next one's.
            let until = versions.get(index + 1).map_or(Op::MAX, |next| next.op);
            if until <= acked || version.op > now {
                continue;
            }
            let since = version.op.max(acked);
            let covered = self
                .sizes_since(since, now)
                .any(|(op, after, _)| (op < until || op <= since) && after >= end);
            let allowed = covered
                || version.any_size
                || self.is_late(index, &versions, end, acked, now)
                || self.is_early(version, size, acked);
            if allowed && matches(version) {
                return Ok(());
            }
        }
        let known = versions
            .iter()
            .map(|version| (version.op, version.bytes.as_ref().map(|bytes| bytes[0])))
            .collect::<Vec<_>>();
        Err(format!(
            "sector {sector} of {size} bytes starts {:02x?}, may be of operations {acked}..={now}, versions {known:02x?}",
            &found[..found.len().min(16)]
        ))
    }

    /// Whether the version is newer than the size: bytes written in place are there before the truncation that came before
    /// them has committed, with the zeros behind what was then the end.
    fn is_early(&self, version: &Version, size: u64, acked: Op) -> bool {
        let before = |(op, after, _): (Op, u64, bool)| op < version.op && after == size;
        version.op > acked && self.sizes_since(acked, version.op).any(before)
    }

    /// Whether the next version may have stayed in the page cache while the size grew past it: a direct write or a
    /// truncation writes back the pages that it meets, not those before them.
    fn is_late(&self, index: usize, versions: &[&Version], end: u64, acked: Op, now: Op) -> bool {
        match versions.get(index + 1) {
            Some(next) if next.buffered && next.op > acked && next.op <= now => {
                let met = self.touched.iter().any(|&op| op > next.op && op <= now);
                met && self.sizes_since(next.op, now).any(|(_, after, _)| after >= end)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let mut model = Model::new(2, 3);
        model.begin(0, "create".into());
        model.create("f", 12);
        model.begin(10, "write".into());
        model.write("f", 0, &[7; 1024], How::Direct);
        model.acked_file("f", 20);
        model.begin(20, "again".into());
        model.write("f", 512, &[9; 1024], How::Direct);
        model
    }

    fn check(events: usize, data: &[u8]) -> Result<(), String> {
        let model = model();
        let expectation = model.expectation(events);
        expectation.check_file(&model.files[0], data, 1024)
    }

    #[test]
    fn old_new_and_nothing_else() {
        assert!(check(15, &[]).is_ok());
        assert!(check(15, &[7; 1024]).is_ok());
        assert!(check(15, &[0; 1024]).is_err(), "new size, old data");
        assert!(check(19, &[7; 512]).is_err(), "a size that nobody set");
        assert!(check(20, &[]).is_err(), "acknowledged");
        assert!(check(20, &[7; 1024]).is_ok());
        assert!(check(25, &[[7; 512], [9; 512]].concat()).is_ok(), "torn");
        assert!(check(25, &[[7; 512], [9; 512], [9; 512]].concat()).is_ok());
        assert!(check(25, &[[7; 512], [9; 512], [0; 512]].concat()).is_err());
        assert!(check(25, &[[7; 512], [8; 512], [9; 512]].concat()).is_err(), "foreign");
        assert!(check(25, &[[0; 512], [9; 512], [9; 512]].concat()).is_err(), "lost");
    }

    #[test]
    fn names_in_order() {
        let mut model = model();
        model.begin(30, "mkdir".into());
        model.mkdir("d", 13);
        model.begin(40, "rename".into());
        model.rename("f", "d/g");
        assert_eq!(model.expectation(25).versions, 1..2, "the file's name is acknowledged with it");
        assert_eq!(model.expectation(50).versions, 1..4);
        assert_eq!(model.get("").map(|root| root.links), Some(4));
        assert!(model.get("f").is_none() && model.get("d/g").is_some());
    }
}
