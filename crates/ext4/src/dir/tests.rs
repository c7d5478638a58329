use std::collections::BTreeMap;

use block_io::AlignedBuf;
use ext4_format::hash::{HashAlgorithm, NameHash};
use proptest::prelude::*;

use super::testing::*;
use super::*;

type Model = BTreeMap<Vec<u8>, (u32, u8)>;

fn name(i: u32) -> Vec<u8> {
    format!("file-{i}").into_bytes()
}

fn listing(dir: &MemDir, params: &DirParams) -> Model {
    let mut all = Model::new();
    list(dir, params, 0, &mut |item, _| {
        assert!(all.insert(item.name.to_vec(), (item.entry.ino.0, item.entry.file_type)).is_none());
        true
    })
    .unwrap();
    assert_eq!((all.remove(&b"."[..]), all.remove(&b".."[..])), (Some((12, 2)), Some((2, 2))));
    all
}

fn algorithms() -> impl Strategy<Value = HashAlgorithm> {
    prop_oneof![Just(HashAlgorithm::Legacy), Just(HashAlgorithm::HalfMd4), Just(HashAlgorithm::Tea)]
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Vec<u8>),
    Remove(Vec<u8>),
    Replace(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few letters and lengths, so that names meet again; some long, so that leaves fill.
    let name = prop_oneof![
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xE4)], 1..5),
        (0..60_u8, 200..=255_usize)
            .prop_map(|(byte, len)| [byte + 50, len as u8 | 1].repeat(128)[..len].to_vec()),
    ];
    let step = prop_oneof![
        4 => name.clone().prop_map(Step::Insert),
        2 => name.clone().prop_map(Step::Remove),
        1 => name.prop_map(Step::Replace),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_agrees_with_a_map(
        steps in steps(), algorithm in algorithms(), unsigned: bool, dir_index: bool, has_csum: bool,
        space in prop_oneof![Just(usize::MAX), 1..12_usize],
    ) {
        let mut params = DirParams { dir_index, has_csum, ..params(algorithm) };
        params.hash_version.unsigned = unsigned;
        let mut dir = MemDir::new(1024, &params);
        dir.space = space;
        let mut model = Model::new();
        for (step, ino) in steps.into_iter().zip(100..) {
            match step {
                Step::Insert(name) => match insert(&mut dir, &params, &name, Ino(ino), 1) {
                    Ok(()) => prop_assert!(model.insert(name, (ino, 1)).is_none()),
                    Err(error) if error.errno() == errno::EEXIST => prop_assert!(model.contains_key(&name)),
                    Err(error) => prop_assert!(error.errno() == errno::ENOSPC && dir.blocks.len() >= space),
                },
                Step::Remove(name) => match remove(&mut dir, &params, &name) {
                    Ok(entry) => prop_assert_eq!(model.remove(&name), Some((entry.ino.0, entry.file_type))),
                    Err(error) => prop_assert!(error.errno() == errno::ENOENT && !model.contains_key(&name)),
                },
                Step::Replace(name) => match replace(&mut dir, &params, &name, Ino(ino), 2) {
                    Ok(_) => prop_assert!(model.insert(name, (ino, 2)).is_some()),
                    Err(error) => prop_assert!(error.errno() == errno::ENOENT && !model.contains_key(&name)),
                },
            }
            prop_assert_eq!(&judge(&dir, &params), &model);
            prop_assert_eq!(&listing(&dir, &params), &model);
            prop_assert_eq!(is_empty(&dir, &params).unwrap(), model.is_empty());
        }
        for (name, &(ino, file_type)) in &model {
            let found = lookup(&dir, &params, name).unwrap().unwrap();
            prop_assert_eq!((found.ino.0, found.file_type), (ino, file_type));
        }
    }
}

fn fill(block_size: usize, count: u32, params: &DirParams) -> MemDir {
    let mut dir = MemDir::new(block_size, params);
    let most = credits_for_insert(params.large_dir) as usize;
    for i in 0..count {
        dir.changed.clear();
        let before = dir.block_count();
        insert(&mut dir, params, &name(i), Ino(i + 100), 1).unwrap();
        assert!(dir.changed.len() <= most);
        assert!(dir.block_count() - before <= appends_for_insert(params.large_dir));
    }
    dir
}

