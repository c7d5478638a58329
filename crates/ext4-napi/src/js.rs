//! JavaScript values: checked on the way in, made on the way out. Everything unsafe about Node-API's values is here.
#![expect(unsafe_code, reason = "Node-API is a C interface")]

use std::ffi::CString;
use std::ptr;

use napi::sys;

/// A JavaScript value; valid until the current callback returns.
pub type Value = sys::napi_value;

/// Why a call throws.
#[derive(Debug)]
pub enum Thrown {
    /// An argument of a wrong type.
    Type(String),
    /// A number or range outside what the call takes.
    Range(String),
    /// Anything else.
    Error(String),
    /// Node-API has an exception pending, or refuses because the environment ends.
    Pending,
}

/// What a callback computes.
pub type JsResult<T> = Result<T, Thrown>;

/// The largest integer that a JavaScript number holds exactly.
pub const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The bytes of a Uint8Array; valid until JavaScript runs again.
#[derive(Clone, Copy)]
pub struct View {
    /// First byte; null for an empty or detached array.
    pub start: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// An environment of Node.js, inside one of its callbacks.
#[derive(Clone, Copy)]
pub struct Js {
    env: sys::napi_env,
}

fn ok(status: sys::napi_status) -> JsResult<()> {
    if status == sys::Status::napi_ok { Ok(()) } else { Err(Thrown::Pending) }
}

/// Calls a Node-API function whose last parameter receives a value.
macro_rules! made {
    ($function:ident, $($argument:expr),+) => {{
        let mut made = ptr::null_mut();
        // SAFETY: called on the environment's thread with values of it; `made` outlives the call.
        ok(unsafe { sys::$function($($argument),+, &mut made) })?;
        Ok(made)
    }};
}

impl Js {
    /// Wraps the environment that Node-API gave to a callback or to the module's registration.
    pub fn new(env: sys::napi_env) -> Self {
        Self { env }
    }

    /// A number.
    pub fn get_f64(self, value: Value, name: &str) -> JsResult<f64> {
        let mut number = 0.0;
        // SAFETY: a value of this environment.
        match unsafe { sys::napi_get_value_double(self.env, value, &mut number) } {
            sys::Status::napi_ok => Ok(number),
            _ => Err(Thrown::Type(format!("{name} must be a number"))),
        }
    }

    /// An integer from `min` to `max`, both at most 2^53 in size.
    pub fn get_integer(self, value: Value, name: &str, min: f64, max: f64) -> JsResult<i64> {
        let number = self.get_f64(value, name)?;
        if number.trunc() == number && number >= min && number <= max {
            return Ok(number as i64);
        }
        Err(Thrown::Range(format!("{name} must be an integer from {min} to {max}, not {number}")))
    }

    /// An integer from 0 to 2^32 − 1.
    pub fn get_u32(self, value: Value, name: &str) -> JsResult<u32> {
        self.get_integer(value, name, 0.0, f64::from(u32::MAX)).map(|number| number as u32)
    }

    /// An integer from 0 to 2^53 − 1.
    pub fn get_u53(self, value: Value, name: &str) -> JsResult<u64> {
        self.get_integer(value, name, 0.0, MAX_SAFE_INTEGER).map(|number| number as u64)
    }

    /// A boolean.
    pub fn get_bool(self, value: Value, name: &str) -> JsResult<bool> {
        let mut truth = false;
        // SAFETY: a value of this environment.
        match unsafe { sys::napi_get_value_bool(self.env, value, &mut truth) } {
            sys::Status::napi_ok => Ok(truth),
            _ => Err(Thrown::Type(format!("{name} must be a boolean"))),
        }
    }

