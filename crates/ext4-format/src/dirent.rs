//! F63–F66: directory entries, the records that tile a directory block, and the checksum tail.

use crate::checksum::crc32c;
use crate::{Corrupt, Ino, Result};

const INODE: usize = 0x0;
const REC_LEN: usize = 0x4;
const NAME_LEN: usize = 0x6;
const FILE_TYPE: usize = 0x7;
const NAME: usize = 0x8;
const _: () = assert!(REC_LEN + 2 == NAME_LEN && FILE_TYPE + 1 == NAME);

/// The longest name, in bytes.
pub const NAME_MAX: usize = 255;
/// F66: bytes of the checksum tail.
pub const TAIL_SIZE: usize = 12;
const TAIL_FILE_TYPE: u8 = 0xDE;
const TAIL_CHECKSUM: usize = 0x8;
const _: () = assert!(TAIL_CHECKSUM + 4 == TAIL_SIZE);

/// The file_type values of a directory entry.
#[expect(missing_docs, reason = "the names are ext4's")]
pub mod file_type {
    pub const UNKNOWN: u8 = 0;
    pub const REG_FILE: u8 = 1;
    pub const DIR: u8 = 2;
    pub const CHRDEV: u8 = 3;
    pub const BLKDEV: u8 = 4;
    pub const FIFO: u8 = 5;
    pub const SOCK: u8 = 6;
    pub const SYMLINK: u8 = 7;
}

const WHAT: &str = "directory entry";

/// What the superblock says about directory blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirFormat {
    /// 1 KiB to 64 KiB.
    pub block_size: usize,
    /// The filetype feature: a type byte instead of the high byte of name_len.
    pub filetype: bool,
    /// metadata_csum: leaves end in a tail, index blocks have a dx tail.
    pub has_csum: bool,
}

/// A record of a directory block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Where it starts in the block, in bytes.
    pub offset: usize,
    /// Its length with all slack, in bytes.
    pub rec_len: usize,
    /// 0: unused space.
    pub ino: Ino,
    /// One of [`file_type`]; 0 without the filetype feature.
    pub file_type: u8,
    /// 1–255 bytes if used.
    pub name: &'a [u8],
}

impl Dirent<'_> {
    /// The bytes of the record that are not needed for its name.
    pub fn slack(&self) -> usize {
        if self.ino.0 == 0 { self.rec_len } else { self.rec_len - record_size(self.name.len()) }
    }
}

/// F63: the least rec_len for a name of `name_len` bytes.
pub const fn record_size(name_len: usize) -> usize {
    NAME + name_len.next_multiple_of(4)
}

impl DirFormat {
    /// Where the records of a leaf end: the tail is not one of them.
    pub fn records_end(&self) -> usize {
        self.block_size - if self.has_csum { TAIL_SIZE } else { 0 }
    }

    /// F64: rec_len as stored.
    pub fn encode_rec_len(&self, rec_len: usize) -> u16 {
        assert!(rec_len.is_multiple_of(4) && rec_len <= self.block_size && self.block_size <= 0x1_0000);
        u16::try_from(rec_len).unwrap_or(0xFFFF)
    }

    /// F64: rec_len as meant; may be any number, also 0.
    pub fn decode_rec_len(&self, stored: u16) -> usize {
        match stored {
            0 | 0xFFFF if self.block_size == 0x1_0000 => 0x1_0000,
            plain => usize::from(plain),
        }
    }

