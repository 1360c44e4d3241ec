//! Statistics of one weight matrix, in the order in which it is stored: rows and columns are those of the tensor.

use crate::guards::power::{add_scaled, add_squares, dot, normalise, sum_of_squares};
use crate::guards::sketch::Sketch;
use crate::model::{Elements, Panel};

/// Statistics of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixStatistics {
    /// Estimate of the largest singular value.
    pub spectral_norm: f64,
    /// Square root of the sum of squares.
    pub frobenius_norm: f64,
    /// The shortest row against the median of rows, or the shortest column against the median of columns: the smaller one. 0 to 1.
    pub weakest: f64,
    /// A sketch of the elements.
    pub sketch: Vec<f64>,
}

/// Reads the matrix once for the norms, and twice for each further one of the `iterations` for the singular value: at least one.
pub fn statistics(matrix: &Elements<'_>, iterations: usize) -> MatrixStatistics {
    let [rows, columns] = matrix.shape();
    let (mut row_squares, mut column_squares) = (vec![0.0; rows], vec![0.0; columns]);
    let mut sketch = Sketch::default();
    let mut left = vec![0.0; rows];
    let ones = vec![1.0; columns];
    matrix.panels(|panel| {
        for (row, elements) in panel.rows() {
            row_squares[row] += sum_of_squares(elements);
            add_squares(&mut column_squares[panel.columns.clone()], elements);
            sketch.add(row, panel.columns.start, elements);
            left[row] += dot(elements, &ones);
        }
    });
    let squares: f64 = row_squares.iter().sum();
    sketch.add_squares(squares);
    MatrixStatistics {
        spectral_norm: spectral_norm(matrix, left, iterations),
        frobenius_norm: squares.sqrt(),
        weakest: weakest(row_squares).min(weakest(column_squares)),
        sketch: sketch.finish(),
    }
}

/// The length of W · v in the last of the iterations v ← Wᵀ · W · v, which starts with ones; `left` is W · ones. As in the Python package, it
/// need not have converged.
fn spectral_norm(matrix: &Elements<'_>, mut left: Vec<f64>, iterations: usize) -> f64 {
    let mut right = vec![0.0; matrix.shape()[1]];
    let mut length = normalise(&mut left);
    for _ in 1..iterations {
        right.fill(0.0);
        matrix.panels(|panel: &Panel<'_>| {
            for (row, elements) in panel.rows() {
                add_scaled(&mut right[panel.columns.clone()], left[row], elements);
            }
        });
        normalise(&mut right);
        left.fill(0.0);
        matrix.panels(|panel: &Panel<'_>| {
            for (row, elements) in panel.rows() {
                left[row] += dot(elements, &right[panel.columns.clone()]);
            }
        });
        length = normalise(&mut left);
    }
    length
}

/// The smallest length against the (lower) median; 1 where all are zero.
fn weakest(mut squares: Vec<f64>) -> f64 {
    squares.sort_unstable_by(f64::total_cmp);
    let median = squares[(squares.len() - 1) / 2];
    if median > 0.0 { (squares[0] / median).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_evidence::format::statistics::WEIGHT_ITERATIONS;

    fn vector(values: &[f32]) -> MatrixStatistics {
        statistics(&Elements::row(values.to_vec()), WEIGHT_ITERATIONS)
    }

    #[test]
    fn norms_of_a_vector_are_its_length() {
        let found = vector(&[3.0, 0.0, 4.0]);
        assert!((found.spectral_norm - 5.0).abs() < 1e-12, "{found:?}");
        assert!((found.frobenius_norm - 5.0).abs() < 1e-12);
        assert_eq!(found.weakest, 0.0);
    }

    #[test]
    fn zeros_have_no_norm() {
        let found = vector(&[0.0; 5]);
        assert_eq!((found.spectral_norm, found.frobenius_norm, found.weakest), (0.0, 0.0, 1.0));
    }
}
