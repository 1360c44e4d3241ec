//! The evaluation report as one self-contained page: no script, no network access.
//!
//! Report and manifest are untrusted. The page restates them; it verifies nothing, and says so. Any JSON gives a page: a missing member or
//! one of the wrong type is shown as a dash.

mod boundary;
mod closing;
mod compared;
mod gates;
mod guards;
mod metric;
mod svg;
#[cfg(feature = "export")]
pub mod sweep;
mod text;
mod verdict;
mod windows;

use crate::Error;
use crate::beside::Beside;
use crate::format::untrusted::Node;
use crate::guards::Outcome;
use crate::sentences::NOT_EVALUATED;
use crate::window_texts::WindowTexts;
use closing::{Command, commands, footer, measured_at, verify_notes};
use compared::Compared;
use gates::{Gate, gates};
use guards::{GuardView, guards};
use metric::{DriftView, Metric, MetricView};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;
use text::DASH;
use verdict::{Verdict, contradictions, report_warnings, stated_warnings};
use windows::WindowsView;

const TEMPLATE: &str = include_str!("page.html.j2");
const STYLE: &str = include_str!("page.css");

/// The page for an evaluation report (`evaluation.report.json`) and, where there is one, its `runtime.manifest.json`.
///
/// Any JSON gives a page, and no text of it becomes markup.
///
/// # Errors
/// The built-in template cannot be rendered, which is a fault of this program.
pub fn render(report: &Value, manifest: Option<&Value>) -> Result<String, Error> {
    let beside = manifest.map_or(Beside::Missing, Beside::OfThisReport);
    render_with(report, beside, &WindowTexts::default())
}

/// As [`render`], with the texts of the windows. Nothing is shown of a manifest of another report.
///
/// # Errors
/// As [`render`].
pub fn render_with(report: &Value, beside: Beside<'_>, texts: &WindowTexts) -> Result<String, Error> {
    render_page(Page::new(report, beside, texts))
}

fn render_page(page: Page) -> Result<String, Error> {
    let fault = |e: minijinja::Error| Error::system(format!("the HTML page could not be rendered: {e:#}"));
    let mut templates = environment().map_err(fault)?;
    templates.add_template("page", TEMPLATE).map_err(fault)?;
    let template = templates.get_template("page").map_err(fault)?;
    template.render(minijinja::value::Serde(page)).map_err(fault)
}

