//! Memory that the page caches of a volume share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A limit, and what is in use of it.
#[derive(Debug)]
pub struct CacheBudget {
    limit_bytes: u64,
    dirty_limit_bytes: u64,
    used_bytes: AtomicU64,
    dirty_bytes: AtomicU64,
}

impl CacheBudget {
    /// A budget of so many bytes, of which `dirty_percent` may be dirty before a writer has to write back itself.
    pub fn new(limit_bytes: u64, dirty_percent: u8) -> Self {
        let dirty_limit_bytes = limit_bytes / 100 * u64::from(dirty_percent.min(100));
        Self { limit_bytes, dirty_limit_bytes, used_bytes: AtomicU64::new(0), dirty_bytes: AtomicU64::new(0) }
    }

    /// Bytes in pages now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// Bytes in dirty pages now.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Relaxed)
    }

    /// Whether pages should be given back.
    pub fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }

    /// Whether writers should write back before they go on.
    pub fn is_dirty_exceeded(&self) -> bool {
        self.dirty_bytes() > self.dirty_limit_bytes
    }

    /// Whether somebody should begin to write back, lest writers have to: half of what they may make dirty is.
    pub fn wants_write_back(&self) -> bool {
        self.dirty_bytes() > self.dirty_limit_bytes / 2
    }

    /// Bytes to give back. Somewhat more than what is too much, lest every new page ask for one.
    pub(crate) fn excess_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.limit_bytes - self.limit_bytes / 8)
    }

    pub(crate) fn take(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn give(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn take_dirty(&self, bytes: u64) {
        self.dirty_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn give_dirty(&self, bytes: u64) {
        self.dirty_bytes.fetch_sub(bytes, Relaxed);
    }
}
