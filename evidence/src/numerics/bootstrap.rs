//! Bootstrap confidence intervals of mean losses and mean paired differences.

use super::normal;
use super::pcg64::{Pcg64, WeightedChoice};
use super::stats::{all_close_to_first, mean, quantile_sorted, sum, sum_by};

/// How the interval follows from the replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Bias-corrected and accelerated.
    Bca,
    /// Plain percentiles.
    Percentile,
}

/// Settings of one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How the interval follows from the replicates.
    pub method: Method,
    /// Number of replicates, at least 1.
    pub replicates: usize,
    /// One minus the confidence level, inside (0, 1).
    pub alpha: f64,
    /// Seed of the resampling.
    pub seed: u64,
}

/// Upper limit of [`Settings::replicates`] and, together, of drawn indices: a report must not
/// keep its verifier busy for hours.
pub const MAX_REPLICATES: usize = 100_000;

/// Why no interval could be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// No samples.
    #[error("there are no samples")]
    Empty,
    /// NaN or infinity among the samples or weights.
    #[error("a sample or weight is not finite")]
    NotFinite,
    /// Arrays of different lengths.
    #[error("subject, baseline and weights differ in length")]
    Lengths,
    /// Negative weight, or none positive.
    #[error("weights must be non-negative and have a positive sum")]
    Weights,
    /// Zero or too many replicates, or alpha outside (0, 1).
    #[error("replicates must be 1 to 100000 and alpha inside (0, 1)")]
    Settings,
}

/// An interval `(low, high)`.
pub type Interval = (f64, f64);

/// Interval of the mean paired difference `subject - baseline`, resampled in proportion to `weights`
/// (upstream's `compute_paired_delta_log_ci`). Equal weights, as no weights, resample evenly.
pub fn paired_interval(
    subject: &[f64],
    baseline: &[f64],
    weights: Option<&[f64]>,
    settings: &Settings,
) -> Result<Interval, BootstrapError> {
    if subject.len() != baseline.len() || weights.is_some_and(|w| w.len() != subject.len()) {
        return Err(BootstrapError::Lengths);
    }
    let deltas: Vec<f64> = subject.iter().zip(baseline).map(|(s, b)| s - b).collect();
    check(&deltas, settings)?;
    let weights = match weights {
        None => None,
        Some(weights) => {
            if weights.iter().any(|w| !w.is_finite()) {
                return Err(BootstrapError::NotFinite);
            }
            let total = sum(weights);
            if weights.iter().any(|w| *w < 0.0) || total <= 0.0 {
                return Err(BootstrapError::Weights);
            }
            let normalised = || weights.iter().map(|w| w / total).collect::<Vec<f64>>();
            (!all_close_to_first(weights)).then(normalised)
        }
    };
    if all_close_to_first(&deltas) {
        let centre = mean(&deltas);
        return Ok((centre, centre));
    }
    Ok(interval(&deltas, weights.as_deref(), settings))
}

fn check(samples: &[f64], settings: &Settings) -> Result<(), BootstrapError> {
    if samples.is_empty() {
        return Err(BootstrapError::Empty);
    }
    if samples.iter().any(|x| !x.is_finite()) {
        return Err(BootstrapError::NotFinite);
    }
    let alpha_ok = settings.alpha > 0.0 && settings.alpha < 1.0;
    if settings.replicates == 0 || settings.replicates > MAX_REPLICATES || !alpha_ok {
        return Err(BootstrapError::Settings);
    }
    Ok(())
}

fn interval(samples: &[f64], weights: Option<&[f64]>, settings: &Settings) -> Interval {
    let n = samples.len();
    let centre = match weights {
        None => mean(samples),
        Some(weights) => dot(samples, weights) / sum(weights),
    };
    if n < 2 {
        return (centre, centre);
    }
    let replicates = resample(samples, weights, settings);
    let (low, high) = (settings.alpha / 2.0, 1.0 - settings.alpha / 2.0);
    let percentile = || {
        // `numpy.percentile` takes per cent and divides by 100.
        let at = |q: f64| quantile_sorted(&replicates, 100.0 * q / 100.0);
        (at(low), at(high))
    };
    if settings.method == Method::Percentile {
        return percentile();
    }

    let below = replicates.partition_point(|r| *r < centre) as f64 / replicates.len() as f64;
    let bias = normal::inv_cdf(below.clamp(1e-6, 1.0 - 1e-6));
    let jackknife = jackknife(samples, weights, centre);
    let middle = mean(&jackknife);
    let cubes = sum_by(n, &|i| (middle - jackknife[i]).powi(3));
    let squares = sum_by(n, &|i| (middle - jackknife[i]).powi(2));
    let denominator = 6.0 * squares.powf(1.5);
    if denominator == 0.0 {
        return percentile();
    }
    let acceleration = cubes / denominator;
    let adjusted = |q: f64| {
        let shifted = bias + normal::inv_cdf(q);
        let z = bias + shifted / (1.0 - acceleration * shifted).max(1e-12);
        quantile_sorted(&replicates, normal::cdf(z))
    };
    (adjusted(low), adjusted(high))
}

