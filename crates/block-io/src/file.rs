//! A container file or a block device.
#![expect(unsafe_code, reason = "system calls of the C library")]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fcntl_setfl};

use crate::dio_limits::dio_limits;
use crate::host_use::{refuse_looped, refuse_taken};
use crate::lock::LockedFile;
use crate::os_error::{last_errno, os};
use crate::sync::Mutex;
use crate::whole::{Whole, block_device_size};
use crate::{AlignedBuf, Device, Error, IoCounts, IoTotals, Limits, Operation, Request, Result};

/// How a container is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Never write; share the container with other readers.
    pub read_only: bool,
    /// Open what the host's kernel has in use, too.
    pub force: bool,
    /// Ask for O_DIRECT; without it, or where the host refuses it, the host's page cache is in between.
    pub direct: bool,
}

/// An open container file or block device.
pub struct FileDevice {
    file: LockedFile,
    /// The file under a loop device.
    _backing: Option<LockedFile>,
    limits: Limits,
    fallback: Option<String>,
    is_block_device: bool,
    /// Held through a flush: the host reports a lost page once per opening, so of two flushes at a time one could
    /// succeed over what the other was told.
    flushing: Mutex<()>,
    /// The first failed flush is the last: the host may have dropped what it could not write.
    failed_flush: OnceLock<Error>,
    counts: Arc<IoCounts>,
    whole: Whole,
}

