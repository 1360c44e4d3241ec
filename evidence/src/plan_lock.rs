//! A plan lock: the criteria of an evaluation, signed before it runs (`plan.lock.json`).
//!
//! An author who chooses the tier, the windows or the seed after seeing results can make a weak subject pass. A lock fixes them. A verifier
//! who received the lock before the evaluation passes its digest to `verify`.

use crate::format::dataset::Answers;
use crate::format::evaluation_report::MetricsPolicy;
use crate::format::guard_request::GuardMode;
use crate::format::masking::Masking;
use crate::format::metrics;
use crate::format::plan::{Dataset, Files, Plan};
use crate::policy::{Profile, Tier};
use crate::signing::dsse::Envelope;
use crate::signing::statement::{Descriptor, STATEMENT, Statement};
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};

/// Name of the lock beside the report.
pub const FILE_NAME: &str = "plan.lock.json";
/// Type of the predicate.
pub const PREDICATE: &str = "https://invarlock.dev/attestations/plan-lock/v1";

/// What is fixed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlanLock {
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// Its thresholds.
    pub thresholds: MetricsPolicy,
    /// Band that final/preview perplexity must stay in.
    pub drift_band: [f64; 2],
    /// The dataset's digest, the windows and the seed.
    pub dataset: Dataset,
    /// SHA-256 over names and digests of the files of the baseline checkpoint; null if any baseline may be compared.
    pub baseline: Option<String>,
    /// When it was made, UTC.
    pub locked_at: String,
}

impl PlanLock {
    /// The criteria of a profile and a tier.
    pub fn new(
        profile: Profile,
        tier: Tier,
        dataset: Dataset,
        baseline: Option<&Files>,
        now: String,
    ) -> Self {
        let (low, high) = profile.drift_band();
        Self {
            profile: profile.as_str().to_owned(),
            tier: tier.as_str().to_owned(),
            thresholds: tier.metrics_policy(),
            drift_band: [low, high],
            dataset,
            baseline: baseline.map(|files| files.tree_sha256.clone()),
            locked_at: now,
        }
    }

    /// The statement that is signed, about the dataset and the baseline.
    pub fn statement(self, dataset: &Files, baseline: Option<&Files>) -> Statement<Self> {
        let mut about: Vec<Descriptor> = Descriptor::of_files("dataset", dataset).collect();
        about.extend(baseline.into_iter().flat_map(|files| Descriptor::of_files("baseline", files)));
        Statement::new(PREDICATE, about, self)
    }

    /// The lock in an envelope. Its signatures are not checked.
    ///
    /// # Errors
    /// The envelope has no plan lock, or one that is not written as this program writes it.
    pub fn read(envelope: &Envelope) -> Result<Self> {
        let statement: Statement<Self> = serde_json::from_slice(envelope.payload())
            .map_err(|why| Error::input(why.to_string()))
            .context("reading the statement of a plan lock")?;
        if statement.kind != STATEMENT || statement.predicate_type != PREDICATE {
            return Err(Error::input(format!(
                "the statement is of type {:?}, expected {PREDICATE:?}",
                statement.predicate_type
            )));
        }
        match statement.to_bytes() == envelope.payload() {
            true => Ok(statement.predicate),
            false => Err(Error::integrity("the statement is not in canonical JSON")),
        }
    }

    /// What of a plan is not as it was fixed: a sentence each.
    pub fn broken_by(&self, plan: &Plan) -> Vec<String> {
        let tier = plan.tier.parse().ok().map(Tier::metrics_policy);
        let band = plan.profile.parse().ok().map(Profile::drift_band);
        let baseline = plan.sides.get("baseline").map(|side| side.checkpoint().tree_sha256.as_str());
        let dataset = &plan.dataset;
        let mut broken = Vec::new();
        let mut fixed = |what: &str, locked: String, found: String| {
            if locked != found {
                broken.push(format!("the plan lock fixes the {what} {locked}, the plan has {found}"));
            }
        };
        fixed("profile", self.profile.clone(), plan.profile.clone());
        fixed("tier", self.tier.clone(), plan.tier.clone());
        // No lock names another mode.
        fixed("guards", GuardMode::default().to_string(), plan.guards.mode.to_string());
        fixed("inputs of layers", inputs(false), inputs(plan.weight_only));
        fixed("dataset", self.dataset.tree_sha256.clone(), dataset.tree_sha256.clone());
        fixed("windows", windows(&self.dataset), windows(dataset));
        fixed("seed", self.dataset.seed.to_string(), dataset.seed.to_string());
        fixed("dataset records", records(&self.dataset), records(dataset));
        fixed("metric", metric(&self.dataset), metric(dataset));
        if let Some(locked) = &self.baseline {
            fixed("baseline", locked.clone(), baseline.unwrap_or("none").to_owned());
        }
        if plan.tiers.is_some() {
            broken.push(
                "the plan lock fixes the limits of the tier, the plan has those of a tiers file".to_owned(),
            );
        }
        if tier.as_ref() != Some(&self.thresholds)
            || band.is_none_or(|(low, high)| [low, high] != self.drift_band)
        {
            broken.push("the plan lock fixes other thresholds than this version has for the tier".to_owned());
        }
        broken
    }
}

/// How the inputs of layers are measured. No lock names `--weight-only`.
fn inputs(weight_only: bool) -> String {
    if weight_only { "in float32" } else { "as their checkpoints ask" }.to_owned()
}

fn windows(dataset: &Dataset) -> String {
    let Dataset { preview_n, final_n, seq_len, stride, packing, .. } = dataset;
    format!("{preview_n} + {final_n} of {seq_len} tokens, stride {stride}, packing {}", packing.name())
}

fn records(dataset: &Dataset) -> String {
    let Dataset { text_field, target_field, answers, max_samples, split, provider, .. } = dataset;
    let target = target_field.as_ref().map_or_else(String::new, |field| format!(" and {field:?}"));
    let answers = match answers {
        None => String::new(),
        Some(Answers::Choices { choices_field, answer_field }) => {
            format!(" with choices {choices_field:?} and answer {answer_field:?}")
        }
        Some(Answers::Labels { label_field, labels: None }) => format!(" with label {label_field:?}"),
        Some(Answers::Labels { label_field, labels: Some(labels) }) => {
            format!(" with label {label_field:?} of {labels:?}")
        }
    };
    format!(
        "{max_samples} of member {text_field:?}{target}{answers}, split {split:?}, provider {}",
        provider.name()
    )
}

fn metric(dataset: &Dataset) -> String {
    let name = dataset.metric.map_or("auto", |kind| metrics::of(kind).name);
    let masking = dataset.masking.map_or_else(String::new, |masking| {
        let Masking { mask_prob, seed, random_token_prob, original_token_prob } = masking;
        format!(", masking {mask_prob} with seed {seed}, {random_token_prob} random, {original_token_prob} original")
    });
    format!("{name}{masking}")
}
