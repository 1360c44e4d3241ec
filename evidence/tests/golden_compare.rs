//! The comparison of upstream's run reports gives upstream's numbers.

mod common;

use common::{compare_golden, golden};

#[test]
fn numbers_agree_with_upstream() {
    let root = golden();
    for version in ["0.8.0", "0.12.1"] {
        for case in [
            "gpt2-noop-ci-host",
            "gpt2-int8-ci-host",
            "gpt2-damaged-ci-host",
            "llama-int8-ci-host",
            "llama-damaged-ci-host",
        ] {
            let folder = root.join(version).join(case);
            let computed = compare_golden(&folder);
            let bytes = std::fs::read(folder.join("evaluation.report.json")).expect("golden report");
            let upstream: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            for path in [
                "/primary_metric/preview",
                "/primary_metric/final",
                "/primary_metric/ratio_vs_baseline",
                "/primary_metric/ci/0",
                "/primary_metric/ci/1",
                "/primary_metric/display_ci/0",
                "/primary_metric/display_ci/1",
                "/primary_metric/analysis_point_preview",
                "/primary_metric/analysis_point_final",
                "/baseline_ref/primary_metric/final",
                "/primary_metric_tail/stats/q95",
                "/primary_metric_tail/stats/tail_mass",
                "/primary_metric_tail/stats/tail_mass_weighted",
                "/dataset/windows/stats/paired_delta_summary/mean",
                "/dataset/windows/stats/paired_delta_summary/std",
                "/dataset/windows/stats/paired_delta_summary/mean_preview_weighted",
                "/dataset/hash/total_tokens",
                "/confidence/width",
            ] {
                let number = |report: &serde_json::Value| report.pointer(path).and_then(|v| v.as_f64());
                let (actual, expected) = (number(&computed), number(&upstream));
                let is_near =
                    actual.zip(expected).is_some_and(|(a, b)| (a - b).abs() <= 1e-9 * b.abs().max(1.0));
                assert!(is_near, "{version}/{case}{path}: computed {actual:?}, upstream {expected:?}");
            }
            for path in [
                "/dataset/hash/preview",
                "/dataset/hash/final",
                "/dataset/hash/dataset",
                "/provenance/provider_digest/ids_sha256",
                "/provenance/window_ids_digest",
                "/confidence/label",
                "/invariants/status",
                "/validation/primary_metric_acceptable",
                "/validation/preview_final_drift_acceptable",
                "/validation/invariants_pass",
                "/resolved_policy/metrics/pm_ratio",
                "/resolved_policy/metrics/pm_tail",
                "/resolved_policy/metrics/accuracy",
                "/edit_name",
                "/primary_metric/drift_band",
            ] {
                assert_eq!(computed.pointer(path), upstream.pointer(path), "{version}/{case}{path}");
            }
        }
    }
}
