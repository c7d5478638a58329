//! Ordered data (T12): what a transaction makes readable before it is on the device, and its commit writes first.
//!
//! With dioread_nolock there is none: buffered data goes to unwritten blocks, which become written after it. Without,
//! write-back allocates written blocks and raises i_disksize in one transaction, which lists the range here.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use block_io::sync::Mutex;
use jbd2::Tid;

/// A file with ordered data (jbd2_inode).
pub(crate) trait OrderedFile: Send + Sync {
    /// Puts what its page cache has of `range`, in bytes, on the device.
    fn write_ordered(&self, range: Range<u64>);
}

/// Byte ranges of files.
type Ranges = Vec<(Arc<dyn OrderedFile>, Range<u64>)>;

/// Those that each transaction lists.
#[derive(Default)]
pub(crate) struct OrderedData(Mutex<HashMap<Tid, Ranges>>);

impl OrderedData {
    /// `tid` must not commit before what the page cache has of `range` is on the device. A handle of `tid` lives.
    pub fn add(&self, tid: Tid, file: Arc<dyn OrderedFile>, range: Range<u64>) {
        self.0.lock().entry(tid).or_default().push((file, range));
    }

    /// Writes what `tid` lists. An error is reported by fsync, and leaves the pages dirty (data_err=ignore).
    pub fn write(&self, tid: Tid) {
        let listed = self.0.lock().remove(&tid).unwrap_or_default();
        if jbd2::mutant(13) {
            return;
        }
        for (file, range) in listed {
            file.write_ordered(range);
        }
    }
}
