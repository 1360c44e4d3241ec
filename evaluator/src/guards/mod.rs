//! What the guards measure of one checkpoint: statistics of its weight matrices ([`matrix`]), and of what its modules add to the hidden
//! state ([`activations`]).
//!
//! Nothing is judged here. The host compares the numbers of baseline and subject.

pub mod activations;
pub mod matrix;
mod power;
mod sketch;

use std::sync::atomic::{AtomicU64, Ordering};

use invarlock_evidence::format::statistics::{GuardStatistics, WEIGHT_ITERATIONS, WeightStatistics};
use rayon::prelude::*;

use crate::measure::Workers;
use crate::model::{Model, Module};
use crate::windows::Windows;

/// Measures a checkpoint. `progress` gets the number of finished steps and of all steps.
pub fn measure(
    workers: &Workers,
    model: &Model<'_>,
    windows: &Windows,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> GuardStatistics {
    let modules = &model.info.modules;
    let total = (modules.len() + model.steps().len()) as u64;
    let done = AtomicU64::new(0);
    let step = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
    let weights = workers.run(|| {
        let one = |module: &Module<'_>| {
            let found = weight_statistics(module);
            if !workers.keeps(model) {
                module.release();
            }
            step();
            found
        };
        modules.par_iter().with_max_len(1).map(one).collect()
    });
    GuardStatistics { weights, activations: activations::measure(workers, model, windows, &step) }
}

fn weight_statistics(module: &Module<'_>) -> WeightStatistics {
    let found = matrix::statistics(&module.weights, WEIGHT_ITERATIONS);
    WeightStatistics {
        module: module.name.clone(),
        shape: module.weights.shape().map(|size| size as u64),
        spectral_norm: found.spectral_norm,
        frobenius_norm: found.frobenius_norm,
        weakest: found.weakest,
        sketch: found.sketch,
    }
}
