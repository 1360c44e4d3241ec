//! The guards of a report. The block of a guard is defined in the guard's own file in [`crate::guards`].

use super::super::run_report::Guard;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Block of one guard.
pub type GuardBlock = Map<String, Value>;

/// One element of `guards`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum GuardEntry {
    /// A guard that this version does not evaluate.
    NotEvaluated(NotEvaluated),
    /// A guard's result on the subject, as the run report contains it.
    Evaluated(Evaluated),
}

/// A guard that this version does not evaluate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NotEvaluated {
    /// Name of the guard.
    pub name: String,
    /// Always false.
    pub evaluated: bool,
    /// Always null.
    pub passed: Option<bool>,
}

/// A guard's result on the subject.
pub type Evaluated = Guard;

/// `guard_overhead`: perplexity with guards against perplexity without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum GuardOverhead {
    /// The guards were measured after the losses.
    Evaluated(EvaluatedOverhead),
    /// An older evaluator measured no guards.
    Skipped(SkippedOverhead),
}

/// `guard_overhead` of a report in which every guard was evaluated. The losses are measured before the guards, which change no weight, so
/// both perplexities are the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EvaluatedOverhead {
    /// `same_run`.
    pub mode: String,
    /// Always false.
    pub skipped: bool,
    /// Always true.
    pub evaluated: bool,
    /// Always true.
    pub passed: bool,
    /// Perplexity of the subject's final arm without guards.
    pub bare_ppl: f64,
    /// The same with guards.
    pub guarded_ppl: f64,
    /// Always 1.
    pub overhead_ratio: f64,
    /// Largest ratio, less 1.
    pub overhead_threshold: f64,
}

/// `guard_overhead` of a report in which a guard was not evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SkippedOverhead {
    /// `skipped`.
    pub mode: String,
    /// Always true.
    pub skipped: bool,
    /// Always false.
    pub evaluated: bool,
    /// Why it was not evaluated.
    pub skip_reason: String,
}

/// `structure`: sizes of both checkpoints; empty where neither run report states them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Structure {
    /// Elements of all parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter_count: Option<ParameterCount>,
}

/// Elements of all parameters of both checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ParameterCount {
    /// The baseline's, as its run report states it.
    pub baseline: Value,
    /// The subject's.
    pub subject: Value,
}
