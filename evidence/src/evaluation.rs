//! An evaluation as the facts from which its report and its runtime manifest follow.
//!
//! `evaluate` writes what [`Facts::compare`] and [`Facts::manifest`] give. The verifier reads the facts back from the files, derives both
//! documents again with the same functions, and requires that nothing differs.

use crate::compare::{CompareContext, compare};
use crate::format::evaluation_report::EvaluationReport;
use crate::format::metrics::{self, MetricKind};
use crate::format::plan::{Plan, Request};
use crate::format::run_report::RunReport;
use crate::format::runtime_manifest::{
    Boundary, Context, File, Launcher, Machine, PlanRecord, RuntimeManifest, Side,
};
use crate::format::to_value;
use crate::job::{Job, JobPaths, Role, Task};
use crate::manifest::{Config, ManifestInput, build};
use crate::numerics::digest::{canonical_json, sha256_hex};
use crate::policy::{Profile, Tier};
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Name of the evaluation report.
pub const REPORT: &str = "evaluation.report.json";
/// Name of the baseline's run report beside the evaluation report.
pub const BASELINE_REPORT: &str = "baseline.report.json";
/// Name of the subject's run report beside the evaluation report.
pub const SUBJECT_REPORT: &str = "subject.report.json";
/// Name of a run's report in its output.
pub const RUN_REPORT: &str = "report.json";

/// Path of the [`Journal`](crate::journal::Journal) in a container that resumes a measurement.
pub const JOURNAL: &str = "/in/journal.json";

/// `command` in the context of an evaluation's manifest.
const COMMAND: &str = "evaluate";

/// What was asked for, planned, and observed in one evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The plan.
    pub plan: Plan,
    /// When the command started, UTC, ISO 8601.
    pub started_at: String,
    /// When both sides were measured and compared.
    pub finished_at: String,
    /// The program that ran it.
    pub launcher: Launcher,
    /// The machine that it ran on.
    pub machine: Machine,
    /// Who isolated a host run.
    pub boundary: Option<Boundary>,
    /// What was measured, by role.
    pub sides: BTreeMap<String, Side>,
    /// Absolute path that the report, or the run report of [`Self::side_manifest`], was written to.
    pub report_path: String,
}

impl Facts {
    /// The facts of a manifest, not yet checked: [`Self::manifest`] gives another manifest if it contradicts itself.
    ///
    /// # Errors
    /// The context is not that of an evaluation of this program.
    pub fn read(manifest: &RuntimeManifest) -> Result<Self> {
        let context = Context::deserialize(&manifest.context)
            .map_err(|why| Error::integrity(why.to_string()))
            .context("reading `context` of the runtime manifest")?;
        let plan =
            context.plan.ok_or_else(|| Error::integrity("the runtime manifest has no context.plan"))?;
        Ok(Self {
            plan: plan.content,
            started_at: context.started_at_utc,
            finished_at: context.finished_at_utc,
            launcher: context.launcher,
            machine: context.machine,
            boundary: context.boundary,
            sides: context.sides,
            report_path: manifest.report.path.clone(),
        })
    }

    /// The measurement of one side.
    ///
    /// # Errors
    /// The manifest lacks it.
    pub fn side(&self, role: Role) -> Result<&Side> {
        let name = role.name();
        self.sides.get(name).ok_or_else(|| Error::integrity(format!("context.sides has no {name}")))
    }

    /// The run report among the outputs of a side.
    ///
    /// # Errors
    /// The outputs of the side contain no run report, or two.
    pub fn run_report(&self, role: Role) -> Result<&File> {
        let outputs = &self.side(role)?.outputs;
        let mut reports = outputs.iter().filter(|file| file.name == RUN_REPORT);
        match (reports.next(), reports.next()) {
            (Some(report), None) => Ok(report),
            (found, _) => {
                let count = if found.is_some() { "two" } else { "no" };
                let name = role.name();
                Err(Error::integrity(format!("context.sides.{name}.outputs has {count} {RUN_REPORT}")))
            }
        }
    }

