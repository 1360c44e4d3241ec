//! Two run reports in, one evaluation report out (`spec/report.md` sections 2 and 3).
//!
//! Neither side is trusted: the reports come out of containers. Every number that is derived from the raw windows
//! is derived again here, and what a report says about itself must agree with it.

mod blocks;
pub(crate) mod derive;
pub(crate) mod invariants;
mod sides;

use crate::gates;
use crate::manifest::ExecutionMode;
use crate::numerics::bootstrap::Method;
use crate::numerics::digest::{compact_json_hash, sha256_hex, spaced_json_hash};
use crate::policy::{ALPHA, HYSTERESIS_RATIO, Profile, Tier};
use crate::run_report::RunReport;
use blocks::{guards, identity, judged, measured, origin};
use invarlock_error::Error;
use serde_json::{Map, Value, json};
use sides::Side;

/// What only the launcher knows about a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareContext {
    /// How strictly it is judged.
    pub profile: Profile,
    /// How far the subject may fall behind.
    pub tier: Tier,
    /// The user's name of the baseline checkpoint.
    pub baseline_model_id: String,
    /// The user's name of the subject checkpoint.
    pub subject_model_id: String,
    /// SHA-256 (hex) over the sorted file names and file digests of the baseline checkpoint; none when the baseline
    /// was measured elsewhere (`--baseline-report`).
    pub baseline_checkpoint_sha256: Option<String>,
    /// The same for the subject.
    pub subject_checkpoint_sha256: Option<String>,
    /// Path of the baseline's run report, as recorded.
    pub baseline_report_path: String,
    /// Path of the subject's run report, as recorded.
    pub subject_report_path: String,
    /// SHA-256 (hex) of the baseline run report's bytes.
    pub baseline_report_sha256: String,
    /// SHA-256 (hex) of the subject run report's bytes.
    pub subject_report_sha256: String,
    /// Container or host.
    pub execution_mode: ExecutionMode,
    /// Time of the comparison, UTC ISO-8601.
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
}

/// What `report_build.generator.name` says of reports made here; the verifier then demands the extensions.
pub const GENERATOR: &str = "invarlock-evidence";

/// Compares `subject` with `baseline` and returns the evaluation report.
///
/// An error means that the reports contradict themselves or each other, or that too little was measured for the
/// profile; not that the subject is bad: a bad subject gives a report whose gates are false
/// ([`crate::gates::passed`]).
pub fn compare(baseline: &RunReport, subject: &RunReport, context: &CompareContext) -> Result<Value, Error> {
    let base = Side::check("baseline", baseline)?;
    let subj = Side::check("subject", subject)?;
    sides::check_pair(&base, &subj)?;

    let numbers = Numbers::derive(&base, &subj, context)?;
    let run_ids = [run_id(baseline, &context.baseline_model_id), run_id(subject, &context.subject_model_id)];
    let policy = Policy::of(context);
    let blocks = [
        identity(subject, &subj, context, &numbers, &run_ids[1]),
        judged(baseline, &base, &subj, context, &numbers, &run_ids[0]),
        measured(baseline, subject, &subj, context, &numbers, &run_ids[1]),
        guards(subject, &numbers),
        policy.blocks(context),
        origin(&base, &subj, context, &numbers, policy.provenance, &run_ids),
    ];
    let mut report = Map::new();
    for block in blocks {
        if let Value::Object(members) = block {
            report.extend(members);
        }
    }
    Ok(Value::Object(report))
}

/// What follows from the losses of both sides.
struct Numbers {
    ratio: f64,
    interval: (f64, f64),
    display: (f64, f64),
    replicates: usize,
    enough: bool,
    unstable: bool,
    invariants: Value,
    validation: Map<String, Value>,
    acceptable: bool,
    passed: bool,
    tail: Value,
    coverage: Value,
    drift_band: Value,
}

