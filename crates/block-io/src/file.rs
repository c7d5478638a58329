//! A container file or a block device.
#![expect(unsafe_code, reason = "system calls of the C library")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use crate::sync::Mutex;
use crate::{AlignedBuf, Device, Error, Limits, Result};

/// How a container is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Never write; share the container with other readers.
    pub read_only: bool,
    /// Ask for O_DIRECT; without it, or where the host refuses it, the host's page cache is in between.
    pub direct: bool,
}

/// An open container file or block device.
pub struct FileDevice {
    file: File,
    limits: Limits,
    fallback: Option<String>,
    is_block_device: bool,
    /// The first failed flush is the last: the host may have dropped what it could not write.
    failed_flush: Mutex<Option<Error>>,
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn os(operation: &'static str, error: &io::Error) -> Error {
    Error::new(operation, error.raw_os_error().unwrap_or(libc::EIO))
}

impl FileDevice {
    /// Opens and locks `path`.
    ///
    /// # Errors
    /// Those of open(2); EBUSY if another opening, here or in another process, excludes this one; EINVAL if it is neither a
    /// regular file nor a block device.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let (file, fallback) = open_file(path, options)?;
        let metadata = file.metadata().map_err(|error| os("stat", &error))?;
        let is_block_device = metadata.file_type().is_block_device();
        if !is_block_device && !metadata.is_file() {
            let errno = if metadata.is_dir() { libc::EISDIR } else { libc::EINVAL };
            return Err(Error::new("open", errno).with_detail("neither a regular file nor a block device"));
        }
        if !is_block_device {
            lock(&file, options.read_only)?;
        }
        let size_bytes = if is_block_device { block_device_size(&file)? } else { metadata.len() };
        let (file, fallback, dio) =
            match (options.direct && fallback.is_none()).then(|| dio_limits(&file, is_block_device)) {
                Some(Some(dio)) => (file, None, Some(dio)),
                Some(None) => {
                    clear_direct(&file)?;
                    (file, Some("the host offers no direct I/O on this file".to_owned()), None)
                }
                None => (file, fallback, None),
            };
        let sector = if is_block_device { block_device_sector(&file)? } else { 512 };
        let limits = Limits {
            size_bytes,
            logical_block_bytes: dio.map_or(512, |dio| dio.offset).max(sector),
            memory_alignment_bytes: dio.map_or(1, |dio| dio.memory),
            volatile_cache: true,
            read_only: options.read_only,
            direct: dio.is_some(),
        };
        Ok(Self { file, limits, fallback, is_block_device, failed_flush: Mutex::new(None) })
    }

    /// Why requests go through the host's page cache although direct I/O was asked for.
    pub fn direct_fallback_reason(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    fn check(&self, operation: &'static str, offset_bytes: u64, len: u64) -> Result<()> {
        let lbs = u64::from(self.limits.logical_block_bytes);
        let inside = offset_bytes.checked_add(len).is_some_and(|end| end <= self.limits.size_bytes);
        if inside && (offset_bytes | len).is_multiple_of(lbs) {
            return Ok(());
        }
        Err(Error::at(operation, offset_bytes, libc::EINVAL).with_detail(format!("{len} bytes")))
    }

    fn is_aligned(&self, memory: *const u8) -> bool {
        (memory as usize).is_multiple_of(self.limits.memory_alignment_bytes as usize)
    }

    fn write_all(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        if !fua {
            return self
                .file
                .write_all_at(buf, offset_bytes)
                .map_err(|error| at("write", offset_bytes, &error));
        }
        let mut done = 0;
        while done < buf.len() {
            let rest = &buf[done..];
            let part = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            let offset = (offset_bytes + done as u64) as libc::off_t;
            // SAFETY: one vector over bytes that outlive the call; a write only reads them.
            let written = unsafe { libc::pwritev2(self.as_raw_fd(), &part, 1, offset, libc::RWF_DSYNC) };
            match written {
                1.. => done += written as usize,
                0 => return Err(Error::at("write", offset_bytes, libc::EIO).with_detail("wrote nothing")),
                _ => match last_errno() {
                    libc::EINTR => {}
                    libc::EOPNOTSUPP | libc::ENOSYS => {
                        self.write_all(offset_bytes + done as u64, rest, false)?;
                        return self.flush();
                    }
                    errno => return Err(Error::at("write", offset_bytes, errno)),
                },
            }
        }
        Ok(())
    }
}

fn at(operation: &'static str, offset_bytes: u64, error: &io::Error) -> Error {
    let errno = match error.kind() {
        // A container that became shorter under us, or a host that writes nothing.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => libc::EIO,
        _ => error.raw_os_error().unwrap_or(libc::EIO),
    };
    Error::at(operation, offset_bytes, errno)
}

impl Drop for FileDevice {
    /// Gives the lock up now: a ring that had the file registered lets go of it only some time after it is closed.
    fn drop(&mut self) {
        if !self.is_block_device {
            let _closing_unlocks_too = set_lock(&self.file, libc::F_UNLCK);
        }
    }
}

impl AsRawFd for FileDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Device for FileDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.check("read", offset_bytes, buf.len() as u64)?;
        if self.is_aligned(buf.as_ptr()) {
            return self
                .file
                .read_exact_at(buf, offset_bytes)
                .map_err(|error| at("read", offset_bytes, &error));
        }
        let mut bounce = AlignedBuf::zeroed(buf.len());
        self.file
            .read_exact_at(&mut bounce, offset_bytes)
            .map_err(|error| at("read", offset_bytes, &error))?;
        buf.copy_from_slice(&bounce);
        Ok(())
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.check("write", offset_bytes, buf.len() as u64)?;
        if fua && let Some(error) = self.failed_flush.lock().clone() {
            return Err(error);
        }
        match self.is_aligned(buf.as_ptr()) {
            true => self.write_all(offset_bytes, buf, fua),
            false => self.write_all(offset_bytes, &AlignedBuf::copy_of(buf), fua),
        }
    }

    fn flush(&self) -> Result<()> {
        let mut failed = self.failed_flush.lock();
        if let Some(error) = &*failed {
            return Err(error.clone());
        }
        if self.limits.read_only {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| {
            let error = os("flush", &error);
            *failed = Some(error.clone());
            error
        })
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.check("discard", offset_bytes, len_bytes)?;
        let result = if self.is_block_device {
            let range = [offset_bytes, len_bytes];
            // SAFETY: the ioctl reads two u64.
            unsafe { libc::ioctl(self.as_raw_fd(), BLKDISCARD, &range) }
        } else {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: no memory is passed.
            unsafe { libc::fallocate(self.as_raw_fd(), mode, offset_bytes as i64, len_bytes as i64) }
        };
        if result == 0 { Ok(()) } else { Err(Error::at("discard", offset_bytes, last_errno())) }
    }
}

