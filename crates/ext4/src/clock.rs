//! The time that inodes and commits get. Injected, so that tests can hold it still.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Seconds since 1970, UTC.
    pub sec: i64,
    /// 0…999,999,999.
    pub nsec: u32,
}

/// Where times come from.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Now;

    /// Lets time pass: only a mount waits, and only for other hosts (M3).
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The host's clock in steps of 4 ms, as the kernel's coarse clock: within a step file_modified finds nothing to
/// change, so that shared overwrites cost no journal handle each.
#[derive(Debug, Default)]
pub struct CoarseClock;

const TICK_NS: u32 = 4_000_000;

impl Clock for CoarseClock {
    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nsec = since.subsec_nanos();
        Now { sec: since.as_secs() as i64, nsec: nsec - nsec % TICK_NS }
    }
}
