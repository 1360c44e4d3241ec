//! Byte-level BPE in `vocab.json` and `merges.txt`: GPT-2, RoBERTa and Qwen 2.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::parts::{Built, Source, unsupported};
use super::special::{pair, token_text};
use crate::checkpoint::exists;
use crate::{files, limits};
use invarlock_error::{Error, Result, bail};

/// How Qwen 2 splits text before merges are applied.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The kinds of tokenizers with these files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gpt2,
    Roberta,
    Qwen2,
}

/// Reads the tokenizer.
pub(super) fn read(source: &Source<'_>) -> Result<Built> {
    let kind = match source.class {
        "" | "GPT2Tokenizer" | "CodeGenTokenizer" | "PreTrainedTokenizer" => Kind::Gpt2,
        "RobertaTokenizer" | "BartTokenizer" | "LongformerTokenizer" => Kind::Roberta,
        "Qwen2Tokenizer" => Kind::Qwen2,
        other => return Err(unsupported(source.path, &format!("vocab.json of the class {other}"))),
    };
    let vocabulary: BTreeMap<String, u32> =
        files::read_json(source.path, "vocabulary", limits::TOKENIZER_BYTES)?;
    let merges = merges(source)?;
    let space = source.settings.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let bytes = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": use_regex});
    let (normalizer, pre_tokenizer) = match kind {
        Kind::Gpt2 | Kind::Roberta => (Value::Null, bytes(true)),
        Kind::Qwen2 => {
            let split = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
            (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]}))
        }
    };
    let defaults: Vec<(&str, &str)> = match kind {
        Kind::Gpt2 => ["unk_token", "bos_token", "eos_token"].map(|name| (name, "<|endoftext|>")).to_vec(),
        Kind::Qwen2 => ["unk_token", "eos_token", "pad_token"].map(|name| (name, "<|endoftext|>")).to_vec(),
        Kind::Roberta => vec![
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
    };
    let special = |name: &str, default: &'static str| -> Result<Value> {
        let token = token_text(source.settings, name).unwrap_or(default);
        match vocabulary.get(token) {
            Some(id) => Ok(json!([token, id])),
            None => bail!(Input, "{}: the special token {token:?} is missing", source.path.display()),
        }
    };
    let post_processor = match kind {
        Kind::Roberta => {
            json!({"type": "RobertaProcessing", "sep": special("sep_token", "</s>")?, "cls": special("cls_token", "<s>")?,
            "trim_offsets": true, "add_prefix_space": space})
        }
        Kind::Gpt2 | Kind::Qwen2 => {
            json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": pair(), "special_tokens": {}})
        }
    };
    let model = json!({
        "type": "BPE", "vocab": vocabulary, "merges": merges, "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
    });
    Ok(Built {
        members: Value::Object(Map::from_iter([
            ("normalizer".to_owned(), normalizer),
            ("pre_tokenizer".to_owned(), pre_tokenizer),
            ("model".to_owned(), model),
            ("post_processor".to_owned(), post_processor),
            ("decoder".to_owned(), bytes(true)),
        ])),
        ids: vocabulary.into_iter().collect(),
        added: Vec::new(),
        defaults,
    })
}

/// The pairs in `merges.txt`, one a line. A line with the version of the file may come first.
fn merges(source: &Source<'_>) -> Result<Vec<[String; 2]>> {
    let path = source.directory.join("merges.txt");
    if !exists(&path) {
        return Err(Error::input(format!("{}: merges.txt is missing", source.directory.display()))
            .with_hint("copy merges.txt or tokenizer.json from the original checkpoint"));
    }
    let text = files::read_text(&path, limits::TOKENIZER_BYTES)?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with("#version"));
    lines
        .map(|(line, number)| match line.split(' ').collect::<Vec<_>>().as_slice() {
            [first, second] => Ok([(*first).to_owned(), (*second).to_owned()]),
            _ => bail!(Input, "{}: line {number} is not a pair of tokens", path.display()),
        })
        .collect()
}
