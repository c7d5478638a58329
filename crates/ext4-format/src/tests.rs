//! Codecs of whole structures: known answers, round trips, every damaged byte.

use proptest::prelude::*;
use serde_json::Value;

use crate::checksum::{crc16, crc32c};
use crate::features::{compat, incompat, ro_compat};
use crate::inode::{self, S_IFCHR, S_IFLNK, S_IFREG, flags};
use crate::{Corrupt, Group, GroupDesc, Ino, Inode, Pblk, Superblock, Timestamp, bg, bitmap};

/// 64 MiB of 1 KiB blocks in 8 groups.
fn superblock(features: &str) -> Superblock {
    let mut sb = Superblock::new();
    let mut words = sb.features();
    words.apply("extent,64bit,flex_bg,filetype,sparse_super,huge_file,metadata_csum").unwrap();
    words.apply(features).unwrap();
    sb.set_features(words);
    sb.first_data_block = 1;
    (sb.blocks_per_group, sb.clusters_per_group) = (8192, 8192);
    sb.inodes_per_group = 2048;
    sb.inodes_count = 8 * 2048;
    sb.set_blocks_count(65536);
    sb.first_ino_raw = 11;
    sb.inode_size_raw = 256;
    sb.desc_size_raw = 64;
    (sb.min_extra_isize, sb.want_extra_isize) = (32, 32);
    sb.checksum_type = 1;
    sb.reserved_gdt_blocks = 256;
    sb.log_groups_per_flex = 4;
    sb.uuid = *b"0123456789abcdef";
    sb
}

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/hash-vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn superblock_round_trip_keeps_unknown_bytes() {
    let mut raw = superblock("").encode();
    for reserved in [0xC8, 0x177, 0x180, 0x288, 0x3FB] {
        raw[reserved] = 0xA5;
    }
    let sum = crc32c(!0, &raw[..0x3FC]);
    raw[0x3FC..].copy_from_slice(&sum.to_le_bytes());
    let sb = Superblock::decode(&raw).unwrap();
    assert_eq!(sb.encode(), raw);
    assert_eq!(Superblock::decode(&sb.encode()).unwrap(), Superblock::decode(&raw).unwrap());
}

#[test]
fn f8_every_damaged_byte_of_a_superblock() {
    let raw = superblock("").encode();
    for at in 0..raw.len() {
        for value in [0, 1, 0x7F, 0x80, 0xFF, raw[at] ^ 0x10] {
            let mut damaged = raw;
            damaged[at] = value;
            let outcome = Superblock::decode(&damaged);
            // 0x65 holds metadata_csum, 0x4C the revision: without either there is no checksum to fail.
            let unprotected = matches!(at, 0x4C..=0x4F | 0x64..=0x67);
            assert!(outcome.is_err() || damaged == raw || unprotected, "byte {at:#x} = {value:#x}");
        }
    }
    assert!(matches!(Superblock::decode(&raw[..1023]), Err(Corrupt::Structure { .. })));
}

#[test]
fn f12_no_field_of_an_unprotected_superblock_panics() {
    let raw = superblock("^metadata_csum").encode();
    for at in 0..raw.len() {
        for value in 0..=255 {
            let mut damaged = raw;
            damaged[at] = value;
            let Ok(sb) = Superblock::decode(&damaged) else { continue };
            assert_eq!(Superblock::decode(&sb.encode()).unwrap(), sb);
            let last = Group(sb.group_count() - 1);
            let _ = (sb.has_super(last), sb.super_and_desc_blocks(last), sb.desc_location(last));
            let _ = (sb.inode_location(Ino(sb.inodes_count)), sb.blocks_in_group(last), sb.fs_seed());
            let _ =
                (sb.desc_block(sb.desc_blocks() - 1), sb.meta_bg_desc_in(last), sb.group_of_block(Pblk(9)));
            let desc = vec![value; sb.desc_size()];
            let _ = GroupDesc::decode(&desc, &sb, last);
            let _ = Inode::decode(&vec![value; sb.inode_size().into()], &sb, Ino(1));
        }
    }
}

