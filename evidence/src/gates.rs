//! The gates of an evaluation report: passed, failed or not evaluated. The terminal, `--json` and the page use the same result.
//!
//! A report is read as untrusted JSON, because the page also shows reports of others. Nothing is verified here.

use crate::format::evaluation_report::Validation;
use crate::format::untrusted::Node;
use crate::guards::{self, Guard, GuardGate, Outcome};
use crate::policy::{MIN_TOKENS_TOLERANCE, Profile, token_floor};
use crate::sentences::{NOT_EVALUATED, not_evaluated};
use serde_json::Value;

/// Flag of the gate of the tail.
pub(crate) const TAIL: &str = "primary_metric_tail_acceptable";

/// One gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Its label, as upstream's console has it.
    pub name: &'static str,
    /// Its flag in `validation`.
    pub flag: &'static str,
    /// `None`: not evaluated or not decided on; neither passed nor failed.
    pub passed: Option<bool>,
    /// It passed with a warning.
    pub warned: bool,
    /// One line: the numbers, or why it was not evaluated.
    pub detail: String,
    /// The number that was compared with a limit; none if it was not evaluated, or if its outcome is not a comparison.
    pub measured: Option<Measured>,
    /// How it ended.
    pub outcome: Ended,
}

/// How a gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It passed.
    Passed,
    /// It passed with a warning.
    Warned,
    /// It failed.
    Failed,
    /// It was evaluated, but the report's profile does not decide on it.
    ShownOnly,
    /// It was not evaluated.
    NotEvaluated,
    /// The report does not state its outcome.
    NotRecorded,
}

impl Ended {
    /// Every outcome, in the order in which they are counted.
    pub const ALL: [Ended; 6] = [
        Ended::Passed,
        Ended::Warned,
        Ended::Failed,
        Ended::ShownOnly,
        Ended::NotEvaluated,
        Ended::NotRecorded,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Ended::Passed => "passed",
            Ended::Warned => "warned",
            Ended::Failed => "failed",
            Ended::ShownOnly => "shown only",
            Ended::NotEvaluated => NOT_EVALUATED,
            Ended::NotRecorded => "not recorded",
        }
    }
}

/// A number and its limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The number.
    pub value: f64,
    /// The least that is accepted, if there is one.
    pub least: Option<f64>,
    /// The most that is accepted, if there is one.
    pub most: Option<f64>,
}

impl Measured {
    fn at_most(value: f64, most: f64) -> Self {
        Self { value, least: None, most: Some(most) }
    }

    /// The distance to the nearest limit; negative if the number is not accepted.
    pub fn margin(self) -> f64 {
        let above = self.most.map_or(f64::INFINITY, |most| most - self.value);
        self.least.map_or(above, |least| above.min(self.value - least))
    }
}

/// How many outcomes of each kind there are: `4 passed, 3 not evaluated`. Kinds that do not occur are left out.
pub fn counted(outcomes: impl Iterator<Item = Ended>) -> String {
    let outcomes: Vec<Ended> = outcomes.collect();
    let count = |kind: Ended| outcomes.iter().filter(|outcome| **outcome == kind).count();
    let counts = Ended::ALL.into_iter().map(|kind| (count(kind), kind.words())).filter(|(n, _)| *n > 0);
    counts.map(|(n, words)| format!("{n} {words}")).collect::<Vec<_>>().join(", ")
}

/// What a report says of one gate.
enum Result {
    /// It was evaluated; the numbers.
    Evaluated(String, Option<Measured>),
    /// It was not, with the reason if the report has one.
    NotEvaluated(Option<String>),
}

impl Result {
    /// Evaluated, if the report has the numbers.
    fn new(
        evaluated: bool,
        numbers: impl FnOnce() -> Option<(String, Option<Measured>)>,
        block: Node<'_>,
    ) -> Self {
        let numbers = evaluated.then(numbers).flatten();
        numbers
            .map_or_else(|| Result::skipped(block), |(detail, measured)| Result::Evaluated(detail, measured))
    }

