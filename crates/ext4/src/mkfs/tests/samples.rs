//! F41: what mke2fs wrote, field by field.

use std::collections::BTreeMap;

use ext4_format::{Group, GroupDesc, Ino, Inode, Superblock, bitmap};
use serde_json::Value;

use super::device::SparseDevice;
use crate::mkfs::{FormatOptions, format};

fn hex16(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap().to_be_bytes()
}

/// The options of a sample, or why it cannot be created here.
fn options(sample: &Value, data: &Value) -> Result<FormatOptions, String> {
    let text = |key: &str| sample[key].as_str().unwrap();
    let Some(changes) = text("features").strip_prefix("upstream") else {
        return Err("without extents".into());
    };
    let mut options = FormatOptions::new(data["time"].as_u64().unwrap());
    options.uuid = Some(hex16(data["uuid"].as_str().unwrap()));
    options.hash_seed = Some(hex16(data["hashSeed"].as_str().unwrap()));
    options.features = changes.trim_start_matches(',').to_string();
    options.assume_zeroed = true;
    let mut args = text("args").split_whitespace();
    while let Some(flag) = args.next() {
        let value = args.next().unwrap();
        match flag {
            "-b" => options.block_size = Some(value.parse().unwrap()),
            "-i" => options.inode_ratio = Some(value.parse().unwrap()),
            "-I" => options.inode_size = Some(value.parse().unwrap()),
            "-N" => options.inodes_count = Some(value.parse().unwrap()),
            "-m" => options.reserved_percent = value.parse().unwrap(),
            "-g" => options.blocks_per_group = Some(value.parse().unwrap()),
            "-G" => options.groups_per_flex = Some(value.parse().unwrap()),
            "-J" => {
                let mib: u64 = value.strip_prefix("size=").unwrap().parse().unwrap();
                options.journal_blocks = Some((mib << 20 >> 12) as u32);
            }
            other => return Err(other.into()),
        }
    }
    for item in text("extended").split(',').filter(|item| !item.is_empty()) {
        match item.split_once('=').unwrap_or((item, "")) {
            ("nodiscard", _) => options.assume_zeroed = false,
            ("lazy_itable_init", value) => options.lazy_itable_init = value == "1",
            ("num_backup_sb", value) => options.backup_superblocks = value.parse().unwrap(),
            ("stride", value) => options.raid_stride = value.parse().unwrap(),
            ("stripe_width", value) => options.raid_stripe_width = value.parse().unwrap(),
            (other, _) => return Err(other.into()),
        }
    }
    Ok(options)
}

/// Differences between a sample and a device, as text.
struct Comparison<'a> {
    device: &'a SparseDevice,
    sb: Superblock,
    raw: Vec<u8>,
    differences: Vec<String>,
}

