//! What worker threads tell the engine's own thread.

use std::collections::VecDeque;

use block_io::sync::Mutex;

/// Messages from workers, with a signal that wakes the engine's thread. The signal is given once per transition
/// from empty to not empty, so that a batch costs one wake-up.
pub(super) struct Completions<T> {
    done: Mutex<VecDeque<T>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<T> Completions<T> {
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { done: Mutex::new(VecDeque::new()), wake }
    }

    pub fn push(&self, message: T) {
        let was_empty = {
            let mut done = self.done.lock();
            done.push_back(message);
            done.len() == 1
        };
        if was_empty {
            (self.wake)();
        }
    }

    /// Everything that arrived so far.
    pub fn take(&self) -> VecDeque<T> {
        std::mem::take(&mut *self.done.lock())
    }
}
