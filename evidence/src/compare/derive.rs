//! Numbers that follow from raw losses. The verifier computes them again with the same functions.

use crate::gates;
use crate::numerics::bootstrap::{self, BootstrapError, Interval, Method, Settings};
use crate::numerics::stats::{all_close_to_first, mean, quantile_sorted, sum_by, weighted_mean};
use crate::policy::{
    CONFIDENCE_WIDTH, MIN_TOKENS_TOLERANCE, PAIRED_SEED_OFFSET, Profile, TAIL_EPSILON, TAIL_MASS_MAX,
    TAIL_MIN_WINDOWS, TAIL_QUANTILE, Tier, token_floor,
};
use serde_json::{Map, Value, json};

/// Interval of Δ log-loss of the final arm (`primary_metric.ci`).
pub(crate) fn paired_ci(
    subject: &[f64],
    baseline: &[f64],
    weights: &[u64],
    method: Method,
    replicates: usize,
    alpha: f64,
    seed: u64,
) -> Result<Interval, BootstrapError> {
    let weights: Vec<f64> = weights.iter().map(|w| *w as f64).collect();
    let seed = seed.wrapping_add(PAIRED_SEED_OFFSET);
    bootstrap::paired_interval(
        subject,
        baseline,
        Some(&weights),
        &Settings { method, replicates, alpha, seed },
    )
}

/// `primary_metric_tail`.
pub(crate) fn tail(subject: &[f64], baseline: &[f64], weights: &[u64], tier: Tier) -> Value {
    let deltas: Vec<f64> = subject.iter().zip(baseline).map(|(s, b)| s - b).collect();
    let mut sorted = deltas.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = deltas.len();
    let above = deltas.iter().filter(|delta| **delta > TAIL_EPSILON).count();
    let mass = above as f64 / n.max(1) as f64;
    let total: u64 = weights.iter().sum();
    let heavy: u64 =
        deltas.iter().zip(weights).filter(|(delta, _)| **delta > TAIL_EPSILON).map(|(_, w)| w).sum();
    let at = |q: f64| quantile_sorted(&sorted, q);
    let evaluated = n >= TAIL_MIN_WINDOWS;
    let mut violations = Vec::new();
    if evaluated && at(TAIL_QUANTILE) > tier.tail_quantile_max() {
        violations.push(json!({
            "type": "quantile_max_exceeded",
            "quantile": TAIL_QUANTILE,
            "observed": at(TAIL_QUANTILE),
            "threshold": tier.tail_quantile_max(),
        }));
    }
    if evaluated && mass > TAIL_MASS_MAX {
        violations.push(json!({"type": "mass_max_exceeded", "observed": mass, "threshold": TAIL_MASS_MAX}));
    }
    json!({
        "mode": "warn",
        "evaluated": evaluated,
        "passed": violations.is_empty(),
        "warned": !violations.is_empty(),
        "violations": violations,
        "policy": tier.tail_policy(),
        "stats": {
            "n": n,
            "epsilon": TAIL_EPSILON,
            "max": sorted.last(),
            "tail_mass": mass,
            "tail_mass_weighted": heavy as f64 / total.max(1) as f64,
            "tail_mass_weighted_by": "weights",
            "q50": at(0.5),
            "q90": at(0.9),
            "q95": at(0.95),
            "q99": at(0.99),
        },
        "source": "paired_baseline.final",
    })
}

/// `paired_delta_summary`: final minus preview of one model, window by window (upstream's drift diagnostics).
pub(crate) fn drift_summary(preview: (&[f64], &[u64]), last: (&[f64], &[u64])) -> Value {
    let deltas: Vec<f64> = last.0.iter().zip(preview.0).map(|(f, p)| f - p).collect();
    let centre = mean(&deltas);
    let n = deltas.len();
    let spread = sum_by(n, &|i| (deltas[i] - centre).powi(2)) / (n.max(2) - 1) as f64;
    let overall = weighted_mean(last.0, last.1).zip(weighted_mean(preview.0, preview.1)).map(|(f, p)| f - p);
    let same = n > 1 && all_close_to_first(&deltas);
    let reason = if n < 2 { Some("single_pair") } else { same.then_some("no_variation") };
    json!({
        "mean": overall,
        "mean_unweighted": centre,
        "mean_preview_weighted": weighted_mean(&deltas, &preview.1[..n.min(preview.1.len())]),
        "std": spread.sqrt(),
        "min": deltas.iter().copied().reduce(f64::min),
        "max": deltas.iter().copied().reduce(f64::max),
        "degenerate": reason.is_some(),
        "degenerate_reason": reason,
    })
}

/// Whether both arms together have the tokens the tier asks for.
pub(crate) fn enough_tokens(tier: Tier, tokens: u64, preview_windows: usize, final_windows: usize) -> bool {
    let floor = tier.coverage();
    let covered = preview_windows >= floor.preview && final_windows >= floor.final_;
    tokens as f64 >= token_floor(tier.min_tokens() as f64, MIN_TOKENS_TOLERANCE, covered)
}

/// The flags of `validation` that decide in this profile; a guard that was not evaluated has none.
pub(crate) fn validation(
    profile: Profile,
    tier: Tier,
    ratio: f64,
    drift: f64,
    enough_tokens: bool,
    invariants_status: Option<&str>,
) -> Map<String, Value> {
    let sampled = enough_tokens || !profile.gated();
    let (low, high) = profile.drift_band();
    let mut flags = Map::new();
    let mut put = |name: &str, passed: bool| {
        if gates::decides(profile, name) {
            flags.insert(name.to_owned(), json!(passed));
        }
    };
    put("primary_metric_acceptable", ratio <= tier.ratio_gate() && sampled);
    put("preview_final_drift_acceptable", (low..=high).contains(&drift));
    put("invariants_pass", matches!(invariants_status, Some("pass" | "warn")));
    // Every tier only warns of a heavy tail.
    put("primary_metric_tail_acceptable", true);
    if sampled && ratio > tier.ratio_limit() && ratio <= tier.ratio_gate() {
        flags.insert("hysteresis_applied".to_owned(), json!(true));
    }
    flags
}

/// Too few replicates or tokens for a stable interval.
pub(crate) fn unstable(replicates: usize, enough_tokens: bool) -> bool {
    replicates < 200 || !enough_tokens
}

/// `confidence`.
pub(crate) fn confidence(width: f64, acceptable: bool, unstable: bool) -> Value {
    let label = match (acceptable, unstable) {
        (true, false) if width <= CONFIDENCE_WIDTH => "High",
        (true, true) => "Medium",
        (true, false) if width <= 2.0 * CONFIDENCE_WIDTH => "Medium",
        _ => "Low",
    };
    json!({
        "label": label,
        "basis": "ppl_ratio",
        "width": width,
        "threshold": CONFIDENCE_WIDTH,
        "unstable": unstable,
    })
}

/// `coverage` of windows and replicates against the tier's floors.
pub(crate) fn coverage(tier: Tier, preview: usize, last: usize, replicates: usize) -> Value {
    let floor = tier.coverage();
    let row =
        |used: usize, required: usize| json!({"used": used, "required": required, "ok": used >= required});
    json!({
        "tier": tier.as_str(),
        "preview": row(preview, floor.preview),
        "final": row(last, floor.final_),
        "replicates": row(replicates, floor.replicates),
    })
}
