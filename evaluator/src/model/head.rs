//! The last step: hidden states to losses. Logits are computed a block of the vocabulary at a time.

use super::matrix::Matrix;
use super::scratch::{ROWS, sized, spans};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use crate::math::softmax::LogSumExp;

/// Vocabulary entries handled at once.
const BLOCK: usize = 2048;

/// Final normalisation and output projection.
#[derive(Debug)]
pub struct Head<'m, 'a> {
    /// Normalisation before the projection.
    pub norm: &'m Norm,
    /// Hidden state to logits.
    pub lm_head: &'m Matrix<'a>,
    /// Elements of a hidden state.
    pub hidden_size: usize,
}

impl Head<'_, '_> {
    /// Mean cross-entropy of each window: the state of each token but the last predicts the next token.
    ///
    /// `states` and `logits` are working memory: normalised states, and one block of logits.
    pub fn losses(
        &self,
        windows: &[&[u32]],
        hidden: &[f32],
        states: &mut Vec<f32>,
        logits: &mut Vec<f32>,
        panel: &mut Vec<f32>,
    ) -> Vec<f64> {
        let targets: Vec<usize> =
            windows.iter().flat_map(|window| &window[1..]).map(|id| *id as usize).collect();
        let states = sized(states, targets.len() * self.hidden_size);
        let predicting = spans(windows).into_iter().flat_map(|span| span.start..span.end - 1);
        for (row, state) in predicting.zip(states.chunks_exact_mut(self.hidden_size)) {
            self.norm.row(&hidden[row * self.hidden_size..][..self.hidden_size], state);
        }

        let losses: Vec<f64> = targets
            .chunks(ROWS)
            .zip(states.chunks(ROWS * self.hidden_size))
            .flat_map(|(targets, states)| self.token_losses(targets, states, logits, panel))
            .collect();
        let mut rest = losses.as_slice();
        let mut mean = |window: &&[u32]| {
            let (own, others) = rest.split_at(window.len() - 1);
            rest = others;
            own.iter().sum::<f64>() / own.len() as f64
        };
        windows.iter().map(&mut mean).collect()
    }

    /// -log p of each target.
    fn token_losses(
        &self,
        targets: &[usize],
        states: &[f32],
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
            let view = View::dense(states, rows, self.hidden_size);
            self.lm_head.apply_to(view, block.clone(), &mut ViewMut::dense(logits, rows, width), panel);
            for (row, logits) in logits.chunks_exact(width).enumerate() {
                normalisers[row].add(logits);
                if block.contains(&targets[row]) {
                    target_logits[row] = f64::from(logits[targets[row] - first]);
                }
            }
        }
        normalisers.iter().zip(&target_logits).map(|(norm, logit)| norm.value() - logit).collect()
    }
}