impl FileDevice {
    /// Opens and locks `path`.
    ///
    /// # Errors
    /// Those of open(2); EBUSY if another opening, here or in another process, excludes this one, or if the
    /// host's kernel has it in use (a loop device, a mount) and it is not forced; EISDIR for a
    /// directory; EINVAL if it is neither a regular file nor a block device, or its sectors exceed 4096 bytes.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let (file, fallback) = open_file(path, options)?;
        let metadata = file.metadata().map_err(|error| os("stat", &error))?;
        check_kind(metadata.file_type())?;
        let is_block_device = metadata.file_type().is_block_device();
        let file = match is_block_device {
            true => LockedFile::exclusive_already(file),
            false => LockedFile::new(file, options.read_only)?,
        };
        let _backing = match is_block_device {
            _ if options.force => None,
            true => refuse_taken(path, &file, options.read_only)?,
            false => refuse_looped(&metadata, options.read_only).map(|()| None)?,
        };
        let size_bytes = if is_block_device { block_device_size(&file)? } else { metadata.len() };
        let (file, fallback, dio) = match (options.direct && fallback.is_none()).then(|| dio_limits(&file)) {
            Some(Some(dio)) => (file, None, Some(dio)),
            Some(None) => {
                clear_direct(&file)?;
                (file, Some("the host offers no direct I/O on this file".to_owned()), None)
            }
            None => (file, fallback, None),
        };
        let sector = if is_block_device { block_device_sector(&file)? } else { 512 };
        if sector > MAX_SECTOR_BYTES {
            return Err(Error::new("open", libc::EINVAL).with_detail(format!("sectors of {sector} bytes")));
        }
        let limits = Limits {
            size_bytes,
            logical_block_bytes: dio.map_or(512, |dio| dio.offset).max(sector),
            memory_alignment_bytes: dio.map_or(1, |dio| dio.memory),
            volatile_cache: true,
            read_only: options.read_only,
            direct: dio.is_some(),
        };
        Ok(Self {
            file,
            _backing,
            limits,
            fallback,
            is_block_device,
            flushing: Mutex::new(()),
            failed_flush: OnceLock::new(),
            counts: Arc::default(),
            whole: Whole::new(size_bytes, is_block_device),
        })
    }

    /// Why requests go through the host's page cache although direct I/O was asked for.
    pub fn direct_fallback_reason(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// What it was asked for, by this face and by queues over it.
    pub fn io_counts(&self) -> &Arc<IoCounts> {
        &self.counts
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// The flush or FUA write that failed, after which none is tried again.
    pub(crate) fn failed_flush(&self) -> Option<&Error> {
        self.failed_flush.get()
    }

    /// Carries out what is left of a queue's request, which the queue has checked and counted, in the caller's thread.
    pub(crate) fn carry_out(&self, request: &mut Request, moved: usize) -> Result<()> {
        let offset_bytes = request.offset_bytes + moved as u64;
        match request.operation {
            Operation::Read => self.read_all(offset_bytes, &mut request.memory.bytes_mut()[moved..]),
            Operation::Write { fua } => self.write_all(offset_bytes, &request.memory.bytes()[moved..], fua),
            Operation::Flush => self.flush_now(),
        }
    }

    fn flush_now(&self) -> Result<()> {
        let _one_at_a_time = self.flushing.lock();
        self.whole.refuse_if_lost()?;
        if let Some(error) = self.failed_flush() {
            return Err(error.clone());
        }
        self.file.sync_data().map_err(|error| self.latch(os("flush", &error)))?;
        self.check_whole()
    }

    /// Before a write that ends at `end_bytes`: EIO where the container was cut.
    pub(crate) fn before_write(&self, end_bytes: u64) -> Result<()> {
        self.whole.before_write(&self.file, end_bytes)
    }

    /// Latches the failure of a flush or FUA write and returns the first one.
    pub(crate) fn latch(&self, error: Error) -> Error {
        self.failed_flush.get_or_init(|| error).clone()
    }

    /// The same for a FUA write, whose own refusal (no space, bad argument) says nothing about earlier writes.
    pub(crate) fn latch_fua(&self, error: Error) -> Error {
        match error.errno {
            libc::EINVAL | libc::ENOSPC | libc::EDQUOT | libc::EFBIG => error,
            _ => self.latch(error),
        }
    }

    fn check_writable(&self, operation: &'static str, offset_bytes: u64, len: u64) -> Result<()> {
        self.limits.check(operation, offset_bytes, len)?;
        if self.limits.read_only { Err(Error::at(operation, offset_bytes, libc::EROFS)) } else { Ok(()) }
    }

    /// Repeats `part`, which gets how many bytes are done and says how many more are, until `len` are.
    fn transfer(
        &self,
        operation: &'static str,
        offset_bytes: u64,
        len: usize,
        mut part: impl FnMut(usize) -> isize,
    ) -> Result<()> {
        let lbs = self.limits.logical_block_bytes as usize;
        let mut done = 0;
        while done < len {
            match part(done) {
                // A container that became shorter under us, or a host that writes nothing. What is not a multiple
                // of the logical block cannot be continued directly.
                0 => {
                    self.check_whole()?;
                    return Err(Error::at(operation, offset_bytes, libc::EIO).with_detail("ended early"));
                }
                moved @ 1.. => {
                    done += moved as usize;
                    if done < len {
                        self.check_whole()?;
                    }
                    if done < len && self.limits.direct && !done.is_multiple_of(lbs) {
                        return Err(Error::at(operation, offset_bytes, libc::EIO).with_detail("ended early"));
                    }
                }
                _ => match last_errno() {
                    libc::EINTR => {}
                    errno => return Err(Error::at(operation, offset_bytes, errno)),
                },
            }
        }
        Ok(())
    }

    fn read_all(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        let fd = self.as_raw_fd();
        self.transfer("read", offset_bytes, buf.len(), |done| {
            let rest = &mut buf[done..];
            let offset = (offset_bytes + done as u64) as libc::off_t;
            // SAFETY: `rest` outlives the call.
            unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), offset) }
        })
    }

    fn is_aligned(&self, memory: *const u8) -> bool {
        (memory as usize).is_multiple_of(self.limits.memory_alignment_bytes as usize)
    }

    fn write_all(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.before_write(offset_bytes + buf.len() as u64)?;
        // Through the page cache RWF_DSYNC is a flush that `flushing` would not know of.
        if !fua || !self.limits.direct {
            self.write_parts(offset_bytes, buf, 0)?;
            return if fua { self.flush() } else { Ok(()) };
        }
        match self.write_parts(offset_bytes, buf, libc::RWF_DSYNC) {
            Ok(()) => self.check_whole(),
            Err(refused) if matches!(refused.errno, libc::EOPNOTSUPP | libc::ENOSYS) => {
                self.write_parts(offset_bytes, buf, 0)?;
                self.flush()
            }
            Err(error) => Err(self.latch_fua(error)),
        }
    }

    fn write_parts(&self, offset_bytes: u64, buf: &[u8], flags: i32) -> Result<()> {
        let fd = self.as_raw_fd();
        self.transfer("write", offset_bytes, buf.len(), |done| {
            let rest = &buf[done..];
            let part = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            let offset = (offset_bytes + done as u64) as libc::off_t;
            // SAFETY: bytes and vector outlive the calls; a write only reads them.
            match flags {
                0 => unsafe { libc::pwrite(fd, part.iov_base, part.iov_len, offset) },
                _ => unsafe { libc::pwritev2(fd, &part, 1, offset, flags) },
            }
        })
    }
}

impl AsRawFd for FileDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Device for FileDevice {
    fn lost(&self) -> Option<&Error> {
        self.whole.lost()
    }

