//! `make bench-verify`: the time of `invarlock verify` against upstream's verifier (0.12.1), interleaved in one run, for a small and a large report,
//! and the rate and memory of 2,000 reports in one command.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first failure")]

use invarlock_tests::{As, Place, demo, target};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 11;
/// Copies of the small report in one command of ours, and in one of upstream's.
const MANY: usize = 2000;
const SOME: usize = 20;
/// Upstream's version.
const UPSTREAM: &str = "0.12.1";

fn main() {
    let invarlock =
        PathBuf::from(std::env::args_os().nth(1).expect("usage: invarlock-verify-bench PATH-OF-INVARLOCK"));
    let upstream = target().join("upstream").join(UPSTREAM).join("bin/invarlock");
    if !upstream.is_file() {
        println!(
            "SKIPPED bench-verify: upstream {UPSTREAM} is not installed (run tests/tools/upstream-venvs.sh)"
        );
        return;
    }
    let place = Place::with(As::Caller, &invarlock);
    println!("{:<22}{:>12}{:>14}{:>10}", "", "ours, ms", "upstream, ms", "ratio");
    for (name, seq_len, windows) in [("small", 128, 240), ("large", 512, 400)] {
        let dir = evidence(&place, name, seq_len, windows);
        let size = dir.join("evaluation.report.json").metadata().unwrap().len() as f64 / 1e6;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(time(verify(&place.path("bin/invarlock"), &["dev"], &dir)));
            theirs.push(time(verify(&upstream, &["dev", "--assurance", "off"], &dir)));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{:<22}{ours:>12.2}{theirs:>14.1}{:>10.4}", format!("{size:.1} MB"), ours / theirs);
    }
    many(&place, &upstream);
}

/// Many reports in one command: reports a second, and the largest resident memory.
fn many(place: &Place, upstream: &Path) {
    let from = place.work("small");
    let copies: Vec<PathBuf> = (0..MANY).map(|n| copy(place, &from, n)).collect();
    let rate = |program: &Path, profile: &[&str], count: usize| {
        let mut command = Command::new("/usr/bin/time");
        command.args(["-f", "%M"]).arg(program).args(["verify", "--profile"]).args(profile);
        command.args(&copies[..count]).stdout(Stdio::null());
        let start = Instant::now();
        let output = command.output().unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let text = String::from_utf8(output.stderr).unwrap();
        let kib: f64 = text.lines().last().unwrap().parse().unwrap_or_else(|_| panic!("{text}"));
        assert!(output.status.success(), "{text}");
        (count as f64 / seconds, kib / 1024.0)
    };
    let (ours, memory) = rate(&place.path("bin/invarlock"), &["dev"], MANY);
    let (theirs, their_memory) = rate(upstream, &["dev", "--assurance", "off"], SOME);
    println!("\n{MANY} reports: {ours:.0} reports a second, {memory:.0} MiB");
    println!(
        "upstream, {SOME} reports: {theirs:.1} reports a second, {their_memory:.0} MiB; ratio {:.0}",
        ours / theirs
    );
}

/// The evidence of the demo checkpoints with windows of this size.
fn evidence(place: &Place, name: &str, seq_len: usize, windows: usize) -> PathBuf {
    place.write("data.jsonl", rows(2 * windows).as_bytes());
    let preset = format!(
        "dataset: {{provider: {{kind: local_jsonl, file: data.jsonl}}, seq_len: {seq_len}, preview_n: {windows}, final_n: {windows}}}\n"
    );
    place.write("preset.yaml", preset.as_bytes());
    let (baseline, subject) = (demo("baseline"), demo("healthy"));
    let args = ["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml", "--report-out", name];
    let sides = ["--baseline", baseline.to_str().unwrap(), "--subject", subject.to_str().unwrap()];
    place.run(&[&args[..], &sides].concat()).expect(0);
    place.work(name)
}

/// Different rows, each with the texts of eight rows of the demo's dataset.
fn rows(count: usize) -> String {
    let data = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let texts: Vec<Value> =
        data.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone()).collect();
    let text = |n: usize| texts[n % texts.len()].as_str().unwrap();
    (0..count)
        .map(|row| {
            let joined: Vec<&str> = (0..8).map(|part| text(row + part * (3 + row / texts.len()))).collect();
            format!("{}\n", json!({"text": joined.join(" ")}))
        })
        .collect()
}

/// A directory with the same evidence: hard links, so that disk space does not limit the number.
fn copy(place: &Place, from: &Path, n: usize) -> PathBuf {
    let to = place.work(&format!("copies/{n}"));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::hard_link(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn verify(program: &Path, profile: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["verify", "--profile"]).args(profile).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn time(mut command: Command) -> f64 {
    let start = Instant::now();
    assert!(command.status().unwrap().success(), "{command:?}");
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
