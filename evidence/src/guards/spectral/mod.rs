//! The spectral guard: the weights of each module against those of the baseline.

pub mod compare;
pub mod multiple_testing;
pub mod upstream;

use super::{Check, Fact, Finding, Guard, GuardGate, Limit};
use crate::format::guard_request::GuardMode;
use crate::format::untrusted::Node;
use serde_json::Value;

/// The guard.
pub(super) const GUARD: Guard = Guard {
    name: "spectral",
    title: "Spectral",
    purpose: "weights of each module are like those of the baseline",
    gate: Some(GuardGate {
        flag: "spectral_stable",
        label: "Spectral Stable",
        title: "Spectral stability",
        measured: |block| {
            let caps = block.get("max_caps").f64().or_else(|| block.at("summary.max_caps").f64());
            (Fact::count(block, "caps_applied", "caps applied"), caps.map(Limit::AtMost))
        },
        detail,
    }),
    evaluate: |sides| match sides.request.mode {
        GuardMode::Compare => compare::evaluate(sides),
        GuardMode::Upstream => upstream::evaluate(sides),
    },
    needs_statistics: true,
    not_evaluated: &[],
    verify,
    outcome: |block, flag| block.get("passed").bool().or(flag).into(),
    facts: |block| {
        let modules = Fact::count(block, "summary.modules_checked", "modules checked");
        let caps = Fact::count(block, "caps_applied", "caps applied");
        let number = |path, name| block.at(path).f64().map(|number| Fact::Number(name, number, 4));
        let norm = number("summary.max_spectral_norm", "largest norm");
        let ratio = number("summary.max_sigma_ratio", "largest ratio of norms");
        let correlation = number("summary.min_correlation", "smallest correlation");
        // Only the comparison of both sides has a correlation.
        let ratio = ratio.filter(|_| correlation.is_some());
        [modules, caps, norm, ratio, correlation].into_iter().flatten().collect()
    },
};

fn verify(check: &Check<'_>) -> Vec<Finding> {
    let mut found = vec![Finding::NotRecomputed("spectral: its numbers need the weights".to_owned())];
    let caps = check.tier.spectral_caps();
    let applied = whole(check.block.get("caps_applied").value()).unwrap_or(0);
    let exceeded = check.block.get("caps_exceeded").value();
    let exceeded = !matches!(exceeded, Value::Null | Value::Bool(false)) && exceeded.as_f64() != Some(0.0);
    if check.profile.gated() && (applied > caps || exceeded) {
        let tier = check.tier;
        found.push(Finding::Gate(format!(
            "spectral.caps_applied is {applied}, the {tier} tier allows {caps}"
        )));
    }
    found
}

/// A number of 0 or more without its fraction, or a string that is one: upstream writes both.
fn whole(value: &Value) -> Option<u64> {
    let float = |value: &Value| {
        value.as_f64().filter(|float| (0.0..1.8e19).contains(float)).map(|float| float as u64)
    };
    value.as_u64().or_else(|| float(value)).or_else(|| value.as_str()?.trim().parse().ok())
}

/// One line for the terminal.
fn detail(block: Node<'_>) -> String {
    if block.get("mode").str() == Some("upstream") {
        return upstream_detail(block);
    }
    let compared = block
        .get("summary")
        .get("modules_checked")
        .u64()
        .filter(|_| block.get("mode").str() == Some("compare"));
    let Some(modules) = compared else { return "evaluated".to_owned() };
    let violations: Vec<Node<'_>> = block.get("violations").elements().collect();
    let caps = block.get("caps_applied").u64().unwrap_or_default();
    let most = block.get("max_caps").u64().unwrap_or_default();
    let number = |name: &str| block.get("summary").get(name).f64();
    match worst(&violations) {
        Some(worst) => {
            let text = |name: &str| worst.get(name).str().unwrap_or_default().to_owned();
            let fatal = number("fatal_violations").unwrap_or_default();
            let counts = format!(
                "fatal violations: {fatal}, accepted: 0; modules with smaller violations: {caps}, accepted: {most}"
            );
            format!("{counts}; worst: {}: {}", text("module"), text("message"))
        }
        None => {
            let shown =
                |name: &str| number(name).map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"));
            let (ratio, correlation) = (shown("max_sigma_ratio"), shown("min_correlation"));
            format!("{modules} modules, largest ratio of norms {ratio}, smallest correlation {correlation}")
        }
    }
}

/// A fatal violation before others, the smallest correlation before other kinds, the first of several alike.
fn worst<'n, 'v>(violations: &'v [Node<'n>]) -> Option<&'v Node<'n>> {
    let rank = |violation: &Node<'n>| {
        let correlation = violation.get("subject").f64().filter(|_| violation.get("type") == "correlation");
        (violation.get("severity") != "fatal", correlation.unwrap_or(1.0))
    };
    violations.iter().min_by(|a, b| {
        let ((a, a_correlation), (b, b_correlation)) = (rank(a), rank(b));
        a.cmp(&b).then(a_correlation.total_cmp(&b_correlation))
    })
}

/// The line of a subject that was compared with itself.
fn upstream_detail(block: Node<'_>) -> String {
    let count = |path: &str| block.at(path).u64().unwrap_or_default();
    let families = block.get("family_z_quantiles").object().into_iter().flatten();
    let largest = families.filter_map(|(_, family)| family.get("max")?.as_f64()).fold(0.0, f64::max);
    format!(
        "{} modules against themselves (--guards upstream), {} violations of at most {}, largest z-score {largest:.3}",
        count("summary.modules_checked"),
        count("caps_applied"),
        count("max_caps")
    )
}