    /// The planned job of the container of one side, whose checkpoint the user named `model_id`. A plan resumes nothing.
    pub fn job(&self, role: Role, model_id: &str) -> Job {
        let plan = &self.plan;
        let dataset = plan.dataset_files.files.iter();
        let paths = JobPaths {
            checkpoint: "/in/checkpoint".to_owned(),
            dataset: dataset.map(|file| format!("/in/dataset/{}", file.name)).collect(),
            windows: "/in/windows.json".to_owned(),
            journal: None,
        };
        let policy = (plan.profile.as_str(), plan.tier.as_str());
        let job = Job::new(role, Task::Measure, model_id, policy, &plan.dataset, paths);
        Job {
            compute_dtype: plan.compute_dtype.unwrap_or_default(),
            weight_only: plan.weight_only,
            guards: plan.guards,
            ..job
        }
    }

    /// The profile and the tier of the plan.
    ///
    /// # Errors
    /// One of them is unknown.
    pub fn policy(&self) -> Result<(Profile, Tier)> {
        let named = |why| Error::integrity(format!("context.plan.content: {why}"));
        Ok((self.plan.profile.parse().map_err(named)?, self.plan.tier.parse().map_err(named)?))
    }

    /// The evaluation report.
    ///
    /// # Errors
    /// As [`compare`].
    pub fn compare(&self, baseline: &RunReport, subject: &RunReport) -> Result<EvaluationReport> {
        let (profile, tier) = self.policy()?;
        compare(baseline, subject, &self.compare_context(profile, tier)?)
    }

    /// What the comparison must know besides the run reports, under a profile and a tier.
    ///
    /// # Errors
    /// The manifest lacks a side or its run report.
    pub(crate) fn compare_context(&self, profile: Profile, tier: Tier) -> Result<CompareContext> {
        let (request, dataset) = (&self.plan.request, &self.plan.dataset);
        let (base, subj) = (self.side(Role::Baseline)?, self.side(Role::Subject)?);
        // Those of the file are for the tier of the evaluation.
        let limits = self.plan.tiers.as_ref().filter(|_| self.plan.tier == tier.as_str());
        Ok(CompareContext {
            profile,
            tier,
            limits: limits.map(|tiers| tiers.limits).unwrap_or_default(),
            baseline_model_id: request.baseline.clone(),
            subject_model_id: request.subject.clone(),
            baseline_checkpoint_sha256: Some(base.checkpoint.tree_sha256.clone()),
            subject_checkpoint_sha256: Some(subj.checkpoint.tree_sha256.clone()),
            baseline_report_path: base.report_path.clone(),
            subject_report_path: subj.report_path.clone(),
            baseline_report_sha256: self.run_report(Role::Baseline)?.sha256.clone(),
            subject_report_sha256: self.run_report(Role::Subject)?.sha256.clone(),
            execution_mode: self.plan.execution_mode,
            generated_at: self.finished_at.clone(),
            guards: self.plan.guards,
            bootstrap_seed: dataset.seed,
            requested_windows: (dataset.preview_n, dataset.final_n),
            edit_label: request.edit_label.clone(),
            events_path: events_path(&subj.report_path),
            warnings: request.warnings.clone(),
        })
    }

    /// The runtime manifest of an evaluation report with this digest.
    pub fn manifest(&self, report_sha256: &str) -> RuntimeManifest {
        let plan = PlanRecord { digest: plan_digest(&self.plan), content: self.plan.clone() };
        let context = Context { plan: Some(plan), sides: self.sides.clone(), ..self.context(COMMAND) };
        self.bind(report_sha256, &context)
    }

    /// The runtime manifest of the run report of one side.
    ///
    /// # Errors
    /// The side was not measured.
    pub fn side_manifest(&self, role: Role) -> Result<RuntimeManifest> {
        let (name, side) = (role.name().to_owned(), self.side(role)?);
        let sides = BTreeMap::from([(name.clone(), side.clone())]);
        let context = Context { role: Some(name), sides, ..self.context("measure") };
        Ok(self.bind(&self.run_report(role)?.sha256, &context))
    }

