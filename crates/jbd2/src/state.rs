//! The journal's maps: which block is in which transaction.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use block_io::sync::Mutex;

use crate::mutant::mutant;
use crate::{Image, SealTag, Stats, Tid};

/// T23: log blocks that are never given to transactions.
pub(crate) const LOG_SPARE: u32 = 32;

/// A block that belongs to the journal.
pub(crate) struct Entry {
    /// What readers see and handles change. The commit shares it, so the first change after a freeze copies (T5b).
    pub current: Arc<Mutex<Image>>,
    pub tag: SealTag,
    pub in_running: bool,
    pub in_committing: bool,
    /// The newest committed image that is not home yet, as it lies in the log (T6).
    pub checkpoint: Option<(Tid, Image)>,
}

impl Entry {
    pub fn new(image: Image, tag: SealTag) -> Self {
        let current = Arc::new(Mutex::new(image));
        Self { current, tag, in_running: false, in_committing: false, checkpoint: None }
    }

    /// Whether nothing keeps the block in the journal.
    pub fn is_idle(&self) -> bool {
        !self.in_running && !self.in_committing && self.checkpoint.is_none()
    }
}

/// The running transaction.
pub(crate) struct Transaction {
    pub tid: Tid,
    pub blocks: HashSet<u64>,
    pub revokes: HashSet<u64>,
    pub forgotten: HashSet<u64>,
    pub handles: u32,
    /// Credits that live handles still hold.
    pub credits: u32,
    /// Revoke records that they may still make.
    pub revoke_credits: u64,
    /// No handle may join: the commit waits for those there are.
    pub locked: bool,
    pub started_ms: u64,
}

impl Transaction {
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.revokes.is_empty() && self.forgotten.is_empty()
    }
}

/// The transaction on its way to the log.
#[derive(Clone, Copy)]
pub(crate) struct Committing {
    pub tid: Tid,
    pub start: u32,
    pub log_blocks: u32,
    /// It is in the log, behind head, and among the committed; its end has not been told yet.
    pub logged: bool,
}

/// A transaction that waits for its checkpoint.
pub(crate) struct Committed {
    pub tid: Tid,
    pub start: u32,
    pub blocks: Vec<u64>,
}

/// Blocks that a transaction takes in the log, and how many it may take.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Blocks in the ring; 0 without a log.
    pub ring: u32,
    /// T2.
    pub max_log_blocks: u32,
    pub tags_per_descriptor: u32,
    pub records_per_revoke_block: u32,
    pub max_credits: u32,
}

impl Sizes {
    /// `most`: log blocks that a transaction may have.
    pub fn new(ring: u32, most: u32, tags_per_descriptor: usize, records_per_revoke_block: usize) -> Self {
        let mut this = Self {
            ring,
            max_log_blocks: most,
            tags_per_descriptor: tags_per_descriptor as u32,
            records_per_revoke_block: records_per_revoke_block as u32,
            max_credits: 0,
        };
        let descriptors = this.max_log_blocks.div_ceil(this.tags_per_descriptor);
        // One commit block and one revoke block.
        this.max_credits = this.max_log_blocks.saturating_sub(descriptors + 2);
        this
    }

    pub fn without_log(max_blocks: u32) -> Self {
        let most = u32::MAX;
        Self {
            ring: 0,
            max_log_blocks: max_blocks,
            tags_per_descriptor: most,
            records_per_revoke_block: most,
            max_credits: max_blocks.saturating_sub(3),
        }
    }

    /// Log blocks of a transaction with so many blocks and revokes.
    pub fn log_blocks(&self, blocks: u64, revokes: u64) -> u32 {
        let descriptors = blocks.div_ceil(u64::from(self.tags_per_descriptor));
        let revoke_blocks = revokes.div_ceil(u64::from(self.records_per_revoke_block));
        (blocks + descriptors + revoke_blocks + 1).try_into().unwrap_or(u32::MAX)
    }

    /// Log blocks that the running transaction may need, with `more` credits and `revokes` more records.
    pub fn cost(&self, transaction: &Transaction, more: u32, revokes: u32) -> u32 {
        let blocks = transaction.blocks.len() as u64 + u64::from(transaction.credits) + u64::from(more);
        let records = transaction.revokes.len() as u64 + transaction.revoke_credits + u64::from(revokes);
        self.log_blocks(blocks, records)
    }
}

pub(crate) struct State {
    pub entries: HashMap<u64, Entry>,
    pub running: Option<Transaction>,
    pub committing: Option<Committing>,
    /// Somebody has the right to commit.
    pub commit_turn: bool,
    /// Oldest first (T1).
    pub committed: VecDeque<Committed>,
    /// The running transaction's id, or what the next one gets.
    pub next_tid: Tid,
    pub last_committed: Tid,
    /// Where the next transaction starts in the log.
    pub head: u32,
    /// What JSB on disk says, or where it will point at the next commit: log blocks from here on are in use.
    pub tail: u32,
    /// No handle may start (T26).
    pub frozen: bool,
    pub last_commit_time: (u64, u32),
    pub stats: Stats,
}

impl State {
    pub fn new(next_tid: Tid, head: u32, last_commit_seconds: u64) -> Self {
        Self {
            entries: HashMap::new(),
            running: None,
            committing: None,
            commit_turn: false,
            committed: VecDeque::new(),
            next_tid,
            last_committed: next_tid.previous(),
            head,
            tail: head,
            frozen: false,
            last_commit_time: (last_commit_seconds, 0),
            stats: Stats::default(),
        }
    }

    /// Log blocks between tail and head.
    pub fn used(&self, sizes: &Sizes) -> u32 {
        if self.head >= self.tail { self.head - self.tail } else { sizes.ring - (self.tail - self.head) }
    }

    fn on_its_way(&self) -> Option<Committing> {
        self.committing.filter(|committing| !committing.logged || mutant(47))
    }

    /// T23: log blocks that the running transaction may use.
    pub fn free(&self, sizes: &Sizes) -> u32 {
        let committing = self.on_its_way().map_or(0, |committing| committing.log_blocks);
        sizes.ring.saturating_sub(self.used(sizes)).saturating_sub(LOG_SPARE).saturating_sub(committing)
    }

    /// T20: where the log starts once the `checkpointed` oldest transactions are home.
    pub fn tail_after(&self, checkpointed: usize) -> (u32, Tid) {
        match (self.committed.get(checkpointed), self.on_its_way()) {
            (Some(oldest), _) => (oldest.start, oldest.tid),
            (None, Some(committing)) => (committing.start, committing.tid),
            (None, None) => (self.head, self.next_tid),
        }
    }

    /// Drops the entry of a block if nothing needs it any more.
    pub fn drop_if_idle(&mut self, block: u64) {
        if self.entries.get(&block).is_some_and(Entry::is_idle) {
            self.entries.remove(&block);
        }
    }
}
