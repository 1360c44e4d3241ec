//! Sums in double precision, in an order that depends on neither threads nor vector width, for power iterations.

use crate::math::simd::multiversion;

/// Lanes of a sum.
const LANES: usize = 8;

multiversion! {
    /// Σ xᵢ · yᵢ.
    pub fn dot(x: &[f32], y: &[f64]) -> f64 {
        let mut lanes = [0f64; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        let (factors, last) = y[..x.len()].as_chunks::<LANES>();
        for (x, y) in whole.iter().zip(factors) {
            for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += f64::from(*x) * y;
            }
        }
        for ((lane, x), y) in lanes.iter_mut().zip(rest).zip(last) {
            *lane += f64::from(*x) * y;
        }
        lanes.iter().sum()
    }

    /// y ← y + factor · x.
    pub fn add_scaled(y: &mut [f64], factor: f64, x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += f64::from(*x) * factor;
        }
    }

    /// Adds the squares of x to y.
    pub fn add_squares(y: &mut [f64], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += f64::from(*x) * f64::from(*x);
        }
    }

    /// Σ x².
    pub fn sum_of_squares(x: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        for chunk in x.chunks(LANES) {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        lanes.iter().sum()
    }
}

/// Smallest length by which a vector is divided, as in the Python package.
const SMALLEST: f64 = 1e-12;

/// Divides a vector by its length, which is returned.
pub fn normalise(vector: &mut [f64]) -> f64 {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
    let divisor = length.max(SMALLEST);
    vector.iter_mut().for_each(|v| *v /= divisor);
    length
}
