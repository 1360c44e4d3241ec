//! The invariants guard: structure, vocabulary and tied weights of the subject are those of the baseline.

use super::{Check, Decision, Evaluation, Fact, Finding, Guard, GuardGate, Limit, Outcome, Sides, object};
use crate::format::evaluation_report::{InvariantsPolicy, ParameterCount, Structure};
use crate::format::run_report::{self, RunReport};
use crate::format::untrusted::Node;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The guard.
pub(super) const GUARD: Guard = Guard {
    name: "invariants",
    title: "Invariants",
    purpose: "structure, vocabulary and tied weights are those of the baseline",
    gate: Some(GuardGate {
        flag: FLAG,
        label: "Invariants Pass",
        title: "Invariants",
        measured: |block| {
            (Fact::count(block, "summary.violations_found", "violations"), Some(Limit::NoFailure))
        },
        detail,
    }),
    evaluate: |sides| Some(evaluate(sides)),
    needs_statistics: false,
    not_evaluated: &[],
    verify,
    outcome: |block, _| match block.get("status").str() {
        Some("pass") => Outcome::Passed,
        Some("warn" | "warning") => Outcome::Warned,
        Some("fail" | "error") => Outcome::Failed,
        _ => Outcome::NotRecorded,
    },
    facts: |block| {
        [
            ("summary.checks_performed", "checks"),
            ("summary.violations_found", "violations"),
            ("summary.fatal_violations", "fatal"),
            ("summary.warning_violations", "warnings"),
        ]
        .into_iter()
        .filter_map(|(path, noun)| Fact::count(block, path, noun))
        .collect()
    },
};

/// Its flag in `validation`.
const FLAG: &str = "invariants_pass";

/// The `invariants` block of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Block {
    /// Both run reports contain checks.
    Evaluated(Box<Evaluated>),
    /// A run report contains none.
    Missing(Missing),
}

/// The block of two sides with checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Evaluated {
    /// Always true.
    pub evaluated: bool,
    /// Always `pass`: the baseline is the reference.
    pub pre: Status,
    /// As `status`.
    pub post: Status,
    /// The outcome.
    pub status: Status,
    /// Whether no failure is fatal.
    pub passed: bool,
    /// What follows from the outcome.
    pub decision: Decision,
    /// Number of checks and failures.
    pub summary: Summary,
    /// The checks of both sides.
    pub details: Details,
    /// What differs or is wrong.
    pub failures: Vec<Failure>,
    /// Settings of the guard.
    pub policy: InvariantsPolicy,
}

/// The block where a run report contains no checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// Always false.
    pub evaluated: bool,
    /// Always `error`.
    pub status: Status,
    /// Why it was not evaluated.
    pub reason: String,
    /// Always empty.
    pub failures: Vec<Failure>,
}

/// An outcome of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No failure.
    Pass,
    /// Warnings only.
    Warn,
    /// A fatal failure.
    Fail,
    /// Not evaluated.
    Error,
}

/// Number of checks and failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Checks of the side with more of them.
    pub checks_performed: usize,
    /// All failures.
    pub violations_found: usize,
    /// Fatal failures.
    pub fatal_violations: usize,
    /// Warnings.
    pub warning_violations: usize,
}

/// The checks of both sides, as the run reports contain them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Details {
    /// The baseline's.
    pub baseline_checks: Map<String, Value>,
    /// The subject's.
    pub current_checks: Map<String, Value>,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Name of the check, module or tensor.
    pub check: String,
    /// Kind of failure.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is fatal.
    pub severity: Severity,
    /// What differs.
    pub message: String,
    /// The values.
    pub detail: Value,
}

/// Severity of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The subject is not comparable with the baseline.
    Fatal,
    /// The subject is built differently.
    Warning,
}

