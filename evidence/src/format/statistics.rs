//! What the guards measure of one side: the numbers from which they judge, in the run report.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Power iterations for a [`WeightStatistics::spectral_norm`], as InvarLock 0.12 does them.
pub const WEIGHT_ITERATIONS: usize = 4;

/// Power iterations for a [`ModuleActivations::edge`], as InvarLock 0.12 does them.
pub const ACTIVATION_ITERATIONS: usize = 3;

/// Largest number of [`ActivationStatistics::windows`], as in InvarLock 0.12.
pub const ACTIVATION_WINDOWS: usize = 8;

/// Largest number of tokens of a window whose activations are measured.
pub const ACTIVATION_TOKENS: usize = 512;

/// Numbers of a [`WeightStatistics::sketch`]. The distance of two sketches is that of the arrays with a relative error of about
/// √(1/(2 · 64)) = 9 %.
pub const SKETCH: usize = 64;

/// The measurements of all guards but the invariants.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardStatistics {
    /// Of the weights.
    pub weights: Vec<WeightStatistics>,
    /// Of what modules add to the hidden state.
    pub activations: ActivationStatistics,
    /// For the guards of InvarLock 0.12; measured only where they are asked for.
    pub upstream: Option<UpstreamStatistics>,
}

/// What the guards of InvarLock 0.12 measure besides the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamStatistics {
    /// Of the outputs of embeddings, layer normalisations and linear layers: a row for each token of a window.
    pub outputs: ActivationStatistics,
    /// For the variance guard.
    pub variance: VarianceMeasurement,
}

/// What the variance guard of InvarLock 0.12 measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VarianceMeasurement {
    /// The projections that can have a factor, in the order of the layers.
    pub projections: Vec<ProjectionSquares>,
    /// Ids of the windows of `squares`: the first ones of the preview arm, and then of the final arm.
    pub windows: Vec<u64>,
    /// Ids of the windows on which factors were tried: the first ones too.
    pub calibration_windows: Vec<u64>,
    /// Tokens of each of them.
    pub tokens: Vec<u64>,
    /// Their losses, nats a token.
    pub losses: Vec<f64>,
    /// The factors that were tried; empty if none was proposed.
    pub scales: BTreeMap<String, f64>,
    /// The losses with these factors; empty if none was proposed.
    pub scaled_losses: Vec<f64>,
}

/// A projection whose output is added to the hidden state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProjectionSquares {
    /// Name of the module.
    pub module: String,
    /// Its name for the guard: `transformer.h.<layer>.mlp.c_proj`.
    pub target: String,
    /// Mean of the squares of its output in each window.
    pub squares: Vec<f64>,
}

/// Statistics of the weights of one module: a linear layer, an embedding or a normalisation. Quantised weights are taken as the values they
/// stand for. Biases are not part of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WeightStatistics {
    /// Name of the module in Hugging Face's model.
    pub module: String,
    /// Rows and columns as Hugging Face's model has them; a normalisation has one row.
    pub shape: [u64; 2],
    /// Estimate of the largest singular value: four power iterations from a vector of ones.
    pub spectral_norm: f64,
    /// Square root of the sum of squares.
    pub frobenius_norm: f64,
    /// The length of the shortest row divided by the median of all, or that of columns: the smaller one.
    pub weakest: f64,
    /// A count sketch of the elements, divided by the Frobenius norm: [`SKETCH`] numbers.
    pub sketch: Vec<f64>,
}

/// Statistics of what modules add to the hidden state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ActivationStatistics {
    /// Ids of the windows that were measured, at most the first 512 tokens of each.
    pub windows: Vec<u64>,
    /// The modules, sorted by name.
    pub modules: Vec<ModuleActivations>,
}

/// Statistics of what one module adds to the hidden state, as a matrix with a row for each token. Means over windows, weighted by tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModuleActivations {
    /// Name of the module whose output is added; `embeddings` for the first hidden states.
    pub module: String,
    /// Estimate of the largest singular value of the matrix with mean 0 and variance 1, divided by √rows + √columns, that of random numbers.
    pub edge: f64,
    /// Mean of the squares.
    pub mean_square: f64,
}
