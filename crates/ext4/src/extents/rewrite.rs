//! The one way in which a tree changes: a leaf gets new extents, and its ancestors what follows from that.

use ext4_format::extent::{Entries, Extent, ExtentIndex, MAX_DEPTH, capacity, encode_node};
use ext4_format::{Corrupt, Pblk};

use super::Tree;
use super::path::{Node, Path};
use crate::{Error, Result};

/// A node's new contents.
struct Write {
    block: Pblk,
    depth: u16,
    max: u16,
    entries: Entries,
}

/// What a change will do, once everything it needs is there.
#[derive(Default)]
struct Plan {
    created: Vec<Write>,
    updated: Vec<Write>,
    freed: Vec<Pblk>,
    /// Depth, eh_max and contents, if the root changes.
    root: Option<(u16, u16, Entries)>,
}

impl Tree<'_> {
    /// Replaces the extents of the path's leaf, in order, at most two more than fit it. Splits, frees, grows and
    /// collapses nodes and corrects the ancestors' keys (D5, D6).
    ///
    /// # Errors
    /// Whatever an allocation says; the tree is then unchanged.
    pub(super) fn rewrite_leaf(&mut self, path: Path, extents: Vec<Extent>) -> Result<()> {
        let mut plan = Plan::default();
        let goal = extents.first().map_or(self.owner.goal, |extent| extent.start);
        if let Err(error) = self.plan(path, Entries::Leaf(extents), goal, &mut plan) {
            for write in plan.created {
                self.meta.free_block(write.block, self.owner.ino)?;
            }
            return Err(error);
        }
        self.apply(plan)
    }

    fn plan(&mut self, path: Path, mut entries: Entries, goal: Pblk, plan: &mut Plan) -> Result<()> {
        let mut ancestors = path.nodes;
        while let Some(node) = ancestors.pop() {
            let Some(block) = node.block else {
                return self.plan_root(&node, entries, goal, plan);
            };
            // A node that stays as it is changes nothing above it, unless the leaf fits the root now.
            if node.entries == entries && ancestors.len() > 1 {
                return Ok(());
            }
            let children = self.plan_node(&node, block, entries, goal, plan)?;
            let parent = ancestors.last().expect("a node in a block has a parent");
            entries = with_children(parent, &children);
        }
        Ok(())
    }

    /// Plans one node below the root and returns what its parent points to instead: nothing, itself, or two halves.
    fn plan_node(
        &mut self,
        node: &Node,
        block: Pblk,
        mut entries: Entries,
        goal: Pblk,
        plan: &mut Plan,
    ) -> Result<Vec<ExtentIndex>> {
        let (depth, max) = (node.depth, node.max);
        let Some(lblk) = entries.first_key() else {
            plan.freed.push(block);
            return Ok(Vec::new());
        };
        let mut children = vec![ExtentIndex { lblk, leaf: block }];
        if entries.len() > usize::from(max) {
            let right = entries.split_off(split_point(&node.entries, &entries, max.into()));
            let lblk = right.first_key().expect("more entries than fit the left half");
            children.push(ExtentIndex { lblk, leaf: self.plan_created(depth, right, goal, plan)? });
        }
        plan.updated.push(Write { block, depth, max, entries });
        Ok(children)
    }

    fn plan_root(&mut self, root: &Node, entries: Entries, goal: Pblk, plan: &mut Plan) -> Result<()> {
        if entries.is_empty() {
            plan.root = Some((0, root.max, Entries::Leaf(Vec::new())));
        } else if entries.len() > usize::from(root.max) {
            if root.depth >= MAX_DEPTH {
                let corrupt = Corrupt::structure("extent node", "a tree that would be deeper than 5");
                return Err(Error::corrupt_inode(self.owner.ino.0, corrupt));
            }
            let lblk = entries.first_key().expect("not empty");
            let leaf = self.plan_created(root.depth, entries, goal, plan)?;
            plan.root = Some((root.depth + 1, root.max, Entries::Index(vec![ExtentIndex { lblk, leaf }])));
        } else {
            plan.root = Some((root.depth, root.max, entries));
            self.plan_collapse(root, plan)?;
        }
        Ok(())
    }

    fn plan_created(&mut self, depth: u16, entries: Entries, goal: Pblk, plan: &mut Plan) -> Result<Pblk> {
        let block = self.meta.allocate_block(self.owner.block_owner(goal))?;
        let max = capacity(self.meta.block_size()) as u16;
        plan.created.push(Write { block, depth, max, entries });
        Ok(block)
    }

    /// D5: a single leaf that fits the root goes there.
    fn plan_collapse(&mut self, root: &Node, plan: &mut Plan) -> Result<()> {
        let Some((1, _, Entries::Index(children))) = &plan.root else { return Ok(()) };
        let [child] = children[..] else { return Ok(()) };
        let planned = plan.updated.iter().position(|write| write.block == child.leaf);
        let entries = match planned {
            Some(at) => plan.updated[at].entries.clone(),
            None => Node::read(self.meta, self.owner, child, 0, root.end)?.entries,
        };
        if entries.len() <= usize::from(root.max) {
            plan.updated.retain(|write| write.block != child.leaf);
            plan.freed.push(child.leaf);
            plan.root = Some((0, root.max, entries));
        }
        Ok(())
    }

    fn apply(&mut self, plan: Plan) -> Result<()> {
        let kind = self.owner.kind();
        for Write { block, depth, max, entries } in &plan.created {
            self.meta.create(*block, kind, &mut |node| encode_node(node, *depth, *max, entries))?;
            self.meta_blocks_delta += 1;
        }
        for Write { block, depth, max, entries } in &plan.updated {
            self.meta.update(*block, kind, &mut |node| encode_node(node, *depth, *max, entries))?;
        }
        if let Some((depth, max, entries)) = &plan.root {
            encode_node(self.root, *depth, *max, entries);
        }
        for block in plan.freed {
            self.meta.free_block(block, self.owner.ino)?;
            self.meta_blocks_delta -= 1;
        }
        Ok(())
    }
}

