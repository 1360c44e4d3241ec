//! Checks of the windows of one arm of a run report, and the numbers that follow from them.

use crate::format::choices;
use crate::format::metrics::Metric;
use crate::format::objective::Objective;
use crate::numerics::NOT_PREDICTED;
use crate::numerics::stats::{share, weighted_mean};
use crate::run_report::WindowArm;
use invarlock_error::Error;
use std::collections::HashSet;
use std::fmt::Display;

/// Numbers that follow from one arm.
#[derive(Debug)]
pub(super) struct Arm {
    pub(super) mean_loss: f64,
    /// The value of the metric: a perplexity or an accuracy.
    pub(super) value: f64,
    /// Whether each example is answered right; empty unless an accuracy is measured.
    pub(super) answered: Vec<bool>,
    /// Tokens without padding.
    pub(super) tokens: u64,
    /// Sum of the weights.
    pub(super) predicted: u64,
}

pub(super) fn contradiction(role: &str, what: impl Display) -> Error {
    Error::integrity(format!("the {role} run report contradicts itself: {what}")).with_hint(
        "measure the checkpoint again; if the error repeats, do not trust the image that measured it",
    )
}

impl Arm {
    /// Checks the arm `name` of a measurement of this metric.
    pub(super) fn check(
        role: &str,
        name: &str,
        arm: &WindowArm,
        seq_len: usize,
        metric: &Metric,
    ) -> Result<Self, Error> {
        let at = |member: &str| format!("evaluation_windows.{name}.{member}");
        lengths(arm, metric, &at).map_err(|what| contradiction(role, what))?;
        let mut tokens = 0;
        for i in 0..arm.window_ids.len() {
            tokens += window(arm, i, seq_len, metric)
                .map_err(|(member, what)| contradiction(role, format!("{}[{i}] {what}", at(member))))?;
        }
        let mean_loss = weighted_mean(&arm.logloss, &arm.token_counts)
            .ok_or_else(|| contradiction(role, format!("{} has no weight", at("token_counts"))))?;
        let predicted = arm.token_counts.iter().sum();
        if metric.is_accuracy() {
            let answered =
                answered(arm).map_err(|what| contradiction(role, format!("{} {what}", at("examples"))))?;
            return Ok(Arm { mean_loss, value: share(&answered), answered, tokens, predicted });
        }
        let perplexity = mean_loss.exp();
        if !perplexity.is_finite() {
            return Err(Error::integrity(format!(
                "the {role} run report has a mean loss of {mean_loss} in its {name} arm, whose perplexity is not finite"
            )));
        }
        Ok(Arm { mean_loss, value: perplexity, answered: Vec::new(), tokens, predicted })
    }
}

/// Whether each example of an arm is answered right. The choices of an example must be different windows.
fn answered(arm: &WindowArm) -> Result<Vec<bool>, String> {
    let Some(examples) = &arm.examples else { return Err("is missing".to_owned()) };
    choices::check(examples, arm.window_ids.len())?;
    for (place, rows) in choices::parts(examples, &arm.input_ids).enumerate() {
        let different: HashSet<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        if different.len() != rows.len() {
            return Err(format!("has equal choices in example {place}"));
        }
    }
    Ok(choices::answered(examples, &arm.logloss, &arm.token_counts))
}

/// Every list has an element for each window. The labels and the repeated counts of the perplexity of a causal model may be missing.
fn lengths(arm: &WindowArm, metric: &Metric, at: &dyn Fn(&str) -> String) -> Result<(), String> {
    let n = arm.window_ids.len();
    if n == 0 {
        return Err(format!("{} is empty", at("window_ids")));
    }
    let required = [
        ("logloss", arm.logloss.len()),
        ("input_ids", arm.input_ids.len()),
        ("attention_masks", arm.attention_masks.len()),
        ("token_counts", arm.token_counts.len()),
    ];
    let follow = [
        ("masked_token_counts", arm.masked_token_counts.len()),
        ("actual_token_counts", arm.actual_token_counts.len()),
        ("labels", arm.labels.len()),
    ];
    let present = follow.into_iter().filter(|(_, len)| *len > 0 || metric.has_labels());
    match required.into_iter().chain(present).find(|(_, len)| *len != n) {
        Some((member, len)) => Err(format!("{} has {len} elements for {n} window ids", at(member))),
        None => Ok(()),
    }
}

