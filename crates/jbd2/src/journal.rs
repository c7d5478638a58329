//! The journal of a mounted volume: opening, starting handles, looking up blocks, aborting.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use block_io::sync::{Condvar, Mutex};
use block_io::{AlignedBuf, Device};

use crate::error::ESHUTDOWN;
use crate::format::{JournalSuperblock, Layout, feature};
use crate::handle::Handle;
use crate::mutant::mutant;
use crate::state::{LOG_SPARE, Sizes, State, Transaction};
use crate::{Config, Error, Features, Host, Image, LogMap, Result, Stats, Tid};

/// The journal superblock, with the rest of its block.
pub(crate) struct SuperblockBuffer {
    pub superblock: JournalSuperblock,
    pub block: AlignedBuf,
}

/// What a journal with a log has beyond one without.
pub(crate) struct Log {
    /// The volume's, or its own (J28).
    pub device: Arc<dyn Device>,
    pub map: LogMap,
    pub layout: Layout,
    /// First block of the ring and the one after its last (J21).
    pub first: u32,
    pub end: u32,
    pub fast_commit: bool,
    pub superblock: Mutex<SuperblockBuffer>,
}

impl Log {
    /// The log block after `n` (J21).
    pub fn after(&self, n: u32) -> u32 {
        let end = if mutant(25) { self.end - 1 } else { self.end };
        if n + 1 >= end { self.first } else { n + 1 }
    }

    /// The device block of log block `n`.
    pub fn device_block(&self, n: u32) -> u64 {
        self.map.run(n).expect("the map covers s_maxlen").0
    }
}

/// A journal. Shared by threads; nothing in it starts one.
///
/// Lock order: commit turn → `home` → superblock → `state` → an entry's bytes.
pub struct Journal {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) block_size: usize,
    pub(crate) config: Config,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) log: Option<Log>,
    pub(crate) sizes: Sizes,
    pub(crate) state: Mutex<State>,
    /// The positive errno of the abort, 0 while the journal lives. Set with `state` locked, for those who wait to see it.
    aborted: AtomicI32,
    /// A handle stopped, a transaction switched, a commit, its turn or a checkpoint ended, or the journal aborted.
    pub(crate) changed: Condvar,
    /// Held while blocks are written home: a commit that forgets blocks waits for it (T8).
    pub(crate) home: Mutex<()>,
}

impl Journal {
    /// Attaches to a journal that is clean or was just recovered. Writes nothing but zeros into the first
    /// block of the fast-commit area (J29); features go to disk with the first commit (J8).
    ///
    /// EINVAL, EBADMSG: J7. EUCLEAN: not clean.
    pub fn open(
        device: Arc<dyn Device>,
        block_size: usize,
        map: LogMap,
        features: Features,
        config: Config,
        host: Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        let (mut superblock, block) = read_superblock(&*device, block_size, &map)?;
        if superblock.s_start != 0 {
            return Err(Error::Corrupt("the journal needs recovery".into()));
        }
        superblock.set_features(features)?;
        let (first, end) = (superblock.s_first, superblock.ring_end());
        // J23; s_head may lie in what is now the fast-commit area (J29).
        let head = if (first..end).contains(&superblock.s_head) { superblock.s_head } else { first };
        let (head, next_tid) = match mutant(24) {
            true => (first, Tid(1)),
            false => (head, Tid(superblock.s_sequence).next()),
        };
        let this = Self::attach(
            (device, block_size),
            map,
            (superblock, block),
            (head, next_tid),
            (config, host),
            None,
        )?;
        this.void_fast_commits()?;
        Ok(this)
    }

    /// J29: zeroes the first block of the fast-commit area, durable with the first commit.
    fn void_fast_commits(&self) -> Result<()> {
        let Some(log) = self.log.as_ref().filter(|log| log.fast_commit && log.end + 1 < log.map.len()) else {
            return Ok(());
        };
        let offset = log.device_block(log.end + 1) * self.block_size as u64;
        log.device.write(offset, &AlignedBuf::zeroed(self.block_size), false)?;
        Ok(())
    }

