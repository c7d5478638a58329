//! The environment's own calls, and those on a whole volume.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ext4::aio::Value as Outcome;
use ext4::{Error, Fs, Shutdown, errno};

use crate::call::{Call, UNDEFINED};
use crate::container;
use crate::detail::{VolumeInfo, set_numbers};
use crate::environment::Environment;
use crate::js::{JsResult, MAX_SAFE_INTEGER, Thrown, Value};
use crate::options;
use crate::state::{Ending, MAX_OPS};

impl<const N: usize> Call<'_, N> {
    /// The operation id, which comes first.
    pub fn op(&self) -> JsResult<u32> {
        let max = f64::from(MAX_OPS - 1);
        self.js.get_integer(self.arguments[0], "op", 0.0, max).map(|op| op as u32)
    }

    /// A handle of a volume or file. What is no integer at all is none.
    pub fn handle(&self, index: usize) -> JsResult<u64> {
        let handle = self.js.get_f64(self.arguments[index], "handle")?;
        let is_integer = handle.trunc() == handle && (0.0..=MAX_SAFE_INTEGER).contains(&handle);
        Ok(if is_integer { handle as u64 } else { 0 })
    }
}

/// start(slots, onBatch)
pub fn start(call: &Call<'_, 2>) -> JsResult<Value> {
    call.environment.start(call.arguments[0], call.arguments[1])?;
    Ok(UNDEFINED)
}

/// submit()
pub fn submit(call: &Call<'_, 0>) -> JsResult<Value> {
    call.environment.submit();
    Ok(UNDEFINED)
}

/// pump(timeoutMs)
pub fn pump(call: &Call<'_, 1>) -> JsResult<Value> {
    let timeout = call.js.get_integer(call.arguments[0], "timeoutMs", 0.0, 86_400_000.0)?;
    let count = call.environment.pump(Duration::from_millis(timeout as u64))?;
    call.js.number(count as f64)
}

/// takeResult(op)
pub fn take_result(call: &Call<'_, 1>) -> JsResult<Value> {
    let detail = call.environment.state().take_detail(call.op()?);
    detail.map_or(Ok(UNDEFINED), |detail| detail.to_js(call.js))
}

/// registerMemory(memory)
pub fn register_memory(call: &Call<'_, 1>) -> JsResult<Value> {
    let view = call.js.get_view(call.arguments[0], "memory")?;
    call.environment.state().memory.register(call.js, call.arguments[0], view)?;
    Ok(UNDEFINED)
}

/// memoryInUse(memory): whether a request uses registered memory.
pub fn memory_in_use(call: &Call<'_, 1>) -> JsResult<Value> {
    let view = call.js.get_view(call.arguments[0], "memory")?;
    let in_use = call.environment.state().memory.is_in_use(call.js, view);
    call.js.boolean(in_use)
}

/// formatVolume(op, path, optionsJson)
pub fn format_volume(call: &Call<'_, 3>) -> JsResult<Value> {
    let (op, path) = (call.op()?, call.js.get_path(call.arguments[1], "path")?);
    let json = call.js.get_string(call.arguments[2], "optionsJson")?;
    let mut state = call.environment.state();
    state.begin(op)?;
    let started = options::format_volume(&json).and_then(|options| state.arrivals.format(op, path, options));
    if let Err(error) = started {
        state.fail(op, &error);
    }
    Ok(UNDEFINED)
}

/// recoverVolume(op, path, optionsJson)
pub fn recover_volume(call: &Call<'_, 3>) -> JsResult<Value> {
    let (op, path) = (call.op()?, call.js.get_path(call.arguments[1], "path")?);
    let json = call.js.get_string(call.arguments[2], "optionsJson")?;
    let mut state = call.environment.state();
    state.begin(op)?;
    let started =
        options::recover_volume(&json).and_then(|options| state.arrivals.recover(op, path, options));
    if let Err(error) = started {
        state.fail(op, &error);
    }
    Ok(UNDEFINED)
}

/// openVolume(op, path, optionsJson)
pub fn open_volume(call: &Call<'_, 3>) -> JsResult<Value> {
    let (op, path) = (call.op()?, call.js.get_path(call.arguments[1], "path")?);
    let json = call.js.get_string(call.arguments[2], "optionsJson")?;
    let mut state = call.environment.state();
    state.begin(op)?;
    let started = options::open_volume(&json).and_then(|options| state.arrivals.mount(op, path, options));
    if let Err(error) = started {
        state.fail(op, &error);
    }
    Ok(UNDEFINED)
}

/// cancelOpen(op): ends the wait of an openVolume for other hosts.
pub fn cancel_open(call: &Call<'_, 1>) -> JsResult<Value> {
    let op = call.op()?;
    call.environment.state().arrivals.cancel(op);
    Ok(UNDEFINED)
}

/// removeMemory(op, path): gives a container in memory back.
pub fn remove_memory(call: &Call<'_, 2>) -> JsResult<Value> {
    let (op, path) = (call.op()?, call.js.get_path(call.arguments[1], "path")?);
    let mut state = call.environment.state();
    state.begin(op)?;
    match container::remove_memory(&path) {
        Ok(()) => state.succeed(op, 0),
        Err(error) => state.fail(op, &error),
    }
    Ok(UNDEFINED)
}