fn check_full(dir: &mut MemDir, count: u32, params: &DirParams) {
    let names = judge(dir, params);
    assert_eq!(names.len(), count as usize);
    assert_eq!(listing(dir, params), names);
    for i in 0..count {
        assert_eq!(lookup(dir, params, &name(i)).unwrap().unwrap().ino.0, i + 100);
    }
    assert!(lookup(dir, params, &name(count)).unwrap().is_none());
    for i in 0..count {
        remove(dir, params, &name(i)).unwrap();
    }
    assert!(judge(dir, params).is_empty() && is_empty(dir, params).unwrap());
    let blocks = dir.block_count();
    for i in 0..count {
        insert(dir, params, &name(i), Ino(i + 100), 1).unwrap();
    }
    // F65: blocks are never given back, but their space is used again.
    assert_eq!(dir.block_count(), blocks);
    assert_eq!(judge(dir, params), names);
}

#[test]
fn twenty_thousand_names_split_the_index() {
    for algorithm in [HashAlgorithm::Legacy, HashAlgorithm::HalfMd4, HashAlgorithm::Tea] {
        let params = params(algorithm);
        let mut dir = fill(1024, 20_000, &params);
        assert_eq!(dir.blocks[0].0[0x1E], 1);
        assert!(dir.blocks.iter().filter(|(_, index)| *index).count() > 3);
        check_full(&mut dir, 20_000, &params);
    }
}

#[test]
fn a_hundred_thousand_names() {
    let params = params(HashAlgorithm::HalfMd4);
    let mut dir = fill(4096, 100_000, &params);
    assert_eq!(dir.blocks[0].0[0x1E], 1);
    check_full(&mut dir, 100_000, &params);
}

#[test]
fn f73_levels_run_out_unless_large_dir() {
    // Four names a leaf: some 15,000 leaves at most in two levels.
    let long = |i: u32| format!("{i:0>240}").into_bytes();
    let two = params(HashAlgorithm::HalfMd4);
    let three = DirParams { large_dir: true, ..two };
    let mut dir = MemDir::new(1024, &two);
    let mut count = 0;
    let error = loop {
        match insert(&mut dir, &two, &long(count), Ino(100), 1) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.errno(), errno::ENOSPC);
    assert!(count > 10_000);
    assert_eq!(judge(&dir, &two).len(), count as usize);
    for i in count..count + 5_000 {
        insert(&mut dir, &three, &long(i), Ino(100), 1).unwrap();
    }
    assert_eq!(dir.blocks[0].0[0x1E], 2);
    assert_eq!(judge(&dir, &three).len(), count as usize + 5_000);
    assert_eq!(listing(&dir, &three).len(), count as usize + 5_000);
    assert!(lookup(&dir, &two, &long(0)).is_err());
    assert!(is_empty(&dir, &three).is_ok_and(|empty| !empty));
}

/// Names of 255 bytes with one legacy hash (F75, signed chars): for every start the last two bytes are solved for.
fn colliding_names(count: usize) -> Vec<Vec<u8>> {
    const FACTOR: u32 = 7_152_373;
    const TARGET: u32 = 0x1234_5678;
    let product = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned().wrapping_mul(FACTOR);
    let fold = |h: u32| if h & 0x8000_0000 == 0 { h } else { h.wrapping_sub(0x7FFF_FFFF) };
    let step = |[h0, h1]: [u32; 2], byte| [fold(h1.wrapping_add(h0 ^ product(byte))), h0];
    let letters = || (1..=255_u8).filter(|&byte| byte != b'/');
    let mut letter_of = vec![0_u8; 0x1_0000];
    letters().for_each(|byte| letter_of[product(byte) as usize & 0xFFFF] = byte);
    let common = [b'y'; 250];
    let start = common.iter().fold([0x12A3_FE2D, 0x37AB_E8F9], |state, &byte| step(state, byte));
    let mut names = Vec::new();
    for (a, b, c) in letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| (a, b, c)))) {
        let [h0, h1] = [a, b, c].into_iter().fold(start, step);
        for last in letters() {
            let before = TARGET.wrapping_sub(h0) ^ product(last);
            let wanted = before.wrapping_sub(h1) ^ h0;
            let letter = letter_of[wanted as usize & 0xFFFF];
            if letter != 0 && product(letter) == wanted && before >> 31 == 0 {
                names.push([&common[..], &[a, b, c, letter, last]].concat());
            }
        }
        if names.len() >= count {
            return names;
        }
    }
    panic!("{} names", names.len());
}