impl Comparison<'_> {
    fn equal(&mut self, what: impl std::fmt::Display, found: Value, expected: &Value) {
        let empty = Value::Array(Vec::new());
        let expected = if expected.is_null() && found == empty { &empty } else { expected };
        if found != *expected {
            self.differences.push(format!("{what}: {found}, mke2fs {expected}"));
        }
    }

    fn block(&self, block: u64) -> Vec<u8> {
        let size = self.sb.block_size() as usize;
        self.device.bytes(block * size as u64, size)
    }

    fn le(&self, offset: usize, size: usize) -> u64 {
        self.raw[offset..offset + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn superblock(&mut self, expected: &Value) {
        const FIELDS: &[(&str, usize, usize)] = &[
            ("s_inodes_count", 0x00, 4),
            ("s_blocks_count_lo", 0x04, 4),
            ("s_r_blocks_count_lo", 0x08, 4),
            ("s_free_blocks_count_lo", 0x0C, 4),
            ("s_free_inodes_count", 0x10, 4),
            ("s_first_data_block", 0x14, 4),
            ("s_log_block_size", 0x18, 4),
            ("s_log_cluster_size", 0x1C, 4),
            ("s_blocks_per_group", 0x20, 4),
            ("s_clusters_per_group", 0x24, 4),
            ("s_inodes_per_group", 0x28, 4),
            ("s_wtime", 0x30, 4),
            ("s_max_mnt_count", 0x36, 2),
            ("s_magic", 0x38, 2),
            ("s_state", 0x3A, 2),
            ("s_errors", 0x3C, 2),
            ("s_lastcheck", 0x40, 4),
            ("s_rev_level", 0x4C, 4),
            ("s_first_ino", 0x54, 4),
            ("s_inode_size", 0x58, 2),
            ("s_reserved_gdt_blocks", 0xCE, 2),
            ("s_journal_inum", 0xE0, 4),
            ("s_def_hash_version", 0xFC, 1),
            ("s_jnl_backup_type", 0xFD, 1),
            ("s_desc_size", 0xFE, 2),
            ("s_default_mount_opts", 0x100, 4),
            ("s_first_meta_bg", 0x104, 4),
            ("s_mkfs_time", 0x108, 4),
            ("s_blocks_count_hi", 0x150, 4),
            ("s_min_extra_isize", 0x15C, 2),
            ("s_want_extra_isize", 0x15E, 2),
            ("s_flags", 0x160, 4),
            ("s_raid_stride", 0x164, 2),
            ("s_raid_stripe_width", 0x170, 4),
            ("s_log_groups_per_flex", 0x174, 1),
            ("s_checksum_type", 0x175, 1),
            ("s_overhead_clusters", 0x248, 4),
            ("s_orphan_file_inum", 0x280, 4),
        ];
        let mut seen = vec!["s_kbytes_written", "s_checksum"];
        for &(name, offset, size) in FIELDS {
            seen.push(name);
            let wanted = expected[name].as_u64().unwrap_or(0);
            self.equal(name, self.le(offset, size).into(), &wanted.into());
        }
        for (name, offset) in [
            ("s_feature_compat", 0x5C),
            ("s_feature_incompat", 0x60),
            ("s_feature_ro_compat", 0x64),
            ("s_checksum_seed", 0x270),
        ] {
            seen.push(name);
            let found = format!("{:08x}", self.le(offset, 4));
            let wanted = expected.get(name).cloned().unwrap_or("00000000".into());
            self.equal(name, found.into(), &wanted);
        }
        for (name, offset, count) in [("s_jnl_blocks", 0x10C, 17), ("s_backup_bgs", 0x24C, 2)] {
            seen.push(name);
            let words: Vec<u64> = (0..count).map(|index| self.le(offset + index * 4, 4)).collect();
            let mut wanted = expected.get(name).cloned().unwrap_or(vec![0; count].into());
            if name == "s_jnl_blocks" && wanted[1] == 0x1_0004 {
                // mke2fs leaves former entries behind the one that an index root has.
                wanted.as_array_mut().unwrap()[6..15].fill(0.into());
            }
            self.equal(name, words.into(), &wanted);
        }
        self.checksum(expected);
        for name in expected.as_object().unwrap().keys() {
            assert!(seen.contains(&name.as_str()), "{name} is not compared");
        }
    }

    /// With the tool's own write count, every byte of the superblock is mke2fs's.
    fn checksum(&mut self, expected: &Value) {
        let index_root = expected["s_jnl_blocks"][1] == 0x1_0004;
        if let Some(wanted) = expected.get("s_checksum").filter(|_| !index_root) {
            let mut sb = self.sb.clone();
            sb.kbytes_written = expected["s_kbytes_written"].as_u64().unwrap();
            let raw = sb.encode();
            let found = format!("{:08x}", u32::from_le_bytes(raw[0x3FC..].try_into().unwrap()));
            self.equal("s_checksum", found.into(), wanted);
        }
    }

    fn desc(&self, group: u32) -> GroupDesc {
        let (block, offset) = self.sb.desc_location(Group(group));
        let bytes = &self.block(block.0)[offset..offset + self.sb.desc_size()];
        GroupDesc::decode(bytes, &self.sb, Group(group)).unwrap()
    }

    fn group(&mut self, group: u32, expected: &[Value]) {
        let desc = self.desc(group);
        let found: Vec<u64> = vec![
            desc.block_bitmap,
            desc.inode_bitmap,
            desc.inode_table,
            desc.free_clusters.into(),
            desc.free_inodes.into(),
            desc.used_dirs.into(),
            desc.flags.into(),
            desc.itable_unused.into(),
        ];
        self.equal(format!("group {group}"), found.into(), &Value::Array(expected.to_vec()));
    }

    fn groups(&mut self, sample: &Value) {
        self.equal("groups", self.sb.group_count().into(), &sample["groupCount"]);
        if sample["groupCount"] != self.sb.group_count() {
            return;
        }
        for (group, row) in sample["groups"].as_array().unwrap().iter().enumerate() {
            self.group(group as u32, row.as_array().unwrap());
        }
        let later = sample["laterGroupsInUse"].as_array().into_iter().flatten();
        for row in later.chain(sample.get("lastGroup")).filter_map(Value::as_array) {
            self.group(row[0].as_u64().unwrap() as u32, &row[1..]);
        }
        let supers: Vec<u32> = (0..self.sb.group_count()).filter(|g| self.sb.has_super(Group(*g))).collect();
        let listed = sample["superblockGroups"].as_array().unwrap().len();
        let found = supers[..listed.min(supers.len())].to_vec();
        self.equal("superblock groups", found.into(), &sample["superblockGroups"]);
        for group in supers.into_iter().skip(1) {
            let bytes = self.block(self.sb.group_first_block(Group(group)).0);
            let copy = Superblock::decode(&bytes).unwrap();
            assert_eq!((u32::from(copy.block_group_nr), copy.state & 1), (group.min(65535), 0));
        }
        let bits = self.block(self.desc(0).block_bitmap);
        self.desc(0).verify_block_bitmap(&self.sb, &bits).unwrap();
        let blocks = self.sb.blocks_in_group(Group(0));
        assert!(bitmap::padding_is_set(&bits, blocks));
        let (mut at, mut runs) = (0, Vec::new());
        while let Some(start) = bitmap::next_set(&bits, at, blocks) {
            at = bitmap::next_zero(&bits, start, blocks).unwrap_or(blocks);
            runs.push(vec![start, at - start]);
        }
        self.equal("used runs", runs.into(), &sample["usedRunsGroup0"]);
    }

    fn inode(&self, ino: u32) -> Inode {
        let place = self.sb.inode_location(Ino(ino)).unwrap();
        let block = self.block(self.desc(place.group.0).inode_table + u64::from(place.table_block));
        let start = place.offset_bytes as usize;
        Inode::decode(&block[start..start + usize::from(self.sb.inode_size())], &self.sb, Ino(ino)).unwrap()
    }

    /// Extents and tree blocks below a node.
    fn extents(&self, node: &[u8], extents: &mut Vec<Value>, tree: &mut Vec<u64>) {
        let half = |at: usize| u64::from(u16::from_le_bytes([node[at], node[at + 1]]));
        let word = |at: usize| half(at) | half(at + 2) << 16;
        for entry in 0..half(2) as usize {
            let at = 12 + entry * 12;
            if half(6) == 0 {
                extents.push(vec![word(at), half(at + 4), word(at + 8) | half(at + 6) << 32].into());
            } else {
                let block = word(at + 4) | half(at + 8) << 32;
                tree.push(block);
                self.extents(&self.block(block), extents, tree);
            }
        }
    }

    fn inodes(&mut self, expected: &Value) {
        for (number, expected) in expected.as_object().unwrap() {
            let inode = self.inode(number.parse().unwrap());
            let mut found = BTreeMap::from([
                ("mode", format!("{:06o}", inode.mode).into()),
                ("links", inode.links_count.into()),
                ("size", inode.size.into()),
                ("blocks512", inode.blocks.into()),
                ("flags", format!("{:08x}", inode.flags).into()),
            ]);
            if self.sb.inode_size() > 128 {
                found.insert("extraIsize", inode.extra_isize.into());
            }
            if inode.flags & 0x80000 != 0 {
                let (mut extents, mut tree) = (Vec::new(), Vec::new());
                self.extents(&inode.i_block, &mut extents, &mut tree);
                found.insert("extents", extents.into());
                if !tree.is_empty() && expected.get("treeBlocks").is_some() {
                    found.insert("treeBlocks", tree.into());
                }
            }
            if number == "7" {
                self.resize_inode(&inode, &mut found);
            }
            for (key, value) in expected.as_object().unwrap() {
                let found = found.get(key.as_str()).cloned().unwrap_or_default();
                let value = if value.is_null() { &Value::Array(Vec::new()) } else { value };
                self.equal(format!("inode {number} {key}"), found, value);
            }
        }
    }

    fn resize_inode(&self, inode: &Inode, found: &mut BTreeMap<&str, Value>) {
        let words = |bytes: &[u8]| -> Vec<u64> {
            bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()).into()).collect()
        };
        let dind = words(&inode.i_block)[13];
        found.insert("dindBlock", dind.into());
        let entries = words(&self.block(dind));
        let mut runs: Vec<Vec<u64>> = Vec::new();
        for (slot, block) in entries.iter().enumerate().filter(|(_, block)| **block != 0) {
            match runs.last_mut() {
                Some(run) if run[0] + run[2] == slot as u64 && run[1] + run[2] == *block => run[2] += 1,
                _ => runs.push(vec![slot as u64, *block, 1]),
            }
        }
        found.insert("dindEntries", runs.into());
        let mut list = Vec::new();
        if let Some(first) = entries.iter().find(|block| **block != 0) {
            list = words(&self.block(*first)).into_iter().filter(|block| *block != 0).collect();
        }
        found.insert("firstReservedLists", list.into());
    }

    fn journal(&mut self, sample: &Value) {
        let Some(expected) = sample.get("journalSuperblock") else { return };
        let (mut extents, mut tree) = (Vec::new(), Vec::new());
        self.extents(&self.inode(8).i_block, &mut extents, &mut tree);
        let jsb = self.block(extents[0][2].as_u64().unwrap());
        let be = |at: usize| u32::from_be_bytes(jsb[at..at + 4].try_into().unwrap());
        let uuid: String = jsb[0x30..0x40].iter().map(|byte| format!("{byte:02x}")).collect();
        let found = serde_json::json!({
            "h_magic": format!("{:08x}", be(0)), "h_blocktype": be(4), "s_blocksize": be(0xC),
            "s_maxlen": be(0x10), "s_first": be(0x14), "s_sequence": be(0x18), "s_uuid": uuid,
            "s_nr_users": be(0x40), "s_num_fc_blks": be(0x54),
        });
        for (key, value) in expected.as_object().unwrap() {
            self.equal(key, found[key].clone(), value);
        }
    }
}

