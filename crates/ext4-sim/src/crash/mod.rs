//! What a disk may hold after a power cut, at every write, and whether the volume survives it (CM).
//!
//! A workload runs once over a recorded device. Then every crash point of the recording is visited, and every state
//! that the device may be in there is mounted and compared with what the workload was promised.

pub mod ace;
pub mod block_maps;
pub mod campaign;
mod data_modes;
pub mod driver;
pub mod enumerate;
pub mod held;
pub mod image;
pub mod journal_alone;
pub mod judge;
pub mod mix;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
mod outside;
mod outside_journal;
pub mod random;
pub mod volume;
pub mod workloads;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use block_io::Event;
use ext4_format::Superblock;

use driver::Recording;
use enumerate::{Replay, State, Tear};
use image::{Image, Patch};
use judge::{Outcome, Verdict};
use model::Expectation;
use outside::Outside;
use random::Random;

/// How much is looked at.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Distinct states of one workload, about; `None`: all of CM5.
    pub states: Option<usize>,
    /// e2fsck judges one recovered volume in so many, by content.
    pub e2fsck_every: usize,
    /// The kernel judges one state in so many, by content; 0: never.
    pub kernel_every: usize,
    /// Recovery is itself cut after each write for one state in so many.
    pub cut_every: usize,
    /// The same with the subsets of CM5.
    pub cut_thorough_every: usize,
    /// Of all choices.
    pub seed: u64,
}

impl Budget {
    /// All that CM8 asks for, but for the kernel, on about so many states.
    pub fn of(seed: u64, states: usize) -> Self {
        Self {
            states: Some(states),
            e2fsck_every: 1,
            kernel_every: 0,
            cut_every: 1,
            cut_thorough_every: 200,
            seed,
        }
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workloads.
    pub workloads: usize,
    /// Crash points.
    pub points: usize,
    /// Distinct states.
    pub states: usize,
    /// States of a second crash, during recovery.
    pub second: usize,
    /// Distinct volumes that e2fsck saw.
    pub e2fsck: usize,
    /// States that the kernel mounted.
    pub kernel: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.points += other.points;
        self.states += other.states;
        self.second += other.second;
        self.e2fsck += other.e2fsck;
        self.kernel += other.kernel;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workloads, points, states, second, e2fsck, kernel } = self;
        write!(
            f,
            "{workloads} workloads, {points} crash points, {states} distinct states, \
             {second} second crashes, {e2fsck} volumes by e2fsck, {kernel} by the kernel"
        )
    }
}

/// A state that no crash may leave.
#[derive(Debug)]
pub struct Failure {
    /// All that CM15 asks for.
    pub text: String,
    /// The state, kept.
    pub image: Option<PathBuf>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.image {
            Some(image) => write!(f, "{}\nimage: {}", self.text, image.display()),
            None => write!(f, "{}", self.text),
        }
    }
}

/// Judges the states of a recording.
pub fn explore(recording: &Recording, budget: &Budget) -> Result<Counts, Box<Failure>> {
    Explorer::new(recording, budget).run()
}

struct Explorer<'r> {
    recording: &'r Recording,
    budget: &'r Budget,
    random: Random,
    counts: Counts,
    /// Contents that were there already, and contents under promises.
    seen: HashSet<u64>,
    judged: HashSet<(u64, usize)>,
    /// What recovery came to, by content.
    outcomes: HashMap<u64, Outcome>,
    outside: Outside,
    superblock: Superblock,
    keeps_images: bool,
}

impl<'r> Explorer<'r> {
    fn new(recording: &'r Recording, budget: &'r Budget) -> Self {
        let superblock = Superblock::decode(&recording.base.bytes()[1024..2048]).expect("our own superblock");
        // A workload's name decides too: each has choices of its own.
        let name =
            recording.name.bytes().fold(budget.seed, |seed, byte| Random(seed ^ u64::from(byte)).bits());
        Self {
            recording,
            budget,
            random: Random(name),
            counts: Counts { workloads: 1, ..Counts::default() },
            seen: HashSet::new(),
            judged: HashSet::new(),
            outcomes: HashMap::new(),
            outside: Outside::new(),
            superblock,
            keeps_images: true,
        }
    }

    /// For failures that are wanted.
    #[cfg(feature = "mutants")]
    fn without_images(mut self) -> Self {
        self.keeps_images = false;
        self
    }

    fn run(mut self) -> Result<Counts, Box<Failure>> {
        let recording = self.recording;
        let block_size = recording.volume.block_size as usize;
        let mut replay = Replay::new(Image::new(&recording.base), recording.volume.starts(), block_size);
        let mut acks = recording.model.ack_events().into_iter().peekable();
        let points =
            recording.events.iter().filter(|event| matches!(event, Event::WriteSubmitted { .. })).count();
        // What one point may spend; tests take a part of the points where there are too many.
        let per_point = self.budget.states.map(|states| (states * 2 / points.max(1)).clamp(3, 400));
        let skip = self.budget.states.map_or(1, |states| (points * 5 / states.max(1)).max(1));
        for index in 0..=recording.events.len() {
            // A promise makes the state at hand another case.
            let promised = acks.next_if(|ack| *ack <= index).is_some();
            while acks.next_if(|ack| *ack <= index).is_some() {}
            if promised {
                self.point(&replay, index, per_point)?;
            }
            let Some(event) = recording.events.get(index) else { break };
            if replay.step(event) && self.random.once_in(skip) {
                self.point(&replay, index + 1, per_point)?;
            }
        }
        (self.counts.e2fsck, self.counts.kernel) = (self.outside.e2fsck, self.outside.kernel);
        Ok(self.counts)
    }