fn evaluate(sides: &Sides<'_>) -> Evaluation {
    let Sides { baseline, subject, .. } = *sides;
    let entry = sides.measured("invariants");
    let (Some((before, base_guard)), Some((after, guard))) = (checks(baseline), checks(subject)) else {
        return Evaluation {
            block: object(&Block::Missing(Missing {
                evaluated: false,
                status: Status::Error,
                reason: "a run report contains no checks of the invariants guard".to_owned(),
                failures: Vec::new(),
            })),
            passed: false,
            entry,
        };
    };
    let mut failures = own_violations(base_guard, "baseline");
    failures.extend(own_violations(guard, "subject"));
    failures.extend(compare(before, after));
    let fatal = failures.iter().filter(|failure| failure.severity == Severity::Fatal).count();
    let status = match (fatal, failures.len()) {
        (0, 0) => Status::Pass,
        (0, _) => Status::Warn,
        _ => Status::Fail,
    };
    let block = Evaluated {
        evaluated: true,
        pre: Status::Pass,
        post: status,
        status,
        passed: fatal == 0,
        decision: match status {
            Status::Pass => Decision::Allow,
            Status::Warn => Decision::Monitor,
            Status::Fail | Status::Error => Decision::Block,
        },
        summary: Summary {
            checks_performed: before.len().max(after.len()),
            violations_found: failures.len(),
            fatal_violations: fatal,
            warning_violations: failures.len() - fatal,
        },
        details: Details { baseline_checks: before.clone(), current_checks: after.clone() },
        failures,
        policy: InvariantsPolicy::default(),
    };
    Evaluation { block: object(&Block::Evaluated(Box::new(block))), passed: fatal == 0, entry }
}

/// Parameters of both checkpoints, for the report's `structure`; nothing unless both sides have checks.
pub(crate) fn structure(baseline: &RunReport, subject: &RunReport) -> Structure {
    let count =
        |report| checks(report).map(|(checks, _)| checks.get("parameter_count").cloned().unwrap_or_default());
    let both = count(baseline).zip(count(subject));
    let stated = both.filter(|(before, after)| !(before.is_null() && after.is_null()));
    Structure { parameter_count: stated.map(|(baseline, subject)| ParameterCount { baseline, subject }) }
}

/// One line for the terminal.
fn detail(block: Node<'_>) -> String {
    match block.get("failures").array() {
        Some([]) => {
            let checks = block.at("summary.checks_performed").u64().unwrap_or_default();
            format!("{checks} checks, none differs")
        }
        _ => {
            let text = |failure: Node<'_>| {
                failure.get("message").str().or_else(|| failure.get("check").str()).map(str::to_owned)
            };
            block.get("failures").elements().filter_map(text).collect::<Vec<_>>().join("; ")
        }
    }
}

/// The block against the checks that it contains of both sides.
fn verify(check: &Check<'_>) -> Vec<Finding> {
    let (block, gated) = (check.block, check.profile.gated());
    let mut found = Vec::new();
    if gated && block.object().is_none() {
        return vec![Finding::Failure("invariants: the block is missing".to_owned())];
    }
    let status = block.get("status").str().unwrap_or_default();
    if matches!(status, "fail" | "error") && check.profile.decides(FLAG) {
        let text = format!("invariants.status is {status:?}: subject and baseline differ in structure");
        found.push(Finding::Gate(text));
    } else if gated && !matches!(status, "pass" | "warn") {
        found.push(Finding::Failure(format!("invariants.status is {status:?}, expected pass, warn or fail")));
    }
    let checks =
        block.at("details.baseline_checks").object().zip(block.at("details.current_checks").object());
    let Some((before, after)) = checks else {
        if gated {
            found.push(Finding::Failure(
                "invariants.details does not contain the checks of both sides".to_owned(),
            ));
        }
        return found;
    };
    let expected = compare(before, after);
    let recorded: Vec<Node<'_>> = block.get("failures").elements().collect();
    for failure in &expected {
        let listed = recorded.iter().any(|row| {
            row.get("check").str() == Some(&failure.check) && row.get("type").str() == Some(&failure.kind)
        });
        if !listed {
            let text =
                format!("invariants.failures mismatch: the recorded checks differ, {}", failure.message);
            found.push(Finding::Mismatch(text));
        }
    }
    found
}