/// Means of the replicates, ascending.
fn resample(samples: &[f64], weights: Option<&[f64]>, settings: &Settings) -> Vec<f64> {
    let n = samples.len();
    let mut generator = Pcg64::seed_from(settings.seed);
    let mut drawn = vec![0.0; n];
    let mut means = Vec::with_capacity(settings.replicates);
    let choice = weights.map(WeightedChoice::new);
    for _ in 0..settings.replicates {
        match &choice {
            None => drawn.iter_mut().for_each(|slot| *slot = samples[generator.below(n as u64) as usize]),
            Some(choice) => drawn.iter_mut().for_each(|slot| *slot = samples[choice.draw(&mut generator)]),
        }
        means.push(mean(&drawn));
    }
    means.sort_unstable_by(f64::total_cmp);
    means
}

fn jackknife(samples: &[f64], weights: Option<&[f64]>, centre: f64) -> Vec<f64> {
    let n = samples.len();
    let Some(weights) = weights else {
        return (0..n)
            .map(|left_out| {
                sum_by(n - 1, &|i| samples[if i < left_out { i } else { i + 1 }]) / (n - 1) as f64
            })
            .collect();
    };
    let total = sum(weights);
    let weighted = dot(samples, weights);
    samples
        .iter()
        .zip(weights)
        .map(|(x, w)| if total - w <= 0.0 { centre } else { (weighted - w * x) / (total - w) })
        .collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: [f64; 8] = [3.10, 2.95, 3.30, 2.80, 3.05, 3.22, 2.91, 3.40];
    const G: [f64; 8] = [3.08, 2.97, 3.21, 2.79, 3.00, 3.25, 2.88, 3.31];
    const W: [f64; 8] = [512.0, 512.0, 480.0, 512.0, 300.0, 512.0, 512.0, 450.0];

    fn settings(method: Method, seed: u64) -> Settings {
        Settings { method, replicates: 1000, alpha: 0.05, seed }
    }

    fn assert_close(found: Interval, expected: Interval) {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-14;
        assert!(near(found.0, expected.0) && near(found.1, expected.1), "{found:?} {expected:?}");
    }

    #[test]
    fn unweighted_bca() {
        let found = paired_interval(&F, &G, None, &settings(Method::Bca, 0)).expect("valid");
        assert_close(found, (0.0025000000000000022, 0.05874999999999991));
    }

    #[test]
    fn weighted_bca() {
        let found = paired_interval(&F, &G, Some(&W), &settings(Method::Bca, 503)).expect("valid");
        assert_close(found, (-0.0012499999999999178, 0.05749999999999991));
    }

    #[test]
    fn weighted_percentile() {
        let found = paired_interval(&F, &G, Some(&W), &settings(Method::Percentile, 0)).expect("valid");
        assert_close(found, (0.0012187499999999772, 0.057499999999999885));
    }

    /// Upstream's `compute_logloss_ci`: the paired difference to zeros.
    fn mean_interval(samples: &[f64], settings: &Settings) -> Result<Interval, BootstrapError> {
        paired_interval(samples, &vec![0.0; samples.len()], None, settings)
    }

    #[test]
    fn single_sample_bca() {
        let found = mean_interval(&F, &settings(Method::Bca, 7)).expect("valid");
        assert_close(found, (2.96273857632306, 3.233524264883875));
    }

    #[test]
    fn equal_weights_are_no_weights() {
        let even = paired_interval(&F, &G, Some(&[128.0; 8]), &settings(Method::Bca, 0));
        assert_eq!(even, paired_interval(&F, &G, None, &settings(Method::Bca, 0)));
    }

    #[test]
    fn degenerate_cases() {
        let shifted = F.map(|x| x + 0.25);
        let (low, high) = paired_interval(&shifted, &F, None, &settings(Method::Bca, 0)).expect("valid");
        assert!(low == high && (low - 0.25).abs() < 1e-12);
        assert_eq!(mean_interval(&[2.5], &settings(Method::Bca, 0)), Ok((2.5, 2.5)));
        assert_eq!(mean_interval(&[], &settings(Method::Bca, 0)), Err(BootstrapError::Empty));
        assert_eq!(mean_interval(&[f64::NAN], &settings(Method::Bca, 0)), Err(BootstrapError::NotFinite));
        let mut bad = settings(Method::Bca, 0);
        bad.replicates = 0;
        assert_eq!(mean_interval(&F, &bad), Err(BootstrapError::Settings));
        bad = settings(Method::Bca, 0);
        bad.alpha = 1.0;
        assert_eq!(mean_interval(&F, &bad), Err(BootstrapError::Settings));
        let lengths = paired_interval(&F, &G[..7], None, &settings(Method::Bca, 0));
        assert_eq!(lengths, Err(BootstrapError::Lengths));
        let weights = paired_interval(&F, &G, Some(&[0.0; 8]), &settings(Method::Bca, 0));
        assert_eq!(weights, Err(BootstrapError::Weights));
    }
}
