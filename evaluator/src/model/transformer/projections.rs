//! Several projections of the same rows, whose outputs lie side by side.

use crate::math::activation::add;
use crate::math::gemm::{View, ViewMut};
use crate::model::matrix::Linear;
use crate::model::outputs::Outputs;

/// Elements of a row of outputs.
pub fn width(projections: &[Linear<'_>]) -> usize {
    projections.iter().map(|projection| projection.weight.outputs()).sum()
}

/// The outputs without biases.
pub fn project(projections: &[Linear<'_>], x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>) {
    let mut view = ViewMut::dense(out, x.rows(), width(projections));
    let mut first = 0;
    for projection in projections {
        let last = first + projection.weight.outputs();
        projection.weight.apply(x, &mut view.columns(first..last), panel);
        first = last;
    }
}

/// Keeps the outputs of projections, to which biases are still to be added.
pub fn keep(projections: &[Linear<'_>], rows: &[f32], outputs: &mut Outputs) {
    let width = width(projections);
    let mut first = 0;
    for projection in projections {
        let last = first + projection.weight.outputs();
        outputs.linear(&projection.module, projection.bias.as_deref(), rows, width, first..last);
        first = last;
    }
}

/// Adds the biases of projections to a row of their outputs.
pub fn add_biases(projections: &[Linear<'_>], row: &mut [f32]) {
    let mut first = 0;
    for projection in projections {
        let last = first + projection.weight.outputs();
        if let Some(bias) = &projection.bias {
            add(&mut row[first..last], bias);
        }
        first = last;
    }
}
