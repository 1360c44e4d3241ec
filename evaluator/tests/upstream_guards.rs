//! The guards as `--guards upstream` judges, against upstream's run reports in `tests/fixtures/upstream/` of the workspace.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

mod common;

use std::fs;
use std::path::Path;

use common::{baseline, extract, run};
use invarlock_evidence::format::evaluation_report::{
    UpstreamRmtPolicy, UpstreamSpectralPolicy, UpstreamVariancePolicy,
};
use invarlock_evidence::format::statistics::{ActivationStatistics, VarianceMeasurement, WeightStatistics};
use invarlock_evidence::guards::{rmt, spectral, variance};
use invarlock_evidence::policy::{Profile, Tier};
use serde_json::{Map, Value, json};

/// Checkpoints with the cases in which upstream measured them, and their texts.
const CASES: [(&str, &str, &str); 7] = [
    ("gpt2-tiny-noop", "gpt2-noop-ci-host", "valid.jsonl"),
    ("gpt2-tiny-int8", "gpt2-int8-ci-host", "valid.jsonl"),
    ("gpt2-tiny-damaged", "gpt2-damaged-ci-host", "valid.jsonl"),
    ("llama-tiny-int8", "llama-int8-ci-host", "valid.jsonl"),
    ("llama-tiny-damaged", "llama-damaged-ci-host", "valid.jsonl"),
    ("bert-tiny-int8", "bert-int8-ci-samepath", "valid_mlm.jsonl"),
    ("bert-tiny-damaged", "bert-damaged-ci-samepath", "valid_mlm.jsonl"),
];

/// Unpacks the checkpoints, the texts and upstream's reports.
fn fixtures() -> tempfile::TempDir {
    let fixtures = tempfile::tempdir().expect("a temporary directory");
    for archive in ["inputs.tar.zst", "inputs-mlm.tar.zst", "reports-0.12.1.tar.zst", "reports-0.8.0.tar.zst"]
    {
        extract(archive, fixtures.path());
    }
    fixtures
}

/// A guard in upstream's run report of a subject.
fn golden(case: &Path, guard: &str) -> Value {
    // Upstream writes NaN, which is not JSON.
    let text = fs::read_to_string(case.join("edited.report.json")).expect("a report").replace("NaN", "null");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    report["guards"]
        .as_array()
        .and_then(|guards| guards.iter().find(|found| found["name"] == guard))
        .cloned()
        .expect("the guard")
}

/// Compares all members of `truth` with those of `found`, and gives the largest difference of a number. Numbers below 1 are compared by
/// their absolute difference: a z-score is the difference of two norms.
fn close(found: &Value, truth: &Value, path: &str) -> f64 {
    match truth {
        Value::Object(members) => {
            let member =
                |(name, truth): (&String, &Value)| close(&found[name], truth, &format!("{path}/{name}"));
            members.iter().map(member).fold(0.0, f64::max)
        }
        Value::Array(elements) => {
            assert_eq!(found.as_array().map(Vec::len), Some(elements.len()), "{path}");
            let element = |(i, truth): (usize, &Value)| close(&found[i], truth, &format!("{path}/{i}"));
            elements.iter().enumerate().map(element).fold(0.0, f64::max)
        }
        Value::Number(number) if number.is_f64() => {
            let (found, truth) = (found.as_f64().expect(path), number.as_f64().expect(path));
            let error = (found - truth).abs() / truth.abs().max(1.0);
            assert!(error <= 1e-5, "{path}: {found} instead of {truth}");
            error
        }
        _ => {
            assert_eq!(found, truth, "{path}");
            0.0
        }
    }
}

/// Norms, scores, families, quantiles, selection and decision are upstream's.
#[test]
fn spectral_matches_upstream() {
    let fixtures = fixtures();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let policy = UpstreamSpectralPolicy::of(Tier::Balanced);
    for (model, case, texts) in CASES {
        let checkpoint = fixtures.path().join("models").join(model);
        let report = run(dir.path(), &baseline(&checkpoint, &fixtures.path().join(texts), 128, 2)).report();
        let modules: Vec<WeightStatistics> =
            serde_json::from_value(report["guards"][1]["details"]["modules"].clone()).expect("statistics");
        let found = spectral::upstream::judge(&modules, &modules, &policy);
        let scores: Map<String, Value> =
            found.modules.iter().map(|module| (module.module.clone(), json!(module.z))).collect();
        let families: Map<String, Value> =
            found.modules.iter().map(|module| (module.module.clone(), json!(module.family))).collect();
        let found = json!({
            "passed": found.passed, "decision": found.decision, "metrics": found.metrics,
            "violations": found.violations, "final_z_scores": scores, "module_family_map": families,
        });
        for version in ["0.12.1", "0.8.0"] {
            let truth = golden(&fixtures.path().join(version).join(case), "spectral");
            let mut worst = 0f64;
            for member in
                ["passed", "decision", "metrics", "violations", "final_z_scores", "module_family_map"]
            {
                worst = worst.max(close(&found[member], &truth[member], member));
            }
            for map in ["final_z_scores", "module_family_map"] {
                assert_eq!(found[map].as_object().map(Map::len), truth[map].as_object().map(Map::len));
            }
            eprintln!("{version} {case}: largest difference {worst:.1e}");
        }
    }
}

