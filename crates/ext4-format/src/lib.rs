//! What the bytes of an ext4 volume mean. No I/O happens here.

pub mod bitmap;
pub mod block_map;
pub mod checksum;
mod codec;
mod corrupt;
pub mod dirent;
pub mod extent;
pub mod fast_commit;
pub mod features;
mod geometry;
mod group_desc;
pub mod hash;
pub mod htree;
pub mod inode;
pub mod mmp;
pub mod orphan;
pub mod superblock;
#[cfg(test)]
mod tests;
mod timestamp;
mod types;
pub mod xattr;

pub use corrupt::{Corrupt, Result};
pub use features::{Access, Features, Refusal, mount_policy};
pub use geometry::InodeLocation;
pub use group_desc::{GroupDesc, bg};
pub use inode::Inode;
pub use superblock::Superblock;
pub use timestamp::Timestamp;
pub use types::{Group, Ino, Lblk, Pblk};
