//! Special and added tokens: `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::parts::Source;
use crate::checkpoint::exists;
use crate::{files, limits};
use invarlock_error::{Result, bail};

/// Names of special tokens in a configuration.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings of a tokenizer. `special_tokens_map.json` counts only where `tokenizer_config.json` has no `added_tokens_decoder`, which
/// newer versions of transformers write; there it replaces the same members.
pub(super) fn settings(directory: &Path) -> Result<Map<String, Value>> {
    let read = |name: &str, what: &str| -> Result<Option<Map<String, Value>>> {
        let path = directory.join(name);
        match exists(&path) {
            true => files::read_json(&path, what, limits::CONFIG_BYTES).map(Some),
            false => Ok(None),
        }
    };
    let mut settings = read("tokenizer_config.json", "tokenizer configuration")?.unwrap_or_default();
    if !settings.contains_key("added_tokens_decoder")
        && let Some(map) = read("special_tokens_map.json", "map of special tokens")?
    {
        settings.extend(map);
    }
    Ok(settings)
}

/// The text of a special token, which is stored as a string or as an object with `content`.
pub(super) fn token_text<'a>(settings: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    text(settings.get(key)?)
}

fn text(token: &Value) -> Option<&str> {
    match token {
        Value::String(text) => Some(text),
        Value::Object(token) => token.get("content")?.as_str(),
        _ => None,
    }
}

/// Tokens that stand for no text, ascending.
pub(super) fn ids(tokenizer: &tokenizers::Tokenizer, settings: &Map<String, Value>) -> Vec<u32> {
    let named = NAMES.iter().filter_map(|key| token_text(settings, key));
    let more =
        ["additional_special_tokens", "extra_special_tokens"].iter().filter_map(|key| settings.get(*key));
    let more = more.filter_map(Value::as_array).flatten().filter_map(text);
    let added = tokenizer.get_added_tokens_decoder();
    let added = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id);
    let mut ids: Vec<u32> =
        named.chain(more).filter_map(|token| tokenizer.token_to_id(token)).chain(added).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The post-processor that adds the begin and the end of a text. It replaces that of the definition where the settings say which of them
/// are added.
pub(super) fn post_processor(
    settings: &Map<String, Value>,
    id: &dyn Fn(&str) -> Option<u32>,
) -> Option<Value> {
    let flags = ["add_bos_token", "add_eos_token"].map(|name| settings.get(name).and_then(Value::as_bool));
    if flags == [None, None] {
        return None;
    }
    let token = |flag: Option<bool>, name: &str| {
        let text = token_text(settings, name).filter(|_| flag == Some(true))?;
        Some((text.to_owned(), id(text)?))
    };
    let (bos, eos) = (token(flags[0], "bos_token"), token(flags[1], "eos_token"));
    let piece = |token: &Option<(String, u32)>| {
        token.as_ref().map(|(text, _)| json!({"SpecialToken": {"id": text, "type_id": 0}}))
    };
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> = piece(&bos).into_iter().chain([text]).chain(piece(&eos)).collect();
    let special: Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(text, id)| (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    Some(json!({"type": "TemplateProcessing", "single": single, "pair": pair(), "special_tokens": special}))
}

/// A template of two texts, which are never encoded.
pub(super) fn pair() -> Value {
    json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}])
}

/// An added token, as the files say of it.
struct Added {
    content: String,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
    normalized: bool,
    special: bool,
}

impl Added {
    fn plain(content: &str, special: bool) -> Self {
        let (lstrip, rstrip, single_word) = (false, false, false);
        Self { content: content.to_owned(), lstrip, rstrip, single_word, normalized: !special, special }
    }

    /// A token as a string, or as an object.
    fn read(token: &Value, special: bool) -> Option<Self> {
        let plain = Self::plain(text(token)?, special);
        let flag = |name: &str, default| token.get(name).and_then(Value::as_bool).unwrap_or(default);
        let special = flag("special", special);
        Some(Self {
            lstrip: flag("lstrip", false),
            rstrip: flag("rstrip", false),
            single_word: flag("single_word", false),
            normalized: flag("normalized", !special),
            special,
            ..plain
        })
    }
}

/// The added tokens of a definition, by id. `ids` are those of the model, `own` those that its file adds.
pub(super) fn added_tokens(
    source: &Source<'_>,
    ids: &HashMap<&str, u32>,
    own: &[(u32, String, bool)],
    defaults: &[(&'static str, &'static str)],
) -> Result<Vec<Value>> {
    let settings = source.settings;
    let mut found: BTreeMap<u32, Added> = own
        .iter()
        .map(|(id, token, special)| (*id, Added { normalized: false, ..Added::plain(token, *special) }))
        .collect();
    let default = |name: &&str| defaults.iter().find(|(known, _)| known == name).map(|(_, token)| *token);
    let named = NAMES.iter().filter_map(|name| {
        let token = settings.get(*name).filter(|token| !token.is_null());
        token.and_then(|token| Added::read(token, true)).or_else(|| Some(Added::plain(default(name)?, true)))
    });
    let extra = ["additional_special_tokens", "extra_special_tokens"]
        .into_iter()
        .filter_map(|name| settings.get(name)?.as_array());
    let named: Vec<Added> =
        named.chain(extra.flatten().filter_map(|token| Added::read(token, true))).collect();
    let special: HashSet<&str> = named.iter().map(|token| token.content.as_str()).collect();
    match settings.get("added_tokens_decoder").and_then(Value::as_object) {
        Some(decoder) => {
            for (id, token) in decoder {
                let (Ok(id), Some(token)) = (id.parse(), Added::read(token, false)) else {
                    bail!(
                        Input,
                        "tokenizer_config.json: `added_tokens_decoder` has an invalid token with the id {id:?}"
                    );
                };
                found.insert(id, token);
            }
        }
        None => {
            let path = source.directory.join("added_tokens.json");
            let legacy: BTreeMap<String, u32> = match exists(&path) {
                true => files::read_json(&path, "list of added tokens", limits::CONFIG_BYTES)?,
                false => BTreeMap::new(),
            };
            found.extend(
                legacy
                    .into_iter()
                    .map(|(token, id)| (id, Added::plain(&token, special.contains(token.as_str())))),
            );
        }
    }
    let known: HashSet<String> = found.values().map(|token| token.content.clone()).collect();
    for token in named {
        match ids.get(token.content.as_str()) {
            Some(id) if !known.contains(&token.content) => drop(found.insert(*id, token)),
            // A named token that has no id is not in the vocabulary: the model has no embedding for it.
            _ => {}
        }
    }
    Ok(found
        .into_iter()
        .map(|(id, token)| {
            json!({"id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special})
        })
        .collect())
}