    fn point(&mut self, replay: &Replay, events: usize, budget: Option<usize>) -> Result<(), Box<Failure>> {
        self.counts.points += 1;
        let expectation = self.recording.model.expectation(events);
        let tears = |patch: &Patch| self.tear_of(patch);
        let mut random = self.random.clone();
        let states = replay.states(&mut random, budget, &tears);
        self.random = random;
        for state in states {
            let image = replay.image.with(&state.patches);
            let hash = image.device(&[]).sums().all;
            if !self.judged.insert((hash, expectation.promises())) {
                continue;
            }
            self.counts.states += usize::from(self.seen.insert(hash));
            if let Err(verdict) = self.judge(&image, hash, &expectation) {
                return Err(self.failure(replay, &state, events, &expectation, &verdict));
            }
        }
        Ok(())
    }

    /// Superblock, journal superblock, commit blocks: torn at every sector.
    fn tear_of(&self, patch: &Patch) -> Tear {
        const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];
        let holds_superblock = patch.offset < 2048;
        if holds_superblock && self.recording.whole_superblock {
            return Tear::Never;
        }
        let data = patch.data();
        let in_journal = self.recording.base.in_journal(patch.offset) && data[..4] == MAGIC;
        match holds_superblock || in_journal && matches!(data[7], 2..=4) {
            true => Tear::EverySplit,
            false => Tear::Pattern,
        }
    }

    fn judge(&mut self, image: &Image, hash: u64, expectation: &Expectation<'_>) -> Result<(), Verdict> {
        let volume = self.recording.volume;
        let recovered = judge::recover(volume, Arc::new(image.device(&[])))?;
        let expectation = expectation.at_end_of(recovered.tid);
        judge::check_tree(&recovered.tree, &expectation, volume.block_size.into())?;
        let outcome = recovered.outcome();
        self.outcomes.insert(hash, outcome);
        let chosen = |every: usize, salt: u64| every > 0 && Random(hash ^ salt).once_in(every);
        if chosen(self.budget.e2fsck_every, 1) {
            self.outside.e2fsck(&recovered.device, volume)?;
        }
        if chosen(self.budget.kernel_every, 2) && !volume.journal_outside {
            let bytes = image.device(&[]).snapshot();
            // The kernel refuses a torn superblock, which we repair (EP7).
            if Superblock::decode(&bytes[1024..]).is_ok() {
                self.outside.kernel(&bytes, &recovered.tree)?;
            }
        }
        let thorough = chosen(self.budget.cut_thorough_every, 3);
        if thorough || chosen(self.budget.cut_every, 4) {
            let mut random = Random(hash);
            let random = thorough.then_some(&mut random);
            self.counts.second += judge::cut_recovery(volume, image, outcome, random, &mut self.outcomes)?;
        }
        Ok(())
    }

    fn failure(
        &self,
        replay: &Replay,
        state: &State,
        events: usize,
        expectation: &Expectation<'_>,
        verdict: &Verdict,
    ) -> Box<Failure> {
        let text = format!(
            "verdict ({}) on {:?} with seed {}, after {events} of {} events, during {:?}\nin flight: {}\n{}\nlast operations:\n{}\nlast events:\n{}\nagain: {}",
            verdict.letter,
            self.recording.name,
            self.budget.seed,
            self.recording.events.len(),
            expectation.operation(),
            state.choice,
            verdict.detail,
            expectation.last_operations(12),
            self.last_events(events),
            self.replay_command(),
        );
        let keep = || self.outside.keep(&replay.image.device(&state.patches).snapshot());
        let image = self.keeps_images.then(keep).flatten();
        Box::new(Failure { text, image })
    }

    /// CM15: what makes the same choices.
    fn replay_command(&self) -> String {
        let states = self.budget.states.map_or("all".into(), |states| states.to_string());
        format!(
            "cargo run --release -p ext4-sim -- crash --seed {} --each {states} --workload {:?}",
            self.budget.seed, self.recording.name
        )
    }

    fn last_events(&self, events: usize) -> String {
        let block = u64::from(self.superblock.block_size());
        let shown = &self.recording.events[events.saturating_sub(24)..events];
        let line = |event: &Event| match event {
            Event::WriteSubmitted { request, offset_bytes, bytes, fua, .. } => format!(
                "  {request}: write block {} (+{}) {} bytes{}{}",
                offset_bytes / block,
                offset_bytes % block,
                bytes.len(),
                if *fua { ", FUA" } else { "" },
                if self.recording.base.in_journal(*offset_bytes) { ", journal" } else { "" },
            ),
            Event::FlushSubmitted { request, .. } => format!("  {request}: flush"),
            Event::Completed { request, .. } => format!("  {request}: done"),
            other => format!("  {other:?}"),
        };
        shown.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
