//! What the bytes of an ext4 volume mean. No I/O happens here.

pub mod checksum;
mod corrupt;
pub mod dirent;
pub mod hash;
pub mod htree;
mod types;

pub use corrupt::{Corrupt, Result};
pub use types::{Group, Ino, Lblk, Pblk};
