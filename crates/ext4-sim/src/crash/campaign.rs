//! All workloads under one number of states, on all the host's processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::driver::Recording;
use super::{Budget, Counts, Failure, ace, block_maps, explore, workloads};
use crate::oracle::{Need, available};

/// What to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Distinct states, about.
    pub states: usize,
    /// Of all choices.
    pub seed: u64,
    /// Only workloads whose name has this in it.
    pub workload: Option<String>,
    /// Lets the kernel judge every 200th state.
    pub kernel: bool,
}

type Job = Box<dyn Fn() -> Recording + Send + Sync>;

/// Name, share of the states, and how to run it; and how many workloads cannot be run.
fn jobs() -> (Vec<(String, usize, Job)>, usize) {
    let mut jobs: Vec<(String, usize, Job)> = Vec::new();
    let mut skipped = 0;
    let has_mke2fs = available(Need::E2fsprogs, "crash states of block maps");
    for block_size in [1024, 4096] {
        let with_tools = if has_mke2fs { &block_maps::ALL[..] } else { &[] };
        for workload in workloads::ALL.iter().chain(with_tools) {
            let name = format!("{} at {block_size}", workload.name);
            jobs.push((name, 10, Box::new(move || (workload.run)(workload.name, block_size))));
        }
        for workload in ace::workloads() {
            if !workload.is_supported() {
                skipped += 1;
                continue;
            }
            let name = format!("ace {} at {block_size}", workload.number);
            jobs.push((name, 1, Box::new(move || workload.run(block_size))));
        }
    }
    (jobs, skipped)
}

/// Runs everything; `progress` gets a line per workload of ours. Goes on after a failure, to the next workload.
pub fn run(campaign: &Campaign, progress: &(dyn Fn(String) + Sync)) -> (Counts, Vec<Box<Failure>>) {
    let (mut jobs, skipped) = jobs();
    if let Some(wanted) = &campaign.workload {
        jobs.retain(|(name, ..)| name.contains(wanted.as_str()));
    }
    let shares: usize = jobs.iter().map(|(_, share, _)| share).sum();
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new((Counts { skipped, ..Counts::default() }, Vec::new()));
    let worker = || {
        while let Some((name, share, job)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let recording = job();
            let states = campaign.states * share / shares.max(1);
            let mut budget = Budget::quick(campaign.seed, states.max(8));
            budget.kernel_every = if campaign.kernel { 200 } else { 0 };
            let result = explore(&recording, &budget);
            if *share > 1 {
                progress(match &result {
                    Ok(counts) => format!("{name}: {counts}"),
                    Err(failure) => format!("{name}: FAILED {failure}"),
                });
            }
            let mut outcome = outcome.lock().expect("no worker panics here");
            match result {
                Ok(counts) => outcome.0 += counts,
                Err(failure) => outcome.1.push(failure),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    outcome.into_inner().expect("no worker panicked")
}
