//! The factors that the variance guard of InvarLock 0.12 would give projections, so that their outputs have the mean square 1.

use crate::format::evaluation_report::{UpstreamVariancePolicy, VarianceScope};
use crate::format::statistics::ProjectionSquares;
use crate::numerics::stats::{mean, quantile_sorted};

/// Groups of windows, of whose means the median counts.
const GROUPS: usize = 8;

/// Windows from which on outliers are limited.
const LIMITED: usize = 10;

/// Smallest mean square.
const SMALLEST: f64 = 1e-9;

/// The factors of a checkpoint, by the name of the target, in the order of the layers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scales {
    /// The factors within `clamp` that differ from 1 by the deadband or more.
    pub raw: Vec<(String, f64)>,
    /// Those that would be applied: limited in size and number.
    pub proposed: Vec<(String, f64)>,
}

/// The target that a module is, as InvarLock names it: `transformer.h.<layer>.mlp.c_proj`. None for other modules.
pub fn target(module: &str, scope: VarianceScope) -> Option<String> {
    let rest =
        ["transformer.h.", "model.layers."].into_iter().find_map(|prefix| module.strip_prefix(prefix))?;
    let (layer, name) = rest.split_once('.')?;
    layer.parse::<usize>().ok()?;
    let branch = match name {
        "mlp.c_proj" | "mlp.down_proj" | "mlp.fc2" if scope != VarianceScope::Attn => "mlp",
        // InvarLock looks at members called `attn` only.
        "attn.c_proj" | "attn.out_proj" if scope != VarianceScope::Ffn => "attn",
        _ => return None,
    };
    Some(format!("transformer.h.{layer}.{branch}.c_proj"))
}

/// The factors for projections, from the mean squares of their outputs in each window.
pub fn scales(projections: &[ProjectionSquares], policy: &UpstreamVariancePolicy) -> Scales {
    let beyond = |tolerance: f64| -> Vec<(String, f64)> {
        let factor = |projection: &ProjectionSquares| {
            let alpha = alpha(&projection.squares, policy.clamp)?;
            ((alpha - 1.0).abs() >= tolerance).then(|| (projection.target.clone(), alpha))
        };
        projections.iter().filter_map(factor).collect()
    };
    let mut raw = beyond(policy.deadband);
    if raw.is_empty() && policy.deadband > 0.0 {
        raw = beyond((policy.deadband * 0.5).max(1e-4));
    }
    Scales { proposed: proposed(&raw, policy), raw }
}

/// The factor that would give the mean square 1; none without windows.
fn alpha(squares: &[f64], [least, most]: [f64; 2]) -> Option<f64> {
    let mut limited = squares.to_vec();
    if limited.len() >= LIMITED {
        let mut sorted = squares.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (quantile_sorted(&sorted, 0.02), quantile_sorted(&sorted, 0.98));
        limited.iter_mut().for_each(|value| *value = value.clamp(low, high));
    }
    let size = limited.len().div_ceil(GROUPS.min(limited.len()).max(1)).max(1);
    let mut means: Vec<f64> = limited.chunks(size).map(mean).collect();
    means.sort_unstable_by(f64::total_cmp);
    // The lower one of two medians, as torch has it.
    let square = means.get(means.len().checked_sub(1)? / 2)?;
    Some((1.0 / square.max(SMALLEST)).sqrt().clamp(least, most))
}

/// The factors that would be applied.
fn proposed(raw: &[(String, f64)], policy: &UpstreamVariancePolicy) -> Vec<(String, f64)> {
    let (least, step) = (policy.min_abs_adjust, policy.max_scale_step);
    let limited = |scale: f64| match step > 0.0 {
        true => 1.0 + (scale - 1.0).abs().min(step).copysign(scale - 1.0),
        false => scale,
    };
    let size = |scale: f64| (scale - 1.0).abs();
    // Each with its size before it is limited.
    let mut found: Vec<(String, f64, f64)> = raw
        .iter()
        .filter(|(_, scale)| size(*scale) >= least)
        .map(|(name, scale)| (name.clone(), limited(*scale), size(*scale)))
        .collect();
    if found.is_empty() && policy.topk_backstop > 0 {
        // The first of the largest.
        let largest = raw.iter().rev().max_by(|a, b| size(a.1).total_cmp(&size(b.1)));
        let threshold = (policy.deadband * 0.5).max(least * 0.5);
        let threshold = if least > 0.0 && threshold >= least { least * 0.5 } else { threshold };
        let candidate = largest.filter(|(_, scale)| size(*scale) > 0.0 && size(*scale) >= threshold);
        found.extend(candidate.map(|(name, scale)| (name.clone(), limited(*scale), size(*scale))));
    }
    let most = policy.max_adjusted_modules as usize;
    if most > 0 && found.len() > most {
        // Factors above 1 come first, larger changes before smaller ones.
        let key = |(_, scale, size): &(String, f64, f64)| size + if *scale >= 1.0 { 2.0 } else { 0.0 };
        found.sort_by(|a, b| key(b).total_cmp(&key(a)).then(b.2.total_cmp(&a.2)).then(b.1.total_cmp(&a.1)));
        found.truncate(most);
    }
    found.into_iter().map(|(name, scale, _)| (name, scale)).collect()
}
