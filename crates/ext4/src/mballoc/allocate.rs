//! Choosing free clusters (D11) and taking them (D10).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ext4_format::{Corrupt, Group, Ino, Lblk, Pblk};

use super::group::{Slot, UNKNOWN};
use super::preallocation::{LOCALITY_BLOCKS, Preallocation, SMALL_FILE_BLOCKS, normalised_bytes};
use super::{Allocator, Buddy, GroupState};
use crate::error::errno;
use crate::meta::Meta;
use crate::{Error, Result};

/// What blocks are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Contents of a file.
    Data,
    /// The same, out of what [`Allocator::reserve_delayed`] has set aside.
    Delayed,
    /// Extent tree, directory, xattr blocks.
    Metadata,
    /// Extent tree blocks, out of a [`super::SplitClaim`].
    Split,
}

/// A wish for blocks.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Whom they are for.
    pub ino: Ino,
    /// The place in the file, where there is one. With clusters it fixes the place in the cluster (D16).
    pub lblk: Option<Lblk>,
    /// Where they should lie (D11). May be any number.
    pub goal: Pblk,
    /// Blocks at most; not 0.
    pub len: u32,
    /// Blocks at least, in one run; not 0.
    pub min_len: u32,
    /// Preallocation is for data alone.
    pub kind: RequestKind,
    /// D14: unwritten conversion and removal.
    pub may_use_reserve: bool,
    /// D12: set aside what probably follows.
    pub preallocate: bool,
    /// D15: a block-mapped inode.
    pub below_2_32: bool,
}

/// Adjacent blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub start: Pblk,
    /// How many.
    pub len: u32,
}

/// A request in clusters.
#[derive(Debug, Clone, Copy)]
struct Wish {
    goal: (Group, u32),
    /// Clusters to take, at most and at least.
    len: u32,
    min: u32,
    /// Clusters to find: `len` and what is set aside behind it.
    window: u32,
    /// Blocks between the start of the first cluster and the first block (D16).
    lead: u32,
    /// Place in the file, in clusters.
    logical: Option<u64>,
    /// Whether the rest of the window goes to the locality group.
    local: bool,
}

/// D11: what a group must have; each is tried on all groups before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Criterion {
    /// A chunk of the next power of two.
    Buddy,
    /// Runs that are long enough on average.
    AverageFragment,
    /// Enough clusters altogether.
    TotalFree,
    /// Anything.
    Any,
}

const TRIES: u32 = 3;

/// A goal is kept even if only this many clusters follow there.
const GOAL_RUN: u32 = 8;

/// Clusters claimed from the free count, or from what is reserved, for an allocation under way.
struct Claim<'a> {
    pool: &'a AtomicU64,
    clusters: u32,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pool.fetch_add(self.clusters.into(), Relaxed);
    }
}

impl Allocator {
    /// Allocates one run of `min_len` … `len` blocks in this handle. ENOSPC: no such run, or only in the reserve.
    /// Needs two credits.
    pub fn allocate(&self, meta: &mut dyn Meta, request: &Request) -> Result<Run> {
        assert!(request.len > 0 && request.min_len > 0 && request.min_len <= request.len);
        let tried = {
            let _hands = self.hands.read();
            self.try_allocate(meta, request)
        };
        match tried {
            Err(error) if error.errno() == errno::ENOSPC => {
                let _hands = self.hands.write();
                self.try_allocate(meta, request)
            }
            tried => tried,
        }
    }

    fn try_allocate(&self, meta: &mut dyn Meta, request: &Request) -> Result<Run> {
        let mut wish = self.wish(request);
        let mut claim = self.claim(&wish, request)?;
        wish.len = claim.clusters;
        if let Some(run) = self.allocate_preallocated(meta, request, &wish, &mut claim)? {
            return Ok(run);
        }
        for _ in 0..TRIES {
            if let Some(run) = self.search(meta, request, &wish, &mut claim)? {
                return Ok(run);
            }
            wish.window = wish.len;
            if !self.drop_preallocations(None) {
                break;
            }
        }
        Err(Error::errno_only(errno::ENOSPC))
    }

