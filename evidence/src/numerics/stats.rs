//! Sums, means and quantiles in NumPy's order of operations.

/// `numpy.sum` of a contiguous array: pairwise, in blocks of 128 with eight accumulators.
pub fn sum(values: &[f64]) -> f64 {
    sum_by(values.len(), &|i| values[i])
}

/// [`sum`] of `at(0..len)` without an intermediate array.
pub fn sum_by(len: usize, at: &impl Fn(usize) -> f64) -> f64 {
    fn block(first: usize, len: usize, at: &impl Fn(usize) -> f64) -> f64 {
        if len < 8 {
            return (first..first + len).fold(0.0, |sum, i| sum + at(i));
        }
        if len <= 128 {
            let mut lanes: [f64; 8] = std::array::from_fn(|k| at(first + k));
            let whole = len - len % 8;
            let mut i = 8;
            while i < whole {
                for (k, lane) in lanes.iter_mut().enumerate() {
                    *lane += at(first + i + k);
                }
                i += 8;
            }
            let head = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
                + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
            return (whole..len).fold(head, |sum, i| sum + at(first + i));
        }
        let half = len / 2 - (len / 2) % 8;
        block(first, half, at) + block(first + half, len - half, at)
    }
    block(0, len, at)
}

/// `numpy.mean`; NaN if empty.
pub fn mean(values: &[f64]) -> f64 {
    sum(values) / values.len() as f64
}

/// Which share of the values is true; NaN if empty.
pub fn share(values: &[bool]) -> f64 {
    values.iter().filter(|value| **value).count() as f64 / values.len() as f64
}

/// Token-weighted mean `sum(w*x) / sum(w)`, summed in order as upstream's verifier sums. `None` if the weights sum to 0.
pub fn weighted_mean(values: &[f64], weights: &[u64]) -> Option<f64> {
    if values.len() != weights.len() {
        return None;
    }
    let (mut numerator, mut denominator) = (0.0f64, 0.0f64);
    for (value, weight) in values.iter().zip(weights) {
        numerator += value * *weight as f64;
        denominator += *weight as f64;
    }
    (denominator > 0.0).then(|| numerator / denominator)
}

/// `numpy.quantile` (linear) of an ascending array; `q` in `[0, 1]`. NaN if empty.
pub fn quantile_sorted(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = last as f64 * q.clamp(0.0, 1.0);
    let below = position.floor();
    let t = position - below;
    let low = sorted[below as usize];
    let high = sorted[(below as usize + 1).min(last)];
    let difference = high - low;
    if t >= 0.5 { high - difference * (1.0 - t) } else { low + difference * t }
}

/// `numpy.allclose(values, values[0])`; true if empty.
pub fn all_close_to_first(values: &[f64]) -> bool {
    values.first().is_none_or(|first| {
        let tolerance = 1e-8 + 1e-5 * first.abs();
        values.iter().all(|value| (value - first).abs() <= tolerance)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_follows_numpys_blocks() {
        // numpy: np.sum(1 / np.arange(1, n + 1)) for n below 8, in one block and over several.
        for (n, expected) in [(7u32, 2.5928571428571425), (100, 5.187377517639621), (1000, 7.485470860550345)]
        {
            let values: Vec<f64> = (1..=n).map(|i| 1.0 / f64::from(i)).collect();
            assert!((sum(&values) - expected).abs() < 2e-15, "{n}");
        }
    }

    #[test]
    fn quantiles_are_linear() {
        let values = [1.0, 2.0, 3.0, 10.0];
        assert_eq!(quantile_sorted(&values, 0.0), 1.0);
        assert_eq!(quantile_sorted(&values, 0.5), 2.5);
        assert_eq!(quantile_sorted(&values, 1.0), 10.0);
        assert!((quantile_sorted(&values, 0.95) - 8.95).abs() < 1e-12);
        assert!(quantile_sorted(&[], 0.5).is_nan());
    }

    #[test]
    fn weighted_mean_needs_weight() {
        assert_eq!(weighted_mean(&[1.0, 4.0], &[3, 1]), Some(1.75));
        assert_eq!(weighted_mean(&[1.0], &[0]), None);
        assert_eq!(weighted_mean(&[], &[]), None);
        assert_eq!(weighted_mean(&[1.0], &[1, 1]), None);
    }
}