#[test]
fn mke2fs_samples() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/data/mkfs-samples.json");
    let data: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut compared, mut refused, mut unsupported, mut failures) = (0, 0, Vec::new(), Vec::new());
    for sample in data["samples"].as_array().unwrap() {
        let name = sample["name"].as_str().unwrap();
        let options = match options(sample, &data) {
            Ok(options) => options,
            Err(reason) => {
                unsupported.push(format!("{name} ({reason})"));
                continue;
            }
        };
        let device = SparseDevice::new(sample["bytes"].as_u64().unwrap(), 0);
        let outcome = format(&device, &options);
        if sample["exit"].as_u64() == Some(1) {
            assert!(outcome.is_err(), "{name} is refused by mke2fs");
            refused += 1;
            continue;
        }
        match outcome {
            Err(error) if error.errno() == 95 => {
                unsupported.push(format!("{name} ({error})"));
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
            Ok(_) => {}
        }
        let raw = device.bytes(1024, 1024);
        let sb = Superblock::decode(&raw).unwrap();
        let mut comparison = Comparison { device: &device, sb, raw, differences: Vec::new() };
        comparison.superblock(&sample["superblock"]);
        comparison.groups(sample);
        comparison.inodes(&sample["inodes"]);
        comparison.journal(sample);
        compared += 1;
        if !comparison.differences.is_empty() {
            failures.push(format!("{name}:\n  {}", comparison.differences.join("\n  ")));
        }
    }
    println!("{compared} compared, {refused} refused, {} not supported: {unsupported:#?}", unsupported.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!((compared, refused, unsupported.len()), (87, 2, 21));
}
