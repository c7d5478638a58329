//! Lets the kernel work on a recorded volume, call by call, and tells the model of each.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use block_io::{Device, Event, Limits, Recorder, RecordingDevice, Result};
use ext4_sim::crash::driver::Recording;
use ext4_sim::crash::image::{Base, StateDevice};
use ext4_sim::crash::model::{How, Model, Op, Promise, attributes};
use ext4_sim::crash::random::Random;
use ext4_sim::crash::volume::Volume;
use ext4_sim::pattern;

use super::host::Host;

/// A device whose writes take a while, each another: requests overlap, and complete in another order than they came.
struct Slow {
    inner: StateDevice,
    writes: AtomicU64,
}

impl Device for Slow {
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
        let count = self.writes.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(Random(count).below(300) as u64));
        self.inner.write(offset_bytes, buf, fua)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.inner.discard(offset_bytes, len_bytes)
    }
}

/// How a write is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Buffered,
    BufferedDsync,
    Direct,
    DirectDsync,
}

impl Write {
    fn flags(self) -> i32 {
        match self {
            Self::Buffered => 0,
            Self::BufferedDsync => libc::O_DSYNC,
            Self::Direct => libc::O_DIRECT,
            Self::DirectDsync => libc::O_DIRECT | libc::O_DSYNC,
        }
    }

    fn is_synchronous(self) -> bool {
        matches!(self, Self::BufferedDsync | Self::DirectDsync)
    }
}

/// A volume that the kernel has mounted, recorded. Paths have no leading slash; "" is the root.
pub struct Driver {
    name: String,
    volume: Volume,
    base: Arc<Base>,
    host: Host,
    recorder: Recorder,
    events: Vec<Event>,
    /// The last transaction of which anything is in the log.
    tid: u32,
    /// What happens to files, for the judge.
    pub model: Model,
    seed: u32,
    takes_direct: bool,
}

/// What [`Event`]s write to the log has its transaction's number in its header.
fn last_tid(base: &Base, events: &[Event]) -> Option<u32> {
    const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];
    let block = 1024;
    let word =
        |bytes: &[u8], at| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let tids = events.iter().filter_map(|event| match event {
        Event::WriteSubmitted { offset_bytes, bytes, .. } if base.in_journal(*offset_bytes) => bytes
            .chunks(block)
            .filter(|block| block.len() >= 12 && block[..4] == MAGIC && matches!(word(block, 4), 1 | 2 | 5))
            .map(|block| word(block, 8))
            .max(),
        _ => None,
    });
    tids.max()
}

impl Driver {
    /// Mounts a fresh volume with `options` of mount(8).
    pub fn new(name: impl Into<String>, volume: Volume, options: &str) -> Self {
        let base = volume.base();
        let recorder = Recorder::new();
        let slow = Slow { inner: StateDevice::new(base.clone()), writes: AtomicU64::new(0) };
        let device = RecordingDevice::new(Arc::new(slow), recorder.clone(), 0);
        // Commits come when they are asked for.
        let host = Host::mount(Arc::new(device), &format!("commit=3000,{options}"));
        let sequence = base.journal()[0].start as usize + 0x18;
        let tid = u32::from_be_bytes(base.bytes()[sequence..][..4].try_into().expect("four bytes"));
        let mut model = Model::new(2, 3);
        model.size_first = !options.contains("data=journal") && !options.contains("nodioread_nolock");
        Self {
            name: name.into(),
            volume,
            base,
            host,
            recorder,
            events: Vec::new(),
            tid,
            model,
            seed: 0,
            takes_direct: !options.contains("data=journal"),
        }
    }

    fn collect(&mut self) -> usize {
        let new = self.recorder.take();
        self.tid = last_tid(&self.base, &new).map_or(self.tid, |tid| tid.max(self.tid));
        self.events.extend(new);
        self.events.len()
    }

    /// The transaction that the kernel's next handle is in, as far as the log tells.
    fn begin(&mut self, what: &str) -> Op {
        self.recorder.mark(what);
        let events = self.collect();
        self.model.begin(events, what.into(), self.tid + 1)
    }

    fn ended(&mut self, op: Op) {
        self.collect();
        self.model.ended(op, self.tid + 1);
    }

    /// A call that changes names: `change` tells the model, which the call's inode number may be of use to.
    fn names(&mut self, words: &[&str], change: impl FnOnce(&mut Model, u32)) {
        let op = self.begin(&words.join(" "));
        let ino = self.host.call(words) as u32;
        self.ended(op);
        change(&mut self.model, ino);
    }

    pub fn create(&mut self, path: &str) {
        self.names(&["create", path], |model, ino| model.create(path, ino));
    }

    pub fn mkdir(&mut self, path: &str) {
        self.names(&["mkdir", path], |model, ino| model.mkdir(path, ino));
    }

