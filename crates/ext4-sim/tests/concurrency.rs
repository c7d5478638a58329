//! Many operations in flight at once, against a model: through one engine, and from threads.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use block_io::{AlignedBuf, Memory};
use ext4::aio::{DirectRead, DirectWrite, FileId, LockMode, Value};
use ext4::{Fs, NewInode, XattrSet};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available};
use ext4_sim::pattern;
use ext4_sim::runner::{Backend, Runner, format};

const BLOCK: usize = 4096;
const NEW: NewInode = NewInode { mode: 0o100644, uid: 0, gid: 0 };

fn image_of(size_bytes: u64, block_size: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, size_bytes, |options| {
        options.block_size = Some(block_size);
        // The smallest, so that commits and checkpoints happen all the time.
        options.journal_blocks = Some(1024);
    });
    (dir, image)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn compare(image: &Path, files: &BTreeMap<String, Vec<u8>>, names: &HashSet<String>, test: &str) {
    if available(Need::E2fsprogs, test) {
        assert_clean(image);
    }
    let volume = Runner::mount(image, Backend::Threads);
    for (path, data) in files {
        assert!(volume.read_file(path).unwrap() == *data, "{path}");
    }
    let found: HashSet<_> = volume.names("/dir").unwrap().into_iter().collect();
    assert!(found == *names);
    volume.unmount().unwrap();
    if available(Need::KernelMount, test) {
        let mount = KernelMount::new(image, "ro");
        for (path, data) in files {
            assert!(std::fs::read(mount.path().join(&path[1..])).unwrap() == *data, "{path}");
        }
    }
}

/// What an operation under way will have done.
enum Doing {
    Overwrite { file: usize, block: usize, data: Vec<u8> },
    Append { file: usize, data: Vec<u8> },
    Truncate { file: usize, size: usize },
    Read { file: usize, pos: usize, expected: Vec<u8> },
    Create(String),
    Unlink,
    Sync,
}

#[derive(Default)]
struct Open {
    id: FileId,
    model: Vec<u8>,
    /// Blocks that a write under the shared lock is under way to.
    busy: HashSet<usize>,
    shared: usize,
    exclusive: bool,
}

struct Mix {
    volume: Runner,
    random: Random,
    files: Vec<Open>,
    doing: HashMap<u64, Doing>,
    names: HashSet<String>,
    overwritten: u32,
    refused: u32,
    next_name: u32,
    seed: u32,
}

impl Mix {
    fn new(image: &Path, backend: Backend) -> Self {
        let mut volume = Runner::mount(image, backend);
        volume.mkdir("/dir").unwrap();
        let files = (0..8)
            .map(|index| {
                let model = pattern::bytes(index, 64 * BLOCK);
                let path = format!("/file{index}");
                volume.write_file(&path, &model).unwrap();
                Open { id: volume.open(&path).unwrap(), model, ..Open::default() }
            })
            .collect();
        let (doing, names) = (HashMap::new(), HashSet::new());
        Self {
            volume,
            random: Random(0x1234_5678),
            files,
            doing,
            names,
            overwritten: 0,
            refused: 0,
            next_name: 0,
            seed: 1000,
        }
    }

    fn data(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        pattern::bytes(self.seed, len)
    }

    fn start(&mut self) {
        let file = self.random.below(self.files.len());
        match self.random.below(100) {
            0..60 => self.overwrite(file),
            60..68 => self.append(file),
            68..71 => self.truncate(file),
            71..80 => self.read(file),
            80..90 => self.create(),
            90..95 => self.unlink(),
            _ => {
                let op = self.volume.op();
                let id = self.files[file].id;
                self.volume.engine().sync(op, id, op.is_multiple_of(2)).unwrap();
                self.doing.insert(op, Doing::Sync);
            }
        }
    }

