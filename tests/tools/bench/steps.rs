//! The time of each step of our run, as the launcher reports it: medians over rounds.

use crate::contenders::Contender;
use crate::median;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Prints the time of each step, back to back and after pauses. Each line is the time since the line above it, so the lines add up to
/// the total. Several processes work at once; a line names the process that reached the step.
pub fn print(ours: &Contender, rounds: usize, pause: Duration) {
    println!(
        "time of each step: medians of {rounds} runs, milliseconds since the launcher's first instruction\n"
    );
    println!("{:<40} {:>10} {:>8} {:>14} {:>8}", "step", "at", "took", "0.2 s: at", "took");
    let (hot, cold) = (measure(ours, rounds, Duration::ZERO), measure(ours, rounds, pause));
    let mut steps: Vec<_> = hot.iter().map(|(name, at)| (name, *at, cold.get(name).copied())).collect();
    steps.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut before = (0.0, 0.0);
    for (name, hot, cold) in steps {
        // A step that some rounds did not reach is not part of the sum.
        let Some(cold) = cold else { continue };
        println!("{name:<40} {hot:>10.2} {:>8.2} {cold:>14.2} {:>8.2}", hot - before.0, cold - before.1);
        before = (hot, cold);
    }
    println!();
}

/// The median time of each step that every run reached; "exit" is the time of the whole command.
fn measure(ours: &Contender, rounds: usize, pause: Duration) -> BTreeMap<String, f64> {
    let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        std::thread::sleep(pause);
        let start = Instant::now();
        let output = (ours.command)(round).arg("--json").stdin(Stdio::null()).output().unwrap();
        let whole = start.elapsed().as_secs_f64() * 1e3;
        assert!(output.status.success(), "round {round}: {output:?}");
        let told: Value = serde_json::from_slice(&output.stderr).unwrap();
        for step in told["timings_us"].as_array().expect("runtime run --json has timings_us") {
            let (name, at) = (step[0].as_str().unwrap(), step[1].as_f64().unwrap());
            times.entry(name.to_owned()).or_default().push(at / 1e3);
        }
        times.entry("whole command".into()).or_default().push(whole);
    }
    times.retain(|_, t| t.len() == rounds);
    times.iter_mut().for_each(|(_, t)| t.sort_by(f64::total_cmp));
    times.into_iter().map(|(name, t)| (name, median(&t))).collect()
}
