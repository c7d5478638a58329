//! What the algorithms on disk structures may do to metadata: the seam between them and a running handle.
//!
//! Extent tree, allocator and directories are written against [`Meta`] alone, so their tests run over a map in
//! memory; in a mounted volume it is implemented by the journal handle.

use std::sync::Arc;

use block_io::AlignedBuf;
use ext4_format::{Ino, Pblk};

use crate::Result;

/// An immutable snapshot of a metadata block.
pub type Image = Arc<AlignedBuf>;

/// What a metadata block is: decides how its checksum is verified when it is read from the device, and how it is
/// sealed when its bytes for the log are fixed (T6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// No checksum inside the block (bitmaps, descriptor and inode table blocks carry theirs elsewhere or per
    /// entry, indirect and symlink blocks have none: F5). Whoever changes a descriptor or an inode updates the
    /// checksum in it in the same call.
    Plain,
    /// The block that holds the primary superblock.
    Superblock,
    /// An extent tree block; `seed` is the inode's (F4).
    ExtentNode {
        /// F4.
        seed: u32,
    },
    /// A directory leaf with a tail (F66).
    DirLeaf {
        /// F4.
        seed: u32,
    },
    /// An htree root or node (F70).
    DirIndex {
        /// F4.
        seed: u32,
    },
    /// An xattr block.
    Xattr,
    /// A block of the orphan file; the checksum covers its own block number (O2).
    OrphanFile {
        /// F4.
        seed: u32,
    },
}

/// Whom an allocated metadata block belongs to, and where it should lie.
#[derive(Debug, Clone, Copy)]
pub struct BlockOwner {
    /// The inode that the block is for.
    pub ino: Ino,
    /// A block near which it should lie.
    pub goal: Pblk,
    /// A block map names it, in 32 bits (D15).
    pub below_2_32: bool,
}

/// Metadata access of one running handle. Every change is part of the handle's transaction.
pub trait Meta {
    /// Block size in bytes.
    fn block_size(&self) -> usize;

    /// The transaction of the handle (D13). Wraps: compare serially. 0 where nothing commits, as in a test.
    fn tid(&self) -> u32 {
        0
    }

    /// The current contents of a block, from the journal, the cache or the device, its checksum verified.
    fn read(&self, block: Pblk, kind: BlockKind) -> Result<Image>;

    /// Whether a run of blocks touches what no file may own (F27).
    fn is_system_zone(&self, _start: Pblk, _len: u64) -> bool {
        false
    }

    /// Write access, change, dirty (T5, T7). `change` runs once, under the block's lock: it must not call back.
    fn update(&mut self, block: Pblk, kind: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()>;

    /// The same for a newly allocated block, which is not read but starts as zeros.
    fn create(&mut self, block: Pblk, kind: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()>;

    /// Allocates one block for metadata of an inode (an extent node, say). Not counted in i_blocks here.
    fn allocate_block(&mut self, owner: BlockOwner) -> Result<Pblk>;

    /// Frees a metadata block: forgets it (T8), revokes it (T9), and gives the space back after the commit (D13).
    fn free_block(&mut self, block: Pblk, owner: Ino) -> Result<()>;

    /// Frees a run of data blocks; the space is reusable after the commit (D13).
    fn free_data(&mut self, start: Pblk, len: u32, owner: Ino) -> Result<()>;

    /// Makes sure that the handle has `credits` left, extending it if it can (T4). `false`: the caller must stop at
    /// a consistent point and restart the handle.
    fn ensure_credits(&mut self, credits: u32) -> Result<bool>;
}
