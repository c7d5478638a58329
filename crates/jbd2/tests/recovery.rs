//! The verdicts of recovery on logs made by hand (R1–R10, X11, X23–X31, X39).
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other test programs need the rest")]
mod common;
mod crafted;

use common::*;
use crafted::*;
use jbd2::format::{Checksums, Header, JournalSuperblock, block_type, feature};
use jbd2::{Config, Features, Journal, recovery};
use proptest::prelude::*;

const EBADMSG: i32 = 74;
const EINVAL: i32 = 22;
const EUCLEAN: i32 = 117;
const ALL: [Checksums; 4] = [Checksums::None, Checksums::V1, Checksums::V2, Checksums::V3];
const CRC32C: [Checksums; 2] = [Checksums::V2, Checksums::V3];

/// Three transactions that write blocks 0 to 2, one each, and block 9 each time.
fn three(checksums: Checksums, incompat: u32) -> (Crafted, [Placed; 3]) {
    let mut log = Crafted::new(checksums, true, 1, 20).with_incompat(incompat);
    let placed = [0, 1, 2].map(|n| log.transaction(&[(n, 11 + n), (9, 30 + n)], 1000 + n));
    (log, placed)
}

/// What the first `n` of [`three`] leave.
fn prefix(n: u32) -> Result<(u32, [u64; 10]), i32> {
    let mut values = [0; 10];
    for index in 0..n as usize {
        values[index] = 11 + index as u64;
        values[9] = 30 + index as u64;
    }
    Ok((n, values))
}

/// X23.
#[test]
fn x23_what_is_complete_is_replayed() {
    for checksums in ALL {
        let (log, placed) = three(checksums, 0);
        assert_eq!(log.verdict(), prefix(3), "{checksums:?}");
        for (n, placed) in placed.iter().enumerate() {
            let (mut log, _) = three(checksums, 0);
            log.block(placed.commit).fill(0);
            assert_eq!(log.verdict(), prefix(n as u32), "{checksums:?}, no commit block {n}");
            let (mut log, _) = three(checksums, 0);
            log.block(placed.descriptor)[7] = 9;
            assert_eq!(log.verdict(), prefix(n as u32), "{checksums:?}, an unknown type");
            let (mut log, _) = three(checksums, 0);
            log.block(placed.commit)[8] ^= 1;
            assert_eq!(log.verdict(), prefix(n as u32), "{checksums:?}, another tid");
        }
    }
}

/// X24.
#[test]
fn x24_a_bad_tail_is_corrupt_or_stale_by_commit_time() {
    for checksums in CRC32C {
        for revoke in [false, true] {
            for (seconds, verdict) in [(1002, Err(EBADMSG)), (1001, Err(EBADMSG)), (1000, prefix(2))] {
                let (mut log, _) = three(checksums, 0);
                // The third transaction once more, with another time.
                (log.position, log.tid) = (1 + 2 * 4, 22);
                let revoked = log.revoke(&[50]);
                let placed = log.transaction(&[(2, 13)], seconds);
                let bad = if revoke { revoked } else { placed.descriptor };
                log.block(bad)[600] ^= 1;
                assert_eq!(log.verdict(), verdict, "{checksums:?}, revoke {revoke}, time {seconds}");
                // Without its commit block nothing is decided: the log ends.
                log.block(placed.commit).fill(0);
                assert_eq!(log.verdict(), prefix(2));
            }
        }
    }
}

/// X25.
#[test]
fn x25_a_bad_commit_block() {
    for checksums in CRC32C {
        for n in 0..3 {
            for at in [16, 19, 30, 50, 57, 60, 63] {
                let (mut log, placed) = three(checksums, 0);
                log.block(placed[n].commit)[at] ^= 0x10;
                // A time before the last commit's, with a wrong sum, is stale.
                let verdict = log.verdict();
                assert_eq!(verdict, Err(EUCLEAN), "{checksums:?}, commit {n}, byte {at}");
            }
            // A torn commit block is accepted: nothing is lost behind byte 64.
            for at in [64, 100, 511, 1023] {
                let (mut log, placed) = three(checksums, 0);
                log.block(placed[n].commit)[at] ^= 0x10;
                assert_eq!(log.verdict(), prefix(3), "{checksums:?}, commit {n}, byte {at}");
            }
        }
        // Stale: an older time and a wrong sum.
        let (mut log, placed) = three(checksums, 0);
        log.block(placed[2].commit)[48..56].copy_from_slice(&999u64.to_be_bytes());
        assert_eq!(log.verdict(), prefix(2));
        // The older time alone ends nothing.
        log.seal(placed[2].commit);
        assert_eq!(log.verdict(), prefix(3));
    }
}

