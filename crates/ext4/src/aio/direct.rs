//! Direct reads and writes as state machines over the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use block_io::{Completion, Memory, Operation, Request, SharedMemory};
use iomap::{Mapping, ReadPlan, ReadRequest, WritePlan, WriteRequest};

use super::engine::{Engine, FileId, Finished, Value};
use crate::attr::SyncScope;
use crate::file::Look;
use crate::inode::Inode;
use crate::mballoc::Splitting;
use crate::splits::SplitRoom;
use crate::{Error, Result, errno};

/// How the policy holds the inode lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// With others: the range must be one allocated run inside both sizes.
    Shared,
    /// Alone.
    Exclusive,
}

/// A direct write to start.
pub struct DirectWrite {
    /// Comes back in [`Finished`].
    pub op: u64,
    /// The file.
    pub file: FileId,
    /// How the inode is locked until the operation is over (or, in flight, counted).
    pub lock: LockMode,
    /// O_DSYNC: durable when it is over.
    pub dsync: bool,
    /// RWF_NOWAIT: EAGAIN instead of a job, so it neither waits nor allocates (C5).
    pub nowait: bool,
    /// RWF_ATOMIC (C24).
    pub atomic: bool,
    /// Byte position in the file.
    pub pos: u64,
    /// What to write.
    pub memory: Memory,
}

/// A direct read to start.
pub struct DirectRead {
    /// Comes back in [`Finished`].
    pub op: u64,
    /// The file.
    pub file: FileId,
    /// RWF_NOWAIT: EAGAIN instead of a job.
    pub nowait: bool,
    /// Byte position in the file.
    pub pos: u64,
    /// Where to.
    pub memory: Memory,
}

/// A worker's answer to a direct operation.
pub(super) enum Step {
    /// The mappings, and for a write what converting unwritten ones may take.
    Mapped(Result<(Vec<Mapping>, Option<SplitRoom>)>),
    /// An atomic write is in the running transaction.
    Logged(Result<()>),
    Ended(Result<()>),
    Synced(Result<()>),
    Failed(Error),
}

enum Kind {
    /// A write that extends the file may end before the read is mapped: the size is that of its start.
    Read {
        pos: u64,
        size_bytes: u64,
    },
    Write {
        pos: u64,
        dsync: bool,
        unwritten: bool,
        fua: bool,
    },
}

/// A direct operation under way.
pub(super) struct Direct {
    op: u64,
    inode: Arc<Inode>,
    kind: Kind,
    /// Bytes of the caller's memory that take part.
    len: u64,
    /// The caller's memory, while no request uses it.
    memory: Option<Memory>,
    shared: Option<SharedMemory>,
    /// Device requests not yet reaped.
    outstanding: usize,
    /// What its conversion may take.
    room: Option<SplitRoom>,
    /// The first error of a device request: it fails the whole operation (B9).
    error: Option<Error>,
    /// What the operation returns if nothing fails.
    bytes: u64,
}

impl Direct {
    /// Whether requests of it are at the device, rather than a job of it at a worker.
    pub(super) fn waits_for_device(&self) -> bool {
        self.outstanding > 0
    }
}