    fn skipped(block: Node<'_>) -> Self {
        let reason = block.get("reason").str().or_else(|| block.get("skip_reason").str());
        Result::NotEvaluated(reason.map(str::to_owned))
    }
}

/// Whether every deciding flag is true.
pub(crate) fn all_true(profile: Profile, validation: &Validation) -> bool {
    validation.iter().all(|(flag, value)| !profile.decides(flag) || value)
}

/// The profile that a report names; all gates of an unknown profile decide.
pub fn profile(report: &Value) -> Profile {
    profile_of(Node::root("", report))
}

fn profile_of(report: Node<'_>) -> Profile {
    let name = report.at("meta.profile").str();
    name.and_then(|name| name.parse().ok()).unwrap_or(Profile::Ci)
}

/// The gates of a report, in the order in which they are shown.
pub fn gates(report: &Value) -> Vec<Gate> {
    let profile = profile(report);
    let report = Node::root("", report);
    let guards = guards::TABLE.iter().filter_map(|guard| Some((guard, guard.gate.as_ref()?)));
    let mut gates = vec![
        ("Primary Metric Acceptable", "primary_metric_acceptable", ratio(report)),
        ("Preview Final Drift Acceptable", "preview_final_drift_acceptable", drift(report)),
    ];
    gates.extend(guards.map(|(guard, gate)| (gate.label, gate.flag, guard_result(guard, gate, report))));
    gates.push(("Guard Overhead Acceptable", "guard_overhead_acceptable", overhead(report)));
    gates.push(("Primary Metric Tail Acceptable", TAIL, tail(report)));
    let gate = |(name, flag, result)| Gate::new(name, flag, result, profile, report);
    gates.into_iter().map(gate).collect()
}

impl Gate {
    fn new(
        name: &'static str,
        flag: &'static str,
        result: Result,
        profile: Profile,
        report: Node<'_>,
    ) -> Self {
        let decides = profile.decides(flag);
        let (evaluated, detail, measured) = match result {
            Result::Evaluated(detail, measured) if decides => (true, detail, measured),
            Result::Evaluated(detail, measured) => {
                (true, format!("{detail}; profile {profile} does not decide on it"), measured)
            }
            Result::NotEvaluated(reason) => (false, not_evaluated(reason.as_deref()), None),
        };
        let passed = report.get("validation").get(flag).bool().filter(|_| decides && evaluated);
        let warned = passed == Some(true) && warned(flag, report);
        let outcome = match passed {
            Some(true) if warned => Ended::Warned,
            Some(true) => Ended::Passed,
            Some(false) => Ended::Failed,
            None if !evaluated => Ended::NotEvaluated,
            None if !decides => Ended::ShownOnly,
            None => Ended::NotRecorded,
        };
        Gate { name, flag, passed, warned, detail, measured, outcome }
    }

    /// The sentence about this gate: its name, and its numbers or the reason.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.name, self.detail)
    }
}

/// Whether the guard or the tail behind a flag states a warning.
fn warned(flag: &str, report: Node<'_>) -> bool {
    let guard = guards::TABLE.iter().find(|guard| guard.gate.as_ref().is_some_and(|gate| gate.flag == flag));
    match guard {
        Some(guard) => (guard.outcome)(guard.block(report), None) == Outcome::Warned,
        None => flag == TAIL && report.at("primary_metric_tail.warned").bool() == Some(true),
    }
}

/// Whether the metric of a report is an accuracy.
pub(crate) fn is_accuracy(report: Node<'_>) -> bool {
    report.at("primary_metric.kind") == "accuracy"
}

/// The limit of the lower end of the interval of the difference of accuracies, percentage points.
pub(crate) fn accuracy_limit(report: Node<'_>) -> Option<f64> {
    let policy = report.at("resolved_policy.metrics.accuracy");
    Some(policy.get("delta_min_pp").f64()? - policy.get("hysteresis_delta_pp").f64().unwrap_or(0.0).max(0.0))
}