/// Measures a checkpoint as upstream did, for its guards.
fn measured(fixtures: &Path, model: &str, texts: &str) -> Value {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut job = baseline(&fixtures.join("models").join(model), &fixtures.join(texts), 128, 240);
    job["profile"] = json!("ci");
    job["guards"] = json!({"mode": "upstream"});
    run(dir.path(), &job).report()
}

/// Edges of all families, limits and decision are upstream's.
#[test]
fn rmt_matches_upstream() {
    let fixtures = fixtures();
    let policy = UpstreamRmtPolicy::new();
    for (model, case, texts) in CASES {
        let report = measured(fixtures.path(), model, texts);
        let outputs: ActivationStatistics =
            serde_json::from_value(report["guards"][2]["details"]["outputs"].clone()).expect("statistics");
        let found = rmt::upstream::judge(&outputs.modules, &outputs.modules, &policy);
        let found = json!({"passed": found.stable, "decision": found.decision, "metrics": found.metrics});
        for version in ["0.12.1", "0.8.0"] {
            let mut truth = golden(&fixtures.path().join(version).join(case), "rmt");
            // A time.
            truth["metrics"].as_object_mut().expect("metrics").remove("finalize_time");
            let members = ["passed", "decision", "metrics"];
            let worst = members.map(|member| close(&found[member], &truth[member], member));
            eprintln!("{version} {case}: largest difference {:.1e}", worst.into_iter().fold(0.0, f64::max));
        }
    }
}

/// Factors, perplexities and intervals are upstream's.
#[test]
fn variance_matches_upstream() {
    let fixtures = fixtures();
    let policy = UpstreamVariancePolicy::of(Profile::Ci, Tier::Balanced);
    for (model, case, texts) in CASES {
        let report = measured(fixtures.path(), model, texts);
        let measurement: VarianceMeasurement =
            serde_json::from_value(report["guards"][3]["details"]["measurement"].clone())
                .expect("a measurement");
        let scales = variance::upstream::scales_of(&measurement, &policy);
        let tried = json!(variance::upstream::trial(&measurement, &policy));
        let untouched = json!(variance::upstream::trial_without_scales(&measurement, &policy));
        for version in ["0.12.1", "0.8.0"] {
            let truth = golden(&fixtures.path().join(version).join(case), "variance");
            let (metrics, stats) = (&truth["metrics"], &truth["details"]["stats"]);
            if texts == "valid_mlm.jsonl" {
                assert_eq!(metrics, &json!({}), "upstream finds no projections in BERT");
                assert!(measurement.projections.is_empty());
                continue;
            }
            let object = |scales: &[(String, f64)]| -> Value {
                scales.iter().map(|(name, scale)| (name.clone(), json!(scale))).collect::<Map<_, _>>().into()
            };
            let mut worst = close(&object(&scales.raw), &metrics["raw_scales_pre_edit"], "raw scales");
            worst =
                worst.max(close(&object(&scales.proposed), &metrics["proposed_scales_pre_edit"], "scales"));
            for member in ["requested", "coverage", "min_coverage", "seed", "status", "ppl_no_ve", "ratio_ci"]
            {
                worst = worst.max(close(&untouched[member], &metrics["calibration"][member], member));
            }
            for member in ["coverage", "status", "ppl_no_ve", "ppl_with_ve", "ratio_ci"] {
                worst = worst.max(close(&tried[member], &stats["calibration"][member], member));
            }
            worst = worst.max(close(&untouched["predictive_gate"], &metrics["predictive_gate"], "gate"));
            eprintln!("{version} {case}: largest difference {worst:.1e}");
        }
    }
}
