//! D28, O2: a block of the orphan file.

use crate::checksum::crc32c;
use crate::codec::{get, put};
use crate::{Corrupt, Pblk, Result};

const WHAT: &str = "orphan file block";
/// Bytes of the tail.
pub const TAIL_SIZE: usize = 8;
/// Magic of the tail.
pub const MAGIC: u32 = 0x0B10_CA04;
const OB_CHECKSUM: usize = 4;

/// Inode numbers that a block of `block_size` bytes holds.
pub fn slots(block_size: usize) -> usize {
    (block_size - TAIL_SIZE) / 4
}

/// The inode number in a slot; 0 = free.
pub fn slot(block: &[u8], index: usize) -> u32 {
    assert!(index < slots(block.len()));
    get(block, index * 4)
}

/// Sets a slot. The checksum is [`seal`]'s.
pub fn set_slot(block: &mut [u8], index: usize, ino: u32) {
    assert!(index < slots(block.len()));
    put(block, index * 4, ino);
}

/// The first free slot.
pub fn free_slot(block: &[u8]) -> Option<usize> {
    (0..slots(block.len())).find(|index| slot(block, *index) == 0)
}

/// An empty block's magic, without checksum.
pub fn init(block: &mut [u8]) {
    block.fill(0);
    let tail = block.len() - TAIL_SIZE;
    put(block, tail, MAGIC);
}

fn checksum(block: &[u8], seed: u32, number: Pblk) -> u32 {
    crc32c(crc32c(seed, &number.0.to_le_bytes()), &block[..block.len() - TAIL_SIZE])
}

/// Stores the checksum; `seed` is the orphan file's inode seed (F4), `number` the block's own.
pub fn seal(block: &mut [u8], seed: u32, number: Pblk) {
    let sum = checksum(block, seed, number);
    let at = block.len() - TAIL_SIZE + OB_CHECKSUM;
    put(block, at, sum);
}

/// Checks the magic, and the checksum where `seed` is given (metadata_csum).
pub fn verify(block: &[u8], seed: Option<u32>, number: Pblk) -> Result<()> {
    let tail = block.len() - TAIL_SIZE;
    let magic: u32 = get(block, tail);
    if magic != MAGIC {
        return Err(Corrupt::structure(WHAT, format!("magic {magic:#010x}")));
    }
    let Some(seed) = seed else { return Ok(()) };
    let found: u32 = get(block, tail + OB_CHECKSUM);
    let expected = checksum(block, seed, number);
    if found != expected {
        return Err(Corrupt::Checksum { what: WHAT, found, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_round_trip_and_every_damaged_byte() {
        let mut block = vec![0; 1024];
        init(&mut block);
        assert_eq!(slots(1024), 254);
        set_slot(&mut block, 253, 77);
        seal(&mut block, 5, Pblk(1234));
        assert_eq!(verify(&block, Some(5), Pblk(1234)), Ok(()));
        assert_eq!((slot(&block, 253), free_slot(&block)), (77, Some(0)));
        assert!(verify(&block, Some(5), Pblk(1235)).is_err());
        for at in 0..block.len() {
            let mut damaged = block.clone();
            damaged[at] ^= 0x10;
            assert!(verify(&damaged, Some(5), Pblk(1234)).is_err(), "byte {at}");
        }
    }
}
