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
    /// States of each workload, instead of a share of `states`; 0: all of CM5.
    pub each: Option<usize>,
    /// Lets the kernel judge every 200th state.
    pub kernel: bool,
}

type Job = Box<dyn Fn() -> Recording + Send + Sync>;

/// Name, share of the states, and how to run it; and how many workloads cannot be run.
fn jobs(campaign: &Campaign) -> (Vec<(String, usize, Job)>, usize) {
    let mut jobs: Vec<(String, usize, Job)> = Vec::new();
    let mut skipped = 0;
    let has_mke2fs = available(Need::E2fsprogs, "crash states of block maps");
    for block_size in [1024, 4096] {
        // One mix for so many states: more of them make more difference than more states of one.
        let mixes = (campaign.states / 2000).clamp(2, 100) as u64;
        let with_tools = if has_mke2fs { block_maps::all() } else { Vec::new() };
        for workload in workloads::all(campaign.seed, mixes).into_iter().chain(with_tools) {
            let name = format!("{} at {block_size}", workload.name);
            let share = if workload.name.contains("fails") { 2 } else { 10 };
            jobs.push((name, share, Box::new(move || workload.run(block_size))));
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
    let (mut jobs, skipped) = jobs(campaign);
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
            let mut budget = Budget::of(campaign.seed, states.max(8));
            if let Some(each) = campaign.each {
                budget.states = Some(each).filter(|each| *each > 0);
            }
            // CM8 (g): 200 states, or every 200th.
            budget.kernel_every = if campaign.kernel { (campaign.states / 200).clamp(1, 200) } else { 0 };
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
