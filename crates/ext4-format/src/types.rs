//! One type per kind of number.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A block within a file.
    Lblk(u32)
}
number! {
    /// A block of the volume, below 2^48.
    Pblk(u64)
}
number! {
    /// An inode number; 0 is none.
    Ino(u32)
}
number! {
    /// A block group, from 0.
    Group(u32)
}