    /// What the manifests of an evaluation have in common.
    fn context(&self, command: &str) -> Context {
        let plan = &self.plan;
        Context {
            command: command.to_owned(),
            profile: plan.profile.clone(),
            tier: plan.tier.clone(),
            execution_mode: plan.execution_mode.report_name().to_owned(),
            boundary: self.boundary,
            allowances: plan.allowances.clone(),
            dataset: plan.dataset.clone(),
            loosened: plan.allowances.granted_by.keys().cloned().collect(),
            custom_seccomp_profile: plan.custom_seccomp_profile.clone(),
            image: plan.image.clone(),
            launcher: self.launcher.clone(),
            machine: self.machine.clone(),
            started_at_utc: self.started_at.clone(),
            finished_at_utc: self.finished_at.clone(),
            role: None,
            plan: None,
            sides: BTreeMap::new(),
        }
    }

    fn bind(&self, sha256: &str, context: &Context) -> RuntimeManifest {
        let image = self.plan.image.as_ref();
        let context = match to_value(context) {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        build(ManifestInput {
            generated_at_utc: self.finished_at.clone(),
            report_path: self.report_path.clone(),
            report_filename: file_name(&self.report_path).to_owned(),
            report_sha256: sha256.to_owned(),
            config: Config::Inline(to_value(&UpstreamRequest::of(&self.plan))),
            execution_mode: self.plan.execution_mode,
            image_ref: image.map_or_else(|| "host".to_owned(), |image| image.reference.clone()),
            image_digest: image.map(|image| image.manifest_digest.clone()),
            allow_network: self.plan.allowances.network,
            allow_remote_code: false,
            allow_third_party_plugins: false,
            context,
        })
    }
}

/// `sha256:` and the digest of the canonical JSON of a plan.
pub fn plan_digest(plan: &Plan) -> String {
    format!("sha256:{}", sha256_hex(canonical_json(&to_value(plan)).as_bytes()))
}

/// The last component of a path.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The path of `events.jsonl` beside a run report.
fn events_path(report: &str) -> String {
    match report.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/events.jsonl"),
        None => "events.jsonl".to_owned(),
    }
}

/// The request with the keys of the Python package. The manifest contains its digest.
#[derive(Debug, Serialize)]
struct UpstreamRequest<'a> {
    command: &'static str,
    baseline: &'a str,
    subject: &'a str,
    baseline_adapter: &'static str,
    subject_adapter: &'static str,
    profile: &'a str,
    tier: &'a str,
    preset: Option<&'a str>,
    dataset: Option<&'a str>,
    out: &'a str,
    report_out: &'a str,
    baseline_report: Option<&'a str>,
    edit_config: Option<&'a str>,
    edit_label: Option<&'a str>,
    allow_network: bool,
    allow_remote_code: bool,
    allow_third_party_plugins: bool,
    execution_mode: &'static str,
}

impl<'a> UpstreamRequest<'a> {
    fn of(plan: &'a Plan) -> Self {
        let Request {
            baseline, subject, dataset, preset, out, report_out, baseline_report, edit_label, ..
        } = &plan.request;
        // The name of the default is that of the first kind that was measured.
        let adapter = metrics::of(plan.dataset.metric.unwrap_or(MetricKind::PplCausal)).objective.adapter();
        Self {
            command: COMMAND,
            baseline,
            subject,
            baseline_adapter: adapter,
            subject_adapter: adapter,
            profile: &plan.profile,
            tier: &plan.tier,
            preset: preset.as_deref(),
            dataset: dataset.as_deref(),
            out,
            report_out,
            baseline_report: baseline_report.as_deref(),
            edit_config: None,
            edit_label: edit_label.as_deref(),
            allow_network: plan.allowances.network,
            allow_remote_code: false,
            allow_third_party_plugins: false,
            execution_mode: plan.execution_mode.report_name(),
        }
    }
}

/// Whether a manifest says by its content that this program wrote it for an evaluation: it contains a plan.
pub fn is_own(manifest: &Value) -> bool {
    manifest.pointer("/context/plan").is_some()
}
