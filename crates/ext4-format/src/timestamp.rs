//! F49: times of 1901–2446 in 32 + 32 bits.

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds; stored −2^31 … 2^34−2^31−1, without an extra field … 2^31−1.
    pub sec: i64,
    /// Nanoseconds, 0 … 10^9−1; a damaged volume may hold up to 2^30−1.
    pub nsec: u32,
}

impl Timestamp {
    /// The earliest time that can be stored.
    pub const MIN_SEC: i64 = -(1 << 31);
    /// The latest time that can be stored with an extra field.
    pub const MAX_SEC: i64 = (1 << 34) - (1 << 31) - 1;
    /// The latest time that can be stored without one.
    pub const MAX_SEC_32: i64 = (1 << 31) - 1;

    /// From the low 32 bits and the extra field (nanoseconds << 2 | epoch).
    pub fn from_extra(lo: u32, extra: u32) -> Self {
        let epoch = i64::from(extra & 3);
        Self { sec: i64::from(lo as i32) + (epoch << 32), nsec: extra >> 2 }
    }

    /// From the low 32 bits alone.
    pub fn from_lo(lo: u32) -> Self {
        Self { sec: i64::from(lo as i32), nsec: 0 }
    }

    /// The low 32 bits and the extra field; a time out of range is clamped.
    pub fn to_extra(self) -> (u32, u32) {
        let sec = self.sec.clamp(Self::MIN_SEC, Self::MAX_SEC);
        let lo = sec as u32;
        let epoch = ((sec - i64::from(lo as i32)) >> 32) as u32 & 3;
        (lo, (self.nsec & 0x3FFF_FFFF) << 2 | epoch)
    }

    /// The low 32 bits for an inode without the extra field; clamped.
    pub fn to_lo(self) -> u32 {
        self.sec.clamp(Self::MIN_SEC, Self::MAX_SEC_32) as u32
    }

    /// What remains of this time once it is stored: clamped, and whole seconds without an extra field.
    pub fn stored(self, has_extra: bool) -> Self {
        if has_extra {
            let (lo, extra) = self.to_extra();
            Self::from_extra(lo, extra)
        } else {
            Self::from_lo(self.to_lo())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn f49_kernel_cases() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/inode-timestamps.json");
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 16);
        for case in cases {
            let lo = u32::from_str_radix(case["lowerBits"].as_str().unwrap(), 16).unwrap();
            let extra = match &case["extraBits"] {
                serde_json::Value::String(hex) => u32::from_str_radix(hex, 16).unwrap(),
                number => u32::try_from(number.as_u64().unwrap()).unwrap(),
            };
            let time = Timestamp::from_extra(lo, extra);
            assert_eq!(time.sec, case["expectedSec"].as_i64().unwrap(), "{case}");
            assert_eq!(u64::from(time.nsec), case["expectedNsec"].as_u64().unwrap(), "{case}");
            assert_eq!(time.to_extra(), (lo, extra), "{case}");
        }
    }

    #[test]
    fn f49_clamps() {
        let late = Timestamp { sec: i64::MAX, nsec: 5 };
        assert_eq!(late.stored(true).sec, Timestamp::MAX_SEC);
        assert_eq!(late.stored(false), Timestamp { sec: Timestamp::MAX_SEC_32, nsec: 0 });
        let early = Timestamp { sec: i64::MIN, nsec: 0 };
        assert_eq!(early.stored(true).sec, Timestamp::MIN_SEC);
        assert_eq!(early.stored(false).sec, Timestamp::MIN_SEC);
    }

    proptest! {
        #[test]
        fn round_trip(sec in Timestamp::MIN_SEC..=Timestamp::MAX_SEC, nsec in 0u32..1_000_000_000) {
            let time = Timestamp { sec, nsec };
            prop_assert_eq!(time.stored(true), time);
        }
    }
}
