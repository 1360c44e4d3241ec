//! The attestation of an evaluation: what `runtime.attestation.json` signs.
//!
//! The statement follows from the facts of the evaluation and its report. The verifier derives it again and accepts no other.
//! The members of a claim are named as in the predicate `eval-result` that in-toto discusses (in-toto/attestation#575).

use crate::evaluation::{BASELINE_REPORT, Facts, REPORT, SUBJECT_REPORT};
use crate::format::evaluation_report::EvaluationReport;
use crate::format::plan::{Dataset, ExecutionMode};
use crate::gates;
use crate::job::Role;
use crate::manifest;
use crate::policy::Profile;
use crate::signing::statement::{Descriptor, Statement};
use invarlock_error::Result;
use serde::{Deserialize, Serialize};

/// Name of the attestation beside the report.
pub const FILE_NAME: &str = "runtime.attestation.json";
/// Type of the predicate.
pub const PREDICATE: &str = "https://invarlock.dev/attestations/evaluation-result/v1";

/// The predicate: the result of an evaluation and how it was obtained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EvaluationResult {
    /// The program that ran the evaluation.
    pub harness: Harness,
    /// Always `self_attested`: the person who ran the evaluation signs it.
    pub assurance_level: String,
    /// Whether the subject passed every gate that decides.
    pub passed: bool,
    /// The gate of the primary metric.
    pub claim: Claim,
    /// All gates; `passed` is null for one that was not evaluated or does not decide.
    pub gates: Vec<Gate>,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// Where the evaluator ran.
    pub execution_mode: ExecutionMode,
    /// The image; null for a run on the host.
    pub image: Option<Descriptor>,
    /// Settings that decide which windows were measured.
    pub dataset: Dataset,
    /// SHA-256 of the plan lock, if the evaluation was made under one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_lock: Option<Descriptor>,
    /// When the command started, UTC.
    pub started_at: String,
    /// When both sides were measured and compared, UTC.
    pub finished_at: String,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Harness {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// `metric comparator threshold`, and whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Claim {
    /// Kind of the primary metric and `ratio_vs_baseline`.
    pub metric: String,
    /// Always `<=`.
    pub comparator: String,
    /// Largest accepted value.
    pub threshold: f64,
    /// The measured value.
    pub value: f64,
    /// Whether it holds.
    pub passed: bool,
    /// Final windows that were paired.
    pub sample_size: usize,
}

/// One gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Its flag in `validation` of the report.
    pub name: String,
    /// Whether it passed.
    pub passed: Option<bool>,
}

/// SHA-256 of the files of the evidence, hexadecimal.
#[derive(Debug, Clone, Copy)]
pub struct Digests<'a> {
    /// Of the evaluation report.
    pub report: &'a str,
    /// Of the runtime manifest.
    pub manifest: &'a str,
}

/// The statement about an evaluation.
///
/// # Errors
/// The facts lack a side.
pub fn statement(
    facts: &Facts,
    report: &EvaluationReport,
    digests: Digests<'_>,
) -> Result<Statement<EvaluationResult>> {
    let (baseline, subject) = (facts.side(Role::Baseline)?, facts.side(Role::Subject)?);
    let mut about = vec![
        Descriptor::new(REPORT, digests.report),
        Descriptor::new(manifest::FILE_NAME, digests.manifest),
        Descriptor::new(BASELINE_REPORT, &facts.run_report(Role::Baseline)?.sha256),
        Descriptor::new(SUBJECT_REPORT, &facts.run_report(Role::Subject)?.sha256),
    ];
    about.extend(Descriptor::of_files("baseline", &baseline.checkpoint));
    about.extend(Descriptor::of_files("subject", &subject.checkpoint));
    about.extend(Descriptor::of_files("dataset", &facts.plan.dataset_files));
    Ok(Statement::new(PREDICATE, about, result(facts, report)))
}

fn result(facts: &Facts, report: &EvaluationReport) -> EvaluationResult {
    let plan = &facts.plan;
    let profile: Profile = plan.profile.parse().unwrap_or(Profile::Ci);
    let gates = gates::gates(&report.without_windows()).into_iter();
    let image = plan.image.as_ref().filter(|_| plan.execution_mode == ExecutionMode::Container);
    EvaluationResult {
        harness: Harness {
            name: "invarlock".to_owned(),
            version: facts.launcher.version.clone(),
            sha256: facts.launcher.sha256.clone(),
        },
        assurance_level: "self_attested".to_owned(),
        passed: gates::all_true(profile, &report.validation),
        claim: claim(report),
        gates: gates.map(|gate| Gate { name: gate.flag.to_owned(), passed: gate.passed }).collect(),
        profile: plan.profile.clone(),
        tier: plan.tier.clone(),
        execution_mode: plan.execution_mode,
        image: image.map(|image| Descriptor::new(&image.reference, &image.manifest_digest)),
        dataset: plan.dataset.clone(),
        plan_lock: plan
            .request
            .lock
            .as_ref()
            .map(|sha256| Descriptor::new(crate::plan_lock::FILE_NAME, sha256)),
        started_at: facts.started_at.clone(),
        finished_at: facts.finished_at.clone(),
    }
}

fn claim(report: &EvaluationReport) -> Claim {
    let (metric, limit) = (&report.primary_metric, &report.resolved_policy.metrics.pm_ratio);
    Claim {
        metric: format!("{}.ratio_vs_baseline", metric.kind),
        comparator: "<=".to_owned(),
        threshold: limit.ratio_limit_base + limit.hysteresis_ratio,
        value: metric.ratio_vs_baseline,
        passed: report.validation.get("primary_metric_acceptable") == Some(true),
        sample_size: report.dataset.windows.final_,
    }
}
