//! The ext4 file system, with the names of fs/ext4.

mod error;
pub mod extents;
pub mod meta;

pub use error::{Error, Result};
