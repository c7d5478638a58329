//! A journal's own device (J28), behind the volume in one image.

use std::ops::Range;

use ext4_format::Superblock;
use ext4_format::features::{compat, incompat};
use jbd2::format::create_superblock;

const LOG_BLOCKS: u32 = 1026;
const UUID: [u8; 16] = *b"the log's device";
const SUPERBLOCK: usize = 1024;

/// Appends the device of an empty journal to a volume without one, and ties them together. Where the log is.
pub fn add(bytes: &mut Vec<u8>, block_size: u32) -> Range<u64> {
    let block = block_size as usize;
    let volume = bytes.len();
    let mut superblock = Superblock::decode(&bytes[SUPERBLOCK..][..SUPERBLOCK]).expect("our own superblock");
    superblock.feature_compat |= compat::HAS_JOURNAL;
    superblock.journal_uuid = UUID;
    superblock.journal_dev = 0x700;
    bytes[SUPERBLOCK..][..SUPERBLOCK].copy_from_slice(&superblock.encode());
    bytes.resize((volume + LOG_BLOCKS as usize * block).next_multiple_of(4096), 0);
    let device = &mut bytes[volume..];
    let blocks = (device.len() / block) as u32;
    // Its own ext superblock, of which these fields count.
    let own = &mut device[SUPERBLOCK..][..SUPERBLOCK];
    let mut put = |at: usize, value: u32| own[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0x04, blocks);
    put(0x14, u32::from(block_size == 1024));
    put(0x18, block_size.trailing_zeros() - 10);
    put(0x1C, block_size.trailing_zeros() - 10);
    put(0x20, blocks);
    put(0x24, blocks);
    put(0x38, u32::from(Superblock::MAGIC) | 1 << 16);
    put(0x4C, 1);
    put(0x60, incompat::JOURNAL_DEV);
    own[0x68..0x78].copy_from_slice(&UUID);
    let jsb_block = if block_size == 1024 { 2 } else { 1 };
    let mut jsb = create_superblock(block_size, blocks, UUID).expect("enough blocks");
    jsb.s_first = jsb_block + 1;
    let at = jsb_block as usize * block;
    jsb.encode(&mut device[at..][..block]);
    device[at + 0x100..][..16].copy_from_slice(&superblock.uuid);
    (volume + at) as u64..bytes.len() as u64
}
