//! What runs on threads of its own because there is no engine yet: mkfs and mount.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use block_io::sync::Mutex;
use block_io::{Device, EventFd, FileDevice, MemoryContainer};
use ext4::mkfs::{self, FormatReport};
use ext4::{Cancel, Error, Fs, MountOptions, Recovery, Result, errno};

use crate::container::{Container, memory_name, path_of};
use crate::options::{FormatVolume, OpenVolume, RecoverVolume};

/// A mounted volume that has no engine yet.
pub struct Mounted {
    /// The volume.
    pub fs: Arc<Fs>,
    /// What it lies on, for the queue.
    pub container: Container,
    /// The queue asked for.
    pub engine: block_io::Engine,
    /// Transactions that the mount replayed.
    pub transactions_replayed: u32,
}

/// A thread's result.
pub enum Arrival {
    /// mkfs is over.
    Formatted(Result<FormatReport>),
    /// A recovery is over.
    Recovered(Result<Recovery>),
    /// The mount is over.
    Mounted(Result<Mounted>),
}

/// The threads of an environment and what they have finished.
pub struct Arrivals {
    done: Arc<Mutex<Vec<(u32, Arrival)>>>,
    event: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
    /// What ends the wait of each mount and recovery, by operation.
    cancels: Vec<(u32, Cancel)>,
}

impl Arrivals {
    /// None yet. `event` is signalled for each arrival.
    pub fn new(event: Arc<EventFd>) -> Self {
        Self { done: Arc::default(), event, threads: Vec::new(), cancels: Vec::new() }
    }

    /// Formats a container or a block device.
    ///
    /// # Errors
    /// EAGAIN where the host gives no thread.
    pub fn format(&mut self, op: u32, path: Vec<u8>, options: FormatVolume) -> Result<()> {
        self.spawn(op, move || Arrival::Formatted(caught(|| format(&path_of(&path), options))))
    }

    /// Mounts a volume.
    ///
    /// # Errors
    /// EAGAIN where the host gives no thread.
    pub fn mount(&mut self, op: u32, path: Vec<u8>, options: OpenVolume) -> Result<()> {
        self.cancels.push((op, options.mount.cancel.clone()));
        self.spawn(op, move || Arrival::Mounted(caught(|| mount(&path_of(&path), &options))))
    }

    /// Ends the wait of a mount for other hosts, if it waits: it is ECANCELED then.
    pub fn cancel(&self, op: u32) {
        self.cancels.iter().filter(|(of, _)| *of == op).for_each(|(_, cancel)| cancel.cancel());
    }

    /// Recovers a volume.
    ///
    /// # Errors
    /// EAGAIN where the host gives no thread.
    pub fn recover(&mut self, op: u32, path: Vec<u8>, options: RecoverVolume) -> Result<()> {
        let cancel = Cancel::default();
        self.cancels.push((op, cancel.clone()));
        self.spawn(op, move || {
            Arrival::Recovered(caught(|| {
                let RecoverVolume { dry_run, force, journal } = options;
                let container = Container::open(&path_of(&path), dry_run, false, force)?;
                let journal_device = open_journal(journal.as_deref(), dry_run, force)?;
                let mount = MountOptions { journal_device, cancel, force, ..MountOptions::default() };
                ext4::recover(container.device(), mount, dry_run)
            }))
        })
    }