    /// F63: decodes the record at `offset`, which must end at or before `end`.
    pub fn decode<'a>(&self, block: &'a [u8], offset: usize, end: usize) -> Result<Dirent<'a>> {
        assert!(end <= block.len() && offset < end);
        let damage = |detail: String| Err(Corrupt::structure(WHAT, format!("{detail} at {offset}")));
        if end - offset < NAME {
            return damage(format!("no room for a record: {} bytes", end - offset));
        }
        let record = &block[offset..end];
        let rec_len = self.decode_rec_len(u16_at(record, REC_LEN));
        let (name_len, file_type) = if self.filetype {
            (usize::from(record[NAME_LEN]), record[FILE_TYPE])
        } else {
            (usize::from(u16_at(record, NAME_LEN)), file_type::UNKNOWN)
        };
        let ino = Ino(u32_at(record, INODE));
        if name_len > NAME_MAX || (name_len == 0 && ino.0 != 0) {
            return damage(format!("name_len {name_len}"));
        }
        if !rec_len.is_multiple_of(4) || rec_len < record_size(name_len) || rec_len > record.len() {
            return damage(format!("rec_len {rec_len} with name_len {name_len}"));
        }
        Ok(Dirent { offset, rec_len, ino, file_type, name: &record[NAME..NAME + name_len] })
    }

    /// Writes the record `entry` at its offset; bytes behind the name are left alone.
    pub fn encode(&self, block: &mut [u8], entry: &Dirent<'_>) {
        let name_len = entry.name.len();
        assert!(name_len <= NAME_MAX && (name_len > 0 || entry.ino.0 == 0));
        assert!(entry.rec_len >= record_size(name_len) && entry.offset + entry.rec_len <= block.len());
        let rec_len = self.encode_rec_len(entry.rec_len);
        let record = &mut block[entry.offset..entry.offset + entry.rec_len];
        record[INODE..INODE + 4].copy_from_slice(&entry.ino.0.to_le_bytes());
        record[REC_LEN..REC_LEN + 2].copy_from_slice(&rec_len.to_le_bytes());
        record[NAME_LEN] = name_len as u8;
        record[FILE_TYPE] = if self.filetype { entry.file_type } else { 0 };
        record[NAME..NAME + name_len].copy_from_slice(entry.name);
    }

    /// Changes the length of the record at `offset`.
    pub fn set_rec_len(&self, block: &mut [u8], offset: usize, rec_len: usize) {
        let stored = self.encode_rec_len(rec_len).to_le_bytes();
        block[offset + REC_LEN..offset + REC_LEN + 2].copy_from_slice(&stored);
    }

    /// Changes the inode of the record at `offset`, and its type if the volume stores it.
    pub fn set_target(&self, block: &mut [u8], offset: usize, ino: Ino, file_type: u8) {
        block[offset + INODE..offset + INODE + 4].copy_from_slice(&ino.0.to_le_bytes());
        if self.filetype {
            block[offset + FILE_TYPE] = file_type;
        }
    }

    /// F63: the records of a leaf in order, also the unused ones. Ends after the first error.
    pub fn records<'a>(&self, block: &'a [u8]) -> Records<'a> {
        assert_eq!(block.len(), self.block_size);
        Records { format: *self, block, offset: 0, end: self.records_end() }
    }

    /// Makes `block` a leaf without names: one unused record, and the tail.
    pub fn init_leaf(&self, block: &mut [u8]) {
        block.fill(0);
        let rec_len = self.records_end();
        self.encode(block, &Dirent { offset: 0, rec_len, ino: Ino(0), file_type: 0, name: b"" });
        self.init_tail(block);
    }

    /// F66: writes the tail of a leaf, if the volume has checksums, its checksum still 0.
    pub fn init_tail(&self, block: &mut [u8]) {
        if self.has_csum {
            let tail = self.records_end();
            block[tail..].fill(0);
            self.set_rec_len(block, tail, TAIL_SIZE);
            block[tail + FILE_TYPE] = TAIL_FILE_TYPE;
        }
    }
}

/// Iterator over the records of a leaf: [`DirFormat::records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    format: DirFormat,
    block: &'a [u8],
    offset: usize,
    end: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Dirent<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.end {
            return None;
        }
        let entry = self.format.decode(self.block, self.offset, self.end);
        self.offset = entry.as_ref().map_or(self.end, |entry| entry.offset + entry.rec_len);
        Some(entry)
    }
}

