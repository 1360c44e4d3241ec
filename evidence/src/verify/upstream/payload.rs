//! Upstream's checks of the report, block by block.

use super::guards;
use super::policy::primary_metric_acceptable;
use super::{Case, KINDS, band, kind, tier_name, tiny_relax};
use crate::format::untrusted::Node;
use crate::policy::Profile;
use crate::verify::python::{float, int, is_filled_object, pair, repr, truthy};
use crate::verify::{UpstreamVersion, schema};
use serde_json::Value;

pub(super) fn payload(case: &Case<'_>, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let (report, profile) = (case.report, case.profile);
    let faults = schema::report_faults(report.value(), case.version);
    if !faults.is_empty() {
        errors.push(format!("report schema validation failed. {}", faults.join("; ")));
        return;
    }
    primary_metric(report, errors);
    pairing(report, errors);
    counts(report, errors);
    interval_identity(report, profile, errors);
    if profile.gated() {
        drift(report, case.version, errors, gates);
        if !primary_metric_acceptable(report) {
            let telemetry = report.get("telemetry");
            let total =
                int(telemetry.get("preview_total_tokens")).zip(int(telemetry.get("final_total_tokens")));
            let total =
                total.map(|(a, b)| format!(", total_tokens={}", a.saturating_add(b))).unwrap_or_default();
            gates.push(format!("Primary metric policy gate failed (tier={}{total}).", tier_name(report)));
        }
    }
    lints(report, errors);
    let hash = [report.at("meta.tokenizer_hash"), report.at("dataset.tokenizer.hash")]
        .into_iter()
        .find(|hash| truthy(*hash))
        .and_then(Node::str);
    let baseline = report.at("baseline_ref.tokenizer_hash").str().filter(|hash| !hash.is_empty());
    if hash.zip(baseline).is_some_and(|(one, other)| one != other) {
        errors.push("Tokenizer hash mismatch between baseline and edited runs.".to_owned());
    }
    guards::variance(report, errors);
    if profile.gated() {
        guards::measurement_contracts(report, profile, errors);
    }
    if profile == Profile::Release {
        guards::release(report, errors, gates);
    }
}

fn primary_metric(report: Node<'_>, errors: &mut Vec<String>) {
    let metric = report.get("primary_metric");
    if !is_filled_object(metric) {
        return errors.push("report missing primary_metric block.".to_owned());
    }
    if !KINDS.contains(&kind(report)) {
        return errors
            .push(format!("report has unsupported primary_metric.kind: {}.", repr(metric.get("kind"))));
    }
    let reason = metric.get("degraded_reason").str().unwrap_or_default().trim().to_lowercase();
    let invalid = truthy(metric.get("invalid"))
        || reason.starts_with("non_finite")
        || ["primary_metric_invalid", "evaluation_error"].contains(&reason.as_str());
    let ratio = float(metric.get("ratio_vs_baseline"));
    let missing = "report is missing a finite primary_metric.ratio_vs_baseline value.".to_owned();
    if !kind(report).starts_with("ppl") {
        if invalid {
            return;
        }
        if !metric.get("ratio_vs_baseline").value().is_number() {
            errors.push("report missing primary_metric.ratio_vs_baseline for non-ppl metric.".to_owned());
        } else if ratio.is_none() {
            errors.push(missing);
        }
        return;
    }
    let baseline = float(report.at("baseline_ref.primary_metric.final"));
    let (Some(last), Some(baseline)) = (float(metric.get("final")), baseline) else { return };
    if baseline <= 0.0 {
        return errors.push(format!("Baseline final must be > 0.0 to compute ratio (found {baseline})."));
    }
    let expected = last / baseline;
    match ratio {
        None => errors.push(missing),
        Some(ratio) if (ratio - expected).abs() > (1e-6 * ratio.abs().max(expected.abs())).max(1e-6) => {
            errors
                .push(format!("Primary metric ratio mismatch: recorded={ratio:.12}, expected={expected:.12}"))
        }
        Some(_) => {}
    }
}

fn pairing(report: Node<'_>, errors: &mut Vec<String>) {
    let stats = report.at("dataset.windows.stats");
    if !stats.get("window_pairing_reason").is_null() {
        let found = repr(stats.get("window_pairing_reason"));
        errors.push(format!("window_pairing_reason must be null/None for paired reports (found {found})."));
    }
    match int(stats.get("paired_windows")) {
        None => errors.push("report missing paired_windows metric.".to_owned()),
        Some(0) => errors.push("paired_windows must be > 0 for paired reports (found 0).".to_owned()),
        Some(_) => {}
    }
    match float(stats.get("window_match_fraction")) {
        None => errors.push("report missing window_match_fraction metric.".to_owned()),
        Some(found) if found < 0.999999 => {
            errors.push(format!("window_match_fraction must be 1.0 for paired runs (found {found:.6})."));
        }
        Some(_) => {}
    }
    match float(stats.get("window_overlap_fraction")) {
        None => errors.push("report missing window_overlap_fraction metric.".to_owned()),
        Some(found) if found > 1e-9 => {
            errors.push(format!("window_overlap_fraction must be 0.0 (found {found:.6})."));
        }
        Some(_) => {}
    }
}

