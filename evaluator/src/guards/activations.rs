//! Statistics of what modules add to the hidden state, or of their outputs, on some of the windows.

use std::collections::BTreeMap;
use std::sync::Mutex;

use invarlock_evidence::format::statistics::{
    ACTIVATION_ITERATIONS, ACTIVATION_WINDOWS, ActivationStatistics, ModuleActivations,
};

use super::matrix;
use crate::measure::Workers;
use crate::model::{Elements, Example, Kept, Model, Output};
use crate::windows::{Window, Windows};

/// Smallest variance by which activations are divided, as in the Python package.
const SMALLEST_VARIANCE: f64 = 1e-12;

/// Measures the modules of a model. `step` is called after each layer.
pub fn measure(
    workers: &Workers,
    model: &Model<'_>,
    windows: &Windows,
    kept: Kept,
    step: &(dyn Fn() + Sync),
) -> ActivationStatistics {
    let arms = [&windows.preview, &windows.final_];
    let all: Vec<(u64, &Window)> =
        arms.iter().flat_map(|arm| arm.ids.iter().copied().zip(&arm.windows)).collect();
    let (ids, sampled): (Vec<u64>, Vec<&Window>) =
        evenly_spaced(all.len(), ACTIVATION_WINDOWS).into_iter().map(|index| all[index]).unzip();
    let examples: Vec<Example<'_>> = sampled.iter().map(|window| window.example()).collect();

    let found: Mutex<Modules> = Mutex::default();
    workers.outputs(model, &examples, kept, step, &|window, output| {
        let order = found.lock().unwrap_or_else(|e| e.into_inner()).order(&output.module);
        let statistics = of_window(output);
        let mut found = found.lock().unwrap_or_else(|e| e.into_inner());
        found.windows.entry((order, window)).or_default().push(statistics);
    });
    let found = found.into_inner().unwrap_or_else(|e| e.into_inner());
    ActivationStatistics { windows: ids, modules: found.means() }
}

/// The statistics of each module and window.
#[derive(Default)]
struct Modules {
    names: Vec<String>,
    /// A module that runs more than once in a window has more than one.
    windows: BTreeMap<(usize, usize), Vec<OfWindow>>,
}

/// The statistics of one module in one window.
struct OfWindow {
    rows: usize,
    edge: f64,
    mean_square: f64,
}

impl Modules {
    /// The number of a module.
    fn order(&mut self, module: &str) -> usize {
        match self.names.iter().position(|name| name == module) {
            Some(order) => order,
            None => {
                self.names.push(module.to_owned());
                self.names.len() - 1
            }
        }
    }

    /// The mean of each module over the windows, weighted by their tokens, in the order of the names.
    fn means(&self) -> Vec<ModuleActivations> {
        let mean = |order: usize, value: fn(&OfWindow) -> f64| {
            let windows = || self.windows.range((order, 0)..(order + 1, 0)).flat_map(|(_, windows)| windows);
            let total: usize = windows().map(|window| window.rows).sum();
            windows().map(|window| value(window) * window.rows as f64).sum::<f64>() / total.max(1) as f64
        };
        let module = |(order, name): (usize, &String)| ModuleActivations {
            module: name.clone(),
            edge: mean(order, |window| window.edge),
            mean_square: mean(order, |window| window.mean_square),
        };
        let mut modules: Vec<_> = self.names.iter().enumerate().map(module).collect();
        modules.sort_by(|a, b| a.module.cmp(&b.module));
        modules
    }
}

/// The largest singular value of the standardised output against that of random numbers, √rows + √columns.
fn of_window(output: Output) -> OfWindow {
    let Output { width, mut values, .. } = output;
    let (rows, count) = (values.len() / width, values.len() as f64);
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let mean_square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / count;
    let deviation = (mean_square - mean * mean).max(SMALLEST_VARIANCE).sqrt();
    for value in &mut values {
        *value = ((f64::from(*value) - mean) / deviation) as f32;
    }
    let statistics = matrix::statistics(&Elements::Dense { values, columns: width }, ACTIVATION_ITERATIONS);
    let edge = statistics.spectral_norm / ((rows as f64).sqrt() + (width as f64).sqrt());
    OfWindow { rows, edge, mean_square }
}

/// `count` numbers below `all`, evenly spaced, from the first to the last; all of them if there are fewer.
fn evenly_spaced(all: usize, count: usize) -> Vec<usize> {
    if all <= count {
        return (0..all).collect();
    }
    let place = |i: usize| (i as f64 * (all - 1) as f64 / (count - 1) as f64).round_ties_even();
    (0..count).map(|i| place(i) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_evenly_spaced() {
        assert_eq!(evenly_spaced(3, 8), [0, 1, 2]);
        assert_eq!(evenly_spaced(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        // 2.14, 4.29, 6.43, 8.57, 10.7, 12.9
        assert_eq!(evenly_spaced(16, 8), [0, 2, 4, 6, 9, 11, 13, 15]);
    }

    #[test]
    fn edge_of_equal_rows_is_that_of_rank_one() {
        let row = [1.0f32, -1.0, 1.0, -1.0];
        let output = Output { module: "m".to_owned(), width: 4, values: row.repeat(9) };
        let found = of_window(output);
        // The power iteration starts with ones, which such rows are orthogonal to.
        assert_eq!((found.rows, found.edge, found.mean_square), (9, 0.0, 1.0));
        let row = [3.0f32, 1.0, -1.0, 1.0];
        let output = Output { module: "m".to_owned(), width: 4, values: row.repeat(9) };
        let found = of_window(output);
        assert_eq!(found.mean_square, 3.0);
    }
}
