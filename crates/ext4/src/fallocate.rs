//! fallocate(2): what a call may ask for, and space for a range.

use std::ops::Range;
use std::sync::Arc;

use ext4_format::Lblk;
use ext4_format::inode::{S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, flags};

use crate::credits::MAP_CREDITS;
use crate::extents::MapState;
use crate::file::block_range;
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::map_blocks::Allocate;
use crate::{Error, Result, errno, mballoc};

/// What fallocate(2) does to a range; `keep_size`: i_size stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallocateMode {
    /// Space for what has none; what it holds stays.
    Allocate {
        /// Also beyond i_size, which stays.
        keep_size: bool,
    },
    /// A hole. i_size stays.
    PunchHole,
    /// Space that reads as zeros.
    ZeroRange {
        /// As for [`FallocateMode::Allocate`].
        keep_size: bool,
    },
    /// The range goes, and what follows moves down.
    CollapseRange,
    /// A hole, before which what was there moves up.
    InsertRange,
}

impl FallocateMode {
    /// FALLOC_FL_KEEP_SIZE.
    pub const KEEP_SIZE: u32 = 0x01;
    /// FALLOC_FL_PUNCH_HOLE, with KEEP_SIZE alone.
    pub const PUNCH_HOLE: u32 = 0x02;
    /// FALLOC_FL_COLLAPSE_RANGE, without KEEP_SIZE.
    pub const COLLAPSE_RANGE: u32 = 0x08;
    /// FALLOC_FL_ZERO_RANGE.
    pub const ZERO_RANGE: u32 = 0x10;
    /// FALLOC_FL_INSERT_RANGE, without KEEP_SIZE.
    pub const INSERT_RANGE: u32 = 0x20;

    /// From Linux's bits. EOPNOTSUPP for any other combination.
    pub fn from_bits(bits: u32) -> Result<Self> {
        let keep_size = bits & Self::KEEP_SIZE != 0;
        match (bits & !Self::KEEP_SIZE, keep_size) {
            (0, _) => Ok(Self::Allocate { keep_size }),
            (Self::PUNCH_HOLE, true) => Ok(Self::PunchHole),
            (Self::ZERO_RANGE, _) => Ok(Self::ZeroRange { keep_size }),
            (Self::COLLAPSE_RANGE, false) => Ok(Self::CollapseRange),
            (Self::INSERT_RANGE, false) => Ok(Self::InsertRange),
            _ => Err(Error::refused(errno::EOPNOTSUPP, format!("fallocate mode {bits:#x}"))),
        }
    }

    /// Whether i_size may rise to the range's end.
    fn grows(self) -> bool {
        matches!(self, Self::Allocate { keep_size: false } | Self::ZeroRange { keep_size: false })
    }
}

impl Fs {
    /// fallocate(2). The caller holds the inode lock exclusive and has drained direct I/O.
    ///
    /// # Errors
    /// EINVAL for an empty range, a misaligned or misplaced collapse or insert; EPERM for an immutable inode, or an
    /// append-only one unless space is all that is asked for; EISDIR, ESPIPE, ENODEV for what is no regular file; EFBIG;
    /// EOPNOTSUPP on an inode without extents for all but holes; ENOSPC, after which what was got stays and i_size covers it.
    pub fn fallocate(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        mode: FallocateMode,
        pos: u64,
        len: u64,
    ) -> Result<()> {
        self.check_fallocate(inode, mode, pos, len)?;
        self.file_modified(inode)?;
        if mode != FallocateMode::PunchHole {
            // What becomes unwritten or moves is not written home again afterwards.
            self.settle_data(inode)?;
        }
        if mode != FallocateMode::PunchHole && !inode.has_flag(flags::EXTENTS) {
            return Err(Error::refused(errno::EOPNOTSUPP, format!("inode {}: no extents", inode.ino)));
        }
        let end = pos + len;
        let (size, disk_size) = self.sizes(inode);
        let new_size = (mode.grows() && (end > size || end > disk_size)).then_some(end);
        match mode {
            FallocateMode::Allocate { .. } => {
                self.allocate_range(inode, block_range(self.block_size(), pos, len)?, new_size)
            }
            FallocateMode::PunchHole => self.punch_hole(inode, pos, end),
            FallocateMode::ZeroRange { .. } => self.zero_range(inode, pos, end, new_size),
            FallocateMode::CollapseRange => self.collapse_range(inode, pos, end),
            FallocateMode::InsertRange => self.insert_range(inode, pos, len),
        }
    }

