//! WordPiece in `vocab.txt`: BERT and its relatives.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::parts::{Built, Source, unsupported};
use super::special::{pair, token_text};
use crate::{files, limits};
use invarlock_error::{Error, Result};

/// Special tokens of BERT.
const DEFAULTS: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// Reads the tokenizer: a token in each line, whose number is its id.
pub(super) fn read(source: &Source<'_>) -> Result<Built> {
    match source.class {
        "" | "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MobileBertTokenizer" => {}
        other => return Err(unsupported(source.path, &format!("vocab.txt of the class {other}"))),
    }
    let text = files::read_text(source.path, limits::TOKENIZER_BYTES)?;
    // If a token occurs twice, its last line counts.
    let vocabulary: HashMap<String, u32> = text.lines().map(str::to_owned).zip(0..).collect();
    let flag = |name: &str| source.settings.get(name).and_then(Value::as_bool);
    let special = |name: &str| {
        let default = DEFAULTS.iter().find(|(known, _)| *known == name).map_or("", |(_, token)| *token);
        let token = token_text(source.settings, name).unwrap_or(default).to_owned();
        match vocabulary.get(&token) {
            Some(id) => Ok((token, *id)),
            None => Err(Error::input(format!(
                "{}: the special token {token:?} is missing",
                source.path.display()
            ))
            .with_hint("use the vocab.txt of the original checkpoint")),
        }
    };
    let ((unknown, _), (begin, begin_id), (end, end_id)) =
        (special("unk_token")?, special("cls_token")?, special("sep_token")?);
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let entry =
        |token: &str, id: u32| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
    let members = json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": flag("strip_accents"), "lowercase": flag("do_lower_case").unwrap_or(true)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": vocabulary},
        "post_processor": {"type": "TemplateProcessing",
            "single": [piece(&begin), {"Sequence": {"id": "A", "type_id": 0}}, piece(&end)], "pair": pair(),
            "special_tokens": Map::from_iter([entry(&begin, begin_id), entry(&end, end_id)])},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    });
    Ok(Built {
        members,
        ids: vocabulary.into_iter().collect(),
        added: Vec::new(),
        defaults: DEFAULTS.to_vec(),
    })
}
