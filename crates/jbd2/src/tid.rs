//! Transaction ids.

use std::fmt;

/// A transaction id: modulo 2^32, 0 is ordinary, compared by signed difference (J24).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tid(pub u32);

impl Tid {
    /// The id after this one.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The id before this one.
    pub fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// Whether this id is later than `other`.
    pub fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) as i32 > 0
    }

    /// Whether this id is `other` or later.
    pub fn is_at_or_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) as i32 >= 0
    }

    /// The later of two ids.
    pub fn later(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j24_order_wraps() {
        assert!(Tid(0).is_after(Tid(u32::MAX)));
        assert!(!Tid(u32::MAX).is_after(Tid(0)));
        assert!(Tid(5).is_at_or_after(Tid(5)) && !Tid(5).is_after(Tid(5)));
        assert_eq!(Tid(u32::MAX).next(), Tid(0));
        assert_eq!(Tid(0).previous(), Tid(u32::MAX));
        assert_eq!(Tid(u32::MAX).later(Tid(2)), Tid(2));
    }
}
