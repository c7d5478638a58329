//! The thread that lets the journal commit by age (T14) and keeps the claim on the volume (M4).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use block_io::sync::{Condvar, Mutex, MutexGuard};

use crate::fs::Fs;

/// Calls the volume's step function until it is stopped.
pub(super) struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub fn start(fs: Arc<Fs>) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = stop.clone();
        let thread = std::thread::Builder::new().name("uext4-journal".into()).spawn(move || {
            let (stopped, changed) = &*shared;
            let mut guard = stopped.lock();
            while !*guard {
                let pause = MutexGuard::unlocked(&mut guard, || fs.tick());
                if !*guard {
                    changed.wait_for(&mut guard, Duration::from_millis(pause.max(1)));
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub fn stop(&mut self) {
        let (stopped, changed) = &*self.stop;
        *stopped.lock() = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _died = thread.join();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop();
    }
}
