//! `invarlock evaluate`: plan, measure both sides, compare, write the evidence, verify the written evidence.

use crate::args::{EvaluateArgs, ExecutionMode};
use crate::check_sides::{Check, Checked};
use crate::denied_calls::DeniedOfSides;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::Evidence;
use crate::journal::JournalFile;
use crate::measure_side::{Measurement, Side};
use crate::output::{Resolution, ShownPath};
use crate::plan::Plan;
use crate::policy::{Needs, Policy};
use crate::record::{self, Record};
use crate::signals::Signals;
use crate::ui::{self, Level, Ui};
use crate::verbs::evaluate_delegated;
use crate::verbs::evaluate_output::{DryRunOutput, EvaluateOutput, GateOutput, Timings};
use crate::{baseline_reuse, delegate, denied_calls, evidence_dir, keys, plan, request, signals};
use console::style;
use invarlock_evidence::attestation::{self, Digests};
use invarlock_evidence::compare;
use invarlock_evidence::delegated;
use invarlock_evidence::evaluation::Facts;
use invarlock_evidence::format::evaluation_report::EvaluationReport;
use invarlock_evidence::format::to_value;
use invarlock_evidence::format::warning::{Warning, WarningKind};
use invarlock_evidence::gates::{self, Gate};
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::run_report::BaselineWindows;
use invarlock_evidence::signing::dsse::Envelope;
use invarlock_evidence::signing::keys::SigningKey;
use invarlock_evidence::verify::{Assurance, Verdict, VerifyOptions, verify_report};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the verb needs of the policy.
pub fn needs(args: &EvaluateArgs) -> Needs {
    let checked = 2;
    let measured = match (args.dry_run, &args.baseline_report) {
        (true, _) => 0,
        (false, Some(_)) => 1,
        (false, None) => 2,
    };
    Needs {
        allow_network: args.allow.allow_network,
        allow_host_execution: args.allow.allow_host_execution,
        execution_mode: args.execution_mode.map(|mode| match mode {
            ExecutionMode::Container => invarlock_security::ExecutionMode::Container,
            ExecutionMode::Host => invarlock_security::ExecutionMode::Host,
        }),
        can_run_on_host: true,
        containers: checked + measured,
        has_image_user: false,
        user_profile: args.container.seccomp.is_some(),
        device: delegated::is_device(&args.device),
        only_flags: false,
        starts_programs: false,
    }
}

/// Exits 0 when the subject passed, 1 when it failed its gates.
pub fn run(args: &EvaluateArgs, policy: &Policy) -> Result<u8> {
    // Looked up before anything runs, so that older evidence is not taken for that of a failed evaluation.
    let earlier = evidence_dir::earlier_evidence(&args.report_out).filter(|_| !args.dry_run);
    evaluate(args, policy).map_err(|error| match earlier.and_then(|earlier| earlier.note()) {
        Some(note) => error.with_separate_note(note),
        None => error,
    })
}

fn evaluate(args: &EvaluateArgs, policy: &Policy) -> Result<u8> {
    let started = Instant::now();
    let ui = Ui::new(level(args));
    let signals = Signals::catch()?;
    args.parent.map(signals::end_with_parent).transpose()?;
    // Before anything runs, and whatever --quiet.
    if let Some(sentence) = policy.host_execution() {
        match args.json || args.dry_run {
            true => ui::on_stderr(&ui::host_execution_on_stderr(&sentence)),
            false => ui::out(&ui::host_execution(&sentence)),
        }
    }
    if !args.dry_run {
        record::hash_launcher_early();
        evidence_dir::check_writable("--out", &args.out)?;
        evidence_dir::check_writable("--report-out", &args.report_out)?;
    }
    if delegate::is_chosen(args, policy, &ui)? {
        return evaluate_delegated::run(args, policy, &ui, &signals);
    }
    delegate::refuse_without(args)?;
    let signing_key = args.signing_key.as_deref().map(keys::signing).transpose()?;
    let (plan, Checked { warnings, windows }) = checked_plan(args, policy, &ui, &signals)?;
    let record = Record { plan: &plan, policy, started_at: record::now() };
    if let Some(lock) = &plan.lock {
        lock.check(&record.plan()?)?;
    }
    if args.dry_run {
        ui::indented_json(&DryRunOutput { plan: record.plan()?, warnings: &warnings })?;
        return Ok(0);
    }
    let (resume, journals) = (!args.no_resume, Vec::new());
    let mut measuring = Measuring { record: &record, ui: &ui, signals: &signals, windows, resume, journals };
    let baseline = match &plan.request.baseline_report {
        Some(path) => baseline_reuse::baseline(path, &plan)?,
        None => measuring.side(Role::Baseline, None)?,
    };
    compare::check_baseline_drift(&baseline.report, plan.request.profile)
        .context("judging the baseline before the subject is measured")?;
    let baseline_done = started.elapsed();
    let measured = measuring.side(Role::Subject, Some(&baseline));
    let subject = measured.map_err(|error| keeping(error, &plan, &baseline))?;
    let subject_done = started.elapsed();
    let facts =
        record.evaluation(&plan.request.report_out.join(evidence_dir::REPORT), &baseline, &subject)?;
    let report =
        facts.compare(&baseline.report, &subject.report).map_err(|error| keeping(error, &plan, &baseline))?;
    if !args.json {
        report.warnings.iter().filter(|found| decided_later(found)).for_each(|found| ui.warn(&found.message));
    }
    let finished = Finished { plan: &plan, facts: &facts, report: &report, sides: [&baseline, &subject] };
    let written = finished.write(signing_key.as_ref(), &signals);
    let (path, manifest) = written.map_err(|error| {
        error.with_note("both sides are measured: the same command, also with another --report-out, measures no window again")
    })?;
    measuring.journals.into_iter().for_each(JournalFile::remove);
    let verdict = verify(&path, &record, signing_key.as_ref());
    let timings = Timings {
        baseline: baseline_done.as_secs_f64(),
        subject: (subject_done - baseline_done).as_secs_f64(),
        total: started.elapsed().as_secs_f64(),
    };
    let written = to_value(&report);
    let passed = judge(&written, &verdict)?;
    let denied = denied_calls::of_sides(&baseline.evidence, &subject.evidence);
    let done = Done { report, written, verdict, passed, path, manifest, timings, denied };
    if args.json {
        ui::json(&done.output(args))?;
    } else {
        done.print(args)?;
    }
    Ok(u8::from(!passed && !args.no_gate))
}

