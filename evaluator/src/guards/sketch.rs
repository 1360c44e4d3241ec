//! A few numbers that stand for many: two arrays of one shape have nearly the correlation of their sketches.
//!
//! Each element is added with a random sign to one of [`LANES`] sums (Charikar, Chen, Farach-Colton 2002, "Finding frequent items in data
//! streams"). The signs follow from the positions of the elements, so they are the same for baseline and subject.

use invarlock_evidence::format::statistics::SKETCH as LANES;

use crate::math::simd::multiversion;

/// The sums of an array.
#[derive(Debug, Clone)]
pub struct Sketch {
    lanes: [f64; LANES],
    squares: f64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { lanes: [0.0; LANES], squares: 0.0 }
    }
}

impl Sketch {
    /// Adds elements of a row. `row` is the number of the row, `first` the number of the first element in it, a multiple of [`LANES`].
    pub fn add(&mut self, row: usize, first: usize, elements: &[f32]) {
        let block = (row as u64) << 32 | (first / LANES) as u64;
        add_signed(&mut self.lanes, block, elements);
    }

    /// Adds the squares of elements, by which the sums are divided in the end.
    pub fn add_squares(&mut self, squares: f64) {
        self.squares += squares;
    }

    /// The sums of the array with the length 1, rounded to four digits; zeros for an array of zeros.
    pub fn finish(&self) -> Vec<f64> {
        let length = self.squares.sqrt();
        let rounded = |sum: &f64| if length > 0.0 { (sum / length * 1e4).round() / 1e4 } else { 0.0 };
        // A negative zero would be written as -0.0.
        self.lanes.iter().map(|sum| rounded(sum) + 0.0).collect()
    }
}

/// Mixes the bits of a number (splitmix64, Steele, Lea, Flood 2014).
#[inline(always)]
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

multiversion! {
    /// Adds each element to the sum of its position, with the sign of that position. `first` is the number of the first block of positions.
    pub fn add_signed(lanes: &mut [f64; LANES], first: u64, elements: &[f32]) {
        for (block, elements) in elements.chunks(LANES).enumerate() {
            let signs = mix(first + block as u64);
            for (lane, (sum, element)) in lanes.iter_mut().zip(elements).enumerate() {
                let sign = ((signs >> lane) as u32 & 1) << 31;
                *sum += f64::from(f32::from_bits(element.to_bits() ^ sign));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(rows: &[Vec<f32>]) -> Vec<f64> {
        let mut sketch = Sketch::default();
        for (row, elements) in rows.iter().enumerate() {
            sketch.add(row, 0, elements);
            sketch.add_squares(elements.iter().map(|v| f64::from(*v).powi(2)).sum());
        }
        sketch.finish()
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        1.0 - a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / 2.0
    }

    /// Rows of numbers that look random.
    fn random(seed: u64) -> Vec<Vec<f32>> {
        let number = |i: u64| (mix(seed << 32 | i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        (0..100).map(|row| (0..200).map(|column| number(row * 200 + column)).collect()).collect()
    }

    #[test]
    fn correlation_is_estimated() {
        let (a, b) = (random(1), random(2));
        let mix = |share: f32| -> Vec<Vec<f32>> {
            let rows = a.iter().zip(&b);
            rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + share * b).collect()).collect()
        };
        let first = sketch(&a);
        assert!(correlation(&first, &sketch(&b)).abs() < 0.5);
        for (share, expected) in [(0.0, 1.0), (0.1, 0.995), (0.5, 0.894), (1.0, 0.707)] {
            let found = correlation(&first, &sketch(&mix(share)));
            assert!((found - expected).abs() < 0.3 * (1.0 - expected) + 1e-3, "{share}: {found}, {expected}");
        }
    }

    #[test]
    fn scale_has_no_effect_and_order_has() {
        let rows = random(3);
        let scaled: Vec<Vec<f32>> = rows.iter().map(|row| row.iter().map(|v| v * 8.0).collect()).collect();
        assert_eq!(sketch(&rows), sketch(&scaled));
        let mut turned = rows.clone();
        turned.reverse();
        assert!(correlation(&sketch(&rows), &sketch(&turned)) < 0.5);
        assert_eq!(sketch(&[vec![0.0; 70]]), [0.0; LANES]);
    }

    #[test]
    fn parts_of_a_row_add_up() {
        let row = &random(4)[0];
        let (mut whole, mut parts) = (Sketch::default(), Sketch::default());
        whole.add(7, 0, row);
        parts.add(7, 0, &row[..128]);
        parts.add(7, 128, &row[128..]);
        assert_eq!(whole.lanes, parts.lanes);
    }
}
