//! Plans as tables: every state of a mapping, aligned or not, inside, at and behind the end of the file.

use crate::common::{BLOCK, SECTOR, pattern, write_request};
use iomap::{Address, Mapping, MappingFlags, ReadPlan, ReadRequest, Source, WritePlan, WriteRequest};

const EIO: i32 = 5;
const EINVAL: i32 = 22;
/// Where block 0 of the file lies on the device.
const HOME: u64 = 100 * BLOCK;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Hole,
    Unwritten,
    Mapped,
    New,
}
const STATES: [State; 4] = [State::Hole, State::Unwritten, State::Mapped, State::New];

fn mapping(state: State, first_block: u64, blocks: u64, device: u64) -> Mapping {
    Mapping {
        offset_bytes: first_block * BLOCK,
        len_bytes: blocks * BLOCK,
        address: match state {
            State::Hole => Address::Hole,
            State::Unwritten => Address::Unwritten { device_offset_bytes: device },
            State::Mapped | State::New => Address::Mapped { device_offset_bytes: device },
        },
        flags: MappingFlags { new: state == State::New, ..MappingFlags::default() },
    }
}

/// A plan as text: device offset behind HOME, then runs of zeros (z) and of the caller's bytes (d, by index).
fn show(plan: &WritePlan, data: &[u8]) -> String {
    let piece = |piece: &iomap::WritePiece| {
        let at = piece.device_offset_bytes - HOME;
        match &piece.source {
            Source::Data(range) => format!("{at}:d{}..{}", range.start, range.end),
            Source::Edge(edge) => {
                let head = edge.iter().take_while(|&&byte| byte == 0).count();
                let tail = edge.iter().rev().take_while(|&&byte| byte == 0).count();
                let middle = &edge[head..edge.len() - tail];
                let at_index =
                    data.windows(middle.len()).position(|window| window == middle).expect("our bytes");
                format!("{at}:[z{head} d{at_index}..{} z{tail}]", at_index + middle.len())
            }
        }
    };
    plan.pieces.iter().map(piece).collect::<Vec<_>>().join(" ")
}

#[test]
fn writes_become_exactly_these_device_requests() {
    use State::{Mapped, New, Unwritten};
    // State, position, length, i_size → requests. The mapping is four blocks of 2048 bytes.
    let table: &[(State, u64, usize, u64, &str)] = &[
        (Mapped, 0, 2048, 8192, "0:d0..2048"),
        (Mapped, 512, 512, 8192, "512:d0..512"),
        (Mapped, 1536, 4096, 8192, "1536:d0..4096"),
        // The tail is zeroed at and behind the end of the file, even on written blocks.
        (Mapped, 512, 512, 1024, "512:[z0 d0..512 z1024]"),
        (Mapped, 512, 512, 1000, "512:[z0 d0..512 z1024]"),
        (Mapped, 512, 512, 1025, "512:d0..512"),
        (Mapped, 512, 4096, 4608, "512:d0..3584 4096:[z0 d3584..4096 z1536]"),
        (Mapped, 0, 4096, 4096, "0:d0..4096"),
        (Unwritten, 0, 4096, 8192, "0:d0..4096"),
        (Unwritten, 512, 512, 8192, "0:[z512 d0..512 z1024]"),
        (Unwritten, 512, 1536, 8192, "0:[z512 d0..1536 z0]"),
        (Unwritten, 0, 512, 8192, "0:[z0 d0..512 z1536]"),
        (Unwritten, 1536, 1024, 8192, "0:[z1536 d0..512 z0] 2048:[z0 d512..1024 z1536]"),
        (Unwritten, 1536, 5120, 8192, "0:[z1536 d0..512 z0] 2048:d512..4608 6144:[z0 d4608..5120 z1536]"),
        (New, 2560, 512, 0, "2048:[z512 d0..512 z1024]"),
        (New, 2048, 2560, 0, "2048:d0..2048 4096:[z0 d2048..2560 z1536]"),
    ];
    for &(state, pos, len, size, expected) in table {
        let data = pattern(pos, len);
        let plan = WritePlan::new(&write_request(pos, &data, size), &[mapping(state, 0, 4, HOME)]).unwrap();
        assert_eq!(show(&plan, &data), expected, "{state:?} {pos}+{len} of {size}");
        assert_eq!(plan.unwritten, state == Unwritten);
    }
}

