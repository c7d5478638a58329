//! The ext4 file system, with the names of fs/ext4.

pub mod dir;
mod error;
pub mod attr;
pub mod block_cache;
pub mod clock;
mod dir_file;
pub mod extents;
pub mod fs;
mod handle;
mod inode;
mod journal_host;
mod journal_inode;
mod map_blocks;
pub mod extents_status;
pub mod htree;
pub mod ialloc;
pub mod mballoc;
pub mod meta;
mod mount;
mod namei;
mod orphan;
mod overlay;
mod path;
mod seal;
mod truncate;

pub use error::{Error, Result};
