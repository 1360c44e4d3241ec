//! Matrix products of strided views in single precision: a safe wrapper of `gemm-f32`.
#![allow(unsafe_code, reason = "calls the matrix kernels of gemm")]

/// Panic message for a view that exceeds its data, which only a programming error creates.
const OUT_OF_BOUNDS: &str = "a matrix view reaches beyond its data";

/// A matrix whose element (i, j) is `data[i * row + j * column]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row: usize,
    pub(super) column: usize,
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

    /// An element.
    ///
    /// # Panics
    /// When there is no such element.
    pub fn at(&self, row: usize, column: usize) -> f32 {
        assert!(row < self.rows && column < self.columns, "{OUT_OF_BOUNDS}");
        self.data[row * self.row + column * self.column]
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

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        assert!(row < self.rows, "{OUT_OF_BOUNDS}");
        &self.data[row * self.row..][..self.columns]
    }

    /// One row, writable.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "{OUT_OF_BOUNDS}");
        &mut self.data[row * self.row..][..self.columns]
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

#[cfg(test)]
mod tests {
    use super::*;

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
