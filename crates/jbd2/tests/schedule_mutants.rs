//! X22. Faults that only some schedules show, put into the journal on purpose: the search that leaves out what it has seen
//! finds each of them, and with as few preemptions as the search that leaves out nothing.

#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "another test program needs the rest")]
mod explorer;

use explorer::workloads::{blocks_freed_and_used_again, two_writers_and_a_committer};
use explorer::{Search, run};

type Mutant = (u32, &'static str, fn(), u8);

/// Number, what is broken, who notices, and the preemptions that it takes.
const MUTANTS: [Mutant; 10] = [
    (7, "no copy-out", two_writers_and_a_committer, 1),
    (11, "no revoke", blocks_freed_and_used_again, 0),
    (18, "a cancelled revoke is written", blocks_freed_and_used_again, 0),
    (41, "a commit does not wait for handles", two_writers_and_a_committer, 1),
    (42, "a handle that stops wakes nobody", two_writers_and_a_committer, 1),
    (43, "who gives the turn back wakes nobody", two_writers_and_a_committer, 1),
    (44, "the lock order is swapped: state, home", blocks_freed_and_used_again, 1),
    (45, "a transaction is neither running nor committing for a moment", two_writers_and_a_committer, 1),
    (46, "space is usable while its old content is written home", blocks_freed_and_used_again, 1),
    (47, "the tail stays before a transaction that is being told of", blocks_freed_and_used_again, 2),
];

#[test]
fn every_fault_is_found_by_both_searches() {
    for (number, what, body, preemptions) in MUTANTS {
        jbd2::activate_mutant(number);
        for most in 0..=preemptions {
            for reduced in [true, false] {
                let (search, went_well) = run(Search::new(most, reduced), body);
                println!("{what}: {most} preemptions, {} schedules, reduced: {reduced}", search.schedules);
                assert_eq!(went_well, most < preemptions, "{what}: {most} preemptions, reduced: {reduced}");
            }
        }
    }
}
