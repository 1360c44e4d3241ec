//! The primary metric and its drift, as numbers and pictures.

use super::{Fact, at, band, flag, number, or_dash, pair, svg, text};
use crate::compare::NLL_PER_BYTE;
use crate::format::untrusted::Node;
use crate::policy::{Profile, Tier};
use serde::Serialize;
use serde_json::Value;

/// The primary metric and its limit, as the report states them.
pub(super) struct Metric {
    pub(super) kind: String,
    /// Lower is better and the ratio is limited from above.
    pub(super) perplexity: bool,
    pub(super) preview: Option<f64>,
    pub(super) last: Option<f64>,
    pub(super) baseline: Option<f64>,
    pub(super) ratio: Option<f64>,
    pub(super) interval: Option<(f64, f64)>,
    /// `95 %`, if the report states it.
    pub(super) level: Option<String>,
    pub(super) limit: Option<Limit>,
    /// Of an accuracy.
    pub(super) difference: Option<Difference>,
    /// Limits were relaxed and do not follow from the report's numbers.
    pub(super) tiny_relax: bool,
    pub(super) drift_band: (f64, f64),
}

pub(super) struct Limit {
    pub(super) value: f64,
    pub(super) base: f64,
    pub(super) hysteresis: f64,
    pub(super) from: &'static str,
}

/// A difference of accuracies, percentage points.
pub(super) struct Difference {
    pub(super) delta: f64,
    pub(super) interval: Option<(f64, f64)>,
    /// The least that is accepted of the lower end of the interval.
    pub(super) limit: Option<f64>,
    pub(super) drift: Option<f64>,
}

impl Difference {
    /// The lower end of the interval and its limit.
    pub(super) fn lower_end(&self) -> Option<(f64, f64)> {
        Some((self.interval?.0, self.limit?))
    }

    fn read(report: &Value, pm: &Value) -> Option<Self> {
        let drift =
            number(pm, "final").zip(number(pm, "preview")).map(|(last, first)| 100.0 * (last - first));
        Some(Difference {
            delta: number(pm, "delta_pp")?,
            interval: pair(pm, "display_ci"),
            limit: crate::gates::accuracy_limit(Node::root("", report)),
            drift,
        })
    }
}

impl Metric {
    pub(super) fn read(report: &Value) -> Metric {
        let pm = at(report, "primary_metric");
        let kind = text::string(at(pm, "kind"));
        let perplexity = kind.starts_with("ppl");
        let level = number(pm, "ci_level")
            .or_else(|| number(report, "dataset.windows.stats.bootstrap.alpha").map(|alpha| 1.0 - alpha))
            .filter(|level| (0.5..1.0).contains(level))
            .map(|level| {
                format!("{} %", text::significant((level * 1e6).round() / 1e4, 4)).replace(".00 %", " %")
            });
        let tiny_relax = flag(report, "auto.tiny_relax") == Some(true)
            || at(report, "provenance.flags").as_array().is_some_and(|f| f.iter().any(|f| f == "tiny_relax"));
        Metric {
            perplexity,
            preview: number(pm, "preview"),
            last: number(pm, "final"),
            baseline: number(report, "baseline_ref.primary_metric.final"),
            ratio: number(pm, "ratio_vs_baseline"),
            interval: if perplexity { pair(pm, "display_ci").filter(|(lo, _)| *lo > 0.0) } else { None },
            level,
            limit: if perplexity { Some(limit(report)) } else { None },
            difference: if kind == "accuracy" { Difference::read(report, pm) } else { None },
            tiny_relax,
            drift_band: band(pm, "drift_band")
                .or_else(|| band(report, "meta.pm_drift_band"))
                .unwrap_or_else(|| Profile::Release.drift_band()),
            kind,
        }
    }

