//! The journal superblock (J3–J8, J22, J26).

use super::{Checksums, HEADER_SIZE, Layout, MAGIC, be32, block_type, crc32c, put_be32};
use crate::{Error, Result};

/// Feature bits (J5).
#[expect(missing_docs, reason = "the names are jbd2's")]
pub mod feature {
    pub const COMPAT_CHECKSUM: u32 = 0x1;
    pub const INCOMPAT_REVOKE: u32 = 0x1;
    pub const INCOMPAT_64BIT: u32 = 0x2;
    pub const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
    pub const INCOMPAT_CSUM_V2: u32 = 0x8;
    pub const INCOMPAT_CSUM_V3: u32 = 0x10;
    pub const INCOMPAT_FAST_COMMIT: u32 = 0x20;
    pub const INCOMPAT_KNOWN: u32 = 0x3F;
}

const CHECKSUM_TYPE_CRC32C: u8 = 4;
const MIN_LOG_BLOCKS: u32 = 1024;
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;

/// The journal superblock. Bytes without a field here survive decode and encode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSuperblock {
    /// Type 4; a v1 superblock has none of the features (J6).
    pub v2: bool,
    /// Bytes of a block.
    pub s_blocksize: u32,
    /// Blocks in the log, this one and the fast-commit area included.
    pub s_maxlen: u32,
    /// First usable block.
    pub s_first: u32,
    /// Tid expected at `s_start`; when empty the next transaction is one more.
    pub s_sequence: u32,
    /// Block of the oldest transaction; 0: empty.
    pub s_start: u32,
    /// 0 or the negative errno of an abort.
    pub s_errno: i32,
    /// See [`feature`].
    pub s_feature_compat: u32,
    /// See [`feature`].
    pub s_feature_incompat: u32,
    /// None is known.
    pub s_feature_ro_compat: u32,
    /// The checksum seed.
    pub s_uuid: [u8; 16],
    /// 1; ignored when internal.
    pub s_nr_users: u32,
    /// 4 with v2/v3.
    pub s_checksum_type: u8,
    /// Fast-commit blocks; 0 means 256 when the feature is set.
    pub s_num_fc_blks: u32,
    /// When empty: where the next transaction starts (J23).
    pub s_head: u32,
    raw: Box<[u8; JournalSuperblock::SIZE]>,
}

impl JournalSuperblock {
    /// Bytes on disk, at the start of its block.
    pub const SIZE: usize = 1024;
    const H_BLOCKTYPE: usize = 0x4;
    const S_BLOCKSIZE: usize = 0x0C;
    const S_MAXLEN: usize = 0x10;
    const S_FIRST: usize = 0x14;
    const S_SEQUENCE: usize = 0x18;
    const S_START: usize = 0x1C;
    const S_ERRNO: usize = 0x20;
    const S_FEATURE_COMPAT: usize = 0x24;
    const S_FEATURE_INCOMPAT: usize = 0x28;
    const S_FEATURE_RO_COMPAT: usize = 0x2C;
    const S_UUID: usize = 0x30;
    const S_NR_USERS: usize = 0x40;
    const S_CHECKSUM_TYPE: usize = 0x50;
    const S_NUM_FC_BLKS: usize = 0x54;
    const S_HEAD: usize = 0x58;
    const S_CHECKSUM: usize = 0xFC;
    const S_USERS: usize = 0x100;

    /// The superblock in `block`, with the load checks of J7 in their order. `log_blocks`: blocks that the journal
    /// file has.
    pub fn decode(block: &[u8], block_size: u32, log_blocks: u32) -> Result<Self> {
        let invalid = |what: &str| Err(Error::Invalid(what.into()));
        assert!(block.len() >= Self::SIZE);
        let block = &block[..Self::SIZE];
        if be32(block, 0) != MAGIC {
            return invalid("no magic");
        }
        if be32(block, Self::S_BLOCKSIZE) != block_size {
            return invalid("its block size is not the volume's");
        }
        let v2 = match be32(block, Self::H_BLOCKTYPE) {
            block_type::SUPERBLOCK_V1 => false,
            block_type::SUPERBLOCK_V2 => true,
            _ => return invalid("not a superblock"),
        };
        let this = Self::fields(block, v2);
        if this.s_maxlen > log_blocks {
            return invalid("longer than its file");
        }
        if this.s_first == 0 || this.s_first >= this.s_maxlen {
            return invalid("s_first lies outside");
        }
        if v2 {
            this.check_v2(block)?;
        }
        if this.ring_end() <= this.s_first {
            return invalid("no ring");
        }
        Ok(this)
    }

