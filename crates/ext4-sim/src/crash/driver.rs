//! Drives a volume over a recorded device, operation by operation, and tells the model.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use block_io::{Device, Event, EventFd, ImmediateQueue, Recorder, RecordingDevice};
use ext4::aio::FileId;
use ext4::mkfs::{self, FormatOptions};
use ext4::{DataMode, MountOptions, NewInode, Result, SyncScope, XattrSet, errno};

use super::block_maps;
use super::image::StateDevice;
use super::judge::{TestClock, mount_options, read_tree};
use super::model::{How, Model, attributes};
use crate::pattern;
use crate::runner::{FORMAT_TIME, Runner};

/// What unused space holds before the volume is made: no file may ever show it (CM8 (e)).
const MARKER: u8 = 0xA5;

/// What a volume is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Bytes.
    pub size: usize,
    /// Bytes of a block.
    pub block_size: u32,
    /// As mke2fs -O takes them.
    pub features: &'static str,
    /// At least so many.
    pub inodes: Option<u32>,
    /// How it is mounted.
    pub data: DataMode,
    /// Likewise.
    pub dioread_nolock: bool,
}

impl Volume {
    /// 8 MiB at 1 KiB, 16 MiB at 4 KiB, with the smallest journal (CM7).
    pub fn small(block_size: u32) -> Self {
        let size = if block_size == 1024 { 8 << 20 } else { 16 << 20 };
        Self { size, block_size, features: "", inodes: None, data: DataMode::Ordered, dioread_nolock: true }
    }

    /// A fresh volume's bytes.
    fn bytes(self) -> Arc<Vec<u8>> {
        static MADE: OnceLock<Mutex<HashMap<Volume, Arc<Vec<u8>>>>> = OnceLock::new();
        let mut made = MADE.get_or_init(Mutex::default).lock().expect("no test panics in here");
        made.entry(self).or_insert_with(|| Arc::new(self.format())).clone()
    }

    fn format(self) -> Vec<u8> {
        if block_maps::needs_mke2fs(self.features) {
            let image = tempfile::NamedTempFile::new().expect("a file for mke2fs");
            std::fs::write(image.path(), vec![MARKER; self.size]).expect("room for a volume");
            block_maps::format(image.path(), self.block_size);
            return std::fs::read(image.path()).expect("what mke2fs made");
        }
        let device = StateDevice::new(Arc::new(vec![MARKER; self.size]));
        let mut options = FormatOptions::new(FORMAT_TIME);
        options.block_size = Some(self.block_size);
        options.journal_blocks = Some(1024);
        options.uuid = Some([7; 16]);
        options.hash_seed = Some([9; 16]);
        options.features = self.features.into();
        options.inodes_count = self.inodes;
        options.reserved_percent = 0.0;
        mkfs::format(&device, &options).unwrap_or_else(|error| panic!("mkfs: {error}"));
        device.snapshot()
    }
}

/// A workload that was run.
pub struct Recording {
    /// Its name.
    pub name: String,
    /// The volume that it ran on.
    pub volume: Volume,
    /// The volume before it.
    pub base: Arc<Vec<u8>>,
    /// All that its device was asked.
    pub events: Vec<Event>,
    /// What it did.
    pub model: Model,
}

/// A mounted volume, recorded. Paths have no leading slash; "" is the root.
pub struct Driver {
    name: String,
    volume: Volume,
    base: Arc<Vec<u8>>,
    runner: Runner,
    recorder: Recorder,
    clock: Arc<TestClock>,
    events: Vec<Event>,
    /// What happens to files, for the judge.
    pub model: Model,
    seed: u32,
}

fn new_inode(mode: u16) -> NewInode {
    NewInode { mode, uid: 0, gid: 0 }
}

/// Direct requests are carried out in their order, so that every run is the same.
fn mount(device: Arc<dyn Device>, clock: &Arc<TestClock>, volume: Volume) -> Runner {
    let event = Arc::new(EventFd::new().expect("an eventfd"));
    let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
    let data = (!volume.features.contains("^has_journal")).then_some(volume.data);
    let options =
        MountOptions { data, dioread_nolock: volume.dioread_nolock, ..mount_options(clock.clone()) };
    Runner::with_options(device, queue, event, &options).unwrap_or_else(|error| panic!("mount: {error}"))
}

fn absolute(path: &str) -> Vec<u8> {
    format!("/{path}").into_bytes()
}

impl Driver {
    /// Makes and mounts a volume.
    pub fn new(name: impl Into<String>, volume: Volume) -> Self {
        let base = volume.bytes();
        let recorder = Recorder::new();
        let device: Arc<dyn Device> =
            Arc::new(RecordingDevice::new(Arc::new(StateDevice::new(base.clone())), recorder.clone(), 0));
        let clock = Arc::new(TestClock::default());
        let runner = mount(device, &clock, volume);
        let root = runner.fs().lookup(b"/", true).expect("a root");
        let model = Model::new(root.ino.0, 3);
        let name = name.into();
        let mut driver =
            Self { name, volume, base, runner, recorder, clock, events: Vec::new(), model, seed: 0 };
        driver.collect();
        driver
    }