/// `details.checks` of our evaluator, or the checks that upstream records of the state it measured.
fn checks(report: &RunReport) -> Option<(&Map<String, Value>, &run_report::Guard)> {
    let guard = report.guards.iter().find(|guard| guard.name == "invariants" && guard.evaluated)?;
    let found = ["checks", "current_checks", "baseline_checks"]
        .into_iter()
        .find_map(|name| guard.details.get(name).and_then(Value::as_object))?;
    Some((found, guard))
}

/// Violations that one side reports of itself. A violation is fatal unless its severity is a warning or an information.
fn own_violations(guard: &run_report::Guard, side: &str) -> Vec<Failure> {
    guard
        .violations
        .iter()
        .map(|violation| {
            let node = Node::root("", violation);
            let text = |name: &str| node.get(name).str().map(str::to_owned);
            let kind = text("type").unwrap_or_else(|| "violation".to_owned());
            let severity = match node.get("severity").str() {
                Some("warning" | "info") => Severity::Warning,
                _ => Severity::Fatal,
            };
            let check = text("check").or_else(|| text("name")).unwrap_or_else(|| "invariant".to_owned());
            let message = text("message").unwrap_or_else(|| format!("the {side} reports {kind} of itself"));
            failure(&check, &kind, severity, message, json!({"source": side, "violation": violation}))
        })
        .collect()
}

fn failure(check: &str, kind: &str, severity: Severity, message: String, detail: Value) -> Failure {
    Failure { check: check.to_owned(), kind: kind.to_owned(), severity, message, detail }
}

