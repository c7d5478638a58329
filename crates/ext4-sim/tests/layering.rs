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

#[test]
fn unsafe_only_where_it_is_allowed() {
    for (name, _, allowed) in LAYERS {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        let mut dirs = vec![source];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let found = text.contains("unsafe {")
                        || text.contains("unsafe fn")
                        || text.contains("unsafe impl");
                    assert!(allowed || !found, "unsafe in {}", path.display());
                }
            }
        }
    }
}
