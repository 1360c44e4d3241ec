//! Makes an evaluation report from two run reports.
//!
//! Neither run report is trusted: both come out of containers. Every number that follows from the raw windows is computed again, and the
//! numbers that a run report states must agree.

mod accuracy;
mod arms;
mod blocks;
mod bytes;
pub(crate) mod derive;
mod policy;
mod provenance;
mod sample;
mod sides;
mod tokenizers;

use crate::format::evaluation_report::{
    Band, Coverage, EvaluationReport, SecondaryMetric, Tail, UpstreamVariancePolicy, Validation,
};
use crate::format::guard_request::GuardRequest;
use crate::format::run_report::RunReport;
use crate::format::runtime_manifest::ExecutionMode;
use crate::format::statistics::GuardStatistics;
use crate::format::tiers::TierLimits;
pub use crate::format::to_bytes;
use crate::format::warning::Warning;
use crate::gates;
use crate::guards::{self, Evaluations, Sides, variance};
use crate::measured::digests::WindowHashes;
use crate::measured::{read_guard_request, read_statistics};
use crate::numerics::bootstrap::Method;
use crate::numerics::digest::sha256_hex;
use crate::policy::{ACCURACY_DRIFT, ALPHA, Profile, Tier};
pub use bytes::NLL_PER_BYTE;
use derive::Decisive;
use invarlock_error::{Context as _, Error, Foreign as _, Kind, bail};
use policy::Policy;
pub use sample::Sample;
use sample::replicates;
use serde_json::Value;
use sides::Side;

/// The facts of a comparison that only the launcher knows.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareContext {
    /// The profile.
    pub profile: Profile,
    /// The tier.
    pub tier: Tier,
    /// Limits that replace those of the tier.
    pub limits: TierLimits,
    /// How the guards judge.
    pub guards: GuardRequest,
    /// The user's name of the baseline checkpoint.
    pub baseline_model_id: String,
    /// The user's name of the subject checkpoint.
    pub subject_model_id: String,
    /// SHA-256 over the sorted names and digests of the baseline checkpoint's files; none if unknown.
    pub baseline_checkpoint_sha256: Option<String>,
    /// The same for the subject.
    pub subject_checkpoint_sha256: Option<String>,
    /// Path of the baseline's run report, as recorded.
    pub baseline_report_path: String,
    /// Path of the subject's run report, as recorded.
    pub subject_report_path: String,
    /// SHA-256 of the baseline run report's bytes.
    pub baseline_report_sha256: String,
    /// SHA-256 of the subject run report's bytes.
    pub subject_report_sha256: String,
    /// Container or host.
    pub execution_mode: ExecutionMode,
    /// Time of the comparison, UTC, ISO 8601.
    pub generated_at: String,
    /// Seed of the bootstrap before [`crate::policy::PAIRED_SEED_OFFSET`] is added: `eval.bootstrap.seed`, else the
    /// dataset's seed.
    pub bootstrap_seed: u64,
    /// Windows asked for (preview, final).
    pub requested_windows: (usize, usize),
    /// `--edit-label`; otherwise `noop` for equal checkpoint digests and `custom` for different or unknown ones.
    pub edit_label: Option<String>,
    /// Path of the subject's `events.jsonl`, as recorded; may be empty.
    pub events_path: String,
    /// Warnings about the request, which neither run report contains.
    pub warnings: Vec<Warning>,
}

/// `report_build.generator.name` of reports that this crate writes. The verifier requires more of them than of upstream's.
pub const GENERATOR: &str = "invarlock-evidence";

/// Compares `subject` with `baseline` and returns the evaluation report.
///
/// A subject that fails its gates is no error: its report says so ([`crate::gates::passed`]).
///
/// # Errors
/// The run reports contradict themselves or each other, or too little was measured for the profile.
pub fn compare(
    baseline: &RunReport,
    subject: &RunReport,
    context: &CompareContext,
) -> Result<EvaluationReport, Error> {
    let hashes = [baseline, subject].map(|report| WindowHashes::of(&report.evaluation_windows));
    compare_hashed(baseline, subject, hashes.each_ref(), context)
}

