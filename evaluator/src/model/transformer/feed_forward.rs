//! Feed-forward modules: one for every token, or experts among which a router chooses.

use super::projections;
use crate::math::activation::{add, add_scaled, multiply, scale};
use crate::math::elementary::logistic;
use crate::math::gemm::{View, ViewMut};
use crate::math::softmax::softmax;
use crate::model::loader::Loader;
use crate::model::matrix::Linear;
use crate::model::outputs::Outputs;
use crate::model::scratch::{FeedForwardWork, sized};
use crate::model::spec::{self, ExpertWeights, Gating};
use invarlock_error::Result;

/// A feed-forward module with its weights.
#[derive(Debug)]
pub enum FeedForward<'a> {
    Mlp(Mlp<'a>),
    Experts(Box<Experts<'a>>),
}

/// output · gating(input · x).
#[derive(Debug)]
pub struct Mlp<'a> {
    input: Vec<Linear<'a>>,
    gating: Gating,
    output: Linear<'a>,
}

/// A mixture of experts.
#[derive(Debug)]
pub struct Experts<'a> {
    router: Linear<'a>,
    top_k: usize,
    weights: ExpertWeights,
    experts: Vec<Mlp<'a>>,
    shared: Option<(Mlp<'a>, Linear<'a>)>,
}

impl<'a> FeedForward<'a> {
    /// Takes the tensors of the module.
    pub fn load(spec: &spec::FeedForward, loader: &mut Loader<'a, '_>) -> Result<Self> {
        Ok(match spec {
            spec::FeedForward::Mlp(mlp) => Self::Mlp(Mlp::load(mlp, loader)?),
            spec::FeedForward::Experts(experts) => Self::Experts(Box::new(Experts::load(experts, loader)?)),
        })
    }

    /// The module's output for some rows, and the bias that is still to be added to it.
    pub fn run(
        &self,
        x: View<'_>,
        out: &mut [f32],
        logits: &mut Vec<f32>,
        work: &mut FeedForwardWork,
        panel: &mut Vec<f32>,
        outputs: &mut Outputs,
    ) -> Option<&[f32]> {
        match self {
            Self::Mlp(mlp) => {
                mlp.run(x, out, &mut work.intermediate, panel, outputs);
                mlp.output.bias.as_deref()
            }
            Self::Experts(experts) => {
                experts.run(x, out, logits, work, panel);
                None
            }
        }
    }

    /// Keeps the output of the last projection, to which its bias is still to be added. Experts, whose rows differ, are not kept.
    pub fn keep(&self, rows: &[f32], outputs: &mut Outputs) {
        if let Self::Mlp(mlp) = self {
            projections::keep(std::slice::from_ref(&mlp.output), rows, outputs);
        }
    }
}

impl<'a> Mlp<'a> {
    fn load(spec: &spec::Mlp, loader: &mut Loader<'a, '_>) -> Result<Self> {
        Ok(Self {
            input: spec.input.iter().map(|linear| loader.linear(linear)).collect::<Result<_>>()?,
            gating: spec.gating,
            output: loader.linear(&spec.output)?,
        })
    }

    /// The output without the last bias.
    fn run(
        &self,
        x: View<'_>,
        out: &mut [f32],
        intermediate: &mut Vec<f32>,
        panel: &mut Vec<f32>,
        kept: &mut Outputs,
    ) {
        let rows = x.rows();
        let width = projections::width(&self.input);
        let intermediate = sized(intermediate, rows * width);
        projections::project(&self.input, x, intermediate, panel);
        projections::keep(&self.input, intermediate, kept);
        for row in intermediate.chunks_exact_mut(width) {
            self.gate(row);
        }
        let gated = View::new(intermediate, rows, self.gating.outputs(width), width, 1);
        let outputs = self.output.weight.outputs();
        self.output.weight.apply(gated, &mut ViewMut::dense(out, rows, outputs), panel);
    }

    /// Adds the biases to one row and replaces its first elements by the gated ones.
    fn gate(&self, row: &mut [f32]) {
        projections::add_biases(&self.input, row);
        let width = row.len();
        match self.gating {
            Gating::None(activation) => activation.apply(row, None, width),
            Gating::Halves(activation) => {
                let (gate, up) = row.split_at_mut(width / 2);
                activation.apply(gate, None, width / 2);
                multiply(gate, up);
            }
            Gating::Alternating { alpha, limit } => {
                for i in 0..width / 2 {
                    let (gate, up) = (row[2 * i].min(limit), row[2 * i + 1].clamp(-limit, limit));
                    row[i] = gate * logistic(alpha * gate) * (up + 1.0);
                }
            }
        }
    }
}