    /// For [`crate::recovery::commit_fast`]: a log that recovery left with nothing in it but not empty (s_start ≠ 0), as it
    /// is; one transaction may fill it.
    pub(crate) fn open_left_open(
        device: Arc<dyn Device>,
        block_size: usize,
        map: LogMap,
        config: Config,
        host: Arc<dyn Host>,
    ) -> Result<Arc<Self>> {
        let (superblock, block) = read_superblock(&*device, block_size, &map)?;
        let place = (superblock.s_start, Tid(superblock.s_sequence));
        if !(superblock.s_first..superblock.ring_end()).contains(&place.0) {
            return Err(Error::Corrupt("s_start lies outside the log".into()));
        }
        let most = (superblock.ring_end() - superblock.s_first).saturating_sub(LOG_SPARE);
        Self::attach((device, block_size), map, (superblock, block), place, (config, host), Some(most))
    }

    /// `place`: where the next transaction starts, and its tid. `most`: log blocks that it may have (T2).
    fn attach(
        (device, block_size): (Arc<dyn Device>, usize),
        map: LogMap,
        (superblock, block): (JournalSuperblock, AlignedBuf),
        (head, next_tid): (u32, Tid),
        (config, host): (Config, Arc<dyn Host>),
        most: Option<u32>,
    ) -> Result<Arc<Self>> {
        let (first, end) = (superblock.s_first, superblock.ring_end());
        let layout = superblock.layout();
        let most = most.unwrap_or((end - first) / 4);
        let records = layout.records_per_revoke_block();
        let sizes = Sizes::new(end - first, most, layout.tags_per_descriptor(), records);
        if sizes.max_credits == 0 {
            return Err(Error::Invalid("too short".into()));
        }
        let fast_commit = superblock.has(feature::INCOMPAT_FAST_COMMIT);
        let superblock = Mutex::new(SuperblockBuffer { superblock, block });
        let log_device = map.shared_device(&device);
        let log = Log { device: log_device, map, layout, first, end, fast_commit, superblock };
        let state = State::new(next_tid, head, config.last_commit_seconds);
        Ok(Self::assemble(device, block_size, config, host, Some(log), sizes, state))
    }

    /// A journal without a log: a commit seals the transaction's blocks, writes them home and flushes; the space
    /// freed in it is usable after that. Handles and transactions are the same.
    pub fn without_log(
        device: Arc<dyn Device>,
        block_size: usize,
        config: Config,
        host: Arc<dyn Host>,
    ) -> Arc<Self> {
        let sizes = Sizes::without_log(config.max_blocks_without_log);
        let state = State::new(Tid(1), 0, 0);
        Self::assemble(device, block_size, config, host, None, sizes, state)
    }

    fn assemble(
        device: Arc<dyn Device>,
        block_size: usize,
        config: Config,
        host: Arc<dyn Host>,
        log: Option<Log>,
        sizes: Sizes,
        state: State,
    ) -> Arc<Self> {
        Arc::new(Self {
            device,
            block_size,
            config,
            host,
            log,
            sizes,
            state: Mutex::new(state),
            aborted: AtomicI32::new(0),
            changed: Condvar::new(),
            home: Mutex::new(()),
        })
    }

    /// Whether there is a log.
    pub fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The most credits that a handle can have (T3).
    pub fn max_transaction_credits(&self) -> u32 {
        self.sizes.max_credits
    }

    /// Counters since the journal was opened.
    pub fn stats(&self) -> Stats {
        self.state.lock().stats
    }

    /// T3. Waits for a transaction with room and for log space; commits and checkpoints in the caller's thread for
    /// it, so the caller holds no handle and no lock that a handle's owner may wait for.
    ///
    /// ENOSPC: more than a transaction may have. EROFS: aborted. EBUSY: frozen.
    pub fn start(self: &Arc<Self>, credits: u32) -> Result<Handle> {
        self.start_revoking(credits, 0)
    }

    /// The same for a handle that forgets up to `revokes` blocks: the log has room for their records too (T3).
    pub fn start_revoking(self: &Arc<Self>, credits: u32, revokes: u32) -> Result<Handle> {
        self.start_waiting(credits, revokes, Wait::Open)
    }

    /// For the rest of an operation that has begun: waits for the thaw too (T26).
    pub(crate) fn start_again(self: &Arc<Self>, credits: u32, revokes: u32) -> Result<Handle> {
        self.start_waiting(credits, revokes, Wait::EvenFrozen)
    }

    fn start_waiting(self: &Arc<Self>, credits: u32, revokes: u32, wait: Wait) -> Result<Handle> {
        loop {
            match self.join(credits, revokes, wait)? {
                Join::Joined(handle) => return Ok(handle),
                Join::Full(tid) => match self.commit(tid) {
                    // The loop says why the journal takes no more handles.
                    Ok(_) | Err(Error::Lost { .. }) => {}
                    Err(error) => return Err(error),
                },
                Join::NoLogSpace => self.make_log_space()?,
                Join::Locked => {}
            }
        }
    }

