use super::*;

fn extent(lblk: u32, len: u32, start: u64, unwritten: bool) -> Extent {
    Extent { lblk: Lblk(lblk), len, start: Pblk(start), unwritten }
}

fn leaf_block(extents: Vec<Extent>) -> Vec<u8> {
    let mut block = vec![0; 1024];
    encode_node(&mut block, 0, capacity(1024) as u16, &Entries::Leaf(extents));
    seal_tail(&mut block, 7);
    block
}

fn place(depth: u16, first: u32) -> Place {
    Place { depth: Some(depth), first: Some(Lblk(first)), end: 1000, blocks: 1 << 40 }
}

#[test]
fn d3_lengths() {
    let mut bytes = [0; 12];
    for (len, unwritten, raw) in [
        (1, false, 1u16),
        (32768, false, 0x8000),
        (1, true, 0x8001),
        (32767, true, 0xFFFF),
        (32767, false, 0x7FFF),
    ] {
        let extent = extent(5, len, 0xABCD_1234_5678, unwritten);
        extent.encode(&mut bytes);
        assert_eq!(le16(&bytes, 4), raw);
        assert_eq!(le16(&bytes, 6), 0xABCD);
        assert_eq!(le32(&bytes, 8), 0x1234_5678);
        assert_eq!(Extent::decode(&bytes), extent);
    }
    assert!(extent(0, 32769, 1, false).check(1 << 48).is_err());
    assert!(extent(0, 32768, 1, true).check(1 << 48).is_err());
    assert!(extent(u32::MAX - 1, 1, 1, true).check(1 << 48).is_ok());
    assert!(extent(u32::MAX, 1, 1, true).check(1 << 48).is_err());
}

#[test]
fn d4_every_rule() {
    let good = vec![extent(10, 5, 100, false), extent(20, 5, 200, true)];
    assert!(decode_node(&leaf_block(good.clone()), place(0, 10)).is_ok());
    let refused = |block: &[u8], place: Place| {
        assert_eq!(decode_node(block, place).expect_err("must be refused").errno(), 117);
    };
    let block = leaf_block(good.clone());
    refused(&block, place(0, 9)); // Parent's key.
    refused(&block, place(1, 10)); // Depth.
    refused(&block, Place { end: 24, ..place(0, 10) }); // The next key.
    refused(&block, Place { blocks: 204, ..place(0, 10) }); // Outside the volume.
    refused(&leaf_block(vec![good[1], good[0]]), place(0, 20));
    refused(&leaf_block(vec![good[0], extent(14, 1, 300, false)]), place(0, 10));
    for (at, value) in [(0, 0), (2, 85), (4, 0), (4, 85), (6, 6), (12 + 4, 0), (12 + 8, 0)] {
        let mut broken = block.clone();
        broken[at] = value;
        refused(&broken, place(0, 10));
    }
    let mut index = vec![0; 1024];
    let children = vec![ExtentIndex { lblk: Lblk(10), leaf: Pblk(0xFFFF_0000_0001) }];
    encode_node(&mut index, 1, 84, &Entries::Index(children.clone()));
    let everywhere = Place { blocks: 1 << 48, ..place(1, 10) };
    assert_eq!(decode_node(&index, everywhere).unwrap().1, Entries::Index(children));
    index[2] = 0;
    refused(&index, everywhere);
}

#[test]
fn d2_tail_covers_every_byte_before_it() {
    let block = leaf_block(vec![extent(10, 5, 100, false)]);
    assert_eq!(verify_tail(&block, 7), Ok(()));
    assert_eq!(verify_tail(&block, 8).unwrap_err().errno(), 74);
    for at in 0..block.len() {
        let mut broken = block.clone();
        broken[at] ^= 1;
        assert!(verify_tail(&broken, 7).is_err(), "byte {at}");
    }
}

#[test]
fn damaged_bytes_do_not_panic() {
    let extents = (0..84).map(|i| extent(i * 10, 5, 1000 + u64::from(i) * 7, i % 2 == 0)).collect();
    let block = leaf_block(extents);
    for at in 0..block.len() {
        for value in 0..=255 {
            let mut broken = block.clone();
            broken[at] = value;
            if let Ok((header, entries)) = decode_node(&broken, place(0, 0)) {
                encode_node(&mut broken, header.depth, header.max, &entries);
            }
        }
    }
}

#[test]
fn f58_empty_root() {
    let root = empty_root();
    assert_eq!(root[..12], [0x0A, 0xF3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(decode_node(&root, Place::root(100)).unwrap().1, Entries::Leaf(Vec::new()));
}

#[test]
fn every_block_size_has_room_for_the_tail() {
    for shift in 10..=16 {
        let mut block = vec![0; 1 << shift];
        encode_node(&mut block, 0, capacity(1 << shift) as u16, &Entries::Leaf(Vec::new()));
        seal_tail(&mut block, 1);
        assert_eq!(verify_tail(&block, 1), Ok(()));
    }
}