    fn overwrite(&mut self, file: usize) {
        let blocks = self.files[file].model.len() / BLOCK;
        let block = self.random.below(blocks.max(1));
        if self.files[file].exclusive || blocks == 0 || !self.files[file].busy.insert(block) {
            return;
        }
        let data = self.data(BLOCK);
        let op = self.volume.op();
        self.files[file].shared += 1;
        self.volume.engine().direct_write(DirectWrite {
            op,
            file: self.files[file].id,
            lock: LockMode::Shared,
            dsync: op.is_multiple_of(17),
            nowait: false,
            atomic: false,
            pos: (block * BLOCK) as u64,
            memory: Memory::Owned(AlignedBuf::copy_of(&data)),
        });
        self.doing.insert(op, Doing::Overwrite { file, block, data });
    }

    fn is_idle(&self, file: usize) -> bool {
        !self.files[file].exclusive && self.files[file].shared == 0
    }

    fn append(&mut self, file: usize) {
        if !self.is_idle(file) || self.files[file].model.len() > 300 * BLOCK {
            return;
        }
        self.files[file].exclusive = true;
        let len = BLOCK * (1 + self.random.below(8));
        let data = self.data(len);
        let (op, id) = (self.volume.op(), self.files[file].id);
        let inode = self.volume.inode(id);
        self.volume.fs().add_orphan(&inode).unwrap();
        self.volume.engine().direct_write(DirectWrite {
            op,
            file: id,
            lock: LockMode::Exclusive,
            dsync: false,
            nowait: false,
            atomic: false,
            pos: self.files[file].model.len() as u64,
            memory: Memory::Owned(AlignedBuf::copy_of(&data)),
        });
        self.doing.insert(op, Doing::Append { file, data });
    }

    fn truncate(&mut self, file: usize) {
        if !self.is_idle(file) {
            return;
        }
        self.files[file].exclusive = true;
        // Whole blocks, so that what follows is aligned.
        let size = BLOCK * (10 + self.random.below(100));
        let (op, inode) = (self.volume.op(), self.volume.inode(self.files[file].id));
        self.volume.engine().run(op, move |fs| fs.truncate(&inode, size as u64).map(|()| (0, Value::None)));
        self.doing.insert(op, Doing::Truncate { file, size });
    }

    fn read(&mut self, file: usize) {
        let blocks = self.files[file].model.len() / BLOCK;
        if self.files[file].exclusive || blocks == 0 {
            return;
        }
        let block = self.random.below(blocks);
        if !self.files[file].busy.insert(block) {
            return;
        }
        self.files[file].shared += 1;
        let (op, pos) = (self.volume.op(), block * BLOCK);
        let memory = Memory::Owned(AlignedBuf::zeroed(BLOCK));
        let id = self.files[file].id;
        self.volume.engine().direct_read(DirectRead { op, file: id, nowait: false, pos: pos as u64, memory });
        let expected = self.files[file].model[pos..pos + BLOCK].to_vec();
        self.doing.insert(op, Doing::Read { file, pos, expected });
    }

    fn create(&mut self) {
        let name = format!("{} {}", self.next_name, "n".repeat(self.next_name as usize % 150));
        self.next_name += 1;
        let (op, path) = (self.volume.op(), format!("/dir/{name}"));
        self.volume.engine().run(op, move |fs| {
            let (inode, made) = fs.create(path.as_bytes(), NEW, true)?;
            assert!(made);
            fs.buffered_write(&inode, 0, path.as_bytes())?;
            fs.release(&inode)?;
            Ok((0, Value::None))
        });
        self.doing.insert(op, Doing::Create(name));
    }

    fn unlink(&mut self) {
        let Some(name) = self.names.iter().next().cloned() else { return };
        self.names.remove(&name);
        let (op, path) = (self.volume.op(), format!("/dir/{name}"));
        self.volume.engine().run(op, move |fs| fs.unlink(path.as_bytes()).map(|()| (0, Value::None)));
        self.doing.insert(op, Doing::Unlink);
    }

