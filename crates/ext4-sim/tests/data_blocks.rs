//! Maps and names that lead to the volume's own metadata. A map that was right in its checksums was believed: data that was
//! written to such a file overwrote the superblock, a bitmap or the running journal, and the volume was then called clean. A name
//! with the number of the journal's inode did the same, and the next mount failed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use block_io::{Device, EventFd, ImmediateQueue, Recorder, RecordingDevice};
use ext4::{ErrorMode, FallocateMode, Fs, MountOptions, NewInode, Result, XattrSet, errno};
use ext4_format::extent::{Entries, Extent, ExtentIndex, encode_node};
use ext4_format::inode::{flags, special::ROOT};
use ext4_format::{Group, GroupDesc, Ino, Inode as DiskInode, Lblk, Pblk, Superblock};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::metadata_guard::{self, MetadataGuard, marked};
use ext4_sim::oracle::{Need, assert_clean, available, tool_ok};
use ext4_sim::runner::{Runner, format};

const BS: usize = 1024;
const FILE: NewInode = NewInode { mode: 0o100_644, uid: 0, gid: 0 };

/// A volume with /file, of 8 blocks, /other and /dir, in the formats that a feature list asks for.
fn volume(features: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    format(&image, 10 << 20, |options| {
        options.block_size = Some(BS as u32);
        options.features = features.into();
    });
    let device = Arc::new(MemoryDevice::new(std::fs::read(&image).unwrap()));
    let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
    fs.mkdir(b"/dir", NewInode { mode: 0o755, ..FILE }).unwrap();
    for name in ["/file", "/other"] {
        let (inode, _) = fs.create(name.as_bytes(), FILE, false).unwrap();
        fs.buffered_write(&inode, 0, &marked(8 * BS)).unwrap();
        fs.release(&inode).unwrap();
    }
    fs.unmount().unwrap();
    device.snapshot()
}

fn superblock(image: &[u8]) -> Superblock {
    Superblock::decode(&image[1024..2048]).unwrap()
}

/// Changes an inode on disk, and makes its checksum right.
fn edit_inode(image: &mut [u8], ino: Ino, change: impl FnOnce(&mut DiskInode)) {
    let superblock = superblock(image);
    let mut inode = metadata_guard::inode(&superblock, image, ino).unwrap();
    change(&mut inode);
    let location = superblock.inode_location(ino).unwrap();
    let table = desc(image, location.group).inode_table + u64::from(location.table_block);
    let at = table as usize * BS + location.offset_bytes as usize;
    let bytes = inode.encode(&superblock, ino);
    image[at..at + bytes.len()].copy_from_slice(&bytes);
}

fn desc(image: &[u8], group: Group) -> GroupDesc {
    let superblock = superblock(image);
    let (block, offset) = superblock.desc_location(group);
    let bytes = &image[block.0 as usize * BS + offset..][..superblock.desc_size()];
    GroupDesc::decode(bytes, &superblock, group).unwrap()
}

fn ino_of(image: &[u8], path: &str) -> Ino {
    let options = MountOptions { read_only: true, ..MountOptions::default() };
    let (fs, _) = Fs::mount(Arc::new(MemoryDevice::new(image.to_vec())), &options).unwrap();
    fs.lookup(path.as_bytes(), false).unwrap().ino
}

/// The volume with the map of /file leading to `block`, all 8 blocks of it or the first alone.
fn leading_to(image: &[u8], block: u64, unwritten: bool) -> Vec<u8> {
    let ino = ino_of(image, "/file");
    let mut image = image.to_vec();
    edit_inode(&mut image, ino, |inode| {
        let extent = Extent { lblk: Lblk(0), len: 1, start: Pblk(block), unwritten };
        encode_node(&mut inode.i_block, 0, 4, &Entries::Leaf(vec![extent]));
    });
    image
}

/// A mounted volume that is watched.
struct Watched {
    runner: Runner,
    memory: Arc<MemoryDevice>,
    recorder: Recorder,
    guard: MetadataGuard,
}

impl Watched {
    fn new(image: Vec<u8>, errors: ErrorMode) -> Self {
        let memory = Arc::new(MemoryDevice::new(image));
        let recorder = Recorder::new();
        let device: Arc<dyn Device> = Arc::new(RecordingDevice::new(memory.clone(), recorder.clone(), 0));
        let event = Arc::new(EventFd::new().unwrap());
        let queue = Box::new(ImmediateQueue::new(device.clone(), Some(event.clone())));
        let options = MountOptions { errors: Some(errors), ..MountOptions::default() };
        let runner = Runner::with_options(device, queue, event, &options).unwrap();
        let guard = MetadataGuard::after_mount(memory.snapshot(), &recorder.take()).unwrap();
        Self { runner, memory, recorder, guard }
    }

