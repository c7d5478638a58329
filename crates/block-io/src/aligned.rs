//! Memory that direct I/O accepts.
#![expect(unsafe_code, reason = "std has no safe constructor for memory of a given alignment")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Owned bytes at an address that is a multiple of `ALIGNMENT`, a power of two.
pub struct Aligned<const ALIGNMENT: usize> {
    start: NonNull<u8>,
    len: usize,
}

/// Bytes where every host accepts them for direct I/O.
pub type AlignedBuf = Aligned<4096>;

/// Bytes at the start of a cache line: for what is only copied.
pub type LineBuf = Aligned<64>;

impl<const ALIGNMENT: usize> Aligned<ALIGNMENT> {
    /// Alignment of the first byte.
    pub const ALIGNMENT: usize = ALIGNMENT;

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, Self::ALIGNMENT).expect("a buffer below isize::MAX bytes")
    }
}

impl<const ALIGNMENT: usize> Drop for Aligned<ALIGNMENT> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) }
        }
    }
}

impl<const ALIGNMENT: usize> Deref for Aligned<ALIGNMENT> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` holds `len` initialised bytes that we own.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<const ALIGNMENT: usize> DerefMut for Aligned<ALIGNMENT> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<const ALIGNMENT: usize> Clone for Aligned<ALIGNMENT> {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl<const ALIGNMENT: usize> std::fmt::Debug for Aligned<ALIGNMENT> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aligned<{ALIGNMENT}>({} bytes)", self.len)
    }
}

// SAFETY: the memory is owned; nothing in it is tied to a thread.
unsafe impl<const ALIGNMENT: usize> Send for Aligned<ALIGNMENT> {}
// SAFETY: shared access only reads.
unsafe impl<const ALIGNMENT: usize> Sync for Aligned<ALIGNMENT> {}
