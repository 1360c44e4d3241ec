//! The time of an evaluation.

use crate::median;
use invarlock_tests::{demo, read_json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The demo evaluation as a user runs it, five times.
pub fn print(invarlock: &Path, dir: &Path) {
    let mut walls = Vec::new();
    let mut tokens = 0.0;
    for i in 0..5 {
        let (out, report) = (dir.join(format!("runs{i}")), dir.join(format!("eval{i}")));
        let start = Instant::now();
        let status = Command::new(invarlock)
            .args(["evaluate", "--quiet", "--baseline"])
            .arg(demo("baseline"))
            .arg("--subject")
            .arg(demo("healthy"))
            .arg("--preset")
            .arg(demo("preset.yaml"))
            .arg("--out")
            .arg(&out)
            .arg("--report-out")
            .arg(&report)
            .env("INVARLOCK_STORE", dir.join("evaluate-store"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        walls.push(start.elapsed().as_secs_f64());
        assert!(status.success(), "the demo evaluation failed");
        let telemetry = &read_json(&report.join("evaluation.report.json"))["telemetry"];
        let number = |name: &str| telemetry[name].as_f64().unwrap_or(f64::NAN);
        tokens = number("preview_total_tokens") + number("final_total_tokens");
    }
    walls.sort_by(f64::total_cmp);
    println!("evaluate: demo checkpoints, profile ci, {tokens} tokens a side, 5 runs, medians");
    println!("  whole command        {:>10.2} s", median(&walls));
}