/// A member of a window, and why it is wrong.
type Fault = (&'static str, String);

/// Checks a window and gives its number of tokens.
fn window(arm: &WindowArm, i: usize, seq_len: usize, metric: &Metric) -> Result<u64, Fault> {
    let (ids, mask) = (&arm.input_ids[i], &arm.attention_masks[i]);
    for (member, len) in [("input_ids", ids.len()), ("attention_masks", mask.len())] {
        if len != seq_len {
            return Err((member, format!("has {len} elements, seq_len is {seq_len}")));
        }
    }
    if let Some(bit) = mask.iter().find(|bit| **bit > 1) {
        return Err(("attention_masks", format!("contains {bit}, not 0 or 1")));
    }
    let real = mask.iter().map(|bit| u64::from(*bit)).sum::<u64>();
    let least = if metric.objective.is_causal() { 2 } else { 1 };
    if real < least {
        return Err(("attention_masks", format!("has {real} real tokens; a loss needs {least}")));
    }
    let predicted = labels(arm, i, real, metric)?;
    let counts = [
        ("token_counts", arm.token_counts.get(i), predicted),
        ("masked_token_counts", arm.masked_token_counts.get(i), predicted),
        ("actual_token_counts", arm.actual_token_counts.get(i), real),
    ];
    for (member, count, expected) in counts {
        if let Some(count) = count.filter(|count| **count != expected) {
            return Err((member, format!("is {count}, its mask and labels give {expected}")));
        }
    }
    let loss = arm.logloss[i];
    match loss.is_finite() && loss >= -1e-6 {
        true => Ok(real),
        false => Err(("logloss", format!("is {loss}; a cross-entropy is finite and positive"))),
    }
}

/// Checks the labels of a window with `real` tokens and gives its weight.
fn labels(arm: &WindowArm, i: usize, real: u64, metric: &Metric) -> Result<u64, Fault> {
    let (ids, mask) = (&arm.input_ids[i], &arm.attention_masks[i]);
    let Some(labels) = arm.labels.get(i) else { return Ok(real) };
    if labels.len() != ids.len() {
        return Err(("labels", format!("has {} elements for {} token ids", labels.len(), ids.len())));
    }
    if metric.is_accuracy() {
        return choice(ids, mask, labels);
    }
    if metric.objective.is_causal() {
        let own = |j: usize| if mask[j] == 1 { i64::from(ids[j]) } else { NOT_PREDICTED };
        return match (0..labels.len()).all(|j| labels[j] == own(j)) {
            true => Ok(real),
            false => Err(("labels", "are not the ids where the mask is 1, else -100".to_owned())),
        };
    }
    let mut predicted = 0;
    for (label, bit) in labels.iter().zip(mask).filter(|(label, _)| **label != NOT_PREDICTED) {
        if u32::try_from(*label).is_err() {
            return Err(("labels", format!("contains {label}, which is no token")));
        }
        // The targets of a sequence-to-sequence model are beside its tokens, not among them.
        if metric.objective == Objective::Masked && *bit == 0 {
            return Err(("labels", "predicts padding".to_owned()));
        }
        predicted += 1;
    }
    match predicted {
        0 => Err(("labels", "predicts no token".to_owned())),
        predicted => Ok(predicted),
    }
}

/// Checks the labels of a choice and gives their number: the last tokens, at least one, and not the first one.
fn choice(ids: &[u32], mask: &[u8], labels: &[i64]) -> Result<u64, Fault> {
    let start = labels.iter().position(|label| *label != NOT_PREDICTED).unwrap_or_default();
    let expected = |j: usize| match j >= start && mask[j] == 1 {
        true => i64::from(ids[j]),
        false => NOT_PREDICTED,
    };
    match start > 0 && (0..labels.len()).all(|j| labels[j] == expected(j)) {
        true => Ok(labels.iter().filter(|label| **label != NOT_PREDICTED).count() as u64),
        false => Err(("labels", "are not the last tokens where the mask is 1".to_owned())),
    }
}
