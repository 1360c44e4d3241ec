//! The primary metric's gate with the report's own thresholds (`spec/verify.md` section 7).

use super::{kind, tier_name, tiny_relax};
use crate::format::to_value;
use crate::policy::{MIN_TOKENS_TOLERANCE, Tier, token_floor};
use crate::verify::python::{float, int, truthy};
use serde_json::Value;

/// A member of `context.primary_metric`, else of `meta`.
pub(super) fn metric_setting<'a>(report: &'a Value, context: &str, meta: &str) -> &'a Value {
    let source = &report["context"]["primary_metric"][context];
    if source.is_null() { &report["meta"][meta] } else { source }
}

/// The upper and lower bound of an explicit acceptance range.
pub(super) fn acceptance(report: &Value) -> Option<(f64, f64)> {
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
pub(super) fn primary_metric_acceptable(report: &Value) -> bool {
    let relaxed = tiny_relax(report);
    let name = if relaxed { "aggressive".to_owned() } else { tier_name(report) };
    let own = &report["resolved_policy"]["metrics"];
    let tier = name.parse().unwrap_or(Tier::Balanced);
    let table = to_value(&tier.metrics_policy());
    // With its own policy, the report's tier is the only one known: relaxed reports then have no policy at all.
    let empty = Value::Null;
    let policy = match own.as_object().is_some_and(|own| !own.is_empty()) {
        true if relaxed && tier_name(report) != "aggressive" => &empty,
        true => own,
        false => &table,
    };
    let ratio_policy = &policy["pm_ratio"];
    let base = float(&ratio_policy["ratio_limit_base"]).unwrap_or_else(|| tier.ratio_limit());
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

pub(super) fn enough_tokens(report: &Value, policy: &Value) -> bool {
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
        Value::Null => MIN_TOKENS_TOLERANCE,
        value => float(value).unwrap_or(0.0).max(0.0),
    };
    total as f64 >= token_floor(needed as f64, tolerance, covered("preview") && covered("final"))
}
