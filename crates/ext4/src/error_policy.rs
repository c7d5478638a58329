//! What follows from an error of the volume (EP1–EP3): it is recorded in the superblock, and the mount goes on, becomes
//! read-only, or stops.

use std::sync::Arc;

use block_io::Device;
use block_io::sync::Mutex;
use ext4_format::superblock::state;
use ext4_format::{Corrupt, Superblock};

use crate::clock::Clock;
use crate::fs::Fs;
use crate::superblock_io::write_superblock_directly;
use crate::{Error, Result, errno};

/// `errors=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorMode {
    /// Only recorded.
    Continue,
    /// The journal aborts: every later change is EROFS.
    RemountReadOnly,
    /// The volume stops: every later call is EIO. What the kernel calls panic.
    Shutdown,
}

impl ErrorMode {
    /// What `s_errors` asks for.
    fn of(superblock: &Superblock) -> Self {
        match superblock.errors {
            2 => Self::RemountReadOnly,
            3 => Self::Shutdown,
            _ => Self::Continue,
        }
    }
}

/// EP3: one error, as the superblock keeps it.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    time: u64,
    ino: u32,
    block: u64,
    function: [u8; 32],
    code: u8,
}

#[derive(Default)]
struct Found {
    /// Errors of this mount.
    count: u32,
    first: Record,
    last: Record,
    latest: Option<Error>,
    /// Not in the superblock yet.
    unwritten: bool,
}

/// The errors of a mount.
pub(crate) struct ErrorPolicy {
    mode: ErrorMode,
    /// Errors that the superblock knew of at the mount.
    earlier: u32,
    device: Arc<dyn Device>,
    block_size: usize,
    clock: Arc<dyn Clock>,
    found: Mutex<Found>,
}

impl ErrorPolicy {
    pub fn new(
        device: Arc<dyn Device>,
        superblock: &Superblock,
        mode: Option<ErrorMode>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            mode: mode.unwrap_or(ErrorMode::of(superblock)),
            earlier: superblock.error_count,
            device,
            block_size: superblock.block_size() as usize,
            clock,
            found: Mutex::new(Found::default()),
        }
    }

    /// Counts an error; `false` if it was the last one too, within the same second: the same damage met by several layers,
    /// or by a loop.
    fn record(&self, error: &Error, function: &str) -> bool {
        let record = self.describe(error, function);
        let mut found = self.found.lock();
        if found.latest.as_ref() == Some(error) && found.last.time == record.time {
            return false;
        }
        if found.count == 0 {
            found.first = record;
        }
        found.last = record;
        found.count = found.count.saturating_add(1);
        found.latest = Some(error.clone());
        found.unwritten = true;
        true
    }

    fn describe(&self, error: &Error, function: &str) -> Record {
        let mut record = Record { time: self.clock.now().sec.max(0) as u64, ..Record::default() };
        let len = function.len().min(record.function.len() - 1);
        record.function[..len].copy_from_slice(&function.as_bytes()[..len]);
        match error {
            Error::Corrupt { place, corrupt } => {
                record.code = if matches!(corrupt, Corrupt::Checksum { .. }) { 4 } else { 5 };
                let number = |prefix: &str| place.strip_prefix(prefix).and_then(|text| text.parse().ok());
                record.block = number("block ").unwrap_or(0);
                record.ino = number("inode ").and_then(|ino| u32::try_from(ino).ok()).unwrap_or(0);
            }
            Error::Device(device) => {
                record.code = if device.errno == errno::ENOSPC { 6 } else { 2 };
                record.block = device.offset_bytes.map_or(0, |offset| offset / self.block_size as u64);
            }
            _ => record.code = 1,
        }
        record
    }

    /// Brings the fields of EP3 and s_state up to date; nothing to do while there was no error.
    pub fn apply(&self, superblock: &mut Superblock) {
        let mut found = self.found.lock();
        found.unwritten = false;
        if found.count == 0 {
            return;
        }
        superblock.state |= state::ERROR;
        superblock.error_count = self.earlier.saturating_add(found.count);
        if superblock.first_error_time() == 0 {
            let first = &found.first;
            superblock.set_first_error_time(first.time);
            superblock.first_error_ino = first.ino;
            superblock.first_error_block = first.block;
            superblock.first_error_func = first.function;
            superblock.first_error_errcode = first.code;
            superblock.first_error_line = 0;
        }
        let last = &found.last;
        superblock.set_last_error_time(last.time);
        superblock.last_error_ino = last.ino;
        superblock.last_error_block = last.block;
        superblock.last_error_func = last.function;
        superblock.last_error_errcode = last.code;
        superblock.last_error_line = 0;
    }

    /// After an abort nothing goes through the journal any more: writes the superblock by itself, as far as that works (EP2).
    pub fn aborted(&self, errno: i32) {
        if self.found.lock().count == 0 {
            self.record(&Error::errno_only(errno), "journal");
        }
        self.write_directly();
    }

    fn write_directly(&self) {
        // The abort is in force, whatever becomes of this write.
        let _lost = write_superblock_directly(self.device.as_ref(), |superblock| self.apply(superblock));
    }

    fn has_unwritten(&self) -> bool {
        self.found.lock().unwritten
    }
}

impl Fs {
    /// EP2: metadata could not be read, or is damaged. Other errors are none of the volume's.
    pub(crate) fn error_found(&self, error: &Error, function: &str) {
        let is_damage = matches!(error, Error::Corrupt { .. } | Error::Device(_));
        if !is_damage || self.is_read_only() || self.check_writable().is_err() {
            return;
        }
        let errors = &self.host.errors;
        if !errors.record(error, function) {
            return;
        }
        match errors.mode {
            // The next change of the superblock takes it along, at the latest the next tick's.
            ErrorMode::Continue => {}
            ErrorMode::RemountReadOnly => self.journal.abort(errno::EIO),
            ErrorMode::Shutdown => {
                self.shut_down();
                errors.write_directly();
            }
        }
    }

    /// Writes what was recorded, through the journal. The caller has no handle.
    pub(crate) fn write_errors(&self) -> Result<()> {
        if self.is_read_only()
            || !self.host.errors.has_unwritten()
            || self.journal.is_frozen()
            || self.check_writable().is_err()
        {
            return Ok(());
        }
        self.with_handle(4, |handle| self.change_superblock(handle, |_| ()))
    }
}
