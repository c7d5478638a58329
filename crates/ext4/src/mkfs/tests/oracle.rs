//! e2fsck and dumpe2fs on what we wrote.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::device::SparseDevice;
use crate::mkfs::{FormatOptions, format};

fn run(tool: &str, args: &[&str], image: &Path) -> (i32, String) {
    let output = Command::new("timeout")
        .args(["-s", "KILL", "60", tool])
        .args(args)
        .arg(image)
        .output()
        .expect("timeout of coreutils");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn has_tools() -> bool {
    let found = Command::new("e2fsck").arg("-V").output().is_ok();
    if !found {
        eprintln!("SKIPPED: e2fsck is not installed");
    }
    found
}

/// Formats into memory and copies to a file; holes stay holes.
fn image(options: &FormatOptions, size: u64, fill: u8, path: &Path) {
    let device = SparseDevice::new(size, fill);
    format(&device, options).unwrap_or_else(|error| panic!("{options:?}: {error}"));
    let mut file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    const CHUNK: u64 = 1 << 20;
    for offset in (0..size).step_by(CHUNK as usize) {
        let bytes = device.bytes(offset, CHUNK.min(size - offset) as usize);
        if bytes.iter().any(|byte| *byte != 0) {
            use std::io::{Seek, SeekFrom};
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.write_all(&bytes).unwrap();
        }
    }
}

fn e2fsck(path: &Path, what: &str) {
    let (code, text) = run("e2fsck", &["-fn"], path);
    assert_eq!(code, 0, "{what}:\n{text}");
    let questions = text.lines().filter(|line| line.contains('?') && !line.contains("Optimize?"));
    assert_eq!(questions.count(), 0, "{what}:\n{text}");
}

fn check(features: &str, block_size: Option<u32>, size: u64, fill: u8, lazy: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut options = FormatOptions::new(1_700_000_000);
    options.features = features.into();
    options.block_size = block_size;
    options.assume_zeroed = fill == 0;
    options.lazy_itable_init = lazy;
    image(&options, size, fill, &path);
    let what = format!("{features:?} {block_size:?} {size} bytes, filled with {fill}");
    e2fsck(&path, &what);
    let (code, text) = run("dumpe2fs", &[], &path);
    assert!(code == 0 && !text.contains("EXPECTED") && !text.contains("invalid"), "{what}:\n{text}");
}

const MIB: u64 = 1 << 20;

#[test]
fn every_feature_passes_e2fsck() {
    if !has_tools() {
        return;
    }
    for features in [
        "",
        "^64bit",
        "^flex_bg",
        "^resize_inode",
        "meta_bg,^resize_inode",
        "meta_bg,^resize_inode,^flex_bg",
        "^metadata_csum,^metadata_csum_seed",
        "^metadata_csum,^metadata_csum_seed,uninit_bg",
        "^metadata_csum,^metadata_csum_seed,uninit_bg,^64bit,^flex_bg",
        "^metadata_csum_seed",
        "^has_journal",
        "^orphan_file",
        "fast_commit",
        "sparse_super2",
        "^sparse_super,^resize_inode",
        "^huge_file,^dir_nlink,^extra_isize,^large_file",
        "^dir_index,^filetype,^ext_attr",
        "stable_inodes",
    ] {
        check(features, None, 64 * MIB, 0, false);
    }
}

#[test]
fn every_block_size_passes_e2fsck() {
    if !has_tools() {
        return;
    }
    for (log, size) in (10..=16).zip([64, 64, 64, 256, 256, 256, 256]) {
        for features in ["", "^metadata_csum,^metadata_csum_seed,^64bit"] {
            check(features, Some(1 << log), size * MIB, 0, false);
        }
    }
    for size in [1024 * MIB, 8 * MIB, 2 * MIB, MIB, 200 << 10] {
        check("", None, size, 0, false);
    }
    check("", Some(1024), 1024 * MIB, 0, false);
}

/// A device that was in use before: what must be zero has been written as zero.
#[test]
fn a_dirty_device_passes_e2fsck() {
    if !has_tools() {
        return;
    }
    for features in ["", "^metadata_csum,^metadata_csum_seed", "^has_journal,^flex_bg"] {
        for lazy in [false, true] {
            check(features, None, 64 * MIB, 0xE5, lazy);
        }
    }
}

fn any_options() -> impl Strategy<Value = (FormatOptions, u64)> {
    let features = prop_oneof![
        Just(""),
        Just("^64bit"),
        Just("^flex_bg,^resize_inode"),
        Just("meta_bg,^resize_inode"),
        Just("^metadata_csum,^metadata_csum_seed,uninit_bg"),
        Just("^metadata_csum,^metadata_csum_seed,^has_journal"),
        Just("sparse_super2,^flex_bg"),
        Just("^sparse_super,^resize_inode,fast_commit"),
    ];
    let group = proptest::option::of((32u32..1024).prop_map(|n| n * 8));
    let flex = proptest::option::of((0u32..8).prop_map(|log| 1 << log));
    let inodes = proptest::option::of(1u32..100_000);
    let journal = proptest::option::weighted(0.2, 1024u32..5000);
    (features, 10u32..=16, 7u32..=10, group, flex, inodes, journal, 0u32..3, 100u64..150_000).prop_map(
        |(features, log, inode_log, group, flex, inodes, journal, backups, kib)| {
            let mut options = FormatOptions::new(1_700_000_000);
            options.features = features.into();
            options.block_size = Some(1 << log);
            options.inode_size = Some(1 << inode_log);
            options.blocks_per_group = group;
            options.groups_per_flex = flex;
            options.inodes_count = inodes;
            options.journal_blocks = journal;
            options.backup_superblocks = backups;
            options.assume_zeroed = true;
            (options, kib << 10)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Options of any kind: an error, or a volume that e2fsck accepts.
    #[test]
    fn any_options_pass_e2fsck((options, size) in any_options()) {
        let device = SparseDevice::new(size & !511, 0);
        let outcome = format(&device, &options);
        if outcome.is_ok() && Command::new("e2fsck").arg("-V").output().is_ok() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("image");
            image(&options, size & !511, 0, &path);
            e2fsck(&path, &format!("{options:?}, {size} bytes"));
        }
    }
}