    fn check_whole(&self) -> Result<()> {
        self.whole.check(&self.file)
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn io_totals(&self) -> Option<IoTotals> {
        Some(self.io_counts().totals())
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.limits.check("read", offset_bytes, buf.len() as u64)?;
        self.whole.refuse_if_lost()?;
        self.counts.add(Operation::Read, buf.len());
        if self.is_aligned(buf.as_ptr()) {
            return self.read_all(offset_bytes, buf);
        }
        let mut bounce = AlignedBuf::zeroed(buf.len());
        self.read_all(offset_bytes, &mut bounce)?;
        buf.copy_from_slice(&bounce);
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.check_writable("write", offset_bytes, buf.len() as u64)?;
        if fua && let Some(error) = self.failed_flush() {
            return Err(error.clone());
        }
        self.counts.add(Operation::Write { fua }, buf.len());
        match self.is_aligned(buf.as_ptr()) {
            true => self.write_all(offset_bytes, buf, fua),
            false => self.write_all(offset_bytes, &AlignedBuf::copy_of(buf), fua),
        }
    }

    fn flush(&self) -> Result<()> {
        if self.limits.read_only {
            return Ok(());
        }
        self.counts.add(Operation::Flush, 0);
        self.flush_now()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.check_writable("discard", offset_bytes, len_bytes)?;
        self.whole.refuse_if_lost()?;
        if len_bytes == 0 {
            return Ok(());
        }
        let result = if self.is_block_device {
            let range = [offset_bytes, len_bytes];
            // SAFETY: the ioctl reads two u64.
            match unsafe { libc::ioctl(self.as_raw_fd(), BLKDISCARD, &range) } {
                0 => Ok(()),
                _ => Err(last_errno()),
            }
        } else {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&*self.file, mode, offset_bytes, len_bytes).map_err(|errno| errno.raw_os_error())
        };
        result.map_err(|errno| match errno {
            libc::ENOSYS | libc::ENOTTY => Error::at("discard", offset_bytes, libc::EOPNOTSUPP),
            errno => Error::at("discard", offset_bytes, errno),
        })
    }
}

/// The largest logical block that a volume's smallest request can be (lbs).
const MAX_SECTOR_BYTES: u32 = 4096;
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKSSZGET: libc::c_ulong = 0x1268;

/// The open file, and why it is not direct although that was asked for.
fn open_file(path: &Path, options: OpenOptions) -> Result<(File, Option<String>)> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::new("open", libc::EINVAL))?;
    // Asked before opening: opening a FIFO would wait for its other end.
    let kind =
        std::fs::metadata(path).map_err(|error| open_error(path, os("open", &error).errno))?.file_type();
    let is_block = kind.is_block_device();
    check_kind(kind)?;
    let mut flags = libc::O_CLOEXEC | if options.read_only { libc::O_RDONLY } else { libc::O_RDWR };
    if is_block && !options.read_only && !options.force {
        flags |= libc::O_EXCL;
    }
    let open = |flags: i32| {
        // SAFETY: a NUL-terminated path; the descriptor is owned by nobody else.
        let fd = unsafe { libc::open(name.as_ptr(), flags) };
        // SAFETY: just opened.
        if fd < 0 { Err(last_errno()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
    };
    if options.direct {
        match open(flags | libc::O_DIRECT) {
            Ok(file) => return Ok((file, None)),
            Err(libc::EINVAL) => {}
            Err(errno) => return Err(open_error(path, errno)),
        }
    }
    let reason = options.direct.then(|| "the host refuses O_DIRECT on this file".to_owned());
    open(flags).map(|file| (file, reason)).map_err(|errno| open_error(path, errno))
}

fn check_kind(kind: std::fs::FileType) -> Result<()> {
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    let errno = if kind.is_dir() { libc::EISDIR } else { libc::EINVAL };
    Err(Error::new("open", errno).with_detail("neither a regular file nor a block device"))
}

fn open_error(path: &Path, errno: i32) -> Error {
    Error::new("open", errno).with_detail(path.display().to_string())
}

fn clear_direct(file: &File) -> Result<()> {
    fcntl_getfl(file)
        .and_then(|flags| fcntl_setfl(file, flags - OFlags::DIRECT))
        .map_err(|errno| Error::new("fcntl", errno.raw_os_error()))
}

fn block_device_sector(file: &File) -> Result<u32> {
    let mut size = 0i32;
    // SAFETY: the ioctl writes one int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &mut size) };
    if result == 0 { Ok(size.max(512) as u32) } else { Err(Error::new("sector size", last_errno())) }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
