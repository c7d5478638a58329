//! The checker is proven by faults: each of CM11 must be seen, and nothing without one (X49).

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::driver::Recording;
use super::{Budget, Explorer, workloads};

/// A fault of CM11 and the workloads of ours that it shows in, most likely first.
pub struct Mutant {
    /// As in CM11.
    pub number: u32,
    /// What is wrong.
    pub what: &'static str,
    /// Names of workloads.
    workloads: &'static [&'static str],
}

const APPEND: &str = "direct append and fsync";
const STORM: &str = "create and delete storm";
const REUSE: &str = "freed metadata as direct data";
const MAGIC: &str = "blocks that start with the magic";
const UNWRITTEN: &str = "overwrite of unwritten blocks";
const FALLBACK: &str = "short write with fallback";
const DEEP: &str = "truncate of a deep file";
const REMOUNT: &str = "the same again after a remount";

const fn mutant(number: u32, what: &'static str, workloads: &'static [&'static str]) -> Mutant {
    Mutant { number, what, workloads }
}

/// Those whose code there is. The others wait: 7 for changes beside a running commit, 14 for external journals, 16 and 32 for runs with failing devices, 23 for the
/// error fields; 17 and 18 differ from the rules only in a transaction that both logs and revokes a block, which this
/// engine never writes (D13).
pub const MUTANTS: [Mutant; 25] = [
    mutant(1, "commit block without PREFLUSH", &[APPEND]),
    mutant(2, "commit block without FUA or flush after", &[APPEND]),
    mutant(3, "commit block submitted before log blocks completed", &[APPEND]),
    mutant(4, "tail moved without flush", &[STORM, APPEND]),
    mutant(5, "tail moved before home writes completed", &[STORM, APPEND]),
    mutant(6, "block written home before its commit", &[APPEND, REUSE]),
    mutant(8, "checksum of the block stale in the log", &[APPEND, REUSE]),
    mutant(9, "escape forgotten at replay", &[MAGIC]),
    mutant(10, "tag sum over the unescaped block", &[MAGIC]),
    mutant(11, "no revoke when an extent block is freed", &[REUSE, DEEP]),
    mutant(
        12,
        "freed block reused before the commit",
        &[REUSE, "a mix of everything", "truncates and extensions"],
    ),
    mutant(13, "ordered data not waited for", &[FALLBACK]),
    mutant(15, "fsync waits for the datasync tid", &["attributes"]),
    mutant(19, "journal superblock reset before the flush of replay", &[APPEND, STORM]),
    mutant(20, "RECOVER cleared before the journal superblock is empty", &[APPEND, "a mix of everything"]),
    mutant(21, "RECOVER set after the first commit", &[APPEND]),
    mutant(22, "superblock not re-read after replay", &["orphan overflow"]),
    mutant(24, "tid restarts at 1 after clean unmount", &[REMOUNT]),
    mutant(25, "wrap off by one", &[STORM]),
    mutant(26, "orphan added after allocation", &[APPEND]),
    mutant(27, "orphan removed before the size update", &[APPEND]),
    mutant(28, "unwritten conversion before data completed", &[UNWRITTEN]),
    mutant(29, "size logged before data completed", &[APPEND]),
    mutant(30, "truncate frees before size is logged", &["truncates and extensions", DEEP]),
    mutant(31, "fdatasync of an overwrite without flush", &["overwrite and fdatasync"]),
];

/// The budget of the standard workloads; the first kill ends a run.
fn budget(seed: u64) -> Budget {
    Budget { states: Some(600), e2fsck_every: 6, kernel_every: 0, cut_every: 10, cut_thorough_every: 0, seed }
}

/// What saw a mutant: the workload, and the verdict's first line. `None`: it survived.
pub fn kill(mutant: &Mutant, seed: u64) -> Option<(String, String)> {
    // The orphan list, which the superblock starts, is alone in the run with 4 KiB.
    let sizes = if mutant.number == 22 { [4096, 1024] } else { [1024, 4096] };
    let runs = mutant.workloads.iter().flat_map(|name| sizes.map(|block_size| (*name, block_size)));
    for (name, block_size) in runs {
        let workload = workloads::ALL.iter().find(|workload| workload.name == name)?;
        jbd2::activate_mutant(mutant.number);
        // A fault may also stop the live volume, or trip an assertion of ours: it was seen.
        let seen = catch_unwind(AssertUnwindSafe(|| {
            let recording: Recording = (workload.run)(workload.name, block_size);
            Explorer::new(&recording, &budget(seed)).without_images().run().err().map(|failure| failure.text)
        }));
        jbd2::activate_mutant(0);
        let text = seen.unwrap_or_else(|panic| Some(panic_text(&panic)));
        if let Some(text) = text {
            let first = text.lines().next().unwrap_or_default().to_owned();
            return Some((format!("{name} at {block_size}"), first));
        }
    }
    None
}

fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    format!("panicked: {}", text.unwrap_or_else(|| "without a text".into()))
}

/// Kills them all, one after the other; `line` gets a row each. Returns how many survived.
pub fn run(seed: u64, line: &dyn Fn(String)) -> usize {
    std::panic::set_hook(Box::new(|_| ()));
    let mut survivors = 0;
    for mutant in &MUTANTS {
        let start = std::time::Instant::now();
        let verdict = match kill(mutant, seed) {
            Some((workload, text)) => format!("killed by {workload}: {text}"),
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