proptest! {
    #[test]
    fn f12_no_superblock_panics(changes in proptest::collection::vec((0usize..0x180, any::<u8>()), 1..8)) {
        let mut raw = superblock("^metadata_csum").encode();
        for (at, value) in changes {
            raw[at] = value;
        }
        if let Ok(sb) = Superblock::decode(&raw) {
            let last = Group(sb.group_count() - 1);
            let _ = (sb.super_and_desc_blocks(last), sb.desc_location(last), sb.has_super(last));
            prop_assert_eq!(Superblock::decode(&sb.encode()).unwrap(), sb);
        }
    }

    #[test]
    fn inode_round_trip(
        words in proptest::array::uniform8(any::<u32>()), size: u64, blocks in 0u64..1 << 55,
        sec in Timestamp::MIN_SEC..Timestamp::MAX_SEC, nsec in 0u32..1_000_000_000, slack: u8,
        extra in prop_oneof![Just(0u16), Just(4), Just(16), Just(20), Just(24), Just(28), Just(32), Just(128)],
    ) {
        let sb = superblock("");
        let mut inode = Inode::new(&sb);
        inode.extra_isize = extra;
        inode.xattr_area_mut().fill(slack);
        (inode.mode, inode.links_count) = (words[0] as u16, words[1] as u16);
        (inode.uid, inode.gid, inode.generation, inode.dtime) = (words[2], words[3], words[4], words[5]);
        (inode.size, inode.blocks) = (size, blocks % Inode::max_blocks(&sb));
        inode.flags = words[6] & !flags::HUGE_FILE;
        if inode.blocks >> 48 != 0 {
            inode.blocks &= !1; // Whole blocks of 1 KiB.
            inode.flags |= flags::HUGE_FILE;
        }
        inode.file_acl = u64::from(words[7]) << 8;
        let time = Timestamp { sec, nsec };
        (inode.atime, inode.ctime, inode.mtime) = (time.stored(extra >= 16), time.stored(extra >= 8), time.stored(extra >= 12));
        inode.crtime = if extra >= 20 { time.stored(extra >= 24) } else { Timestamp::default() };
        inode.version = if extra >= 28 { size } else { size & 0xFFFF_FFFF };
        inode.projid = if extra >= 32 { words[2] } else { 0 };
        let bytes = inode.encode(&sb, Ino(12));
        let found = Inode::decode(&bytes, &sb, Ino(12)).unwrap();
        prop_assert_eq!(found.encode(&sb, Ino(12)), bytes.clone());
        prop_assert_eq!(found.xattr_area(), inode.xattr_area());
        prop_assert_eq!((found.size, found.blocks, found.flags), (inode.size, inode.blocks, inode.flags));
        prop_assert_eq!((found.uid, found.gid, found.file_acl), (inode.uid, inode.gid, inode.file_acl));
        prop_assert_eq!((found.atime, found.ctime, found.mtime), (inode.atime, inode.ctime, inode.mtime));
        prop_assert_eq!((found.crtime, found.version, found.projid), (inode.crtime, inode.version, inode.projid));
        let unused = bytes[..128].iter().all(|byte| *byte == 0);
        prop_assert_eq!(Inode::decode(&bytes, &sb, Ino(13)).is_err(), !unused);
    }
}

#[test]
fn f48_every_damaged_byte_of_an_inode() {
    let sb = superblock("");
    let mut inode = Inode::new_in_use(&sb);
    (inode.mode, inode.links_count, inode.generation) = (S_IFREG | 0o644, 1, 77);
    let bytes = inode.encode(&sb, Ino(12));
    for at in 0..bytes.len() {
        for value in 0..=255 {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let refused = Inode::decode(&damaged, &sb, Ino(12)).is_err();
            // An i_extra_isize below 4 leaves 16 bits of checksum, which may agree by chance.
            assert!(refused || damaged == bytes || at == 0x80, "byte {at:#x} = {value:#x}");
        }
    }
    let unused = vec![0; 256];
    assert!(Inode::decode(&unused, &sb, Ino(12)).is_ok());
}

