//! SCAN and REVOKE in one pass: what is between s_start and the end of the log (R3–R8).

use std::collections::HashMap;

use block_io::{AlignedBuf, Device};

use super::unescape;
use crate::format::{
    Checksums, CommitBlock, CommitSum, Header, JournalSuperblock, Layout, TagFlags, block_type, crc32_be,
    feature,
};
use crate::mutant::mutant;
use crate::{Error, LogMap, Result, Tid};

/// A block in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub home: u64,
    pub log_block: u32,
    pub tid: Tid,
    pub escaped: bool,
    pub checksum: u32,
}

/// The complete transactions of a log.
pub(super) struct Scan {
    /// In log order.
    pub copies: Vec<Copy>,
    pub revokes: Vec<(u64, Tid)>,
    /// The first tid that is not completely there.
    pub end: Tid,
    /// Log block after the last commit block.
    pub head: u32,
    pub last_commit_seconds: u64,
}

impl Scan {
    /// A log without a transaction.
    pub fn empty(superblock: &JournalSuperblock) -> Self {
        let ring = superblock.s_first..superblock.ring_end();
        let place = if superblock.s_start == 0 { superblock.s_head } else { superblock.s_start };
        Self {
            copies: Vec::new(),
            revokes: Vec::new(),
            end: Tid(superblock.s_sequence),
            head: if ring.contains(&place) { place } else { superblock.s_first },
            last_commit_seconds: 0,
        }
    }

    /// R9: the copies that no revoke of the same or a later transaction covers.
    pub fn uncovered(&self) -> Vec<Copy> {
        let mut revokes: HashMap<u64, Tid> = HashMap::new();
        for &(block, tid) in &self.revokes {
            revokes.entry(block).and_modify(|latest| *latest = latest.later(tid)).or_insert(tid);
        }
        let covers = |revoke: &Tid, tid: Tid| match mutant(17) {
            true => revoke.is_after(tid),
            false => revoke.is_at_or_after(tid),
        };
        let covered = |copy: &&Copy| revokes.get(&copy.home).is_some_and(|revoke| covers(revoke, copy.tid));
        self.copies.iter().filter(|copy| !covered(copy)).copied().collect()
    }

    /// Takes the last transaction out (R7). The head stays: it may be anywhere outside the log (R16).
    pub fn drop_last(&mut self) {
        let last = self.end.previous();
        self.copies.retain(|copy| copy.tid != last);
        self.revokes.retain(|&(_, tid)| tid != last);
        self.end = last;
    }
}

/// Of the transaction that is being read.
struct Pending {
    copies: Vec<Copy>,
    revokes: Vec<(u64, Tid)>,
    /// A descriptor or revoke tail is wrong: its commit block decides (R5).
    bad_tail: bool,
    /// J19.
    v1_sum: u32,
}

impl Pending {
    fn new() -> Self {
        Self { copies: Vec::new(), revokes: Vec::new(), bad_tail: false, v1_sum: !0 }
    }
}

/// The log on its device.
pub(super) struct Log<'a> {
    device: &'a dyn Device,
    map: &'a LogMap,
    layout: Layout,
    first: u32,
    end: u32,
    start: u32,
    sequence: Tid,
    async_commit: bool,
    /// Blocks after the ring (J22), 0 without fast commits.
    fast_commit_blocks: u32,
}

impl<'a> Log<'a> {
    pub fn new(volume: &'a dyn Device, map: &'a LogMap, superblock: &JournalSuperblock) -> Self {
        Self {
            device: map.device(volume),
            map,
            layout: superblock.layout(),
            first: superblock.s_first,
            end: superblock.ring_end(),
            start: superblock.s_start,
            sequence: Tid(superblock.s_sequence),
            async_commit: superblock.has(feature::INCOMPAT_ASYNC_COMMIT),
            fast_commit_blocks: superblock.fast_commit_blocks(),
        }
    }

