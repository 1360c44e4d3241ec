//! `dataset.provider` of a preset: which files it names, and which of their members are read.

use crate::dataset_files;
use crate::error::{Error, Result};
use crate::inputs;
use crate::preset_sections::check_members;
use invarlock_evidence::format::choices::MAX_CHOICES;
use invarlock_evidence::format::dataset::{Answers, Provider};
use serde::Deserialize;
use serde_norway::Value;
use std::path::{Path, PathBuf};

/// What starts the name of a dataset in the Hugging Face cache.
pub const HUB: &str = "hf:";

/// Settings of a provider.
#[derive(Debug, Default, Deserialize)]
pub struct Source {
    file: Option<PathBuf>,
    path: Option<PathBuf>,
    data_files: Option<Value>,
    dataset_name: Option<String>,
    config_name: Option<String>,
    text_field: Option<String>,
    src_field: Option<String>,
    tgt_field: Option<String>,
    choices_field: Option<String>,
    answer_field: Option<String>,
    label_field: Option<String>,
    labels: Option<Vec<String>>,
    /// Rows that are read at most.
    pub max_samples: Option<usize>,
}

/// The settings of [`Source`].
pub const SETTINGS: [&str; 13] = [
    "file",
    "path",
    "data_files",
    "dataset_name",
    "config_name",
    "text_field",
    "src_field",
    "tgt_field",
    "choices_field",
    "answer_field",
    "label_field",
    "labels",
    "max_samples",
];

/// The members of a row that are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// The text, the source of a pair, or the prompt of choices.
    pub text: String,
    /// The target of a pair.
    pub target: Option<String>,
    /// What an accuracy is measured on.
    pub answers: Option<Answers>,
}

/// The provider of the section `dataset`, with its settings: those inside `provider`, else those beside it.
pub fn read(provider: &Value, beside: Source) -> Result<(Provider, Source)> {
    let (kind, inside) = match provider {
        Value::String(kind) => (kind.as_str(), None),
        Value::Mapping(map) => match map.get("kind").and_then(Value::as_str) {
            Some(kind) => (kind, Some(provider)),
            None => return Err(Error::input("`dataset.provider` has no `kind`")),
        },
        _ => return Err(Error::input("`dataset.provider` is neither a name nor a mapping")),
    };
    let Some(named) = Provider::named(kind) else {
        let known = Provider::ALL.map(|provider| format!("`{}`", provider.name())).join(", ");
        let message = format!("dataset provider `{kind}` is not supported; supported: {known}");
        return Err(Error::unsupported(message).with_hint("export the dataset to JSON lines, CSV or Parquet"));
    };
    let Some(inside) = inside else { return Ok((named, beside)) };
    check_members("dataset.provider", inside, &[&["kind"][..], &SETTINGS[..]].concat())?;
    let inside: Source = serde_norway::from_value(inside.clone())
        .map_err(|e| Error::input(format!("`dataset.provider`: {e}")))?;
    Ok((named, inside.or(beside)))
}

/// Refuses labels that cannot be told apart.
fn check_labels(labels: &[String]) -> Result<()> {
    if !(2..=MAX_CHOICES).contains(&labels.len()) {
        return Err(Error::input(format!(
            "`labels` has {} labels; supported: 2 to {MAX_CHOICES}",
            labels.len()
        )));
    }
    let mut seen = std::collections::HashSet::new();
    match labels.iter().find(|label| label.trim().is_empty() || !seen.insert(*label)) {
        Some(label) => {
            Err(Error::input(format!("`labels` has the label {label:?}, which is blank or named twice")))
        }
        None => Ok(()),
    }
}

impl Source {
    fn or(self, other: Self) -> Self {
        Self {
            file: self.file.or(other.file),
            path: self.path.or(other.path),
            data_files: self.data_files.or(other.data_files),
            dataset_name: self.dataset_name.or(other.dataset_name),
            config_name: self.config_name.or(other.config_name),
            text_field: self.text_field.or(other.text_field),
            src_field: self.src_field.or(other.src_field),
            tgt_field: self.tgt_field.or(other.tgt_field),
            choices_field: self.choices_field.or(other.choices_field),
            answer_field: self.answer_field.or(other.answer_field),
            label_field: self.label_field.or(other.label_field),
            labels: self.labels.or(other.labels),
            max_samples: self.max_samples.or(other.max_samples),
        }
    }