    /// Waits for one operation, and brings the model up to date.
    fn finish_one(&mut self) {
        let finished = self.volume.wait_any();
        let result = finished.result;
        match self.doing.remove(&finished.op).unwrap() {
            Doing::Overwrite { file, block, data } => {
                let file = &mut self.files[file];
                file.busy.remove(&block);
                file.shared -= 1;
                match result {
                    Ok(written) => {
                        assert_eq!(written, BLOCK as u64);
                        self.overwritten += 1;
                        file.model[block * BLOCK..][..BLOCK].copy_from_slice(&data);
                    }
                    // The map was not in memory, or in two runs: the policy would go on exclusive.
                    Err(error) => {
                        assert_eq!(error.errno(), 11, "{error}");
                        self.refused += 1;
                    }
                }
            }
            Doing::Append { file, data } => {
                assert_eq!(result.unwrap(), data.len() as u64);
                self.files[file].model.extend(data);
                self.files[file].exclusive = false;
            }
            Doing::Truncate { file, size } => {
                result.unwrap();
                self.files[file].model.resize(size, 0);
                self.files[file].exclusive = false;
            }
            Doing::Read { file, pos, expected } => {
                assert_eq!(result.unwrap(), BLOCK as u64);
                assert!(finished.memory.unwrap().bytes() == expected, "file {file} at {pos}");
                self.files[file].busy.remove(&(pos / BLOCK));
                self.files[file].shared -= 1;
            }
            Doing::Create(name) => {
                result.unwrap();
                self.names.insert(name);
            }
            Doing::Unlink | Doing::Sync => drop(result.unwrap()),
        }
    }
}

fn mix(backend: Backend, block_size: u32, steps: u32) {
    let (_dir, image) = image_of(128 << 20, block_size);
    let mut mix = Mix::new(&image, backend);
    for _ in 0..steps {
        mix.start();
        while mix.doing.len() >= 32 {
            mix.finish_one();
        }
    }
    while !mix.doing.is_empty() {
        mix.finish_one();
    }
    assert!(mix.overwritten > mix.refused, "{} overwrites, {} refused", mix.overwritten, mix.refused);
    // All at once: sync and close.
    let Mix { mut volume, files, names, .. } = mix;
    let mut ops = Vec::new();
    for file in &files {
        let (sync, close) = (volume.op(), volume.op());
        volume.engine().sync(sync, file.id, false).unwrap();
        volume.engine().close_file(close, file.id).unwrap();
        ops.extend([sync, close]);
    }
    for op in ops {
        volume.wait(op).result.unwrap();
    }
    assert_eq!(volume.engine().in_flight(), 0);
    volume.unmount().unwrap();
    let mut contents: BTreeMap<_, _> =
        files.into_iter().enumerate().map(|(index, file)| (format!("/file{index}"), file.model)).collect();
    for name in &names {
        let path = format!("/dir/{name}");
        let text = path.clone().into_bytes();
        contents.insert(path, text);
    }
    compare(&image, &contents, &names, "mix");
}

#[test]
fn through_one_engine_with_uring() {
    mix(Backend::Uring, 4096, 20_000);
}

#[test]
fn through_one_engine_with_threads() {
    mix(Backend::Threads, 4096, 10_000);
}

#[test]
fn through_one_engine_with_small_blocks_and_a_small_journal() {
    mix(Backend::Uring, 1024, 10_000);
}

