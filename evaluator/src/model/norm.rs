//! A normalisation with the name of its module.

use std::ops::Deref;

use super::outputs::Outputs;
use crate::math::norm;

/// A normalisation of a model.
#[derive(Debug, Clone)]
pub struct Norm {
    module: String,
    norm: norm::Norm,
}

impl Norm {
    /// `module` is the name in Hugging Face's model.
    pub fn new(module: String, norm: norm::Norm) -> Self {
        Self { module, norm }
    }

    /// Keeps the normalised rows of a layer normalisation. InvarLock measures no RMS normalisation.
    pub(super) fn keep(&self, rows: &[f32], outputs: &mut Outputs) {
        if matches!(self.norm, norm::Norm::Layer { .. }) {
            outputs.module(&self.module, rows, self.norm.width());
        }
    }
}

impl Deref for Norm {
    type Target = norm::Norm;

    fn deref(&self) -> &norm::Norm {
        &self.norm
    }
}
