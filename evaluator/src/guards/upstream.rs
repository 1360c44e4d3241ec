//! What the guards of InvarLock 0.12 measure besides the weights: outputs of modules, and a trial of factors for projections.

use std::collections::BTreeMap;
use std::sync::Mutex;

use invarlock_evidence::format::evaluation_report::UpstreamVariancePolicy;
use invarlock_evidence::format::statistics::{ProjectionSquares, UpstreamStatistics, VarianceMeasurement};
use invarlock_evidence::guards::variance::upstream::{scales_of, target};

use super::activations;
use crate::measure::Workers;
use crate::model::{Example, Kept, Model};
use crate::windows::{Window, Windows};

/// Measures a checkpoint. `step` is called after each layer, for the outputs; what the variance guard needs takes as long again.
pub fn measure(
    workers: &Workers,
    model: &Model<'_>,
    windows: &Windows,
    policy: &UpstreamVariancePolicy,
    step: &(dyn Fn() + Sync),
) -> UpstreamStatistics {
    let outputs = activations::measure(workers, model, windows, Kept::Modules, step);
    UpstreamStatistics { outputs, variance: variance(workers, model, windows, policy) }
}

fn variance(
    workers: &Workers,
    model: &Model<'_>,
    windows: &Windows,
    policy: &UpstreamVariancePolicy,
) -> VarianceMeasurement {
    let arms = [&windows.preview, &windows.final_];
    let all: Vec<(u64, &Window)> =
        arms.iter().flat_map(|arm| arm.ids.iter().copied().zip(&arm.windows)).collect();
    let (ids, measured): (Vec<u64>, Vec<&Window>) = all.iter().copied().take(policy.windows()).unzip();
    let (calibration_windows, tried): (Vec<u64>, Vec<&Window>) =
        all.iter().copied().take(policy.calibration.windows as usize).unzip();
    let mut found = VarianceMeasurement {
        projections: squares(workers, model, &examples(&measured), policy),
        windows: ids,
        calibration_windows,
        tokens: tried.iter().map(|window| window.real as u64).collect(),
        losses: Vec::new(),
        scales: BTreeMap::new(),
        scaled_losses: Vec::new(),
    };
    if found.projections.is_empty() {
        return found;
    }
    let tried = examples(&tried);
    found.losses = workers.losses(model, &tried, &|_| ());
    found.scales = scales_of(&found, policy).proposed.into_iter().collect();
    if !found.scales.is_empty() {
        let module = |projection: &ProjectionSquares| {
            let scale = found.scales.get(&projection.target)?;
            Some((projection.module.clone(), *scale as f32))
        };
        let scales: BTreeMap<String, f32> = found.projections.iter().filter_map(module).collect();
        found.scaled_losses = workers.with_scales(&scales, || workers.losses(model, &tried, &|_| ()));
    }
    found
}

fn examples<'w>(windows: &[&'w Window]) -> Vec<Example<'w>> {
    windows.iter().map(|window| window.example()).collect()
}

/// The mean squares of the outputs of the projections that can have a factor.
fn squares(
    workers: &Workers,
    model: &Model<'_>,
    examples: &[Example<'_>],
    policy: &UpstreamVariancePolicy,
) -> Vec<ProjectionSquares> {
    let projection = |module: &crate::model::Module<'_>| {
        let target = target(&module.name, policy.scope)?;
        Some(ProjectionSquares { module: module.name.clone(), target, squares: vec![0.0; examples.len()] })
    };
    let found: Vec<ProjectionSquares> = model.info.modules.iter().filter_map(projection).collect();
    if found.is_empty() {
        return found;
    }
    let found = Mutex::new(found);
    workers.outputs(model, examples, Kept::Modules, &|| (), &|window, output| {
        let squares = output.values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let mean = squares / output.values.len().max(1) as f64;
        let mut found = found.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(projection) = found.iter_mut().find(|found| found.module == output.module) {
            projection.squares[window] = mean;
        }
    });
    found.into_inner().unwrap_or_else(|e| e.into_inner())
}
