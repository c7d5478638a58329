//! What can go wrong between us and the host.

use std::{fmt, io};

/// The result of device I/O.
pub type Result<T> = std::result::Result<T, Error>;

/// The errno of the C library's last call.
pub(crate) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// A host's error, as one of ours.
pub(crate) fn os(operation: &'static str, error: &io::Error) -> Error {
    Error::new(operation, error.raw_os_error().unwrap_or(libc::EIO))
}

/// A host error: what was tried, where, and the errno it ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The operation, as a word for a message: `read`, `write`, `flush`, `open`, …
    pub operation: &'static str,
    /// Byte offset on the device, where the operation had one.
    pub offset_bytes: Option<u64>,
    /// A positive errno.
    pub errno: i32,
    /// What the errno alone does not say.
    pub detail: Option<String>,
}

impl Error {
    /// An error of `operation` with a positive `errno`.
    pub fn new(operation: &'static str, errno: i32) -> Self {
        Self { operation, offset_bytes: None, errno, detail: None }
    }

    /// The same, at a byte offset of the device.
    pub fn at(operation: &'static str, offset_bytes: u64, errno: i32) -> Self {
        Self { operation, offset_bytes: Some(offset_bytes), errno, detail: None }
    }

    /// Adds what the errno alone does not say.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if let Some(offset) = self.offset_bytes {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
