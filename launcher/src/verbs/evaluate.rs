//! `invarlock evaluate`: plan, measure both sides, compare, write the evidence, verify what was written.

use crate::args::EvaluateArgs;
use crate::error::{Error, Kind, Result};
use crate::policy::Policy;
use crate::record::{self, Record};
use crate::side::{self, Run, Side};
use crate::signals::Signals;
use crate::ui::{self, Level, Ui};
use crate::{bundle, plan, refused, reuse};
use console::style;
use invarlock_evidence::compare::{self, CompareContext};
use invarlock_evidence::format::evaluation_report::EvaluationReport;
use invarlock_evidence::format::to_value;
use invarlock_evidence::gates::{self, Gate};
use invarlock_evidence::job::Role;
use invarlock_evidence::verify::{RuntimeProvenance, Verdict, VerifyOptions, verify_report};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs it. 0: passed; 1: the subject failed its gates.
pub fn run(args: &EvaluateArgs, policy: &Policy) -> Result<u8> {
    // Before anything runs: a failure must not let older evidence pass for this command's.
    let earlier = bundle::earlier_evidence(&args.report_out).filter(|_| !args.dry_run);
    evaluate(args, policy).map_err(|e| match earlier {
        Some(earlier) => e.with_note(earlier),
        None => e,
    })
}

fn evaluate(args: &EvaluateArgs, policy: &Policy) -> Result<u8> {
    let started = Instant::now();
    let ui = Ui::new(level(args));
    let signals = Signals::catch()?;
    if !args.dry_run {
        bundle::check_writable("--out", &args.out)?;
        bundle::check_writable("--report-out", &args.report_out)?;
    }
    let plan = plan::make(args, policy, &ui, &signals)?;
    let record = Record { plan: &plan, args, policy, started_at: record::now() };
    if args.dry_run {
        ui::out(&ui::ascii(&format!("{:#}", record.plan()?)));
        return Ok(0);
    }
    let baseline = match &args.baseline_report {
        Some(path) => reuse::baseline(path, &plan)?,
        None => measure(&record, Role::Baseline, None, &ui, &signals)?,
    };
    let baseline_done = started.elapsed();
    let subject = measure(&record, Role::Subject, Some(&baseline), &ui, &signals)?;
    let subject_done = started.elapsed();
    let report = compare::compare(&baseline.report, &subject.report, &context(&record, &baseline, &subject))?;
    let bytes = compare::to_bytes(&report);
    let path = args.report_out.join(bundle::REPORT);
    let manifest = record.manifest_of(&path, &bytes, &baseline, &subject)?;
    signals.check("finished run directories are kept, no report was written")?;
    let (path, manifest) = bundle::write_evidence(&args.report_out, &bytes, &manifest)?;
    let verdict = verify(&path, &record);
    let timings = json!({
        "baseline": baseline_done.as_secs_f64(),
        "subject": (subject_done - baseline_done).as_secs_f64(),
        "total": started.elapsed().as_secs_f64(),
    });
    let shown = to_value(&report);
    let passed = judge(&shown, &verdict)?;
    let refused = refused::of_sides(&baseline, &subject);
    let done = Done {
        gates: gates::gates(&shown),
        line: gates::verdict_line(&shown),
        report,
        verdict,
        passed,
        path,
        manifest,
        timings,
        refused,
    };
    if args.json {
        done.print_json(args)
    } else {
        done.print(args)
    }
    Ok(u8::from(!passed && !args.no_gate))
}

fn level(args: &EvaluateArgs) -> Level {
    match (args.quiet || args.json, args.verbose) {
        (true, _) => Level::Quiet,
        (_, true) => Level::Verbose,
        _ => Level::Normal,
    }
}

/// Measures a side and binds its run report by a manifest of its own.
fn measure(
    record: &Record<'_>,
    role: Role,
    baseline: Option<&Side>,
    ui: &Ui,
    signals: &Signals,
) -> Result<Side> {
    let windows = baseline.map(|b| side::baseline_windows(&b.report));
    let run =
        Run { plan: record.plan, args: record.args, policy: record.policy, role, windows: windows.as_ref() };
    let (side, run_dir) = run.measure(ui, signals)?;
    run_dir.write(bundle::MANIFEST, &record.side_manifest(role, &side)?)?;
    run_dir.commit()?;
    Ok(side)
}

