//! One JavaScript environment: its event loop, its batches, its end. Worker threads have one each.
#![expect(unsafe_code, reason = "Node-API's hooks and libuv's callbacks hand raw pointers back")]

use std::cell::{Cell, RefCell, RefMut};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block_io::EventFd;
use ext4::aio::Waited;
use napi::sys;

use crate::js::{Js, JsResult, Thrown, Value};
use crate::state::State;
use crate::uv::{Poll, Polled};

/// How long completions are delivered in one turn of the event loop; one batch always is.
const TURN_BUDGET: Duration = Duration::from_millis(1);

/// What `start` was given.
#[derive(Clone, Copy)]
struct Batches {
    slots: sys::napi_ref,
    on_batch: sys::napi_ref,
}

/// The native side of an environment. Lives from the module's registration until the poll handle is closed.
pub struct Environment {
    js: Js,
    event: Arc<EventFd>,
    poll: Poll,
    referenced: Cell<bool>,
    batches: Cell<Option<Batches>>,
    hook: Cell<sys::napi_async_cleanup_hook_handle>,
    state: RefCell<State>,
    /// Owner of what this process makes in a volume.
    pub owner: (u32, u32),
    /// Permission bits that what it makes does not get: those of umask(2) when the module was loaded.
    pub umask: u16,
}

impl Environment {
    /// Makes the environment's side and hangs it on the environment's end.
    ///
    /// # Safety
    /// `env` is the environment that registers the module, on its thread.
    pub unsafe fn register(env: sys::napi_env) -> JsResult<*mut Self> {
        let failed = |what: &str| Thrown::Error(format!("uext4: {what}"));
        let event = Arc::new(EventFd::new().map_err(|error| failed(&error.to_string()))?);
        let mut uv_loop = ptr::null_mut();
        // SAFETY: the caller's promise.
        if unsafe { sys::napi_get_uv_event_loop(env, &mut uv_loop) } != sys::Status::napi_ok {
            return Err(failed("no event loop"));
        }
        // SAFETY: the loop of this thread; the environment keeps the descriptor until the handle is closed.
        let poll = unsafe { Poll::new(uv_loop.cast(), event.as_raw_fd()) }
            .map_err(|status| failed(&format!("uv_poll_init: {status}")))?;
        // SAFETY: these two cannot fail and touch no memory.
        let owner = unsafe { (libc::geteuid(), libc::getegid()) };
        let environment = Box::into_raw(Box::new(Self {
            js: Js::new(env),
            state: RefCell::new(State::new(event.clone())),
            event,
            poll,
            referenced: Cell::new(false),
            batches: Cell::new(None),
            hook: Cell::new(ptr::null_mut()),
            owner,
            umask: umask(),
        }));
        let mut hook = ptr::null_mut();
        // SAFETY: the box lives until the hook has run and the handle is closed.
        unsafe {
            if sys::napi_add_async_cleanup_hook(env, Some(on_end), environment.cast(), &mut hook)
                != sys::Status::napi_ok
            {
                (*environment).poll.close(environment);
                return Err(failed("no cleanup hook"));
            }
            (*environment).hook.set(hook);
        }
        Ok(environment)
    }

    /// Volumes, files and operations. Not to be held while JavaScript runs.
    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Begins delivery.
    pub fn start(&self, slots: Value, on_batch: Value) -> JsResult<()> {
        if self.batches.get().is_some() {
            return Err(Thrown::Error("start was called before".into()));
        }
        let (_, len) = self.js.get_f64_array(slots, "slots")?;
        if len < 2 {
            return Err(Thrown::Range("slots must hold a pair".into()));
        }
        if !self.js.is_function(on_batch) {
            return Err(Thrown::Type("onBatch must be a function".into()));
        }
        let batches = Batches { slots: self.js.keep(slots)?, on_batch: self.js.keep(on_batch)? };
        let owner: *const Self = self;
        // SAFETY: `self` is the box that `register` made; it lives until the handle is closed.
        unsafe { self.poll.start(owner) }
            .map_err(|status| Thrown::Error(format!("uv_poll_start: {status}")))?;
        self.batches.set(Some(batches));
        Ok(())
    }

