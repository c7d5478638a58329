//! File data that goes through the journal: of a volume mounted with data=journal, of an inode with the flag, and of
//! writes that must be atomic.
//!
//! A logged block is newer in the journal than at home until its checkpoint, and a replay may write it home again until
//! the log's tail has passed it. So for an inode that may have such blocks reads look into the journal
//! ([`Fs::read_data`]), freed blocks are forgotten and revoked (T8, T9), and whoever is about to write to such a block
//! directly settles them first ([`Fs::settle_data`]).

use ext4_format::inode::flags;
use ext4_format::{Lblk, Pblk};
use iomap::{Address, Mapping as IoMapping};
use jbd2::Tid;

use crate::credits::MAP_CREDITS;
use crate::data_blocks::{DataBlocks, DataMapping};
use crate::extents::MapState;
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode};
use crate::logged_data::DataMode;
use crate::map_blocks::Allocate;
use crate::mballoc::Splitting;
use crate::meta::{BlockKind, Meta};
use crate::{Error, Result, errno, mballoc};

/// Blocks of data that one handle logs at most.
const MAX_LOGGED_BLOCKS: u32 = 64;

impl Inode {
    /// Whether blocks of it may be newer in the journal than at home, or be replayed over what is there.
    pub(crate) fn has_logged_data(&self) -> bool {
        self.logged_data.tid().is_some()
    }
}

impl Fs {
    /// Whether the data of an inode goes through the journal. Direct I/O is then not possible (A3).
    pub fn journals_data(&self, inode: &Inode) -> bool {
        self.journal.has_log()
            && (self.data_mode == DataMode::Journal || inode.has_flag(flags::JOURNAL_DATA))
            && inode.is_regular()
    }

    /// Sets or clears the inode's own flag (EXT4_JOURNAL_DATA_FL). The caller holds the inode lock exclusive and has
    /// drained direct I/O.
    ///
    /// # Errors
    /// EOPNOTSUPP on a volume without a journal. Those of write-back, of a commit and of a checkpoint: nothing changed.
    pub fn set_journal_data(&self, inode: &Inode, on: bool) -> Result<()> {
        self.check_writable()?;
        if !self.journal.has_log() {
            return Err(Error::refused(errno::EOPNOTSUPP, "no journal for data"));
        }
        // By the old rule, and all of it: pages and blocks are in one world only.
        self.write_and_wait(inode, 0, u64::MAX)?;
        self.settle_data(inode)?;
        let now = self.timestamp();
        self.with_handle(MAP_CREDITS, |handle| {
            handle.change_inode(inode, Change::Attributes, |state| {
                let others = state.disk.flags & !flags::JOURNAL_DATA;
                state.disk.flags = others | if on { flags::JOURNAL_DATA } else { 0 };
                state.disk.ctime = now;
            })
        })
    }

    /// Reads mapped data of a file: from the journal where that is newer.
    pub(crate) fn read_data(&self, inode: &Inode, offset_bytes: u64, out: &mut [u8]) -> Result<()> {
        let block_size = self.block_size();
        let first = offset_bytes / block_size as u64;
        // The journal first: what leaves it meanwhile is at home before that.
        let logged: Vec<_> = match inode.has_logged_data() {
            true => (first..)
                .zip(0..out.len().div_ceil(block_size))
                .filter_map(|(block, index)| Some((index, self.journal.lookup(block)?)))
                .collect(),
            false => Vec::new(),
        };
        self.device.read(offset_bytes, out)?;
        for (index, image) in logged {
            let bytes = &mut out[index * block_size..];
            let len = bytes.len().min(block_size);
            bytes[..len].copy_from_slice(&image[..len]);
        }
        Ok(())
    }

    /// Whether a block of these mappings is newer in the journal than at home. What leaves the journal is at home before, and
    /// the inode lock keeps others from logging more.
    pub(crate) fn is_newer_in_journal(&self, inode: &Inode, mappings: &[IoMapping]) -> bool {
        let block_size = self.block_size() as u64;
        inode.has_logged_data()
            && mappings.iter().any(|mapping| {
                let Address::Mapped { device_offset_bytes } = mapping.address else { return false };
                let first = device_offset_bytes / block_size;
                (first..first + mapping.len_bytes / block_size)
                    .any(|block| self.journal.lookup(block).is_some())
            })
    }

