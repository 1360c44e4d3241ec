//! Upstream's own checks of a report, in upstream's order and with upstream's messages: those of InvarLock 0.8.0 (`verify_contract.py`,
//! `report_validation.py`) and 0.12.1.
//!
//! They trust thresholds and statistics that the report itself states; [`crate::verify::strict`] does not.

mod assurance;
mod guards;
mod payload;
mod policy;
mod recompute;

pub(super) use assurance::assurance_mode;

use super::python::{float, pair, truthy};
use super::{INTEGRITY, StoppedBy, UpstreamVersion};
use crate::format::untrusted::Node;
use crate::policy::Profile;
use serde_json::{Value, json};

const KINDS: [&str; 7] = ["accuracy", "bleu", "f1", "ppl_causal", "ppl_mlm", "ppl_seq2seq", "rouge"];

/// A report, and what is known besides it.
pub(super) struct Case<'a> {
    pub(super) report: Node<'a>,
    pub(super) profile: Profile,
    pub(super) version: UpstreamVersion,
    pub(super) tolerance: f64,
    /// `provenance.provider_digest` of `--baseline`.
    pub(super) baseline_digest: Option<Node<'a>>,
    /// Issues of the runtime provenance.
    pub(super) provenance_issues: &'a [(&'static str, String)],
    /// Whether the runtime provenance was checked and is valid.
    pub(super) provenance_verified: bool,
}

/// What upstream finds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) errors: Vec<String>,
    /// Gates that the report's own numbers fail.
    pub(super) gates: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) malformed: bool,
    pub(super) stopped: Option<StoppedBy>,
}

fn stop(
    code: &'static str,
    category: &'static str,
    profile: Profile,
    message: &str,
    context: Value,
) -> StoppedBy {
    let exit = match (category, profile.has_integrity_code()) {
        ("ValidationError", _) => 2,
        (_, true) => INTEGRITY,
        (_, false) => 1,
    };
    StoppedBy { code, category, message: message.to_owned(), context, exit }
}

/// Runs every check. Stops where upstream raises an exception.
pub(super) fn check(case: &Case<'_>) -> Found {
    let mut found = Found::default();
    let (report, gated) = (case.report, case.profile.gated());
    if gated && let Err(stopped) = provider_parity(case) {
        found.errors.push(stopped.message.clone());
        found.stopped = Some(*stopped);
        return found;
    }
    payload::payload(case, &mut found.errors, &mut found.gates);
    found.errors.extend(case.provenance_issues.iter().map(|(_, message)| message.clone()));
    if case.version == UpstreamVersion::V0_12 && assurance_mode(report) == "strict" {
        assurance::strict_assurance(case, &mut found.errors);
    }
    if let Some(error) =
        found.errors.iter().find(|error| error.to_lowercase().contains("schema validation failed"))
    {
        let message = format!("REPORT-SCHEMA-INVALID: {error}");
        found.stopped = Some(stop("E601", "ValidationError", case.profile, &message, json!({})));
        found.malformed = true;
        return found;
    }
    found.malformed = found.errors.iter().any(|error| {
        error.contains("missing primary_metric.ratio_vs_baseline")
            || error.contains("report is missing a finite primary_metric.ratio_vs_baseline")
    });
    if let Err(stopped) = recompute::recompute(case, &mut found) {
        found.errors.push(stopped.message.clone());
        found.stopped = Some(*stopped);
        return found;
    }
    if gated
        && let Some(example) = found.errors.iter().find(|error| error.to_lowercase().contains("mismatch"))
    {
        let context = json!({"example": example});
        let message = "RECOMPUTE-MISMATCH: report values disagree with recomputation";
        found.stopped = Some(stop("E602", "MetricsError", case.profile, message, context));
    }
    found
}

fn provider_parity(case: &Case<'_>) -> Result<(), Box<StoppedBy>> {
    let fail = |code: &'static str, message: &str| {
        Err(Box::new(stop(code, "InvarlockError", case.profile, message, json!({}))))
    };
    let subject = case.report.at("provenance.provider_digest");
    if !truthy(subject.get("ids_sha256")) {
        return fail("E004", "PROVIDER-DIGEST-MISSING: subject missing provider_digest.ids_sha256");
    }
    let Some(baseline) = case.baseline_digest else { return Ok(()) };
    let text = |side: Node<'_>, name: &'static str| {
        side.get(name).str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let surface = |side: Node<'_>| text(side, "tokenizer_sha256").or_else(|| text(side, "processor_sha256"));
    let ids = text(subject, "ids_sha256").zip(text(baseline, "ids_sha256"));
    let surfaces = surface(subject).zip(surface(baseline));
    let (Some((one, other)), Some((first, second))) = (ids, surfaces) else {
        return fail("E004", "PROVIDER-DIGEST-MISSING: subject or baseline missing ids or tokenizer digest");
    };
    if one != other {
        return fail("E006", "IDS-DIGEST-MISMATCH: subject and baseline window ids differ");
    }
    if first != second {
        return fail("E002", "TOKENIZER-DIGEST-MISMATCH: subject and baseline tokenizers differ");
    }
    let masks = text(subject, "masking_sha256").zip(text(baseline, "masking_sha256"));
    if masks.is_some_and(|(one, other)| one != other) {
        return fail("E003", "MASK-PARITY-MISMATCH: mask positions differ under matched tokenizers");
    }
    Ok(())
}

fn kind<'a>(report: Node<'a>) -> &'a str {
    report.at("primary_metric.kind").str().unwrap_or_default()
}

/// `{min, max}` or `[low, high]` with `0 < low < high`.
pub(super) fn band(node: Node<'_>) -> Option<(f64, f64)> {
    let bounds = match node.value() {
        Value::Object(_) => float(node.get("min")).zip(float(node.get("max"))),
        _ => pair(node),
    };
    bounds.filter(|(low, high)| 0.0 < *low && low < high)
}

fn tier_name(report: Node<'_>) -> String {
    let name = report.at("auto.tier").str().unwrap_or_default().trim().to_lowercase();
    if name.is_empty() { "balanced".to_owned() } else { name }
}

/// Whether `context.run`, `context.eval`, `auto` or a flag of `provenance` requests relaxed floors.
pub(super) fn tiny_relax(report: Node<'_>) -> bool {
    let flag = |node: Node<'_>| match node.value() {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    let context = report.get("context");
    let places = [context.at("run.tiny_relax"), context.at("eval.tiny_relax"), report.at("auto.tiny_relax")];
    places.into_iter().find_map(flag).unwrap_or_else(|| {
        let mut flags = report.at("provenance.flags").elements();
        flags.any(|flag| flag.str().is_some_and(|flag| flag.trim().eq_ignore_ascii_case("tiny_relax")))
    })
}
