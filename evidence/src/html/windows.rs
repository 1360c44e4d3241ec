//! The differences window by window.

use super::{Fact, at, many, number, or_dash, svg, text};
use crate::format::untrusted::Node;
use crate::paired::{self, Window};
use crate::window_texts::WindowTexts;
use serde::Serialize;
use serde_json::Value;

/// Windows of the table of the most changed ones.
const CHANGED: usize = 5;

#[derive(Serialize)]
pub(super) struct WindowsView {
    pub(super) picture: Option<String>,
    /// Shown if there is no picture.
    pub(super) missing: String,
    pub(super) caption: String,
    pub(super) quantiles: Vec<Fact>,
    /// The windows with the largest change of loss.
    changed: Vec<Changed>,
    pub(super) source: &'static str,
    pub(super) notes: Vec<String>,
}

/// One window of the table of the most changed ones.
#[derive(Serialize)]
struct Changed {
    id: String,
    tokens: String,
    baseline: String,
    subject: String,
    change: String,
    worse: bool,
    /// The text of the predicted tokens; empty if it is unknown.
    text: String,
}

fn changed(windows: &[Window], texts: &WindowTexts) -> Vec<Changed> {
    let loss = |loss: Option<f64>| or_dash(loss.map(|loss| text::significant(loss, 5)));
    let row = |(window, change): (&Window, f64)| Changed {
        id: window.id.clone(),
        tokens: or_dash(window.tokens.map(text::whole)),
        baseline: loss(window.baseline),
        subject: loss(window.subject),
        change: text::difference(change),
        worse: change > 0.0,
        text: texts.of_window(&window.id).unwrap_or_default().to_owned(),
    };
    paired::most_changed(windows, CHANGED).into_iter().map(row).collect()
}

/// Linear quantile of sorted values, at position (n−1)q.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = (sorted.len().saturating_sub(1)) as f64 * q;
    let (below, t) = (position.floor() as usize, position.fract());
    match (sorted.get(below), sorted.get(below + 1)) {
        (Some(a), Some(b)) => a + (b - a) * t,
        (Some(a), None) => *a,
        _ => f64::NAN,
    }
}

pub(super) const QUANTILES: [(&str, f64); 4] = [("q50", 0.50), ("q90", 0.90), ("q95", 0.95), ("q99", 0.99)];

impl WindowsView {
    pub(super) fn new(report: &Value, texts: &WindowTexts) -> WindowsView {
        let missing = |side: &str, why: &str| WindowsView {
            picture: None,
            missing: format!("The distribution cannot be shown: the {side}’s final windows {why}."),
            caption: String::new(),
            quantiles: recorded_quantiles(report),
            changed: Vec::new(),
            source: "as the report records them",
            notes: Vec::new(),
        };
        let paired = match paired::arm(Node::root("", report), "final") {
            Ok(paired) => paired,
            Err((side, why)) => return missing(side, why),
        };
        let (mut deltas, mut weighted, mut weights, mut unusable) = (Vec::new(), 0.0, 0.0, 0usize);
        for window in &paired.windows {
            let Some(delta) = window.change() else {
                unusable += 1;
                continue;
            };
            deltas.push(delta);
            let weight = window.tokens.unwrap_or(f64::NAN);
            weighted += delta * weight;
            weights += weight;
        }
        let unpaired = paired.unpaired;
        deltas.sort_by(f64::total_cmp);
        let mut notes = Vec::new();
        if unusable > 0 {
            notes.push(format!(
                "{} left out: a loss is missing or not finite.",
                many(unusable, "window was", "windows were")
            ));
        }
        if unpaired > 0 {
            notes.push(format!(
                "{} no partner on the other side.",
                many(unpaired, "window has", "windows have")
            ));
        }
        if deltas.is_empty() {
            return WindowsView {
                notes,
                ..missing("subject", "and the baseline’s have no window in common")
            };
        }
        let at_q = |q: f64| quantile(&deltas, q);
        let worse = deltas.iter().filter(|d| **d > 0.0).count();
        let mut quantiles: Vec<Fact> =
            QUANTILES.iter().map(|(name, q)| Fact::new(name, text::difference(at_q(*q)))).collect();
        quantiles.push(Fact::new("max", or_dash(deltas.last().map(|d| text::difference(*d)))));
        let mean = weighted / weights;
        if mean.is_finite() && weights > 0.0 {
            quantiles.push(Fact::new("mean", text::difference(mean)));
        }
        let unchanged = deltas.iter().all(|d| *d == 0.0);
        let picture = if unchanged {
            None
        } else {
            svg::histogram(&svg::Histogram { sorted: &deltas, q50: at_q(0.5), q95: at_q(0.95) })
        };
        WindowsView {
            missing: if unchanged {
                format!(
                    "Nothing changed: the difference is exactly 0 in {}.",
                    many(deltas.len(), "window", "windows")
                )
            } else {
                "The distribution cannot be drawn: its values span too wide a range.".into()
            },
            picture,
            caption: format!(
                "{} of {} paired windows got worse ({}\u{a0}%). Δ is the subject’s mean log-loss of a window minus the baseline’s.",
                text::whole(worse as f64),
                text::whole(deltas.len() as f64),
                text::significant((100.0 * worse as f64 / deltas.len() as f64 * 10.0).round() / 10.0, 3),
            ),
            quantiles,
            changed: changed(&paired.windows, texts),
            source: "computed by this page from the raw losses; the mean is weighted by tokens",
            notes,
        }
    }
}

/// Quantiles as the report's tail block states them.
pub(super) fn recorded_quantiles(report: &Value) -> Vec<Fact> {
    let stats = at(report, "primary_metric_tail.stats");
    ["q50", "q90", "q95", "q99", "max"]
        .iter()
        .filter_map(|name| number(stats, name).map(|x| Fact::new(name, text::difference(x))))
        .collect()
}
