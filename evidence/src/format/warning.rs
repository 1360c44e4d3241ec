//! Warnings: facts that decide no gate, but that a reader of a result must know.
//!
//! The same sentence is in the terminal, in JSON, in the report and on the page. Names in it come from checkpoints and are untrusted;
//! the code that prints them escapes them.

use super::check_report::{CheckpointFacts, SubjectTokenizer};
use super::compute_dtype::ComputeDtype;
use super::role::Role;
use super::run_report::RunReport;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names in the sentence of a warning.
const SHOWN_NAMES: usize = 3;
/// Names in a warning.
const MAX_NAMES: usize = 32;
/// The largest number of float16.
const FLOAT16_MAX: f64 = 65504.0;
/// Characters of a name.
const MAX_NAME: usize = 200;

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Warning {
    /// What it is about.
    pub kind: WarningKind,
    /// The side that it concerns; absent where it concerns both or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Role>,
    /// Names of tensors or settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The sentence that is shown.
    pub message: String,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// The checkpoint contains tensors that the model does not use.
    UnusedTensors,
    /// Baseline and subject are the same files.
    IdenticalCheckpoints,
    /// The model is measured in another type of numbers than it runs in.
    ComputeDtype,
    /// The weights are measured as they are stored, but activations are not quantised as the configuration asks.
    WeightOnly,
    /// A setting of the preset is not obeyed.
    PresetSetting,
    /// The subject has another tokenizer than the baseline, or none.
    SubjectTokenizer,
}

impl Warning {
    /// The warnings about one checkpoint.
    pub fn of_checkpoint(side: Role, facts: &CheckpointFacts) -> Vec<Self> {
        let all = [
            Self::unused_tensors(side, facts),
            Self::compute_dtype(side, facts),
            Self::weight_only(side, facts),
        ];
        let tokenizer = facts.tokenizer.as_ref().map_or_else(Vec::new, Self::tokenizer);
        all.into_iter().flatten().chain(tokenizer).collect()
    }

    /// The warnings about the checkpoint of a run report, from `meta.evaluator`. Reports of other programs may lack it.
    pub fn of_run(side: Role, report: &RunReport) -> Vec<Self> {
        report
            .meta
            .more
            .get("evaluator")
            .map_or_else(Vec::new, |evaluator| Self::of_evaluator(side, evaluator))
    }

    /// The warnings that follow from a `meta.evaluator`.
    pub(crate) fn of_evaluator(side: Role, evaluator: &Value) -> Vec<Self> {
        match CheckpointFacts::deserialize(evaluator) {
            Ok(facts) => Self::of_checkpoint(side, &facts),
            Err(_) => Vec::new(),
        }
    }

    fn unused_tensors(side: Role, facts: &CheckpointFacts) -> Option<Self> {
        let count = facts.unused_tensors.max(facts.unused_tensor_names.len());
        if count == 0 {
            return None;
        }
        let names = shortened(&facts.unused_tensor_names);
        let listed = listed(&names, count);
        let (verb, tensors) = if count == 1 { ("is", "tensor") } else { ("are", "tensors") };
        let adapter = names.iter().any(|name| name.contains("lora_"));
        let advice = if adapter { "; merge the adapter into the weights to measure it" } else { "" };
        let message = format!(
            "{count} {tensors} of the {} {verb} not used by the model: {listed}{advice}",
            side.name()
        );
        Some(Self { kind: WarningKind::UnusedTensors, side: Some(side), names, message })
    }

    /// float32 holds every number of bfloat16 and float16, and bf16x3 has the same range. Only float16 has a smaller range, so a model that overflows there does not
    /// overflow when it is measured. Without a measurement of its activations, any model could.
    fn compute_dtype(side: Role, facts: &CheckpointFacts) -> Option<Self> {
        let dtype = facts.checkpoint_dtype.as_deref()?;
        if dtype != "float16" || facts.compute_dtype.parse::<ComputeDtype>().is_err() {
            return None;
        }
        let why = match facts.largest_activation {
            Some(largest) if largest <= FLOAT16_MAX => return None,
            Some(largest) => {
                format!("its activations reach {largest:.0}, and overflow in {dtype} above {FLOAT16_MAX}")
            }
            None => format!("numbers above {FLOAT16_MAX} overflow in {dtype} only"),
        };
        let (name, computed) = (side.name(), &facts.compute_dtype);
        Some(Self {
            kind: WarningKind::ComputeDtype,
            side: Some(side),
            names: Vec::new(),
            message: format!("the {name} is a {dtype} checkpoint, but it is measured in {computed}; {why}"),
        })
    }

    fn weight_only(side: Role, facts: &CheckpointFacts) -> Option<Self> {
        let omitted: String = facts.omitted_activations.as_ref()?.chars().take(MAX_NAME).collect();
        Some(Self {
            kind: WarningKind::WeightOnly,
            side: Some(side),
            names: Vec::new(),
            message: format!(
                "the {} is measured with its quantised weights, but not with the quantised activations that its configuration asks for \
                 ({omitted})",
                side.name()
            ),
        })
    }

