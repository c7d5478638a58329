//! The names of a leaf in hash order, and the place to cut them in two.

use ext4_format::Ino;
use ext4_format::dirent::{DirFormat, Dirent, record_size};
use ext4_format::hash::HashVersion;
use ext4_format::htree::CONTINUATION;

use crate::Result;
use crate::dir::{DirParams, NewEntry, is_dot};

/// A name taken out of its block.
#[derive(Debug, Clone)]
pub(crate) struct LeafEntry {
    pub hash: u32,
    ino: Ino,
    file_type: u8,
    name: Vec<u8>,
}

/// The names that a leaf has, and one more.
#[derive(Debug)]
pub(crate) struct Leaf {
    format: DirFormat,
    /// Ascending by hash.
    entries: Vec<LeafEntry>,
}

/// A leaf cut in two.
#[derive(Debug)]
pub(crate) struct Halves {
    pub lower: Leaf,
    pub upper: Leaf,
    /// F71: of the upper half, with its continuation bit.
    pub key: u32,
}

impl Leaf {
    /// The names of `block` but "." and "..", and `new`.
    pub fn with_new(
        params: &DirParams,
        format: DirFormat,
        version: HashVersion,
        block: &[u8],
        new: NewEntry<'_>,
    ) -> Result<Self> {
        let entry = |name: &[u8], ino, file_type| {
            let hash = version.hash(&params.hash_seed, name).hash;
            LeafEntry { hash, ino, file_type, name: name.to_vec() }
        };
        let mut entries = Vec::new();
        for record in format.records(block) {
            let record = record.map_err(|corrupt| params.corrupt(corrupt))?;
            if record.ino.0 != 0 && !is_dot(record.name) {
                entries.push(entry(record.name, record.ino, record.file_type));
            }
        }
        entries.push(entry(new.name, new.ino, new.file_type));
        entries.sort_by_key(|entry| entry.hash);
        Ok(Self { format, entries })
    }

    /// Whether all names fit into one block.
    pub fn fits(&self) -> bool {
        size(&self.entries) <= self.format.records_end()
    }

    /// F69: whether every name belongs between the keys of its leaf and of the next one.
    pub fn is_within(&self, key: u32, next_key: Option<u32>) -> bool {
        let above = self.entries.first().is_none_or(|first| first.hash >= key & !CONTINUATION);
        let below = self.entries.last().is_none_or(|last| next_key.is_none_or(|next| last.hash < next));
        above && below
    }

    /// F71: cuts where the halves differ least in size. The leaf must not fit into one block; then each half does,
    /// because it exceeds half of (a block and the longest name) by half a name at most.
    pub fn split(mut self) -> Halves {
        assert!(!self.fits());
        let total = size(&self.entries);
        let mut lower_size = 0;
        let cut = self.entries.iter().map(|entry| {
            lower_size += record_size(entry.name.len());
            lower_size.abs_diff(total - lower_size)
        });
        let (cut, _) = cut.enumerate().min_by_key(|&(_, difference)| difference).expect("not empty");
        let upper = Leaf { format: self.format, entries: self.entries.split_off(cut + 1) };
        let [last, first] = [self.entries[cut].hash, upper.entries[0].hash];
        let key = if first == last { first | CONTINUATION } else { first };
        Halves { lower: self, upper, key }
    }

    /// Writes all names into a block, the slack behind the last one.
    pub fn write(&self, block: &mut [u8]) {
        assert!(self.fits());
        self.format.init_leaf(block);
        let mut offset = 0;
        for (index, entry) in self.entries.iter().enumerate() {
            let is_last = index + 1 == self.entries.len();
            let rec_len =
                if is_last { self.format.records_end() - offset } else { record_size(entry.name.len()) };
            let LeafEntry { ino, file_type, ref name, .. } = *entry;
            self.format.encode(block, &Dirent { offset, rec_len, ino, file_type, name });
            offset += rec_len;
        }
    }
}

fn size(entries: &[LeafEntry]) -> usize {
    entries.iter().map(|entry| record_size(entry.name.len())).sum()
}