/// As [`compare`]; `hashes` are those of the windows of both reports.
pub(crate) fn compare_hashed(
    baseline: &RunReport,
    subject: &RunReport,
    hashes: [&WindowHashes; 2],
    context: &CompareContext,
) -> Result<EvaluationReport, Error> {
    let base = Side::check("baseline", baseline, hashes[0])?;
    let subj = Side::check("subject", subject, hashes[1])?;
    sides::check_pair(&base, &subj)?;
    sides::check_guards(&base, &subj, context.guards)?;
    let statistics = [read_statistics(baseline)?, read_statistics(subject)?];
    for ((role, side), statistics) in
        [("baseline", baseline), ("subject", subject)].into_iter().zip(&statistics)
    {
        if let Some(why) = statistics.as_ref().and_then(|found| upstream_contradiction(side, found)) {
            bail!(
                Integrity,
                "details.measurement of the variance guard of the {role} contradicts itself: {why}"
            );
        }
    }
    let statistics = match &statistics {
        [Some(before), Some(after)] => Some([before, after]),
        _ => None,
    };
    let guards = Evaluations::new(&Sides {
        baseline,
        subject,
        statistics,
        profile: context.profile,
        tier: context.tier,
        limits: context.limits,
        request: context.guards,
    });
    let numbers = Numbers::derive(&base, &subj, context, &guards)?;
    let comparison = Comparison {
        policy: Policy::new(context, &guards),
        structure: guards::invariants::structure(baseline, subject),
        run_id: run_id(subject, &context.subject_model_id),
        baseline_run_id: run_id(baseline, &context.baseline_model_id),
        base: &base,
        subj: &subj,
        context,
        numbers,
    };
    Ok(comparison.report(guards))
}

/// Why what was measured for the guards of InvarLock 0.12 contradicts itself. A verifier may judge by another profile and tier than those
/// that were measured for.
fn upstream_contradiction(report: &RunReport, statistics: &GuardStatistics) -> Option<&'static str> {
    let measurement = &statistics.upstream.as_ref()?.variance;
    let context = Value::Object(report.context.clone());
    let text = |path: &str| context.pointer(path).and_then(Value::as_str);
    let profile: Option<Profile> = text("/profile").and_then(|name| name.parse().ok());
    let tier: Option<Tier> = text("/auto/tier").and_then(|name| name.parse().ok());
    let (Some((profile, tier)), Ok(request)) = (profile.zip(tier), read_guard_request(report)) else {
        return Some("the run report names no known profile, tier and mode of the guards");
    };
    let policy = UpstreamVariancePolicy::with(profile, tier, request.calibration);
    variance::upstream::contradiction(measurement, &report.evaluation_windows, &policy)
}

/// Fails where the baseline's final arm is too far from its preview arm. Then the two arms are different kinds of text, and a subject that
/// is like its baseline fails the drift gate. A baseline that answers nothing right has no accuracy to compare with.
///
/// # Errors
/// The run report contradicts itself, or its drift is outside the band of a profile that decides on drift.
pub fn check_baseline_drift(baseline: &RunReport, profile: Profile) -> Result<(), Error> {
    let hashes = WindowHashes::of(&baseline.evaluation_windows);
    let side = Side::check("baseline", baseline, &hashes)?;
    let (preview, last) = (side.preview.value, side.last.value);
    let decides = profile.decides("preview_final_drift_acceptable");
    if side.metric.is_accuracy() {
        accuracy::check_baseline(&side)?;
        return match (last - preview).abs() <= ACCURACY_DRIFT || !decides {
            true => Ok(()),
            false => Err(Error::input(format!(
                "the baseline's accuracy is {last:.4} on the final examples and {preview:.4} on the preview examples; \
                 profile {profile} accepts a difference of {:.0} percentage points",
                100.0 * ACCURACY_DRIFT
            ))
            .with_hint("shuffle the rows of the dataset once, so that both groups are the same kind of example, or measure more examples")),
        };
    }
    let (drift, (low, high)) = (last / preview, profile.drift_band());
    if !decides || (low..=high).contains(&drift) {
        return Ok(());
    }
    Err(Error::input(format!(
        "the baseline's perplexity is {last:.4} on the final windows and {preview:.4} on the preview windows, a drift of {drift:.4}; \
         profile {profile} accepts {low:.2} to {high:.2}"
    ))
    .with_hint("shuffle the rows of the dataset once, so that both groups of windows are the same kind of text"))
}

/// Everything that a report is made from.
struct Comparison<'a> {
    base: &'a Side<'a>,
    subj: &'a Side<'a>,
    context: &'a CompareContext,
    numbers: Numbers,
    policy: Policy,
    structure: crate::format::evaluation_report::Structure,
    run_id: String,
    baseline_run_id: String,
}

