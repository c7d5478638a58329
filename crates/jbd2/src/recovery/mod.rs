//! Recovery: what the log holds, and replaying it (R2–R14).

mod fast_commit;
mod scan;

pub use fast_commit::{FastCommitBlocks, commit_fast};

use std::collections::BTreeMap;

use block_io::{AlignedBuf, Device};

use crate::format::{JournalSuperblock, MAGIC, feature, put_be32};
use crate::io::GatheringWriter;
use crate::journal::read_superblock;
use crate::mutant::mutant;
use crate::{Error, LogMap, Result, Tid};
use scan::{Copy, Log, Scan};

/// What recovery has to know of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverOptions {
    /// Blocks of the volume: home locations end before it (R10).
    pub volume_blocks: u64,
    /// Device writes gather up to this many bytes; at least one block.
    pub write_bytes: usize,
}

/// What recovery found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Complete transactions in the log.
    pub transactions: u32,
    /// Blocks written home.
    pub blocks: u64,
    /// Copies that were not, for the block was revoked (R9).
    pub revoked: u64,
    /// The next transaction's id.
    pub next_tid: Tid,
    /// Log block after the last commit: where the next transaction starts (R16).
    pub head: u32,
    /// 0, or the negative errno of an abort; stays in JSB (R15: [`crate::Journal::clear_errno`]).
    pub s_errno: i32,
    /// Time of the last commit in the log, 0 if there was none: for [`crate::Config::last_commit_seconds`] (J20).
    pub last_commit_seconds: u64,
}

/// What is left to do after the log was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Empty,
    /// The fast commits: [`commit_fast`] ends it.
    FastCommits,
}

/// What a replay would write: also the overlay of a read-only mount (R18).
pub struct Plan {
    superblock: JournalSuperblock,
    block: AlignedBuf,
    scan: Scan,
    survivors: BTreeMap<u64, Copy>,
    revoked: u64,
}

/// Whether there is nothing to replay (J23).
pub fn is_clean(superblock: &JournalSuperblock) -> bool {
    superblock.s_start == 0
}

/// Reads the log and decides, without writing anything (R2–R10). All copies that are not
/// revoked are verified, as Linux does, also those that a later one covers.
///
/// EINVAL, EBADMSG: JSB (J7). EUCLEAN, EBADMSG: R4, R5, R10. EIO: the device.
pub fn plan(device: &dyn Device, block_size: usize, map: &LogMap, options: &RecoverOptions) -> Result<Plan> {
    let (superblock, block) = read_superblock(device, block_size, map)?;
    let log = Log::new(device, map, &superblock);
    let mut scan = if is_clean(&superblock) { Scan::empty(&superblock) } else { log.scan()? };
    loop {
        let copies = scan.uncovered();
        check_homes(&copies, map, options)?;
        match log.verify(&copies)? {
            None => {
                let revoked = (scan.copies.len() - copies.len()) as u64;
                // R13: the last copy of each block.
                let survivors = copies.iter().map(|copy| (copy.home, *copy)).collect();
                return Ok(Plan { superblock, block, scan, survivors, revoked });
            }
            // R7: a crash can leave this, in the last transaction only.
            Some(tid) if superblock.has(feature::INCOMPAT_ASYNC_COMMIT) && tid.next() == scan.end => {
                scan.drop_last();
            }
            Some(tid) => {
                return Err(Error::Checksum(format!("a block of transaction {tid} has a wrong sum")));
            }
        }
    }
}

/// R10.
fn check_homes(copies: &[Copy], map: &LogMap, options: &RecoverOptions) -> Result<()> {
    for &Copy { home, .. } in copies {
        if home >= options.volume_blocks {
            return Err(Error::Corrupt(format!("the log has block {home}, which is outside the volume")));
        }
        if map.holds(home) {
            return Err(Error::Corrupt(format!("the log has block {home}, which is its own")));
        }
    }
    Ok(())
}

impl Plan {
    /// The journal superblock as it is on disk.
    pub fn superblock(&self) -> &JournalSuperblock {
        &self.superblock
    }

