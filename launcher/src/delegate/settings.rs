//! The preset and the settings of an edit. The files of the dataset that they name become inputs; other paths of the host are refused, because
//! the container has none of them.

use super::paths::{self, Step};
use crate::error::{Context as _, Error, Result};
use crate::inputs::{self, InputFile, here_or_beside};
use invarlock_evidence::format::delegated::Settings;
use invarlock_evidence::numerics::digest::sha256_hex;
use serde_norway::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MAX_BYTES: u64 = 1 << 20;
/// Members that name files of a dataset.
const FILES: [&str; 3] = ["file", "path", "data_files"];
/// Providers that download or need the cache of another program.
const ONLINE: [&str; 3] = ["wikitext2", "hf_text", "hf_seq2seq"];
/// Sections whose paths the command line replaces.
const REPLACED: [&str; 2] = ["model", "output"];
/// The directory of the dataset's files below `/in`.
const DATASET: &str = "/in/dataset";
/// The ends of the names of files in a directory of a dataset.
const ROWS: &str = ".jsonl";

/// A file of settings for the container.
pub struct SettingsFile {
    /// What is recorded of it.
    pub recorded: Settings,
    /// Its text in the container.
    pub text: String,
}

/// The files that settings name.
#[derive(Default)]
pub struct DatasetFiles {
    /// The opened files.
    pub files: Vec<InputFile>,
    /// Paths of the host, and the paths in the container.
    known: BTreeMap<PathBuf, String>,
}

impl SettingsFile {
    /// Reads the preset, which must have a dataset.
    pub fn preset(path: &Path, dataset: &mut DatasetFiles) -> Result<Self> {
        Self::read(path, dataset, true).with_context(|| format!("preset {}", path.display()))
    }

    /// Reads the settings of an edit.
    pub fn edit(path: &Path, dataset: &mut DatasetFiles) -> Result<Self> {
        Self::read(path, dataset, false).with_context(|| format!("--edit-config {}", path.display()))
    }

    fn read(path: &Path, dataset: &mut DatasetFiles, is_preset: bool) -> Result<Self> {
        let bytes = inputs::read_small("the file", path, MAX_BYTES)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::input("not UTF-8 text"))?;
        let document: Value =
            serde_norway::from_str(text).map_err(|why| Error::input(format!("not valid YAML: {why}")))?;
        check(&document, is_preset)?;
        let (mut expected, mut replaced) = (document.clone(), BTreeMap::new());
        for steps in places(&document) {
            let Some(Value::String(named)) = paths::at(&mut expected, &steps) else { continue };
            let inside = dataset.add(&here_or_beside(Path::new(named), path), path)?;
            replaced.insert(std::mem::replace(named, inside.clone()), inside);
        }
        refuse_other_paths(&expected)?;
        let rewritten = paths::replace(text, &replaced, &expected)?;
        let recorded = Settings {
            path: path.to_string_lossy().into_owned(),
            source_sha256: sha256_hex(&bytes),
            replaced,
            sha256: sha256_hex(rewritten.as_bytes()),
            bytes: rewritten.len() as u64,
        };
        Ok(Self { recorded, text: rewritten })
    }
}

/// Refuses settings that cannot work in a container.
fn check(document: &Value, is_preset: bool) -> Result<()> {
    let Some(top) = document.as_mapping() else { return Err(Error::input("not a mapping")) };
    if has_tag(document) {
        return Err(Error::unsupported("tags such as `!include` are not supported"))
            .map_err(|error| error.with_hint("write all settings in one file"));
    }
    let dataset = top.get("dataset");
    if is_preset && dataset.and_then(Value::as_mapping).is_none() {
        return Err(Error::input("section `dataset` is missing")
            .with_hint("the default dataset needs the network; name files with the provider local_jsonl"));
    }
    let provider = dataset.and_then(|dataset| dataset.get("provider"));
    let kind = provider.and_then(|provider| provider.get("kind").or(Some(provider))).and_then(Value::as_str);
    match kind.filter(|kind| ONLINE.contains(kind)) {
        Some(kind) => Err(Error::unsupported(format!(
            "dataset provider `{kind}`: the program would download it, and a container has no network"
        ))
        .with_hint("save the texts as JSON lines, and name the file with the provider local_jsonl")),
        None => check_model(top.get("model"), is_preset),
    }
}