/// One thread's work in a directory that all share, and in its own; returns what it left.
fn work(fs: &Arc<Fs>, thread: u32) -> (BTreeMap<String, Vec<u8>>, HashSet<String>) {
    let mut random = Random(u64::from(thread) + 77);
    let (mut files, mut names) = (BTreeMap::new(), HashSet::new());
    fs.mkdir(format!("/own{thread}").as_bytes(), NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
    for step in 0..800u32 {
        let own = format!("/own{thread}/{}", random.below(20));
        let shared = format!("{thread}-{step} {}", "s".repeat(step as usize % 100));
        let path = format!("/dir/{shared}");
        match random.below(6) {
            0 => {
                fs.release(&fs.create(path.as_bytes(), NEW, true).unwrap().0).unwrap();
                names.insert(shared);
            }
            1 => {
                fs.mkdir(path.as_bytes(), NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
                names.insert(shared);
            }
            2 => {
                let Some(name) = names.iter().next().cloned() else { continue };
                names.remove(&name);
                let path = format!("/dir/{name}");
                if fs.unlink(path.as_bytes()).is_err_and(|error| error.errno() == 21) {
                    fs.rmdir(path.as_bytes()).unwrap();
                }
            }
            3 | 4 => {
                let (inode, _) = fs.create(own.as_bytes(), NEW, false).unwrap();
                let data = pattern::bytes(thread * 10_000 + step, 1 + random.below(100_000));
                fs.truncate(&inode, 0).unwrap();
                assert_eq!(fs.buffered_write(&inode, 0, &data).unwrap(), data.len());
                if step % 7 == 0 {
                    fs.fsync(&inode, step % 2 == 0).unwrap();
                }
                if step % 5 == 0 {
                    // Deleted while open, by the last close.
                    fs.unlink(own.as_bytes()).unwrap();
                    files.remove(&own);
                } else {
                    files.insert(own, data);
                }
                fs.release(&inode).unwrap();
            }
            _ => {
                if files.remove(&own).is_some() {
                    fs.unlink(own.as_bytes()).unwrap();
                }
            }
        }
    }
    (files, names)
}

#[test]
fn from_threads() {
    for (block_size, features) in [(1024, ""), (4096, "^orphan_file"), (1024, "^has_journal,^orphan_file")] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format(&image, 64 << 20, |options| {
            options.block_size = Some(block_size);
            options.features = features.into();
            if !features.contains("has_journal") {
                options.journal_blocks = Some(1024);
            }
        });
        let volume = Runner::mount(&image, Backend::Threads);
        volume.mkdir("/dir").unwrap();
        let (sender, receiver) = mpsc::channel();
        for thread in 0..6 {
            let (fs, sender) = (volume.fs().clone(), sender.clone());
            std::thread::spawn(move || {
                let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&fs, thread)));
                sender.send(left).unwrap();
            });
        }
        let (mut files, mut names) = (BTreeMap::new(), HashSet::new());
        for _ in 0..6 {
            let left = receiver.recv_timeout(Duration::from_secs(120)).expect("the threads are stuck");
            let (own_files, own_names) = left.expect("a thread panicked");
            files.extend(own_files);
            names.extend(own_names);
        }
        volume.unmount().unwrap();
        compare(&image, &files, &names, "from_threads");
    }
}

/// The last close and the last unlink at the same moment: one of them deletes the inode, and one only, and its orphan entry
/// goes with it. Every other close comes while the unlink is still in its handle; others compete for the orphans.
#[test]
fn close_against_unlink() {
    let (_dir, image) = image_of(64 << 20, 4096);
    let volume = Runner::mount(&image, Backend::Threads);
    let before = volume.fs().superblock();
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let (fs, other) = (volume.fs().clone(), barrier.clone());
    let opened = Arc::new(std::sync::Mutex::new(None));
    let slot = opened.clone();
    let closer = std::thread::spawn(move || {
        for round in 0..1500 {
            other.wait();
            let inode: Arc<ext4::Inode> = slot.lock().unwrap().take().unwrap();
            other.wait();
            while round % 2 == 1 && fs.stat(&inode).links > 0 {
                std::hint::spin_loop();
            }
            fs.release(&inode).unwrap();
            other.wait();
        }
    });
    let over = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = ["/one", "/two"]
        .map(|path| {
            let (fs, over) = (volume.fs().clone(), over.clone());
            std::thread::spawn(move || {
                let (inode, _) = fs.create(path.as_bytes(), NEW, true).unwrap();
                while !over.load(Ordering::Relaxed) {
                    fs.add_orphan(&inode).unwrap();
                    fs.delete_orphan(&inode).unwrap();
                }
                fs.release(&inode).unwrap();
            })
        })
        .into();
    for _ in 0..1500 {
        let (inode, _) = volume.fs().create(b"/file", NEW, true).unwrap();
        *opened.lock().unwrap() = Some(inode);
        barrier.wait();
        barrier.wait();
        volume.fs().unlink(b"/file").unwrap();
        barrier.wait();
    }
    over.store(true, Ordering::Relaxed);
    others.into_iter().chain([closer]).for_each(|thread| thread.join().unwrap());
    assert_eq!(volume.fs().superblock().free_inodes_count, before.free_inodes_count - 2);
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, "close_against_unlink") {
        assert_clean(&image);
    }
}

