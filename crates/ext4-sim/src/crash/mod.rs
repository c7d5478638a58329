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
mod ranges;
pub mod volume;
pub mod workloads;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use block_io::Event;
use ext4_format::Superblock;

use driver::Recording;
use enumerate::{Choice, Replay, Tear};
use image::{Image, Patch};
use judge::{Outcome, Verdict};
use model::Expectation;
use outside::Outside;
use random::Random;

/// How much is looked at.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Distinct states of one workload, if it has so many; `None`: all of CM5.
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
    /// All that CM8 asks for, but for the kernel, on so many states.
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
    Explorer::new(recording, budget, &mut Outside::new()).run().map(|(counts, _)| counts)
}

fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast::<String>().map(|text| *text);
    let text = text.or_else(|panic| panic.downcast::<&str>().map(|text| (*text).to_owned()));
    format!("panicked: {}", text.unwrap_or_else(|_| "without a text".into()))
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
    outside: &'r mut Outside,
    superblock: Superblock,
    keeps_images: bool,
}

/// What a crash point weighs when the budget is shared; one after a new promise is where most can be wrong.
const POINT: usize = 1;
const PROMISE: usize = 3;
/// Times that a log is gone through while states are owed.
const MOST_PASSES: usize = 6;

impl<'r> Explorer<'r> {
    fn new(recording: &'r Recording, budget: &'r Budget, outside: &'r mut Outside) -> Self {
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
            outside,
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

    /// What was looked at, and the states by their sums.
    fn run(mut self) -> Result<(Counts, HashSet<u64>), Box<Failure>> {
        let (e2fsck, kernel) = (self.outside.e2fsck, self.outside.kernel);
        for _ in 0..MOST_PASSES {
            let before = self.counts.states;
            self.pass()?;
            let is_enough = self.budget.states.is_none_or(|wanted| self.counts.states >= wanted);
            if is_enough || self.counts.states == before {
                break;
            }
        }
        self.counts.e2fsck = self.outside.e2fsck - e2fsck;
        self.counts.kernel = self.outside.kernel - kernel;
        Ok((self.counts, self.seen))
    }

    /// Goes through the log once; each point has its share of the states that are still owed, and what others left.
    fn pass(&mut self) -> Result<(), Box<Failure>> {
        let recording = self.recording;
        let block_size = recording.volume.block_size as usize;
        let mut replay = Replay::new(Image::new(&recording.base), recording.volume.starts(), block_size);
        let acks = recording.model.ack_events();
        let writes =
            recording.events.iter().filter(|event| matches!(event, Event::WriteSubmitted { .. })).count();
        let mut weight_left = acks.len() * PROMISE + writes * POINT;
        let mut acks = acks.into_iter().peekable();
        for index in 0..=recording.events.len() {
            // A promise makes the state at hand another case.
            let mut weight = 0;
            while acks.next_if(|ack| *ack <= index).is_some() {
                weight += PROMISE;
            }
            if weight > 0 {
                self.visit(&replay, index, weight, &mut weight_left)?;
            }
            let Some(event) = recording.events.get(index) else { break };
            if replay.step(event) {
                self.visit(&replay, index + 1, POINT, &mut weight_left)?;
            }
        }
        Ok(())
    }

    fn visit(
        &mut self,
        replay: &Replay,
        events: usize,
        weight: usize,
        weight_left: &mut usize,
    ) -> Result<(), Box<Failure>> {
        let share = self.budget.states.map_or(usize::MAX, |wanted| {
            let owed = wanted.saturating_sub(self.counts.states);
            // Rounded by chance, so that small shares meet every point once.
            (owed * weight + self.random.below(*weight_left)) / *weight_left
        });
        *weight_left -= weight;
        if share == 0 { Ok(()) } else { self.point(replay, events, share) }
    }

    /// Judges so many new states, and as many old ones under new promises.
    fn point(&mut self, replay: &Replay, events: usize, share: usize) -> Result<(), Box<Failure>> {
        self.counts.points += 1;
        let expectation = self.recording.model.expectation(events);
        let mut random = self.random.clone();
        let choices = replay.choices(&mut random, &|patch: &Patch| self.tear_of(patch));
        self.random = random;
        let (mut new, mut again) = (0, 0);
        for choice in choices {
            if new == share || again >= share.max(2) {
                break;
            }
            let image = replay.state(choice);
            let hash = image.sums().all;
            if !self.judged.insert((hash, expectation.promises())) {
                continue;
            }
            let is_new = self.seen.insert(hash);
            *(if is_new { &mut new } else { &mut again }) += 1;
            let judged = catch_unwind(AssertUnwindSafe(|| self.judge(&image, hash, is_new, &expectation)));
            let panicked = |panic| Err(Verdict { letter: 'a', detail: panic_text(panic) });
            if let Err(verdict) = judged.unwrap_or_else(panicked) {
                return Err(self.failure(replay, choice, events, &expectation, &verdict));
            }
        }
        self.counts.states += new;
        Ok(())
    }

    /// Superblock, journal superblock, commit blocks, blocks of orphans: torn at every sector.
    fn tear_of(&self, patch: &Patch) -> Tear {
        const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];
        let holds_superblock = patch.offset < 2048;
        if holds_superblock && self.recording.whole_superblock {
            return Tear::Never;
        }
        let data = patch.data();
        let in_journal = self.recording.base.in_journal(patch.offset) && data[..4] == MAGIC;
        // O2: the magic of an orphan file's block is before its checksum, at its end.
        let holds_orphans = data[data.len() - 8..][..4] == [0x04, 0xCA, 0x10, 0x0B];
        match holds_superblock || holds_orphans || in_journal && matches!(data[7], 2..=4) {
            true => Tear::EverySplit,
            false => Tear::Pattern,
        }
    }

    /// What does not depend on promises is judged once.
    fn judge(
        &mut self,
        image: &Image,
        hash: u64,
        is_new: bool,
        expectation: &Expectation<'_>,
    ) -> Result<(), Verdict> {
        let volume = self.recording.volume;
        let recovered = judge::recover(volume, Arc::new(image.device()))?;
        let expectation = expectation.at_end_of(recovered.tid);
        judge::check_tree(&recovered.tree, &expectation, volume.block_size.into())?;
        if !is_new {
            return Ok(());
        }
        let outcome = recovered.outcome();
        self.outcomes.insert(hash, outcome);
        let chosen = |every: usize, salt: u64| every > 0 && Random(hash ^ salt).once_in(every);
        if chosen(self.budget.e2fsck_every, 1) {
            self.outside.e2fsck(&recovered.device, volume)?;
        }
        if chosen(self.budget.kernel_every, 2) && !volume.journal_outside {
            let bytes = image.bytes();
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
        choice: Choice,
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
            replay.describe(choice),
            verdict.detail,
            expectation.last_operations(12),
            self.last_events(events),
            self.replay_command(),
        );
        let keep = || self.outside.keep(&replay.state(choice).bytes());
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
