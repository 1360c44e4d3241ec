//! Calibration says what InvarLock 0.12.1 says of the same runs. `data/calibration/make.py` made the cases.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_evidence::calibration::{SweepConfig, null_sweep, tables, tiers_patch, to_json, ve_sweep};
use serde_json::{Value, json};

fn cases(kind: &str) -> Vec<Value> {
    let cases: Value = serde_json::from_str(include_str!("data/calibration/cases.json")).unwrap();
    cases[kind].as_array().unwrap().clone()
}

fn config(n_runs: usize) -> SweepConfig {
    SweepConfig {
        base_config: "null.yaml".into(),
        profile: "ci".into(),
        tiers: vec!["balanced".into()],
        windows: None,
        n_runs,
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Numbers that are equal may be written as integers by one side.
fn assert_equal(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            assert_eq!(
                found.keys().collect::<std::collections::BTreeSet<_>>(),
                expected.keys().collect(),
                "{place}"
            );
            expected
                .iter()
                .for_each(|(name, value)| assert_equal(&found[name], value, &format!("{place}.{name}")));
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!(
                (found - expected).abs() <= 1e-15 * expected.abs(),
                "{place}: {found}, expected {expected}"
            );
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

fn null_run(seed: usize, spectral: &Value) -> null_sweep::Run {
    null_sweep::Run {
        tier: "balanced".into(),
        seed: seed as u64,
        subject: None,
        spectral: serde_json::from_value(spectral.clone()).unwrap(),
        distance: None,
    }
}

#[test]
fn null_sweeps_are_summarised_as_upstream_does() {
    for (index, case) in cases("null").iter().enumerate() {
        let runs = case["runs"].as_array().unwrap();
        let runs: Vec<_> = runs.iter().enumerate().map(|(seed, run)| null_run(seed, run)).collect();
        let settings = null_sweep::Settings {
            safety_margin: number(&case["settings"]["safety_margin"]),
            target_any_warning_rate: number(&case["settings"]["target_any_warning_rate"]),
        };
        let report = null_sweep::report(&runs, config(runs.len()), settings, "2026-01-31T12:00:00Z".into());
        let found: Value = serde_json::from_slice(&to_json(&report)).unwrap();
        assert_equal(&found["summaries"]["balanced"], &case["summary"], &format!("case {index}"));
        assert_eq!(tables::null_sweep_runs(&runs).lines().count(), 1 + runs.len());
    }
}

#[test]
fn variance_sweeps_are_summarised_as_upstream_does() {
    for (index, case) in cases("ve").iter().enumerate() {
        let gates = case["gates"].as_array().unwrap();
        let run = |(seed, gate): (usize, &Value)| ve_sweep::Run {
            tier: "balanced".into(),
            one_sided: case["one_sided"].as_bool().unwrap(),
            windows: 6 + seed as u64 % 2,
            seed: seed as u64,
            subject: None,
            gate: serde_json::from_value(gate.clone()).unwrap(),
        };
        let runs: Vec<_> = gates.iter().enumerate().map(run).collect();
        let settings = ve_sweep::Settings {
            safety_margin: number(&case["settings"]["safety_margin"]),
            target_enable_rate: number(&case["settings"]["target_enable_rate"]),
        };
        let report = ve_sweep::report(&runs, config(runs.len()), settings, "2026-01-31T12:00:00Z".into());
        let found: Value = serde_json::from_slice(&to_json(&report)).unwrap();
        assert_equal(&found["summaries"]["balanced"], &case["summary"], &format!("case {index}"));
        assert_eq!(report.power_curve.iter().map(|point| point.runs).sum::<usize>(), runs.len());
    }
}

/// Subjects that are known to be good give limits of the comparison: the extremes with the margin.
#[test]
fn subjects_give_limits_of_the_comparison() {
    let spectral = &cases("null")[0]["runs"][0];
    let distance = |norm_ratio, correlation, edge_ratio| {
        let distance = null_sweep::Distance { norm_ratio, correlation, edge_ratio };
        let subject = Some("=int8".to_owned());
        null_sweep::Run { distance: Some(distance), subject, ..null_run(42, spectral) }
    };
    let runs = [distance(1.2, 0.99, 1.01), distance(1.01, 0.9, 1.1)];
    let settings = null_sweep::Settings { safety_margin: 0.05, target_any_warning_rate: 1.0 };
    let report = null_sweep::report(&runs, config(2), settings, "2026-01-31T12:00:00Z".into());
    let patch = serde_json::to_value(tiers_patch::of_null_sweep(&report)).unwrap();
    let tier = &patch["balanced"];
    assert_eq!(tier["spectral_guard"]["compare"], json!({"norm_ratio_max": 1.26, "correlation_min": 0.855}));
    assert_eq!(tier["rmt_guard"], json!({"compare": {"epsilon": 0.155}}));
    let csv = tables::null_sweep_runs(&runs);
    assert!(csv.starts_with("candidate_attn,") && csv.contains("\"'=int8\""), "{csv}");
    let summary = tables::null_sweep_summary(&report, "out/tiers.yaml");
    assert!(summary.contains("| balanced | 2 | "), "{summary}");
}
