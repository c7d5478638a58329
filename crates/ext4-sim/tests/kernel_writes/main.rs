//! X51: what the kernel writes to a volume of ours, judged by the crash checker that judges what we write. The kernel's ext4
//! lies on a loop device on a file that we serve by FUSE, so that every write and flush comes by.
//!
//! A loop device has a write cache and no FUA: what the kernel writes with FUA arrives as a write and a flush after it (T16), so
//! the commit block is durable when that flush is done, and no earlier. Nothing is discarded, zeros come as writes.
//!
//! The judge asks of the kernel what it asks of us, with two exceptions. Its superblock is whole at any time, for Linux takes
//! that for granted (EP7). And with dioread_nolock, its default, the size of buffered data that nobody has synced may be there
//! before the data, over zeros; ours comes after it (A15).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod device;
mod driver;
mod host;
mod workloads;

use std::sync::Mutex;

use block_io::Event;
use driver::Driver;
use ext4_sim::crash::driver::Recording;
use ext4_sim::crash::volume::Volume;
use ext4_sim::crash::{Budget, Counts, explore};
use ext4_sim::oracle::{Need, available};
use workloads::Workload;

/// The commit block is not kept waiting for the log. Only where data is journalled: elsewhere Linux may show what a file's
/// blocks held before.
const ASYNC_COMMIT: &str = "data=journal,journal_async_commit";

/// Options of mount(8), bytes of a block.
const MOUNTS: [(&str, u32); 7] = [
    ("data=ordered", 1024),
    ("data=ordered", 4096),
    ("data=ordered,nodioread_nolock", 1024),
    ("data=journal", 1024),
    ("data=journal", 4096),
    ("data=writeback", 4096),
    (ASYNC_COMMIT, 1024),
];

fn budget(states: usize) -> Budget {
    Budget {
        e2fsck_every: 10,
        kernel_every: 80,
        cut_every: 30,
        cut_thorough_every: 0,
        ..Budget::of(1, states)
    }
}

fn record((name, work): Workload, (options, block_size): (&str, u32)) -> Recording {
    let name = format!("{name}, {options} at {block_size}");
    let mut driver = Driver::new(name, Volume::small(block_size), options);
    work(&mut driver);
    driver.finish()
}

/// X51: no false alarm, on crash states of the kernel's own making.
#[test]
fn x51_what_the_kernel_wrote_survives_every_crash() {
    let test = "x51_what_the_kernel_wrote_survives_every_crash";
    if !available(Need::KernelMountOfOurs, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    let jobs =
        Mutex::new(MOUNTS.iter().flat_map(|mount| workloads::ALL.iter().map(move |work| (*work, *mount))));
    let outcome = Mutex::new((Counts::default(), Vec::new()));
    let worker = || {
        let next = || jobs.lock().unwrap().next();
        while let Some((work, mount)) = next() {
            let mut budget = budget(60);
            if mount.0 == ASYNC_COMMIT {
                // The kernel refuses a commit block over a hole in the log; we know better (R7).
                budget.kernel_every = 0;
            }
            let result = explore(&record(work, mount), &budget);
            let mut outcome = outcome.lock().unwrap();
            match result {
                Ok(counts) => outcome.0 += counts,
                Err(failure) => outcome.1.push(failure.to_string()),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let (counts, failures) = outcome.into_inner().unwrap();
    println!("{counts}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let jobs = MOUNTS.len() * workloads::ALL.len();
    assert!(counts.workloads == jobs && counts.states > 40 * jobs && counts.kernel > 0, "{counts}");
}

/// A recording with one event, and the completion that belongs to it, taken out. In its place stays something, for the model
/// counts events.
fn without(mut recording: Recording, gone: usize) -> Recording {
    let request_of = |event: &Event| match event {
        Event::WriteSubmitted { request, .. }
        | Event::FlushSubmitted { request, .. }
        | Event::Completed { request, .. } => Some(*request),
        _ => None,
    };
    let request = request_of(&recording.events[gone]);
    for event in recording.events.iter_mut().filter(|event| request_of(event) == request) {
        *event = Event::Mark("nothing".into());
    }
    recording
}

/// The judge of the test above accuses a log of the kernel's from which one thing is missing.
#[test]
fn a_log_with_one_flush_or_commit_block_less_is_accused() {
    let test = "a_log_with_one_flush_or_commit_block_less_is_accused";
    if !available(Need::KernelMountOfOurs, test) || !available(Need::E2fsprogs, test) {
        return;
    }
    let is_flush = |event: &Event| matches!(event, Event::FlushSubmitted { .. });
    let is_commit_block = |event: &Event| {
        const START: [u8; 8] = [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 2];
        matches!(event, Event::WriteSubmitted { bytes, .. } if bytes.starts_with(&START))
    };
    for missing in ["commit block", "flush after it", "flush before it"] {
        let recording = record(("appends", workloads::appends), ("data=ordered", 1024));
        let returned = |event: &Event| *event == Event::Mark("fsync log returned".into());
        let fsync = recording.events.iter().position(returned).unwrap();
        let last =
            |end: usize, is: &dyn Fn(&Event) -> bool| recording.events[..end].iter().rposition(is).unwrap();
        let commit = last(fsync, &is_commit_block);
        let gone = match missing {
            "commit block" => commit,
            "flush after it" => last(fsync, &is_flush),
            _ => last(commit, &is_flush),
        };
        let recording = without(recording, gone);
        let all = Budget { states: None, kernel_every: 0, ..budget(0) };
        let failure = explore(&recording, &all).err().unwrap_or_else(|| panic!("no {missing}: not accused"));
        failure.image.iter().for_each(|image| std::fs::remove_file(image).unwrap());
        // Lost, or without its data; without the flush before the commit block also a log that is not to be read.
        let letters = if missing == "flush before it" { ["(a)", "(e)"] } else { ["(d)", "(e)"] };
        let verdict = failure.text.lines().next().unwrap();
        assert!(letters.iter().any(|letter| verdict.contains(letter)), "no {missing}: {}", failure.text);
        println!("no {missing}: {verdict}");
    }
}
