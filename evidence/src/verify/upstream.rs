//! Upstream's own checks of a report, in its order and with its words (`spec/verify.md` sections 2 to 7 and 9).
//!
//! They believe what the report says of itself; [`super::strict`] does not.

use super::python::{float, int, pair, repr, truthy};
use super::schema;
use super::{StoppedBy, UpstreamVersion};
use crate::numerics::digest::spaced_json_hash;
use crate::numerics::stats::weighted_mean;
use crate::policy::{Profile, Tier};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

const KINDS: [&str; 7] = ["accuracy", "bleu", "f1", "ppl_causal", "ppl_mlm", "ppl_seq2seq", "rouge"];

/// What is known besides the report.
pub(super) struct Case<'a> {
    pub(super) report: &'a Value,
    pub(super) profile: Profile,
    pub(super) version: UpstreamVersion,
    pub(super) tolerance: f64,
    /// `provenance.provider_digest` of `--baseline`.
    pub(super) baseline_digest: Option<&'a Map<String, Value>>,
    /// Issues of the runtime provenance.
    pub(super) provenance_issues: &'a [(&'static str, String)],
    /// Whether the runtime provenance was checked and sound.
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
    let exit = match (category, profile.gated()) {
        ("ValidationError", _) => 2,
        (_, true) => 3,
        (_, false) => 1,
    };
    StoppedBy { code, category, message: message.to_owned(), context, exit }
}

