//! The one door to the blocks of file data (F27).
//!
//! A map comes from the disk, and may name any block of the volume. Whatever is read, written or zeroed as somebody's data is
//! named by a [`DataBlocks`] or a [`DataMapping`], and by nothing else:
//!
//! - either is made here alone, after the volume's metadata zones were asked;
//! - [`KnownRuns`], an inode's extent-status cache, takes and gives nothing else: it keeps the verdict, so a look at what is
//!   known asks nobody;
//! - a block that is free, or another file's, is data (as in the kernel): the bitmaps say nothing about whose a block is.
//!
//! Two inodes may own metadata: the journal's, whose log is found before there are zones (`journal_inode`), and then is one;
//! and inode 7 (F29), whose map is never asked. Neither can be got by a name ([`crate::inode::Iget`]).

use std::ops::Deref;

use ext4_format::{Corrupt, Ino, Lblk, Pblk};

use crate::extents::{MapState, Mapping};
use crate::extents_status::{ExtentStatus, Status, StatusExtent};
use crate::mballoc::Allocator;
use crate::{Error, Result, errno};

/// A run of blocks that may hold data: no metadata of the volume is among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataBlocks {
    start: Pblk,
    len: u32,
}

impl DataBlocks {
    /// The first of them.
    pub fn start(self) -> Pblk {
        self.start
    }

    /// How many they are.
    pub fn len(self) -> u32 {
        self.len
    }

    /// Where they begin on the device, in bytes.
    pub fn device_offset_bytes(self, block_size: usize) -> u64 {
        self.start.0 * block_size as u64
    }
}

/// What a file has at some blocks, as [`Mapping`]; if it has any there, they may hold data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataMapping(Mapping);

impl Deref for DataMapping {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.0
    }
}

impl DataMapping {
    /// The first `len` blocks of it, or all.
    pub fn clip(self, len: u32) -> Self {
        Self(Mapping { len: self.0.len.min(len), ..self.0 })
    }

    /// The same blocks after their conversion.
    pub fn converted(self) -> Self {
        Self(Mapping { state: MapState::Written, ..self.0 })
    }

    /// The blocks. EIO for a hole, which the caller should have filled.
    pub fn blocks(&self) -> Result<DataBlocks> {
        match self.0.state {
            MapState::Hole => {
                Err(Error::refused(errno::EIO, format!("logical block {} has no place", self.0.lblk)))
            }
            MapState::Written | MapState::Unwritten => {
                Ok(DataBlocks { start: self.0.start, len: self.0.len })
            }
        }
    }
}

/// What is known of an inode's map without reading it.
#[derive(Debug)]
pub(crate) struct KnownRuns(ExtentStatus);

impl KnownRuns {
    /// Room for about `limit` runs.
    pub fn new(limit: usize) -> Self {
        Self(ExtentStatus::new(limit))
    }

    /// As [`ExtentStatus::lookup`]. What lies within a run that was asked about needs no asking.
    pub fn lookup(&self, lblk: Lblk) -> Option<DataMapping> {
        let StatusExtent { lblk, len, start, status } = self.0.lookup(lblk)?;
        let state = match status {
            Status::Written => MapState::Written,
            Status::Unwritten => MapState::Unwritten,
            Status::Hole => MapState::Hole,
        };
        Some(DataMapping(Mapping { lblk, len, start, state }))
    }

    /// As [`ExtentStatus::insert`].
    pub fn insert(&mut self, mapping: &DataMapping) {
        self.0.insert(mapping.0.into());
    }

    /// As [`ExtentStatus::remove`].
    pub fn remove(&mut self, from: Lblk, to: Lblk) {
        self.0.remove(from, to);
    }
}

/// F27: a mapping that was read from the disk, or made of what was allocated, as one whose blocks may be touched.
///
/// # Errors
/// EUCLEAN where it leads to metadata, or outside the volume.
pub(crate) fn check_mapping(allocator: &Allocator, ino: Ino, mapping: Mapping) -> Result<DataMapping> {
    if mapping.state != MapState::Hole {
        check_blocks(allocator, ino, mapping.start, mapping.len)?;
    }
    Ok(DataMapping(mapping))
}

/// The same for blocks that a change of the tree names.
pub(crate) fn check_blocks(allocator: &Allocator, ino: Ino, start: Pblk, len: u32) -> Result<DataBlocks> {
    let blocks_count = allocator.sb.blocks_count();
    let inside = start.0.checked_add(len.into()).is_some_and(|end| end <= blocks_count);
    let why = match inside {
        true if !allocator.metadata_zone(start, len.into()) => return Ok(DataBlocks { start, len }),
        true => "points to metadata",
        false => "points outside the volume",
    };
    let corrupt = Corrupt::structure("map", format!("{why}: {len} blocks from {start} on"));
    Err(Error::corrupt_inode(ino.0, corrupt))
}
