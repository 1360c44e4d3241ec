//! Weight matrices, kept in the form in which they are stored.

use std::ops::Range;
use std::sync::Arc;

use super::scratch::sized;
use crate::math::gemm::{View, ViewMut};
use crate::math::products::Products;
pub use crate::weights::Layout;
use crate::weights::{Floats, Pages, Quantised, Rounding};

/// Elements converted at once. As f32 they fit the second-level cache until they are multiplied.
const PANEL: usize = 1 << 18;

/// A linear layer.
#[derive(Debug)]
pub struct Linear<'a> {
    /// Name of the module in Hugging Face's model.
    pub module: String,
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
    pages: Option<Arc<Pages<'a>>>,
    products: Products,
}

#[derive(Debug, Clone)]
enum Values<'a> {
    Floats(Floats<'a>),
    /// A quantised weight, and how its inputs are quantised.
    Quantised(Arc<dyn Quantised + 'a>, Option<Rounding>),
}

impl<'a> Matrix<'a> {
    /// A matrix of plain numbers, as many as the sizes require.
    pub fn new(floats: Floats<'a>, inputs: usize, outputs: usize, layout: Layout) -> Self {
        Self {
            values: Values::Floats(floats),
            inputs,
            outputs,
            layout,
            pages: None,
            products: Products::default(),
        }
    }

    /// A matrix with another form of storage and these sizes. `rounding` says how its inputs are quantised.
    pub fn quantised(
        matrix: Box<dyn Quantised + 'a>,
        rounding: Option<Rounding>,
        inputs: usize,
        outputs: usize,
    ) -> Self {
        let layout = matrix.layout();
        Self {
            values: Values::Quantised(matrix.into(), rounding),
            inputs,
            outputs,
            layout,
            pages: None,
            products: Products::default(),
        }
    }

    /// The same matrix, as part of a step of the forward pass.
    pub fn in_step(self, pages: &Arc<Pages<'a>>) -> Self {
        Self { pages: Some(Arc::clone(pages)), ..self }
    }

    /// The same matrix with another arithmetic of its products.
    pub fn with_products(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// How its inputs are quantised.
    pub fn rounding(&self) -> Option<Rounding> {
        match &self.values {
            Values::Floats(_) => None,
            Values::Quantised(_, rounding) => *rounding,
        }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The order in which weights are stored.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of one output in single precision.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        self.fill(output..output + 1, &mut out[..self.inputs]);
    }

    /// The weights of some outputs in single precision, in the order of the layout, dense.
    pub fn fill(&self, outputs: Range<usize>, out: &mut [f32]) {
        match (&self.values, self.layout) {
            (Values::Quantised(matrix, _), _) => matrix.fill(outputs, out),
            (Values::Floats(floats), Layout::OutIn) => floats.read(outputs.start * self.inputs, out),
            (Values::Floats(floats), Layout::InOut) => {
                for (input, row) in out.chunks_exact_mut(outputs.len()).enumerate() {
                    floats.read(input * self.outputs + outputs.start, row);
                }
            }
        }
    }

    /// Parts of a range of outputs that are converted at once; their widths are multiples of 64, but for the last.
    pub fn panels(&self, outputs: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = (PANEL / self.inputs).next_multiple_of(64).max(64);
        outputs.clone().step_by(width).map(move |first| first..outputs.end.min(first + width))
    }

    /// Releases the pages of the step that the matrix is part of. The next access reads them again.
    pub fn release(&self) {
        if let Some(pages) = &self.pages {
            pages.release();
        }
    }

    /// out ← x · W, all outputs.
    pub fn apply(&self, x: View<'_>, out: &mut ViewMut<'_>, panel: &mut Vec<f32>) {
        self.apply_to(x, 0..self.outputs, out, panel);
    }

    /// out ← x · W for some of the outputs.
    pub fn apply_to(&self, x: View<'_>, outputs: Range<usize>, out: &mut ViewMut<'_>, panel: &mut Vec<f32>) {
        let elements = self.inputs * outputs.len();
        self.multiply(x, outputs, out, panel);
        if let Some(pages) = &self.pages {
            pages.used(elements * self.element_bytes());
            pages.peak.see((0..x.rows()).flat_map(|row| [x.row(row), out.row(row)]));
        }
    }

    /// Bytes of a stored element; those of quantised weights are estimated.
    fn element_bytes(&self) -> usize {
        match &self.values {
            Values::Floats(floats) => floats.element_bytes(),
            Values::Quantised(..) => 1,
        }
    }

    fn multiply(&self, x: View<'_>, outputs: Range<usize>, out: &mut ViewMut<'_>, panel: &mut Vec<f32>) {
        let (inputs, count) = (self.inputs, outputs.len());
        if let Values::Floats(Floats::F32(values)) = &self.values {
            let weights = match self.layout {
                Layout::InOut => View::new(&values[outputs.start..], inputs, count, self.outputs, 1),
                Layout::OutIn => View::dense(&values[outputs.start * inputs..], count, inputs).transposed(),
            };
            return self.products.multiply(out, x, weights, 1.0);
        }
        // The rounded inputs are in front of the weights.
        let rounding = self.rounding();
        let rounded = rounding.map_or(0, |_| x.rows() * inputs);
        if let Some(rounding) = rounding {
            rounding.round(x, sized(panel, rounded));
        }
        for part in self.panels(outputs.clone()) {
            let n = part.len();
            let (rounded, panel) = sized(panel, rounded + inputs * n).split_at_mut(rounded);
            self.fill(part.clone(), panel);
            let weights = match self.layout {
                Layout::InOut => View::dense(panel, inputs, n),
                Layout::OutIn => View::dense(panel, n, inputs).transposed(),
            };
            let x = if rounding.is_some() { View::dense(rounded, x.rows(), inputs) } else { x };
            let mut out = out.columns(part.start - outputs.start..part.end - outputs.start);
            self.products.multiply(&mut out, x, weights, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Dtype, Tensor};

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
                let floats =
                    Floats::new(Tensor { dtype, shape: &shape, bytes }).expect("floating-point numbers");
                let m = Matrix::new(floats, inputs, outputs, layout);
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
