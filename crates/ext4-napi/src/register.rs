//! The module's exports.
#![expect(unsafe_code, reason = "Node-API's callbacks are C functions")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use napi::bindgen_prelude::Object;
use napi::sys;
use napi::{Env, JsValue};
use napi_derive::napi;

use crate::call::{Call, UNDEFINED};
use crate::environment::Environment;
use crate::js::{Arguments, Js, JsResult, Thrown, Value};
use crate::{files, names, transfer, volumes};

/// Converts, calls, converts; no panic gets out.
fn enter<const N: usize>(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    f: impl FnOnce(&Call<'_, N>) -> JsResult<Value>,
) -> Value {
    let js = Js::new(env);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let arguments = Arguments::<N>::of(js, info)?;
        // SAFETY: every function is registered with its environment, which outlives all JavaScript.
        let environment = unsafe { &*arguments.data.cast::<Environment>() };
        let result = f(&Call { js, environment, arguments });
        environment.settle_reference();
        result
    }));
    let thrown = match result {
        Ok(Ok(value)) => return value,
        Ok(Err(thrown)) => thrown,
        Err(_) => Thrown::Error("uext4: an internal error; please report this".into()),
    };
    js.throw(&thrown);
    UNDEFINED
}

macro_rules! export {
    ($raw:expr, $environment:expr, $($name:literal => $function:path [$count:literal],)+) => {
        [$({
            unsafe extern "C" fn callback(env: sys::napi_env, info: sys::napi_callback_info) -> Value {
                enter::<$count>(env, info, $function)
            }
            define($raw.0, $raw.1, $name, Some(callback), $environment)
        }),+]
    };
}

fn define(
    env: sys::napi_env,
    exports: Value,
    name: &std::ffi::CStr,
    function: sys::napi_callback,
    environment: *mut Environment,
) -> bool {
    let mut made = ptr::null_mut();
    // SAFETY: the environment that registers the module, its exports, and NUL-terminated names.
    unsafe {
        sys::napi_create_function(
            env,
            name.as_ptr(),
            name.count_bytes() as isize,
            function,
            environment.cast(),
            &mut made,
        ) == sys::Status::napi_ok
            && sys::napi_set_named_property(env, exports, name.as_ptr(), made) == sys::Status::napi_ok
    }
}

#[napi(module_exports)]
/// Registers the module in an environment.
pub fn register(exports: Object<'_>, env: Env) -> napi::Result<()> {
    // SAFETY: this is the registration.
    let environment = unsafe { Environment::register(env.raw()) }
        .map_err(|thrown| napi::Error::from_reason(format!("{thrown:?}")))?;
    let raw = (env.raw(), exports.raw());
    let defined = export!(raw, environment,
        c"start" => volumes::start [2],
        c"submit" => volumes::submit [0],
        c"pump" => volumes::pump [1],
        c"takeResult" => volumes::take_result [1],
        c"registerMemory" => volumes::register_memory [1],
        c"memoryInUse" => volumes::memory_in_use [1],
        c"formatVolume" => volumes::format_volume [3],
        c"recoverVolume" => volumes::recover_volume [3],
        c"openVolume" => volumes::open_volume [3],
        c"cancelOpen" => volumes::cancel_open [1],
        c"closeVolume" => volumes::close_volume [2],
        c"syncVolume" => volumes::sync_volume [2],
        c"freezeVolume" => volumes::freeze_volume [2],
        c"thawVolume" => volumes::thaw_volume [2],
        c"remountVolume" => volumes::remount_volume [3],
        c"shutdownVolume" => volumes::shutdown_volume [3],
        c"volumeInfo" => volumes::volume_info [1],
        c"volumeStats" => volumes::volume_stats [1],
        c"open" => names::open [5],
        c"stat" => names::stat [4],
        c"readdir" => names::readdir [3],
        c"mkdir" => names::mkdir [4],
        c"rmdir" => names::rmdir [3],
        c"unlink" => names::unlink [3],
        c"rename" => names::rename [4],
        c"link" => names::link [4],
        c"symlink" => names::symlink [4],
        c"readlink" => names::readlink [3],
        c"chmod" => names::chmod [4],
        c"chown" => names::chown [6],
        c"utimes" => names::utimes [8],
        c"getxattr" => names::getxattr [4],
        c"setxattr" => names::setxattr [6],
        c"listxattr" => names::listxattr [3],
        c"removexattr" => names::removexattr [4],
        c"closeFile" => files::close_file [2],
        c"fstat" => files::fstat [2],
        c"fchmod" => files::fchmod [3],
        c"fchown" => files::fchown [4],
        c"futimes" => files::futimes [6],
        c"inodeSizes" => files::inode_sizes [2],
        c"probeWrite" => files::probe_write [3],
        c"tryFileModified" => files::try_file_modified [1],
        c"tryFileAccessed" => files::try_file_accessed [1],
        c"lookupWrite" => files::lookup_write [4],
        c"fileModified" => files::file_modified [2],
        c"orphanAdd" => files::orphan_add [2],
        c"orphanDelete" => files::orphan_delete [2],
        c"writeAndWait" => files::write_and_wait [4],
        c"invalidate" => files::invalidate [4],
        c"truncate" => files::truncate [3],
        c"truncateToSize" => files::truncate_to_size [2],
        c"fallocate" => files::fallocate [5],
        c"seek" => files::seek [4],
        c"extents" => files::extents [4],
        c"sync" => files::sync [3],
        c"directWrite" => transfer::direct_write [8],
        c"directRead" => transfer::direct_read [7],
        c"bufferedWrite" => transfer::buffered_write [7],
        c"bufferedRead" => transfer::buffered_read [7],
        c"tryBufferedWrite" => transfer::try_buffered_write [5],
        c"tryBufferedRead" => transfer::try_buffered_read [5],
        c"daxWrite" => transfer::dax_write [6],
        c"daxRead" => transfer::dax_read [6],
        c"tryDaxWrite" => transfer::try_dax_write [5],
        c"tryDaxRead" => transfer::try_dax_read [5],
        c"removeMemory" => volumes::remove_memory [2],
    );
    if defined.contains(&false) {
        return Err(napi::Error::from_reason("uext4: cannot define its functions"));
    }
    Ok(())
}
