//! The inodes of a new volume and the blocks that they own (F29, F40, F42–F44).

use ext4_format::checksum::crc32c;
use ext4_format::features::{compat, incompat, ro_compat};
use ext4_format::inode::{S_IFDIR, S_IFREG, flags, special};
use ext4_format::{Group, Ino, Inode, Pblk, Timestamp, orphan};

use super::layout::Layout;
use super::params::Params;
use crate::error::errno;
use crate::{Error, Result};

/// What the volume's first files are.
#[derive(Default)]
pub(super) struct Files {
    /// In use or reserved, in order of their numbers.
    pub(super) inodes: Vec<(Ino, Inode)>,
    /// Blocks that are not zero.
    pub(super) blocks: Vec<(u64, Vec<u8>)>,
    /// Runs that must read as zeros where `blocks` says nothing else.
    pub(super) zeros: Vec<(u64, u64)>,
    /// First block of the journal.
    pub(super) journal_start: Option<u64>,
}

/// One extent: logical block, physical block, length.
type Extent = (u32, u64, u32);

/// Longest written extent (D3).
const MAX_EXTENT: u64 = 0x8000;
const HEADER_SIZE: usize = 12;
const ENTRY_SIZE: usize = 12;
/// Extents that fit an inode.
const ROOT_ENTRIES: usize = 4;

/// F58: an extent node, root or block.
fn extent_node(node: &mut [u8], max: usize, depth: u16, entries: &[[u8; ENTRY_SIZE]]) {
    assert!(entries.len() <= max);
    node[0..2].copy_from_slice(&0xF30A_u16.to_le_bytes());
    node[2..4].copy_from_slice(&(entries.len() as u16).to_le_bytes());
    node[4..6].copy_from_slice(&(max as u16).to_le_bytes());
    node[6..8].copy_from_slice(&depth.to_le_bytes());
    for (place, entry) in node[HEADER_SIZE..].chunks_exact_mut(ENTRY_SIZE).zip(entries) {
        place.copy_from_slice(entry);
    }
}

fn leaf_entry((logical, physical, len): Extent) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    entry[0..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..6].copy_from_slice(&(len as u16).to_le_bytes());
    entry[6..8].copy_from_slice(&((physical >> 32) as u16).to_le_bytes());
    entry[8..12].copy_from_slice(&(physical as u32).to_le_bytes());
    entry
}

fn index_entry(logical: u32, physical: u64) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    entry[0..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..8].copy_from_slice(&(physical as u32).to_le_bytes());
    entry[8..10].copy_from_slice(&((physical >> 32) as u16).to_le_bytes());
    entry
}

struct Builder<'a> {
    layout: &'a mut Layout,
    now: u64,
    files: Files,
}

/// Places all files and describes their inodes and blocks.
pub(super) fn place(layout: &mut Layout, params: &Params, now: u64) -> Result<Files> {
    let mut builder = Builder { layout, now, files: Files::default() };
    builder.reserved_inodes();
    builder.directories()?;
    if builder.layout.sb.features().has_compat(compat::RESIZE_INODE) {
        builder.resize_inode()?;
    }
    if params.journal_blocks > 0 {
        builder.journal(params)?;
    }
    if params.orphan_blocks > 0 {
        builder.orphan_file(params.orphan_blocks)?;
    }
    let mut files = builder.files;
    files.inodes.sort_by_key(|(ino, _)| *ino);
    Ok(files)
}

