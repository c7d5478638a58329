//! F80–F86: the header, checksum and entries of an xattr block. Values are not interpreted here.

use crate::checksum::crc32c;
use crate::codec::{get, put};
use crate::{Corrupt, Pblk, Result};

const WHAT: &str = "xattr block";
/// Magic of a block and of the in-inode area.
pub const MAGIC: u32 = 0xEA02_0000;
/// Longest name behind its prefix (F87).
pub const NAME_MAX: usize = 255;
/// Zero bytes that end a list (F81).
const TERMINATOR: usize = 4;
/// Most users of one block (F86).
pub const REFCOUNT_MAX: u32 = 1024;

/// F83: the header of an xattr block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrHeader {
    /// Inodes that point to the block.
    pub refcount: u32,
    /// 1.
    pub blocks: u32,
    /// F85; 0 = never share.
    pub hash: u32,
    /// As stored; 0 without metadata_csum.
    pub checksum: u32,
}

impl XattrHeader {
    /// Bytes.
    pub const SIZE: usize = 32;
    const H_MAGIC: usize = 0x00;
    const H_REFCOUNT: usize = 0x04;
    const H_BLOCKS: usize = 0x08;
    const H_HASH: usize = 0x0C;
    const H_CHECKSUM: usize = 0x10;

    /// Decodes the header of a whole block; `seed` (fs_seed) with metadata_csum.
    pub fn decode(block: &[u8], seed: Option<u32>, number: Pblk) -> Result<Self> {
        assert!(block.len() >= 1024);
        let magic: u32 = get(block, Self::H_MAGIC);
        if magic != MAGIC {
            return Err(Corrupt::structure(WHAT, format!("magic {magic:#010x}")));
        }
        let header = Self {
            refcount: get(block, Self::H_REFCOUNT),
            blocks: get(block, Self::H_BLOCKS),
            hash: get(block, Self::H_HASH),
            checksum: get(block, Self::H_CHECKSUM),
        };
        if let Some(seed) = seed {
            let expected = Self::checksum(block, seed, number);
            if header.checksum != expected {
                return Err(Corrupt::Checksum { what: WHAT, found: header.checksum, expected });
            }
        }
        if header.blocks != 1 {
            return Err(Corrupt::structure(WHAT, format!("h_blocks {}", header.blocks)));
        }
        if header.refcount == 0 {
            return Err(Corrupt::structure(WHAT, "h_refcount 0"));
        }
        Ok(header)
    }

    /// Writes magic, refcount, blocks and hash; the checksum is [`XattrHeader::seal`]'s.
    pub fn encode_into(&self, block: &mut [u8]) {
        assert!(self.blocks == 1 && self.refcount > 0);
        put(block, Self::H_MAGIC, MAGIC);
        put(block, Self::H_REFCOUNT, self.refcount);
        put(block, Self::H_BLOCKS, self.blocks);
        put(block, Self::H_HASH, self.hash);
    }

    /// Stores the checksum of the whole block.
    pub fn seal(block: &mut [u8], seed: u32, number: Pblk) {
        let sum = Self::checksum(block, seed, number);
        put(block, Self::H_CHECKSUM, sum);
    }

    /// F4: block number, then the block with its checksum field zero.
    fn checksum(block: &[u8], seed: u32, number: Pblk) -> u32 {
        let state = crc32c(seed, &number.0.to_le_bytes());
        let state = crc32c(state, &block[..Self::H_CHECKSUM]);
        crc32c(crc32c(state, &[0; 4]), &block[Self::H_CHECKSUM + 4..])
    }
}

/// F80: one entry, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrEntry<'a> {
    /// Which prefix the name has.
    pub name_index: u8,
    /// The name behind the prefix.
    pub name: &'a [u8],
    /// From the block's start or, in an inode, from the first entry.
    pub value_offs: u16,
    /// EA inode that holds the value, or 0.
    pub value_inum: u32,
    /// Bytes.
    pub value_size: u32,
    /// F84.
    pub hash: u32,
}

impl XattrEntry<'_> {
    /// Bytes before the name.
    pub const SIZE: usize = 16;
}

/// Walks a list of entries that starts at `area[0]` and must end, with 4 zero bytes, inside `area`. After an error
/// nothing more follows.
pub fn entries(area: &[u8]) -> impl Iterator<Item = Result<XattrEntry<'_>>> {
    let mut at = Some(0usize);
    std::iter::from_fn(move || {
        let start = at.take()?;
        let outside = || Some(Err(Corrupt::structure(WHAT, "entries run past the end")));
        let Some(terminator) = area.get(start..start + 4) else { return outside() };
        if terminator == [0; 4] {
            return None;
        }
        let Some(fixed) = area.get(start..start + XattrEntry::SIZE) else { return outside() };
        let name_start = start + XattrEntry::SIZE;
        let name_end = name_start + usize::from(fixed[0]);
        let Some(name) = area.get(name_start..name_end) else { return outside() };
        at = Some(name_end.next_multiple_of(4));
        Some(Ok(XattrEntry {
            name_index: fixed[1],
            name,
            value_offs: get(fixed, 2),
            value_inum: get(fixed, 4),
            value_size: get(fixed, 8),
            hash: get(fixed, 12),
        }))
    })
}