    /// The doorbell.
    pub fn submit(&self) {
        self.state().submit();
    }

    /// Keeps the loop alive while, and only while, something is in flight.
    pub fn settle_reference(&self) {
        let wanted = self.state.borrow().in_flight > 0;
        if self.referenced.replace(wanted) != wanted {
            self.poll.set_referenced(wanted);
        }
    }

    /// Submits, waits until something is over or the time is up, fills the slots, returns the number of pairs.
    pub fn pump(&self, timeout: Duration) -> JsResult<usize> {
        let deadline = Instant::now() + timeout;
        loop {
            let waited = self.state().submit_and_wait();
            if waited != Waited::ForDevice {
                self.event.clear();
            }
            self.state().collect(self.js);
            let rest = deadline.saturating_duration_since(Instant::now());
            if self.state().has_ready() || rest.is_zero() {
                break;
            }
            if waited == Waited::No {
                self.event.wait(Some(rest));
            }
        }
        let count = self.fill_slots()?;
        if self.state().has_ready() {
            self.event.signal(); // For whoever does not pump again.
        }
        Ok(count)
    }

    fn fill_slots(&self) -> JsResult<usize> {
        let Some(batches) = self.batches.get() else { return Err(Thrown::Error("start comes first".into())) };
        let (start, len) = self.js.get_f64_array(self.js.kept(batches.slots)?, "slots")?;
        if start.is_null() || len < 2 {
            return Err(Thrown::Error("the slots were detached".into()));
        }
        // SAFETY: the array's numbers; no JavaScript runs until they are written.
        let slots = unsafe { std::slice::from_raw_parts_mut(start, len) };
        let count = self.state().fill(slots);
        self.settle_reference();
        Ok(count)
    }

    /// Delivers what is over, batch by batch. What reactions to it begin may be over by then: for how long that goes on in one
    /// turn of the loop is bounded, and what is left comes with the next.
    fn deliver(&self) -> JsResult<()> {
        let Some(batches) = self.batches.get() else { return Ok(()) };
        self.event.clear();
        let started = Instant::now();
        while started.elapsed() < TURN_BUDGET {
            let count = self.js.scoped(|| {
                self.state().collect(self.js);
                self.fill_slots()
            })?;
            if count == 0 {
                return Ok(());
            }
            if let Err(refused) = self.js.call_back(batches.on_batch, count as f64) {
                self.event.signal(); // What is left comes with the next turn, unless the environment ends.
                return Err(refused);
            }
            // The continuations have run: what they queued goes to the host now.
            self.submit();
        }
        self.event.signal();
        Ok(())
    }
}

impl Polled for Environment {
    fn readable(&self) {
        // A panic must not unwind into libuv; an exception has gone to 'uncaughtException' or to the environment's end.
        let _reported = catch_unwind(AssertUnwindSafe(|| self.deliver()));
    }

    fn closed(self: Box<Self>) {
        let hook = self.hook.get();
        drop(self);
        if !hook.is_null() {
            // SAFETY: given by napi_add_async_cleanup_hook; this tells Node that the hook's work is done.
            let _ends_anyway = unsafe { sys::napi_remove_async_cleanup_hook(hook) };
        }
    }
}

/// The umask of this process, read where reading does not set it. 022 where the host does not tell.
fn umask() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let told = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    told.and_then(|octal| u16::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o022)
}

unsafe extern "C" fn on_end(hook: sys::napi_async_cleanup_hook_handle, data: *mut std::ffi::c_void) {
    let environment: *mut Environment = data.cast();
    // SAFETY: registered with this pointer, and called once, on the environment's thread.
    unsafe {
        (*environment).hook.set(hook);
        let _panicked = catch_unwind(AssertUnwindSafe(|| (*environment).state().stop()));
        (*environment).poll.close(environment);
    }
}
