//! Which fast commits are complete (R21–R23).

use ext4_format::Superblock;
use ext4_format::fast_commit::{Impossible, Tag, Tags};
use jbd2::Tid;
use jbd2::recovery::FastCommitBlocks;

use super::FastCommits;
use crate::{Error, Result, errno};

/// R21: everything up to the last valid TAIL of `tid`. An impossible tag or a wrong sum ends it: a crash within a fast commit
/// leaves just that (R23). `None`: there is no complete one.
///
/// # Errors
/// EOPNOTSUPP: features that nobody knows (R22). Those of the device.
pub(crate) fn scan(
    superblock: &Superblock,
    tid: Tid,
    blocks: FastCommitBlocks<'_>,
) -> Result<Option<FastCommits>> {
    let mut found = Scan { tid, sum: 0, tags: Vec::new(), complete: 0, count: 0, begun: false };
    for block in blocks {
        if !found.block(&block?, usize::from(superblock.inode_size()))? {
            break;
        }
    }
    let Scan { mut tags, complete, count, .. } = found;
    tags.truncate(complete);
    Ok((count > 0).then_some(FastCommits { tags, count }))
}

struct Scan {
    tid: Tid,
    sum: u32,
    tags: Vec<Tag>,
    /// Of `tags`, those before the last valid TAIL.
    complete: usize,
    count: u32,
    begun: bool,
}

impl Scan {
    /// `false`: what follows does not count.
    fn block(&mut self, block: &[u8], inode_size: usize) -> Result<bool> {
        let mut tags = Tags::new(block);
        loop {
            let before = self.sum;
            let tag = match tags.next(&mut self.sum) {
                Ok(None) => return Ok(true),
                Err(Impossible) => return Ok(false),
                Ok(Some(tag)) => tag,
            };
            if !self.begun && !matches!(tag, Tag::Head { .. }) {
                return Ok(false);
            }
            match tag {
                Tag::Head { features, .. } if features != 0 => {
                    let detail = format!("fast commits with unknown features {features:#x}");
                    return Err(Error::refused(errno::EOPNOTSUPP, detail));
                }
                Tag::Head { tid, .. } if Tid(tid) != self.tid => return Ok(false),
                Tag::Head { .. } => self.begun = true,
                Tag::Tail { tid, crc } => {
                    if Tid(tid) != self.tid || crc != std::mem::take(&mut self.sum) {
                        return Ok(false);
                    }
                    self.complete = self.tags.len();
                    self.count += 1;
                }
                Tag::Inode(_, raw) if raw.len() > inode_size => {
                    self.sum = before;
                    return Ok(false);
                }
                Tag::Pad => {}
                other => self.tags.push(other),
            }
        }
    }
}
