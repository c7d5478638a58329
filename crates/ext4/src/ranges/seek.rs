//! SEEK_DATA and SEEK_HOLE.

use ext4_format::Lblk;

use crate::extents::MapState;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::{Error, Result, errno};

/// What is sought, as of lseek(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_DATA, 3: written blocks, or dirty pages over others.
    Data,
    /// SEEK_HOLE, 4: anything else; the end of the file is one.
    Hole,
}

impl Whence {
    /// From lseek's number. EINVAL for any other.
    pub fn from_number(number: u32) -> Result<Self> {
        match number {
            3 => Ok(Self::Data),
            4 => Ok(Self::Hole),
            _ => Err(Error::refused(errno::EINVAL, format!("whence {number}"))),
        }
    }
}

impl Fs {
    /// The next data or hole at `pos` or behind it, in bytes. The caller holds the inode lock.
    ///
    /// # Errors
    /// ENXIO: `pos` is at or behind the end of the file, or no data follows.
    pub fn seek(&self, inode: &Inode, pos: u64, whence: Whence) -> Result<u64> {
        self.check_alive()?;
        inode.check_data_supported()?;
        // A damaged inode may claim more than its map could hold.
        let size = inode.size().min(self.max_bytes(inode));
        let none = Err(Error::errno_only(errno::ENXIO));
        if pos >= size {
            return none;
        }
        let block_size = self.block_size() as u64;
        let behind = size.div_ceil(block_size);
        let mut at = pos;
        while at < size {
            let block = at / block_size;
            // Both below 2^32.
            let run = self.map_lookup(inode, Lblk(block as u32), (behind - block) as u32)?;
            let run_end = run.end() * block_size;
            let (data, next) = match run.state {
                MapState::Written => (true, run_end),
                _ => match inode.pages.get().and_then(|pages| pages.next_dirty(at, run_end - at)) {
                    Some(dirty) if dirty.start <= at => (true, dirty.end.min(run_end)),
                    Some(dirty) => (false, dirty.start),
                    None => (false, run_end),
                },
            };
            if data == (whence == Whence::Data) {
                return Ok(at);
            }
            at = next;
        }
        if whence == Whence::Hole { Ok(size) } else { none }
    }
}