    /// No more use: what was written is judged.
    fn end(self) -> Vec<u8> {
        let Self { runner, memory, recorder, mut guard } = self;
        let _error_state = runner.unmount();
        guard.judge(&recorder.take()).unwrap();
        memory.snapshot()
    }
}

type Use = fn(&mut Runner) -> Result<()>;

/// Everything that reaches file data.
const USES: &[(&str, Use)] = &[
    ("buffered read", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().buffered_read(&inode, 100, &mut [0; 200]).map(|_| ())
    }),
    ("buffered write", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().buffered_write(&inode, 0, &marked(BS))?;
        runner.fs().fsync(&inode, false)
    }),
    ("buffered write of a part", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().buffered_write(&inode, 100, &marked(100))?;
        runner.fs().fsync(&inode, false)
    }),
    ("direct read", |runner| {
        let file = runner.open("/file")?;
        let read = runner.direct_read(file, 0, BS).map(|_| ());
        runner.close(file).and(read)
    }),
    ("direct write", |runner| {
        let file = runner.open("/file")?;
        let written = runner.direct_write(file, 0, &marked(BS)).map(|_| ());
        runner.close(file).and(written)
    }),
    ("direct write of a sector", |runner| {
        let file = runner.open("/file")?;
        let written = runner.direct_write(file, 512, &marked(512)).map(|_| ());
        runner.close(file).and(written)
    }),
    ("atomic write", |runner| {
        let file = runner.open("/file")?;
        let written = runner.atomic_write(file, 0, &marked(BS)).map(|_| ());
        runner.close(file).and(written)
    }),
    ("extents", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().extents(&inode, 0, u64::MAX, 10).map(|_| ())
    }),
    ("truncation inside the block", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().truncate(&inode, 100)
    }),
    ("zeros inside the block", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().fallocate(&inode, FallocateMode::ZeroRange { keep_size: true }, 100, 100)
    }),
    ("a hole inside the block", |runner| {
        let inode = runner.fs().lookup(b"/file", false)?;
        runner.fs().fallocate(&inode, FallocateMode::PunchHole, 100, 100)
    }),
];

/// One block of each kind of metadata (F27), the log's first and a later one among them.
fn metadata_blocks(image: &[u8]) -> Vec<(&'static str, u64)> {
    let superblock = superblock(image);
    let (first, second) = (desc(image, Group(0)), desc(image, Group(1)));
    let backup = superblock.group_first_block(Group(1)).0;
    let guard = MetadataGuard::after_mount(image.to_vec(), &[]).unwrap();
    let mut blocks = vec![
        ("superblock", 1),
        ("descriptors", 2),
        ("reserved descriptors", 3 + u64::from(superblock.desc_blocks())),
        ("block bitmap", first.block_bitmap),
        ("inode bitmap", second.inode_bitmap),
        ("inode table", first.inode_table),
        ("end of an inode table", second.inode_table + u64::from(superblock.inode_table_blocks()) - 1),
        ("backup superblock", backup),
    ];
    blocks.extend(guard.log().first().map(|&block| ("journal superblock", block)));
    blocks.extend(guard.log().last().map(|&block| ("end of the log", block)));
    blocks
}

#[test]
fn an_extent_on_metadata_is_refused() {
    for features in ["", "^metadata_csum,^metadata_csum_seed", "^has_journal,^orphan_file"] {
        let sound = volume(features);
        for (what, block) in metadata_blocks(&sound) {
            for (name, use_it) in USES {
                let atomic = *name == "atomic write" && features.contains("^has_journal");
                let expected = if atomic { errno::EOPNOTSUPP } else { errno::EUCLEAN };
                let mut volume = Watched::new(leading_to(&sound, block, false), ErrorMode::Continue);
                let heard = use_it(&mut volume.runner).err().map(|error| error.errno());
                assert_eq!(heard, Some(expected), "{what}, {name}, '{features}'");
                volume.end();
            }
        }
    }
}

/// Conversion zeroes what it cannot split off, and a write fills an unwritten block whole.
#[test]
fn an_unwritten_extent_on_metadata_is_refused() {
    let sound = volume("");
    for (what, block) in metadata_blocks(&sound) {
        for (name, use_it) in USES.iter().filter(|(name, _)| name.contains("write")) {
            let mut volume = Watched::new(leading_to(&sound, block, true), ErrorMode::Continue);
            let heard = use_it(&mut volume.runner).err().map(|error| error.errno());
            assert_eq!(heard, Some(errno::EUCLEAN), "{what}, {name}");
            volume.end();
        }
    }
}

