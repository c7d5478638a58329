//! What the steps of several modules need of a handle, in blocks of metadata (T3).

/// Credits of one allocation, conversion or removal step at any depth: the tree's own blocks, and bitmap,
/// descriptor, inode and superblock for what is allocated or freed on the way.
pub(crate) const MAP_CREDITS: u32 = 52;

/// Credits that the extent tree does not count: the inode, the superblock, and the run of data that a new extent takes.
pub(crate) const CREDITS_BESIDE_TREE: u32 = 4;

/// Credits of adding or deleting an orphan: superblock, predecessor or orphan block, inode.
pub(crate) const ORPHAN_CREDITS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::{credits_for_convert, credits_for_insert, credits_for_remove};

    /// A handle of MAP_CREDITS can do any step at any depth, or a restart would go on for ever; and two of the largest
    /// fit the smallest journal (1024 blocks, a quarter of it for a transaction).
    #[test]
    fn credits_suffice() {
        const DEPTH: u16 = ext4_format::extent::MAX_DEPTH;
        let largest = [1024, 2048, 4096, 65536]
            .map(|block_size| credits_for_remove(DEPTH, block_size, 1))
            .into_iter()
            .chain([credits_for_convert(DEPTH), credits_for_insert(DEPTH)])
            .chain([crate::indirect::credits_for_insert(), crate::indirect::credits_for_remove(8)])
            .max();
        assert!(largest.is_some_and(|largest| largest + CREDITS_BESIDE_TREE <= MAP_CREDITS), "{largest:?}");
        let namespace = 2 * (crate::dir::credits_for_insert(true) + MAP_CREDITS);
        assert!(namespace <= 240, "{namespace}");
    }
}