    /// The windows are token ids of the baseline, so a difference in other tokens does not change the losses.
    fn tokenizer(tokenizer: &SubjectTokenizer) -> Vec<Self> {
        let warning = |names: Vec<String>, message: String| Self {
            kind: WarningKind::SubjectTokenizer,
            side: Some(Role::Subject),
            names,
            message,
        };
        let (names, added, same_mapping) = match tokenizer {
            SubjectTokenizer::Missing => {
                let message =
                    "the subject has no tokenizer: it is measured on the token ids of the baseline's windows";
                return vec![warning(Vec::new(), message.to_owned())];
            }
            SubjectTokenizer::Other { added_tokens, added_token_names, same_mapping, .. } => {
                (added_token_names, *added_tokens, *same_mapping)
            }
        };
        let names = shortened(names);
        let vocabulary = match added {
            0 => "the tokenizers of baseline and subject have different vocabularies or ids".to_owned(),
            1 => format!("the tokenizer of the subject has an added token: {}", listed(&names, 1)),
            _ => {
                let count = usize::try_from(added).unwrap_or(usize::MAX);
                format!("the tokenizer of the subject has {added} added tokens: {}", listed(&names, count))
            }
        };
        let mut found = Vec::new();
        if added > 0 || same_mapping {
            found.push(warning(names, format!("{vocabulary}; no window uses a token that differs")));
        }
        if !same_mapping {
            let message = "the tokenizers of baseline and subject make different tokens from text (merges, normalizer, pre-tokenizer or \
                post-processor differ); both are measured on the token ids that the baseline's gives";
            found.push(warning(Vec::new(), message.to_owned()));
        }
        found
    }

    /// Both checkpoints have the same digest.
    pub fn identical_checkpoints() -> Self {
        Self {
            kind: WarningKind::IdenticalCheckpoints,
            side: None,
            names: Vec::new(),
            message:
                "baseline and subject are byte-identical: the evaluation compares a checkpoint with itself"
                    .to_owned(),
        }
    }

    /// Settings of the preset are not obeyed; `instead` says what applies.
    pub fn preset_settings(names: &[&str], instead: &str) -> Self {
        let listed = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Self {
            kind: WarningKind::PresetSetting,
            side: None,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            message: format!("{listed} of the preset has no effect: {instead}"),
        }
    }
}

/// The first names, none of them long.
fn shortened(names: &[String]) -> Vec<String> {
    names.iter().take(MAX_NAMES).map(|name| name.chars().take(MAX_NAME).collect()).collect()
}

/// The first of `count` names, and how many there are besides.
fn listed(names: &[String], count: usize) -> String {
    let mut listed = names.iter().take(SHOWN_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if count > SHOWN_NAMES {
        listed += &format!(" and {} more", count - SHOWN_NAMES.min(names.len()));
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(unused: &[&str], dtype: Option<&str>) -> CheckpointFacts {
        CheckpointFacts {
            model_type: "llama".to_owned(),
            checkpoint_dtype: dtype.map(str::to_owned),
            compute_dtype: "float32".to_owned(),
            largest_activation: None,
            weights: None,
            quantised_inputs: None,
            omitted_activations: None,
            unused_tensors: unused.len(),
            unused_tensor_names: unused.iter().map(|name| (*name).to_owned()).collect(),
            tokenizer: None,
        }
    }

    #[test]
    fn unused_tensors_are_counted_and_the_first_are_named() {
        let found = Warning::of_checkpoint(Role::Subject, &facts(&["a", "b", "c", "d", "e"], None));
        assert_eq!((found.len(), found[0].kind, found[0].names.len()), (1, WarningKind::UnusedTensors, 5));
        assert!(
            found[0]
                .message
                .starts_with("5 tensors of the subject are not used by the model: a, b, c and 2 more")
        );
        let one = Warning::of_checkpoint(Role::Baseline, &facts(&["a"], None));
        assert_eq!(one[0].message, "1 tensor of the baseline is not used by the model: a");
        let adapter = Warning::of_checkpoint(Role::Subject, &facts(&["q_proj.lora_A.weight"], None));
        assert!(
            adapter[0].message.ends_with("merge the adapter into the weights to measure it"),
            "{adapter:?}"
        );
    }

    #[test]
    fn only_float16_has_a_smaller_range_than_float32() {
        for (dtype, warned) in
            [(Some("float16"), true), (Some("bfloat16"), false), (Some("float32"), false), (None, false)]
        {
            let found = Warning::of_checkpoint(Role::Subject, &facts(&[], dtype));
            assert_eq!(!found.is_empty(), warned, "{dtype:?}");
            assert!(found.iter().all(|warning| warning.message.contains("float16")));
        }
    }

    #[test]
    fn activations_that_were_measured_decide() {
        let found = |dtype, largest| {
            let facts = CheckpointFacts { largest_activation: Some(largest), ..facts(&[], Some(dtype)) };
            Warning::of_checkpoint(Role::Subject, &facts)
        };
        assert_eq!(found("float16", 65504.0), Vec::new());
        assert_eq!(found("bfloat16", 1e30), Vec::new());
        let overflows = found("float16", 1.25e6);
        assert!(
            overflows[0].message.contains("its activations reach 1250000, and overflow"),
            "{overflows:?}"
        );
    }

    #[test]
    fn omitted_activations_are_named() {
        let mut facts = facts(&[], None);
        facts.omitted_activations = Some("inputs in int8, dynamic".to_owned());
        let found = Warning::of_checkpoint(Role::Subject, &facts);
        assert_eq!((found.len(), found[0].kind), (1, WarningKind::WeightOnly));
        assert!(found[0].message.ends_with("(inputs in int8, dynamic)"), "{found:?}");
    }

    #[test]
    fn warnings_survive_json() {
        let warning = Warning::preset_settings(&["model.id"], "x");
        let json = serde_json::to_value(&warning).expect("JSON");
        assert_eq!((&json["kind"], json.get("side")), (&"preset_setting".into(), None));
        assert_eq!(serde_json::from_value::<Warning>(json).expect("read"), warning);
    }
}