/// A run that only ends on metadata is refused as a whole.
#[test]
fn a_run_that_ends_on_metadata() {
    let sound = volume("");
    let second = superblock(&sound).group_first_block(Group(1)).0;
    let ino = ino_of(&sound, "/file");
    let mut image = sound.clone();
    edit_inode(&mut image, ino, |inode| {
        let extent = Extent { lblk: Lblk(0), len: 8, start: Pblk(second - 7), unwritten: false };
        encode_node(&mut inode.i_block, 0, 4, &Entries::Leaf(vec![extent]));
    });
    let volume = Watched::new(image, ErrorMode::Continue);
    let inode = volume.runner.fs().lookup(b"/file", false).unwrap();
    let error = volume.runner.fs().buffered_read(&inode, 0, &mut [0; BS]).unwrap_err();
    assert_eq!(error.errno(), errno::EUCLEAN);
    drop(inode);
    volume.end();
}

/// The blocks of the tree itself, of attributes and of directories.
#[test]
fn other_pointers_to_metadata() {
    let sound = volume("");
    let (file, dir) = (ino_of(&sound, "/file"), ino_of(&sound, "/dir"));
    for (what, block) in metadata_blocks(&sound) {
        let mut image = sound.clone();
        edit_inode(&mut image, file, |inode| {
            let index = ExtentIndex { lblk: Lblk(0), leaf: Pblk(block) };
            encode_node(&mut inode.i_block, 1, 4, &Entries::Index(vec![index]));
        });
        let mut volume = Watched::new(image, ErrorMode::Continue);
        let heard = (USES[0].1)(&mut volume.runner).err().map(|error| error.errno());
        assert_eq!(heard, Some(errno::EUCLEAN), "an index, {what}");
        volume.end();

        let mut image = sound.clone();
        edit_inode(&mut image, file, |inode| inode.file_acl = block);
        let volume = Watched::new(image, ErrorMode::Continue);
        let heard = volume.runner.fs().lookup(b"/file", false).err().map(|error| error.errno());
        assert_eq!(heard, Some(errno::EUCLEAN), "attributes, {what}");
        volume.end();

        let mut image = sound.clone();
        edit_inode(&mut image, dir, |inode| {
            let extent = Extent { lblk: Lblk(0), len: 1, start: Pblk(block), unwritten: false };
            encode_node(&mut inode.i_block, 0, 4, &Entries::Leaf(vec![extent]));
        });
        let volume = Watched::new(image, ErrorMode::Continue);
        let heard = volume.runner.fs().create(b"/dir/name", FILE, false).err().map(|error| error.errno());
        assert_eq!(heard, Some(errno::EUCLEAN), "a directory, {what}");
        volume.end();
    }
}

/// Bitmaps do not say whose a block is: the kernel too reads and writes what is free, and what is another file's.
#[test]
fn free_blocks_and_those_of_others_are_data() {
    let sound = volume("");
    let ino = ino_of(&sound, "/other");
    let other = metadata_guard::inode(&superblock(&sound), &sound, ino).unwrap();
    let start = u64::from(u32::from_le_bytes(other.i_block[20..24].try_into().unwrap()));
    for block in [start, superblock(&sound).blocks_count() - 1] {
        for (name, use_it) in &USES[..6] {
            let mut volume = Watched::new(leading_to(&sound, block, false), ErrorMode::Continue);
            use_it(&mut volume.runner).unwrap_or_else(|error| panic!("{block}, {name}: {error}"));
            volume.end();
        }
    }
}

#[test]
fn the_volume_follows_its_policy() {
    let image = leading_to(&volume(""), 2, false);
    let read = |volume: &mut Watched| (USES[0].1)(&mut volume.runner).unwrap_err().errno();
    let make = |volume: &Watched| volume.runner.fs().create(b"/new", FILE, false).err().map(|e| e.errno());

    let mut volume = Watched::new(image.clone(), ErrorMode::Continue);
    assert_eq!((read(&mut volume), make(&volume)), (errno::EUCLEAN, None));
    let after = superblock(&volume.end());
    assert_eq!(after.state & ext4_format::superblock::state::ERROR, ext4_format::superblock::state::ERROR);
    assert_eq!((after.error_count, after.first_error_ino), (1, ino_of(&image, "/file").0));

    let mut volume = Watched::new(image.clone(), ErrorMode::RemountReadOnly);
    assert_eq!((read(&mut volume), make(&volume)), (errno::EUCLEAN, Some(errno::EROFS)));
    volume.end();

    let mut volume = Watched::new(image, ErrorMode::Shutdown);
    assert_eq!((read(&mut volume), make(&volume)), (errno::EUCLEAN, Some(errno::EIO)));
    volume.end();
}

/// Makes the entry `name` of the root lead to `ino`; a volume without checksums needs nothing else.
fn rename_to(image: &mut [u8], name: &[u8], ino: u32) {
    let root = metadata_guard::inode(&superblock(image), image, ROOT).unwrap();
    let block = u32::from_le_bytes(root.i_block[20..24].try_into().unwrap()) as usize * BS;
    let found = image[block..block + BS].windows(name.len()).position(|bytes| bytes == name).unwrap();
    image[block + found - 8..block + found - 4].copy_from_slice(&ino.to_le_bytes());
}

