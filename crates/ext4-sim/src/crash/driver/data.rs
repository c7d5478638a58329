//! Operations on the data of files.

use std::ops::Range;

use ext4::aio::FileId;
use ext4::{DataMode, FallocateMode, Look, Probe};

use super::Driver;
use crate::crash::model::{How, Op};
use crate::pattern;
use crate::runner::DirectWriteInFlight;

/// A direct write that was submitted and may be held back.
pub struct Direct {
    path: String,
    range: Range<u64>,
    dsync: bool,
    op: Op,
    write: Option<DirectWriteInFlight>,
}

impl Direct {
    /// The file that it goes to.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its bytes.
    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Whether it is a plain overwrite: others may run beside it.
    pub fn is_shared(&self) -> bool {
        self.write.as_ref().is_some_and(|write| write.shared)
    }
}

impl Driver {
    /// Whether a direct write would be a plain overwrite, which takes the inode's lock shared (C25).
    pub fn is_overwrite(&self, file: FileId, pos: u64, len: usize) -> bool {
        let inode = self.runner.inode(file);
        let (size, _) = self.runner.fs().sizes(&inode);
        let probe = self.runner.fs().probe_write(&inode, pos, len as u64, Look::Disk);
        pos + len as u64 <= size && probe.is_ok_and(|probe| probe.has(Probe::OVERWRITE))
    }

    /// A3: direct writes of it do not go through the page cache.
    fn takes_direct(&self, file: FileId) -> bool {
        let probe = self.runner.fs().probe_write(&self.runner.inode(file), 0, 4096, Look::Disk);
        !probe.is_ok_and(|probe| probe.has(Probe::DIO_UNSUPPORTED))
    }

    /// How what is written through the page cache gets to the device.
    fn cached(&self) -> How {
        if self.volume.data == DataMode::Journal { How::Logged } else { How::Buffered }
    }

    /// Bytes that no other call writes.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        pattern::bytes(self.seed, len)
    }

    /// write past the page cache.
    pub fn direct(&mut self, path: &str, file: FileId, pos: u64, len: usize, dsync: bool) {
        let direct = self.begin_direct(path, file, pos, len, dsync);
        self.end_direct(direct);
    }

    /// The same up to its submission.
    pub fn begin_direct(&mut self, path: &str, file: FileId, pos: u64, len: usize, dsync: bool) -> Direct {
        let data = self.bytes(len);
        let op = self.begin(format!("direct write {path} {pos}+{len} dsync {dsync}"));
        // A crash in the middle may leave it, so the model knows it first.
        let how = if self.takes_direct(file) { How::Direct } else { self.cached() };
        self.model.write(path, pos, &data, how);
        self.model.in_flight(path, op);
        let write = match self.runner.begin_direct_write(file, pos, &data, dsync) {
            Ok(write) => Some(write),
            Err(error) => self.attempt(op, path, Err(error)),
        };
        if write.is_none() {
            self.model.failed(path, op);
        }
        Direct { path: path.into(), range: pos..pos + len as u64, dsync, op, write }
    }

    /// Waits for its end.
    pub fn end_direct(&mut self, direct: Direct) {
        let Direct { path, range, dsync, op, write } = direct;
        let Some(write) = write else { return };
        let written = self.runner.end_direct_write(&write);
        let Some(written) = self.attempt(op, &path, written) else {
            return self.model.failed(&path, op);
        };
        assert_eq!(written, range.end - range.start, "{path}: a short write");
        self.model.landed(&path, op);
        if dsync {
            let event = self.collect();
            self.model.kept_range(&path, op, event, range);
        }
    }

    /// Submits a direct write whose requests do not reach the device before [`Driver::land`]: others go on beside it.
    pub fn launch(&mut self, path: &str, file: FileId, pos: u64, len: usize, dsync: bool) -> Direct {
        self.holds.hold(Some(self.model.op() + 1));
        let direct = self.begin_direct(path, file, pos, len, dsync);
        if let Some(write) = &direct.write {
            let (holds, op) = (self.holds.clone(), direct.op);
            self.runner.progress_until(write, || holds.has(op));
        }
        self.holds.hold(None);
        direct
    }

    /// Lets it go on, and waits for its end.
    pub fn land(&mut self, direct: Direct) {
        self.holds.release(direct.op);
        self.end_direct(direct);
    }

    /// write through the page cache.
    pub fn buffered(&mut self, path: &str, file: FileId, pos: u64, len: usize) {
        let data = self.bytes(len);
        self.buffered_bytes(path, file, pos, &data);
    }

    /// The same with bytes of the caller's.
    pub fn buffered_bytes(&mut self, path: &str, file: FileId, pos: u64, data: &[u8]) {
        let op = self.begin(format!("buffered write {path} {pos}+{}", data.len()));
        self.model.write(path, pos, data, self.cached());
        let inode = self.runner.inode(file);
        let fs = self.runner.fs().clone();
        let written = fs.file_modified(&inode).and_then(|()| fs.buffered_write(&inode, pos, data));
        assert_eq!(self.done(op, path, written), data.len(), "{path}: a short write");
    }

    /// ftruncate.
    pub fn truncate(&mut self, path: &str, file: FileId, size: u64) {
        let op = self.begin(format!("truncate {path} {size}"));
        self.model.truncate(path, size, u64::from(self.volume.block_size));
        let inode = self.runner.inode(file);
        let result = self.runner.fs().truncate(&inode, size);
        self.done(op, path, result);
    }

    /// fallocate(2).
    pub fn fallocate(&mut self, path: &str, file: FileId, mode: FallocateMode, range: Range<u64>) {
        let op = self.begin(format!("fallocate {path} {mode:?} {range:?}"));
        self.model_fallocate(path, mode, range.clone());
        let (inode, fs) = (self.runner.inode(file), self.runner.fs().clone());
        let result = fs.fallocate(&inode, mode, range.start, range.end - range.start);
        self.done(op, path, result);
    }

    fn model_fallocate(&mut self, path: &str, mode: FallocateMode, range: Range<u64>) {
        let (start, end) = (range.start as usize, range.end as usize);
        let zero = |data: &mut Vec<u8>| {
            let end = end.min(data.len());
            data[start.min(end)..end].fill(0);
        };
        let grow = |data: &mut Vec<u8>, keep_size: bool| {
            if !keep_size && data.len() < end {
                data.resize(end, 0);
            }
        };
        match mode {
            FallocateMode::Allocate { keep_size } => {
                self.model.fallocate(path, range.start, |data| grow(data, keep_size));
            }
            FallocateMode::ZeroRange { keep_size } => self.model.fallocate(path, range.start, |data| {
                grow(data, keep_size);
                zero(data);
            }),
            FallocateMode::PunchHole => self.model.fallocate(path, range.start, zero),
            FallocateMode::CollapseRange => self.model.collapse(path, range),
            FallocateMode::InsertRange => self.model.insert(path, range),
        }
    }

    /// An atomic write (C24), durable when it returns. Where direct I/O falls back there is none: with O_DSYNC then.
    pub fn atomic(&mut self, path: &str, file: FileId, pos: u64, len: usize) {
        if !self.takes_direct(file) {
            return self.direct(path, file, pos, len, true);
        }
        let data = self.bytes(len);
        let op = self.begin(format!("atomic write {path} {pos}+{len}"));
        self.model.write(path, pos, &data, How::Atomic);
        let written = self.runner.atomic_write(file, pos, &data);
        assert_eq!(self.done(op, path, written), len as u64, "{path}: a short write");
        let event = self.collect();
        self.model.kept_range(path, op, event, pos..pos + len as u64);
    }
}
