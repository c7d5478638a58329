//! Regular files below the policy: what an unlocked look at the mapping says, mapping for a direct write, and the
//! end of its I/O.

use std::ops::Range;
use std::sync::Arc;

use ext4_format::Lblk;
use ext4_format::inode::flags;
use iomap::{Address, Mapping as IoMapping};
use jbd2::mutant;

use crate::attr::may_strip_privileges;
use crate::credits::{MAP_CREDITS, ORPHAN_CREDITS};
use crate::extents::{MapState, Progress};
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::map_blocks::{Allocate, check_lblk};
use crate::mballoc::Splitting;
use crate::{Error, Result, errno, mballoc};

/// What a write of a range would meet (C25.3), as a bit set: see the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probe(pub u32);

impl Probe {
    /// One allocated run inside i_size covers the block-rounded range.
    pub const OVERWRITE: u32 = 1;
    /// That run is not written.
    pub const UNWRITTEN: u32 = 2;
    /// A write must strip privileges.
    pub const MAY_STRIP: u32 = 4;
    /// file_modified has something to do.
    pub const NEEDS_MODIFIED: u32 = 8;
    /// The mapping is not in memory.
    pub const UNKNOWN: u32 = 16;
    /// The immutable flag.
    pub const IMMUTABLE: u32 = 32;
    /// The append-only flag.
    pub const APPEND: u32 = 64;
    /// Direct I/O is not possible on this inode (A3).
    pub const DIO_UNSUPPORTED: u32 = 128;
    /// Nothing may be written: read-only mount or aborted journal.
    pub const READ_ONLY: u32 = 256;
    /// Shut down.
    pub const SHUT_DOWN: u32 = 512;
    /// Of an empty range, which reads ask about: the time of access is due (A19).
    pub const ACCESS_DUE: u32 = 1024;

    /// Whether all of `bits` are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// Blocks that a byte range touches.
pub(crate) fn block_range(block_size: usize, pos: u64, len: u64) -> Result<Range<u64>> {
    let end = pos.checked_add(len).ok_or(Error::errno_only(errno::EFBIG))?;
    let block_size = block_size as u64;
    let range = pos / block_size..end.div_ceil(block_size);
    check_lblk(range.end.saturating_sub(1))?;
    Ok(range)
}

/// Whether a lookup may go to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Memory alone, and no waiting for a lock.
    Cached,
    /// The disk too.
    Disk,
}

impl Fs {
    /// i_size and i_disksize, in bytes.
    pub fn sizes(&self, inode: &Inode) -> (u64, u64) {
        let state = inode.state.lock();
        (state.size, state.disk.size)
    }

    /// C25.3, for `len` bytes at `pos`.
    ///
    /// # Errors
    /// With [`Look::Disk`], what reading the map may give.
    pub fn probe_write(&self, inode: &Inode, pos: u64, len: u64, look: Look) -> Result<Probe> {
        let mut bits = 0;
        if self.check_alive().is_err() {
            bits |= Probe::SHUT_DOWN;
        } else if self.check_writable().is_err() {
            bits |= Probe::READ_ONLY;
        }
        let size = {
            let state = inode.state.lock();
            let disk = &state.disk;
            bits |= if disk.has_flag(flags::IMMUTABLE) { Probe::IMMUTABLE } else { 0 };
            bits |= if disk.has_flag(flags::APPEND) { Probe::APPEND } else { 0 };
            bits |= if may_strip_privileges(&state) { Probe::MAY_STRIP } else { 0 };
            bits |= if self.needs_modified(&state) { Probe::NEEDS_MODIFIED } else { 0 };
            bits |= if len == 0 && self.access_is_due(&state) { Probe::ACCESS_DUE } else { 0 };
            state.size
        };
        if self.reads_overlay || inode.check_data_supported().is_err() || self.journals_data(inode) {
            return Ok(Probe(bits | Probe::DIO_UNSUPPORTED));
        }
        if pos.checked_add(len).is_none_or(|end| end > size) || len == 0 {
            return Ok(Probe(bits));
        }
        let blocks = block_range(self.block_size(), pos, len)?;
        let (lblk, count) = (Lblk(blocks.start as u32), (blocks.end - blocks.start) as u32);
        let run = match look {
            Look::Cached => self.try_map_cached(inode, lblk, count),
            Look::Disk => Some(self.map_lookup(inode, lblk, count)?),
        };
        bits |= match run {
            None => Probe::UNKNOWN,
            Some(run) if run.len < count => 0,
            Some(run) => match run.state {
                MapState::Hole => 0,
                MapState::Written => Probe::OVERWRITE,
                MapState::Unwritten => Probe::OVERWRITE | Probe::UNWRITTEN,
            },
        };
        Ok(Probe(bits))
    }

