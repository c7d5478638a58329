//! What lets a recording contain operations side by side and still be the same each time: requests, and a commit, that
//! wait until they are told to go on.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use block_io::sync::Mutex;
use block_io::{Completion, Device, EventFd, Limits, Operation, Queue, Request, Result};

/// No commit takes as long.
const STUCK: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Requests {
    /// Whose requests are held from now on.
    holding: Option<u32>,
    held: Vec<(u32, Request)>,
    ready: Vec<Request>,
    done: Vec<Completion>,
}

/// Which requests a [`HeldQueue`] holds back.
#[derive(Clone, Default)]
pub struct Holds(Arc<Mutex<Requests>>);

impl Holds {
    /// From now on requests are held as those of `owner`; `None`: none are.
    pub fn hold(&self, owner: Option<u32>) {
        self.0.lock().holding = owner;
    }

    /// Whether requests of `owner` wait.
    pub fn has(&self, owner: u32) -> bool {
        self.0.lock().held.iter().any(|(other, _)| *other == owner)
    }

    /// Lets requests of `owner` go.
    pub fn release(&self, owner: u32) {
        let mut requests = self.0.lock();
        let (go, stay) =
            std::mem::take(&mut requests.held).into_iter().partition(|(other, _)| *other == owner);
        requests.held = stay;
        let go: Vec<(u32, Request)> = go;
        requests.ready.extend(go.into_iter().map(|(_, request)| request));
    }
}

/// A queue that carries requests out in their order, within `submit`, unless they are held.
pub struct HeldQueue {
    device: Arc<dyn Device>,
    event: Arc<EventFd>,
    requests: Holds,
}

impl HeldQueue {
    /// Over `device`; signals `event`.
    pub fn new(device: Arc<dyn Device>, event: Arc<EventFd>, requests: Holds) -> Self {
        Self { device, event, requests }
    }
}

impl Queue for HeldQueue {
    fn push(&mut self, request: Request) {
        let mut requests = self.requests.0.lock();
        match requests.holding {
            Some(owner) => requests.held.push((owner, request)),
            None => requests.ready.push(request),
        }
    }

    fn submit(&mut self) -> Result<()> {
        let ready = std::mem::take(&mut self.requests.0.lock().ready);
        for Request { id, operation, offset_bytes, mut memory } in ready {
            let result = match operation {
                Operation::Read => self.device.read(offset_bytes, memory.bytes_mut()),
                Operation::Write { fua } => self.device.write(offset_bytes, memory.bytes(), fua),
                Operation::Flush => self.device.flush(),
            };
            self.requests.0.lock().done.push(Completion { id, result, memory });
            self.event.signal();
        }
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.requests.0.lock().done);
    }

    fn in_flight(&self) -> usize {
        let requests = self.requests.0.lock();
        requests.held.len() + requests.ready.len() + requests.done.len()
    }

    fn drain(&mut self) {
        let mut requests = self.requests.0.lock();
        requests.held.clear();
        requests.ready.clear();
        requests.done.clear();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// The next write of the log stops here.
    Armed,
    Reached,
}

/// Stops a commit at its first write, so that others can change blocks beside it (T5).
pub struct GateDevice {
    inner: Arc<dyn Device>,
    journal: Vec<Range<u64>>,
    gate: std::sync::Mutex<Gate>,
    changed: std::sync::Condvar,
}

impl GateDevice {
    /// Over `inner`, whose log is at `journal`.
    pub fn new(inner: Arc<dyn Device>, journal: Vec<Range<u64>>) -> Self {
        Self { inner, journal, gate: Gate::Open.into(), changed: std::sync::Condvar::new() }
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.gate.lock().expect("nobody panics at the gate")
    }

    /// Stops the next commit.
    pub fn arm(&self) {
        *self.gate() = Gate::Armed;
    }

    /// Waits until a commit has been stopped.
    pub fn wait(&self) {
        let is_closed = |gate: &mut Gate| *gate != Gate::Reached;
        let waited = self.changed.wait_timeout_while(self.gate(), STUCK, is_closed);
        let timed_out = waited.expect("nobody panics at the gate").1.timed_out();
        assert!(!timed_out, "no commit came");
    }

    /// Lets it go on.
    pub fn open(&self) {
        *self.gate() = Gate::Open;
        self.changed.notify_all();
    }
}

impl Device for GateDevice {
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        if self.journal.iter().any(|range| range.contains(&offset_bytes)) {
            let mut gate = self.gate();
            if *gate == Gate::Armed {
                *gate = Gate::Reached;
                self.changed.notify_all();
                let waited = self.changed.wait_while(gate, |gate| *gate == Gate::Reached);
                drop(waited.expect("nobody panics at the gate"));
            }
        }
        self.inner.write(offset_bytes, buf, fua)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.inner.discard(offset_bytes, len_bytes)
    }
}
