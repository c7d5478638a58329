//! Handles: the only way to change a block.

use std::sync::Arc;

use crate::mutant::mutant;
use crate::state::{Entry, State, Transaction};
use crate::{Error, Image, Journal, Result, SealTag, Tid};

const EIO: i32 = 5;

/// Part of the running transaction, which cannot commit before the handle stopped. Dropping it stops it.
pub struct Handle {
    journal: Arc<Journal>,
    tid: Tid,
    credits: u32,
    /// Records that it may still make, and what a restart reserves.
    revokes: u32,
    revokes_wanted: u32,
    live: bool,
}

impl Handle {
    pub(crate) fn new(journal: Arc<Journal>, tid: Tid, credits: u32, revokes: u32) -> Self {
        Self { journal, tid, credits, revokes, revokes_wanted: revokes, live: true }
    }

    /// The transaction.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Blocks that it may still dirty.
    pub fn credits(&self) -> u32 {
        self.credits
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// T5, T7: write access, change, dirty. If the journal has no entry for the block, `load` yields its current
    /// image; the host sees to it that nobody else loads or changes the block meanwhile. `change` runs once, under
    /// the block's own lock; it must not call the journal. A revoke of the block in this transaction is cancelled
    /// (T10).
    ///
    /// EROFS: aborted. EIO: no credit left, which aborts the journal (T7). Else `load`'s error.
    pub fn update<E: From<Error>>(
        &mut self,
        block: u64,
        tag: SealTag,
        load: &mut dyn FnMut() -> std::result::Result<Image, E>,
        change: &mut dyn FnMut(&mut [u8]),
    ) -> std::result::Result<(), E> {
        let journal = self.journal.clone();
        {
            let state = journal.state.lock();
            self.check()?;
            if state.entries.contains_key(&block) {
                return Ok(self.dirty(state, block, tag, change)?);
            }
            // Nothing is held while the host reads.
        }
        let image = load()?;
        assert!(image.len() == journal.block_size);
        let mut state = journal.state.lock();
        self.check()?;
        state.entries.entry(block).or_insert_with(|| Entry::new(image, tag));
        Ok(self.dirty(state, block, tag, change)?)
    }

    /// T7 get_create_access: a newly allocated block, which is not read but starts as zeros. Else like
    /// [`Handle::update`].
    pub fn create(&mut self, block: u64, tag: SealTag, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let journal = self.journal.clone();
        let zeros: Image = Arc::new(block_io::AlignedBuf::zeroed(journal.block_size));
        let mut state = journal.state.lock();
        self.check()?;
        if self.credits == 0 && !running(&mut state).blocks.contains(&block) {
            drop(state);
            return Err(self.credits_exceeded(block));
        }
        state.entries.entry(block).or_insert_with(|| Entry::new(zeros, tag));
        self.dirty(state, block, tag, &mut |bytes| {
            bytes.fill(0);
            fill(bytes);
        })
    }

    /// Takes the block, which has an entry, into the transaction and changes it.
    fn dirty(
        &mut self,
        mut state: block_io::sync::MutexGuard<'_, State>,
        block: u64,
        tag: SealTag,
        change: &mut dyn FnMut(&mut [u8]),
    ) -> Result<()> {
        let transaction = running(&mut state);
        if !transaction.blocks.contains(&block) {
            if self.credits == 0 {
                drop(state);
                return Err(self.credits_exceeded(block));
            }
            self.credits -= 1;
            transaction.credits -= 1;
            transaction.blocks.insert(block);
            if !mutant(18) {
                transaction.revokes.remove(&block);
            }
            transaction.forgotten.remove(&block);
        }
        let entry = state.entries.get_mut(&block).expect("the caller made it");
        entry.in_running = true;
        entry.tag = tag;
        let current = entry.current.clone();
        drop(state);
        // This handle keeps the transaction from committing until the change is done. If the committing one, or a
        // reader, holds the image, it keeps the old bytes (T5b).
        let mut image = current.lock();
        let bytes: &mut block_io::AlignedBuf = Arc::make_mut(&mut image);
        change(bytes);
        Ok(())
    }

    /// T8, T9: a metadata block was freed. It leaves the transaction (the credit comes back), is never written home
    /// after the commit, and earlier copies in the log are revoked.
    pub fn forget(&mut self, block: u64) -> Result<()> {
        let journal = self.journal.clone();
        let mut state = journal.state.lock();
        self.check()?;
        let transaction = running(&mut state);
        if transaction.blocks.remove(&block) {
            transaction.credits += 1;
            self.credits += 1;
        }
        transaction.forgotten.insert(block);
        // Beyond what was reserved a record may be one log block too many: see [`Journal::start_revoking`].
        if journal.log.is_some() && !mutant(11) && transaction.revokes.insert(block) && self.revokes > 0 {
            self.revokes -= 1;
            transaction.revoke_credits -= 1;
        }
        if let Some(entry) = state.entries.get_mut(&block) {
            entry.in_running = false;
        }
        state.drop_if_idle(block);
        Ok(())
    }

    /// T4: more credits, if the transaction is still open and has room. `false`: stop at a consistent point and
    /// restart.
    pub fn extend(&mut self, credits: u32) -> Result<bool> {
        let journal = self.journal.clone();
        let mut state = journal.state.lock();
        self.check()?;
        let transaction = running(&mut state);
        if transaction.locked || journal.sizes.cost(transaction, credits, 0) > journal.sizes.max_log_blocks {
            return Ok(false);
        }
        transaction.credits += credits;
        self.credits += credits;
        Ok(true)
    }

    /// T4: stops and starts again with `credits`, in the next transaction if this one is full. On an error the
    /// handle is stopped.
    pub fn restart(&mut self, credits: u32) -> Result<()> {
        self.stop_now()?;
        let mut next = self.journal.start_again(credits, self.revokes_wanted)?;
        (self.tid, self.credits, self.revokes, self.live) = (next.tid, next.credits, next.revokes, true);
        next.live = false;
        Ok(())
    }

    /// Gives unused credits back. EIO: the journal aborted meanwhile (T29).
    pub fn stop(mut self) -> Result<()> {
        self.stop_now()
    }

    fn stop_now(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.live, false) {
            return Ok(());
        }
        let mut state = self.journal.state.lock();
        // An aborted commit takes the transaction away from its handles.
        if let Some(running) = state.running.as_mut().filter(|running| running.tid == self.tid) {
            running.handles -= 1;
            running.credits -= self.credits;
            running.revoke_credits -= u64::from(self.revokes);
            if running.handles == 0 && !mutant(42) {
                self.journal.changed.notify_all();
            }
        }
        (self.credits, self.revokes) = (0, 0);
        match self.journal.aborted() {
            Some(errno) => Err(Error::Lost { errno }),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<()> {
        assert!(self.live, "a handle is used after a failed restart");
        self.journal.check_live()
    }

    fn credits_exceeded(&self, block: u64) -> Error {
        self.journal.abort(EIO);
        Error::CreditsExceeded { block }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // An abort is latched: whoever waits for the transaction learns of it.
        let _ = self.stop_now();
    }
}

/// The transaction of a live handle.
fn running(state: &mut State) -> &mut Transaction {
    state.running.as_mut().expect("a live handle keeps its transaction running")
}
