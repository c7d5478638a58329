//! What the device may hold after a cut (CM2 to CM5).

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

/// One state: what of the in-flight blocks is there.
pub struct State {
    /// For people: which subset, which tear.
    pub choice: String,
    /// In the order of their submission.
    pub patches: Vec<Patch>,
}

/// A log played up to a point: what is durable, and what is in flight.
pub struct Replay {
    /// The durable bytes.
    pub image: Image,
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
        Self { image, starts, block_size, in_flight: Vec::new(), flushes: Vec::new(), forced: Vec::new() }
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
            self.in_flight.push(InFlight { patch, device, request, completed: false });
            start += len;
        }
    }

    fn complete(&mut self, request: u64, succeeded: bool) {
        if let Some(index) = self.flushes.iter().position(|(flush, _)| *flush == request) {
            let (_, covered) = self.flushes.swap_remove(index);
            if succeeded {
                self.make_durable(|write| covered.contains(&write.request));
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

    fn chosen(&self, choice: String, is_there: impl Fn(usize) -> bool) -> State {
        let there = (0..self.in_flight.len()).filter(|&index| is_there(index));
        State { choice, patches: there.map(|index| self.in_flight[index].patch.clone()).collect() }
    }

    /// CM5 for a crash here, at most about `budget` states of it, chosen by `random`; `None`: all.
    pub fn states(
        &self,
        random: &mut Random,
        budget: Option<usize>,
        tear_of: &dyn Fn(&Patch) -> Tear,
    ) -> Vec<State> {
        let count = self.in_flight.len();
        let mut states = vec![self.chosen("none".into(), |_| false), self.chosen("all".into(), |_| true)];
        if count <= 10 && budget.is_none_or(|budget| 1 << count <= budget) {
            for set in 1..(1usize << count).saturating_sub(1) {
                states
                    .push(self.chosen(format!("subset {set:#b} of {count}"), |index| set >> index & 1 == 1));
            }
        } else {
            self.large_subsets(random, budget.unwrap_or(usize::MAX), &mut states);
        }
        self.tears(random, budget.unwrap_or(usize::MAX), tear_of, &mut states);
        states
    }

    fn large_subsets(&self, random: &mut Random, budget: usize, states: &mut Vec<State>) {
        let count = self.in_flight.len();
        // Of many, as many of each kind as the budget has room for.
        let step = (3 * count / budget.max(1)).max(1);
        for n in (random.below(step)..count).step_by(step) {
            states.push(self.chosen(format!("the first {n} of {count}"), |index| index < n));
            states.push(self.chosen(format!("all but {n} of {count}"), |index| index != n));
            states.push(self.chosen(format!("only {n} of {count}"), |index| index == n));
        }
        for sample in 0..64.min(budget) {
            let seed = random.bits();
            let rare = |index: usize| Random(seed ^ (index as u64) << 20).once_in(8);
            let near_all = sample % 2 == 0;
            states.push(self.chosen(format!("sample {seed:#x} of {count}"), |index| rare(index) != near_all));
        }
    }

    /// Every single split point of the blocks that recovery starts from, one random pattern of the others; all else is
    /// there.
    fn tears(
        &self,
        random: &mut Random,
        budget: usize,
        tear_of: &dyn Fn(&Patch) -> Tear,
        states: &mut Vec<State>,
    ) {
        let step = (self.in_flight.len() * 2 / budget.max(1)).max(1);
        for (index, write) in self.in_flight.iter().enumerate() {
            let sectors = write.patch.sector_count();
            if sectors < 2 {
                continue;
            }
            let tear = tear_of(&write.patch);
            if tear == Tear::EverySplit {
                for split in 1..sectors {
                    for (from, to) in [(0, split), (split, sectors)] {
                        states.push(
                            self.torn(index, &format!("sectors {from}..{to}"), |n| (from..to).contains(&n)),
                        );
                    }
                }
            } else if tear == Tear::Pattern && random.once_in(step) {
                let pattern = random.bits();
                states.push(
                    self.torn(index, &format!("pattern {pattern:#x}"), |n| pattern >> (n % 64) & 1 == 1),
                );
            }
        }
    }

    fn torn(&self, torn: usize, how: &str, is_there: impl Fn(usize) -> bool) -> State {
        let mut patches = Vec::new();
        for (index, write) in self.in_flight.iter().enumerate() {
            match index == torn {
                false => patches.push(write.patch.clone()),
                true => patches.extend(
                    (0..write.patch.sector_count())
                        .filter(|&n| is_there(n))
                        .map(|n| write.patch.sectors(n, n + 1)),
                ),
            }
        }
        let choice = format!(
            "all of {}, block {torn} (at {}) torn: {how}",
            self.in_flight.len(),
            self.in_flight[torn].patch.offset
        );
        State { choice, patches }
    }
}
