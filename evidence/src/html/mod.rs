//! The evaluation report as one self-contained page: no script, no network, nothing trusted.
//!
//! The page restates what a report and its runtime manifest say; it checks nothing that `verify` checks, and says so.
//! Every function here is total: a member that is missing or of the wrong type is shown as a dash, never guessed.

mod boundary;
mod svg;
mod text;

use crate::Error;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use text::DASH;

const TEMPLATE: &str = include_str!("page.html.j2");
const STYLE: &str = include_str!("page.css");

/// The page for an evaluation report (`evaluation.report.json`) and, where there is one, its `runtime.manifest.json`.
///
/// Both are taken as they are: any JSON gives a page, and no text of theirs becomes markup.
///
/// # Errors
/// Only if the built-in template cannot be rendered, which is a fault of this program.
pub fn render(report: &Value, manifest: Option<&Value>) -> Result<String, Error> {
    let fault = |e: minijinja::Error| Error::System(format!("the HTML page could not be rendered: {e:#}"));
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(fault)?;
    let mut templates = Environment::new();
    templates.set_syntax(syntax);
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    // Untrusted text meets the page here and nowhere else.
    templates.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => text::write(out, text).map_err(minijinja::Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    templates.add_template("page", TEMPLATE).map_err(fault)?;
    let page = templates.get_template("page").map_err(fault)?;
    page.render(minijinja::value::Serde(Page::new(report, manifest))).map_err(fault)
}

// ---------------------------------------------------------------------------------------------------- reading

static NULL: Value = Value::Null;

/// The member at a dotted path; null where any step of it is missing.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(value, |value, name| value.get(name)).unwrap_or(&NULL)
}

/// A finite number.
fn number(value: &Value, path: &str) -> Option<f64> {
    at(value, path).as_f64().filter(|x| x.is_finite())
}

fn flag(value: &Value, path: &str) -> Option<bool> {
    at(value, path).as_bool()
}

/// The first string among `paths`, or a dash.
fn first(value: &Value, paths: &[&str]) -> String {
    paths.iter().map(|path| text::string(at(value, path))).find(|s| s != DASH).unwrap_or_else(|| DASH.into())
}

fn pair(value: &Value, path: &str) -> Option<(f64, f64)> {
    match at(value, path).as_array()?.as_slice() {
        [lo, hi] => {
            Some((lo.as_f64()?, hi.as_f64()?)).filter(|(lo, hi)| lo.is_finite() && hi.is_finite() && lo <= hi)
        }
        _ => None,
    }
}

/// A range given as `[lo, hi]` or `{min, max}`.
fn band(value: &Value, path: &str) -> Option<(f64, f64)> {
    pair(value, path)
        .or_else(|| Some((number(at(value, path), "min")?, number(at(value, path), "max")?)))
        .filter(|(lo, hi)| *lo > 0.0 && lo < hi)
}

/// A title as a word of a sentence; abbreviations stay as they are.
fn in_sentence(title: &str) -> String {
    if title.starts_with("RMT") { title.to_owned() } else { title.to_lowercase() }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| DASH.into())
}

fn many(count: usize, one: &str, several: &str) -> String {
    format!("{} {}", text::whole(count as f64), if count == 1 { one } else { several })
}

/// `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [start @ .., last] => format!("{} and {last}", start.join(", ")),
    }
}

// ---------------------------------------------------------------------------------------------------- the page

#[derive(Serialize)]
struct Page {
    style: &'static str,
    title: String,
    run_id: String,
    measured_at: String,
    verdict: Verdict,
    /// What undoes the verdict's worth; before it.
    dangers: Vec<Warning>,
    /// What qualifies it; after it.
    cautions: Vec<Warning>,
    compared: Compared,
    metric: MetricView,
    gates: Vec<Gate>,
    windows: WindowsView,
    drift: DriftView,
    guards: Vec<GuardView>,
    boundary: boundary::Boundary,
    commands: Vec<Command>,
    verify_notes: Vec<String>,
    footer: Vec<Fact>,
}

/// A label and what belongs to it.
#[derive(Serialize, Clone)]
struct Fact {
    name: String,
    value: String,
    /// Set in the fixed-width face.
    code: bool,
}

impl Fact {
    fn new(name: &str, value: impl Into<String>) -> Fact {
        Fact { name: name.into(), value: value.into(), code: false }
    }

    fn code(name: &str, value: impl Into<String>) -> Fact {
        Fact { name: name.into(), value: value.into(), code: true }
    }
}

#[derive(Serialize)]
struct Warning {
    /// `danger` or `caution`.
    class: &'static str,
    title: String,
    text: String,
    items: Vec<String>,
}

#[derive(Serialize)]
struct Command {
    what: &'static str,
    line: String,
}

/// An outcome, told by a sign and a word besides its colour.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    class: &'static str,
    sign: &'static str,
    word: &'static str,
}

const PASS: Mark = Mark { class: "pass", sign: "✓", word: "pass" };
const FAIL: Mark = Mark { class: "fail", sign: "✕", word: "fail" };
const WARN: Mark = Mark { class: "warn", sign: "!", word: "warning" };
const SKIPPED: Mark = Mark { class: "none", sign: "○", word: "not evaluated" };
const ABSENT: Mark = Mark { class: "none", sign: "○", word: "not recorded" };
const MONITORED: Mark = Mark { class: "none", sign: "○", word: "monitored only" };

