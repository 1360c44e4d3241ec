//! What modules add to the hidden state, kept for the guards.

use invarlock_evidence::format::statistics::ACTIVATION_TOKENS;

/// What a module adds to the hidden state.
#[derive(Debug)]
pub struct Output {
    /// Name of the module.
    pub module: String,
    /// Elements of a row.
    pub width: usize,
    /// A row for each of the first tokens, at most [`ACTIVATION_TOKENS`].
    pub values: Vec<f32>,
}

/// The outputs of one example. A worker that was not asked keeps none.
#[derive(Debug, Default)]
pub struct Outputs {
    kept: Option<Vec<Output>>,
}

impl Outputs {
    /// Keeps the outputs from now on.
    pub fn start(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// The outputs since the start. No further ones are kept.
    pub fn stop(&mut self) -> Vec<Output> {
        self.kept.take().unwrap_or_default()
    }

    /// Keeps the output of a module, to which a bias is still to be added. Only the first rows of a module are kept.
    pub(super) fn add(&mut self, module: &str, rows: &[f32], width: usize, bias: Option<&[f32]>) {
        let Some(kept) = &mut self.kept else { return };
        if kept.iter().any(|output| output.module == module) {
            return;
        }
        let mut values = rows[..rows.len().min(ACTIVATION_TOKENS * width)].to_vec();
        if let Some(bias) = bias {
            values.chunks_exact_mut(width).for_each(|row| crate::math::activation::add(row, bias));
        }
        kept.push(Output { module: module.to_owned(), width, values });
    }
}