    /// A string, as UTF-8.
    pub fn get_string(self, value: Value, name: &str) -> JsResult<Vec<u8>> {
        let mut len = 0;
        // SAFETY: no buffer: only the length is written.
        let status =
            unsafe { sys::napi_get_value_string_utf8(self.env, value, ptr::null_mut(), 0, &mut len) };
        if status != sys::Status::napi_ok {
            return Err(Thrown::Type(format!("{name} must be a string")));
        }
        let mut bytes = vec![0; len + 1];
        // SAFETY: the buffer has room for the text and its NUL.
        ok(unsafe {
            sys::napi_get_value_string_utf8(self.env, value, bytes.as_mut_ptr().cast(), bytes.len(), &mut len)
        })?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Text as UTF-8, or the bytes of a Uint8Array.
    pub fn get_path(self, value: Value, name: &str) -> JsResult<Vec<u8>> {
        match self.get_view(value, name) {
            // SAFETY: the array's bytes; no JavaScript runs until they are copied.
            Ok(view) if view.len > 0 => {
                Ok(unsafe { std::slice::from_raw_parts(view.start, view.len) }.to_vec())
            }
            Ok(_) => Ok(Vec::new()),
            Err(_) => self
                .get_string(value, name)
                .map_err(|_| Thrown::Type(format!("{name} must be a string or a Uint8Array"))),
        }
    }

    /// Type, elements, address and buffer of a typed array.
    fn typed_array(self, value: Value) -> Option<(i32, usize, *mut u8, Value)> {
        let mut is_typed_array = false;
        // SAFETY: a value of this environment.
        let status = unsafe { sys::napi_is_typedarray(self.env, value, &mut is_typed_array) };
        if status != sys::Status::napi_ok || !is_typed_array {
            return None;
        }
        let (mut kind, mut len, mut start, mut buffer) = (0, 0, ptr::null_mut(), ptr::null_mut());
        // SAFETY: it is a typed array; everything written to outlives the call.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                self.env,
                value,
                &mut kind,
                &mut len,
                &mut start,
                &mut buffer,
                ptr::null_mut(),
            )
        };
        (status == sys::Status::napi_ok).then_some((kind, len, start.cast(), buffer))
    }

    /// A Uint8Array. One whose buffer is detached is empty.
    pub fn get_view(self, value: Value, name: &str) -> JsResult<View> {
        match self.typed_array(value) {
            Some((sys::TypedarrayType::uint8_array, len, start, buffer)) => {
                let mut detached = false;
                // SAFETY: a value of this environment. Shared memory is no ArrayBuffer and cannot be detached.
                let status = unsafe { sys::napi_is_detached_arraybuffer(self.env, buffer, &mut detached) };
                let gone = status == sys::Status::napi_ok && detached || start.is_null();
                Ok(View { start, len: if gone { 0 } else { len } })
            }
            _ => Err(Thrown::Type(format!("{name} must be a Uint8Array"))),
        }
    }

    /// Address and length of a Float64Array.
    pub fn get_f64_array(self, value: Value, name: &str) -> JsResult<(*mut f64, usize)> {
        match self.typed_array(value) {
            Some((sys::TypedarrayType::float64_array, len, start, _)) if !start.is_null() => {
                Ok((start.cast(), len))
            }
            Some((sys::TypedarrayType::float64_array, _, start, _)) => Ok((start.cast(), 0)),
            _ => Err(Thrown::Type(format!("{name} must be a Float64Array"))),
        }
    }

    /// Whether it can be called.
    pub fn is_function(self, value: Value) -> bool {
        let mut kind = 0;
        // SAFETY: a value of this environment.
        let status = unsafe { sys::napi_typeof(self.env, value, &mut kind) };
        status == sys::Status::napi_ok && kind == sys::ValueType::napi_function
    }

    /// A number.
    pub fn number(self, number: f64) -> JsResult<Value> {
        made!(napi_create_double, self.env, number)
    }

    /// A boolean.
    pub fn boolean(self, truth: bool) -> JsResult<Value> {
        made!(napi_get_boolean, self.env, truth)
    }