    /// The mappings of a byte range, holes among them. `None`: not all of them are in memory.
    pub(crate) fn map_range(
        &self,
        inode: &Inode,
        pos: u64,
        len: u64,
        look: Look,
    ) -> Result<Option<Vec<IoMapping>>> {
        let blocks = block_range(self.block_size(), pos, len)?;
        let mut mappings = Vec::with_capacity(1);
        let mut block = blocks.start;
        while block < blocks.end {
            let (lblk, count) = (Lblk(block as u32), (blocks.end - block) as u32);
            let found = match look {
                Look::Disk => self.map_lookup(inode, lblk, count)?,
                Look::Cached => match self.try_map_cached(inode, lblk, count) {
                    Some(found) => found,
                    None => return Ok(None),
                },
            };
            mappings.push(self.to_io_mapping(&found, false));
            block += u64::from(found.len);
        }
        Ok(Some(mappings))
    }

    /// What a write under the shared lock needs, looked at again so that an error of policy cannot damage a volume: one
    /// allocated run inside both sizes covers the range, and it is written, or the request is block-aligned. EAGAIN sends
    /// the policy back to the exclusive lock.
    pub(crate) fn check_shared(&self, inode: &Inode, pos: u64, len: u64, run: &[IoMapping]) -> Result<()> {
        let (size, disk_size) = self.sizes(inode);
        let end = pos.saturating_add(len);
        let block_size = self.block_size() as u64;
        let aligned = pos.is_multiple_of(block_size) && end.is_multiple_of(block_size);
        let allowed = match run {
            [IoMapping { address: Address::Mapped { .. }, .. }] => true,
            [IoMapping { address: Address::Unwritten { .. }, .. }] => aligned,
            _ => false,
        };
        if allowed && end <= size.min(disk_size) { Ok(()) } else { Err(Error::errno_only(errno::EAGAIN)) }
    }

    /// Maps a range for writing, allocating its holes (A12): unwritten below i_size, written from there on. One
    /// transaction per run. On an error, what was allocated stays: unwritten blocks read as zeros, and those beyond i_size
    /// are the policy's to remove (C15).
    ///
    /// A hole of a block map inside i_size ends the mappings before it: there is no unwritten block to put there.
    ///
    /// # Errors
    /// ENOTBLK if that is where the range begins.
    pub(crate) fn map_for_write(&self, inode: &Inode, pos: u64, len: u64) -> Result<Vec<IoMapping>> {
        let blocks = block_range(self.block_size(), pos, len)?;
        let size_blocks = inode.size().div_ceil(self.block_size() as u64);
        let bitmap_format = inode.is_bitmap_format();
        let mut mappings = Vec::new();
        let mut block = blocks.start;
        while block < blocks.end {
            let (how, end) = match block < size_blocks {
                true => (Allocate::Unwritten, blocks.end.min(size_blocks)),
                false => (Allocate::Written, blocks.end),
            };
            let (lblk, count) = (Lblk(block as u32), (end - block) as u32);
            let found = self.map_lookup(inode, lblk, count)?;
            let (mapping, new) = match found.state {
                MapState::Hole if bitmap_format && how == Allocate::Unwritten => break,
                MapState::Hole => self.with_handle(MAP_CREDITS, |handle| {
                    handle.map_create(inode, lblk, count, how, mballoc::RequestKind::Data)
                })?,
                _ => (found, false),
            };
            mappings.push(self.to_io_mapping(&mapping, new));
            block += u64::from(mapping.len);
        }
        if mappings.is_empty() { Err(Error::errno_only(errno::ENOTBLK)) } else { Ok(mappings) }
    }

