//! The windows of both sides, paired by id.
//!
//! The report is untrusted JSON. Windows of the same id are compared, whatever their order.

use crate::format::choices::{self, Choices};
use crate::format::untrusted::Node;
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::HashMap;

/// One window of the subject, and the baseline's loss on it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// Its id as text.
    pub(crate) id: String,
    /// Tokens that were predicted, if the report states them.
    pub(crate) tokens: Option<f64>,
    /// Mean loss of the baseline; none if it is missing or not finite.
    pub(crate) baseline: Option<f64>,
    /// Mean loss of the subject.
    pub(crate) subject: Option<f64>,
    /// The choice that it is; none where windows are no choices.
    pub(crate) choice: Option<Choice>,
}

/// A choice of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Position of the example in its arm, from 0.
    pub(crate) example: usize,
    /// Position of the choice in the example.
    pub(crate) place: usize,
    /// Whether it is the right one.
    pub(crate) right: bool,
}

impl Window {
    /// Loss of the subject minus loss of the baseline.
    pub(crate) fn change(&self) -> Option<f64> {
        Some(self.subject? - self.baseline?).filter(|change| change.is_finite())
    }
}

/// The windows of one arm.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Paired {
    /// Windows that both sides have, in the order of the subject.
    pub(crate) windows: Vec<Window>,
    /// Windows that one side lacks.
    pub(crate) unpaired: usize,
}

/// Why the windows of an arm are not usable: a side, and a sentence without its subject.
pub(crate) type Unusable = (&'static str, &'static str);

/// The windows of an arm, `preview` or `final`.
pub(crate) fn arm(report: Node<'_>, name: &str) -> Result<Paired, Unusable> {
    let of = |side: &'static str, member: &'static str| {
        let arm = report.get(member).value().get(name).unwrap_or(&Value::Null);
        losses(Node::root("", arm)).map_err(|why| (side, why))
    };
    let baseline: HashMap<String, Measured> = of("baseline", "baseline_windows")?.into_iter().collect();
    let subject = of("subject", "evaluation_windows")?;
    let total = subject.len() + baseline.len();
    let choices = choices(report.get("evaluation_windows").value().get(name), subject.len());
    let pair = |(place, (id, measured)): (usize, (String, Measured))| {
        let before = baseline.get(&id)?;
        let choice = choices.get(place).copied();
        Some(Window { id, tokens: measured.tokens, baseline: before.loss, subject: measured.loss, choice })
    };
    let windows: Vec<Window> = subject.into_iter().enumerate().filter_map(pair).collect();
    Ok(Paired { unpaired: total - 2 * windows.len(), windows })
}

/// The choice that each of the windows of an arm is; none unless its examples have all windows.
fn choices(arm: Option<&Value>, windows: usize) -> Vec<Choice> {
    let examples =
        arm.and_then(|arm| Vec::<Choices>::deserialize(arm.get("examples")?).ok()).unwrap_or_default();
    if choices::check(&examples, windows).is_err() {
        return Vec::new();
    }
    let of = |(example, known): (usize, &Choices)| {
        let answer = known.answer;
        (0..known.choices).map(move |place| Choice { example, place, right: place == answer })
    };
    examples.iter().enumerate().flat_map(of).collect()
}

struct Measured {
    loss: Option<f64>,
    tokens: Option<f64>,
}

/// Losses of one arm with their window ids, which are unique, or why they are not usable.
fn losses(arm: Node<'_>) -> Result<Vec<(String, Measured)>, &'static str> {
    let (Some(ids), Some(losses)) = (arm.get("window_ids").array(), arm.get("logloss").array()) else {
        return Err("are not in the report");
    };
    if ids.len() != losses.len() {
        return Err("do not have one loss for each window id");
    }
    let tokens = arm.get("token_counts").array().unwrap_or_default();
    let mut known = std::collections::HashSet::with_capacity(ids.len());
    let mut found = Vec::with_capacity(ids.len());
    for (i, (id, loss)) in ids.iter().zip(losses).enumerate() {
        let id = match id {
            Value::String(id) => id.trim().to_owned(),
            Value::Number(id) => id.to_string(),
            _ => return Err("have a window id that is neither a number nor a string"),
        };
        if !known.insert(id.clone()) {
            return Err("contain a window id twice");
        }
        let number = |value: &Value| value.as_f64().filter(|number| number.is_finite());
        found.push((id, Measured { loss: number(loss), tokens: tokens.get(i).and_then(number) }));
    }
    if found.is_empty() { Err("are empty") } else { Ok(found) }
}

/// The windows with the largest change of loss, the largest first; none if nothing changed.
pub(crate) fn most_changed(windows: &[Window], count: usize) -> Vec<(&Window, f64)> {
    let changed = |window| Some((window, Window::change(window)?)).filter(|(_, change)| *change != 0.0);
    let mut changes: Vec<(&Window, f64)> = windows.iter().filter_map(changed).collect();
    changes.sort_by(|one, other| other.1.abs().total_cmp(&one.1.abs()));
    changes.truncate(count);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn windows_are_paired_by_id_and_sorted_by_change() {
        let report = json!({
            "baseline_windows": {"final": {"window_ids": [3, "1", 2, 9], "logloss": [3.0, 1.0, 2.0, 0.0]}},
            "evaluation_windows": {"final": {
                "window_ids": [1, 2, 3], "logloss": [1.5, 2.0, 2.0], "token_counts": [8, 8, null]}},
        });
        let paired = arm(Node::root("", &report), "final").expect("usable");
        assert_eq!(paired.unpaired, 1);
        let changes: Vec<_> =
            paired.windows.iter().map(|window| (window.id.as_str(), window.change())).collect();
        assert_eq!(changes, [("1", Some(0.5)), ("2", Some(0.0)), ("3", Some(-1.0))]);
        let most = most_changed(&paired.windows, 5);
        assert_eq!(most.iter().map(|(window, _)| window.id.as_str()).collect::<Vec<_>>(), ["3", "1"]);
        assert_eq!(arm(Node::root("", &report), "preview"), Err(("baseline", "are not in the report")));
    }
}
