//! The choice of a kernel for matrix products.

use invarlock_error::Result;
use invarlock_evidence::format::compute_dtype::ComputeDtype;

use super::amx::{self, Amx};
use super::gemm::{View, ViewMut, multiply};
use super::simd;

/// The arithmetic of the products of a forward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Products {
    /// Single precision.
    #[default]
    Float32,
    /// Sums of bfloat16 numbers, on the matrix unit of the processor.
    Bf16x3(Amx),
}

impl Products {
    /// The arithmetic for a type of numbers.
    ///
    /// # Errors
    /// This machine lacks the unit that it needs.
    pub fn of(dtype: ComputeDtype) -> Result<Self> {
        Ok(match dtype {
            ComputeDtype::Float32 => Self::Float32,
            ComputeDtype::Bf16x3 => Self::Bf16x3(Amx::enable()?),
        })
    }

    /// The type of numbers.
    pub fn dtype(self) -> ComputeDtype {
        match self {
            Self::Float32 => ComputeDtype::Float32,
            Self::Bf16x3(_) => ComputeDtype::Bf16x3,
        }
    }

    /// The class of the kernel on this processor: two processors of one class give the same bits.
    pub fn kernel(self) -> String {
        match self {
            Self::Float32 => simd::kernel(),
            Self::Bf16x3(_) => amx::KERNEL.to_owned(),
        }
    }

    /// c ← scale · a · b.
    ///
    /// # Panics
    /// When the sizes do not match.
    pub fn multiply(self, c: &mut ViewMut<'_>, a: View<'_>, b: View<'_>, scale: f32) {
        match self {
            Self::Float32 => multiply(c, a, b, scale),
            Self::Bf16x3(unit) => unit.multiply(c, a, b, scale),
        }
    }
}

/// Largest difference between a kernel and a triple loop, on a product that is large enough to use every code path.
pub fn check(products: Products) -> f32 {
    let (m, n, k) = (70usize, 83usize, 129usize);
    let value = |i: usize, salt: usize| ((i * 7919 + salt) % 1009) as f32 / 1009.0 - 0.5;
    let a: Vec<f32> = (0..m * k).map(|i| value(i, 3)).collect();
    let b: Vec<f32> = (0..k * n).map(|i| value(i, 5)).collect();
    let mut c = vec![0f32; m * n];
    let mut worst = 0f32;
    for transposed in [false, true] {
        let b_view = if transposed { View::dense(&b, n, k).transposed() } else { View::dense(&b, k, n) };
        products.multiply(&mut ViewMut::dense(&mut c, m, n), View::dense(&a, m, k), b_view, 1.0);
        for i in 0..m {
            for j in 0..n {
                let at = |l: usize| if transposed { b[j * k + l] } else { b[l * n + j] };
                let truth: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(at(l))).sum();
                let difference = (f64::from(c[i * n + j]) - truth).abs() as f32;
                worst = if difference <= worst { worst } else { difference };
            }
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kernel_matches_triple_loop() {
        assert!(check(Products::Float32) < 1e-5);
    }

    /// Both kernels, as far as this processor has them.
    fn kernels(test: &str) -> Vec<Products> {
        let unit = Products::of(ComputeDtype::Bf16x3).map_err(|error| skip(test, &error)).ok();
        std::iter::once(Products::Float32).chain(unit).collect()
    }

    #[allow(clippy::print_stderr, reason = "skipped tests are visible")]
    fn skip(test: &str, error: &invarlock_error::Error) {
        eprintln!("SKIPPED {test}: {error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn strided_products_match_triple_loop(m in 1usize..40, n in 1usize..70, k in 1usize..50, pad in 0usize..3, turn in 0u8..4) {
            // Products and sums of these numbers are exact, in halves of bfloat16 as well.
            let value = |i: usize| ((i * 31 + 7) % 17) as f32 - 8.0;
            let a: Vec<f32> = (0..m * (k + pad) + k * (m + pad)).map(value).collect();
            let b: Vec<f32> = (0..k * (n + pad) + n * (k + pad)).map(value).collect();
            let av = if turn & 1 == 0 { View::new(&a, m, k, k + pad, 1) } else { View::new(&a, k, m, m + pad, 1).transposed() };
            let bv = if turn & 2 == 0 { View::new(&b, k, n, n + pad, 1) } else { View::new(&b, n, k, k + pad, 1).transposed() };
            for products in kernels("strided_products_match_triple_loop") {
                let mut c = vec![f32::NAN; m * (n + pad)];
                products.multiply(&mut ViewMut::new(&mut c, m, n, n + pad), av, bv, 0.5);
                for i in 0..m {
                    for j in 0..n + pad {
                        let found = c[i * (n + pad) + j];
                        if j >= n {
                            prop_assert!(found.is_nan(), "wrote outside of the view");
                            continue;
                        }
                        let truth: f32 = (0..k).map(|l| av.data[i * av.row + l * av.column] * bv.data[l * bv.row + j * bv.column]).sum();
                        prop_assert_eq!(found, 0.5 * truth, "{:?}", products);
                    }
                }
            }
        }
    }
}