/// closeVolume(op, volume): EBUSY while files are open or operations under way.
pub fn close_volume(call: &Call<'_, 2>) -> JsResult<Value> {
    let (op, handle) = (call.op()?, call.handle(1)?);
    let mut state = call.environment.state();
    state.begin(op)?;
    let refusal = match state.volumes.get(handle) {
        None => Some(errno::EBADF),
        Some(volume) if volume.failed => {
            drop(state.volumes.remove(handle));
            Some(errno::EIO)
        }
        Some(volume) if volume.files > 0 || volume.ops > 0 => Some(errno::EBUSY),
        Some(_) => None,
    };
    match refusal {
        Some(errno) => state.fail(op, &Error::errno_only(errno)),
        None => state.run(op, handle, Ending::CloseVolume, |fs| fs.unmount().map(|()| (0, Outcome::None))),
    }
    Ok(UNDEFINED)
}

/// syncVolume(op, volume)
pub fn sync_volume(call: &Call<'_, 2>) -> JsResult<Value> {
    run_on_volume(call.environment, call.op()?, call.handle(1)?, |fs| fs.sync())
}

/// freezeVolume(op, volume)
pub fn freeze_volume(call: &Call<'_, 2>) -> JsResult<Value> {
    run_on_volume(call.environment, call.op()?, call.handle(1)?, |fs| fs.freeze())
}

/// thawVolume(op, volume)
pub fn thaw_volume(call: &Call<'_, 2>) -> JsResult<Value> {
    run_on_volume(call.environment, call.op()?, call.handle(1)?, |fs| fs.thaw())
}

/// remountVolume(op, volume, readOnly)
pub fn remount_volume(call: &Call<'_, 3>) -> JsResult<Value> {
    let read_only = call.js.get_bool(call.arguments[2], "readOnly")?;
    run_on_volume(call.environment, call.op()?, call.handle(1)?, move |fs| fs.remount(read_only))
}

/// shutdownVolume(op, volume, mode): Linux's EXT4_IOC_SHUTDOWN, 0 default, 1 log flush, 2 no log flush.
pub fn shutdown_volume(call: &Call<'_, 3>) -> JsResult<Value> {
    let how = match call.js.get_integer(call.arguments[2], "mode", 0.0, 2.0)? as u32 {
        0 => Shutdown::Default,
        1 => Shutdown::LogFlush,
        _ => Shutdown::NoLogFlush,
    };
    run_on_volume(call.environment, call.op()?, call.handle(1)?, move |fs| fs.force_shutdown(how))
}

fn run_on_volume(
    environment: &Environment,
    op: u32,
    volume: u64,
    job: impl FnOnce(&Fs) -> ext4::Result<()> + Send + 'static,
) -> JsResult<Value> {
    let mut state = environment.state();
    state.begin(op)?;
    state.run(op, volume, Ending::Plain, move |fs| job(fs).map(|()| (0, Outcome::None)));
    Ok(UNDEFINED)
}

fn unusable(error: &Error) -> Thrown {
    Thrown::Error(error.to_string())
}

/// volumeInfo(volume)
pub fn volume_info(call: &Call<'_, 1>) -> JsResult<Value> {
    let handle = call.handle(0)?;
    let mut state = call.environment.state();
    let volume = state.volume(handle).map_err(|error| unusable(&error))?;
    let info = VolumeInfo::of(volume.engine.fs(), &volume.backend);
    drop(state);
    info.to_js(call.js)
}

/// volumeStats(volume)
pub fn volume_stats(call: &Call<'_, 1>) -> JsResult<Value> {
    let handle = call.handle(0)?;
    let mut state = call.environment.state();
    let volume = state.volume(handle).map_err(|error| unusable(&error))?;
    let counters = volume.engine.counters();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let journal = volume.engine.fs().journal_stats();
    let device = volume.io_counts.totals();
    let object = call.js.object()?;
    set_numbers(
        call.js,
        object,
        &[
            (c"openFiles", volume.files as f64),
            (c"operationsInFlight", volume.ops as f64),
            (c"transactionsReplayed", f64::from(volume.transactions_replayed)),
            (c"directWritesMappedInPlace", count(&counters.mapped_in_place)),
            (c"directWritesMappedByJob", count(&counters.mapped_by_job)),
            (c"directWritesEndedInPlace", count(&counters.ended_in_place)),
            (c"directWritesRefusedShared", count(&counters.refused_shared)),
            (c"commits", journal.commits as f64),
            (c"blocksLogged", journal.blocks_logged as f64),
            (c"deviceReads", device.reads as f64),
            (c"deviceWrites", device.writes as f64),
            (c"deviceFuaWrites", device.fua_writes as f64),
            (c"deviceFlushes", device.flushes as f64),
            (c"deviceBytesRead", device.bytes_read as f64),
            (c"deviceBytesWritten", device.bytes_written as f64),
        ],
    )?;
    Ok(object)
}
