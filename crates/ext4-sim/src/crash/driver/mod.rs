//! Drives a volume over a recorded device, operation by operation, and tells the model.

mod data;

use std::collections::BTreeMap;
use std::sync::Arc;

use block_io::{Device, Event, EventFd, Fault, FaultDevice, FaultOn, Recorder, RecordingDevice};
use ext4::aio::FileId;
use ext4::{MountOptions, NewInode, Result, SyncScope, XattrSet, errno};

pub use data::Direct;

use crate::crash::held::{GateDevice, HeldQueue, Holds};
use crate::crash::image::{Base, StateDevice};
use crate::crash::judge::{TestClock, mount_options, read_tree};
use crate::crash::model::{Model, Op, attributes};
use crate::crash::volume::Volume;
use crate::runner::Runner;

/// A workload that was run.
pub struct Recording {
    /// Its name.
    pub name: String,
    /// The volume that it ran on.
    pub volume: Volume,
    /// The volume before it.
    pub base: Arc<Base>,
    /// All that its devices were asked.
    pub events: Vec<Event>,
    /// What it did.
    pub model: Model,
    /// Writes of the superblock do not tear: Linux takes that for granted, and so does what we write after an abort (EP7).
    pub whole_superblock: bool,
}

/// The devices under a volume, from the volume's end: gate, recorder, faults, bytes.
struct Devices {
    volume: Arc<GateDevice>,
    journal: Option<Arc<GateDevice>>,
    faults: Arc<FaultDevice>,
}

impl Devices {
    fn new(volume: Volume, base: &Arc<Base>, recorder: &Recorder) -> Self {
        let (below, journal) = volume.devices(&Arc::new(StateDevice::new(base.clone())));
        let faults = Arc::new(FaultDevice::new(below));
        let gate = |device: Arc<dyn Device>, number, journal| {
            Arc::new(GateDevice::new(
                Arc::new(RecordingDevice::new(device, recorder.clone(), number)),
                journal,
            ))
        };
        Self {
            volume: gate(faults.clone(), 0, base.journal().to_vec()),
            journal: journal.map(|journal| gate(journal, 1, std::iter::once(0..u64::MAX).collect())),
            faults,
        }
    }
}

/// A mounted volume, recorded. Paths have no leading slash; "" is the root.
pub struct Driver {
    name: String,
    volume: Volume,
    base: Arc<Base>,
    runner: Runner,
    recorder: Recorder,
    devices: Devices,
    holds: Holds,
    clock: Arc<TestClock>,
    events: Vec<Event>,
    /// What happens to files, for the judge.
    pub model: Model,
    seed: u32,
    /// Faults were planned: operations may fail.
    faulty: bool,
    broken: bool,
}

fn new_inode(mode: u16) -> NewInode {
    NewInode { mode, uid: 0, gid: 0 }
}

fn mount(volume: Volume, devices: &Devices, holds: &Holds, clock: &Arc<TestClock>) -> Runner {
    let event = Arc::new(EventFd::new().expect("an eventfd"));
    let queue = Box::new(HeldQueue::new(devices.volume.clone(), event.clone(), holds.clone()));
    let journal = devices.journal.clone().map(|journal| journal as Arc<dyn Device>);
    let data = (!volume.features.contains("^has_journal")).then_some(volume.data);
    let dioread_nolock = volume.dioread_nolock;
    let options =
        MountOptions { data, dioread_nolock, journal_device: journal, ..mount_options(clock.clone()) };
    Runner::with_options(devices.volume.clone(), queue, event, &options)
        .unwrap_or_else(|error| panic!("mount: {error}"))
}

fn absolute(path: &str) -> Vec<u8> {
    format!("/{path}").into_bytes()
}

impl Driver {
    /// Makes and mounts a volume.
    pub fn new(name: impl Into<String>, volume: Volume) -> Self {
        let base = volume.base();
        let recorder = Recorder::new();
        let devices = Devices::new(volume, &base, &recorder);
        let (holds, clock) = (Holds::default(), Arc::new(TestClock::default()));
        let runner = mount(volume, &devices, &holds, &clock);
        let root = runner.fs().lookup(b"/", true).expect("a root");
        let mut driver = Self {
            name: name.into(),
            volume,
            base,
            runner,
            recorder,
            devices,
            holds,
            clock,
            events: Vec::new(),
            model: Model::new(root.ino.0, 3),
            seed: 0,
            faulty: false,
            broken: false,
        };
        driver.collect();
        driver
    }