    pub(super) fn noun(&self) -> &'static str {
        match self.kind.as_str() {
            kind if kind.starts_with("ppl") => "Perplexity",
            "accuracy" => "Accuracy",
            _ => "Primary metric",
        }
    }

    /// The drift as text.
    pub(super) fn shown_drift(&self) -> Option<String> {
        match &self.difference {
            Some(difference) => difference.drift.map(text::points),
            None => self.drift().map(|drift| format!("ratio {}", text::ratio(drift))),
        }
    }

    pub(super) fn drift(&self) -> Option<f64> {
        Some(self.last? / self.preview.filter(|x| *x > 0.0)?).filter(|x| x.is_finite())
    }

    pub(super) fn interval_name(&self) -> String {
        match &self.level {
            Some(level) => format!("{level} confidence interval"),
            None => "confidence interval".into(),
        }
    }
}

/// The upper limit of the ratio: the report's resolved policy, else the default of its tier.
pub(super) fn limit(report: &Value) -> Limit {
    let policy = at(report, "resolved_policy.metrics.pm_ratio");
    let tier = at(report, "auto.tier").as_str().and_then(|name| name.parse().ok());
    let by_tier = tier.unwrap_or(Tier::Balanced).ratio_limit();
    let (base, from) =
        match (number(report, "meta.pm_acceptance_range.max"), number(policy, "ratio_limit_base")) {
            (Some(max), _) if max > 0.0 => (max, "the acceptance range in the report"),
            (_, Some(base)) => (base, "the policy in the report"),
            _ => (by_tier, "the tier's default"),
        };
    let hysteresis = number(policy, "hysteresis_ratio").unwrap_or(0.0).max(0.0);
    Limit { value: base + hysteresis, base, hysteresis, from }
}

/// The loss per byte of text, which gates nothing.
fn per_byte(report: &Value) -> Option<Fact> {
    let metrics = Node::root("", report).get("secondary_metrics").elements();
    let metric = metrics.into_iter().find(|metric| metric.get("kind") == NLL_PER_BYTE)?;
    let (baseline, subject) = (metric.get("baseline").f64()?, metric.get("final").f64()?);
    let bits = |nats: f64| text::significant(nats / std::f64::consts::LN_2, 4);
    Some(Fact::new("Bits per byte, not gated", format!("{} → {}", bits(baseline), bits(subject))))
}

#[derive(Serialize)]
pub(super) struct MetricView {
    pub(super) kind: String,
    pub(super) picture: Option<String>,
    pub(super) missing: &'static str,
    pub(super) caption: String,
    pub(super) facts: Vec<Fact>,
}

/// The view of a difference of accuracies.
fn accuracy_view(metric: &Metric, difference: &Difference, report: &Value) -> MetricView {
    let counts = |path: &str| {
        let counts = at(report, path);
        let (right, all) = (number(counts, "n_correct")?, number(counts, "n_total")?);
        Some(format!(" ({} of {})", text::whole(right), text::whole(all)))
    };
    let value = |accuracy: Option<f64>, path: &str| {
        or_dash(accuracy.map(|x| text::significant(x, 4) + &counts(path).unwrap_or_default()))
    };
    let mut facts = vec![
        Fact::new("Baseline accuracy", value(metric.baseline, "baseline_ref.metrics.classification")),
        Fact::new("Subject accuracy", value(metric.last, "metrics.classification")),
        Fact::new("Difference", text::points(difference.delta)),
    ];
    if let Some((low, high)) = difference.interval {
        let name = metric.level.as_ref().map_or_else(|| "CI".into(), |level| format!("{level} CI"));
        facts.push(Fact::new(&name, format!("{} to {}", text::points(low), text::points(high))));
    }
    let picture = svg::ruler(&svg::Ruler {
        id: "difference",
        scale: svg::Scale::Points,
        value: difference.delta,
        interval: difference.interval,
        least: difference.limit,
        most: None,
        axis: "subject − baseline, percentage points",
        title: "Difference of the accuracies of subject and baseline",
    });
    let caption = match difference.limit {
        Some(limit) => format!(
            "Whiskers: {} of the paired difference. Its lower end must be at least {}. An example is answered right if its right choice alone has the smallest loss.",
            metric.interval_name(),
            text::points(limit)
        ),
        None => "The report states no limit for the difference.".into(),
    };
    MetricView {
        kind: metric.kind.clone(),
        picture,
        missing: "No picture: the report contains no finite difference.",
        caption,
        facts,
    }
}

