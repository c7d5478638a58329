//! The ext4 file system, with the names of fs/ext4.

mod error;
pub mod extents;
pub mod extents_status;
pub mod meta;

pub use error::{Error, Result};
