//! The checker is proven by faults: each of CM11 must be seen, and nothing without one (X49).

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::outside::Outside;
use super::volume::Volume;
use super::{Budget, Explorer, journal_alone, panic_text, workloads};

/// Where a fault shows.
#[derive(Clone, Copy)]
enum Scene {
    /// In a workload of ours.
    Workload(&'static str),
    /// In the journal without a volume.
    Alone(&'static str, fn() -> Result<(), String>),
    /// In a run on a device whose n-th write fails, for some n.
    FailingWrites,
}
use Scene::{Alone, FailingWrites, Workload};

/// A fault of CM11 and where it shows, most likely first.
pub struct Mutant {
    /// As in CM11.
    pub number: u32,
    /// What is wrong.
    pub what: &'static str,
    scenes: &'static [Scene],
}

const APPEND: Scene = Workload("direct append and fsync");
const STORM: Scene = Workload("create and delete storm");
const REUSE: Scene = Workload("freed metadata as direct data");
const FREED_AT_ONCE: Scene = Workload("freed and wanted at once");
const MAGIC: Scene = Workload("blocks that start with the magic");
const UNWRITTEN: Scene = Workload("overwrite of unwritten blocks");
const FALLBACK: Scene = Workload("short write with fallback");
const DEEP: Scene = Workload("truncate of a deep file");
const MIX: Scene = Workload("random mix 1048576");
const TRUNCATES: Scene = Workload("truncates and extensions");
const REMOUNT: Scene = Workload("the same again after a remount");

const fn mutant(number: u32, what: &'static str, scenes: &'static [Scene]) -> Mutant {
    Mutant { number, what, scenes }
}

/// All of CM11.
pub const MUTANTS: [Mutant; 32] = [
    mutant(1, "commit block without PREFLUSH", &[APPEND]),
    mutant(2, "commit block without FUA or flush after", &[APPEND]),
    mutant(3, "commit block submitted before log blocks completed", &[APPEND]),
    mutant(4, "tail moved without flush", &[STORM, APPEND]),
    mutant(5, "tail moved before home writes completed", &[STORM, APPEND]),
    mutant(6, "block written home before its commit", &[APPEND, REUSE]),
    mutant(7, "no copy-out", &[Workload("changes beside a commit")]),
    mutant(8, "checksum of the block stale in the log", &[APPEND, REUSE]),
    mutant(9, "escape forgotten at replay", &[MAGIC]),
    mutant(10, "tag sum over the unescaped block", &[MAGIC]),
    mutant(11, "no revoke when an extent block is freed", &[REUSE, DEEP]),
    mutant(12, "freed block reused before the commit", &[FREED_AT_ONCE]),
    mutant(13, "ordered data not waited for", &[FALLBACK]),
    mutant(14, "external journal: no flush of the volume", &[Workload("journal on its own device")]),
    mutant(15, "fsync waits for the datasync tid", &[Workload("attributes")]),
    mutant(16, "log write error ignored, commit block written", &[FailingWrites]),
    mutant(
        17,
        "replay skips copies with tid < the revoke",
        &[Alone("a revoke in the copy's transaction", journal_alone::revoked_by_its_own_transaction)],
    ),
    mutant(
        18,
        "cancelled revoke still written",
        &[Alone("a block freed and used again", journal_alone::cancelled_revoke)],
    ),
    mutant(19, "journal superblock reset before the flush of replay", &[APPEND, STORM]),
    mutant(20, "RECOVER cleared before the journal superblock is empty", &[APPEND, MIX]),
    mutant(21, "RECOVER set after the first commit", &[APPEND]),
    mutant(22, "superblock not re-read after replay", &[Workload("orphan overflow")]),
    mutant(23, "error fields taken from the logged copy", &[FailingWrites]),
    mutant(24, "tid restarts at 1 after clean unmount", &[REMOUNT]),
    mutant(25, "wrap off by one", &[STORM]),
    mutant(26, "orphan added after allocation", &[APPEND]),
    mutant(27, "orphan removed before the size update", &[APPEND]),
    mutant(28, "unwritten conversion before data completed", &[UNWRITTEN]),
    mutant(29, "size logged before data completed", &[APPEND]),
    mutant(30, "truncate frees before size is logged", &[TRUNCATES, DEEP]),
    mutant(31, "fdatasync of an overwrite without flush", &[Workload("overwrite and fdatasync")]),
    mutant(32, "checkpoint write error ignored, tail moves", &[FailingWrites]),
];

/// The budget of the standard workloads; the first kill ends a run.
fn budget(seed: u64) -> Budget {
    Budget { states: Some(600), e2fsck_every: 6, kernel_every: 0, cut_every: 10, cut_thorough_every: 0, seed }
}

/// What saw a mutant: the scene, and the verdict's first line. `None`: it survived.
pub fn kill(mutant: &Mutant, seed: u64) -> Option<(String, String)> {
    for scene in mutant.scenes {
        let seen = match scene {
            Alone(name, run) => under(mutant, || run().err()).map(|text| ((*name).to_owned(), text)),
            Workload(name) => kill_in(mutant, seed, name),
            FailingWrites => (1..=workloads::FAILING_WRITES)
                .find_map(|nth| kill_in(mutant, seed, &format!("Write {nth} fails"))),
        };
        if seen.is_some() {
            return seen;
        }
    }
    None
}

fn kill_in(mutant: &Mutant, seed: u64, name: &str) -> Option<(String, String)> {
    // The orphan list, which the superblock starts, is alone in the run with 4 KiB.
    let sizes = if mutant.number == 22 { [4096, 1024] } else { [1024, 4096] };
    let workload = workloads::all()
        .into_iter()
        .chain(workloads::mixes(1, 0..1))
        .find(|workload| workload.name == name)?;
    sizes.into_iter().find_map(|block_size| {
        let text = under(mutant, || {
            let recording = workload.run(Volume::small(block_size));
            Explorer::new(&recording, &budget(seed), &mut Outside::new())
                .without_images()
                .run()
                .err()
                .map(|failure| failure.text)
        });
        text.map(|text| (format!("{name} at {block_size}"), text))
    })
}

/// Runs something with the fault in force. It may also stop the live volume, or trip an assertion of ours: it was seen.
fn under(mutant: &Mutant, run: impl FnOnce() -> Option<String>) -> Option<String> {
    jbd2::activate_mutant(mutant.number);
    let seen = catch_unwind(AssertUnwindSafe(run));
    jbd2::activate_mutant(0);
    let text = seen.unwrap_or_else(|panic| Some(panic_text(panic)))?;
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// Kills them all, one after the other; `line` gets a row each. Returns how many survived.
pub fn run(seed: u64, line: &dyn Fn(String)) -> usize {
    std::panic::set_hook(Box::new(|_| ()));
    let mut survivors = 0;
    for mutant in &MUTANTS {
        let start = std::time::Instant::now();
        let verdict = match kill(mutant, seed) {
            Some((scene, text)) => format!("killed by {scene}: {text}"),
            None => {
                survivors += 1;
                "SURVIVED".into()
            }
        };
        line(format!("{:>2} {}: {verdict} ({:.1?})", mutant.number, mutant.what, start.elapsed()));
    }
    let _default = std::panic::take_hook();
    survivors
}
