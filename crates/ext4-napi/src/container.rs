//! What a volume's path names: a file or block device of the host, a file that is mapped, or memory of this process.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_io::{
    BackendInfo, Device, Engine, EventFd, FileDevice, ImmediateQueue, IoCounts, MappedDevice,
    MemoryContainer, Queue,
};
use ext4::Result;

/// What begins the path of a container in memory; the rest is its name.
const MEMORY: &[u8] = b"memory:";

/// The path of a file of the host.
pub fn path_of(path: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

/// The name of a container in memory, if that is what a path names.
pub fn memory_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(MEMORY)
}

/// Gives a container in memory back.
///
/// # Errors
/// ENOENT, also for what is no such path; EBUSY while it is open.
pub fn remove_memory(path: &[u8]) -> Result<()> {
    match path.strip_prefix(MEMORY) {
        Some(name) => Ok(MemoryContainer::remove(name)?),
        None => Err(ext4::Error::refused(ext4::errno::ENOENT, "not a path of memory")),
    }
}

/// An open container.
#[derive(Clone)]
pub enum Container {
    /// Of the host.
    File(Arc<FileDevice>),
    /// Of the host, mapped for DAX.
    Mapped(Arc<MappedDevice>),
    /// Of this process.
    Memory(Arc<MemoryContainer>),
}

impl Container {
    /// Opens what `path` names.
    ///
    /// # Errors
    /// Those of opening it; EOPNOTSUPP for `dax` on a file that is not in memory.
    pub fn open(path: &Path, read_only: bool, dax: bool) -> Result<Self> {
        if let Some(name) = memory_name(path) {
            return Ok(Self::Memory(Arc::new(MemoryContainer::open(name, read_only)?)));
        }
        // Read-only there is no DAX: an overlay lies in between.
        if dax && !read_only {
            return Ok(Self::Mapped(Arc::new(MappedDevice::open(path, read_only)?)));
        }
        let options = block_io::OpenOptions { read_only, direct: true };
        Ok(Self::File(Arc::new(FileDevice::open(path, options)?)))
    }

    /// For blocking I/O.
    pub fn device(&self) -> Arc<dyn Device> {
        match self {
            Self::File(device) => device.clone(),
            Self::Mapped(device) => device.clone(),
            Self::Memory(device) => device.clone(),
        }
    }

    /// What it was asked for.
    pub fn io_counts(&self) -> Arc<IoCounts> {
        match self {
            Self::File(device) => device.io_counts().clone(),
            Self::Mapped(device) => device.io_counts().clone(),
            Self::Memory(device) => device.io_counts().clone(),
        }
    }

    /// Whether file data is loaded and stored in place wherever that is possible.
    pub fn has_dax(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// The queue for direct I/O.
    ///
    /// # Errors
    /// Those of [`block_io::open_queue`].
    pub fn queue(&self, engine: Engine, event: Arc<EventFd>) -> Result<(Box<dyn Queue>, BackendInfo)> {
        let (name, reason) = match self {
            Self::File(device) => return Ok(block_io::open_queue(device, engine, event)?),
            Self::Mapped(_) => ("dax", "asked for by the option dax"),
            Self::Memory(_) => ("memory", "the container is memory of this process"),
        };
        let queue = ImmediateQueue::new(self.device(), Some(event));
        Ok((Box::new(queue), BackendInfo { name, reason: reason.to_owned() }))
    }
}
