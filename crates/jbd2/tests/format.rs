//! Journal structures: round trips, capacities, damage.

use jbd2::Error;
use jbd2::format::{
    Checksums, CommitBlock, CommitSum, JournalSuperblock, Layout, Tag, TagFlags, create_superblock, feature,
};

fn layouts(block_size: usize) -> impl Iterator<Item = Layout> {
    [Checksums::None, Checksums::V1, Checksums::V2, Checksums::V3].into_iter().flat_map(move |checksums| {
        [false, true].map(|wide| Layout { block_size, wide, checksums, seed: 0x1234_5678 })
    })
}

/// X2.
#[test]
fn x2_tags_of_every_layout() {
    let of = |block_size, checksums| Layout { block_size, wide: true, checksums, seed: 0 };
    assert_eq!(of(1024, Checksums::V3).tags_per_descriptor(), 61);
    assert_eq!(of(4096, Checksums::V3).tags_per_descriptor(), 253);
    for block_size in [1024, 2048, 4096, 65536] {
        for layout in layouts(block_size) {
            for count in [1, 2, layout.tags_per_descriptor()] {
                let tags: Vec<Tag> = (0..count as u64)
                    .map(|index| Tag {
                        block: index * 7 + if layout.wide { index << 40 } else { 0 },
                        flags: TagFlags((index % 2) as u32),
                        checksum: match layout.checksums {
                            Checksums::V3 => (index as u32).wrapping_mul(0x0101_0101),
                            Checksums::V2 => index as u32 & 0xFFFF,
                            _ => 0,
                        },
                    })
                    .collect();
                let mut block = vec![0xAA; block_size];
                layout.encode_descriptor(77, &tags, &mut block);
                assert!(layout.tail_is_good(&block));
                let decoded = layout.decode_descriptor(&block);
                assert_eq!(decoded.len(), count);
                for (tag, decoded) in tags.iter().zip(&decoded) {
                    assert_eq!((tag.block, tag.checksum), (decoded.block, decoded.checksum));
                    assert_eq!(tag.flags.is_escaped(), decoded.flags.is_escaped());
                }
            }
        }
    }
}

/// X3.
#[test]
fn x3_revoke_blocks() {
    for layout in layouts(1024) {
        let blocks: Vec<u64> = (0..layout.records_per_revoke_block() as u64).map(|n| n * 1_000_003).collect();
        let mut block = vec![0xAA; 1024];
        layout.encode_revoke(5, &blocks, &mut block);
        assert!(layout.tail_is_good(&block));
        assert_eq!(layout.decode_revoke(&block), Some(blocks.clone()));
        let width = if layout.wide { 8 } else { 4 };
        for (count, records) in [(0, 0), (8, 0), (16, 0), (16 + width, 1), (17 + width, 1)] {
            block[12..16].copy_from_slice(&(count as u32).to_be_bytes());
            assert_eq!(layout.decode_revoke(&block).unwrap().len(), records);
        }
        // The maximum ends before the tail.
        let most = 1024 - layout.tail_size() as u32;
        block[12..16].copy_from_slice(&most.to_be_bytes());
        assert_eq!(layout.decode_revoke(&block).unwrap().len(), layout.records_per_revoke_block());
        for beyond in [most + 1, 1025, u32::MAX] {
            block[12..16].copy_from_slice(&beyond.to_be_bytes());
            assert_eq!(layout.decode_revoke(&block), None);
        }
    }
}

/// X4.
#[test]
fn x4_commit_blocks() {
    for layout in layouts(4096).filter(|layout| layout.checksums != Checksums::V1) {
        let commit = CommitBlock { tid: 3, seconds: 0x1_2345_6789, nanoseconds: 42 };
        let mut block = vec![0xAA; 4096];
        commit.encode(&layout, &mut block);
        assert_eq!(CommitBlock::decode(&block), commit);
        assert_eq!(CommitBlock::verify(&layout, &block, 0), CommitSum::Good);
        let sums = layout.has_crc32c();
        block[2000] ^= 1;
        assert_eq!(CommitBlock::verify(&layout, &block, 0) == CommitSum::Torn, sums);
        block[50] ^= 1;
        assert_eq!(CommitBlock::verify(&layout, &block, 0) == CommitSum::Bad, sums);
    }
}