    /// The same where nothing has to be waited for; else `None`.
    pub fn try_start(self: &Arc<Self>, credits: u32) -> Result<Option<Handle>> {
        match self.join(credits, 0, Wait::Never)? {
            Join::Joined(handle) => Ok(Some(handle)),
            Join::Full(_) | Join::NoLogSpace | Join::Locked => Ok(None),
        }
    }

    fn join(self: &Arc<Self>, credits: u32, revokes: u32, wait: Wait) -> Result<Join> {
        let maximum = self.sizes.max_credits;
        let blocks = self.sizes.log_blocks(credits.into(), revokes.into());
        if credits > maximum || blocks > self.sizes.max_log_blocks {
            return Err(Error::TooManyCredits { credits, maximum });
        }
        let mut state = self.state.lock();
        self.check_live()?;
        if state.frozen {
            if wait == Wait::EvenFrozen {
                self.changed.wait(&mut state);
                return Ok(Join::Locked);
            }
            return Err(Error::Frozen);
        }
        if let Some(running) = &state.running {
            if running.locked {
                if wait != Wait::Never {
                    self.changed.wait(&mut state);
                }
                return Ok(Join::Locked);
            }
            if self.sizes.cost(running, credits, revokes) > self.sizes.max_log_blocks {
                return Ok(Join::Full(running.tid));
            }
        }
        if self.log.is_some() && state.free(&self.sizes) < self.sizes.max_log_blocks {
            return Ok(Join::NoLogSpace);
        }
        let tid = state.next_tid;
        let running = state.running.get_or_insert_with(|| Transaction {
            tid,
            blocks: Default::default(),
            revokes: Default::default(),
            forgotten: Default::default(),
            handles: 0,
            credits: 0,
            revoke_credits: 0,
            locked: false,
            started_ms: self.now_ms(),
        });
        running.handles += 1;
        running.credits += credits;
        running.revoke_credits += u64::from(revokes);
        state.stats.handles += 1;
        Ok(Join::Joined(Handle::new(self.clone(), tid, credits, revokes)))
    }

    /// The current image of a block that belongs to the journal: in a transaction, or awaiting its checkpoint.
    pub fn lookup(&self, block: u64) -> Option<Image> {
        let current = self.state.lock().entries.get(&block)?.current.clone();
        let image = current.lock().clone();
        Some(image)
    }

    /// The running transaction, if there is one.
    pub fn running_tid(&self) -> Option<Tid> {
        self.state.lock().running.as_ref().map(|running| running.tid)
    }

    /// The running transaction's id, or what the next one gets.
    pub fn next_tid(&self) -> Tid {
        self.state.lock().next_tid
    }

    /// The newest transaction that any change so far can be part of: the running, else the committing, else the last
    /// durable one. What a change of unknown age has to wait for (T24).
    pub fn newest_tid(&self) -> Tid {
        let state = self.state.lock();
        let running = state.running.as_ref().map(|running| running.tid);
        running.or(state.committing.map(|committing| committing.tid)).unwrap_or(state.last_committed)
    }

    /// The last transaction that is durable.
    pub fn last_committed(&self) -> Tid {
        self.state.lock().last_committed
    }

    /// Whether every block of `tid` is at home, and a recovery would not write it there again.
    pub fn is_checkpointed(&self, tid: Tid) -> bool {
        let state = self.state.lock();
        state.last_committed.is_at_or_after(tid)
            && state.committed.front().is_none_or(|oldest| oldest.tid.is_after(tid))
    }

    /// The positive errno of the abort, if there was one.
    pub fn aborted(&self) -> Option<i32> {
        Some(self.aborted.load(Ordering::Acquire)).filter(|errno| *errno != 0)
    }

    /// Whether it is between a freeze and its thaw.
    pub fn is_frozen(&self) -> bool {
        self.state.lock().frozen
    }

    /// Whether it was shut down ([`Journal::shut_down`]).
    pub fn is_shut_down(&self) -> bool {
        self.aborted() == Some(ESHUTDOWN)
    }