/// Opens and checks both sides, then hashes them. Gives the plan and what the check found, with all warnings, which are printed as soon as they are known.
fn checked_plan(args: &EvaluateArgs, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<(Plan, Checked)> {
    // JSON output contains them.
    // A measurement decides what follows from a type of numbers.
    let shown = |warning: &&Warning| args.dry_run || !decided_later(warning);
    let warn = |found: &[Warning]| match args.json {
        true => {}
        false => found.iter().filter(shown).for_each(|warning| ui.warn(&warning.message)),
    };
    let opened = plan::open(request::of_evaluate(args)?, policy, ui)?;
    let mut warnings = opened.preset_warnings.clone();
    let checked = Check { opened: &opened, policy, keep_logs: !args.dry_run }.both(ui, signals)?;
    warnings.extend(checked.warnings);
    warn(&warnings);
    let plan = opened.hash(ui, signals)?;
    if plan.digests.baseline.tree_sha256 == plan.digests.subject.tree_sha256 {
        let identical = Warning::identical_checkpoints();
        warn(std::slice::from_ref(&identical));
        warnings.push(identical);
    }
    Ok((plan, Checked { warnings, ..checked }))
}

/// Whether a warning about a checkpoint is replaced by one about its measurement.
fn decided_later(warning: &Warning) -> bool {
    warning.kind == WarningKind::ComputeDtype
}

/// The error of a subject, with how the measured baseline is used again.
fn keeping(error: Error, plan: &Plan, baseline: &Side) -> Error {
    match plan.request.baseline_report {
        Some(_) => error,
        None => error.with_note(format!(
            "the measured baseline is kept: pass --baseline-report {} to use it again",
            baseline.path.display()
        )),
    }
}

fn level(args: &EvaluateArgs) -> Level {
    match (args.quiet || args.json, args.verbose) {
        (true, _) => Level::Quiet,
        (_, true) => Level::Verbose,
        _ => Level::Normal,
    }
}

/// The measurement of both sides.
struct Measuring<'a> {
    record: &'a Record<'a>,
    ui: &'a Ui,
    signals: &'a Signals,
    /// Numbers of preview and final windows of the baseline.
    windows: [usize; 2],
    /// Whether interrupted measurements are resumed.
    resume: bool,
    /// The journals of the finished sides. They are needed until the evidence is written: a command that is interrupted while it measures the
    /// subject does not measure the baseline again.
    journals: Vec<JournalFile>,
}

impl Measuring<'_> {
    /// Measures a side and writes the runtime manifest of its run report.
    fn side(&mut self, role: Role, baseline: Option<&Side>) -> Result<Side> {
        let windows = baseline.map(|baseline| baseline.report.windows());
        let counts = windows.as_ref().map_or(self.windows, BaselineWindows::counts);
        let Record { plan, policy, .. } = *self.record;
        let measurement = Measurement { plan, policy, role, windows: windows.as_ref() };
        let (side, run_dir, journal) = measurement.measure(self.ui, self.signals, counts, self.resume)?;
        run_dir.write(evidence_dir::MANIFEST, &self.record.side_manifest(role, &side)?)?;
        run_dir.commit()?;
        self.journals.push(journal);
        Ok(side)
    }
}

/// A measured and compared evaluation.
struct Finished<'a> {
    plan: &'a Plan,
    facts: &'a Facts,
    report: &'a EvaluationReport,
    sides: [&'a Side; 2],
}

