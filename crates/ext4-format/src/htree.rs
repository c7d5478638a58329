//! F67–F71: the index of a directory: a root in block 0 and nodes, each an array of keys and blocks.

use crate::checksum::crc32c;
use crate::dirent::{DirFormat, u16_at, u32_at};
use crate::{Corrupt, Result};

const INFO: usize = 0x18;
const HASH_VERSION: usize = 0x1C;
const INFO_LENGTH: usize = 0x1D;
const INDIRECT_LEVELS: usize = 0x1E;
const FLAGS: usize = 0x1F;
const ROOT_COUNT: usize = 0x20;
const NODE_COUNT: usize = 0x8;
const ENTRY_SIZE: usize = 8;
const INFO_SIZE: u8 = 8;
const TAIL_CHECKSUM: usize = 4;
const _: () = assert!(INFO + INFO_SIZE as usize == ROOT_COUNT && FLAGS + 1 == ROOT_COUNT);

const WHAT: &str = "htree block";

/// F68: the bits of a block number in an entry.
pub const BLOCK_MASK: u32 = 0x0FFF_FFFF;

/// F71: bit of a key: the leaf before may hold names of the same hash.
pub const CONTINUATION: u32 = 1;

/// Which of the two layouts a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DxKind {
    /// Block 0, after "." and "..".
    Root,
    /// Any other.
    Node,
}

/// A key and the block of the names from it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DxEntry {
    /// 0 in entry 0, which has no key on disk.
    pub hash: u32,
    /// Logical, below 2^28.
    pub block: u32,
}

/// What the root says about the whole index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootInfo {
    /// As stored: 0 legacy, 1 half MD4, 2 TEA.
    pub hash_version: u8,
    /// Levels of nodes below the root: 0 to 2.
    pub indirect_levels: u8,
}

impl DxKind {
    fn count_offset(self) -> usize {
        match self {
            Self::Root => ROOT_COUNT,
            Self::Node => NODE_COUNT,
        }
    }

    /// F68: the entries that a block has room for.
    pub fn limit(self, format: DirFormat) -> usize {
        (format.block_size - self.count_offset()) / ENTRY_SIZE - usize::from(format.has_csum)
    }

    /// F68, F69: decodes the entries of a block: at least one.
    pub fn decode(self, format: DirFormat, block: &[u8]) -> Result<Vec<DxEntry>> {
        assert_eq!(block.len(), format.block_size);
        if self == Self::Node {
            let fake = format.decode(block, 0, block.len())?;
            if fake.ino.0 != 0 || fake.rec_len != block.len() || !fake.name.is_empty() {
                return Err(Corrupt::structure(WHAT, "no empty entry covers the node"));
            }
        }
        let at = self.count_offset();
        let (limit, count) = (usize::from(u16_at(block, at)), usize::from(u16_at(block, at + 2)));
        if limit != self.limit(format) || count == 0 || count > limit {
            return Err(Corrupt::structure(WHAT, format!("{count} entries, limit {limit}")));
        }
        let entry = |index: usize| {
            let at = at + index * ENTRY_SIZE;
            DxEntry {
                hash: if index == 0 { 0 } else { u32_at(block, at) },
                block: u32_at(block, at + 4) & BLOCK_MASK,
            }
        };
        let entries: Vec<_> = (0..count).map(entry).collect();
        if let Some(pair) =
            entries.get(1..).unwrap_or(&[]).windows(2).find(|pair| !follows(pair[0].hash, pair[1].hash))
        {
            let detail = format!("key {:#x} after {:#x}", pair[1].hash, pair[0].hash);
            return Err(Corrupt::structure(WHAT, detail));
        }
        Ok(entries)
    }

    /// Stores limit, count and entries; what lies behind the last one is left alone.
    pub fn encode(self, format: DirFormat, block: &mut [u8], entries: &[DxEntry]) {
        let limit = self.limit(format);
        assert!(!entries.is_empty() && entries.len() <= limit);
        debug_assert!(entries[1..].windows(2).all(|pair| follows(pair[0].hash, pair[1].hash)));
        let start = self.count_offset();
        for (index, entry) in entries.iter().enumerate() {
            assert!(entry.block <= BLOCK_MASK);
            let at = start + index * ENTRY_SIZE;
            block[at..at + 4].copy_from_slice(&entry.hash.to_le_bytes());
            block[at + 4..at + 8].copy_from_slice(&entry.block.to_le_bytes());
        }
        // In place of the key that entry 0 does not have.
        block[start..start + 2].copy_from_slice(&(limit as u16).to_le_bytes());
        block[start + 2..start + 4].copy_from_slice(&(entries.len() as u16).to_le_bytes());
    }
}