/// What differs between the checks of the baseline and those of the subject.
fn compare(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Failure> {
    let mut failures = non_finite(before, after);
    failures.extend(missing_norms(before, after));
    failures.extend(changed_embeddings(before, after));
    failures.extend(other_changes(before, after));
    failures
}

fn non_finite(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (side, checks) in [("baseline", before), ("subject", after)] {
        let tensors = checks.get("non_finite").and_then(Value::as_array);
        for tensor in tensors.into_iter().flatten() {
            let name = tensor.as_str().unwrap_or("?");
            let message = format!("{name} of the {side} holds a NaN or an infinity");
            failures.push(failure(
                name,
                "non_finite_tensor",
                Severity::Fatal,
                message,
                json!({"source": side}),
            ));
        }
    }
    failures
}

fn missing_norms(before: &Map<String, Value>, after: &Map<String, Value>) -> Option<Failure> {
    let names = |checks: &Map<String, Value>| -> Vec<String> {
        let paths = checks.get("layer_norm_paths").and_then(Value::as_array);
        paths.into_iter().flatten().filter_map(|path| path.as_str().map(str::to_owned)).collect()
    };
    let present = names(after);
    let missing: Vec<String> = names(before).into_iter().filter(|name| !present.contains(name)).collect();
    (!missing.is_empty()).then(|| {
        let message = format!("LayerNorm modules of the baseline are missing: {}", missing.join(", "));
        let detail = json!({"missing": missing});
        failure("layer_norm_paths", "layer_norm_missing", Severity::Warning, message, detail)
    })
}

fn changed_embeddings(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Failure> {
    let mut failures = Vec::new();
    let empty = Map::new();
    let sizes = |checks: &'_ Map<String, Value>| -> Map<String, Value> {
        checks.get("embedding_vocab_sizes").and_then(Value::as_object).unwrap_or(&empty).clone()
    };
    let (old, new) = (sizes(before), sizes(after));
    let count =
        |sizes: &Map<String, Value>, size: &Value| sizes.values().filter(|other| *other == size).count();
    for (module, size) in &old {
        let now = new.get(module);
        // An embedding was renamed, not changed, if the subject has as many embeddings of its size.
        let renamed = now.is_none() && count(&new, size) >= count(&old, size);
        if now != Some(size) && !renamed {
            let shown = now.map_or_else(|| "none".to_owned(), Value::to_string);
            let message =
                format!("the embedding {module} has {size} rows in the baseline and {shown} in the subject");
            let detail = json!({"module": module, "baseline": size, "current": now});
            failures.push(failure(module, "tokenizer_mismatch", grown(size, now), message, detail));
        }
    }
    failures
}

/// Severity of another number of embedded tokens. The ids of all windows are below the baseline's number, so further rows are unused: they
/// come from added tokens or from padding. They only add terms to the softmax, which the losses show.
fn grown(before: &Value, after: Option<&Value>) -> Severity {
    match (before.as_u64(), after.and_then(Value::as_u64)) {
        (Some(before), Some(after)) if after > before => Severity::Warning,
        _ => Severity::Fatal,
    }
}

/// Checks that are compared as they are.
fn other_changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Failure> {
    let mut failures = Vec::new();
    const HANDLED: [&str; 3] = ["layer_norm_paths", "embedding_vocab_sizes", "non_finite"];
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    for key in keys.filter(|key| !HANDLED.contains(&key.as_str())) {
        let (old, new) = (before.get(key).unwrap_or(&Value::Null), after.get(key).unwrap_or(&Value::Null));
        if old == new {
            continue;
        }
        let (kind, severity) = match key.as_str() {
            "config_vocab_size" => ("tokenizer_mismatch", grown(old, Some(new))),
            _ => ("invariant_violation", Severity::Warning),
        };
        let message = format!("{key} is {old} in the baseline and {new} in the subject");
        failures.push(failure(key, kind, severity, message, json!({"baseline": old, "current": new})));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn base() -> Value {
        json!({
            "parameter_count": 10,
            "layer_norm_paths": ["a", "b"],
            "embedding_vocab_sizes": {"wte": 100, "wpe": 8},
            "config_vocab_size": 100,
            "weight_tying": true,
            "structure_hash": "x",
            "non_finite": [],
        })
    }

    fn kinds(after: Value) -> Vec<(String, Severity)> {
        compare(&map(base()), &map(after))
            .into_iter()
            .map(|failure| (failure.kind, failure.severity))
            .collect()
    }

    fn one(kind: &str, severity: Severity) -> Vec<(String, Severity)> {
        vec![(kind.to_owned(), severity)]
    }

    #[test]
    fn equal_checks_pass() {
        assert_eq!(kinds(base()), []);
    }

    #[test]
    fn severity_follows_the_kind() {
        for (tokens, severity) in [(99, Severity::Fatal), (101, Severity::Warning)] {
            let mut changed = base();
            changed["embedding_vocab_sizes"]["wte"] = json!(tokens);
            assert_eq!(kinds(changed), one("tokenizer_mismatch", severity));
            let mut changed = base();
            changed["config_vocab_size"] = json!(tokens);
            assert_eq!(kinds(changed), one("tokenizer_mismatch", severity));
        }
        let mut changed = base();
        changed["non_finite"] = json!(["parameter::wte"]);
        assert_eq!(kinds(changed), one("non_finite_tensor", Severity::Fatal));
        let mut changed = base();
        changed["layer_norm_paths"] = json!(["a"]);
        assert_eq!(kinds(changed), one("layer_norm_missing", Severity::Warning));
        let mut changed = base();
        changed["parameter_count"] = json!(11);
        assert_eq!(kinds(changed), one("invariant_violation", Severity::Warning));
        let mut changed = base();
        changed["new_check"] = json!(1);
        assert_eq!(kinds(changed), one("invariant_violation", Severity::Warning));
    }

    #[test]
    fn renamed_embedding_of_same_size_is_no_change() {
        let mut renamed = base();
        renamed["embedding_vocab_sizes"] = json!({"embed_tokens": 100, "wpe": 8});
        assert_eq!(kinds(renamed), []);
        let mut gone = base();
        gone["embedding_vocab_sizes"] = json!({"wpe": 8});
        assert_eq!(kinds(gone), one("tokenizer_mismatch", Severity::Fatal));
    }
}
