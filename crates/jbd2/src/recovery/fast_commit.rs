//! Whether the fast-commit area holds commits that a recovery would have to replay (R19–R21).

use crate::Tid;
use crate::format::crc32c;

const HEAD: u16 = 9;
const TAIL: u16 = 8;
const TAG_SIZE: usize = 4;

/// Looks for a valid TAIL of `expected`, block by block. Anything that is impossible before it means that there is
/// no fast commit (R23).
pub(super) struct FastCommits {
    expected: Tid,
    sum: u32,
    seen_head: bool,
}

impl FastCommits {
    pub fn new(expected: Tid) -> Self {
        Self { expected, sum: 0, seen_head: false }
    }

    /// `Some(whether there is one)` once that is sure.
    pub fn look_at(&mut self, block: &[u8]) -> Option<bool> {
        let le16 = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        let le32 = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let mut at = 0;
        while at + TAG_SIZE <= block.len() {
            let (tag, len) = (le16(at), usize::from(le16(at + 2)));
            let value = at + TAG_SIZE;
            if !(1..=HEAD).contains(&tag) || value + len > block.len() {
                return Some(false);
            }
            if self.seen_head == (tag == HEAD) || (matches!(tag, HEAD | TAIL) && len < 8) {
                return Some(false);
            }
            if tag == HEAD {
                self.seen_head = true;
                if Tid(le32(value + 4)) != self.expected {
                    return Some(false);
                }
            }
            if tag == TAIL {
                // R20: its tag and tid are covered, its sum is not.
                self.sum = crc32c(self.sum, &block[at..value + 4]);
                return Some(Tid(le32(value)) == self.expected && le32(value + 4) == self.sum);
            }
            self.sum = crc32c(self.sum, &block[at..value + len]);
            at = value + len;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(tid: u32) -> Vec<u8> {
        let mut block = vec![9, 0, 8, 0, 0, 0, 0, 0];
        block.extend(tid.to_le_bytes());
        block.extend([8, 0, 244, 3]);
        block.extend(tid.to_le_bytes());
        let sum = crc32c(0, &block);
        block.extend(sum.to_le_bytes());
        block.resize(1024, 0);
        block[14..16].copy_from_slice(&(1024u16 - 16).to_le_bytes());
        let sum = crc32c(0, &block[..20]);
        block[20..24].copy_from_slice(&sum.to_le_bytes());
        block
    }

    #[test]
    fn r21_head_and_tail_decide() {
        let block = area(5);
        assert_eq!(FastCommits::new(Tid(5)).look_at(&block), Some(true));
        assert_eq!(FastCommits::new(Tid(6)).look_at(&block), Some(false));
        assert_eq!(FastCommits::new(Tid(5)).look_at(&[0; 1024]), Some(false));
        for at in 0..24 {
            let mut damaged = block.clone();
            damaged[at] ^= 0x55;
            assert_ne!(FastCommits::new(Tid(5)).look_at(&damaged), Some(true), "byte {at}");
        }
    }
}