/// F66: verifies the tail of a leaf of a volume with metadata_csum; `seed` is the inode's (F4).
pub fn verify_leaf(block: &[u8], seed: u32) -> Result<()> {
    const WHAT: &str = "directory block";
    let tail = block.len() - TAIL_SIZE;
    let record = &block[tail..];
    let is_tail = u32_at(record, INODE) == 0
        && usize::from(u16_at(record, REC_LEN)) == TAIL_SIZE
        && record[NAME_LEN] == 0
        && record[FILE_TYPE] == TAIL_FILE_TYPE;
    if !is_tail {
        return Err(Corrupt::structure(WHAT, "no checksum tail"));
    }
    let (found, expected) = (u32_at(record, TAIL_CHECKSUM), crc32c(seed, &block[..tail]));
    if found != expected {
        return Err(Corrupt::Checksum { what: WHAT, found, expected });
    }
    Ok(())
}

/// F66: stores the checksum of a leaf that has a tail.
pub fn seal_leaf(block: &mut [u8], seed: u32) {
    let tail = block.len() - TAIL_SIZE;
    let checksum = crc32c(seed, &block[..tail]);
    block[tail + TAIL_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(block_size: usize, filetype: bool, has_csum: bool) -> DirFormat {
        DirFormat { block_size, filetype, has_csum }
    }

    fn all() -> impl Iterator<Item = DirFormat> {
        (10..=16).flat_map(|shift| {
            [(false, false), (false, true), (true, false), (true, true)]
                .into_iter()
                .map(move |(filetype, has_csum)| format(1 << shift, filetype, has_csum))
        })
    }

    #[test]
    fn f64_record_lengths() {
        let big = format(0x1_0000, true, false);
        assert_eq!((big.encode_rec_len(0x1_0000), big.encode_rec_len(0xFFFC)), (0xFFFF, 0xFFFC));
        assert_eq!((big.decode_rec_len(0xFFFF), big.decode_rec_len(0)), (0x1_0000, 0x1_0000));
        let mut block = vec![0; 0x1_0000];
        format(0x1_0000, true, true).init_leaf(&mut block);
        assert_eq!(u16_at(&block, REC_LEN), 0xFFF4);
        assert_eq!(format(4096, true, true).decode_rec_len(0), 0);
    }

    #[test]
    fn records_round_trip_in_every_format() {
        for format in all() {
            let mut block = vec![0; format.block_size];
            format.init_leaf(&mut block);
            let longest = [b'n'; NAME_MAX];
            let file_type = if format.filetype { file_type::SYMLINK } else { 0 };
            let first = Dirent { offset: 0, rec_len: record_size(1), ino: Ino(2), file_type, name: b"a" };
            let rec_len = format.records_end() - first.rec_len;
            let second =
                Dirent { offset: first.rec_len, rec_len, ino: Ino(u32::MAX), file_type, name: &longest };
            format.encode(&mut block, &first);
            format.encode(&mut block, &second);
            let records: Vec<_> = format.records(&block).collect::<Result<_>>().unwrap();
            assert_eq!(records, [first, second]);
            if format.has_csum {
                seal_leaf(&mut block, 77);
                verify_leaf(&block, 77).unwrap();
                assert!(verify_leaf(&block, 78).is_err());
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_tile_the_block() {
        for (filetype, has_csum) in [(true, true), (false, false)] {
            let format = format(1024, filetype, has_csum);
            let mut block = vec![0; 1024];
            format.init_leaf(&mut block);
            let first = Dirent { offset: 0, rec_len: 16, ino: Ino(2), file_type: 1, name: b"abcde" };
            let rest = format.records_end() - 16;
            format.encode(&mut block, &first);
            format.encode(&mut block, &Dirent { offset: 16, rec_len: rest, ..first });
            seal_leaf(&mut block, 1);
            for at in (0..32).chain(1012..1024) {
                let good = block[at];
                for value in 0..=255 {
                    block[at] = value;
                    if let Ok(records) = format.records(&block).collect::<Result<Vec<_>>>() {
                        assert_eq!(records.iter().map(|r| r.rec_len).sum::<usize>(), format.records_end());
                    }
                    if has_csum {
                        assert_eq!(verify_leaf(&block, 1).is_ok(), value == good);
                    }
                }
                block[at] = good;
            }
        }
    }
}