    fn fields(block: &[u8], v2: bool) -> Self {
        let v2_field = |at| if v2 { be32(block, at) } else { 0 };
        let mut raw = Box::new([0; Self::SIZE]);
        raw.copy_from_slice(block);
        let mut s_uuid = [0; 16];
        if v2 {
            s_uuid.copy_from_slice(&block[Self::S_UUID..Self::S_UUID + 16]);
        }
        Self {
            v2,
            s_blocksize: be32(block, Self::S_BLOCKSIZE),
            s_maxlen: be32(block, Self::S_MAXLEN),
            s_first: be32(block, Self::S_FIRST),
            s_sequence: be32(block, Self::S_SEQUENCE),
            s_start: be32(block, Self::S_START),
            s_errno: be32(block, Self::S_ERRNO) as i32,
            s_feature_compat: v2_field(Self::S_FEATURE_COMPAT),
            s_feature_incompat: v2_field(Self::S_FEATURE_INCOMPAT),
            s_feature_ro_compat: v2_field(Self::S_FEATURE_RO_COMPAT),
            s_uuid,
            s_nr_users: v2_field(Self::S_NR_USERS),
            s_checksum_type: if v2 { block[Self::S_CHECKSUM_TYPE] } else { 0 },
            s_num_fc_blks: v2_field(Self::S_NUM_FC_BLKS),
            s_head: v2_field(Self::S_HEAD),
            raw,
        }
    }

    fn check_v2(&self, block: &[u8]) -> Result<()> {
        let invalid = |what: &str| Err(Error::Invalid(what.into()));
        if self.s_feature_incompat & !feature::INCOMPAT_KNOWN != 0 || self.s_feature_ro_compat != 0 {
            return invalid("unknown features");
        }
        let fast_commit = u64::from(self.fast_commit_blocks());
        if u64::from(self.s_maxlen) < u64::from(MIN_LOG_BLOCKS) + fast_commit {
            return invalid("too short");
        }
        let v2 = self.s_feature_incompat & feature::INCOMPAT_CSUM_V2 != 0;
        let v3 = self.s_feature_incompat & feature::INCOMPAT_CSUM_V3 != 0;
        let v1 = self.s_feature_compat & feature::COMPAT_CHECKSUM != 0;
        if (v2 && v3) || (v1 && (v2 || v3)) {
            return invalid("two kinds of checksums");
        }
        if v2 || v3 {
            if self.s_checksum_type != CHECKSUM_TYPE_CRC32C {
                return invalid("unknown checksum type");
            }
            if Self::sum(block) != be32(block, Self::S_CHECKSUM) {
                return Err(Error::Checksum("the superblock's sum is wrong".into()));
            }
        }
        Ok(())
    }

    fn sum(bytes: &[u8]) -> u32 {
        let until = crc32c(!0, &bytes[..Self::S_CHECKSUM]);
        crc32c(crc32c(until, &[0; 4]), &bytes[Self::S_CHECKSUM + 4..Self::SIZE])
    }

    /// Puts the superblock at the start of `block` and leaves the rest alone.
    pub fn encode(&self, block: &mut [u8]) {
        assert!(self.s_first > 0 && self.s_first < self.s_maxlen && self.s_feature_ro_compat == 0);
        let bytes = &mut block[..Self::SIZE];
        bytes.copy_from_slice(&*self.raw);
        put_be32(bytes, 0, MAGIC);
        let kind = if self.v2 { block_type::SUPERBLOCK_V2 } else { block_type::SUPERBLOCK_V1 };
        put_be32(bytes, Self::H_BLOCKTYPE, kind);
        put_be32(bytes, Self::S_BLOCKSIZE, self.s_blocksize);
        put_be32(bytes, Self::S_MAXLEN, self.s_maxlen);
        put_be32(bytes, Self::S_FIRST, self.s_first);
        put_be32(bytes, Self::S_SEQUENCE, self.s_sequence);
        put_be32(bytes, Self::S_START, self.s_start);
        put_be32(bytes, Self::S_ERRNO, self.s_errno as u32);
        if !self.v2 {
            return;
        }
        put_be32(bytes, Self::S_FEATURE_COMPAT, self.s_feature_compat);
        put_be32(bytes, Self::S_FEATURE_INCOMPAT, self.s_feature_incompat);
        put_be32(bytes, Self::S_FEATURE_RO_COMPAT, self.s_feature_ro_compat);
        bytes[Self::S_UUID..Self::S_UUID + 16].copy_from_slice(&self.s_uuid);
        put_be32(bytes, Self::S_NR_USERS, self.s_nr_users);
        bytes[Self::S_CHECKSUM_TYPE] = self.s_checksum_type;
        put_be32(bytes, Self::S_NUM_FC_BLKS, self.s_num_fc_blks);
        put_be32(bytes, Self::S_HEAD, self.s_head);
        put_be32(bytes, Self::S_CHECKSUM, 0);
        if self.has_crc32c() {
            let sum = Self::sum(bytes);
            put_be32(bytes, Self::S_CHECKSUM, sum);
        }
    }

