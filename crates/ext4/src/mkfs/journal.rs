//! The superblock of a new, empty journal (J3, J26).

use ext4_format::Superblock;

const MAGIC: u32 = 0xC03B_3998;
const SUPERBLOCK_V2: u32 = 4;
const S_BLOCKSIZE: usize = 0x0C;
const S_MAXLEN: usize = 0x10;
const S_FIRST: usize = 0x14;
const S_SEQUENCE: usize = 0x18;
const S_UUID: usize = 0x30;
const S_NR_USERS: usize = 0x40;
const S_NUM_FC_BLKS: usize = 0x54;

/// The first block of the log: `blocks` long, of which the last `fast_commit_blocks` are for fast commits.
pub(super) fn superblock(sb: &Superblock, blocks: u32, fast_commit_blocks: u32) -> Vec<u8> {
    let mut bytes = vec![0; sb.block_size() as usize];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(0, MAGIC);
    put(4, SUPERBLOCK_V2);
    put(S_BLOCKSIZE, sb.block_size());
    put(S_MAXLEN, blocks);
    put(S_FIRST, 1);
    put(S_SEQUENCE, 1);
    put(S_NR_USERS, 1);
    put(S_NUM_FC_BLKS, fast_commit_blocks);
    bytes[S_UUID..S_UUID + 16].copy_from_slice(&sb.uuid);
    bytes
}
