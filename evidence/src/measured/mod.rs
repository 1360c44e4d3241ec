//! A measurement as the values from which its run report follows.
//!
//! The evaluator writes what [`Measured::report`] gives. The launcher and the verifier read the values back with [`Measured::read`], and
//! require that they give the same report: a run report then says nothing that contradicts its windows, its losses or itself.

pub(crate) mod digests;
mod read;
mod report;

use crate::format::check_report::CheckpointFacts;
use crate::format::choices::{self, Choices};
use crate::format::dataset::Provider;
use crate::format::guard_request::GuardRequest;
use crate::format::masking::Masked;
use crate::format::measurement::Measurement;
pub use crate::format::measurement::{Evaluator, Seconds, Selection, Tokenizer};
use crate::format::metrics::Metric;
use crate::format::run_report::InvariantChecks;
use crate::format::statistics::GuardStatistics;
use crate::job::Role;
use crate::journal::Journal;
use crate::numerics::NOT_PREDICTED;
use crate::numerics::stats::{share, weighted_mean};
use invarlock_error::{Error, Result, bail};
pub(crate) use read::read_guard_request;
pub use read::read_statistics;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Name of our evaluator in reports.
pub(crate) const EVALUATOR: &str = "invarlock-evaluator";

/// The request to one measuring container, as its report repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// The side.
    pub role: Role,
    /// The user's name of the checkpoint.
    pub model_id: String,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// Tokens a window.
    pub seq_len: usize,
    /// Distance of two windows in tokens.
    pub stride: usize,
    /// Preview windows asked for.
    pub preview_n: usize,
    /// Final windows asked for.
    pub final_n: usize,
    /// Which rows of the dataset become windows.
    pub provider: Provider,
    /// Name of the split.
    pub split: String,
    /// Seed.
    pub seed: u64,
    /// What the guards are asked for.
    pub guards: GuardRequest,
}

/// Windows and losses of one arm: parallel lists.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arm {
    /// Ids of the windows.
    pub window_ids: Vec<u64>,
    /// Padded token ids, `seq_len` each.
    pub input_ids: Vec<Vec<u32>>,
    /// Number of tokens of the text in each window; they come first.
    pub token_counts: Vec<u64>,
    /// The token that is to be predicted at each position, or [`NOT_PREDICTED`]. None where all tokens are predicted, each from those before
    /// it.
    pub labels: Option<Vec<Vec<i64>>>,
    /// The examples to which the windows belong, in order; none unless an accuracy is measured.
    pub examples: Option<Vec<Choices>>,
    /// Loss of each window, nats a predicted token.
    pub losses: Vec<f64>,
}

/// Everything in a run report that does not follow from something else.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The request.
    pub requested: Requested,
    /// The metric that was measured.
    pub metric: &'static Metric,
    /// How the windows were masked; none unless a masked language model was measured.
    pub masked: Option<Masked>,
    /// When the run ended, UTC, RFC 3339.
    pub ended_at: String,
    /// The program that measured.
    pub evaluator: Evaluator,
    /// Facts about the checkpoint.
    pub facts: CheckpointFacts,
    /// `meta.model_profile`.
    pub model_profile: Map<String, Value>,
    /// Values that the invariants guard compares.
    pub checks: InvariantChecks,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The windows that check drift.
    pub preview: Arm,
    /// The windows that are gated on.
    pub final_: Arm,
    /// The token of each id that occurs in a window or its labels, in the order of the ids; none for a subject.
    pub used_tokens: Option<Vec<String>>,
    /// Text of the predicted tokens of each final window ([`WindowArm::predicted_texts`](crate::format::run_report::WindowArm::predicted_texts)); none for a subject.
    pub predicted_texts: Option<Vec<String>>,
    /// How the windows were selected.
    pub selection: Selection,
    /// The numbers of the first preview and final windows whose losses an earlier, interrupted run measured.
    pub resumed: [usize; 2],
    /// What the guards measured; none where an older evaluator measured.
    pub statistics: Option<GuardStatistics>,
    /// How long it took.
    pub seconds: Seconds,
    /// Peak resident memory, MiB; none if unknown.
    pub memory_mb_peak: Option<f64>,
}

