//! New blocks in a hole.

use ext4_format::block_map::set_entry;
use ext4_format::{Corrupt, Lblk, Pblk};

use super::BlockMap;
use super::path::Path;
use crate::error::errno;
use crate::meta::{BlockKind, BlockOwner};
use crate::{Error, Result};

impl BlockMap<'_> {
    /// Maps `len` blocks from `lblk` on, a hole within one table (see [`super::room`]), to those from `start` on, all below
    /// 2^32 (D15). Needs [`super::credits_for_insert`].
    ///
    /// # Errors
    /// EFBIG beyond the map; EINVAL for a run that no table may hold; EEXIST where blocks are mapped already; ENOSPC
    /// without room for a table. The map is unchanged after each.
    pub fn insert(&mut self, lblk: Lblk, len: u32, start: Pblk) -> Result<()> {
        let at = u64::from(lblk.0);
        let room = self.shape().room(at).ok_or(Error::errno_only(errno::EFBIG))?;
        let first = u32::try_from(start.0).ok().filter(|&first| first > 0);
        let fits = u64::from(len) <= room && start.0 + u64::from(len) <= self.owner.blocks.min(1 << 32);
        let Some(first) = first.filter(|_| len > 0 && fits) else {
            return Err(Error::refused(
                errno::EINVAL,
                format!("{len} blocks from {start} on in a block map"),
            ));
        };
        let Some(path) = Path::find(self.meta, self.root, self.owner, at)? else {
            return Err(Error::errno_only(errno::EFBIG));
        };
        let step = path.last();
        let height = step.span().height;
        let taken = match height {
            0 => (step.slot..step.slot + len as usize).any(|slot| step.table.entry(slot) != 0),
            _ => step.entry() != 0,
        };
        if taken {
            return Err(Error::refused(errno::EEXIST, format!("logical block {lblk} is mapped")));
        }
        let run: Vec<u32> = (first..=first + (len - 1)).collect();
        if height == 0 {
            return self.set_entries(step.table.block, step.slot, &run);
        }
        let top = self.insert_branch(&path, at, height, start, &run)?;
        self.set_entries(step.table.block, step.slot, &[top])
    }

    /// Makes the tables that lead to a run and returns the highest, to which nothing points yet.
    fn insert_branch(&mut self, path: &Path, at: u64, height: u32, goal: Pblk, run: &[u32]) -> Result<u32> {
        let tables = self.allocate_tables(height, goal)?;
        // The slots on the way down, as if the tables were there.
        let mut span = path.last().span();
        let mut below = tables[1..].iter();
        for table in &tables {
            let slot = self.shape().table_slot(span, at);
            span = self.shape().table_span(span, slot);
            let entries = below.next().map_or(run, std::slice::from_ref);
            self.meta.create(Pblk((*table).into()), BlockKind::Plain, &mut |image| {
                for (i, block) in entries.iter().enumerate() {
                    set_entry(image, slot + i, *block);
                }
            })?;
        }
        Ok(tables[0])
    }

    /// Blocks for new tables; on an error those that were got are given back.
    fn allocate_tables(&mut self, count: u32, goal: Pblk) -> Result<Vec<u32>> {
        let owner = BlockOwner { ino: self.owner.ino, goal, below_2_32: true };
        let mut tables = Vec::with_capacity(count as usize);
        while tables.len() < count as usize {
            let allocated = self.meta.allocate_block(owner).and_then(|block| {
                u32::try_from(block.0).map_err(|_| {
                    let corrupt = Corrupt::structure("allocation", "a table above 2^32 blocks");
                    Error::corrupt_block(block.0, corrupt)
                })
            });
            match allocated {
                Ok(table) => tables.push(table),
                Err(error) => {
                    for table in tables {
                        self.meta.free_block(Pblk(table.into()), self.owner.ino)?;
                    }
                    return Err(error);
                }
            }
        }
        self.meta_blocks_delta += i64::from(count);
        Ok(tables)
    }

    /// Sets entries of the root (`None`) or of a table.
    pub(super) fn set_entries(&mut self, table: Option<Pblk>, slot: usize, blocks: &[u32]) -> Result<()> {
        let set = &mut |bytes: &mut [u8]| {
            blocks.iter().enumerate().for_each(|(i, block)| set_entry(bytes, slot + i, *block));
        };
        match table {
            None => set(self.root),
            Some(table) => self.meta.update(table, BlockKind::Plain, set)?,
        }
        Ok(())
    }
}