fn counts(report: Node<'_>, errors: &mut Vec<String>) {
    let windows = report.at("dataset.windows");
    let stats = windows.get("stats");
    for (name, label) in [("preview", "Preview"), ("final", "Final")] {
        let expected = windows.get(name);
        if expected.is_null() {
            continue;
        }
        let used = stats.get("coverage").get(name).get("used");
        match (int(expected), int(used)) {
            (None, _) => errors.push(format!("report has invalid dataset.windows.{name} count.")),
            _ if used.is_null() => {
                errors.push(format!("report missing coverage.{name}.used for {name} windows."));
            }
            (_, None) => errors.push(format!("report has invalid coverage.{name}.used value.")),
            (Some(expected), Some(observed)) if expected != observed => errors
                .push(format!("{label} window count mismatch: expected {expected}, observed {observed}.")),
            _ => {}
        }
    }
    let paired = stats.get("paired_windows");
    match (int(paired), int(windows.get("preview"))) {
        (None, _) if !paired.is_null() => errors.push("report has invalid paired_windows metric.".to_owned()),
        (Some(paired), Some(expected)) if paired != expected => {
            errors.push(format!("Paired window count mismatch: expected {expected}, observed {paired}."));
        }
        _ => {}
    }
}

fn interval_identity(report: Node<'_>, profile: Profile, errors: &mut Vec<String>) {
    let stats = report.at("dataset.windows.stats");
    let paired = stats.get("window_pairing_reason").is_null()
        && int(stats.get("paired_windows")).is_some_and(|paired| paired > 0)
        && float(stats.get("window_match_fraction")).is_some_and(|found| found >= 0.999999)
        && float(stats.get("window_overlap_fraction")).is_some_and(|found| found <= 1e-9);
    let baseline = float(report.at("baseline_ref.primary_metric.final"));
    if !kind(report).starts_with("ppl") || !paired || baseline.is_none() {
        return;
    }
    let metric = report.get("primary_metric");
    let (ci, display) = (pair(metric.get("ci")), pair(metric.get("display_ci")));
    for (name, bounds) in [("ci", ci), ("display_ci", display)] {
        if profile.gated() && bounds.is_none() {
            errors.push(format!(
                "primary_metric.{name} missing for ppl-like metric under paired baseline in CI/Release."
            ));
        }
    }
    if let (Some(ci), Some(display)) = (ci, display) {
        let differs = |observed: f64, log: f64| (observed - log.exp()).abs() > 5e-4 * log.exp().max(1.0);
        if differs(display.0, ci.0) || differs(display.1, ci.1) {
            errors.push("primary_metric.display_ci mismatch: bounds do not match exp(ci).".to_owned());
        }
    }
}

fn drift(report: Node<'_>, version: UpstreamVersion, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let metric = report.get("primary_metric");
    if tiny_relax(report) || truthy(metric.get("invalid")) {
        return;
    }
    let values = float(metric.get("preview")).zip(float(metric.get("final")));
    if version == UpstreamVersion::V0_12 && kind(report) == "accuracy" {
        let policy = report.at("resolved_policy.metrics.accuracy");
        let limit = float(policy.get("preview_final_delta_pp_max"))
            .or_else(|| float(policy.get("hysteresis_delta_pp")));
        let limit = limit.unwrap_or(0.1).max(0.0);
        match values {
            None => errors.push("report missing preview/final to compute accuracy drift.".to_owned()),
            Some((first, last)) if (last - first).abs() > limit => gates.push(format!(
                "Preview→final accuracy drift out of band (≤ {limit:.6}): observed {:.6}.",
                (last - first).abs()
            )),
            Some(_) => {}
        }
        return;
    }
    if version == UpstreamVersion::V0_12 && !kind(report).starts_with("ppl") {
        return;
    }
    let Some((first, last)) = values.filter(|(first, _)| *first > 0.0) else {
        return errors.push("report missing preview/final to compute drift ratio.".to_owned());
    };
    let (low, high) = band(metric.get("drift_band")).unwrap_or((0.95, 1.05));
    let observed = last / first;
    if !(low..=high).contains(&observed) {
        gates.push(format!(
            "Preview→final drift ratio out of band ({low:.2}–{high:.2}): observed {observed:.6}."
        ));
    }
}

fn lints(report: Node<'_>, errors: &mut Vec<String>) {
    let lints = report.at("meta.model_profile.cert_lints").elements();
    for lint in lints.filter(|lint| lint.object().is_some()) {
        let path = lint.get("path").str();
        // A lint without a path compares with null.
        let actual = path.map_or(Node::root("", &Value::Null), |path| report.at(path));
        let expected = lint.get("value");
        let message =
            lint.get("message").str().filter(|text| !text.is_empty()).unwrap_or("Model profile lint failed.");
        let path = path.unwrap_or("None");
        match lint.get("type").str().unwrap_or_default().to_lowercase().as_str() {
            "equals" => {
                let same_number = actual.f64().zip(expected.f64()).is_some_and(|(one, other)| one == other);
                if actual != expected && !same_number {
                    let (wanted, found) = (repr(expected), repr(actual));
                    errors.push(format!("{message} Expected {path} == {wanted}, observed {found}."));
                }
            }
            comparison @ ("gte" | "lte") => match float(actual).zip(float(expected)) {
                None => errors.push(format!(
                    "{message} Expected numeric comparison for {path}, observed {}.",
                    repr(actual)
                )),
                Some((found, limit)) => {
                    let sign = if comparison == "gte" { '≥' } else { '≤' };
                    if (comparison == "gte" && found < limit) || (comparison == "lte" && found > limit) {
                        errors.push(format!("{message} Expected {path} {sign} {limit}, observed {found}."));
                    }
                }
            },
            _ => {}
        }
    }
}