    /// The volume under it, for what the model need not know.
    pub fn runner(&mut self) -> &mut Runner {
        &mut self.runner
    }

    /// Lets the `nth` write or flush of the volume's device from now on fail with EIO (CM12), 1 being the next. Until
    /// then only mkdir, direct writes and syncs may follow.
    pub fn fail(&mut self, on: FaultOn, nth: u64) {
        let counts = self.devices.faults.counts();
        let before = if on == FaultOn::Flush { counts.flushes } else { counts.writes };
        let fault =
            Fault { on, nth: before + nth, from_then_on: false, errno: errno::EIO, half_written: true };
        self.devices.faults.inject(fault);
        self.faulty = true;
    }

    /// A device failed, and an operation said so.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether there is such a name.
    pub fn has(&self, path: &str) -> bool {
        self.model.get(path).is_some()
    }

    /// A file's size.
    pub fn size(&self, file: FileId) -> u64 {
        self.runner.fs().sizes(&self.runner.inode(file)).0
    }

    fn collect(&mut self) -> usize {
        self.events.append(&mut self.recorder.take());
        self.events.len()
    }

    fn begin(&mut self, what: String) -> Op {
        self.clock.0.fetch_add(10, std::sync::atomic::Ordering::Relaxed);
        let events = self.collect();
        self.model.begin(events, what, self.runner.fs().next_tid())
    }

    /// `None`: a planned fault.
    fn attempt<R>(&mut self, op: Op, what: &str, result: Result<R>) -> Option<R> {
        match result {
            Ok(value) => {
                self.model.ended(op, self.runner.fs().next_tid());
                Some(value)
            }
            // What failed may never be there: it has no last transaction.
            Err(error) if self.faulty && matches!(error.errno(), errno::EIO | errno::EROFS) => {
                self.broken = true;
                None
            }
            Err(error) => panic!("{}: {what}: {error}", self.name),
        }
    }

    fn done<R>(&mut self, op: Op, what: &str, result: Result<R>) -> R {
        self.attempt(op, what, result).unwrap_or_else(|| panic!("{}: {what}: a planned fault", self.name))
    }

    /// O_CREAT: opens a file, makes it if it is missing.
    pub fn create(&mut self, path: &str) -> FileId {
        let op = self.begin(format!("create {path}"));
        let result = self.runner.fs().create(&absolute(path), new_inode(0o100644), false);
        let (inode, made) = self.done(op, path, result);
        if made {
            self.model.create(path, inode.ino.0);
        }
        self.runner.engine().adopt(inode)
    }

    /// Makes a file and closes it.
    pub fn touch(&mut self, path: &str) {
        let file = self.create(path);
        self.close(file);
    }

    /// Makes a file whose inode goes without a worker's help: beside a commit there is none.
    pub fn touch_only(&mut self, path: &str) {
        let op = self.begin(format!("create {path}"));
        let result = self.runner.fs().create(&absolute(path), new_inode(0o100644), false);
        let (inode, _) = self.done(op, path, result);
        self.model.create(path, inode.ino.0);
        let released = self.runner.fs().release(&inode);
        self.done(op, path, released);
    }

    /// mkdir.
    pub fn mkdir(&mut self, path: &str) {
        let op = self.begin(format!("mkdir {path}"));
        let result = self.runner.fs().mkdir(&absolute(path), new_inode(0o755));
        let Some(inode) = self.attempt(op, path, result) else { return };
        self.model.mkdir(path, inode.ino.0);
    }

    /// symlink.
    pub fn symlink(&mut self, text: &[u8], path: &str) {
        let op = self.begin(format!("symlink {path}"));
        let result = self.runner.fs().symlink(text, &absolute(path), new_inode(0o777));
        let ino = self.done(op, path, result).ino.0;
        self.model.symlink(path, ino, text);
    }

    /// unlink.
    pub fn unlink(&mut self, path: &str) {
        let op = self.begin(format!("unlink {path}"));
        let result = self.runner.fs().unlink(&absolute(path));
        self.done(op, path, result);
        self.model.unlink(path);
    }