impl Engine {
    /// Starts a direct write. It ends as a [`Finished`] with the memory and the bytes written. Under
    /// [`LockMode::Shared`] it ends with EAGAIN unless the range is an overwrite (DESIGN).
    pub fn direct_write(&mut self, write: DirectWrite) {
        let DirectWrite { op, file, lock, dsync, nowait, atomic, pos, memory } = write;
        let len = memory.len() as u64;
        let checked = self.file(file).cloned().and_then(|inode| {
            self.fs.check_writable()?;
            inode.check_data_supported()?;
            if atomic {
                return self.check_atomic(&inode, lock, nowait).map(|()| (inode, None));
            }
            let mappings = self.fs.map_range(&inode, pos, len, Look::Cached)?;
            if lock == LockMode::Shared {
                let run = mappings.as_deref().unwrap_or_default();
                self.fs.check_shared(&inode, pos, len, run).inspect_err(|_| {
                    self.counters.refused_shared.fetch_add(1, Ordering::Relaxed);
                })?;
            }
            if self.fs.journals_data(&inode) {
                return Err(Error::errno_only(errno::ENOTBLK)); // A3
            }
            let in_place = !self.fs.has_pages(&inode, pos, len) && !inode.has_logged_data();
            let allocated = |mappings: &Vec<Mapping>| mappings.iter().all(Mapping::is_allocated);
            let mappings = mappings.filter(|mappings| in_place && allocated(mappings));
            // Without a claim somebody else's I/O may not be in flight beside ours: alone, or not at all.
            let mappings = match mappings.map(|found| (self.fs.claim_split(&inode, &found), found)) {
                Some((Ok(room), found)) => Some((found, room)),
                Some((Err(_), _)) if lock == LockMode::Shared => {
                    self.counters.refused_shared.fetch_add(1, Ordering::Relaxed);
                    return Err(Error::errno_only(errno::EAGAIN));
                }
                _ => None,
            };
            if nowait && mappings.is_none() {
                return Err(Error::errno_only(errno::EAGAIN));
            }
            Ok((inode, mappings))
        });
        let (inode, mappings) = match checked {
            Ok(found) => found,
            Err(error) => return self.finish(op, Err(error), Some(memory)),
        };
        let kind = Kind::Write { pos, dsync, unwritten: false, fua: false };
        let logged = atomic.then(|| memory.bytes().to_vec());
        let slot = self.insert(op, inode.clone(), kind, memory);
        if let Some(data) = logged {
            return self.run_step(slot, false, move |fs| Step::Logged(fs.atomic_write(&inode, pos, &data)));
        }
        match mappings {
            Some(mappings) => {
                self.counters.mapped_in_place.fetch_add(1, Ordering::Relaxed);
                self.step(slot, Step::Mapped(Ok(mappings)));
            }
            None => {
                self.counters.mapped_by_job.fetch_add(1, Ordering::Relaxed);
                self.run_step(slot, false, move |fs| {
                    Step::Mapped((|| {
                        fs.prepare_direct_write(&inode, pos, len)?;
                        let mappings = fs.map_for_write(&inode, pos, len)?;
                        let room = match lock {
                            LockMode::Exclusive => fs.room_to_convert(&inode, pos, len, &mappings)?,
                            LockMode::Shared => fs
                                .claim_split(&inode, &mappings)
                                .map_err(|_| Error::errno_only(errno::EAGAIN))?,
                        };
                        fs.end_io_too_early(&inode, pos, len)?;
                        Ok((mappings, room))
                    })())
                });
            }
        }
    }

    /// Atomic writes go through the journal and so have a lock of their own (C24); the journal's data is not for them.
    fn check_atomic(&self, inode: &Inode, lock: LockMode, nowait: bool) -> Result<()> {
        if nowait {
            return Err(Error::errno_only(errno::EAGAIN));
        }
        if lock == LockMode::Shared {
            self.counters.refused_shared.fetch_add(1, Ordering::Relaxed);
            return Err(Error::errno_only(errno::EAGAIN));
        }
        match self.fs.journals_data(inode) {
            true => Err(Error::errno_only(errno::EOPNOTSUPP)),
            false => Ok(()),
        }
    }

    /// Starts a direct read. It ends as a [`Finished`] with the memory and the bytes read.
    pub fn direct_read(&mut self, read: DirectRead) {
        let DirectRead { op, file, nowait, pos, memory } = read;
        let len = memory.len() as u64;
        let checked = self.file(file).cloned().and_then(|inode| {
            self.fs.check_alive()?;
            inode.check_data_supported()?;
            let size_bytes = inode.size();
            let available = len.min(size_bytes.saturating_sub(pos));
            if available > 0 && available < len && pos.saturating_add(len) > self.fs.max_bytes(&inode) {
                // The map has no such block, and a direct read asks it before it trims to i_size.
                return Err(Error::errno_only(if inode.is_bitmap_format() {
                    errno::EIO
                } else {
                    errno::EINVAL
                }));
            }
            let mappings = match available {
                0 => Some(Vec::new()),
                _ if self.fs.has_dirty_pages(&inode, pos, available) => None,
                _ => self
                    .fs
                    .map_range(&inode, pos, available, Look::Cached)?
                    .filter(|mappings| !self.fs.is_newer_in_journal(&inode, mappings)),
            };
            if nowait && mappings.is_none() {
                return Err(Error::errno_only(errno::EAGAIN));
            }
            Ok((inode, size_bytes, available, mappings))
        });
        let (inode, size_bytes, available, mappings) = match checked {
            Ok(found) => found,
            Err(error) => return self.finish(op, Err(error), Some(memory)),
        };
        let slot = self.insert(op, inode.clone(), Kind::Read { pos, size_bytes }, memory);
        match mappings {
            Some(mappings) => self.step(slot, Step::Mapped(Ok((mappings, None)))),
            None => self.run_step(slot, false, move |fs| {
                // B4: what is dirty must be on the device before it is read from there.
                let mapped = fs
                    .write_and_wait(&inode, pos, available)
                    .and_then(|()| fs.map_range(&inode, pos, available, Look::Disk))
                    .map(Option::unwrap_or_default);
                Step::Mapped(mapped.and_then(|mappings| match fs.is_newer_in_journal(&inode, &mappings) {
                    true => fs.settle_data(&inode).map(|()| (mappings, None)),
                    false => Ok((mappings, None)),
                }))
            }),
        }
    }

