//! `invarlock evaluate` with an image of another program: plan, run its whole command, bind its report into a manifest of this program, and
//! verify what was written as a reviewer would who accepts foreign reports.

use crate::args::EvaluateArgs;
use crate::delegate::{self, Left, Plan, Run, Shown, ran};
use crate::error::{Error, Kind, ProgramFailed, Result};
use crate::output::{Resolution, ShownPath};
use crate::policy::Policy;
use crate::record;
use crate::signals::Signals;
use crate::ui::{self, Ui};
use console::style;
use invarlock_evidence::format::delegated::DelegatedPlan;
use invarlock_evidence::verify::{Assurance, DelegatedRunVerdict, Verdict, VerifyOptions, verify_report};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The output of `evaluate --json` with an image of another program.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct EvaluateDelegatedOutput<'a> {
    /// Always `evaluate-delegated-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "evaluate-delegated-v1")))]
    format_version: &'static str,
    /// Whether the subject passed.
    ok: bool,
    /// `PASS` or `FAIL`.
    verdict: &'static str,
    /// The run of the program.
    delegated: Option<&'a DelegatedRunVerdict>,
    /// The ratio of the report; null if it has none.
    ratio_vs_baseline: Option<f64>,
    /// Its confidence interval, as recorded.
    display_ci: Option<(f64, f64)>,
    /// A sentence for each failed gate.
    gate_failures: &'a [String],
    /// What the evidence is worth.
    assurance: Assurance,
    /// The demanded digests that match.
    matched: &'a [String],
    /// File of the evaluation report.
    report: ShownPath<'a>,
    /// File of the runtime manifest.
    manifest: ShownPath<'a>,
    /// Directory of everything that the program left.
    left: ShownPath<'a>,
    /// Denied system calls by name, with their number; null if they are not counted.
    refused: Option<&'a BTreeMap<String, u64>>,
    /// Wall time of the command without its output, seconds.
    seconds: f64,
    /// The exit code.
    resolution: Resolution,
}

/// The output of `evaluate --dry-run` with an image of another program.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DelegatedDryRunOutput<'a> {
    /// The plan.
    #[serde(flatten)]
    plan: &'a DelegatedPlan,
}

/// Exits 0 when the subject passed, 1 when it failed its gates, and with the code of the program if that is not 0.
pub fn run(args: &EvaluateArgs, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<u8> {
    let (started, started_at) = (Instant::now(), record::now());
    let plan = delegate::open(args, policy, ui, signals)?.hash(policy, ui, signals)?;
    if args.dry_run {
        ui::indented_json(&DelegatedDryRunOutput { plan: &plan.recorded })?;
        return Ok(0);
    }
    let shown = match (args.json, args.quiet) {
        (true, _) => Shown::OnStderr,
        (false, true) => Shown::OnFailure,
        (false, false) => Shown::Both,
    };
    let outcome = Run { plan: &plan, policy, signals }.run(shown)?;
    let left = Left::keep(&plan, &outcome)?;
    let code = ran(&plan, &outcome).map_err(|error| with_left(error, left.as_ref()))?;
    if code != 0 {
        return Err(with_left(failed(&plan, code), left.as_ref()));
    }
    let nothing = || Error::integrity(format!("the program of image {} left no file", plan.reference()));
    let left = left.ok_or_else(nothing)?;
    let written = left.evidence(&plan, policy, &outcome, &started_at);
    let (report, manifest) = written.map_err(|error| with_left(error, Some(&left)))?;
    let baseline = args.baseline_report.clone().or_else(|| left.baseline_report(&outcome));
    let verdict = verify(&report, &plan, policy, baseline);
    if let Some(why) = verdict.errors.first() {
        return Err(Error::integrity(format!("verifying the written report {}: {why}", report.display())));
    }
    let seconds = started.elapsed().as_secs_f64();
    let refused = outcome.denied_calls.as_ref();
    let done = Done { verdict, report, manifest, left, refused, seconds };
    let code = u8::from(!done.passed() && !args.no_gate);
    match args.json {
        true => ui::json(&done.output(code))?,
        false => done.print(),
    }
    Ok(code)
}

/// The failure of the program itself. Its exit code 2 means wrong usage or input.
fn failed(plan: &Plan, code: u8) -> Error {
    let kind = if code == 2 { Kind::Input } else { Kind::System };
    let error = Error::from_source(kind, ProgramFailed(code));
    let doing = format!("running the program of image {}", plan.reference());
    error.context(doing).with_hint("it printed the reason above")
}

fn with_left(error: Error, left: Option<&Left>) -> Error {
    match left {
        Some(left) => error.with_note(format!("what it left is in {}", left.directory.display())),
        None => error,
    }
}

/// Verifies the written evidence, with the run report of the baseline; only the report of another program and the exceptions that this command was granted are accepted.
fn verify(report: &Path, plan: &Plan, policy: &Policy, baseline: Option<PathBuf>) -> Verdict {
    let (profile, tier) = plan.policy();
    let options = policy.own_evidence(profile, tier, Some(plan.digest().to_owned()));
    verify_report(report, &VerifyOptions { accept_foreign: true, baseline, ..options })
}

/// A finished evaluation.
struct Done<'a> {
    verdict: Verdict,
    report: PathBuf,
    manifest: PathBuf,
    left: Left,
    refused: Option<&'a BTreeMap<String, u64>>,
    seconds: f64,
}

impl Done<'_> {
    fn passed(&self) -> bool {
        self.verdict.gate_failures.is_empty()
    }

    fn word(&self) -> &'static str {
        if self.passed() { "PASS" } else { "FAIL" }
    }

    fn output(&self, exit_code: u8) -> EvaluateDelegatedOutput<'_> {
        let summary = self.verdict.summary.as_ref();
        EvaluateDelegatedOutput {
            format_version: "evaluate-delegated-v1",
            ok: self.passed(),
            verdict: self.word(),
            delegated: self.verdict.delegated.as_ref(),
            ratio_vs_baseline: summary.and_then(|summary| summary.ratio),
            display_ci: summary.and_then(|summary| summary.interval),
            gate_failures: &self.verdict.gate_failures,
            assurance: self.verdict.assurance,
            matched: &self.verdict.matched,
            report: ShownPath(&self.report),
            manifest: ShownPath(&self.manifest),
            left: ShownPath(&self.left.directory),
            refused: self.refused,
            seconds: self.seconds,
            resolution: Resolution { exit_code },
        }
    }

    fn print(&self) {
        for failure in &self.verdict.gate_failures {
            ui::out(&format!("        {}", ui::printable(failure)));
        }
        let summary = self.verdict.summary.as_ref();
        let ratio = summary.and_then(|summary| summary.ratio).map(|ratio| format!("  ratio {ratio:.6}"));
        let line = format!("{}{}", self.word(), ratio.unwrap_or_default());
        let line = if self.passed() { style(line).green().bold() } else { style(line).red().bold() };
        ui::out(&line.to_string());
        if let Some(run) = &self.verdict.delegated {
            ui::out(&ui::printable(&run.sentence()));
        }
        for (name, path) in
            [("report", &self.report), ("manifest", &self.manifest), ("files", &self.left.directory)]
        {
            ui::out(&format!("{name:<9} {}", ui::printable(&path.to_string_lossy())));
        }
    }
}