    /// The volume under it, for what the model need not know.
    pub fn runner(&mut self) -> &mut Runner {
        &mut self.runner
    }

    fn collect(&mut self) -> usize {
        self.events.append(&mut self.recorder.take());
        self.events.len()
    }

    fn begin(&mut self, what: String) {
        self.clock.0.fetch_add(10, std::sync::atomic::Ordering::Relaxed);
        let events = self.collect();
        self.model.begin(events, what);
    }

    fn done<R>(&self, what: &str, result: Result<R>) -> R {
        result.unwrap_or_else(|error| panic!("{}: {what}: {error}", self.name))
    }

    /// O_CREAT: opens a file, makes it if it is missing.
    pub fn create(&mut self, path: &str) -> FileId {
        self.begin(format!("create {path}"));
        let result = self.runner.fs().create(&absolute(path), new_inode(0o100644), false);
        let (inode, made) = self.done(path, result);
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

    /// mkdir.
    pub fn mkdir(&mut self, path: &str) {
        self.begin(format!("mkdir {path}"));
        let result = self.runner.fs().mkdir(&absolute(path), new_inode(0o755));
        let ino = self.done(path, result).ino.0;
        self.model.mkdir(path, ino);
    }

    /// symlink.
    pub fn symlink(&mut self, text: &[u8], path: &str) {
        self.begin(format!("symlink {path}"));
        let result = self.runner.fs().symlink(text, &absolute(path), new_inode(0o777));
        let ino = self.done(path, result).ino.0;
        self.model.symlink(path, ino, text);
    }

    /// unlink.
    pub fn unlink(&mut self, path: &str) {
        self.begin(format!("unlink {path}"));
        let result = self.runner.fs().unlink(&absolute(path));
        self.done(path, result);
        self.model.unlink(path);
    }

    /// rmdir.
    pub fn rmdir(&mut self, path: &str) {
        self.begin(format!("rmdir {path}"));
        let result = self.runner.fs().rmdir(&absolute(path));
        self.done(path, result);
        self.model.rmdir(path);
    }

    /// link.
    pub fn link(&mut self, old: &str, new: &str) {
        self.begin(format!("link {old} {new}"));
        let result = self.runner.fs().link(&absolute(old), &absolute(new));
        self.done(new, result);
        self.model.link(old, new);
    }

    /// rename. `false`: refused, as one of a directory into itself or over one that is not empty is.
    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        self.begin(format!("rename {old} {new}"));
        match self.runner.fs().rename(&absolute(old), &absolute(new)) {
            Err(error) if matches!(error.errno(), errno::EINVAL | errno::ENOTEMPTY) => return false,
            result => self.done(new, result),
        }
        self.model.rename(old, new);
        true
    }

    /// chmod.
    pub fn chmod(&mut self, path: &str, mode: u16) {
        self.begin(format!("chmod {path} {mode:o}"));
        let fs = self.runner.fs().clone();
        let result = fs.lookup(&absolute(path), true).and_then(|inode| fs.chmod(&inode, mode));
        self.done(path, result);
        self.model.change_attributes(path, attributes(mode, &BTreeMap::new()));
    }

    /// setxattr of `user.crash` on a file of mode 0644; without a value, removexattr.
    pub fn xattr(&mut self, path: &str, value: Option<&[u8]>) {
        const NAME: &str = "user.crash";
        self.begin(format!("xattr {path} {value:?}"));
        let fs = self.runner.fs().clone();
        let result = fs.lookup(&absolute(path), true).and_then(|inode| match value {
            Some(value) => fs.setxattr(&inode, NAME.as_bytes(), value, XattrSet::Either),
            None => fs.removexattr(&inode, NAME.as_bytes()),
        });
        self.done(path, result);
        let xattrs = value.map(|value| (NAME.to_owned(), value.to_vec())).into_iter().collect();
        self.model.change_attributes(path, attributes(0o644, &xattrs));
    }