    /// A string.
    pub fn string(self, text: &str) -> JsResult<Value> {
        made!(napi_create_string_utf8, self.env, text.as_ptr().cast(), text.len() as isize)
    }

    /// A string where the bytes are UTF-8, else a Uint8Array.
    pub fn name(self, bytes: &[u8]) -> JsResult<Value> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.string(text),
            Err(_) => self.bytes(bytes),
        }
    }

    /// A Uint8Array with a copy of the bytes, in memory of V8's own (an external one is refused in Electron).
    pub fn bytes(self, bytes: &[u8]) -> JsResult<Value> {
        let (mut start, mut buffer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both outlive the call.
        ok(unsafe { sys::napi_create_arraybuffer(self.env, bytes.len(), &mut start, &mut buffer) })?;
        if !bytes.is_empty() {
            // SAFETY: V8 just made `len` bytes there that nobody else knows of.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast(), bytes.len()) };
        }
        made!(napi_create_typedarray, self.env, sys::TypedarrayType::uint8_array, bytes.len(), buffer, 0)
    }

    /// An empty object.
    pub fn object(self) -> JsResult<Value> {
        made!(napi_create_object, self.env)
    }

    /// An array of values.
    pub fn array(self, values: impl ExactSizeIterator<Item = JsResult<Value>>) -> JsResult<Value> {
        let array = made!(napi_create_array_with_length, self.env, values.len())?;
        for (index, value) in values.enumerate() {
            // SAFETY: an array and a value of this environment.
            ok(unsafe { sys::napi_set_element(self.env, array, index as u32, value?) })?;
        }
        Ok(array)
    }

    /// Sets a property.
    pub fn set(self, object: Value, name: &std::ffi::CStr, value: Value) -> JsResult<()> {
        // SAFETY: an object and a value of this environment, and a NUL-terminated name.
        ok(unsafe { sys::napi_set_named_property(self.env, object, name.as_ptr(), value) })
    }

    /// Keeps a value alive until [`Js::forget`], or the end of the environment.
    pub fn keep(self, value: Value) -> JsResult<sys::napi_ref> {
        let mut reference = ptr::null_mut();
        // SAFETY: a value of this environment.
        ok(unsafe { sys::napi_create_reference(self.env, value, 1, &mut reference) })?;
        Ok(reference)
    }

    /// Remembers an object without keeping it from the collector.
    pub fn keep_weakly(self, object: Value) -> JsResult<sys::napi_ref> {
        let mut reference = ptr::null_mut();
        // SAFETY: a value of this environment.
        ok(unsafe { sys::napi_create_reference(self.env, object, 0, &mut reference) })?;
        Ok(reference)
    }

    /// Keeps what is remembered weakly, if it is there still.
    pub fn strengthen(self, reference: sys::napi_ref) -> JsResult<()> {
        // SAFETY: made by `keep_weakly`; no count is asked for.
        ok(unsafe { sys::napi_reference_ref(self.env, reference, ptr::null_mut()) })
    }

    /// Ends what [`Js::strengthen`] began.
    pub fn weaken(self, reference: sys::napi_ref) {
        // SAFETY: as above.
        let _stays_at_most = unsafe { sys::napi_reference_unref(self.env, reference, ptr::null_mut()) };
    }

    /// Whether the collector has not taken what is remembered weakly.
    pub fn is_alive(self, reference: sys::napi_ref) -> bool {
        let mut value = ptr::null_mut();
        // SAFETY: made by `keep_weakly`; the value is written to.
        let status = unsafe { sys::napi_get_reference_value(self.env, reference, &mut value) };
        status == sys::Status::napi_ok && !value.is_null()
    }

    /// The ArrayBuffer of a typed array.
    pub fn array_buffer_of(self, array: Value) -> JsResult<Value> {
        let found = self.typed_array(array).map(|(_, _, _, buffer)| buffer);
        found.ok_or_else(|| Thrown::Type("memory must be a Uint8Array".into()))
    }

    /// What [`Js::keep`] keeps.
    pub fn kept(self, reference: sys::napi_ref) -> JsResult<Value> {
        made!(napi_get_reference_value, self.env, reference)
    }

    /// Ends what [`Js::keep`] began.
    pub fn forget(self, reference: sys::napi_ref) {
        // SAFETY: made by `keep`, and given up here for good.
        let _ends_anyway = unsafe { sys::napi_delete_reference(self.env, reference) };
    }

    /// Runs `f` with a scope for the values that it makes, outside any callback of JavaScript's.
    pub fn scoped<R>(self, f: impl FnOnce() -> JsResult<R>) -> JsResult<R> {
        let mut scope = ptr::null_mut();
        // SAFETY: closed below, in the same function.
        ok(unsafe { sys::napi_open_handle_scope(self.env, &mut scope) })?;
        let result = f();
        // SAFETY: opened above.
        let _ends_anyway = unsafe { sys::napi_close_handle_scope(self.env, scope) };
        result
    }

    /// Calls a function from the event loop: promise continuations run before this returns. What it throws goes
    /// to 'uncaughtException'.
    pub fn call_back(self, function: sys::napi_ref, argument: f64) -> JsResult<()> {
        self.scoped(|| {
            let mut global = ptr::null_mut();
            // SAFETY: it outlives the call.
            ok(unsafe { sys::napi_get_global(self.env, &mut global) })?;
            let (function, argument) = (self.kept(function)?, self.number(argument)?);
            let mut result = ptr::null_mut();
            // SAFETY: values of this environment; a null context means: no asynchronous resource.
            let status = unsafe {
                sys::napi_make_callback(
                    self.env,
                    ptr::null_mut(),
                    global,
                    function,
                    1,
                    &argument,
                    &mut result,
                )
            };
            if status == sys::Status::napi_ok {
                return Ok(());
            }
            let mut pending = false;
            // SAFETY: it outlives the call.
            ok(unsafe { sys::napi_is_exception_pending(self.env, &mut pending) })?;
            if pending {
                let mut exception = ptr::null_mut();
                // SAFETY: there is one.
                ok(unsafe { sys::napi_get_and_clear_last_exception(self.env, &mut exception) })?;
                // SAFETY: a value of this environment.
                ok(unsafe { sys::napi_fatal_exception(self.env, exception) })?;
            }
            Err(Thrown::Pending)
        })
    }

    /// Throws.
    pub fn throw(self, thrown: &Thrown) {
        let (throw, message): (unsafe fn(_, _, _) -> _, _) = match thrown {
            Thrown::Type(message) => (sys::napi_throw_type_error, message),
            Thrown::Range(message) => (sys::napi_throw_range_error, message),
            Thrown::Error(message) => (sys::napi_throw_error, message),
            Thrown::Pending => return,
        };
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // SAFETY: a NUL-terminated text; no code.
        let _ends_anyway = unsafe { throw(self.env, ptr::null(), message.as_ptr()) };
    }
}

/// The arguments of a call.
pub struct Arguments<const N: usize> {
    values: [Value; N],
    /// What the function was registered with.
    pub data: *mut std::ffi::c_void,
}

impl<const N: usize> Arguments<N> {
    /// Fetches them; missing ones are undefined.
    pub fn of(js: Js, info: sys::napi_callback_info) -> JsResult<Self> {
        let (mut values, mut count, mut data) = ([ptr::null_mut(); N], N, ptr::null_mut());
        // SAFETY: `info` is that of the current call; `count` says how many values fit.
        ok(unsafe {
            sys::napi_get_cb_info(js.env, info, &mut count, values.as_mut_ptr(), ptr::null_mut(), &mut data)
        })?;
        Ok(Self { values, data })
    }
}

impl<const N: usize> std::ops::Index<usize> for Arguments<N> {
    type Output = Value;
    fn index(&self, index: usize) -> &Value {
        &self.values[index]
    }
}