#[test]
fn f71_names_of_one_hash_continue_over_leaves() {
    let params = params(HashAlgorithm::Legacy);
    let names = colliding_names(12);
    let hash = params.hash_version.hash(&params.hash_seed, &names[0]);
    assert!(names.iter().all(|name| params.hash_version.hash(&params.hash_seed, name) == hash));
    let mut dir = MemDir::new(1024, &params);
    let mut model = Model::new();
    for (i, same) in (0..).zip(&names) {
        for (name, ino) in [(same.clone(), 100 + i), (name(i), 1000 + i)] {
            insert(&mut dir, &params, &name, Ino(ino), 1).unwrap();
            model.insert(name, (ino, 1));
        }
        assert_eq!(judge(&dir, &params), model);
    }
    let lblks: std::collections::HashSet<u32> =
        names.iter().map(|name| lookup(&dir, &params, name).unwrap().unwrap().lblk).collect();
    assert!(lblks.len() >= 4, "{lblks:?}");
    assert_eq!(listing(&dir, &params), model);
    // F117: a sink that stops at the first of them gets them all, and none again from the position after them.
    let position = u64::from(hash.hash >> 1) << 32;
    let (mut got, mut after) = (0, 0);
    list(&dir, &params, position, &mut |item, next| {
        got += usize::from(names.iter().any(|name| name == item.name));
        after = next;
        false
    })
    .unwrap();
    assert_eq!(got, names.len());
    list(&dir, &params, after, &mut |item, _| {
        assert!(!names.iter().any(|name| name == item.name));
        true
    })
    .unwrap();
    for name in &names {
        remove(&mut dir, &params, name).unwrap();
        model.remove(name);
        assert_eq!(judge(&dir, &params), model);
    }
}

#[test]
fn f77_order_and_positions() {
    for (count, dir_index) in [(10, true), (10, false), (500, true), (500, false)] {
        let params = DirParams { dir_index, ..params(HashAlgorithm::HalfMd4) };
        let dir = fill(1024, count, &params);
        let mut all: Vec<(Vec<u8>, u64)> = Vec::new();
        list(&dir, &params, 0, &mut |item, next| {
            all.push((item.name.to_vec(), next));
            true
        })
        .unwrap();
        assert_eq!(all.len(), count as usize + 2);
        assert_eq!((&all[0].0[..], &all[1].0[..]), (&b"."[..], &b".."[..]));
        if dir_index {
            let hash = |name: &[u8]| params.hash_version.hash(&params.hash_seed, name);
            let position = |h: NameHash| (u64::from(h.hash >> 1) << 32) | u64::from(h.minor);
            assert!(all[2..].is_sorted_by_key(|(name, _)| hash(name)));
            assert_eq!((all[0].1, all.last().unwrap().1), (1 << 32, END_POSITION));
            assert!(all[1..].windows(2).all(|pair| pair[0].1 == position(hash(&pair[1].0))));
        }
        // From every position on, the rest.
        let mut cookie = 0;
        for (name, next) in &all {
            let mut first = None;
            list(&dir, &params, cookie, &mut |item, next| {
                first = Some((item.name.to_vec(), next));
                false
            })
            .unwrap();
            assert_eq!(first, Some((name.clone(), *next)));
            cookie = *next;
        }
        list(&dir, &params, cookie, &mut |_, _| panic!("behind the end")).unwrap();
        list(&dir, &params, u64::MAX, &mut |_, _| panic!("behind the end")).unwrap();
    }
}

