//! D1–D4, F58, F59: the nodes of an extent tree, in the inode or in a block of their own.

use crate::checksum::crc32c;
use crate::{Corrupt, Lblk, Pblk, Result};

const WHAT: &str = "extent node";

/// D1: how deep a tree may be; a leaf in the inode has depth 0.
pub const MAX_DEPTH: u16 = 5;
/// The root's size: the whole of i_block.
pub const ROOT_SIZE: usize = 60;
/// D3: the longest written extent, in blocks.
pub const MAX_WRITTEN_LEN: u32 = 0x8000;
/// D3: the longest unwritten extent, in blocks.
pub const MAX_UNWRITTEN_LEN: u32 = 0x7FFF;
/// No extent covers this block or one after it: logical end numbers must fit 32 bits.
pub const MAX_LBLK: u32 = u32::MAX;

const PBLK_END: u64 = 1 << 48;

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// D1: how many entries fit a node of `size` bytes (4 in the root, 340 in a 4 KiB block).
pub const fn capacity(size: usize) -> usize {
    (size - ExtentHeader::SIZE) / Extent::SIZE
}

const _: () = assert!(capacity(ROOT_SIZE) == 4);
const _: () = assert!(capacity(1024) == 84 && capacity(4096) == 340 && capacity(65536) == 5460);

/// The first 12 bytes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentHeader {
    /// Entries in use.
    pub entries: u16,
    /// Entries that fit; places the checksum (D2).
    pub max: u16,
    /// 0: leaf.
    pub depth: u16,
    /// Unused, kept as found.
    pub generation: u32,
}

impl ExtentHeader {
    /// Size in bytes.
    pub const SIZE: usize = 12;
    /// eh_magic.
    pub const MAGIC: u16 = 0xF30A;
    const EH_MAGIC: usize = 0x0;
    const EH_ENTRIES: usize = 0x2;
    const EH_MAX: usize = 0x4;
    const EH_DEPTH: usize = 0x6;
    const EH_GENERATION: usize = 0x8;

    /// Decodes what does not depend on the place in the tree: magic, 0 < max ≤ what fits `node`, entries ≤ max, depth
    /// (D4). `node` is the whole node.
    pub fn decode(node: &[u8]) -> Result<Self> {
        assert!(node.len() >= ROOT_SIZE);
        let magic = le16(node, Self::EH_MAGIC);
        let header = Self {
            entries: le16(node, Self::EH_ENTRIES),
            max: le16(node, Self::EH_MAX),
            depth: le16(node, Self::EH_DEPTH),
            generation: le32(node, Self::EH_GENERATION),
        };
        if magic != Self::MAGIC {
            return Err(Corrupt::structure(WHAT, format!("magic {magic:#06x}")));
        }
        if header.max == 0 || usize::from(header.max) > capacity(node.len()) {
            return Err(Corrupt::structure(WHAT, format!("eh_max {}", header.max)));
        }
        if header.entries > header.max {
            let detail = format!("{} entries of at most {}", header.entries, header.max);
            return Err(Corrupt::structure(WHAT, detail));
        }
        if header.depth > MAX_DEPTH {
            return Err(Corrupt::structure(WHAT, format!("depth {}", header.depth)));
        }
        Ok(header)
    }

    /// Writes the header into the first bytes of `node`.
    pub fn encode(&self, node: &mut [u8]) {
        assert!(self.max > 0 && usize::from(self.max) <= capacity(node.len()));
        assert!(self.entries <= self.max && self.depth <= MAX_DEPTH);
        node[Self::EH_MAGIC..][..2].copy_from_slice(&Self::MAGIC.to_le_bytes());
        node[Self::EH_ENTRIES..][..2].copy_from_slice(&self.entries.to_le_bytes());
        node[Self::EH_MAX..][..2].copy_from_slice(&self.max.to_le_bytes());
        node[Self::EH_DEPTH..][..2].copy_from_slice(&self.depth.to_le_bytes());
        node[Self::EH_GENERATION..][..4].copy_from_slice(&self.generation.to_le_bytes());
    }
}

