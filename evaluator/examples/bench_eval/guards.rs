//! The share of an evaluation that the guards take.

use std::path::Path;

use crate::evaluation::Evaluation;
use crate::{Arguments, Result, SEQ_LEN, median, shapes};

/// Windows of each arm: those of a preset that names no number.
const WINDOWS: usize = 64;

/// Prints the share for each mode of the guards: the time of both sides for the guards, of the whole command.
pub fn print(invarlock: &Path, arguments: &Arguments) -> Result<()> {
    let evaluation = Evaluation::new(&shapes::gpt2_small(), "F32", WINDOWS, &arguments.directory)?;
    println!("\nGPT-2 small with random weights, evaluate with {} windows of {SEQ_LEN}", 2 * WINDOWS);
    for mode in ["compare", "upstream"] {
        let mut measured = Vec::new();
        for _ in 0..arguments.rounds {
            let evidence = evaluation.run(invarlock, &["--guards", mode])?;
            let guards = |side: &serde_json::Value| side["metrics"]["timings"]["guards"].as_f64();
            let guards: f64 = evidence.sides.iter().filter_map(guards).sum();
            measured.push((guards, evidence.seconds));
        }
        let shares: Vec<f64> = measured.iter().map(|(guards, whole)| guards / whole).collect();
        let of = |pick: fn(&(f64, f64)) -> f64| median(&measured.iter().map(pick).collect::<Vec<_>>());
        println!(
            "{:<44}{:>8.1} % of {:.1} s ({:.1} s)",
            format!("--guards {mode}"),
            100.0 * median(&shares),
            of(|(_, whole)| *whole),
            of(|(guards, _)| *guards)
        );
    }
    Ok(())
}
