//! One operation's memory, cut into the requests that it needs.
#![expect(unsafe_code, reason = "pinned memory is a raw pointer by nature")]

use std::ops::Range;
use std::rc::Rc;

use crate::Memory;

impl Memory {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Owned(buf) => buf.len(),
            Self::Pinned { len, .. } => *len,
        }
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes. Must not be called while the device writes to them.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(buf) => buf,
            Self::Pinned { len: 0, .. } => &[],
            // SAFETY: whoever made it promised `len` bytes, kept alive and in place by the keeper.
            Self::Pinned { start, len, .. } => unsafe { std::slice::from_raw_parts(*start, *len) },
        }
    }

    /// The bytes, to be changed. Must not be called while the device uses them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Owned(buf) => buf,
            Self::Pinned { len: 0, .. } => &mut [],
            // SAFETY: as in `bytes`, and `&mut self` is the only way to them on our side.
            Self::Pinned { start, len, .. } => unsafe { std::slice::from_raw_parts_mut(*start, *len) },
        }
    }

    fn start(&mut self) -> *mut u8 {
        match self {
            Self::Owned(buf) => buf.as_mut_ptr(),
            Self::Pinned { start, .. } => *start,
        }
    }
}

/// Memory that several requests use parts of; alive until the last of them is done.
#[derive(Clone)]
pub struct SharedMemory {
    start: *mut u8,
    whole: Rc<Memory>,
}

impl SharedMemory {
    /// Shares `memory`.
    pub fn new(mut memory: Memory) -> Self {
        Self { start: memory.start(), whole: Rc::new(memory) }
    }

    /// A part of it, for a request. Parts in flight at the same time must not overlap unless all are written from.
    pub fn part(&self, range: Range<usize>) -> Memory {
        assert!(range.start <= range.end && range.end <= self.whole.len(), "a part inside the memory");
        // SAFETY: inside the allocation, as just asserted.
        let start = unsafe { self.start.add(range.start) };
        Memory::Pinned { start, len: range.len(), keeper: Box::new(self.whole.clone()) }
    }

    /// The memory again, once no part of it is left.
    pub fn into_whole(self) -> Option<Memory> {
        Rc::try_unwrap(self.whole).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AlignedBuf;

    #[test]
    fn parts_keep_the_whole() {
        let shared = SharedMemory::new(Memory::Owned(AlignedBuf::copy_of(&[7; 8192])));
        let mut part = shared.part(4096..8192);
        part.bytes_mut().fill(9);
        assert!(shared.clone().into_whole().is_none(), "a part is still there");
        drop(part);
        let whole = shared.into_whole().unwrap();
        assert_eq!((whole.bytes()[4095], whole.bytes()[4096]), (7, 9));
    }
}