    fn insert(&mut self, op: u64, inode: Arc<Inode>, kind: Kind, memory: Memory) -> usize {
        let len = memory.len() as u64;
        self.direct.insert(Direct {
            op,
            inode,
            kind,
            len,
            memory: Some(memory),
            shared: None,
            outstanding: 0,
            room: None,
            error: None,
            bytes: len,
        })
    }

    /// Moves a direct operation on.
    pub(super) fn step(&mut self, slot: usize, step: Step) {
        let issued = match step {
            Step::Mapped(Ok((mappings, room))) => match self.direct[slot].kind {
                Kind::Write { .. } => {
                    self.direct[slot].room = room;
                    self.issue_writes(slot, &mappings)
                }
                Kind::Read { .. } => self.issue_reads(slot, &mappings),
            },
            Step::Mapped(Err(error))
            | Step::Logged(Err(error))
            | Step::Ended(Err(error))
            | Step::Synced(Err(error))
            | Step::Failed(error) => Err(error),
            Step::Ended(Ok(())) => return self.after_end_io(slot),
            Step::Logged(Ok(())) => {
                let inode = self.direct[slot].inode.clone();
                return self.sync_step(slot, inode, SyncScope::Logged);
            }
            Step::Synced(Ok(())) => return self.complete(slot),
        };
        match issued {
            Err(error) => self.fail(slot, error),
            Ok(()) if self.direct[slot].outstanding == 0 => self.device_finished(slot),
            Ok(()) => {}
        }
    }

    fn issue_writes(&mut self, slot: usize, mappings: &[Mapping]) -> Result<()> {
        let direct = &mut self.direct[slot];
        let Kind::Write { pos, dsync, unwritten, fua } = &mut direct.kind else { return Ok(()) };
        let memory = direct.memory.take().expect("no request uses it yet");
        // B10: only the mapped prefix, where a hole is the buffered path's.
        let mapped_end = mappings.last().map_or(*pos, Mapping::end_bytes);
        direct.len = direct.len.min(mapped_end.saturating_sub(*pos));
        direct.bytes = direct.len;
        // A13, B8: FUA makes data durable, not the metadata that leads to it.
        let metadata_is_durable = {
            let state = direct.inode.state.lock();
            *pos + direct.len <= state.disk.size
                && self.fs.journal.last_committed().is_at_or_after(state.datasync_tid)
        };
        let request = WriteRequest {
            pos: *pos,
            data: &memory.bytes()[..direct.len as usize],
            size_bytes: direct.inode.size(),
            block_size: self.fs.block_size() as u32,
            logical_block: self.fs.device().limits().logical_block_bytes,
            dsync: *dsync && metadata_is_durable,
        };
        // B1, judged after mapping: what meets a hole of a block map never comes here (E20).
        let alignment = self.fs.device().limits().memory_alignment_bytes.max(1) as usize;
        let planned = match memory.bytes().as_ptr().addr().is_multiple_of(alignment) {
            true => WritePlan::new(&request, mappings),
            false => Err(errno::EINVAL),
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(errno) => {
                direct.memory = Some(memory);
                return Err(Error::errno_only(errno));
            }
        };
        (*unwritten, *fua) = (plan.unwritten, plan.fua);
        direct.outstanding = plan.pieces.len();
        let operation = Operation::Write { fua: plan.fua };
        let id = slot as u64;
        if let [iomap::WritePiece { device_offset_bytes, source: iomap::Source::Data(range) }] =
            &plan.pieces[..]
            && range.len() == memory.len()
        {
            self.queue.push(Request { id, operation, offset_bytes: *device_offset_bytes, memory });
            return Ok(());
        }
        let shared = SharedMemory::new(memory);
        for piece in plan.pieces {
            let memory = match piece.source {
                iomap::Source::Data(range) => shared.part(range),
                iomap::Source::Edge(edge) => Memory::Owned(edge),
            };
            self.queue.push(Request { id, operation, offset_bytes: piece.device_offset_bytes, memory });
        }
        direct.shared = Some(shared);
        Ok(())
    }

