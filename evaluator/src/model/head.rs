//! The last step: hidden states to losses. Logits are computed a block of the vocabulary at a time.

use std::ops::Range;

use super::example::Prediction;
use super::matrix::{Linear, Matrix};
use super::norm::Norm;
use super::outputs::Outputs;
use super::scratch::{ROWS, Work, sized};
use crate::math::activation::{Activation, add, scale, softcap};
use crate::math::gemm::{View, ViewMut};
use crate::math::softmax::LogSumExp;

/// Vocabulary entries handled at once.
const BLOCK: usize = 2048;

/// The steps from the last hidden states to logits.
#[derive(Debug)]
pub struct Head<'m, 'a> {
    /// Normalisation of the hidden state.
    pub norm: Option<&'m Norm>,
    /// Hidden state to the inputs of `lm_head`.
    pub transform: Option<&'m Transform<'a>>,
    /// State to logits.
    pub lm_head: &'m Matrix<'a>,
    /// Bias of `lm_head`.
    pub bias: Option<&'m [f32]>,
    /// Factor of the logits.
    pub scale: f32,
    /// Logits become limit · tanh(logit / limit).
    pub softcap: Option<f32>,
    /// Elements of a hidden state.
    pub hidden_size: usize,
}

/// A projection and, where a model has them, an activation function and a normalisation.
#[derive(Debug)]
pub struct Transform<'a> {
    pub dense: Linear<'a>,
    pub activation: Option<Activation>,
    pub norm: Option<Norm>,
}

impl Transform<'_> {
    fn keep(&self, rows: &[f32], outputs: &mut Outputs) {
        if let Some(norm) = &self.norm {
            norm.keep(rows, outputs);
        }
    }

    fn run(&self, x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>, row: &mut Vec<f32>) {
        let width = self.dense.weight.outputs();
        self.dense.weight.apply(x, &mut ViewMut::dense(out, x.rows(), width), panel);
        if let Some(bias) = &self.dense.bias {
            out.chunks_exact_mut(width).for_each(|row| add(row, bias));
        }
        if let Some(activation) = self.activation {
            activation.apply(out, None, width);
        }
        if let Some(norm) = &self.norm {
            norm.replace(out, width, row);
        }
    }
}

impl Head<'_, '_> {
    /// Keeps the outputs of the normalisations of some hidden states.
    pub fn keep(&self, hidden: &[f32], work: &mut Work) {
        let Work { normed, update, panel, row, outputs, .. } = work;
        for hidden in hidden.chunks(ROWS * self.hidden_size) {
            let states = sized(normed, hidden.len());
            states.copy_from_slice(hidden);
            if let Some(norm) = self.norm {
                norm.replace(states, self.hidden_size, row);
                norm.keep(states, outputs);
            }
            let Some(transform) = self.transform else { continue };
            let rows = states.len() / self.hidden_size;
            let width = transform.dense.weight.outputs();
            let transformed = sized(update, rows * width);
            transform.run(View::dense(states, rows, self.hidden_size), transformed, panel, row);
            transform.keep(transformed, outputs);
        }
    }

    /// Mean cross-entropy of the predictions of each example, whose hidden states are the rows of a span.
    pub fn losses(
        &self,
        predictions: &[Vec<Prediction>],
        spans: &[Range<usize>],
        hidden: &[f32],
        work: &mut Work,
    ) -> Vec<f64> {
        let Work { normed, update, scores, panel, row, .. } = work;
        let targets: Vec<usize> = predictions.iter().flatten().map(|prediction| prediction.target).collect();
        let states = sized(normed, targets.len() * self.hidden_size);
        let predicting = predictions
            .iter()
            .zip(spans)
            .flat_map(|(of_example, span)| of_example.iter().map(|p| span.start + p.position));
        for (row, state) in predicting.zip(states.chunks_exact_mut(self.hidden_size)) {
            let hidden = &hidden[row * self.hidden_size..][..self.hidden_size];
            match self.norm {
                Some(norm) => norm.row(hidden, state),
                None => state.copy_from_slice(hidden),
            }
        }

        let losses: Vec<f64> = targets
            .chunks(ROWS)
            .zip(states.chunks(ROWS * self.hidden_size))
            .flat_map(|(targets, states)| {
                let rows = targets.len();
                let states = View::dense(states, rows, self.hidden_size);
                let Some(transform) = self.transform else {
                    return self.token_losses(targets, states, scores, panel);
                };
                let width = transform.dense.weight.outputs();
                let transformed = sized(update, rows * width);
                transform.run(states, transformed, panel, row);
                self.token_losses(targets, View::dense(transformed, rows, width), scores, panel)
            })
            .collect();
        let mut rest = losses.as_slice();
        let mut mean = |predictions: &Vec<Prediction>| {
            let (own, others) = rest.split_at(predictions.len());
            rest = others;
            own.iter().sum::<f64>() / own.len() as f64
        };
        predictions.iter().map(&mut mean).collect()
    }

    /// -log p of each target.
    fn token_losses(
        &self,
        targets: &[usize],
        states: View<'_>,
        logits: &mut Vec<f32>,
        panel: &mut Vec<f32>,
    ) -> Vec<f64> {
        let (rows, vocab) = (targets.len(), self.lm_head.outputs());
        let mut normalisers = vec![LogSumExp::default(); rows];
        let mut target_logits = vec![0.0f64; rows];
        for first in (0..vocab).step_by(BLOCK) {
            let block = first..vocab.min(first + BLOCK);
            let width = block.len();
            let logits = sized(logits, rows * width);
            self.lm_head.apply_to(states, block.clone(), &mut ViewMut::dense(logits, rows, width), panel);
            for (row, logits) in logits.chunks_exact_mut(width).enumerate() {
                self.finish(logits, first);
                normalisers[row].add(logits);
                if block.contains(&targets[row]) {
                    target_logits[row] = f64::from(logits[targets[row] - first]);
                }
            }
        }
        normalisers.iter().zip(&target_logits).map(|(norm, logit)| norm.value() - logit).collect()
    }

    /// Bias, factor and limit of the logits from `first` on.
    fn finish(&self, logits: &mut [f32], first: usize) {
        if let Some(bias) = self.bias {
            add(logits, &bias[first..first + logits.len()]);
        }
        if self.scale != 1.0 {
            scale(logits, self.scale);
        }
        if let Some(limit) = self.softcap {
            softcap(logits, limit);
        }
    }
}