/// F69: whether the key `after` may come behind `before`: keys ascend; equal ones continue each other.
pub fn follows(before: u32, after: u32) -> bool {
    let [before_hash, after_hash] = [before & !CONTINUATION, after & !CONTINUATION];
    before_hash < after_hash || (before_hash == after_hash && after & CONTINUATION != 0)
}

/// Makes `block` an empty node; [`DxKind::encode`] completes it.
pub fn init_node(format: DirFormat, block: &mut [u8]) {
    block.fill(0);
    format.set_rec_len(block, 0, format.block_size);
}

impl RootInfo {
    /// F67: decodes the info of a root, which has its two entries before it.
    pub fn decode(format: DirFormat, block: &[u8]) -> Result<Self> {
        let refuse = |detail: String| Err(Corrupt::structure("htree root", detail));
        let dot = format.decode(block, 0, block.len())?;
        let dot_dot = format.decode(block, 12, block.len())?;
        if dot.rec_len != 12 || dot.name != b"." || dot_dot.name != b".." {
            return refuse("does not start with \".\" and \"..\"".into());
        }
        if dot_dot.rec_len != format.block_size - 12 {
            return refuse(format!("rec_len {} of \"..\"", dot_dot.rec_len));
        }
        let info = &block[INFO..ROOT_COUNT];
        if u32_at(block, INFO) != 0 || block[INFO_LENGTH] != INFO_SIZE || block[FLAGS] & 1 != 0 {
            return refuse(format!("info {info:02x?}"));
        }
        if block[HASH_VERSION] > 2 || block[INDIRECT_LEVELS] > 2 {
            return refuse(format!("info {info:02x?}"));
        }
        Ok(Self { hash_version: block[HASH_VERSION], indirect_levels: block[INDIRECT_LEVELS] })
    }

    /// F67: stores the info of a root.
    pub fn encode(self, block: &mut [u8]) {
        assert!(self.hash_version <= 2 && self.indirect_levels <= 2);
        block[INFO..ROOT_COUNT].fill(0);
        block[HASH_VERSION] = self.hash_version;
        block[INFO_LENGTH] = INFO_SIZE;
        block[INDIRECT_LEVELS] = self.indirect_levels;
    }
}

/// F70: verifies an index block of a volume with metadata_csum; `seed` is the inode's (F4).
pub fn verify_index(block: &[u8], seed: u32) -> Result<()> {
    let (tail, expected) = index_checksum(block, seed)?;
    let found = u32_at(block, tail + TAIL_CHECKSUM);
    if found != expected {
        return Err(Corrupt::Checksum { what: WHAT, found, expected });
    }
    Ok(())
}

