//! Atomic writes (C24): after a crash all of it is there, or nothing.
//!
//! No host tells whether its device could do that, so the data goes through the journal, in one transaction with the size
//! that it raises, and is reported once that transaction has committed. Until its checkpoint it is newer there than at
//! home: see `journalled_data`.

use std::sync::Arc;

use ext4_format::Lblk;

use crate::credits::{MAP_CREDITS, ORPHAN_CREDITS};
use crate::extents::MapState;
use crate::file::block_range;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::mballoc::Splitting;
use crate::{Error, Result, errno};

/// The data of one write is in memory twice.
const MAX_BYTES: u64 = 16 << 20;

/// Credits beside a credit for each block of data: inode, orphan and superblock.
const CREDITS_BESIDE_DATA: u32 = MAP_CREDITS + ORPHAN_CREDITS;

impl Fs {
    /// Lengths of atomic writes in bytes, from and up to, both powers of two; zeros where there can be none: without a
    /// journal, without writing, or where data does not go through requests (DAX).
    pub fn atomic_write_units(&self) -> (u64, u64) {
        let min = self.block_size() as u64;
        // Half of a transaction: the other half is for those that share it.
        let blocks = self.journal.max_transaction_credits().saturating_sub(CREDITS_BESIDE_DATA) / 2;
        match blocks.checked_ilog2() {
            Some(bits) if self.journal.has_log() && !self.is_read_only() && !self.has_dax() => {
                (min, (min << bits).min(MAX_BYTES).max(min))
            }
            _ => (0, 0),
        }
    }

    /// Logs a write as one transaction, which the caller waits for. The caller holds the inode lock exclusive, has drained
    /// direct I/O, and has made an inode that grows an orphan.
    ///
    /// # Errors
    /// EOPNOTSUPP: there can be none; EINVAL: no power of two within the units, or not at a multiple of itself; EAGAIN: a
    /// cached page is in use; ENOSPC.
    pub(crate) fn atomic_write(&self, inode: &Arc<Inode>, pos: u64, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        let (min, max) = self.atomic_write_units();
        if max == 0 {
            return Err(Error::refused(errno::EOPNOTSUPP, "no journal for atomic writes"));
        }
        if !(min..=max).contains(&len) || !len.is_power_of_two() || !pos.is_multiple_of(len) {
            return Err(Error::errno_only(errno::EINVAL));
        }
        let blocks = block_range(self.block_size(), pos, len)?;
        self.write_and_wait(inode, pos, len)?;
        self.invalidate(inode, pos, len).map_err(|_busy| Error::errno_only(errno::EAGAIN))?;
        // What may take several transactions comes before: it changes no byte that can be read.
        self.allocate_range(inode, blocks.clone(), None)?;
        self.write_zeros(inode, pos, len)?;
        self.with_handle(CREDITS_BESIDE_DATA + (blocks.end - blocks.start) as u32, |handle| {
            let mut block = blocks.start;
            while block < blocks.end {
                let (lblk, count) = (Lblk(block as u32), (blocks.end - block) as u32);
                let run = self.map_lookup(inode, lblk, count)?;
                if run.state != MapState::Written {
                    return Err(Error::refused(errno::EIO, format!("logical block {lblk} has no place")));
                }
                let from = ((block - blocks.start) * min) as usize;
                handle.log_data(inode, run.blocks()?, &data[from..from + run.len as usize * min as usize])?;
                block = run.end();
            }
            self.raise_sizes(handle, inode, pos + len)?;
            handle.delete_orphan(inode, 0)
        })
    }

    /// Makes unwritten blocks of a range written ones that hold zeros.
    fn write_zeros(&self, inode: &Arc<Inode>, pos: u64, len: u64) -> Result<()> {
        let blocks = block_range(self.block_size(), pos, len)?;
        let mut block = blocks.start;
        let mut zeroed = false;
        while block < blocks.end {
            let (lblk, count) = (Lblk(block as u32), (blocks.end - block) as u32);
            let run = self.map_lookup(inode, lblk, count)?;
            if run.state == MapState::Unwritten {
                self.zero_blocks(run.blocks()?)?;
                zeroed = true;
            }
            block = run.end();
        }
        if !zeroed {
            return Ok(());
        }
        self.with_handle(MAP_CREDITS + ORPHAN_CREDITS, |handle| {
            self.convert_range(handle, inode, pos, len, &mut Splitting::Reserve)
        })
    }
}
