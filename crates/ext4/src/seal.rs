//! Checksums inside metadata blocks: verified when a block comes from the device, set when its bytes for the log
//! are fixed (T6).

use ext4_format::xattr::XattrHeader;
use ext4_format::{Corrupt, Pblk, Superblock, dirent, extent, htree, orphan};
use jbd2::SealTag;

use crate::meta::BlockKind;
use crate::{Error, Result};

/// What sealing depends on beyond the block itself.
#[derive(Debug, Clone, Copy)]
pub struct Sealer {
    /// F3.
    pub fs_seed: u32,
    /// metadata_csum is on; without it no block of these kinds has a checksum.
    pub has_csum: bool,
    /// Byte offset of the primary superblock inside its block: 1024, or 0 at 1 KiB.
    pub superblock_offset: usize,
}

impl Sealer {
    /// The journal's view of a kind.
    pub fn tag(kind: BlockKind) -> SealTag {
        let (code, seed) = match kind {
            BlockKind::Plain => (0, 0),
            BlockKind::Superblock => (1, 0),
            BlockKind::ExtentNode { seed } => (2, seed),
            BlockKind::DirLeaf { seed } => (3, seed),
            BlockKind::DirIndex { seed } => (4, seed),
            BlockKind::Xattr => (5, 0),
            BlockKind::OrphanFile { seed } => (6, seed),
        };
        SealTag(code << 32 | u64::from(seed))
    }

    fn kind(tag: SealTag) -> BlockKind {
        let seed = tag.0 as u32;
        match tag.0 >> 32 {
            0 => BlockKind::Plain,
            1 => BlockKind::Superblock,
            2 => BlockKind::ExtentNode { seed },
            3 => BlockKind::DirLeaf { seed },
            4 => BlockKind::DirIndex { seed },
            5 => BlockKind::Xattr,
            6 => BlockKind::OrphanFile { seed },
            code => unreachable!("seal tag {code} is not one of ours"),
        }
    }

    /// Computes the checksum inside a block.
    pub fn seal(&self, block: Pblk, tag: SealTag, image: &mut [u8]) {
        match Self::kind(tag) {
            BlockKind::Superblock => {
                Superblock::seal(&mut image[self.superblock_offset..][..Superblock::SIZE])
            }
            _ if !self.has_csum => {}
            BlockKind::Plain => {}
            BlockKind::ExtentNode { seed } => extent::seal_tail(image, seed),
            BlockKind::DirLeaf { seed } => dirent::seal_leaf(image, seed),
            BlockKind::DirIndex { seed } => htree::seal_index(image, seed),
            BlockKind::Xattr => XattrHeader::seal(image, self.fs_seed, block),
            BlockKind::OrphanFile { seed } => orphan::seal(image, seed, block),
        }
    }

    /// Verifies a block that was just read from the device.
    pub fn verify(&self, block: Pblk, kind: BlockKind, image: &[u8]) -> Result<()> {
        let verdict: std::result::Result<(), Corrupt> = match kind {
            BlockKind::Plain | BlockKind::Superblock => Ok(()),
            _ if !self.has_csum => Ok(()),
            BlockKind::ExtentNode { seed } => extent::verify_tail(image, seed),
            BlockKind::DirLeaf { seed } => dirent::verify_leaf(image, seed),
            BlockKind::DirIndex { seed } => htree::verify_index(image, seed),
            BlockKind::Xattr => XattrHeader::decode(image, Some(self.fs_seed), block).map(|_| ()),
            BlockKind::OrphanFile { seed } => orphan::verify(image, Some(seed), block),
        };
        verdict.map_err(|corrupt| Error::corrupt_block(block.0, corrupt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_carry_kind_and_seed() {
        for kind in [
            BlockKind::Plain,
            BlockKind::Superblock,
            BlockKind::ExtentNode { seed: 0xDEAD_BEEF },
            BlockKind::DirLeaf { seed: 1 },
            BlockKind::DirIndex { seed: u32::MAX },
            BlockKind::Xattr,
            BlockKind::OrphanFile { seed: 7 },
        ] {
            assert_eq!(Sealer::kind(Sealer::tag(kind)), kind);
        }
    }
}
