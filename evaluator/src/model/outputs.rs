//! The outputs of modules, kept for the guards.

use std::ops::Range;

use invarlock_evidence::format::statistics::ACTIVATION_TOKENS;
use invarlock_evidence::guards::rmt::upstream;

use crate::math::activation::add;

/// Which outputs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// What modules add to the hidden state, and the first hidden states: a row for each of the first tokens, at most
    /// [`ACTIVATION_TOKENS`].
    Added,
    /// Those of the modules that InvarLock 0.12 measures: a row for each token.
    Modules,
}

/// The output of a module.
#[derive(Debug)]
pub struct Output {
    /// Name of the module.
    pub module: String,
    /// Elements of a row.
    pub width: usize,
    /// The rows.
    pub values: Vec<f32>,
}

/// The outputs of one example. A worker that was not asked keeps none.
#[derive(Debug, Default)]
pub struct Outputs {
    kept: Option<Kept>,
    /// The outputs, of which only those from `first` on can get more rows.
    outputs: Vec<Output>,
    first: usize,
}

impl Outputs {
    /// Keeps outputs from now on.
    pub fn start(&mut self, kept: Kept) {
        *self = Self { kept: Some(kept), ..Self::default() };
    }

    /// The outputs since the start. No further ones are kept.
    pub fn stop(&mut self) -> Vec<Output> {
        std::mem::take(self).outputs
    }

    /// A module that follows is run again: it gets another output.
    pub(super) fn next_run(&mut self) {
        self.first = self.outputs.len();
    }

    /// Keeps what a module adds to the hidden state, to which a bias is still to be added. Only the first rows of a module are kept.
    pub(super) fn add(&mut self, module: &str, rows: &[f32], width: usize, bias: Option<&[f32]>) {
        if self.kept != Some(Kept::Added) || self.outputs.iter().any(|output| output.module == module) {
            return;
        }
        let mut values = rows[..rows.len().min(ACTIVATION_TOKENS * width)].to_vec();
        if let Some(bias) = bias {
            values.chunks_exact_mut(width).for_each(|row| add(row, bias));
        }
        self.outputs.push(Output { module: module.to_owned(), width, values });
    }

    /// Keeps rows of an embedding or a layer normalisation.
    pub(super) fn module(&mut self, module: &str, rows: &[f32], width: usize) {
        if self.kept == Some(Kept::Modules) {
            self.rows(module, width).extend_from_slice(rows);
        }
    }

    /// Keeps rows of a linear layer, to which its bias is still to be added. They are some `columns` of rows of `width` elements.
    pub(super) fn linear(
        &mut self,
        module: &str,
        bias: Option<&[f32]>,
        rows: &[f32],
        width: usize,
        columns: Range<usize>,
    ) {
        if self.kept != Some(Kept::Modules) || !upstream::names_linear(module) {
            return;
        }
        let kept = self.rows(module, columns.len());
        for row in rows.chunks_exact(width) {
            let first = kept.len();
            kept.extend_from_slice(&row[columns.clone()]);
            if let Some(bias) = bias {
                add(&mut kept[first..], bias);
            }
        }
    }

    /// The rows of a module.
    fn rows(&mut self, module: &str, width: usize) -> &mut Vec<f32> {
        let known = self.outputs[self.first..].iter().position(|output| output.module == module);
        let place = match known {
            Some(place) => self.first + place,
            None => {
                self.outputs.push(Output { module: module.to_owned(), width, values: Vec::new() });
                self.outputs.len() - 1
            }
        };
        &mut self.outputs[place].values
    }
}
