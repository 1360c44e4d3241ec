//! The table of guards.

use super::{Mark, text};
use crate::format::untrusted::Node;
use crate::guards::{Fact, Guard, Outcome, TABLE};
use serde::Serialize;
use serde_json::Value;

/// Failures of one guard that are shown; the others are counted.
const SHOWN: usize = 8;

#[derive(Serialize)]
pub(super) struct GuardView {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) mark: Mark,
    pub(super) decision: String,
    pub(super) facts: Vec<String>,
    pub(super) problems: Vec<String>,
    pub(super) more: usize,
}

pub(super) fn guards(report: &Value) -> Vec<GuardView> {
    let report = Node::root("", report);
    TABLE.iter().map(|guard| view(report, guard)).collect()
}

/// The outcome of a guard as its report states it.
fn outcome(report: Node<'_>, guard: &Guard) -> Outcome {
    let block = guard.block(report);
    if block.object().is_none_or(|members| members.is_empty()) {
        return Outcome::NotRecorded;
    }
    if !Guard::is_evaluated(block) {
        return Outcome::NotEvaluated;
    }
    let flag = guard.gate.as_ref().and_then(|gate| report.get("validation").get(gate.flag).bool());
    (guard.outcome)(block, flag)
}

fn view(report: Node<'_>, guard: &Guard) -> GuardView {
    let block = guard.block(report);
    let outcome = outcome(report, guard);
    let facts = match block.get("evaluated").bool() {
        Some(false) => {
            let reason = block.get("skip_reason").str().or_else(|| block.get("reason").str());
            reason.map(text::label).into_iter().collect()
        }
        _ => (guard.facts)(block).into_iter().map(fact).collect(),
    };
    let problems = ["failures", "violations", "epsilon_violations"]
        .into_iter()
        .filter_map(|name| block.get(name).array())
        .find(|list| !list.is_empty())
        .unwrap_or_default();
    GuardView {
        id: guard.name,
        name: guard.title,
        what: purpose(block, guard),
        mark: outcome.into(),
        decision: block.get("decision").str().unwrap_or_default().to_owned(),
        facts,
        more: problems.len().saturating_sub(SHOWN),
        problems: problems.iter().take(SHOWN).map(problem).collect(),
    }
}

/// What a guard checks.
fn purpose(block: Node<'_>, guard: &Guard) -> &'static str {
    match block.get("mode").str() {
        Some("upstream") => "the subject against itself, as InvarLock 0.12 does (--guards upstream)",
        _ => guard.purpose,
    }
}

/// A violation in words, where its guard states them.
fn problem(problem: &Value) -> String {
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    match (text("module"), text("message")) {
        (Some(module), Some(message)) => text::compact("", &format!("{module}: {message}").into()),
        _ => text::compact("", problem),
    }
}

/// A fact as text.
pub(super) fn fact(fact: Fact) -> String {
    match fact {
        Fact::Count(number, noun) => format!("{} {noun}", text::whole(number)),
        Fact::Number(name, number, digits) => format!("{name} {}", text::significant(number, digits)),
        Fact::Ratio(name, number) => format!("{name} {}", text::ratio(number)),
        Fact::Text(sentence) => sentence.to_owned(),
        Fact::Value(name, value) => format!("{name} {}", text::label(&value)),
    }
}
