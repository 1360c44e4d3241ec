//! The invariants guard: the baseline's checks against the subject's (`spec/guards.md` section 2).

use crate::run_report::{Guard, RunReport};
use serde_json::{Map, Value, json};

/// The `invariants` block of the report.
pub(super) fn block(baseline: &RunReport, subject: &RunReport) -> Value {
    let (Some((before, base_guard)), Some((after, guard))) = (checks(baseline), checks(subject)) else {
        return json!({
            "evaluated": false,
            "status": "error",
            "reason": "a run report holds no checks of the invariants guard",
            "failures": [],
        });
    };
    let mut failures = own_violations(base_guard, "baseline");
    failures.extend(own_violations(guard, "subject"));
    failures.extend(compare(before, after));
    let fatal = failures.iter().filter(|failure| is_fatal(failure)).count();
    let status = match (fatal, failures.len()) {
        (0, 0) => "pass",
        (0, _) => "warn",
        _ => "fail",
    };
    json!({
        "evaluated": true,
        "pre": "pass",
        "post": status,
        "status": status,
        "passed": fatal == 0,
        "decision": match status { "pass" => "allow", "warn" => "monitor", _ => "block" },
        "summary": {
            "checks_performed": before.len().max(after.len()),
            "violations_found": failures.len(),
            "fatal_violations": fatal,
            "warning_violations": failures.len() - fatal,
        },
        "details": {"baseline_checks": before, "current_checks": after},
        "failures": failures,
        "policy": {"strict_mode": false, "on_fail": "monitor"},
    })
}

pub(crate) fn is_fatal(failure: &Value) -> bool {
    matches!(failure["severity"].as_str(), Some("fatal" | "error"))
}

/// Our evaluator's `details.checks`, or what upstream records of the state it measured.
fn checks(report: &RunReport) -> Option<(&Map<String, Value>, &Guard)> {
    let guard = report.guards.iter().find(|guard| guard.name == "invariants" && guard.evaluated)?;
    let found = ["checks", "current_checks", "baseline_checks"]
        .into_iter()
        .find_map(|name| guard.details.get(name).and_then(Value::as_object))?;
    Some((found, guard))
}

/// Violations one side reports of itself; what it calls no warning is fatal.
fn own_violations(guard: &Guard, side: &str) -> Vec<Value> {
    guard
        .violations
        .iter()
        .map(|violation| {
            let text = |name: &str| violation[name].as_str().map(str::to_owned);
            let kind = text("type").unwrap_or_else(|| "violation".to_owned());
            let severity = match text("severity").as_deref() {
                Some("warning" | "info") => "warning",
                _ => "fatal",
            };
            let check = text("check").or_else(|| text("name")).unwrap_or_else(|| "invariant".to_owned());
            let message = text("message").unwrap_or_else(|| format!("the {side} reports {kind} of itself"));
            failure(&check, &kind, severity, message, json!({"source": side, "violation": violation}))
        })
        .collect()
}

fn failure(check: &str, kind: &str, severity: &str, message: String, detail: Value) -> Value {
    json!({"check": check, "type": kind, "severity": severity, "message": message, "detail": detail})
}

