//! `invarlock advanced calibrate`: limits from many runs, in processes of their own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests; one of them prints measurements")]

use invarlock_tests::fixtures::extract;
use invarlock_tests::{As, Place, Ran, demo, is_root, read_json, skip, small, target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A place with a configuration of the model `base`.
fn place() -> Place {
    configured(small::place())
}

fn configured(place: Place) -> Place {
    let mut config: Value = read_json(&place.work("preset.yaml"));
    config["model"] = json!({"id": "base", "adapter": "hf_causal"});
    config["edit"] = json!({"name": "noop", "plan": {}});
    config["auto"] = json!({"tier": "balanced"});
    place.write("null.yaml", config.to_string().as_bytes());
    place
}

const NULL_SWEEP: [&str; 9] =
    ["advanced", "calibrate", "null-sweep", "--config", "null.yaml", "--out", "cal", "--profile", "dev"];

fn null_sweep(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&NULL_SWEEP[..], more].concat())
}

/// The limits that a calibration wrote.
fn limits(place: &Place, name: &str) -> Value {
    let text = std::fs::read_to_string(place.work("cal").join(name)).unwrap();
    serde_norway::from_str(&text).unwrap()
}

const NULL_PATCH: &str = "tiers_patch_spectral_null.yaml";
const VE_PATCH: &str = "tiers_patch_variance_ve.yaml";

#[test]
fn a_null_sweep_recommends_limits_that_upstream_reads() {
    let place = place();
    let report = null_sweep(&place, &["--n-seeds", "2", "--jobs", "2", "--json"]).expect(0).json();
    assert_eq!(report["kind"], "spectral_null_sweep");
    assert_eq!(report["config"]["tiers"], json!(["aggressive", "balanced", "conservative"]));
    // Each seed is measured once, and judged by three tiers.
    assert_eq!(place.names("work/cal/runs").len(), 2);
    assert_eq!(report["config"]["n_runs"], 6);
    assert_eq!(report["summaries"]["balanced"]["n_runs"], 2);
    assert_eq!(read_json(&place.work("cal/null_sweep_report.json")), report);
    let caps = &limits(&place, NULL_PATCH)["balanced"]["spectral_guard"]["family_caps"];
    assert!(caps["ffn"].as_f64().unwrap() > 0.0, "{caps}");
    let largest = report["summaries"]["balanced"]["observed"]["family_max_z"]["ffn"].as_f64().unwrap();
    assert!((caps["ffn"].as_f64().unwrap() - largest * 1.05).abs() <= 0.0005);
    let csv = std::fs::read_to_string(place.work("cal/null_sweep_runs.csv")).unwrap();
    assert_eq!(csv.lines().count(), 7, "{csv}");
    assert!(
        std::fs::read_to_string(place.work("cal/null_sweep_summary.md"))
            .unwrap()
            .contains("| balanced | 2 |")
    );
    for run in place.names("work/cal/runs") {
        let evidence = format!("cal/runs/{run}");
        place.run(&["verify", "--profile", "dev", &evidence]).expect(0);
    }
    // The model has no distance from itself, so limits of the comparison would allow nothing.
    assert_eq!(limits(&place, NULL_PATCH)["balanced"]["rmt_guard"], Value::Null);
    if let Some(read) = upstream_reads(&place, NULL_PATCH, "['balanced']['spectral']['family_caps']") {
        for (family, kappa) in caps.as_object().unwrap() {
            assert_eq!(read[family]["kappa"], *kappa, "{read}");
        }
    }

    let again = null_sweep(&place, &["--n-seeds", "2"]).expect(0);
    assert!(again.err.contains("2 of 2 runs are there and are not repeated"), "{}", again.err);
}

