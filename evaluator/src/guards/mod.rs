//! What the guards measure of one checkpoint: statistics of its weight matrices ([`matrix`]), and of what its modules add to the hidden
//! state ([`activations`]). Where the guards of InvarLock 0.12 are asked for, also what those need ([`upstream`]).
//!
//! Nothing is judged here. The host compares the numbers of baseline and subject.

pub mod activations;
pub mod matrix;
mod power;
mod sketch;
pub mod upstream;

use std::sync::atomic::{AtomicU64, Ordering};

use invarlock_evidence::format::evaluation_report::UpstreamVariancePolicy;
use invarlock_evidence::format::statistics::{GuardStatistics, WEIGHT_ITERATIONS, WeightStatistics};
use rayon::prelude::*;

use crate::measure::Workers;
use crate::model::{Kept, Model, Module};
use crate::windows::Windows;

/// Measures a checkpoint; for the guards of InvarLock 0.12 too where `upstream` is their policy. `progress` gets the number of finished steps
/// and of all steps.
pub fn measure(
    workers: &Workers,
    model: &Model<'_>,
    windows: &Windows,
    upstream: Option<&UpstreamVariancePolicy>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> GuardStatistics {
    let modules = &model.info.modules;
    let passes = model.steps().len() + upstream.map_or(0, |_| model.steps().len() + 1);
    let total = (modules.len() + passes) as u64;
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
    GuardStatistics {
        weights,
        activations: activations::measure(workers, model, windows, Kept::Added, &step),
        upstream: upstream.map(|policy| upstream::measure(workers, model, windows, policy, &step)),
    }
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
