//! The largest magnitude of activations, which shows whether numbers of a smaller range would overflow.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The largest magnitude that was seen. It looks only after it was told to, because every number is read once more.
#[derive(Debug, Default)]
pub struct Peak {
    watching: AtomicBool,
    /// Bits of the magnitude: those of numbers without a sign are ordered like the numbers.
    bits: AtomicU32,
}

impl Peak {
    /// Starts to look.
    pub fn watch(&self) {
        self.watching.store(true, Ordering::Relaxed);
    }

    /// Takes numbers into account. A NaN is larger than every number.
    pub fn see<'v>(&self, rows: impl Iterator<Item = &'v [f32]>) {
        if self.watching.load(Ordering::Relaxed) {
            let largest = |row: &[f32]| row.iter().map(|value| value.abs().to_bits()).max();
            self.bits.fetch_max(rows.filter_map(largest).max().unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// The largest magnitude; none where it did not look.
    pub fn largest(&self) -> Option<f32> {
        self.watching.load(Ordering::Relaxed).then(|| f32::from_bits(self.bits.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_is_found_where_it_is_looked_for() {
        let peak = Peak::default();
        let see = |values: &[f32]| peak.see([values, &[]].into_iter());
        see(&[9.0]);
        assert_eq!(peak.largest(), None);
        peak.watch();
        assert_eq!(peak.largest(), Some(0.0));
        for (values, largest) in [([1.0, -3.5], 3.5), ([0.5, 3.0], 3.5), ([-1e30, 2.0], 1e30)] {
            see(&values);
            assert_eq!(peak.largest(), Some(largest));
        }
        see(&[f32::NEG_INFINITY]);
        assert_eq!(peak.largest(), Some(f32::INFINITY));
        see(&[f32::NAN]);
        assert!(peak.largest().is_some_and(f32::is_nan));
    }
}
