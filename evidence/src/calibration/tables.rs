//! The tables of a calibration: CSV (RFC 4180) and Markdown, with the columns of InvarLock 0.12.

use super::{null_sweep, ve_sweep};
use crate::export::escape;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// A line: names of columns with values, ready to be written.
type Row = BTreeMap<String, String>;

/// The columns of all rows, sorted by name. Nothing without rows.
fn csv(rows: &[Row]) -> String {
    let columns: BTreeSet<&String> = rows.iter().flat_map(Row::keys).collect();
    let line = |fields: Vec<&str>| fields.join(",") + "\r\n";
    let header = line(columns.iter().map(|name| name.as_str()).collect());
    let cells =
        |row: &Row| line(columns.iter().map(|name| row.get(*name).map_or("", String::as_str)).collect());
    if rows.is_empty() { String::new() } else { header + &rows.iter().map(cells).collect::<String>() }
}

/// As Python spells it.
fn truth(value: bool) -> String {
    if value { "True" } else { "False" }.to_owned()
}

fn optional(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// Adds a column. Names of families come from this program, and not from a checkpoint.
fn add(row: &mut Row, name: impl Into<String>, value: impl Display) {
    row.insert(name.into(), value.to_string());
}

/// `null_sweep_runs.csv`.
pub fn null_sweep_runs(runs: &[null_sweep::Run]) -> String {
    csv(&runs.iter().map(null_sweep_row).collect::<Vec<_>>())
}

fn null_sweep_row(run: &null_sweep::Run) -> Row {
    let spectral = &run.spectral;
    let mut row = Row::new();
    add(&mut row, "tier", &run.tier);
    add(&mut row, "seed", run.seed);
    add(&mut row, "caps_applied", spectral.caps_applied);
    add(&mut row, "caps_exceeded", truth(spectral.caps_exceeded));
    let selected: Vec<&str> = spectral.selected.iter().map(String::as_str).collect();
    add(&mut row, "selected_families", escape::csv(&selected.join(",")));
    spectral.max_z.iter().for_each(|(family, z)| add(&mut row, format!("max_z_{family}"), z));
    spectral
        .candidates
        .iter()
        .for_each(|(family, count)| add(&mut row, format!("candidate_{family}"), count));
    spectral.violations.iter().for_each(|(family, count)| add(&mut row, format!("selected_{family}"), count));
    if let Some(subject) = &run.subject {
        add(&mut row, "subject", escape::csv(subject));
    }
    if let Some(distance) = run.distance {
        add(&mut row, "norm_ratio", distance.norm_ratio);
        add(&mut row, "correlation", distance.correlation);
        add(&mut row, "edge_ratio", distance.edge_ratio);
    }
    row
}

/// `ve_sweep_runs.csv`.
pub fn ve_sweep_runs(runs: &[ve_sweep::Run]) -> String {
    let row = |run: &ve_sweep::Run| {
        let mut row = Row::new();
        let interval = run.gate.delta_ci;
        add(&mut row, "tier", &run.tier);
        add(&mut row, "seed", run.seed);
        add(&mut row, "windows", run.windows);
        add(&mut row, "predictive_evaluated", truth(run.gate.evaluated));
        add(&mut row, "predictive_mean_delta", optional(run.gate.mean_delta));
        add(&mut row, "predictive_delta_ci_lo", optional(interval.map(|[low, _]| low)));
        add(&mut row, "predictive_delta_ci_hi", optional(interval.map(|[_, high]| high)));
        add(&mut row, "predictive_ci_width", optional(interval.map(|[low, high]| high - low)));
        if let Some(subject) = &run.subject {
            add(&mut row, "subject", escape::csv(subject));
        }
        row
    };
    csv(&runs.iter().map(row).collect::<Vec<_>>())
}

/// `ve_power_curve.csv`.
pub fn ve_power_curve(report: &ve_sweep::Report) -> String {
    let row = |point: &ve_sweep::PowerPoint| {
        let mut row = Row::new();
        add(&mut row, "tier", &point.tier);
        add(&mut row, "windows", point.windows);
        add(&mut row, "runs", point.runs);
        add(&mut row, "mean_ci_width", optional(point.mean_ci_width));
        row
    };
    csv(&report.power_curve.iter().map(row).collect::<Vec<_>>())
}

/// `null_sweep_summary.md`. `patch` is the file with the limits.
pub fn null_sweep_summary(report: &null_sweep::Report, patch: &str) -> String {
    let mut out =
        head("Spectral null-sweep calibration", &report.generated_at, &report.config.base_config, patch);
    out += "## Summary\n\n| Tier | Runs | Any-warning rate | α (recommended) |\n|---|---:|---:|---:|\n";
    for (tier, summary) in &report.summaries {
        let (rate, alpha) =
            (summary.observed.any_warning_rate, summary.recommendations.multiple_testing.alpha);
        out += &format!("| {tier} | {} | {rate:.3} | {alpha:.6} |\n", summary.n_runs);
    }
    out
}

/// `ve_sweep_summary.md`. `patch` is the file with the limits.
pub fn ve_sweep_summary(report: &ve_sweep::Report, patch: &str) -> String {
    let title = "Variance (DD-VE) sweep calibration";
    let mut out = head(title, &report.generated_at, &report.config.base_config, patch);
    out += "## Per-tier recommendation\n\n| Tier | Runs | Recommended min_effect_lognll | Expected enable rate |\n";
    out += "|---|---:|---:|---:|\n";
    for (tier, summary) in &report.summaries {
        let limits = summary.recommendations;
        let (gain, rate) = (limits.min_effect_lognll, limits.expected_enable_rate);
        out += &format!("| {tier} | {} | {gain:.6} | {rate:.3} |\n", summary.n_runs);
    }
    out
}

fn head(title: &str, generated_at: &str, config: &str, patch: &str) -> String {
    let (config, patch) = (escape::markdown(config), escape::markdown(patch));
    format!(
        "# {title}\n\n- Generated: `{generated_at}`\n- Base config: {config}\n\n\
         ## Recommendations (tiers.yaml patch)\n- {patch}\n\n"
    )
}
