//! The commit of a transaction (T15).

use std::sync::Arc;

use block_io::AlignedBuf;
use block_io::sync::MutexGuard;

use crate::format::{CommitBlock, MAGIC, Tag, TagFlags, be32, feature};
use crate::io::GatheringWriter;
use crate::journal::Log;
use crate::mutant::mutant;
use crate::state::{Committed, Committing, State, Transaction};
use crate::{Error, Image, Journal, Result, SealTag, Tid};

/// A block of the committing transaction. Holding `frozen` is what freezes it (T5b).
struct Block {
    block: u64,
    tag: SealTag,
    frozen: Image,
}

/// A transaction that no handle can change any more.
struct Switched {
    committing: Committing,
    blocks: Vec<Block>,
    revokes: Vec<u64>,
    forgotten: Vec<u64>,
    time: (u64, u32),
}

/// Where a transaction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Running,
    Committing,
    /// On the device, or nothing that had to go there.
    Durable,
}

/// The right to commit: there is one. Whoever waits for a transaction does not queue for it, but wakes when that
/// is durable; else each waiter would take its turn and commit what little had come meanwhile (T13).
pub(crate) struct CommitTurn<'a>(&'a Journal);

impl<'a> CommitTurn<'a> {
    fn new(journal: &'a Journal, state: &mut State) -> Self {
        assert!(!std::mem::replace(&mut state.commit_turn, true));
        Self(journal)
    }
}

impl Drop for CommitTurn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().commit_turn = false;
        if !mutant(43) {
            self.0.changed.notify_all();
        }
    }
}

impl Journal {
    /// Makes `tid` durable, if it is not yet. Group commit: whoever comes while a commit runs waits for it (T13). A
    /// transaction that never was, or had no change, is durable. The caller holds no handle.
    ///
    /// `true`: a flush came after this call and covers every device write that completed before it, so the caller need
    /// not flush for its data (T24).
    ///
    /// EIO: the journal aborted before `tid` was durable (T29).
    pub fn commit(&self, tid: Tid) -> Result<bool> {
        let mut state = self.state.lock();
        let before = self.standing(&state, tid)?;
        loop {
            match self.standing(&state, tid)? {
                Standing::Durable => break,
                Standing::Running if !state.commit_turn => {
                    let turn = CommitTurn::new(self, &mut state);
                    drop(state);
                    self.commit_in_turn()?;
                    drop(turn);
                    state = self.state.lock();
                }
                Standing::Running | Standing::Committing => self.changed.wait(&mut state),
            }
        }
        // What was committing when we came may have been past its flush; and an empty transaction has none.
        Ok(before == Standing::Running && state.last_committed.is_at_or_after(tid))
    }

    fn standing(&self, state: &State, tid: Tid) -> Result<Standing> {
        if state.last_committed.is_at_or_after(tid) {
            return Ok(Standing::Durable);
        }
        if let Some(errno) = self.aborted() {
            return Err(Error::Lost { errno });
        }
        if state.running.as_ref().is_some_and(|running| running.tid == tid) {
            return Ok(Standing::Running);
        }
        let committing = state.committing.is_some_and(|committing| committing.tid == tid);
        Ok(if committing { Standing::Committing } else { Standing::Durable })
    }

    /// Commits what is running. No change, no write (T14).
    pub fn commit_running(&self) -> Result<()> {
        let tid = {
            let state = self.state.lock();
            self.check_live()?;
            match (&state.running, state.committing) {
                (Some(running), _) => running.tid,
                (None, Some(committing)) => committing.tid,
                (None, None) => return Ok(()),
            }
        };
        self.commit(tid).map(|_flushed| ())
    }