const _: () = assert!(ExtentHeader::EH_GENERATION + 4 == ExtentHeader::SIZE);

/// A leaf's entry: a run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First logical block.
    pub lblk: Lblk,
    /// Blocks: 1 to 32768 written, 1 to 32767 unwritten (D3).
    pub len: u32,
    /// First physical block, not 0, below 2^48.
    pub start: Pblk,
    /// Allocated, but reads as zeros.
    pub unwritten: bool,
}

impl Extent {
    /// Size in bytes.
    pub const SIZE: usize = 12;
    const EE_BLOCK: usize = 0x0;
    const EE_LEN: usize = 0x4;
    const EE_START_HI: usize = 0x6;
    const EE_START_LO: usize = 0x8;

    /// D3: the longest extent of a state.
    pub const fn max_len(unwritten: bool) -> u32 {
        if unwritten { MAX_UNWRITTEN_LEN } else { MAX_WRITTEN_LEN }
    }

    /// The first logical block after it.
    pub fn end(&self) -> u64 {
        u64::from(self.lblk.0) + u64::from(self.len)
    }

    /// What is wrong with it on its own (D4, F59): length 0 or too long, logical or physical wrap, physical block 0 or not
    /// below `blocks`.
    pub fn check(&self, blocks: u64) -> Result<()> {
        let broken = if self.len == 0 {
            "has length 0"
        } else if self.len > Self::max_len(self.unwritten) {
            "is too long"
        } else if self.end() > u64::from(MAX_LBLK) {
            "wraps"
        } else if self.start.0 == 0 {
            "starts at physical block 0"
        } else if self.start.0.checked_add(u64::from(self.len)).is_none_or(|end| end > blocks.min(PBLK_END)) {
            "ends outside the volume"
        } else {
            return Ok(());
        };
        Err(Corrupt::structure(WHAT, format!("extent {}+{} at {} {broken}", self.lblk, self.len, self.start)))
    }

    /// Decodes 12 bytes; anything decodes, `check` judges.
    pub fn decode(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= Self::SIZE);
        let raw_len = u32::from(le16(bytes, Self::EE_LEN));
        let unwritten = raw_len > MAX_WRITTEN_LEN;
        let hi = u64::from(le16(bytes, Self::EE_START_HI));
        Self {
            lblk: Lblk(le32(bytes, Self::EE_BLOCK)),
            len: if unwritten { raw_len - MAX_WRITTEN_LEN } else { raw_len },
            start: Pblk(hi << 32 | u64::from(le32(bytes, Self::EE_START_LO))),
            unwritten,
        }
    }

    /// Encodes into 12 bytes.
    pub fn encode(&self, bytes: &mut [u8]) {
        assert!(self.check(PBLK_END).is_ok(), "an extent that no tree may hold: {self:?}");
        let raw_len = if self.unwritten { self.len + MAX_WRITTEN_LEN } else { self.len };
        bytes[Self::EE_BLOCK..][..4].copy_from_slice(&self.lblk.0.to_le_bytes());
        bytes[Self::EE_LEN..][..2].copy_from_slice(&(raw_len as u16).to_le_bytes());
        bytes[Self::EE_START_HI..][..2].copy_from_slice(&((self.start.0 >> 32) as u16).to_le_bytes());
        bytes[Self::EE_START_LO..][..4].copy_from_slice(&(self.start.0 as u32).to_le_bytes());
    }
}

const _: () = assert!(Extent::EE_START_LO + 4 == Extent::SIZE);

/// An index node's entry: a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentIndex {
    /// The first logical block below it: its first entry's key.
    pub lblk: Lblk,
    /// Where the child is, not 0, below 2^48.
    pub leaf: Pblk,
}

