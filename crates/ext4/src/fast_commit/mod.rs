//! Fast commits of Linux (R19–R25): read, and replayed. We write none (R23).
//!
//! They say what became of inodes, names and ranges since the last full commit, and leave out bitmaps, trees and
//! directories. So they are replayed as changes of a mounted volume, on an overlay in memory; what that changes then becomes
//! one full commit. A crash at any point thus finds the state before it, with the fast commits, or after it.

mod inodes;
mod names;
mod ranges;
mod replay;
mod scan;

use std::sync::Arc;

use block_io::Device;
use ext4_format::fast_commit::Tag;
use ext4_format::{Pblk, Superblock};
use jbd2::LogMap;

use crate::clock::Clock;
use crate::fs::Fs;
use crate::meta::Image;
use crate::orphan::Unreadable;
use crate::overlay::Overlay;
use crate::{MountOptions, OrphansProcessed, Result};

pub(crate) use scan::scan;

/// What complete fast commits say, in order.
pub(crate) struct FastCommits {
    /// Without PAD, HEAD and TAIL.
    tags: Vec<Tag>,
    /// How many fast commits these are.
    pub count: u32,
}

/// Replays fast commits over the volume on `device`, whose log is home but not empty yet, without writing to it: the blocks
/// that change, ascending.
///
/// # Errors
/// EUCLEAN where they contradict the volume; EOPNOTSUPP where they change what is not built.
pub(crate) fn replay(
    device: &Arc<dyn Device>,
    superblock: &Superblock,
    map: &LogMap,
    clock: &Arc<dyn Clock>,
    commits: &FastCommits,
) -> Result<Vec<(u64, Image)>> {
    let overlay = Arc::new(Overlay::new(device.clone()));
    // Without the log, which is not its to change.
    let options = MountOptions { noload: true, clock: clock.clone(), ..MountOptions::default() };
    let fs = Fs::assemble(overlay.clone(), superblock.clone(), false, 0, &options)?;
    let mut block = 0;
    while let Some((start, len)) = map.run(block).filter(|_| !map.is_external()) {
        fs.allocator.add_system_zone(Pblk(start), len.into());
        block += len;
    }
    fs.load_orphan_file_blocks()?;
    // An inode without links stays, or becomes, an orphan: what to do with it is the mount's affair (O6, R18).
    let _orphans = fs.load_orphans(&mut OrphansProcessed::default(), Unreadable::Fails)?;
    replay::Replay::new(&fs).run(&commits.tags)?;
    overlay.written_blocks(superblock.block_size() as usize)
}