impl MetricView {
    pub(super) fn new(metric: &Metric, report: &Value) -> MetricView {
        if let Some(difference) = &metric.difference {
            return accuracy_view(metric, difference, report);
        }
        let picture = metric.ratio.filter(|ratio| *ratio > 0.0).and_then(|value| {
            svg::ruler(&svg::Ruler {
                id: "ratio",
                scale: svg::Scale::Ratios,
                value,
                interval: metric.interval,
                least: None,
                most: metric.limit.as_ref().map(|limit| limit.value),
                axis: "subject ÷ baseline",
                title: "Ratio of the subject to the baseline",
            })
        });
        let values = |x: Option<f64>| or_dash(x.map(|x| text::significant(x, 5)));
        let unit = if metric.perplexity { " perplexity" } else { "" };
        let mut facts = vec![
            Fact::new(&format!("Baseline{unit}"), values(metric.baseline)),
            Fact::new(&format!("Subject{unit}"), values(metric.last)),
            Fact::new("Ratio", or_dash(metric.ratio.map(text::ratio))),
            Fact::new("Change", or_dash(metric.ratio.map(text::percent_change))),
        ];
        facts.extend(per_byte(report));
        let caption = match (&metric.limit, metric.interval) {
            (Some(limit), interval) => {
                let whiskers = match interval {
                    Some(_) => format!("Whiskers: {} of the paired difference. ", metric.interval_name()),
                    None => "The report contains no usable confidence interval. ".into(),
                };
                let hysteresis = if limit.hysteresis > 0.0 {
                    format!(" ({} and {} hysteresis)", text::ratio(limit.base), text::ratio(limit.hysteresis))
                } else {
                    String::new()
                };
                format!("{whiskers}Limit {}{hysteresis}, from {}.", text::ratio(limit.value), limit.from)
            }
            (None, _) => "This page has no limit for this kind of metric; see the gates.".into(),
        };
        if let Some((lo, hi)) = metric.interval {
            facts.push(Fact::new(
                &metric.level.as_ref().map_or_else(|| "CI".into(), |level| format!("{level} CI")),
                format!("{} to {}", text::ratio(lo), text::ratio(hi)),
            ));
        }
        MetricView {
            kind: metric.kind.clone(),
            picture,
            missing: "No picture: the report contains no finite, positive ratio.",
            caption,
            facts,
        }
    }
}

#[derive(Serialize)]
pub(super) struct DriftView {
    pub(super) picture: Option<String>,
    pub(super) facts: Vec<Fact>,
    pub(super) caption: String,
}

impl DriftView {
    pub(super) fn new(report: &Value, metric: &Metric) -> DriftView {
        let (lo, hi) = metric.drift_band;
        let unit = if metric.perplexity { " perplexity" } else { "" };
        let values = |x: Option<f64>| or_dash(x.map(|x| text::significant(x, 5)));
        let picture = metric.drift().filter(|_| metric.perplexity).and_then(|value| {
            svg::ruler(&svg::Ruler {
                id: "drift",
                scale: svg::Scale::Ratios,
                value,
                interval: None,
                least: Some(lo),
                most: Some(hi),
                axis: "final ÷ preview",
                title: "Ratio of the subject's final windows to its preview windows",
            })
        });
        let count = |path: &str| or_dash(number(report, path).map(text::whole));
        let noun = if metric.difference.is_some() { "example" } else { "window" };
        DriftView {
            picture,
            facts: vec![
                Fact::new(&format!("Preview{unit}"), values(metric.preview)),
                Fact::new(&format!("Final{unit}"), values(metric.last)),
                match &metric.difference {
                    Some(_) => Fact::new("Drift", or_dash(metric.shown_drift())),
                    None => Fact::new("Drift", or_dash(metric.drift().map(text::ratio))),
                },
            ],
            caption: format!(
                "The subject alone: {} preview {noun}s against {} final {noun}s. A large drift means that the two arms differ, not that the edit is bad.",
                count("dataset.windows.preview"),
                count("dataset.windows.final")
            ),
        }
    }
}