    /// Writes the first of a file's blocks, which are mapped and written, by the way that the file's data takes.
    pub(crate) fn write_data_block(&self, inode: &Inode, blocks: DataBlocks, data: &[u8]) -> Result<()> {
        if self.journals_data(inode) {
            return self.with_handle(2, |handle| handle.log_data(inode, blocks, data));
        }
        self.settle_data(inode)?;
        Ok(self.device.write(blocks.device_offset_bytes(self.block_size()), data, false)?)
    }

    /// Commits and checkpoints what the journal holds of an inode's data: from here on its blocks may be read and written
    /// at home. The caller holds no handle.
    pub(crate) fn settle_data(&self, inode: &Inode) -> Result<()> {
        let Some(tid) = inode.logged_data.tid() else { return Ok(()) };
        if !self.journal.is_checkpointed(tid) {
            self.journal.commit(tid)?;
            self.journal.checkpoint_all()?;
        }
        inode.logged_data.forget(tid);
        Ok(())
    }

    /// Logs whole blocks of data from `lblk` on, as many as one mapping and one handle take; allocated, converted and counted
    /// in i_disksize as need be, in one transaction. Returns their mapping, and whether it was allocated by this call: then
    /// out of what is reserved if `delayed` is not 0, at most so many blocks.
    pub(crate) fn log_blocks(
        &self,
        inode: &Inode,
        lblk: Lblk,
        data: &[u8],
        delayed: u32,
        splitting: &mut Splitting<'_>,
    ) -> Result<(DataMapping, bool)> {
        let block_size = self.block_size();
        let most = MAX_LOGGED_BLOCKS.min(self.journal.max_transaction_credits() / 4).max(1);
        let count = ((data.len() / block_size) as u32).min(most);
        self.with_handle_reserved(MAP_CREDITS + count, |handle| {
            let found = self.map_lookup(inode, lblk, count)?;
            let (mapping, new) = match (found.state, delayed) {
                (MapState::Hole, 0) => {
                    let kind = mballoc::RequestKind::Data;
                    handle.map_create(inode, lblk, found.len, Allocate::Written, kind)?
                }
                (MapState::Hole, delayed) => {
                    let kind = mballoc::RequestKind::Delayed;
                    handle.map_create(inode, lblk, found.len.min(delayed), Allocate::Written, kind)?
                }
                _ => (found, false),
            };
            let bytes = mapping.len as usize * block_size;
            handle.log_data(inode, mapping.blocks()?, &data[..bytes])?;
            let end = (mapping.end() * block_size as u64).min(inode.size());
            if end > self.sizes(inode).1 {
                self.require_large_file(handle, end)?;
                handle.change_inode(inode, Change::Data, |state| {
                    state.disk.size = state.disk.size.max(end);
                })?;
            }
            if mapping.state == MapState::Unwritten {
                let pos = u64::from(lblk.0) * block_size as u64;
                self.convert_range(handle, inode, pos, bytes as u64, splitting)?;
            }
            Ok((mapping, new))
        })
    }
}

impl Handle<'_> {
    /// Puts `data`, whole blocks and no more than there are, into the transaction: a credit each. fsync and fdatasync wait
    /// for it.
    pub(crate) fn log_data(&mut self, inode: &Inode, blocks: DataBlocks, data: &[u8]) -> Result<()> {
        let fs = self.fs();
        let tid = Tid(self.tid());
        inode.logged_data.note(tid);
        fs.logged_data.note(tid);
        assert!(data.len() <= blocks.len() as usize * fs.block_size(), "more data than blocks");
        for (block, bytes) in (blocks.start().0..).zip(data.chunks(fs.block_size())) {
            self.create(Pblk(block), BlockKind::Plain, &mut |image| image.copy_from_slice(bytes))?;
        }
        let mut state = inode.state.lock();
        (state.sync_tid, state.datasync_tid) = (tid, tid);
        Ok(())
    }
}