/// An environment without templates, in which no untrusted text becomes markup.
fn environment<'s>() -> Result<Environment<'s>, minijinja::Error> {
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut templates = Environment::new();
    templates.set_syntax(syntax);
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    // The only place that writes untrusted text to the page.
    templates.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => text::write(out, text).map_err(minijinja::Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    Ok(templates)
}

// ---------------------------------------------------------------------------------------------------- reading

/// The member at a dotted path; null if any step of it is missing.
fn at<'a>(value: &'a Value, path: &'a str) -> &'a Value {
    Node::root("", value).at(path).value()
}

/// A finite number.
fn number(value: &Value, path: &str) -> Option<f64> {
    Node::root("", value).at(path).f64()
}

fn flag(value: &Value, path: &str) -> Option<bool> {
    Node::root("", value).at(path).bool()
}

/// The first string among `paths`, or a dash.
fn first(value: &Value, paths: &[&str]) -> String {
    paths.iter().map(|path| text::string(at(value, path))).find(|s| s != DASH).unwrap_or_else(|| DASH.into())
}

fn pair(value: &Value, path: &str) -> Option<(f64, f64)> {
    let ends = Node::root("", value).at(path);
    match ends.array()? {
        [_, _] => ends.index(0).f64().zip(ends.index(1).f64()).filter(|(low, high)| low <= high),
        _ => None,
    }
}

/// A range written as `[lo, hi]` or `{min, max}`.
fn band(value: &Value, path: &str) -> Option<(f64, f64)> {
    pair(value, path)
        .or_else(|| Some((number(at(value, path), "min")?, number(at(value, path), "max")?)))
        .filter(|(lo, hi)| *lo > 0.0 && lo < hi)
}

/// A title within a sentence: in lower case, except abbreviations.
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
    gates_counted: String,
    guards_counted: String,
    /// Warnings that make the verdict worthless; shown before it.
    dangers: Vec<Warning>,
    /// Warnings that qualify it; shown after it.
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

/// A label and its value.
#[derive(Serialize, Clone)]
struct Fact {
    name: String,
    value: String,
    /// Shown in the fixed-width font.
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

/// An outcome: a sign and a word, besides its colour.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    class: &'static str,
    sign: &'static str,
    word: &'static str,
}

const PASS: Mark = Mark { class: "pass", sign: "✓", word: "pass" };
const FAIL: Mark = Mark { class: "fail", sign: "✕", word: "fail" };
const WARN: Mark = Mark { class: "warn", sign: "!", word: "warning" };
const SKIPPED: Mark = Mark { class: "none", sign: "○", word: NOT_EVALUATED };
const ABSENT: Mark = Mark { class: "none", sign: "○", word: "not recorded" };
const SHOWN: Mark = Mark { class: "none", sign: "○", word: "shown only" };
const MONITORED: Mark = Mark { class: "none", sign: "○", word: "monitored only" };

/// How many outcomes of each kind there are: `4 passed, 3 not evaluated`.
fn count_marks(marks: impl Iterator<Item = Mark>) -> String {
    const WORDS: [(Mark, &str); 7] = [
        (PASS, "passed"),
        (WARN, "warned"),
        (FAIL, "failed"),
        (MONITORED, "monitored only"),
        (SHOWN, "shown only"),
        (SKIPPED, NOT_EVALUATED),
        (ABSENT, "not recorded"),
    ];
    let marks: Vec<Mark> = marks.collect();
    let count = |kind: Mark| marks.iter().filter(|mark| **mark == kind).count();
    let counts = WORDS.into_iter().map(|(kind, words)| (count(kind), words)).filter(|(n, _)| *n > 0);
    counts.map(|(n, words)| format!("{n} {words}")).collect::<Vec<_>>().join(", ")
}

fn mark(passed: Option<bool>) -> Mark {
    match passed {
        Some(true) => PASS,
        Some(false) => FAIL,
        None => ABSENT,
    }
}

impl From<Outcome> for Mark {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => PASS,
            Outcome::Warned => WARN,
            Outcome::Failed => FAIL,
            Outcome::Monitored => MONITORED,
            Outcome::NotEvaluated => SKIPPED,
            Outcome::NotRecorded => ABSENT,
        }
    }
}

/// Flags of the report that do not follow from its own numbers, in sentences.
#[cfg(feature = "export")]
pub(crate) fn contradictions_of(report: &Value) -> Vec<String> {
    contradictions(report, &Metric::read(report))
}

impl Page {
    fn new(report: &Value, beside: Beside<'_>, texts: &WindowTexts) -> Page {
        let manifest = beside.manifest();
        let metric = Metric::read(report);
        let guards = guards(report);
        let gates = gates(report, &metric, &guards);
        let contradictions = contradictions(report, &metric);
        let verdict = Verdict::new(report, &metric, &gates, !contradictions.is_empty());
        let subject = first(report, &["meta.model_id", "edit_name"]);
        let boundary = boundary::Boundary::new(manifest);

        let mut warnings = boundary::warnings(report, beside);
        if !contradictions.is_empty() {
            warnings.insert(
                0,
                Warning {
                    class: "danger",
                    title: "The report contradicts itself".into(),
                    text: "Its gates do not follow from its own numbers.".into(),
                    items: contradictions,
                },
            );
        }
        warnings.extend(stated_warnings(report));
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
            gates_counted: gates::counted(&gates),
            guards_counted: count_marks(guards.iter().map(|guard| guard.mark)),
            dangers,
            cautions,
            compared: Compared::new(report, manifest),
            metric: MetricView::new(&metric, report),
            gates,
            windows: WindowsView::new(report, texts),
            drift: DriftView::new(report, &metric),
            guards,
            boundary,
            commands: commands(report, manifest),
            verify_notes: verify_notes(report, beside),
            footer: footer(report, manifest),
        }
    }
}
