//! The ext4 file system, with the names of fs/ext4.

mod error;
pub mod meta;
pub mod mkfs;

pub use error::{Error, Result};