    /// The fields that are read. Settings of other providers are an error.
    pub fn fields(&self, provider: Provider) -> Result<Fields> {
        self.refuse_others(provider)?;
        let named =
            |field: &Option<String>, default: &str| field.clone().unwrap_or_else(|| default.to_owned());
        let text = |default| named(&self.text_field, default);
        let plain = |text: String| Fields { text, target: None, answers: None };
        Ok(match provider {
            Provider::LocalJsonl | Provider::HfText | Provider::Wikitext2 => plain(text("text")),
            Provider::LocalJsonlPairs => Fields {
                target: Some(named(&self.tgt_field, "target")),
                ..plain(named(&self.src_field, "source"))
            },
            Provider::LocalJsonlChoices => Fields {
                answers: Some(Answers::Choices {
                    choices_field: named(&self.choices_field, "choices"),
                    answer_field: named(&self.answer_field, "answer"),
                }),
                ..plain(text("question"))
            },
            Provider::LocalJsonlLabels => {
                self.labels.as_deref().map_or(Ok(()), check_labels)?;
                let label_field = named(&self.label_field, "label");
                let answers = Answers::Labels { label_field, labels: self.labels.clone() };
                Fields { answers: Some(answers), ..plain(text("text")) }
            }
        })
    }

    /// Refuses settings that another provider has.
    fn refuse_others(&self, provider: Provider) -> Result<()> {
        let pairs = &[Provider::LocalJsonlPairs][..];
        let (choices, labels) = (&[Provider::LocalJsonlChoices][..], &[Provider::LocalJsonlLabels][..]);
        let text = Provider::ALL.into_iter().filter(|provider| *provider != Provider::LocalJsonlPairs);
        let text: Vec<Provider> = text.collect();
        let settings = [
            ("text_field", self.text_field.is_some(), &text[..]),
            ("src_field", self.src_field.is_some(), pairs),
            ("tgt_field", self.tgt_field.is_some(), pairs),
            ("choices_field", self.choices_field.is_some(), choices),
            ("answer_field", self.answer_field.is_some(), choices),
            ("label_field", self.label_field.is_some(), labels),
            ("labels", self.labels.is_some(), labels),
        ];
        match settings.into_iter().find(|(_, set, owners)| *set && !owners.contains(&provider)) {
            None => Ok(()),
            Some((setting, _, owners)) => {
                let owners: Vec<&str> = owners.iter().map(|owner| owner.name()).collect();
                Err(Error::input(format!("provider `{}` has no `{setting}`", provider.name()))
                    .with_hint(format!("remove it, or use the provider {}", owners.join(" or "))))
            }
        }
    }

    /// The files that it names. `preset` is the path of the preset.
    pub fn files(&self, provider: Provider, preset: &Path, split: &str) -> Result<Vec<PathBuf>> {
        let config = self.config_name.as_deref();
        let cached = |path: &Path| {
            let name = path.to_str()?.strip_prefix(HUB).filter(|_| !path.exists())?;
            Some(dataset_files::in_cache(name, config, split))
        };
        if let Some(name) = &self.dataset_name {
            return dataset_files::in_cache(name.strip_prefix(HUB).unwrap_or(name), config, split);
        }
        let resolve = |file: &Path| inputs::here_or_beside(file, preset);
        if let Some(file) = &self.file {
            return cached(file).unwrap_or_else(|| Ok(vec![resolve(file)]));
        }
        if let Some(path) = &self.path {
            return cached(path).unwrap_or_else(|| dataset_files::expand(&resolve(path), split));
        }
        match &self.data_files {
            Some(Value::Sequence(items)) if !items.is_empty() => {
                let names = items.iter().map(|item| item.as_str().map(|name| resolve(Path::new(name))));
                let names = names.collect::<Option<Vec<_>>>();
                names.ok_or_else(|| Error::input("`data_files` has an item that is not a path"))
            }
            Some(Value::String(name)) if !name.contains(['*', '?', '[']) => {
                Ok(vec![resolve(Path::new(name))])
            }
            Some(Value::String(_)) => {
                Err(Error::unsupported("a pattern in `data_files` is not supported")
                    .with_hint("list the files"))
            }
            _ if provider == Provider::Wikitext2 => dataset_files::wikitext2(split),
            _ => Err(Error::input(format!(
                "provider `{}` needs `file`, `path`, `data_files` or `dataset_name`",
                provider.name()
            ))),
        }
    }
}
