//! What is done to ranges of a file as a whole: holes, zeros, moves; and what lies where.
//!
//! The caller holds the inode lock (exclusive for what changes anything) and has drained direct I/O (C25). Each change goes
//! in steps of a transaction's size, and a crash between two of them leaves a consistent volume (D30).

mod hole;
mod map;
mod seek;
mod shift;
mod zero;

pub use map::RangeExtent;
pub use seek::Whence;