/// X1, X6.
#[test]
fn x1_x6_superblock() {
    let mut superblock = create_superblock(1024, 2048, [3; 16]).unwrap();
    superblock.set_features(jbd2::Features { wide: true, csum_v3: true, fast_commit: true }).unwrap();
    superblock.s_head = 1000;
    superblock.s_errno = -5;
    let mut block = vec![0; 1024];
    superblock.encode(&mut block);
    let decoded = JournalSuperblock::decode(&block, 1024, 2048).unwrap();
    assert_eq!((decoded.s_head, decoded.s_errno, decoded.ring_end()), (1000, -5, 2048 - 256));
    assert!(decoded.has(feature::INCOMPAT_FAST_COMMIT) && decoded.layout().checksums == Checksums::V3);
    let mut again = vec![0xFF; 1024];
    decoded.encode(&mut again);
    assert_eq!(again, block);
    // J4: every byte but those that say nothing under the sum is covered.
    for at in 0..1024 {
        for value in 0..=255u8 {
            let mut damaged = block.clone();
            damaged[at] = value;
            let result = JournalSuperblock::decode(&damaged, 1024, 2048);
            // Without the v3 bit there is no sum to be wrong.
            let uncovered = damaged[at] == block[at] || (at == 0x2B && damaged[at] & 0x10 == 0) || at == 7;
            assert!(result.is_err() || uncovered, "byte {at} = {value}");
        }
    }
    assert!(matches!(JournalSuperblock::decode(&block, 4096, 2048), Err(Error::Invalid(_))));
    assert!(matches!(JournalSuperblock::decode(&block, 1024, 2047), Err(Error::Invalid(_))));
    block[0x200] ^= 1;
    assert!(matches!(JournalSuperblock::decode(&block, 1024, 2048), Err(Error::Checksum(_))));
    assert!(create_superblock(1024, 1023, [0; 16]).is_err());
}

#[test]
fn damaged_control_blocks_never_panic() {
    for layout in layouts(1024) {
        let mut block = vec![0; 1024];
        layout.encode_revoke(5, &[1, 2, 3], &mut block);
        for at in 0..64 {
            for value in 0..=255u8 {
                let mut damaged = block.clone();
                damaged[at] = value;
                let _ = (layout.decode_revoke(&damaged), layout.decode_descriptor(&damaged));
                let _ = CommitBlock::verify(&layout, &damaged, 0);
            }
        }
    }
}

/// A superblock put together by hand (J3), without features.
fn raw_superblock(kind: u32) -> Vec<u8> {
    let mut block = vec![0; 4096];
    for (at, value) in [
        (0x00, 0xC03B_3998),
        (0x04, kind),
        (0x0C, 4096),
        (0x10, 2000),
        (0x14, 1),
        (0x18, 0x0102_0304),
        (0x1C, 77),
        (0x20, -30i32 as u32),
        (0x40, 1),
        (0x54, 300),
        (0x58, 88),
    ] {
        put(&mut block, at, value);
    }
    block[0x30..0x40].copy_from_slice(b"0123456789abcdef");
    block
}

