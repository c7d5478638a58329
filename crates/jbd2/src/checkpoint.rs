//! Checkpoint, the tail, log space, and the end of a journal's use (T19–T25).

use crate::format::feature;
use crate::io::GatheringWriter;
use crate::journal::Log;
use crate::mutant::mutant;
use crate::state::State;
use crate::{Error, Image, Journal, Result, Tid};

const EIO: i32 = 5;

/// What a checkpoint shall achieve.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Half of the ring is free.
    Space,
    /// Every committed transaction is home.
    All,
}

impl Journal {
    /// Writes home what has committed, and moves the tail (T20).
    pub fn checkpoint_all(&self) -> Result<()> {
        self.check_live()?;
        match &self.log {
            Some(log) => self.checkpoint(log, Goal::All).map(|_| ()),
            None => Ok(()),
        }
    }

    /// T23: makes room for one maximum transaction, or progress towards it.
    pub(crate) fn make_log_space(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        if self.checkpoint(log, Goal::Space)? > 0 {
            return Ok(());
        }
        // Nothing to checkpoint: a commit that runs will bring something, or free its reservation.
        drop(self.take_commit_turn());
        let state = self.state.lock();
        let hopeless = state.free(&self.sizes) < self.sizes.max_log_blocks
            && state.committed.is_empty()
            && state.committing.is_none()
            && self.aborted().is_none();
        drop(state);
        if hopeless {
            self.abort(EIO);
            return Err(Error::LogFull);
        }
        Ok(())
    }

    /// Writes the oldest transactions home; returns how many. Any error aborts, and the tail does not move (T30).
    fn checkpoint(&self, log: &Log, goal: Goal) -> Result<usize> {
        let _home = self.home.lock();
        let (count, images) = {
            let state = self.state.lock();
            self.check_live()?;
            self.select(&state, goal)
        };
        if count == 0 {
            return Ok(0);
        }
        let moved = if mutant(4) {
            self.write_home(&images).and_then(|()| self.move_tail(log, count))
        } else if mutant(5) {
            self.move_tail(log, count).and_then(|()| self.write_home(&images)).and_then(|()| self.flush())
        } else if mutant(32) {
            let _ignored = self.write_home(&images);
            self.flush().and_then(|()| self.move_tail(log, count))
        } else {
            self.write_home(&images).and_then(|()| self.flush()).and_then(|()| self.move_tail(log, count))
        };
        self.abort_on_error(moved)?;
        for (block, _, image) in &images {
            self.host.retire(*block, image.clone());
        }
        let mut state = self.state.lock();
        for (block, tid, _) in images {
            let Some(entry) = state.entries.get_mut(&block) else { continue };
            if entry.checkpoint.as_ref().is_some_and(|(newest, _)| *newest == tid) {
                entry.checkpoint = None;
                state.drop_if_idle(block);
            }
        }
        Ok(count)
    }

    /// The oldest transactions to write home, and of their blocks those images that no newer committed transaction
    /// has: that one's checkpoint will write them. What running and committing transactions hold does not matter,
    /// for their bytes are copies.
    fn select(&self, state: &State, goal: Goal) -> (usize, Vec<(u64, Tid, Image)>) {
        let mut count = 0;
        let mut images = Vec::new();
        for transaction in &state.committed {
            let (tail, _) = state.tail_after(count);
            let ring = self.sizes.ring;
            let used = if state.head >= tail { state.head - tail } else { ring - (tail - state.head) };
            if goal == Goal::Space && count > 0 && used <= ring / 2 {
                break;
            }
            count += 1;
            for &block in &transaction.blocks {
                let Some(entry) = state.entries.get(&block) else { continue };
                if let Some((tid, image)) = &entry.checkpoint
                    && *tid == transaction.tid
                {
                    images.push((block, *tid, image.clone()));
                }
            }
        }
        images.sort_unstable_by_key(|(block, ..)| *block);
        (count, images)
    }

    fn write_home(&self, images: &[(u64, Tid, Image)]) -> Result<()> {
        let mut gather = GatheringWriter::new(&*self.device, self.block_size, self.config.write_bytes);
        for (block, _, image) in images {
            gather.push(*block, image)?;
        }
        gather.write_out()
    }

