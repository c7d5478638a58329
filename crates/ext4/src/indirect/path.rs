//! The tables from the root to an entry, each read and its entries checked as far as they are used.

use ext4_format::block_map::{ROOT_ENTRIES, Shape, Span, entry};
use ext4_format::extent::ROOT_SIZE;
use ext4_format::{Corrupt, Pblk};

use crate::extents::TreeOwner;
use crate::meta::{BlockKind, Image, Meta};
use crate::{Error, Result};

/// The root or a table.
pub(super) struct Table {
    /// Where it is; `None`: in the inode.
    pub block: Option<Pblk>,
    /// What it covers; of the root only the beginning and the end mean something.
    span: Span,
    bytes: Bytes,
    shape: Shape,
}

enum Bytes {
    Root([u8; ROOT_SIZE]),
    Block(Image),
}

impl Table {
    pub fn root(meta: &dyn Meta, root: &[u8; ROOT_SIZE]) -> Self {
        let shape = Shape::new(meta.block_size());
        let span = Span { first: 0, len: shape.end(), height: 0 };
        Self { block: None, span, bytes: Bytes::Root(*root), shape }
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Root(root) => root,
            Bytes::Block(image) => image,
        }
    }

    /// Entries that it has.
    pub fn len(&self) -> usize {
        if self.block.is_none() { ROOT_ENTRIES } else { self.shape.per_table() }
    }

    pub fn entry(&self, slot: usize) -> u32 {
        entry(self.bytes(), slot)
    }

    /// What an entry leads to.
    pub fn span(&self, slot: usize) -> Span {
        match self.block {
            None => self.shape.root_span(slot),
            Some(_) => self.shape.table_span(self.span, slot),
        }
    }

    /// The first logical block that it covers.
    pub fn first(&self) -> u64 {
        self.span.first
    }

    /// The entry that leads to a logical block, which it covers.
    pub fn slot(&self, lblk: u64) -> Option<usize> {
        match self.block {
            None => self.shape.root_slot(lblk),
            Some(_) => Some(self.shape.table_slot(self.span, lblk)),
        }
    }

    /// Whether no entry but those in `except` points anywhere.
    pub fn is_empty_but(&self, except: std::ops::RangeInclusive<usize>) -> bool {
        (0..self.len()).all(|slot| self.entry(slot) == 0 || except.contains(&slot))
    }

    /// EUCLEAN unless `len` blocks from `start` on, which this table names, may belong to a file (F54).
    pub fn check_blocks(&self, meta: &dyn Meta, owner: TreeOwner, start: Pblk, len: u64) -> Result<()> {
        let inside = start.0.checked_add(len).is_some_and(|end| end <= owner.blocks);
        let why = match inside {
            true if !meta.is_system_zone(start, len) => return Ok(()),
            true => "points to metadata",
            false => "points outside the volume",
        };
        let corrupt = Corrupt::structure("block map", format!("{why}: block {start}"));
        Err(match self.block {
            Some(block) => Error::corrupt_block(block.0, corrupt),
            None => Error::corrupt_inode(owner.ino.0, corrupt),
        })
    }

    /// The table that an entry of this one points to.
    fn child(&self, meta: &dyn Meta, owner: TreeOwner, slot: usize) -> Result<Self> {
        let block = Pblk(self.entry(slot).into());
        self.check_blocks(meta, owner, block, 1)?;
        let image = meta.read(block, BlockKind::Plain)?;
        Ok(Self { block: Some(block), span: self.span(slot), bytes: Bytes::Block(image), shape: self.shape })
    }
}

/// A table and the entry in it that the path goes on with.
pub(super) struct Step {
    pub table: Table,
    pub slot: usize,
}

impl Step {
    pub fn entry(&self) -> u32 {
        self.table.entry(self.slot)
    }

    pub fn span(&self) -> Span {
        self.table.span(self.slot)
    }
}

/// From the root, first, to the entry of a block, or to a hole above it, last.
pub(super) struct Path {
    pub steps: Vec<Step>,
}

impl Path {
    /// The path to `lblk`; `None` beyond the map. Its length is bounded: each table is one level lower than the one before.
    pub fn find(
        meta: &dyn Meta,
        root: &[u8; ROOT_SIZE],
        owner: TreeOwner,
        lblk: u64,
    ) -> Result<Option<Self>> {
        let root = Table::root(meta, root);
        let Some(slot) = root.slot(lblk) else { return Ok(None) };
        let mut path = Self { steps: vec![Step { table: root, slot }] };
        while path.last().entry() != 0 && path.last().span().height > 0 {
            let last = path.last();
            let table = last.table.child(meta, owner, last.slot)?;
            let Some(slot) = table.slot(lblk) else { return Ok(None) };
            path.steps.push(Step { table, slot });
        }
        Ok(Some(path))
    }

    pub fn last(&self) -> &Step {
        self.steps.last().expect("a path has a root")
    }
}
