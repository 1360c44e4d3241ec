//! The tokenizer in a GGUF file, as the definition that `tokenizer.json` of the same model would contain.
//!
//! Source: llama.cpp's names and types of tokens; transformers 5 for the parts that the file does not contain.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::reader::{Array, Value};
use invarlock_error::{Error, Result, bail};

/// How text is split before merges are applied, by `tokenizer.ggml.pre`.
const SPLITS: [(&[&str], &str); 2] = [
    (
        &["llama-bpe", "llama3", "llama-v3"],
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        &["qwen2"],
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];
/// Types of tokens: control tokens, and tokens that are found in text as a whole.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
/// Bytes of a token whose parts are searched for pairs. SentencePiece's own limit is 16 characters by default.
const MAX_PIECE: usize = 256;
/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// A tokenizer's definition and settings.
#[derive(Debug)]
pub struct EmbeddedTokenizer {
    /// As in `tokenizer.json`.
    pub definition: Json,
    /// As in `tokenizer_config.json`.
    pub settings: Map<String, Json>,
}

/// Metadata of a tokenizer, without their common prefix.
struct Source<'m> {
    path: &'m Path,
    bytes: &'m [u8],
    values: &'m BTreeMap<String, Value>,
}

impl Source<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(&format!("tokenizer.ggml.{key}"))
    }

    fn missing(&self, key: &str) -> Error {
        Error::input(format!(
            "{}: `tokenizer.ggml.{key}` is missing or has another type",
            self.path.display()
        ))
        .with_hint("put the tokenizer.json of the original checkpoint beside the file")
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn array<T>(
        &self,
        key: &str,
        read: impl Fn(Array, &Path, &[u8]) -> Result<Vec<T>>,
    ) -> Result<Option<Vec<T>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => read(*array, self.path, self.bytes).map(Some),
            Some(_) => Err(self.missing(key)),
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// The token whose id a member contains.
    fn token<'t>(&self, key: &str, tokens: &'t [String]) -> Option<&'t str> {
        match self.get(key) {
            Some(Value::Unsigned(id)) => tokens.get(usize::try_from(*id).ok()?).map(String::as_str),
            _ => None,
        }
    }
}

/// Reads the tokenizer.
pub fn read(path: &Path, bytes: &[u8], values: &BTreeMap<String, Value>) -> Result<EmbeddedTokenizer> {
    let source = Source { path, bytes, values };
    let tokens = source.array("tokens", Array::names)?.ok_or_else(|| source.missing("tokens"))?;
    let kinds = source.array("token_type", Array::integers)?.unwrap_or_default();
    let mut definition = match source.text("model") {
        Some("gpt2") => byte_level(&source, &tokens)?,
        Some("llama") => sentence_piece(&source, &tokens)?,
        other => {
            return Err(Error::unsupported(format!(
                "{}: tokenizer {:?} is not supported in GGUF files; supported: gpt2, llama",
                path.display(),
                other.unwrap_or_default()
            ))
            .with_hint("put the tokenizer.json of the original checkpoint beside the file"));
        }
    };
    let added =
        tokens.iter().zip(&kinds).enumerate().filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(kind));
    let added: Vec<Json> = added
        .map(|(id, (content, kind))| {
            json!({"id": id, "content": content, "special": *kind == CONTROL, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false})
        })
        .collect();
    definition.insert("version".to_owned(), json!("1.0"));
    definition.insert("added_tokens".to_owned(), Json::Array(added));
    let mut settings = Map::new();
    // Files of SentencePiece models may leave the flag out.
    let with_bos = source.flag("add_bos_token").unwrap_or_else(|| source.text("model") == Some("llama"));
    for (name, key, used) in [
        ("bos_token", "bos_token_id", with_bos),
        ("eos_token", "eos_token_id", true),
        ("pad_token", "padding_token_id", true),
    ] {
        if let Some(token) = source.token(key, &tokens).filter(|_| used) {
            settings.insert(name.to_owned(), json!(token));
        }
    }
    Ok(EmbeddedTokenizer { definition: Json::Object(definition), settings })
}

