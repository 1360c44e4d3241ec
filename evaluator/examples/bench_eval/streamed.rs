//! A whole evaluation, in containers, of a checkpoint that is larger than the memory limit.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::{Arguments, Result, SEQ_LEN, median, product, shapes};

/// The limit of a container's memory.
const MEMORY: &str = "2G";

/// Prints its tokens per second next to the bound of the arithmetic, which is measured before and after.
pub fn print(invarlock: &Path, arguments: &Arguments) -> Result<()> {
    let place = tempfile::tempdir_in(&arguments.directory)?;
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
    let checkpoint = place.path().join("checkpoint");
    let shape = shapes::llama_1b();
    shape.write(&checkpoint, "BF16")?;
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(demo.join("baseline").join(name), checkpoint.join(name))?;
    }
    let count = arguments.streamed_windows;
    std::fs::write(place.path().join("data.jsonl"), rows(&demo, 2 * count)?)?;
    let preset = format!(
        "dataset: {{provider: {{kind: local_jsonl, file: data.jsonl}}, seq_len: {SEQ_LEN}, stride: {SEQ_LEN}, \
         preview_n: {count}, final_n: {count}}}\n"
    );
    std::fs::write(place.path().join("preset.yaml"), preset)?;
    let size = checkpoint.join("model.safetensors").metadata()?.len() as f64 / 1e9;
    println!(
        "\nLlama 3.2 1B with random weights in bf16 ({size:.1} GB), --memory {MEMORY}, {} windows of {SEQ_LEN}",
        2 * count
    );

    let threads = std::thread::available_parallelism()?.get();
    let bound = || product::rate(threads, 2048, 8192) / shape.operations();
    let mut bounds = vec![bound()];
    let start = Instant::now();
    let output = Command::new(invarlock)
        .args(["evaluate", "--quiet", "--profile", "dev", "--memory", MEMORY, "--preset", "preset.yaml"])
        .args([
            "--baseline",
            "checkpoint",
            "--subject",
            "checkpoint",
            "--out",
            "runs",
            "--report-out",
            "eval",
        ])
        .env("INVARLOCK_STORE", place.path().join("store"))
        .current_dir(place.path())
        .stdout(Stdio::null())
        .output()?;
    let seconds = start.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    bounds.push(bound());
    let read = |name: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(place.path().join("eval").join(name))?)?)
    };
    let report = read("evaluation.report.json")?;
    let rates = report["system_overhead"]["throughput_sps"].clone();
    println!("{:<44}{seconds:>8.1} s", "whole command, both sides");
    let bound = median(&bounds);
    println!(
        "{:<44}{bound:>8.1} ({:.1} to {:.1})",
        "bound by a bare matrix product, tokens/s", bounds[0], bounds[1]
    );
    for (side, key) in [("baseline", "baseline"), ("subject", "edited")] {
        let rate = rates[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<44}{rate:>8.1} tokens/s, {:.2} of the bound",
            format!("{side}, reading weights included"),
            rate / bound
        );
    }
    let mib = report["telemetry"]["memory_mb_peak"].as_f64().unwrap_or(f64::NAN);
    println!("{:<44}{mib:>8.0} MiB", "peak resident memory, mapped weights included");
    Ok(())
}

/// Rows of text that fill a window: each has the texts of many rows of the demo's dataset.
fn rows(demo: &Path, count: usize) -> Result<String> {
    let data = std::fs::read_to_string(demo.join("valid.jsonl"))?;
    let texts: Vec<String> = data
        .lines()
        .map(|line| -> Result<String> {
            let row: Value = serde_json::from_str(line)?;
            Ok(row["text"].as_str().unwrap_or_default().to_owned())
        })
        .collect::<Result<_>>()?;
    let row = |i: usize| {
        let parts: Vec<&str> = (0..12).map(|k| texts[(i * 12 + k) % texts.len()].as_str()).collect();
        json!({"text": parts.join(" ")}).to_string() + "\n"
    };
    Ok((0..count).map(row).collect())
}
