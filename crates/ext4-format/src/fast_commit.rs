//! R19, R20: what a fast commit says. Unlike the rest of the journal, in little-endian.

use crate::checksum::crc32c;
use crate::codec::get;
use crate::dirent::NAME_MAX;
use crate::extent::Extent;
use crate::{Ino, Inode, Lblk};

/// Bytes of a tag before its value: kind and length.
const HEAD_SIZE: usize = 4;
const NUMBERS: usize = 8;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dentry {
    /// The directory.
    pub parent: Ino,
    /// What the name stands for.
    pub ino: Ino,
    /// The name.
    pub name: Vec<u8>,
}

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// Blocks of a file are mapped so.
    AddRange(Ino, Extent),
    /// Blocks of a file are a hole: first block and count, whose sum may pass 2^32.
    DelRange(Ino, Lblk, u32),
    /// A new inode's name.
    Create(Dentry),
    /// One more name.
    Link(Dentry),
    /// A name that went.
    Unlink(Dentry),
    /// An inode's bytes, without its xattrs.
    Inode(Ino, Vec<u8>),
    /// Nothing.
    Pad,
    /// The end of a fast commit.
    Tail {
        /// The transaction that it belongs to.
        tid: u32,
        /// Of everything since the tail before it (R20).
        crc: u32,
    },
    /// The start of the first fast commit after a full one.
    Head {
        /// None is known.
        features: u32,
        /// The transaction.
        tid: u32,
    },
}

impl Tag {
    fn decode(kind: u16, value: &[u8]) -> Option<Self> {
        let le32 = |at| get::<u32>(value, at);
        let dentry = || {
            let name = value.get(NUMBERS..).filter(|name| (1..=NAME_MAX).contains(&name.len()))?;
            Some(Dentry { parent: Ino(le32(0)), ino: Ino(le32(4)), name: name.to_vec() })
        };
        Some(match (kind, value.len()) {
            (1, 16) => Self::AddRange(Ino(le32(0)), Extent::decode(&value[4..])),
            (2, 12) => Self::DelRange(Ino(le32(0)), Lblk(le32(4)), le32(8)),
            (3, _) => Self::Create(dentry()?),
            (4, _) => Self::Link(dentry()?),
            (5, _) => Self::Unlink(dentry()?),
            (6, len) if len >= 4 + Inode::GOOD_OLD_SIZE => Self::Inode(Ino(le32(0)), value[4..].to_vec()),
            (7, _) => Self::Pad,
            (8, NUMBERS..) => Self::Tail { tid: le32(0), crc: le32(4) },
            (9, NUMBERS) => Self::Head { features: le32(0), tid: le32(4) },
            _ => return None,
        })
    }
}

/// The tags of a block, with the checksum that runs over them.
pub struct Tags<'a> {
    block: &'a [u8],
    at: usize,
}

/// A tag was impossible: of an unknown kind, of a wrong length, or longer than its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Impossible;

impl<'a> Tags<'a> {
    /// Of one block of the fast-commit area.
    pub fn new(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }

    /// The next tag; `None` at the block's end. `sum` goes on over it; with a TAIL it is what the tail should say.
    pub fn next(&mut self, sum: &mut u32) -> Result<Option<Tag>, Impossible> {
        if self.at + HEAD_SIZE > self.block.len() {
            return Ok(None);
        }
        let len = usize::from(get::<u16>(self.block, self.at + 2));
        let start = self.at + HEAD_SIZE;
        let value = self.block.get(start..start + len).ok_or(Impossible)?;
        let tag = Tag::decode(get(self.block, self.at), value).ok_or(Impossible)?;
        let covered = if matches!(tag, Tag::Tail { .. }) { start + 4 } else { start + len };
        *sum = crc32c(*sum, &self.block[self.at..covered]);
        self.at = start + len;
        Ok(Some(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat()
    }

    fn all(block: &[u8]) -> Result<Vec<Tag>, Impossible> {
        let (mut tags, mut sum, mut found) = (Tags::new(block), 0, Vec::new());
        while let Some(tag) = tags.next(&mut sum)? {
            found.push(tag);
        }
        Ok(found)
    }

    /// R20 as Linux 6.18 wrote it: the tail of an fsync that had nothing to say.
    #[test]
    fn a_tail_of_the_kernel() {
        let mut block = tag(8, &3u32.to_le_bytes());
        block[2..4].copy_from_slice(&4092u16.to_le_bytes());
        block.extend(0xC80F_6DD0u32.to_le_bytes());
        block.resize(4096, 0);
        let mut sum = 0;
        let tail = Tags::new(&block).next(&mut sum);
        assert_eq!(tail, Ok(Some(Tag::Tail { tid: 3, crc: 0xC80F_6DD0 })));
        assert_eq!(sum, 0xC80F_6DD0);
    }

    #[test]
    fn tags_and_their_lengths() {
        let numbers = [7u32.to_le_bytes(), 12u32.to_le_bytes()].concat();
        let named = [&numbers[..], b"name"].concat();
        let block = [
            tag(9, &[&[0; 4][..], &5u32.to_le_bytes()].concat()),
            tag(3, &named),
            tag(2, &[&numbers[..], &3u32.to_le_bytes()].concat()),
            tag(7, &[1, 2, 3]),
            vec![0; 3],
        ]
        .concat();
        let dentry = Dentry { parent: Ino(7), ino: Ino(12), name: b"name".to_vec() };
        assert_eq!(
            all(&block).unwrap(),
            [
                Tag::Head { features: 0, tid: 5 },
                Tag::Create(dentry),
                Tag::DelRange(Ino(7), Lblk(12), 3),
                Tag::Pad
            ]
        );
        for (kind, len) in
            [(0, 4), (1, 15), (2, 13), (3, 8), (4, 264), (5, 7), (6, 131), (8, 7), (9, 9), (10, 8)]
        {
            assert_eq!(all(&tag(kind, &vec![1; len])), Err(Impossible), "kind {kind}, {len} bytes");
        }
        assert_eq!(all(&tag(7, &[0; 10])[..13]), Err(Impossible), "beyond its block");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let block: Vec<u8> = [tag(6, &[0; 160]), tag(1, &[3; 16]), tag(5, &[9; 20])].concat();
        for at in 0..block.len() {
            for byte in 0..=255 {
                let mut damaged = block.clone();
                damaged[at] = byte;
                let _any = all(&damaged);
            }
        }
    }
}