    /// rmdir.
    pub fn rmdir(&mut self, path: &str) {
        let op = self.begin(format!("rmdir {path}"));
        let result = self.runner.fs().rmdir(&absolute(path));
        self.done(op, path, result);
        self.model.rmdir(path);
    }

    /// link.
    pub fn link(&mut self, old: &str, new: &str) {
        let op = self.begin(format!("link {old} {new}"));
        let result = self.runner.fs().link(&absolute(old), &absolute(new));
        self.done(op, new, result);
        self.model.link(old, new);
    }

    /// rename. `false`: refused, as one of a directory into itself or over one that is not empty is.
    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        let op = self.begin(format!("rename {old} {new}"));
        match self.runner.fs().rename(&absolute(old), &absolute(new)) {
            Err(error) if matches!(error.errno(), errno::EINVAL | errno::ENOTEMPTY) => {
                self.model.ended(op, self.runner.fs().next_tid());
                return false;
            }
            result => self.done(op, new, result),
        }
        self.model.rename(old, new);
        true
    }

    /// chmod.
    pub fn chmod(&mut self, path: &str, mode: u16) {
        let op = self.begin(format!("chmod {path} {mode:o}"));
        let fs = self.runner.fs().clone();
        let result = fs.lookup(&absolute(path), true).and_then(|inode| fs.chmod(&inode, mode));
        self.done(op, path, result);
        self.model.change_attributes(path, attributes(mode, &BTreeMap::new()));
    }

    /// setxattr of `user.crash` on a file of mode 0644; without a value, removexattr.
    pub fn xattr(&mut self, path: &str, value: Option<&[u8]>) {
        const NAME: &str = "user.crash";
        let op = self.begin(format!("xattr {path} {value:?}"));
        let fs = self.runner.fs().clone();
        let result = fs.lookup(&absolute(path), true).and_then(|inode| match value {
            Some(value) => fs.setxattr(&inode, NAME.as_bytes(), value, XattrSet::Either),
            None => fs.removexattr(&inode, NAME.as_bytes()),
        });
        self.done(op, path, result);
        let xattrs = value.map(|value| (NAME.to_owned(), value.to_vec())).into_iter().collect();
        self.model.change_attributes(path, attributes(0o644, &xattrs));
    }

    /// fsync or fdatasync.
    pub fn fsync(&mut self, path: &str, file: FileId, datasync: bool) {
        self.fsync_beside(path, file, datasync, |_| ());
    }

    /// The same with `beside` done at the first write of its commit, if it is to do anything.
    pub fn fsync_beside(&mut self, path: &str, file: FileId, datasync: bool, beside: impl FnOnce(&mut Self)) {
        let op = self.begin(format!("fsync {path} datasync {datasync}"));
        let promise = match datasync {
            true => self.model.promise_data(path),
            false => self.model.promise_file(path),
        };
        let sync = self.runner.begin_sync(file, datasync);
        let Some(sync) = self.attempt(op, path, sync) else { return };
        beside(self);
        let result = self.runner.end_sync(sync);
        if self.attempt(op, path, result).is_some() {
            let event = self.collect();
            self.model.kept(promise, event);
        }
    }

    /// fsync of a file whose commit waits at its first write until `beside` is done: changes beside a running commit (T5).
    pub fn fsync_with_changes(&mut self, path: &str, file: FileId, beside: impl FnOnce(&mut Self)) {
        let gate = self.devices.journal.as_ref().unwrap_or(&self.devices.volume).clone();
        gate.arm();
        self.fsync_beside(path, file, false, |driver| {
            gate.wait();
            beside(driver);
            gate.open();
        });
    }

    /// fsync of an unlinked file: nothing is to be seen of it.
    pub fn fsync_unnamed(&mut self, file: FileId) {
        let op = self.begin("fsync of an unlinked file".into());
        let result = self.runner.sync(file);
        self.done(op, "fsync", result);
    }

    /// fdatasync of several files with one commit (T13).
    pub fn fsync_all(&mut self, files: &[(String, FileId)]) {
        let op = self.begin("fsync of many".into());
        let promises: Vec<_> = files.iter().map(|(path, _)| self.model.promise_data(path)).collect();
        let wanted: Vec<_> =
            files.iter().map(|(_, file)| (self.runner.inode(*file), SyncScope::Data)).collect();
        for result in self.runner.fs().clone().fsync_all(&wanted) {
            self.done(op, "fsync", result);
        }
        let event = self.collect();
        promises.into_iter().for_each(|promise| self.model.kept(promise, event));
    }

    /// fsync of a directory.
    pub fn fsync_dir(&mut self, path: &str) {
        let op = self.begin(format!("fsync directory {path}"));
        let promise = self.model.promise_names(path);
        let fs = self.runner.fs().clone();
        let result = fs.lookup(&absolute(path), true).and_then(|inode| fs.fsync(&inode, false));
        if self.attempt(op, path, result).is_some() {
            let event = self.collect();
            self.model.kept(promise, event);
        }
    }

    /// Write-back of a file, as if by itself: nothing is promised.
    pub fn write_back(&mut self, path: &str, file: FileId) {
        let op = self.begin(format!("write-back {path}"));
        let inode = self.runner.inode(file);
        let result = self.runner.fs().write_and_wait(&inode, 0, u64::MAX);
        self.done(op, path, result);
    }

    /// A commit by itself: nothing is promised.
    pub fn commit(&mut self) {
        let op = self.begin("commit".into());
        let result = self.runner.fs().commit();
        self.done(op, "commit", result);
    }

    /// syncfs.
    pub fn sync(&mut self) {
        let op = self.begin("sync".into());
        let promise = self.model.promise_all();
        let result = self.runner.fs().sync();
        if self.attempt(op, "sync", result).is_some() {
            let event = self.collect();
            self.model.kept(promise, event);
        }
    }

    /// close.
    pub fn close(&mut self, file: FileId) {
        let op = self.begin("close".into());
        let result = self.runner.close(file);
        self.done(op, "close", result);
    }

    /// Blocks that are free and not waiting for a commit.
    pub fn free_blocks(&self) -> usize {
        self.runner.fs().superblock().free_blocks_count() as usize
    }

    /// Unmounts and mounts again; every file must be closed.
    pub fn remount(&mut self) {
        let op = self.begin("remount".into());
        let promise = self.model.promise_all();
        self.runner.fs().unmount().unwrap_or_else(|error| panic!("{}: unmount: {error}", self.name));
        let event = self.collect();
        self.model.kept(promise, event);
        self.runner = mount(self.volume, &self.devices, &self.holds, &self.clock);
        self.model.ended(op, self.runner.fs().next_tid());
        self.collect();
    }

    /// Checks the model against the volume as it is now: the judge must agree with what everybody sees.
    fn check_model(&self) {
        let tree = read_tree(self.runner.fs()).unwrap_or_else(|text| panic!("{}: {text}", self.name));
        let expectation = self.model.expectation(usize::MAX);
        let block_size = u64::from(self.volume.block_size);
        if let Err(verdict) = crate::crash::judge::check_tree(&tree, &expectation, block_size) {
            panic!("{}: the model differs from the live volume: {}", self.name, verdict.detail);
        }
    }

    /// The same; `files` are open and closed before, if no device has failed.
    pub fn finish_with(mut self, files: &[FileId]) -> Recording {
        for &file in files {
            if !self.broken {
                let op = self.begin("close".into());
                let result = self.runner.close(file);
                self.attempt(op, "close", result);
            }
        }
        self.finish()
    }

    /// Unmounts, which makes everything durable, and hands the recording over. After a planned fault it stops instead.
    pub fn finish(mut self) -> Recording {
        if !self.broken {
            self.check_model();
            let _op = self.begin("unmount".into());
        }
        let Self { name, volume, base, runner, recorder, mut events, mut model, mut broken, faulty, .. } =
            self;
        let promise = model.promise_all();
        if broken {
            runner.crash();
        } else if let Err(error) = runner.unmount() {
            assert!(faulty, "{name}: unmount: {error}");
            broken = true;
        }
        events.append(&mut recorder.take());
        if !broken {
            model.kept(promise, events.len());
        }
        Recording { name, volume, base, events, model, whole_superblock: broken }
    }
}
