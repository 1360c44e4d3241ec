//! Whether the boundary held against an attack.

use crate::answer::{Answer, errno_name};
use crate::attacks::{Attack, Expect};
use crate::findings::Findings;
use serde::{Deserialize, Serialize};

/// Whether the boundary held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A control blocked the attack.
    Held,
    /// The attack succeeded.
    NotHeld,
    /// The attack was not made: the attacker refused, or it ended before.
    NotTried,
}

/// One attack and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct AttackResult {
    /// The control of the boundary that is attacked.
    #[serde(rename = "row")]
    pub control: String,
    /// The identifier of the attack.
    pub id: String,
    /// What was tried.
    pub attack: String,
    /// What should have been observed.
    pub expected: String,
    /// What was observed, safe to print.
    #[serde(rename = "seen")]
    pub observed: String,
    /// The verdict on that.
    pub verdict: Verdict,
}

/// Compares what was observed of an attack with what was expected.
pub(crate) fn judge(attack: &Attack, findings: &Findings) -> AttackResult {
    let (expected, observed) = compare(attack, findings);
    let (observed, verdict) = match observed {
        Some((text, true)) => (text, Verdict::Held),
        Some((text, false)) => (text, Verdict::NotHeld),
        None => ("no answer".into(), Verdict::NotTried),
    };
    AttackResult {
        control: attack.control.into(),
        id: attack.id.into(),
        attack: attack.what.into(),
        expected,
        observed: invarlock_runtime::printable(&observed),
        verdict,
    }
}

/// What was expected; and what was observed, with whether it is good. None where nothing was observed.
fn compare(attack: &Attack, findings: &Findings) -> (String, Option<(String, bool)>) {
    let answer = findings.answers.get(attack.id);
    let observed = |good: bool| answer.map(|answer| (answer.describe(), good));
    let is_text = |wanted: &str| matches!(answer, Some(Answer::Text(text)) if text == wanted);
    match &attack.expect {
        Expect::Errno(errnos) => {
            let names: Vec<String> = errnos.iter().map(|errno| errno_name(*errno)).collect();
            let good = matches!(answer, Some(Answer::Failed(errno)) if errnos.contains(errno));
            (names.join(" or "), observed(good))
        }
        Expect::KilledBySigsys => {
            ("killed by SIGSYS".into(), observed(answer == Some(&Answer::Killed(libc::SIGSYS))))
        }
        Expect::Text(wanted) => ((*wanted).to_owned(), observed(is_text(wanted))),
        Expect::TextOf(wanted) => {
            let wanted = wanted(findings);
            let good = is_text(&wanted);
            (wanted, observed(good))
        }
        Expect::AtMost(limit) => {
            let limit = limit(findings);
            let number = match answer {
                Some(Answer::Text(text)) => text.parse::<u64>().ok(),
                _ => None,
            };
            (format!("at most {limit}"), observed(number.is_some_and(|number| number <= limit)))
        }
        Expect::Outside(expected, check) => ((*expected).to_owned(), check(findings, answer)),
    }
}

#[cfg(test)]
mod tests;
