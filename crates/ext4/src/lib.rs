//! The ext4 file system, with the names of fs/ext4.

mod error;
pub mod ialloc;
pub mod mballoc;
pub mod meta;

pub use error::{Error, Result};