/// X25.
#[test]
fn x25_v1_sums() {
    for n in 0..3 {
        let (mut log, placed) = three(Checksums::V1, 0);
        log.block(placed[n].data[0])[100] ^= 1;
        assert_eq!(log.verdict(), Err(EUCLEAN), "data of {n}");
        let (mut log, placed) = three(Checksums::V1, 0);
        log.block(placed[n].commit)[17] ^= 1;
        assert_eq!(log.verdict(), Err(EUCLEAN), "sum of {n}");
        // A commit block of a writer without sums is taken as it is.
        log.block(placed[n].commit)[12..20].fill(0);
        assert_eq!(log.verdict(), prefix(3));
        // Revoke blocks are not covered (J19).
    }
    let mut log = Crafted::new(Checksums::V1, false, 1, 5);
    log.revoke(&[3, 4]);
    log.transaction(&[(1, 1), (3, 4)], 7);
    assert_eq!(log.verdict().map(|verdict| verdict.1[1..4].to_vec()), Ok(vec![1, 0, 0]));
}

/// X26.
#[test]
fn x26_damaged_data_refuses_everything() {
    for checksums in CRC32C {
        for n in 0..3 {
            for at in [0, 3, 500, 1023] {
                let (mut log, placed) = three(checksums, 0);
                log.block(placed[n].data[0])[at] ^= 0x80;
                assert_eq!(log.verdict(), Err(EBADMSG), "{checksums:?}, data of {n}, byte {at}");
            }
        }
        // A copy that a later one covers is looked at, as Linux does; one that is revoked is not.
        let (mut log, placed) = three(checksums, 0);
        log.block(placed[0].data[1])[70] ^= 1;
        assert_eq!(log.verdict(), Err(EBADMSG));
        log.revoke(&[9]);
        log.transaction(&[(5, 1)], 1003);
        assert_eq!(log.verdict().unwrap().1[9], 0);
    }
    let (mut log, placed) = three(Checksums::None, 0);
    log.block(placed[1].data[1])[1000] ^= 1;
    assert_eq!(log.recover().1.unwrap().transactions, 3);
}

/// X27.
#[test]
fn x27_async_commit() {
    const ASYNC: u32 = feature::INCOMPAT_ASYNC_COMMIT;
    for checksums in CRC32C {
        for n in 0..3 {
            let (mut log, placed) = three(checksums, ASYNC);
            log.block(placed[n].commit)[18] ^= 1;
            assert_eq!(log.verdict(), prefix(n as u32), "commit {n}: the log ends, whatever follows");
            // R7: a valid commit block over missing data or descriptor, at the end only.
            let expected = if n == 2 { prefix(2) } else { Err(EBADMSG) };
            let (mut log, placed) = three(checksums, ASYNC);
            log.block(placed[n].data[0]).fill(0xEE);
            assert_eq!(log.verdict(), expected, "data of {n}");
            let (mut log, placed) = three(checksums, ASYNC);
            log.block(placed[n].descriptor)[700] ^= 1;
            assert_eq!(log.verdict(), expected, "descriptor of {n}");
        }
    }
    for n in 0..3 {
        let (mut log, placed) = three(Checksums::V1, ASYNC);
        log.block(placed[n].data[0]).fill(0xEE);
        // A further commit block says that this one was complete once.
        assert_eq!(log.verdict(), if n == 2 { prefix(2) } else { Err(EUCLEAN) }, "data of {n}");
    }
}

