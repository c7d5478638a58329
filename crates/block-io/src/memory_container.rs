//! Containers in this process's memory, by name: made, opened and removed as container files are.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::sync::Mutex;
use crate::{Dax, Device, Error, IoCounts, IoTotals, Limits, MemoryDevice, Operation, Result};

struct Entry {
    device: Arc<MemoryDevice>,
    /// Openings for reading, or one for writing.
    readers: usize,
    is_written: bool,
}

impl Entry {
    fn is_open(&self) -> bool {
        self.is_written || self.readers > 0
    }
}

/// All of this process, whichever of its environments made them.
static CONTAINERS: LazyLock<Mutex<BTreeMap<Vec<u8>, Entry>>> = LazyLock::new(Mutex::default);

fn no_such() -> Error {
    Error::new("open", libc::ENOENT).with_detail("no container of this name in memory")
}

fn in_use() -> Error {
    Error::new("lock", libc::EBUSY).with_detail("in use by another opening")
}

/// An opening of a container in memory, which keeps others out as that of a file does.
pub struct MemoryContainer {
    name: Vec<u8>,
    device: Arc<MemoryDevice>,
    limits: Limits,
    counts: Arc<IoCounts>,
}

impl MemoryContainer {
    /// Makes a container of zeros, or makes one anew with another size. It takes memory as it is written to.
    ///
    /// # Errors
    /// EBUSY if it is open; EINVAL unless the size is a multiple of 512.
    pub fn create(name: &[u8], size_bytes: u64) -> Result<()> {
        if !size_bytes.is_multiple_of(512) || i64::try_from(size_bytes).is_err() {
            return Err(Error::new("create", libc::EINVAL).with_detail(format!("{size_bytes} bytes")));
        }
        let mut containers = CONTAINERS.lock();
        if containers.get(name).is_some_and(Entry::is_open) {
            return Err(in_use());
        }
        let device = Arc::new(MemoryDevice::new(size_bytes, 512));
        containers.insert(name.to_vec(), Entry { device, readers: 0, is_written: false });
        Ok(())
    }

    /// Its size in bytes; `None`: there is none of this name.
    pub fn size_of(name: &[u8]) -> Option<u64> {
        CONTAINERS.lock().get(name).map(|entry| entry.device.limits().size_bytes)
    }

    /// Opens one.
    ///
    /// # Errors
    /// ENOENT; EBUSY if another opening excludes this one.
    pub fn open(name: &[u8], read_only: bool) -> Result<Self> {
        let mut containers = CONTAINERS.lock();
        let entry = containers.get_mut(name).ok_or_else(no_such)?;
        if entry.is_written || !read_only && entry.readers > 0 {
            return Err(in_use());
        }
        match read_only {
            true => entry.readers += 1,
            false => entry.is_written = true,
        }
        let limits = Limits { read_only, ..entry.device.limits().clone() };
        Ok(Self { name: name.to_vec(), device: entry.device.clone(), limits, counts: Arc::default() })
    }

    /// Gives its memory back.
    ///
    /// # Errors
    /// ENOENT; EBUSY while it is open.
    pub fn remove(name: &[u8]) -> Result<()> {
        let mut containers = CONTAINERS.lock();
        match containers.get(name).map(Entry::is_open) {
            None => Err(no_such()),
            Some(true) => Err(in_use()),
            Some(false) => {
                containers.remove(name);
                Ok(())
            }
        }
    }

    /// What it was asked for by requests; loads and stores are not counted.
    pub fn io_counts(&self) -> &Arc<IoCounts> {
        &self.counts
    }

    fn check_writable(&self, operation: &'static str, offset_bytes: u64) -> Result<()> {
        if self.limits.read_only { Err(Error::at(operation, offset_bytes, libc::EROFS)) } else { Ok(()) }
    }
}

impl Drop for MemoryContainer {
    fn drop(&mut self) {
        if let Some(entry) = CONTAINERS.lock().get_mut(&self.name) {
            match self.limits.read_only {
                true => entry.readers = entry.readers.saturating_sub(1),
                false => entry.is_written = false,
            }
        }
    }
}

impl Dax for MemoryContainer {
    fn load(&self, offset_bytes: u64, out: &mut [u8]) -> Result<()> {
        self.device.load(offset_bytes, out)
    }

    fn store(&self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        self.check_writable("store", offset_bytes)?;
        self.device.store(offset_bytes, bytes)
    }
}

impl Device for MemoryContainer {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn io_totals(&self) -> Option<IoTotals> {
        Some(self.io_counts().totals())
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.counts.add(Operation::Read, buf.len());
        self.device.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        self.check_writable("write", offset_bytes)?;
        self.counts.add(Operation::Write { fua }, buf.len());
        self.device.write(offset_bytes, buf, fua)
    }

    fn flush(&self) -> Result<()> {
        self.counts.add(Operation::Flush, 0);
        self.device.flush()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.check_writable("discard", offset_bytes)?;
        self.device.discard(offset_bytes, len_bytes)
    }

    fn dax(&self) -> Option<&dyn Dax> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_several_readers() {
        let name = b"one_writer_or_several_readers";
        assert_eq!(MemoryContainer::open(name, false).err().unwrap().errno, libc::ENOENT);
        assert_eq!(MemoryContainer::create(name, 513).unwrap_err().errno, libc::EINVAL);
        MemoryContainer::create(name, 1 << 40).unwrap();
        assert_eq!(MemoryContainer::size_of(name), Some(1 << 40));
        let writer = MemoryContainer::open(name, false).unwrap();
        writer.store((1 << 40) - 3, b"end").unwrap();
        let busy = |result: Result<()>| assert_eq!(result.unwrap_err().errno, libc::EBUSY);
        busy(MemoryContainer::open(name, true).map(drop));
        busy(MemoryContainer::open(name, false).map(drop));
        busy(MemoryContainer::create(name, 512));
        busy(MemoryContainer::remove(name));
        drop(writer);
        let (one, other) =
            (MemoryContainer::open(name, true).unwrap(), MemoryContainer::open(name, true).unwrap());
        busy(MemoryContainer::open(name, false).map(drop));
        let mut end = [0; 3];
        one.load((1 << 40) - 3, &mut end).unwrap();
        assert_eq!(&end, b"end");
        assert_eq!(other.store(0, b"x").unwrap_err().errno, libc::EROFS);
        assert_eq!(other.load(1 << 40, &mut end).unwrap_err().errno, libc::EINVAL);
        drop((one, other));
        MemoryContainer::remove(name).unwrap();
        assert_eq!(MemoryContainer::remove(name).unwrap_err().errno, libc::ENOENT);
    }
}
