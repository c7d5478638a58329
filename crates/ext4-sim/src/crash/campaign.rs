//! All workloads under one number of states, on all the host's processors.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ext4::DataMode;

use super::outside::Outside;
use super::volume::Volume;
use super::workloads::Workload;
use super::{Budget, Counts, Explorer, Failure, ace, block_maps, panic_text, workloads};
use crate::oracle::{Need, available};

/// What to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Distinct states, at least.
    pub states: usize,
    /// Of all choices.
    pub seed: u64,
    /// Only workloads whose name has this in it; if one has it as its name, only that.
    pub workload: Option<String>,
    /// States of each workload, instead of a share of `states`; 0: all of CM5.
    pub each: Option<usize>,
    /// Lets the kernel judge every 200th state, 200 at least.
    pub kernel: bool,
}

struct Job {
    name: String,
    /// Of the states.
    share: usize,
    volume: Volume,
    workload: Workload,
}

const BLOCK_SIZES: [u32; 2] = [1024, 4096];
const MODES: [DataMode; 3] = [DataMode::Ordered, DataMode::Journal, DataMode::Writeback];
/// From so many states on, all that writes data runs in each mode; with less in one, by turns.
const ALL_MODES_FROM: usize = 100_000;

/// Workloads on the volumes that they run on.
fn jobs(campaign: &Campaign, workloads: &[Workload]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (size, block_size) in BLOCK_SIZES.into_iter().enumerate() {
        for (index, workload) in workloads.iter().enumerate() {
            let turn = (campaign.seed as usize).wrapping_add(index + size) % MODES.len();
            let modes = match workload.in_all_modes {
                false => &MODES[..1],
                // A name may be of any mode.
                true if campaign.states >= ALL_MODES_FROM || campaign.workload.is_some() => &MODES[..],
                true => &MODES[turn..=turn],
            };
            for &data in modes {
                let volume = Volume { data, ..Volume::small(block_size) };
                let (name, share) = (workload.name_on(volume), workload.share * MODES.len() / modes.len());
                jobs.push(Job { name, share, volume, workload: workload.clone() });
            }
        }
    }
    jobs
}

/// Workloads that have an end to their states.
fn fixed_jobs(campaign: &Campaign) -> Vec<Job> {
    let mut all = workloads::all();
    if available(Need::E2fsprogs, "crash states of block maps") {
        all.extend(block_maps::all());
    }
    all.extend(ace::workloads().into_iter().map(ace::Workload::on_any_volume));
    jobs(campaign, &all)
}

/// Random mixes, which have as many states as are still wanted; others in each round.
fn mix_jobs(campaign: &Campaign, round: u64) -> Vec<Job> {
    // One mix for so many states: more of them make more difference than more states of one.
    let count = (campaign.states / 2000).clamp(2, 100) as u64;
    jobs(campaign, &workloads::mixes(campaign.seed, round * count..(round + 1) * count))
}

/// Those that the campaign is about.
fn wanted(campaign: &Campaign, jobs: &mut Vec<Job>) {
    let Some(wanted) = &campaign.workload else { return };
    let is_exact = jobs.iter().any(|job| job.name == *wanted);
    jobs.retain(|job| if is_exact { job.name == *wanted } else { job.name.contains(wanted.as_str()) });
}

/// What the workers have found so far.
struct Outcome<'c> {
    campaign: &'c Campaign,
    counts: Counts,
    /// Of all workloads: equal contents of equal volumes are one state.
    states: HashSet<(Volume, u64)>,
    failures: Vec<Failure>,
    start: Instant,
    /// When people heard of it.
    told: Instant,
    jobs: usize,
}

