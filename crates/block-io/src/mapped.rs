//! A container file in memory that the host maps to us: on tmpfs, or where the host's own file system does DAX.
#![expect(unsafe_code, reason = "a mapping is raw memory")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FallocateFlags, StatxAttributes, StatxFlags, fallocate, fstatfs, statx};

use crate::host_use::refuse_looped;
use crate::lock::LockedFile;
use crate::os_error::{last_errno, os};
use crate::sync::Mutex;
use crate::whole::Whole;
use crate::{Dax, Device, Error, IoCounts, IoTotals, Limits, Operation, Result};

/// An open container file that is mapped as a whole.
///
/// Its space is allocated when it is opened for writing, because the host can refuse a page later only by a signal. Who
/// truncates the file under us kills this process with one too: the lock keeps out whoever asks for it.
pub struct MappedDevice {
    map: Mapping,
    file: LockedFile,
    limits: Limits,
    flushing: Mutex<()>,
    /// The first failed flush is the last.
    failed_flush: OnceLock<Error>,
    counts: Arc<IoCounts>,
    whole: Whole,
}

/// Memory that is ours until it is unmapped.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; whoever copies keeps to the rule of `Dax`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, len: usize, writable: bool) -> Result<Self> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping, wherever the host likes.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(memory) if start != libc::MAP_FAILED => Ok(Self { start: memory, len }),
            _ => Err(Error::new("map", last_errno())),
        }
    }

    /// The address of a byte, of which `len` follow. The caller has checked the range.
    fn at(&self, offset: u64, len: usize) -> *mut u8 {
        let offset = usize::try_from(offset).expect("inside the mapping");
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "inside the mapping");
        // SAFETY: inside, as just asserted.
        unsafe { self.start.as_ptr().add(offset) }
    }

    fn sync(&self) -> Result<()> {
        // SAFETY: the mapping, whole.
        match unsafe { libc::msync(self.start.as_ptr().cast(), self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(Error::new("flush", last_errno())),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody points into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl MappedDevice {
    /// Opens, locks and maps a container file.
    ///
    /// # Errors
    /// EOPNOTSUPP where the host keeps the file's bytes elsewhere than in the memory it maps; ENOSPC if they do not fit
    /// there; EBUSY if another opening excludes this one, or if the host's kernel has it in use and it is not
    /// forced; EINVAL for what is no regular file or is empty.
    pub fn open(path: &Path, read_only: bool, force: bool) -> Result<Self> {
        let named = |error: Error| error.with_detail(path.display().to_string());
        // Asked before opening: opening a FIFO would wait for its other end.
        if !std::fs::metadata(path).map_err(|error| named(os("open", &error)))?.is_file() {
            return Err(named(Error::new("map", libc::EINVAL)));
        }
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|error| named(os("open", &error)))?;
        let metadata = file.metadata().map_err(|error| os("stat", &error))?;
        if metadata.len() == 0 {
            return Err(named(Error::new("map", libc::EINVAL)));
        }
        if !is_in_memory(&file) {
            let why = "DAX needs a file on tmpfs, or on a file system of the host that does DAX";
            return Err(Error::new("map", libc::EOPNOTSUPP).with_detail(why));
        }
        let file = LockedFile::new(file, read_only)?;
        if !force {
            refuse_looped(&metadata, read_only)?;
        }
        let size = metadata.len();
        let len = usize::try_from(size).map_err(|_| named(Error::new("map", libc::EFBIG)))?;
        if !read_only {
            fallocate(&*file, FallocateFlags::empty(), 0, size)
                .map_err(|errno| named(Error::new("allocate", errno.raw_os_error())))?;
        }
        let limits = Limits {
            size_bytes: size,
            logical_block_bytes: 512,
            memory_alignment_bytes: 1,
            volatile_cache: true,
            read_only,
            direct: true,
        };
        Ok(Self {
            map: Mapping::new(&file, len, !read_only)?,
            file,
            limits,
            flushing: Mutex::new(()),
            failed_flush: OnceLock::new(),
            counts: Arc::default(),
            whole: Whole::new(size, false),
        })
    }

    /// What it was asked for by requests; loads and stores are not counted.
    pub fn io_counts(&self) -> &Arc<IoCounts> {
        &self.counts
    }

    fn check(&self, operation: &'static str, offset: u64, len: usize) -> Result<()> {
        self.whole.refuse_if_lost()?;
        let end = offset.checked_add(len as u64);
        if end.is_some_and(|end| end <= self.limits.size_bytes) {
            return Ok(());
        }
        Err(Error::at(operation, offset, libc::EINVAL).with_detail(format!("{len} bytes")))
    }

    fn flush_now(&self) -> Result<()> {
        let _one_at_a_time = self.flushing.lock();
        self.whole.refuse_if_lost()?;
        if let Some(error) = self.failed_flush.get() {
            return Err(error.clone());
        }
        self.map.sync().map_err(|error| self.failed_flush.get_or_init(|| error).clone())?;
        self.check_whole()
    }
}

/// The host says that it maps this file's own memory (STATX_ATTR_DAX).
fn is_dax(file: &File) -> bool {
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    stat.is_ok_and(|stat| (stat.stx_attributes & stat.stx_attributes_mask).contains(StatxAttributes::DAX))
}

/// TMPFS_MAGIC and RAMFS_MAGIC, or the host says that it does DAX.
fn is_in_memory(file: &File) -> bool {
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58F6];
    fstatfs(file).is_ok_and(|stat| IN_MEMORY.contains(&(stat.f_type as u64))) || is_dax(file)
}

impl Dax for MappedDevice {
    fn load(&self, offset_bytes: u64, out: &mut [u8]) -> Result<()> {
        self.check("load", offset_bytes, out.len())?;
        let from = self.map.at(offset_bytes, out.len());
        // SAFETY: both ranges are valid, and `out` is no part of the mapping, to which no reference is ever made.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn store(&self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        self.check("store", offset_bytes, bytes.len())?;
        if self.limits.read_only {
            return Err(Error::at("store", offset_bytes, libc::EROFS));
        }
        let to = self.map.at(offset_bytes, bytes.len());
        // SAFETY: as in `load`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }
}

impl Device for MappedDevice {
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
        self.counts.add(Operation::Read, buf.len());
        self.load(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.limits.check("write", offset_bytes, buf.len() as u64)?;
        self.counts.add(Operation::Write { fua }, buf.len());
        self.store(offset_bytes, buf)?;
        if fua { self.flush_now() } else { Ok(()) }
    }

    fn flush(&self) -> Result<()> {
        if self.limits.read_only {
            return Ok(());
        }
        self.counts.add(Operation::Flush, 0);
        self.flush_now()
    }

    /// The bytes read as zeros afterwards; their space stays (a hole could not be filled again without a risk).
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.limits.check("discard", offset_bytes, len_bytes)?;
        self.whole.refuse_if_lost()?;
        if self.limits.read_only {
            return Err(Error::at("discard", offset_bytes, libc::EROFS));
        }
        let len = usize::try_from(len_bytes).map_err(|_| Error::at("discard", offset_bytes, libc::EINVAL))?;
        let start = self.map.at(offset_bytes, len);
        // SAFETY: inside the mapping, as `at` asserts.
        unsafe { start.write_bytes(0, len) };
        Ok(())
    }

    fn dax(&self) -> Option<&dyn Dax> {
        Some(self)
    }
}

impl std::fmt::Debug for MappedDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedDevice").field("file", &*self.file).field("limits", &self.limits).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on tmpfs, where there is one.
    fn container(len: u64) -> Option<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").ok()?;
        file.as_file().set_len(len).ok()?;
        if !is_in_memory(file.as_file()) {
            eprintln!("skipped: no tmpfs at /dev/shm");
            return None;
        }
        Some(file)
    }

    #[test]
    fn stores_are_the_files_bytes() {
        let Some(file) = container(1 << 20) else { return };
        let device = MappedDevice::open(file.path(), false, false).unwrap();
        device.store(4095, b"across a page").unwrap();
        device.write(8192, &[7; 512], true).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(&bytes[4095..4108], b"across a page");
        assert_eq!(bytes[8192..8704], [7; 512]);
        let mut out = [0; 13];
        device.load(4095, &mut out).unwrap();
        assert_eq!(&out, b"across a page");
        device.discard(8192, 512).unwrap();
        let mut sector = [1; 512];
        device.read(8192, &mut sector).unwrap();
        assert_eq!(sector, [0; 512]);
        device.flush().unwrap();
        assert_eq!(device.io_counts().totals().flushes, 1);
    }

    #[test]
    fn nothing_outside_and_nothing_read_only() {
        let Some(file) = container(4096) else { return };
        let device = MappedDevice::open(file.path(), false, false).unwrap();
        for (offset, len) in [(4096, 1), (4095, 2), (u64::MAX, 1), (1 << 40, 0)] {
            let (mut out, bytes) = (vec![0; len], vec![0; len]);
            assert_eq!(device.load(offset, &mut out).unwrap_err().errno, libc::EINVAL);
            assert_eq!(device.store(offset, &bytes).unwrap_err().errno, libc::EINVAL);
        }
        assert_eq!(device.read(1, &mut [0; 512]).unwrap_err().errno, libc::EINVAL);
        assert_eq!(MappedDevice::open(file.path(), false, false).unwrap_err().errno, libc::EBUSY);
        drop(device);
        let device = MappedDevice::open(file.path(), true, false).unwrap();
        assert_eq!(device.store(0, &[1]).unwrap_err().errno, libc::EROFS);
        assert_eq!(device.write(0, &[1; 512], false).unwrap_err().errno, libc::EROFS);
        assert_eq!(device.discard(0, 512).unwrap_err().errno, libc::EROFS);
        device.flush().unwrap();
    }

    /// What lay behind the cut cannot be told from zeros any more; a flush that succeeded called it durable.
    #[test]
    fn a_flush_finds_a_file_that_was_cut() {
        let Some(file) = container(1 << 20) else { return };
        let device = MappedDevice::open(file.path(), false, false).unwrap();
        device.store(0, b"x").unwrap();
        file.as_file().set_len(4096).unwrap();
        assert_eq!(device.flush().unwrap_err().errno, libc::EIO);
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(device.flush().unwrap_err().errno, libc::EIO, "for good");
        assert_eq!(device.store(0, b"x").unwrap_err().errno, libc::EIO);
        assert_eq!(device.load(0, &mut [0]).unwrap_err().errno, libc::EIO);
        let without_barrier = crate::NoBarrierDevice::new(Arc::new(device));
        assert_eq!(without_barrier.flush().unwrap_err().errno, libc::EIO);
    }

    #[test]
    fn only_files_that_are_in_memory() {
        let Some(empty) = container(0) else { return };
        assert_eq!(MappedDevice::open(empty.path(), false, false).unwrap_err().errno, libc::EINVAL);
        assert_eq!(MappedDevice::open(Path::new("/dev/null"), false, false).unwrap_err().errno, libc::EINVAL);
        let elsewhere = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        elsewhere.as_file().set_len(4096).unwrap();
        if is_in_memory(elsewhere.as_file()) {
            eprintln!("skipped: the sources are in memory");
            return;
        }
        assert_eq!(MappedDevice::open(elsewhere.path(), false, false).unwrap_err().errno, libc::EOPNOTSUPP);
    }
}