#[test]
fn a_directory_of_several_linear_blocks_stays_linear() {
    let linear = DirParams { dir_index: false, ..params(HashAlgorithm::HalfMd4) };
    let mut dir = fill(1024, 100, &linear);
    let indexing = DirParams { dir_index: true, ..linear };
    insert(&mut dir, &indexing, b"one more", Ino(7), 1).unwrap();
    assert!(!dir.indexed && judge(&dir, &indexing).len() == 101);
}

#[test]
fn f65_dots() {
    let params = params(HashAlgorithm::HalfMd4);
    for count in [0, 500] {
        let mut dir = fill(1024, count, &params);
        assert_eq!(parent(&dir, &params).unwrap(), PARENT_INO);
        assert_eq!(lookup(&dir, &params, b".").unwrap().unwrap().ino, SELF_INO);
        assert_eq!(replace(&mut dir, &params, b"..", Ino(99), 2).unwrap().ino, PARENT_INO);
        assert_eq!(parent(&dir, &params).unwrap(), Ino(99));
        for name in [&b"."[..], b".."] {
            assert_eq!(remove(&mut dir, &params, name).unwrap_err().errno(), errno::EINVAL);
            assert_eq!(insert(&mut dir, &params, name, Ino(5), 1).unwrap_err().errno(), errno::EEXIST);
        }
    }
}

#[test]
fn names_are_judged() {
    let params = params(HashAlgorithm::HalfMd4);
    let mut dir = MemDir::new(1024, &params);
    for (name, expected) in [
        (&[b'n'; 256][..], errno::ENAMETOOLONG),
        (b"a/b", errno::EINVAL),
        (b"a\0", errno::EINVAL),
        (b"", errno::EINVAL),
    ] {
        assert_eq!(insert(&mut dir, &params, name, Ino(5), 1).unwrap_err().errno(), expected);
        assert_eq!(lookup(&dir, &params, name).unwrap_err().errno(), expected);
    }
    insert(&mut dir, &params, &[b'n'; 255], Ino(5), 1).unwrap();
}

/// Everything there is, on a directory that may be damaged: anything but a panic or an endless loop.
fn try_everything(dir: &mut MemDir, params: &DirParams) {
    let _ = lookup(dir, params, &name(3));
    let _ = is_empty(dir, params);
    let _ = parent(dir, params);
    let _ = list(dir, params, 0, &mut |item, _| {
        assert!(!item.name.contains(&b'/') && !item.name.contains(&0));
        true
    });
    let _ = remove(dir, params, &name(5));
    let _ = replace(dir, params, &name(6), Ino(5), 1);
    for i in 1000..1008 {
        let _ = insert(dir, params, &name(i), Ino(5), 1);
        let _ = insert(dir, params, &[i as u8 | 0x80; 255], Ino(5), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_survived(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..1024_usize, any::<u8>()), 1..6),
        count in prop_oneof![Just(5_u32), Just(60), Just(4000)], near_start: bool, reseal: bool, has_csum: bool,
    ) {
        type Made = std::collections::HashMap<(u32, bool), (Vec<(Image, bool)>, bool)>;
        thread_local! {
            static MADE: std::cell::RefCell<Made> = std::cell::RefCell::default();
        }
        let params = DirParams { has_csum, ..params(HashAlgorithm::HalfMd4) };
        let mut dir = MemDir::new(1024, &params);
        (dir.blocks, dir.indexed) = MADE.with_borrow_mut(|made| {
            made.entry((count, has_csum)).or_insert_with(|| {
                let dir = fill(1024, count, &params);
                (dir.blocks, dir.indexed)
            }).clone()
        });
        for (index, at, value) in damage {
            let lblk = if near_start { 0 } else { index.index(dir.blocks.len()) };
            let at = if near_start { at % 64 } else { at };
            let mut bytes = AlignedBuf::copy_of(&dir.blocks[lblk].0);
            bytes[at] = value;
            dir.blocks[lblk].0 = Image::new(bytes);
            if reseal {
                dir.reseal(lblk);
            }
        }
        try_everything(&mut dir, &params);
    }
}
