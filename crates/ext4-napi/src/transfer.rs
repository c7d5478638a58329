//! Reads and writes of a file's data.

use std::sync::Arc;

use block_io::{AlignedBuf, Memory};
use ext4::Look;
use ext4::aio::{DirectRead, DirectWrite, LockMode, Value as Outcome};
use ext4::{Error, Fs, Inode, Result, errno};

use crate::call::{Call, UNDEFINED};
use crate::js::{Js, JsResult, Value};
use crate::memory::{CopyBack, Slice};
use crate::state::{Direct, Ending, State, detached};

/// Bits of `flags`. EXTENDING (2) is what the engine finds out by itself.
const DSYNC: u32 = 1;
const NOWAIT: u32 = 4;
const ATOMIC: u32 = 8;

/// What a transfer is about, from argument `first` on: buffer, offset, length, pos.
struct Range {
    array: Value,
    slice: Slice,
    pos: u64,
}

impl<const N: usize> Call<'_, N> {
    fn range(&self, first: usize) -> JsResult<Range> {
        let array = self.arguments[first];
        let view = self.js.get_view(array, "buffer")?;
        let slice = Slice::of(view, self.bytes(first + 1, "offset")?, self.bytes(first + 2, "length")?)?;
        Ok(Range { array, slice, pos: self.bytes(first + 3, "pos")? })
    }

    fn flags(&self, index: usize) -> JsResult<u32> {
        self.js.get_u32(self.arguments[index], "flags")
    }
}

/// Begins an operation on a file; `None`: it is over already, because there is no such file.
fn begin(state: &mut State, op: u32, handle: u64) -> JsResult<Option<(u64, ext4::aio::FileId, Arc<Inode>)>> {
    state.begin(op)?;
    match state.file_and_volume(handle).map(|(file, _)| (file.volume, file.id, file.inode.clone())) {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            state.fail(op, &error);
            Ok(None)
        }
    }
}

/// directWrite(op, file, lockMode, flags, buffer, offset, length, pos)
pub fn direct_write(call: &Call<'_, 8>) -> JsResult<Value> {
    let (op, handle) = (call.op()?, call.handle(1)?);
    let lock = call.js.get_integer(call.arguments[2], "lockMode", 0.0, 1.0)?;
    let lock = if lock == 0 { LockMode::Shared } else { LockMode::Exclusive };
    let flags = call.flags(3)?;
    let Range { slice, pos, .. } = call.range(4)?;
    let mut state = call.environment.state();
    let Some((volume, file, _)) = begin(&mut state, op, handle)? else { return Ok(UNDEFINED) };
    if slice.len() == 0 {
        state.succeed(op, 0);
        return Ok(UNDEFINED);
    }
    let memory = state.memory.for_write(call.js, slice);
    state.bind(op, volume, Ending::Plain);
    let write = DirectWrite {
        op: u64::from(op),
        file,
        lock,
        dsync: flags & DSYNC != 0,
        nowait: flags & NOWAIT != 0,
        atomic: flags & ATOMIC != 0,
        pos,
        memory,
    };
    state.start_direct(op, volume, Direct::Write(write));
    Ok(UNDEFINED)
}

/// directRead(op, file, flags, buffer, offset, length, pos)
pub fn direct_read(call: &Call<'_, 7>) -> JsResult<Value> {
    let (op, handle) = (call.op()?, call.handle(1)?);
    let nowait = call.flags(2)? & NOWAIT != 0;
    let Range { array, slice, pos } = call.range(3)?;
    let mut state = call.environment.state();
    let Some((volume, file, _)) = begin(&mut state, op, handle)? else { return Ok(UNDEFINED) };
    if slice.len() == 0 {
        state.succeed(op, 0);
        return Ok(UNDEFINED);
    }
    let (memory, copy) = state.memory.for_read(call.js, array, slice)?;
    state.bind(op, volume, copy.map_or(Ending::Plain, Ending::Read));
    state.start_direct(op, volume, Direct::Read(DirectRead { op: u64::from(op), file, nowait, pos, memory }));
    Ok(UNDEFINED)
}

/// Writes a copy of the range at argument `first` on a worker.
fn write_on_worker<const N: usize>(
    call: &Call<'_, N>,
    first: usize,
    write: impl FnOnce(&Arc<Fs>, &Arc<Inode>, u64, &[u8]) -> Result<usize> + Send + 'static,
) -> JsResult<Value> {
    let (op, handle) = (call.op()?, call.handle(1)?);
    let Range { slice, pos, .. } = call.range(first)?;
    let mut state = call.environment.state();
    let Some((volume, _, inode)) = begin(&mut state, op, handle)? else { return Ok(UNDEFINED) };
    let data = slice.to_vec();
    state.run(op, volume, Ending::Plain, move |fs| {
        write(fs, &inode, pos, &data).map(|written| (written as u64, Outcome::None))
    });
    Ok(UNDEFINED)
}

/// A read that has something to read.
struct Reading {
    volume: u64,
    inode: Arc<Inode>,
    pos: u64,
    bytes: AlignedBuf,
    copy: CopyBack,
}

impl Reading {
    /// Of the range at argument `first`; `None`: the operation is over, at the end of the file too.
    fn begin<const N: usize>(call: &Call<'_, N>, state: &mut State, first: usize) -> JsResult<Option<Self>> {
        let (op, handle) = (call.op()?, call.handle(1)?);
        let Range { array, slice, pos } = call.range(first)?;
        let Some((volume, _, inode)) = begin(state, op, handle)? else { return Ok(None) };
        let available = inode.size().saturating_sub(pos).min(slice.len() as u64) as usize;
        if available == 0 {
            state.succeed(op, 0);
            return Ok(None);
        }
        let copy = slice.copy_back(call.js, array)?;
        Ok(Some(Self { volume, inode, pos, bytes: state.memory.take(available), copy }))
    }