/// X28.
#[test]
fn x28_a_discarded_log_never_comes_back() {
    for damage in [false, true] {
        let (mut log, placed) = three(Checksums::None, 0);
        if damage {
            // An impossible start: nothing can be read from there.
            (log.jsb.s_start, _) = (LOG_BLOCKS, placed);
            log.put_jsb();
        }
        let device = log.device();
        recovery::discard(&*device, BS, &log_map()).unwrap();
        assert_eq!(device.block(0), vec![0; BS]);
        let host = std::sync::Arc::new(TestHost::default());
        let features = Features { wide: true, csum_v3: false, fast_commit: false };
        let journal =
            Journal::open(device.clone(), BS, log_map(), features, Config::default(), host).unwrap();
        let mut handle = journal.start(1).unwrap();
        // Every tid of the old log is behind us.
        assert!(handle.tid().is_after(jbd2::Tid(23)), "{}", handle.tid());
        set(&mut handle, &device, 5, 77).unwrap();
        handle.stop().unwrap();
        journal.commit_running().unwrap();
        let recovered = recovery::recover(&*device, BS, &log_map(), OPTIONS).unwrap();
        assert_eq!((recovered.transactions, recovered.blocks), (1, 1));
        assert_eq!(device.block(5), sealed(77));
        recovery::discard(&*device, BS, &log_map()).unwrap();
    }
}

/// X29.
#[test]
fn x29_start_and_end() {
    // Nothing there at s_start: an empty log.
    let mut log = Crafted::new(Checksums::V3, true, 5, 20);
    assert_eq!(log.verdict(), prefix(0));
    log.jsb.s_start = LOG_BLOCKS;
    log.put_jsb();
    assert_eq!(log.verdict(), Err(EUCLEAN));
    // A transaction before the first block of the log.
    let mut log = Crafted::new(Checksums::V3, true, 1, 20);
    log.transaction(&[(1, 1)], 5);
    assert_eq!(log.verdict(), Ok((1, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])));
    log.jsb.s_first = 9;
    log.put_jsb();
    assert_eq!(log.verdict(), Err(EUCLEAN));
    // Transactions without a commit block that fill the ring.
    let mut log = Crafted::new(Checksums::None, true, 1, 20);
    for _ in 1..LOG_BLOCKS {
        log.revoke(&[1]);
    }
    assert_eq!(log.verdict(), Err(EUCLEAN));
}

/// X30.
#[test]
fn x30_revokes() {
    for checksums in ALL {
        for revoke_in in 0..3 {
            // Block 3 is logged in the transaction before, in, or after the one that revokes it. The record of the
            // same transaction covers the copy too: it is ≤, not <.
            for logged_in in 0..3 {
                let mut log = Crafted::new(checksums, true, 900, 0xFFFF_FFFE);
                for n in 0..3 {
                    if n == revoke_in {
                        log.revoke(&[3, 1 << 40]);
                    }
                    let copy = if n == logged_in { 3 } else { 4 + n as u64 };
                    log.transaction(&[(copy, 50)], 5);
                }
                let covered = logged_in <= revoke_in;
                let (transactions, values) = log.verdict().unwrap();
                assert_eq!(
                    (transactions, values[3] == 50),
                    (3, !covered),
                    "{checksums:?} {revoke_in} {logged_in}"
                );
                let (_, result) = log.recover();
                assert_eq!(result.unwrap().revoked, u64::from(covered));
            }
        }
        // The highest of two revokes counts, in whatever order they come; duplicates in a descriptor: the last wins.
        let mut log = Crafted::new(checksums, true, 1, 1);
        log.revoke(&[3]);
        log.transaction(&[(3, 1)], 5);
        log.revoke(&[3]);
        log.transaction(&[(3, 2)], 5);
        log.transaction(&[(3, 4), (5, 6), (3, 7)], 5);
        let mut values = [0; 10];
        (values[3], values[5]) = (7, 6);
        assert_eq!(log.verdict(), Ok((3, values)));
    }
}

/// X31.
#[test]
fn x31_a_tag_outside() {
    for checksums in ALL {
        for home in [HOME_BLOCKS + u64::from(LOG_BLOCKS), 1 << 40, log_block(0), log_block(700)] {
            let mut log = Crafted::new(checksums, true, 1, 1);
            log.transaction(&[(1, 1)], 5);
            log.transaction(&[(2, 1), (home, 1)], 5);
            assert_eq!(log.verdict(), Err(EUCLEAN), "{home}");
            // What is not complete is not judged.
            let mut log = Crafted::new(checksums, true, 1, 1);
            log.transaction(&[(1, 1)], 5);
            log.descriptor(&[(home, 1)]);
            assert_eq!(log.verdict().unwrap().0, 1);
        }
    }
}