    fn wish(&self, request: &Request) -> Wish {
        let bits = self.sb.cluster_bits();
        let mask = (1u32 << bits) - 1;
        let lead = request.lblk.map_or(0, |lblk| lblk.0 & mask);
        let cpg = self.sb.clusters_per_group;
        let clusters =
            |blocks: u32| (u64::from(lead) + u64::from(blocks)).div_ceil(1 << bits).min(cpg.into()) as u32;
        let len = clusters(request.len);
        let mut wish = Wish {
            goal: self.cluster_of(request.goal).unwrap_or((Group(0), 0)),
            len,
            min: clusters(request.min_len),
            window: len,
            lead,
            logical: request.lblk.map(|lblk| u64::from(lblk.0 >> bits)),
            local: false,
        };
        if let (Some(lblk), true, RequestKind::Data | RequestKind::Delayed) =
            (request.lblk, request.preallocate, request.kind)
        {
            let end = u64::from(lblk.0) + u64::from(request.len);
            wish.local = end <= SMALL_FILE_BLOCKS && !request.below_2_32;
            let blocks = match wish.local {
                true => u64::from(LOCALITY_BLOCKS),
                false => {
                    normalised_bytes(end * u64::from(self.sb.block_size())) / u64::from(self.sb.block_size())
                }
            };
            let window = (blocks >> bits).min(cpg.into()) as u32;
            // Nothing is set aside when space gets short.
            if u64::from(window) * 8 <= self.unclaimed.load(Relaxed) {
                wish.window = window.max(len);
            }
        }
        wish
    }