const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKSSZGET: libc::c_ulong = 0x1268;
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

/// The open file, and why it is not direct although that was asked for.
fn open_file(path: &Path, options: OpenOptions) -> Result<(File, Option<String>)> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::new("open", libc::EINVAL))?;
    let is_block = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    let mut flags = libc::O_CLOEXEC | if options.read_only { libc::O_RDONLY } else { libc::O_RDWR };
    if is_block && !options.read_only {
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

fn open_error(path: &Path, errno: i32) -> Error {
    Error::new("open", errno).with_detail(path.display().to_string())
}

fn clear_direct(file: &File) -> Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT)
    };
    if result < 0 { Err(Error::new("fcntl", last_errno())) } else { Ok(()) }
}

/// An OFD lock, which belongs to the opening: a second one is refused in the same process too.
fn lock(file: &File, read_only: bool) -> Result<()> {
    set_lock(file, if read_only { libc::F_RDLCK } else { libc::F_WRLCK }).map_err(|errno| match errno {
        libc::EAGAIN | libc::EACCES => {
            Error::new("lock", libc::EBUSY).with_detail("in use by another opening")
        }
        errno => Error::new("lock", errno),
    })
}

fn set_lock(file: &File, kind: libc::c_int) -> std::result::Result<(), i32> {
    let lock =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn block_device_size(file: &File) -> Result<u64> {
    let mut size = 0u64;
    // SAFETY: the ioctl writes one u64.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &mut size) };
    if result == 0 { Ok(size) } else { Err(Error::new("size", last_errno())) }
}

fn block_device_sector(file: &File) -> Result<u32> {
    let mut size = 0i32;
    // SAFETY: the ioctl writes one int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &mut size) };
    if result == 0 { Ok(size.max(512) as u32) } else { Err(Error::new("sector size", last_errno())) }
}

/// What direct I/O asks of a request.
#[derive(Debug, Clone, Copy)]
struct DioLimits {
    offset: u32,
    memory: u32,
}

/// The host's own word (statx), else what a read proves. `None`: no direct I/O here.
fn dio_limits(file: &File, is_block_device: bool) -> Option<DioLimits> {
    // SAFETY: all zeros is a valid statx.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path names the descriptor; the structure outlives the call.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut stat)
    };
    let told = result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    if told && !is_block_device {
        let (offset, memory) = (stat.stx_dio_offset_align, stat.stx_dio_mem_align);
        let usable = |align: u32| align.is_power_of_two() && align <= 4096;
        return (usable(offset) && usable(memory)).then_some(DioLimits { offset: offset.max(512), memory });
    }
    probe(file)
}

/// Tries reads of growing alignment; an empty file tells nothing, so it is taken to want 4096.
fn probe(file: &File) -> Option<DioLimits> {
    let mut buf = AlignedBuf::zeroed(8192);
    let offset = [512u32, 1024, 2048, 4096]
        .into_iter()
        .find(|&offset| file.read_at(&mut buf[..offset as usize], u64::from(offset)).is_ok())?;
    let memory = [512u32, 1024, 2048, 4096].into_iter().find(|&align| {
        let start = align as usize;
        file.read_at(&mut buf[start..start + offset as usize], 0).is_ok()
    })?;
    Some(DioLimits { offset, memory })
}

/// Makes a container file of `size_bytes`, or resizes one, and makes that durable (CM16). Space is allocated by use.
///
/// # Errors
/// Those of open(2), ftruncate(2) and fsync(2).
pub fn create_container(path: &Path, size_bytes: u64) -> Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| os("open", &error).with_detail(path.display().to_string()))?;
    if !file.metadata().map_err(|error| os("stat", &error))?.is_file() {
        return Err(Error::new("open", libc::EINVAL).with_detail("not a regular file"));
    }
    file.set_len(size_bytes).map_err(|error| os("truncate", &error))?;
    file.sync_all().map_err(|error| os("sync", &error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = File::open(parent).map_err(|error| os("open", &error))?;
    dir.sync_all().map_err(|error| os("sync", &error))
}
