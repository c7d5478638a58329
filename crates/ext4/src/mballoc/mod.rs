//! The block allocator.
mod buddy;
pub use buddy::Buddy;
