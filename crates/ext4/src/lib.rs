//! The ext4 file system, with the names of fs/ext4.

pub mod aio;
mod attr;
mod block_cache;
mod clock;
pub mod dir;
mod dir_file;
mod error;
pub mod extents;
pub mod extents_status;
mod file;
mod fs;
mod handle;
pub mod htree;
mod inode;
mod journal_host;
mod journal_inode;
pub mod mballoc;
mod map_blocks;
pub mod meta;
pub mod mkfs;
mod mount;
mod namei;
mod orphan;
mod overlay;
mod path;
mod seal;
mod truncate;

pub use attr::Stat;
pub use clock::{Clock, CoarseClock, Now};
pub use error::{Error, Result, errno};
pub use file::{Look, Probe};
pub use fs::Fs;
pub use inode::Inode;
pub use mount::{MountOptions, MountReport, read_superblock};
pub use namei::NewInode;
pub use orphan::OrphansProcessed;