impl<'a> Experts<'a> {
    fn load(spec: &spec::Experts, loader: &mut Loader<'a, '_>) -> Result<Self> {
        let router = loader.router(&spec.router)?;
        let experts = spec.experts.iter().map(|mlp| Mlp::load(mlp, loader)).collect::<Result<_>>()?;
        let shared = match &spec.shared {
            Some((mlp, gate)) => Some((Mlp::load(mlp, loader)?, loader.router(gate)?)),
            None => None,
        };
        Ok(Self { router, top_k: spec.top_k, weights: spec.weights, experts, shared })
    }

    /// Each expert runs once, on the rows that chose it. The order of the sums is that of the experts, whatever the rows.
    fn run(
        &self,
        x: View<'_>,
        out: &mut [f32],
        logits: &mut Vec<f32>,
        work: &mut FeedForwardWork,
        panel: &mut Vec<f32>,
    ) {
        let (rows, width) = (x.rows(), out.len() / x.rows().max(1));
        let FeedForwardWork { intermediate, gathered, output, .. } = work;
        let chosen = self.choose(x, logits, panel);
        out.fill(0.0);
        for (index, expert) in self.experts.iter().enumerate() {
            let members: Vec<(usize, f32)> = (0..rows)
                .filter_map(|row| chosen[row].iter().find(|(e, _)| *e == index).map(|(_, w)| (row, *w)))
                .collect();
            if members.is_empty() {
                continue;
            }
            let gathered = sized(gathered, members.len() * width);
            for (target, (row, _)) in gathered.chunks_exact_mut(width).zip(&members) {
                target.copy_from_slice(x.row(*row));
            }
            let output = sized(output, members.len() * width);
            let x = View::dense(gathered, members.len(), width);
            expert.run(x, output, intermediate, panel, &mut Outputs::default());
            for (update, (row, weight)) in output.chunks_exact_mut(width).zip(&members) {
                if let Some(bias) = &expert.output.bias {
                    add(update, bias);
                }
                add_scaled(&mut out[row * width..(row + 1) * width], update, *weight);
            }
        }
        if let Some((mlp, gate)) = &self.shared {
            let output = sized(output, rows * width);
            mlp.run(x, output, intermediate, panel, &mut Outputs::default());
            let weights = sized(logits, rows);
            gate.weight.apply(x, &mut ViewMut::dense(weights, rows, 1), panel);
            let rows = out.chunks_exact_mut(width).zip(output.chunks_exact_mut(width)).zip(weights);
            for ((out, update), weight) in rows {
                scale(update, logistic(*weight));
                add(out, update);
            }
        }
    }

    /// The experts of each row, with their weights.
    fn choose(&self, x: View<'_>, logits: &mut Vec<f32>, panel: &mut Vec<f32>) -> Vec<Vec<(usize, f32)>> {
        let (rows, count) = (x.rows(), self.experts.len());
        let logits = sized(logits, rows * count);
        self.router.weight.apply(x, &mut ViewMut::dense(logits, rows, count), panel);
        let choose = |row: &mut [f32]| {
            if let Some(bias) = &self.router.bias {
                add(row, bias);
            }
            if self.weights != ExpertWeights::SoftmaxOfChosen {
                softmax(row);
            }
            let mut order: Vec<usize> = (0..count).collect();
            // Of equal experts the first one is chosen.
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order.truncate(self.top_k);
            let mut weights: Vec<f32> = order.iter().map(|expert| row[*expert]).collect();
            match self.weights {
                ExpertWeights::Softmax => {}
                ExpertWeights::SoftmaxNormalised => {
                    let total: f32 = weights.iter().sum();
                    weights.iter_mut().for_each(|weight| *weight /= total);
                }
                ExpertWeights::SoftmaxOfChosen => softmax(&mut weights),
            }
            order.into_iter().zip(weights).collect()
        };
        logits.chunks_exact_mut(count).map(choose).collect()
    }
}
