//! A volume driven as the policy drives it, one operation at a time: what tests in Rust write files with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use block_io::{
    AlignedBuf, Device, EventFd, FileDevice, Memory, OpenOptions, Queue, ThreadsQueue, UringQueue,
};
use ext4::aio::{DirectRead, DirectWrite, Engine, FileId, Finished, LockMode, Value};
use ext4::mkfs::{self, FormatOptions};
use ext4::{Fs, Inode, Look, MountOptions, MountReport, NewInode, Probe, Result};

/// Time that test volumes are made at.
pub const FORMAT_TIME: u64 = 1_700_000_000;

/// A direct write that was submitted.
pub struct DirectWriteInFlight {
    /// `None`: it went through the page cache (A3).
    op: Option<u64>,
    inode: Arc<Inode>,
    len: u64,
    extending: bool,
    /// Others may run beside it.
    pub shared: bool,
}

/// No operation of a test takes as long.
const STUCK: std::time::Duration = std::time::Duration::from_secs(100);

/// A mounted volume and its engine.
pub struct Runner {
    engine: Engine,
    event: Arc<EventFd>,
    /// What the mount had to do.
    pub report: MountReport,
    next_op: u64,
    finished: Vec<Finished>,
}

/// Which queue carries direct I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring, threads where it is refused.
    Uring,
    /// pread and pwrite in threads.
    Threads,
}

/// Opens a container for reading and writing.
pub fn open_device(image: &Path) -> Arc<FileDevice> {
    let options = OpenOptions { read_only: false, force: false, direct: true };
    // A tool that another test starts just now holds a copy of every file of this process until it executes, locks
    // included; each try waits for the lock.
    let mut tries = 0..3;
    loop {
        match FileDevice::open(image, options) {
            Ok(device) => return Arc::new(device),
            Err(error) if error.errno == ext4::errno::EBUSY && tries.next().is_some() => {}
            Err(error) => panic!("{}: {error}", image.display()),
        }
    }
}

/// Makes a container of `size_bytes` and formats it.
pub fn format(image: &Path, size_bytes: u64, change: impl FnOnce(&mut FormatOptions)) {
    block_io::create_container(image, size_bytes).expect("a container");
    let mut options = FormatOptions::new(FORMAT_TIME);
    options.assume_zeroed = true;
    change(&mut options);
    mkfs::format(open_device(image).as_ref(), &options).unwrap_or_else(|error| panic!("mkfs: {error}"));
}

impl Runner {
    /// Mounts the volume in a container.
    pub fn mount(image: &Path, backend: Backend) -> Self {
        let device = open_device(image);
        let event = Arc::new(EventFd::new().expect("an eventfd"));
        let queue: Box<dyn Queue> = match backend {
            Backend::Uring => match UringQueue::new(device.clone(), event.clone()) {
                Ok(queue) => Box::new(queue),
                Err(error) => {
                    eprintln!("io_uring is refused, threads instead: {error}");
                    Box::new(ThreadsQueue::new(device.clone(), event.clone()).expect("threads"))
                }
            },
            Backend::Threads => Box::new(ThreadsQueue::new(device.clone(), event.clone()).expect("threads")),
        };
        Self::over(device, queue, event).unwrap_or_else(|error| panic!("mount: {error}"))
    }

    /// Mounts the volume of a container without writing to it.
    ///
    /// # Errors
    /// Those of a mount.
    pub fn mount_read_only(image: &Path) -> Result<Self> {
        let device =
            Arc::new(FileDevice::open(image, OpenOptions { read_only: true, force: false, direct: true })?);
        let event = Arc::new(EventFd::new()?);
        let queue = Box::new(ThreadsQueue::new(device.clone(), event.clone())?);
        Self::with_options(device, queue, event, &MountOptions { read_only: true, ..MountOptions::default() })
    }

