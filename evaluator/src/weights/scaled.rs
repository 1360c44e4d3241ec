//! Matrices of small numbers with scales: (value - zero point) · scale, where a scale belongs to a block of rows and columns.

use std::ops::Range;

use super::sparse::Sparse;
use super::{Floats, Layout, Quantised};
use crate::math::simd::multiversion;

/// Stored values, [outputs, inputs].
#[derive(Debug)]
pub enum Codes<'a> {
    /// Signed bytes.
    I8(&'a [u8]),
    Float(Floats<'a>),
    Sparse(Sparse<'a>),
}

/// How many rows and columns share a scale; scales are stored [row blocks, column blocks].
#[derive(Debug)]
pub struct Scales<'a> {
    pub values: Floats<'a>,
    /// Signed bytes, one for each scale.
    pub zeros: Option<&'a [u8]>,
    pub block: [usize; 2],
    /// The scale index of each column, in place of blocks of columns.
    pub index: Option<Vec<u32>>,
    /// Scales are divided by it.
    pub divisor: f32,
}

impl<'a> Scales<'a> {
    /// Scales for blocks of rows and columns, without zero points.
    pub fn new(values: Floats<'a>, block: [usize; 2]) -> Self {
        Self { values, zeros: None, block, index: None, divisor: 1.0 }
    }
}

/// A matrix [outputs, inputs].
#[derive(Debug)]
pub struct Scaled<'a> {
    pub codes: Codes<'a>,
    pub scales: Option<Scales<'a>>,
    pub inputs: usize,
}

impl Quantised for Scaled<'_> {
    fn layout(&self) -> Layout {
        Layout::OutIn
    }

    fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        let mut work = Vec::new();
        for (output, row) in outputs.zip(out.chunks_exact_mut(self.inputs)) {
            match &self.codes {
                Codes::I8(codes) => signed(&codes[output * self.inputs..], row),
                Codes::Float(floats) => floats.read(output * self.inputs, row),
                Codes::Sparse(sparse) => sparse.row(output, row),
            }
            if let Some(scales) = &self.scales {
                scales.apply(output, row, &mut work);
            }
        }
    }
}

impl Scales<'_> {
    /// `work` is working memory for the scales of a row.
    fn apply(&self, output: usize, row: &mut [f32], work: &mut Vec<f32>) {
        let columns = row.len().div_ceil(self.block[1]);
        let first = output / self.block[0] * columns;
        work.resize(columns, 0.0);
        self.values.read(first, work);
        for scale in work.iter_mut() {
            *scale /= self.divisor;
        }
        let zero = |column: usize| self.zeros.map_or(0.0, |zeros| f32::from(zeros[first + column] as i8));
        match &self.index {
            Some(index) => {
                for (value, group) in row.iter_mut().zip(index) {
                    let group = *group as usize;
                    *value = (*value - zero(group)) * work[group];
                }
            }
            None => {
                for (column, values) in row.chunks_mut(self.block[1]).enumerate() {
                    shift_and_scale(values, zero(column), work[column]);
                }
            }
        }
    }
}

multiversion! {
    /// Signed bytes to f32.
    pub fn signed(codes: &[u8], out: &mut [f32]) {
        for (out, code) in out.iter_mut().zip(codes) {
            *out = f32::from(*code as i8);
        }
    }

    /// (value - zero) · scale.
    pub fn shift_and_scale(values: &mut [f32], zero: f32, scale: f32) {
        for value in values {
            *value = (*value - zero) * scale;
        }
    }
}
