//! Memory that the page caches of a volume share.

use std::sync::atomic::{AtomicU64, Ordering};

/// A limit, and what is in use of it.
#[derive(Debug)]
pub struct CacheBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl CacheBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// Bytes in pages now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether pages should be given back.
    pub fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }

    /// Bytes to give back. Somewhat more than what is too much, lest every new page ask for one.
    pub(crate) fn excess_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.limit_bytes - self.limit_bytes / 8)
    }

    pub(crate) fn take(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
