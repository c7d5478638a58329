//! The superblock that a torn write cannot lose (EP7). Its checksum lies in another sector than most of it.

use ext4_format::features::{incompat, ro_compat};
use ext4_format::{Corrupt, Superblock};

use crate::Error;

const S_FEATURE_INCOMPAT: usize = 0x60;
const S_FEATURE_RO_COMPAT: usize = 0x64;

/// Decodes a superblock. EP7 (1): mount, freeze and unmount change two feature bits in place; if another setting of them fits
/// the checksum, such a write was torn, and the volume is taken as one that needs recovery.
pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Superblock, Corrupt> {
    let damage = match Superblock::decode(bytes) {
        Err(damage @ Corrupt::Checksum { .. }) => damage,
        other => return other,
    };
    for (recover, orphans) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bytes = bytes[..Superblock::SIZE].to_vec();
        set_bit(&mut bytes[S_FEATURE_INCOMPAT..], incompat::RECOVER, recover);
        set_bit(&mut bytes[S_FEATURE_RO_COMPAT..], ro_compat::ORPHAN_PRESENT, orphans);
        if let Ok(mut superblock) = Superblock::decode(&bytes) {
            superblock.feature_incompat |= incompat::RECOVER;
            return Ok(superblock);
        }
    }
    Err(damage)
}

fn set_bit(field: &mut [u8], bit: u32, on: bool) {
    let word = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    let word = if on { word | bit } else { word & !bit };
    field[..4].copy_from_slice(&word.to_le_bytes());
}

/// The error of a superblock that stays unreadable.
pub(crate) fn unreadable(corrupt: Corrupt) -> Error {
    Error::Corrupt { place: "superblock".into(), corrupt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblocks() -> ([u8; 1024], [u8; 1024]) {
        use crate::mkfs::{FormatOptions, format};
        let device = block_io::MemoryDevice::new(8 << 20, 512);
        format(&device, &FormatOptions::new(1_700_000_000)).expect("mkfs");
        let bytes = device.read_bytes(1024, 1024);
        let mut superblock = Superblock::decode(&bytes).expect("a superblock");
        let before = superblock.encode();
        superblock.feature_incompat |= incompat::RECOVER;
        superblock.feature_ro_compat |= ro_compat::ORPHAN_PRESENT;
        (before, superblock.encode())
    }

    /// X45.
    #[test]
    fn torn_by_mount_or_unmount() {
        let (before, after) = superblocks();
        for (first, second) in [(before, after), (after, before)] {
            let torn = [&first[..512], &second[512..]].concat();
            assert!(Superblock::decode(&torn).is_err());
            let repaired = decode(&torn).expect("repaired");
            assert_ne!(repaired.feature_incompat & incompat::RECOVER, 0, "the log decides");
        }
    }

    #[test]
    fn any_other_damage_stays() {
        let (before, _) = superblocks();
        for at in [0x04, 0x30, 0x5C, 0x178, 0x3F0] {
            let mut damaged = before;
            damaged[at] ^= 1;
            assert!(matches!(decode(&damaged), Err(Corrupt::Checksum { .. })), "{at:#x}");
        }
    }
}
