//! Fast commits, which follow the log in an area of their own (R19). What they mean is the file system's affair; here is
//! where they lie, and how what they lead to becomes a full commit.

use std::sync::Arc;

use block_io::{AlignedBuf, Device};

use super::Plan;
use super::scan::Log;
use crate::io::GatheringWriter;
use crate::journal::{Journal, read_superblock};
use crate::{Config, Error, Host, Image, LogMap, Result, SealTag, Tid};

/// The blocks of the fast-commit area (J22), in order.
pub struct FastCommitBlocks<'a> {
    log: Log<'a>,
    next: u32,
}

impl Iterator for FastCommitBlocks<'_> {
    type Item = Result<AlignedBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.log.read_fast_commit(self.next).transpose();
        self.next += 1;
        read
    }
}

impl Plan {
    /// The tid that fast commits must bear (R19), and the blocks that may hold them. `None`: there can be none.
    pub fn fast_commits<'a>(
        &self,
        device: &'a dyn Device,
        map: &'a LogMap,
    ) -> Option<(Tid, FastCommitBlocks<'a>)> {
        let log = Log::new(device, map, &self.superblock);
        let possible = !super::is_clean(&self.superblock) && self.superblock.fast_commit_blocks() > 0;
        // Block L stays unused.
        possible.then_some((self.scan.end, FastCommitBlocks { log, next: 1 }))
    }
}

/// What is committed is sealed already, and nobody waits for it.
struct NoHost {
    now: (u64, u32),
}

impl Host for NoHost {
    fn seal(&self, _block: u64, _tag: SealTag, _image: &mut [u8]) {}
    fn retire(&self, _block: u64, _image: Image) {}
    fn forgotten(&self, _block: u64) {}
    fn committed(&self, _tid: Tid) {}
    fn aborted(&self, _errno: i32) {}
    fn now(&self) -> (u64, u32) {
        self.now
    }
}

/// After [`super::Rest::FastCommits`]: makes `blocks`, what the fast commits change, durable at home, and the log empty. It
/// is one full commit with the fast commits' tid, which voids them: before its commit block they are replayed again, after
/// it the log is. Only where it is too large for the log it goes home directly, and a crash then repeats the fast commits
/// over what is there, as Linux always does (R24: they can be repeated). `now`: seconds and nanoseconds.
///
/// EUCLEAN: the log is not as [`super::Rest::FastCommits`] leaves it. EIO: the device.
pub fn commit_fast(
    device: &Arc<dyn Device>,
    block_size: usize,
    map: LogMap,
    blocks: &[(u64, Image)],
    now: (u64, u32),
) -> Result<()> {
    let (superblock, _) = read_superblock(&**device, block_size, &map)?;
    if superblock.s_start == 0 {
        return Err(Error::Corrupt("the log is empty, fast commits or not".into()));
    }
    let host = Arc::new(NoHost { now });
    let journal = Journal::open_left_open(device.clone(), block_size, map, Config::default(), host)?;
    match u32::try_from(blocks.len()) {
        Ok(credits) if credits <= journal.max_transaction_credits() => {
            let mut handle = journal.start(credits)?;
            for (block, image) in blocks {
                handle.create(*block, SealTag(0), &mut |bytes| bytes.copy_from_slice(image))?;
            }
            handle.stop()?;
        }
        _ => {
            let mut gather = GatheringWriter::new(&**device, block_size, Config::default().write_bytes);
            for (block, image) in blocks {
                gather.push(*block, image)?;
            }
            gather.write_out()?;
        }
    }
    journal.close()
}
