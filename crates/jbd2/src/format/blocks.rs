//! Revoke and commit blocks (J17–J19).

use super::{Checksums, HEADER_SIZE, Header, Layout, be32, block_type, crc32c, put_be32};

/// A revoke block (J17).
pub struct RevokeBlock;

impl RevokeBlock {
    const R_COUNT: usize = 12;
    const RECORDS: usize = 16;
}

const _: () = assert!(RevokeBlock::R_COUNT == HEADER_SIZE);

impl Layout {
    fn record_size(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    /// Records that fit into one revoke block.
    pub fn records_per_revoke_block(&self) -> usize {
        (self.block_size - RevokeBlock::RECORDS - self.tail_size()) / self.record_size()
    }

    /// Makes a revoke block of `blocks`, at most [`Layout::records_per_revoke_block`]. `out` is overwritten.
    pub fn encode_revoke(&self, tid: u32, blocks: &[u64], out: &mut [u8]) {
        assert!(out.len() == self.block_size && blocks.len() <= self.records_per_revoke_block());
        out.fill(0);
        Header { kind: block_type::REVOKE, tid }.encode(out);
        let mut at = RevokeBlock::RECORDS;
        for &block in blocks {
            if self.wide {
                out[at..at + 8].copy_from_slice(&block.to_be_bytes());
            } else {
                assert!(block <= u64::from(u32::MAX));
                put_be32(out, at, block as u32);
            }
            at += self.record_size();
        }
        put_be32(out, RevokeBlock::R_COUNT, at as u32);
        self.seal_tail(out);
    }

    /// The blocks that a revoke block names; `None` where r_count is impossible (EINVAL).
    pub fn decode_revoke(&self, block: &[u8]) -> Option<Vec<u64>> {
        assert!(block.len() == self.block_size);
        let count = be32(block, RevokeBlock::R_COUNT) as usize;
        if count > self.block_size - self.tail_size() {
            return None;
        }
        let records = block.get(RevokeBlock::RECORDS..count).unwrap_or(&[]);
        // A partial last record is ignored.
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Some(records.chunks_exact(self.record_size()).map(number).collect())
    }
}

/// A commit block (J18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitBlock {
    /// The transaction.
    pub tid: u32,
    /// When it was committed, seconds.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// What the checksum of a commit block says (R5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitSum {
    /// Right, or there is none.
    Good,
    /// Right over the first 64 bytes with zeros behind them: a torn block, accepted.
    Torn,
    /// Wrong.
    Bad,
}

impl CommitBlock {
    const H_CHKSUM_TYPE: usize = 12;
    const H_CHKSUM_SIZE: usize = 13;
    const H_CHKSUM: usize = 16;
    const H_COMMIT_SEC: usize = 48;
    const H_COMMIT_NSEC: usize = 56;
    /// Its fields, and the padding that the kernel's structure has behind them: what it looks at in a torn block.
    const USED: usize = 64;

    /// Makes a commit block; `out` is overwritten. v1 sums are never written (J8).
    pub fn encode(&self, layout: &Layout, out: &mut [u8]) {
        assert!(out.len() == layout.block_size && layout.checksums != Checksums::V1);
        out.fill(0);
        Header { kind: block_type::COMMIT, tid: self.tid }.encode(out);
        out[Self::H_COMMIT_SEC..Self::H_COMMIT_SEC + 8].copy_from_slice(&self.seconds.to_be_bytes());
        put_be32(out, Self::H_COMMIT_NSEC, self.nanoseconds);
        if layout.has_crc32c() {
            let sum = crc32c(layout.seed, out);
            put_be32(out, Self::H_CHKSUM, sum);
        }
    }

    /// The fields of a block whose header says commit.
    pub fn decode(block: &[u8]) -> Self {
        Self {
            tid: be32(block, 8),
            seconds: u64::from(be32(block, Self::H_COMMIT_SEC)) << 32
                | u64::from(be32(block, Self::H_COMMIT_SEC + 4)),
            nanoseconds: be32(block, Self::H_COMMIT_NSEC),
        }
    }

    /// Verifies the checksum. `v1_sum`: what J19 yields for the transaction.
    pub fn verify(layout: &Layout, block: &[u8], v1_sum: u32) -> CommitSum {
        assert!(block.len() == layout.block_size);
        let stored = be32(block, Self::H_CHKSUM);
        match layout.checksums {
            Checksums::None => CommitSum::Good,
            Checksums::V1 => {
                let (kind, size) = (block[Self::H_CHKSUM_TYPE], block[Self::H_CHKSUM_SIZE]);
                let absent = kind == 0 && size == 0 && stored == 0;
                if absent || (kind == 1 && size == 4 && stored == v1_sum) {
                    CommitSum::Good
                } else {
                    CommitSum::Bad
                }
            }
            Checksums::V2 | Checksums::V3 => {
                let head = crc32c(crc32c(layout.seed, &block[..Self::H_CHKSUM]), &[0; 4]);
                let used = crc32c(head, &block[Self::H_CHKSUM + 4..Self::USED]);
                if crc32c(used, &block[Self::USED..]) == stored {
                    CommitSum::Good
                } else if crc32c(used, &vec![0; layout.block_size - Self::USED]) == stored {
                    CommitSum::Torn
                } else {
                    CommitSum::Bad
                }
            }
        }
    }
}

const _: () = assert!(CommitBlock::H_COMMIT_NSEC + 8 == CommitBlock::USED);

/// J19: the v1 sum, most significant bit first, continued from `state`; a transaction starts with `!0`.
pub(crate) fn crc32_be(state: u32, bytes: &[u8]) -> u32 {
    static TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = (index as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 << 31 == 0 { value << 1 } else { value << 1 ^ 0x04C1_1DB7 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(state, |state, &byte| state << 8 ^ TABLE[(state >> 24) as usize ^ usize::from(byte)])
}
