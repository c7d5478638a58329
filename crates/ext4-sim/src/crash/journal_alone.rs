//! What no volume of ours writes, and others may: judged by the journal alone, over blocks of one byte each.

use std::sync::Arc;

use block_io::{AlignedBuf, Device, Recorder, RecordingDevice};
use jbd2::format::{CommitBlock, JournalSuperblock, Tag, TagFlags, create_superblock, feature};
use jbd2::recovery::{self, RecoverOptions};
use jbd2::{Config, Features, Host, Image as Block, Journal, LogExtent, LogMap, SealTag, Tid};

use super::enumerate::{Replay, Tear};
use super::image::{Base, Image, StateDevice};
use super::random::Random;

const BLOCK: usize = 1024;
const HOME_BLOCKS: u64 = 64;
const LOG_BLOCKS: u32 = 1024;
const TAG: SealTag = SealTag(0);
/// The block that everything happens to.
const HERE: u64 = 5;
const OPTIONS: RecoverOptions = RecoverOptions { volume_blocks: HOME_BLOCKS, write_bytes: 1 << 16 };

struct NoHost;

impl Host for NoHost {
    fn seal(&self, _: u64, _: SealTag, _: &mut [u8]) {}
    fn retire(&self, _: u64, _: Block) {}
    fn forgotten(&self, _: u64) {}
    fn committed(&self, _: Tid) {}
    fn aborted(&self, _: i32) {}
    fn now(&self) -> (u64, u32) {
        (1_700_000_000, 0)
    }
}

fn map() -> LogMap {
    LogMap::new(vec![LogExtent { log_start: 0, len: LOG_BLOCKS, device_block: HOME_BLOCKS }])
        .expect("one run")
}

fn log_block(bytes: &mut [u8], n: usize) -> &mut [u8] {
    &mut bytes[(HOME_BLOCKS as usize + n) * BLOCK..][..BLOCK]
}

/// A device with an empty log.
fn empty(change: impl FnOnce(&mut JournalSuperblock)) -> (Vec<u8>, JournalSuperblock) {
    let mut bytes = vec![0; (HOME_BLOCKS as usize + LOG_BLOCKS as usize) * BLOCK];
    let mut superblock = create_superblock(BLOCK as u32, LOG_BLOCKS, [3; 16]).expect("long enough");
    change(&mut superblock);
    superblock.encode(log_block(&mut bytes, 0));
    (bytes, superblock)
}

fn value(device: &StateDevice) -> Result<u8, String> {
    let mut block = [0; BLOCK];
    device.read(HERE * BLOCK as u64, &mut block).map_err(|error| error.to_string())?;
    match block.iter().all(|byte| *byte == block[0]) {
        true => Ok(block[0]),
        false => Err("a torn block".into()),
    }
}

fn recovered(device: &StateDevice) -> Result<u8, String> {
    recovery::recover(device, BLOCK, &map(), OPTIONS).map_err(|error| format!("recovery: {error}"))?;
    value(device)
}

/// T10: a block that is freed and used again as metadata in one transaction is not revoked by it.
///
/// # Errors
/// What was lost.
pub fn cancelled_revoke() -> Result<(), String> {
    let base = Arc::new(Base::new(empty(|_| ()).0, Vec::new()));
    let recorder = Recorder::new();
    let device: Arc<dyn Device> =
        Arc::new(RecordingDevice::new(Arc::new(StateDevice::new(base.clone())), recorder.clone(), 0));
    let features = Features { wide: true, csum_v3: true, fast_commit: false };
    let failed = |error: jbd2::Error| error.to_string();
    let journal = Journal::open(device, BLOCK, map(), features, Config::default(), Arc::new(NoHost));
    let journal = journal.map_err(failed)?;
    let mut promises = vec![(0, 0)];
    let (mut events, mut written) = (Vec::new(), 0);
    for value in 1..=3u8 {
        let mut handle = journal.start(3).map_err(failed)?;
        if value > 1 {
            handle.forget(HERE).map_err(failed)?;
        }
        handle.create(HERE, TAG, &mut |bytes| bytes.fill(value)).map_err(failed)?;
        handle.stop().map_err(failed)?;
        written = value;
        journal.commit_running().map_err(failed)?;
        events.append(&mut recorder.take());
        promises.push((events.len(), value));
    }
    let mut replay = Replay::new(Image::new(&base), vec![0], BLOCK);
    for index in 0..=events.len() {
        let promised =
            promises.iter().rev().find(|(event, _)| *event <= index).map_or(0, |promise| promise.1);
        for choice in replay.choices(&mut Random(1), &|_| Tear::Pattern) {
            let found = recovered(&replay.state(choice).device())?;
            if !(promised..=written.min(promised + 1)).contains(&found) {
                return Err(format!("{}: {found}, not {promised} or the next", replay.describe(choice)));
            }
        }
        if let Some(event) = events.get(index) {
            replay.step(event);
        }
    }
    Ok(())
}

/// R9: a revoke covers the copy of its own transaction too.
///
/// # Errors
/// What was replayed.
pub fn revoked_by_its_own_transaction() -> Result<(), String> {
    const BEFORE: u8 = 7;
    let (mut bytes, superblock) = empty(|superblock| {
        superblock.s_feature_incompat = feature::INCOMPAT_REVOKE | feature::INCOMPAT_CSUM_V3;
        superblock.s_checksum_type = 4;
        superblock.s_start = 1;
    });
    let (layout, tid) = (superblock.layout(), superblock.s_sequence);
    let copy = AlignedBuf::copy_of(&[9; BLOCK]);
    let tag = Tag { block: HERE, flags: TagFlags(0), checksum: layout.data_sum(tid, &copy) };
    layout.encode_revoke(tid, &[HERE], log_block(&mut bytes, 1));
    layout.encode_descriptor(tid, &[tag], log_block(&mut bytes, 2));
    log_block(&mut bytes, 3).copy_from_slice(&copy);
    CommitBlock { tid, seconds: 1_700_000_000, nanoseconds: 0 }.encode(&layout, log_block(&mut bytes, 4));
    // Freed by it, and other data since then.
    bytes[HERE as usize * BLOCK..][..BLOCK].fill(BEFORE);
    match recovered(&StateDevice::new(Arc::new(Base::new(bytes, Vec::new()))))? {
        BEFORE => Ok(()),
        found => Err(format!("{found}: a revoked copy was replayed over what came after it")),
    }
}

#[cfg(test)]
mod tests {
    /// X17, X30.
    #[test]
    fn revokes() {
        assert_eq!(super::cancelled_revoke(), Ok(()));
        assert_eq!(super::revoked_by_its_own_transaction(), Ok(()));
    }
}