/// The difference of accuracies, percentage points.
fn difference(report: Node<'_>) -> Result {
    let metric = report.get("primary_metric");
    let (interval, examples) = (metric.get("display_ci"), metric.get("n_final").f64());
    let numbers = metric.get("delta_pp").f64().zip(interval.index(0).f64().zip(interval.index(1).f64()));
    let Some((delta, (low, high))) = numbers else {
        return Result::Evaluated("no finite difference of accuracies".to_owned(), None);
    };
    let mut detail = format!("accuracy {delta:+.2} percentage points, interval {low:+.2} to {high:+.2}");
    let limit = accuracy_limit(report);
    if let Some(limit) = limit {
        detail += &format!(", whose lower end must be at least {limit:.1}");
    }
    let least = report.at("resolved_policy.metrics.accuracy.min_examples").f64();
    let failed = report.at("validation.primary_metric_acceptable").bool() == Some(false);
    if let Some((examples, least)) = examples.zip(least)
        && failed
        && profile_of(report).gated()
        && examples < least
    {
        detail += &format!("; {examples} final examples were measured, at least {least} are required");
    }
    Result::Evaluated(detail, limit.map(|limit| Measured { value: low, least: Some(limit), most: None }))
}

fn ratio(report: Node<'_>) -> Result {
    if is_accuracy(report) {
        return difference(report);
    }
    let policy = report.at("resolved_policy.metrics.pm_ratio");
    let limit = policy.get("ratio_limit_base").f64().zip(policy.get("hysteresis_ratio").f64());
    let limit = limit.map(|(base, hysteresis)| base + hysteresis);
    let ratio = report.at("primary_metric.ratio_vs_baseline").f64();
    let measured = ratio.zip(limit).map(|(ratio, limit)| Measured::at_most(ratio, limit));
    let mut detail = match (ratio, limit) {
        (Some(ratio), Some(limit)) => format!("perplexity ratio {ratio:.6}, limit {limit:.3}"),
        (Some(ratio), None) => format!("perplexity ratio {ratio:.6}"),
        _ => "no finite perplexity ratio".to_owned(),
    };
    // The same flag is the gate of the tokens.
    let failed = report.at("validation.primary_metric_acceptable").bool() == Some(false);
    if let Some(tokens) =
        tokens(report).filter(|tokens| failed && profile_of(report).gated() && !tokens.enough)
    {
        detail += &format!("; {} tokens were measured, at least {} are required", tokens.total, tokens.least);
    }
    Result::Evaluated(detail, measured)
}

/// Tokens of both arms, and how many the report's tier requires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tokens {
    pub(crate) total: f64,
    pub(crate) least: f64,
    pub(crate) enough: bool,
}

/// The token floor of the tier; none if the report does not state it.
pub(crate) fn tokens(report: Node<'_>) -> Option<Tokens> {
    // An accuracy needs examples instead.
    if is_accuracy(report) {
        return None;
    }
    let policy = report.at("resolved_policy.metrics.pm_ratio");
    let telemetry = report.get("telemetry");
    let total = telemetry.get("preview_total_tokens").f64()? + telemetry.get("final_total_tokens").f64()?;
    let floor = policy.get("min_tokens").f64().filter(|floor| *floor > 0.0)?;
    let coverage = report.at("dataset.windows.stats.coverage");
    let covered = ["preview.ok", "final.ok"].into_iter().all(|arm| coverage.at(arm).bool() == Some(true));
    let tolerance = policy.get("min_tokens_tolerance").f64().unwrap_or(MIN_TOKENS_TOLERANCE).clamp(0.0, 1.0);
    let least = token_floor(floor, tolerance, covered);
    Some(Tokens { total, least, enough: total >= least })
}

fn drift(report: Node<'_>) -> Result {
    let metric = report.get("primary_metric");
    if is_accuracy(report) {
        return accuracy_drift(metric);
    }
    let drift = metric.get("final").f64().zip(metric.get("preview").f64()).map(|(last, first)| last / first);
    match (drift, band(metric)) {
        (Some(drift), Some((low, high))) => Result::Evaluated(
            format!("final/preview {drift:.6}, band {low:.2} to {high:.2}"),
            Some(Measured { value: drift, least: Some(low), most: Some(high) }).filter(|_| drift.is_finite()),
        ),
        (Some(drift), None) => Result::Evaluated(format!("final/preview {drift:.6}"), None),
        _ => Result::Evaluated("no preview or final perplexity".to_owned(), None),
    }
}

