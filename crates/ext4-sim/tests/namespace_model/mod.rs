//! A tree of names in memory, with Linux's errnos.

use std::collections::BTreeMap;

use ext4::XattrSet;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const ENOTEMPTY: i32 = 39;
const ENODATA: i32 = 61;

/// F82: an inode of 256 bytes without its fixed fields, magic and terminator.
const XATTR_ROOM: usize = 256 - 128 - 32 - 4 - 4;

/// xorshift: the same load for the same seed.
pub struct Random(pub u64);

impl Random {
    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    /// One to four names out of a few, so that they often meet.
    pub fn path(&mut self) -> String {
        let names = ["a", "b", "c", "d", "a name of some length", "żółw"];
        let depth = [1, 1, 2, 2, 2, 3, 3, 4][self.below(8)];
        (0..depth).map(|_| format!("/{}", names[self.below(names.len())])).collect()
    }

    pub fn xattr_name(&mut self) -> &'static str {
        ["user.a", "user.longer name", "trusted.t", "security.s"][self.below(4)]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    Symlink,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    pub links: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    names: BTreeMap<String, usize>,
}

impl Node {
    fn new(kind: Kind) -> Self {
        let links = if kind == Kind::Dir { 2 } else { 1 };
        Self { kind, links, xattrs: BTreeMap::new(), names: BTreeMap::new() }
    }
}

/// Nodes by number; 0 is the root.
pub struct Model {
    nodes: Vec<Node>,
}

type Errno = Result<(), i32>;

fn code(result: Errno) -> i32 {
    result.err().unwrap_or(0)
}

impl Model {
    /// A new volume: a root with lost+found.
    pub fn new() -> Self {
        let mut model = Self { nodes: vec![Node::new(Kind::Dir)] };
        assert_eq!(model.make("/lost+found", Kind::Dir), 0);
        model
    }

    /// Every path with its node.
    pub fn tree(&self) -> Vec<(String, Node)> {
        let mut all = vec![("/".to_owned(), 0)];
        let mut at = 0;
        while let Some((path, number)) = all.get(at).cloned() {
            let prefix = if path == "/" { "" } else { &path };
            let below = &self.nodes[number].names;
            all.extend(below.iter().map(|(name, &node)| (format!("{prefix}/{name}"), node)));
            at += 1;
        }
        all.into_iter().map(|(path, node)| (path, self.nodes[node].clone())).collect()
    }

