//! Calls on an open file, but for its data.

use std::sync::Arc;

use ext4::aio::Value as Outcome;
use ext4::{Error, FallocateMode, Fs, Inode, Look, Probe, Result, Whence, errno};

use crate::call::{Call, UNDEFINED};
use crate::js::{JsResult, Thrown, Value};
use crate::names::nothing;
use crate::state::Ending;

/// What probeWrite and lookupWrite answer: bits, or EIO after a shutdown.
fn probe_result(probe: Probe) -> Result<u64> {
    if probe.has(Probe::SHUT_DOWN) { Err(Error::errno_only(errno::EIO)) } else { Ok(u64::from(probe.0)) }
}

impl<const N: usize> Call<'_, N> {
    /// Runs a job on the file of argument 1.
    pub fn on_file(
        &self,
        ending: Ending,
        job: impl FnOnce(&Arc<Fs>, &Arc<Inode>) -> Result<(u64, Outcome)> + Send + 'static,
    ) -> JsResult<Value> {
        let (op, handle) = (self.op()?, self.handle(1)?);
        let mut state = self.environment.state();
        state.begin(op)?;
        match state.file(handle).map(|file| (file.volume, file.inode.clone())) {
            Ok((volume, inode)) => state.run(op, volume, ending, move |fs| job(fs, &inode)),
            Err(error) => state.fail(op, &error),
        }
        Ok(UNDEFINED)
    }

    /// A position or length in bytes.
    pub fn bytes(&self, index: usize, name: &str) -> JsResult<u64> {
        self.js.get_u53(self.arguments[index], name)
    }
}

/// closeFile(op, file)
pub fn close_file(call: &Call<'_, 2>) -> JsResult<Value> {
    let (op, handle) = (call.op()?, call.handle(1)?);
    let mut state = call.environment.state();
    state.begin(op)?;
    let Some(file) = state.files.remove(handle) else {
        state.fail(op, &Error::errno_only(errno::EBADF));
        return Ok(UNDEFINED);
    };
    if let Some(volume) = state.volumes.get_mut(file.volume) {
        volume.files = volume.files.saturating_sub(1);
    }
    state.bind(op, file.volume, Ending::Plain);
    let closed = state.with_engine(file.volume, |engine| engine.close_file(u64::from(op), file.id));
    if let Err(error) | Ok(Err(error)) = closed {
        state.fail(op, &error);
    }
    Ok(UNDEFINED)
}

/// fstat(op, file)
pub fn fstat(call: &Call<'_, 2>) -> JsResult<Value> {
    call.on_file(Ending::Plain, |fs, inode| Ok((0, Outcome::Stat(fs.stat(inode)))))
}

/// fchmod(op, file, mode)
pub fn fchmod(call: &Call<'_, 3>) -> JsResult<Value> {
    let mode = call.mode(2)?;
    call.on_file(Ending::Plain, move |fs, inode| nothing(fs.chmod(inode, mode)))
}

/// fchown(op, file, uid, gid)
pub fn fchown(call: &Call<'_, 4>) -> JsResult<Value> {
    let (uid, gid) = call.owners(2)?;
    call.on_file(Ending::Plain, move |fs, inode| nothing(fs.chown(inode, uid, gid)))
}

/// futimes(op, file, atimeSec, atimeNsec, mtimeSec, mtimeNsec)
pub fn futimes(call: &Call<'_, 6>) -> JsResult<Value> {
    let (atime, mtime) = call.times(2)?;
    call.on_file(Ending::Plain, move |fs, inode| nothing(fs.set_times(inode, atime, mtime)))
}

/// inodeSizes(file, out)
#[expect(unsafe_code, reason = "a typed array is an address and a length")]
pub fn inode_sizes(call: &Call<'_, 2>) -> JsResult<Value> {
    let handle = call.handle(0)?;
    let (start, len) = call.js.get_f64_array(call.arguments[1], "out")?;
    if len < 2 {
        return Err(Thrown::Range("out must hold two numbers".into()));
    }
    let mut state = call.environment.state();
    let (file, volume) = state.file_and_volume(handle).map_err(|error| Thrown::Error(error.to_string()))?;
    let (size, disk_size) = volume.engine.fs().sizes(&file.inode);
    // SAFETY: at least two numbers, as just checked; no JavaScript runs meanwhile.
    unsafe {
        start.write(size as f64);
        start.add(1).write(disk_size as f64);
    }
    Ok(UNDEFINED)
}

/// probeWrite(file, pos, len)
pub fn probe_write(call: &Call<'_, 3>) -> JsResult<Value> {
    let (pos, len) = (call.bytes(1, "pos")?, call.bytes(2, "len")?);
    let handle = call.handle(0)?;
    let mut state = call.environment.state();
    let probed = state
        .file_and_volume(handle)
        .and_then(|(file, volume)| volume.engine.fs().probe_write(&file.inode, pos, len, Look::Cached))
        .and_then(probe_result);
    drop(state);
    call.js.number(probed.map_or_else(|error| -f64::from(error.errno()), |bits| bits as f64))
}

/// lookupWrite(op, file, pos, len)
pub fn lookup_write(call: &Call<'_, 4>) -> JsResult<Value> {
    let (pos, len) = (call.bytes(2, "pos")?, call.bytes(3, "len")?);
    call.on_file(Ending::Plain, move |fs, inode| {
        let bits = probe_result(fs.probe_write(inode, pos, len, Look::Disk)?)?;
        Ok((bits, Outcome::None))
    })
}