    fn after(&self, n: u32) -> u32 {
        if n + 1 >= self.end { self.first } else { n + 1 }
    }

    fn read(&self, log_block: u32, buf: &mut [u8]) -> Result<()> {
        let Some((device_block, _)) = self.map.run(log_block) else {
            return Err(Error::Corrupt(format!("log block {log_block} does not exist")));
        };
        let offset = device_block
            .checked_mul(buf.len() as u64)
            .ok_or_else(|| Error::Corrupt("the log lies outside the device".into()))?;
        self.device.read(offset, buf)?;
        Ok(())
    }

    /// What a copy's home location shall hold.
    pub fn read_copy(&self, copy: &Copy) -> Result<AlignedBuf> {
        let mut block = AlignedBuf::zeroed(self.layout.block_size);
        self.read(copy.log_block, &mut block)?;
        if copy.escaped {
            unescape(&mut block);
        }
        Ok(block)
    }

    /// The tid of a copy whose sum is wrong, if there is one (R6); a later one wins.
    pub fn verify(&self, copies: &[Copy]) -> Result<Option<Tid>> {
        let mut bad: Option<Tid> = None;
        if !self.layout.has_crc32c() {
            return Ok(None);
        }
        let mut block = AlignedBuf::zeroed(self.layout.block_size);
        for copy in copies {
            self.read(copy.log_block, &mut block)?;
            if self.layout.data_sum(copy.tid.0, &block) != copy.checksum {
                // The earliest decides: R7 forgives the last transaction alone.
                bad = Some(bad.map_or(copy.tid, |tid| if tid.is_after(copy.tid) { copy.tid } else { tid }));
            }
        }
        Ok(bad)
    }

    /// Block L + `n`; `None` behind the area.
    pub fn read_fast_commit(&self, n: u32) -> Result<Option<AlignedBuf>> {
        if n >= self.fast_commit_blocks {
            return Ok(None);
        }
        let mut block = AlignedBuf::zeroed(self.layout.block_size);
        self.read(self.end + n, &mut block)?;
        Ok(Some(block))
    }

    /// R2, R3.
    pub fn scan(&self) -> Result<Scan> {
        if !(self.first..self.end).contains(&self.start) {
            return Err(Error::Corrupt(format!("s_start {} lies outside the log", self.start)));
        }
        let mut scan = Scan {
            copies: Vec::new(),
            revokes: Vec::new(),
            end: self.sequence,
            head: self.start,
            last_commit_seconds: 0,
        };
        let mut walk = Walk { position: self.start, visited: 0 };
        let mut pending = Pending::new();
        let mut block = AlignedBuf::zeroed(self.layout.block_size);
        loop {
            self.read(walk.position, &mut block)?;
            let header = match Header::decode(&block) {
                Some(header) if header.tid == scan.end.0 => header,
                _ => return Ok(scan),
            };
            self.step(&mut walk)?;
            match header.kind {
                block_type::DESCRIPTOR => self.descriptor(&block, scan.end, &mut walk, &mut pending)?,
                block_type::REVOKE => {
                    pending.bad_tail |= !self.layout.tail_is_good(&block);
                    // As Linux judges it: at once, whatever becomes of its transaction. No crash leaves it, for the count lies
                    // in one sector with the tid.
                    let Some(blocks) = self.layout.decode_revoke(&block) else {
                        return Err(Error::Invalid(format!("r_count in transaction {}", scan.end)));
                    };
                    pending.revokes.extend(blocks.into_iter().map(|block| (block, scan.end)));
                }
                block_type::COMMIT => {
                    if !self.commit(&block, &walk, &mut pending, &mut scan)? {
                        return Ok(scan);
                    }
                    scan.head = walk.position;
                }
                _ => return Ok(scan),
            }
        }
    }

    /// R4: a crafted ring must not go round for ever.
    fn step(&self, walk: &mut Walk) -> Result<()> {
        walk.position = self.after(walk.position);
        walk.visited += 1;
        if walk.visited > self.end - self.first {
            return Err(Error::Corrupt("the log has no end".into()));
        }
        Ok(())
    }

