//! Measuring again: which windows, what a random choice of them finds, and whether losses agree.
//!
//! Nothing is measured here. The caller measures the chosen windows in a container and passes the losses.

use crate::evaluation::Facts;
use crate::format::compute_dtype::ComputeDtype;
use crate::format::run_report::ReplayArm;
use crate::measured::{Arm, Measured};
use crate::policy::Tier;
use invarlock_error::Result;
use serde::{Deserialize, Serialize};

/// Probability with which a default reproduction finds altered losses.
const WANTED: f64 = 0.99;
/// Fewest windows of an arm that the evaluator measures.
const LEAST: usize = 2;
/// Listed differences.
const LISTED: usize = 5;

/// Evidence that was verified: what a reproduction compares with.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The facts of the evaluation.
    pub facts: Facts,
    /// What was measured of the baseline.
    pub baseline: Measured,
    /// What was measured of the subject.
    pub subject: Measured,
}

/// How many windows of each arm are measured again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// As many as find, with a probability of at least 0.99, the fewest altered losses that could change the verdict.
    Enough,
    /// This many.
    Windows(usize),
    /// All.
    All,
}

/// What a reproduction measured and what it would have found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Reproduction {
    /// Windows of each arm; of an accuracy, examples. The same holds for the other numbers of windows.
    pub windows: usize,
    /// Windows of each arm that were measured again, chosen at random.
    pub measured: usize,
    /// Whether examples are counted; absent where they are windows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub examples: bool,
    /// The fewest altered windows that could change the verdict. The verdict on an accuracy can depend on one example.
    pub fewest_altered: usize,
    /// Probability with which that many altered windows are found.
    pub probability: f64,
    /// The bound behind `fewest_altered`: no true loss is above it. It is that of a uniform guess, nats a token.
    pub largest_loss: f64,
    /// Whether the losses had to be equal bit by bit: both machines used the same matrix kernel. Otherwise [`tolerance`] applies.
    pub bit_equal: bool,
}

impl Reproduction {
    /// The plan of a reproduction.
    pub fn plan(evidence: &Verified, tier: Tier, amount: Amount) -> Self {
        let windows = evidence.baseline.final_.count();
        let examples = evidence.baseline.metric.is_accuracy();
        let largest_loss = (evidence.baseline.tokenizer.vocab_size.max(2) as f64).ln();
        let fewest_altered = if examples { 1 } else { fewest_altered(evidence, tier, largest_loss) };
        let enough = || (LEAST..windows).find(|n| probability(windows, fewest_altered, *n) >= WANTED);
        let measured = match amount {
            Amount::Enough => enough().unwrap_or(windows),
            Amount::Windows(n) => n.clamp(LEAST, windows.max(LEAST)),
            Amount::All => windows,
        };
        let probability = probability(windows, fewest_altered, measured);
        Self { windows, measured, examples, fewest_altered, probability, largest_loss, bit_equal: false }
    }

    /// One sentence for the terminal.
    pub fn sentence(&self) -> String {
        let equal = match self.bit_equal {
            true => "every loss is equal, bit by bit",
            false => "every loss agrees within the rounding errors of another matrix kernel",
        };
        if self.examples {
            return format!(
                "{} of {} examples of each arm, chosen at random, were measured again on this machine: {equal}. An example with \
                 losses altered{} would have been found with a probability of {:.1} %",
                self.measured,
                self.windows,
                if self.bit_equal { "" } else { " by more than such errors" },
                100.0 * self.probability
            );
        }
        format!(
            "{} of {} windows of each arm, chosen at random, were measured again on this machine: {equal}. Losses altered on {} \
             windows, the fewest that could change the verdict if no true loss is above {:.2}, would have been found with a \
             probability of {:.1} %",
            self.measured,
            self.windows,
            self.fewest_altered,
            self.largest_loss,
            100.0 * self.probability
        )
    }
}

/// The probability that a random choice of `measured` of `windows` windows contains one of `altered` windows: one minus the hypergeometric
/// probability of none.
pub fn probability(windows: usize, altered: usize, measured: usize) -> f64 {
    let missed: f64 = (0..measured)
        .map(|i| windows.saturating_sub(altered + i) as f64 / windows.saturating_sub(i).max(1) as f64)
        .product();
    1.0 - missed
}

/// The fewest final windows whose losses must be altered, on both sides, to bring a subject to the other side of the limit of the ratio. A
/// true loss is between 0 and `largest`.
fn fewest_altered(evidence: &Verified, tier: Tier, largest: f64) -> usize {
    let (baseline, subject) = (&evidence.baseline.final_, &evidence.subject.final_);
    let weights = subject.weights();
    let tokens: f64 = weights.iter().map(|count| *count as f64).sum();
    let sides = || baseline.losses.iter().zip(&subject.losses).zip(weights.iter());
    let excess: f64 = sides().map(|((base, subj), count)| (subj - base) * *count as f64).sum();
    // Above zero if the recorded losses pass: then the true ones could be worse.
    let margin = tier.ratio_gate().ln() * tokens - excess;
    let mut gains: Vec<f64> = sides()
        .map(|((base, subj), count)| {
            let (worse, better) = (subj, base);
            let room = |up: f64, down: f64| (largest - up).max(0.0) + down.max(0.0);
            let gain = if margin >= 0.0 { room(*worse, *better) } else { room(*better, *worse) };
            gain * *count as f64
        })
        .collect();
    gains.sort_unstable_by(|one, other| other.total_cmp(one));
    let mut sum = 0.0;
    let needed = gains.iter().position(|gain| {
        sum += gain;
        sum >= margin.abs()
    });
    needed.map_or(gains.len(), |index| index + 1).max(1)
}