impl Finished<'_> {
    /// Writes the evidence, unless a signal came; gives the paths of report and manifest.
    fn write(&self, key: Option<&SigningKey>, signals: &Signals) -> Result<(PathBuf, PathBuf)> {
        let report = compare::to_bytes(self.report);
        let report_sha256 = sha256_hex(&report);
        let manifest = manifest::to_bytes(&self.facts.manifest(&report_sha256));
        let digests = Digests { report: &report_sha256, manifest: &sha256_hex(&manifest) };
        let statement = attestation::statement(self.facts, self.report, digests)?.to_bytes();
        let attestation = key.map(|key| Envelope::sign(statement, key).to_bytes());
        signals.check("finished run directories are kept, no report was written")?;
        let evidence = Evidence {
            report: &report,
            run_reports: Some(self.sides.map(|side| &*side.bytes)),
            manifest: &manifest,
            attestation: attestation.as_deref(),
            lock: self.plan.lock.as_ref().map(|lock| &*lock.bytes),
        };
        evidence.write(&self.plan.request.report_out)
    }
}

/// Verifies the written evidence as a reviewer would, and accepts only the exceptions that this command was granted.
fn verify(path: &Path, record: &Record<'_>, key: Option<&SigningKey>) -> Verdict {
    let request = &record.plan.request;
    let image = record.plan.image.as_ref().map(|image| image.resolved.manifest_digest.to_string());
    let options = VerifyOptions {
        keys: key.map(SigningKey::public).into_iter().collect(),
        require: key.map(|_| Assurance::Signed),
        lock: record.plan.lock.as_ref().map(|lock| lock.sha256.clone()),
        ..record.policy.own_evidence(request.profile, request.tier, image)
    };
    verify_report(path, &options)
}

/// Whether the subject passed. Evidence that does not verify for another reason than a failed gate is an error.
fn judge(report: &Value, verdict: &Verdict) -> Result<bool> {
    match verdict.errors.first() {
        Some(why) => {
            Err(Error::integrity(format!("verifying the written report {}: {why}", verdict.path.display())))
        }
        None => Ok(verdict.ok() && gates::passed(report)),
    }
}

/// A finished evaluation.
struct Done {
    report: EvaluationReport,
    /// The report as readers see it.
    written: Value,
    verdict: Verdict,
    passed: bool,
    path: PathBuf,
    manifest: PathBuf,
    timings: Timings,
    denied: DeniedOfSides,
}

impl Done {
    fn output(&self, args: &EvaluateArgs) -> EvaluateOutput<'_> {
        let (metric, baseline) = (&self.report.primary_metric, &self.report.baseline_ref.primary_metric);
        let gates: Vec<_> = gates::gates(&self.written)
            .into_iter()
            .map(|gate| GateOutput {
                name: gate.name,
                passed: gate.passed,
                warned: gate.warned,
                detail: gate.detail,
            })
            .collect();
        EvaluateOutput {
            format_version: "evaluate-v1",
            ok: self.passed,
            verdict: if self.passed { "PASS" } else { "FAIL" },
            ratio_vs_baseline: metric.ratio_vs_baseline,
            delta_pp: metric.delta_pp,
            display_ci: metric.display_ci,
            baseline_final: baseline.final_,
            subject_final: metric.final_,
            gates,
            gate_failures: &self.verdict.gate_failures,
            warnings: &self.report.warnings,
            assurance: self.verdict.assurance,
            signers: self.verdict.about.as_ref().map(|about| &*about.signers),
            matched: &self.verdict.matched,
            host_execution: self.verdict.host_execution.as_deref(),
            report: ShownPath(&self.path),
            manifest: ShownPath(&self.manifest),
            refused: &self.denied,
            timings_seconds: self.timings,
            resolution: Resolution { exit_code: u8::from(!self.passed && !args.no_gate) },
        }
    }

    fn print(&self, args: &EvaluateArgs) -> Result<()> {
        if !args.quiet {
            let gates = gates::gates(&self.written);
            for gate in &gates {
                let mark = match gate.passed {
                    Some(true) if gate.warned => style("warn").yellow(),
                    Some(true) => style("pass").green(),
                    Some(false) => style("FAIL").red().bold(),
                    None => style("  – ").dim(),
                };
                ui::out(&format!("  {mark}  {:<31} {}", gate.name, ui::printable(&gate.detail)));
            }
            let shown: Vec<String> = gates.iter().map(Gate::sentence).collect();
            for error in self.verdict.gate_failures.iter().filter(|error| !shown.contains(error)) {
                ui::out(&format!("        {}", ui::printable(error)));
            }
        }
        let line = gates::verdict_line(&self.written);
        let line = if self.passed { style(line).green().bold() } else { style(line).red().bold() };
        ui::out(&line.to_string());
        for (name, path) in [("report", &self.path), ("manifest", &self.manifest)] {
            ui::out(&format!("{name:<9} {}", ui::printable(&path.to_string_lossy())));
        }
        if args.verbose {
            ui::out(&format!("timings   {}", ui::json_line(&self.timings)?));
        }
        Ok(())
    }
}
