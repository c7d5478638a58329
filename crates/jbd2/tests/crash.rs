//! Recovery after a cut at every event of a random workload: the volume equals the model at the end of a
//! transaction that is not older than the last acknowledged one.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use block_io::Device;
use common::*;
use jbd2::{Features, Tid, recovery};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Set { block: u64, value: u64 },
    Forget { block: u64 },
    Commit,
    Checkpoint,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..HOME_BLOCKS, 1..u64::MAX).prop_map(|(block, value)| Step::Set { block, value }),
        3 => (0..HOME_BLOCKS).prop_map(|block| Step::Forget { block }),
        3 => Just(Step::Commit),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Close),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Metadata(u64),
    Data(u64),
}
type Model = BTreeMap<u64, Content>;

/// The model at the end of `tid`, as far as it is sure from event `from` on.
struct Snapshot {
    tid: Tid,
    from: usize,
    model: Model,
}

fn expected(content: Content) -> Vec<u8> {
    match content {
        Content::Metadata(value) => sealed(value),
        Content::Data(value) => [value as u8; BS].to_vec(),
    }
}

/// What the device may hold after a cut before event `cut`: everything durable, and of the rest the sectors that
/// `chosen` picks (CM2, CM3).
fn cut_image(base: &[u8], trace: &[Event], cut: usize, mut chosen: u64) -> Vec<u8> {
    let mut image = base.to_vec();
    let flushed = trace[..cut].iter().rposition(|event| *event == Event::Flush).unwrap_or(0);
    for (index, event) in trace[..(cut + 1).min(trace.len())].iter().enumerate() {
        let Event::Write { offset, bytes, fua } = event else { continue };
        let durable = index < flushed || (*fua && index < cut);
        for (sector, bytes) in bytes.chunks(512).enumerate() {
            chosen = chosen.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if durable || chosen >> 63 == 1 {
                let at = *offset as usize + sector * 512;
                image[at..at + 512].copy_from_slice(bytes);
            }
        }
    }
    image
}

fn run(steps: &[Step], head: u32, sequence: u32, features: Features, seed: u64) {
    let base = formatted(head, sequence);
    let device = TestDevice::of(base.clone());
    let (journal, _host) = open_with(&device, features);
    let mut model = Model::new();
    let mut snapshots = vec![Snapshot { tid: journal.last_committed(), from: 0, model: model.clone() }];
    let mut acks = vec![(0, journal.last_committed())];
    // Freed in the running transaction: not reusable yet (D13).
    let mut freed: Vec<u64> = Vec::new();
    let mut marker = 0u64;
    for step in steps {
        match step {
            Step::Set { block, value } if !freed.contains(block) => {
                let mut handle = journal.start(2).unwrap();
                match model.get(block) {
                    Some(Content::Metadata(_)) => set(&mut handle, &device, *block, *value).unwrap(),
                    _ => handle.create(*block, TAG, &mut |bytes| content(*value, bytes)).unwrap(),
                }
                model.insert(*block, Content::Metadata(*value));
            }
            Step::Forget { block } if matches!(model.get(block), Some(Content::Metadata(_))) => {
                journal.start(2).unwrap().forget(*block).unwrap();
                model.remove(block);
                freed.push(*block);
            }
            Step::Set { .. } | Step::Forget { .. } => {}
            Step::Commit | Step::Close | Step::Checkpoint => {
                let tid = journal.running_tid();
                match step {
                    Step::Commit => journal.commit_running().unwrap(),
                    Step::Close => journal.close().unwrap(),
                    _ => {
                        journal.commit_running().unwrap();
                        journal.checkpoint_all().unwrap();
                    }
                }
                let Some(tid) = tid.filter(|tid| *tid == journal.last_committed()) else { continue };
                acks.push((device.inner.lock().trace.len(), tid));
                snapshots.push(Snapshot { tid, from: device.inner.lock().trace.len(), model: model.clone() });
                // Freed blocks become file data, durable at once.
                for block in freed.drain(..) {
                    marker += 1;
                    device.write(block * BS as u64, &[marker as u8; BS], false).unwrap();
                    model.insert(block, Content::Data(marker));
                }
                device.flush().unwrap();
                snapshots.push(Snapshot { tid, from: device.inner.lock().trace.len(), model: model.clone() });
            }
        }
    }
    let trace = device.take_trace();
    let options = recovery::RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: 1 << 16 };
    for cut in 0..=trace.len() {
        let image = cut_image(&base, &trace, cut, seed ^ cut as u64);
        let crashed = TestDevice::of(image.clone());
        let clean_before = recovery::plan(&*crashed, BS, &log_map(), &options).unwrap();
        let was_clean = recovery::is_clean(clean_before.superblock());
        let summary = clean_before.summary();
        let recovered = recovery::recover(&*crashed, BS, &log_map(), options).unwrap();
        assert!(recovered.next_tid.is_after(acks.iter().rev().find(|ack| ack.0 <= cut).unwrap().1));
        let acked = acks.iter().rev().find(|ack| ack.0 <= cut).unwrap().1;
        // With an empty log the state is that of the last transaction before s_sequence.
        let candidates: Vec<Tid> =
            if was_clean { vec![acked, acked.next()] } else { vec![summary.next_tid.previous().previous()] };
        let matches = candidates.iter().any(|&tid| {
            let of_tid: Vec<_> = snapshots.iter().filter(|snapshot| snapshot.tid == tid).collect();
            let Some(first) = of_tid.first() else { return false };
            let snapshot = of_tid.iter().rev().find(|snapshot| snapshot.from <= cut).unwrap_or(first);
            tid.is_at_or_after(acked)
                && snapshot.model.iter().all(|(block, content)| crashed.block(*block) == expected(*content))
        });
        assert!(matches, "cut {cut} of {}: {candidates:?}, acked {acked}, {recovered:?}", trace.len());
        // R12: recovery itself is cut at every event, and repeated.
        let replay = crashed.take_trace();
        for again in 0..=replay.len() {
            let second =
                TestDevice::of(cut_image(&image, &replay, again, seed.rotate_left(7) ^ again as u64));
            recovery::recover(&*second, BS, &log_map(), options).unwrap();
            for block in clean_before.blocks() {
                assert_eq!(second.block(block), crashed.block(block), "cut {cut}, recovery cut {again}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// X17, X35. Revokes, reuse and commits in any order; recovery is cut too.
    #[test]
    fn a_cut_anywhere_leaves_a_transaction_boundary(
        steps in prop::collection::vec(step(), 1..60),
        head in 1..LOG_BLOCKS,
        sequence in prop_oneof![Just(1u32), Just(0xFFFF_FFFA)],
        csum_v3: bool, wide: bool,
        seed: u64,
    ) {
        run(&steps, head, sequence, Features { wide, csum_v3, fast_commit: false }, seed);
    }
}
