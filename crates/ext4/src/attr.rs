//! Attributes: stat, chmod, utimes, file_modified, fsync.

use ext4_format::{Ino, Inode as DiskInode, Timestamp};
use std::sync::Arc;

use ext4_format::inode::{S_IFBLK, S_IFCHR, S_IFMT, flags};
use jbd2::{Tid, mutant};

use crate::credits::MAP_CREDITS;
use crate::fs::Fs;
use crate::handle::Handle;
use crate::inode::{Change, Inode, InodeState};
use crate::{Error, Result, errno};

/// How often a time of access is moved without a change of the file (relatime).
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// What stat(2) shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: Ino,
    /// Generation.
    pub generation: u32,
    /// Type and permissions.
    pub mode: u16,
    /// Links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// i_size in bytes.
    pub size: u64,
    /// Allocated space in 512-byte sectors.
    pub sectors: u64,
    /// Device number of a device node, as (major, minor); zeros for others.
    pub device: (u32, u32),
    /// Last access.
    pub atime: Timestamp,
    /// Last change of contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation; zero where the inode has no room for it.
    pub crtime: Timestamp,
    /// Inode flags (F52).
    pub flags: u32,
    /// Direct I/O, as statx tells it; zeros where there can be none.
    pub direct: DirectLimits,
}

/// What direct I/O on a file is a multiple of, and how long its atomic writes may be (C8, C24). In bytes; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectLimits {
    /// Positions and lengths.
    pub offset_align: u32,
    /// Memory addresses.
    pub memory_align: u32,
    /// The shortest atomic write.
    pub atomic_min: u64,
    /// The longest.
    pub atomic_max: u64,
}

/// What a sync makes durable (T24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncScope {
    /// fsync: data, and all of the inode.
    File,
    /// fdatasync: data, and what leads to it.
    Data,
    /// What the journal has of data and of what leads to it; no page is written back.
    Logged,
}

const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;
const S_IXGRP: u16 = 0o010;

impl Fs {
    /// The current time as an inode stores it.
    pub(crate) fn timestamp(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp { sec: now.sec, nsec: now.nsec }
    }

    fn direct_limits(&self, inode: &Inode) -> DirectLimits {
        // A3.
        if !inode.is_regular() || inode.check_data_supported().is_err() || self.journals_data(inode) {
            return DirectLimits::default();
        }
        let (offset_align, memory_align) = self.direct_alignment();
        let (atomic_min, atomic_max) = self.atomic_write_units();
        DirectLimits { offset_align, memory_align, atomic_min, atomic_max }
    }

    /// What positions and lengths, and what memory addresses of direct I/O are multiples of, in bytes. Where data is stored in
    /// place, of nothing.
    pub fn direct_alignment(&self) -> (u32, u32) {
        let limits = self.device.limits();
        if self.has_dax() { (1, 1) } else { (limits.logical_block_bytes, limits.memory_alignment_bytes) }
    }

    /// fstat(2).
    pub fn stat(&self, inode: &Inode) -> Stat {
        let direct = self.direct_limits(inode);
        let state = inode.state.lock();
        let disk = &state.disk;
        Stat {
            ino: inode.ino,
            generation: inode.generation,
            mode: disk.mode,
            links: u32::from(disk.links_count),
            uid: disk.uid,
            gid: disk.gid,
            size: state.size,
            // Space that is reserved counts: tools take a file without sectors for a hole.
            sectors: disk.blocks + inode.pages.get().map_or(0, |pages| pages.delayed_bytes() / 512),
            // i_block of any other inode is a map.
            device: match disk.mode & S_IFMT {
                S_IFCHR | S_IFBLK => disk.device(),
                _ => (0, 0),
            },
            atime: disk.atime,
            mtime: disk.mtime,
            ctime: disk.ctime,
            crtime: disk.crtime,
            flags: disk.flags,
            direct,
        }
    }

    /// fchmod(2): the twelve permission bits.
    pub fn chmod(&self, inode: &Inode, mode: u16) -> Result<()> {
        self.change_attributes(inode, |disk| disk.mode = disk.mode & !0o7777 | mode & 0o7777)
    }