fn mark(passed: Option<bool>) -> Mark {
    match passed {
        Some(true) => PASS,
        Some(false) => FAIL,
        None => ABSENT,
    }
}

impl Page {
    fn new(report: &Value, manifest: Option<&Value>) -> Page {
        let metric = Metric::read(report);
        let guards = guards(report);
        let gates = gates(report, &metric, &guards);
        let contradictions = contradictions(report, &metric);
        let verdict = Verdict::new(report, &metric, &gates, !contradictions.is_empty());
        let subject = first(report, &["meta.model_id", "edit_name"]);
        let boundary = boundary::Boundary::new(manifest);

        let mut warnings = boundary::warnings(manifest);
        if !contradictions.is_empty() {
            warnings.insert(
                0,
                Warning {
                    class: "danger",
                    title: "The report contradicts itself".into(),
                    text: "What its gates claim does not follow from its own numbers.".into(),
                    items: contradictions,
                },
            );
        }
        warnings.extend(report_warnings(report));
        let (dangers, cautions) = warnings.into_iter().partition(|w| w.class == "danger");

        let nothing = Value::Null;
        let manifest = manifest.unwrap_or(&nothing);
        Page {
            style: STYLE,
            title: text::plain(&format!("{} · {subject} · InvarLock evaluation report", verdict.word)),
            run_id: text::string(at(report, "run_id")),
            measured_at: measured_at(report, manifest),
            verdict,
            dangers,
            cautions,
            compared: Compared::new(report, manifest),
            metric: MetricView::new(&metric),
            gates,
            windows: WindowsView::new(report),
            drift: DriftView::new(report, &metric),
            guards,
            boundary,
            commands: commands(report, manifest),
            verify_notes: verify_notes(report, manifest),
            footer: footer(report, manifest),
        }
    }
}

// ---------------------------------------------------------------------------------------------------- metric

/// The primary metric and the limit it is held to, as the report states them.
struct Metric {
    kind: String,
    /// Lower is better and the ratio is limited from above.
    perplexity: bool,
    preview: Option<f64>,
    last: Option<f64>,
    baseline: Option<f64>,
    ratio: Option<f64>,
    interval: Option<(f64, f64)>,
    /// `95 %`, where the report says so.
    level: Option<String>,
    limit: Option<Limit>,
    /// Limits of this report do not follow from its numbers.
    tiny_relax: bool,
    drift_band: (f64, f64),
}

struct Limit {
    value: f64,
    base: f64,
    hysteresis: f64,
    from: &'static str,
}

impl Metric {
    fn read(report: &Value) -> Metric {
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
            tiny_relax,
            drift_band: band(pm, "drift_band")
                .or_else(|| band(report, "meta.pm_drift_band"))
                .unwrap_or((0.95, 1.05)),
            kind,
        }
    }

    fn noun(&self) -> &'static str {
        match self.kind.as_str() {
            kind if kind.starts_with("ppl") => "Perplexity",
            "accuracy" => "Accuracy",
            _ => "Primary metric",
        }
    }

    fn drift(&self) -> Option<f64> {
        Some(self.last? / self.preview.filter(|x| *x > 0.0)?).filter(|x| x.is_finite())
    }

    fn interval_name(&self) -> String {
        match &self.level {
            Some(level) => format!("{level} confidence interval"),
            None => "confidence interval".into(),
        }
    }
}

/// The upper limit of the ratio: what the report resolved, else the default of its tier (`spec/verify.md` section 7).
fn limit(report: &Value) -> Limit {
    let policy = at(report, "resolved_policy.metrics.pm_ratio");
    let by_tier = match at(report, "auto.tier").as_str() {
        Some("conservative") => 1.05,
        Some("aggressive") => 1.20,
        _ => 1.10,
    };
    let (base, from) =
        match (number(report, "meta.pm_acceptance_range.max"), number(policy, "ratio_limit_base")) {
            (Some(max), _) if max > 0.0 => (max, "the acceptance range in the report"),
            (_, Some(base)) => (base, "the policy in the report"),
            _ => (by_tier, "the tier's default"),
        };
    let hysteresis = number(policy, "hysteresis_ratio").unwrap_or(0.0).max(0.0);
    Limit { value: base + hysteresis, base, hysteresis, from }
}

#[derive(Serialize)]
struct MetricView {
    kind: String,
    picture: Option<String>,
    missing: &'static str,
    caption: String,
    facts: Vec<Fact>,
}

