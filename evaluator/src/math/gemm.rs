//! Matrix products of strided views: a safe wrapper of `gemm-f32`.
#![allow(unsafe_code, reason = "calls the matrix kernels of gemm")]

/// Panic message for a view that exceeds its data, which only a programming error creates.
const OUT_OF_BOUNDS: &str = "a matrix view reaches beyond its data";

/// A matrix whose element (i, j) is `data[i * row + j * column]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

/// A writable matrix. The elements of a row are consecutive.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row: usize,
}

/// Whether every element of a strided matrix lies within `len` elements and every stride is a valid offset.
fn fits(len: usize, rows: usize, columns: usize, row: usize, column: usize) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let last = (rows - 1).checked_mul(row).zip((columns - 1).checked_mul(column));
    let last = last.and_then(|(a, b)| a.checked_add(b));
    last.is_some_and(|last| last < len) && row <= isize::MAX as usize && column <= isize::MAX as usize
}

impl<'a> View<'a> {
    /// A view with these strides.
    ///
    /// # Panics
    /// When an element would lie outside of `data`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, row: usize, column: usize) -> Self {
        assert!(fits(data.len(), rows, columns, row, column), "{OUT_OF_BOUNDS}");
        Self { data, rows, columns, row, column }
    }

    /// A view of consecutive rows.
    pub fn dense(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::new(data, rows, columns, columns, 1)
    }

    /// The matrix with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One row, whose elements must be consecutive.
    ///
    /// # Panics
    /// When they are not, or there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        assert!(self.column == 1 && row < self.rows, "{OUT_OF_BOUNDS}");
        &self.data[row * self.row..][..self.columns]
    }
}

impl<'a> ViewMut<'a> {
    /// A view with rows `row` elements apart.
    ///
    /// # Panics
    /// When an element would lie outside of `data`, or two elements would overlap.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, row: usize) -> Self {
        assert!(fits(data.len(), rows, columns, row, 1), "{OUT_OF_BOUNDS}");
        assert!(rows <= 1 || row >= columns, "rows of a matrix overlap");
        Self { data, rows, columns, row }
    }

    /// A view of consecutive rows.
    pub fn dense(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::new(data, rows, columns, columns)
    }

    /// Some of the columns.
    pub fn columns(&mut self, range: std::ops::Range<usize>) -> ViewMut<'_> {
        assert!(range.start <= range.end && range.end <= self.columns, "{OUT_OF_BOUNDS}");
        let data = if self.rows == 0 { &mut [][..] } else { &mut self.data[range.start..] };
        ViewMut::new(data, self.rows, range.len(), self.row)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        assert!(row < self.rows, "{OUT_OF_BOUNDS}");
        &self.data[row * self.row..][..self.columns]
    }
}

/// c ← scale · a · b.
///
/// # Panics
/// When the sizes do not match.
pub fn multiply(c: &mut ViewMut<'_>, a: View<'_>, b: View<'_>, scale: f32) {
    assert!(a.columns == b.rows && c.rows == a.rows && c.columns == b.columns, "matrices of different sizes");
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    let (target, lhs, rhs) = (c.data.as_mut_ptr(), b.data.as_ptr(), a.data.as_ptr());
    // SAFETY: the kernels require a column-major target, so this computes cᵀ ← scale · bᵀ · aᵀ: m is the columns of c,
    // n its rows, k the common size. Pointers are to the first elements of live slices, `c` is borrowed exclusively
    // and does not overlap `a` or `b`; the constructors checked that index (rows-1, columns-1) lies in the slice for
    // these strides and that strides fit `isize`; `read_dst` is false, so `c` is only written.
    unsafe {
        gemm(
            c.columns,
            c.rows,
            a.columns,
            target,
            c.row as isize,
            1,
            false,
            lhs,
            b.row as isize,
            b.column as isize,
            rhs,
            a.row as isize,
            a.column as isize,
            0.0,
            scale,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}

/// Largest difference between the kernel and a triple loop, on a product that is large enough to use every code path.
pub fn check() -> f32 {
    let (m, n, k) = (70usize, 83usize, 129usize);
    let value = |i: usize, salt: usize| ((i * 7919 + salt) % 1009) as f32 / 1009.0 - 0.5;
    let a: Vec<f32> = (0..m * k).map(|i| value(i, 3)).collect();
    let b: Vec<f32> = (0..k * n).map(|i| value(i, 5)).collect();
    let mut c = vec![0f32; m * n];
    let mut worst = 0f32;
    for transposed in [false, true] {
        let b_view = if transposed { View::dense(&b, n, k).transposed() } else { View::dense(&b, k, n) };
        multiply(&mut ViewMut::dense(&mut c, m, n), View::dense(&a, m, k), b_view, 1.0);
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
        assert!(check() < 1e-5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn strided_products_match_triple_loop(m in 1usize..40, n in 1usize..70, k in 1usize..50, pad in 0usize..3, turn in 0u8..4) {
            let value = |i: usize| ((i * 31 + 7) % 17) as f32 - 8.0;
            let a: Vec<f32> = (0..m * (k + pad) + k * (m + pad)).map(value).collect();
            let b: Vec<f32> = (0..k * (n + pad) + n * (k + pad)).map(value).collect();
            let av = if turn & 1 == 0 { View::new(&a, m, k, k + pad, 1) } else { View::new(&a, k, m, m + pad, 1).transposed() };
            let bv = if turn & 2 == 0 { View::new(&b, k, n, n + pad, 1) } else { View::new(&b, n, k, k + pad, 1).transposed() };
            let mut c = vec![f32::NAN; m * (n + pad)];
            multiply(&mut ViewMut::new(&mut c, m, n, n + pad), av, bv, 0.5);
            for i in 0..m {
                for j in 0..n + pad {
                    let found = c[i * (n + pad) + j];
                    if j >= n {
                        prop_assert!(found.is_nan(), "wrote outside of the view");
                        continue;
                    }
                    let truth: f32 = (0..k).map(|l| av.data[i * av.row + l * av.column] * bv.data[l * bv.row + j * bv.column]).sum();
                    prop_assert_eq!(found, 0.5 * truth);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond its data")]
    fn view_beyond_its_data_panics() {
        let _ = View::new(&[0.0; 11], 3, 4, 4, 1);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_rows_panic() {
        let _ = ViewMut::new(&mut [0.0; 12], 3, 4, 3);
    }

    #[test]
    #[should_panic(expected = "beyond its data")]
    fn overflowing_size_panics() {
        let _ = View::new(&[0.0; 4], usize::MAX, 2, usize::MAX, 1);
    }

    #[test]
    #[should_panic(expected = "different sizes")]
    fn different_sizes_panic() {
        let (a, mut c) = ([0.0; 6], [0.0; 4]);
        multiply(&mut ViewMut::dense(&mut c, 2, 2), View::dense(&a, 2, 3), View::dense(&a, 2, 3), 1.0);
    }
}
