//! Volumes, files and operations of one environment.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use block_io::{BackendInfo, EventFd, IoCounts, Memory};
use ext4::aio::{DirectRead, DirectWrite, Engine, FileId, Finished, Value, Waited};
use ext4::{Error, Fs, Inode, Result, errno};

use crate::arrivals::{Arrival, Arrivals, Mounted};
use crate::detail::{Detail, OpenFile, VolumeInfo};
use crate::js::{Js, JsResult, Thrown};
use crate::memory::{CopyBack, Memories};
use crate::table::{Parity, Table};

/// Operation ids are small integers that JavaScript uses again and again.
pub const MAX_OPS: u32 = 1 << 24;

/// An open volume.
pub struct Volume {
    /// Its engine.
    pub engine: Engine,
    /// What carries its direct I/O, and why.
    pub backend: BackendInfo,
    /// What its device was asked for.
    pub io_counts: Arc<IoCounts>,
    /// Transactions that the mount replayed.
    pub transactions_replayed: u32,
    /// Operations begun and not over.
    pub ops: usize,
    /// Open files.
    pub files: usize,
    /// Something panicked: only closing works.
    pub failed: bool,
}

/// An open file.
pub struct File {
    /// Its volume's handle.
    pub volume: u64,
    /// Its id in the engine.
    pub id: FileId,
    /// What is open.
    pub inode: Arc<Inode>,
}

/// A direct operation to start.
pub enum Direct {
    /// To be read.
    Read(DirectRead),
    /// To be written.
    Write(DirectWrite),
}

/// What an operation's end entails.
pub enum Ending {
    /// Nothing.
    Plain,
    /// A file was opened.
    Open,
    /// The volume was unmounted.
    CloseVolume,
    /// Bytes were read into memory of ours.
    Read(CopyBack),
}

#[derive(Default)]
struct Op {
    busy: bool,
    /// The volume's handle; 0: none.
    volume: u64,
    ending: Option<Ending>,
    detail: Option<Box<Detail>>,
}

/// Everything of an environment but its event loop.
pub struct State {
    /// Open volumes.
    pub volumes: Table<Volume>,
    /// Open files.
    pub files: Table<File>,
    /// Buffers.
    pub memory: Memories,
    /// mkfs and mount under way.
    pub arrivals: Arrivals,
    /// Operations begun and not yet delivered.
    pub in_flight: usize,
    ops: Vec<Op>,
    ready: VecDeque<(u32, f64)>,
    finished: Vec<Finished>,
    event: Arc<EventFd>,
}

fn dead() -> Error {
    Error::refused(errno::EIO, "an operation on this volume panicked: only closing it works")
}

impl State {
    /// Nothing open.
    pub fn new(event: Arc<EventFd>) -> Self {
        Self {
            volumes: Table::new(Parity::Odd),
            files: Table::new(Parity::Even),
            memory: Memories::new(),
            arrivals: Arrivals::new(event.clone()),
            in_flight: 0,
            ops: Vec::new(),
            ready: VecDeque::new(),
            finished: Vec::new(),
            event,
        }
    }

    /// Takes an operation id into use.
    pub fn begin(&mut self, op: u32) -> JsResult<()> {
        let index = op as usize;
        if index >= self.ops.len() {
            self.ops.resize_with(index + 1, Op::default);
        }
        let entry = &mut self.ops[index];
        if entry.busy {
            return Err(Thrown::Error(format!("operation {op} is under way")));
        }
        *entry = Op { busy: true, ..Op::default() };
        self.in_flight += 1;
        Ok(())
    }

    /// Says whose operation it is and what follows its end.
    pub fn bind(&mut self, op: u32, volume: u64, ending: Ending) {
        if let Some(found) = self.volumes.get_mut(volume) {
            found.ops += 1;
            self.ops[op as usize].volume = volume;
        }
        self.ops[op as usize].ending = Some(ending);
    }

    /// Ends an operation before or without the engine; it is delivered with the next batch.
    pub fn fail(&mut self, op: u32, error: &Error) {
        self.end(op, Err(error.clone()), None);
        self.event.signal();
    }

    /// As [`State::fail`], with a result.
    pub fn succeed(&mut self, op: u32, result: u64) {
        self.end(op, Ok(result), None);
        self.event.signal();
    }

    fn end(&mut self, op: u32, result: Result<u64>, detail: Option<Detail>) {
        let entry = &mut self.ops[op as usize];
        if !std::mem::replace(&mut entry.busy, false) {
            return; // It failed with its volume.
        }
        let (number, detail) = match result {
            Ok(number) => (number as f64, detail),
            Err(error) => (-f64::from(error.errno()), Some(Detail::failure(&error))),
        };
        entry.detail = detail.map(Box::new);
        entry.ending = None;
        if let Some(volume) = self.volumes.get_mut(std::mem::take(&mut entry.volume)) {
            volume.ops = volume.ops.saturating_sub(1);
        }
        self.ready.push_back((op, number));
    }