impl Builder<'_> {
    fn block_size(&self) -> u64 {
        self.layout.sb.block_size().into()
    }

    fn inode(&self, mode: u16, links: u16) -> Inode {
        let mut inode = Inode::new_in_use(&self.layout.sb);
        let now = Timestamp { sec: self.now as i64, nsec: 0 };
        (inode.atime, inode.ctime, inode.mtime, inode.crtime) = (now, now, now, now);
        inode.mode = mode;
        inode.links_count = links;
        inode
    }

    fn add(&mut self, ino: Ino, inode: Inode) {
        self.files.inodes.push((ino, inode));
    }

    /// F43: 1 has times only; the others that nothing else fills are zero.
    fn reserved_inodes(&mut self) {
        let mut bad = Inode::new(&self.layout.sb);
        let now = Timestamp { sec: self.now as i64, nsec: 0 };
        (bad.atime, bad.ctime, bad.mtime) = (now, now, now);
        self.add(special::BAD, bad);
        let features = self.layout.sb.features();
        for ino in 3..=10 {
            let filled = match Ino(ino) {
                special::RESIZE => features.has_compat(compat::RESIZE_INODE),
                special::JOURNAL => features.has_compat(compat::HAS_JOURNAL),
                _ => false,
            };
            if !filled {
                self.add(Ino(ino), Inode::new(&self.layout.sb));
            }
        }
    }

    /// Takes `count` blocks in the gaps from `goal` on, as extents from logical block 0.
    fn take(&mut self, goal: u64, count: u32) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        let (mut at, mut logical) = (goal, 0);
        while logical < count {
            self.take_extent(&mut at, &mut logical, count, &mut extents)?;
        }
        Ok(extents)
    }

    fn take_extent(
        &mut self,
        at: &mut u64,
        logical: &mut u32,
        count: u32,
        extents: &mut Vec<Extent>,
    ) -> Result<()> {
        let (start, gap) = self.layout.gap_from(*at)?;
        let len = gap.min(u64::from(count - *logical)).min(MAX_EXTENT);
        self.layout.take(start, len);
        match extents.last_mut() {
            Some(last) if last.1 + u64::from(last.2) == start && u64::from(last.2) + len <= MAX_EXTENT => {
                last.2 += len as u32;
            }
            _ => extents.push((*logical, start, len as u32)),
        }
        *at = start + len;
        *logical += len as u32;
        Ok(())
    }

    /// Gives an inode its extents, which fit its root, and its size.
    fn map(&self, inode: &mut Inode, extents: &[Extent]) {
        let entries: Vec<_> = extents.iter().copied().map(leaf_entry).collect();
        extent_node(&mut inode.i_block, ROOT_ENTRIES, 0, &entries);
        self.set_mapped(inode, extents, 0);
    }

    fn set_mapped(&self, inode: &mut Inode, extents: &[Extent], tree_blocks: u64) {
        let blocks: u64 = extents.iter().map(|extent| u64::from(extent.2)).sum();
        inode.flags = flags::EXTENTS;
        inode.size = blocks * self.block_size();
        inode.blocks = (blocks + tree_blocks) * self.block_size() / 512;
    }

    fn directories(&mut self) -> Result<()> {
        let sb = &self.layout.sb;
        let goal = u64::from(sb.first_data_block);
        let lost_and_found = Ino(sb.first_ino());
        let bytes = 16384;
        let count = (bytes / sb.block_size()).clamp(2, 12);

        let root_extents = self.take(goal, 1)?;
        let lost_extents = self.take(goal, count)?;
        if lost_extents.len() > ROOT_ENTRIES {
            return Err(Error::refused(errno::EINVAL, "block groups too small for lost+found"));
        }
        let mut root = self.inode(S_IFDIR | 0o755, 3);
        self.map(&mut root, &root_extents);
        let mut lost = self.inode(S_IFDIR | 0o700, 2);
        self.map(&mut lost, &lost_extents);

        let entries = [(special::ROOT, "."), (special::ROOT, ".."), (lost_and_found, "lost+found")];
        let block = self.dir_block(special::ROOT, &entries);
        self.files.blocks.push((root_extents[0].1, block));
        let first = self.dir_block(lost_and_found, &[(lost_and_found, "."), (special::ROOT, "..")]);
        let empty = self.dir_block(lost_and_found, &[]);
        for (logical, physical, len) in lost_extents {
            for offset in 0..len {
                let block = if logical + offset == 0 { &first } else { &empty };
                self.files.blocks.push((physical + u64::from(offset), block.clone()));
            }
        }
        self.add(special::ROOT, root);
        self.add(lost_and_found, lost);
        Ok(())
    }

    /// A directory block with its tail; without entries it is one free entry (F44, F66).
    fn dir_block(&self, dir: Ino, entries: &[(Ino, &str)]) -> Vec<u8> {
        const ENTRY_HEADER: usize = 8;
        const TAIL_SIZE: usize = 12;
        let sb = &self.layout.sb;
        let has_type = sb.features().has_incompat(incompat::FILETYPE);
        let has_tail = sb.features().has_ro_compat(ro_compat::METADATA_CSUM);
        let size = self.block_size() as usize;
        let end = if has_tail { size - TAIL_SIZE } else { size };
        let mut block = vec![0; size];
        let entries = if entries.is_empty() { &[(Ino(0), "")] } else { entries };
        let mut at = 0;
        for (index, (ino, name)) in entries.iter().enumerate() {
            let last = index + 1 == entries.len();
            let rec_len = if last { end - at } else { (ENTRY_HEADER + name.len()).next_multiple_of(4) };
            block[at..at + 4].copy_from_slice(&ino.0.to_le_bytes());
            // A whole 64 KiB block does not fit 16 bits.
            block[at + 4..at + 6].copy_from_slice(&(rec_len.min(0xFFFF) as u16).to_le_bytes());
            block[at + 6] = name.len() as u8;
            block[at + 7] = if has_type && ino.0 != 0 { 2 } else { 0 };
            block[at + ENTRY_HEADER..at + ENTRY_HEADER + name.len()].copy_from_slice(name.as_bytes());
            at += rec_len;
        }
        if has_tail {
            block[end + 4..end + 6].copy_from_slice(&(TAIL_SIZE as u16).to_le_bytes());
            block[end + 7] = 0xDE;
            let seed = ext4_format::checksum::inode_seed(sb.fs_seed(), dir, 0);
            let sum = crc32c(seed, &block[..end]);
            block[end + 8..].copy_from_slice(&sum.to_le_bytes());
        }
        block
    }

    /// F29.
    fn resize_inode(&mut self) -> Result<()> {
        let sb = self.layout.sb.clone();
        let reserved = u64::from(sb.reserved_gdt_blocks);
        let desc_blocks = u64::from(sb.desc_blocks());
        let goal = 3 + reserved + desc_blocks + u64::from(sb.inode_table_blocks());
        let dind_block = self.take(goal, 1)?[0].1;
        let backups: Vec<Group> = self.layout.groups().skip(1).filter(|group| sb.has_super(*group)).collect();

        let pointers = self.block_size() / 4;
        let put = |block: &mut [u8], slot: u64, pointer: u64| {
            let at = slot as usize * 4;
            block[at..at + 4].copy_from_slice(&(pointer as u32).to_le_bytes());
        };
        let mut dind = vec![0; self.block_size() as usize];
        for k in 0..reserved {
            let primary = sb.super_block().0 + 1 + desc_blocks + k;
            put(&mut dind, (desc_blocks + k) % pointers, primary);
            let mut list = vec![0; self.block_size() as usize];
            for (slot, group) in backups.iter().enumerate().take(pointers as usize) {
                put(&mut list, slot as u64, primary + u64::from(group.0) * u64::from(sb.blocks_per_group));
            }
            if !backups.is_empty() {
                self.files.blocks.push((primary, list));
            }
        }
        self.files.blocks.push((dind_block, dind));

        let mut inode = self.inode(S_IFREG | 0o600, 1);
        const DIND_SLOT: usize = 13;
        inode.i_block[DIND_SLOT * 4..DIND_SLOT * 4 + 4].copy_from_slice(&(dind_block as u32).to_le_bytes());
        inode.size = (pointers * pointers + pointers + 12) * self.block_size();
        inode.blocks = (1 + reserved * (1 + backups.len() as u64)) * self.block_size() / 512;
        self.add(special::RESIZE, inode);
        Ok(())
    }

    /// F40: the group that the journal starts in.
    fn journal_group(&self) -> Group {
        let sb = &self.layout.sb;
        let middle = (sb.blocks_count() - u64::from(sb.first_data_block)) / 2;
        let middle = sb.group_of_block(Pblk(middle)).unwrap_or_default().0;
        let last = sb.group_count() - 1;
        let (mut start, mut group) = (middle.saturating_sub(1), middle);
        if sb.log_groups_per_flex > 0 && middle > sb.groups_per_flex() {
            group = middle & !(sb.groups_per_flex() - 1);
            while group <= last && self.layout.free_in_group(Group(group)) == 0 {
                group += 1;
            }
            group = if group > last { 0 } else { group };
            start = group;
        }
        let candidates = (start..=(group + 1).min(last)).map(Group);
        let mut best = Group(start);
        for candidate in candidates {
            if self.layout.free_in_group(candidate) > self.layout.free_in_group(best) {
                best = candidate;
            }
        }
        best
    }

    fn journal(&mut self, params: &Params) -> Result<()> {
        let count = params.journal_blocks + params.fast_commit_blocks;
        let goal = self.layout.sb.group_first_block(self.journal_group()).0;
        let per_leaf = (self.block_size() as usize - HEADER_SIZE) / ENTRY_SIZE;
        let (mut at, mut logical) = (goal, 0);
        let mut extents: Vec<Extent> = Vec::new();
        let mut leaves: Vec<u64> = Vec::new();
        while logical < count {
            self.take_extent(&mut at, &mut logical, count, &mut extents)?;
            let needed = if extents.len() <= ROOT_ENTRIES { 0 } else { extents.len().div_ceil(per_leaf) };
            while leaves.len() < needed {
                let before = extents[0].1 - 1;
                let aligned = extents[0].1 == goal && self.layout.used.is_free(before, 1);
                let block = if aligned && before > 0 { before } else { self.layout.gap_from(at)?.0 };
                self.layout.take(block, 1);
                leaves.push(block);
            }
        }
        if leaves.len() > ROOT_ENTRIES {
            return Err(Error::refused(errno::EINVAL, "block groups too small for the journal"));
        }

        let mut inode = self.inode(S_IFREG | 0o600, 1);
        if leaves.is_empty() {
            self.map(&mut inode, &extents);
        } else {
            let mut index = Vec::new();
            for (leaf, extents) in leaves.iter().zip(extents.chunks(per_leaf)) {
                let entries: Vec<_> = extents.iter().copied().map(leaf_entry).collect();
                let mut node = vec![0; self.block_size() as usize];
                extent_node(&mut node, per_leaf, 0, &entries);
                self.seal_leaf(&mut node, per_leaf);
                self.files.blocks.push((*leaf, node));
                index.push(index_entry(extents[0].0, *leaf));
            }
            extent_node(&mut inode.i_block, ROOT_ENTRIES, 1, &index);
            self.set_mapped(&mut inode, &extents, leaves.len() as u64);
        }
        self.backup_journal_inode(&inode);
        self.add(special::JOURNAL, inode);

        let log_start = extents[0].1;
        self.files.zeros.extend(extents.iter().map(|extent| (extent.1, u64::from(extent.2))));
        let jsb = super::journal::superblock(&self.layout.sb, count, params.fast_commit_blocks);
        self.files.blocks.push((log_start, jsb));
        self.files.journal_start = Some(log_start);
        Ok(())
    }

    /// D2.
    fn seal_leaf(&self, node: &mut [u8], max: usize) {
        if self.layout.sb.features().has_ro_compat(ro_compat::METADATA_CSUM) {
            let tail = HEADER_SIZE + max * ENTRY_SIZE;
            let seed = ext4_format::checksum::inode_seed(self.layout.sb.fs_seed(), special::JOURNAL, 0);
            let sum = crc32c(seed, &node[..tail]);
            node[tail..tail + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// J27.
    fn backup_journal_inode(&mut self, inode: &Inode) {
        let sb = &mut self.layout.sb;
        sb.journal_inum = special::JOURNAL.0;
        sb.jnl_backup_type = 1;
        for (word, bytes) in sb.jnl_blocks.iter_mut().zip(inode.i_block.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        }
        sb.jnl_blocks[15] = (inode.size >> 32) as u32;
        sb.jnl_blocks[16] = inode.size as u32;
    }

    /// F42, O2.
    fn orphan_file(&mut self, count: u32) -> Result<()> {
        let ino = Ino(self.layout.sb.first_ino() + 1);
        let extents = self.take(u64::from(self.layout.sb.first_data_block), count)?;
        if extents.len() > ROOT_ENTRIES {
            return Err(Error::refused(errno::EINVAL, "block groups too small for the orphan file"));
        }
        let mut inode = self.inode(S_IFREG | 0o600, 1);
        self.map(&mut inode, &extents);
        let seed = inode.seed(&self.layout.sb, ino);
        let has_csum = self.layout.sb.features().has_ro_compat(ro_compat::METADATA_CSUM);
        for (_, physical, len) in extents {
            for block in physical..physical + u64::from(len) {
                let mut bytes = vec![0; self.block_size() as usize];
                orphan::init(&mut bytes);
                if has_csum {
                    orphan::seal(&mut bytes, seed, Pblk(block));
                }
                self.files.blocks.push((block, bytes));
            }
        }
        self.layout.sb.orphan_file_inum = ino.0;
        self.add(ino, inode);
        Ok(())
    }
}
