//! What is on a device before it is formatted: the magic numbers of file systems, volumes and partition tables.

use block_io::{AlignedBuf, Device};
use ext4_format::Superblock;
use ext4_format::features::{compat, incompat, ro_compat};

use crate::Result;

/// Where each magic number lies, in bytes, and whose it is.
const MAGIC: &[(usize, &[u8], &str)] = &[
    (0, b"XFSB", "an xfs file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"hsqs", "a squashfs file system"),
    (3, b"NTFS    ", "an ntfs file system"),
    (3, b"EXFAT   ", "an exfat file system"),
    (54, b"FAT12   ", "a vfat file system"),
    (54, b"FAT16   ", "a vfat file system"),
    (82, b"FAT32   ", "a vfat file system"),
    (512, b"LABELONE", "an LVM physical volume"),
    (512, b"EFI PART", "a GPT partition table"),
    (1024, b"\x10\x20\xf5\xf2", "an f2fs file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an erofs file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4086, b"SWAP-SPACE", "swap space"),
    (4096, b"EFI PART", "a GPT partition table"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of an md array"),
    (0x8000, b"JFS1", "a jfs file system"),
    (0x8001, b"CD001", "an iso9660 file system"),
    (0x10034, b"ReIsEr", "a reiserfs file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
];
const SUPERBLOCK: usize = 1024;
const S_MAGIC: usize = SUPERBLOCK + 0x38;
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];
const SCANNED_BYTES: u64 = 0x1_1000;

/// What a device holds that formatting would destroy, in words; `None`: nothing that is known.
///
/// # Errors
/// Those of reading the device.
pub fn found_on(device: &dyn Device) -> Result<Option<String>> {
    let limits = device.limits();
    let sector = u64::from(limits.logical_block_bytes);
    let mut bytes = AlignedBuf::zeroed((limits.size_bytes.min(SCANNED_BYTES) / sector * sector) as usize);
    device.read(0, &mut bytes)?;
    Ok(found_in(&bytes))
}

fn found_in(bytes: &[u8]) -> Option<String> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    if has(S_MAGIC, &EXT4_MAGIC) {
        return Some(ext(bytes.get(SUPERBLOCK..SUPERBLOCK + Superblock::SIZE)?));
    }
    let known = MAGIC.iter().find(|(at, magic, _)| has(*at, magic)).map(|(_, _, name)| (*name).to_owned());
    known.or_else(|| is_mbr(bytes).then(|| "an MBR partition table".to_owned()))
}

/// A boot signature alone is anybody's; partitions make a table.
fn is_mbr(bytes: &[u8]) -> bool {
    const TABLE: std::ops::Range<usize> = 446..510;
    let Some(table) = bytes.get(TABLE).filter(|_| bytes.get(510..512) == Some(&[0x55, 0xaa])) else {
        return false;
    };
    let (status, kind) = (0, 4);
    table.chunks(16).all(|entry| matches!(entry[status], 0 | 0x80))
        && table.chunks(16).any(|entry| entry[kind] != 0)
}

/// ext2, ext3 or ext4, with label and uuid. Bytes that do not decode are an ext file system all the same.
fn ext(bytes: &[u8]) -> String {
    let (incompat_at, ro_compat_at, compat_at, uuid_at, label_at) = (0x60, 0x64, 0x5c, 0x68, 0x78);
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (journal, old_incompat) =
        (word(compat_at) & compat::HAS_JOURNAL != 0, incompat::FILETYPE | incompat::RECOVER);
    let old_ro_compat = ro_compat::SPARSE_SUPER | ro_compat::LARGE_FILE;
    let is_old = word(incompat_at) & !old_incompat == 0 && word(ro_compat_at) & !old_ro_compat == 0;
    let kind = match (is_old, journal) {
        (true, false) => "ext2",
        (true, true) => "ext3",
        (false, _) => "ext4",
    };
    let label = String::from_utf8_lossy(&bytes[label_at..label_at + 16]);
    let label = label.trim_end_matches('\0');
    let named = if label.is_empty() { String::new() } else { format!(", label {label:?}") };
    let hex: String = bytes[uuid_at..uuid_at + 16].iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("an {kind} file system{named}, uuid {}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mkfs::{FormatOptions, format};
    use block_io::MemoryDevice;

    #[test]
    fn what_was_made_is_found() {
        let device = MemoryDevice::new(4 << 20, 512);
        assert_eq!(found_on(&device).unwrap(), None);
        let mut options = FormatOptions::new(0);
        (options.label, options.uuid) = ("data".to_owned(), Some([0xab; 16]));
        format(&device, &options).unwrap();
        let mut bytes = AlignedBuf::zeroed(SCANNED_BYTES as usize);
        device.read(0, &mut bytes).unwrap();
        let named = "file system, label \"data\", uuid abababab-abab-abab-abab-abababababab";
        assert_eq!(found_in(&bytes), Some(format!("an ext4 {named}")));
        // filetype, sparse_super and large_file are older than ext4.
        bytes[SUPERBLOCK + 0x60..SUPERBLOCK + 0x68].copy_from_slice(&[2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(found_in(&bytes), Some(format!("an ext3 {named}")));
        bytes[SUPERBLOCK + 0x5c] = 0;
        assert_eq!(found_in(&bytes), Some(format!("an ext2 {named}")));
        assert_eq!(found_in(&bytes[..1500]), None, "a device too small for a superblock");
    }

    #[test]
    fn every_magic_number_is_found_where_it_lies() {
        for (at, magic, name) in MAGIC {
            let mut bytes = vec![0; SCANNED_BYTES as usize];
            bytes[*at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(found_in(&bytes).as_deref(), Some(*name));
            assert_eq!(
                found_in(&bytes[..at + magic.len() - 1]),
                None,
                "not beyond the end of a small device"
            );
        }
    }

    #[test]
    fn partitions_make_a_table_not_the_signature() {
        let mut bytes = vec![0; 512];
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(found_in(&bytes), None);
        bytes[446 + 4] = 0x83;
        assert_eq!(found_in(&bytes).as_deref(), Some("an MBR partition table"));
        bytes[446] = 7;
        assert_eq!(found_in(&bytes), None);
    }
}
