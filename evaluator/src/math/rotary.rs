//! Rotary position embedding: pairs of elements of a head are rotated by angles that grow with the position.

use std::sync::OnceLock;

use super::simd::multiversion;

/// Which elements of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Element i of the first half and element i of the second half.
    Halves,
    /// Elements 2i and 2i + 1.
    Adjacent,
}

/// Frequencies of the pairs of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Angle of each pair at position 1, in radians.
    pub inverse: Vec<f32>,
    /// Factor of cosines and sines.
    pub factor: f32,
}

/// The rotation of a head. Rotates its first elements, two for each frequency.
#[derive(Debug)]
pub struct Rotary {
    frequencies: Frequencies,
    pairing: Pairing,
    positions: usize,
    /// Computed when the first head is rotated: a check of a checkpoint rotates none.
    angles: OnceLock<Angles>,
}

/// Cosines and sines of the angles of each position.
#[derive(Debug)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// A rotation for positions from 0 to `positions` - 1.
    pub fn new(frequencies: Frequencies, pairing: Pairing, positions: usize) -> Self {
        Self { frequencies, pairing, positions, angles: OnceLock::new() }
    }

    /// Angles are products in single precision, as models were trained with them.
    fn angles(&self) -> &Angles {
        self.angles.get_or_init(|| {
            let Frequencies { inverse, factor } = &self.frequencies;
            let angles =
                (0..self.positions).flat_map(|p| inverse.iter().map(move |f| f64::from(p as f32 * f)));
            let scaled = |v: f64| v as f32 * factor;
            let (sin, cos) = angles.map(f64::sin_cos).map(|(s, c)| (scaled(s), scaled(c))).unzip();
            Angles { cos, sin }
        })
    }

    /// Rotates one head of the token at `position`.
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        let pairs = self.frequencies.inverse.len();
        let at = position * pairs..(position + 1) * pairs;
        let Angles { cos, sin } = self.angles();
        let (cos, sin) = (&cos[at.clone()], &sin[at]);
        let head = &mut head[..2 * pairs];
        match self.pairing {
            Pairing::Halves => {
                let (first, second) = head.split_at_mut(pairs);
                rotate(first, second, cos, sin);
            }
            Pairing::Adjacent => {
                for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s);
                }
            }
        }
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

    fn table(pairing: Pairing) -> Rotary {
        let inverse = (0..4).map(|i| 10_000f32.powf(-(i as f32) / 4.0)).collect();
        Rotary::new(Frequencies { inverse, factor: 1.0 }, pairing, 64)
    }

    #[test]
    fn product_depends_on_distance_only() {
        for pairing in [Pairing::Halves, Pairing::Adjacent] {
            let table = table(pairing);
            // The last two elements are not rotated.
            let q: Vec<f32> = (0..10).map(|i| i as f32 - 3.0).collect();
            let k: Vec<f32> = (0..10).map(|i| (i * i) as f32 / 9.0).collect();
            let product = |m: usize, n: usize| {
                let (mut q, mut k) = (q.clone(), k.clone());
                table.rotate(&mut q, m);
                table.rotate(&mut k, n);
                assert_eq!((&q[8..], &k[8..]), (&[5.0, 6.0][..], &[64.0 / 9.0, 9.0][..]));
                q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>()
            };
            assert!((product(5, 2) - product(40, 37)).abs() < 1e-3);
            assert!((product(5, 2) - product(5, 3)).abs() > 1e-2);
            assert_eq!(product(0, 0), q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>());
        }
    }

    #[test]
    fn pairings_are_permutations_of_each_other() {
        let head: Vec<f32> = (0..8).map(|i| i as f32 * 0.7 - 2.0).collect();
        let mut halves: Vec<f32> =
            head.iter().step_by(2).chain(head.iter().skip(1).step_by(2)).copied().collect();
        let mut adjacent = head;
        table(Pairing::Halves).rotate(&mut halves, 9);
        table(Pairing::Adjacent).rotate(&mut adjacent, 9);
        let (first, second) = halves.split_at(4);
        assert_eq!(first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).collect::<Vec<_>>(), adjacent);
    }
}
