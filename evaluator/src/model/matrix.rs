//! Weight matrices, kept in the types in which they are stored.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};

use crate::checkpoint::{Dtype, Tensor};
use crate::math::gemm::{View, ViewMut, multiply};
use crate::math::simd::multiversion;

/// Elements converted at once. As f32 they fit the second-level cache until they are multiplied.
const PANEL: usize = 1 << 18;

/// The order in which a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A row for each input (GPT-2's `Conv1D`).
    InOut,
    /// A row for each output (`Linear`, and embeddings used as a projection).
    OutIn,
}

impl Layout {
    /// The shape of a tensor in this layout.
    pub fn shape(self, inputs: usize, outputs: usize) -> [usize; 2] {
        match self {
            Self::InOut => [inputs, outputs],
            Self::OutIn => [outputs, inputs],
        }
    }
}

/// A linear layer.
#[derive(Debug)]
pub struct Linear<'a> {
    pub weight: Matrix<'a>,
    pub bias: Option<Vec<f32>>,
}

/// A weight matrix.
#[derive(Debug, Clone)]
pub struct Matrix<'a> {
    values: Values<'a>,
    inputs: usize,
    outputs: usize,
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Values<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [u16]>),
    Bf16(Cow<'a, [u16]>),
}

impl<'a> Matrix<'a> {
    /// A matrix of a tensor. The caller has checked that its shape is that of `layout`.
    pub fn new(tensor: Tensor<'a>, inputs: usize, outputs: usize, layout: Layout) -> Self {
        let values = match tensor.dtype {
            Dtype::F32 => Values::F32(tensor.singles()),
            Dtype::F16 => Values::F16(tensor.halves()),
            Dtype::Bf16 => Values::Bf16(tensor.halves()),
        };
        Self { values, inputs, outputs, layout }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// One stored row, converted to single precision.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let width = match self.layout {
            Layout::InOut => self.outputs,
            Layout::OutIn => self.inputs,
        };
        self.convert(row * width, &mut out[..width]);
    }

    fn convert(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match &self.values {
            Values::F32(v) => out.copy_from_slice(&v[range]),
            Values::F16(v) => {
                let halves: &[half::f16] = v[range].reinterpret_cast();
                halves.convert_to_f32_slice(out);
            }
            Values::Bf16(v) => widen(&v[range], out),
        }
    }

    /// out ← x · W, all outputs.
    pub fn apply(&self, x: View<'_>, out: &mut ViewMut<'_>, panel: &mut Vec<f32>) {
        self.apply_to(x, 0..self.outputs, out, panel);
    }

    /// out ← x · W for some of the outputs.
    pub fn apply_to(&self, x: View<'_>, outputs: Range<usize>, out: &mut ViewMut<'_>, panel: &mut Vec<f32>) {
        let (inputs, count) = (self.inputs, outputs.len());
        if let Values::F32(values) = &self.values {
            let weights = match self.layout {
                Layout::InOut => View::new(&values[outputs.start..], inputs, count, self.outputs, 1),
                Layout::OutIn => View::dense(&values[outputs.start * inputs..], count, inputs).transposed(),
            };
            return multiply(out, x, weights, 1.0);
        }
        let width = (PANEL / inputs).next_multiple_of(64).clamp(64, count.max(64));
        panel.resize(panel.len().max(inputs * width.min(count)), 0.0);
        for first in (0..count).step_by(width) {
            let last = count.min(first + width);
            let n = last - first;
            let from = outputs.start + first;
            let panel = &mut panel[..inputs * n];
            let weights = match self.layout {
                Layout::InOut => {
                    for (i, row) in panel.chunks_exact_mut(n).enumerate() {
                        self.convert(i * self.outputs + from, row);
                    }
                    View::dense(panel, inputs, n)
                }
                Layout::OutIn => {
                    self.convert(from * inputs, panel);
                    View::dense(panel, n, inputs).transposed()
                }
            };
            multiply(&mut out.columns(first..last), x, weights, 1.0);
        }
    }
}

multiversion! {
    /// bf16 to f32.
    pub fn widen(halves: &[u16], out: &mut [f32]) {
        for (out, half) in out.iter_mut().zip(halves) {
            *out = f32::from_bits(u32::from(*half) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_and_layout_gives_the_same_product() {
        let (rows, inputs, outputs) = (5usize, 24usize, 700usize);
        let weight = |i: usize, o: usize| ((i * 13 + o * 7) % 31) as f32 / 4.0 - 3.5;
        let x: Vec<f32> = (0..rows * inputs).map(|i| (i % 11) as f32 - 5.0).collect();
        let mut truth = vec![0.0; rows * outputs];
        for r in 0..rows {
            for o in 0..outputs {
                truth[r * outputs + o] = (0..inputs).map(|i| x[r * inputs + i] * weight(i, o)).sum();
            }
        }
        for layout in [Layout::InOut, Layout::OutIn] {
            let values: Vec<f32> = match layout {
                Layout::InOut => (0..inputs * outputs).map(|k| weight(k / outputs, k % outputs)).collect(),
                Layout::OutIn => (0..inputs * outputs).map(|k| weight(k % inputs, k / inputs)).collect(),
            };
            let single: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let half: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
            let brain: Vec<u8> = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
            for (dtype, bytes) in [(Dtype::F32, &single), (Dtype::F16, &half), (Dtype::Bf16, &brain)] {
                let shape = [values.len()];
                let m = Matrix::new(Tensor { dtype, shape: &shape, bytes }, inputs, outputs, layout);
                let (mut out, mut panel) = (vec![0.0; rows * outputs], Vec::new());
                m.apply(
                    View::dense(&x, rows, inputs),
                    &mut ViewMut::dense(&mut out, rows, outputs),
                    &mut panel,
                );
                assert_eq!(out, truth, "{dtype:?} {layout:?}");
                let range = 130..331;
                let mut part = vec![0.0; rows * range.len()];
                let mut view = ViewMut::dense(&mut part, rows, range.len());
                m.apply_to(View::dense(&x, rows, inputs), range.clone(), &mut view, &mut panel);
                for r in 0..rows {
                    assert_eq!(part[r * range.len()..][..range.len()], truth[r * outputs..][range.clone()]);
                }
            }
        }
    }
}
