//! Evidence of other makers: upstream's checks, and what this program can recompute from the report alone.

use super::delegated;
use super::runtime::{self, RuntimeOptions};
use super::summary::Summary;
use super::{
    Assurance, INTEGRITY, MAX_LISTED, Pins, RUN_REPORT_LIMIT, Reason, RuntimeProvenance, StoppedBy, Trust,
    Verdict, VerifyOptions, input_error, open_manifest, provenance, read_evidence, strict, upstream,
};
use crate::format::untrusted::Node;
use crate::manifest::FILE_NAME;
use crate::numerics::digest::sha256_hex;
use crate::{host_execution, json, newer};
use serde_json::{Value, json};
use std::path::Path;

/// Verifies the report with these bytes.
pub(super) fn verify(file: &Path, bytes: &[u8], options: &VerifyOptions, verdict: Verdict) -> Verdict {
    // Upstream treats unreadable input as a failed report, with exit code 1. By default it is malformed input, with exit code 2.
    let (unreadable, exit) = match options.upstream_parity {
        true => (Reason::PolicyFail, 1),
        false => (Reason::Malformed, 2),
    };
    let generic = |category: &'static str, message: String| StoppedBy {
        code: "E_GENERIC",
        category,
        message: format!("Verification failed: {message}"),
        context: json!({}),
        exit,
    };
    let report = match super::parse(bytes, options.upstream_parity) {
        Ok(report) => report,
        Err(why) => {
            let utf8 = std::str::from_utf8(bytes).is_ok();
            let category = if utf8 { "JSONDecodeError" } else { "UnicodeDecodeError" };
            let reason = if utf8 { Reason::Malformed } else { unreadable };
            return verdict.stop(reason, generic(category, why));
        }
    };
    if !report.is_object() {
        let why = "evaluation report must decode to a JSON object".to_owned();
        return verdict.stop(unreadable, generic("ValueError", why));
    }
    if let Some(newer) = newer::sentence(&report).filter(|_| !options.upstream_parity) {
        let why = format!("{} is {newer}; {}", file.display(), newer::REMEDY);
        return verdict.stop(Reason::Malformed, input_error(why));
    }
    if !options.upstream_parity && report.get("validation").is_none() {
        let what = match report.get("evaluation_windows") {
            Some(_) => "a run report, not an evaluation report",
            None => "not an evaluation report",
        };
        let why = format!("{} is {what}: it has no `validation`", file.display());
        return verdict.stop(Reason::Malformed, input_error(why));
    }
    judge(file, bytes, report, options, verdict)
}

/// The error about evidence that is otherwise in order.
const FOREIGN: &str = "the evidence was not written by this program, which cannot check where its numbers come from; accept it with \
     --accept-foreign";

/// The same, where this program ran the other one and recorded how.
const FOREIGN_REPORT: &str = "the report was written by the program of the image, and this program cannot check where its numbers come from; \
     accept it with --accept-foreign";

/// The error about demands that only evidence of this program can meet.
const UNMET: &str = "evidence of other makers does not say which models and data it is about, when it was made, or who signed \
     it, in a way that can be checked";

/// Characters of an error that are kept.
const MAX_ERROR: usize = 500;

/// Keeps the first errors, shortened: a report could state as much as it is large.
fn bound(errors: &mut Vec<String>) {
    let more = errors.len().saturating_sub(MAX_LISTED);
    errors.truncate(MAX_LISTED);
    for error in errors.iter_mut() {
        if let Some((end, _)) = error.char_indices().nth(MAX_ERROR) {
            error.truncate(end);
            error.push('…');
        }
    }
    if more > 0 {
        errors.push(format!("{more} more errors"));
    }
}