    fn descriptor(&self, block: &[u8], tid: Tid, walk: &mut Walk, pending: &mut Pending) -> Result<()> {
        pending.bad_tail |= !self.layout.tail_is_good(block);
        let v1 = self.layout.checksums == Checksums::V1;
        let mut data = AlignedBuf::zeroed(if v1 { block.len() } else { 0 });
        if v1 {
            pending.v1_sum = crc32_be(pending.v1_sum, block);
        }
        for tag in self.layout.decode_descriptor(block) {
            if v1 {
                self.read(walk.position, &mut data)?;
                pending.v1_sum = crc32_be(pending.v1_sum, &data);
            }
            pending.copies.push(Copy {
                home: tag.block,
                log_block: walk.position,
                tid,
                escaped: tag.flags.0 & TagFlags::ESCAPED != 0,
                checksum: tag.checksum,
            });
            self.step(walk)?;
        }
        Ok(())
    }

    /// R5. `false`: the log ended before this transaction.
    fn commit(&self, block: &[u8], walk: &Walk, pending: &mut Pending, scan: &mut Scan) -> Result<bool> {
        let seconds = CommitBlock::decode(block).seconds;
        let stale = seconds < scan.last_commit_seconds;
        if pending.bad_tail {
            // R7: a crash can leave this too, in the last transaction only.
            if stale || (self.async_commit && !self.commit_follows(walk, scan.end.next())?) {
                return Ok(false);
            }
            return Err(Error::Checksum(format!("a descriptor or revoke block of transaction {}", scan.end)));
        }
        if CommitBlock::verify(&self.layout, block, pending.v1_sum) == CommitSum::Bad {
            let v1 = self.layout.checksums == Checksums::V1;
            if stale || (self.async_commit && !(v1 && self.commit_follows(walk, scan.end.next())?)) {
                return Ok(false);
            }
            return Err(Error::Corrupt(format!("the commit block of transaction {}", scan.end)));
        }
        let complete = std::mem::replace(pending, Pending::new());
        scan.copies.extend(complete.copies);
        scan.revokes.extend(complete.revokes);
        scan.end = scan.end.next();
        scan.last_commit_seconds = seconds;
        Ok(true)
    }

    /// Whether the log goes on with a commit block of `tid`, whatever its sums say.
    fn commit_follows(&self, walk: &Walk, tid: Tid) -> Result<bool> {
        let mut walk = *walk;
        let mut block = AlignedBuf::zeroed(self.layout.block_size);
        loop {
            self.read(walk.position, &mut block)?;
            let Some(header) = Header::decode(&block).filter(|header| header.tid == tid.0) else {
                return Ok(false);
            };
            self.step(&mut walk)?;
            match header.kind {
                block_type::DESCRIPTOR => {
                    for _ in self.layout.decode_descriptor(&block) {
                        self.step(&mut walk)?;
                    }
                }
                block_type::REVOKE => {}
                kind => return Ok(kind == block_type::COMMIT),
            }
        }
    }

    /// The latest tid that any block of the ring bears, s_sequence or later: what a new transaction must come
    /// after where the log cannot be read in order (J24).
    pub fn latest_tid(&self) -> Result<Tid> {
        let mut latest = self.sequence;
        let mut block = AlignedBuf::zeroed(self.layout.block_size);
        for position in self.first..self.end {
            self.read(position, &mut block)?;
            let Some(Header { tid, .. }) = Header::decode(&block) else { continue };
            // A ring cannot hold more transactions than blocks; data may look like anything.
            if tid.wrapping_sub(self.sequence.0) < self.end - self.first {
                latest = latest.later(Tid(tid));
            }
        }
        Ok(latest)
    }
}

/// Where the scan is.
#[derive(Clone, Copy)]
struct Walk {
    position: u32,
    visited: u32,
}