/// Chooses `count` of `windows` positions without repetition, in ascending order. `below` gives a uniform random number below its argument.
///
/// # Errors
/// There is no randomness.
pub fn choose(
    windows: usize,
    count: usize,
    below: &mut dyn FnMut(usize) -> Result<usize>,
) -> Result<Vec<usize>> {
    let mut positions: Vec<usize> = (0..windows).collect();
    for place in 0..count.min(windows) {
        let other = place + below(windows - place)?;
        positions.swap(place, other);
    }
    positions.truncate(count);
    positions.sort_unstable();
    Ok(positions)
}

/// The largest difference of a loss that rounding explains when another matrix kernel computed it, nats a token. `exact` says that both kernels
/// compute in float32.
///
/// A sum of n products in float32 has a relative error of about the square root of n times 2^-24 (its rounding errors are independent). No model
/// that the evaluator supports does more than 2^24 roundings one after the other for one logit, so the error is below 2^-12 of the logits,
/// which are as large as the loss, or 1.
///
/// In bf16x3, a product of two numbers has three errors of at most 2^-18 each, which are independent: together about 2^-18. A model has at most
/// 2^14 matrix products one after the other (1,024 layers), so the error is about 2^7 times 2^-18. The tolerance is twice that, 2^-10.
pub fn tolerance(loss: f64, exact: bool) -> f64 {
    (1.0 + loss.abs()) / if exact { 4096.0 } else { 1024.0 }
}

/// Whether two measurements used the same matrix kernel with the same block sizes.
pub fn same_kernel(one: &Measured, other: &Measured) -> bool {
    (&one.evaluator.kernel, &one.evaluator.version) == (&other.evaluator.kernel, &other.evaluator.version)
}

/// What of `again` differs from what was recorded for the same windows: a sentence each, at most some.
pub fn differences(side: &str, recorded: &Measured, again: &Measured) -> Vec<String> {
    let same = same_kernel(recorded, again);
    let exact = [recorded, again].iter().all(|one| one.facts.compute_dtype == ComputeDtype::Float32.name());
    let mut lines = Vec::new();
    for (name, recorded, again) in
        [("preview", &recorded.preview, &again.preview), ("final", &recorded.final_, &again.final_)]
    {
        for (index, id) in again.window_ids.iter().enumerate() {
            let found = again.losses[index];
            let place = recorded.window_ids.iter().position(|recorded| recorded == id);
            let Some(stated) = place.map(|place| recorded.losses[place]) else {
                lines.push(format!("the {side} report has no {name} window {id}"));
                continue;
            };
            let allowed = if same { 0.0 } else { tolerance(found, exact) };
            // NaN differs from everything.
            let agrees = found == stated || (found - stated).abs() <= allowed;
            if !agrees {
                lines.push(format!(
                    "the {side} report has the loss {stated} for the {name} window {id}; measured again, it is {found}"
                ));
            }
        }
    }
    let more = lines.len().saturating_sub(LISTED);
    lines.truncate(LISTED);
    if more > 0 {
        lines.push(format!("{more} more losses of the {side} differ"));
    }
    lines
}

/// Whether an arm has these windows, and predicts the same in them.
pub fn same_windows(recorded: &Arm, windows: &ReplayArm) -> bool {
    recorded.window_ids == windows.window_ids
        && recorded.input_ids == windows.input_ids
        && recorded.labels == windows.labels
        && recorded.examples == windows.examples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_is_hypergeometric() {
        assert_eq!(probability(10, 1, 5), 0.5);
        assert_eq!(probability(10, 10, 1), 1.0);
        assert_eq!(probability(10, 0, 10), 0.0);
        // 1 - C(8,3) / C(10,3)
        assert!((probability(10, 2, 3) - (1.0 - 56.0 / 120.0)).abs() < 1e-12);
        assert_eq!(probability(5, 1, 5), 1.0);
    }

    #[test]
    fn the_tolerance_depends_on_the_type_of_numbers() {
        assert_eq!(tolerance(3.0, true), 4.0 / 4096.0);
        assert_eq!(tolerance(-3.0, false), 4.0 / 1024.0);
    }

    #[test]
    fn a_choice_is_uniform_and_without_repetition() {
        let mut state = 7usize;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Ok((state >> 33) % n)
        };
        let mut counts = [0; 10];
        for _ in 0..3000 {
            let chosen = choose(10, 3, &mut below).expect("a choice");
            assert!(chosen.is_sorted_by(|one, other| one < other) && chosen.len() == 3);
            chosen.iter().for_each(|place| counts[*place] += 1);
        }
        assert!(counts.iter().all(|count| (800..1000).contains(count)), "{counts:?}");
        assert_eq!(choose(3, 3, &mut below).expect("all"), [0, 1, 2]);
    }
}
