//! X49: every fault of CM11 is seen; `crash.rs` sees to it that nothing is accused without one. Alone in its program, for
//! a fault is in force for all of it.

use std::sync::Mutex;

#[test]
fn x49_every_mutant_is_caught() {
    let lines = Mutex::new(Vec::new());
    let survivors = ext4_sim::crash::mutants::run(1, &|line| lines.lock().expect("one thread").push(line));
    let table = lines.into_inner().expect("one thread");
    assert!(table.len() == 32 && survivors == 0, "{}", table.join("\n"));
}
