use std::sync::Arc;
use std::time::Duration;

use block_io::{AlignedBuf, Completion, EventFd, Memory, Operation, Queue, Request};

pub fn event() -> Arc<EventFd> {
    Arc::new(EventFd::new().unwrap())
}

pub fn request(id: u64, operation: Operation, offset_bytes: u64, bytes: &[u8]) -> Request {
    Request { id, operation, offset_bytes, memory: Memory::Owned(AlignedBuf::copy_of(bytes)) }
}

/// Waits, as an event loop does, until nothing is in flight.
pub fn finish(queue: &mut dyn Queue, event: &EventFd) -> Vec<Completion> {
    let mut done = Vec::new();
    while queue.in_flight() > 0 {
        assert!(event.wait(Some(Duration::from_secs(20))), "{} never completed", queue.in_flight());
        event.clear();
        queue.reap(&mut done);
    }
    done
}
