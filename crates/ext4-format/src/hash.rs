//! F74–F76: the hash of a name, by which an indexed directory is ordered.

use std::ffi::c_char;

use crate::{Corrupt, Result};

/// s_flags: names were hashed with signed chars.
pub const FLAGS_SIGNED_HASH: u32 = 0x1;
/// s_flags: names were hashed with unsigned chars.
pub const FLAGS_UNSIGNED_HASH: u32 = 0x2;

/// How names are mixed; the numbers are those on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// No seed, no minor hash.
    Legacy = 0,
    /// The default of mke2fs.
    HalfMd4 = 1,
    /// The Tiny Encryption Algorithm.
    Tea = 2,
}

/// F74: an algorithm and how it reads bytes above 0x7F.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashVersion {
    /// As stored in s_def_hash_version or a directory's root.
    pub algorithm: HashAlgorithm,
    /// Whether a byte ≥ 0x80 counts as itself, and not as byte − 256.
    pub unsigned: bool,
}

/// The two words that order names; `hash` has bit 0 clear and is below 0xFFFF_FFFE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NameHash {
    /// What index keys are compared with.
    pub hash: u32,
    /// Orders names of equal hash in readdir (F77).
    pub minor: u32,
}

impl HashVersion {
    /// F74: of a version byte (0–2) on disk. `unsigned` comes from [`uses_unsigned_chars`].
    pub fn from_stored(stored: u8, unsigned: bool) -> Result<Self> {
        let algorithm = match stored {
            0 => HashAlgorithm::Legacy,
            1 => HashAlgorithm::HalfMd4,
            2 => HashAlgorithm::Tea,
            _ => return Err(Corrupt::structure("hash version", format!("{stored} is not 0, 1 or 2"))),
        };
        Ok(Self { algorithm, unsigned })
    }

    /// The version byte on disk.
    pub fn stored(self) -> u8 {
        self.algorithm as u8
    }

    /// F74–F76: hashes a name. `seed` is s_hash_seed as four little-endian words.
    pub fn hash(self, seed: &[u32; 4], name: &[u8]) -> NameHash {
        let state = if *seed == [0; 4] { DEFAULT_SEED } else { *seed };
        let (hash, minor) = match self.algorithm {
            HashAlgorithm::Legacy => (self.legacy(name), 0),
            HashAlgorithm::HalfMd4 => {
                let state = self.chunks::<8>(name).fold(state, half_md4);
                (state[1], state[2])
            }
            HashAlgorithm::Tea => {
                let state = self.chunks::<4>(name).fold(state, tea);
                (state[0], state[1])
            }
        };
        // F76: the largest value marks the end of a directory.
        let hash = match hash & !1 {
            0xFFFF_FFFE => 0xFFFF_FFFC,
            hash => hash,
        };
        NameHash { hash, minor }
    }

    fn char_value(self, byte: u8) -> u32 {
        if self.unsigned { u32::from(byte) } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    fn legacy(self, name: &[u8]) -> u32 {
        let (mut h0, mut h1) = (0x12A3_FE2D_u32, 0x37AB_E8F9_u32);
        for &byte in name {
            let mut h = h1.wrapping_add(h0 ^ self.char_value(byte).wrapping_mul(7_152_373));
            if h & 0x8000_0000 != 0 {
                h = h.wrapping_sub(0x7FFF_FFFF);
            }
            (h1, h0) = (h0, h);
        }
        h0 << 1
    }

    /// Cuts a name into chunks of N words (4·N bytes), the last one padded by the length that remained.
    fn chunks<const N: usize>(self, name: &[u8]) -> impl Iterator<Item = [u32; N]> {
        // Rounded up: a name of whole chunks has no empty one after it.
        (0..name.len().div_ceil(4 * N)).map(move |chunk| self.pack(&name[chunk * 4 * N..]))
    }

    fn pack<const N: usize>(self, rest: &[u8]) -> [u32; N] {
        let pad = (rest.len() as u32 & 0xFF) * 0x0101_0101;
        let mut words = [pad; N];
        for (word, chars) in words.iter_mut().zip(rest.chunks(4)) {
            *word = chars.iter().fold(pad, |word, &byte| (word << 8).wrapping_add(self.char_value(byte)));
        }
        words
    }
}

/// F74: whether names are hashed with unsigned chars, by s_flags, else by the host. A mount that writes to a volume
/// with neither flag sets the one that this implies.
pub fn uses_unsigned_chars(s_flags: u32) -> bool {
    match s_flags {
        flags if flags & FLAGS_UNSIGNED_HASH != 0 => true,
        flags if flags & FLAGS_SIGNED_HASH != 0 => false,
        _ => c_char::MIN == 0,
    }
}

const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];

fn half_md4(state: [u32; 4], input: [u32; 8]) -> [u32; 4] {
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|b, c, d| d ^ (b & (c ^ d)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|b, c, d| (b & c).wrapping_add((b ^ c) & d), 0x5A82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|b, c, d| b ^ c ^ d, 0x6ED9_EBA1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    [state[0].wrapping_add(a), state[1].wrapping_add(b), state[2].wrapping_add(c), state[3].wrapping_add(d)]
}

fn tea(state: [u32; 4], input: [u32; 4]) -> [u32; 4] {
    let [mut x, mut y, ..] = state;
    let mut sum = 0_u32;
    let half = |v: u32, sum: u32, k0: u32, k1: u32| {
        (v << 4).wrapping_add(k0) ^ v.wrapping_add(sum) ^ (v >> 5).wrapping_add(k1)
    };
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9E37_79B9);
        x = x.wrapping_add(half(y, sum, input[0], input[1]));
        y = y.wrapping_add(half(x, sum, input[2], input[3]));
    }
    [state[0].wrapping_add(x), state[1].wrapping_add(y), state[2], state[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/hash-vectors.json"));

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn f75_every_recorded_hash() {
        let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
        let hashes = vectors["hashes"].as_array().unwrap();
        assert_eq!(hashes.len(), 620);
        for case in hashes {
            let algorithm = match case["algorithm"].as_str().unwrap() {
                "legacy" => HashAlgorithm::Legacy,
                "half_md4" => HashAlgorithm::HalfMd4,
                "tea" => HashAlgorithm::Tea,
                other => panic!("{other}"),
            };
            let version = HashVersion { algorithm, unsigned: !case["signed"].as_bool().unwrap() };
            let uuid = bytes(&case["seed"].as_str().unwrap().replace('-', ""));
            let seed =
                std::array::from_fn(|i| u32::from_le_bytes(uuid[i * 4..i * 4 + 4].try_into().unwrap()));
            let found = version.hash(&seed, &bytes(case["nameHex"].as_str().unwrap()));
            let word = |key: &str| u32::from_str_radix(case[key].as_str().unwrap(), 16).unwrap();
            assert_eq!((found.hash, found.minor), (word("hash"), word("minor")), "{case}");
        }
    }

    #[test]
    fn f74_sign_of_chars() {
        assert!(uses_unsigned_chars(2) && uses_unsigned_chars(3) && !uses_unsigned_chars(1));
        assert!(HashVersion::from_stored(3, false).is_err() && HashVersion::from_stored(6, false).is_err());
    }
}
