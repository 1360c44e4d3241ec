//! The sections `model`, `output`, `edit`, `auto` and `context` of a preset, and the names of settings. The command line replaces what they set. A setting that would be ignored otherwise is an
//! error that names it.

use crate::adapter::Adapter;
use crate::error::{Context as _, Error, Result};
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::warning::Warning;
use serde_norway::Value;
use std::path::PathBuf;

/// `model`: what it sets must be what is done anyway, or what the command line replaces.
pub fn model(section: &Value) -> Result<Option<Warning>> {
    const MEASURED: &str =
        "every checkpoint is measured on the CPU, and its weights are converted to float32";
    let obeyed = |key: &str, value: &str| match key {
        // Read by `adapter`.
        "adapter" => true,
        "device" => ["auto", "cpu"].contains(&value),
        "dtype" | "torch_dtype" => value.trim_start_matches("torch.") == ComputeDtype::Float32.name(),
        _ => false,
    };
    let replaced = replaced_settings("model", section, &["id"], obeyed, MEASURED)?;
    Ok(replaced
        .then(|| Warning::preset_settings(&["model.id"], "--baseline and --subject name the checkpoints")))
}

/// What `model.adapter` says that the checkpoints are.
pub fn adapter(section: &Value) -> Result<Option<Adapter>> {
    match section.get("adapter") {
        Some(Value::String(name)) => Adapter::named("model.adapter", name),
        _ => Ok(None),
    }
}

/// `output`: only the directory, which the command line replaces.
pub fn output(section: &Value) -> Result<Option<Warning>> {
    const WRITTEN: &str = "run reports and the evaluation report are written, and nothing else";
    let replaced = replaced_settings("output", section, &["dir"], |_, _| false, WRITTEN)?;
    Ok(replaced
        .then(|| Warning::preset_settings(&["output.dir"], "--out and --report-out name the directories")))
}

/// `model.id`.
pub fn model_id(section: &Value) -> Option<PathBuf> {
    section.get("id").and_then(Value::as_str).map(PathBuf::from)
}

/// `edit`: only that there is none. The subject is edited before it comes here.
pub fn edit(section: &Value) -> Result<()> {
    match section.get("name").and_then(Value::as_str) {
        None if section.is_null() => Ok(()),
        Some("noop") => Ok(()),
        Some(name) => Err(Error::unsupported(format!("section `edit`: the edit `{name}` is not made here")))
            .hint("make the edited checkpoint with your tool, pass it with --subject, and remove `edit`"),
        None => Err(Error::input("section `edit` has no `name`")).hint("remove it from the preset"),
    }
}

/// `auto`: the tier, which the command line replaces.
pub fn auto(section: &Value) -> Result<Option<Warning>> {
    named_settings("auto", section, &["enabled", "tier", "probes"], "--tier chooses the limits")
}

/// `context`: profile and tier, which the command line replaces.
pub fn context(section: &Value) -> Result<Option<Warning>> {
    named_settings("context", section, &["profile", "tier"], "--profile and --tier set them")
}

