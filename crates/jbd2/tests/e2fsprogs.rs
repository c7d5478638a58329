//! e2fsprogs replays what we log, and we replay what it logs. Does nothing where its tools are missing.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other test programs need the rest")]
mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::*;
use jbd2::{Config, Features, Journal, LogExtent, LogMap, recovery};

const HOME: u64 = 16000;
const BLOCKS: u64 = 16384;

/// The output of a tool; `None` if it is not installed.
fn run(tool: &str, arguments: &[&str], image: &Path) -> Option<String> {
    let output = Command::new(tool).args(arguments).arg(image).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn make(image: &Path, features: &str) -> Option<LogMap> {
    std::fs::write(image, vec![0; BLOCKS as usize * BS]).unwrap();
    run("mke2fs", &["-q", "-F", "-b", "1024", "-J", "size=4", "-O", features, "-t", "ext4"], image)?;
    let blocks = run("debugfs", &["-R", "blocks <8>"], image)?;
    let extents = blocks.split_whitespace().enumerate().map(|(n, block)| LogExtent {
        log_start: n as u32,
        len: 1,
        device_block: block.parse().unwrap(),
    });
    Some(LogMap::new(extents.collect()).unwrap())
}

const OPTIONS: recovery::RecoverOptions =
    recovery::RecoverOptions { volume_blocks: BLOCKS, write_bytes: 1 << 16 };

#[test]
fn e2fsck_replays_our_log() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for (volume, wide, csum_v3) in [
        ("metadata_csum,64bit", true, true),
        ("^metadata_csum,64bit", true, false),
        ("^metadata_csum,^64bit", false, false),
    ] {
        let Some(map) = make(&image, volume) else { return };
        let device = TestDevice::of(std::fs::read(&image).unwrap());
        let features = Features { wide, csum_v3, fast_commit: false };
        let host = Arc::new(TestHost::default());
        let journal = Journal::open(device.clone(), BS, map, features, Config::default(), host).unwrap();
        for round in 0..3u64 {
            let mut handle = journal.start(200).unwrap();
            for block in 0..150 {
                set(&mut handle, &device, HOME + block, round * 1000 + block).unwrap();
            }
            handle.forget(HOME + 200 + round).unwrap();
            handle.forget(HOME + 149).unwrap();
            handle.stop().unwrap();
            journal.commit_running().unwrap();
        }
        std::fs::write(&image, &device.inner.lock().bytes).unwrap();
        run("debugfs", &["-w", "-R", "feature needs_recovery"], &image).unwrap();
        let log = run("debugfs", &["-R", "logdump"], &image).unwrap();
        assert_eq!(log.matches("type 2 (commit block)").count(), 3, "{log}");
        assert_eq!(log.matches("type 5 (revoke table)").count(), 3, "{log}");
        run("e2fsck", &["-fy", "-E", "journal_only"], &image).unwrap();
        let replayed = TestDevice::of(std::fs::read(&image).unwrap());
        for block in 0..149 {
            assert_eq!(replayed.block(HOME + block), sealed(2000 + block), "{volume}, block {block}");
        }
        assert_eq!(replayed.block(HOME + 149), vec![0; BS]);
    }
}

#[test]
fn we_replay_the_log_of_debugfs() {
    let folder = tempfile::tempdir().unwrap();
    let (image, data, script) =
        (folder.path().join("image"), folder.path().join("data"), folder.path().join("script"));
    for (volume, open) in [
        ("metadata_csum,64bit", "jo -c -v 3"),
        ("metadata_csum,64bit", "jo -c -v 2"),
        ("^metadata_csum,^64bit", "jo"),
    ] {
        let Some(map) = make(&image, volume) else { return };
        std::fs::write(&data, [sealed(3), sealed(4)].concat()).unwrap();
        let commands =
            format!("{open}\njw -b {HOME},{} {}\njw -r {}\njc\n", HOME + 1, data.display(), HOME + 1);
        std::fs::write(&script, commands).unwrap();
        run("debugfs", &["-w", "-f", script.to_str().unwrap()], &image).unwrap();
        let device = TestDevice::of(std::fs::read(&image).unwrap());
        let recovered = recovery::recover(&*device, BS, &map, OPTIONS).unwrap();
        assert_eq!(
            (recovered.transactions, recovered.blocks, recovered.revoked),
            (2, 1, 1),
            "{volume} {open}"
        );
        assert_eq!(device.block(HOME), sealed(3));
        assert_eq!(device.block(HOME + 1), vec![0; BS]);
        std::fs::write(&image, &device.inner.lock().bytes).unwrap();
        let log = run("debugfs", &["-R", "logdump"], &image).unwrap();
        assert!(!log.contains("commit block"), "{log}");
    }
}

/// X4. J19, as e2fsprogs computes it. Its writer adds revoke blocks to the sum, which readers do not (R26): none here.
#[test]
fn we_replay_a_v1_log_of_debugfs() {
    let folder = tempfile::tempdir().unwrap();
    let (image, data, script) =
        (folder.path().join("image"), folder.path().join("data"), folder.path().join("script"));
    let Some(map) = make(&image, "^metadata_csum,64bit") else { return };
    std::fs::write(&data, [sealed(3), sealed(4)].concat()).unwrap();
    let write = format!("jw -b {HOME},{} {}", HOME + 1, data.display());
    std::fs::write(&script, format!("jo -c -v 1\n{write}\n{write}\njc\n")).unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap()], &image).unwrap();
    let device = TestDevice::of(std::fs::read(&image).unwrap());
    let plan = recovery::plan(&*device, BS, &map, &OPTIONS).unwrap();
    assert_eq!(plan.superblock().layout().checksums, jbd2::format::Checksums::V1);
    let recovered = recovery::recover(&*device, BS, &map, OPTIONS).unwrap();
    assert_eq!((recovered.transactions, recovered.blocks), (2, 2));
    assert_eq!((device.block(HOME), device.block(HOME + 1)), (sealed(3), sealed(4)));
}
