//! The memory of reads and writes: registered memory is used in place, everything else is copied.
#![expect(unsafe_code, reason = "registered memory is known by its address")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use block_io::{AlignedBuf, Memory};
use napi::sys;

use crate::js::{Js, JsResult, Thrown, Value, View};

/// Sizes of pooled buffers: 4 KiB << class.
const CLASSES: usize = 5;
const SMALLEST: usize = 4096;
/// Buffers kept per size.
const POOLED: usize = 64;

/// An ArrayBuffer that stays in place as long as it lives: until the collector takes it, unless I/O pins it.
struct Registered {
    len: usize,
    /// Weak while nothing is pinned.
    reference: sys::napi_ref,
    is_strong: bool,
    /// Requests that use it.
    pins: Arc<AtomicUsize>,
}

/// A request's hold on registered memory.
struct Pin(Arc<AtomicUsize>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Registered memory and pooled buffers of an environment.
pub struct Memories {
    /// By first byte.
    registered: BTreeMap<usize, Registered>,
    /// First bytes of those whose reference is strong.
    strong: Vec<usize>,
    pool: [Vec<AlignedBuf>; CLASSES],
}

/// Where a read's bytes go when it is over.
pub struct CopyBack {
    /// The Uint8Array, kept alive.
    pub array: sys::napi_ref,
    /// First byte within it.
    pub offset: usize,
    /// Room there.
    pub len: usize,
}

fn class_of(len: usize) -> Option<usize> {
    (0..CLASSES).find(|class| SMALLEST << class == len)
}

impl Memories {
    /// Nothing registered, nothing pooled.
    pub fn new() -> Self {
        Self { registered: BTreeMap::new(), strong: Vec::new(), pool: Default::default() }
    }

    /// Remembers the memory of a whole ArrayBuffer that nobody can detach.
    pub fn register(&mut self, js: Js, array: Value, view: View) -> JsResult<()> {
        if view.len > 0 && self.find(js, view.start, view.len).is_none() {
            let start = view.start as usize;
            // What lies there belongs to an ArrayBuffer that is no more.
            let stale: Vec<_> = self.registered.range(start..start + view.len).map(|(&at, _)| at).collect();
            stale.into_iter().for_each(|at| self.forget(js, at));
            let entry = Registered {
                len: view.len,
                reference: js.keep_weakly(js.array_buffer_of(array)?)?,
                is_strong: false,
                pins: Arc::default(),
            };
            self.registered.insert(start, entry);
        }
        Ok(())
    }

    fn forget(&mut self, js: Js, first: usize) {
        if let Some(entry) = self.registered.remove(&first) {
            js.forget(entry.reference);
            self.strong.retain(|at| *at != first);
        }
    }

    /// The first byte of the registered memory around some bytes. An address alone proves nothing: the collector may have given
    /// it to others.
    fn find(&mut self, js: Js, start: *const u8, len: usize) -> Option<usize> {
        let start = start as usize;
        let (&first, entry) = self.registered.range(..=start).next_back()?;
        if start - first > entry.len || len > entry.len - (start - first) {
            return None;
        }
        if !entry.is_strong && !js.is_alive(entry.reference) {
            self.forget(js, first);
            return None;
        }
        Some(first)
    }

    /// Keeps registered memory for a request. `None`: it is to be copied.
    fn pin(&mut self, js: Js, range: Slice) -> Option<Memory> {
        let first = self.find(js, range.start, range.len)?;
        let entry = self.registered.get_mut(&first)?;
        if !entry.is_strong {
            js.strengthen(entry.reference).ok()?;
            entry.is_strong = true;
            self.strong.push(first);
        }
        entry.pins.fetch_add(1, Ordering::Relaxed);
        let keeper = Box::new(Pin(entry.pins.clone()));
        Some(Memory::Pinned { start: range.start, len: range.len, keeper })
    }

    /// Whether a request uses the memory that some bytes lie in.
    pub fn is_in_use(&mut self, js: Js, view: View) -> bool {
        let first = self.find(js, view.start, view.len);
        let entry = first.and_then(|first| self.registered.get(&first));
        entry.is_some_and(|entry| entry.pins.load(Ordering::Acquire) > 0)
    }

    /// Leaves to the collector what no request uses any more.
    pub fn relax(&mut self, js: Js) {
        let registered = &mut self.registered;
        self.strong.retain(|first| {
            let Some(entry) = registered.get_mut(first) else { return false };
            let is_pinned = entry.pins.load(Ordering::Acquire) > 0;
            if !is_pinned {
                js.weaken(entry.reference);
                entry.is_strong = false;
            }
            is_pinned
        });
    }

    /// Zeroed or used memory of `len` bytes.
    pub fn take(&mut self, len: usize) -> AlignedBuf {
        class_of(len).and_then(|class| self.pool[class].pop()).unwrap_or_else(|| AlignedBuf::zeroed(len))
    }

    /// Gives memory back.
    pub fn give_back(&mut self, memory: Memory) {
        let Memory::Owned(buf) = memory else { return };
        if let Some(class) = class_of(buf.len())
            && self.pool[class].len() < POOLED
        {
            self.pool[class].push(buf);
        }
    }

    /// Memory with the bytes `range` of an array, to be written.
    pub fn for_write(&mut self, js: Js, range: Slice) -> Memory {
        if let Some(pinned) = self.pin(js, range) {
            return pinned;
        }
        let mut copy = self.take(range.len);
        copy.copy_from_slice(range.bytes());
        Memory::Owned(copy)
    }

    /// Memory to read into, and where its bytes go afterwards unless they are in place.
    pub fn for_read(&mut self, js: Js, array: Value, range: Slice) -> JsResult<(Memory, Option<CopyBack>)> {
        if let Some(pinned) = self.pin(js, range) {
            return Ok((pinned, None));
        }
        let copy = range.copy_back(js, array)?;
        Ok((Memory::Owned(self.take(range.len)), Some(copy)))
    }

    /// Drops pooled buffers.
    pub fn clear(&mut self) {
        self.pool = Default::default();
    }
}

impl CopyBack {
    /// Copies what was read into the array. `false` if the array's bytes are gone.
    pub fn copy(self, js: Js, bytes: &[u8]) -> bool {
        let view = js.kept(self.array).and_then(|array| js.get_view(array, "buffer"));
        js.forget(self.array);
        let len = bytes.len().min(self.len);
        match view {
            Ok(view) if view.len >= self.offset && view.len - self.offset >= len => {
                // SAFETY: inside the array, which JavaScript cannot touch while we run; ours is other memory.
                unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), view.start.wrapping_add(self.offset), len)
                };
                true
            }
            _ => false,
        }
    }
}

