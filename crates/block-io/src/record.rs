//! A device that remembers, in one order, all that was asked of it and when it was done (CM1).

use std::sync::Arc;

use crate::sync::Mutex;
use crate::{Device, Limits, Result};

/// Which device of a recording, as its maker numbered it.
pub type DeviceNumber = u32;

/// Something that happened. `request` ties a completion to its submission; it counts over the whole recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A write was handed to the device.
    WriteSubmitted {
        /// On which device.
        device: DeviceNumber,
        /// Which request.
        request: u64,
        /// Where, in bytes.
        offset_bytes: u64,
        /// What, as it was at submission.
        bytes: Arc<[u8]>,
        /// Durable at its completion.
        fua: bool,
    },
    /// A flush was handed to the device.
    FlushSubmitted {
        /// On which device.
        device: DeviceNumber,
        /// Which request.
        request: u64,
    },
    /// A discard was handed to the device.
    DiscardSubmitted {
        /// On which device.
        device: DeviceNumber,
        /// Which request.
        request: u64,
        /// Where, in bytes.
        offset_bytes: u64,
        /// How much, in bytes.
        len_bytes: u64,
    },
    /// The device was done with a request.
    Completed {
        /// On which device.
        device: DeviceNumber,
        /// Which request.
        request: u64,
        /// `false`: with an error; a part of it may be there.
        succeeded: bool,
    },
    /// The workload said something, such as "fsync of f returned".
    Mark(String),
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    requests: u64,
}

/// The log of one or several devices (CM4).
#[derive(Clone, Default)]
pub struct Recorder {
    log: Arc<Mutex<Log>>,
}

impl Recorder {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a mark after all that happened before this call.
    pub fn mark(&self, text: impl Into<String>) {
        self.log.lock().events.push(Event::Mark(text.into()));
    }

    /// A copy of the log.
    pub fn events(&self) -> Vec<Event> {
        self.log.lock().events.clone()
    }

    /// The log, which is empty afterwards; requests go on counting.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.log.lock().events)
    }

    fn submitted(&self, event: impl FnOnce(u64) -> Event) -> u64 {
        let mut log = self.log.lock();
        let request = log.requests;
        log.requests += 1;
        log.events.push(event(request));
        request
    }
}

/// A device whose writes, flushes and discards are recorded. Reads change nothing and are not.
pub struct RecordingDevice {
    inner: Arc<dyn Device>,
    recorder: Recorder,
    device: DeviceNumber,
}

impl RecordingDevice {
    /// Records what happens to `inner` as `device` in `recorder`.
    pub fn new(inner: Arc<dyn Device>, recorder: Recorder, device: DeviceNumber) -> Self {
        Self { inner, recorder, device }
    }

    fn completed(&self, request: u64, result: Result<()>) -> Result<()> {
        let event = Event::Completed { device: self.device, request, succeeded: result.is_ok() };
        self.recorder.log.lock().events.push(event);
        result
    }
}

impl Device for RecordingDevice {
    fn lost(&self) -> Option<&crate::Error> {
        self.inner.lost()
    }

    fn check_whole(&self) -> Result<()> {
        self.inner.check_whole()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        let (device, bytes) = (self.device, Arc::from(buf));
        let request = self.recorder.submitted(|request| Event::WriteSubmitted {
            device,
            request,
            offset_bytes,
            bytes,
            fua,
        });
        self.completed(request, self.inner.write(offset_bytes, buf, fua))
    }

    fn flush(&self) -> Result<()> {
        let device = self.device;
        let request = self.recorder.submitted(|request| Event::FlushSubmitted { device, request });
        self.completed(request, self.inner.flush())
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        let device = self.device;
        let request = self.recorder.submitted(|request| Event::DiscardSubmitted {
            device,
            request,
            offset_bytes,
            len_bytes,
        });
        self.completed(request, self.inner.discard(offset_bytes, len_bytes))
    }
}
