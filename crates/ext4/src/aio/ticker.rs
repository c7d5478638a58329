//! Threads that do nothing but call a step function of the volume when it is due.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use block_io::sync::{Condvar, Mutex, MutexGuard};

use crate::fs::Fs;

/// Does what is due and returns the milliseconds until the next useful call.
pub(super) type StepFn = fn(&Fs) -> u64;

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    woken: bool,
}

/// Calls a step function of the volume until it is stopped.
pub(super) struct Ticker {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub fn start(fs: Arc<Fs>, name: &str, step: StepFn) -> std::io::Result<Self> {
        let signal = Arc::<Signal>::default();
        let shared = signal.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let mut state = shared.state.lock();
            while !state.stopped {
                state.woken = false;
                let pause = MutexGuard::unlocked(&mut state, || step(&fs));
                if !state.stopped && !state.woken {
                    shared.changed.wait_for(&mut state, Duration::from_millis(pause.max(1)));
                }
            }
        })?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// What makes the next step come at once.
    pub fn wake(&self) -> Box<dyn Fn() + Send + Sync> {
        let signal = self.signal.clone();
        Box::new(move || {
            signal.state.lock().woken = true;
            signal.changed.notify_all();
        })
    }

    pub fn stop(&mut self) {
        self.signal.state.lock().stopped = true;
        self.signal.changed.notify_all();
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
