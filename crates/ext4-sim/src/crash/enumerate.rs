//! What the device may hold after a cut (CM2 to CM5).

use std::borrow::Cow;

use block_io::{DeviceNumber, Event};

use super::image::{Image, Patch, SECTOR};
use super::random::Random;

/// A block that was written and is not durable yet.
struct InFlight {
    patch: Patch,
    device: DeviceNumber,
    request: u64,
    completed: bool,
}

/// How a block may tear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Each single split point is looked at.
    EverySplit,
    /// One pattern of its sectors is.
    Pattern,
    /// It is there or not.
    Never,
}

/// What of the in-flight blocks is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Those whose bit is set.
    Subset(u64),
    /// So many.
    First(usize),
    /// All without this one.
    AllBut(usize),
    /// This one.
    Only(usize),
    /// A random subset by its seed, near "all" or near "none".
    Sample(u64, bool),
    /// All, of one block these sectors alone.
    Torn(usize, u64),
}

impl Choice {
    fn takes(self, index: usize) -> bool {
        match self {
            Self::None => false,
            Self::All | Self::Torn(..) => true,
            Self::Subset(set) => set >> index & 1 == 1,
            Self::First(count) => index < count,
            Self::AllBut(other) => index != other,
            Self::Only(only) => index == only,
            Self::Sample(seed, near_all) => Random(seed ^ (index as u64) << 20).once_in(8) != near_all,
        }
    }
}

/// A log played up to a point: what is durable, and what is in flight.
pub struct Replay {
    /// The durable bytes.
    image: Image,
    /// With everything that is in flight.
    all: Image,
    /// Where each device begins in the image (CM4).
    starts: Vec<u64>,
    block_size: usize,
    in_flight: Vec<InFlight>,
    /// Flushes under way, and the writes that had completed before each (CM2).
    flushes: Vec<(u64, Vec<u64>)>,
    /// Writes with FUA under way.
    forced: Vec<u64>,
}

impl Replay {
    /// At the beginning of a log over `image`, in which the devices begin at `starts`.
    pub fn new(image: Image, starts: Vec<u64>, block_size: usize) -> Self {
        Self {
            all: image.clone(),
            image,
            starts,
            block_size,
            in_flight: Vec::new(),
            flushes: Vec::new(),
            forced: Vec::new(),
        }
    }

    /// Goes one event further. Returns whether a crash here may leave what none before it could.
    pub fn step(&mut self, event: &Event) -> bool {
        match event {
            Event::WriteSubmitted { device, request, offset_bytes, bytes, fua } => {
                self.submit(*device, *request, *offset_bytes, bytes);
                if *fua {
                    self.forced.push(*request);
                }
                true
            }
            Event::FlushSubmitted { device, request } => {
                let done = self.in_flight.iter().filter(|write| write.completed && write.device == *device);
                self.flushes.push((*request, done.map(|write| write.request).collect()));
                false
            }
            Event::Completed { request, succeeded, .. } => {
                self.complete(*request, *succeeded);
                false
            }
            Event::DiscardSubmitted { .. } | Event::Mark(_) => false,
        }
    }

    /// A write may be torn anywhere: each of its blocks is a choice of its own.
    fn submit(&mut self, device: DeviceNumber, request: u64, offset: u64, bytes: &std::sync::Arc<[u8]>) {
        let offset = self.starts[device as usize] + offset;
        let mut start = 0;
        while start < bytes.len() {
            let at = offset + start as u64;
            let len = (self.block_size - at as usize % self.block_size).min(bytes.len() - start);
            let patch = Patch { offset: at, bytes: bytes.clone(), range: start..start + len };
            self.all.apply(&patch);
            self.in_flight.push(InFlight { patch, device, request, completed: false });
            start += len;
        }
    }

    fn complete(&mut self, request: u64, succeeded: bool) {
        if let Some(index) = self.flushes.iter().position(|(flush, _)| *flush == request) {
            let (_, covered) = self.flushes.swap_remove(index);
            if succeeded {
                self.make_durable(|write| covered.contains(&write.request));
                // What stays in flight may be older than what no longer is.
                self.all = self.image.with(self.in_flight.iter().map(|write| &write.patch));
            }
            return;
        }
        for write in self.in_flight.iter_mut().filter(|write| write.request == request) {
            write.completed = succeeded;
        }
        if self.forced.contains(&request) && succeeded {
            self.forced.retain(|forced| *forced != request);
            self.supersede(request);
            self.make_durable(|write| write.request == request);
        }
    }