/// Bytes of a Uint8Array, inside it; valid until JavaScript runs again.
#[derive(Clone, Copy)]
pub struct Slice {
    start: *mut u8,
    offset: usize,
    len: usize,
}

impl Slice {
    /// `length` bytes from `offset` on. RangeError if they are not inside the array.
    pub fn of(view: View, offset: u64, length: u64) -> JsResult<Self> {
        match offset.checked_add(length) {
            Some(end) if end <= view.len as u64 => {
                let start = view.start.wrapping_add(offset as usize);
                Ok(Self { start, offset: offset as usize, len: length as usize })
            }
            _ => Err(Thrown::Range(format!("{length} bytes at {offset} of a buffer of {} bytes", view.len))),
        }
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// Where bytes that are read elsewhere go afterwards.
    pub fn copy_back(self, js: Js, array: Value) -> JsResult<CopyBack> {
        Ok(CopyBack { array: js.keep(array)?, offset: self.offset, len: self.len })
    }

    /// A copy of the bytes.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    /// Runs `f` on the bytes, to be read.
    pub fn with_bytes<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.bytes())
    }

    /// Runs `f` on the bytes, to be filled.
    pub fn with_bytes_mut<R>(self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        if self.len == 0 {
            return f(&mut []);
        }
        // SAFETY: inside the array; no JavaScript runs while the slice is used, and nobody else has a reference.
        f(unsafe { std::slice::from_raw_parts_mut(self.start, self.len) })
    }

    fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: inside the array; no JavaScript runs while the slice is used.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}