    fn on_worker(
        self,
        state: &mut State,
        op: u32,
        read: impl FnOnce(&Arc<Fs>, &Arc<Inode>, u64, &mut [u8]) -> Result<usize> + Send + 'static,
    ) {
        let Self { volume, inode, pos, mut bytes, copy } = self;
        state.run(op, volume, Ending::Read(copy), move |fs| {
            let read = read(fs, &inode, pos, &mut bytes)?;
            Ok((read as u64, Outcome::Bytes(bytes)))
        });
    }
}

/// bufferedWrite(op, file, flags, buffer, offset, length, pos)
pub fn buffered_write(call: &Call<'_, 7>) -> JsResult<Value> {
    let nowait = call.flags(2)? & NOWAIT != 0;
    write_on_worker(call, 3, move |fs, inode, pos, data| match nowait {
        true => Err(Error::errno_only(errno::EOPNOTSUPP)), // A17
        false => fs.buffered_write(inode, pos, data),
    })
}

/// bufferedRead(op, file, flags, buffer, offset, length, pos)
pub fn buffered_read(call: &Call<'_, 7>) -> JsResult<Value> {
    let (op, nowait) = (call.op()?, call.flags(2)? & NOWAIT != 0);
    let mut state = call.environment.state();
    let Some(reading) = Reading::begin(call, &mut state, 3)? else { return Ok(UNDEFINED) };
    if nowait {
        read_nowait(&mut state, call.js, op, reading);
    } else {
        reading.on_worker(&mut state, op, Fs::buffered_read);
    }
    Ok(UNDEFINED)
}

/// RWF_NOWAIT: what is in the page cache, here and now.
fn read_nowait(state: &mut State, js: Js, op: u32, reading: Reading) {
    let Reading { volume, inode, pos, mut bytes, copy } = reading;
    let read = state
        .with_engine(volume, |engine| engine.fs().buffered_read_nowait(&inode, pos, &mut bytes))
        .and_then(|result| result);
    let copied = copy.copy(js, &bytes[..*read.as_ref().unwrap_or(&0)]);
    state.memory.give_back(Memory::Owned(bytes));
    match read {
        Ok(read) if copied => state.succeed(op, read as u64),
        Ok(_) => state.fail(op, &detached()),
        Err(error) => state.fail(op, &error),
    }
}

impl<const N: usize> Call<'_, N> {
    /// Runs a call that does not wait on the file of argument 0; what fails is a negative errno.
    fn try_now(&self, f: impl FnOnce(&Arc<Fs>, &Arc<Inode>) -> Result<usize>) -> JsResult<Value> {
        let handle = self.handle(0)?;
        let mut state = self.environment.state();
        let found = state.file_and_volume(handle).map(|(file, _)| (file.volume, file.inode.clone()));
        let done = found.and_then(|(volume, inode)| {
            state.with_engine(volume, |engine| f(engine.fs(), &inode)).and_then(|result| result)
        });
        drop(state);
        self.js.number(done.map_or_else(|error| -f64::from(error.errno()), |bytes| bytes as f64))
    }
}

/// tryBufferedWrite(file, buffer, offset, length, pos)
pub fn try_buffered_write(call: &Call<'_, 5>) -> JsResult<Value> {
    let Range { slice, pos, .. } = call.range(1)?;
    call.try_now(|fs, inode| slice.with_bytes(|data| fs.try_buffered_write(inode, pos, data)))
}

/// tryBufferedRead(file, buffer, offset, length, pos)
pub fn try_buffered_read(call: &Call<'_, 5>) -> JsResult<Value> {
    let Range { slice, pos, .. } = call.range(1)?;
    call.try_now(|fs, inode| slice.with_bytes_mut(|out| fs.try_buffered_read(inode, pos, out)))
}

/// daxWrite(op, file, buffer, offset, length, pos)
pub fn dax_write(call: &Call<'_, 6>) -> JsResult<Value> {
    write_on_worker(call, 2, |fs, inode, pos, data| fs.dax_write(inode, pos, data))
}

/// daxRead(op, file, buffer, offset, length, pos)
pub fn dax_read(call: &Call<'_, 6>) -> JsResult<Value> {
    let op = call.op()?;
    let mut state = call.environment.state();
    if let Some(reading) = Reading::begin(call, &mut state, 2)? {
        reading.on_worker(&mut state, op, |fs, inode, pos, out| fs.dax_read(inode, pos, out, Look::Disk));
    }
    Ok(UNDEFINED)
}

/// tryDaxWrite(file, buffer, offset, length, pos)
pub fn try_dax_write(call: &Call<'_, 5>) -> JsResult<Value> {
    let Range { slice, pos, .. } = call.range(1)?;
    call.try_now(|fs, inode| slice.with_bytes(|data| fs.try_dax_write(inode, pos, data)))
}

/// tryDaxRead(file, buffer, offset, length, pos)
pub fn try_dax_read(call: &Call<'_, 5>) -> JsResult<Value> {
    let Range { slice, pos, .. } = call.range(1)?;
    call.try_now(|fs, inode| slice.with_bytes_mut(|out| fs.dax_read(inode, pos, out, Look::Cached)))
}