/// The list `list` (from its first entry to the end of its values) without one entry, or `None` if it does not have it.
/// Value offsets count from `bias` bytes before the list: 0 in an inode, [`XattrHeader::SIZE`] in a block.
pub fn without(list: &[u8], bias: usize, name_index: u8, name: &[u8]) -> Result<Option<Vec<u8>>> {
    if find(list, name_index, name)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Rebuilt::without(list, bias, name_index, name)?.list))
}

/// The list of an inode with one entry set, in place of the one of that name if there is one; `None` if it does not
/// fit (F82: e_hash is 0 there). `name` is at most 255 bytes long.
pub fn with(list: &[u8], name_index: u8, name: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
    assert!(name.len() <= NAME_MAX);
    let mut rebuilt = Rebuilt::without(list, 0, name_index, name)?;
    let entry = XattrEntry {
        name_index,
        name,
        value_offs: 0,
        value_inum: 0,
        value_size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        hash: 0,
    };
    Ok(rebuilt.push(entry, value, 0).then_some(rebuilt.list))
}

/// The entry of a name, if the list has it.
pub fn find<'a>(list: &'a [u8], name_index: u8, name: &[u8]) -> Result<Option<XattrEntry<'a>>> {
    for entry in entries(list) {
        let entry = entry?;
        if entry.name_index == name_index && entry.name == name {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// The value of an entry of `list`, which must not be in an EA inode. `bias` as in [`without`].
pub fn value<'a>(list: &'a [u8], bias: usize, entry: &XattrEntry<'_>) -> Result<&'a [u8]> {
    if entry.value_size == 0 {
        return Ok(&[]);
    }
    let start = usize::from(entry.value_offs).checked_sub(bias);
    let value = start.and_then(|start| list.get(start..start.checked_add(entry.value_size as usize)?));
    value.ok_or_else(|| Corrupt::structure(WHAT, format!("a value at {}", entry.value_offs)))
}

/// A list that is written anew: entries from its start upward, values from its end downward (F81).
struct Rebuilt {
    list: Vec<u8>,
    at: usize,
    end: usize,
}

impl Rebuilt {
    /// Everything of `list` but one name.
    fn without(list: &[u8], bias: usize, name_index: u8, name: &[u8]) -> Result<Self> {
        // Values are padded to 4 bytes (F81); an area of another length has no use for its last bytes.
        let mut rebuilt = Self { list: vec![0; list.len()], at: 0, end: list.len() & !3 };
        for entry in entries(list) {
            let entry = entry?;
            if entry.name_index == name_index && entry.name == name {
                continue;
            }
            let stored: &[u8] = if entry.value_inum == 0 { value(list, bias, &entry)? } else { &[] };
            if !rebuilt.push(entry, stored, bias) {
                return Err(Corrupt::structure(WHAT, "values overlap"));
            }
        }
        Ok(rebuilt)
    }

    /// Appends an entry with its value; `false`, and nothing changed, if there is no room.
    fn push(&mut self, entry: XattrEntry<'_>, value: &[u8], bias: usize) -> bool {
        let next = self.at + (XattrEntry::SIZE + entry.name.len()).next_multiple_of(4);
        let Some(start) = self.end.checked_sub(value.len().next_multiple_of(4)) else { return false };
        if next + TERMINATOR > start {
            return false;
        }
        let (at, list) = (self.at, &mut self.list);
        list[start..start + value.len()].copy_from_slice(value);
        list[at] = entry.name.len() as u8;
        list[at + 1] = entry.name_index;
        put(list, at + 2, if value.is_empty() { 0 } else { (start + bias) as u16 });
        put(list, at + 4, entry.value_inum);
        put(list, at + 8, entry.value_size);
        put(list, at + 12, entry.hash);
        list[at + XattrEntry::SIZE..at + XattrEntry::SIZE + entry.name.len()].copy_from_slice(entry.name);
        (self.at, self.end) = (next, start);
        true
    }
}

/// Makes `area`, an inode's bytes behind its fixed fields, hold `list`, which is 4 bytes shorter. An empty list has no
/// magic either (F82).
pub fn put_list_of_inode(area: &mut [u8], list: &[u8]) {
    let empty = list.starts_with(&[0; TERMINATOR]);
    put(area, 0, if empty { 0 } else { MAGIC });
    area[4..].copy_from_slice(list);
}

/// The list inside an inode's area behind its fixed fields, if there is one (F82).
pub fn list_of_inode(area: &[u8]) -> Option<&[u8]> {
    let (magic, list) = area.split_first_chunk::<4>()?;
    (*magic == MAGIC.to_le_bytes()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut block = vec![0; 1024];
        XattrHeader { refcount: 2, blocks: 1, hash: 9, checksum: 0 }.encode_into(&mut block);
        block[32..34].copy_from_slice(&[3, 1]);
        put(&mut block, 34, 1020u16);
        put(&mut block, 40, 4u32);
        block[48..51].copy_from_slice(b"key");
        block[1020..].copy_from_slice(b"abcd");
        XattrHeader::seal(&mut block, 7, Pblk(99));
        block
    }

    #[test]
    fn header_and_entries() {
        let block = sample();
        let header = XattrHeader::decode(&block, Some(7), Pblk(99)).unwrap();
        assert_eq!((header.refcount, header.hash), (2, 9));
        let found: Vec<_> = entries(&block[32..]).map(|entry| entry.unwrap()).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].value_offs, found[0].value_size), (&b"key"[..], 1020, 4));
    }

    #[test]
    fn every_damaged_byte() {
        let block = sample();
        for at in 0..block.len() {
            for value in [0, 1, 0x7F, 0xFF, block[at] ^ 1] {
                let mut damaged = block.clone();
                damaged[at] = value;
                let changed = damaged != block;
                assert_eq!(XattrHeader::decode(&damaged, Some(7), Pblk(99)).is_err(), changed);
                let walked = entries(&damaged[32..]).count();
                assert!(walked <= 64);
            }
        }
    }

    #[test]
    fn one_entry_less() {
        let mut block = sample();
        // A second entry, with a value of five bytes below the first one's.
        block[52..54].copy_from_slice(&[2, 6]);
        put(&mut block, 54, 1012u16);
        put(&mut block, 60, 5u32);
        block[68..70].copy_from_slice(b"ca");
        block[1012..1017].copy_from_slice(b"value");
        let list = &block[XattrHeader::SIZE..];
        assert_eq!(without(list, XattrHeader::SIZE, 6, b"other"), Ok(None));
        let kept = without(list, XattrHeader::SIZE, 1, b"key").unwrap().unwrap();
        let left: Vec<_> = entries(&kept).map(|entry| entry.unwrap()).collect();
        assert_eq!((left.len(), left[0].name, left[0].value_size), (1, &b"ca"[..], 5));
        let start = usize::from(left[0].value_offs) - XattrHeader::SIZE;
        assert_eq!(&kept[start..start + 5], b"value");
        let none = without(&kept, XattrHeader::SIZE, 6, b"ca").unwrap().unwrap();
        assert!(none.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn setting_fills_a_list_and_keeps_it_sound() {
        let mut list = vec![0; 92];
        for (name, value) in [("a", &b"1"[..]), ("bc", b"12345"), ("empty", b""), ("a", b"other")] {
            list = with(&list, 1, name.as_bytes(), value).unwrap().unwrap();
            let entry = find(&list, 1, name.as_bytes()).unwrap().unwrap();
            assert_eq!(super::value(&list, 0, &entry).unwrap(), value);
            assert_eq!(entry.hash, 0);
        }
        assert_eq!(entries(&list).count(), 3);
        // 92 − 4 for the end − 20, 20 and 24 for entries − 8 and 8 for values: 8 are left.
        assert_eq!(with(&list, 1, b"d", b"").unwrap(), None);
        assert_eq!(with(&list, 1, b"a", &[7; 17]).unwrap(), None);
        let full = with(&list, 1, b"a", &[7; 16]).unwrap().unwrap();
        let entry = find(&full, 1, b"bc").unwrap().unwrap();
        assert_eq!(super::value(&full, 0, &entry).unwrap(), b"12345");
        let mut area = vec![0; 96];
        put_list_of_inode(&mut area, &full);
        assert_eq!(list_of_inode(&area), Some(&full[..]));
        put_list_of_inode(&mut area, &[0; 92]);
        assert!(area.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn damaged_lists_are_refused_not_followed() {
        let list = with(&[0; 64], 1, b"key", b"value").unwrap().unwrap();
        for at in 0..list.len() {
            for byte in 0..=255 {
                let mut damaged = list.clone();
                damaged[at] = byte;
                let _any = with(&damaged, 6, b"capability", &[1; 20]);
                let _any = without(&damaged, 0, 1, b"key");
                if let Ok(Some(entry)) = find(&damaged, 1, b"key") {
                    let _any = super::value(&damaged, 0, &entry);
                }
            }
        }
        assert_eq!(with(&[0; 3], 1, b"k", b"").map_err(|_| ()), Err(()));
    }
}
