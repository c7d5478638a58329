//! What a range of a file lies on.

/// Where the bytes of a mapping are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Nowhere: they read as zeros.
    Hole,
    /// Allocated, but they read as zeros until they are converted.
    Unwritten {
        /// Byte offset on the device.
        device_offset_bytes: u64,
    },
    /// On the device.
    Mapped {
        /// Byte offset on the device.
        device_offset_bytes: u64,
    },
}

/// What else is to know of a mapping (B7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MappingFlags {
    /// Just allocated: what the write does not cover must become zero.
    pub new: bool,
    /// Its metadata is not committed: no FUA shortcut.
    pub dirty: bool,
    /// Shared with another file: to be copied.
    pub shared: bool,
}

/// A run of a file, contiguous on the device unless a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Byte position in the file.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Where it lies.
    pub address: Address,
    /// See [`MappingFlags`].
    pub flags: MappingFlags,
}

impl Mapping {
    /// Byte position in the file where it ends.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.len_bytes)
    }

    /// Whether it has blocks.
    pub fn is_allocated(&self) -> bool {
        self.address != Address::Hole
    }
}
