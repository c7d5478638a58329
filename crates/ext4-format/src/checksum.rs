//! F1–F4: the checksum functions and their seeds. State in, state out: there is no final inversion.

use crate::Ino;

/// Seed of everything that starts a chain: all ones.
pub const CRC32C_SEED: u32 = !0;

/// F1: crc32c (Castagnoli, reflected) continued from `state` over `bytes`, without final inversion.
pub fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    // The crate inverts before and after; ext4 does neither.
    !crc32c::crc32c_append(!state, bytes)
}

static CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_MODBUS);

/// F2: crc16 (MODBUS) continued from `state`; a chain starts with 0xFFFF.
pub fn crc16(state: u16, bytes: &[u8]) -> u16 {
    // `digest_with_initial` takes the register in the unreflected form.
    let mut digest = CRC16.digest_with_initial(state.reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// F4: the seed of an inode, its extent and directory blocks, and of the orphan file.
pub fn inode_seed(fs_seed: u32, ino: Ino, generation: u32) -> u32 {
    crc32c(crc32c(fs_seed, &ino.0.to_le_bytes()), &generation.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_f2_known_answers() {
        assert_eq!(crc32c(CRC32C_SEED, b"123456789"), 0x1CF9_6D7C);
        assert_eq!(crc32c(crc32c(CRC32C_SEED, b"1234"), b"56789"), 0x1CF9_6D7C);
        assert_eq!(crc16(0xFFFF, b"123456789"), 0x4B37);
        assert_eq!(crc16(crc16(0xFFFF, b"123"), b"456789"), 0x4B37);
    }
}
