//! What a volume's path names: a file or block device of the host, a file that is mapped, or memory of this process.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_io::{
    BackendInfo, Device, Engine, EventFd, Fault, FaultDevice, FileDevice, ImmediateQueue, IoCounts,
    MappedDevice, MemoryContainer, Queue,
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

/// Failures that are planned for a container: only tests do that, past the options of the API.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Of direct I/O.
    pub queued: Vec<Fault>,
    /// Of everything else: metadata, journal, write-back.
    pub blocking: Vec<Fault>,
}

/// A file of the host that fails as planned.
pub struct Faulty {
    file: Arc<FileDevice>,
    queued: Arc<FaultDevice>,
    blocking: Arc<FaultDevice>,
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
    /// Of the host, with failures.
    Faulty(Arc<Faulty>),
}

impl Container {
    /// Opens what `path` names; with `force` also what the host's kernel has in use.
    ///
    /// # Errors
    /// Those of opening it; EOPNOTSUPP for `dax` on a file that is not in memory.
    pub fn open(path: &Path, read_only: bool, dax: bool, force: bool) -> Result<Self> {
        if let Some(name) = memory_name(path) {
            return Ok(Self::Memory(Arc::new(MemoryContainer::open(name, read_only)?)));
        }
        // Read-only there is no DAX: an overlay lies in between.
        if dax && !read_only {
            return Ok(Self::Mapped(Arc::new(MappedDevice::open(path, read_only, force)?)));
        }
        let options = block_io::OpenOptions { read_only, force, direct: true };
        Ok(Self::File(Arc::new(FileDevice::open(path, options)?)))
    }

    /// The same with failures, if any are planned; only files of the host can have them.
    pub fn with_faults(self, faults: &Faults) -> Self {
        match self {
            Self::File(file) if !(faults.queued.is_empty() && faults.blocking.is_empty()) => {
                let failing = |planned: &[Fault]| {
                    let device = FaultDevice::new(file.clone());
                    planned.iter().for_each(|fault| device.inject(*fault));
                    Arc::new(device)
                };
                let (queued, blocking) = (failing(&faults.queued), failing(&faults.blocking));
                Self::Faulty(Arc::new(Faulty { file, queued, blocking }))
            }
            container => container,
        }
    }

    /// For blocking I/O.
    pub fn device(&self) -> Arc<dyn Device> {
        match self {
            Self::File(device) => device.clone(),
            Self::Mapped(device) => device.clone(),
            Self::Memory(device) => device.clone(),
            Self::Faulty(faulty) => faulty.blocking.clone(),
        }
    }

    /// What it was asked for.
    pub fn io_counts(&self) -> Arc<IoCounts> {
        match self {
            Self::File(device) => device.io_counts().clone(),
            Self::Mapped(device) => device.io_counts().clone(),
            Self::Memory(device) => device.io_counts().clone(),
            Self::Faulty(faulty) => faulty.file.io_counts().clone(),
        }
    }

    /// Whether file data is loaded and stored in place wherever that is possible.
    pub fn has_dax(&self) -> bool {
        !matches!(self, Self::File(_) | Self::Faulty(_))
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
            Self::Faulty(_) => ("faults", "failures are planned"),
        };
        let device: Arc<dyn Device> = match self {
            Self::Faulty(faulty) => faulty.queued.clone(),
            _ => self.device(),
        };
        let queue = ImmediateQueue::new(device, Some(event));
        Ok((Box::new(queue), BackendInfo { name, reason: reason.to_owned() }))
    }
}