    /// T20, after the flush: JSB with FUA; only then are the log blocks free.
    fn move_tail(&self, log: &Log, count: usize) -> Result<()> {
        let mut buffer = log.superblock.lock();
        self.check_live()?;
        let (tail, tid) = self.state.lock().tail_after(count);
        let before = (buffer.superblock.s_start, buffer.superblock.s_sequence);
        (buffer.superblock.s_start, buffer.superblock.s_sequence) = (tail, tid.0);
        if let Err(error) = self.write_superblock(log, &mut buffer, true) {
            // The abort's write must not name a tail that nobody vouched for.
            (buffer.superblock.s_start, buffer.superblock.s_sequence) = before;
            return Err(error);
        }
        let mut state = self.state.lock();
        state.committed.drain(..count);
        state.tail = tail;
        state.stats.checkpoints += 1;
        self.changed.notify_all();
        Ok(())
    }

    /// T26: [`Journal::close`], and no handle starts before [`Journal::thaw`]. Those that run are waited for; one that
    /// restarts waits for the thaw. Where it fails nothing is frozen.
    pub fn freeze(&self) -> Result<()> {
        let _turn = self.take_commit_turn();
        self.state.lock().frozen = true;
        let emptied = self.empty_log();
        if emptied.is_err() {
            self.thaw();
        }
        emptied
    }

    /// Lets handles start again. The host has set RECOVER before it.
    pub fn thaw(&self) {
        self.state.lock().frozen = false;
        self.changed.notify_all();
    }

    /// T25, T26 up to and including "JSB empty": commit, checkpoint, flush, JSB empty. The host clears RECOVER after
    /// it. The journal may go on to be used after it.
    pub fn close(&self) -> Result<()> {
        let _turn = self.take_commit_turn();
        self.empty_log()
    }

    fn empty_log(&self) -> Result<()> {
        self.check_live()?;
        self.commit_in_turn()?;
        match &self.log {
            Some(log) => {
                self.checkpoint(log, Goal::All)?;
                self.abort_on_error(self.flush().and_then(|()| self.mark_empty(log)))
            }
            None => self.abort_on_error(self.flush()),
        }
    }

    fn mark_empty(&self, log: &Log) -> Result<()> {
        let mut buffer = log.superblock.lock();
        self.check_live()?;
        let mut state = self.state.lock();
        let before = buffer.superblock.clone();
        buffer.superblock.s_start = 0;
        buffer.superblock.s_sequence = state.next_tid.next().0;
        buffer.superblock.s_head = state.head;
        // J8: at every clean unmount.
        buffer.superblock.s_feature_incompat &= !feature::INCOMPAT_FAST_COMMIT;
        state.tail = state.head;
        drop(state);
        let written = self.write_superblock(log, &mut buffer, true);
        if written.is_err() {
            buffer.superblock = before;
        }
        written
    }

    /// A step for a thread that calls it in a loop (T14): commits a transaction that is old or large, checkpoints
    /// when log space is short. Returns the milliseconds until the next useful call. Errors are latched by the abort.
    pub fn tick(&self) -> u64 {
        let interval = self.config.commit_interval_ms;
        let due = {
            let state = self.state.lock();
            if self.aborted().is_some() {
                return interval;
            }
            state.running.as_ref().map(|running| {
                let age = self.now_ms().saturating_sub(running.started_ms);
                let large = self.sizes.cost(running, 0, 0) > self.sizes.max_log_blocks / 4 * 3;
                (running.tid, if large { 0 } else { interval.saturating_sub(age) })
            })
        };
        let mut next = interval;
        match due {
            Some((tid, 0)) => drop(self.commit(tid)),
            Some((_, remaining)) => next = remaining,
            None => {}
        }
        if let Some(log) = &self.log {
            let short = self.state.lock().free(&self.sizes) < self.sizes.max_log_blocks.saturating_mul(2);
            if short {
                drop(self.checkpoint(log, Goal::Space));
            }
        }
        next
    }
}