    fn spawn(&mut self, op: u32, work: impl FnOnce() -> Arrival + Send + 'static) -> Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let (done, event) = (self.done.clone(), self.event.clone());
        let thread = std::thread::Builder::new()
            .name("uext4-mount".into())
            .spawn(move || {
                let arrival = work();
                done.lock().push((op, arrival));
                event.signal();
            })
            .map_err(|error| Error::refused(error.raw_os_error().unwrap_or(errno::EAGAIN), "no thread"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// What arrived since the last look.
    pub fn take(&mut self) -> Vec<(u32, Arrival)> {
        let arrived = std::mem::take(&mut *self.done.lock());
        self.cancels.retain(|(op, _)| arrived.iter().all(|(over, _)| over != op));
        arrived
    }

    /// Waits for the threads, which wait for nobody any more, and drops what they bring.
    pub fn stop(&mut self) {
        self.cancels.drain(..).for_each(|(_, cancel)| cancel.cancel());
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
        self.done.lock().clear();
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::refused(errno::EIO, "the operation panicked; please report this")))
}

const READ_WRITE: block_io::OpenOptions =
    block_io::OpenOptions { read_only: false, force: false, direct: true };

/// EEXIST if formatting would destroy something that is known, and does not have to.
fn refuse_to_destroy(device: &dyn Device, force: bool) -> Result<()> {
    match if force { None } else { mkfs::found_on(device)? } {
        None => Ok(()),
        Some(found) => Err(Error::refused(errno::EEXIST, format!("{found}; force to replace it"))),
    }
}

fn format(path: &Path, options: FormatVolume) -> Result<FormatReport> {
    if let Some(name) = memory_name(path) {
        return format_memory(path, name, options);
    }
    let existing = std::fs::metadata(path).ok();
    let is_new = existing.is_none();
    let result = format_container(path, options, existing);
    if is_new && result.is_err() {
        let _as_before = std::fs::remove_file(path);
    }
    result
}

/// Makes a container in memory, or makes one anew.
fn format_memory(path: &Path, name: &[u8], options: FormatVolume) -> Result<FormatReport> {
    let FormatVolume { format: mut options, force } = options;
    if MemoryContainer::size_of(name).is_some() {
        refuse_to_destroy(&MemoryContainer::open(name, true)?, force)?;
    }
    let size = options.size_bytes.or_else(|| MemoryContainer::size_of(name));
    let size = size.ok_or(Error::errno_only(errno::ENOENT))?;
    MemoryContainer::create(name, size / 512 * 512)?;
    options.assume_zeroed = true;
    let made = Container::open(path, false, true, false)
        .and_then(|container| mkfs::format(container.device().as_ref(), &options));
    if made.is_err() {
        let _nothing_is_left = MemoryContainer::remove(name);
    }
    made
}

fn format_container(
    path: &Path,
    FormatVolume { format: mut options, force }: FormatVolume,
    existing: Option<std::fs::Metadata>,
) -> Result<FormatReport> {
    let is_file = existing.as_ref().is_none_or(std::fs::Metadata::is_file);
    if existing.is_some() {
        // Whoever has it open keeps it: nothing is resized under a mounted volume.
        refuse_to_destroy(&FileDevice::open(path, READ_WRITE)?, force)?;
    }
    if is_file {
        let old_size = existing.as_ref().map_or(0, std::fs::Metadata::len);
        let size = match options.size_bytes {
            Some(size) => size,
            None if existing.is_none() => return Err(Error::errno_only(errno::ENOENT)),
            None => old_size,
        };
        options.assume_zeroed = old_size == 0;
        if size != old_size || existing.is_none() {
            block_io::create_container(path, size)?;
        }
    }
    let device = FileDevice::open(path, READ_WRITE)?;
    mkfs::format(&device, &options)
}

/// The device of an external journal.
fn open_journal(path: Option<&[u8]>, read_only: bool, force: bool) -> Result<Option<Arc<dyn Device>>> {
    path.map(|path| Ok(Container::open(&path_of(path), read_only, false, force)?.device())).transpose()
}

fn mount(path: &Path, options: &OpenVolume) -> Result<Mounted> {
    let read_only = options.mount.read_only;
    let force = options.force;
    let container = Container::open(path, read_only, options.mount.dax, force)?.with_faults(&options.faults);
    let journal_device = open_journal(options.journal.as_deref(), read_only, force)?;
    let mount = MountOptions { journal_device, dax: container.has_dax(), ..options.mount.clone() };
    let (fs, report) = Fs::mount(container.device(), &mount)?;
    let transactions_replayed = report.transactions_replayed;
    Ok(Mounted { fs, container, engine: options.engine, transactions_replayed })
}