impl Outcome<'_> {
    fn add(&mut self, volume: Volume, result: Result<(Counts, HashSet<u64>), Box<Failure>>) {
        match result {
            Ok((counts, states)) => {
                self.counts += counts;
                self.states.extend(states.into_iter().map(|state| (volume.made_as(), state)));
                self.counts.states = self.states.len();
            }
            Err(failure) => {
                self.counts.workloads += 1;
                self.failures.push(*failure);
            }
        }
    }

    /// A line now and then.
    fn tell(&mut self, last: &str, progress: &(dyn Fn(String) + Sync)) {
        const OFTEN: Duration = Duration::from_secs(5);
        if self.told.elapsed() < OFTEN {
            return;
        }
        self.told = Instant::now();
        progress(format!(
            "{:>6.0} s: {} of {} states, {} of {} workloads, {} failures; now {last}",
            self.start.elapsed().as_secs_f32(),
            self.states.len(),
            self.campaign.states,
            self.counts.workloads,
            self.jobs,
            self.failures.len(),
        ));
    }
}

/// Rounds of random mixes, if the states of the first ones are too few.
const MOST_ROUNDS: u64 = 4;

/// Runs everything; `progress` gets a line every few seconds. Goes on after a failure, to the next workload.
pub fn run(campaign: &Campaign, progress: &(dyn Fn(String) + Sync)) -> (Counts, Vec<Failure>) {
    let (mut fixed, mut mixes) = (fixed_jobs(campaign), mix_jobs(campaign, 0));
    wanted(campaign, &mut fixed);
    wanted(campaign, &mut mixes);
    let now = Instant::now();
    let outcome = Mutex::new(Outcome {
        campaign,
        counts: Counts::default(),
        states: HashSet::new(),
        failures: Vec::new(),
        start: now,
        told: now,
        jobs: fixed.len() + mixes.len(),
    });
    let states = || outcome.lock().expect("no worker panics").states.len();
    let shares = |jobs: &[Job]| jobs.iter().map(|job| job.share).sum::<usize>();
    let all = shares(&fixed) + shares(&mixes);
    run_wave(campaign, &fixed, campaign.states * shares(&fixed) / all.max(1), &outcome, progress);
    for round in 0..MOST_ROUNDS {
        let owed = campaign.states.saturating_sub(states());
        if round > 0 {
            if owed == 0 || campaign.workload.is_some() || campaign.each.is_some() {
                break;
            }
            mixes = mix_jobs(campaign, round);
            outcome.lock().expect("no worker panics").jobs += mixes.len();
        }
        // Some of theirs are among those that others had.
        run_wave(campaign, &mixes, owed + owed / 50, &outcome, progress);
    }
    let Outcome { counts, failures, .. } = outcome.into_inner().expect("no worker panicked");
    (counts, failures)
}

/// Runs workloads that share so many states.
fn run_wave(
    campaign: &Campaign,
    jobs: &[Job],
    states: usize,
    outcome: &Mutex<Outcome<'_>>,
    progress: &(dyn Fn(String) + Sync),
) {
    let shares: usize = jobs.iter().map(|job| job.share).sum();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut outside = Outside::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { break };
            let before: usize = jobs[..index].iter().map(|job| job.share).sum();
            let until = |share: usize| states * share / shares.max(1);
            let budget = budget(campaign, until(before + job.share) - until(before));
            let explored = catch_unwind(AssertUnwindSafe(|| {
                let recording = job.workload.run(job.volume);
                (recording.volume, Explorer::new(&recording, &budget, &mut outside).run())
            }));
            let (volume, result) = explored.unwrap_or_else(|panic| {
                let text = format!("{:?} with seed {}: {}", job.name, campaign.seed, panic_text(panic));
                (job.volume, Err(Box::new(Failure { text, image: None })))
            });
            let mut outcome = outcome.lock().expect("no worker panics here");
            outcome.add(volume, result);
            outcome.tell(&job.name, progress);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
}

fn budget(campaign: &Campaign, share: usize) -> Budget {
    let mut budget = Budget::of(campaign.seed, share.max(1));
    if let Some(each) = campaign.each {
        budget.states = Some(each).filter(|each| *each > 0);
    }
    if campaign.kernel {
        // CM8 (g): 200 states, or every 200th; some more, for not all that are chosen can be mounted.
        budget.kernel_every = (campaign.states / 250).clamp(1, 160);
    }
    budget
}
