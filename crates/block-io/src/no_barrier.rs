//! A device whose writes are durable once they are complete, because its user says so.

use std::sync::Arc;

use crate::{Dax, Device, IoTotals, Limits, Result};

/// A device over another: no flush and no FUA reaches it (T17). Where the device below has a volatile cache after all, a
/// power cut may lose or reorder anything.
pub struct NoBarrierDevice(Arc<dyn Device>);

impl NoBarrierDevice {
    /// Over `inner`.
    pub fn new(inner: Arc<dyn Device>) -> Self {
        Self(inner)
    }
}

impl Device for NoBarrierDevice {
    fn lost(&self) -> Option<&crate::Error> {
        self.0.lost()
    }

    fn check_whole(&self) -> Result<()> {
        self.0.check_whole()
    }

    fn limits(&self) -> &Limits {
        self.0.limits()
    }

    fn io_totals(&self) -> Option<IoTotals> {
        self.0.io_totals()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], _fua: bool) -> Result<()> {
        self.0.write(offset_bytes, buf, false)
    }

    fn flush(&self) -> Result<()> {
        self.0.check_whole()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.0.discard(offset_bytes, len_bytes)
    }

    fn dax(&self) -> Option<&dyn Dax> {
        self.0.dax()
    }
}