/// A warning that names the settings of a section, which the command line replaces. Any other setting is an error.
fn named_settings(section: &str, value: &Value, replaces: &[&str], fact: &str) -> Result<Option<Warning>> {
    if !replaced_settings(section, value, replaces, |_, _| false, fact)? {
        return Ok(None);
    }
    let set = replaces.iter().filter(|name| value.get(**name).is_some());
    let names: Vec<String> = set.map(|name| format!("{section}.{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(Some(Warning::preset_settings(&names, fact)))
}

/// Settings that are whole numbers, with their smallest value.
const NUMBERS: [(&str, u64); 6] =
    [("seq_len", 2), ("stride", 2), ("preview_n", 1), ("final_n", 1), ("seed", 0), ("max_samples", 1)];

/// How alike a setting and a known one are, at least, to be taken for the same: from 0 to 1, as clap proposes options.
const ALIKE: f64 = 0.8;

/// Reports an unknown setting, or one that must be a whole number and is not, by its name.
pub fn check_members(section: &str, value: &Value, known: &[&str]) -> Result<()> {
    for (key, value) in value.as_mapping().into_iter().flatten() {
        let key =
            key.as_str().ok_or_else(|| Error::input(format!("a setting of {section} is not a string")))?;
        if !known.contains(&key) {
            let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
            let likeness = |name: &str| strsim::jaro_winkler(&plain(name), &plain(key));
            let meant = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let hint = match meant.filter(|name| likeness(name) > ALIKE) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known settings: {}", known.join(", ")),
            };
            return Err(Error::input(format!("{section}.{key} is not a known setting"))).hint(hint);
        }
        let number =
            NUMBERS.iter().find(|(name, _)| *name == key && !value.is_null() && value.as_u64().is_none());
        if let Some((_, least)) = number {
            let written = serde_json::to_string(value).unwrap_or_default();
            return Err(Error::input(format!("{section}.{key} is {written}")))
                .hint(format!("use a whole number, {least} or more"));
        }
    }
    Ok(())
}

/// Whether a section sets one of the keys that the command line `replaces`. Any other setting is an error, unless it is null, false or
/// `obeyed`; `fact` says what is done.
fn replaced_settings(
    name: &str,
    section: &Value,
    replaces: &[&str],
    obeyed: impl Fn(&str, &str) -> bool,
    fact: &str,
) -> Result<bool> {
    let settings = match section {
        Value::Null => return Ok(false),
        Value::Mapping(settings) => settings,
        _ => return Err(Error::input(format!("section `{name}` is not a mapping"))),
    };
    let mut replaced = false;
    for (key, value) in settings {
        let Some(key) = key.as_str() else {
            return Err(Error::input(format!("section `{name}`: a setting's name is not a string")));
        };
        match value {
            _ if replaces.contains(&key) => replaced = true,
            Value::Null | Value::Bool(false) => {}
            Value::String(text) if obeyed(key, text) => {}
            _ => {
                return Err(Error::input(format!("the setting `{name}.{key}` is not supported: {fact}")))
                    .hint("remove it from the preset");
            }
        }
    }
    Ok(replaced)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn section(yaml: &str) -> Value {
        serde_norway::from_str(yaml).unwrap()
    }

    #[test]
    fn accepts_what_is_done_anyway() {
        let accepted =
            "{adapter: hf_causal, device: cpu, dtype: float32, load_in_8bit: false, revision: null}";
        assert_eq!(model(&section(accepted)).unwrap(), None);
        assert_eq!(output(&section("{save_model: false}")).unwrap(), None);
        assert_eq!(output(&Value::Null).unwrap(), None);
        assert_eq!(model(&section("{id: gpt2}")).unwrap().unwrap().names, ["model.id"]);
    }

    #[test]
    fn reads_the_adapter() {
        let named = |name| Adapter::named("model.adapter", name).unwrap();
        assert_eq!(adapter(&section("{adapter: hf_mlm}")).unwrap(), named("hf_mlm"));
        for none in ["{adapter: auto}", "{adapter: null}", "{id: x}", "null"] {
            assert_eq!(adapter(&section(none)).unwrap(), None, "{none}");
        }
        let error = adapter(&section("{adapter: hf_gptq}")).unwrap_err();
        assert!(error.message().contains("model.adapter hf_gptq"), "{error:?}");
    }

    #[test]
    fn refuses_other_settings_by_name() {
        for (yaml, name) in [
            ("{dtype: float16}", "`model.dtype`"),
            ("{dtype: bf16x3}", "`model.dtype`"),
            ("{load_in_8bit: true}", "`model.load_in_8bit`"),
            ("{device: cuda}", "`model.device`"),
            ("{id: x, revision: 3}", "`model.revision`"),
            ("[x]", "`model` is not a mapping"),
            ("{1: x}", "`model`"),
        ] {
            let e = model(&section(yaml)).unwrap_err();
            assert!(e.message().contains(name) && e.kind() == Kind::Input, "{yaml}: {e:?}");
        }
        let e = output(&section("{save_model: true}")).unwrap_err();
        assert!(e.message().contains("`output.save_model`"), "{e:?}");
    }
}
