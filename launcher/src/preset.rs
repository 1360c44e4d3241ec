//! Presets: the dataset section of upstream's configuration (`spec/inputs.md` sections 3 to 5), read from YAML.
//!
//! A setting that would change the numbers and is not built here is an error that names it; nothing is passed over.

use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use serde_norway::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const MAX_PRESET_BYTES: u64 = 1 << 20;

/// What the windows are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// JSON-lines files in order, as given.
    pub files: Vec<PathBuf>,
    /// Member that holds the text.
    pub text_field: String,
    /// Rows read at most.
    pub max_samples: usize,
    /// Split name, recorded.
    pub split: String,
    /// Tokens a window.
    pub seq_len: usize,
    /// At most `seq_len`; recorded.
    pub stride: usize,
    /// Preview windows asked for.
    pub preview_n: usize,
    /// Final windows asked for.
    pub final_n: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Dataset {
    /// Tokens of both arms.
    pub fn tokens(&self) -> usize {
        (self.preview_n + self.final_n) * self.seq_len
    }
}

/// `dataset` as written. Upstream lets provider settings stand beside it or inside `provider`; the inner ones win.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    provider: Value,
    id: Option<String>,
    split: Option<String>,
    seq_len: Option<usize>,
    stride: Option<usize>,
    preview_n: Option<usize>,
    final_n: Option<usize>,
    seed: Option<u64>,
    #[serde(flatten)]
    source: Source,
}

/// Settings of the `local_jsonl` provider.
#[derive(Debug, Default, Deserialize)]
struct Source {
    file: Option<PathBuf>,
    path: Option<PathBuf>,
    data_files: Option<Value>,
    text_field: Option<String>,
    max_samples: Option<usize>,
}

/// Defaults of upstream's built-in preset for causal models.
const SEQ_LEN: usize = 512;
const WINDOWS: usize = 64;
const SEED: u64 = 43;
const MAX_SAMPLES: usize = 2000;
/// Tokens of both arms: their report stays below what the verifier reads.
const MAX_TOKENS: usize = 4 << 20;

/// `--dataset FILE`: that file with the built-in defaults.
pub fn for_file(file: &Path) -> Dataset {
    Dataset {
        files: vec![file.to_path_buf()],
        text_field: "text".into(),
        max_samples: MAX_SAMPLES,
        split: "validation".into(),
        seq_len: SEQ_LEN,
        stride: SEQ_LEN,
        preview_n: WINDOWS,
        final_n: WINDOWS,
        seed: SEED,
    }
}

/// `--preset FILE`. A relative data file is looked for in the current directory, as upstream does, then beside the preset.
pub fn read(path: &Path) -> Result<Dataset> {
    let text = read_bounded(path)?;
    let bad = |why: String| Error::input(format!("reading preset {}: {why}", path.display()));
    let unsupported = |what: String| {
        Error::new(
            Kind::Unsupported,
            format!("preset {}: {what} is not built yet; remove it from the preset", path.display()),
        )
    };
    let document: Value = serde_norway::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let Value::Mapping(top) = document else {
        return Err(bad("it is not a mapping; it needs a `dataset` section".into()));
    };
    let mut section = None;
    for (key, value) in top {
        match key.as_str() {
            Some("dataset") => section = Some(value),
            // Upstream replaces the preset's model and output by the command line's.
            Some("model" | "output") => {}
            // The order of the guards is upstream's canonical one, whatever a preset says.
            Some("guards") if only_order(&value) => {}
            Some("guards") => {
                return Err(unsupported("a setting in section `guards` besides `order`".into()));
            }
            Some(other) => return Err(unsupported(format!("section `{other}`"))),
            None => return Err(bad("a section name is not a string".into())),
        }
    }
    let section = section.ok_or_else(|| bad("there is no `dataset` section".into()))?;
    let section: Section =
        serde_norway::from_value(section).map_err(|e| bad(format!("section `dataset`: {e}")))?;
    let (kind, inner) = provider(&section.provider).map_err(bad)?;
    if kind != "local_jsonl" {
        return Err(unsupported(format!("dataset provider `{kind}` (only `local_jsonl` is)")));
    }
    let seq_len = section.seq_len.unwrap_or(SEQ_LEN);
    let dataset = Dataset {
        files: files(path, &inner, &section.source).map_err(|(kind, why)| bad(why).with_kind(kind))?,
        text_field: inner.text_field.or(section.source.text_field).unwrap_or_else(|| "text".into()),
        max_samples: inner.max_samples.or(section.source.max_samples).unwrap_or(MAX_SAMPLES),
        split: section.split.unwrap_or_else(|| "validation".into()),
        seq_len,
        stride: section.stride.unwrap_or(seq_len),
        preview_n: section.preview_n.unwrap_or(WINDOWS),
        final_n: section.final_n.unwrap_or(WINDOWS),
        seed: section.seed.unwrap_or(SEED),
    };
    drop(section.id);
    check(&dataset).map_err(bad)?;
    Ok(dataset)
}

fn only_order(guards: &Value) -> bool {
    guards.as_mapping().is_some_and(|m| m.keys().all(|k| k.as_str() == Some("order")))
}

