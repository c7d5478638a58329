//! The ext4 file system, with the names of fs/ext4.

pub mod dir;
mod error;
pub mod htree;
pub mod meta;

pub use error::{Error, Result};
