//! `dataset.provider` of a preset: which files it names, and which of their members are read.

use crate::dataset_files;
use crate::error::{Error, Result};
use crate::inputs;
use crate::preset_sections::check_members;
use invarlock_evidence::format::dataset::Provider;
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
    /// Rows that are read at most.
    pub max_samples: Option<usize>,
}

/// The settings of [`Source`].
pub const SETTINGS: [&str; 9] = [
    "file",
    "path",
    "data_files",
    "dataset_name",
    "config_name",
    "text_field",
    "src_field",
    "tgt_field",
    "max_samples",
];
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
            max_samples: self.max_samples.or(other.max_samples),
        }
    }

    /// The fields with the text, or with source and target of a pair. Settings of the other provider are an error.
    pub fn fields(&self, provider: Provider) -> Result<(String, Option<String>)> {
        let name = provider.name();
        let named =
            |field: &Option<String>, default: &str| field.clone().unwrap_or_else(|| default.to_owned());
        let Self { text_field: text, src_field: source, tgt_field: target, .. } = self;
        match provider {
            Provider::LocalJsonlPairs if text.is_some() => {
                Err(Error::input(format!("provider `{name}` has no `text_field`"))
                    .with_hint("name the members with src_field and tgt_field"))
            }
            Provider::LocalJsonlPairs => Ok((named(source, "source"), Some(named(target, "target")))),
            _ if source.is_some() || target.is_some() => {
                Err(Error::input(format!("provider `{name}` has neither `src_field` nor `tgt_field`"))
                    .with_hint("use the provider local_jsonl_pairs for pairs of texts"))
            }
            _ => Ok((named(text, "text"), None)),
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
