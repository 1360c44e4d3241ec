//! `invarlock verify` and `invarlock advanced runtime-verify`: evidence re-read from disk, nothing in it trusted.

use crate::args::{Provenance, VerifyArgs};
use crate::error::{Error, Result};
use crate::record::now;
use crate::ui;
use console::style;
use invarlock_evidence::verify::{
    self as evidence, RuntimeProvenance, Verdict, VerifyOptions, envelope, to_line, verify_report,
};
use std::path::Path;

/// Verifies the reports; the exit code is that of `spec/verify.md` section 6.
pub fn run(args: &VerifyArgs) -> Result<u8> {
    if !(args.tolerance.is_finite() && (0.0..=1e-3).contains(&args.tolerance)) {
        return Err(Error::input(format!("--tolerance {}: must lie in 0..=0.001", args.tolerance)));
    }
    let options = VerifyOptions {
        profile: args.profile.parse().map_err(|e| Error::input(format!("--profile: {e}")))?,
        tier: args
            .tier
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|e| Error::input(format!("--tier: {e}")))?,
        tolerance: args.tolerance,
        runtime_provenance: match args.runtime_provenance {
            Provenance::Container => RuntimeProvenance::Container,
            Provenance::Host => RuntimeProvenance::Host,
        },
        baseline: args.baseline.clone(),
        expected_image_digest: args.expected_runtime_image_digest.clone(),
        upstream_parity: args.upstream_parity,
        ..VerifyOptions::default()
    };
    let verdicts: Vec<Verdict> = args.reports.iter().map(|path| verify_report(path, &options)).collect();
    if args.json {
        ui::out(&to_line(&envelope(&verdicts, &now())));
    } else {
        verdicts.iter().for_each(print);
    }
    Ok(u8::try_from(evidence::exit_code(&verdicts)).unwrap_or(2))
}

fn print(verdict: &Verdict) {
    let path = ui::printable(&verdict.path.to_string_lossy());
    if verdict.ok() {
        let line = ui::printable(&evidence::success_line(verdict));
        ui::out(&format!("{} {path}", style(line).green().bold()));
    } else {
        ui::out(&format!("{} {path} ({})", style("VERIFY FAIL").red().bold(), verdict.reason.as_str()));
        verdict.all_errors().for_each(|e| ui::out(&format!("  - {}", ui::printable(e))));
    }
    for what in &verdict.not_recomputed {
        ui::out(&format!("  not recomputed: {}", ui::printable(what)));
    }
}

/// Checks that a manifest binds a report; 0 or 1.
pub fn runtime_verify(report: &Path, manifest: &Path, expected: Option<&str>, json: bool) -> Result<u8> {
    let verdict = evidence::runtime_verify(report, manifest, expected);
    if json {
        ui::out(&to_line(&verdict.to_json()));
    } else {
        let word = if verdict.ok() { style("PASS").green().bold() } else { style("FAIL").red().bold() };
        ui::out(&format!("{word} ({})", verdict.trust.as_str()));
        ui::out(&format!("Report: {}\nManifest: {}", report.display(), manifest.display()));
        verdict.errors.iter().for_each(|e| ui::out(&format!("- {}", ui::printable(e))));
    }
    Ok(u8::from(!verdict.ok()))
}
