//! What the user says that a checkpoint is: `--adapter`, or `model.adapter` of a preset. The evaluator finds it out by itself, so a wrong
//! statement is an error and a right one changes nothing.

use crate::args::EvaluateArgs;
use crate::error::{Context as _, Error, Result};
use invarlock_evidence::format::check_report::CheckReport;
use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::job::Role;

/// The name that leaves it to the evaluator.
const AUTO: &str = "auto";

/// A statement of the user about a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adapter {
    objective: Objective,
    /// The option or setting that contains it.
    setting: &'static str,
}

/// What the user says about both checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adapters {
    baseline: Option<Adapter>,
    subject: Option<Adapter>,
}

impl Adapter {
    /// The adapter with this name; none for `auto`.
    pub fn named(setting: &'static str, name: &str) -> Result<Option<Self>> {
        if name == AUTO {
            return Ok(None);
        }
        match Objective::of_adapter(name) {
            Some(objective) => Ok(Some(Self { objective, setting })),
            None => {
                let supported = Objective::ALL.map(Objective::adapter).join(", ");
                let message = format!("{setting} {name}: not supported; supported: {AUTO}, {supported}");
                Err(Error::unsupported(message)).hint(format!("use {AUTO}"))
            }
        }
    }
}

impl Adapters {
    /// Those of the command line. The option of a side replaces that of both.
    pub fn of(args: &EvaluateArgs) -> Result<Self> {
        let both = Adapter::named("--adapter", &args.adapter)?;
        let side = |setting, name: &Option<String>| match name {
            Some(name) => Adapter::named(setting, name),
            None => Ok(both),
        };
        Ok(Self {
            baseline: side("--baseline-adapter", &args.baseline_adapter)?,
            subject: side("--subject-adapter", &args.subject_adapter)?,
        })
    }

    /// The same, with that of a preset where the command line names none.
    pub fn or(self, preset: Option<Adapter>) -> Self {
        Self { baseline: self.baseline.or(preset), subject: self.subject.or(preset) }
    }

    /// An error if the user says something else than what the evaluator found.
    pub fn check(&self, found: &CheckReport) -> Result<()> {
        let named = match found.role {
            Role::Baseline => self.baseline,
            Role::Subject => self.subject,
        };
        let Some(Adapter { objective, setting }) = named.filter(|named| named.objective != found.objective)
        else {
            return Ok(());
        };
        let (role, model_type) = (found.role.name(), &found.checkpoint.model_type);
        let message = format!(
            "{setting} {}: for a {}, but the {role} ({model_type}) is a {}",
            objective.adapter(),
            objective.describe(),
            found.objective.describe()
        );
        Err(Error::input(message)).hint(format!("use {AUTO} or {}", found.objective.adapter()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::error::Kind;
    use serde_json::json;

    fn named(name: &str) -> Option<Adapter> {
        Adapter::named("--adapter", name).unwrap()
    }

    fn found(objective: &str) -> CheckReport {
        let arm = json!({"window_ids": [], "input_ids": [], "attention_masks": []});
        let windows = json!({"tokenizer_hash": null, "preview": arm, "final": arm});
        serde_json::from_value(json!({
            "contract": "invarlock-check-v1", "role": "subject", "objective": objective,
            "checkpoint": {"model_type": "bert"}, "windows": windows,
        }))
        .unwrap()
    }

    #[test]
    fn a_wrong_adapter_is_an_error_that_names_both() {
        let adapters = Adapters { baseline: None, subject: named("hf_causal") };
        let error = adapters.check(&found("mlm")).unwrap_err();
        let words = ["--adapter hf_causal", "subject", "bert", "masked language model"];
        assert!(words.iter().all(|word| error.message().contains(word)), "{error:?}");
        assert_eq!((error.kind(), error.hint()), (Kind::Input, Some("use auto or hf_mlm")));
        assert!(Adapters { baseline: None, subject: named("hf_mlm") }.check(&found("mlm")).is_ok());
        assert!(Adapters { baseline: named("hf_causal"), subject: None }.check(&found("mlm")).is_ok());
    }

    #[test]
    fn the_command_line_replaces_the_preset() {
        let line = Adapters { baseline: named("hf_mlm"), subject: None };
        let both = line.or(named("hf_seq2seq"));
        assert_eq!((both.baseline, both.subject), (named("hf_mlm"), named("hf_seq2seq")));
        assert_eq!(named("auto"), None);
        let error = Adapter::named("--adapter", "hf_multimodal").unwrap_err();
        assert!(error.message().contains("hf_multimodal") && error.kind() == Kind::Unsupported);
    }
}
