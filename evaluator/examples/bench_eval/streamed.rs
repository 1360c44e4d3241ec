//! An evaluation of a checkpoint that is larger than the memory limit.

use std::path::Path;

use crate::evaluation::Evaluation;
use crate::{Arguments, Result, SEQ_LEN, median, product, shapes};

/// The limit of a container's memory.
const MEMORY: &str = "2G";

/// Prints its tokens per second next to the bound of the arithmetic, which is measured before and after.
pub fn print(invarlock: &Path, arguments: &Arguments) -> Result<()> {
    let count = arguments.streamed_windows;
    let shape = shapes::llama_1b();
    let evaluation = Evaluation::new(&shape, "BF16", count, &arguments.directory)?;
    println!(
        "\nLlama 3.2 1B with random weights in bf16 ({:.1} GB), --memory {MEMORY}, {} windows of {SEQ_LEN}",
        evaluation.bytes as f64 / 1e9,
        2 * count
    );
    let threads = std::thread::available_parallelism()?.get();
    let bound = || product::rate(threads, 2048, 8192) / shape.operations();
    let before = bound();
    let evidence = evaluation.run(invarlock, &["--memory", MEMORY])?;
    let bounds = [before, bound()];
    println!("{:<44}{:>8.1} s", "whole command, both sides", evidence.seconds);
    let bound = median(&bounds);
    println!(
        "{:<44}{bound:>8.1} ({:.1} to {:.1})",
        "bound by a bare matrix product, tokens/s", bounds[0], bounds[1]
    );
    let rates = &evidence.report["system_overhead"]["throughput_sps"];
    for (side, key) in [("baseline", "baseline"), ("subject", "edited")] {
        let rate = rates[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<44}{rate:>8.1} tokens/s, {:.2} of the bound",
            format!("{side}, reading weights included"),
            rate / bound
        );
    }
    let mib = evidence.report["telemetry"]["memory_mb_peak"].as_f64().unwrap_or(f64::NAN);
    println!("{:<44}{mib:>8.0} MiB", "peak resident memory, mapped weights included");
    Ok(())
}