/// Numbers that follow from the losses of both sides.
struct Numbers {
    /// The metric of the subject divided by that of the baseline.
    ratio: f64,
    /// The difference of accuracies, percentage points; none for other metrics.
    delta_pp: Option<f64>,
    /// Interval of the difference of log-losses or of accuracies.
    interval: (f64, f64),
    /// Interval of the ratio, or of the difference of accuracies in percentage points.
    display: (f64, f64),
    replicates: usize,
    unstable: bool,
    validation: Validation,
    /// Whether the metric's gate passed.
    acceptable: bool,
    /// Whether every gate passed.
    passed: bool,
    tail: Tail,
    coverage: Coverage,
    drift_band: Band,
    secondary: Option<SecondaryMetric>,
}

/// The numbers of a metric.
struct Metric {
    delta_pp: Option<f64>,
    interval: (f64, f64),
    display: (f64, f64),
    decisive: Decisive,
    tail: Tail,
    drift_band: Band,
    secondary: Option<SecondaryMetric>,
}

impl Numbers {
    fn derive(
        base: &Side<'_>,
        subj: &Side<'_>,
        context: &CompareContext,
        guards: &Evaluations,
    ) -> Result<Self, Error> {
        let (profile, tier) = (context.profile, context.tier);
        let (preview_n, final_n) = (subj.report.data.preview_n, subj.report.data.final_n);
        let replicates = replicates(profile, tier);
        let tokens = (!subj.metric.is_accuracy()).then_some(subj.preview.tokens + subj.last.tokens);
        Sample { preview: preview_n, final_: final_n, tokens }.check_coverage(profile, tier)?;
        let metric = match subj.metric.is_accuracy() {
            true => accuracy::derive(base, subj, context, replicates)?,
            false => perplexity(base, subj, context, replicates)?,
        };
        let Metric { delta_pp, interval, display, decisive, tail, drift_band, secondary } = metric;
        let ratio = subj.last.value / base.last.value;
        if ![ratio, decisive.drift(), display.0, display.1].into_iter().all(f64::is_finite) {
            bail!(
                Integrity,
                "the comparison has no finite result: ratio {ratio}, drift {}, interval {display:?}",
                decisive.drift()
            );
        }
        let flags = guards.flags_for(subj.metric);
        let validation = derive::validation(profile, tier, &decisive, &flags);
        Ok(Numbers {
            ratio,
            delta_pp,
            interval,
            display,
            replicates,
            unstable: derive::unstable(replicates, decisive.is_enough()),
            acceptable: validation.get("primary_metric_acceptable") == Some(true),
            passed: gates::all_true(profile, &validation),
            validation,
            tail,
            coverage: derive::coverage(tier, preview_n, final_n, replicates),
            drift_band,
            secondary,
        })
    }
}

/// The numbers of a perplexity.
fn perplexity(
    base: &Side<'_>,
    subj: &Side<'_>,
    context: &CompareContext,
    replicates: usize,
) -> Result<Metric, Error> {
    let (tier, data) = (context.tier, &subj.report.data);
    let (before, after) = (&base.report.evaluation_windows.final_, &subj.report.evaluation_windows.final_);
    let (losses, weights) = (&after.logloss, &after.token_counts);
    let seed = context.bootstrap_seed;
    let interval =
        derive::paired_ci(losses, &before.logloss, Some(weights), Method::Bca, replicates, ALPHA, seed)
            .err_kind(Kind::Input)
            .context("computing the confidence interval")?;
    let tokens = subj.preview.tokens + subj.last.tokens;
    let (min, max) = context.profile.drift_band();
    Ok(Metric {
        delta_pp: None,
        interval,
        display: (interval.0.exp(), interval.1.exp()),
        decisive: Decisive::Perplexity {
            ratio: subj.last.value / base.last.value,
            drift: subj.last.value / subj.preview.value,
            enough_tokens: derive::enough_tokens(tier, tokens, data.preview_n, data.final_n),
        },
        tail: derive::tail(losses, &before.logloss, weights, tier),
        drift_band: Band { min, max },
        secondary: bytes::nll_per_byte(base, subj, replicates, seed)?,
    })
}

/// As upstream: the first 16 hexadecimal digits of the SHA-256 of time, model and commit of the run.
fn run_id(report: &RunReport, model_id: &str) -> String {
    let commit: String = report.meta.commit.chars().take(16).collect();
    let mut id = sha256_hex(format!("{}{model_id}{commit}", report.meta.ts).as_bytes());
    id.truncate(16);
    id
}
