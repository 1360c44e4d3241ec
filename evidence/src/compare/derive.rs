//! Numbers that follow from raw losses. The verifier recomputes them with the same functions.

use crate::format::evaluation_report::{
    Confidence, ConfidenceLabel, Coverage, CoverageRow, PairedDeltaSummary, Tail, TailStats, TailViolation,
    Validation,
};
use crate::format::metrics::Metric;
use crate::numerics::bootstrap::{self, BootstrapError, Interval, Method, Settings};
use crate::numerics::stats::{all_close_to_first, mean, quantile_sorted, sum_by, weighted_mean};
use crate::policy::{
    ACCURACY_DRIFT, CONFIDENCE_WIDTH, CONFIDENCE_WIDTH_PP, MIN_EXAMPLES, MIN_TOKENS_TOLERANCE,
    PAIRED_SEED_OFFSET, Profile, TAIL_EPSILON, TAIL_MASS_MAX, TAIL_MIN_WINDOWS, TAIL_QUANTILE, Tier,
    token_floor,
};

/// Interval of the differences of the final arm (`primary_metric.ci`).
pub(crate) fn paired_ci(
    subject: &[f64],
    baseline: &[f64],
    weights: Option<&[u64]>,
    method: Method,
    replicates: usize,
    alpha: f64,
    seed: u64,
) -> Result<Interval, BootstrapError> {
    let weights = weights.map(|weights| weights.iter().map(|w| *w as f64).collect::<Vec<_>>());
    let seed = seed.wrapping_add(PAIRED_SEED_OFFSET);
    bootstrap::paired_interval(
        subject,
        baseline,
        weights.as_deref(),
        &Settings { method, replicates, alpha, seed },
    )
}

/// `primary_metric_tail`.
pub(crate) fn tail(subject: &[f64], baseline: &[f64], weights: &[u64], tier: Tier) -> Tail {
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
        violations.push(TailViolation::QuantileMaxExceeded {
            quantile: TAIL_QUANTILE,
            observed: at(TAIL_QUANTILE),
            threshold: tier.tail_quantile_max(),
        });
    }
    if evaluated && mass > TAIL_MASS_MAX {
        violations.push(TailViolation::MassMaxExceeded { observed: mass, threshold: TAIL_MASS_MAX });
    }
    Tail {
        mode: "warn".to_owned(),
        evaluated,
        passed: violations.is_empty(),
        warned: !violations.is_empty(),
        violations,
        policy: tier.tail_policy(),
        stats: TailStats {
            n,
            epsilon: TAIL_EPSILON,
            max: sorted.last().copied(),
            tail_mass: mass,
            tail_mass_weighted: heavy as f64 / total.max(1) as f64,
            tail_mass_weighted_by: "weights".to_owned(),
            q50: at(0.5),
            q90: at(0.9),
            q95: at(0.95),
            q99: at(0.99),
        },
        source: "paired_baseline.final".to_owned(),
    }
}

/// `paired_delta_summary`: final minus preview of one model, window by window (upstream's drift diagnostics).
pub(crate) fn drift_summary(preview: (&[f64], &[u64]), last: (&[f64], &[u64])) -> PairedDeltaSummary {
    let deltas: Vec<f64> = last.0.iter().zip(preview.0).map(|(f, p)| f - p).collect();
    let centre = mean(&deltas);
    let n = deltas.len();
    let spread = sum_by(n, &|i| (deltas[i] - centre).powi(2)) / (n.max(2) - 1) as f64;
    let overall = weighted_mean(last.0, last.1).zip(weighted_mean(preview.0, preview.1)).map(|(f, p)| f - p);
    let same = n > 1 && all_close_to_first(&deltas);
    let reason = if n < 2 { Some("single_pair") } else { same.then_some("no_variation") };
    PairedDeltaSummary {
        mean: overall,
        mean_unweighted: centre,
        mean_preview_weighted: weighted_mean(&deltas, &preview.1[..n.min(preview.1.len())]),
        std: spread.sqrt(),
        min: deltas.iter().copied().reduce(f64::min),
        max: deltas.iter().copied().reduce(f64::max),
        degenerate: reason.is_some(),
        degenerate_reason: reason.map(str::to_owned),
    }
}

/// Whether both arms together have the tokens the tier asks for.
pub(crate) fn enough_tokens(tier: Tier, tokens: u64, preview_windows: usize, final_windows: usize) -> bool {
    let floor = tier.coverage();
    let covered = preview_windows >= floor.preview && final_windows >= floor.final_;
    tokens as f64 >= token_floor(tier.min_tokens() as f64, MIN_TOKENS_TOLERANCE, covered)
}