pub(crate) fn compare(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Value> {
    let mut failures = Vec::new();
    for (side, checks) in [("baseline", before), ("subject", after)] {
        let tensors = checks.get("non_finite").and_then(Value::as_array);
        for tensor in tensors.into_iter().flatten() {
            let name = tensor.as_str().unwrap_or("?");
            let message = format!("{name} of the {side} holds a NaN or an infinity");
            failures.push(failure(name, "non_finite_tensor", "fatal", message, json!({"source": side})));
        }
    }

    let names = |checks: &Map<String, Value>| -> Vec<String> {
        let paths = checks.get("layer_norm_paths").and_then(Value::as_array);
        paths.into_iter().flatten().filter_map(|path| path.as_str().map(str::to_owned)).collect()
    };
    let present = names(after);
    let missing: Vec<String> = names(before).into_iter().filter(|name| !present.contains(name)).collect();
    if !missing.is_empty() {
        let message = format!("LayerNorm modules of the baseline are missing: {}", missing.join(", "));
        let detail = json!({"missing": missing});
        failures.push(failure("layer_norm_paths", "layer_norm_missing", "warning", message, detail));
    }

    let empty = Map::new();
    let sizes = |checks: &'_ Map<String, Value>| -> Map<String, Value> {
        checks.get("embedding_vocab_sizes").and_then(Value::as_object).unwrap_or(&empty).clone()
    };
    let (old, new) = (sizes(before), sizes(after));
    let count =
        |sizes: &Map<String, Value>, size: &Value| sizes.values().filter(|other| *other == size).count();
    for (module, size) in &old {
        let now = new.get(module);
        // A renamed embedding is no change while as many of its size are left.
        let renamed = now.is_none() && count(&new, size) >= count(&old, size);
        if now != Some(size) && !renamed {
            let shown = now.map_or_else(|| "none".to_owned(), Value::to_string);
            let message =
                format!("the embedding {module} has {size} rows in the baseline and {shown} in the subject");
            let detail = json!({"module": module, "baseline": size, "current": now});
            failures.push(failure(module, "tokenizer_mismatch", "fatal", message, detail));
        }
    }

    const HANDLED: [&str; 3] = ["layer_norm_paths", "embedding_vocab_sizes", "non_finite"];
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    for key in keys.filter(|key| !HANDLED.contains(&key.as_str())) {
        let (old, new) = (before.get(key).unwrap_or(&Value::Null), after.get(key).unwrap_or(&Value::Null));
        if old == new {
            continue;
        }
        let (kind, severity) = match key.as_str() {
            "config_vocab_size" => ("tokenizer_mismatch", "fatal"),
            _ => ("invariant_violation", "warning"),
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

    fn kinds(after: Value) -> Vec<(String, String)> {
        compare(&map(base()), &map(after))
            .iter()
            .map(|f| {
                (f["type"].as_str().unwrap_or("").to_owned(), f["severity"].as_str().unwrap_or("").to_owned())
            })
            .collect()
    }

    fn pair(one: &str, other: &str) -> Vec<(String, String)> {
        vec![(one.to_owned(), other.to_owned())]
    }

    #[test]
    fn equal_checks_pass() {
        assert_eq!(kinds(base()), []);
    }

    #[test]
    fn severity_follows_the_kind() {
        let mut changed = base();
        changed["embedding_vocab_sizes"]["wte"] = json!(101);
        assert_eq!(kinds(changed), pair("tokenizer_mismatch", "fatal"));
        let mut changed = base();
        changed["config_vocab_size"] = json!(101);
        assert_eq!(kinds(changed), pair("tokenizer_mismatch", "fatal"));
        let mut changed = base();
        changed["non_finite"] = json!(["parameter::wte"]);
        assert_eq!(kinds(changed), pair("non_finite_tensor", "fatal"));
        let mut changed = base();
        changed["layer_norm_paths"] = json!(["a"]);
        assert_eq!(kinds(changed), pair("layer_norm_missing", "warning"));
        let mut changed = base();
        changed["parameter_count"] = json!(11);
        assert_eq!(kinds(changed), pair("invariant_violation", "warning"));
        let mut changed = base();
        changed["new_check"] = json!(1);
        assert_eq!(kinds(changed), pair("invariant_violation", "warning"));
    }

    #[test]
    fn a_renamed_embedding_of_the_same_size_is_no_change() {
        let mut renamed = base();
        renamed["embedding_vocab_sizes"] = json!({"embed_tokens": 100, "wpe": 8});
        assert_eq!(kinds(renamed), []);
        let mut gone = base();
        gone["embedding_vocab_sizes"] = json!({"wpe": 8});
        assert_eq!(kinds(gone), pair("tokenizer_mismatch", "fatal"));
    }
}