/// The band of a metric's drift.
fn band(metric: Node<'_>) -> Option<(f64, f64)> {
    metric.at("drift_band.min").f64().zip(metric.at("drift_band.max").f64())
}

/// The band for the difference of the accuracies of both arms.
#[cfg(feature = "html")]
pub(crate) fn accuracy_band(report: Node<'_>) -> Option<(f64, f64)> {
    band(report.get("primary_metric"))
}

/// The difference of the accuracies of both arms.
fn accuracy_drift(metric: Node<'_>) -> Result {
    let Some((last, first)) = metric.get("final").f64().zip(metric.get("preview").f64()) else {
        return Result::Evaluated("no preview or final accuracy".to_owned(), None);
    };
    let (drift, band) = (last - first, band(metric));
    let mut detail = format!("final − preview {:+.2} percentage points", 100.0 * drift);
    if let Some((low, high)) = band {
        detail += &format!(", band {:+.0} to {:+.0}", 100.0 * low, 100.0 * high);
    }
    let measured = band.map(|(low, high)| Measured { value: drift, least: Some(low), most: Some(high) });
    Result::Evaluated(detail, measured)
}

fn guard_result(guard: &Guard, gate: &GuardGate, report: Node<'_>) -> Result {
    let block = guard.block(report);
    Result::new(Guard::is_evaluated(block), || Some(((gate.detail)(block), None)), block)
}

fn overhead(report: Node<'_>) -> Result {
    let block = report.get("guard_overhead");
    let numbers = || {
        let ratio = block.get("overhead_ratio").f64()?;
        let limit = block.get("overhead_threshold").f64().map(|threshold| 1.0 + threshold);
        let measured = limit.map(|limit| Measured::at_most(ratio, limit));
        Some((format!("guarded/bare perplexity {ratio:.6}"), measured))
    };
    Result::new(block.get("evaluated").bool() == Some(true), numbers, block)
}

fn tail(report: Node<'_>) -> Result {
    let block = report.get("primary_metric_tail");
    let numbers = || {
        let (q95, limit) = block.at("stats.q95").f64().zip(block.at("policy.quantile_max").f64())?;
        let detail = format!(
            "95th percentile of (subject loss − baseline loss) per window, in nats per token: {q95:.4}; above {limit:.2} gives a warning"
        );
        Some((detail, Some(Measured::at_most(q95, limit))))
    };
    Result::new(block.get("evaluated").bool() == Some(true), numbers, block)
}

/// A sentence for each gate that failed.
pub fn failures(report: &Value) -> Vec<String> {
    let failed = gates(report).into_iter().filter(|gate| gate.passed == Some(false));
    failed.map(|gate| gate.sentence()).collect()
}

/// Whether the primary metric passed and no gate failed.
pub fn passed(report: &Value) -> bool {
    all_passed(&gates(report))
}

/// `PASS`, `FAIL`, or `NO VERDICT` where the outcome of a gate that decides is missing.
pub fn verdict(gates: &[Gate]) -> &'static str {
    let any = |outcome: Ended| gates.iter().any(|gate| gate.outcome == outcome);
    match (any(Ended::Failed), any(Ended::NotRecorded)) {
        (true, _) => "FAIL",
        (false, true) => "NO VERDICT",
        (false, false) => "PASS",
    }
}

fn all_passed(gates: &[Gate]) -> bool {
    gates.first().is_some_and(|first| first.passed == Some(true))
        && gates.iter().all(|gate| gate.passed != Some(false))
}