/// What InvarLock 0.12.1 finds in the file in the place of its `tiers.yaml`.
fn upstream_reads(place: &Place, patch: &str, member: &str) -> Option<Value> {
    let python = target().join("upstream/0.12.1/bin/python");
    if !python.exists() {
        skip("upstream_reads", "upstream's package is not installed (Python 3.12 or newer needed)");
        return None;
    }
    std::fs::create_dir_all(place.path("config/runtime")).unwrap();
    std::fs::copy(place.work("cal").join(patch), place.path("config/runtime/tiers.yaml")).unwrap();
    let script = format!(
        "import json\nfrom invarlock.core.auto_tuning import get_tier_policies\nprint(json.dumps(get_tier_policies(){member}))"
    );
    let config = place.path("config");
    let output =
        Command::new(python).args(["-c", &script]).env("INVARLOCK_CONFIG_ROOT", config).output().unwrap();
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

const VE_SWEEP: [&str; 13] = [
    "advanced",
    "calibrate",
    "ve-sweep",
    "--config",
    "null.yaml",
    "--out",
    "cal",
    "--profile",
    "dev",
    "--subject",
    "subject",
    "--window",
    "4",
];

/// The rows of `ve_sweep_runs.csv`, by name of the column.
fn ve_rows(place: &Place) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(place.work("cal/ve_sweep_runs.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let names = lines.next().unwrap();
    lines.map(|line| names.iter().cloned().zip(line).collect()).collect()
}

#[test]
fn a_ve_sweep_recommends_a_gain_that_upstream_reads() {
    let place = place();
    let more = ["--window", "2", "--window", "16", "--n-seeds", "2", "--tier", "balanced", "--tier"];
    let command = [&VE_SWEEP[..], &more, &["conservative", "--jobs", "2", "--json"]].concat();
    let report = place.run(&command).expect(0).json();
    assert_eq!(report["kind"], "variance_ve_sweep");
    assert_eq!(report["config"]["windows"], json!([2, 4, 16]));
    // A run on 16 windows gives the numbers of all; the tiers propose other factors.
    assert_eq!(place.names("work/cal/runs").len(), 4);
    assert_eq!(report["config"]["n_runs"], 12);
    assert_eq!(read_json(&place.work("cal/ve_sweep_report.json")), report);
    // 8 windows are measured, and 16 need 14.
    let of_balanced = &report["summaries"]["balanced"];
    assert_eq!((&of_balanced["n_runs"], &of_balanced["observed"]["evaluated_runs"]), (&json!(6), &json!(4)));
    let widths: Vec<&Value> =
        report["power_curve"].as_array().unwrap().iter().map(|point| &point["mean_ci_width"]).collect();
    assert!(widths[0].as_f64().unwrap() > 0.0 && widths[2].is_null(), "{widths:?}");

    let gain = &limits(&place, VE_PATCH)["balanced"]["variance_guard"]["min_effect_lognll"];
    assert_eq!(*gain, of_balanced["recommendations"]["min_effect_lognll"]);
    if let Some(read) = upstream_reads(&place, VE_PATCH, "['balanced']['variance']['min_effect_lognll']") {
        assert_eq!(read, *gain);
    }
    for run in place.names("work/cal/runs") {
        place.run(&["verify", "--profile", "dev", &format!("cal/runs/{run}")]).expect(0);
    }
    let alone = [&VE_SWEEP[..11], &["--window", "16", "--seed", "42", "--tier", "balanced"]].concat();
    place.run(&alone).expect(2).one_error(&["tier balanced: no trial was evaluated", "lower --window"]);
    let again = place.run(&command[..command.len() - 1]).expect(0);
    assert!(again.err.contains("4 of 4 runs are there and are not repeated"), "{}", again.err);
    assert!(again.out.contains("LEAST GAIN") && again.out.contains(VE_PATCH), "{}", again.out);
}

/// The row of fewer windows is what an evaluation on these windows finds.
#[test]
fn rows_of_a_ve_sweep_are_those_of_evaluations() {
    let place = place();
    place.run(&[&VE_SWEEP[..], &["--window", "3", "--seed", "7", "--tier", "balanced"]].concat()).expect(0);
    let rows = ve_rows(&place);
    assert_eq!(rows.len(), 2);
    for row in rows {
        let windows = &row["windows"];
        let draw = ["--guards", "upstream", "--draw-windows", "7", "--guard-windows", windows];
        small::evaluate(&place, &draw).expect(0);
        let report = read_json(&place.work("eval/evaluation.report.json"));
        let trial = &report["variance"]["calibration"];
        assert_eq!((&trial["seed"], &trial["requested"].to_string()), (&json!(7), windows));
        let [low, high] = [0, 1].map(|at| trial["predictive_gate"]["delta_ci"][at].as_f64().unwrap());
        let [row_low, row_high] =
            ["lo", "hi"].map(|end| row[&format!("predictive_delta_ci_{end}")].parse().unwrap());
        assert_eq!((low, high), (row_low, row_high), "{trial}");
        std::fs::remove_dir_all(place.work("eval")).unwrap();
    }
}

#[test]
fn a_model_without_projections_is_refused() {
    let fixtures = tempfile::tempdir().unwrap();
    extract("inputs-mlm.tar.zst", fixtures.path());
    let place = Place::new(As::User);
    place.copy_dir(&fixtures.path().join("models/bert-tiny"), "bert");
    std::fs::copy(fixtures.path().join("valid_mlm.jsonl"), place.work("valid.jsonl")).unwrap();
    let config = json!({
        "model": {"id": "bert"}, "eval": {"loss": {"type": "mlm"}},
        "dataset": {"provider": {"kind": "local_jsonl", "file": "valid.jsonl"}, "seq_len": 64, "preview_n": 24, "final_n": 24},
    });
    place.write("ve.yaml", config.to_string().as_bytes());
    let ve_sweep =
        ["advanced", "calibrate", "ve-sweep", "--config", "ve.yaml", "--out", "cal", "--profile", "dev"];
    let ran = place.run(&[&ve_sweep[..], &["--seed", "1", "--tier", "balanced"]].concat()).expect(3);
    ran.one_error(&["the variance guard of InvarLock finds no projection", "like those of GPT-2"]);
    assert!(!place.work("cal/ve_sweep_report.json").exists());
    // The evidence of the run, whose masked windows a seed drew, is measured again.
    let run = format!("cal/runs/{}", place.names("work/cal/runs")[0]);
    let inputs = ["--baseline-checkpoint", "bert", "--subject", "bert", "--dataset", "valid.jsonl"];
    place.run(&[&["verify", "--profile", "dev", &run, "--reproduce"][..], &inputs].concat()).expect(0);
    let ran = place.run(&[&ve_sweep[..], &["--window", "0"]].concat()).expect(2);
    assert!(ran.err.contains("--window"), "{}", ran.err);
}

#[test]
fn good_subjects_give_limits_of_the_comparison() {
    let place = place();
    let more = ["--seed", "1", "--subject", "subject", "--tier", "balanced", "--json"];
    let report = null_sweep(&place, &more).expect(0).json();
    let extremes = &report["summaries"]["balanced"]["observed"]["compare"];
    let limits = limits(&place, NULL_PATCH);
    let ratio = extremes["max_norm_ratio"].as_f64().unwrap();
    assert!(ratio > 1.0, "{extremes}");
    let most = limits["balanced"]["spectral_guard"]["compare"]["norm_ratio_max"].as_f64().unwrap();
    assert!((most - ratio * 1.05).abs() <= 0.0005, "{limits}");
    assert!(limits["balanced"]["rmt_guard"]["compare"]["epsilon"].as_f64().unwrap() > 0.0, "{limits}");
}

#[test]
fn a_killed_calibration_goes_on_where_it_was() {
    let place = place();
    let mut command = place.command(&[&NULL_SWEEP[..], &["--n-seeds", "3"]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.starts_with("[1/3]")));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(!place.work("cal/null_sweep_report.json").exists());
    let ran = null_sweep(&place, &["--n-seeds", "3"]).expect(0);
    assert!(ran.err.contains("of 3 runs are there and are not repeated"), "{}", ran.err);
    assert_eq!(place.names("work/cal/runs").len(), 3);
}

#[test]
fn a_failed_run_is_named_and_the_others_are_kept() {
    let place = place();
    place.copy_dir(&demo("healthy"), "unknown");
    let mut config = read_json(&demo("healthy").join("config.json"));
    config["model_type"] = json!("mamba");
    place.write("unknown/config.json", config.to_string().as_bytes());
    let more = ["--seed", "1", "--subject", "subject", "--subject", "unknown", "--tier", "balanced"];
    let ran = null_sweep(&place, &more).expect(3);
    ran.one_error(&["1 of 2 runs failed", "unknown with seed 1", "mamba", "repeat the command"]);
    assert_eq!(place.names("work/cal/runs").len(), 1);
    assert!(!place.work("cal/null_sweep_report.json").exists());
}

#[test]
fn faults_are_found_before_anything_runs() {
    let place = place();
    let refused = |config: &Value, more: &[&str], needles: &[&str]| {
        place.write("null.yaml", config.to_string().as_bytes());
        null_sweep(&place, more).expect(2).one_error(needles);
        assert!(!place.work("cal").exists());
    };
    let good: Value = read_json(&place.work("null.yaml"));
    let with = |name: &str, value: Value| {
        let mut config = good.clone();
        config[name] = value;
        config
    };
    refused(&with("model", Value::Null), &[], &["model.id is missing", "model: {id: base/}"]);
    refused(&with("model", json!({"id": "nowhere"})), &[], &["nowhere"]);
    refused(&good, &["--seed", "1", "--seed", "1"], &["--seed 1 occurs twice"]);
    refused(&good, &["--subject", "a/x", "--subject", "b/x"], &["two subjects are called \"x\""]);
    refused(&good, &["--tier", "strict"], &["unknown tier `strict`", "--tier balanced"]);
    refused(&good, &["--", "--bogus"], &["options of evaluate", "--bogus"]);
    place.write("null.yaml", with("edit", json!({"name": "quant_rtn"})).to_string().as_bytes());
    null_sweep(&place, &[]).expect(3).one_error(&["the edit `quant_rtn` is not made here", "--subject"]);
    let ran = null_sweep(&place, &["--safety-margin", "2"]).expect(2);
    assert!(ran.err.contains("not a number from 0 to 1"), "{}", ran.err);
}

#[test]
#[ignore = "a benchmark: make bench-calibrate"]
fn two_jobs_are_nearly_twice_as_fast_as_one() {
    if !is_root() {
        return skip("two_jobs_are_nearly_twice_as_fast_as_one", "--cpus needs a cpu cgroup, so root");
    }
    let place = configured(small::place_of(As::Caller));
    place.run(&["runtime", "image", "build"]).expect(0);
    let mut config: Value = read_json(&place.work("null.yaml"));
    for (name, value) in [("seq_len", 128), ("preview_n", 64), ("final_n", 64)] {
        config["dataset"][name] = json!(value);
    }
    place.write("null.yaml", config.to_string().as_bytes());
    for (verb, seeds) in [("null-sweep", "20"), ("ve-sweep", "20")] {
        let seconds = |jobs: &str| {
            let out = format!("{verb}-{jobs}");
            let start = Instant::now();
            let runs =
                ["--profile", "dev", "--n-seeds", seeds, "--tier", "balanced", "--jobs", jobs, "--quiet"];
            let threads = ["--", "--cpus", "1"];
            let calibrate = ["advanced", "calibrate", verb, "--config", "null.yaml", "--out", &out];
            place.run(&[&calibrate[..], &runs, &threads].concat()).expect(0);
            start.elapsed().as_secs_f64()
        };
        // Two jobs first, so that a cold cache is no advantage of theirs.
        let (two, one) = (seconds("2"), seconds("1"));
        println!("{verb}: 20 runs, one job {one:.1} s, two jobs {two:.1} s, rate {:.2}", one / two);
    }
}
