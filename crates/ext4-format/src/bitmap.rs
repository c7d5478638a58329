//! Bitmaps as bytes: bit 0 is the lowest bit of byte 0 (F15).

use crate::Superblock;
use crate::checksum::crc32c;
use crate::features::ro_compat;

/// Whether a bit is set. Panics past the end.
pub fn test(bitmap: &[u8], bit: u32) -> bool {
    bitmap[bit as usize / 8] >> (bit % 8) & 1 == 1
}

/// Sets one bit.
pub fn set(bitmap: &mut [u8], bit: u32) {
    bitmap[bit as usize / 8] |= 1 << (bit % 8);
}

/// Clears one bit.
pub fn clear(bitmap: &mut [u8], bit: u32) {
    bitmap[bit as usize / 8] &= !(1 << (bit % 8));
}

/// Applies `change` to every byte that `start..start+len` touches, with the mask of its bits.
fn each_byte(bitmap: &mut [u8], start: u32, len: u32, change: impl Fn(&mut u8, u8)) {
    let end = start as usize + len as usize;
    let mut bit = start as usize;
    while bit < end {
        let upto = (bit / 8 * 8 + 8).min(end);
        let mask = (0xFFu16 << (bit % 8)) as u8 & (0xFFu16 >> (bit / 8 * 8 + 8 - upto)) as u8;
        change(&mut bitmap[bit / 8], mask);
        bit = upto;
    }
}

/// Sets `len` bits from `start`.
pub fn set_range(bitmap: &mut [u8], start: u32, len: u32) {
    each_byte(bitmap, start, len, |byte, mask| *byte |= mask);
}

/// Clears `len` bits from `start`.
pub fn clear_range(bitmap: &mut [u8], start: u32, len: u32) {
    each_byte(bitmap, start, len, |byte, mask| *byte &= !mask);
}

/// Whether all `len` bits from `start` are set.
pub fn all_set(bitmap: &[u8], start: u32, len: u32) -> bool {
    next_zero(bitmap, start, start + len).is_none()
}

/// Whether all `len` bits from `start` are clear.
pub fn all_clear(bitmap: &[u8], start: u32, len: u32) -> bool {
    next_set(bitmap, start, start + len).is_none()
}

/// Up to 64 bits from byte `index` on; what lies past the end reads as 0.
fn word(bitmap: &[u8], index: usize) -> u64 {
    match bitmap[index..].first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            let rest = &bitmap[index..];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(bytes)
        }
    }
}

fn next(bitmap: &[u8], start: u32, end: u32, invert: u64) -> Option<u32> {
    assert!(end as usize <= bitmap.len() * 8);
    let mut bit = start;
    while bit < end {
        let base = bit / 64 * 64;
        let found = (word(bitmap, base as usize / 8) ^ invert) & (!0 << (bit % 64));
        if found != 0 {
            let at = base + found.trailing_zeros();
            return (at < end).then_some(at);
        }
        bit = base.checked_add(64)?;
    }
    None
}

/// The first clear bit in `start..end`.
pub fn next_zero(bitmap: &[u8], start: u32, end: u32) -> Option<u32> {
    next(bitmap, start, end, !0)
}

/// The first set bit in `start..end`.
pub fn next_set(bitmap: &[u8], start: u32, end: u32) -> Option<u32> {
    next(bitmap, start, end, 0)
}

/// The first run of clear bits in `start..end`: its start and its length, at most up to `end`.
pub fn next_zero_run(bitmap: &[u8], start: u32, end: u32) -> Option<(u32, u32)> {
    let first = next_zero(bitmap, start, end)?;
    let after = next_set(bitmap, first, end).unwrap_or(end);
    Some((first, after - first))
}

/// All runs of clear bits in `start..end`, in order.
pub fn zero_runs(bitmap: &[u8], start: u32, end: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let (first, len) = next_zero_run(bitmap, at, end)?;
        at = first + len;
        Some((first, len))
    })
}

/// Clear bits in `0..end`.
pub fn count_zero(bitmap: &[u8], end: u32) -> u32 {
    assert!(end as usize <= bitmap.len() * 8);
    let mut used = 0;
    let mut bit = 0;
    while bit < end {
        let mut bits = word(bitmap, bit as usize / 8);
        if end - bit < 64 {
            bits &= (1 << (end - bit)) - 1;
        }
        used += bits.count_ones();
        bit = bit.saturating_add(64);
    }
    end - used
}

/// F25: sets every bit from `count` to the end of the block.
pub fn set_padding(bitmap: &mut [u8], count: u32) {
    let bits = bitmap.len() as u32 * 8;
    set_range(bitmap, count, bits - count);
}

/// Whether the padding is as F25 demands.
pub fn padding_is_set(bitmap: &[u8], count: u32) -> bool {
    next_zero(bitmap, count, bitmap.len() as u32 * 8).is_none()
}

/// F4, F112: over the first clusters_per_group/8 bytes; `None` without metadata_csum.
pub fn block_bitmap_csum(sb: &Superblock, bitmap: &[u8]) -> Option<u32> {
    csum(sb, bitmap, sb.clusters_per_group)
}

/// F4, F112: over the first inodes_per_group/8 bytes; `None` without metadata_csum.
pub fn inode_bitmap_csum(sb: &Superblock, bitmap: &[u8]) -> Option<u32> {
    csum(sb, bitmap, sb.inodes_per_group)
}

fn csum(sb: &Superblock, bitmap: &[u8], bits: u32) -> Option<u32> {
    let covered = &bitmap[..bits as usize / 8];
    sb.features().has_ro_compat(ro_compat::METADATA_CSUM).then(|| crc32c(sb.fs_seed(), covered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_list_of_bools(
            mut bytes in proptest::collection::vec(any::<u8>(), 1..40),
            ranges in proptest::collection::vec((any::<bool>(), 0u32..320, 0u32..320), 0..8),
            from in 0u32..320,
            to in 0u32..320,
        ) {
            let bits = bytes.len() as u32 * 8;
            let mut model: Vec<bool> = (0..bits).map(|bit| test(&bytes, bit)).collect();
            for (value, start, len) in ranges {
                let start = start.min(bits);
                let len = len.min(bits - start);
                if value { set_range(&mut bytes, start, len) } else { clear_range(&mut bytes, start, len) }
                model[start as usize..(start + len) as usize].fill(value);
            }
            prop_assert!((0..bits).all(|bit| test(&bytes, bit) == model[bit as usize]));
            let (from, to) = (from.min(bits), to.min(bits));
            let find = |value| (from..to).find(|bit| model[*bit as usize] == value);
            prop_assert_eq!(next_zero(&bytes, from, to), find(false));
            prop_assert_eq!(next_set(&bytes, from, to), find(true));
            let zeros = model[..to as usize].iter().filter(|bit| !**bit).count();
            prop_assert_eq!(count_zero(&bytes, to) as usize, zeros);
            let runs: Vec<_> = zero_runs(&bytes, 0, to).collect();
            prop_assert_eq!(runs.iter().map(|run| run.1 as usize).sum::<usize>(), zeros);
            prop_assert!(runs.iter().all(|(first, len)| all_clear(&bytes, *first, *len)));
            prop_assert!(runs.windows(2).all(|pair| all_set(&bytes, pair[0].0 + pair[0].1, 1)));
            set_padding(&mut bytes, from);
            prop_assert!(padding_is_set(&bytes, from));
            prop_assert!((0..from).all(|bit| test(&bytes, bit) == model[bit as usize]));
        }
    }
}
