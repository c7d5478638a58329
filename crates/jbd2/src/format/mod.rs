//! The journal on disk. All of it is big-endian (J1).

mod blocks;
mod descriptor;
mod superblock;

pub(crate) use blocks::crc32_be;
pub use blocks::{CommitBlock, CommitSum, RevokeBlock};
pub use descriptor::{Tag, TagFlags};
pub use superblock::{JournalSuperblock, create_superblock, feature};

/// The magic of every control block (D17).
pub const MAGIC: u32 = 0xC03B_3998;
/// Bytes of the header that every control block starts with (J9).
pub const HEADER_SIZE: usize = 12;

/// Types of control blocks (J3, J9).
#[expect(missing_docs, reason = "the names are jbd2's")]
pub mod block_type {
    pub const DESCRIPTOR: u32 = 1;
    pub const COMMIT: u32 = 2;
    pub const SUPERBLOCK_V1: u32 = 3;
    pub const SUPERBLOCK_V2: u32 = 4;
    pub const REVOKE: u32 = 5;
}

/// crc32c continued from a raw state, without final inversion; a chain starts with `!0`.
pub(crate) fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!state, bytes)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn put_be16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_be32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Which checksums a journal carries (J5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// None.
    None,
    /// CRC-32 over each transaction, in the commit block (J19).
    V1,
    /// 16 bits per tag.
    V2,
    /// 32 bits per tag.
    V3,
}

/// What decides the layout of the log's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a block.
    pub block_size: usize,
    /// 64BIT: block numbers have 64 bits.
    pub wide: bool,
    /// Which checksums there are.
    pub checksums: Checksums,
    /// S: crc32c(~0, s_uuid) (J14).
    pub seed: u32,
}

impl Layout {
    /// Whether control blocks carry crc32c sums.
    pub fn has_crc32c(&self) -> bool {
        matches!(self.checksums, Checksums::V2 | Checksums::V3)
    }

    /// Bytes at the end of descriptor and revoke blocks (J14).
    pub fn tail_size(&self) -> usize {
        if self.has_crc32c() { 4 } else { 0 }
    }

    /// J14: sets the tail of a descriptor or revoke block.
    pub(crate) fn seal_tail(&self, block: &mut [u8]) {
        if self.has_crc32c() {
            let at = self.block_size - 4;
            put_be32(block, at, 0);
            let sum = crc32c(self.seed, block);
            put_be32(block, at, sum);
        }
    }

    /// J14: whether the tail of a descriptor or revoke block is right; always without v2/v3.
    pub fn tail_is_good(&self, block: &[u8]) -> bool {
        if !self.has_crc32c() {
            return true;
        }
        let at = self.block_size - 4;
        crc32c(crc32c(self.seed, &block[..at]), &[0; 4]) == be32(block, at)
    }

    /// J15: the sum of a block as it lies in the log, for its tag; 0 without v2/v3.
    pub fn data_sum(&self, tid: u32, logged: &[u8]) -> u32 {
        match self.checksums {
            Checksums::None | Checksums::V1 => 0,
            Checksums::V2 => crc32c(crc32c(self.seed, &tid.to_be_bytes()), logged) & 0xFFFF,
            Checksums::V3 => crc32c(crc32c(self.seed, &tid.to_be_bytes()), logged),
        }
    }
}

/// The header of a control block (J9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// See [`block_type`].
    pub kind: u32,
    /// The transaction.
    pub tid: u32,
}

impl Header {
    const H_MAGIC: usize = 0;
    const H_BLOCKTYPE: usize = 4;
    const H_SEQUENCE: usize = 8;

    /// The header of a control block; `None` where the magic is missing.
    pub fn decode(block: &[u8]) -> Option<Self> {
        (be32(block, Self::H_MAGIC) == MAGIC)
            .then(|| Self { kind: be32(block, Self::H_BLOCKTYPE), tid: be32(block, Self::H_SEQUENCE) })
    }

    /// Puts the header at the start of a block.
    pub fn encode(&self, block: &mut [u8]) {
        put_be32(block, Self::H_MAGIC, MAGIC);
        put_be32(block, Self::H_BLOCKTYPE, self.kind);
        put_be32(block, Self::H_SEQUENCE, self.tid);
    }
}

const _: () = assert!(Header::H_SEQUENCE + 4 == HEADER_SIZE);
