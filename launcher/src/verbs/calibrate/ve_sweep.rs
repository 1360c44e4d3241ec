//! `invarlock advanced calibrate ve-sweep`.

use super::{Calibration, Evidence, now};
use crate::args::VeSweepArgs;
use crate::error::{Context as _, Error, Result};
use crate::policy::Policy;
use crate::request;
use crate::sweep::Variant;
use crate::ui;
use invarlock_evidence::calibration::ve_sweep::{self, PredictiveGate, Report, Run, Settings};
use invarlock_evidence::calibration::{tables, tiers_patch, to_json};
use invarlock_evidence::format::evaluation_report::UpstreamVariancePolicy;
use invarlock_evidence::guards::variance::upstream::trial;
use invarlock_evidence::policy::Tier;

const PATCH: &str = "tiers_patch_variance_ve.yaml";

/// Exits 0 when the files are written.
pub fn run(args: &VeSweepArgs, policy: &Policy) -> Result<u8> {
    let calibration = Calibration::new(&args.runs, &args.config, &args.out, policy)?;
    let mut windows = args.window.clone();
    windows.sort_unstable();
    windows.dedup();
    // Factors are tried on the first windows, so a run on the most windows gives the numbers of all.
    let most = windows.last().copied().unwrap_or_default().to_string();
    let variant = |tier: &Tier| Variant {
        name: tier.to_string(),
        options: ["--guards", "upstream", "--guard-windows", &most, "--tier", tier.as_str()]
            .map(Into::into)
            .into(),
    };
    let variants = calibration.tiers.iter().map(variant).collect();
    let judged = calibration.measure(variants, |evidence| judge(&calibration, evidence, &windows))?;
    let mut runs: Vec<Run> = judged.into_iter().flatten().collect();
    runs.sort_by(|a, b| (&a.tier, a.windows, a.seed).cmp(&(&b.tier, b.windows, b.seed)));
    let settings =
        Settings { safety_margin: args.safety_margin, target_enable_rate: args.target_enable_rate };
    let report =
        ve_sweep::report(&runs, calibration.config_of_report(runs.len(), Some(windows)), settings, now());
    refuse_unevaluated(&report)?;
    let patch = args.out.join(PATCH);
    let files = vec![
        ("ve_sweep_report.json", to_json(&report)),
        ("ve_sweep_runs.csv", tables::ve_sweep_runs(&runs).into_bytes()),
        ("ve_power_curve.csv", tables::ve_power_curve(&report).into_bytes()),
        ("ve_sweep_summary.md", tables::ve_sweep_summary(&report, &patch.to_string_lossy()).into_bytes()),
    ];
    calibration.finish(&report, (PATCH, &tiers_patch::of_ve_sweep(&report)), files, print)
}

/// Without an evaluated trial, a tier has no gain, and the limit would be 0.
fn refuse_unevaluated(report: &Report) -> Result<()> {
    match report.summaries.values().find(|summary| summary.observed.evaluated_runs == 0) {
        None => Ok(()),
        Some(summary) => Err(Error::input(format!(
            "tier {}: no trial was evaluated, because fewer windows were measured than each --window needs",
            summary.tier
        )))
        .hint("lower --window, or raise preview_n and final_n in the configuration"),
    }
}

/// A run, judged on each number of windows.
fn judge(calibration: &Calibration<'_>, evidence: &Evidence<'_>, windows: &[u64]) -> Result<Vec<Run>> {
    let run = evidence.run;
    let (profile, tier) = request::profile_and_tier(&run.args.profile, &run.args.tier)?;
    let variance = evidence.statistics()?.upstream.map(|measured| measured.variance);
    let measured = variance.filter(|variance| !variance.projections.is_empty()).ok_or_else(|| {
        Error::unsupported(format!(
            "run {}: the variance guard of InvarLock finds no projection in this model",
            run.evidence.display()
        ))
        .with_hint("calibrate a model with feed-forward projections that it knows, like those of GPT-2")
    })?;
    let seed = run.seed.unwrap_or_default();
    let judged = |windows: &u64| {
        let chosen = ve_sweep::calibration(*windows, seed);
        let policy = UpstreamVariancePolicy::with(profile, tier, Some(chosen));
        Run {
            tier: tier.to_string(),
            one_sided: ve_sweep::one_sided(tier),
            windows: *windows,
            seed,
            subject: calibration.subject(run).map(str::to_owned),
            gate: PredictiveGate::from(&trial(&measured, &policy).predictive_gate),
        }
    };
    Ok(windows.iter().map(judged).collect())
}

fn print(report: &Report) {
    ui::out(&format!("{:<14}{:>6}{:>11}{:>16}{:>8}", "TIER", "RUNS", "EVALUATED", "LEAST GAIN", "RATE"));
    for (tier, summary) in &report.summaries {
        let limits = summary.recommendations;
        ui::out(&format!(
            "{tier:<14}{:>6}{:>11}{:>16.3}{:>8.3}",
            summary.n_runs,
            summary.observed.evaluated_runs,
            limits.min_effect_lognll,
            limits.expected_enable_rate
        ));
    }
    ui::out(&format!("\n{:<14}{:>8}{:>6}  WIDTH OF THE INTERVAL, NATS A TOKEN", "TIER", "WINDOWS", "RUNS"));
    for point in &report.power_curve {
        let width = point.mean_ci_width.map_or_else(|| "none".to_owned(), |width| format!("{width:.6}"));
        ui::out(&format!("{:<14}{:>8}{:>6}  {width}", point.tier, point.windows, point.runs));
    }
}
