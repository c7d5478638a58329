//! A queue without concurrency, so that a test runs the same way every time.

use std::sync::Arc;

use crate::{Completion, Device, EventFd, Operation, Queue, Request, Result};

/// A queue over any device that carries requests out, in their order, within [`Queue::submit`].
pub struct ImmediateQueue {
    device: Arc<dyn Device>,
    event: Option<Arc<EventFd>>,
    pushed: Vec<Request>,
    done: Vec<Completion>,
}

impl ImmediateQueue {
    /// A queue over `device`; `event`, if there is one, is signalled when completions arrive.
    pub fn new(device: Arc<dyn Device>, event: Option<Arc<EventFd>>) -> Self {
        Self { device, event, pushed: Vec::new(), done: Vec::new() }
    }
}

impl Queue for ImmediateQueue {
    fn push(&mut self, request: Request) {
        self.pushed.push(request);
    }

    fn submit(&mut self) -> Result<()> {
        let was_empty = self.done.is_empty();
        for Request { id, operation, offset_bytes, mut memory } in self.pushed.drain(..) {
            let result = match operation {
                Operation::Read => self.device.read(offset_bytes, memory.bytes_mut()),
                Operation::Write { fua } => self.device.write(offset_bytes, memory.bytes(), fua),
                Operation::Flush => self.device.flush(),
            };
            self.done.push(Completion { id, result, memory });
        }
        if was_empty && !self.done.is_empty() {
            self.event.iter().for_each(|event| event.signal());
        }
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn in_flight(&self) -> usize {
        self.pushed.len() + self.done.len()
    }

    fn drain(&mut self) {
        self.pushed.clear();
        self.done.clear();
    }
}