fn vocabulary(tokens: &[String]) -> Map<String, Json> {
    tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
}

/// Byte-level BPE, with merges in the file.
fn byte_level(source: &Source<'_>, tokens: &[String]) -> Result<Map<String, Json>> {
    let merges = source.array("merges", Array::names)?.ok_or_else(|| source.missing("merges"))?;
    let pre = source.text("pre").unwrap_or("gpt-2");
    let bytes = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = SPLITS.iter().find(|(names, _)| names.contains(&pre));
    let pre_tokenizer = match (pre, split) {
        ("gpt-2" | "default", _) => bytes(true),
        (_, Some((_, expression))) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false}, bytes(false),
        ]}),
        _ => {
            return Err(Error::unsupported(format!(
                "{}: pre-tokenizer {pre:?} is not supported in GGUF files; supported: gpt-2, llama-bpe, qwen2",
                source.path.display()
            ))
            .with_hint("put the tokenizer.json of the original checkpoint beside the file"));
        }
    };
    let normalizer = if pre == "qwen2" { json!({"type": "NFC"}) } else { Json::Null };
    let model = json!({
        "type": "BPE", "vocab": vocabulary(tokens), "merges": merges, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": SPLITS[0].0.contains(&pre),
    });
    Ok(Map::from_iter([
        ("model".to_owned(), model),
        ("normalizer".to_owned(), normalizer),
        ("pre_tokenizer".to_owned(), pre_tokenizer),
        ("decoder".to_owned(), bytes(true)),
    ]))
}

/// SentencePiece's BPE: pairs are merged in the order of the scores of what they become.
fn sentence_piece(source: &Source<'_>, tokens: &[String]) -> Result<Map<String, Json>> {
    let scores = source.array("scores", Array::floats)?.ok_or_else(|| source.missing("scores"))?;
    if scores.len() != tokens.len() || scores.iter().any(|score| score.is_nan()) {
        bail!(
            Input,
            "{}: {} scores for {} tokens, or NaN",
            source.path.display(),
            scores.len(),
            tokens.len()
        );
    }
    if let Some(token) = tokens.iter().find(|token| token.len() > MAX_PIECE) {
        bail!(
            Unsupported,
            "{}: a token of {} bytes; supported: {MAX_PIECE}",
            source.path.display(),
            token.len()
        );
    }
    let prefix = match source.flag("add_space_prefix").unwrap_or(true) {
        true => "always",
        false => "never",
    };
    let model = json!({
        "type": "BPE", "vocab": vocabulary(tokens), "merges": merges(tokens, &scores), "fuse_unk": true,
        "byte_fallback": true, "unk_token": source.token("unknown_token_id", tokens),
    });
    let pre_tokenizer =
        json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": prefix, "split": false});
    Ok(Map::from_iter([
        ("model".to_owned(), model),
        ("normalizer".to_owned(), Json::Null),
        ("pre_tokenizer".to_owned(), pre_tokenizer),
    ]))
}

/// Every pair of tokens that makes a token: those of a high score first, then those with long first parts, then with long second parts.
fn merges(tokens: &[String], scores: &[f32]) -> Vec<[String; 2]> {
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut pairs: Vec<(usize, usize, &str, &str)> = splits
            .filter_map(|(first, second)| Some((*ids.get(first)?, *ids.get(second)?, first, second)))
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(.., first, second)| (*score, first, second)));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        let key = |merge: &(f32, &str, &str)| Reverse((length(merge.1), length(merge.2)));
        // Scores are not NaN, and 0 equals -0.
        b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then_with(|| key(a).cmp(&key(b)))
    });
    merges.into_iter().map(|(_, first, second)| [first.to_owned(), second.to_owned()]).collect()
}
