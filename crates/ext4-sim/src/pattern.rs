//! File contents that tell where they come from.

/// Deterministic bytes, never zero: byte `i` of the buffer with `seed` (the formula of `kernel-dio.jsonl`).
pub fn bytes(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| byte(seed, i)).collect()
}

fn byte(seed: u32, index: u32) -> u8 {
    let mut hash =
        index.wrapping_add(1).wrapping_mul(0x9E37_79B1).wrapping_add(seed.wrapping_mul(0x85EB_CA6B));
    hash ^= hash >> 15;
    1 + (hash % 255) as u8
}

#[cfg(test)]
mod tests {
    #[test]
    fn never_zero_and_different_per_seed() {
        let (a, b) = (super::bytes(1, 4096), super::bytes(2, 4096));
        assert!(a.iter().chain(&b).all(|&byte| byte != 0));
        assert_ne!(a, b);
    }
}