    /// Bytes that no other call writes.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        pattern::bytes(self.seed, len)
    }

    /// write past the page cache.
    pub fn direct(&mut self, path: &str, file: FileId, pos: u64, len: usize, dsync: bool) {
        let data = self.bytes(len);
        self.begin(format!("direct write {path} {pos}+{len} dsync {dsync}"));
        // A crash in the middle may leave it, so the model knows it first.
        // Where data is journalled it goes through the page cache, in several transactions if it is long (A3).
        let how = if self.volume.data == DataMode::Journal { How::Buffered } else { How::Direct };
        self.model.write(path, pos, &data, how);
        let written = self.runner.direct_write_with(file, pos, &data, dsync);
        assert_eq!(self.done(path, written), len as u64, "{path}: a short write");
        if dsync {
            let event = self.collect();
            self.model.acked_data(path, event, Some(pos..pos + len as u64));
        }
    }

    /// write through the page cache.
    pub fn buffered(&mut self, path: &str, file: FileId, pos: u64, len: usize) {
        let data = self.bytes(len);
        self.begin(format!("buffered write {path} {pos}+{len}"));
        self.model.write(path, pos, &data, How::Buffered);
        let inode = self.runner.inode(file);
        let fs = self.runner.fs().clone();
        let written = fs.file_modified(&inode).and_then(|()| fs.buffered_write(&inode, pos, &data));
        assert_eq!(self.done(path, written), len, "{path}: a short write");
    }

    /// ftruncate.
    pub fn truncate(&mut self, path: &str, file: FileId, size: u64) {
        self.begin(format!("truncate {path} {size}"));
        self.model.truncate(path, size, u64::from(self.volume.block_size));
        let inode = self.runner.inode(file);
        let result = self.runner.fs().truncate(&inode, size);
        self.done(path, result);
    }

    /// fsync or fdatasync.
    pub fn fsync(&mut self, path: &str, file: FileId, datasync: bool) {
        self.begin(format!("fsync {path} datasync {datasync}"));
        let result = self.runner.sync_with(file, datasync);
        self.done(path, result);
        let event = self.collect();
        match datasync {
            true => self.model.acked_data(path, event, None),
            false => self.model.acked_file(path, event),
        }
    }

    /// fsync of an unlinked file: nothing is to be seen of it.
    pub fn fsync_unnamed(&mut self, file: FileId) {
        self.begin("fsync of an unlinked file".into());
        let result = self.runner.sync(file);
        self.done("fsync", result);
    }

    /// fsync of several files with one commit (T13).
    pub fn fsync_all(&mut self, files: &[(String, FileId)]) {
        self.begin("fsync of many".into());
        let wanted: Vec<_> =
            files.iter().map(|(_, file)| (self.runner.inode(*file), SyncScope::Data)).collect();
        for result in self.runner.fs().fsync_all(&wanted) {
            self.done("fsync", result);
        }
        let event = self.collect();
        for (path, _) in files {
            self.model.acked_data(path, event, None);
        }
    }

    /// fsync of a directory.
    pub fn fsync_dir(&mut self, path: &str) {
        self.begin(format!("fsync directory {path}"));
        let fs = self.runner.fs().clone();
        let result = fs.lookup(&absolute(path), true).and_then(|inode| fs.fsync(&inode, false));
        self.done(path, result);
        let event = self.collect();
        self.model.acked_names(path, event);
    }

    /// Write-back of a file, as if by itself: nothing is promised.
    pub fn write_back(&mut self, path: &str, file: FileId) {
        self.begin(format!("write-back {path}"));
        let inode = self.runner.inode(file);
        let result = self.runner.fs().write_and_wait(&inode, 0, u64::MAX);
        self.done(path, result);
    }

    /// A commit by itself: nothing is promised.
    pub fn commit(&mut self) {
        self.begin("commit".into());
        let result = self.runner.fs().commit();
        self.done("commit", result);
    }

    /// syncfs.
    pub fn sync(&mut self) {
        self.begin("sync".into());
        let result = self.runner.fs().sync();
        self.done("sync", result);
        let event = self.collect();
        self.model.acked_all(event);
    }

    /// close.
    pub fn close(&mut self, file: FileId) {
        self.begin("close".into());
        let result = self.runner.close(file);
        self.done("close", result);
    }

    /// Blocks that are free and not waiting for a commit.
    pub fn free_blocks(&self) -> usize {
        self.runner.fs().superblock().free_blocks_count() as usize
    }

    /// Unmounts and mounts again; every file must be closed.
    pub fn remount(&mut self) {
        self.begin("remount".into());
        self.runner.fs().unmount().unwrap_or_else(|error| panic!("{}: unmount: {error}", self.name));
        let event = self.collect();
        self.model.acked_all(event);
        self.runner = mount(self.runner.fs().device().clone(), &self.clock, self.volume);
        self.collect();
    }

    /// Checks the model against the volume as it is now: the judge must agree with what everybody sees.
    fn check_model(&self) {
        let tree = read_tree(self.runner.fs()).unwrap_or_else(|text| panic!("{}: {text}", self.name));
        let expectation = self.model.expectation(usize::MAX);
        let block_size = u64::from(self.volume.block_size);
        if let Err(verdict) = super::judge::check_tree(&tree, &expectation, block_size) {
            panic!("{}: the model differs from the live volume: {}", self.name, verdict.detail);
        }
    }

    /// Unmounts, which makes everything durable, and hands the recording over.
    pub fn finish(mut self) -> Recording {
        self.check_model();
        self.begin("unmount".into());
        let Self { name, volume, base, runner, recorder, mut events, mut model, .. } = self;
        runner.unmount().unwrap_or_else(|error| panic!("{name}: unmount: {error}"));
        events.append(&mut recorder.take());
        model.acked_all(events.len());
        Recording { name, volume, base, events, model }
    }
}