/// Every combination against what each byte of the blocks must become: the caller's, zero, or left alone.
#[test]
fn writes_touch_what_they_must_and_nothing_else() {
    for state in STATES {
        for pos in (0..2 * BLOCK).step_by(SECTOR as usize / 2) {
            for len in (0..=2 * BLOCK as usize).step_by(SECTOR as usize / 2) {
                for size in [0, 1, pos, pos + 1, pos + len as u64, pos + len as u64 + 1, 4 * BLOCK] {
                    check_bytes(state, pos, len, size);
                }
            }
        }
    }
}

fn check_bytes(state: State, pos: u64, len: usize, size: u64) {
    let data = pattern(7, len);
    let end = pos + len as u64;
    let label = format!("{state:?} {pos}+{len} of {size}");
    let plan = match WritePlan::new(&write_request(pos, &data, size), &[mapping(state, 0, 4, HOME)]) {
        Ok(plan) => plan,
        Err(EINVAL) => return assert!(!(pos | end).is_multiple_of(SECTOR), "{label}"),
        Err(errno) => return assert!(errno == EIO && state == State::Hole && len > 0, "{label}"),
    };
    assert!((pos | end).is_multiple_of(SECTOR), "{label}");
    if len == 0 {
        return assert!(plan.pieces.is_empty(), "{label}");
    }
    let mut after = vec![0xEE; 4 * BLOCK as usize];
    for piece in &plan.pieces {
        let bytes: &[u8] = match &piece.source {
            Source::Data(range) => &data[range.clone()],
            Source::Edge(edge) => edge,
        };
        let at = (piece.device_offset_bytes - HOME) as usize;
        assert!(at.is_multiple_of(SECTOR as usize) && bytes.len().is_multiple_of(SECTOR as usize), "{label}");
        assert!(
            after[at..at + bytes.len()].iter().all(|&byte| byte == 0xEE),
            "pieces do not overlap: {label}"
        );
        after[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let fresh = state != State::Mapped;
    for (at, &byte) in (0u64..).zip(&after) {
        let head = fresh && (pos - pos % BLOCK..pos).contains(&at);
        let tail = (fresh || end >= size) && (end..end.next_multiple_of(BLOCK)).contains(&at);
        let expected = match at {
            at if (pos..end).contains(&at) => data[(at - pos) as usize],
            _ if head || tail => 0,
            _ => 0xEE,
        };
        assert_eq!(byte, expected, "byte {at}: {label}");
    }
}

#[test]
fn adjoining_runs_become_one_request_and_others_do_not() {
    let data = pattern(1, 4 * BLOCK as usize);
    let request = write_request(0, &data, 8 * BLOCK);
    let joined = [mapping(State::Mapped, 0, 2, HOME), mapping(State::Unwritten, 2, 2, HOME + 2 * BLOCK)];
    let plan = WritePlan::new(&request, &joined).unwrap();
    assert_eq!(show(&plan, &data), "0:d0..8192");
    assert!(plan.unwritten);
    let apart = [mapping(State::Mapped, 0, 2, HOME), mapping(State::Mapped, 2, 2, HOME + 3 * BLOCK)];
    let plan = WritePlan::new(&request, &apart).unwrap();
    assert_eq!(show(&plan, &data), "0:d0..4096 6144:d4096..8192");
}

#[test]
fn a_write_into_a_hole_or_a_gap_is_refused() {
    let data = pattern(1, 2 * BLOCK as usize);
    let request = write_request(0, &data, 8 * BLOCK);
    let written = mapping(State::Mapped, 0, 1, HOME);
    for mappings in [
        &[written][..],
        &[written, mapping(State::Hole, 1, 1, 0)],
        &[mapping(State::Mapped, 1, 1, HOME)],
        &[],
    ] {
        assert_eq!(WritePlan::new(&request, mappings).err(), Some(EIO), "{mappings:?}");
    }
    let beyond = WriteRequest { pos: u64::MAX - 511, ..request };
    assert_eq!(WritePlan::new(&beyond, &[written]).err(), Some(EINVAL));
}

#[test]
fn fua_is_for_pure_overwrites() {
    let data = pattern(1, 2 * BLOCK as usize);
    let plain = mapping(State::Mapped, 0, 2, HOME);
    let with = |flags| Mapping { flags, ..plain };
    let none = MappingFlags::default();
    // Mappings, i_size, O_DSYNC → FUA.
    let table = [
        (vec![plain], 2 * BLOCK, true, true),
        (vec![plain], 2 * BLOCK, false, false),
        // A13: the size changes too.
        (vec![plain], 2 * BLOCK - 1, true, false),
        (vec![mapping(State::Unwritten, 0, 2, HOME)], 2 * BLOCK, true, false),
        (vec![with(MappingFlags { new: true, ..none })], 2 * BLOCK, true, false),
        (vec![with(MappingFlags { dirty: true, ..none })], 2 * BLOCK, true, false),
        (vec![with(MappingFlags { shared: true, ..none })], 2 * BLOCK, true, false),
        // One ineligible piece cancels it for all (B8), wherever it is.
        (
            vec![mapping(State::Mapped, 0, 1, HOME), mapping(State::Unwritten, 1, 1, HOME + BLOCK)],
            2 * BLOCK,
            true,
            false,
        ),
        (
            vec![mapping(State::Unwritten, 0, 1, HOME), mapping(State::Mapped, 1, 1, HOME + BLOCK)],
            2 * BLOCK,
            true,
            false,
        ),
    ];
    for (mappings, size, dsync, fua) in table {
        let request = WriteRequest { dsync, ..write_request(0, &data, size) };
        assert_eq!(WritePlan::new(&request, &mappings).unwrap().fua, fua, "{mappings:?} {size} {dsync}");
    }
}

fn read(state: State, pos: u64, len: u64, size_bytes: u64) -> Result<ReadPlan, i32> {
    let request = ReadRequest { pos, len, size_bytes, logical_block: SECTOR as u32 };
    ReadPlan::new(&request, &[mapping(state, 0, 4, HOME)])
}

/// Every combination against B1, B2, B3 and B6, byte by byte.
#[test]
fn reads_follow_the_rules() {
    let block_end = 4 * BLOCK;
    for state in STATES {
        for pos in (0..2 * BLOCK).step_by(SECTOR as usize / 2) {
            for len in (0..=2 * BLOCK).step_by(SECTOR as usize / 2) {
                for size in [0, 1, pos, pos + 1, pos + len, pos + len + 1, 1300, block_end] {
                    let plan = read(state, pos, len, size);
                    let label = format!("{state:?} {pos}+{len} of {size}");
                    let bytes = len.min(size.saturating_sub(pos));
                    let written = matches!(state, State::Mapped | State::New);
                    if bytes > 0 && written && !(pos | (pos + len).min(block_end)).is_multiple_of(SECTOR) {
                        assert_eq!(plan, Err(EINVAL), "{label}");
                        continue;
                    }
                    let plan = plan.unwrap_or_else(|errno| panic!("{errno}: {label}"));
                    assert_eq!(plan.bytes, bytes, "{label}");
                    let zeros = plan.zeros;
                    if bytes == 0 {
                        assert!(plan.pieces.is_empty() && zeros.is_empty(), "{label}");
                    } else if written {
                        let [piece] = &plan.pieces[..] else { panic!("one piece: {label}") };
                        assert_eq!(piece.device_offset_bytes, HOME + pos, "{label}");
                        assert_eq!(piece.range, 0..bytes.next_multiple_of(SECTOR) as usize, "{label}");
                        assert!(piece.range.end as u64 <= len && zeros.is_empty(), "{label}");
                    } else {
                        assert!(
                            plan.pieces.is_empty() && (zeros.len(), &zeros[0]) == (1, &(0..bytes as usize)),
                            "{label}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn reads_join_runs_and_skip_holes() {
    let request =
        ReadRequest { pos: 512, len: 5 * BLOCK, size_bytes: 5 * BLOCK, logical_block: SECTOR as u32 };
    let mappings = [
        mapping(State::Mapped, 0, 1, HOME),
        mapping(State::Mapped, 1, 1, HOME + BLOCK),
        mapping(State::Hole, 2, 1, 0),
        mapping(State::Unwritten, 3, 1, HOME),
        mapping(State::Mapped, 4, 1, HOME + 9 * BLOCK),
    ];
    let plan = ReadPlan::new(&request, &mappings).unwrap();
    let pieces: Vec<_> =
        plan.pieces.iter().map(|piece| (piece.device_offset_bytes - HOME, piece.range.clone())).collect();
    assert_eq!(pieces, [(512, 0..3584), (9 * BLOCK, 7680..9728)]);
    assert_eq!(plan.zeros, [3584..5632, 5632..7680]);
    // Mappings that do not reach the end of the file are our bug, not zeros.
    assert_eq!(ReadPlan::new(&request, &mappings[..3]), Err(EIO));
}