/// Files that share one attribute block, deleted by several threads at once: its count loses none of them (F86).
#[test]
fn shared_attributes_deleted_together() {
    let test = "shared_attributes_deleted_together";
    if !available(Need::KernelMount, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    let (_dir, image) = image_of(64 << 20, 4096);
    {
        let mount = KernelMount::new(&image, "rw");
        let script = "import os, sys
for i in range(800):
    path = '%s/%d' % (sys.argv[1], i)
    open(path, 'w').close()
    os.setxattr(path, 'user.large', b'x' * 700)";
        let done = std::process::Command::new("python3").args(["-c", script]).arg(mount.path()).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("skipped: {test}: needs python3");
            return;
        }
    }
    let volume = Runner::mount(&image, Backend::Threads);
    let fs = volume.fs().clone();
    let open: Vec<_> = (0..800)
        .map(|index| {
            let path = format!("/{index}");
            let inode = fs.open(path.as_bytes(), false).unwrap();
            fs.unlink(path.as_bytes()).unwrap();
            inode
        })
        .collect();
    std::thread::scope(|scope| {
        for part in open.chunks(200) {
            let fs = &fs;
            scope.spawn(move || part.iter().for_each(|inode| fs.release(inode).unwrap()));
        }
    });
    drop((open, fs));
    volume.unmount().unwrap();
    assert_clean(&image);
}

/// A call by name, during which the name goes: the inode's number is not another's before the call is over, or the change
/// would bring the inode back in the other's place. `several_threads` of the namespace tests meets it by chance.
#[test]
fn a_call_by_name_outlives_the_name() {
    let (_dir, image) = image_of(64 << 20, 4096);
    let volume = Runner::mount(&image, Backend::Threads);
    let fs = volume.fs();
    fs.release(&fs.create(b"/file", NEW, true).unwrap().0).unwrap();
    let before = fs.superblock().free_inodes_count;
    let number = fs.at_path(b"/file", true, |inode| {
        fs.unlink(b"/file")?;
        let (other, _) = fs.create(b"/other", NEW, true)?;
        assert_ne!(other.ino, inode.ino);
        fs.release(&other)?;
        fs.chmod(inode, 0o611)?;
        fs.setxattr(inode, b"user.name", b"value", XattrSet::Either)?;
        Ok(inode.ino)
    });
    // The call's end deletes it.
    assert_eq!(fs.superblock().free_inodes_count, before);
    let (next, _) = fs.create(b"/next", NEW, true).unwrap();
    assert_eq!(next.ino, number.unwrap());
    fs.release(&next).unwrap();
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, "a_call_by_name_outlives_the_name") {
        assert_clean(&image);
    }
}

/// A direct read that first has dirty pages written back is mapped later, without the inode lock: a write that extends the file
/// meanwhile changes neither its length nor its success.
#[test]
fn a_read_is_as_long_as_the_file_was_when_it_began() {
    let (_dir, image) = image_of(32 << 20, BLOCK as u32);
    let mut volume = Runner::mount(&image, Backend::Threads);
    let file = volume.create("/file").unwrap();
    let inode = volume.inode(file);
    volume.fs().buffered_write(&inode, 0, &[7; BLOCK]).unwrap();

    let op = volume.op();
    let memory = Memory::Owned(AlignedBuf::zeroed(4 * BLOCK));
    volume.engine().direct_read(DirectRead { op, file, nowait: false, pos: 0, memory });
    volume.fs().buffered_write(&inode, BLOCK as u64, &[8; BLOCK]).unwrap();
    let finished = volume.wait(op);
    assert_eq!(finished.result.unwrap(), BLOCK as u64);

    drop(inode);
    volume.close(file).unwrap();
    volume.unmount().unwrap();
    if available(Need::E2fsprogs, "a_read_is_as_long_as_the_file_was_when_it_began") {
        assert_clean(&image);
    }
}