/// Runs every check; stops where upstream raises.
pub(super) fn check(case: &Case<'_>) -> Found {
    let mut found = Found::default();
    let (report, gated) = (case.report, case.profile.gated());
    if gated && let Err(stopped) = provider_parity(case) {
        found.errors.push(stopped.message.clone());
        found.stopped = Some(*stopped);
        return found;
    }
    payload(case, &mut found.errors, &mut found.gates);
    found.errors.extend(case.provenance_issues.iter().map(|(_, message)| message.clone()));
    if case.version == UpstreamVersion::V0_12 && assurance_mode(report) == "strict" {
        strict_assurance(case, &mut found.errors);
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
    if let Err(stopped) = recompute(case, &mut found) {
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
    let subject = &case.report["provenance"]["provider_digest"];
    if !truthy(&subject["ids_sha256"]) {
        return fail("E004", "PROVIDER-DIGEST-MISSING: subject missing provider_digest.ids_sha256");
    }
    let Some(baseline) = case.baseline_digest else { return Ok(()) };
    let baseline = Value::Object(baseline.clone());
    let text =
        |side: &Value, name: &str| side[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let surface = |side: &Value| text(side, "tokenizer_sha256").or_else(|| text(side, "processor_sha256"));
    let ids = text(subject, "ids_sha256").zip(text(&baseline, "ids_sha256"));
    let surfaces = surface(subject).zip(surface(&baseline));
    let (Some((one, other)), Some((first, second))) = (ids, surfaces) else {
        return fail("E004", "PROVIDER-DIGEST-MISSING: subject or baseline missing ids or tokenizer digest");
    };
    if one != other {
        return fail("E006", "IDS-DIGEST-MISMATCH: subject and baseline window ids differ");
    }
    if first != second {
        return fail("E002", "TOKENIZER-DIGEST-MISMATCH: subject and baseline tokenizers differ");
    }
    let masks = text(subject, "masking_sha256").zip(text(&baseline, "masking_sha256"));
    if masks.is_some_and(|(one, other)| one != other) {
        return fail("E003", "MASK-PARITY-MISMATCH: mask positions differ under matched tokenizers");
    }
    Ok(())
}

fn payload(case: &Case<'_>, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let (report, profile) = (case.report, case.profile);
    let faults = schema::report_faults(report, case.version);
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
            let telemetry = &report["telemetry"];
            let total = int(&telemetry["preview_total_tokens"]).zip(int(&telemetry["final_total_tokens"]));
            let total =
                total.map(|(a, b)| format!(", total_tokens={}", a.saturating_add(b))).unwrap_or_default();
            gates.push(format!("Primary metric policy gate failed (tier={}{total}).", tier_name(report)));
        }
    }
    lints(report, errors);
    let hash = [&report["meta"]["tokenizer_hash"], &report["dataset"]["tokenizer"]["hash"]]
        .into_iter()
        .find(|hash| truthy(hash))
        .and_then(Value::as_str);
    let baseline = report["baseline_ref"]["tokenizer_hash"].as_str().filter(|hash| !hash.is_empty());
    if hash.zip(baseline).is_some_and(|(one, other)| one != other) {
        errors.push("Tokenizer hash mismatch between baseline and edited runs.".to_owned());
    }
    variance(report, errors);
    if profile.gated() {
        measurement_contracts(report, profile, errors);
    }
    if profile == Profile::Release {
        release(report, errors, gates);
    }
}

fn kind(report: &Value) -> &str {
    report["primary_metric"]["kind"].as_str().unwrap_or_default()
}

fn primary_metric(report: &Value, errors: &mut Vec<String>) {
    let metric = &report["primary_metric"];
    if metric.as_object().is_none_or(Map::is_empty) {
        return errors.push("report missing primary_metric block.".to_owned());
    }
    if !KINDS.contains(&kind(report)) {
        return errors
            .push(format!("report has unsupported primary_metric.kind: {}.", repr(&metric["kind"])));
    }
    let reason = metric["degraded_reason"].as_str().unwrap_or_default().trim().to_lowercase();
    let invalid = truthy(&metric["invalid"])
        || reason.starts_with("non_finite")
        || ["primary_metric_invalid", "evaluation_error"].contains(&reason.as_str());
    let ratio = float(&metric["ratio_vs_baseline"]);
    let missing = "report is missing a finite primary_metric.ratio_vs_baseline value.".to_owned();
    if !kind(report).starts_with("ppl") {
        if invalid {
            return;
        }
        if !metric["ratio_vs_baseline"].is_number() {
            errors.push("report missing primary_metric.ratio_vs_baseline for non-ppl metric.".to_owned());
        } else if ratio.is_none() {
            errors.push(missing);
        }
        return;
    }
    let baseline = float(&report["baseline_ref"]["primary_metric"]["final"]);
    let (Some(last), Some(baseline)) = (float(&metric["final"]), baseline) else { return };
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

fn pairing(report: &Value, errors: &mut Vec<String>) {
    let stats = &report["dataset"]["windows"]["stats"];
    if !stats["window_pairing_reason"].is_null() {
        let found = repr(&stats["window_pairing_reason"]);
        errors.push(format!("window_pairing_reason must be null/None for paired reports (found {found})."));
    }
    match int(&stats["paired_windows"]) {
        None => errors.push("report missing paired_windows metric.".to_owned()),
        Some(0) => errors.push("paired_windows must be > 0 for paired reports (found 0).".to_owned()),
        Some(_) => {}
    }
    match float(&stats["window_match_fraction"]) {
        None => errors.push("report missing window_match_fraction metric.".to_owned()),
        Some(found) if found < 0.999999 => {
            errors.push(format!("window_match_fraction must be 1.0 for paired runs (found {found:.6})."));
        }
        Some(_) => {}
    }
    match float(&stats["window_overlap_fraction"]) {
        None => errors.push("report missing window_overlap_fraction metric.".to_owned()),
        Some(found) if found > 1e-9 => {
            errors.push(format!("window_overlap_fraction must be 0.0 (found {found:.6})."));
        }
        Some(_) => {}
    }
}

fn counts(report: &Value, errors: &mut Vec<String>) {
    let windows = &report["dataset"]["windows"];
    let stats = &windows["stats"];
    for (name, label) in [("preview", "Preview"), ("final", "Final")] {
        if windows[name].is_null() {
            continue;
        }
        let used = &stats["coverage"][name]["used"];
        match (int(&windows[name]), int(used)) {
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
    let paired = &stats["paired_windows"];
    match (int(paired), int(&windows["preview"])) {
        (None, _) if !paired.is_null() => errors.push("report has invalid paired_windows metric.".to_owned()),
        (Some(paired), Some(expected)) if paired != expected => {
            errors.push(format!("Paired window count mismatch: expected {expected}, observed {paired}."));
        }
        _ => {}
    }
}

fn interval_identity(report: &Value, profile: Profile, errors: &mut Vec<String>) {
    let stats = &report["dataset"]["windows"]["stats"];
    let paired = stats["window_pairing_reason"].is_null()
        && int(&stats["paired_windows"]).is_some_and(|paired| paired > 0)
        && float(&stats["window_match_fraction"]).is_some_and(|found| found >= 0.999999)
        && float(&stats["window_overlap_fraction"]).is_some_and(|found| found <= 1e-9);
    let baseline = float(&report["baseline_ref"]["primary_metric"]["final"]);
    if !kind(report).starts_with("ppl") || !paired || baseline.is_none() {
        return;
    }
    let metric = &report["primary_metric"];
    let (ci, display) = (pair(&metric["ci"]), pair(&metric["display_ci"]));
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

fn drift(report: &Value, version: UpstreamVersion, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let metric = &report["primary_metric"];
    if tiny_relax(report) || truthy(&metric["invalid"]) {
        return;
    }
    let values = float(&metric["preview"]).zip(float(&metric["final"]));
    if version == UpstreamVersion::V0_12 && kind(report) == "accuracy" {
        let policy = &report["resolved_policy"]["metrics"]["accuracy"];
        let limit =
            float(&policy["preview_final_delta_pp_max"]).or_else(|| float(&policy["hysteresis_delta_pp"]));
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
    let (low, high) = band(&metric["drift_band"]).unwrap_or((0.95, 1.05));
    let observed = last / first;
    if !(low..=high).contains(&observed) {
        gates.push(format!(
            "Preview→final drift ratio out of band ({low:.2}–{high:.2}): observed {observed:.6}."
        ));
    }
}

/// `{min, max}` or `[low, high]` with `0 < low < high`.
pub(super) fn band(value: &Value) -> Option<(f64, f64)> {
    let bounds = match value {
        Value::Object(_) => float(&value["min"]).zip(float(&value["max"])),
        _ => pair(value),
    };
    bounds.filter(|(low, high)| 0.0 < *low && low < high)
}

fn tier_name(report: &Value) -> String {
    let name = report["auto"]["tier"].as_str().unwrap_or_default().trim().to_lowercase();
    if name.is_empty() { "balanced".to_owned() } else { name }
}

/// `context.run`, `context.eval`, `auto` or a flag of `provenance` asks for relaxed floors.
pub(super) fn tiny_relax(report: &Value) -> bool {
    let flag = |value: &Value| match value {
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
    let context = &report["context"];
    let places =
        [&context["run"]["tiny_relax"], &context["eval"]["tiny_relax"], &report["auto"]["tiny_relax"]];
    places.into_iter().find_map(flag).unwrap_or_else(|| {
        let flags = report["provenance"]["flags"].as_array();
        flags
            .into_iter()
            .flatten()
            .any(|flag| flag.as_str().is_some_and(|flag| flag.trim().eq_ignore_ascii_case("tiny_relax")))
    })
}

/// A member of `context.primary_metric`, else of `meta`.
fn metric_setting<'a>(report: &'a Value, context: &str, meta: &str) -> &'a Value {
    let source = &report["context"]["primary_metric"][context];
    if source.is_null() { &report["meta"][meta] } else { source }
}

/// The upper and lower bound of an explicit acceptance range.
fn acceptance(report: &Value) -> Option<(f64, f64)> {
    let range = metric_setting(report, "acceptance_range", "pm_acceptance_range");
    let (low, high) = (float(&range["min"]), float(&range["max"]));
    if low.is_none() && high.is_none() {
        return None;
    }
    let low = low.filter(|low| *low > 0.0).unwrap_or(0.95);
    let high = high.filter(|high| *high > 0.0).unwrap_or(1.10);
    Some((low, high.max(low)))
}

/// `compute_validation_flags(...)["primary_metric_acceptable"]` with the report's own thresholds.
fn primary_metric_acceptable(report: &Value) -> bool {
    let relaxed = tiny_relax(report);
    let name = if relaxed { "aggressive".to_owned() } else { tier_name(report) };
    let own = &report["resolved_policy"]["metrics"];
    let table = name.parse().unwrap_or(Tier::Balanced).metrics_policy();
    // With its own policy, the report's tier is the only one known: relaxed reports then have no policy at all.
    let empty = Value::Null;
    let policy = match own.as_object().is_some_and(|own| !own.is_empty()) {
        true if relaxed && tier_name(report) != "aggressive" => &empty,
        true => own,
        false => &table,
    };
    let ratio_policy = &policy["pm_ratio"];
    let default_limit = match name.as_str() {
        "conservative" => 1.05,
        "aggressive" => 1.20,
        _ => 1.10,
    };
    let base = float(&ratio_policy["ratio_limit_base"]).unwrap_or(default_limit);
    let range = acceptance(report);
    let limit = range.map_or(base, |(_, high)| high)
        + float(&ratio_policy["hysteresis_ratio"]).unwrap_or(0.0).max(0.0);
    let metric = &report["primary_metric"];
    let ratio = float(&metric["ratio_vs_baseline"]);
    let enough = relaxed || enough_tokens(report, ratio_policy);
    match kind(report) {
        kind if kind.starts_with("ppl") => match ratio {
            Some(ratio) => ratio <= limit && enough,
            // Upstream takes a missing ratio for 1.
            None => range.is_none_or(|(low, _)| 1.0 >= low) && 1.0 <= limit && enough,
        },
        "accuracy" => {
            let policy = &policy["accuracy"];
            let least = float(&policy["delta_min_pp"]).unwrap_or(-1.0);
            let slack = float(&policy["hysteresis_delta_pp"]).unwrap_or(0.0).max(0.0);
            let examples = int(&policy["min_examples"]).unwrap_or(200) as f64;
            let delta = ratio.map_or(relaxed, |ratio| ratio >= least - slack);
            let counted = match metric.get("n_final") {
                None => true,
                Some(n) => float(n).is_some_and(|n| relaxed || n.trunc() >= examples),
            };
            delta && counted
        }
        _ => false,
    }
}

fn enough_tokens(report: &Value, policy: &Value) -> bool {
    let telemetry = &report["telemetry"];
    let needed = int(&policy["min_tokens"]).unwrap_or(0);
    let total = int(&telemetry["preview_total_tokens"]).zip(int(&telemetry["final_total_tokens"]));
    let (Some((preview, last)), true) = (total, needed > 0) else { return true };
    let total = preview.saturating_add(last);
    if total >= needed {
        return true;
    }
    let stats = &report["dataset"]["windows"]["stats"];
    let own = &stats["coverage"];
    let coverage = if truthy(own) { own } else { &stats["bootstrap"]["coverage"] };
    let covered = |arm: &str| {
        let row = &coverage[arm];
        let met =
            float(&row["used"]).zip(float(&row["required"])).is_some_and(|(used, required)| used >= required);
        row.is_object() && (truthy(&row["ok"]) || met)
    };
    let tolerance = match &policy["min_tokens_tolerance"] {
        Value::Null => 0.02,
        value => float(value).unwrap_or(0.0).max(0.0),
    };
    covered("preview") && covered("final") && total as f64 >= (needed as f64 * (1.0 - tolerance)).floor()
}

fn lints(report: &Value, errors: &mut Vec<String>) {
    let lints = report["meta"]["model_profile"]["cert_lints"].as_array();
    for lint in lints.into_iter().flatten().filter(|lint| lint.is_object()) {
        let path = lint["path"].as_str();
        let actual =
            path.map_or(&Value::Null, |path| path.split('.').fold(report, |value, name| &value[name]));
        let expected = &lint["value"];
        let message =
            lint["message"].as_str().filter(|text| !text.is_empty()).unwrap_or("Model profile lint failed.");
        let path = path.unwrap_or("None");
        match lint["type"].as_str().unwrap_or_default().to_lowercase().as_str() {
            "equals" => {
                let same_number =
                    actual.as_f64().zip(expected.as_f64()).is_some_and(|(one, other)| one == other);
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

fn variance(report: &Value, errors: &mut Vec<String>) {
    let variance = &report["variance"];
    if !truthy(&variance["enabled"]) {
        return;
    }
    let mut fail = |text: &str| errors.push(text.to_owned());
    let least = float(&report["resolved_policy"]["variance"]["min_effect_lognll"]).unwrap_or(0.0).max(0.0);
    let gate = &variance["predictive_gate"];
    if gate.as_object().is_none_or(Map::is_empty) {
        fail("variance.enabled=true requires variance.predictive_gate evidence.");
    } else {
        if gate["passed"] != json!(true) {
            fail("variance.enabled=true requires variance.predictive_gate.passed == true.");
        }
        match float(&gate["mean_delta"]) {
            None => fail("variance.enabled=true requires finite variance.predictive_gate.mean_delta."),
            Some(mean) if mean >= 0.0 => {
                fail("variance.predictive_gate.mean_delta must be negative when VE is enabled.");
            }
            Some(mean) if mean > -least => {
                fail("variance.predictive_gate.mean_delta does not meet -min_effect_lognll.");
            }
            Some(_) => {}
        }
        let bounds = if gate["delta_ci"].is_null() { &gate["ci"] } else { &gate["delta_ci"] };
        match pair(bounds) {
            None => fail("variance.enabled=true requires finite variance.predictive_gate.delta_ci."),
            Some((low, high)) if low > high => {
                fail("variance.predictive_gate.delta_ci lower bound exceeds upper bound.");
            }
            Some((_, high)) if high >= 0.0 => {
                fail("variance.predictive_gate.delta_ci must exclude zero when VE is enabled.");
            }
            Some((_, high)) if high > -least => {
                fail("variance.predictive_gate.delta_ci upper bound does not meet -min_effect_lognll.");
            }
            Some(_) => {}
        }
    }
    let test = &variance["ab_test"];
    if test.as_object().is_none_or(Map::is_empty) {
        return fail("variance.enabled=true requires variance.ab_test evidence.");
    }
    let absent = |value: &Value| value.is_null() || value.as_str() == Some("");
    if absent(&test["seed"]) && absent(&test["provenance"]["seed"]) {
        fail("variance.enabled=true requires variance.ab_test.seed.");
    }
    if int(&test["windows_used"]).is_none_or(|used| used == 0) {
        fail("variance.enabled=true requires positive variance.ab_test.windows_used.");
    }
    if test["provenance"].as_object().is_none_or(Map::is_empty) {
        fail("variance.enabled=true requires variance.ab_test.provenance.");
    } else if !has_window_ids(&test["provenance"]) {
        fail("variance.enabled=true requires variance.ab_test.provenance.window_ids.");
    }
}

fn has_window_ids(node: &Value) -> bool {
    match node {
        Value::Object(members) => match members.get("window_ids").and_then(Value::as_array) {
            Some(ids) => !ids.is_empty(),
            None => members.values().any(has_window_ids),
        },
        Value::Array(members) => members.iter().any(has_window_ids),
        _ => false,
    }
}

fn measurement_contracts(report: &Value, profile: Profile, errors: &mut Vec<String>) {
    for guard in ["spectral", "rmt"] {
        let block = &report[guard];
        let malformed = truthy(block) && !block.is_object();
        if malformed || block.get("evaluated").is_some_and(|flag| !truthy(flag)) {
            continue;
        }
        let hash = |value: &Value| {
            value.as_object().filter(|members| !members.is_empty()).map(|_| spaced_json_hash(value))
        };
        let computed = hash(&block["measurement_contract"]);
        let recorded = block["measurement_contract_hash"].as_str().filter(|hash| !hash.is_empty());
        match (&computed, recorded) {
            (None, _) => errors.push(format!("report missing {guard}.measurement_contract.")),
            (Some(computed), Some(recorded)) if computed != recorded => errors.push(format!(
                "{guard}.measurement_contract_hash mismatch: expected={recorded}, computed={computed}."
            )),
            (Some(_), Some(_)) => {}
            (Some(_), None) => errors.push(format!("report missing {guard}.measurement_contract_hash.")),
        }
        match (hash(&report["resolved_policy"][guard]["measurement_contract"]), &computed) {
            (None, _) => errors.push(format!("report missing resolved_policy.{guard}.measurement_contract.")),
            (Some(policy), Some(computed)) if policy != *computed => errors.push(format!(
                "{guard} measurement_contract differs between analysis and resolved_policy (analysis={computed}, \
                 resolved_policy={policy})."
            )),
            _ => {}
        }
        if block["measurement_contract_match"] != json!(true) {
            errors.push(format!("{guard} measurement contract must match baseline for {profile} profile."));
        }
    }
}

fn release(report: &Value, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let validation = &report["validation"];
    if !validation.is_object() {
        errors.push("Release verification requires a validation block.".to_owned());
    } else {
        let mut required = vec![
            "primary_metric_acceptable",
            "preview_final_drift_acceptable",
            "invariants_pass",
            "spectral_stable",
            "rmt_stable",
        ];
        let tail = "primary_metric_tail_acceptable";
        if report.get("primary_metric_tail").is_some() || validation.get(tail).is_some() {
            required.push(tail);
        }
        if truthy(&report["guard_overhead"]) && !overhead_skipped(report) {
            required.push("guard_overhead_acceptable");
        }
        for key in required.into_iter().filter(|key| validation[*key] != json!(true)) {
            let found = repr(&validation[key]);
            let failed = if validation[key] == json!(false) { &mut *gates } else { &mut *errors };
            failed.push(format!("Release verification requires validation.{key} == true (found {found})."));
        }
    }
    let overhead = &report["guard_overhead"];
    if overhead.as_object().is_none_or(Map::is_empty) {
        errors.push("Release verification requires guard_overhead (missing).".to_owned());
    } else if !overhead_skipped(report) {
        if overhead["evaluated"] != json!(true) {
            errors.push("Release verification requires evaluated guard_overhead (not evaluated).".to_owned());
        }
        if overhead["overhead_ratio"].is_null() {
            errors.push("Release verification requires guard_overhead.overhead_ratio (missing).".to_owned());
        }
    }
}

fn overhead_skipped(report: &Value) -> bool {
    let overhead = &report["guard_overhead"];
    let mode = overhead["mode"].as_str().unwrap_or_default().trim().to_lowercase();
    truthy(&overhead["skipped"]) || mode == "skipped"
}

fn recompute(case: &Case<'_>, found: &mut Found) -> Result<(), Box<StoppedBy>> {
    let report = case.report;
    let strict = case.profile.gated() && !tiny_relax(report);
    let metric = &report["primary_metric"];
    let missing = |what: &str, found: &mut Found| {
        if strict {
            let message = format!("PROVIDER-DIGEST-MISSING: {what} in CI/Release");
            return Err(Box::new(stop("E004", "InvarlockError", case.profile, &message, json!({}))));
        }
        found.notes.push(format!("{what}: nothing was recomputed"));
        Ok(())
    };
    if kind(report) == "accuracy" {
        let classes = &report["metrics"]["classification"];
        let counts =
            classes["n_correct"].as_f64().zip(classes["n_total"].as_f64()).filter(|(_, total)| *total > 0.0);
        let Some((correct, total)) = counts else {
            return missing("missing classification aggregates for recompute", found);
        };
        let accuracy = correct / total;
        if let Some(last) = metric["final"].as_f64()
            && (last - accuracy).abs() > case.tolerance.max(1e-12)
        {
            found.errors.push(format!("Accuracy mismatch: final={last:.12} recomputed={accuracy:.12}"));
        }
        return Ok(());
    }
    let arm = &report["evaluation_windows"]["final"];
    let lists = arm["logloss"].as_array().zip(arm["token_counts"].as_array());
    let Some((losses, weights)) = lists.filter(|(one, other)| !one.is_empty() && one.len() == other.len())
    else {
        return missing("evaluation_windows.final missing for recompute", found);
    };
    if case.version == UpstreamVersion::V0_12
        && let Some(ids) = arm["window_ids"].as_array()
    {
        let place = "evaluation_windows.final.window_ids";
        if ids.len() != losses.len() {
            found.errors.push(format!("{place} length differs from logloss/token_counts."));
        }
        let distinct: HashSet<String> = ids.iter().map(repr).collect();
        if distinct.len() != ids.len() {
            found.errors.push(format!("{place} contains duplicates."));
        }
    }
    let losses: Option<Vec<f64>> = losses.iter().map(Value::as_f64).collect();
    let weights: Option<Vec<u64>> = weights.iter().map(int).collect();
    let mean = losses.zip(weights).and_then(|(losses, weights)| weighted_mean(&losses, &weights));
    let Some(mean) = mean else { return Ok(()) };
    if let Some(stated) = metric["analysis_point_final"].as_f64() {
        if (stated - mean).abs() > case.tolerance {
            found
                .errors
                .push(format!("Basis mismatch: analysis_point_final={stated:.12} recomputed={mean:.12}"));
        }
    } else if let Some(last) = metric["final"].as_f64()
        && (mean.exp() - last).abs() > case.tolerance.max(1e-12)
    {
        found.errors.push(format!("Display mismatch: final={last:.12} exp(basis)={:.12}", mean.exp()));
    }
    Ok(())
}

/// `assurance.mode`, else `context.assurance.mode`, else `off`.
pub(super) fn assurance_mode(report: &Value) -> String {
    [&report["assurance"]["mode"], &report["context"]["assurance"]["mode"]]
        .into_iter()
        .filter_map(Value::as_str)
        .map(|mode| mode.trim().to_lowercase())
        .find(|mode| !mode.is_empty())
        .unwrap_or_else(|| "off".to_owned())
}

/// What 0.12.1 demands of a report whose own assurance mode is `strict`.
fn strict_assurance(case: &Case<'_>, errors: &mut Vec<String>) {
    let report = case.report;
    let mut found: Vec<String> = Vec::new();
    let mut fail = |text: &str| found.push(text.to_owned());
    let synthesized = "strict assurance forbids synthesized or repaired fields.";
    let assurance = &report["assurance"];
    if !assurance.is_object() {
        fail("strict assurance report missing assurance section.");
    } else {
        if assurance["claim_set"] != json!("invarlock-weight-edit-regression-v1") {
            fail("strict assurance report has unknown claim_set.");
        }
        if assurance["mode"] != json!("strict") {
            fail("strict assurance report mode must be strict.");
        }
        let verdict = assurance["verdict"].as_str().unwrap_or_default();
        if !["pass", "pending_verifier"].contains(&verdict) {
            fail("strict assurance verdict must be pass or pending_verifier.");
        }
        let local = &assurance["report_local_verdict"];
        if verdict == "pending_verifier"
            && case.provenance_verified
            && !(local.is_null() || *local == json!("pass"))
        {
            fail("strict assurance report-local verdict must be pass.");
        }
        if assurance["canonical_guard_chain_enforced"] != json!(true) {
            fail("strict assurance requires canonical_guard_chain_enforced=true.");
        }
        if assurance["fallback_fields_used"] == json!(true) {
            fail(synthesized);
        }
        for reason in assurance["blocking_reasons"].as_array().into_iter().flatten() {
            fail(reason.as_str().unwrap_or("a blocking reason that is no text"));
        }
    }
    let first = |places: &[&Value]| {
        let text = places.iter().find_map(|place| place.as_str());
        text.unwrap_or_default().trim().to_lowercase()
    };
    let context = &report["context"];
    let profile = first(&[&assurance["profile"], &context["profile"]]);
    if !["ci", "release"].contains(&profile.as_str()) {
        fail("strict assurance requires report profile ci or release.");
    }
    let tier =
        first(&[&assurance["tier"], &report["auto"]["tier"], &context["auto"]["tier"], &context["tier"]]);
    if !["balanced", "conservative"].contains(&tier.as_str()) {
        fail("strict assurance requires report tier balanced or conservative.");
    }
    let names = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let guards: Vec<String> = report["guards"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|guard| guard["name"].as_str().map(str::to_owned))
        .collect();
    let chain = names(&assurance["guard_chain_observed"])
        .or_else(|| names(&context["guard_chain_observed"]))
        .or_else(|| (!guards.is_empty()).then_some(guards))
        .or_else(|| names(&report["plugins"]["guards"]))
        .unwrap_or_default();
    if chain != ["invariants", "spectral", "rmt", "variance", "invariants"] {
        fail("strict assurance requires canonical guard chain evidence.");
    }
    let blocking = ["synthesized_fields", "repaired_fields", "fallback_fields"].into_iter().any(|category| {
        report["report_build"][category].as_array().into_iter().flatten().any(|event| {
            event["field"] != json!("primary_metric.display_ci")
                || event["reason"] != json!("computed_from_primary_metric_ci")
        })
    });
    if blocking {
        fail(synthesized);
    }
    if !case.provenance_verified {
        fail("strict assurance requires verified runtime provenance.");
    }
    for guard in ["spectral", "rmt", "variance", "invariants"] {
        let block = &report[guard];
        if block.as_object().is_none_or(Map::is_empty) {
            fail(&format!("strict assurance missing {guard} guard evidence."));
            continue;
        }
        let status = block["status"].as_str().unwrap_or_default().trim().to_lowercase();
        if block["supported"] == json!(false) && block["assurance_blocking"] == json!(true) {
            let reason = block["reason"].as_str().unwrap_or("unsupported");
            fail(&format!("{guard} unsupported for strict assurance: {reason}."));
        }
        if ["degraded", "monitor-only", "monitor_only"].contains(&status.as_str()) {
            fail(&format!("{guard} status {status} is not strict-assurance passing."));
        }
        let decision = block["decision"].as_str().unwrap_or_default();
        let stated = block.get("decision").is_some() || block.get("passed").is_some();
        if !stated && !["ok", "pass", "passed"].contains(&status.as_str()) && block["supported"].is_null() {
            fail(&format!("{guard} missing strict guard pass evidence."));
        }
        let implied_block = stated && decision.is_empty() && !truthy(&block["passed"]);
        if decision == "block" || implied_block || block["passed"] == json!(false) {
            fail(&format!("{guard} did not pass."));
        }
    }
    for error in found {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
}
