//! Logs made by hand, block by block, that can be damaged and sealed again.

use std::sync::Arc;

use crate::common::*;
use jbd2::format::{
    Checksums, CommitBlock, Header, JournalSuperblock, Layout, MAGIC, Tag, TagFlags, block_type,
    create_superblock, feature,
};
use jbd2::recovery::{self, RecoverOptions, Recovered};

pub const OPTIONS: RecoverOptions =
    RecoverOptions { volume_blocks: HOME_BLOCKS + LOG_BLOCKS as u64, write_bytes: 1 << 16 };

/// Where the blocks of a transaction lie in the log.
#[derive(Debug, Clone)]
pub struct Placed {
    pub descriptor: u32,
    pub data: Vec<u32>,
    pub commit: u32,
}

#[derive(Clone)]
pub struct Crafted {
    pub bytes: Vec<u8>,
    pub jsb: JournalSuperblock,
    pub layout: Layout,
    pub position: u32,
    pub tid: u32,
    /// J19, of the transaction that is being written.
    v1_sum: u32,
}

impl Crafted {
    /// An empty log whose first transaction is `tid` at log block `start`.
    pub fn new(checksums: Checksums, wide: bool, start: u32, tid: u32) -> Self {
        let mut jsb = create_superblock(BS as u32, LOG_BLOCKS, [7; 16]).unwrap();
        jsb.s_feature_incompat = feature::INCOMPAT_REVOKE;
        if wide {
            jsb.s_feature_incompat |= feature::INCOMPAT_64BIT;
        }
        match checksums {
            Checksums::None => {}
            Checksums::V1 => jsb.s_feature_compat = feature::COMPAT_CHECKSUM,
            Checksums::V2 => jsb.s_feature_incompat |= feature::INCOMPAT_CSUM_V2,
            Checksums::V3 => jsb.s_feature_incompat |= feature::INCOMPAT_CSUM_V3,
        }
        if matches!(checksums, Checksums::V2 | Checksums::V3) {
            jsb.s_checksum_type = 4;
        }
        (jsb.s_start, jsb.s_sequence) = (start, tid);
        let layout = jsb.layout();
        let bytes = vec![0; (HOME_BLOCKS as usize + LOG_BLOCKS as usize) * BS];
        let mut this = Self { bytes, jsb, layout, position: start, tid, v1_sum: !0 };
        this.put_jsb();
        this
    }

    /// Adds a feature to JSB.
    pub fn with_incompat(mut self, bit: u32) -> Self {
        self.jsb.s_feature_incompat |= bit;
        self.put_jsb();
        self
    }

    pub fn put_jsb(&mut self) {
        let jsb = self.jsb.clone();
        jsb.encode(self.block(0));
    }

    /// Log block `n`.
    pub fn block(&mut self, n: u32) -> &mut [u8] {
        &mut self.bytes[log_block(n) as usize * BS..][..BS]
    }

    fn take_position(&mut self) -> u32 {
        let position = self.position;
        self.position = if position + 1 == self.jsb.ring_end() { self.jsb.s_first } else { position + 1 };
        position
    }

    fn append(&mut self, block: &[u8], covered_by_v1: bool) -> u32 {
        let position = self.take_position();
        self.block(position).copy_from_slice(block);
        if covered_by_v1 {
            self.v1_sum = crc32_be(self.v1_sum, block);
        }
        position
    }

    /// One descriptor with its data: home block and value (see [`content`]).
    pub fn descriptor(&mut self, blocks: &[(u64, u64)]) -> (u32, Vec<u32>) {
        let logged: Vec<(Vec<u8>, bool)> = blocks.iter().map(|&(_, value)| escaped(sealed(value))).collect();
        let tags: Vec<Tag> = blocks
            .iter()
            .zip(&logged)
            .map(|(&(block, _), (data, escaped))| Tag {
                block,
                flags: TagFlags(u32::from(*escaped)),
                checksum: self.layout.data_sum(self.tid, data),
            })
            .collect();
        let mut block = vec![0; BS];
        self.layout.encode_descriptor(self.tid, &tags, &mut block);
        let descriptor = self.append(&block, true);
        (descriptor, logged.iter().map(|(data, _)| self.append(data, true)).collect())
    }

    pub fn revoke(&mut self, blocks: &[u64]) -> u32 {
        let mut block = vec![0; BS];
        self.layout.encode_revoke(self.tid, blocks, &mut block);
        self.append(&block, false)
    }

    pub fn commit(&mut self, seconds: u64) -> u32 {
        let commit = CommitBlock { tid: self.tid, seconds, nanoseconds: 0 };
        let mut block = vec![0; BS];
        if self.layout.checksums == Checksums::V1 {
            commit.encode(&Layout { checksums: Checksums::None, ..self.layout }, &mut block);
            (block[12], block[13]) = (1, 4);
            block[16..20].copy_from_slice(&self.v1_sum.to_be_bytes());
        } else {
            commit.encode(&self.layout, &mut block);
        }
        self.v1_sum = !0;
        self.tid = self.tid.wrapping_add(1);
        self.append(&block, false)
    }

    /// One descriptor, its data, and the commit block.
    pub fn transaction(&mut self, blocks: &[(u64, u64)], seconds: u64) -> Placed {
        let (descriptor, data) = self.descriptor(blocks);
        Placed { descriptor, data, commit: self.commit(seconds) }
    }

    /// Makes the sums inside a control block right again, whatever is in it.
    pub fn seal(&mut self, n: u32) {
        let layout = self.layout;
        let block = self.block(n);
        let is_commit = Header::decode(block).is_some_and(|header| header.kind == block_type::COMMIT);
        let at = if is_commit { 16 } else { BS - 4 };
        if layout.has_crc32c() {
            block[at..at + 4].fill(0);
            let sum = raw_crc32c(layout.seed, block);
            block[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        }
    }

    pub fn device(&self) -> Arc<TestDevice> {
        TestDevice::of(self.bytes.clone())
    }

    /// Recovers a copy. A refusal must have written nothing (R6).
    pub fn recover(&self) -> (Arc<TestDevice>, jbd2::Result<Recovered>) {
        let device = self.device();
        let result = recovery::recover(&*device, BS, &log_map(), OPTIONS);
        if result.is_err() {
            assert!(device.take_trace().is_empty(), "a refused log was written to: {result:?}");
        }
        (device, result)
    }

    /// The errno of the refusal, or the number of transactions and the values of home blocks 0 to 9 afterwards
    /// (0 where nothing was written).
    pub fn verdict(&self) -> Result<(u32, [u64; 10]), i32> {
        let (device, result) = self.recover();
        let recovered = result.map_err(|error| error.errno())?;
        let value = |block: usize| {
            let bytes = device.block(block as u64);
            let value = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
            assert_eq!(bytes, if value == 0 { vec![0; BS] } else { sealed(value) }, "block {block}");
            value
        };
        Ok((recovered.transactions, std::array::from_fn(value)))
    }
}

/// The log's form of a block, and whether it is escaped (D19).
fn escaped(mut data: Vec<u8>) -> (Vec<u8>, bool) {
    let escape = data[..4] == MAGIC.to_be_bytes();
    if escape {
        data[..4].fill(0);
    }
    (data, escape)
}

pub fn raw_crc32c(state: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!state, bytes)
}

/// J19, bit by bit.
fn crc32_be(mut state: u32, bytes: &[u8]) -> u32 {
    for &byte in bytes {
        state ^= u32::from(byte) << 24;
        for _ in 0..8 {
            state = if state >> 31 == 1 { state << 1 ^ 0x04C1_1DB7 } else { state << 1 };
        }
    }
    state
}