impl Arm {
    /// Whether the windows are those of another arm; their losses may differ.
    #[cfg(feature = "verify")]
    fn same_windows(&self, other: &Self) -> bool {
        let Self { window_ids, input_ids, token_counts, labels, examples, losses: _ } = self;
        (window_ids, input_ids, token_counts, labels, examples)
            == (&other.window_ids, &other.input_ids, &other.token_counts, &other.labels, &other.examples)
    }

    /// The weight of each window: the number of its labels. Without labels, upstream counts all tokens, the first one included.
    pub fn weights(&self) -> Cow<'_, [u64]> {
        let labelled = |row: &Vec<i64>| row.iter().filter(|label| **label != NOT_PREDICTED).count() as u64;
        match &self.labels {
            None => Cow::Borrowed(&self.token_counts),
            Some(rows) => rows.iter().map(labelled).collect(),
        }
    }

    /// How many tokens are predicted in each window. Its loss is their mean.
    pub fn predicted(&self) -> impl Iterator<Item = u64> {
        // The first token of a text without labels is not predicted, though upstream counts it.
        let first = u64::from(self.labels.is_none());
        self.weights().into_owned().into_iter().map(move |weight| weight.saturating_sub(first))
    }

    /// What `preview_n` and `final_n` count: the examples, or the windows where they are none.
    pub fn count(&self) -> usize {
        self.examples.as_ref().map_or(self.window_ids.len(), Vec::len)
    }

    /// Whether each example is answered right; none where the windows are no choices.
    pub(crate) fn answered(&self) -> Option<Vec<bool>> {
        Some(choices::answered(self.examples.as_ref()?, &self.losses, &self.weights()))
    }

    /// The value of a metric on the arm `name`.
    ///
    /// # Errors
    /// A mean loss whose perplexity is not finite: the checkpoint is damaged.
    fn value(&self, metric: &Metric, name: &str, mean: f64) -> Result<f64> {
        if metric.is_accuracy() {
            let answered = self.answered().unwrap_or_default();
            return Ok(share(&answered));
        }
        match mean.exp() {
            perplexity if perplexity.is_finite() => Ok(perplexity),
            _ => bail!(
                Input,
                "the mean loss of the {name} arm is {mean}, so its perplexity is not finite: the checkpoint is damaged"
            ),
        }
    }

    /// Mean loss of the arm `name`, weighted by predicted tokens.
    pub(crate) fn mean_loss(&self, name: &str) -> Result<f64> {
        weighted_mean(&self.losses, &self.weights())
            .ok_or_else(|| Error::integrity(format!("the {name} arm has no tokens")))
    }
}

impl Measured {
    /// Whether the windows are those of another measurement; their losses may differ.
    #[cfg(feature = "verify")]
    pub(crate) fn same_windows(&self, other: &Self) -> bool {
        self.preview.same_windows(&other.preview) && self.final_.same_windows(&other.final_)
    }

    /// The journal that it resumed; none if it measured every window, or if there are fewer windows than resumed ones.
    pub fn journal(&self) -> Option<Journal> {
        let [preview, final_] = self.resumed;
        let journal = Journal {
            evaluator: self.evaluator.version.clone(),
            kernel: self.evaluator.kernel.clone(),
            preview: self.preview.losses.get(..preview)?.to_vec(),
            final_: self.final_.losses.get(..final_)?.to_vec(),
        };
        Some(journal).filter(|journal| !journal.is_empty())
    }

    /// What an evaluation report says of it.
    pub fn describe(&self) -> Measurement {
        Measurement {
            evaluator: self.evaluator.clone(),
            ended_at: self.ended_at.clone(),
            checkpoint: self.facts.clone(),
            parameter_count: self.checks.parameter_count,
            model_profile: self.model_profile.clone(),
            tokenizer: self.tokenizer.clone(),
            selection: self.selection.clone(),
            seconds: self.seconds,
            memory_mb_peak: self.memory_mb_peak,
        }
    }
}

/// `edit.name` of a run report.
pub fn edit_name(role: Role) -> &'static str {
    match role {
        Role::Baseline => "noop",
        Role::Subject => "custom",
    }
}