#[test]
fn f47_extra_isize_must_be_whole_and_inside() {
    let sb = superblock("^metadata_csum");
    for extra in 0..=255u16 {
        let mut bytes = vec![0; 256];
        bytes[0x80..0x82].copy_from_slice(&extra.to_le_bytes());
        let valid = extra % 4 == 0 && extra <= 128;
        assert_eq!(Inode::decode(&bytes, &sb, Ino(12)).is_ok(), valid, "{extra}");
    }
}

#[test]
fn f55_f56_devices_and_symlinks() {
    let sb = superblock("");
    let mut inode = Inode::new_in_use(&sb);
    inode.mode = S_IFCHR;
    for device in [(8, 1), (255, 255), (256, 0), (4095, 0xFFFFF), (0, 256), (0, 0)] {
        inode.set_device(device.0, device.1);
        assert_eq!(inode.device(), device);
    }
    inode.set_device(259, 0x1_2345);
    assert_eq!(inode.i_block[4..8], 0x1231_0345_u32.to_le_bytes());
    (inode.mode, inode.size) = (S_IFLNK | 0o777, 59);
    assert!(inode.is_fast_symlink());
    inode.size = 60;
    assert!(!inode.is_fast_symlink());
    assert_eq!(inode::flags::inherited(!0, S_IFREG) & flags::DIRSYNC, 0);
}

#[test]
fn group_descriptors_of_every_kind() {
    let kinds =
        ["", "^64bit", "^metadata_csum,uninit_bg", "^metadata_csum,uninit_bg,^64bit", "^metadata_csum"];
    for features in kinds {
        let sb = superblock(features);
        let mut desc = GroupDesc::new(&sb);
        (desc.block_bitmap, desc.inode_bitmap, desc.inode_table) = (259, 267, 275);
        (desc.free_clusters, desc.free_inodes, desc.used_dirs) = (3776, 2036, 2);
        (desc.flags, desc.itable_unused) = (bg::ITABLE_ZEROED, 2036);
        let mut bits = vec![0; 1024];
        bitmap::set_range(&mut bits, 5, 900);
        desc.set_block_bitmap_csum(&sb, &bits);
        desc.set_inode_bitmap_csum(&sb, &bits[..]);
        let bytes = desc.encode(&sb, Group(3));
        let found = GroupDesc::decode(&bytes, &sb, Group(3)).unwrap();
        assert_eq!(found.encode(&sb, Group(3)), bytes);
        assert!(found.verify_block_bitmap(&sb, &bits).is_ok());
        assert!(found.verify_inode_bitmap(&sb, &bits).is_ok());
        bitmap::set(&mut bits, 4);
        let has_bitmap_csum = sb.features().has_ro_compat(ro_compat::METADATA_CSUM);
        assert_eq!(found.verify_block_bitmap(&sb, &bits).is_err(), has_bitmap_csum, "{features}");
        assert_eq!(found.verify_inode_bitmap(&sb, &bits).is_err(), has_bitmap_csum, "{features}");
        let protected = sb.features().has_group_checksum();
        assert_eq!(GroupDesc::decode(&bytes, &sb, Group(4)).is_err(), protected);
        for at in 0..bytes.len() {
            for value in 0..=255 {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let refused = GroupDesc::decode(&damaged, &sb, Group(3)).is_err();
                assert!(refused || !protected || damaged == bytes, "{features}: byte {at:#x} = {value:#x}");
            }
        }
    }
}

#[test]
fn f10_backup_groups() {
    let sb = superblock("");
    let supers: Vec<u32> = (0..100).filter(|group| sb.has_super(Group(*group))).collect();
    assert_eq!(supers, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81]);
    let mut sb = superblock("sparse_super2");
    sb.backup_bgs = [1, 7];
    assert_eq!((0..100).filter(|group| sb.has_super(Group(*group))).collect::<Vec<_>>(), [0, 1, 7]);
    assert!((0..100).all(|group| superblock("^sparse_super").has_super(Group(group))));
}