/// The parent's entries with those of `children` in place of the one that the path goes through.
fn with_children(parent: &Node, children: &[ExtentIndex]) -> Entries {
    let Entries::Index(old) = &parent.entries else { unreachable!("a leaf has no children") };
    let mut new = old.clone();
    new.splice(parent.at..=parent.at, children.iter().copied());
    Entries::Index(new)
}

/// How many entries stay in a node that overflows: all that fit, where entries were appended, so that sequential writes
/// leave full nodes; else half of them.
fn split_point(old: &Entries, new: &Entries, max: usize) -> usize {
    let appended = match (old, new) {
        (Entries::Leaf(old), Entries::Leaf(new)) => new.starts_with(old),
        (Entries::Index(old), Entries::Index(new)) => new.starts_with(old),
        _ => false,
    };
    if appended { max } else { new.len().div_ceil(2).min(max) }
}

/// D5: two extents as one, if they are one.
fn merged(left: &Extent, right: &Extent, apart: bool) -> Option<Extent> {
    if apart && left.unwritten {
        return None;
    }
    let touch = left.end() == u64::from(right.lblk.0) && left.start.0 + u64::from(left.len) == right.start.0;
    let len = left.len + right.len;
    (touch && left.unwritten == right.unwritten && len <= Extent::max_len(left.unwritten))
        .then_some(Extent { len, ..*left })
}

/// `extents` with `pieces` in place of those in `range`, merged with each other and with their neighbours; unwritten ones
/// stay `apart`.
pub(super) fn spliced(
    extents: &[Extent],
    range: std::ops::Range<usize>,
    pieces: &[Extent],
    apart: bool,
) -> Vec<Extent> {
    let mut new = extents[..range.start].to_vec();
    let neighbour = extents.get(range.end);
    for piece in pieces.iter().chain(neighbour) {
        match new.last().and_then(|last| merged(last, piece, apart)) {
            Some(both) => *new.last_mut().expect("it merged") = both,
            None => new.push(*piece),
        }
    }
    new.extend(extents.iter().skip(range.end + 1));
    new
}
