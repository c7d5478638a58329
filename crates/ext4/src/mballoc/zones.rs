//! F27: the blocks that are never data.

use ext4_format::{Corrupt, Group, GroupDesc, Superblock, bitmap};

/// Sorted, disjoint runs of metadata blocks, `start..end`.
#[derive(Debug, Default)]
pub(crate) struct SystemZones {
    runs: Vec<(u64, u64)>,
}

impl SystemZones {
    /// Those that follow from superblock and descriptors. Two structures in one block: EUCLEAN.
    pub fn of_volume(sb: &Superblock, descs: &[GroupDesc]) -> Result<Self, Corrupt> {
        let mut runs = Vec::with_capacity(descs.len() * 4);
        for (index, desc) in descs.iter().enumerate() {
            let group = Group(index as u32);
            let start = sb.group_first_block(group).0;
            let own = u64::from(sb.super_and_desc_blocks(group)).min(u64::from(sb.blocks_in_group(group)));
            if own > 0 {
                runs.push((start, start + own));
            }
            runs.push((desc.block_bitmap, desc.block_bitmap + 1));
            runs.push((desc.inode_bitmap, desc.inode_bitmap + 1));
            runs.push((desc.inode_table, desc.inode_table + u64::from(sb.inode_table_blocks())));
        }
        runs.sort_unstable();
        if let Some(pair) = runs.windows(2).find(|pair| pair[1].0 < pair[0].1) {
            let detail = format!("metadata of groups overlaps at block {}", pair[1].0);
            return Err(Corrupt::structure("group descriptors", detail));
        }
        let mut zones = Self { runs };
        zones.merge();
        Ok(zones)
    }

    /// Adds a run, which may overlap others.
    pub fn add(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.runs.push((start, start.saturating_add(len)));
            self.runs.sort_unstable();
            self.merge();
        }
    }

    fn merge(&mut self) {
        self.runs.dedup_by(|next, run| {
            let joins = next.0 <= run.1;
            if joins {
                run.1 = run.1.max(next.1);
            }
            joins
        });
    }

    /// The runs that touch a range of blocks.
    fn touching(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.runs.partition_point(|run| run.1 <= start);
        self.runs[first..].iter().copied().take_while(move |run| run.0 < end)
    }

    /// Whether a range of blocks touches metadata.
    pub fn overlap(&self, start: u64, len: u64) -> bool {
        self.touching(start, start.saturating_add(len)).next().is_some()
    }

    /// F20: the bitmap of a group that is BLOCK_UNINIT.
    pub fn derive_bitmap(&self, sb: &Superblock, group: Group) -> Vec<u8> {
        let mut bits = vec![0; sb.block_size() as usize];
        let first = sb.group_first_block(group).0;
        let end = first + u64::from(sb.blocks_in_group(group));
        for (from, to) in self.touching(first, end) {
            let start = (from.max(first) - first) as u32 >> sb.cluster_bits();
            let after = ((to.min(end) - first) as u32).div_ceil(1 << sb.cluster_bits());
            bitmap::set_range(&mut bits, start, after - start);
        }
        bitmap::set_padding(&mut bits, sb.clusters_in_group(group));
        bits
    }
}