/// fileModified(op, file)
pub fn file_modified(call: &Call<'_, 2>) -> JsResult<Value> {
    call.on_file(Ending::Plain, |fs, inode| nothing(fs.file_modified(inode)))
}

/// Calls on a file that end at once: 0 or a negative errno.
fn at_once(call: &Call<'_, 1>, work: impl FnOnce(&Fs, &Inode) -> Result<()>) -> JsResult<Value> {
    let handle = call.handle(0)?;
    let mut state = call.environment.state();
    let tried =
        state.file_and_volume(handle).and_then(|(file, volume)| work(volume.engine.fs(), &file.inode));
    drop(state);
    call.js.number(tried.map_or_else(|error| -f64::from(error.errno()), |()| 0.0))
}

/// tryFileModified(file)
pub fn try_file_modified(call: &Call<'_, 1>) -> JsResult<Value> {
    at_once(call, Fs::try_file_modified)
}

/// tryFileAccessed(file)
pub fn try_file_accessed(call: &Call<'_, 1>) -> JsResult<Value> {
    at_once(call, Fs::try_file_accessed)
}

/// orphanAdd(op, file)
pub fn orphan_add(call: &Call<'_, 2>) -> JsResult<Value> {
    call.on_file(Ending::Plain, |fs, inode| nothing(fs.add_orphan(inode)))
}

/// orphanDelete(op, file)
pub fn orphan_delete(call: &Call<'_, 2>) -> JsResult<Value> {
    call.on_file(Ending::Plain, |fs, inode| nothing(fs.delete_orphan(inode)))
}

/// writeAndWait(op, file, pos, len)
pub fn write_and_wait(call: &Call<'_, 4>) -> JsResult<Value> {
    let (pos, len) = (call.bytes(2, "pos")?, call.bytes(3, "len")?);
    call.on_file(Ending::Plain, move |fs, inode| nothing(fs.write_and_wait(inode, pos, len)))
}

/// invalidate(op, file, pos, len)
pub fn invalidate(call: &Call<'_, 4>) -> JsResult<Value> {
    let (pos, len) = (call.bytes(2, "pos")?, call.bytes(3, "len")?);
    call.on_file(Ending::Plain, move |fs, inode| nothing(fs.invalidate(inode, pos, len)))
}

/// truncate(op, file, size)
pub fn truncate(call: &Call<'_, 3>) -> JsResult<Value> {
    let size = call.bytes(2, "size")?;
    call.on_file(Ending::Plain, move |fs, inode| nothing(fs.truncate(inode, size)))
}

/// truncateToSize(op, file)
pub fn truncate_to_size(call: &Call<'_, 2>) -> JsResult<Value> {
    call.on_file(Ending::Plain, |fs, inode| nothing(fs.truncate_to_size(inode)))
}

/// Extents that one call of `extents` gives at most.
const EXTENTS_PER_CALL: usize = 4096;

/// fallocate(op, file, mode, pos, len)
pub fn fallocate(call: &Call<'_, 5>) -> JsResult<Value> {
    let mode = call.js.get_u32(call.arguments[2], "mode")?;
    let (pos, len) = (call.bytes(3, "pos")?, call.bytes(4, "len")?);
    call.on_file(Ending::Plain, move |fs, inode| {
        nothing(FallocateMode::from_bits(mode).and_then(|mode| fs.fallocate(inode, mode, pos, len)))
    })
}

/// seek(op, file, pos, whence)
pub fn seek(call: &Call<'_, 4>) -> JsResult<Value> {
    let pos = call.bytes(2, "pos")?;
    let whence = call.js.get_u32(call.arguments[3], "whence")?;
    call.on_file(Ending::Plain, move |fs, inode| {
        let found = fs.seek(inode, pos, Whence::from_number(whence)?)?;
        Ok((found, Outcome::None))
    })
}

/// extents(op, file, pos, len)
pub fn extents(call: &Call<'_, 4>) -> JsResult<Value> {
    let (pos, len) = (call.bytes(2, "pos")?, call.bytes(3, "len")?);
    call.on_file(Ending::Plain, move |fs, inode| {
        let extents = fs.extents(inode, pos, len, EXTENTS_PER_CALL)?;
        Ok((extents.len() as u64, Outcome::Extents(extents)))
    })
}

/// sync(op, file, datasync)
pub fn sync(call: &Call<'_, 3>) -> JsResult<Value> {
    let (op, handle) = (call.op()?, call.handle(1)?);
    let datasync = call.js.get_bool(call.arguments[2], "datasync")?;
    let mut state = call.environment.state();
    state.begin(op)?;
    let (volume, id) = match state.file(handle) {
        Ok(file) => (file.volume, file.id),
        Err(error) => {
            state.fail(op, &error);
            return Ok(UNDEFINED);
        }
    };
    state.bind(op, volume, Ending::Plain);
    let started = state.with_engine(volume, |engine| engine.sync(u64::from(op), id, datasync));
    if let Err(error) | Ok(Err(error)) = started {
        state.fail(op, &error);
    }
    Ok(UNDEFINED)
}
