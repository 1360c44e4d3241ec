//! `invarlock advanced calibrate`: limits from many runs, in processes of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{Place, Ran, demo, read_json, skip, small, target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// A place with a configuration of the model `base`.
fn place() -> Place {
    let place = small::place();
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
fn limits(place: &Place) -> Value {
    let text = std::fs::read_to_string(place.work("cal/tiers_patch_spectral_null.yaml")).unwrap();
    serde_norway::from_str(&text).unwrap()
}

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
    let caps = &limits(&place)["balanced"]["spectral_guard"]["family_caps"];
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
    assert_eq!(limits(&place)["balanced"]["rmt_guard"], Value::Null);
    upstream_reads_the_limits(&place, caps);

    let again = null_sweep(&place, &["--n-seeds", "2"]).expect(0);
    assert!(again.err.contains("2 of 2 runs are there and are not repeated"), "{}", again.err);
}

/// InvarLock 0.12.1 reads the file in the place of its `tiers.yaml`.
fn upstream_reads_the_limits(place: &Place, caps: &Value) {
    let python = target().join("upstream/0.12.1/bin/python");
    if !python.exists() {
        return skip(
            "upstream_reads_the_limits",
            "upstream's package is not installed (Python 3.12 or newer needed)",
        );
    }
    std::fs::create_dir_all(place.path("config/runtime")).unwrap();
    let to = place.path("config/runtime/tiers.yaml");
    std::fs::copy(place.work("cal/tiers_patch_spectral_null.yaml"), to).unwrap();
    let script = "import json\nfrom invarlock.core.auto_tuning import get_tier_policies\n\
        print(json.dumps(get_tier_policies()['balanced']['spectral']['family_caps']))";
    let output = Command::new(python)
        .args(["-c", script])
        .env("INVARLOCK_CONFIG_ROOT", place.path("config"))
        .output()
        .unwrap();
    let read: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    for (family, kappa) in caps.as_object().unwrap() {
        assert_eq!(read[family]["kappa"], *kappa, "{read}");
    }
}

#[test]
fn good_subjects_give_limits_of_the_comparison() {
    let place = place();
    let more = ["--seed", "1", "--subject", "subject", "--tier", "balanced", "--json"];
    let report = null_sweep(&place, &more).expect(0).json();
    let extremes = &report["summaries"]["balanced"]["observed"]["compare"];
    let limits = limits(&place);
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
