//! The weights of a model by the names of their modules, for the guards.

use std::ops::Range;

use super::matrix::Matrix;
use crate::weights::Layout;

/// A module with weights.
#[derive(Debug)]
pub struct Module<'a> {
    /// Its name in Hugging Face's model. An expert whose weights are a slice of a tensor has its number behind it, in brackets.
    pub name: String,
    /// Its weights, without biases. Those of a normalisation have one row.
    pub weights: Elements<'a>,
}

/// The elements of a matrix.
#[derive(Debug)]
pub enum Elements<'a> {
    /// A linear layer or an embedding, as it is stored.
    Stored(Matrix<'a>),
    /// Numbers in memory, row by row.
    Dense {
        /// The numbers.
        values: Vec<f32>,
        /// Elements of a row.
        columns: usize,
    },
}

/// Some rows, or some columns, of a stored matrix in single precision.
#[derive(Debug)]
pub struct Panel<'p> {
    first_row: usize,
    /// The columns.
    pub columns: Range<usize>,
    values: &'p [f32],
}

impl<'p> Panel<'p> {
    /// The rows: the number of each and its elements in these columns.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &'p [f32])> + use<'p> {
        (self.first_row..).zip(self.values.chunks_exact(self.columns.len()))
    }
}

impl Module<'_> {
    /// Releases the pages of the weights. The next access reads them again.
    pub fn release(&self) {
        if let Elements::Stored(matrix) = &self.weights {
            matrix.release();
        }
    }
}

impl Elements<'_> {
    /// One row.
    pub fn row(values: Vec<f32>) -> Self {
        Self::Dense { columns: values.len(), values }
    }

    /// Rows and columns as they are stored.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Stored(matrix) => matrix.layout().shape(matrix.inputs(), matrix.outputs()),
            Self::Dense { values, columns } => [values.len() / columns, *columns],
        }
    }

    /// Calls `use_panel` for one panel after the other, until each element was in one. Columns of a panel start at a multiple of 64.
    pub fn panels(&self, mut use_panel: impl FnMut(&Panel<'_>)) {
        let matrix = match self {
            Self::Dense { values, columns } => {
                return use_panel(&Panel { first_row: 0, columns: 0..*columns, values });
            }
            Self::Stored(matrix) => matrix,
        };
        let mut buffer = Vec::new();
        for outputs in matrix.panels(0..matrix.outputs()) {
            buffer.resize(matrix.inputs() * outputs.len(), 0.0);
            matrix.fill(outputs.clone(), &mut buffer);
            let (first_row, columns) = match matrix.layout() {
                Layout::OutIn => (outputs.start, 0..matrix.inputs()),
                Layout::InOut => (0, outputs),
            };
            use_panel(&Panel { first_row, columns, values: &buffer });
        }
    }
}