    /// D14: what is free beyond the reserve, at most `wish.len` and at least `wish.min`.
    fn claim(&self, wish: &Wish, request: &Request) -> Result<Claim<'_>> {
        let (pool, kept) = match request.kind {
            RequestKind::Delayed => (&self.delayed, 0),
            RequestKind::Split => (&self.claimed, 0),
            _ if request.may_use_reserve => (&self.unclaimed, self.condemned.load(Relaxed)),
            _ => (&self.unclaimed, self.kept_clusters(0)),
        };
        let mut clusters = 0;
        let claimed = pool.fetch_update(Relaxed, Relaxed, |free| {
            let usable = free.saturating_sub(kept);
            clusters = usable.min(wish.len.into()) as u32;
            (clusters >= wish.min).then(|| free - u64::from(clusters))
        });
        match claimed {
            Ok(_) => Ok(Claim { pool, clusters }),
            Err(_) => Err(Error::errno_only(errno::ENOSPC)),
        }
    }

    fn allocate_preallocated(
        &self,
        meta: &mut dyn Meta,
        request: &Request,
        wish: &Wish,
        claim: &mut Claim<'_>,
    ) -> Result<Option<Run>> {
        let (Some(logical), RequestKind::Data | RequestKind::Delayed) = (wish.logical, request.kind) else {
            return Ok(None);
        };
        let piece = {
            let mut all = self.preallocations.lock();
            let own = all.take(request.ino, logical, wish.len);
            own.or_else(|| if wish.local { all.take_local(wish.len) } else { None })
        };
        let Some(piece) = piece else { return Ok(None) };
        if piece.len < wish.min {
            self.release(piece.group, piece.start, piece.len);
            return Ok(None);
        }
        let slot = self.slot(piece.group);
        let mut state = slot.lock();
        match self.take(meta, piece.group, &mut state, (piece.start, piece.len), claim) {
            Ok(()) => Ok(Some(self.run(request, wish, piece.group, (piece.start, piece.len)))),
            Err(Error::Corrupt { .. }) => Ok(None),
            Err(error) => {
                drop(state);
                self.release(piece.group, piece.start, piece.len);
                Err(error)
            }
        }
    }

    /// D11.
    fn search(
        &self,
        meta: &mut dyn Meta,
        request: &Request,
        wish: &Wish,
        claim: &mut Claim<'_>,
    ) -> Result<Option<Run>> {
        use Criterion::{Any, AverageFragment, Buddy, TotalFree};
        let (goal_group, goal) = wish.goal;
        let at_goal = |buddy: &super::Buddy| {
            let len = buddy.run_at(goal, wish.window);
            (len >= wish.len.min(GOAL_RUN).max(wish.min)).then_some((goal, len))
        };
        if self.is_allowed(goal_group, request) && self.slot(goal_group).available.load(Relaxed) > 0 {
            let found = self.allocate_in(meta, request, wish, goal_group, &at_goal, claim)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let wide = [(wish.window, Buddy), (wish.window, AverageFragment)];
        let exact = [(wish.len, Buddy), (wish.len, AverageFragment), (wish.len, TotalFree), (wish.len, Any)];
        let skip = if wish.window > wish.len { 0 } else { wide.len() };
        for (len, criterion) in wide.into_iter().skip(skip).chain(exact) {
            for step in 0..self.group_count() {
                let group = Group(
                    ((u64::from(goal_group.0) + u64::from(step)) % u64::from(self.group_count())) as u32,
                );
                if !self.is_allowed(group, request) || !promises(self.slot(group), criterion, len) {
                    continue;
                }
                let near = if step == 0 { goal } else { 0 };
                let pick = |buddy: &super::Buddy| pick(buddy, criterion, len, wish.min, near);
                let found = self.allocate_in(meta, request, wish, group, &pick, claim)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// D15.
    fn is_allowed(&self, group: Group, request: &Request) -> bool {
        let end = self.sb.group_first_block(group).0 + u64::from(self.sb.blocks_in_group(group));
        !request.below_2_32 || end <= 1 << 32
    }

    /// Takes what `pick` chooses in a group, and sets the rest of the window aside.
    fn allocate_in(
        &self,
        meta: &mut dyn Meta,
        request: &Request,
        wish: &Wish,
        group: Group,
        pick: &dyn Fn(&Buddy) -> Option<(u32, u32)>,
        claim: &mut Claim<'_>,
    ) -> Result<Option<Run>> {
        let slot = self.slot(group);
        let mut state = slot.lock();
        match self.load_group(meta, group, &mut state) {
            Ok(()) => {}
            // A damaged group is stepped over, as if it were full; its damage was noted.
            Err(Error::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some((start, found)) = pick(state.buddy()) else { return Ok(None) };
        let len = found.min(wish.len);
        match self.take(meta, group, &mut state, (start, len), claim) {
            Ok(()) => {}
            Err(Error::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        state.buddy().mark_used(start, found);
        slot.publish(&state);
        drop(state);
        if found > len {
            let logical = wish.logical.unwrap_or(0) + u64::from(len);
            self.set_aside(
                request.ino,
                wish,
                Preallocation { logical, group, start: start + len, len: found - len },
            );
        }
        Ok(Some(self.run(request, wish, group, (start, len))))
    }

    fn set_aside(&self, ino: Ino, wish: &Wish, rest: Preallocation) {
        let dropped = match wish.local {
            true => self.preallocations.lock().keep_local(rest).into_iter().collect(),
            false => self.preallocations.lock().keep(ino, rest),
        };
        self.release_all(&dropped);
    }

    /// D10, for clusters that the buddy has free or set aside. Damage condemns the group.
    fn take(
        &self,
        meta: &mut dyn Meta,
        group: Group,
        state: &mut GroupState,
        range: (u32, u32),
        claim: &mut Claim<'_>,
    ) -> Result<()> {
        let (start, len) = range;
        let blocks = u64::from(len) << self.sb.cluster_bits();
        if self.metadata_zone(self.block_of(group, start), blocks) {
            let corrupt = Corrupt::structure("block bitmap", format!("metadata is free at cluster {start}"));
            return Err(self.condemn(group, state, corrupt));
        }
        if !self.disk_bits_are(meta, group, state, range, false)? {
            let corrupt =
                Corrupt::structure("block bitmap", format!("cluster {start} changed under the buddy"));
            return Err(self.condemn(group, state, corrupt));
        }
        self.change_bits(meta, group, state, range, true)?;
        self.free.fetch_sub(len.into(), Relaxed);
        claim.clusters -= len;
        Ok(())
    }

    /// The blocks of clusters taken (D16).
    fn run(&self, request: &Request, wish: &Wish, group: Group, (start, len): (u32, u32)) -> Run {
        let blocks = (u64::from(len) << self.sb.cluster_bits()) - u64::from(wish.lead);
        Run {
            start: Pblk(self.block_of(group, start).0 + u64::from(wish.lead)),
            len: blocks.min(request.len.into()) as u32,
        }
    }
}

/// Whether a look at the group is worth its lock, and perhaps the reading of its bitmap.
fn promises(slot: &Slot, criterion: Criterion, len: u32) -> bool {
    let available = slot.available.load(Relaxed);
    let (largest, fragments) = (slot.largest.load(Relaxed), slot.fragments.load(Relaxed));
    match criterion {
        Criterion::Buddy => available >= len && (largest == UNKNOWN || largest >= order_of(len)),
        Criterion::AverageFragment => {
            available >= len && (fragments == UNKNOWN || available / fragments.max(1) >= len)
        }
        Criterion::TotalFree => available >= len,
        Criterion::Any => available > 0,
    }
}

fn order_of(len: u32) -> u32 {
    len.next_power_of_two().ilog2()
}

/// A run of `min` … `len` clusters.
fn pick(buddy: &Buddy, criterion: Criterion, len: u32, min: u32, near: u32) -> Option<(u32, u32)> {
    if len == 1 {
        let next = buddy.next_free(near.min(buddy.clusters())..buddy.clusters());
        return next.or_else(|| buddy.first_free()).map(|start| (start, 1));
    }
    match criterion {
        Criterion::Buddy => {
            let order = order_of(len);
            buddy.find_chunk(order, near).map(|start| (start, len))
        }
        Criterion::AverageFragment => buddy.find_best(len).filter(|run| run.1 >= len).map(|run| (run.0, len)),
        Criterion::TotalFree | Criterion::Any => {
            buddy.find_best(len).filter(|run| run.1 >= min).map(|run| (run.0, run.1.min(len)))
        }
    }
}