impl ExtentIndex {
    /// Size in bytes.
    pub const SIZE: usize = 12;
    const EI_BLOCK: usize = 0x0;
    const EI_LEAF_LO: usize = 0x4;
    const EI_LEAF_HI: usize = 0x8;
    const EI_UNUSED: usize = 0xA;

    /// What is wrong with it on its own (D4, F59).
    pub fn check(&self, blocks: u64) -> Result<()> {
        if self.leaf.0 == 0 || self.leaf.0 >= blocks.min(PBLK_END) {
            let detail = format!("index {} points outside the volume, to {}", self.lblk, self.leaf);
            return Err(Corrupt::structure(WHAT, detail));
        }
        Ok(())
    }

    /// Decodes 12 bytes; anything decodes, `check` judges.
    pub fn decode(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= Self::SIZE);
        let hi = u64::from(le16(bytes, Self::EI_LEAF_HI));
        Self {
            lblk: Lblk(le32(bytes, Self::EI_BLOCK)),
            leaf: Pblk(hi << 32 | u64::from(le32(bytes, Self::EI_LEAF_LO))),
        }
    }

    /// Encodes into 12 bytes.
    pub fn encode(&self, bytes: &mut [u8]) {
        assert!(self.check(PBLK_END).is_ok(), "an index entry that no tree may hold: {self:?}");
        bytes[Self::EI_BLOCK..][..4].copy_from_slice(&self.lblk.0.to_le_bytes());
        bytes[Self::EI_LEAF_LO..][..4].copy_from_slice(&(self.leaf.0 as u32).to_le_bytes());
        bytes[Self::EI_LEAF_HI..][..2].copy_from_slice(&((self.leaf.0 >> 32) as u16).to_le_bytes());
        bytes[Self::EI_UNUSED..][..2].fill(0);
    }
}

const _: () = assert!(ExtentIndex::EI_UNUSED + 2 == ExtentIndex::SIZE && ExtentIndex::SIZE == Extent::SIZE);

/// What a node holds, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entries {
    /// Depth 0.
    Leaf(Vec<Extent>),
    /// Depth 1 and more.
    Index(Vec<ExtentIndex>),
}

impl Entries {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Leaf(extents) => extents.len(),
            Self::Index(children) => children.len(),
        }
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first entry's logical block.
    pub fn first_key(&self) -> Option<Lblk> {
        match self {
            Self::Leaf(extents) => extents.first().map(|extent| extent.lblk),
            Self::Index(children) => children.first().map(|child| child.lblk),
        }
    }

    /// Keeps the first `at` entries and returns the others.
    pub fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Leaf(extents) => Self::Leaf(extents.split_off(at)),
            Self::Index(children) => Self::Index(children.split_off(at)),
        }
    }
}

/// What a node's place in its tree demands of it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its depth; `None` for the root, which has any.
    pub depth: Option<u16>,
    /// Its parent's key, which is its first key; `None` for the root.
    pub first: Option<Lblk>,
    /// No entry reaches this logical block: the key after its parent's.
    pub end: u64,
    /// Blocks of the volume.
    pub blocks: u64,
}

impl Place {
    /// A root's.
    pub fn root(blocks: u64) -> Self {
        Self { depth: None, first: None, end: u64::from(MAX_LBLK), blocks }
    }
}

/// Decodes a node and checks every rule of D4 that its own bytes and its place can break.
pub fn decode_node(node: &[u8], place: Place) -> Result<(ExtentHeader, Entries)> {
    let header = ExtentHeader::decode(node)?;
    if place.depth.is_some_and(|depth| depth != header.depth) {
        return Err(Corrupt::structure(WHAT, format!("depth {}, expected {:?}", header.depth, place.depth)));
    }
    if header.depth > 0 && header.entries == 0 {
        return Err(Corrupt::structure(WHAT, "an index without entries"));
    }
    let chunks = node[ExtentHeader::SIZE..].chunks_exact(Extent::SIZE).take(header.entries.into());
    let entries = if header.depth == 0 {
        Entries::Leaf(chunks.map(Extent::decode).collect())
    } else {
        Entries::Index(chunks.map(ExtentIndex::decode).collect())
    };
    check_order(&entries, place)?;
    Ok((header, entries))
}

