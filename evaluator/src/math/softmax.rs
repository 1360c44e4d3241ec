//! Softmax of attention rows, and log-sum-exp of logits that arrive in blocks.

use super::elementary::exp_nonpositive;
use super::simd::{max, multiversion, sum};

multiversion! {
    /// Turns scores into probabilities. An infinite or NaN score makes them NaN.
    pub fn softmax(row: &mut [f32]) {
        let largest = max(row);
        for v in row.iter_mut() {
            *v = exp_nonpositive(*v - largest);
        }
        let scale = 1.0 / sum(row, |v| v);
        for v in row.iter_mut() {
            *v *= scale;
        }
    }

    /// The same with one more score, the sink, whose probability is dropped.
    pub fn softmax_with_sink(row: &mut [f32], sink: f32) {
        let largest = max(row).max(sink);
        for v in row.iter_mut() {
            *v = exp_nonpositive(*v - largest);
        }
        let scale = 1.0 / (sum(row, |v| v) + exp_nonpositive(sink - largest));
        for v in row.iter_mut() {
            *v *= scale;
        }
    }

    /// The largest element m, and Σ exp(x − m).
    pub fn max_and_sum(row: &[f32]) -> (f32, f32) {
        let largest = max(row);
        (largest, sum(row, |v| exp_nonpositive(v - largest)))
    }
}

/// log Σ exp, accumulated over blocks.
#[derive(Debug, Clone, Copy)]
pub struct LogSumExp {
    largest: f64,
    total: f64,
}

impl Default for LogSumExp {
    fn default() -> Self {
        Self { largest: f64::NEG_INFINITY, total: 0.0 }
    }
}

impl LogSumExp {
    /// Adds a block, which must not be empty.
    pub fn add(&mut self, block: &[f32]) {
        let (largest, total) = max_and_sum(block);
        let (largest, total) = (f64::from(largest), f64::from(total));
        if largest <= self.largest {
            self.total += total * (largest - self.largest).exp();
        } else {
            // Before the first block the maximum is -∞ and the total 0, so their product is 0. A NaN in the total persists.
            self.total = self.total * (self.largest - largest).exp() + total;
            self.largest = largest;
        }
    }

    /// log Σ exp of all blocks.
    pub fn value(&self) -> f64 {
        self.largest + self.total.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_log_sum_exp_does_not_overflow() {
        for n in [1usize, 5, 16, 17, 300] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 31) % 19) as f32 * 9.0 - 40.0).collect();
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = x.iter().map(|v| f64::from(v - largest).exp()).sum();
            let mut p = x.clone();
            softmax(&mut p);
            for (p, x) in p.iter().zip(&x) {
                assert!((f64::from(*p) - f64::from(x - largest).exp() / total).abs() < 1e-6);
            }
            for block in [1, 3, 64] {
                let mut lse = LogSumExp::default();
                x.chunks(block).for_each(|b| lse.add(b));
                assert!((lse.value() - (f64::from(largest) + total.ln())).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn sink_takes_its_share() {
        let x: Vec<f32> = (0..37).map(|i| ((i * 31) % 19) as f32 / 3.0).collect();
        for sink in [-50.0, 0.0, 4.0, 40.0] {
            let mut all = x.clone();
            all.push(sink);
            softmax(&mut all);
            let mut row = x.clone();
            softmax_with_sink(&mut row, sink);
            assert!(row.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-7), "{sink}");
        }
    }

    #[test]
    fn nan_and_infinity_give_nan() {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 20, 39] {
                let mut x = vec![1.0f32; 40];
                x[at] = bad;
                let mut lse = LogSumExp::default();
                x.chunks(16).for_each(|b| lse.add(b));
                assert!(lse.value().is_nan(), "{bad} at {at}");
                softmax(&mut x);
                assert!(x.iter().all(|v| v.is_nan()));
            }
        }
    }
}
