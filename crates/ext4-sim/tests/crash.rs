//! X46, X47, X48: power cuts at every write, ≥ 10,000 distinct states in each run, from the ACE workloads, our own, and mixes.

use ext4_sim::crash::campaign::{Campaign, run};

/// X46, X47, X48.
#[test]
fn no_crash_loses_or_invents_anything() {
    let campaign = Campaign { states: 10_000, seed: 20, workload: None, each: None, kernel: true };
    let (counts, failures) = run(&campaign, &|_| ());
    println!("{counts}");
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", texts.join("\n\n"));
    assert!(counts.states >= 10_000, "{counts}");
}
