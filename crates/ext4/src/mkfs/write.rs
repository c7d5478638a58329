//! Counting what was laid out, and bringing it to the device.

use std::collections::BTreeMap;

use block_io::Device;
use ext4_format::{Group, Ino, Superblock, bg, bitmap, inode};

use super::files::Files;
use super::layout::Layout;
use crate::Result;

/// Writes blocks; leaves out zeros where the device has them already.
pub(super) struct Writer<'a> {
    pub(super) device: &'a dyn Device,
    pub(super) block_size: usize,
    pub(super) assume_zeroed: bool,
    pub(super) bytes_written: u64,
}

impl Writer<'_> {
    const CHUNK: u64 = 1 << 20;

    fn write(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        self.bytes_written += bytes.len() as u64;
        Ok(self.device.write(offset_bytes, bytes, false)?)
    }

    fn block(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        assert!(bytes.len().is_multiple_of(self.block_size));
        if self.assume_zeroed && bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        self.write(block * self.block_size as u64, bytes)
    }

    fn zero(&mut self, block: u64, len: u64) -> Result<()> {
        if self.assume_zeroed {
            return Ok(());
        }
        let zeros = vec![0; (len * self.block_size as u64).min(Self::CHUNK) as usize];
        let (mut at, end) = (block * self.block_size as u64, (block + len) * self.block_size as u64);
        while at < end {
            let chunk = (end - at).min(zeros.len() as u64);
            self.write(at, &zeros[..chunk as usize])?;
            at += chunk;
        }
        Ok(())
    }
}

/// Fills in counts, flags and bitmap checksums; returns the bitmaps to write.
pub(super) fn account(layout: &mut Layout, files: &Files, tables_zeroed: bool) -> Vec<(u64, Vec<u8>)> {
    let mut bitmaps = Vec::new();
    let sb = layout.sb.clone();
    let block_size = sb.block_size() as usize;
    let uninit = sb.features().has_group_checksum();
    let (mut free_blocks, mut free_inodes, mut overhead) = (0, 0, u64::from(sb.first_data_block));
    for group in layout.groups() {
        let ipg = sb.inodes_per_group;
        let first_ino = group.0 * ipg + 1;
        let inside = |ino: &Ino| (first_ino..first_ino + ipg).contains(&ino.0);
        let mine: Vec<_> = files.inodes.iter().filter(|(ino, _)| inside(ino)).collect();
        let free_clusters = layout.free_in_group(group);
        let touched = layout.touched[group.0 as usize] || !mine.is_empty();
        let (first, end) = layout.group_range(group);
        let desc = &mut layout.descs[group.0 as usize];
        desc.free_clusters = free_clusters;
        desc.free_inodes = ipg - mine.len() as u32;
        desc.used_dirs = mine.iter().filter(|(_, inode)| inode.is_dir()).count() as u32;
        desc.flags = if tables_zeroed { bg::ITABLE_ZEROED } else { 0 };
        if uninit {
            let used_part = mine.last().map_or(0, |(ino, _)| ino.0 - first_ino + 1);
            desc.itable_unused = ipg - used_part;
            desc.flags |= if mine.is_empty() { bg::INODE_UNINIT } else { 0 };
            desc.flags |= if touched { 0 } else { bg::BLOCK_UNINIT };
        }
        if !desc.has_flag(&sb, bg::BLOCK_UNINIT) {
            let mut bits = vec![0; block_size];
            for (start, len) in layout.used.within(first, end) {
                bitmap::set_range(&mut bits, (start - first) as u32, len as u32);
            }
            bitmap::set_padding(&mut bits, (end - first) as u32);
            desc.set_block_bitmap_csum(&sb, &bits);
            bitmaps.push((desc.block_bitmap, bits));
        }
        if !desc.has_flag(&sb, bg::INODE_UNINIT) {
            let mut bits = vec![0; block_size];
            for (ino, _) in &mine {
                bitmap::set(&mut bits, ino.0 - first_ino);
            }
            bitmap::set_padding(&mut bits, ipg);
            desc.set_inode_bitmap_csum(&sb, &bits);
            bitmaps.push((desc.inode_bitmap, bits));
        }
        free_blocks += u64::from(free_clusters);
        free_inodes += desc.free_inodes;
        overhead += u64::from(sb.super_and_desc_blocks(group)) + 2 + u64::from(sb.inode_table_blocks());
    }
    overhead += files.zeros.iter().map(|(_, len)| len).sum::<u64>();
    layout.sb.set_free_blocks_count(free_blocks);
    layout.sb.free_inodes_count = free_inodes;
    layout.sb.overhead_clusters = overhead as u32;
    bitmaps
}

