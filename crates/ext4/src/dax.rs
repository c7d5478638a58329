//! Files on a device that the CPU reaches (A18): loaded and stored in place, past page cache and queue.

use std::sync::Arc;

use block_io::Dax;
use ext4_format::Lblk;

use crate::credits::MAP_CREDITS;
use crate::data_blocks::DataMapping;
use crate::extents::MapState;
use crate::file::{Look, block_range};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::map_blocks::Allocate;
use crate::mballoc::Splitting;
use crate::{Error, Result, errno, mballoc};

impl Fs {
    /// Whether the volume was mounted for DAX.
    pub fn has_dax(&self) -> bool {
        self.dax
    }

    /// Whether a file's data is loaded and stored in place: any regular file's but what goes through the journal, or went.
    pub fn is_dax(&self, inode: &Inode) -> bool {
        self.dax
            && inode.is_regular()
            && !self.journals_data(inode)
            && !inode.has_logged_data()
            && inode.check_data_supported().is_ok()
    }

    fn memory(&self, inode: &Inode) -> Result<&dyn Dax> {
        self.device.dax().filter(|_| self.is_dax(inode)).ok_or(Error::errno_only(errno::EOPNOTSUPP))
    }

    /// Copies up to `out.len()` bytes at `pos` out of the file; returns how many it has there. The caller holds the inode
    /// lock. With [`Look::Cached`], WouldBlock where the map is not in memory.
    pub fn dax_read(&self, inode: &Inode, pos: u64, out: &mut [u8], look: Look) -> Result<usize> {
        self.check_alive()?;
        let memory = self.memory(inode)?;
        let available = (out.len() as u64).min(inode.size().saturating_sub(pos)) as usize;
        let out = &mut out[..available];
        if available == 0 {
            return Ok(0);
        }
        let mappings = self.map_range(inode, pos, available as u64, look)?.ok_or(Error::WouldBlock)?;
        let mut done = 0;
        for mapping in mappings {
            let at = pos + done as u64;
            let len = (mapping.end_bytes() - at).min((available - done) as u64) as usize;
            let part = &mut out[done..done + len];
            match mapping.address {
                iomap::Address::Mapped { device_offset_bytes } => {
                    memory.load(device_offset_bytes + (at - mapping.offset_bytes), part)?;
                }
                iomap::Address::Hole | iomap::Address::Unwritten { .. } => part.fill(0),
            }
            done += len;
        }
        Ok(available)
    }

    /// Stores all of `data` at `pos` if that changes no metadata: written blocks inside both sizes, known without the disk.
    /// The caller holds the inode lock exclusive.
    ///
    /// # Errors
    /// WouldBlock, with nothing done.
    pub fn try_dax_write(&self, inode: &Inode, pos: u64, data: &[u8]) -> Result<usize> {
        self.check_writable()?;
        let memory = self.memory(inode)?;
        let (size, disk_size) = self.sizes(inode);
        let end = pos.checked_add(data.len() as u64).filter(|&end| end <= size.min(disk_size));
        if end.is_none() || data.is_empty() {
            return Err(Error::WouldBlock);
        }
        let mappings = self.map_range(inode, pos, data.len() as u64, Look::Cached)?.unwrap_or_default();
        let is_written = |mapping: &iomap::Mapping| matches!(mapping.address, iomap::Address::Mapped { .. });
        if mappings.is_empty() || !mappings.iter().all(is_written) {
            return Err(Error::WouldBlock);
        }
        let mut done = 0;
        for mapping in mappings {
            let iomap::Address::Mapped { device_offset_bytes } = mapping.address else { break };
            let at = pos + done as u64;
            let len = (mapping.end_bytes() - at).min((data.len() - done) as u64) as usize;
            memory.store(device_offset_bytes + (at - mapping.offset_bytes), &data[done..done + len])?;
            done += len;
        }
        Ok(done)
    }

    /// Stores `data` at `pos`, giving it blocks where it has none, and raises the sizes (A15). The caller holds the inode lock
    /// exclusive, has done the checks of A4, and recorded the inode as an orphan if it grows (A10). Returns the bytes stored:
    /// fewer than given if space ran out on the way; what was allocated beyond them is the caller's to remove.
    pub fn dax_write(&self, inode: &Arc<Inode>, pos: u64, data: &[u8]) -> Result<usize> {
        self.check_writable()?;
        let memory = self.memory(inode)?;
        let end = pos.checked_add(data.len() as u64).filter(|&end| end <= self.max_bytes(inode));
        let end = end.ok_or(Error::errno_only(errno::EFBIG))?;
        let size = inode.size();
        if pos > size {
            self.zero_eof_block(inode, size)?;
        }
        let (mut done, mut failed) = (0, None);
        while done < data.len() {
            let at = pos + done as u64;
            match self.store_run(inode, memory, at, &data[done..], end) {
                Ok(len) => done += len,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        match failed {
            Some(error) if done == 0 => return Err(error),
            _ => self.end_io(inode, pos, done as u64, None)?,
        }
        Ok(done)
    }

    /// One mapping's worth of [`Fs::dax_write`], of `data` at `pos` in a write that ends at `end`.
    fn store_run(&self, inode: &Inode, memory: &dyn Dax, pos: u64, data: &[u8], end: u64) -> Result<usize> {
        let block_size = self.block_size() as u64;
        let mapping = self.map_for_dax(inode, pos, data.len() as u64)?;
        let inside = pos - u64::from(mapping.lblk.0) * block_size;
        let len = (u64::from(mapping.len) * block_size - inside).min(data.len() as u64) as usize;
        let device_offset = mapping.blocks()?.device_offset_bytes(self.block_size()) + inside;
        memory.store(device_offset, &data[..len])?;
        // B5: what lies behind the end of the file reads as zeros when that grows.
        let stop = pos + len as u64;
        let rest = (stop.next_multiple_of(block_size) - stop) as usize;
        if stop == end && rest > 0 && end >= inode.size() {
            memory.store(device_offset + len as u64, &vec![0; rest])?;
        }
        Ok(len)
    }

    /// Written blocks from `pos` on, at least one and at most those of `len` bytes (A12): a hole gets some with zeros in them,
    /// and so do unwritten ones, before anything calls them written.
    fn map_for_dax(&self, inode: &Inode, pos: u64, len: u64) -> Result<DataMapping> {
        let blocks = block_range(self.block_size(), pos, len)?;
        let (lblk, count) = (Lblk(blocks.start as u32), (blocks.end - blocks.start) as u32);
        let found = self.map_lookup(inode, lblk, count)?;
        match found.state {
            MapState::Written => Ok(found),
            MapState::Hole => self.with_handle(MAP_CREDITS, |handle| {
                let (how, kind) = (Allocate::Zeroed, mballoc::RequestKind::Data);
                let (mapping, _new) = handle.map_create(inode, lblk, found.len, how, kind)?;
                Ok(mapping)
            }),
            MapState::Unwritten => {
                self.zero_blocks(found.blocks()?)?;
                let block_size = self.block_size() as u64;
                let (from, bytes) = (blocks.start * block_size, u64::from(found.len) * block_size);
                self.with_handle(MAP_CREDITS, |handle| {
                    self.convert_range(handle, inode, from, bytes, &mut Splitting::Zeroing)
                })?;
                Ok(found.converted())
            }
        }
    }
}
