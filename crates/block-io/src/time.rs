//! A clock that nobody sets.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the host was started, its sleep included (CLOCK_BOOTTIME): for ages and timeouts. The wall's clock may be set
/// back, and CLOCK_MONOTONIC stands still in suspend.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec.clamp(0, 999_999_999) as u32)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_goes_forward() {
        let before = super::since_boot();
        assert!(super::since_boot() >= before && !before.is_zero());
    }
}
