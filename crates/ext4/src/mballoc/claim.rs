//! Blocks that a fast commit says are in use (R25).

use std::sync::atomic::Ordering::Relaxed;

use ext4_format::{Group, Pblk};

use super::{Allocator, Run};
use crate::Result;
use crate::meta::Meta;

impl Allocator {
    /// Marks as used what of a run can be allocated; returns what that was. EUCLEAN outside the volume or upon metadata.
    /// Needs two credits per group touched.
    pub(crate) fn claim_run(&self, meta: &mut dyn Meta, start: Pblk, len: u32) -> Result<Vec<Run>> {
        let mut claimed = Vec::new();
        for (group, first, count) in self.parts(start, len)? {
            self.claim_in_group(meta, group, first..first + count, &mut claimed)?;
        }
        Ok(claimed)
    }

    fn claim_in_group(
        &self,
        meta: &mut dyn Meta,
        group: Group,
        clusters: std::ops::Range<u32>,
        claimed: &mut Vec<Run>,
    ) -> Result<()> {
        let slot = self.slot(group);
        let mut state = slot.lock();
        self.load_group(meta, group, &mut state)?;
        let mut at = clusters.start;
        while let Some(first) = state.buddy().next_free(at..clusters.end) {
            let len = state.buddy().run_at(first, clusters.end - first);
            self.change_bits(meta, group, &mut state, (first, len), true)?;
            state.buddy().mark_used(first, len);
            self.free.fetch_sub(len.into(), Relaxed);
            self.unclaimed.fetch_sub(len.into(), Relaxed);
            claimed.push(Run { start: self.block_of(group, first), len: len << self.sb.cluster_bits() });
            at = first + len;
        }
        slot.publish(&state);
        Ok(())
    }
}