/// `primary_metric_tail` of a metric whose tail is not evaluated.
pub(crate) fn no_tail(tier: Tier) -> Tail {
    let evaluated = tail(&[0.0], &[0.0], &[1], tier);
    let stats = TailStats { n: 0, max: None, ..evaluated.stats };
    Tail { mode: "off".to_owned(), evaluated: false, stats, ..evaluated }
}

/// The numbers that decide the gates of the metric and of its drift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decisive {
    /// Of a perplexity.
    Perplexity {
        /// That of the subject divided by that of the baseline.
        ratio: f64,
        /// That of the final arm divided by that of the preview arm.
        drift: f64,
        /// Whether both arms have the tokens that the tier asks for.
        enough_tokens: bool,
    },
    /// Of an accuracy.
    Accuracy {
        /// Lower end of the interval of the difference, percentage points.
        low_pp: f64,
        /// Accuracy of the final arm minus that of the preview arm.
        drift: f64,
        /// Final examples.
        examples: usize,
    },
}

impl Decisive {
    /// Whether enough was measured.
    pub(crate) fn is_enough(&self) -> bool {
        match *self {
            Decisive::Perplexity { enough_tokens, .. } => enough_tokens,
            Decisive::Accuracy { examples, .. } => examples >= MIN_EXAMPLES,
        }
    }

    /// How far the final arm of the subject is from its preview arm.
    pub(crate) fn drift(&self) -> f64 {
        match *self {
            Decisive::Perplexity { drift, .. } | Decisive::Accuracy { drift, .. } => drift,
        }
    }

    /// Whether the subject is within the limit of a tier, and whether only its hysteresis makes it so.
    fn within(&self, tier: Tier) -> (bool, bool) {
        match *self {
            Decisive::Perplexity { ratio, .. } => {
                (ratio <= tier.ratio_gate(), ratio > tier.ratio_limit() && ratio <= tier.ratio_gate())
            }
            Decisive::Accuracy { low_pp, .. } => {
                let within = low_pp >= tier.accuracy_gate();
                (within, within && low_pp < tier.accuracy_limit())
            }
        }
    }

    /// Whether the arms are alike.
    fn is_steady(&self, profile: Profile) -> bool {
        let (low, high) = profile.drift_band();
        match *self {
            Decisive::Perplexity { drift, .. } => (low..=high).contains(&drift),
            Decisive::Accuracy { drift, .. } => drift.abs() <= ACCURACY_DRIFT,
        }
    }
}

/// `validation`: the flags that decide in this profile. `guards` are the flags of the evaluated guards.
pub(crate) fn validation(
    profile: Profile,
    tier: Tier,
    numbers: &Decisive,
    guards: &[(&'static str, bool)],
) -> Validation {
    let sampled = numbers.is_enough() || !profile.gated();
    let (within, by_hysteresis) = numbers.within(tier);
    let mut flags = Validation::default();
    let mut push = |name: &'static str, passed: bool| {
        if profile.decides(name) {
            flags.push(name, passed);
        }
    };
    push("primary_metric_acceptable", within && sampled);
    push("preview_final_drift_acceptable", numbers.is_steady(profile));
    for (name, passed) in guards {
        push(name, *passed);
    }
    // In every tier a heavy tail only warns.
    push("primary_metric_tail_acceptable", true);
    if sampled && by_hysteresis {
        flags.push("hysteresis_applied", true);
    }
    flags
}

/// Too few replicates, tokens or examples for a stable interval.
pub(crate) fn unstable(replicates: usize, enough: bool) -> bool {
    replicates < 200 || !enough
}

/// `confidence`. The width is that of the interval as it is shown.
pub(crate) fn confidence(metric: &Metric, width: f64, acceptable: bool, unstable: bool) -> Confidence {
    let (basis, threshold) = match metric.is_accuracy() {
        true => ("accuracy", CONFIDENCE_WIDTH_PP),
        false => ("ppl_ratio", CONFIDENCE_WIDTH),
    };
    let label = match (acceptable, unstable) {
        (true, false) if width <= threshold => ConfidenceLabel::High,
        (true, true) => ConfidenceLabel::Medium,
        (true, false) if width <= 2.0 * threshold => ConfidenceLabel::Medium,
        _ => ConfidenceLabel::Low,
    };
    Confidence { label, basis: basis.to_owned(), width, threshold, unstable }
}

/// Windows and replicates against the floors of the tier.
pub(crate) fn coverage(tier: Tier, preview: usize, last: usize, replicates: usize) -> Coverage {
    let floor = tier.coverage();
    let row = |used: usize, required: usize| CoverageRow { used, required, ok: used >= required };
    Coverage {
        tier: tier.as_str().to_owned(),
        preview: row(preview, floor.preview),
        final_: row(last, floor.final_),
        replicates: row(replicates, floor.replicates),
    }
}
