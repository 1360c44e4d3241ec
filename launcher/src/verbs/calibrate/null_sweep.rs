//! `invarlock advanced calibrate null-sweep`.

use super::{Calibration, Evidence, now};
use crate::args::NullSweepArgs;
use crate::error::Result;
use crate::policy::Policy;
use crate::sweep::Variant;
use crate::ui;
use invarlock_evidence::calibration::null_sweep::{self, Distance, Report, Run, Settings, SpectralRun};
use invarlock_evidence::calibration::{tables, tiers_patch, to_json};
use invarlock_evidence::format::untrusted::Node;
use invarlock_evidence::policy::Tier;

const PATCH: &str = "tiers_patch_spectral_null.yaml";

/// Exits 0 when the files are written.
pub fn run(args: &NullSweepArgs, policy: &Policy) -> Result<u8> {
    let calibration = Calibration::new(&args.runs, &args.config, &args.out, policy)?;
    // What is measured does not depend on the tier: one run gives the numbers of all.
    let tier = calibration.tiers.first().map_or(Tier::Balanced, |tier| *tier);
    let options = vec!["--tier".into(), tier.to_string().into()];
    let variants = vec![Variant { name: String::new(), options }];
    let judged = calibration.measure(variants, |evidence| judge(&calibration, evidence))?;
    let mut runs: Vec<Run> = judged.into_iter().flatten().collect();
    runs.sort_by(|a, b| (&a.tier, a.seed).cmp(&(&b.tier, b.seed)));
    let settings =
        Settings { safety_margin: args.safety_margin, target_any_warning_rate: args.target_any_warning_rate };
    let report = null_sweep::report(&runs, calibration.config_of_report(runs.len(), None), settings, now());
    let patch = args.out.join(PATCH);
    let files = vec![
        ("null_sweep_report.json", to_json(&report)),
        ("null_sweep_runs.csv", tables::null_sweep_runs(&runs).into_bytes()),
        ("null_sweep_summary.md", tables::null_sweep_summary(&report, &patch.to_string_lossy()).into_bytes()),
    ];
    calibration.finish(&report, (PATCH, &tiers_patch::of_null_sweep(&report)), files, print)
}

/// A run, judged by each tier.
fn judge(calibration: &Calibration<'_>, evidence: &Evidence<'_>) -> Result<Vec<Run>> {
    let statistics = evidence.statistics()?;
    let subject = calibration.subject(evidence.run);
    let judged = |tier: &Tier| Run {
        tier: tier.to_string(),
        seed: evidence.run.seed.unwrap_or_default(),
        subject: subject.map(str::to_owned),
        spectral: SpectralRun::of(&statistics.weights, *tier),
        distance: subject.and_then(|_| distance(evidence)),
    };
    Ok(calibration.tiers.iter().map(judged).collect())
}

/// How far the subject is from the baseline; none if the guards did not compare them.
fn distance(evidence: &Evidence<'_>) -> Option<Distance> {
    let report = Node::root("", &evidence.report);
    Some(Distance {
        norm_ratio: report.at("spectral.summary.max_sigma_ratio").f64()?,
        correlation: report.at("spectral.summary.min_correlation").f64()?,
        edge_ratio: report.at("rmt.max_edge_ratio").f64()?,
    })
}

fn print(report: &Report) {
    ui::out(&format!("{:<14}{:>6}{:>10}{:>12}  κ BY FAMILY", "TIER", "RUNS", "WARNINGS", "α"));
    for (tier, summary) in &report.summaries {
        let limits = &summary.recommendations;
        let caps: Vec<String> =
            limits.family_caps.iter().map(|(family, kappa)| format!("{family} {kappa}")).collect();
        ui::out(&format!(
            "{tier:<14}{:>6}{:>10.3}{:>12.6}  {}",
            summary.n_runs,
            summary.observed.any_warning_rate,
            limits.multiple_testing.alpha,
            caps.join(", ")
        ));
    }
    if let Some(limits) = report.summaries.values().find_map(|summary| summary.recommendations.compare) {
        ui::out(&format!(
            "compared with the baseline: ratio of norms at most {}, correlation at least {}, ε {}",
            limits.norm_ratio_max, limits.correlation_min, limits.epsilon
        ));
    }
}
