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
        block[12..16].copy_from_slice(&1025u32.to_be_bytes());
        assert_eq!(layout.decode_revoke(&block), None);
    }
}

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