fn put(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// X1.
#[test]
fn x1_every_field_v1_and_v2() {
    let block = raw_superblock(4);
    let v2 = JournalSuperblock::decode(&block, 4096, 2000).unwrap();
    assert_eq!((v2.s_blocksize, v2.s_maxlen, v2.s_first), (4096, 2000, 1));
    assert_eq!((v2.s_sequence, v2.s_start, v2.s_errno), (0x0102_0304, 77, -30));
    assert_eq!((v2.s_nr_users, v2.s_num_fc_blks, v2.s_head), (1, 300, 88));
    // Without the feature there is no fast-commit area.
    assert_eq!((&v2.s_uuid, v2.ring_end()), (b"0123456789abcdef", 2000));
    // J6: a v1 superblock ends at 0x24, whatever lies behind it.
    let mut block = raw_superblock(3);
    block[0x24..0x30].fill(0xFF);
    let v1 = JournalSuperblock::decode(&block, 4096, 2000).unwrap();
    assert_eq!((v1.s_sequence, v1.s_start, v1.s_errno), (0x0102_0304, 77, -30));
    assert_eq!((v1.s_feature_compat, v1.s_feature_incompat, v1.s_head), (0, 0, 0));
    assert!(v1.layout().checksums == Checksums::None && !v1.layout().wide);
    let mut again = vec![0; 4096];
    v1.encode(&mut again);
    assert_eq!(again[..1024], block[..1024]);
    let mut wide = v1;
    assert!(wide.set_features(jbd2::Features { wide: true, ..Default::default() }).is_err());
    assert!(wide.set_features(jbd2::Features::default()).is_ok());
}

/// X6.
#[test]
fn x6_load_checks() {
    const EINVAL: i32 = 22;
    let check = |changes: &[(usize, u32)], log_blocks: u32| {
        let mut block = raw_superblock(4);
        for &(at, value) in changes {
            put(&mut block, at, value);
        }
        JournalSuperblock::decode(&block, 4096, log_blocks).map_err(|error| error.errno()).map(|_| ())
    };
    assert_eq!(check(&[], 2000), Ok(()));
    for (what, changes) in [
        ("magic", vec![(0x00, 0xC03B_3999)]),
        ("block size", vec![(0x0C, 1024)]),
        ("type 1", vec![(0x04, 1)]),
        ("type 5", vec![(0x04, 5)]),
        ("s_maxlen", vec![(0x10, 2001)]),
        ("s_first 0", vec![(0x14, 0)]),
        ("s_first at the end", vec![(0x14, 2000)]),
        ("unknown incompat", vec![(0x28, 0x40)]),
        ("unknown ro_compat", vec![(0x2C, 1)]),
        ("too short", vec![(0x10, 1023)]),
        ("too short for fast commits", vec![(0x10, 1323), (0x28, 0x20)]),
        ("fast commits without end", vec![(0x54, u32::MAX), (0x28, 0x20)]),
        ("v2 and v3", vec![(0x28, 0x18), (0x50, 4 << 24)]),
        ("v1 and v2", vec![(0x24, 1), (0x28, 8), (0x50, 4 << 24)]),
        ("v1 and v3", vec![(0x24, 1), (0x28, 0x10), (0x50, 4 << 24)]),
        ("checksum type", vec![(0x28, 0x10), (0x50, 1 << 24)]),
    ] {
        assert_eq!(check(&changes, 2000), Err(EINVAL), "{what}");
    }
    assert_eq!(check(&[(0x28, 0x10), (0x50, 4 << 24)], 2000), Err(74));
    // J5: unknown compat bits mean nothing.
    assert_eq!(check(&[(0x24, 0xFFFF_FFFE)], 2000), Ok(()));
    assert_eq!(check(&[(0x10, 1324), (0x28, 0x20)], 2000), Ok(()));
}

/// X10.
#[test]
fn x10_fast_commit_geometry() {
    for (blocks, area) in [(0, 256), (16, 16), (64, 64), (256, 256)] {
        let mut superblock = create_superblock(1024, 2048, [3; 16]).unwrap();
        superblock.s_num_fc_blks = blocks;
        assert_eq!(superblock.ring_end(), 2048);
        superblock.set_features(jbd2::Features { fast_commit: true, ..Default::default() }).unwrap();
        assert_eq!((superblock.fast_commit_blocks(), superblock.ring_end()), (area, 2048 - area));
    }
}

/// X7.
#[test]
fn x7_features_of_a_read_write_mount() {
    use feature::*;
    const REVOKE: u32 = INCOMPAT_REVOKE;
    let all = INCOMPAT_64BIT | INCOMPAT_ASYNC_COMMIT | INCOMPAT_CSUM_V2 | REVOKE;
    for (before, wide, csum_v3, after) in [
        (0, false, false, 0),
        (all, false, false, REVOKE),
        (all, true, false, REVOKE | INCOMPAT_64BIT),
        (INCOMPAT_CSUM_V3 | INCOMPAT_FAST_COMMIT, true, true, INCOMPAT_CSUM_V3 | INCOMPAT_64BIT),
        (INCOMPAT_CSUM_V3, false, false, 0),
    ] {
        let mut superblock = create_superblock(1024, 2048, [3; 16]).unwrap();
        superblock.s_feature_incompat = before;
        superblock.s_feature_compat = COMPAT_CHECKSUM | 0x80;
        superblock.set_features(jbd2::Features { wide, csum_v3, fast_commit: false }).unwrap();
        assert_eq!(superblock.s_feature_incompat, after);
        assert_eq!(superblock.s_checksum_type, if csum_v3 { 4 } else { 0 });
        assert_eq!(superblock.s_feature_compat, 0x80);
    }
}

/// X2. J10 byte by byte: the second tag of a descriptor, behind the first one's UUID, which is not looked at.
#[test]
fn x2_tag_bytes() {
    let (low, high, flags) = ([1, 2, 3, 4], [0, 0, 0, 5], 1 | 2 | 8);
    let wide = 0x0000_0005_0102_0304;
    let (v2, v3) = ([0xAB, 0xCD], [0xAB, 0xCD, 0xEF, 0x01]);
    let unused = [0x77, 0x77];
    let cases: [(Checksums, bool, Vec<u8>, u64, u32); 6] = [
        (Checksums::None, false, [&low[..], &unused, &[0, flags]].concat(), 0x0102_0304, 0),
        (Checksums::V1, true, [&low[..], &unused, &[0, flags], &high].concat(), wide, 0),
        (Checksums::V2, false, [&low[..], &v2, &[0, flags], &unused].concat(), 0x0102_0304, 0xABCD),
        (Checksums::V2, true, [&low[..], &v2, &[0, flags], &high, &unused].concat(), wide, 0xABCD),
        (Checksums::V3, false, [&low[..], &[0, 0, 0, flags], &high, &v3].concat(), 0x0102_0304, 0xABCD_EF01),
        (Checksums::V3, true, [&low[..], &[0, 0, 0, flags], &high, &v3].concat(), wide, 0xABCD_EF01),
    ];
    for (checksums, wide, tag, block, checksum) in cases {
        let layout = Layout { block_size: 1024, wide, checksums, seed: 0 };
        let mut first = tag.clone();
        // Deleted (4, ignored); a UUID follows it.
        first[7] = 4;
        let mut descriptor = vec![0xEE; 12];
        descriptor.extend(&first);
        descriptor.extend([0x99; 16]);
        descriptor.extend(&tag);
        descriptor.resize(1024, 0xEE);
        let tags = layout.decode_descriptor(&descriptor);
        assert_eq!(tags.len(), 2, "{checksums:?} {wide}");
        assert_eq!((tags[1].block, tags[1].checksum, tags[1].flags), (block, checksum, TagFlags(11)));
        assert!(!tags[0].flags.is_escaped() && tags[1].flags.is_escaped());
        // The encoder writes the same, but for what is unused.
        let mut encoded = vec![0; 1024];
        layout.encode_descriptor(1, &tags, &mut encoded);
        let second = 12 + tag.len() + 16;
        let expected: Vec<u8> = tag.iter().map(|&byte| if byte == 0x77 { 0 } else { byte }).collect();
        let expected = if !wide && checksums == Checksums::V3 {
            [&expected[..8], &[0; 4], &expected[12..]].concat()
        } else {
            expected
        };
        assert_eq!(encoded[second..second + tag.len()], expected);
        assert_eq!(encoded[12 + tag.len()..second], [0; 16]);
    }
}