fn check_order(entries: &Entries, place: Place) -> Result<()> {
    if let (Some(expected), Some(found)) = (place.first, entries.first_key())
        && expected != found
    {
        return Err(Corrupt::structure(WHAT, format!("first key {found}, its parent's is {expected}")));
    }
    // Where the next entry may start.
    let mut free = 0u64;
    match entries {
        Entries::Leaf(extents) => {
            for extent in extents {
                extent.check(place.blocks)?;
                if u64::from(extent.lblk.0) < free {
                    return Err(Corrupt::structure(
                        WHAT,
                        format!("extent {} overlaps or misordered", extent.lblk),
                    ));
                }
                free = extent.end();
            }
        }
        Entries::Index(children) => {
            for child in children {
                child.check(place.blocks)?;
                if u64::from(child.lblk.0) < free {
                    return Err(Corrupt::structure(WHAT, format!("index {} misordered", child.lblk)));
                }
                free = u64::from(child.lblk.0) + 1;
            }
        }
    }
    if free > place.end {
        return Err(Corrupt::structure(WHAT, format!("reaches {free}, past the next key {}", place.end)));
    }
    Ok(())
}

/// Writes a node: header, entries, zeros up to the tail. `max` is what the node had, or [`capacity`] for a new one. The
/// generation stays as it is; the checksum is sealed apart.
pub fn encode_node(node: &mut [u8], depth: u16, max: u16, entries: &Entries) {
    assert!(entries.len() <= usize::from(max));
    assert!(matches!(entries, Entries::Leaf(_)) == (depth == 0));
    let generation = le32(node, ExtentHeader::EH_GENERATION);
    ExtentHeader { entries: entries.len() as u16, max, depth, generation }.encode(node);
    let area = &mut node[ExtentHeader::SIZE..][..usize::from(max) * Extent::SIZE];
    area[entries.len() * Extent::SIZE..].fill(0);
    let slots = area.chunks_exact_mut(Extent::SIZE);
    match entries {
        Entries::Leaf(extents) => extents.iter().zip(slots).for_each(|(extent, slot)| extent.encode(slot)),
        Entries::Index(children) => children.iter().zip(slots).for_each(|(child, slot)| child.encode(slot)),
    }
}

/// F58: the root of a file without blocks.
pub fn empty_root() -> [u8; ROOT_SIZE] {
    let mut root = [0; ROOT_SIZE];
    encode_node(&mut root, 0, capacity(ROOT_SIZE) as u16, &Entries::Leaf(Vec::new()));
    root
}

fn tail_offset(block: &[u8]) -> Result<usize> {
    let header = ExtentHeader::decode(block)?;
    let at = ExtentHeader::SIZE + Extent::SIZE * usize::from(header.max);
    // A block of a power of two always has 4 bytes left over.
    if at + 4 > block.len() {
        return Err(Corrupt::structure(WHAT, format!("eh_max {} leaves no room for a checksum", header.max)));
    }
    Ok(at)
}

/// D2: checks the checksum of a node in a block of its own. `seed` is the inode's (F4).
///
/// # Errors
/// A header that gives the checksum no place, or another checksum.
pub fn verify_tail(block: &[u8], seed: u32) -> Result<()> {
    let at = tail_offset(block)?;
    let (found, expected) = (le32(block, at), crc32c(seed, &block[..at]));
    if found == expected { Ok(()) } else { Err(Corrupt::Checksum { what: WHAT, found, expected }) }
}

/// D2: writes the checksum. The header must be valid: we wrote it.
pub fn seal_tail(block: &mut [u8], seed: u32) {
    let at = tail_offset(block).expect("a node that we encoded");
    let checksum = crc32c(seed, &block[..at]);
    block[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests;