    /// Waits until no commit runs, and keeps others from running one.
    pub(crate) fn take_commit_turn(&self) -> CommitTurn<'_> {
        let mut state = self.state.lock();
        while state.commit_turn {
            self.changed.wait(&mut state);
        }
        CommitTurn::new(self, &mut state)
    }

    /// Commits the running transaction; the caller has the turn.
    pub(crate) fn commit_in_turn(&self) -> Result<()> {
        let Some(switched) = self.lock_and_switch()? else { return Ok(()) };
        self.host.write_ordered(switched.committing.tid);
        let sealed = self.seal(&switched.blocks);
        if mutant(6) {
            self.write_home_and_flush(&switched, &sealed)?;
        }
        let written = match &self.log {
            Some(log) => self.write_transaction(log, &switched, &sealed),
            None => self.write_home_and_flush(&switched, &sealed).map(|()| 0),
        };
        let head = self.abort_on_error(written)?;
        self.finish(switched, sealed, head);
        Ok(())
    }

    /// T15.2: no new handles, wait for those there are; then the next transaction may begin.
    fn lock_and_switch(&self) -> Result<Option<Switched>> {
        let mut state = self.state.lock();
        loop {
            if let Some(errno) = self.aborted() {
                return Err(Error::Lost { errno });
            }
            let Some(running) = &mut state.running else { return Ok(None) };
            running.locked = true;
            if running.handles == 0 || mutant(41) {
                break;
            }
            self.changed.wait(&mut state);
        }
        let transaction = state.running.take().expect("checked above");
        self.changed.notify_all();
        if mutant(45) {
            MutexGuard::unlocked(&mut state, || {});
        }
        if transaction.is_empty() {
            // Its id was never in the log: the next transaction takes it.
            return Ok(None);
        }
        assert!(transaction.credits == 0);
        state.next_tid = transaction.tid.next();
        Ok(Some(self.switch(&mut state, transaction)))
    }

    fn switch(&self, state: &mut State, transaction: Transaction) -> Switched {
        let mut numbers: Vec<u64> = transaction.blocks.into_iter().collect();
        numbers.sort_unstable();
        let blocks: Vec<Block> = numbers
            .into_iter()
            .map(|block| {
                let entry = state.entries.get_mut(&block).expect("a block of the transaction has an entry");
                (entry.in_running, entry.in_committing) = (false, true);
                let frozen = entry.current.lock().clone();
                Block { block, tag: entry.tag, frozen }
            })
            .collect();
        let mut revokes: Vec<u64> = transaction.revokes.into_iter().collect();
        revokes.sort_unstable();
        let log_blocks = self.sizes.log_blocks(blocks.len() as u64, revokes.len() as u64);
        let committing = Committing { tid: transaction.tid, start: state.head, log_blocks, logged: false };
        state.committing = Some(committing);
        // J20: time does not go backwards in the log.
        let time = self.host.now().max(state.last_commit_time);
        state.last_commit_time = time;
        let mut forgotten: Vec<u64> = transaction.forgotten.into_iter().collect();
        forgotten.sort_unstable();
        Switched { committing, blocks, revokes, forgotten, time }
    }

    /// T6: the images for the log and for home.
    fn seal(&self, blocks: &[Block]) -> Vec<Image> {
        blocks
            .iter()
            .map(|block| {
                let mut image = AlignedBuf::clone(&block.frozen);
                if mutant(8) {
                    return Arc::new(image);
                }
                self.host.seal(block.block, block.tag, &mut image);
                Arc::new(image)
            })
            .collect()
    }

    /// T15.1 and T15.4 to T15.8. Returns the new head.
    fn write_transaction(&self, log: &Log, switched: &Switched, sealed: &[Image]) -> Result<u32> {
        let committing = switched.committing;
        {
            let state = self.state.lock();
            // One block stays free: a full ring would look empty.
            if committing.log_blocks >= self.sizes.ring - state.used(&self.sizes) {
                return Err(Error::LogFull);
            }
        }
        self.note_start(log, committing, !switched.revokes.is_empty())?;
        let without_copy_out = mutant(7).then(|| self.seal(&self.as_they_are_now(&switched.blocks)));
        let sealed = without_copy_out.as_deref().unwrap_or(sealed);
        let mut writer = LogWriter::new(self, log, committing.start);
        writer.write_revokes(committing.tid, &switched.revokes)?;
        writer.write_blocks(committing.tid, &switched.blocks, sealed)?;
        if !mutant(3) {
            let written = writer.gather.write_out();
            if !mutant(16) {
                written?;
            }
        }
        self.check_live()?;
        if !(mutant(1) || mutant(14) && log.map.is_external()) {
            self.flush()?;
        }
        // T16: the volume's device always, for direct I/O asks nobody whether it has written to it.
        if log.map.is_external() {
            log.device.flush()?;
        }
        let (seconds, nanoseconds) = switched.time;
        let mut block = AlignedBuf::zeroed(self.block_size);
        CommitBlock { tid: committing.tid.0, seconds, nanoseconds }.encode(&log.layout, &mut block);
        let offset = log.device_block(writer.position) * self.block_size as u64;
        self.check_live()?;
        log.device.write(offset, &block, !mutant(2))?;
        if mutant(3) {
            writer.gather.write_out()?;
        }
        Ok(log.after(writer.position))
    }

    /// A fault: blocks with what was changed since they were frozen.
    fn as_they_are_now(&self, blocks: &[Block]) -> Vec<Block> {
        let state = self.state.lock();
        let now = |block: &Block| {
            let current = state.entries.get(&block.block).map(|entry| entry.current.lock().clone());
            Block { frozen: current.unwrap_or_else(|| block.frozen.clone()), ..*block }
        };
        blocks.iter().map(now).collect()
    }

    /// T15.1: if JSB on disk says empty, it names this transaction; the commit's flush makes it durable.
    fn note_start(&self, log: &Log, committing: Committing, revokes: bool) -> Result<()> {
        let mut buffer = log.superblock.lock();
        self.check_live()?;
        if revokes && buffer.superblock.v2 {
            // J8: goes to disk with the next update.
            buffer.superblock.s_feature_incompat |= feature::INCOMPAT_REVOKE;
        }
        if buffer.superblock.s_start != 0 {
            return Ok(());
        }
        buffer.superblock.s_start = committing.start;
        buffer.superblock.s_sequence = committing.tid.0;
        if log.fast_commit {
            // J29; T25 cleared it if the journal was emptied in between.
            buffer.superblock.s_feature_incompat |= feature::INCOMPAT_FAST_COMMIT;
        }
        self.write_superblock(log, &mut buffer, false)
    }

    /// The commit of a volume without a log.
    fn write_home_and_flush(&self, switched: &Switched, sealed: &[Image]) -> Result<()> {
        let _home = self.home.lock();
        let mut gather = GatheringWriter::new(&*self.device, self.block_size, self.config.write_bytes);
        for (block, image) in switched.blocks.iter().zip(sealed) {
            gather.push(block.block, image)?;
        }
        gather.write_out()?;
        self.flush()
    }

    /// T15.9: blocks become checkpoint work, forgotten ones are dropped, waiters wake.
    fn finish(&self, switched: Switched, sealed: Vec<Image>, head: u32) {
        let Switched { committing, blocks, forgotten, revokes, .. } = switched;
        let tid = committing.tid;
        if mutant(44) && !forgotten.is_empty() {
            let _state = self.state.lock();
            drop(self.home.lock());
        }
        // T8: what is being written home now must be there before the space is usable.
        let home = (!forgotten.is_empty() && !mutant(46)).then(|| self.home.lock());
        if self.log.is_none() {
            for (block, image) in blocks.iter().zip(&sealed) {
                self.host.retire(block.block, image.clone());
            }
        }
        let mut state = self.state.lock();
        for (Block { block, frozen, .. }, image) in blocks.iter().zip(&sealed) {
            let entry = state.entries.get_mut(block).expect("a committing block keeps its entry");
            entry.in_committing = false;
            if self.log.is_some() {
                entry.checkpoint = Some((tid, image.clone()));
            }
            // One image instead of two, unless somebody is changing it.
            if let Some(mut current) = entry.current.try_lock()
                && Arc::ptr_eq(&current, frozen)
            {
                *current = image.clone();
            }
            state.drop_if_idle(*block);
        }
        for &block in &forgotten {
            if let Some(entry) = state.entries.get_mut(&block) {
                entry.checkpoint = None;
            }
            state.drop_if_idle(block);
        }
        if self.log.is_some() {
            let blocks = blocks.iter().map(|block| block.block).collect();
            state.committed.push_back(Committed { tid, start: committing.start, blocks });
            state.head = head;
            state.committing = Some(Committing { logged: true, ..committing });
        }
        state.stats.commits += 1;
        state.stats.blocks_logged += blocks.len() as u64;
        state.stats.revokes += revokes.len() as u64;
        drop(state);
        for block in forgotten {
            self.host.forgotten(block);
        }
        drop(home);
        self.host.committed(tid);
        // Last, and at once: whoever hears that it is durable finds it committed, and its space usable.
        let mut state = self.state.lock();
        (state.committing, state.last_committed) = (None, tid);
        self.changed.notify_all();
    }
}

