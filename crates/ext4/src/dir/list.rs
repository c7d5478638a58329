//! F77: the order of readdir, and positions to go on from.

use ext4_format::dirent::Dirent;
use ext4_format::hash::{HashVersion, NameHash};
use ext4_format::htree::CONTINUATION;

use crate::Result;

use super::htree::Cursor;
use super::{DirBlocks, DirParams, Entry, dots};

/// F77: the position behind the last entry in hash order.
pub const END_POSITION: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// An entry as readdir tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// 1–255 bytes without '/' and NUL.
    pub name: &'a [u8],
    /// What it stands for.
    pub entry: Entry,
}

/// Hands the entries from position `cookie` on (0: all) to `sink`, each with the position after it. After `false`
/// from the sink only those entries follow that share the position of the last one (F117): take them too.
pub fn list(
    dir: &dyn DirBlocks,
    params: &DirParams,
    cookie: u64,
    sink: &mut dyn FnMut(&Listed<'_>, u64) -> bool,
) -> Result<()> {
    if dir.indexed() || (params.dir_index && dir.block_count() == 1) {
        list_by_hash(dir, params, cookie, sink)
    } else {
        list_by_block(dir, params, cookie, sink)
    }
}

/// Positions are byte offsets.
fn list_by_block(
    dir: &dyn DirBlocks,
    params: &DirParams,
    cookie: u64,
    sink: &mut dyn FnMut(&Listed<'_>, u64) -> bool,
) -> Result<()> {
    let format = params.format(dir);
    let block_size = dir.block_size() as u64;
    let start = u32::try_from(cookie / block_size).unwrap_or(u32::MAX);
    for lblk in start..dir.block_count() {
        let image = dir.read(lblk, false)?;
        let block_start = u64::from(lblk) * block_size;
        // From the start of the block, because records may have been merged since `cookie` was given.
        for record in format.records(&image) {
            let record = record.map_err(|corrupt| params.corrupt(corrupt))?;
            let position = block_start + record.offset as u64;
            if record.ino.0 == 0 || position < cookie {
                continue;
            }
            check_listable(params, &record)?;
            let end = record.offset + record.rec_len;
            let next = if end == format.records_end() { block_size } else { end as u64 };
            if !sink(&listed(&record, lblk), block_start + next) {
                return Ok(());
            }
        }
    }
    Ok(())
}

struct Sorted {
    hash: NameHash,
    name: Vec<u8>,
    entry: Entry,
}

fn position(hash: NameHash) -> u64 {
    (u64::from(hash.hash >> 1) << 32) | u64::from(hash.minor)
}

fn list_by_hash(
    dir: &dyn DirBlocks,
    params: &DirParams,
    cookie: u64,
    sink: &mut dyn FnMut(&Listed<'_>, u64) -> bool,
) -> Result<()> {
    if cookie >= END_POSITION {
        return Ok(());
    }
    let mut groups = Groups::start(dir, params, cookie)?;
    let mut group = groups.next_group(dir)?;
    while !group.is_empty() {
        // One group ahead: an entry's next position is that of the entry after it, wherever that is.
        let following = groups.next_group(dir)?;
        let after = following.first().map_or(END_POSITION, |item| position(item.hash));
        let mut more = true;
        for (index, item) in group.iter().enumerate() {
            let own = position(item.hash);
            let next = group.get(index + 1).map_or(after, |item| position(item.hash));
            if own >= cookie {
                more &= sink(&Listed { name: &item.name, entry: item.entry }, next);
                if !more && next != own {
                    return Ok(());
                }
            }
        }
        group = following;
    }
    Ok(())
}

/// The leaves in hash order, those of one hash (F71) taken together.
struct Groups<'a> {
    params: &'a DirParams,
    version: HashVersion,
    /// `None` for a directory of one block.
    cursor: Option<Cursor<'a>>,
    at_start: bool,
    done: bool,
}

impl<'a> Groups<'a> {
    fn start(dir: &dyn DirBlocks, params: &'a DirParams, cookie: u64) -> Result<Self> {
        let mut groups =
            Self { params, version: params.hash_version, cursor: None, at_start: true, done: false };
        if dir.indexed() {
            let mut cursor = Cursor::open(dir, params)?;
            let hash = ((cookie >> 32) as u32) << 1;
            cursor.seek(dir, hash)?;
            // ".." has the pseudo hash 2.
            groups.at_start = hash <= 2;
            groups.version = cursor.version;
            groups.cursor = Some(cursor);
        }
        Ok(groups)
    }

    /// The next group that is not empty, sorted; an empty one at the end.
    fn next_group(&mut self, dir: &dyn DirBlocks) -> Result<Vec<Sorted>> {
        let mut group = Vec::new();
        while group.is_empty() && !self.done {
            if self.at_start {
                self.add_dots(dir, &mut group)?;
                self.at_start = false;
            }
            self.add_leaves(dir, &mut group)?;
            group.sort_by_key(|item| item.hash);
        }
        Ok(group)
    }

    fn add_leaves(&mut self, dir: &dyn DirBlocks, group: &mut Vec<Sorted>) -> Result<()> {
        let Some(cursor) = &mut self.cursor else {
            self.done = true;
            return add_leaf(dir, self.params, self.version, 0, group);
        };
        loop {
            add_leaf(dir, self.params, self.version, cursor.leaf(), group)?;
            let continued = cursor.next_key().is_some_and(|key| key & CONTINUATION != 0);
            self.done = !cursor.advance(dir)?;
            if self.done || !continued {
                return Ok(());
            }
        }
    }

    fn add_dots(&self, dir: &dyn DirBlocks, group: &mut Vec<Sorted>) -> Result<()> {
        let [dot, dot_dot] = dots(dir, self.params)?;
        for (hash, name, found) in [(0, &b"."[..], dot), (2, b"..", dot_dot)] {
            let hash = NameHash { hash, minor: 0 };
            group.push(Sorted { hash, name: name.to_vec(), entry: found.entry });
        }
        Ok(())
    }
}

fn add_leaf(
    dir: &dyn DirBlocks,
    params: &DirParams,
    version: HashVersion,
    lblk: u32,
    group: &mut Vec<Sorted>,
) -> Result<()> {
    let image = dir.read(lblk, false)?;
    for record in params.format(dir).records(&image) {
        let record = record.map_err(|corrupt| params.corrupt(corrupt))?;
        if record.ino.0 != 0 && !super::is_dot(record.name) {
            check_listable(params, &record)?;
            let hash = version.hash(&params.hash_seed, record.name);
            group.push(Sorted { hash, name: record.name.to_vec(), entry: listed(&record, lblk).entry });
        }
    }
    Ok(())
}

fn listed<'a>(record: &Dirent<'a>, lblk: u32) -> Listed<'a> {
    Listed { name: record.name, entry: Entry { ino: record.ino, file_type: record.file_type, lblk } }
}

/// A name that no caller could use as one must not reach it.
fn check_listable(params: &DirParams, record: &Dirent<'_>) -> Result<()> {
    if record.name.contains(&0) || record.name.contains(&b'/') {
        return Err(params.damage("directory entry", format!("name \"{}\"", record.name.escape_ascii())));
    }
    Ok(())
}