    /// fchown(2): the owners that are given. Of what is no directory setuid, setgid and capabilities go, whoever asks.
    pub fn chown(&self, inode: &Inode, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let change = |disk: &mut DiskInode| {
            disk.uid = uid.unwrap_or(disk.uid);
            disk.gid = gid.unwrap_or(disk.gid);
        };
        if inode.is_dir() {
            return self.change_attributes(inode, change);
        }
        self.check_attributes_may_change(inode)?;
        let may_have_capability = Self::may_have_capability(&inode.state.lock());
        self.change_stripped(inode, may_have_capability, |disk, _| change(disk))
    }

    /// futimens(2): both times; the inode's own change time becomes now.
    pub fn set_times(&self, inode: &Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        self.change_attributes(inode, |disk| {
            disk.atime = atime;
            disk.mtime = mtime;
        })
    }

    fn change_attributes(&self, inode: &Inode, mut change: impl FnMut(&mut DiskInode)) -> Result<()> {
        self.check_attributes_may_change(inode)?;
        let now = self.timestamp();
        self.with_handle(MAP_CREDITS, |handle| {
            handle.change_inode(inode, Change::Attributes, |state| {
                change(&mut state.disk);
                state.disk.ctime = now;
            })
        })
    }

    fn check_attributes_may_change(&self, inode: &Inode) -> Result<()> {
        self.check_alive()?;
        if inode.has_flag(flags::IMMUTABLE | flags::APPEND) {
            return Err(Error::errno_only(errno::EPERM));
        }
        Ok(())
    }

    /// Whether file_modified would have something to do: times of an earlier tick, or privileges to strip (A4.9).
    pub(crate) fn needs_modified(&self, state: &InodeState) -> bool {
        let now = state.disk.as_stored(self.timestamp());
        state.disk.mtime != now || state.disk.ctime != now || may_strip_privileges(state)
    }

    /// file_modified: drops setuid, setgid and capabilities, then updates the times (A4.9).
    pub fn file_modified(&self, inode: &Inode) -> Result<()> {
        self.check_writable()?;
        let may_have_capability = {
            let state = inode.state.lock();
            if !self.needs_modified(&state) {
                return Ok(());
            }
            Self::may_have_capability(&state)
        };
        self.change_stripped(inode, may_have_capability, |disk, now| disk.mtime = now)
    }

    /// A change that takes setuid, setgid and capabilities with it, and moves the inode's own time of change.
    fn change_stripped(
        &self,
        inode: &Inode,
        may_have_capability: bool,
        mut change: impl FnMut(&mut DiskInode, Timestamp),
    ) -> Result<()> {
        // Calls by name set and remove it too, without the inode lock.
        let _xattrs = may_have_capability.then(|| self.xattrs.write());
        let strip_capability = may_have_capability && self.has_capability(inode)?;
        let now = self.timestamp();
        self.with_handle(MAP_CREDITS, |handle| {
            if strip_capability {
                self.remove_capability(handle, inode)?;
            }
            handle.change_inode(inode, Change::Attributes, |state| {
                state.disk.mode = stripped(state.disk.mode);
                change(&mut state.disk, now);
                state.disk.ctime = now;
            })
        })
    }

    /// The times of [`Fs::file_modified`] alone, without waiting: one handle a tick of the clock is cheap enough for the
    /// caller's own thread.
    ///
    /// # Errors
    /// WouldBlock where the journal or the disk would have to be waited for, or where privileges may have to go.
    pub fn try_file_modified(&self, inode: &Inode) -> Result<()> {
        let due = {
            let state = inode.state.try_lock().ok_or(Error::WouldBlock)?;
            if may_strip_privileges(&state) {
                return Err(Error::WouldBlock);
            }
            self.needs_modified(&state)
        };
        if !due {
            return self.check_writable();
        }
        let now = self.timestamp();
        self.try_change_times(inode, |disk| {
            disk.mtime = now;
            disk.ctime = now;
        })
    }

    fn try_change_times(&self, inode: &Inode, mut change: impl FnMut(&mut DiskInode)) -> Result<()> {
        let (block, _) = self.allocator.inode_location(inode.ino)?;
        if self.journal.lookup(block.0).is_none() && self.cache.get(block).is_none() {
            return Err(Error::WouldBlock);
        }
        let mut handle = Handle::try_start(self, 1)?;
        handle.change_inode(inode, Change::Attributes, |state| change(&mut state.disk))?;
        handle.stop()
    }

