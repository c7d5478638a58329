//! Crash states from the command line, and the faults that prove the checker (`mutants`):
//! `cargo run --release -p ext4-sim -- crash --states N [--seed S] [--workload NAME] [--each N|all]`.

use std::process::ExitCode;

use ext4_sim::crash::campaign::{Campaign, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    #[cfg(feature = "mutants")]
    if args == ["mutants"] {
        let survivors = ext4_sim::crash::mutants::run(1, &|line| println!("{line}"));
        println!("{survivors} mutants survived");
        return ExitCode::from(u8::from(survivors > 0));
    }
    let Some(campaign) = parse(&args) else {
        eprintln!("usage: ext4-sim crash --states N [--seed S] [--workload NAME] [--each N|all] | mutants");
        return ExitCode::from(2);
    };
    let start = std::time::Instant::now();
    let (counts, failures) = run(&campaign, &|line| eprintln!("{line}"));
    for failure in &failures {
        println!("{failure}\n");
    }
    println!("{counts}, {} failures, seed {}, {:.1?}", failures.len(), campaign.seed, start.elapsed());
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn parse(args: &[String]) -> Option<Campaign> {
    let (command, mut rest) = args.split_first()?;
    if command != "crash" {
        return None;
    }
    let mut campaign = Campaign { states: 10_000, seed: 1, workload: None, each: None, kernel: true };
    while let [option, value, after @ ..] = rest {
        match option.as_str() {
            "--states" => campaign.states = value.parse().ok()?,
            "--seed" => campaign.seed = value.parse().ok()?,
            "--each" if value == "all" => campaign.each = Some(0),
            "--each" => campaign.each = Some(value.parse().ok()?),
            "--workload" => campaign.workload = Some(value.clone()),
            _ => return None,
        }
        rest = after;
    }
    rest.is_empty().then_some(campaign)
}
