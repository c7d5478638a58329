//! A device that fails when told to (CM12).

use std::sync::Arc;

use crate::sync::Mutex;
use crate::{Device, Error, Limits, Result};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOn {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
}

/// One planned failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub on: FaultOn,
    /// Which one: 1 is the first since the device was made.
    pub nth: u64,
    /// Every later one fails too.
    pub from_then_on: bool,
    /// With what: a positive errno, such as EIO or ENOSPC.
    pub errno: i32,
    /// The first half of a failing write, in whole logical blocks, is written.
    pub half_written: bool,
}

/// Requests since the device was made, failed ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
}

#[derive(Default)]
struct State {
    counts: Counts,
    faults: Vec<Fault>,
}

/// A device over another that carries out planned failures. It latches nothing: that is for who uses it to do.
pub struct FaultDevice {
    inner: Arc<dyn Device>,
    state: Mutex<State>,
}

impl FaultDevice {
    /// A device without faults so far.
    pub fn new(inner: Arc<dyn Device>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Plans one more failure. Of several that fit a request the first planned counts.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Forgets all planned failures, as a repaired disk would.
    pub fn clear(&self) {
        self.state.lock().faults.clear();
    }

    /// How many requests there were.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    fn count(&self, on: FaultOn) -> Option<Fault> {
        let mut state = self.state.lock();
        let count = match on {
            FaultOn::Read => &mut state.counts.reads,
            FaultOn::Write => &mut state.counts.writes,
            FaultOn::Flush => &mut state.counts.flushes,
        };
        *count += 1;
        let now = *count;
        let fits =
            |fault: &&Fault| fault.on == on && (fault.nth == now || (fault.from_then_on && fault.nth < now));
        state.faults.iter().find(fits).copied()
    }
}

impl Device for FaultDevice {
    fn lost(&self) -> Option<&Error> {
        self.inner.lost()
    }

    fn check_whole(&self) -> Result<()> {
        self.inner.check_whole()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        match self.count(FaultOn::Read) {
            Some(fault) => Err(Error::at("read", offset_bytes, fault.errno).with_detail("injected")),
            None => self.inner.read(offset_bytes, buf),
        }
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        let Some(fault) = self.count(FaultOn::Write) else {
            return self.inner.write(offset_bytes, buf, fua);
        };
        if fault.half_written {
            let lbs = self.limits().logical_block_bytes as usize;
            self.inner.write(offset_bytes, &buf[..buf.len() / 2 / lbs * lbs], false)?;
        }
        Err(Error::at("write", offset_bytes, fault.errno).with_detail("injected"))
    }

    fn flush(&self) -> Result<()> {
        match self.count(FaultOn::Flush) {
            Some(fault) => Err(Error::new("flush", fault.errno).with_detail("injected")),
            None => self.inner.flush(),
        }
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.inner.discard(offset_bytes, len_bytes)
    }
}
