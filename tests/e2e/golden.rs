//! Perplexities, ratios and verdicts of `evaluate` equal those of the upstream Python package
//! (PyTorch) on the same checkpoints.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::fixtures::extract;
use invarlock_tests::{As, Place, read_json};

/// Baseline, subject, and upstream's case with the same pair and profile ci.
const CASES: [(&str, &str, &str); 7] = [
    ("gpt2-tiny", "gpt2-tiny-noop", "gpt2-noop-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-int8", "gpt2-int8-ci-host"),
    ("gpt2-tiny", "gpt2-tiny-damaged", "gpt2-damaged-ci-host"),
    ("llama-tiny", "llama-tiny-int8", "llama-int8-ci-host"),
    ("llama-tiny", "llama-tiny-damaged", "llama-damaged-ci-host"),
    ("bert-tiny", "bert-tiny-int8", "bert-int8-ci-samepath"),
    ("bert-tiny", "bert-tiny-damaged", "bert-damaged-ci-samepath"),
];

#[test]
fn perplexities_ratios_and_verdicts_match_upstream() {
    let fixtures = tempfile::tempdir().unwrap();
    for archive in ["inputs.tar.zst", "inputs-mlm.tar.zst", "reports-0.12.1.tar.zst", "reports-0.8.0.tar.zst"]
    {
        extract(archive, fixtures.path());
    }
    let fixtures = fixtures.path();
    let place = Place::new(As::Caller);
    let models = fixtures.join("models");
    for data in ["valid.jsonl", "valid_mlm.jsonl"] {
        std::os::unix::fs::symlink(fixtures.join(data), place.work(data)).unwrap();
    }
    for (baseline, subject, case) in CASES {
        let golden = ["0.12.1", "0.8.0"].map(|v| fixtures.join(v).join(case).join("evaluation.report.json"));
        let golden =
            golden.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("no case {case}"));
        let golden = read_json(&golden);
        let kind = if baseline.starts_with("bert") { "mlm" } else { "causal" };
        let preset = fixtures.join(format!("presets/preset_{kind}_ci.yaml"));
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
        let report = read_json(&place.work(&eval).join("evaluation.report.json"));
        for end in [0, 1] {
            let bound = |report: &serde_json::Value| report["primary_metric"]["ci"][end].as_f64().unwrap();
            let difference = (bound(&report) - bound(&golden)).abs();
            assert!(difference < 1e-6, "{case}: bound {end} differs by {difference}");
        }
        assert_eq!(report["primary_metric"]["kind"], golden["primary_metric"]["kind"]);
        if subject.ends_with("noop") {
            assert_eq!(value["ratio_vs_baseline"], 1.0);
        }
    }
}

/// Masked windows: the evidence verifies, a reproduction makes the masks again and finds the same losses, and the windows are exported.
#[test]
fn masked_evidence_verifies_and_is_reproduced() {
    let fixtures = tempfile::tempdir().unwrap();
    extract("inputs-mlm.tar.zst", fixtures.path());
    let place = Place::new(As::User);
    for name in ["bert-tiny", "bert-tiny-int8"] {
        place.copy_dir(&fixtures.path().join("models").join(name), name);
    }
    std::fs::copy(fixtures.path().join("valid_mlm.jsonl"), place.work("valid_mlm.jsonl")).unwrap();
    place.write(
        "preset.yaml",
        b"dataset: {provider: {kind: local_jsonl, file: valid_mlm.jsonl}, seq_len: 64, preview_n: 24, final_n: 24}\n\
          eval: {loss: {type: mlm, mask_prob: 0.2}}\n",
    );
    let sides = ["--baseline", "bert-tiny", "--subject", "bert-tiny-int8"];
    let settings = ["--profile", "dev", "--preset", "preset.yaml", "--report-out", "eval", "--quiet"];
    place.run(&[&["evaluate"][..], &sides, &settings].concat()).expect(0);
    let verify = ["verify", "--profile", "dev", "--json", "eval"];
    let inputs =
        ["--baseline-checkpoint", "bert-tiny", "--subject", "bert-tiny-int8", "--dataset", "valid_mlm.jsonl"];
    let verdict = place.run(&[&verify[..], &["--reproduce"], &inputs].concat()).expect(0).json();
    assert_eq!(verdict["results"][0]["assurance"], "reproduced", "{verdict}");
    let lines = place.run(&["report", "export", "--format", "windows", "eval"]).expect(0).out;
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(
        (lines.lines().count(), &last["arm"], &last["window_id"]),
        (48, &"final".into(), &"47".into())
    );
    assert!(last["text"].as_str().is_some_and(|text| !text.is_empty()), "{last}");
}
