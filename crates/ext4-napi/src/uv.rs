//! libuv's poll handle. The functions are in the node binary, which exports them to addons.
#![expect(unsafe_code, reason = "libuv is a C interface")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::NonNull;

const UV_POLL: c_int = 8;
const UV_READABLE: c_int = 1;

type PollCallback = unsafe extern "C" fn(*mut c_void, c_int, c_int);
type CloseCallback = unsafe extern "C" fn(*mut c_void);

/// Declares libuv's functions and looks them up in the running program, so that this crate links without node.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?,)+) => {
        #[derive(Clone, Copy)]
        struct Uv {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)+
        }

        impl Uv {
            fn find() -> Option<Self> {
                Some(Self {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        // SAFETY: a NUL-terminated name.
                        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr().cast()) };
                        if found.is_null() {
                            return None;
                        }
                        // SAFETY: the function of that name has this type since libuv 1.0.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(found)
                        }
                    },)+
                })
            }
        }
    };
}

functions! {
    uv_handle_size: fn(c_int) -> usize,
    uv_poll_init: fn(*mut c_void, *mut c_void, c_int) -> c_int,
    uv_poll_start: fn(*mut c_void, c_int, PollCallback) -> c_int,
    uv_poll_stop: fn(*mut c_void) -> c_int,
    uv_close: fn(*mut c_void, CloseCallback),
    uv_ref: fn(*mut c_void),
    uv_unref: fn(*mut c_void),
}

/// What a poll handle calls. Its methods run on the loop's thread.
pub trait Polled {
    /// The descriptor is readable.
    fn readable(&self);
    /// The handle is closed: nothing is called any more.
    fn closed(self: Box<Self>);
}

/// A poll handle on a descriptor; it keeps the loop alive only while it is referenced.
pub struct Poll {
    uv: Uv,
    handle: NonNull<c_void>,
}

fn handle_layout(uv: Uv) -> Layout {
    // SAFETY: it only looks a size up.
    let size = unsafe { (uv.uv_handle_size)(UV_POLL) };
    // The handle's first word is the owner's pointer (`data`), as libuv defines all handles.
    Layout::from_size_align(size.max(size_of::<*mut c_void>()), 16).expect("a small size")
}

impl Poll {
    /// A stopped and unreferenced handle. A negative errno of libuv where it is refused.
    ///
    /// # Safety
    /// `uv_loop` is the loop of this thread, and `fd` stays open until the handle is closed.
    pub unsafe fn new(uv_loop: *mut c_void, fd: RawFd) -> Result<Self, i32> {
        let Some(uv) = Uv::find() else { return Err(-libc::ENOSYS) };
        let layout = handle_layout(uv);
        // SAFETY: the size is above zero.
        let Some(handle) = NonNull::new(unsafe { alloc_zeroed(layout) }.cast()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: memory of the size of a poll handle, kept until its close callback.
        let status = unsafe { (uv.uv_poll_init)(uv_loop, handle.as_ptr(), fd) };
        if status != 0 {
            // SAFETY: allocated above; libuv did not take it.
            unsafe { dealloc(handle.as_ptr().cast(), layout) };
            return Err(status);
        }
        // SAFETY: initialised.
        unsafe { (uv.uv_unref)(handle.as_ptr()) };
        Ok(Self { uv, handle })
    }

    /// Starts to call `owner`. A negative errno of libuv where it is refused.
    ///
    /// # Safety
    /// `owner` was made by [`Box::into_raw`] and lives until [`Poll::close`] takes it.
    pub unsafe fn start<P: Polled>(&self, owner: *const P) -> Result<(), i32> {
        // SAFETY: `data` is the handle's first field; the handle is initialised.
        let status = unsafe {
            self.handle.cast::<*const P>().write(owner);
            (self.uv.uv_poll_start)(self.handle.as_ptr(), UV_READABLE, on_readable::<P>)
        };
        if status == 0 { Ok(()) } else { Err(status) }
    }

    /// Whether the handle keeps the loop alive.
    pub fn set_referenced(&self, referenced: bool) {
        // SAFETY: initialised and not closed: `close` takes the handle.
        unsafe {
            if referenced {
                (self.uv.uv_ref)(self.handle.as_ptr())
            } else {
                (self.uv.uv_unref)(self.handle.as_ptr())
            }
        }
    }

    /// Closes the handle; then `owner` is told and freed.
    ///
    /// # Safety
    /// `owner` was made by [`Box::into_raw`] and nobody else frees it.
    pub unsafe fn close<P: Polled>(&self, owner: *mut P) {
        // SAFETY: initialised, and closed only once, as the owner is given up only once.
        unsafe {
            self.handle.cast::<*mut P>().write(owner);
            (self.uv.uv_poll_stop)(self.handle.as_ptr());
            (self.uv.uv_close)(self.handle.as_ptr(), on_closed::<P>);
        }
    }
}

unsafe extern "C" fn on_readable<P: Polled>(handle: *mut c_void, _status: c_int, _events: c_int) {
    // SAFETY: `start` stored the owner, which lives until the handle is closed.
    unsafe { (*handle.cast::<*const P>().read()).readable() }
}

unsafe extern "C" fn on_closed<P: Polled>(handle: *mut c_void) {
    // SAFETY: `close` stored the owner and gave it up; libuv is done with the handle's memory.
    unsafe {
        let owner = Box::from_raw(handle.cast::<*mut P>().read());
        if let Some(uv) = Uv::find() {
            dealloc(handle.cast(), handle_layout(uv));
        }
        owner.closed();
    }
}
