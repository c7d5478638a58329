//! Descriptor blocks and their tags (J10–J13).

use super::{Checksums, HEADER_SIZE, Header, Layout, be16, be32, block_type, put_be16, put_be32};

const UUID_SIZE: usize = 16;

/// Flags of a tag (J11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TagFlags(pub u32);

impl TagFlags {
    /// The block starts with the magic, which is zeroed in the log (D19).
    pub const ESCAPED: u32 = 1;
    /// No UUID follows.
    pub const SAME_UUID: u32 = 2;
    /// The last of its descriptor.
    pub const LAST: u32 = 8;

    /// Whether the logged block is escaped.
    pub fn is_escaped(self) -> bool {
        self.0 & Self::ESCAPED != 0
    }
}

/// What a descriptor says of one logged block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The block's home.
    pub block: u64,
    /// J11. [`TagFlags::SAME_UUID`] and [`TagFlags::LAST`] are set by the encoder.
    pub flags: TagFlags,
    /// J15; 0 without v2/v3.
    pub checksum: u32,
}

impl Layout {
    fn tag_size(&self) -> usize {
        match (self.checksums, self.wide) {
            (Checksums::V3, _) => 16,
            (Checksums::V2, true) => 14,
            (Checksums::V2, false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        }
    }

    /// Tags that a writer puts into one descriptor (J13).
    pub fn tags_per_descriptor(&self) -> usize {
        let after_uuid = self.block_size - HEADER_SIZE - UUID_SIZE;
        let spare = self.tag_size() + UUID_SIZE + self.tail_size();
        // Closed as soon as fewer than `spare` bytes remain.
        (after_uuid - spare) / self.tag_size() + 1
    }

    /// Makes a descriptor of `tags`: at least one, at most [`Layout::tags_per_descriptor`]. `block` is overwritten.
    pub fn encode_descriptor(&self, tid: u32, tags: &[Tag], block: &mut [u8]) {
        assert!(block.len() == self.block_size);
        assert!(!tags.is_empty() && tags.len() <= self.tags_per_descriptor());
        block.fill(0);
        Header { kind: block_type::DESCRIPTOR, tid }.encode(block);
        let mut at = HEADER_SIZE;
        for (index, tag) in tags.iter().enumerate() {
            let mut flags = tag.flags.0 & TagFlags::ESCAPED;
            if index > 0 {
                flags |= TagFlags::SAME_UUID;
            }
            if index + 1 == tags.len() {
                flags |= TagFlags::LAST;
            }
            self.encode_tag(tag, flags, &mut block[at..at + self.tag_size()]);
            // The zeros behind the first tag are its UUID (J12).
            at += self.tag_size() + if index == 0 { UUID_SIZE } else { 0 };
        }
        self.seal_tail(block);
    }

    fn encode_tag(&self, tag: &Tag, flags: u32, out: &mut [u8]) {
        let high = (tag.block >> 32) as u32;
        assert!(self.wide || high == 0);
        put_be32(out, 0, tag.block as u32);
        if self.checksums == Checksums::V3 {
            put_be32(out, 4, flags);
            put_be32(out, 8, high);
            put_be32(out, 12, tag.checksum);
            return;
        }
        if self.checksums == Checksums::V2 {
            put_be16(out, 4, tag.checksum as u16);
        }
        put_be16(out, 6, flags as u16);
        if self.wide {
            put_be32(out, 8, high);
        }
    }

    /// The tags of a descriptor block, whatever is in it.
    pub fn decode_descriptor(&self, block: &[u8]) -> Vec<Tag> {
        assert!(block.len() == self.block_size);
        let end = self.block_size - self.tail_size();
        let mut tags = Vec::new();
        let mut at = HEADER_SIZE;
        while at + self.tag_size() <= end {
            let tag = self.decode_tag(&block[at..at + self.tag_size()]);
            tags.push(tag);
            at += self.tag_size();
            if tag.flags.0 & TagFlags::SAME_UUID == 0 {
                at += UUID_SIZE;
            }
            if tag.flags.0 & TagFlags::LAST != 0 {
                break;
            }
        }
        tags
    }

    fn decode_tag(&self, bytes: &[u8]) -> Tag {
        let v3 = self.checksums == Checksums::V3;
        let high = if self.wide { be32(bytes, 8) } else { 0 };
        Tag {
            block: u64::from(high) << 32 | u64::from(be32(bytes, 0)),
            flags: TagFlags(if v3 { be32(bytes, 4) } else { u32::from(be16(bytes, 6)) }),
            checksum: match self.checksums {
                Checksums::V3 => be32(bytes, 12),
                Checksums::V2 => u32::from(be16(bytes, 4)),
                Checksums::None | Checksums::V1 => 0,
            },
        }
    }
}