/// X3. Wherever the scan meets it, as on Linux 6.18: also where the tail is wrong too, and in a transaction without its commit
/// block, or with an older one. It was taken for the end of the log there, and what came before was replayed.
#[test]
fn x3_r_count_beyond_the_block() {
    for checksums in ALL {
        let most = BS as u32 - if CRC32C.contains(&checksums) { 4 } else { 0 };
        for (count, refused) in [(0, false), (15, false), (most, false), (most + 1, true), (u32::MAX, true)] {
            for (sealed, committed, seconds) in
                [(true, true, 5), (false, true, 5), (true, false, 5), (true, true, 3)]
            {
                let mut log = Crafted::new(checksums, true, 1, 1);
                log.transaction(&[(1, 1)], 4);
                let revoke = log.revoke(&[3]);
                let placed = log.transaction(&[(2, 2)], seconds);
                log.block(revoke)[12..16].copy_from_slice(&count.to_be_bytes());
                if sealed {
                    log.seal(revoke);
                }
                if !committed {
                    log.block(placed.commit).fill(0);
                }
                let verdict = log.verdict();
                let shown = format!("{checksums:?}, {count}, {sealed}, {committed}, {seconds}: {verdict:?}");
                if refused {
                    assert_eq!(verdict, Err(EINVAL), "{shown}");
                } else {
                    assert_ne!(verdict, Err(EINVAL), "{shown}");
                }
            }
        }
    }
}

/// X11.
#[test]
fn x11_tids_wrap() {
    for checksums in ALL {
        // The last tid is 0xFFFFFFFF, so the end is 0.
        let mut log = Crafted::new(checksums, false, 1020, 0xFFFF_FFFC);
        for n in 0..4 {
            log.transaction(&[(n, 10 + n), (9, 20 + n)], 100 + n);
        }
        assert_eq!(log.tid, 0);
        let (device, result) = log.recover();
        let recovered = result.unwrap();
        assert_eq!((recovered.transactions, recovered.next_tid), (4, jbd2::Tid(2)));
        assert_eq!(device.block(9), sealed(23));
        let jsb = JournalSuperblock::decode(&device.block(log_block(0)), BS as u32, LOG_BLOCKS).unwrap();
        assert_eq!((jsb.s_start, jsb.s_sequence), (0, 1));
        assert_eq!(jsb.s_head, log.position);
    }
}

/// X12.
#[test]
fn x12_a_crafted_transaction_wraps_at_every_position() {
    for checksums in ALL {
        for start in LOG_BLOCKS - 12..LOG_BLOCKS {
            let mut log = Crafted::new(checksums, true, start, 7);
            log.revoke(&[8]);
            log.descriptor(&[(0, 1), (1, 3), (8, 4)]);
            log.descriptor(&[(2, 5), (3, 6)]);
            log.commit(9);
            log.transaction(&[(4, 7)], 9);
            let mut values = [0; 10];
            values[..5].copy_from_slice(&[1, 3, 5, 6, 7]);
            assert_eq!(log.verdict(), Ok((2, values)), "{checksums:?}, start {start}");
        }
    }
}

/// A log with every kind of block, from which the fuzzer starts.
fn rich(checksums: Checksums, wide: bool) -> Crafted {
    part_of_rich(checksums, wide, 3)
}

/// Its first `transactions` of three.
fn part_of_rich(checksums: Checksums, wide: bool, transactions: u32) -> Crafted {
    let mut log = Crafted::new(checksums, wide, 1018, 0xFFFF_FFFE);
    if transactions > 0 {
        log.transaction(&[(1, 3), (2, 4)], 100);
    }
    if transactions > 1 {
        log.revoke(&[2, 5]);
        log.transaction(&[(5, 6), (6, 9), (7, 10)], 101);
    }
    if transactions > 2 {
        log.descriptor(&[(2, 8)]);
        log.revoke(&[6]);
        log.transaction(&[(6, 12)], 102);
    }
    log
}

/// Log blocks that [`rich`] uses, JSB first; the last is a commit block.
fn used() -> Vec<u32> {
    std::iter::once(0).chain(1018..LOG_BLOCKS).chain(1..11).collect()
}

/// Makes the sum of log block `n` right again, if it is a control block.
fn seal_block(log: &mut Crafted, n: u32) {
    let block = log.block(n);
    let control = Header::decode(block).is_some_and(|header| {
        matches!(header.kind, block_type::DESCRIPTOR | block_type::COMMIT | block_type::REVOKE)
    });
    if n == 0 && block[0x50] == 4 {
        block[0xFC..0x100].fill(0);
        let sum = raw_crc32c(!0, block);
        block[0xFC..0x100].copy_from_slice(&sum.to_be_bytes());
    } else if control {
        log.seal(n);
    }
}

