//! The loss per byte of text in a report: its value, its interval, and when there is none.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::Made;
use invarlock_evidence::format::metrics::{self, MetricKind};
use invarlock_evidence::job::Role;
use invarlock_evidence::measured::Measured;
use invarlock_evidence::policy::{Profile, Tier};

/// Four windows of each arm with the loss 2 of the baseline and 3 of the subject, and these texts of the final ones.
fn made(texts: [&str; 4]) -> Made {
    let loss = |role: Role, _| if role == Role::Subject { 3.0 } else { 2.0 };
    let mut made = Made::with(4, Profile::Dev, Tier::Balanced, &loss);
    let mut measured = Measured::read(&made.baseline).unwrap();
    measured.predicted_texts = Some(texts.map(str::to_owned).to_vec());
    made.baseline = measured.report().unwrap();
    made.seal();
    made
}

#[test]
fn it_is_the_mean_over_windows() {
    let texts = ["a".repeat(200), "b".repeat(400), "\u{e9}".repeat(100), "d".repeat(800)];
    let made = made(texts.each_ref().map(String::as_str));
    let windows = &made.baseline.evaluation_windows.final_;
    let predicted = windows.token_counts.iter().map(|tokens| (tokens - 1) as f64);
    let per_byte: Vec<f64> =
        predicted.zip([200.0, 400.0, 200.0, 800.0]).map(|(n, bytes)| n / bytes).collect();
    let mean = per_byte.iter().sum::<f64>() / 4.0;
    let report = made.report();
    let [metric] = report.secondary_metrics.as_slice() else { panic!("no metric") };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    near(metric.baseline, 2.0 * mean);
    near(metric.final_, 3.0 * mean);
    near(metric.ratio_vs_baseline, 1.5);
    near(metric.bits_per_byte, 3.0 * mean / 2f64.ln());
    let [low, high] = metric.ci;
    assert!(
        low < mean
            && mean < high
            && (metric.kind.as_str(), metric.gated) == ("normalized_nll_per_utf8_byte", false)
    );
}

#[test]
fn there_is_none_without_text() {
    assert!(made(["a", "b", "", "d"]).report().secondary_metrics.is_empty());
    assert!(Made::new(4, 0.0, Profile::Dev, Tier::Balanced).report().secondary_metrics.is_empty());
    let masked = Made::masked("root");
    let report = masked.report();
    assert_eq!(report.primary_metric.kind, metrics::of(MetricKind::PplMlm).name);
    assert!(report.secondary_metrics.is_empty());
}
