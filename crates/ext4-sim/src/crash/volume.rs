//! The small volumes that workloads run on.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use block_io::Device;
use ext4::DataMode;
use ext4::mkfs::{self, FormatOptions};
use ext4_format::Superblock;
use ext4_format::extent::{self, Entries, Extent, Place};

use super::image::{Base, Part, StateDevice};
use super::{block_maps, outside_journal};
use crate::runner::FORMAT_TIME;

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
    /// The log is on a device of its own (J28).
    pub journal_outside: bool,
    /// How it is mounted.
    pub data: DataMode,
    /// Likewise.
    pub dioread_nolock: bool,
}

impl Volume {
    /// 8 MiB at 1 KiB, 16 MiB at 4 KiB, with the smallest journal (CM7).
    pub fn small(block_size: u32) -> Self {
        let size = if block_size == 1024 { 8 << 20 } else { 16 << 20 };
        Self {
            size,
            block_size,
            features: "",
            inodes: None,
            journal_outside: false,
            data: DataMode::Ordered,
            dioread_nolock: true,
        }
    }

    /// What tells it from other small ones.
    pub fn label(self) -> String {
        match self.data {
            DataMode::Ordered => format!("at {}", self.block_size),
            DataMode::Journal => format!("at {}, data=journal", self.block_size),
            DataMode::Writeback => format!("at {}, data=writeback", self.block_size),
        }
    }

    /// A fresh volume's bytes; its journal's device lies behind them.
    pub fn base(self) -> Arc<Base> {
        static MADE: OnceLock<Mutex<HashMap<Volume, Arc<Base>>>> = OnceLock::new();
        let mut made = MADE.get_or_init(Mutex::default).lock().expect("no test panics in here");
        let volume = self.made_as();
        made.entry(volume).or_insert_with(|| Arc::new(volume.make())).clone()
    }

    /// The volume without how it is mounted: equal ones start with equal bytes.
    pub(super) fn made_as(self) -> Self {
        Self { data: DataMode::Ordered, dioread_nolock: true, ..self }
    }

    fn make(self) -> Base {
        let mut bytes = self.format();
        let journal = match self.journal_outside {
            true => vec![outside_journal::add(&mut bytes, self.block_size)],
            false => journal_inside(&bytes, self),
        };
        Base::new(bytes, journal)
    }

    fn format(self) -> Vec<u8> {
        if block_maps::needs_mke2fs(self.features) {
            let image = tempfile::NamedTempFile::new().expect("a file for mke2fs");
            std::fs::write(image.path(), vec![MARKER; self.size]).expect("room for a volume");
            block_maps::format(image.path(), self.block_size);
            return std::fs::read(image.path()).expect("what mke2fs made");
        }
        let device = StateDevice::new(Arc::new(Base::new(vec![MARKER; self.size], Vec::new())));
        let mut options = FormatOptions::new(FORMAT_TIME);
        options.block_size = Some(self.block_size);
        options.uuid = Some([7; 16]);
        options.hash_seed = Some([9; 16]);
        options.features = self.features.into();
        match self.journal_outside {
            true => options.features = "^has_journal".into(),
            false => options.journal_blocks = Some(1024),
        }
        options.inodes_count = self.inodes;
        options.reserved_percent = 0.0;
        mkfs::format(&device, &options).unwrap_or_else(|error| panic!("mkfs: {error}"));
        device.snapshot()
    }

    /// The devices of an image of it: the volume, and its journal's where that is outside.
    pub fn devices(self, whole: &Arc<StateDevice>) -> (Arc<dyn Device>, Option<Arc<dyn Device>>) {
        if !self.journal_outside {
            return (whole.clone(), None);
        }
        let size = self.size as u64;
        let journal = Part::new(whole.clone(), size..whole.limits().size_bytes);
        (Arc::new(Part::new(whole.clone(), 0..size)), Some(Arc::new(journal)))
    }

    /// Where they begin in the image.
    pub fn starts(self) -> Vec<u64> {
        vec![0, self.size as u64]
    }
}

/// Where the log of a fresh volume lies: the superblock has a copy of its map (J27).
fn journal_inside(bytes: &[u8], volume: Volume) -> Vec<Range<u64>> {
    let block = u64::from(volume.block_size);
    if block_maps::needs_mke2fs(volume.features) {
        return vec![journal_on_block_map(bytes, block)];
    }
    let superblock = Superblock::decode(&bytes[1024..2048]).expect("our own superblock");
    let root: Vec<u8> = superblock.jnl_blocks[..15].iter().flat_map(|word| word.to_le_bytes()).collect();
    let place = Place::root(superblock.blocks_count());
    let Ok((_, Entries::Leaf(extents))) = extent::decode_node(&root, place) else {
        panic!("a log of few extents");
    };
    let range = |extent: &Extent| extent.start.0 * block..(extent.start.0 + u64::from(extent.len)) * block;
    extents.iter().map(range).collect()
}

/// One run, with the tables of the map among its blocks.
fn journal_on_block_map(bytes: &[u8], block: u64) -> Range<u64> {
    const MAGIC_V2: [u8; 8] = [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4];
    const TABLES: u64 = 8;
    let start = bytes.chunks(block as usize).position(|bytes| bytes.starts_with(&MAGIC_V2));
    let start = start.expect("a journal superblock") as u64 * block;
    start..start + (1024 + TABLES) * block
}
