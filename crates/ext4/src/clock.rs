//! The times of a volume, injected, so that tests can hold them still.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use block_io::sync::{Condvar, Mutex};

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Seconds since 1970, UTC.
    pub sec: i64,
    /// 0…999,999,999.
    pub nsec: u32,
}

impl Now {
    /// The same as time since 1970; before it, zero.
    pub fn since_epoch(self) -> Duration {
        Duration::new(self.sec.max(0) as u64, self.nsec.min(999_999_999))
    }
}

/// Where times come from: there are two.
pub trait Clock: Send + Sync {
    /// The wall's: for what is stored. Anybody may set it, forward and back.
    fn now(&self) -> Now;

    /// Time since any moment, by a clock that nobody sets: for ages, timeouts and other hosts (M4).
    fn since_boot(&self) -> Duration;

    /// Lets time pass, not less than `duration`: only a mount waits, and only for other hosts (M3). `false`: it was
    /// cancelled.
    fn wait(&self, duration: Duration, cancel: &Cancel) -> bool {
        cancel.wait(duration)
    }
}

/// Ends the waits of a mount early.
#[derive(Clone, Default)]
pub struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    /// Whoever waits, or will, goes on at once.
    pub fn cancel(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// Waits for so long; `false` if it was cancelled before.
    pub fn wait(&self, duration: Duration) -> bool {
        let started = Instant::now();
        let mut cancelled = self.0.0.lock();
        while !*cancelled {
            let left = duration.saturating_sub(started.elapsed());
            if left.is_zero() {
                return true;
            }
            self.0.1.wait_for(&mut cancelled, left);
        }
        false
    }
}

/// The host's clocks, the wall's in steps of 4 ms, as the kernel's coarse clock: within a step file_modified finds nothing
/// to change, so that shared overwrites cost no journal handle each.
#[derive(Debug, Default)]
pub struct CoarseClock;

const TICK_NS: u32 = 4_000_000;

impl Clock for CoarseClock {
    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nsec = since.subsec_nanos();
        Now { sec: since.as_secs() as i64, nsec: nsec - nsec % TICK_NS }
    }

    fn since_boot(&self) -> Duration {
        block_io::since_boot()
    }
}