/// Writes log blocks one after the other, wrapping at the ring's end.
struct LogWriter<'a> {
    log: &'a Log,
    gather: GatheringWriter<'a>,
    position: u32,
    control: AlignedBuf,
}

impl<'a> LogWriter<'a> {
    fn new(journal: &'a Journal, log: &'a Log, position: u32) -> Self {
        let gather = GatheringWriter::new(&*log.device, journal.block_size, journal.config.write_bytes);
        Self { log, gather, position, control: AlignedBuf::zeroed(journal.block_size) }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.gather.push(self.log.device_block(self.position), bytes)?;
        self.position = self.log.after(self.position);
        Ok(())
    }

    fn append_control(&mut self) -> Result<()> {
        self.gather.push(self.log.device_block(self.position), &self.control)?;
        self.position = self.log.after(self.position);
        Ok(())
    }

    fn write_revokes(&mut self, tid: Tid, revokes: &[u64]) -> Result<()> {
        for records in revokes.chunks(self.log.layout.records_per_revoke_block()) {
            self.log.layout.encode_revoke(tid.0, records, &mut self.control);
            self.append_control()?;
        }
        Ok(())
    }

    fn write_blocks(&mut self, tid: Tid, blocks: &[Block], sealed: &[Image]) -> Result<()> {
        let layout = self.log.layout;
        let per_descriptor = layout.tags_per_descriptor();
        for (blocks, images) in blocks.chunks(per_descriptor).zip(sealed.chunks(per_descriptor)) {
            let logged: Vec<Image> = images.iter().map(escape).collect();
            let tags: Vec<Tag> = blocks
                .iter()
                .zip(images.iter().zip(&logged))
                .map(|(block, (image, logged))| Tag {
                    block: block.block,
                    flags: TagFlags(if Arc::ptr_eq(image, logged) { 0 } else { TagFlags::ESCAPED }),
                    checksum: layout.data_sum(tid.0, if mutant(10) { image } else { logged }),
                })
                .collect();
            layout.encode_descriptor(tid.0, &tags, &mut self.control);
            self.append_control()?;
            for image in &logged {
                self.append(image)?;
            }
        }
        Ok(())
    }
}

/// D19: the image for the log: itself, or a copy without the magic.
fn escape(image: &Image) -> Image {
    if be32(image, 0) != MAGIC {
        return image.clone();
    }
    let mut copy = AlignedBuf::clone(image);
    copy[..4].fill(0);
    Arc::new(copy)
}