/// Every block of the inode tables that holds an inode in use.
fn inode_blocks(layout: &Layout, files: &Files) -> BTreeMap<u64, Vec<u8>> {
    let sb = &layout.sb;
    let mut blocks = BTreeMap::new();
    for (ino, content) in &files.inodes {
        let place = sb.inode_location(*ino).expect("an inode of the volume");
        let table = layout.descs[place.group.0 as usize].inode_table;
        let block = blocks
            .entry(table + u64::from(place.table_block))
            .or_insert_with(|| vec![0; sb.block_size() as usize]);
        let start = place.offset_bytes as usize;
        let slot = &mut block[start..start + usize::from(sb.inode_size())];
        content.encode_into(slot, sb, *ino);
        inode::seal(slot, sb, *ino);
    }
    blocks
}

/// All descriptors, in blocks.
fn desc_table(layout: &Layout) -> Vec<u8> {
    let sb = &layout.sb;
    let mut table = vec![0; sb.desc_blocks() as usize * sb.block_size() as usize];
    let slots = table.chunks_exact_mut(sb.desc_size());
    for ((group, desc), slot) in layout.groups().zip(&layout.descs).zip(slots) {
        desc.encode_into(slot, sb, group);
    }
    table
}

/// The block with a superblock copy.
fn super_block(sb: &Superblock, group: Group) -> Vec<u8> {
    let mut block = vec![0; sb.block_size() as usize];
    let offset = if group.0 == 0 && sb.block_size() > 1024 { 1024 } else { 0 };
    block[offset..offset + Superblock::SIZE].copy_from_slice(&sb.backup(group).encode());
    block
}

/// F45, F46: what has to be zero, on a device that is not.
fn zero_metadata(writer: &mut Writer, layout: &Layout, files: &Files, lazy: bool) -> Result<()> {
    let sb = &layout.sb;
    writer.zero(0, sb.super_block().0 + 1)?;
    for group in layout.groups() {
        let (first, _) = layout.group_range(group);
        writer.zero(first, u64::from(sb.super_and_desc_blocks(group)))?;
        let desc = &layout.descs[group.0 as usize];
        let mut inodes = sb.inodes_per_group;
        if lazy {
            inodes -= desc.itable_unused(sb);
        }
        let bytes = u64::from(inodes) * u64::from(sb.inode_size());
        writer.zero(desc.inode_table, bytes.div_ceil(u64::from(sb.block_size())))?;
    }
    for (start, len) in &files.zeros {
        writer.zero(*start, *len)?;
    }
    // Whatever volume was here before may have left a signature at the end.
    let tail = (128 << 10) / u64::from(sb.block_size());
    let end = sb.blocks_count();
    if layout.used.is_free(end - tail.min(end), tail.min(end)) {
        writer.zero(end - tail.min(end), tail.min(end))?;
    }
    Ok(())
}

/// Writes the volume, its primary superblock last: until then there is none to mount.
pub(super) fn write(
    writer: &mut Writer,
    layout: &mut Layout,
    files: &Files,
    bitmaps: &[(u64, Vec<u8>)],
    lazy: bool,
) -> Result<()> {
    let primary = layout.sb.super_block().0;
    let block_size = writer.block_size;
    writer.write(primary * block_size as u64, &vec![0; block_size])?;
    writer.device.flush()?;
    zero_metadata(writer, layout, files, lazy)?;
    for (block, bytes) in bitmaps.iter().chain(&files.blocks) {
        writer.block(*block, bytes)?;
    }
    for (block, bytes) in inode_blocks(layout, files) {
        writer.block(block, &bytes)?;
    }
    let table = desc_table(layout);
    let sb = &layout.sb;
    let old_table = &table[..sb.old_desc_blocks() as usize * block_size];
    for group in layout.groups() {
        let start = if group.0 == 0 { sb.super_block().0 } else { sb.group_first_block(group).0 };
        if sb.has_super(group) && !old_table.is_empty() {
            writer.block(start + 1, old_table)?;
        }
        if let Some((index, block)) = sb.meta_bg_desc_in(group) {
            let from = index as usize * block_size;
            writer.block(block.0, &table[from..from + block_size])?;
        }
    }
    layout.sb.kbytes_written = writer.bytes_written.div_ceil(1024);
    let sb = &layout.sb;
    for group in layout.groups().skip(1).filter(|group| sb.has_super(*group)) {
        writer.block(sb.group_first_block(group).0, &super_block(sb, group))?;
    }
    writer.device.flush()?;
    writer.block(primary, &super_block(sb, Group(0)))?;
    Ok(writer.device.flush()?)
}
