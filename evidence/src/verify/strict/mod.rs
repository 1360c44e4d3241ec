//! The checks of this program. Everything that follows from raw losses is recomputed, and thresholds come from the tables of
//! [`crate::policy`], never from the report. Upstream believes the thresholds, baseline numbers, pairing statistics and guard results that the
//! report itself states.

mod gates;
mod metric;
mod policies;
mod windows;

use super::VerifyOptions;
use crate::format::metrics::{self, Metric};
use crate::format::untrusted::{Node, Unexpected};
use crate::numerics::stats::weighted_mean;
use crate::policy::Tier;
use crate::run_report::RunReport;
use serde_json::Value;

/// The most work that a report may cause: windows of one arm times bootstrap replicates.
const MAX_DRAWS: usize = 200_000_000;

/// Member of an arm with the number of tokens of each window, without padding.
const ACTUAL: &str = "actual_token_counts";

/// What the strict checks find.
#[derive(Default)]
pub(super) struct Found {
    /// Values that contradict each other or their recomputation.
    pub(super) mismatches: Vec<String>,
    /// Gates that the subject fails, by recomputed numbers.
    pub(super) gates: Vec<String>,
    /// Policies that are looser than the tables, and missing evidence.
    pub(super) failures: Vec<String>,
    pub(super) recomputed: Vec<String>,
    pub(super) not_recomputed: Vec<String>,
}

/// Window ids, losses and weights of one arm.
#[derive(Debug, Clone)]
struct Arm {
    ids: Vec<u64>,
    losses: Vec<f64>,
    /// Weights.
    counts: Vec<u64>,
    /// Tokens without padding, where they are not the weights.
    actual: Option<Vec<u64>>,
}

impl Arm {
    fn read(node: Node<'_>) -> Result<Self, String> {
        let arm = Self::read_lists(node).map_err(|error| error.to_string())?;
        if arm.ids.is_empty() || arm.ids.len() != arm.losses.len() || arm.ids.len() != arm.counts.len() {
            return Err(format!(
                "{} has {} window_ids, {} losses and {} token_counts; their numbers must be equal and not 0",
                node.path(),
                arm.ids.len(),
                arm.losses.len(),
                arm.counts.len()
            ));
        }
        Ok(arm)
    }

    fn read_lists(node: Node<'_>) -> Result<Self, Unexpected> {
        let elements = |name| node.get(name).require_array().map(|_| node.get(name).elements());
        let integers = |name| -> Result<Vec<u64>, Unexpected> {
            elements(name)?
                .map(|element| {
                    let number = element.u64().filter(|number| *number < 1 << 32);
                    number.ok_or_else(|| element.unexpected("an integer from 0 to 2^32 - 1"))
                })
                .collect()
        };
        let losses = elements("logloss")?.map(Node::require_f64).collect::<Result<_, _>>()?;
        let (ids, counts) = (integers("window_ids")?, integers("token_counts")?);
        let listed = node.get(ACTUAL).array().is_some_and(|counts| counts.len() == ids.len());
        let actual = if listed { Some(integers(ACTUAL)?) } else { None };
        Ok(Arm { ids, losses, counts, actual })
    }

    fn of(arm: &crate::run_report::WindowArm) -> Self {
        let (ids, losses, counts) = (&arm.window_ids, &arm.logloss, &arm.token_counts);
        Arm { ids: ids.clone(), losses: losses.clone(), counts: counts.clone(), actual: None }
    }

    /// Whether both have the same windows, losses and weights.
    fn same_losses(&self, other: &Self) -> bool {
        (&self.ids, &self.losses, &self.counts) == (&other.ids, &other.losses, &other.counts)
    }

    /// Tokens of each window without padding.
    fn real(&self) -> &[u64] {
        self.actual.as_deref().unwrap_or(&self.counts)
    }

    fn mean(&self) -> Option<f64> {
        weighted_mean(&self.losses, &self.counts)
    }

    fn tokens(&self) -> u64 {
        self.real().iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

struct Check<'a> {
    report: Node<'a>,
    options: &'a VerifyOptions,
    /// The tier that the report names, which its own values follow from; not always the one that the verifier requires.
    stated_tier: Tier,
    found: Found,
}

/// Runs all checks. `baseline` is the run report of `--baseline`, with the SHA-256 of its bytes.
pub(super) fn check(report: Node<'_>, options: &VerifyOptions, baseline: Option<&RunReport>) -> Found {
    let stated = policies::stated_tier(report);
    let mut check = Check { report, options, stated_tier: stated, found: Found::default() };
    let tier = check.tier();
    check.policies();
    let kind = report.at("primary_metric.kind").str().unwrap_or_default();
    // The reports of others do not have the losses from which an accuracy follows.
    let perplexity = |metric: &&Metric| !metric.is_accuracy();
    let Some(metric) = metrics::named(kind).filter(perplexity) else {
        let known: Vec<&str> = metrics::TABLE.iter().filter(perplexity).map(|metric| metric.name).collect();
        let known = known.join(", ");
        check.not(format!("primary_metric of kind {kind}: the kinds that are recomputed are {known}"));
        check.gates(tier, None);
        return check.found;
    };
    check.metric(metric, tier, baseline);
    check.found
}

impl Check<'_> {
    fn mismatch(&mut self, text: String) {
        self.found.mismatches.push(text);
    }

    fn fail(&mut self, text: String) {
        self.found.failures.push(text);
    }

    fn gate(&mut self, text: String) {
        self.found.gates.push(text);
    }

    fn not(&mut self, text: String) {
        self.found.not_recomputed.push(text);
    }

    fn yes(&mut self, text: impl Into<String>) {
        self.found.recomputed.push(text.into());
    }

    fn gated(&self) -> bool {
        self.options.profile.gated()
    }

    /// A recorded number must equal the recomputed one.
    fn number(&mut self, recorded: Node<'_>, computed: f64) {
        let tolerance = self.options.tolerance.max(1e-12) * computed.abs().max(1.0);
        let path = recorded.path();
        match recorded.f64() {
            Some(value) if (value - computed).abs() <= tolerance => {}
            Some(value) => self.mismatch(format!("{path} mismatch: recorded {value}, recomputed {computed}")),
            None => self.mismatch(format!("{path} mismatch: no number recorded, recomputed {computed}")),
        }
    }

    /// A recorded value must equal the recomputed one.
    fn same(&mut self, recorded: Node<'_>, computed: &Value) {
        let equal_numbers = recorded.f64().zip(computed.as_f64()).is_some_and(|(one, other)| one == other);
        if recorded != *computed && !equal_numbers {
            let path = recorded.path();
            self.mismatch(format!("{path} mismatch: recorded {recorded}, recomputed {computed}"));
        }
    }

    /// Like [`Self::same`]; reports of other programs may lack the value.
    fn same_if_recorded(&mut self, recorded: Node<'_>, computed: &Value) {
        if !recorded.is_null() {
            self.same(recorded, computed);
        }
    }
}
