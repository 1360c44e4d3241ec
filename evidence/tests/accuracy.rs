//! The accuracy: its numbers, its gates, and that verification derives it from the losses of choices.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::Made;
use invarlock_evidence::format::evaluation_report::EvaluationReport;
use invarlock_evidence::job::Role;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{VerifyOptions, verify_report};

/// A subject that answers these final examples wrong besides those that its baseline does, which is the last one and every tenth.
fn made(n: u64, wrong: &[u64], right: &[u64], profile: Profile) -> Made {
    Made::choices(n as usize, profile, Tier::Balanced, &|role, example| {
        let place = example % n;
        let base = place % 10 != 9;
        let changed = role == Role::Subject && example >= n;
        (base || changed && right.contains(&place)) && !(changed && wrong.contains(&place))
    })
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
}

fn flag(report: &EvaluationReport, name: &str) -> Option<bool> {
    report.validation.get(name)
}

/// The interval is that of `bca` in numpy, with the seed 43 + 503 and 1,200 replicates.
#[test]
fn the_lower_end_of_the_interval_decides() {
    let report = made(240, &[10, 50, 90, 130], &[209], Profile::Ci).report();
    let metric = &report.primary_metric;
    near(metric.delta_pp.unwrap(), -1.25);
    near(metric.final_, 213.0 / 240.0);
    near(metric.ratio_vs_baseline, 213.0 / 216.0);
    assert_eq!((metric.n_final, metric.gating_basis.as_str()), (Some(240), "lower"));
    near(metric.ci[0], -0.0375);
    near(metric.ci[1], 0.0);
    near(metric.display_ci[0], -3.75);
    assert_eq!(flag(&report, "primary_metric_acceptable"), Some(false));
    assert_eq!(flag(&report, "preview_final_drift_acceptable"), Some(true));
    assert_eq!(flag(&report, "guard_overhead_acceptable"), None);
    let counts = &report.metrics.as_ref().unwrap().classification;
    assert_eq!((counts.n_correct, counts.n_total, counts.preview.n_correct), (213, 240, 216));
    assert!(report.secondary_metrics.is_empty() && !report.primary_metric_tail.evaluated);
    assert_eq!(
        (report.quality_overhead.basis.as_str(), report.confidence.basis.as_str()),
        ("delta_pp", "accuracy")
    );
}

#[test]
fn more_examples_allow_a_small_loss() {
    let pass = |n| {
        let report = made(n, &[10], &[], Profile::Dev).report();
        flag(&report, "primary_metric_acceptable").unwrap()
    };
    assert_eq!((pass(60), pass(500)), (false, true));
}

#[test]
fn evidence_of_an_accuracy_verifies() {
    for (wrong, accepted) in [(&[][..], true), (&[10, 50, 90, 130][..], false)] {
        let made = made(240, wrong, &[], Profile::Ci);
        let directory = tempfile::tempdir().unwrap();
        let path = made.write(directory.path());
        let verdict =
            verify_report(&path, &VerifyOptions { profile: Profile::Ci, ..VerifyOptions::default() });
        assert_eq!(verdict.errors, Vec::<String>::new());
        assert_eq!(verdict.ok(), accepted, "{:?}", verdict.gate_failures);
        let sentence = verdict.gate_failures.first().cloned().unwrap_or_default();
        assert_eq!(sentence.contains("percentage points"), !accepted, "{sentence}");
    }
}

#[test]
fn an_example_that_was_left_out_is_noticed() {
    let mut made = made(12, &[], &[], Profile::Dev);
    (made.facts.plan.dataset.preview_n, made.facts.plan.dataset.final_n) = (13, 13);
    made.seal();
    let directory = tempfile::tempdir().unwrap();
    let path = made.write(directory.path());
    let verdict = verify_report(&path, &VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() });
    assert!(
        verdict.errors.iter().any(|why| why.contains("12 + 12 examples, planned are 13 + 13")),
        "{:?}",
        verdict.errors
    );
}

#[test]
fn a_baseline_without_a_right_answer_is_refused() {
    let made = Made::choices(4, Profile::Dev, Tier::Balanced, &|_, example| example < 4);
    let error = made.facts.compare(&made.baseline, &made.subject).unwrap_err();
    assert!(error.message().contains("answers none of the 4 final examples right"), "{error}");
}