fn context(record: &Record<'_>, baseline: &Side, subject: &Side) -> CompareContext {
    let (plan, args) = (record.plan, record.args);
    let text = |p: &Path| p.to_string_lossy().into_owned();
    CompareContext {
        profile: plan.profile,
        tier: plan.tier,
        baseline_model_id: text(&args.baseline),
        subject_model_id: text(&args.subject),
        baseline_checkpoint_sha256: Some(plan.baseline.digest.tree_sha256.clone()),
        subject_checkpoint_sha256: Some(plan.subject.digest.tree_sha256.clone()),
        baseline_report_path: text(&baseline.path),
        subject_report_path: text(&subject.path),
        baseline_report_sha256: baseline.sha256.clone(),
        subject_report_sha256: subject.sha256.clone(),
        execution_mode: record::mode(record.policy.mode),
        generated_at: record::now(),
        bootstrap_seed: plan.dataset.seed,
        requested_windows: (plan.dataset.preview_n, plan.dataset.final_n),
        edit_label: args.edit_label.clone(),
        events_path: text(&subject.path.with_file_name("events.jsonl")),
    }
}

/// Verifies what was written as a reviewer would, with the exceptions this very command was granted by name.
fn verify(path: &Path, record: &Record<'_>) -> Verdict {
    let provenance = match record.plan.image {
        Some(_) => RuntimeProvenance::Container,
        None => RuntimeProvenance::Host,
    };
    let expected_image_digest = record.plan.image.as_ref().map(|i| i.resolved.manifest_digest.to_string());
    verify_report(
        path,
        &VerifyOptions {
            profile: record.plan.profile,
            tier: Some(record.plan.tier),
            runtime_provenance: provenance,
            expected_image_digest,
            granted: record.policy.loosened(),
            ..VerifyOptions::default()
        },
    )
}

/// A subject that fails its gates is a result; anything else that does not verify is a fault of the evidence.
fn judge(report: &Value, verdict: &Verdict) -> Result<bool> {
    match verdict.errors.first() {
        Some(why) => Err(Error::new(
            Kind::Integrity,
            format!("verifying what was written, {}: {why}", verdict.path.display()),
        )),
        None => Ok(verdict.ok() && gates::passed(report)),
    }
}

/// A finished evaluation.
struct Done {
    report: EvaluationReport,
    gates: Vec<Gate>,
    /// The verdict in one line.
    line: String,
    verdict: Verdict,
    passed: bool,
    path: PathBuf,
    manifest: PathBuf,
    timings: Value,
    refused: Value,
}

impl Done {
    fn print_json(&self, args: &EvaluateArgs) {
        let metric = &self.report.primary_metric;
        let gates: Vec<_> = self
            .gates
            .iter()
            .map(|g| json!({"name": g.name, "passed": g.passed, "detail": g.detail}))
            .collect();
        let value = json!({
            "format_version": "evaluate-v1",
            "ok": self.passed,
            "verdict": if self.passed { "PASS" } else { "FAIL" },
            "ratio_vs_baseline": metric.ratio_vs_baseline,
            "display_ci": metric.display_ci,
            "baseline_final": self.report.baseline_ref.primary_metric.final_,
            "subject_final": metric.final_,
            "gates": gates,
            "gate_failures": self.verdict.gate_failures,
            "trust_status": self.verdict.trust.as_str(),
            "report": self.path,
            "manifest": self.manifest,
            "refused": self.refused,
            "timings_seconds": self.timings,
            "resolution": {"exit_code": u8::from(!self.passed && !args.no_gate)},
        });
        ui::json(&value);
    }

    fn print(&self, args: &EvaluateArgs) {
        if !args.quiet {
            for gate in &self.gates {
                let mark = match gate.passed {
                    Some(true) => style("pass").green(),
                    Some(false) => style("FAIL").red().bold(),
                    None => style("  – ").dim(),
                };
                ui::out(&format!("  {mark}  {:<31} {}", gate.name, ui::printable(&gate.detail)));
            }
            for error in &self.verdict.gate_failures {
                ui::out(&format!("        {}", ui::printable(error)));
            }
        }
        let line = &self.line;
        let line = if self.passed { style(line).green().bold() } else { style(line).red().bold() };
        ui::out(&line.to_string());
        ui::out(&format!("report    {}\nmanifest  {}", self.path.display(), self.manifest.display()));
        if args.verbose {
            ui::out(&format!("timings   {}", self.timings));
        }
    }
}