    /// A10: records an inode that is about to grow.
    pub fn add_orphan(&self, inode: &Arc<Inode>) -> Result<()> {
        if mutant(26) {
            return Ok(());
        }
        self.with_handle(ORPHAN_CREDITS, |handle| handle.add_orphan(inode))
    }

    /// Clears what A10 recorded, if the inode still has a name.
    pub fn delete_orphan(&self, inode: &Arc<Inode>) -> Result<()> {
        if inode.state.lock().disk.links_count == 0 {
            return Ok(());
        }
        self.with_handle(ORPHAN_CREDITS, |handle| handle.delete_orphan(inode, 0))
    }

    /// C25.9: frees what a short or failed extending write allocated beyond i_size, and clears the orphan.
    pub fn truncate_to_size(&self, inode: &Arc<Inode>) -> Result<()> {
        // The device may have taken the part of a failed write that lies behind i_size in its block (D30, E27).
        let zeroed = self.zero_eof_block(inode, inode.size());
        self.remove_beyond_size(inode)?;
        zeroed
    }

    /// C25.8: the data of `len` bytes at `pos` is on the device: converts unwritten blocks, then raises the sizes and
    /// clears the orphan in one transaction.
    pub(crate) fn end_io(
        &self,
        inode: &Arc<Inode>,
        pos: u64,
        len: u64,
        mut unwritten: Option<Splitting<'_>>,
    ) -> Result<()> {
        let end = pos + len;
        let (size, disk_size) = self.sizes(inode);
        let grows = end > size || end > disk_size;
        if unwritten.is_none() && !grows {
            return Ok(());
        }
        if mutant(27) && grows {
            self.delete_orphan(inode)?;
            self.journal.commit_running()?;
        }
        // Blocks that were claimed may still wait for the commit that frees them.
        self.with_handle_reserved(MAP_CREDITS + ORPHAN_CREDITS, |handle| {
            if let Some(splitting) = &mut unwritten {
                self.convert_range(handle, inode, pos, len, splitting)?;
            }
            if !grows {
                return Ok(());
            }
            self.require_large_file(handle, end)?;
            handle.change_inode(inode, Change::Data, |state| {
                state.size = state.size.max(end);
                state.disk.size = state.disk.size.max(end);
            })?;
            if inode.state.lock().disk.links_count > 0 { handle.delete_orphan(inode, 0) } else { Ok(()) }
        })
    }

    /// What must not happen before the data of a direct write is on the device, with a commit at the worst moment: the
    /// faults 26, 28 and 29 of CM11.
    pub(crate) fn end_io_too_early(&self, inode: &Arc<Inode>, pos: u64, len: u64) -> Result<()> {
        let grows = pos + len > self.sizes(inode).1;
        if mutant(28) && !grows || mutant(29) && grows {
            self.end_io(inode, pos, len, Some(Splitting::Reserve))?;
        }
        if mutant(26) || mutant(28) || mutant(29) {
            self.journal.commit_running()?;
        }
        Ok(())
    }

    pub(crate) fn convert_range(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        pos: u64,
        len: u64,
        splitting: &mut Splitting<'_>,
    ) -> Result<()> {
        let blocks = block_range(self.block_size(), pos, len)?;
        let (mut from, mut count) = (Lblk(blocks.start as u32), (blocks.end - blocks.start) as u32);
        loop {
            match handle.convert_unwritten(inode, from, count, splitting)? {
                Progress::Done => return Ok(()),
                Progress::More { from: next, to } => {
                    (from, count) = (next, to.0 - next.0 + 1);
                    handle.restart(MAP_CREDITS + ORPHAN_CREDITS)?;
                }
            }
        }
    }
}
