//! The nodes from the root to a leaf, read and validated (D4).

use ext4_format::extent::{Entries, Extent, ExtentIndex, Place, ROOT_SIZE, decode_node};
use ext4_format::{Corrupt, Lblk, Pblk};

use super::TreeOwner;
use crate::meta::Meta;
use crate::{Error, Result};

/// A node on a path.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it is; `None`: in the inode.
    pub block: Option<Pblk>,
    /// 0: a leaf.
    pub depth: u16,
    /// eh_max.
    pub max: u16,
    /// What it holds.
    pub entries: Entries,
    /// In an index, the child that the path goes on to.
    pub at: usize,
    /// The key after its parent's: nothing in it reaches this.
    pub end: u64,
}

impl Node {
    pub fn root(root: &[u8; ROOT_SIZE], owner: TreeOwner) -> Result<Self> {
        let place = Place::root(owner.blocks);
        let (header, entries) =
            decode_node(root, place).map_err(|corrupt| Error::corrupt_inode(owner.ino.0, corrupt))?;
        Ok(Self { block: None, depth: header.depth, max: header.max, entries, at: 0, end: place.end })
    }

    /// Reads the child of an index entry; `end` is the next key. EUCLEAN where it lies on the volume's metadata (F27).
    pub fn read(meta: &dyn Meta, owner: TreeOwner, child: ExtentIndex, depth: u16, end: u64) -> Result<Self> {
        if meta.is_system_zone(child.leaf, 1) {
            let corrupt =
                Corrupt::structure("extent tree", format!("points to metadata: block {}", child.leaf));
            return Err(Error::corrupt_inode(owner.ino.0, corrupt));
        }
        let image = meta.read(child.leaf, owner.kind())?;
        let place = Place { depth: Some(depth), first: Some(child.lblk), end, blocks: owner.blocks };
        let (header, entries) =
            decode_node(&image, place).map_err(|corrupt| Error::corrupt_block(child.leaf.0, corrupt))?;
        Ok(Self { block: Some(child.leaf), depth, max: header.max, entries, at: 0, end })
    }

    /// The chosen child of an index.
    fn child(&self) -> Option<(ExtentIndex, u64)> {
        let Entries::Index(children) = &self.entries else { return None };
        let end = children.get(self.at + 1).map_or(self.end, |next| u64::from(next.lblk.0));
        children.get(self.at).map(|child| (*child, end))
    }
}

/// From the root, first, to a leaf, last.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub nodes: Vec<Node>,
}

impl Path {
    /// The path to the leaf that holds `lblk`, or would.
    pub fn find(meta: &dyn Meta, root: &[u8; ROOT_SIZE], owner: TreeOwner, lblk: Lblk) -> Result<Self> {
        let choose =
            |children: &[ExtentIndex]| children.partition_point(|child| child.lblk <= lblk).saturating_sub(1);
        let mut root = Node::root(root, owner)?;
        if let Entries::Index(children) = &root.entries {
            root.at = choose(children);
        }
        Self { nodes: vec![root] }.descend(meta, owner, choose)
    }

    /// The path to the leaf after this one.
    pub fn next_leaf(&self, meta: &dyn Meta, owner: TreeOwner) -> Result<Option<Self>> {
        let has_next =
            |node: &Node| matches!(&node.entries, Entries::Index(children) if node.at + 1 < children.len());
        let Some(fork) = self.nodes.iter().rposition(has_next) else { return Ok(None) };
        let mut nodes = self.nodes[..=fork].to_vec();
        nodes[fork].at += 1;
        Self { nodes }.descend(meta, owner, |_| 0).map(Some)
    }

    /// The path to the leaf before this one.
    pub fn previous_leaf(&self, meta: &dyn Meta, owner: TreeOwner) -> Result<Option<Self>> {
        let has_previous = |node: &Node| matches!(node.entries, Entries::Index(_)) && node.at > 0;
        let Some(fork) = self.nodes.iter().rposition(has_previous) else { return Ok(None) };
        let mut nodes = self.nodes[..=fork].to_vec();
        nodes[fork].at -= 1;
        Self { nodes }.descend(meta, owner, |children| children.len() - 1).map(Some)
    }

    /// Follows the choice of the last node, and then `choose`, down to a leaf. It ends: a child's depth is its parent's
    /// less one, or the child is refused.
    fn descend(
        mut self,
        meta: &dyn Meta,
        owner: TreeOwner,
        choose: impl Fn(&[ExtentIndex]) -> usize,
    ) -> Result<Self> {
        while let Some((child, end)) = self.last().child() {
            let mut node = Node::read(meta, owner, child, self.last().depth - 1, end)?;
            if let Entries::Index(children) = &node.entries {
                node.at = choose(children);
            }
            self.nodes.push(node);
        }
        Ok(self)
    }

    fn last(&self) -> &Node {
        self.nodes.last().expect("a path has a root")
    }

    /// The depth of the tree.
    pub fn depth(&self) -> u16 {
        self.nodes[0].depth
    }

    /// The leaf's extents.
    pub fn extents(&self) -> &[Extent] {
        match &self.last().entries {
            Entries::Leaf(extents) => extents,
            Entries::Index(_) => unreachable!("a path ends in a leaf"),
        }
    }

    /// eh_max of the leaf.
    pub fn leaf_max(&self) -> usize {
        self.last().max.into()
    }

    /// The first key after this leaf; `None` after the last leaf.
    pub fn next_key(&self) -> Option<Lblk> {
        self.nodes.iter().rev().find_map(|node| match &node.entries {
            Entries::Index(children) => children.get(node.at + 1).map(|next| next.lblk),
            Entries::Leaf(_) => None,
        })
    }
}