impl Numbers {
    fn derive(base: &Side<'_>, subj: &Side<'_>, context: &CompareContext) -> Result<Self, Error> {
        let (profile, tier) = (context.profile, context.tier);
        let (preview_n, final_n) = (subj.report.data.preview_n, subj.report.data.final_n);
        let replicates = replicates(profile, tier);
        enough_measured(profile, tier, preview_n, final_n, replicates)?;
        let (before, after) =
            (&base.report.evaluation_windows.final_, &subj.report.evaluation_windows.final_);
        let (losses, weights) = (&after.logloss, &after.token_counts);
        let ratio = subj.last.perplexity / base.last.perplexity;
        let drift = subj.last.perplexity / subj.preview.perplexity;
        let seed = context.bootstrap_seed;
        let interval =
            derive::paired_ci(losses, &before.logloss, weights, Method::Bca, replicates, ALPHA, seed)
                .map_err(|why| Error::input(format!("the confidence interval cannot be computed: {why}")))?;
        let display = (interval.0.exp(), interval.1.exp());
        if ![ratio, drift, display.0, display.1].into_iter().all(f64::is_finite) {
            return Err(Error::integrity(format!(
                "the comparison has no finite result: ratio {ratio}, drift {drift}, interval {display:?}"
            )));
        }
        let tokens = subj.preview.tokens + subj.last.tokens;
        let enough = derive::enough_tokens(tier, tokens, preview_n, final_n);
        let invariants = invariants::block(base.report, subj.report);
        let validation =
            derive::validation(profile, tier, ratio, drift, enough, invariants["status"].as_str());
        let (low, high) = profile.drift_band();
        Ok(Numbers {
            ratio,
            interval,
            display,
            replicates,
            enough,
            unstable: derive::unstable(replicates, enough),
            invariants,
            acceptable: validation["primary_metric_acceptable"] == json!(true),
            passed: gates::all_true(profile, &validation),
            validation,
            tail: derive::tail(losses, &before.logloss, weights, tier),
            coverage: derive::coverage(tier, preview_n, final_n, replicates),
            drift_band: json!({"min": low, "max": high}),
        })
    }
}

/// Bootstrap replicates of a profile and tier.
fn replicates(profile: Profile, tier: Tier) -> usize {
    let least = if profile.gated() { tier.coverage().replicates } else { 0 };
    profile.replicates().max(least)
}

/// A profile that gates needs the tier's windows and replicates.
fn enough_measured(
    profile: Profile,
    tier: Tier,
    preview_n: usize,
    final_n: usize,
    replicates: usize,
) -> Result<(), Error> {
    let floor = tier.coverage();
    let enough = preview_n >= floor.preview && final_n >= floor.final_ && replicates >= floor.replicates;
    if enough || !profile.gated() {
        return Ok(());
    }
    Err(Error::input(format!(
        "too little was measured for profile {profile} and tier {tier}: {preview_n} + {final_n} windows and \
         {replicates} bootstrap replicates, the floors are {} + {} and {}; give a larger dataset (E005)",
        floor.preview, floor.final_, floor.replicates
    )))
}

/// The thresholds of a comparison, as reports name them.
struct Policy {
    metrics: Value,
    resolved: Value,
    digest: String,
    provenance: Value,
}

impl Policy {
    fn of(context: &CompareContext) -> Self {
        let metrics = context.tier.metrics_policy();
        let resolved = json!({
            "metrics": metrics,
            "invariants": {"strict_mode": false, "on_fail": "monitor"},
        });
        let digest = spaced_json_hash(&json!({"resolved_policy": resolved, "overrides": []}));
        let provenance = json!({
            "tier": context.tier.as_str(),
            "overrides": [],
            "policy_digest": digest,
            "validation_allowlist_source": "contracts",
            "resolved_at": context.generated_at,
        });
        Policy { metrics, resolved, digest, provenance }
    }

    fn blocks(&self, context: &CompareContext) -> Value {
        let tier = context.tier.as_str();
        json!({
            "auto": {"tier": tier, "probes_used": 0, "policy_digest": self.digest},
            "policies": self.resolved,
            "resolved_policy": self.resolved,
            "policy_provenance": self.provenance,
            "policy_digest": {
                "policy_version": "policy-v1",
                "tier_policy_name": tier,
                "thresholds_hash": compact_json_hash(&self.metrics),
                "hysteresis": {"ppl": HYSTERESIS_RATIO, "accuracy_delta_pp": 0.1},
                "min_effective": 0.0,
                "changed": false,
            },
        })
    }
}

/// Upstream's: the first 16 hex digits of SHA-256 over time, model and commit of the run.
fn run_id(report: &RunReport, model_id: &str) -> String {
    let commit: String = report.meta.commit.chars().take(16).collect();
    let mut id = sha256_hex(format!("{}{model_id}{commit}", report.meta.ts).as_bytes());
    id.truncate(16);
    id
}

/// The bytes of `evaluation.report.json`: compact, as the numbers read back exactly.
pub fn to_bytes(report: &Value) -> Vec<u8> {
    let mut bytes = report.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