/// F70: stores the checksum of an index block. Panics if the block is none.
pub fn seal_index(block: &mut [u8], seed: u32) {
    let (tail, checksum) = index_checksum(block, seed).expect("an index block of our own");
    block[tail + TAIL_CHECKSUM..tail + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Where the dx tail is, and F4's checksum: up to the last used entry, dt_reserved, four zero bytes.
fn index_checksum(block: &[u8], seed: u32) -> Result<(usize, u32)> {
    let format = DirFormat { block_size: block.len(), filetype: true, has_csum: true };
    let kind = match format.decode_rec_len(u16_at(block, 4)) {
        12 => DxKind::Root,
        rec_len if rec_len == block.len() => DxKind::Node,
        rec_len => return Err(Corrupt::structure(WHAT, format!("rec_len {rec_len} of the first entry"))),
    };
    let at = kind.count_offset();
    let (limit, count) = (usize::from(u16_at(block, at)), usize::from(u16_at(block, at + 2)));
    if limit != kind.limit(format) || count > limit {
        return Err(Corrupt::structure(WHAT, format!("{count} entries, limit {limit}")));
    }
    let tail = at + limit * ENTRY_SIZE;
    let used = crc32c(seed, &block[..at + count * ENTRY_SIZE]);
    Ok((tail, crc32c(crc32c(used, &block[tail..tail + TAIL_CHECKSUM]), &[0; 4])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ino;
    use crate::dirent::Dirent;

    fn root(format: DirFormat, count: u32) -> (Vec<u8>, RootInfo, Vec<DxEntry>) {
        let mut block = vec![0; format.block_size];
        let dot = Dirent { offset: 0, rec_len: 12, ino: Ino(2), file_type: 2, name: b"." };
        format.encode(&mut block, &dot);
        let rec_len = format.block_size - 12;
        format.encode(&mut block, &Dirent { offset: 12, rec_len, name: b"..", ..dot });
        let info = RootInfo { hash_version: 1, indirect_levels: 1 };
        info.encode(&mut block);
        let entries: Vec<_> = (0..count).map(|i| DxEntry { hash: i * 2, block: i + 1 }).collect();
        DxKind::Root.encode(format, &mut block, &entries);
        (block, info, entries)
    }

    #[test]
    fn f68_limits() {
        for (block_size, root, node) in [(1024, 124, 127), (4096, 508, 511), (65536, 8188, 8191)] {
            for has_csum in [false, true] {
                let format = DirFormat { block_size, filetype: true, has_csum };
                assert_eq!(DxKind::Root.limit(format), root - usize::from(has_csum));
                assert_eq!(DxKind::Node.limit(format), node - usize::from(has_csum));
            }
        }
    }

    #[test]
    fn index_blocks_round_trip() {
        for block_size in (10..=16).map(|shift| 1 << shift) {
            let format = DirFormat { block_size, filetype: true, has_csum: true };
            let (mut block, info, entries) = root(format, DxKind::Root.limit(format) as u32);
            seal_index(&mut block, 5);
            verify_index(&block, 5).unwrap();
            assert_eq!(RootInfo::decode(format, &block).unwrap(), info);
            assert_eq!(DxKind::Root.decode(format, &block).unwrap(), entries);
            init_node(format, &mut block);
            DxKind::Node.encode(format, &mut block, &entries);
            seal_index(&mut block, 5);
            verify_index(&block, 5).unwrap();
            assert_eq!(DxKind::Node.decode(format, &block).unwrap(), entries);
        }
    }

    #[test]
    fn f70_unused_entries_are_not_covered() {
        let format = DirFormat { block_size: 1024, filetype: true, has_csum: true };
        let (mut block, _, entries) = root(format, 3);
        seal_index(&mut block, 5);
        block[ROOT_COUNT + entries.len() * ENTRY_SIZE] ^= 1;
        verify_index(&block, 5).unwrap();
        block[ROOT_COUNT + entries.len() * ENTRY_SIZE - 1] ^= 1;
        assert!(verify_index(&block, 5).is_err());
    }

    #[test]
    fn f69_keys_ascend() {
        let format = DirFormat { block_size: 1024, filetype: true, has_csum: false };
        let mut block = vec![0; 1024];
        init_node(format, &mut block);
        let keys = |keys: [u32; 4]| keys.map(|hash| DxEntry { hash, block: 1 });
        for good in [[0, 2, 4, 6], [0, 0, 1, 2], [0, 2, 3, 3], [0, 3, 3, 5]] {
            DxKind::Node.encode(format, &mut block, &keys(good));
            DxKind::Node.decode(format, &block).unwrap();
        }
        for (at, bad) in [(1, 8_u32), (2, 2), (3, 4), (3, 1)] {
            DxKind::Node.encode(format, &mut block, &keys([0, 2, 4, 6]));
            let at = NODE_COUNT + at * ENTRY_SIZE;
            block[at..at + 4].copy_from_slice(&bad.to_le_bytes());
            assert!(DxKind::Node.decode(format, &block).is_err());
        }
    }

    #[test]
    fn damaged_bytes_do_not_panic() {
        for has_csum in [false, true] {
            let format = DirFormat { block_size: 1024, filetype: true, has_csum };
            let (mut block, ..) = root(format, 9);
            for at in 0..128 {
                let good = block[at];
                for value in 0..=255 {
                    block[at] = value;
                    let _ = RootInfo::decode(format, &block);
                    for kind in [DxKind::Root, DxKind::Node] {
                        if let Ok(entries) = kind.decode(format, &block) {
                            assert!(!entries.is_empty() && entries.len() <= kind.limit(format));
                        }
                    }
                    let _ = verify_index(&block, 1);
                }
                block[at] = good;
            }
        }
    }
}