impl MetricView {
    fn new(metric: &Metric) -> MetricView {
        let picture = metric.ratio.filter(|ratio| *ratio > 0.0).and_then(|value| {
            svg::ruler(&svg::Ruler {
                id: "ratio",
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
        let caption = match (&metric.limit, metric.interval) {
            (Some(limit), interval) => {
                let whiskers = match interval {
                    Some(_) => format!("Whiskers: {} of the paired difference. ", metric.interval_name()),
                    None => "The report holds no usable confidence interval. ".into(),
                };
                let hysteresis = if limit.hysteresis > 0.0 {
                    format!(" ({} and {} hysteresis)", text::ratio(limit.base), text::ratio(limit.hysteresis))
                } else {
                    String::new()
                };
                format!("{whiskers}Limit {}{hysteresis}, from {}.", text::ratio(limit.value), limit.from)
            }
            (None, _) => "This page knows no limit for this kind of metric; see the gates.".into(),
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
            missing: "There is no picture: the report holds no finite, positive ratio.",
            caption,
            facts,
        }
    }
}

// ---------------------------------------------------------------------------------------------------- verdict

#[derive(Serialize)]
struct Verdict {
    class: &'static str,
    word: &'static str,
    reason: String,
    remarks: Vec<String>,
    facts: Vec<Fact>,
}

impl Verdict {
    fn new(report: &Value, metric: &Metric, gates: &[Gate], contradicted: bool) -> Verdict {
        let failed: Vec<String> =
            gates.iter().filter(|g| g.decides && g.mark == FAIL).map(|g| in_sentence(&g.name)).collect();
        let unknown: Vec<String> =
            gates.iter().filter(|g| g.decides && g.mark == ABSENT).map(|g| in_sentence(&g.name)).collect();
        let skipped: Vec<String> =
            gates.iter().filter(|g| g.decides && g.mark == SKIPPED).map(|g| in_sentence(&g.name)).collect();
        let passed = gates.iter().filter(|g| g.decides && g.mark == PASS).count();
        let decisive = gates.iter().filter(|g| g.decides).count();

        let (class, word) = if !failed.is_empty() || contradicted {
            ("fail", "FAIL")
        } else if !unknown.is_empty() || !at(report, "validation").is_object() {
            ("unknown", "NO VERDICT")
        } else {
            ("pass", "PASS")
        };
        let mut remarks = Vec::new();
        if contradicted {
            remarks.push("The report contradicts itself.".to_owned());
        }
        if let Some(gate) = gates.first().filter(|g| g.mark == FAIL && !g.note.is_empty()) {
            remarks.push(format!(
                "The metric’s gate failed though its ratio is within the limit: {}.",
                gate.note
            ));
        }
        let elsewhere: Vec<String> = failed.iter().filter(|n| *n != "primary metric").cloned().collect();
        if !elsewhere.is_empty() {
            let verb = if elsewhere.len() == 1 { "Failed gate" } else { "Failed gates" };
            remarks.push(format!("{verb}: {}.", listed(&elsewhere)));
        }
        if !unknown.is_empty() {
            remarks.push(format!("The report does not state the outcome of: {}.", listed(&unknown)));
        }
        if !skipped.is_empty() {
            remarks.push(format!("Not evaluated: {}.", listed(&skipped)));
        }
        let mut facts = vec![Fact::new("Ratio", or_dash(metric.ratio.map(text::ratio)))];
        facts.push(Fact::new("Change", or_dash(metric.ratio.map(text::percent_change))));
        facts.push(Fact::new("Limit", or_dash(metric.limit.as_ref().map(|l| text::ratio(l.value)))));
        facts.push(Fact::new("Gates passed", format!("{passed} of {decisive}")));
        Verdict { class, word, reason: reason(metric), remarks, facts }
    }
}

/// The verdict in one sentence: the ratio, its interval, and on which side of the limit it lies.
fn reason(metric: &Metric) -> String {
    let Some(ratio) = metric.ratio else {
        return "The report holds no finite ratio of the subject to the baseline.".into();
    };
    let noun = metric.noun().to_lowercase();
    let interval = metric.interval.map_or(String::new(), |(lo, hi)| {
        let level = metric.level.as_ref().map_or(String::new(), |level| format!("{level} "));
        format!(" ({level}CI {} to {})", text::ratio(lo), text::ratio(hi))
    });
    let start = format!("The subject’s {noun} is {} × the baseline’s{interval}", text::ratio(ratio));
    let Some(limit) = &metric.limit else { return format!("{start}.") };
    let shown = text::ratio(limit.value);
    if ratio > limit.value {
        return format!("{start}, above the limit of {shown}.");
    }
    match metric.interval {
        Some((_, hi)) if hi > limit.value => {
            format!("{start}, below the limit of {shown}, though the interval reaches above it.")
        }
        _ => format!("{start}, below the limit of {shown}."),
    }
}

/// Where the report's flags do not follow from its own numbers.
fn contradictions(report: &Value, metric: &Metric) -> Vec<String> {
    let says = |name: &str| at(report, "validation").get(name).and_then(Value::as_bool);
    let mut found = Vec::new();
    if says("primary_metric_acceptable") == Some(true) {
        if let (Some(ratio), Some(limit)) = (metric.ratio, &metric.limit)
            && ratio > limit.value * (1.0 + 1e-9)
            && !metric.tiny_relax
        {
            found.push(format!(
                "The primary metric is marked acceptable, but its ratio {} is above the limit {}.",
                text::ratio(ratio),
                text::ratio(limit.value)
            ));
        }
        if flag(report, "primary_metric.invalid") == Some(true) {
            found.push("The primary metric is marked acceptable and invalid.".into());
        }
        if metric.ratio.is_none() {
            found.push("The primary metric is marked acceptable, but there is no finite ratio.".into());
        }
    }
    if let (Some(ratio), Some(last), Some(baseline)) = (metric.ratio, metric.last, metric.baseline)
        && metric.perplexity
        && baseline > 0.0
        && (ratio - last / baseline).abs() > 1e-6 * ratio.abs().max((last / baseline).abs())
    {
        found.push(format!(
            "The recorded ratio is {}, but subject ÷ baseline is {}.",
            text::significant(ratio, 7),
            text::significant(last / baseline, 7)
        ));
    }
    if let (Some(drift), (lo, hi)) = (metric.drift(), metric.drift_band)
        && metric.perplexity
        && says("preview_final_drift_acceptable") == Some(true)
        && !(lo..=hi).contains(&drift)
        && !metric.tiny_relax
    {
        found.push(format!(
            "The drift is marked acceptable, but {} lies outside {} to {}.",
            text::ratio(drift),
            text::ratio(lo),
            text::ratio(hi)
        ));
    }
    if says("invariants_pass") == Some(true)
        && matches!(at(report, "invariants.status").as_str(), Some("fail" | "error"))
    {
        found.push("The invariants are marked as passed, but their status is a failure.".into());
    }
    for (name, word, member, claim) in [
        ("spectral_stable", "spectral", "spectral.passed", "spectral guard"),
        ("rmt_stable", "rmt", "rmt.stable", "RMT guard"),
    ] {
        let evaluated = flag(at(report, word), "evaluated") != Some(false);
        if evaluated && says(name) == Some(true) && flag(report, member) == Some(false) {
            found.push(format!("The {claim} is marked stable, but its own result says otherwise."));
        }
    }
    found
}

/// What the report itself says to be wary of.
fn report_warnings(report: &Value) -> Vec<Warning> {
    let mut items = Vec::new();
    let reason = at(report, "primary_metric.degraded_reason");
    for (member, words) in [
        ("primary_metric.invalid", "The primary metric is marked invalid"),
        ("primary_metric.degraded", "The primary metric is marked degraded"),
        ("primary_metric.unstable", "The primary metric is marked unstable (few replicates or tokens)"),
        ("primary_metric.estimated", "The primary metric is estimated, not measured"),
        ("auto.tiny_relax", "Gates were relaxed for a tiny evaluation"),
    ] {
        if flag(report, member) == Some(true) {
            let because = match reason.as_str() {
                Some(reason) if member.ends_with("invalid") || member.ends_with("degraded") => {
                    format!(": {reason}")
                }
                _ => String::new(),
            };
            items.push(format!("{words}{because}."));
        }
    }
    if at(report, "schema_version") != "v1" {
        items.push(format!(
            "The report’s schema version is {}, not v1; members may mean something else.",
            text::compact("", at(report, "schema_version"))
        ));
    }
    if items.is_empty() {
        return Vec::new();
    }
    vec![Warning {
        class: "caution",
        title: "Read the numbers with care".into(),
        text: "The report says of itself:".into(),
        items,
    }]
}

// ---------------------------------------------------------------------------------------------------- compared

#[derive(Serialize)]
struct Compared {
    baseline: Vec<Fact>,
    subject: Vec<Fact>,
    settings: Vec<Fact>,
    dataset: Vec<Fact>,
}

impl Compared {
    fn new(report: &Value, manifest: &Value) -> Compared {
        let count = |path: &str| or_dash(number(report, path).map(text::whole));
        let tree = |side: &str| {
            at(manifest, "context.sides").get(side).map_or(&NULL, |s| at(s, "checkpoint.tree_sha256"))
        };
        let mut baseline = vec![Fact::code("Checkpoint", first(report, &["baseline_ref.model_id"]))];
        let mut subject = vec![Fact::code("Checkpoint", first(report, &["meta.model_id"]))];
        for (facts, side, run) in
            [(&mut baseline, "baseline", "baseline_ref.run_id"), (&mut subject, "subject", "run_id")]
        {
            facts
                .push(Fact::code("Tree digest", or_dash(tree(side).as_str().map(|d| format!("sha256:{d}")))));
            facts.push(Fact::code("Run", first(report, &[run])));
        }
        subject.push(Fact::new("Edit", first(report, &["edit_name", "edit.name"])));
        baseline.push(Fact::new(
            "Measured",
            match at(manifest, "context.sides.baseline.reused") {
                Value::Bool(true) => "earlier; reused by digest",
                Value::Bool(false) => "in this run",
                _ => DASH,
            },
        ));

        let profile = first(report, &["context.profile", "meta.profile", "provenance.window_plan.profile"]);
        let profile = if profile == DASH { first(manifest, &["context.profile"]) } else { profile };
        let mut settings = vec![
            Fact::new("Profile", profile),
            Fact::new("Tier", first(report, &["auto.tier"])),
            Fact::new("Metric", first(report, &["primary_metric.kind"])),
            Fact::new("Adapter", first(report, &["meta.adapter"])),
            Fact::new("Device", first(report, &["meta.device", "telemetry.device"])),
        ];
        if let (Some(label), Some(width)) =
            (at(report, "confidence.label").as_str(), number(report, "confidence.width"))
        {
            let against = number(report, "confidence.threshold")
                .map_or(String::new(), |t| format!(", {} counts as narrow", text::significant(t, 2)));
            settings
                .push(Fact::new("Confidence", format!("{label} (CI width {}{against})", text::ratio(width))));
        }
        let tokens = number(report, "dataset.hash.total_tokens").or_else(|| {
            Some(
                number(report, "telemetry.preview_total_tokens")?
                    + number(report, "telemetry.final_total_tokens")?,
            )
        });
        let split = first(report, &["dataset.split"]);
        let provider = first(report, &["dataset.provider"]);
        let dataset = vec![
            Fact::new(
                "Provider",
                if split == DASH || split == "None" {
                    provider
                } else {
                    format!("{provider}, split {split}")
                },
            ),
            Fact::new(
                "Windows",
                format!(
                    "{} preview + {} final",
                    count("dataset.windows.preview"),
                    count("dataset.windows.final")
                ),
            ),
            Fact::new("Window length", format!("{} tokens", count("dataset.seq_len"))),
            Fact::new("Tokens", or_dash(tokens.map(text::whole))),
            Fact::new(
                "Paired",
                format!(
                    "{} windows, match {}",
                    count("dataset.windows.stats.paired_windows"),
                    or_dash(number(report, "dataset.windows.stats.window_match_fraction").map(text::ratio))
                ),
            ),
            Fact::code("Dataset digest", first(report, &["dataset.hash.dataset"])),
            Fact::code("Tokenizer digest", first(report, &["meta.tokenizer_hash", "dataset.tokenizer.hash"])),
        ];
        Compared { baseline, subject, settings, dataset }
    }
}

// ---------------------------------------------------------------------------------------------------- gates

#[derive(Serialize)]
struct Gate {
    name: String,
    value: String,
    limit: String,
    mark: Mark,
    note: String,
    /// Counts towards the verdict.
    decides: bool,
}

fn gates(report: &Value, metric: &Metric, guards: &[GuardView]) -> Vec<Gate> {
    let says = |name: &str| mark(at(report, "validation").get(name).and_then(Value::as_bool));
    let gate = |name: &str, value: String, limit: String, mark: Mark, note: String| Gate {
        name: name.into(),
        value,
        limit,
        mark,
        note,
        decides: true,
    };
    let mut gates = Vec::new();

    let tokens = tokens(report);
    let mut note = String::new();
    if says("primary_metric_acceptable") == FAIL
        && metric.ratio.is_some_and(|r| metric.limit.as_ref().is_some_and(|l| r <= l.value))
    {
        note = match &tokens {
            Some(t) if !t.enough => "too few tokens were measured".into(),
            _ => "the ratio is not the cause; the report names no other".into(),
        };
    }
    gates.push(gate(
        "Primary metric",
        or_dash(metric.ratio.map(|r| format!("ratio {}", text::ratio(r)))),
        match &metric.limit {
            Some(limit) => format!("≤ {}", text::ratio(limit.value)),
            None if metric.kind == "accuracy" => or_dash(
                number(report, "resolved_policy.metrics.accuracy.delta_min_pp")
                    .map(|pp| format!("≥ {} percentage points", text::significant(pp, 2))),
            ),
            None => DASH.into(),
        },
        says("primary_metric_acceptable"),
        note,
    ));
    if let Some(tokens) = tokens {
        gates.push(Gate {
            name: "Tokens measured".into(),
            value: text::whole(tokens.total),
            limit: format!("≥ {}", text::whole(tokens.least)),
            mark: if tokens.enough { PASS } else { FAIL },
            note: "part of the primary metric’s gate; computed by this page".into(),
            decides: false,
        });
    }
    let (lo, hi) = metric.drift_band;
    gates.push(gate(
        "Preview to final drift",
        or_dash(metric.drift().map(|d| format!("ratio {}", text::ratio(d)))),
        if metric.perplexity { format!("{} to {}", text::ratio(lo), text::ratio(hi)) } else { DASH.into() },
        says("preview_final_drift_acceptable"),
        String::new(),
    ));

    let not_run = |name: &str| guards.iter().any(|g| g.id == name && g.mark == SKIPPED);
    let guarded = |flag: &str, name: &str| if not_run(name) { SKIPPED } else { says(flag) };
    let invariants = at(report, "invariants");
    gates.push(gate(
        "Invariants",
        or_dash(
            number(invariants, "summary.violations_found").map(|n| format!("{} violations", text::whole(n))),
        ),
        "no failure".into(),
        guarded("invariants_pass", "invariants"),
        String::new(),
    ));
    let spectral = at(report, "spectral");
    let caps = number(spectral, "max_caps").or_else(|| number(spectral, "summary.max_caps"));
    gates.push(gate(
        "Spectral stability",
        or_dash(number(spectral, "caps_applied").map(|n| format!("{} caps applied", text::whole(n)))),
        or_dash(caps.map(|n| format!("≤ {}", text::whole(n)))),
        guarded("spectral_stable", "spectral"),
        String::new(),
    ));
    let rmt = at(report, "rmt");
    gates.push(gate(
        "RMT stability",
        or_dash(
            at(rmt, "epsilon_violations").as_array().map(|v| format!("{} families out of band", v.len())),
        ),
        or_dash(number(rmt, "epsilon_default").map(|e| format!("ε {}", text::significant(e, 2)))),
        guarded("rmt_stable", "rmt"),
        String::new(),
    ));

    let overhead = at(report, "guard_overhead");
    if overhead.as_object().is_some_and(|o| !o.is_empty()) || says("guard_overhead_acceptable") != ABSENT {
        let skipped = flag(overhead, "skipped") == Some(true) || at(overhead, "mode") == "skipped";
        let evaluated = flag(overhead, "evaluated") == Some(true) && !skipped;
        gates.push(gate(
            "Guard overhead",
            or_dash(number(overhead, "overhead_ratio").map(|r| format!("ratio {}", text::ratio(r)))),
            or_dash(number(overhead, "overhead_threshold").map(|t| format!("≤ {}", text::ratio(1.0 + t)))),
            if evaluated { says("guard_overhead_acceptable") } else { SKIPPED },
            at(overhead, "skip_reason").as_str().unwrap_or_default().into(),
        ));
    }
    let tail = at(report, "primary_metric_tail");
    if tail.is_object() || says("primary_metric_tail_acceptable") != ABSENT {
        let q = number(tail, "policy.quantile").unwrap_or(0.95);
        let name =
            format!("q{}", text::significant((q * 1e4).round() / 100.0, 4).trim_end_matches(['0', '.']));
        let measured = tail.get("stats").and_then(|s| s.get(&name)).and_then(Value::as_f64);
        let stated = says("primary_metric_tail_acceptable");
        let warned = flag(tail, "passed") == Some(false) || flag(tail, "warned") == Some(true);
        let advisory = at(tail, "mode") == "warn";
        gates.push(gate(
            "Tail of the windows",
            or_dash(measured.map(|x| format!("Δ {name} {}", text::difference(x)))),
            or_dash(number(tail, "policy.quantile_max").map(|x| format!("≤ {}", text::significant(x, 3)))),
            match stated {
                _ if flag(tail, "evaluated") == Some(false) => SKIPPED,
                PASS if warned => WARN,
                other => other,
            },
            if advisory { "advisory: warns, does not fail".into() } else { String::new() },
        ));
    }
    // Upstream's later flags that decide; the rest of the allow-list only informs.
    for (name, words) in
        [("guard_warning_policy_acceptable", "Guard warnings"), ("moe_identity_ok", "Expert identity")]
    {
        let stated = says(name);
        if stated != ABSENT {
            let count = match name {
                "guard_warning_policy_acceptable" => number(report, "guard_warnings.warning_count"),
                _ => None,
            };
            gates.push(gate(
                words,
                or_dash(count.map(|n| format!("{} warnings", text::whole(n)))),
                DASH.into(),
                stated,
                String::new(),
            ));
        }
    }
    if at(report, "validation.hysteresis_applied") == &Value::Bool(true)
        && let Some(gate) = gates.first_mut()
        && gate.note.is_empty()
    {
        gate.note = "passed only by the hysteresis".into();
    }
    gates
}

struct Tokens {
    total: f64,
    least: f64,
    enough: bool,
}

/// The token floor of the tier, as `spec/verify.md` section 7 applies it.
fn tokens(report: &Value) -> Option<Tokens> {
    let policy = at(report, "resolved_policy.metrics.pm_ratio");
    let total =
        number(report, "telemetry.preview_total_tokens")? + number(report, "telemetry.final_total_tokens")?;
    let floor = number(policy, "min_tokens").filter(|n| *n > 0.0)?;
    let coverage = at(report, "dataset.windows.stats.coverage");
    let covered = flag(coverage, "preview.ok") == Some(true) && flag(coverage, "final.ok") == Some(true);
    let tolerance = number(policy, "min_tokens_tolerance").unwrap_or(0.02).clamp(0.0, 1.0);
    let least = if covered { (floor * (1.0 - tolerance)).floor() } else { floor };
    Some(Tokens { total, least, enough: total >= least })
}

// ---------------------------------------------------------------------------------------------------- windows

#[derive(Serialize)]
struct WindowsView {
    picture: Option<String>,
    /// Why there is no picture.
    missing: String,
    caption: String,
    quantiles: Vec<Fact>,
    source: &'static str,
    notes: Vec<String>,
}

/// Losses of one arm by window id; the reason where they cannot be had.
fn losses(arm: &Value) -> Result<HashMap<String, (f64, f64)>, &'static str> {
    let (Some(ids), Some(losses)) = (at(arm, "window_ids").as_array(), at(arm, "logloss").as_array()) else {
        return Err("are not in the report");
    };
    if ids.len() != losses.len() {
        return Err("do not have one loss for each window id");
    }
    let weights = at(arm, "token_counts").as_array().map(Vec::as_slice).unwrap_or_default();
    let mut by_id = HashMap::with_capacity(ids.len());
    for (i, (id, loss)) in ids.iter().zip(losses).enumerate() {
        let id = match id {
            Value::String(id) => id.trim().to_owned(),
            Value::Number(id) => id.to_string(),
            _ => return Err("have a window id that is neither a number nor a string"),
        };
        let weight = weights.get(i).and_then(Value::as_f64).unwrap_or(f64::NAN);
        if by_id.insert(id, (loss.as_f64().unwrap_or(f64::NAN), weight)).is_some() {
            return Err("hold the same window id twice");
        }
    }
    if by_id.is_empty() { Err("are empty") } else { Ok(by_id) }
}

/// Linear quantile of sorted values, at position (n−1)q.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = (sorted.len().saturating_sub(1)) as f64 * q;
    let (below, t) = (position.floor() as usize, position.fract());
    match (sorted.get(below), sorted.get(below + 1)) {
        (Some(a), Some(b)) => a + (b - a) * t,
        (Some(a), None) => *a,
        _ => f64::NAN,
    }
}

const QUANTILES: [(&str, f64); 4] = [("q50", 0.50), ("q90", 0.90), ("q95", 0.95), ("q99", 0.99)];

impl WindowsView {
    fn new(report: &Value) -> WindowsView {
        let missing = |side: &str, why: &str| WindowsView {
            picture: None,
            missing: format!("The distribution cannot be shown: the {side}’s final windows {why}."),
            caption: String::new(),
            quantiles: recorded_quantiles(report),
            source: "as the report records them",
            notes: Vec::new(),
        };
        let baseline = match losses(at(report, "baseline_windows.final")) {
            Ok(losses) => losses,
            Err(why) => return missing("baseline", why),
        };
        let subject = match losses(at(report, "evaluation_windows.final")) {
            Ok(losses) => losses,
            Err(why) => return missing("subject", why),
        };
        let (mut deltas, mut weighted, mut weights, mut unusable) = (Vec::new(), 0.0, 0.0, 0usize);
        for (id, (after, weight)) in &subject {
            let Some((before, _)) = baseline.get(id) else { continue };
            let delta = after - before;
            if !delta.is_finite() {
                unusable += 1;
                continue;
            }
            deltas.push(delta);
            weighted += delta * weight;
            weights += weight;
        }
        let unpaired = subject.len() + baseline.len() - 2 * (deltas.len() + unusable);
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
            source: "computed by this page from the raw losses; the mean is weighted by tokens",
            notes,
        }
    }
}

/// Quantiles as the report's tail block holds them.
fn recorded_quantiles(report: &Value) -> Vec<Fact> {
    let stats = at(report, "primary_metric_tail.stats");
    ["q50", "q90", "q95", "q99", "max"]
        .iter()
        .filter_map(|name| number(stats, name).map(|x| Fact::new(name, text::difference(x))))
        .collect()
}

// ---------------------------------------------------------------------------------------------------- drift

#[derive(Serialize)]
struct DriftView {
    picture: Option<String>,
    facts: Vec<Fact>,
    caption: String,
}

impl DriftView {
    fn new(report: &Value, metric: &Metric) -> DriftView {
        let (lo, hi) = metric.drift_band;
        let unit = if metric.perplexity { " perplexity" } else { "" };
        let values = |x: Option<f64>| or_dash(x.map(|x| text::significant(x, 5)));
        let picture = metric.drift().filter(|_| metric.perplexity).and_then(|value| {
            svg::ruler(&svg::Ruler {
                id: "drift",
                value,
                interval: None,
                least: Some(lo),
                most: Some(hi),
                axis: "final ÷ preview",
                title: "Ratio of the subject's final windows to its preview windows",
            })
        });
        let count = |path: &str| or_dash(number(report, path).map(text::whole));
        DriftView {
            picture,
            facts: vec![
                Fact::new(&format!("Preview{unit}"), values(metric.preview)),
                Fact::new(&format!("Final{unit}"), values(metric.last)),
                Fact::new("Drift", or_dash(metric.drift().map(text::ratio))),
            ],
            caption: format!(
                "The subject alone: {} preview windows against {} final windows. A large drift means that the two arms differ, not that the edit is bad.",
                count("dataset.windows.preview"),
                count("dataset.windows.final")
            ),
        }
    }
}

// ---------------------------------------------------------------------------------------------------- guards

#[derive(Serialize)]
struct GuardView {
    id: &'static str,
    name: &'static str,
    what: &'static str,
    mark: Mark,
    decision: String,
    facts: Vec<String>,
    problems: Vec<String>,
    more: usize,
}

fn guards(report: &Value) -> Vec<GuardView> {
    [
        ("invariants", "Invariants", "structure, vocabulary and tied weights are those of the baseline"),
        ("spectral", "Spectral", "the weights’ singular values stay in bounds"),
        ("rmt", "RMT", "random-matrix edge of the activations stays in bounds"),
        ("variance", "Variance", "whether equalising variance would have helped"),
    ]
    .into_iter()
    .map(|(id, name, what)| guard(report, id, name, what))
    .collect()
}

fn guard(report: &Value, id: &'static str, name: &'static str, what: &'static str) -> GuardView {
    const SHOWN: usize = 8;
    let block = at(report, id);
    let skipped = flag(block, "evaluated") == Some(false);
    let stated = |name: &str| at(report, "validation").get(name).and_then(Value::as_bool);
    let mark = match id {
        _ if block.as_object().is_none_or(|b| b.is_empty()) => ABSENT,
        _ if skipped => SKIPPED,
        "invariants" => match at(block, "status").as_str() {
            Some("pass") => PASS,
            Some("warn" | "warning") => WARN,
            Some("fail" | "error") => FAIL,
            _ => ABSENT,
        },
        "spectral" => mark(flag(block, "passed").or_else(|| stated("spectral_stable"))),
        "rmt" => mark(flag(block, "stable").or_else(|| flag(block, "passed"))),
        _ if flag(block, "passed") == Some(false) => FAIL,
        _ if flag(block, "monitor_only") == Some(true) || flag(block, "enabled") == Some(false) => MONITORED,
        _ => mark(flag(block, "passed").or_else(|| flag(block, "predictive_gate.passed"))),
    };
    let mut facts = Vec::new();
    let mut counted = |path: &str, words: &str| {
        if let Some(n) = number(block, path) {
            facts.push(format!("{} {words}", text::whole(n)));
        }
    };
    match id {
        _ if skipped => {}
        "invariants" => {
            counted("summary.checks_performed", "checks");
            counted("summary.violations_found", "violations");
            counted("summary.fatal_violations", "fatal");
            counted("summary.warning_violations", "warnings");
        }
        "spectral" => {
            counted("summary.modules_checked", "modules checked");
            counted("caps_applied", "caps applied");
            if let Some(x) = number(block, "summary.max_spectral_norm") {
                facts.push(format!("largest norm {}", text::significant(x, 4)));
            }
        }
        "rmt" => {
            if let Some(families) = at(block, "families").as_object() {
                facts.push(format!("{} families", families.len()));
            }
            if let Some(x) = number(block, "max_edge_ratio") {
                facts.push(format!("largest edge ratio {}", text::ratio(x)));
            }
        }
        _ => {
            if let Some(enabled) = flag(block, "enabled") {
                facts.push(if enabled { "correction enabled" } else { "correction not applied" }.into());
            }
            if let Some(x) = number(block, "gain") {
                facts.push(format!("gain {}", text::significant(x, 3)));
            }
            if let Some(reason) = at(block, "predictive_gate.reason").as_str() {
                facts.push(format!("predictive gate: {}", text::label(reason)));
            }
        }
    }
    if skipped && let Some(reason) = ["skip_reason", "reason"].iter().find_map(|n| at(block, n).as_str()) {
        facts.push(text::label(reason));
    }
    let problems: Vec<&Value> = ["failures", "violations", "epsilon_violations"]
        .iter()
        .filter_map(|name| at(block, name).as_array())
        .find(|list| !list.is_empty())
        .map(|list| list.iter().collect())
        .unwrap_or_default();
    GuardView {
        id,
        name,
        what,
        mark,
        decision: at(block, "decision").as_str().unwrap_or_default().into(),
        facts,
        more: problems.len().saturating_sub(SHOWN),
        problems: problems.iter().take(SHOWN).map(|p| text::compact("", p)).collect(),
    }
}

// ---------------------------------------------------------------------------------------------------- verify, footer

/// The command lines that check what this page shows.
///
/// A name of the report's file is used only if a shell takes it as one plain word: people copy these lines.
fn commands(report: &Value, manifest: &Value) -> Vec<Command> {
    let harmless = |name: &&str| {
        !name.is_empty()
            && name.len() <= 60
            && !name.starts_with(['-', '.'])
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let file = at(manifest, "report.filename").as_str().filter(harmless).unwrap_or("evaluation.report.json");
    let host = at(manifest, "execution_mode") == "host-bypass";
    let profile = match first(report, &["context.profile", "meta.profile"]).as_str() {
        "release" => "release",
        _ => "ci",
    };
    let mut lines = vec![Command {
        what: "The report, its gates and its manifest",
        line: format!("invarlock verify --profile {profile} {file}"),
    }];
    if host {
        lines.push(Command {
            what: "The same, accepting that nothing was isolated",
            line: format!("invarlock verify --profile {profile} --runtime-provenance host {file}"),
        });
    } else {
        lines.push(Command {
            what: "That the image is the one you trust (put its digest, from your own source, in place of DIGEST)",
            line: format!(
                "invarlock advanced runtime-verify --report {file} --manifest runtime.manifest.json --expected-runtime-image-digest sha256:DIGEST"
            ),
        });
    }
    lines
}

fn verify_notes(report: &Value, manifest: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if !manifest.is_object() {
        notes.push("There is no manifest beside this report: verification will fail.".into());
    } else if at(manifest, "execution_mode") == "host-bypass" {
        notes.push(
            "This was measured on the host, outside any boundary: the first command fails, and is meant to."
                .into(),
        );
    }
    if first(report, &["context.profile", "meta.profile"]) == "dev" {
        notes.push(
            "This was measured with the dev profile, which enforces little; the ci checks may refuse it."
                .into(),
        );
    }
    notes
}

fn measured_at(report: &Value, manifest: &Value) -> String {
    let finished = first(manifest, &["context.finished_at_utc"]);
    if finished != DASH { finished } else { first(report, &["meta.ts", "artifacts.generated_at"]) }
}

fn footer(report: &Value, manifest: &Value) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("Report schema", text::string(at(report, "schema_version"))),
        Fact::new("Manifest contract", text::string(at(manifest, "verifier_contract_version"))),
        Fact::new("Launcher", first(manifest, &["context.launcher.version"])),
        Fact::new("Evaluator", first(report, &["meta.evaluator_version", "meta.invarlock_version"])),
        Fact::new("Page made by", concat!("invarlock ", env!("CARGO_PKG_VERSION"))),
        Fact::new("Started", first(manifest, &["context.started_at_utc"])),
        Fact::new("Finished", first(manifest, &["context.finished_at_utc"])),
        Fact::new("Report written", first(report, &["artifacts.generated_at", "meta.ts"])),
        Fact::new("Manifest written", text::string(at(manifest, "generated_at_utc"))),
    ];
    facts.retain(|f| f.value != DASH);
    facts
}
