//! Products on the matrix unit, on processors that have it.

use super::{Amx, PRODUCT_ERROR};
use crate::math::gemm::{View, ViewMut};
use proptest::prelude::*;

/// The unit; none where it is missing, which is printed.
#[allow(clippy::print_stderr, reason = "skipped tests are visible")]
fn unit(test: &str) -> Option<Amx> {
    Amx::enable().map_err(|error| eprintln!("SKIPPED {test}: {error}")).ok()
}

/// Numbers of many magnitudes and both signs.
fn numbers(count: usize, salt: u64) -> Vec<f32> {
    let mut state = salt | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count)
        .map(|_| ((next() >> 40) as f32 / 8_388_608.0 - 1.0) * 2f32.powi((next() % 24) as i32 - 12))
        .collect()
}

/// A matrix with its strides.
#[derive(Debug, Clone, Copy)]
struct Layout {
    transposed: bool,
    pad: usize,
    /// Distance of elements that are consecutive otherwise.
    step: usize,
}

impl Layout {
    fn size(self, rows: usize, columns: usize) -> usize {
        let (lines, line) = if self.transposed { (columns, rows) } else { (rows, columns) };
        lines * (line * self.step + self.pad)
    }

    fn view(self, data: &[f32], rows: usize, columns: usize) -> View<'_> {
        let Self { transposed, pad, step } = self;
        match transposed {
            false => View::new(data, rows, columns, columns * step + pad, step),
            true => View::new(data, columns, rows, rows * step + pad, step).transposed(),
        }
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    (any::<bool>(), 0usize..3, 1usize..3).prop_map(|(transposed, pad, step)| Layout { transposed, pad, step })
}

/// Sizes around those of tiles, panels and blocks.
fn size(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..70, 1 => 120usize..140, 1 => 500..most]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// |error| ≤ Σ|a·b| · (the error of a product + that of 3 k additions) + what is below the smallest bfloat16 number.
    #[test]
    fn products_are_within_the_error_bound(
        m in size(530), n in size(530), k in size(2100), a_layout in layout(), b_layout in layout(), pad in 0usize..3, salt in any::<u64>()
    ) {
        let Some(unit) = unit("products_are_within_the_error_bound") else { return Ok(()) };
        let (a, b) = (numbers(a_layout.size(m, k), salt), numbers(b_layout.size(k, n), salt.rotate_left(32)));
        let (av, bv) = (a_layout.view(&a, m, k), b_layout.view(&b, k, n));
        let mut c = vec![f32::NAN; m * (n + pad)];
        unit.multiply(&mut ViewMut::new(&mut c, m, n, n + pad), av, bv, 0.25);
        let bound = PRODUCT_ERROR + (3 * k + 3) as f64 / (1 << 24) as f64;
        // All elements of small products, and some of large ones.
        let stride = (m * n * k / 4_000_000 + 1).next_multiple_of(2) - 1;
        for place in (0..m * n).step_by(stride) {
            let (i, j) = (place / n, place % n);
            let terms = || (0..k).map(|l| 0.25 * f64::from(av.at(i, l)) * f64::from(bv.at(l, j)));
            let (truth, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
            let error = (f64::from(c[i * (n + pad) + j]) - truth).abs();
            prop_assert!(error <= size * bound, "{i}, {j}: {error:e} of {size:e}, {:e}", error / size);
        }
        let outside = (0..m).flat_map(|i| &c[i * (n + pad) + n..(i + 1) * (n + pad)]);
        prop_assert!(outside.copied().all(f32::is_nan), "wrote outside of the view");
    }
}

/// Rows, columns and the common index are packed in blocks. The bits of an element do not depend on what is computed beside it.
#[test]
fn bits_do_not_depend_on_the_sizes_of_a_product() {
    let Some(unit) = unit("bits_do_not_depend_on_the_sizes_of_a_product") else { return };
    let (m, n, k) = (600, 150, 1100);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let (av, bv) = (View::dense(&a, m, k), View::dense(&b, k, n));
    let mut whole = vec![0.0; m * n];
    unit.multiply(&mut ViewMut::dense(&mut whole, m, n), av, bv, 1.0);
    for (rows, columns) in [(1, 1), (33, 150), (600, 17), (513, 129)] {
        let (row, column) = (m - rows, n - columns);
        let mut part = vec![0.0; rows * columns];
        let av = View::dense(&a[row * k..], rows, k);
        let bv = View::new(&b[column..], k, columns, n, 1);
        unit.multiply(&mut ViewMut::dense(&mut part, rows, columns), av, bv, 1.0);
        for (i, found) in part.chunks_exact(columns).enumerate() {
            let expected = &whole[(row + i) * n + column..][..columns];
            assert!(
                found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{rows} x {columns}"
            );
        }
    }
}

#[test]
fn empty_sums_are_zero() {
    let Some(unit) = unit("empty_sums_are_zero") else { return };
    let mut c = [f32::NAN; 6];
    unit.multiply(&mut ViewMut::dense(&mut c, 2, 3), View::dense(&[], 2, 0), View::dense(&[], 0, 3), 1.0);
    assert_eq!(c, [0.0; 6]);
    unit.multiply(
        &mut ViewMut::dense(&mut [], 0, 3),
        View::dense(&[], 0, 5),
        View::dense(&[1.0; 15], 5, 3),
        1.0,
    );
}

/// Infinite numbers and NaNs stay visible: a measurement fails because of them.
#[test]
fn numbers_that_are_not_finite_give_none_that_is() {
    let Some(unit) = unit("numbers_that_are_not_finite_give_none_that_is") else { return };
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7fff_ffff)] {
        for place in [0, 31, 39] {
            let mut a = [1.0; 40];
            a[place] = value;
            let mut c = [0.0; 2];
            unit.multiply(
                &mut ViewMut::dense(&mut c, 1, 2),
                View::dense(&a, 1, 40),
                View::dense(&[0.5; 80], 40, 2),
                1.0,
            );
            assert!(c.iter().all(|number| !number.is_finite()), "{value} {c:?}");
        }
    }
}

#[test]
#[should_panic(expected = "different sizes")]
fn different_sizes_panic() {
    let Some(unit) = unit("different_sizes_panic") else { panic!("different sizes") };
    let (a, mut c) = ([0.0; 6], [0.0; 4]);
    unit.multiply(&mut ViewMut::dense(&mut c, 2, 2), View::dense(&a, 2, 3), View::dense(&a, 2, 3), 1.0);
}
