//! Finds the files of a tokenizer, and gives them the form of `tokenizer.json`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::parts::{Built, Source, unsupported};
use super::{byte_level, sentence_piece, special, word_piece};
use crate::checkpoint::{Checkpoint, EmbeddedTokenizer, exists};
use crate::{files, limits};
use invarlock_error::{Result, bail};

/// The files of tokenizers, each of which suffices. `vocab.json` needs `merges.txt` as well.
pub(super) const FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
];
/// Files of tokenizers of other kinds.
const UNSUPPORTED: [&str; 3] = ["tekken.json", "tiktoken.model", "qwen.tiktoken"];

/// What the files of a tokenizer contain.
pub(super) struct Definition {
    /// For messages.
    pub path: PathBuf,
    /// As `tokenizer.json`.
    pub bytes: Vec<u8>,
    /// `tokenizer_config.json`, with what other files say of special tokens.
    pub settings: Map<String, Value>,
}

impl Definition {
    /// The tokenizer of a checkpoint; none where it has none.
    pub fn find(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let directory = checkpoint.directory();
        let model_type = checkpoint.config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        match (Self::open(directory, model_type)?, &checkpoint.tokenizer) {
            (None, Some(embedded)) => Self::embedded(directory, embedded).map(Some),
            (found, _) => Ok(found),
        }
    }

    /// The tokenizer in the files of a directory.
    pub fn open(directory: &Path, model_type: &str) -> Result<Option<Self>> {
        let found = FILES.into_iter().find(|name| exists(&directory.join(name)));
        let Some(name) = found else {
            return match UNSUPPORTED.into_iter().find(|name| exists(&directory.join(name))) {
                None => Ok(None),
                Some(name) => Err(unsupported(&directory.join(name), "this kind of file")),
            };
        };
        let path = directory.join(name);
        let settings = special::settings(directory)?;
        if name == "tokenizer.json" {
            let bytes = files::read(&path, limits::TOKENIZER_BYTES)?;
            return Ok(Some(Self { path, bytes, settings }));
        }
        let class = class(&settings, model_type);
        let source = Source { directory, path: &path, class: &class, settings: &settings };
        let built = match name {
            "vocab.json" => byte_level::read(&source)?,
            "vocab.txt" => word_piece::read(&source)?,
            _ => sentence_piece::read(&source)?,
        };
        let bytes = with_added_tokens(&built, &source)?.to_string().into_bytes();
        let mut settings = settings;
        for (name, token) in built.defaults {
            if settings.get(name).is_none_or(Value::is_null) {
                settings.insert(name.to_owned(), json!(token));
            }
        }
        Ok(Some(Self { path, bytes, settings }))
    }

    /// The tokenizer in a file of weights.
    fn embedded(directory: &Path, embedded: &Result<EmbeddedTokenizer>) -> Result<Self> {
        let EmbeddedTokenizer { definition, settings } = embedded.as_ref().map_err(Clone::clone)?;
        let bytes = definition.to_string().into_bytes();
        if bytes.len() as u64 > limits::TOKENIZER_BYTES {
            bail!(Input, "{}: the tokenizer has {} bytes", directory.display(), bytes.len());
        }
        Ok(Self { path: directory.to_owned(), bytes, settings: settings.clone() })
    }
}

/// The class of a tokenizer: as its configuration says, else as transformers chooses for the type of model.
fn class(settings: &Map<String, Value>, model_type: &str) -> String {
    if let Some(class) = settings.get("tokenizer_class").and_then(Value::as_str) {
        return class.strip_suffix("Fast").unwrap_or(class).to_owned();
    }
    let class = match model_type {
        "bert" | "distilbert" | "electra" | "mobilebert" => "BertTokenizer",
        "roberta" | "bart" | "longformer" => "RobertaTokenizer",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" => "Qwen2Tokenizer",
        "gemma" | "gemma2" | "gemma3" | "gemma3_text" => "GemmaTokenizer",
        "t5" | "mt5" => "T5Tokenizer",
        // SentencePiece models of Llama and others are then read as they state.
        _ => "",
    };
    class.to_owned()
}

/// The definition, with the added tokens of all files.
fn with_added_tokens(built: &Built, source: &Source<'_>) -> Result<Value> {
    let ids = built.ids.iter().map(|(token, id)| (token.as_str(), *id)).collect();
    let mut members = built.members.clone();
    members["version"] = json!("1.0");
    members["added_tokens"] =
        Value::Array(special::added_tokens(source, &ids, &built.added, &built.defaults)?);
    Ok(members)
}
