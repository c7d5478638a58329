//! M1, M2: the block of multi-mount protection.

use crate::checksum::crc32c;
use crate::codec::{get, put};
use crate::{Corrupt, Result};

const WHAT: &str = "MMP block";
const MMP_MAGIC: usize = 0;
const MMP_SEQ: usize = 4;
const MMP_TIME: usize = 8;
const MMP_NODENAME: usize = 16;
const MMP_BDEVNAME: usize = 80;
const MMP_CHECK_INTERVAL: usize = 112;
const MMP_CHECKSUM: usize = 1020;

/// `mmp_magic`.
pub const MAGIC: u32 = 0x004D_4D50;
/// Cleanly unmounted.
pub const SEQ_CLEAN: u32 = 0xFF4D_4D50;
/// A checker or mkfs holds the volume.
pub const SEQ_FSCK: u32 = 0xE24D_4D50;
/// The largest value of a mount that is in use; the smallest is 1.
pub const SEQ_MAX: u32 = 0xE24D_4D4F;

/// Who uses the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mmp {
    /// [`SEQ_CLEAN`], [`SEQ_FSCK`], or 1 to [`SEQ_MAX`]: counts the updates.
    pub seq: u32,
    /// Seconds since 1970 of the last update.
    pub time: u64,
    /// Host that updated, padded with NULs.
    pub nodename: [u8; 64],
    /// Device under its name there, padded with NULs.
    pub bdevname: [u8; 32],
    /// Seconds between two looks.
    pub check_interval: u16,
}

impl Mmp {
    /// Bytes of the structure, the checksum included.
    pub const SIZE: usize = 1024;

    /// Decodes the first 1024 bytes of a block. `seed`: the volume's (D31), `None` without metadata_csum.
    ///
    /// # Errors
    /// EUCLEAN: wrong magic or too short; EBADMSG: wrong checksum.
    pub fn decode(block: &[u8], seed: Option<u32>) -> Result<Self> {
        if block.len() < Self::SIZE {
            return Err(Corrupt::structure(WHAT, format!("{} bytes", block.len())));
        }
        let magic: u32 = get(block, MMP_MAGIC);
        if magic != MAGIC {
            return Err(Corrupt::structure(WHAT, format!("magic {magic:#010x}")));
        }
        if let Some(seed) = seed {
            let (found, expected) = (get(block, MMP_CHECKSUM), crc32c(seed, &block[..MMP_CHECKSUM]));
            if found != expected {
                return Err(Corrupt::Checksum { what: WHAT, found, expected });
            }
        }
        Ok(Self {
            seq: get(block, MMP_SEQ),
            time: get(block, MMP_TIME),
            nodename: get(block, MMP_NODENAME),
            bdevname: get(block, MMP_BDEVNAME),
            check_interval: get(block, MMP_CHECK_INTERVAL),
        })
    }

    /// Writes the fields over those of `block`, whose other bytes stay, and the checksum if there is a `seed`.
    pub fn encode(&self, block: &mut [u8], seed: Option<u32>) {
        put(block, MMP_MAGIC, MAGIC);
        put(block, MMP_SEQ, self.seq);
        put(block, MMP_TIME, self.time);
        put(block, MMP_NODENAME, self.nodename);
        put(block, MMP_BDEVNAME, self.bdevname);
        put(block, MMP_CHECK_INTERVAL, self.check_interval);
        if let Some(seed) = seed {
            put(block, MMP_CHECKSUM, crc32c(seed, &block[..MMP_CHECKSUM]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let mmp =
            Mmp { seq: 77, time: 1 << 33, nodename: [b'n'; 64], bdevname: [b'd'; 32], check_interval: 5 };
        let mut block = vec![0; 4096];
        mmp.encode(&mut block, Some(1));
        assert_eq!(Mmp::decode(&block, Some(1)).unwrap(), mmp);
        assert_eq!(Mmp::decode(&block, Some(2)).unwrap_err().errno(), 74);
        for at in 0..Mmp::SIZE {
            let mut damaged = block.clone();
            damaged[at] ^= 1;
            let errno = if at < 4 { 117 } else { 74 };
            assert_eq!(Mmp::decode(&damaged, Some(1)).unwrap_err().errno(), errno, "{at}");
            assert_eq!(Mmp::decode(&damaged, None).is_err(), at < 4);
        }
        assert!(Mmp::decode(&block[..1023], None).is_err());
    }
}