    /// UUID of the volume that an external journal belongs to (J28).
    pub fn first_user(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.raw[Self::S_USERS..Self::S_USERS + 16]);
        uuid
    }

    fn has_crc32c(&self) -> bool {
        self.s_feature_incompat & (feature::INCOMPAT_CSUM_V2 | feature::INCOMPAT_CSUM_V3) != 0
    }

    /// Whether an incompatible feature is set.
    pub fn has(&self, incompat: u32) -> bool {
        self.s_feature_incompat & incompat != 0
    }

    /// Blocks of the fast-commit area: 0 without the feature (J3).
    pub fn fast_commit_blocks(&self) -> u32 {
        match (self.has(feature::INCOMPAT_FAST_COMMIT), self.s_num_fc_blks) {
            (false, _) => 0,
            (true, 0) => DEFAULT_FAST_COMMIT_BLOCKS,
            (true, blocks) => blocks,
        }
    }

    /// L: the block after the ring's last (J21).
    pub fn ring_end(&self) -> u32 {
        self.s_maxlen.saturating_sub(self.fast_commit_blocks())
    }

    /// The layout of the log's blocks.
    pub fn layout(&self) -> Layout {
        let checksums = if self.has(feature::INCOMPAT_CSUM_V3) {
            Checksums::V3
        } else if self.has(feature::INCOMPAT_CSUM_V2) {
            Checksums::V2
        } else if self.s_feature_compat & feature::COMPAT_CHECKSUM != 0 {
            Checksums::V1
        } else {
            Checksums::None
        };
        Layout {
            block_size: self.s_blocksize as usize,
            wide: self.has(feature::INCOMPAT_64BIT),
            checksums,
            seed: crc32c(!0, &self.s_uuid),
        }
    }

    /// J8, J29: what a read-write mount sets and clears. Refused where the superblock cannot have it (J6) or the
    /// ring would be too short.
    pub fn set_features(&mut self, wanted: crate::Features) -> Result<()> {
        if !self.v2 {
            if wanted.wide {
                return Err(Error::Invalid("a v1 superblock on a 64bit volume".into()));
            }
            return Ok(());
        }
        let mut incompat = self.s_feature_incompat & feature::INCOMPAT_REVOKE;
        for (want, bit) in [
            (wanted.wide, feature::INCOMPAT_64BIT),
            (wanted.csum_v3, feature::INCOMPAT_CSUM_V3),
            (wanted.fast_commit, feature::INCOMPAT_FAST_COMMIT),
        ] {
            if want {
                incompat |= bit;
            }
        }
        self.s_feature_incompat = incompat;
        self.s_feature_compat &= !feature::COMPAT_CHECKSUM;
        self.s_checksum_type = if wanted.csum_v3 { CHECKSUM_TYPE_CRC32C } else { 0 };
        if u64::from(self.s_maxlen) < u64::from(MIN_LOG_BLOCKS) + u64::from(self.fast_commit_blocks()) {
            return Err(Error::Invalid("too short".into()));
        }
        Ok(())
    }
}

const _: () = assert!(JournalSuperblock::S_BLOCKSIZE == HEADER_SIZE);
const _: () = assert!(JournalSuperblock::S_UUID + 16 == JournalSuperblock::S_NR_USERS);
const _: () = assert!(JournalSuperblock::S_CHECKSUM + 4 == JournalSuperblock::S_USERS);
const _: () = assert!(JournalSuperblock::S_USERS + 48 * 16 == JournalSuperblock::SIZE);

/// The superblock of a new, empty internal journal of `log_blocks` blocks (J26). The rest of the log must be zeros.
/// Fewer than 1024 blocks are refused.
pub fn create_superblock(block_size: u32, log_blocks: u32, uuid: [u8; 16]) -> Result<JournalSuperblock> {
    if log_blocks < MIN_LOG_BLOCKS {
        return Err(Error::Invalid("a log needs 1024 blocks".into()));
    }
    let mut superblock = JournalSuperblock::fields(&[0; JournalSuperblock::SIZE], true);
    superblock.s_blocksize = block_size;
    superblock.s_maxlen = log_blocks;
    superblock.s_first = 1;
    superblock.s_sequence = 1;
    superblock.s_uuid = uuid;
    superblock.s_nr_users = 1;
    Ok(superblock)
}
