//! The inodes of a new volume and the blocks that they own (F29, F40, F42–F44).

use ext4_format::dirent::{self, DirFormat, Dirent, file_type};
use ext4_format::extent::{self, Entries, Extent, ExtentIndex};
use ext4_format::features::{compat, incompat, ro_compat};
use ext4_format::inode::{S_IFDIR, S_IFREG, flags, special};
use ext4_format::{Group, Ino, Inode, Lblk, Pblk, Timestamp, orphan};

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

/// Extents that fit an inode.
const ROOT_ENTRIES: usize = extent::capacity(extent::ROOT_SIZE);

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
        let len = gap.min(u64::from((count - *logical).min(extent::MAX_WRITTEN_LEN))) as u32;
        self.layout.take(start, len.into());
        match extents.last_mut() {
            Some(last)
                if last.start.0 + u64::from(last.len) == start
                    && last.len + len <= extent::MAX_WRITTEN_LEN =>
            {
                last.len += len;
            }
            _ => extents.push(Extent { lblk: Lblk(*logical), len, start: Pblk(start), unwritten: false }),
        }
        *at = start + u64::from(len);
        *logical += len;
        Ok(())
    }

    /// Gives an inode its extents, which fit its root, and its size.
    fn map(&self, inode: &mut Inode, extents: &[Extent]) {
        extent::encode_node(&mut inode.i_block, 0, ROOT_ENTRIES as u16, &Entries::Leaf(extents.to_vec()));
        self.set_mapped(inode, extents, 0);
    }

    fn set_mapped(&self, inode: &mut Inode, extents: &[Extent], tree_blocks: u64) {
        let blocks: u64 = extents.iter().map(|extent| u64::from(extent.len)).sum();
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
        self.files.blocks.push((root_extents[0].start.0, block));
        let first = self.dir_block(lost_and_found, &[(lost_and_found, "."), (special::ROOT, "..")]);
        let empty = self.dir_block(lost_and_found, &[]);
        for extent in lost_extents {
            for offset in 0..extent.len {
                let block = if extent.lblk.0 + offset == 0 { &first } else { &empty };
                self.files.blocks.push((extent.start.0 + u64::from(offset), block.clone()));
            }
        }
        self.add(special::ROOT, root);
        self.add(lost_and_found, lost);
        Ok(())
    }

    /// A directory block with its tail; without entries it is one free entry (F44, F66).
    fn dir_block(&self, dir: Ino, entries: &[(Ino, &str)]) -> Vec<u8> {
        let sb = &self.layout.sb;
        let format = DirFormat {
            block_size: self.block_size() as usize,
            filetype: sb.features().has_incompat(incompat::FILETYPE),
            has_csum: sb.features().has_ro_compat(ro_compat::METADATA_CSUM),
        };
        let mut block = vec![0; format.block_size];
        format.init_leaf(&mut block);
        let mut offset = 0;
        for (index, (ino, name)) in entries.iter().enumerate() {
            let last = index + 1 == entries.len();
            let rec_len = if last { format.records_end() - offset } else { dirent::record_size(name.len()) };
            let name = name.as_bytes();
            format
                .encode(&mut block, &Dirent { offset, rec_len, ino: *ino, file_type: file_type::DIR, name });
            offset += rec_len;
        }
        if format.has_csum {
            dirent::seal_leaf(&mut block, ext4_format::checksum::inode_seed(sb.fs_seed(), dir, 0));
        }
        block
    }

    /// F29.
    fn resize_inode(&mut self) -> Result<()> {
        let sb = self.layout.sb.clone();
        let reserved = u64::from(sb.reserved_gdt_blocks);
        let desc_blocks = u64::from(sb.desc_blocks());
        let goal = 3 + reserved + desc_blocks + u64::from(sb.inode_table_blocks());
        let dind_block = self.take(goal, 1)?[0].start.0;
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
        let per_leaf = extent::capacity(self.block_size() as usize);
        let (mut at, mut logical) = (goal, 0);
        let mut extents: Vec<Extent> = Vec::new();
        let mut leaves: Vec<u64> = Vec::new();
        while logical < count {
            self.take_extent(&mut at, &mut logical, count, &mut extents)?;
            let needed = if extents.len() <= ROOT_ENTRIES { 0 } else { extents.len().div_ceil(per_leaf) };
            while leaves.len() < needed {
                let before = extents[0].start.0 - 1;
                let aligned = extents[0].start.0 == goal && self.layout.used.is_free(before, 1);
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
            let seed = inode.seed(&self.layout.sb, special::JOURNAL);
            let has_csum = self.layout.sb.features().has_ro_compat(ro_compat::METADATA_CSUM);
            let mut children = Vec::new();
            for (leaf, extents) in leaves.iter().zip(extents.chunks(per_leaf)) {
                let mut node = vec![0; self.block_size() as usize];
                extent::encode_node(&mut node, 0, per_leaf as u16, &Entries::Leaf(extents.to_vec()));
                if has_csum {
                    extent::seal_tail(&mut node, seed);
                }
                self.files.blocks.push((*leaf, node));
                children.push(ExtentIndex { lblk: extents[0].lblk, leaf: Pblk(*leaf) });
            }
            extent::encode_node(&mut inode.i_block, 1, ROOT_ENTRIES as u16, &Entries::Index(children));
            self.set_mapped(&mut inode, &extents, leaves.len() as u64);
        }
        self.backup_journal_inode(&inode);
        self.add(special::JOURNAL, inode);

        let log_start = extents[0].start.0;
        self.files.zeros.extend(extents.iter().map(|extent| (extent.start.0, u64::from(extent.len))));
        let mut superblock =
            jbd2::format::create_superblock(self.layout.sb.block_size(), count, self.layout.sb.uuid)?;
        superblock.s_num_fc_blks = params.fast_commit_blocks;
        let mut jsb = vec![0; self.block_size() as usize];
        superblock.encode(&mut jsb);
        self.files.blocks.push((log_start, jsb));
        self.files.journal_start = Some(log_start);
        Ok(())
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
        for extent in extents {
            for block in extent.start.0..extent.start.0 + u64::from(extent.len) {
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