    fn make_durable(&mut self, is_durable: impl Fn(&InFlight) -> bool) {
        let image = &mut self.image;
        self.in_flight.retain(|write| {
            let durable = is_durable(write);
            if durable {
                image.apply(&write.patch);
            }
            !durable
        });
    }

    /// A write that is durable on its own stays ahead of what completed at the same place before it.
    fn supersede(&mut self, request: u64) {
        let newer: Vec<Patch> = self
            .in_flight
            .iter()
            .filter(|write| write.request == request)
            .map(|write| write.patch.clone())
            .collect();
        let covers = |sector: u64| {
            newer
                .iter()
                .any(|patch| (patch.offset..patch.offset + patch.range.len() as u64).contains(&sector))
        };
        let mut kept = Vec::new();
        for write in std::mem::take(&mut self.in_flight) {
            let touched = write.request < request
                && (0..write.patch.sector_count()).any(|n| covers(write.patch.offset + (n * SECTOR) as u64));
            if !touched {
                kept.push(write);
                continue;
            }
            let InFlight { patch, device, request, completed } = write;
            for n in 0..patch.sector_count() {
                let patch = patch.sectors(n, n + 1);
                if !covers(patch.offset) {
                    kept.push(InFlight { patch, device, request, completed });
                }
            }
        }
        self.in_flight = kept;
    }

    /// How many blocks are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// For people.
    pub fn describe(&self, choice: Choice) -> String {
        match choice {
            Choice::Torn(block, sectors) => {
                let at = self.in_flight[block].patch.offset;
                format!("all of {}, of block {block} (at {at}) sectors {sectors:#b}", self.in_flight.len())
            }
            other => format!("{other:x?} of {}", self.in_flight.len()),
        }
    }

    /// The state.
    pub fn state(&self, choice: Choice) -> Cow<'_, Image> {
        match choice {
            Choice::None => return Cow::Borrowed(&self.image),
            Choice::All => return Cow::Borrowed(&self.all),
            _ => {}
        }
        let mut image = self.image.clone();
        for (index, write) in self.in_flight.iter().enumerate().filter(|(index, _)| choice.takes(*index)) {
            match choice {
                Choice::Torn(torn, sectors) if torn == index => (0..write.patch.sector_count())
                    .filter(|n| sectors >> (n % 64) & 1 == 1)
                    .for_each(|n| image.apply(&write.patch.sectors(n, n + 1))),
                _ => image.apply(&write.patch),
            }
        }
        Cow::Owned(image)
    }

    /// CM5 for a crash here, chosen and ordered by `random`: whoever looks at some of them has of each kind.
    pub fn choices(&self, random: &mut Random, tear_of: &dyn Fn(&Patch) -> Tear) -> Vec<Choice> {
        let count = self.in_flight.len();
        let (splits, patterns) = self.tears(random, tear_of);
        let (marked, samples) = match count {
            0 => return vec![Choice::None],
            1..=10 => ((1..(1 << count) - 1).map(Choice::Subset).collect(), Vec::new()),
            _ => {
                let marked = (0..count).flat_map(|n| [Choice::First(n), Choice::AllBut(n), Choice::Only(n)]);
                let samples = (0..64).map(|n| Choice::Sample(random.bits(), n % 2 == 0));
                (marked.collect(), samples.collect())
            }
        };
        let mut kinds = [marked, splits, samples, patterns];
        kinds.iter_mut().for_each(|kind| random.shuffle(kind));
        let mut choices = vec![Choice::None, Choice::All];
        while kinds.iter().any(|kind| !kind.is_empty()) {
            choices.extend(kinds.iter_mut().filter_map(Vec::pop));
        }
        choices
    }

    /// Every single split point of the blocks that recovery starts from, both halves; one random pattern of the others.
    fn tears(&self, random: &mut Random, tear_of: &dyn Fn(&Patch) -> Tear) -> (Vec<Choice>, Vec<Choice>) {
        let (mut splits, mut patterns) = (Vec::new(), Vec::new());
        for (index, write) in self.in_flight.iter().enumerate() {
            let sectors = write.patch.sector_count();
            match tear_of(&write.patch) {
                _ if sectors < 2 => {}
                Tear::EverySplit => splits.extend((1..sectors).flat_map(|split| {
                    let first = u64::MAX >> (64 - split);
                    [Choice::Torn(index, first), Choice::Torn(index, !first)]
                })),
                Tear::Pattern => patterns.push(Choice::Torn(index, random.bits())),
                Tear::Never => {}
            }
        }
        (splits, patterns)
    }
}
