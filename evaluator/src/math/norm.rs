//! Layer normalisation and RMS normalisation.

use super::simd::{multiversion, sum};

/// A normalisation and its parameters.
#[derive(Debug, Clone)]
pub enum Norm {
    /// Mean 0, variance 1, then scaled and shifted.
    Layer {
        /// Scale.
        weight: Vec<f32>,
        /// Shift.
        bias: Vec<f32>,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Mean square 1, then scaled.
    Rms {
        /// Scale.
        weight: Vec<f32>,
        /// Added to the mean square.
        epsilon: f32,
    },
}

impl Norm {
    /// Normalises one row into `out`.
    pub fn row(&self, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Layer { weight, bias, epsilon } => layer_norm(x, weight, bias, *epsilon, out),
            Self::Rms { weight, epsilon } => rms_norm(x, weight, *epsilon, out),
        }
    }

    /// Number of elements.
    pub fn width(&self) -> usize {
        match self {
            Self::Layer { weight, .. } | Self::Rms { weight, .. } => weight.len(),
        }
    }

    /// Replaces each row of `width` elements by the normalised one; `row` is working memory.
    pub fn replace(&self, x: &mut [f32], width: usize, row: &mut Vec<f32>) {
        row.resize(row.len().max(width), 0.0);
        for x in x.chunks_exact_mut(width) {
            self.row(x, &mut row[..width]);
            x.copy_from_slice(&row[..width]);
        }
    }

    /// Normalisations of consecutive parts of `width` elements, each with its part of the parameters.
    pub fn split(self, width: usize) -> Vec<Self> {
        match self {
            Self::Layer { weight, bias, epsilon } => {
                let parts = weight.chunks(width).zip(bias.chunks(width));
                parts.map(|(w, b)| Self::Layer { weight: w.to_vec(), bias: b.to_vec(), epsilon }).collect()
            }
            Self::Rms { weight, epsilon } => {
                weight.chunks(width).map(|w| Self::Rms { weight: w.to_vec(), epsilon }).collect()
            }
        }
    }

    /// Normalises each row of `width` elements.
    pub fn rows(&self, x: &[f32], width: usize, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            self.row(x, out);
        }
    }
}

multiversion! {
    /// out ← (x − mean) / √(variance + ε) · weight + bias.
    pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let n = x.len() as f32;
        let mean = sum(x, |v| v) / n;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / n;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (((out, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *out = (*x - mean) * scale * *w + *b;
        }
    }

    /// out ← x / √(mean square + ε) · weight.
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let scale = 1.0 / (sum(x, |v| v * v) / x.len() as f32 + epsilon).sqrt();
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = *x * scale * *w;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_match_the_definition_in_f64() {
        for width in [1usize, 7, 16, 33, 100] {
            let x: Vec<f32> = (0..width).map(|i| ((i * 37 + 11) % 23) as f32 - 9.5).collect();
            let weight: Vec<f32> = (0..width).map(|i| 1.0 + i as f32 / 10.0).collect();
            let bias: Vec<f32> = (0..width).map(|i| i as f32 / 7.0).collect();
            let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            let n = width as f64;
            let mean = wide.iter().sum::<f64>() / n;
            let variance = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let square = wide.iter().map(|v| v * v).sum::<f64>() / n;
            let mut out = vec![0.0; width];
            Norm::Layer { weight: weight.clone(), bias: bias.clone(), epsilon: 1e-3 }.row(&x, &mut out);
            for i in 0..width {
                let truth =
                    (wide[i] - mean) / (variance + 1e-3).sqrt() * f64::from(weight[i]) + f64::from(bias[i]);
                assert!((f64::from(out[i]) - truth).abs() < 1e-5 * truth.abs().max(1.0));
            }
            Norm::Rms { weight: weight.clone(), epsilon: 1e-3 }.row(&x, &mut out);
            for i in 0..width {
                let truth = wide[i] / (square + 1e-3).sqrt() * f64::from(weight[i]);
                assert!((f64::from(out[i]) - truth).abs() < 1e-5 * truth.abs().max(1.0));
            }
        }
    }
}
