//! Agreement with upstream's golden runs (PyTorch) on its models, when `../shared` is present.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, read_json, shared, skip};

/// Subject, baseline perplexity, subject perplexity, ratio, exit code: golden runs of 0.12.1, profile ci.
const CASES: [(&str, &str, &str); 7] = [
    ("gpt2-tiny", "gpt2-tiny-noop", "gpt2-noop-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-int8", "gpt2-int8-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-damaged", "gpt2-damaged-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-prune50", "gpt2-prune50-ci-host"),
    ("llama-tiny", "llama-tiny", "llama-noop-ci-host"),
    ("llama-tiny", "llama-tiny-int8", "llama-int8-ci-host"),
    ("llama-tiny", "llama-tiny-damaged", "llama-damaged-ci-host"),
];

#[test]
fn perplexities_ratios_and_verdicts_are_upstreams() {
    let name = "golden::perplexities_ratios_and_verdicts_are_upstreams";
    let Some(shared) = shared() else { return skip(name, "there is no ../shared (set INVARLOCK_SHARED)") };
    let golden = tempfile::tempdir().unwrap();
    for version in ["0.12.1", "0.8.0"] {
        let archive = shared.join(format!("data/golden/upstream-{version}.tar.zst"));
        let script = "zstd -q -d --long=27 -c \"$1\" | tar -x -C \"$2\"";
        let status = std::process::Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(archive)
            .arg(golden.path())
            .status();
        if !status.is_ok_and(|s| s.success()) {
            return skip(name, "zstd and tar are needed to unpack the golden runs");
        }
    }
    let place = Place::new(As::Caller);
    let models = shared.join("data/models");
    let data = shared.join("data/valid.jsonl");
    std::os::unix::fs::symlink(&data, place.work("valid.jsonl")).unwrap();
    let preset = shared.join("data/presets/preset_causal_ci.yaml");
    let mut compared = 0;
    for (baseline, subject, case) in CASES {
        let golden =
            ["0.12.1", "0.8.0"].map(|v| golden.path().join(v).join(case).join("evaluation.report.json"));
        let Some(golden) = golden.into_iter().find(|p| p.is_file()).map(|p| read_json(&p)) else { continue };
        let (baseline, subject_dir) = (models.join(baseline), models.join(subject));
        let eval = format!("eval-{subject}");
        let args = [
            "evaluate",
            "--json",
            "--baseline",
            baseline.to_str().unwrap(),
            "--subject",
            subject_dir.to_str().unwrap(),
            "--preset",
            preset.to_str().unwrap(),
            "--report-out",
            &eval,
        ];
        let ran = place.run(&args);
        let damaged = subject.ends_with("damaged");
        let value = ran.expect(i32::from(damaged)).json();
        let close = |what: &str, got: &serde_json::Value, want: &serde_json::Value| {
            let (got, want) = (got.as_f64().unwrap(), want.as_f64().unwrap());
            assert!(((got - want) / want).abs() < 1e-5, "{case}: {what} {got} is not {want}");
        };
        close("final", &value["subject_final"], &golden["primary_metric"]["final"]);
        close("baseline", &value["baseline_final"], &golden["baseline_ref"]["primary_metric"]["final"]);
        close("ratio", &value["ratio_vs_baseline"], &golden["primary_metric"]["ratio_vs_baseline"]);
        if subject.ends_with("noop") {
            assert_eq!(value["ratio_vs_baseline"], 1.0);
        }
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} golden cases were found");
}