#[test]
fn a_name_leads_to_no_inode_of_the_volumes_own() {
    let mut sound = volume("^metadata_csum,^metadata_csum_seed,orphan_file");
    let orphan_file = superblock(&sound).orphan_file_inum;
    let (other, count) = (ino_of(&sound, "/other"), superblock(&sound).inodes_count);
    assert!(
        orphan_file >= superblock(&sound).first_ino(),
        "no reserved number, so it is known by the superblock alone"
    );
    let mut reserved: Vec<u32> = vec![1, orphan_file, count + 1, u32::MAX];
    reserved.extend(3..superblock(&sound).first_ino());
    let check = |image: &[u8], ino: u32, what: &str| {
        let volume = Watched::new(image.to_vec(), ErrorMode::Continue);
        let fs = volume.runner.fs();
        let heard = [
            fs.lookup(b"/file", false).err(),
            fs.open(b"/file", false).err(),
            fs.unlink(b"/file").err(),
            fs.link(b"/file", b"/second").err(),
        ];
        let errnos = heard.map(|error| error.map(|error| error.errno()));
        assert_eq!(errnos, [Some(errno::EUCLEAN); 4], "{what} {ino}");
        volume.end();
    };
    for ino in reserved {
        let mut image = sound.clone();
        rename_to(&mut image, b"file", ino);
        check(&image, ino, "inode");
    }
    // A quota file may have any number.
    for at in [0x240, 0x244, 0x26C] {
        let mut image = sound.clone();
        image[1024 + at..1024 + at + 4].copy_from_slice(&other.0.to_le_bytes());
        rename_to(&mut image, b"file", other.0);
        check(&image, other.0, "quota");
    }
    edit_inode(&mut sound, other, |inode| inode.flags |= flags::EA_INODE);
    rename_to(&mut sound, b"file", other.0);
    check(&sound, other.0, "value of an attribute");
}

/// A large value has an inode of its own, which says so. Such values are not read here; one that names another inode is damage.
#[test]
fn a_value_has_an_inode_of_its_own() {
    const TEST: &str = "a_value_has_an_inode_of_its_own";
    if !available(Need::E2fsprogs, TEST) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, value) = (dir.path().join("image"), dir.path().join("value"));
    std::fs::write(&value, marked(5000)).unwrap();
    std::fs::File::create(&image).unwrap().set_len(10 << 20).unwrap();
    let (image, value) = (image.to_str().unwrap(), value.to_str().unwrap());
    tool_ok("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", "-O", "ea_inode,^has_journal", image]);
    for request in [format!("write {value} file"), format!("ea_set -f {value} file user.large")] {
        tool_ok("debugfs", &["-w", "-R", &request, image]);
    }
    let sound = std::fs::read(image).unwrap();
    let heard = |bytes: Vec<u8>| {
        let options = MountOptions { read_only: true, ..MountOptions::default() };
        let (fs, _) = Fs::mount(Arc::new(MemoryDevice::new(bytes)), &options).unwrap();
        let file = fs.lookup(b"/file", false).unwrap();
        fs.getxattr(&file, b"user.large").unwrap_err().errno()
    };
    assert_eq!(heard(sound.clone()), errno::EOPNOTSUPP);
    let is_value = |ino: &u32| {
        let inode = metadata_guard::inode(&superblock(&sound), &sound, Ino(*ino));
        inode.is_some_and(|inode| inode.has_flag(flags::EA_INODE))
    };
    let value = (11..100).find(is_value).expect("debugfs made one");
    let mut damaged = sound.clone();
    edit_inode(&mut damaged, Ino(value), |inode| inode.flags &= !flags::EA_INODE);
    assert_eq!(heard(damaged), errno::EUCLEAN);
}

/// The special ones are got all the same, by who may.
#[test]
fn the_volume_itself_uses_them() {
    for features in ["", "^metadata_csum,^metadata_csum_seed,^orphan_file"] {
        let volume = Watched::new(volume(features), ErrorMode::RemountReadOnly);
        let (inode, _) = volume.runner.fs().create(b"/gone", FILE, false).unwrap();
        volume.runner.fs().setxattr(&inode, b"user.name", b"value", XattrSet::Either).unwrap();
        volume.runner.fs().unlink(b"/gone").unwrap();
        volume.runner.fs().sync().unwrap();
        volume.runner.fs().release(&inode).unwrap();
        drop(inode);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, volume.end()).unwrap();
        if available(Need::E2fsprogs, "the_volume_itself_uses_them") {
            assert_clean(&image);
        }
    }
}