#[test]
fn f30_meta_bg_descriptors() {
    // 16 descriptors of 64 bytes in a block of 1 KiB: 2 metagroups of 16 groups.
    let mut sb = superblock("meta_bg");
    sb.reserved_gdt_blocks = 0;
    sb.inodes_count = 32 * 2048;
    sb.set_blocks_count(32 * 8192 + 1);
    assert_eq!((sb.desc_blocks(), sb.old_desc_blocks()), (2, 0));
    let holders: Vec<_> =
        (0..32).filter_map(|group| Some((group, sb.meta_bg_desc_in(Group(group))?))).collect();
    let start = |group: u64| 1 + group * 8192;
    let expected = [
        (0, (0, Pblk(2))),
        (1, (0, Pblk(start(1) + 1))),
        (15, (0, Pblk(start(15)))),
        (16, (1, Pblk(start(16)))),
        (17, (1, Pblk(start(17)))),
        (31, (1, Pblk(start(31)))),
    ];
    assert_eq!(holders, expected);
    assert_eq!(sb.desc_location(Group(18)), (Pblk(start(16)), 128));
    sb.first_meta_bg = 1;
    assert_eq!(sb.desc_location(Group(3)), (Pblk(2), 192));
    assert_eq!(sb.super_and_desc_blocks(Group(3)), 2);
}

#[test]
fn d31_seed_and_times() {
    let mut sb = superblock("");
    assert_eq!(sb.fs_seed(), crc32c(!0, &sb.uuid));
    sb.feature_incompat |= incompat::CSUM_SEED;
    sb.checksum_seed = 0x1234;
    assert_eq!(sb.fs_seed(), 0x1234);
    sb.set_wtime(0x12_3456_789A);
    assert_eq!((sb.wtime(), sb.wtime_hi, sb.wtime_lo), (0x12_3456_789A, 0x12, 0x3456_789A));
    sb.feature_compat |= compat::HAS_JOURNAL;
    sb.feature_incompat |= incompat::RECOVER;
    sb.state = 1;
    let copy = sb.backup(Group(3));
    assert_eq!((copy.state, copy.block_group_nr), (0, 3));
    assert!(!copy.features().has_incompat(incompat::RECOVER));
}

#[test]
fn f1_f2_vectors() {
    let data = vectors();
    let hex = |value: &Value| u32::from_str_radix(value.as_str().unwrap(), 16).unwrap();
    let input = |value: &Value| match value["hex"].as_str() {
        Some(text) => unhex(text),
        None if value["ramp"].is_u64() => (0..value["ramp"].as_u64().unwrap()).map(|n| n as u8).collect(),
        None => {
            let byte = value["repeatByte"].as_u64().unwrap();
            vec![byte as u8; value["length"].as_u64().unwrap() as usize]
        }
    };
    for case in data["crc32c"].as_array().unwrap() {
        assert_eq!(crc32c(hex(&case["seed"]), &input(&case["input"])), hex(&case["result"]), "{case}");
    }
    for case in data["crc16"].as_array().unwrap() {
        let sum = crc16(hex(&case["seed"]) as u16, &input(&case["input"]));
        assert_eq!(u32::from(sum), hex(&case["result"]), "{case}");
    }
    for case in data["continuation"].as_array().unwrap() {
        let (mut long, mut short) = (hex(&case["crc32cSeed"]), hex(&case["crc16Seed"]) as u16);
        for (index, part) in case["parts"].as_array().unwrap().iter().enumerate() {
            let part = part.as_str().map_or_else(|| input(part), unhex);
            long = crc32c(long, &part);
            short = crc16(short, &part);
            assert_eq!(long, hex(&case["crc32cStates"][index]), "{case}");
            assert_eq!(u32::from(short), hex(&case["crc16States"][index]), "{case}");
        }
    }
}