fn judge(file: &Path, bytes: &[u8], report: Value, options: &VerifyOptions, mut verdict: Verdict) -> Verdict {
    let (baseline, baseline_json) = match load_baseline(options) {
        Ok(loaded) => loaded,
        Err(why) => return verdict.stop(Reason::Malformed, input_error(why)),
    };
    let runtime_options = RuntimeOptions {
        expected_image_digest: options.expected_image_digest.clone(),
        granted: options.granted.clone(),
        upstream_parity: options.upstream_parity,
    };
    let host = options.runtime_provenance == RuntimeProvenance::Host;
    let (issues, verified, trust, manifest) = if host {
        // Only for the sentence about host execution, so an unreadable manifest is no error here.
        let manifest = open_manifest(&file.with_file_name(FILE_NAME)).ok().flatten();
        (Vec::new(), false, Trust::Unverified, manifest)
    } else {
        let (runtime, issues, manifest) = runtime::provenance(file, bytes, &runtime_options);
        (issues, runtime.ok(), runtime.trust, Some(manifest))
    };
    verdict.host_execution = host_execution::recorded(&report, manifest.as_ref());
    let run = manifest.filter(|_| !options.upstream_parity);
    let (run, boundary) = run.and_then(|manifest| delegated::judge(&manifest, &sha256_hex(bytes))).unzip();
    let boundary = boundary.unwrap_or_default();
    let verified = verified && issues.is_empty() && boundary.is_empty() && !host;
    let faults = boundary.iter().map(|fault| ("verifier_failed", fault.clone()));
    let all: Vec<_> = issues.iter().cloned().chain(faults).collect();
    verdict.provenance = provenance::of_foreign(Node::root("", &report), &all, verified, host, trust);
    let foreign = if run.is_some() { FOREIGN_REPORT } else { FOREIGN };
    verdict.delegated = run;

    let digest = baseline_json.as_ref().map(|json| Node::root("", json).at("provenance.provider_digest"));
    let digest = digest.filter(|digest| digest.object().is_some());
    let found = upstream::check(&upstream::Case {
        report: Node::root("", &report),
        profile: options.profile,
        version: options.upstream_version,
        tolerance: options.tolerance,
        baseline_digest: digest,
        provenance_issues: &issues,
        provenance_verified: verified,
    });
    verdict.errors = found.errors;
    verdict.gate_failures = found.gates;
    verdict.not_recomputed = found.notes;
    verdict.stopped_by = found.stopped;
    let mut malformed = found.malformed;

    let unreadable = verdict.stopped_by.as_ref().is_some_and(|stopped| stopped.code == "E601");
    if !options.upstream_parity && !unreadable {
        let strict = strict::check(Node::root("", &report), options, baseline.as_ref());
        if let Some(example) = strict.mismatches.first().filter(|_| verdict.stopped_by.is_none()) {
            verdict.stopped_by = options.profile.has_integrity_code().then(|| StoppedBy {
                code: "E602",
                category: "MetricsError",
                message: "RECOMPUTE-MISMATCH: report values disagree with recomputation".to_owned(),
                context: json!({"example": example}),
                exit: INTEGRITY,
            });
        }
        for error in strict.mismatches.into_iter().chain(strict.failures) {
            if !verdict.errors.contains(&error) {
                verdict.errors.push(error);
            }
        }
        for failure in strict.gates {
            if !verdict.gate_failures.contains(&failure) {
                verdict.gate_failures.push(failure);
            }
        }
        verdict.recomputed = strict.recomputed;
        verdict.not_recomputed.extend(strict.not_recomputed);
        malformed = malformed && verdict.stopped_by.is_none();
    }
    let isolated = boundary.is_empty();
    verdict.errors.extend(boundary);
    if !options.upstream_parity && !options.accept_foreign && !malformed && verdict.stopped_by.is_none() {
        verdict.errors.push(foreign.to_owned());
    }
    let demanding = options.pins != Pins::default()
        || options.oldest.is_some()
        || options.lock.is_some()
        || options.require.is_some_and(|required| required > Assurance::Foreign);
    if !options.upstream_parity && demanding {
        verdict.errors.push(UNMET.to_owned());
    }
    let clean = verdict.errors.is_empty() && verdict.gate_failures.is_empty();
    verdict.reason = match (&verdict.stopped_by, clean) {
        (Some(stopped), _) if stopped.category == "ValidationError" => Reason::Malformed,
        (Some(stopped), _) if stopped.exit == INTEGRITY && !options.upstream_parity => Reason::Integrity,
        (Some(_), _) => Reason::PolicyFail,
        (None, true) => Reason::Ok,
        (None, false) if malformed => Reason::Malformed,
        (None, false) if !isolated && options.profile.has_integrity_code() => Reason::Integrity,
        (None, false) => Reason::PolicyFail,
    };
    let accepted = clean || verdict.errors == [foreign] && verdict.gate_failures.is_empty();
    verdict.assurance = if accepted { Assurance::Foreign } else { Assurance::Failed };
    bound(&mut verdict.errors);
    bound(&mut verdict.gate_failures);
    verdict.summary = Some(Summary::of_foreign(Node::root("", &report), options.tolerance));
    verdict
}

type Baseline = (Option<crate::run_report::RunReport>, Option<Value>);

/// The baseline of the options: as a run report, and as JSON for its provider digest.
fn load_baseline(options: &VerifyOptions) -> Result<Baseline, String> {
    let Some(path) = &options.baseline else { return Ok((None, None)) };
    let shown = path.display();
    let bytes = read_evidence(path, RUN_REPORT_LIMIT);
    if options.upstream_parity {
        // Upstream ignores an unreadable baseline.
        let value = bytes.ok().and_then(|bytes| serde_json::from_slice(&python_json(&bytes)).ok());
        return Ok((None, value));
    }
    let bytes = bytes.map_err(|why| format!("the baseline {shown} cannot be read: {why}"))?;
    let text = python_json(&bytes);
    let value = json::parse(&format!("the baseline {shown}"), &text).map_err(|why| why.to_string())?;
    if Node::root("", &value).get("validation").object().is_some() {
        return Err(format!("the baseline {shown} is an evaluation report; pass the baseline's run report"));
    }
    let run =
        json::parse_run_report(&format!("the baseline {shown}"), &text).map_err(|why| why.to_string())?;
    Ok((Some(run), Some(value)))
}

/// Replaces a bare `NaN` by null, only where upstream writes one: as the ratio of a baseline's own run report.
fn python_json(bytes: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains("\"ratio_vs_baseline\": NaN") => {
            text.replacen("\"ratio_vs_baseline\": NaN", "\"ratio_vs_baseline\": null", 1).into_bytes()
        }
        _ => bytes.to_vec(),
    }
}
