//! Perplexities, ratios and verdicts of `evaluate` equal those of the upstream Python package
//! (PyTorch) on the same checkpoints.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::fixtures::extract;
use invarlock_tests::{As, Place, read_json};

/// Baseline, subject, and upstream's case with the same pair and profile ci.
const CASES: [(&str, &str, &str); 5] = [
    ("gpt2-tiny", "gpt2-tiny-noop", "gpt2-noop-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-int8", "gpt2-int8-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-damaged", "gpt2-damaged-ci-host"),
    ("llama-tiny", "llama-tiny-int8", "llama-int8-ci-host"),
    ("llama-tiny", "llama-tiny-damaged", "llama-damaged-ci-host"),
];

#[test]
fn perplexities_ratios_and_verdicts_match_upstream() {
    let fixtures = tempfile::tempdir().unwrap();
    for archive in ["inputs.tar.zst", "reports-0.12.1.tar.zst", "reports-0.8.0.tar.zst"] {
        extract(archive, fixtures.path());
    }
    let fixtures = fixtures.path();
    let place = Place::new(As::Caller);
    let models = fixtures.join("models");
    let data = fixtures.join("valid.jsonl");
    std::os::unix::fs::symlink(&data, place.work("valid.jsonl")).unwrap();
    let preset = fixtures.join("presets/preset_causal_ci.yaml");
    for (baseline, subject, case) in CASES {
        let golden = ["0.12.1", "0.8.0"].map(|v| fixtures.join(v).join(case).join("evaluation.report.json"));
        let golden =
            golden.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("no case {case}"));
        let golden = read_json(&golden);
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
        let assert_close = |what: &str, got: &serde_json::Value, want: &serde_json::Value| {
            let (got, want) = (got.as_f64().unwrap(), want.as_f64().unwrap());
            assert!(((got - want) / want).abs() < 1e-5, "{case}: {what} is {got}, expected {want}");
        };
        assert_close("final", &value["subject_final"], &golden["primary_metric"]["final"]);
        assert_close(
            "baseline",
            &value["baseline_final"],
            &golden["baseline_ref"]["primary_metric"]["final"],
        );
        assert_close("ratio", &value["ratio_vs_baseline"], &golden["primary_metric"]["ratio_vs_baseline"]);
        if subject.ends_with("noop") {
            assert_eq!(value["ratio_vs_baseline"], 1.0);
        }
    }
}
