//! Truncation and hole punching.

use std::ops::RangeInclusive;

use ext4_format::{Lblk, Pblk};

use super::lookup::Rightmost;
use super::path::{Path, Step};
use super::{BlockMap, credits_for_remove};
use crate::Result;
use crate::extents::Progress;

/// How many runs one step frees at most; each wants credits of its own.
const RUNS_PER_STEP: usize = 8;

/// Tables that one call frees, and so revokes (T9), which no credit counts: at most nine log blocks of records.
const TABLES_PER_CALL: usize = 1024;

impl BlockMap<'_> {
    /// Unmaps the blocks `from` to `to`, both included, from right to left, and frees their data and the tables that become
    /// empty.
    ///
    /// Each step asks for [`credits_for_remove`] credits; without them the answer is [`Progress::More`].
    pub fn remove(&mut self, from: Lblk, to: Lblk) -> Result<Progress> {
        let from_block = u64::from(from.0);
        let mut end = u64::from(to.0) + 1;
        let mut tables_freed = 0;
        while from_block < end {
            let step = Rightmost::find(self.meta, self.root, self.owner, from_block, end)?;
            let (path, slots, runs) = match step {
                Rightmost::Nothing => return Ok(Progress::Done),
                // Every entry of it is zero: to clear the first changes nothing.
                Rightmost::EmptyTable(path) => (path, 0..=0, Vec::new()),
                Rightmost::Block(path) => {
                    let (slots, runs) = runs_before(path.last(), from_block);
                    (path, slots, runs)
                }
            };
            let enough = self.meta.ensure_credits(credits_for_remove(runs.len() as u32))?;
            if !enough || tables_freed >= TABLES_PER_CALL {
                return Ok(Progress::More { from, to: Lblk((end - 1) as u32) });
            }
            for (start, len) in &runs {
                path.last().table.check_blocks(self.meta, self.owner, *start, (*len).into())?;
            }
            end = path.last().table.span(*slots.start()).first;
            // Unmapped first: an error in between then loses space rather than sharing it.
            tables_freed += self.clear(path, slots)?;
            for (start, len) in runs {
                self.meta.free_data(start, len, self.owner.ino)?;
                self.data_blocks_freed += u64::from(len);
            }
        }
        Ok(Progress::Done)
    }

    /// Clears entries of the path's last table, and frees the tables on the path that are empty then. Returns how many.
    fn clear(&mut self, mut path: Path, mut slots: RangeInclusive<usize>) -> Result<usize> {
        let mut empty = Vec::new();
        while let Some(Step { table, .. }) = path.steps.pop() {
            let Some(block) = table.block.filter(|_| table.is_empty_but(slots.clone())) else {
                let zeros = vec![0; slots.clone().count()];
                self.set_entries(table.block, *slots.start(), &zeros)?;
                break;
            };
            empty.push(block);
            if let Some(above) = path.steps.last() {
                slots = above.slot..=above.slot;
            }
        }
        for block in &empty {
            self.meta.free_block(*block, self.owner.ino)?;
            self.meta_blocks_delta -= 1;
        }
        Ok(empty.len())
    }
}

/// The last few runs of blocks that a table names, from logical block `from` to the step's: their entries, and the runs from
/// right to left.
fn runs_before(step: &Step, from: u64) -> (RangeInclusive<usize>, Vec<(Pblk, u32)>) {
    let table = &step.table;
    let mut first = step.slot;
    let mut runs: Vec<(Pblk, u32)> = Vec::new();
    for slot in (0..=step.slot).rev() {
        let span = table.span(slot);
        if span.first < from || span.height > 0 {
            break;
        }
        let block = u64::from(table.entry(slot));
        if block == 0 {
            first = slot;
            continue;
        }
        let is_full = runs.len() == RUNS_PER_STEP;
        match runs.last_mut() {
            Some((start, len)) if block + 1 == start.0 => (*start, *len) = (Pblk(block), *len + 1),
            _ if is_full => break,
            _ => runs.push((Pblk(block), 1)),
        }
        first = slot;
    }
    (first..=step.slot, runs)
}