/// What holds for every log, whatever is in it. A refusal has written nothing ([`Crafted::recover`]).
fn judge(log: &Crafted) {
    let (device, result) = log.recover();
    // Only home blocks and JSB are ever written.
    for event in device.take_trace() {
        let Event::Write { offset, bytes, .. } = event else { continue };
        let (from, to) = (offset / BS as u64, (offset + bytes.len() as u64) / BS as u64);
        assert!(to <= HOME_BLOCKS || (from, to) == (log_block(0), log_block(0) + 1));
    }
    if let Ok(recovered) = result {
        assert!(recovered.transactions <= LOG_BLOCKS);
        // What was accepted is empty now, and can be used.
        let again = recovery::recover(&*device, BS, &log_map(), OPTIONS);
        assert!(again.is_ok_and(|again| again.transactions == 0 && again.next_tid == recovered.next_tid));
    }
}

/// X38. Every byte of every field of every block of the log, in turn, with the sums wrong and made right.
#[test]
fn x38_every_field_in_turn() {
    for (checksums, wide) in
        [(Checksums::None, true), (Checksums::V1, false), (Checksums::V2, true), (Checksums::V3, false)]
    {
        let whole = rich(checksums, wide);
        let legal: Vec<_> = (0..=3).map(|count| part_of_rich(checksums, wide, count).verdict()).collect();
        assert!(legal.iter().all(Result::is_ok));
        for n in used() {
            // JSB's fields; header, tags and UUIDs, or records, or the commit's sums and time; the tail.
            let fields = if n == 0 { (0..0x5C).chain(0xFC..0x100) } else { (0..80).chain(BS - 4..BS) };
            for at in fields {
                for (flip, seal) in [(0x01, false), (0xFF, false), (0x01, true), (0xFF, true)] {
                    let mut log = whole.clone();
                    log.block(n)[at] ^= flip;
                    if seal {
                        seal_block(&mut log, n);
                    }
                    judge(&log);
                    if !seal && matches!(checksums, Checksums::V2 | Checksums::V3) {
                        let verdict = log.verdict();
                        assert!(
                            is_due(&verdict, &whole, n, at, &legal),
                            "{checksums:?}, log block {n}, byte {at} ^ {flip:#x}: {verdict:?}"
                        );
                    }
                }
            }
        }
    }
}

type Verdict = Result<(u32, [u64; 10]), i32>;

/// Log blocks of [`rich`] whose copies are revoked: their sums do not matter (R9).
const REVOKED: [u32; 4] = [1020, 1, 2, 9];

/// Whether `verdict` is due where every block has a sum, and byte `at` of log block `n` of [`rich`] is wrong. `legal`: the
/// verdicts on the log's first transactions.
fn is_due(verdict: &Verdict, whole: &Crafted, n: u32, at: usize, legal: &[Verdict]) -> bool {
    let before = match n {
        1018..=1021 => 0,
        1022.. | 1..=4 => 1,
        _ => 2,
    };
    let header = Header::decode(whole.clone().block(n)).filter(|_| n != 0);
    match header.map(|header| header.kind) {
        // It is no part of the log any more, which ends before its transaction (R3).
        Some(_) if at < 12 => *verdict == legal[before],
        // Its flags say how many blocks follow: the commit block may be out of reach.
        Some(block_type::DESCRIPTOR) if verdict.is_ok() => *verdict == legal[before],
        // A torn one is accepted (R5).
        Some(block_type::COMMIT) if at >= 64 => *verdict == legal[3],
        None if REVOKED.contains(&n) => *verdict == legal[3],
        _ => verdict.is_err(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn x39_damage_with_the_sums_made_right(
        kind in 0..4usize, wide: bool, async_commit: bool,
        hits in prop::collection::vec((0..17usize, prop_oneof![0..80usize, 0..BS], any::<u8>()), 1..6),
        seal: bool,
    ) {
        let mut log = rich(ALL[kind], wide);
        if async_commit {
            log = log.with_incompat(feature::INCOMPAT_ASYNC_COMMIT);
        }
        let blocks = used();
        for &(index, at, value) in &hits {
            let n = blocks[index % blocks.len()];
            log.block(n)[at] = value;
            if seal {
                seal_block(&mut log, n);
            }
        }
        judge(&log);
    }
}