fn read_bounded(path: &Path) -> Result<String> {
    let failed = |e: std::io::Error| Error::input(format!("opening preset {}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::input(format!("opening preset {}: not a regular file", path.display())));
    }
    let mut text = String::new();
    file.take(MAX_PRESET_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_PRESET_BYTES {
        return Err(Error::input(format!("reading preset {}: larger than 1 MiB", path.display())));
    }
    Ok(text)
}

/// `provider: local_jsonl` or `provider: {kind: local_jsonl, file: …}`.
fn provider(value: &Value) -> std::result::Result<(String, Source), String> {
    match value {
        Value::String(kind) => Ok((kind.clone(), Source::default())),
        Value::Mapping(map) => {
            let kind = map.get("kind").and_then(Value::as_str).ok_or("`dataset.provider` has no `kind`")?;
            let known = ["kind", "file", "path", "data_files", "text_field", "max_samples"];
            let stranger = map.keys().find(|k| !k.as_str().is_some_and(|k| known.contains(&k)));
            if let (Some(key), "local_jsonl") = (stranger, kind) {
                return Err(format!(
                    "`dataset.provider` has an unknown member {key:?}; known: {}",
                    known.join(", ")
                ));
            }
            let source =
                serde_norway::from_value(value.clone()).map_err(|e| format!("`dataset.provider`: {e}"))?;
            Ok((kind.to_owned(), source))
        }
        _ => Err("`dataset.provider` is neither a name nor a mapping".into()),
    }
}

fn files(preset: &Path, inner: &Source, outer: &Source) -> std::result::Result<Vec<PathBuf>, (Kind, String)> {
    let input = |why: &str| (Kind::Input, why.to_owned());
    let find = |file: &Path| {
        let beside = preset.parent().unwrap_or_else(|| Path::new("")).join(file);
        if file.is_absolute() || file.exists() || !beside.exists() { file.to_path_buf() } else { beside }
    };
    if let Some(file) = inner.file.as_ref().or(outer.file.as_ref()) {
        return Ok(vec![find(file)]);
    }
    if let Some(path) = inner.path.as_ref().or(outer.path.as_ref()) {
        return expand(&find(path));
    }
    match inner.data_files.as_ref().or(outer.data_files.as_ref()) {
        Some(Value::Sequence(items)) if !items.is_empty() => {
            let names = items.iter().map(|v| v.as_str().map(|s| find(Path::new(s))));
            names
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| input("`data_files` holds something that is not a path"))
        }
        Some(Value::String(name)) if !name.contains(['*', '?', '[']) => Ok(vec![find(Path::new(name))]),
        Some(Value::String(_)) => {
            Err((Kind::Unsupported, "a pattern in `data_files` is not built yet; list the files".into()))
        }
        _ => Err(input("`local_jsonl` needs `file`, `path` or `data_files`")),
    }
}

/// A file as it is; of a directory its `*.jsonl`, sorted by name.
fn expand(path: &Path) -> std::result::Result<Vec<PathBuf>, (Kind, String)> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let failed = |e: std::io::Error| (Kind::Input, format!("listing {}: {e}", path.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|e| e == "jsonl") {
            found.push(file);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err((Kind::Input, format!("{} holds no *.jsonl file", path.display())));
    }
    Ok(found)
}

/// Refuses window settings that can never give evidence.
pub fn check(d: &Dataset) -> std::result::Result<(), String> {
    match d {
        d if d.seq_len < 2 || d.seq_len > 1 << 20 => {
            Err(format!("seq_len {} is not in 2..=1048576", d.seq_len))
        }
        d if d.stride != d.seq_len => Err(format!(
            "stride {} differs from seq_len {}: windows would overlap, which the pairing of the evidence refuses; \
             leave stride out",
            d.stride, d.seq_len
        )),
        d if d.preview_n == 0 || d.final_n == 0 => Err("preview_n and final_n must be 1 or more".into()),
        d if d.preview_n > 100_000 || d.final_n > 100_000 => {
            Err("preview_n and final_n must be 100000 or less".into())
        }
        d if d.tokens() > MAX_TOKENS => Err(format!(
            "{} windows of {} tokens are more than the {MAX_TOKENS} tokens a report can hold; use fewer or shorter windows",
            d.preview_n + d.final_n,
            d.seq_len
        )),
        d if d.max_samples == 0 => Err("max_samples must be 1 or more".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Dataset> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, yaml).unwrap();
        read(&file)
    }

    #[test]
    fn upstream_preset() {
        let d = parse("dataset:\n  provider: {kind: local_jsonl, file: v.jsonl, text_field: t}\n  seq_len: 128\n  preview_n: 3\n")
            .unwrap();
        assert_eq!((d.seq_len, d.stride, d.preview_n, d.final_n, d.seed), (128, 128, 3, 64, 43));
        assert_eq!((d.files, d.text_field), (vec![PathBuf::from("v.jsonl")], "t".to_owned()));
    }

    #[test]
    fn what_is_not_built_is_named() {
        let cases = [
            (
                "edit: {name: quant_rtn}\ndataset: {provider: local_jsonl, file: x}",
                "section `edit`",
                Kind::Unsupported,
            ),
            ("dataset: {provider: wikitext2}", "`wikitext2`", Kind::Unsupported),
            ("dataset: {provider: {kind: local_jsonl, file: x, shuffle: 1}}", "shuffle", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: 8, stride: 9}", "stride 9", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: 8, stride: 4}", "overlap", Kind::Input),
            ("dataset: {provider: local_jsonl, file: x, seq_len: 1000000}", "tokens a report", Kind::Input),
            (
                "guards: {spectral: {}}\ndataset: {provider: local_jsonl, file: x}",
                "`guards`",
                Kind::Unsupported,
            ),
            (
                "context: {run: {tiny_relax: true}}\ndataset: {provider: local_jsonl, file: x}",
                "`context`",
                Kind::Unsupported,
            ),
            ("dataset: {provider: local_jsonl}", "needs `file`", Kind::Input),
            ("[]", "not a mapping", Kind::Input),
            ("dataset: {provider: local_jsonl, data_files: '*.jsonl'}", "pattern", Kind::Unsupported),
        ];
        for (yaml, needle, kind) in cases {
            let e = parse(yaml).unwrap_err();
            assert!(e.message().contains(needle) && e.kind() == kind, "{yaml}: {e:?}");
        }
    }
}
