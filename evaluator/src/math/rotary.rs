//! Rotary position embedding: element i of the first half of a head is rotated with element i of the second half.

use super::simd::multiversion;

/// Cosines and sines of the angles of each position.
#[derive(Debug, Clone, Default)]
pub struct Rotary {
    theta: f64,
    positions: usize,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// A table for heads of `head_dim` elements (an even number) and positions from 0.
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f64> =
            (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        let (sin, cos) = angles.map(f64::sin_cos).map(|(s, c)| (s as f32, c as f32)).unzip();
        Self { theta, positions, half, cos, sin }
    }

    /// Recomputes the table, unless it already is for these heads and for at least this many positions.
    pub fn prepare(&mut self, head_dim: usize, theta: f64, positions: usize) {
        if self.half != head_dim / 2 || self.theta != theta || self.positions < positions {
            *self = Self::new(head_dim, theta, positions);
        }
    }

    /// Rotates one head of the token at `position`.
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        let at = position * self.half..(position + 1) * self.half;
        let (first, second) = head.split_at_mut(self.half);
        rotate(first, second, &self.cos[at.clone()], &self.sin[at]);
    }
}

multiversion! {
    /// (a, b) ← (a cos − b sin, b cos + a sin).
    pub fn rotate(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
        for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            (*a, *b) = (*a * *c - *b * *s, *b * *c + *a * *s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_depends_on_distance_only() {
        let table = Rotary::new(8, 10000.0, 64);
        let q: Vec<f32> = (0..8).map(|i| i as f32 - 3.0).collect();
        let k: Vec<f32> = (0..8).map(|i| (i * i) as f32 / 9.0).collect();
        let product = |m: usize, n: usize| {
            let (mut q, mut k) = (q.clone(), k.clone());
            table.rotate(&mut q, m);
            table.rotate(&mut k, n);
            q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((product(5, 2) - product(40, 37)).abs() < 1e-3);
        assert!((product(5, 2) - product(5, 3)).abs() > 1e-2);
        assert_eq!(product(0, 0), q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>());
    }
}