    /// The directory of a path, and the name in it. The model's symbolic links dangle: ENOENT through them.
    fn parent<'p>(&self, path: &'p str) -> Result<(usize, &'p str), i32> {
        let (dir, name) = path.rsplit_once('/').ok_or(EINVAL)?;
        let mut node = 0;
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            node = *self.nodes[node].names.get(part).ok_or(ENOENT)?;
            match self.nodes[node].kind {
                Kind::Dir => {}
                Kind::File => return Err(ENOTDIR),
                Kind::Symlink => return Err(ENOENT),
            }
        }
        if name.is_empty() { Err(EBUSY) } else { Ok((node, name)) }
    }

    fn find(&self, path: &str) -> Result<usize, i32> {
        let (dir, name) = self.parent(path)?;
        self.nodes[dir].names.get(name).copied().ok_or(ENOENT)
    }

    /// creat with O_EXCL, mkdir or symlink.
    pub fn make(&mut self, path: &str, kind: Kind) -> i32 {
        code(self.parent(path).and_then(|(dir, name)| {
            if self.nodes[dir].names.contains_key(name) {
                return Err(EEXIST);
            }
            let number = self.nodes.len();
            self.nodes.push(Node::new(kind));
            self.nodes[dir].names.insert(name.to_owned(), number);
            self.nodes[dir].links += u32::from(kind == Kind::Dir);
            Ok(())
        }))
    }

    pub fn unlink(&mut self, path: &str) -> i32 {
        code(self.try_unlink(path))
    }

    fn try_unlink(&mut self, path: &str) -> Errno {
        let (dir, name) = self.parent(path)?;
        let node = self.find(path)?;
        if self.nodes[node].kind == Kind::Dir {
            return Err(EISDIR);
        }
        self.nodes[dir].names.remove(name);
        self.nodes[node].links -= 1;
        Ok(())
    }

    pub fn rmdir(&mut self, path: &str) -> i32 {
        code(self.try_rmdir(path))
    }

    fn try_rmdir(&mut self, path: &str) -> Errno {
        let (dir, name) = self.parent(path)?;
        let node = self.find(path)?;
        if self.nodes[node].kind != Kind::Dir {
            return Err(ENOTDIR);
        }
        if !self.nodes[node].names.is_empty() {
            return Err(ENOTEMPTY);
        }
        self.nodes[dir].names.remove(name);
        self.nodes[dir].links -= 1;
        Ok(())
    }

    pub fn link(&mut self, old: &str, new: &str) -> i32 {
        code(self.try_link(old, new))
    }

    fn try_link(&mut self, old: &str, new: &str) -> Errno {
        let node = self.find(old)?;
        let (dir, name) = self.parent(new)?;
        if self.nodes[dir].names.contains_key(name) {
            return Err(EEXIST);
        }
        if self.nodes[node].kind == Kind::Dir {
            return Err(EPERM);
        }
        self.nodes[dir].names.insert(name.to_owned(), node);
        self.nodes[node].links += 1;
        Ok(())
    }

    pub fn rename(&mut self, old: &str, new: &str) -> i32 {
        code(self.try_rename(old, new))
    }

    fn try_rename(&mut self, old: &str, new: &str) -> Errno {
        let ((old_dir, old_name), (new_dir, new_name)) = (self.parent(old)?, self.parent(new)?);
        let node = self.find(old)?;
        let target = self.nodes[new_dir].names.get(new_name).copied();
        if old_dir != new_dir && self.is_below(node, new_dir) {
            return Err(EINVAL);
        }
        if let Some(target) = target {
            if old_dir != new_dir && self.is_below(target, old_dir) {
                return Err(ENOTEMPTY);
            }
            if target == node {
                return Ok(());
            }
        }
        let is_dir = self.nodes[node].kind == Kind::Dir;
        if let Some(target) = target {
            match (is_dir, self.nodes[target].kind == Kind::Dir) {
                (true, false) => return Err(ENOTDIR),
                (false, true) => return Err(EISDIR),
                (true, true) if !self.nodes[target].names.is_empty() => return Err(ENOTEMPTY),
                (true, true) => self.nodes[new_dir].links -= 1,
                (false, false) => self.nodes[target].links -= 1,
            }
        }
        if is_dir {
            self.nodes[old_dir].links -= 1;
            self.nodes[new_dir].links += 1;
        }
        self.nodes[old_dir].names.remove(old_name);
        self.nodes[new_dir].names.insert(new_name.to_owned(), node);
        Ok(())
    }

    /// Whether `node` is `above` or below it.
    fn is_below(&self, above: usize, node: usize) -> bool {
        above == node || self.nodes[above].names.values().any(|&child| self.is_below(child, node))
    }

    pub fn setxattr(&mut self, path: &str, name: &str, value: Vec<u8>, how: XattrSet) -> i32 {
        code(self.try_setxattr(path, name, value, how))
    }

    fn try_setxattr(&mut self, path: &str, name: &str, value: Vec<u8>, how: XattrSet) -> Errno {
        let node = self.find(path)?;
        let node = &mut self.nodes[node];
        if name.starts_with("user.") && node.kind == Kind::Symlink {
            return Err(EPERM);
        }
        let exists = node.xattrs.contains_key(name);
        match how {
            XattrSet::Create if exists => return Err(EEXIST),
            XattrSet::Replace if !exists => return Err(ENODATA),
            _ => {}
        }
        let mut after = node.xattrs.clone();
        after.insert(name.to_owned(), value);
        let taken: usize = after
            .iter()
            .map(|(name, value)| {
                let suffix = name.split_once('.').map_or(0, |(_, suffix)| suffix.len());
                16 + suffix.next_multiple_of(4) + value.len().next_multiple_of(4)
            })
            .sum();
        if taken > XATTR_ROOM {
            return Err(ENOSPC);
        }
        node.xattrs = after;
        Ok(())
    }

    pub fn removexattr(&mut self, path: &str, name: &str) -> i32 {
        code(self.find(path).and_then(|node| {
            let node = &mut self.nodes[node];
            if name.starts_with("user.") && node.kind == Kind::Symlink {
                return Err(EPERM);
            }
            node.xattrs.remove(name).map(|_| ()).ok_or(ENODATA)
        }))
    }
}
