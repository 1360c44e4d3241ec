//! Upstream's gate on the primary metric, with the thresholds that the report states.

use super::{kind, tier_name, tiny_relax};
use crate::format::to_value;
use crate::format::untrusted::Node;
use crate::policy::{MIN_TOKENS_TOLERANCE, Tier, token_floor};
use crate::verify::python::{float, int, truthy};
use serde_json::Value;

/// A member of `context.primary_metric`, else of `meta`.
fn metric_setting<'a>(report: Node<'a>, context: &'a str, meta: &'a str) -> Node<'a> {
    let source = report.at("context.primary_metric").get(context);
    if source.is_null() { report.get("meta").get(meta) } else { source }
}

/// The upper and lower bound of an explicit acceptance range.
fn acceptance(report: Node<'_>) -> Option<(f64, f64)> {
    let range = metric_setting(report, "acceptance_range", "pm_acceptance_range");
    let (low, high) = (float(range.get("min")), float(range.get("max")));
    if low.is_none() && high.is_none() {
        return None;
    }
    let low = low.filter(|low| *low > 0.0).unwrap_or(0.95);
    let high = high.filter(|high| *high > 0.0).unwrap_or(1.10);
    Some((low, high.max(low)))
}

/// `compute_validation_flags(...)["primary_metric_acceptable"]` with the report's own thresholds.
pub(super) fn primary_metric_acceptable(report: Node<'_>) -> bool {
    let relaxed = tiny_relax(report);
    let name = if relaxed { "aggressive".to_owned() } else { tier_name(report) };
    let own = report.at("resolved_policy.metrics");
    let tier = name.parse().unwrap_or(Tier::Balanced);
    let table = to_value(&tier.metrics_policy());
    // With its own policy, the report's tier is the only one known: relaxed reports then have no policy at all.
    let empty = Value::Null;
    let (empty, table) = (Node::root("", &empty), Node::root("", &table));
    let policy = match own.object().is_some_and(|own| !own.is_empty()) {
        true if relaxed && tier_name(report) != "aggressive" => empty,
        true => own,
        false => table,
    };
    let ratio_policy = policy.get("pm_ratio");
    let base = float(ratio_policy.get("ratio_limit_base")).unwrap_or_else(|| tier.ratio_limit());
    let range = acceptance(report);
    let limit = range.map_or(base, |(_, high)| high)
        + float(ratio_policy.get("hysteresis_ratio")).unwrap_or(0.0).max(0.0);
    let metric = report.get("primary_metric");
    let ratio = float(metric.get("ratio_vs_baseline"));
    let enough = relaxed || enough_tokens(report, ratio_policy);
    match kind(report) {
        kind if kind.starts_with("ppl") => match ratio {
            Some(ratio) => ratio <= limit && enough,
            // Upstream replaces a missing ratio by 1.
            None => range.is_none_or(|(low, _)| 1.0 >= low) && 1.0 <= limit && enough,
        },
        "accuracy" => {
            let policy = policy.get("accuracy");
            let least = float(policy.get("delta_min_pp")).unwrap_or(-1.0);
            let slack = float(policy.get("hysteresis_delta_pp")).unwrap_or(0.0).max(0.0);
            let examples = int(policy.get("min_examples")).unwrap_or(200) as f64;
            let delta = ratio.map_or(relaxed, |ratio| ratio >= least - slack);
            let n = metric.get("n_final");
            let counted = !n.exists() || float(n).is_some_and(|n| relaxed || n.trunc() >= examples);
            delta && counted
        }
        _ => false,
    }
}

fn enough_tokens(report: Node<'_>, policy: Node<'_>) -> bool {
    let telemetry = report.get("telemetry");
    let needed = int(policy.get("min_tokens")).unwrap_or(0);
    let total = int(telemetry.get("preview_total_tokens")).zip(int(telemetry.get("final_total_tokens")));
    let (Some((preview, last)), true) = (total, needed > 0) else { return true };
    let total = preview.saturating_add(last);
    if total >= needed {
        return true;
    }
    let stats = report.at("dataset.windows.stats");
    let own = stats.get("coverage");
    let coverage = if truthy(own) { own } else { stats.at("bootstrap.coverage") };
    let covered = |arm: &'static str| {
        let arm_coverage = coverage.get(arm);
        let met = float(arm_coverage.get("used"))
            .zip(float(arm_coverage.get("required")))
            .is_some_and(|(used, required)| used >= required);
        arm_coverage.object().is_some() && (truthy(arm_coverage.get("ok")) || met)
    };
    let tolerance = policy.get("min_tokens_tolerance");
    let tolerance = match tolerance.is_null() {
        true => MIN_TOKENS_TOLERANCE,
        false => float(tolerance).unwrap_or(0.0).max(0.0),
    };
    total as f64 >= token_floor(needed as f64, tolerance, covered("preview") && covered("final"))
}
