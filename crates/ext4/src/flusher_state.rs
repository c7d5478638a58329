//! What a volume knows of the write-back that nobody asked for: its age, and whom to wake.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// What starts a step before its time.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

/// When dirty data is written back by itself.
pub(crate) struct Flusher {
    pub age_ms: u64,
    pub wake: OnceLock<Wake>,
    /// Somebody woke it, and it has not looked yet.
    pub woken: AtomicBool,
}

impl Flusher {
    pub fn new(age_ms: u64) -> Self {
        Self { age_ms, wake: OnceLock::new(), woken: AtomicBool::new(false) }
    }
}
