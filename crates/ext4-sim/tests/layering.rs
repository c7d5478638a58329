//! Imports point down only: `cargo metadata` against the table of the architecture.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::process::Command;

/// Crate, and what of ours it may depend on. `unsafe` is allowed where the third column says so.
const LAYERS: [(&str, &[&str], bool); 7] = [
    ("ext4-format", &[], false),
    ("block-io", &[], true),
    ("jbd2", &["block-io"], false),
    ("iomap", &["block-io"], false),
    ("ext4", &["block-io", "ext4-format", "iomap", "jbd2"], false),
    ("ext4-napi", &["block-io", "ext4", "ext4-format"], true),
    ("ext4-sim", &["block-io", "ext4", "ext4-format", "jbd2"], false),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    serde_json::from_slice(&output.stdout).expect("JSON from cargo metadata")
}

#[test]
fn imports_point_down() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        LAYERS.iter().map(|(name, ..)| *name).collect(),
        "a crate without a place in the table"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let (_, allowed, _) = LAYERS.iter().find(|(layer, ..)| *layer == name).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let ours = names.contains(dependency);
            assert!(!ours || allowed.contains(&dependency), "{name} may not import {dependency}");
            let node = dependency.starts_with("napi");
            assert!(!node || name == "ext4-napi", "{name} may not know Node.js");
        }
    }
}

/// The faults that prove the crash checker are in no module that is shipped.
#[test]
fn no_mutants_in_the_native_module() {
    let features = |package: &str| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "-e", "normal,features", "-f", "{p} {f}", "-p", package])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo tree");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!features("ext4-napi").contains("mutants"));
    assert!(features("ext4-sim").contains("mutants"));
}

/// The sources of a crate: their paths in it, and their text.
fn sources(name: &str) -> Vec<(String, String)> {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let (mut dirs, mut sources) = (vec![source.clone()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
                sources.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}

#[test]
fn unsafe_only_where_it_is_allowed() {
    for (name, _, allowed) in LAYERS {
        for (path, text) in sources(name) {
            let found =
                text.contains("unsafe {") || text.contains("unsafe fn") || text.contains("unsafe impl");
            assert!(allowed || !found, "unsafe in {name}/{path}");
        }
    }
}

/// F27: file data has one door to the device. What a plan of data I/O is made of is built in one file, after the metadata zones
/// were asked; and requests past plans and journal are made by the few that are named here.
#[test]
fn data_has_one_door_to_the_device() {
    // `data_access` takes what `data_blocks` has judged, and nothing else.
    const MAPPINGS: &[&str] = &["data_access.rs"];
    const REQUESTS: &[&str] = &[
        "block_cache.rs",
        "data_access.rs",
        "journalled_data.rs",
        "mkfs/signatures.rs",
        "mkfs/write.rs",
        "mmp.rs",
        "superblock_io.rs",
    ];
    const STORES: &[&str] = &["dax.rs"];
    let doors: [(&[&str], &[&str]); 3] = [
        (&["MappingFlags {", "MappingFlags::"], MAPPINGS),
        (&["device.write(", "device.read("], REQUESTS),
        (&["memory.store(", "memory.load("], STORES),
    ];
    for (path, text) in sources("ext4") {
        for (words, allowed) in doors {
            let found = words.iter().find(|word| text.contains(**word));
            assert!(found.is_none() || allowed.contains(&path.as_str()), "{} in {path}", found.unwrap());
        }
    }
}