    /// Mounts the volume on any device, with a queue over it.
    ///
    /// # Errors
    /// Those of a mount.
    pub fn over(device: Arc<dyn Device>, queue: Box<dyn Queue>, event: Arc<EventFd>) -> Result<Self> {
        Self::with_options(device, queue, event, &MountOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// Those of a mount.
    pub fn with_options(
        device: Arc<dyn Device>,
        queue: Box<dyn Queue>,
        event: Arc<EventFd>,
        options: &MountOptions,
    ) -> Result<Self> {
        let (fs, report) = Fs::mount(device, options)?;
        let wake = event.clone();
        let engine = Engine::start(fs, queue, Box::new(move || wake.signal()))?;
        Ok(Self { engine, event, report, next_op: 0, finished: Vec::new() })
    }

    /// The volume.
    pub fn fs(&self) -> &Arc<Fs> {
        self.engine.fs()
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// A number for an operation.
    pub fn op(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    /// Waits until an operation is over.
    pub fn wait(&mut self, op: u64) -> Finished {
        loop {
            if let Some(index) = self.finished.iter().position(|finished| finished.op == op) {
                return self.finished.swap_remove(index);
            }
            self.progress(|finished| finished.iter().any(|finished| finished.op == op));
        }
    }

    /// Waits until any operation is over.
    pub fn wait_any(&mut self) -> Finished {
        loop {
            if let Some(finished) = self.finished.pop() {
                return finished;
            }
            self.progress(|finished| !finished.is_empty());
        }
    }

    fn progress(&mut self, is_enough: impl Fn(&[Finished]) -> bool) {
        self.engine.collect(&mut self.finished);
        // What collecting moved along may have queued requests.
        self.engine.submit().expect("submit");
        if !is_enough(&self.finished) {
            assert!(self.event.wait(Some(STUCK)), "nothing has finished for {STUCK:?}: a deadlock");
            self.event.clear();
        }
    }

    /// Creates a file, or opens the one that is there.
    pub fn create(&mut self, path: &str) -> Result<FileId> {
        let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
        let (inode, _made) = self.fs().create(path.as_bytes(), new, false)?;
        Ok(self.engine.adopt(inode))
    }

    /// Creates an empty file and closes it again.
    pub fn touch(&self, path: &str) -> Result<()> {
        let new = NewInode { mode: 0o100644, uid: 0, gid: 0 };
        let (inode, _made) = self.fs().create(path.as_bytes(), new, false)?;
        self.fs().release(&inode)
    }

    /// The names in a directory but "." and "..".
    pub fn names(&self, path: &str) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        self.fs().read_dir(path.as_bytes(), &mut |name, _ino, _type| {
            if name != b"." && name != b".." {
                assert!(names.insert(String::from_utf8_lossy(name).into_owned()), "listed twice: {name:?}");
            }
            true
        })?;
        Ok(names)
    }

    /// Opens a file that is there.
    pub fn open(&mut self, path: &str) -> Result<FileId> {
        let inode = self.fs().open(path.as_bytes(), true)?;
        Ok(self.engine.adopt(inode))
    }

    /// mkdir with 0755.
    pub fn mkdir(&self, path: &str) -> Result<Arc<Inode>> {
        self.fs().mkdir(path.as_bytes(), NewInode { mode: 0o755, uid: 0, gid: 0 })
    }

    /// The inode of an open file.
    pub fn inode(&self, file: FileId) -> Arc<Inode> {
        self.engine.file(file).expect("an open file").clone()
    }

    /// Writes by direct I/O as C25 does for one caller alone: shared for an overwrite, else exclusive with the orphan
    /// before and the truncation after. Returns the bytes written.
    pub fn direct_write(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<u64> {
        self.direct_write_with(file, pos, data, false)
    }

    /// The same; with `dsync`, durable when it returns.
    ///
    /// # Errors
    /// Those of the write.
    pub fn direct_write_with(&mut self, file: FileId, pos: u64, data: &[u8], dsync: bool) -> Result<u64> {
        let write = self.begin_direct_write(file, pos, data, dsync)?;
        self.end_direct_write(&write)
    }

    /// The same up to its submission. The caller holds the file's lock for it, exclusive unless it is a plain overwrite.
    ///
    /// # Errors
    /// Those before a submission.
    pub fn begin_direct_write(
        &mut self,
        file: FileId,
        pos: u64,
        data: &[u8],
        dsync: bool,
    ) -> Result<DirectWriteInFlight> {
        let inode = self.inode(file);
        let fs = self.fs().clone();
        let len = data.len() as u64;
        let (size, disk_size) = fs.sizes(&inode);
        let extending = pos + len > size || pos + len > disk_size;
        let probe = fs.probe_write(&inode, pos, len, Look::Disk)?;
        if probe.has(Probe::DIO_UNSUPPORTED) {
            // A3.
            fs.file_modified(&inode)?;
            let written = fs.buffered_write(&inode, pos, data)? as u64;
            if dsync {
                self.sync_with(file, true)?;
            }
            return Ok(DirectWriteInFlight {
                op: None,
                inode,
                len: written,
                extending: false,
                shared: false,
            });
        }
        let block = fs.block_size() as u64;
        let aligned = (pos | len).is_multiple_of(block);
        let shared = !extending && probe.has(Probe::OVERWRITE) && (aligned || !probe.has(Probe::UNWRITTEN));
        fs.file_modified(&inode)?;
        if extending {
            fs.add_orphan(&inode)?;
        }
        let op = self.op();
        let lock = if shared { LockMode::Shared } else { LockMode::Exclusive };
        let memory = Memory::Owned(AlignedBuf::copy_of(data));
        self.engine.direct_write(DirectWrite {
            op,
            file,
            lock,
            dsync,
            nowait: false,
            atomic: false,
            pos,
            memory,
        });
        Ok(DirectWriteInFlight { op: Some(op), inode, len, extending, shared })
    }

    /// A direct write of whole blocks inside i_size, under the exclusive lock.
    ///
    /// # Errors
    /// Those of the write.
    pub fn exclusive_direct_write(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<u64> {
        let op = self.op();
        let memory = Memory::Owned(AlignedBuf::copy_of(data));
        let (lock, dsync, nowait, atomic) = (LockMode::Exclusive, false, false, false);
        self.engine.direct_write(DirectWrite { op, file, lock, dsync, nowait, atomic, pos, memory });
        self.wait(op).result
    }

    /// An atomic write (C24), as the policy does it: exclusive, the orphan before, the truncation after a failure.
    ///
    /// # Errors
    /// Those of the write.
    pub fn atomic_write(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<u64> {
        let inode = self.inode(file);
        let fs = self.fs().clone();
        let len = data.len() as u64;
        let (size, disk_size) = fs.sizes(&inode);
        let extending = pos + len > size || pos + len > disk_size;
        fs.file_modified(&inode)?;
        if extending {
            fs.add_orphan(&inode)?;
        }
        let op = self.op();
        let memory = Memory::Owned(AlignedBuf::copy_of(data));
        let (lock, dsync, nowait, atomic) = (LockMode::Exclusive, false, false, true);
        self.engine.direct_write(DirectWrite { op, file, lock, dsync, nowait, atomic, pos, memory });
        self.end_direct_write(&DirectWriteInFlight { op: Some(op), inode, len, extending, shared: false })
    }

    /// Waits for it, and cleans up what a failed or short extension left.
    ///
    /// # Errors
    /// Those of the write.
    pub fn end_direct_write(&mut self, write: &DirectWriteInFlight) -> Result<u64> {
        let Some(op) = write.op else { return Ok(write.len) };
        let result = self.wait(op).result;
        if write.extending && !matches!(result, Ok(written) if written == write.len) {
            self.fs().truncate_to_size(&write.inode)?;
        }
        result
    }

    /// Lets the engine work until `is_enough`, or the write is over.
    pub fn progress_until(&mut self, write: &DirectWriteInFlight, is_enough: impl Fn() -> bool) {
        self.engine.submit().expect("submit");
        let Some(op) = write.op else { return };
        let is_over = |finished: &[Finished]| finished.iter().any(|finished| finished.op == op);
        while !is_enough() && !is_over(&self.finished) {
            self.progress(|finished| is_enough() || is_over(finished));
        }
    }

    /// Reads by direct I/O; the result is trimmed to what the file has.
    pub fn direct_read(&mut self, file: FileId, pos: u64, len: usize) -> Result<Vec<u8>> {
        let op = self.op();
        let memory = Memory::Owned(AlignedBuf::zeroed(len));
        self.engine.direct_read(DirectRead { op, file, nowait: false, pos, memory });
        let finished = self.wait(op);
        let bytes = finished.result? as usize;
        Ok(finished.memory.expect("a read returns its memory").bytes()[..bytes].to_vec())
    }

    /// A whole file: its body in multiples of 4096 by direct writes, the rest through the page cache.
    pub fn write_file(&mut self, path: &str, data: &[u8]) -> Result<()> {
        let file = self.create(path)?;
        let body = data.len() / 4096 * 4096;
        for (index, part) in data[..body].chunks(1 << 20).enumerate() {
            self.direct_write(file, (index << 20) as u64, part)?;
        }
        if body < data.len() {
            let inode = self.inode(file);
            self.fs().buffered_write(&inode, body as u64, &data[body..])?;
        }
        self.close(file)
    }

    /// A whole file, through the page cache alone. ENOSPC if it takes less than all.
    pub fn write_file_buffered(&mut self, path: &str, data: &[u8]) -> Result<()> {
        let file = self.create(path)?;
        let inode = self.inode(file);
        let written = self.fs().buffered_write(&inode, 0, data);
        drop(inode);
        let closed = self.close(file);
        match written? {
            taken if taken == data.len() => closed,
            taken => Err(ext4::Error::refused(28, format!("{taken} bytes taken"))),
        }
    }

    /// A whole file, through the page cache.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let inode = self.fs().lookup(path.as_bytes(), true)?;
        let mut data = vec![0; inode.size() as usize];
        let read = self.fs().buffered_read(&inode, 0, &mut data)?;
        data.truncate(read);
        Ok(data)
    }

    /// fsync.
    pub fn sync(&mut self, file: FileId) -> Result<()> {
        self.sync_with(file, false)
    }

    /// fsync, or fdatasync with `datasync`.
    ///
    /// # Errors
    /// Those of the sync.
    pub fn sync_with(&mut self, file: FileId, datasync: bool) -> Result<()> {
        let op = self.begin_sync(file, datasync)?;
        self.end_sync(op)
    }

    /// The same up to its start, and the rest of it.
    ///
    /// # Errors
    /// EBADF.
    pub fn begin_sync(&mut self, file: FileId, datasync: bool) -> Result<u64> {
        let op = self.op();
        self.engine.sync(op, file, datasync)?;
        self.engine.submit()?;
        Ok(op)
    }

    /// Waits for a sync.
    ///
    /// # Errors
    /// Those of the sync.
    pub fn end_sync(&mut self, op: u64) -> Result<()> {
        self.wait(op).result.map(|_| ())
    }

    /// Closes a file, and waits for what that does.
    pub fn close(&mut self, file: FileId) -> Result<()> {
        let op = self.op();
        self.engine.close_file(op, file)?;
        self.wait(op).result.map(|_| ())
    }

    /// Unmounts cleanly.
    pub fn unmount(mut self) -> Result<()> {
        let op = self.op();
        self.engine.run(op, |fs| fs.unmount().map(|()| (0, Value::None)));
        self.wait(op).result.map(|_| ())
    }

    /// Stops without a commit, as a crash of the process does.
    pub fn crash(self) {
        drop(self);
    }
}