    fn issue_reads(&mut self, slot: usize, mappings: &[Mapping]) -> Result<()> {
        let direct = &mut self.direct[slot];
        let Kind::Read { pos, size_bytes } = direct.kind else { return Ok(()) };
        let request = ReadRequest {
            pos,
            len: direct.len,
            size_bytes,
            logical_block: self.fs.device().limits().logical_block_bytes,
        };
        let plan = ReadPlan::new(&request, mappings).map_err(Error::errno_only)?;
        direct.bytes = plan.bytes;
        direct.outstanding = plan.pieces.len();
        let mut memory = direct.memory.take().expect("no request uses it yet");
        for zeros in plan.zeros {
            memory.bytes_mut()[zeros].fill(0);
        }
        let (id, operation) = (slot as u64, Operation::Read);
        match &plan.pieces[..] {
            [] => direct.memory = Some(memory),
            [piece] if piece.range.len() == memory.len() => {
                self.queue.push(Request { id, operation, offset_bytes: piece.device_offset_bytes, memory });
            }
            pieces => {
                let shared = SharedMemory::new(memory);
                for piece in pieces {
                    let memory = shared.part(piece.range.clone());
                    self.queue.push(Request {
                        id,
                        operation,
                        offset_bytes: piece.device_offset_bytes,
                        memory,
                    });
                }
                direct.shared = Some(shared);
            }
        }
        Ok(())
    }

    /// One device request is over.
    pub(super) fn device_done(&mut self, completion: Completion) {
        let slot = completion.id as usize;
        let direct = &mut self.direct[slot];
        if let Err(error) = completion.result {
            direct.error.get_or_insert(error.into());
        }
        if direct.shared.is_none() {
            direct.memory = Some(completion.memory);
        } else {
            drop(completion.memory);
        }
        direct.outstanding -= 1;
        if direct.outstanding == 0 {
            self.device_finished(slot);
        }
    }

    /// All data is there: conversion and sizes (C25.8), in place where there is nothing to do (B13).
    fn device_finished(&mut self, slot: usize) {
        let direct = &mut self.direct[slot];
        if let Some(shared) = direct.shared.take() {
            direct.memory = shared.into_whole();
        }
        if let Some(error) = direct.error.take() {
            return self.fail(slot, error);
        }
        let Kind::Write { pos, unwritten, .. } = direct.kind else { return self.complete(slot) };
        let len = direct.len;
        let (size, disk_size) = self.fs.sizes(&direct.inode);
        let end = pos + len;
        if !unwritten && end <= size && end <= disk_size {
            self.counters.ended_in_place.fetch_add(1, Ordering::Relaxed);
            return self.after_end_io(slot);
        }
        let (inode, mut room) = (direct.inode.clone(), direct.room.take());
        self.run_step(slot, true, move |fs| {
            let splitting = unwritten.then(|| room.as_mut().map_or(Splitting::Reserve, SplitRoom::splitting));
            Step::Ended(fs.end_io(&inode, pos, len, splitting))
        });
    }

    fn after_end_io(&mut self, slot: usize) {
        let direct = &self.direct[slot];
        match direct.kind {
            // A write with FUA is durable already (B8).
            Kind::Write { dsync: true, fua: false, .. } => {
                let inode = direct.inode.clone();
                self.sync_step(slot, inode, SyncScope::Data);
            }
            _ => self.complete(slot),
        }
    }

    fn complete(&mut self, slot: usize) {
        let direct = self.end(slot);
        self.finish(direct.op, Ok(direct.bytes), direct.memory);
    }

    fn fail(&mut self, slot: usize, error: Error) {
        let direct = self.end(slot);
        self.finish(direct.op, Err(error), direct.memory);
    }

    fn end(&mut self, slot: usize) -> Direct {
        let direct = self.direct.remove(slot);
        if let Kind::Write { pos, .. } = direct.kind {
            // B11: a buffered read may have cached what was there before; a write that failed may have changed a part of it
            // (B9). A page in use is its user's to refresh.
            let _best_effort = self.fs.invalidate(&direct.inode, pos, direct.len);
        }
        direct
    }

    fn finish(&mut self, op: u64, result: Result<u64>, memory: Option<Memory>) {
        self.finished.push(Finished { op, result, memory, value: Value::None });
    }
}
