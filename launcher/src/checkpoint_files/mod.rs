//! The files of a checkpoint that a measurement needs. Names come from the Hugging Face layout and from the shard index, which is
//! untrusted.

mod kinds;
mod refusals;
mod root;

use crate::error::{Context as _, Error, Kind, Result};
use crate::inputs::InputFile;
use root::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, INDEX, Root, SINGLE};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Files that it may have. Whether it needs a tokenizer, the evaluator decides: a subject is measured on the baseline's token ids.
const TOKENIZER: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];
/// The older files of tokenizers.
const OLDER_TOKENIZERS: [&str; 9] = [
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tekken.json",
    "tiktoken.model",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
];
const MAX_INDEX_BYTES: u64 = 16 << 20;
const MAX_SHARDS: usize = 1024;

/// Opens the files of the checkpoint in `dir` that a measurement needs.
pub fn open_checkpoint(role: &str, dir: &Path) -> Result<Vec<InputFile>> {
    open_root(&Root::open(role, dir)?)
}

/// Opens every file of the checkpoint in `dir`, for a program that reads more than a measurement needs: those of the directory itself, hidden
/// ones apart.
pub fn open_whole(role: &str, dir: &Path) -> Result<Vec<InputFile>> {
    let root = Root::open(role, dir)?;
    if root.open_file(CONFIG)?.is_none() {
        return Err(refusals::without_config(&root));
    }
    let is_file = |name: &String| !name.starts_with('.') && root.dir.join(name).is_file();
    let mut files = Vec::new();
    for name in root.names().iter().filter(|name| is_file(name)) {
        files.extend(root.open_file(name)?);
    }
    match files.len() <= MAX_SHARDS {
        true => Ok(files),
        false => Err(Error::input(format!(
            "{role} checkpoint {}: {} files are more than the {MAX_SHARDS} allowed",
            root.dir.display(),
            files.len()
        ))),
    }
}

/// Opens the files of the subject in `dir`. That of a PEFT adapter are those of its base model, the baseline, and the adapter.
pub fn open_subject(dir: &Path, baseline: &Path) -> Result<Vec<InputFile>> {
    let root = Root::open("subject", dir)?;
    if !root.is_adapter()? {
        return open_root(&root);
    }
    let mut files = open_checkpoint("baseline", baseline)?;
    for name in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
        let file = root.open_file(name)?.ok_or_else(|| refusals::adapter_without(&root, name))?;
        refuse_pickle("subject", &file)?;
        files.push(file);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn open_root(root: &Root<'_>) -> Result<Vec<InputFile>> {
    let mut files = Vec::new();
    let gguf = root.open_gguf()?;
    match root.open_file(CONFIG)? {
        // A GGUF file contains its configuration.
        None if gguf.is_none() => return Err(refusals::without_config(root)),
        file => files.extend(file),
    }
    for name in TOKENIZER {
        files.extend(root.open_file(name)?);
    }
    // The older files of a tokenizer are read only without tokenizer.json.
    if !files.iter().any(|file| file.name == TOKENIZER[0]) {
        for name in OLDER_TOKENIZERS {
            files.extend(root.open_file(name)?);
        }
    }
    if let Some(gguf) = gguf {
        files.push(gguf);
        files.sort_by(|a, b| a.name.cmp(&b.name));
        return Ok(files);
    }
    match (root.open_file(INDEX)?, root.open_file(SINGLE)?) {
        (Some(index), Some(_)) => return Err(two_sets_of_weights(root, &index)),
        (Some(index), None) => {
            for shard in shards(root, &index)? {
                files.push(root.open_file(&shard)?.ok_or_else(|| missing_shard(root, &shard))?);
            }
            files.push(index);
        }
        (None, Some(single)) => files.push(single),
        (None, None) => return Err(refusals::without_weights(root)),
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut weights = files.iter().filter(|file| file.name.ends_with(".safetensors"));
    weights.try_for_each(|file| refuse_pickle(root.role, file))?;
    Ok(files)
}

fn missing_shard(root: &Root<'_>, shard: &str) -> Error {
    let (role, dir) = (root.role, root.dir.display());
    Error::input(format!("{role} checkpoint {dir}: {shard:?}, which {INDEX} names, is missing"))
        .with_hint("download the checkpoint again, with all its shards")
}

/// A single file and an index: programs disagree about which of them counts.
fn two_sets_of_weights(root: &Root<'_>, index: &InputFile) -> Error {
    let (role, dir) = (root.role, root.dir.display());
    let error = Error::input(format!(
        "{role} checkpoint {dir}: both {SINGLE} and {INDEX} exist; they may contain different weights"
    ));
    let missing = shards(root, index)
        .ok()
        .and_then(|shards| shards.into_iter().find(|shard| matches!(root.open_file(shard), Ok(None))));
    match missing {
        Some(shard) => error.with_hint(format!("remove {INDEX}: its file {shard:?} is missing")),
        None => error.with_hint(format!(
            "remove {SINGLE}, or remove {INDEX} and its shards, whichever is left from an earlier save"
        )),
    }
}

/// The shard names of an index: plain file names, sorted, without duplicates.
fn shards(root: &Root<'_>, index: &InputFile) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let invalid =
        |why: String| Error::input(format!("reading {} {}: {why}", root.role, index.path.display()));
    if index.bytes > MAX_INDEX_BYTES {
        return Err(invalid("larger than 16 MiB".into()));
    }
    let mut text = Vec::new();
    (&index.file).take(MAX_INDEX_BYTES).read_to_end(&mut text).map_err(|e| invalid(e.to_string()))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
    let names: std::collections::BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(invalid(format!("{} shard names; 1 to {MAX_SHARDS} are allowed", names.len())));
    }
    for name in &names {
        let plain =
            name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.starts_with('.');
        if !plain || !name.ends_with(".safetensors") {
            let why = format!("shard name {name:?} is not a plain name ending in .safetensors");
            return Err(invalid(why).with_kind(Kind::Safety));
        }
    }
    Ok(names.into_iter().collect())
}

/// Refuses a pickle (bare or zipped) that is named `*.safetensors`, by its first bytes.
fn refuse_pickle(role: &str, input: &InputFile) -> Result<()> {
    let mut head = [0u8; 9];
    let n = input.file.read_at(&mut head, 0).with_context(|| format!("reading {}", input.path.display()))?;
    let zipped = head[..n].starts_with(b"PK\x03\x04");
    // A safetensors header may have a length that starts with these bytes; then its ninth byte is the opening brace.
    let pickled = head[0] == 0x80 && (2..=5).contains(&head[1]) && head[8] != b'{';
    if zipped || pickled {
        let path = input.path.display();
        return Err(Error::input(format!("{role} weights {path}: the content is a pickle, not safetensors")))
            .hint("save the weights as safetensors");
    }
    Ok(())
}