    pub fn symlink(&mut self, text: &str, path: &str) {
        self.names(&["symlink", text, path], |model, ino| model.symlink(path, ino, text.as_bytes()));
    }

    pub fn link(&mut self, old: &str, new: &str) {
        self.names(&["link", old, new], |model, _| model.link(old, new));
    }

    pub fn rename(&mut self, old: &str, new: &str) {
        self.names(&["rename", old, new], |model, _| model.rename(old, new));
    }

    pub fn unlink(&mut self, path: &str) {
        self.names(&["unlink", path], |model, _| model.unlink(path));
    }

    pub fn rmdir(&mut self, path: &str) {
        self.names(&["rmdir", path], |model, _| model.rmdir(path));
    }

    pub fn chmod(&mut self, path: &str, mode: u16) {
        let now = attributes(mode, &std::collections::BTreeMap::new());
        self.names(&["chmod", path, &mode.to_string()], |model, _| model.change_attributes(path, now));
    }

    /// Bytes that no other call writes.
    pub fn write(&mut self, path: &str, pos: u64, len: usize, write: Write) {
        self.seed += 1;
        let op = self.begin(&format!("{write:?} write {path} {pos}+{len}"));
        let is_direct = self.takes_direct && matches!(write, Write::Direct | Write::DirectDsync);
        let how = if is_direct { How::Direct } else { How::Buffered };
        self.model.write(path, pos, &pattern::bytes(self.seed, len), how);
        self.model.in_flight(path, op);
        let numbers = [pos, self.seed.into(), len as u64, write.flags() as u64].map(|n| n.to_string());
        let mut words = vec!["write", path];
        words.extend(numbers.iter().map(String::as_str));
        self.host.call(&words);
        self.ended(op);
        self.model.landed(path, op);
        if write.is_synchronous() {
            self.recorder.mark("synchronous");
            let event = self.collect();
            self.model.kept_range(path, op, event, pos..pos + len as u64);
        }
    }

    pub fn truncate(&mut self, path: &str, size: u64) {
        let op = self.begin(&format!("truncate {path} {size}"));
        self.model.truncate(path, size, self.volume.block_size.into());
        self.host.call(&["truncate", path, &size.to_string()]);
        self.ended(op);
    }

    /// fallocate(1) with `option`, or none for space and a new size.
    pub fn fallocate(&mut self, path: &str, option: &str, range: Range<u64>) {
        let op = self.begin(&format!("fallocate {option} {path} {range:?}"));
        let (start, end) = (range.start as usize, range.end as usize);
        self.model.fallocate(path, range.start, |data| match option {
            "--punch-hole" | "--zero-range" => {
                let end = end.min(data.len());
                data[start.min(end)..end].fill(0);
            }
            "--collapse-range" => drop(data.drain(start..end)),
            "--insert-range" => drop(data.splice(start..start, vec![0; end - start])),
            "--posix" | "" => data.resize(data.len().max(end), 0),
            "--keep-size" => {}
            other => panic!("{other}"),
        });
        let (offset, len) = (range.start.to_string(), (range.end - range.start).to_string());
        let mut words = vec!["fallocate", path, "--offset", &offset, "--length", &len];
        words.extend(Some(option).filter(|option| !option.is_empty()));
        words.extend(Some("--keep-size").filter(|_| option == "--zero-range"));
        self.host.call(&words);
        self.ended(op);
    }

    fn promise(&mut self, words: &[&str], promise: impl FnOnce(&Model) -> Promise) {
        let op = self.begin(&words.join(" "));
        let promise = promise(&self.model);
        self.host.call(words);
        self.recorder.mark(format!("{} returned", words.join(" ")));
        self.ended(op);
        self.model.kept(promise, self.events.len());
    }

    pub fn fsync(&mut self, path: &str) {
        self.promise(&["fsync", path], |model| model.promise_file(path));
    }

    pub fn fdatasync(&mut self, path: &str) {
        self.promise(&["fdatasync", path], |model| model.promise_data(path));
    }

    pub fn fsync_dir(&mut self, path: &str) {
        self.promise(&["fsync", path], |model| model.promise_names(path));
    }

    pub fn syncfs(&mut self) {
        self.promise(&["syncfs"], Model::promise_all);
    }

    /// Keeps a file open: without a name it is an orphan.
    pub fn hold(&mut self, path: &str) {
        self.host.call(&["hold", path]);
    }

    pub fn let_go(&mut self, path: &str) {
        let op = self.begin(&format!("close {path}"));
        self.host.call(&["let-go", path]);
        self.ended(op);
    }

    /// Unmounts, which makes everything durable, and hands the recording over.
    pub fn finish(mut self) -> Recording {
        self.begin("unmount");
        let Self { name, volume, base, host, recorder, mut events, mut model, .. } = self;
        let promise = model.promise_all();
        host.unmount();
        events.extend(recorder.take());
        model.kept(promise, events.len());
        Recording { name, volume, base, events, model, whole_superblock: true }
    }
}