    /// The structured result of an operation that is over; forgets it.
    pub fn take_detail(&mut self, op: u32) -> Option<Box<Detail>> {
        self.ops.get_mut(op as usize).filter(|entry| !entry.busy)?.detail.take()
    }

    /// Moves results into pairs of numbers; returns how many pairs.
    pub fn fill(&mut self, slots: &mut [f64]) -> usize {
        let count = self.ready.len().min(slots.len() / 2);
        for (pair, (op, number)) in slots.chunks_exact_mut(2).zip(self.ready.drain(..count)) {
            (pair[0], pair[1]) = (f64::from(op), number);
        }
        self.in_flight = self.in_flight.saturating_sub(count);
        count
    }

    /// Whether results wait to be delivered.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A usable volume.
    pub fn volume(&mut self, handle: u64) -> Result<&mut Volume> {
        match self.volumes.get_mut(handle) {
            Some(volume) if volume.failed => Err(dead()),
            Some(volume) => Ok(volume),
            None => Err(Error::errno_only(errno::EBADF)),
        }
    }

    /// An open file.
    pub fn file(&self, handle: u64) -> Result<&File> {
        self.files.get(handle).ok_or(Error::errno_only(errno::EBADF))
    }

    /// A usable volume and a file of it.
    pub fn file_and_volume(&mut self, handle: u64) -> Result<(&File, &mut Volume)> {
        let Some(file) = self.files.get(handle) else { return Err(Error::errno_only(errno::EBADF)) };
        match self.volumes.get_mut(file.volume) {
            Some(volume) if !volume.failed => Ok((file, volume)),
            Some(_) => Err(dead()),
            None => Err(Error::errno_only(errno::EBADF)),
        }
    }

    /// Runs `f` on a volume's engine. After a panic, everything under way on the volume fails, and so does whatever comes.
    pub fn with_engine<R>(&mut self, handle: u64, f: impl FnOnce(&mut Engine) -> R) -> Result<R> {
        let volume = self.volume(handle)?;
        catch_unwind(AssertUnwindSafe(|| f(&mut volume.engine))).map_err(|_| {
            self.give_up(handle, &dead());
            dead()
        })
    }

    /// Stops a volume for good and fails what is under way on it.
    fn give_up(&mut self, handle: u64, error: &Error) {
        if let Some(volume) = self.volumes.get_mut(handle) {
            volume.failed = true;
            volume.engine.fs().shut_down();
            let _panicked_again = catch_unwind(AssertUnwindSafe(|| volume.engine.stop()));
        }
        let lost: Vec<u32> = (0u32..)
            .zip(&self.ops)
            .filter(|(_, entry)| entry.busy && entry.volume == handle)
            .map(|(op, _)| op)
            .collect();
        for op in lost {
            self.fail(op, error);
        }
    }

    /// Runs `job` on one of the volume's workers.
    pub fn run(
        &mut self,
        op: u32,
        volume: u64,
        ending: Ending,
        job: impl FnOnce(&Arc<Fs>) -> Result<(u64, Value)> + Send + 'static,
    ) {
        if let Err(error) = self.volume(volume) {
            return self.fail(op, &error);
        }
        self.bind(op, volume, ending);
        let started = self.with_engine(volume, |engine| {
            engine.run(u64::from(op), move |fs| {
                catch_unwind(AssertUnwindSafe(|| job(fs))).unwrap_or_else(|_| {
                    fs.shut_down();
                    Err(dead())
                })
            });
        });
        if let Err(error) = started {
            self.fail(op, &error);
        }
    }

    /// Hands queued requests to the host.
    pub fn submit(&mut self) {
        for handle in self.volumes.handles() {
            if let Ok(Err(error)) = self.with_engine(handle, Engine::submit) {
                self.give_up(handle, &error);
            }
        }
    }

    /// As [`State::submit`]; waits, without the eventfd, where nobody but one device can end what is under way, and does the
    /// job that the only operation waits for.
    pub fn submit_and_wait(&mut self) -> Waited {
        let operations = self.in_flight;
        let mut waited = Waited::No;
        for handle in self.volumes.handles() {
            match self.with_engine(handle, |engine| engine.submit_and_wait(operations)) {
                Ok(Ok(Waited::No)) => {}
                Ok(Ok(did)) => waited = did,
                Ok(Err(error)) => self.give_up(handle, &error),
                Err(_) => {}
            }
        }
        waited
    }

    /// Starts a direct operation: at once, or when the page cache has let its range go.
    pub fn start_direct(&mut self, op: u32, volume: u64, direct: Direct) {
        let event = self.event.clone();
        let started = self.with_engine(volume, |engine| {
            let before = engine.in_flight();
            match direct {
                Direct::Read(read) => engine.direct_read(read),
                Direct::Write(write) => engine.direct_write(write),
            }
            if engine.in_flight() == before {
                event.signal(); // It is over already, and no device will say so.
            }
        });
        if let Err(error) = started {
            self.fail(op, &error);
        }
    }