/// The model of an edit's settings would replace that of the command line.
fn check_model(model: Option<&Value>, is_preset: bool) -> Result<()> {
    let named = model.and_then(|model| model.get("id")).and_then(Value::as_str);
    match named.filter(|id| !is_preset && !id.is_empty() && !id.starts_with('<')) {
        Some(id) => Err(Error::input(format!("`model.id` is {id:?}, which would replace --subject"))
            .with_hint("remove `model.id`; --subject names the model that is edited")),
        None => Ok(()),
    }
}

fn has_tag(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => true,
        Value::Sequence(items) => items.iter().any(has_tag),
        Value::Mapping(members) => members.iter().any(|(key, item)| has_tag(key) || has_tag(item)),
        _ => false,
    }
}

/// The places of the paths of a dataset.
fn places(document: &Value) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    for section in [&["dataset"][..], &["dataset", "provider"]] {
        let steps: Vec<Step> = section.iter().map(|name| Step::Key(name)).collect();
        let Some(values) = section.iter().try_fold(document, |value, name| value.get(*name)) else {
            continue;
        };
        for name in FILES {
            let of = |more: &[Step]| [&steps[..], &[Step::Key(name)], more].concat();
            match values.get(name) {
                Some(Value::String(_)) => found.push(of(&[])),
                Some(Value::Sequence(items)) => found.extend((0..items.len()).map(|i| of(&[Step::Place(i)]))),
                _ => {}
            }
        }
    }
    found
}

/// Any other path of the host would not exist in the container.
fn refuse_other_paths(document: &Value) -> Result<()> {
    let is_replaced = |place: &str| REPLACED.iter().any(|section| place.starts_with(&format!("{section}.")));
    let of_host = |text: &str| text.starts_with('/') && !text.starts_with("/in/") && Path::new(text).exists();
    let found =
        paths::strings(document).into_iter().find(|(place, text)| !is_replaced(place) && of_host(text));
    match found {
        None => Ok(()),
        Some((place, path)) => Err(Error::input(format!(
            "`{place}` is {path:?}: the container has no file of the host but the models and the files of the dataset"
        ))
        .with_hint("remove the setting, or name the files as `file`, `path` or `data_files` of the dataset")),
    }
}

impl DatasetFiles {
    /// Opens what a path names, and gives its path in the container.
    fn add(&mut self, path: &Path, settings: &Path) -> Result<String> {
        if path.to_string_lossy().contains(['*', '?', '[']) && !path.exists() {
            return Err(Error::unsupported(format!("{}: a pattern is not supported", path.display()))
                .with_hint("list the files"));
        }
        let real = std::fs::canonicalize(path).map_err(|error| {
            inputs::not_opened(&format!("dataset file {}", path.display()), &error)
                .without_hint()
                .with_hint(inputs::tried(path, settings))
        })?;
        if let Some(inside) = self.known.get(&real) {
            return Ok(inside.clone());
        }
        let number = self.known.len();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let inside = match real.is_dir() {
            true => {
                self.add_directory(&real, number)?;
                format!("{DATASET}/{number}")
            }
            false => {
                let name = format!("{number}/{}", plain(name)?);
                self.files.push(inputs::open_real("dataset file", &real, name.clone())?);
                format!("{DATASET}/{name}")
            }
        };
        self.known.insert(real, inside.clone());
        Ok(inside)
    }

    /// Adds the files of rows in a directory.
    fn add_directory(&mut self, directory: &Path, number: usize) -> Result<()> {
        let doing = || format!("reading the directory {}", directory.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let name = entry.file_name();
            found.extend(name.to_str().filter(|name| name.ends_with(ROWS)).map(str::to_owned));
        }
        found.sort_unstable();
        if found.is_empty() {
            return Err(Error::input(format!("{} has no file `*{ROWS}`", directory.display()))
                .with_hint("name a directory with files of JSON lines, or the files"));
        }
        for name in found {
            let path = std::fs::canonicalize(directory.join(&name)).with_context(doing)?;
            self.files.push(inputs::open_real("dataset file", &path, format!("{number}/{}", plain(&name)?))?);
        }
        Ok(())
    }
}

/// A name that needs no quotes in YAML.
fn plain(name: &str) -> Result<&str> {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    match is_plain {
        true => Ok(name),
        false => Err(Error::input(format!(
            "dataset file {name:?}: the name has other characters than letters, digits, `_`, `-` and `.`"
        ))
        .with_hint("rename the file, or link to it by another name")),
    }
}