/// One line: verdict, ratio or difference with its interval, values of the metric, and the gates that failed.
pub fn verdict_line(report: &Value) -> String {
    let gates = gates(report);
    let report = Node::root("", report);
    let metric = report.get("primary_metric");
    let mut line = if all_passed(&gates) { "PASS".to_owned() } else { "FAIL".to_owned() };
    let accuracy = is_accuracy(report);
    if accuracy && let Some(delta) = metric.get("delta_pp").f64() {
        line += &format!(" delta_pp={delta:+.4}");
    } else if let Some(ratio) = metric.get("ratio_vs_baseline").f64() {
        line += &format!(" ratio={ratio:.6}");
    }
    let interval = metric.get("display_ci");
    if let Some((low, high)) = interval.index(0).f64().zip(interval.index(1).f64()) {
        line += &match accuracy {
            true => format!(" ci=[{low:+.4},{high:+.4}]"),
            false => format!(" ci=[{low:.6},{high:.6}]"),
        };
    }
    let baseline = report.at("baseline_ref.primary_metric.final").f64();
    if let Some((baseline, subject)) = baseline.zip(metric.get("final").f64()) {
        let name = if accuracy { "accuracy" } else { "ppl" };
        line += &format!(" {name}={baseline:.4}->{subject:.4}");
    }
    let failed: Vec<&str> =
        gates.iter().filter(|gate| gate.passed == Some(false)).map(|gate| gate.name).collect();
    if !failed.is_empty() {
        line += &format!(" failed: {}", failed.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_guard_or_a_tail_that_warns_passes_with_a_warning() {
        let report = |status: &str, tail: bool| {
            json!({
                "meta": {"profile": "ci"},
                "validation": {"invariants_pass": status != "fail", "primary_metric_tail_acceptable": true},
                "invariants": {"evaluated": true, "status": status, "failures": []},
                "primary_metric_tail": {"evaluated": true, "warned": tail, "stats": {"q95": 0.1},
                    "policy": {"quantile_max": 0.2}},
            })
        };
        let found = |status, tail, flag| {
            let gates = gates(&report(status, tail));
            gates.iter().find(|gate| gate.flag == flag).map(|gate| (gate.passed, gate.warned))
        };
        assert_eq!(found("pass", false, "invariants_pass"), Some((Some(true), false)));
        assert_eq!(found("warn", false, "invariants_pass"), Some((Some(true), true)));
        assert_eq!(found("fail", false, "invariants_pass"), Some((Some(false), false)));
        assert_eq!(found("pass", false, TAIL), Some((Some(true), false)));
        assert_eq!(found("pass", true, TAIL), Some((Some(true), true)));
    }

    #[test]
    fn outcomes_are_counted_by_kind() {
        let outcomes =
            [Ended::NotEvaluated, Ended::Passed, Ended::NotEvaluated, Ended::Failed, Ended::Passed];
        assert_eq!(counted(outcomes.into_iter()), "2 passed, 1 failed, 2 not evaluated");
        assert_eq!(counted(std::iter::empty()), "");
    }

    #[test]
    fn a_margin_is_the_distance_to_the_nearest_limit() {
        let close = |one: f64, other: f64| (one - other).abs() < 1e-12;
        assert!(close(Measured::at_most(1.0, 1.102).margin(), 0.102));
        let drift = |value| Measured { value, least: Some(0.95), most: Some(1.07) }.margin();
        assert!(close(drift(1.0), 0.05) && close(drift(1.06), 0.01) && close(drift(0.9), -0.05));
    }

    #[test]
    fn the_sentence_of_the_primary_metric_names_missing_tokens() {
        let report = |total: u64, acceptable: bool| {
            json!({
                "meta": {"profile": "ci"}, "validation": {"primary_metric_acceptable": acceptable},
                "primary_metric": {"ratio_vs_baseline": 1.0},
                "resolved_policy": {"metrics": {"pm_ratio": {"ratio_limit_base": 1.1, "hysteresis_ratio": 0.002, "min_tokens": 50_000}}},
                "telemetry": {"preview_total_tokens": 100, "final_total_tokens": total},
            })
        };
        assert_eq!(
            failures(&report(100, false)),
            [
                "Primary Metric Acceptable: perplexity ratio 1.000000, limit 1.102; 200 tokens were measured, at least 50000 are required"
            ]
        );
        assert_eq!(
            failures(&report(90_000, false)),
            ["Primary Metric Acceptable: perplexity ratio 1.000000, limit 1.102"]
        );
        assert!(failures(&report(100, true)).is_empty());
    }
}
