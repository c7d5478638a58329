//! The specification's list of tests, X1 to X52: each has its twin here, or stands below with what it waits for. The twins name
//! their number in a doc comment.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LAST: u32 = 52;

/// What no test of the suite is the twin of, and why.
const OPEN: &[(u32, &str)] = &[];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "node_modules") {
            sources(&path, into);
        } else if name.ends_with(".rs") || name.ends_with(".ts") {
            into.push(path);
        }
    }
}

/// The X numbers of a doc comment's line.
fn cited(line: &str) -> impl Iterator<Item = u32> + '_ {
    let comment = ["///", "//!", "/**", "*"].iter().find_map(|start| line.trim_start().strip_prefix(start));
    comment
        .into_iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric()))
        .filter_map(|word| word.strip_prefix('X')?.parse().ok())
}

#[test]
fn every_test_of_the_specification_has_its_twin() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = Vec::new();
    sources(&root.join("crates"), &mut paths);
    sources(&root.join("__test__"), &mut paths);
    let mut found = BTreeSet::new();
    for path in paths.iter().filter(|path| !path.ends_with("citations.rs")) {
        let text = fs::read_to_string(path).unwrap();
        found.extend(text.lines().flat_map(cited));
    }
    let open: BTreeSet<u32> = OPEN.iter().map(|(number, _)| *number).collect();
    let missing: Vec<u32> =
        (1..=LAST).filter(|number| !found.contains(number) && !open.contains(number)).collect();
    assert!(missing.is_empty(), "no test says that it is the twin of {missing:?}");
    let done: Vec<_> = open.intersection(&found).collect();
    assert!(done.is_empty(), "no longer open: {done:?}");
    assert!(found.iter().all(|number| (1..=LAST).contains(number)), "{found:?}");
}