    /// Home locations that a replay would write, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.survivors.keys().copied()
    }

    /// What a block would hold after a replay, read from the log; `None` where the replay would not write it.
    pub fn read(&self, device: &dyn Device, map: &LogMap, block: u64) -> Result<Option<AlignedBuf>> {
        let Some(copy) = self.survivors.get(&block) else { return Ok(None) };
        Log::new(device, map, &self.superblock).read_copy(copy).map(Some)
    }

    /// The numbers of this plan.
    pub fn summary(&self) -> Recovered {
        let start = self.superblock.s_sequence;
        let transactions = if is_clean(&self.superblock) { 0 } else { self.scan.end.0.wrapping_sub(start) };
        Recovered {
            transactions,
            blocks: self.survivors.len() as u64,
            revoked: self.revoked,
            next_tid: self.scan.end.next(),
            head: self.scan.head,
            s_errno: self.superblock.s_errno,
            last_commit_seconds: self.scan.last_commit_seconds,
        }
    }

    /// Carries the plan out. R11: home writes, flush, JSB with FUA. A crash or an error anywhere leaves a log that can be
    /// replayed again (R12). `patch` is called on each image before it is written home: what was written outside the
    /// journal, and is newer than the logged copy, goes into it there (R14). Of a clean log nothing is written.
    pub fn carry_out(
        mut self,
        device: &dyn Device,
        map: &LogMap,
        options: &RecoverOptions,
        rest: Rest,
        patch: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<Recovered> {
        let mut summary = self.summary();
        if !is_clean(&self.superblock) {
            self.replay(device, map, options, patch)?;
            self.reset(device, map, rest)?;
        }
        // What `Journal::open` will start with.
        summary.next_tid = Tid(self.superblock.s_sequence).next();
        Ok(summary)
    }

    fn replay(
        &self,
        device: &dyn Device,
        map: &LogMap,
        options: &RecoverOptions,
        patch: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<()> {
        let block_size = self.block.len();
        let log = Log::new(device, map, &self.superblock);
        let mut gather = GatheringWriter::new(device, block_size, options.write_bytes);
        for (&home, copy) in &self.survivors {
            let mut image = log.read_copy(copy)?;
            patch(home, &mut image);
            gather.push(home, &image)?;
        }
        gather.write_out()
    }

    /// The log is empty from here on, and the tid `end` never used (R11). Or it goes on with that tid and has no transaction
    /// yet, which leaves the fast commits valid.
    fn reset(&mut self, device: &dyn Device, map: &LogMap, rest: Rest) -> Result<()> {
        if !mutant(19) {
            device.flush()?;
        }
        (self.superblock.s_start, self.superblock.s_sequence) = match rest {
            Rest::Empty => (0, self.scan.end.next().0),
            Rest::FastCommits => (self.scan.head, self.scan.end.0),
        };
        self.superblock.s_head = self.scan.head;
        write_superblock(device, map, &self.superblock, &mut self.block)
    }
}

fn write_superblock(
    device: &dyn Device,
    map: &LogMap,
    superblock: &JournalSuperblock,
    block: &mut AlignedBuf,
) -> Result<()> {
    superblock.encode(block);
    let (device_block, _) = map.run(map.superblock()).expect("it was read from there");
    map.device(device).write(device_block * block.len() as u64, block, true)?;
    Ok(())
}

/// Replays the log; afterwards it is empty. Nothing is written if it is already, or if it is refused (see [`plan`]).
pub fn recover(
    device: &dyn Device,
    block_size: usize,
    map: &LogMap,
    options: RecoverOptions,
) -> Result<Recovered> {
    let plan = plan(device, block_size, map, &options)?;
    plan.carry_out(device, map, &options, Rest::Empty, &mut |_, _| ())
}

/// R1, RECOVER clear and s_start ≠ 0: throws the log away without replaying it.
pub fn discard(device: &dyn Device, block_size: usize, map: &LogMap) -> Result<()> {
    let (superblock, block) = read_superblock(device, block_size, map)?;
    if is_clean(&superblock) {
        return Ok(());
    }
    // What the log is worth does not matter, only the tids in it do.
    let log = Log::new(device, map, &superblock);
    let scan = match log.scan() {
        Ok(scan) => scan,
        Err(_) => Scan { end: log.latest_tid()?.next(), ..Scan::empty(&superblock) },
    };
    let mut plan = Plan { superblock, block, scan, survivors: BTreeMap::new(), revoked: 0 };
    plan.reset(device, map, Rest::Empty)
}

/// Restores the magic of an escaped block (R10).
fn unescape(block: &mut [u8]) {
    if !mutant(9) {
        put_be32(block, 0, MAGIC);
    }
}
