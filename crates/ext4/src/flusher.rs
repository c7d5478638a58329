//! Write-back nobody asked for: by age, and before writers run out of the memory that may be dirty.
//!
//! A step function over the volume's clock, which a thread calls in a loop; tests call it by hand.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::flusher_state::Wake;
use crate::fs::Fs;
use crate::inode::Inode;

impl Fs {
    /// The clock that nobody sets, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.since_boot().as_millis() as u64
    }

    /// Says how to wake the thread that calls [`Fs::write_back_step`]. The first to say so is heard.
    pub(crate) fn set_flusher_wake(&self, wake: Wake) {
        let _first = self.flusher.wake.set(wake);
    }

    /// Writes back what is old enough, and while too much is dirty the oldest of it. Errors are kept for the next fsync of
    /// their file. Returns the milliseconds until the next useful call.
    pub fn write_back_step(&self) -> u64 {
        let idle_ms = self.flusher.age_ms.clamp(20, 5000);
        self.flusher.woken.store(false, Ordering::Release);
        if self.page_budget.dirty_bytes() == 0 || self.check_writable().is_err() || self.journal.is_frozen() {
            return idle_ms;
        }
        let mut next_ms = idle_ms;
        for (since_ms, inode) in self.dirty_inodes() {
            let left_ms = since_ms.saturating_add(self.flusher.age_ms).saturating_sub(self.now_ms());
            if left_ms > 0 && !self.page_budget.wants_write_back() {
                next_ms = next_ms.min(left_ms);
                break;
            }
            if let Some(pages) = inode.pages.get() {
                let _kept = pages.write_back(0, u64::MAX);
            }
        }
        next_ms
    }

    /// Oldest first.
    fn dirty_inodes(&self) -> Vec<(u64, Arc<Inode>)> {
        let since = |inode: &Arc<Inode>| inode.pages.get()?.dirty_since_ms();
        let all = self.inodes.all().into_iter();
        let mut dirty: Vec<_> = all.filter_map(|inode| since(&inode).map(|since| (since, inode))).collect();
        dirty.sort_by_key(|(since, _)| *since);
        dirty
    }

    /// After a buffered write: starts write-back in time.
    pub(crate) fn wake_flusher(&self) {
        if self.page_budget.wants_write_back()
            && !self.flusher.woken.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.flusher.wake.get()
        {
            wake();
        }
    }

    /// Keeps a writer from making more dirty than write-back can follow: it does some of it itself.
    pub(crate) fn throttle_writer(&self, inode: &Inode) {
        if !self.page_budget.is_dirty_exceeded() {
            return;
        }
        // An error is kept for the next fsync.
        if let Some(pages) = inode.pages.get() {
            let _kept = pages.write_back(0, u64::MAX);
        }
        if self.page_budget.is_dirty_exceeded() {
            self.write_back_step();
        }
    }
}