    /// Collects what threads, workers and devices have finished, and hands on what follows from it.
    pub fn collect(&mut self, js: Js) {
        for (op, arrival) in self.arrivals.take() {
            self.arrived(op, arrival);
        }
        let mut finished = std::mem::take(&mut self.finished);
        for handle in self.volumes.handles() {
            if self.with_engine(handle, |engine| engine.collect(&mut finished)).is_err() {
                finished.clear();
            }
            for finished in finished.drain(..) {
                self.finish(js, handle, finished);
            }
        }
        self.finished = finished;
        self.memory.relax(js);
        self.submit();
    }

    fn arrived(&mut self, op: u32, arrival: Arrival) {
        match arrival {
            Arrival::Formatted(Ok(report)) => self.end(op, Ok(0), Some(Detail::Format(Box::new(report)))),
            Arrival::Recovered(Ok(recovery)) => self.end(op, Ok(0), Some(Detail::Recovery(recovery))),
            Arrival::Recovered(Err(error))
            | Arrival::Formatted(Err(error))
            | Arrival::Mounted(Err(error)) => self.end(op, Err(error), None),
            Arrival::Mounted(Ok(mounted)) => match self.add_volume(mounted) {
                Ok((handle, info)) => self.end(op, Ok(handle), Some(Detail::Volume(Box::new(info)))),
                Err(error) => self.end(op, Err(error), None),
            },
        }
    }

    fn add_volume(&mut self, mounted: Mounted) -> Result<(u64, VolumeInfo)> {
        let Mounted { fs, container, engine, transactions_replayed } = mounted;
        let (queue, backend) = container.queue(engine, self.event.clone())?;
        let info = VolumeInfo::of(&fs, &backend);
        let event = self.event.clone();
        let engine = Engine::start(fs, queue, Box::new(move || event.signal()))?;
        let io_counts = container.io_counts();
        let volume =
            Volume { engine, backend, io_counts, transactions_replayed, ops: 0, files: 0, failed: false };
        match self.volumes.insert(volume) {
            Ok(handle) => Ok((handle, info)),
            Err(_) => Err(Error::refused(libc::ENFILE, "too many volumes")),
        }
    }

    fn finish(&mut self, js: Js, volume: u64, finished: Finished) {
        let Finished { op, result, memory, value } = finished;
        let op = op as u32;
        let entry = &mut self.ops[op as usize];
        if !entry.busy {
            return; // It failed with its volume.
        }
        let ending = entry.ending.take().unwrap_or(Ending::Plain);
        let (result, detail) = match (ending, value) {
            (Ending::Open, Value::Inode(inode)) => self.opened(volume, inode),
            (Ending::CloseVolume, _) => {
                // Its threads hold the device until they are joined: the container is free when JavaScript hears of it.
                drop(self.volumes.remove(volume));
                (result, None)
            }
            (Ending::Read(copy), value) => (copy_back(js, copy, result, memory.as_ref(), &value), None),
            (_, value) => (result, detail_of(value)),
        };
        if let Some(memory) = memory {
            self.memory.give_back(memory);
        }
        self.end(op, result, detail);
    }

    fn opened(&mut self, volume: u64, inode: Arc<Inode>) -> (Result<u64>, Option<Detail>) {
        let opened = inode.clone();
        let adopt = |engine: &mut Engine| (OpenFile::of(engine.fs(), &opened), engine.adopt(opened));
        let (detail, id) = match self.with_engine(volume, adopt) {
            Ok((file, id)) => (Detail::Open(file), id),
            Err(error) => return (Err(error), None),
        };
        match self.files.insert(File { volume, id, inode }) {
            Ok(handle) => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.files += 1;
                }
                (Ok(handle), Some(detail))
            }
            Err(_) => (Err(Error::refused(libc::ENFILE, "too many files")), None),
        }
    }

    /// Stops every engine and thread, without a commit: to the volumes it is a crash.
    pub fn stop(&mut self) {
        self.arrivals.stop();
        self.files.clear();
        self.volumes.clear();
        self.ops.clear();
        self.ready.clear();
        self.memory.clear();
    }
}

fn copy_back(
    js: Js,
    copy: CopyBack,
    result: Result<u64>,
    memory: Option<&Memory>,
    value: &Value,
) -> Result<u64> {
    let bytes: &[u8] = match (memory, value) {
        (Some(memory), _) => memory.bytes(),
        (None, Value::Bytes(bytes)) => bytes,
        _ => &[],
    };
    let count = result.as_ref().map_or(0, |&count| count.min(bytes.len() as u64)) as usize;
    if copy.copy(js, &bytes[..count]) {
        return result;
    }
    result.and(Err(detached()))
}

/// The buffer of a read is gone when its bytes have come.
pub fn detached() -> Error {
    Error::refused(errno::EINVAL, "the buffer was detached while it was read into")
}

fn detail_of(value: Value) -> Option<Detail> {
    match value {
        Value::Stat(stat) => Some(Detail::Stat(Box::new(stat))),
        Value::Entries(entries) => Some(Detail::Directory(entries)),
        Value::Text(text) => Some(Detail::Text(text)),
        Value::Extents(extents) => Some(Detail::Extents(extents)),
        _ => None,
    }
}