    /// Whether a read has the time of access moved: that of a file that changed since, or once a day (relatime).
    pub(crate) fn access_is_due(&self, state: &InodeState) -> bool {
        let disk = &state.disk;
        let now = disk.as_stored(self.timestamp());
        let is_stale = disk.atime <= disk.mtime
            || disk.atime <= disk.ctime
            || now.sec.saturating_sub(disk.atime.sec) >= DAY_SECONDS;
        is_stale && disk.atime != now && !disk.has_flag(flags::NOATIME)
    }

    /// The time of access, if it is due, without waiting (A19). What could not be done now is due at the next read.
    ///
    /// # Errors
    /// WouldBlock where the journal or the disk would have to be waited for.
    pub fn try_file_accessed(&self, inode: &Inode) -> Result<()> {
        if !self.moves_access(&*inode.state.try_lock().ok_or(Error::WouldBlock)?) {
            return Ok(());
        }
        let now = self.timestamp();
        self.try_change_times(inode, |disk| disk.atime = now)
    }

    /// Whether a read moves the time of access now: it is due, and the volume can be written.
    pub(crate) fn moves_access(&self, state: &InodeState) -> bool {
        self.access_is_due(state) && self.check_writable().is_ok()
    }

    /// fsync(2), or fdatasync(2) with `datasync` (T24). When it returns, what it promises is durable.
    pub fn fsync(&self, inode: &Inode, datasync: bool) -> Result<()> {
        let scope = if datasync { SyncScope::Data } else { SyncScope::File };
        let tid = self.write_back_for_sync(inode, scope)?;
        self.make_durable(tid)
    }

    /// fsync of several files with one commit: each file's own result.
    pub fn fsync_all(&self, files: &[(Arc<Inode>, SyncScope)]) -> Vec<Result<()>> {
        let tids: Vec<_> =
            files.iter().map(|(inode, scope)| self.write_back_for_sync(inode, *scope)).collect();
        let latest = tids.iter().flatten().copied().reduce(|a, b| if b.is_after(a) { b } else { a });
        let durable = latest.map_or(Ok(()), |tid| self.make_durable(tid));
        tids.into_iter().map(|tid| tid.and(durable.clone())).collect()
    }

    /// Dirty pages of a file, and the transaction that its metadata needs.
    fn write_back_for_sync(&self, inode: &Inode, scope: SyncScope) -> Result<Tid> {
        self.check_alive()?;
        if scope != SyncScope::Logged
            && let Some(pages) = inode.pages.get()
        {
            pages.sync()?;
        }
        let state = inode.state.lock();
        let tid = if scope != SyncScope::File || mutant(15) { state.datasync_tid } else { state.sync_tid };
        Ok(tid)
    }

    fn make_durable(&self, tid: Tid) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        if self.host.aborted.load(std::sync::atomic::Ordering::Acquire) != 0 {
            return Err(Error::refused(errno::EIO, "the journal was aborted"));
        }
        // Data that was on the device before a commit is covered by its flush.
        if !self.journal.commit(tid)? && !mutant(31) {
            self.journal.flush_device()?;
        }
        Ok(())
    }

    /// Commits the running transaction, if there is one, without buffered data that is not part of it.
    pub fn commit(&self) -> Result<()> {
        Ok(self.journal.commit_running()?)
    }

    /// syncfs(2): buffered data of every file, then all metadata, with one flush at least (T24).
    ///
    /// # Errors
    /// The first of write-back, after everything else is durable; else that of the commit or the flush.
    pub fn sync(&self) -> Result<()> {
        self.check_alive()?;
        let mut written = Ok(());
        for inode in self.inodes.all() {
            if let Some(pages) = inode.pages.get() {
                written = written.and(pages.write_back(0, u64::MAX));
            }
        }
        if !self.is_read_only() {
            self.make_durable(self.journal.newest_tid())?;
        }
        written
    }
}

/// Whether a write must strip setuid, setgid of a group-executable file, or perhaps capabilities.
pub(crate) fn may_strip_privileges(state: &InodeState) -> bool {
    stripped(state.disk.mode) != state.disk.mode || Fs::may_have_capability(state)
}

fn stripped(mode: u16) -> u16 {
    let mut mode = mode & !S_ISUID;
    if mode & S_IXGRP != 0 {
        mode &= !S_ISGID;
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_9_privileges() {
        for (mode, after) in [
            (0o100644, 0o100644),
            (0o104755, 0o100755),
            (0o102755, 0o100755),
            (0o102644, 0o102644),
            (0o106775, 0o100775),
        ] {
            assert_eq!(stripped(mode), after);
        }
    }
}