    /// In the order of the kernel's checks: which of two errors a caller gets is part of the contract.
    fn check_fallocate(&self, inode: &Inode, mode: FallocateMode, pos: u64, len: u64) -> Result<()> {
        let refuse = |errno| Err(Error::errno_only(errno));
        if len == 0 {
            return refuse(errno::EINVAL);
        }
        let preallocates = matches!(mode, FallocateMode::Allocate { .. });
        if inode.has_flag(flags::IMMUTABLE) || inode.has_flag(flags::APPEND) && !preallocates {
            return refuse(errno::EPERM);
        }
        match inode.mode() & S_IFMT {
            S_IFREG => {}
            S_IFIFO => return refuse(errno::ESPIPE),
            S_IFDIR => return refuse(errno::EISDIR),
            _ => return refuse(errno::ENODEV),
        }
        if pos.checked_add(len).is_none_or(|end| end > self.max_file_bytes()) {
            return refuse(errno::EFBIG);
        }
        self.check_writable()?;
        inode.check_data_supported()
    }

    /// Gives the holes of a range unwritten blocks, one transaction each, and raises i_size with them up to `new_size`.
    pub(crate) fn allocate_range(
        &self,
        inode: &Arc<Inode>,
        blocks: Range<u64>,
        new_size: Option<u64>,
    ) -> Result<()> {
        let block_size = self.block_size() as u64;
        // Pages that wait for their blocks get them from whoever reserved the space.
        self.write_and_wait(inode, blocks.start * block_size, (blocks.end - blocks.start) * block_size)?;
        if new_size.is_some() {
            self.zero_eof_block(inode, inode.size())?;
        }
        let mut block = blocks.start;
        while block < blocks.end {
            let (lblk, count) = (Lblk(block as u32), (blocks.end - block) as u32);
            let found = self.map_lookup(inode, lblk, count)?;
            let reach = |end: u64| new_size.map(|size| size.min(end * block_size));
            if found.state != MapState::Hole {
                block = found.end();
                if let Some(size) = reach(block).filter(|&size| size > inode.size()) {
                    self.with_handle(MAP_CREDITS, |handle| self.raise_sizes(handle, inode, size))?;
                }
                continue;
            }
            block = self.with_handle(MAP_CREDITS, |handle| {
                let kind = mballoc::RequestKind::Data;
                let (mapping, _new) = handle.map_create(inode, lblk, found.len, Allocate::Unwritten, kind)?;
                if let Some(size) = reach(mapping.end()) {
                    self.raise_sizes(handle, inode, size)?;
                }
                Ok(mapping.end())
            })?;
        }
        Ok(())
    }

    /// Raises i_size and i_disksize to `size`, never lowers them.
    pub(crate) fn raise_sizes(&self, handle: &mut Handle<'_>, inode: &Inode, size: u64) -> Result<()> {
        let (old, disk) = self.sizes(inode);
        if size <= old && size <= disk {
            return Ok(());
        }
        self.require_large_file(handle, size)?;
        handle.change_inode(inode, Change::Data, |state| {
            state.size = state.size.max(size);
            state.disk.size = state.disk.size.max(size);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_the_kernel_takes_them() {
        let supported = |bits| FallocateMode::from_bits(bits).ok();
        assert_eq!(supported(0), Some(FallocateMode::Allocate { keep_size: false }));
        assert_eq!(supported(1), Some(FallocateMode::Allocate { keep_size: true }));
        assert_eq!(supported(3), Some(FallocateMode::PunchHole));
        assert_eq!(supported(0x10), Some(FallocateMode::ZeroRange { keep_size: false }));
        assert_eq!(supported(0x11), Some(FallocateMode::ZeroRange { keep_size: true }));
        assert_eq!(supported(8), Some(FallocateMode::CollapseRange));
        assert_eq!(supported(0x20), Some(FallocateMode::InsertRange));
        for bits in (0..0x400u32).chain([1 << 31, u32::MAX]) {
            if ![0, 1, 3, 0x10, 0x11, 8, 0x20].contains(&bits) {
                assert_eq!(
                    FallocateMode::from_bits(bits).unwrap_err().errno(),
                    errno::EOPNOTSUPP,
                    "{bits:#x}"
                );
            }
        }
    }
}
