//! What upstream recomputes: the accuracy, or the mean loss and perplexity of the final arm.

use super::{Case, Found, kind, stop, tiny_relax};
use crate::numerics::stats::weighted_mean;
use crate::verify::python::{int, repr};
use crate::verify::{StoppedBy, UpstreamVersion};
use serde_json::{Value, json};
use std::collections::HashSet;

pub(super) fn recompute(case: &Case<'_>, found: &mut Found) -> Result<(), Box<StoppedBy>> {
    let report = case.report;
    let strict = case.profile.gated() && !tiny_relax(report);
    let metric = report.get("primary_metric");
    let missing = |what: &str, found: &mut Found| {
        if strict {
            let message = format!("PROVIDER-DIGEST-MISSING: {what} in CI/Release");
            return Err(Box::new(stop("E004", "InvarlockError", case.profile, &message, json!({}))));
        }
        found.notes.push(format!("{what}: nothing was recomputed"));
        Ok(())
    };
    if kind(report) == "accuracy" {
        let classes = report.at("metrics.classification");
        let counts = classes
            .get("n_correct")
            .f64()
            .zip(classes.get("n_total").f64())
            .filter(|(_, total)| *total > 0.0);
        let Some((correct, total)) = counts else {
            return missing("missing classification aggregates for recompute", found);
        };
        let accuracy = correct / total;
        if let Some(last) = metric.get("final").f64()
            && (last - accuracy).abs() > case.tolerance.max(1e-12)
        {
            found.errors.push(format!("Accuracy mismatch: final={last:.12} recomputed={accuracy:.12}"));
        }
        return Ok(());
    }
    let arm = report.at("evaluation_windows.final");
    let lists = arm.get("logloss").array().zip(arm.get("token_counts").array());
    let Some((losses, _)) = lists.filter(|(one, other)| !one.is_empty() && one.len() == other.len()) else {
        return missing("evaluation_windows.final missing for recompute", found);
    };
    if case.version == UpstreamVersion::V0_12
        && let ids = arm.get("window_ids")
        && let Some(count) = ids.array().map(<[Value]>::len)
    {
        let place = "evaluation_windows.final.window_ids";
        if count != losses.len() {
            found.errors.push(format!("{place} length differs from logloss/token_counts."));
        }
        let distinct: HashSet<String> = ids.elements().map(repr).collect();
        if distinct.len() != count {
            found.errors.push(format!("{place} contains duplicates."));
        }
    }
    let losses: Option<Vec<f64>> = losses.iter().map(Value::as_f64).collect();
    let weights: Option<Vec<u64>> = arm.get("token_counts").elements().map(int).collect();
    let mean = losses.zip(weights).and_then(|(losses, weights)| weighted_mean(&losses, &weights));
    let Some(mean) = mean else { return Ok(()) };
    if let Some(stated) = metric.get("analysis_point_final").f64() {
        if (stated - mean).abs() > case.tolerance {
            found
                .errors
                .push(format!("Basis mismatch: analysis_point_final={stated:.12} recomputed={mean:.12}"));
        }
    } else if let Some(last) = metric.get("final").f64()
        && (mean.exp() - last).abs() > case.tolerance.max(1e-12)
    {
        found.errors.push(format!("Display mismatch: final={last:.12} exp(basis)={:.12}", mean.exp()));
    }
    Ok(())
}