    /// T29: no more log, commit or tail writes; the running transaction is lost. The first errno (positive) wins; it
    /// is written to s_errno as far as that works.
    pub fn abort(&self, errno: i32) {
        {
            let _waiters_look = self.state.lock();
            if self.aborted().is_some() {
                return;
            }
            // 0 would be no abort.
            self.aborted.store(errno.max(1), Ordering::Release);
            self.changed.notify_all();
        }
        if let Some(log) = &self.log {
            let mut buffer = log.superblock.lock();
            buffer.superblock.s_errno = -errno;
            // The abort is in force, whatever becomes of this write.
            let _ = self.write_superblock(log, &mut buffer, true);
        }
        self.host.aborted(errno);
    }

    /// s_errno: 0, or the negative errno of an abort, in an earlier mount too.
    pub fn recorded_errno(&self) -> i32 {
        self.log.as_ref().map_or(0, |log| log.superblock.lock().superblock.s_errno)
    }

    /// R15: s_errno is 0 again, durably. The volume has noted that there was an abort.
    pub fn clear_errno(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut buffer = log.superblock.lock();
        self.check_live()?;
        buffer.superblock.s_errno = 0;
        let written = self.write_superblock(log, &mut buffer, true);
        drop(buffer);
        self.abort_on_error(written)
    }

    /// T28: no more writes, as after an abort, but it is nobody's fault: s_errno becomes 0, also where an abort came
    /// before. Calls fail with EIO from here on.
    pub fn shut_down(&self) {
        {
            let _waiters_look = self.state.lock();
            if self.is_shut_down() {
                return;
            }
            self.aborted.store(ESHUTDOWN, Ordering::Release);
            self.changed.notify_all();
        }
        if let Some(log) = &self.log {
            let mut buffer = log.superblock.lock();
            buffer.superblock.s_errno = 0;
            // The shutdown is in force, whatever becomes of this write.
            let _ = self.write_superblock(log, &mut buffer, true);
        }
    }

    /// Aborts on any error but those of an abort before it.
    pub(crate) fn abort_on_error<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && !matches!(error, Error::Aborted { .. } | Error::Lost { .. } | Error::Frozen)
        {
            self.abort(error.errno());
        }
        result
    }

    /// Flushes the volume's device (T24 (3)). A failure aborts: the first failed flush is the last.
    pub fn flush_device(&self) -> Result<()> {
        self.check_live()?;
        self.abort_on_error(self.flush())
    }

    /// Flushes the volume's device.
    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.device.flush()?)
    }

    /// Writes JSB's block as `buffer` has it. T22: FUA, but for T15.1.
    pub(crate) fn write_superblock(&self, log: &Log, buffer: &mut SuperblockBuffer, fua: bool) -> Result<()> {
        let SuperblockBuffer { superblock, block } = buffer;
        superblock.encode(block);
        let offset = log.device_block(log.map.superblock()) * self.block_size as u64;
        log.device.write(offset, block, fua)?;
        Ok(())
    }

    pub(crate) fn check_live(&self) -> Result<()> {
        match self.aborted() {
            Some(errno) => Err(Error::Aborted { errno }),
            None => Ok(()),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.host.elapsed_ms()
    }
}

/// What an attempt to join waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing.
    Never,
    /// A locked transaction.
    Open,
    /// A frozen journal too.
    EvenFrozen,
}

/// How an attempt to join the running transaction ended.
enum Join {
    Joined(Handle),
    Full(Tid),
    NoLogSpace,
    Locked,
}

/// Reads and checks JSB (J7, J28).
pub(crate) fn read_superblock(
    device: &dyn Device,
    block_size: usize,
    map: &LogMap,
) -> Result<(JournalSuperblock, AlignedBuf)> {
    assert!((JournalSuperblock::SIZE..=65536).contains(&block_size));
    let Some((device_block, _)) = map.run(map.superblock()) else {
        return Err(Error::Corrupt("the log is empty".into()));
    };
    let offset = device_block
        .checked_mul(block_size as u64)
        .ok_or_else(|| Error::Corrupt("the log lies outside the device".into()))?;
    let mut block = AlignedBuf::zeroed(block_size);
    map.device(device).read(offset, &mut block)?;
    let superblock = JournalSuperblock::decode(&block, block_size as u32, map.len())?;
    if let Some(user) = map.user() {
        if superblock.s_first <= map.superblock() {
            return Err(Error::Invalid("s_first lies before the superblock".into()));
        }
        if superblock.s_nr_users != 1 || superblock.first_user() != user {
            return Err(Error::Invalid("the journal of another volume, or of several".into()));
        }
    }
    Ok((superblock, block))
}
