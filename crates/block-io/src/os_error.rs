//! What the last system call failed with.

use std::io;

use crate::Error;

pub(crate) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub(crate) fn os(operation: &'static str, error: &io::Error) -> Error {
    Error::new(operation, error.raw_os_error().unwrap_or(libc::EIO))
}
