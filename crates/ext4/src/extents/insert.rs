//! D6: a new extent.

use ext4_format::extent::{Extent, MAX_LBLK};

use super::Tree;
use super::path::Path;
use super::rewrite::spliced;
use crate::error::errno;
use crate::{Error, Result};

impl Tree<'_> {
    /// Maps a hole: merges with a neighbour in the leaf, or takes room in the leaf, or in the next one, or splits from the
    /// lowest ancestor with room, or grows the tree. Needs [`super::credits_for_insert`].
    ///
    /// # Errors
    /// EINVAL for an extent that no tree may hold; EEXIST where blocks are mapped already; ENOSPC without room for a node.
    /// The tree is unchanged after each.
    pub fn insert(&mut self, extent: Extent) -> Result<()> {
        extent.check(self.owner.blocks).map_err(|why| Error::refused(errno::EINVAL, why.to_string()))?;
        let path = Path::find(self.meta, self.root, self.owner, extent.lblk)?;
        let extents = path.extents();
        let at = extents.partition_point(|other| other.lblk <= extent.lblk);
        let free_from = at.checked_sub(1).map_or(0, |before| extents[before].end());
        let next = extents.get(at).map(|next| next.lblk).or(path.next_key());
        let free_to = next.map_or(u64::from(MAX_LBLK), |next| u64::from(next.0));
        if u64::from(extent.lblk.0) < free_from || extent.end() > free_to {
            return Err(Error::refused(errno::EEXIST, format!("logical block {} is mapped", extent.lblk)));
        }
        self.touch(&extent);
        let appended = at == extents.len();
        let new = spliced(extents, at..at, &[extent], self.owner.apart);
        if new.len() > path.leaf_max()
            && appended
            && let Some(next) = path.next_leaf(self.meta, self.owner)?
        {
            let new = spliced(next.extents(), 0..0, &[extent], self.owner.apart);
            if new.len() <= next.leaf_max() {
                return self.rewrite_leaf(next, new);
            }
        }
        self.rewrite_leaf(path, new)
    }
}
