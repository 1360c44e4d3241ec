//! Tokenizers: `tokenizer.json`, the older files of slow tokenizers, or the tokenizer in a GGUF file. Rules: as transformers 5.

mod byte_level;
mod definition;
mod parts;
mod prefix;
mod sentence_piece;
mod special;
mod subject;
mod word_piece;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use definition::Definition;
use invarlock_evidence::format::objective::Objective;
use serde_json::{Map, Value};
use special::token_text;
pub use subject::{described, of_subject};
use tokenizers::{PostProcessor as _, PostProcessorWrapper, TruncationDirection, TruncationParams};

use crate::checkpoint::{Checkpoint, Config};
use crate::digests;
use crate::model::ModelInfo;
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result, bail};

/// A tokenizer that truncates texts to a window.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The token with which every window starts, if any.
    pub bos: Option<u32>,
    /// The token at the end of a text: as the tokenizer says, else as the model's configuration says.
    pub eos: Option<u32>,
    seq_len: usize,
    /// Which end of a text is cut off here, instead of by the library: for masked language models, whose windows upstream cuts after the
    /// special tokens were added.
    cut: Option<TruncationDirection>,
    /// Whether the beginning of a long text is enough, see [`prefix`].
    beginning: bool,
    /// The token that hides a predicted one.
    mask_id: Option<u32>,
    /// Tokens that stand for no text, ascending: those that the configuration names, and added tokens that are marked as special.
    pub special_ids: Vec<u32>,
    /// The token that pads a window.
    pub pad_id: u32,
    /// Size of the vocabulary, added tokens included.
    pub vocab_size: u64,
    /// Digest of the vocabulary, see [`digests::vocabulary`].
    pub hash: String,
    /// Digest of how ids are made from text, see [`digests::mapping`].
    pub mapping: String,
    /// `bos_token`, `eos_token`, `pad_token`, `add_prefix_space` as configured.
    pub special: Map<String, Value>,
}

/// What a tokenizer must know about its model.
#[derive(Debug, Clone, Copy)]
pub struct ForModel {
    /// What the model predicts.
    pub objective: Objective,
    /// Tokens in its embedding.
    pub embedded: usize,
    /// Whether every window starts with the begin token.
    pub with_bos: bool,
}

impl Tokenizer {
    /// Opens the tokenizer of a checkpoint for windows of `seq_len` tokens; none where the checkpoint has no tokenizer.
    pub fn open(checkpoint: &Checkpoint, info: &ModelInfo<'_>, seq_len: usize) -> Result<Option<Self>> {
        let Some(definition) = Definition::find(checkpoint)? else { return Ok(None) };
        let model =
            ForModel { objective: info.objective, embedded: info.vocab_size, with_bos: info.starts_with_bos };
        Self::new(definition, &checkpoint.config, seq_len, model).map(Some)
    }

    /// The tokenizer in the files of a directory, for windows of `seq_len` tokens; none where there is none.
    pub fn in_directory(
        directory: &Path,
        config: &Config,
        seq_len: usize,
        model: ForModel,
    ) -> Result<Option<Self>> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let Some(definition) = Definition::open(directory, model_type)? else { return Ok(None) };
        Self::new(definition, config, seq_len, model).map(Some)
    }

    /// The error for a baseline without a tokenizer.
    pub fn missing(checkpoint: &Checkpoint) -> Error {
        let directory = checkpoint.directory().display();
        Error::input(format!("{directory}: no tokenizer: none of {} exists", definition::FILES.join(", ")))
            .with_hint("save the tokenizer with the checkpoint; `save_pretrained` of a fast tokenizer of Hugging Face writes tokenizer.json")
    }

    fn new(definition: Definition, config: &Config, seq_len: usize, model: ForModel) -> Result<Self> {
        let ForModel { objective, embedded, with_bos } = model;
        let Definition { path, bytes, settings } = definition;
        let invalid = || format!("{}: invalid tokenizer", path.display());
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes))
            .map_err(|error| describe(&bytes, error))
            .with_context(invalid)?;
        drop(bytes);
        if let Some(post_processor) = special::post_processor(&settings, &|token| inner.token_to_id(token)) {
            let post_processor: PostProcessorWrapper =
                serde_json::from_value(post_processor).err_kind(Kind::Input).with_context(invalid)?;
            inner.with_post_processor(Some(post_processor));
        }

        let left = settings.get("truncation_side").and_then(Value::as_str) == Some("left");
        let direction = if left { TruncationDirection::Left } else { TruncationDirection::Right };
        let cut = (objective == Objective::Masked).then_some(direction);
        let truncation = TruncationParams { max_length: seq_len, direction, ..TruncationParams::default() };
        let truncation = cut.is_none().then_some(truncation);
        inner.with_padding(None);
        guarded(|| inner.with_truncation(truncation).map(|_| ())).with_context(invalid)?;

        let vocabulary = inner.get_vocab(true);
        if let Some((token, id)) =
            vocabulary.iter().max_by_key(|(_, id)| **id).filter(|(_, id)| **id as usize >= embedded)
        {
            return Err(Error::input(format!(
                "{}: vocabulary larger than the embedding: the token {token:?} has the id {id}, but the checkpoint \
                 embeds {embedded} tokens",
                path.display()
            ))
            .with_hint("the tokenizer belongs to another checkpoint; use the tokenizer of this one"));
        }
        let mut special = Map::new();
        for key in ["bos_token", "eos_token", "pad_token"] {
            special.insert(key.to_owned(), token_text(&settings, key).map_or(Value::Null, Value::from));
        }
        special.insert(
            "add_prefix_space".to_owned(),
            settings.get("add_prefix_space").cloned().unwrap_or(Value::Null),
        );
        let pad_id = pad_id(&inner, &settings, config, embedded)?;
        let bos = token_text(&settings, "bos_token")
            .filter(|_| with_bos)
            .and_then(|token| inner.token_to_id(token));
        let eos = token_text(&settings, "eos_token")
            .and_then(|token| inner.token_to_id(token))
            .or_else(|| eos_id(config, embedded));
        let beginning = !left && prefix::can_cut(&inner);
        let mask_id = token_text(&settings, "mask_token").and_then(|token| inner.token_to_id(token));
        Ok(Self {
            bos,
            eos,
            seq_len,
            cut,
            beginning,
            mask_id,
            special_ids: special::ids(&inner, &settings),
            pad_id,
            vocab_size: vocabulary.len() as u64,
            hash: digests::vocabulary(&vocabulary),
            mapping: digests::mapping(&inner)?,
            special,
            inner,
        })
    }

    /// The token with an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The tokens with ids from `first` on, by id.
    fn tokens_from(&self, first: u64) -> Vec<String> {
        let mut tokens: Vec<(u32, String)> = self
            .inner
            .get_vocab(true)
            .into_iter()
            .map(|(token, id)| (id, token))
            .filter(|(id, _)| u64::from(*id) >= first)
            .collect();
        tokens.sort_unstable();
        tokens.into_iter().map(|(_, token)| token).collect()
    }

    /// Token ids of a text with special tokens, truncated to the window.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let beginnings = self.beginning.then(|| prefix::beginnings(text, self.seq_len));
        for beginning in beginnings.into_iter().flatten() {
            let ids = self.library_ids(beginning)?;
            if self.fill_window(&ids) {
                return Ok(self.windowed(ids));
            }
        }
        self.encode_whole(text)
    }

    /// The same, from the tokens of the whole text.
    fn encode_whole(&self, text: &str) -> Result<Vec<u32>> {
        self.library_ids(text).map(|ids| self.windowed(ids))
    }

    /// The ids of a text as the library gives them: with special tokens and, unless it is cut here, truncated.
    fn library_ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, true));
        Ok(encoding.context("tokenizing a row")?.get_ids().to_vec())
    }

    /// Whether these ids fill the window.
    fn fill_window(&self, ids: &[u32]) -> bool {
        let special = || self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        ids.len() >= self.seq_len + self.cut.map_or(0, |_| special())
    }

    /// The window of the ids of a text.
    fn windowed(&self, mut ids: Vec<u32>) -> Vec<u32> {
        // As upstream does: unless the tokenizer added the token itself, and truncated afterwards.
        if let Some(bos) = self.bos.filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
            ids.truncate(self.seq_len);
        }
        match self.cut {
            Some(TruncationDirection::Left) => drop(ids.drain(..ids.len().saturating_sub(self.seq_len))),
            _ => ids.truncate(self.seq_len),
        }
        ids
    }

    /// The token that hides a predicted one.
    ///
    /// # Errors
    /// There is none.
    pub fn mask_id(&self) -> Result<u32> {
        self.mask_id.ok_or_else(|| {
            Error::input("the tokenizer has no mask token")
                .with_hint("name it as `mask_token` in tokenizer_config.json")
        })
    }

    /// Token ids of a text without the special tokens that the tokenizer adds; not truncated unless the tokenizer was opened for windows.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, false));
        Ok(encoding.context("tokenizing a row")?.get_ids().to_vec())
    }

    /// The same tokenizer, which truncates nothing.
    pub fn whole(&self) -> Result<Self> {
        let mut whole = self.clone();
        guarded(|| whole.inner.with_truncation(None).map(|_| ()))?;
        Ok(whole)
    }

    /// The text of tokens. Special tokens are written as their text, bytes that are no UTF-8 as U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, false)).context("decoding tokens")
    }
}

/// The error for a `tokenizer.json` that the library rejected.
fn describe(bytes: &[u8], error: Error) -> Error {
    let why = match serde_json::from_slice::<Value>(bytes) {
        Err(error) => format!("it is not JSON: {error}"),
        Ok(document) if !document.is_object() => "it is not a JSON object".to_owned(),
        Ok(document) if document.get("model").is_none_or(Value::is_null) => {
            "it has no member `model`, so it is not a complete file of the tokenizers library".to_owned()
        }
        Ok(_) => format!("the tokenizers library reports: {}", error.message()),
    };
    Error::input(why).with_source(error).with_hint(
        "copy tokenizer.json from the original checkpoint, or save it again with `save_pretrained` of a fast tokenizer of Hugging Face",
    )
}

/// Calls the tokenizer library, which may panic on invalid definitions.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| Error::input(error.to_string())),
        Err(_) => bail!(Input, "the tokenizer library panicked"),
    }
}

/// `eos_token_id` of a configuration: a number, or a list whose first counts.
fn eos_id(config: &Config, embedded: usize) -> Option<u32> {
    let value = config.get("eos_token_id")?;
    let id = value.as_u64().or_else(|| value.as_array()?.first()?.as_u64())?;
    u32::try_from(id).ok().filter(|id| (*id as usize) < embedded)
}

fn pad_id(
    tokenizer: &tokenizers::Tokenizer,
    settings: &Map<String, Value>,
    config: &Config,
    embedded: usize,
) -> Result<u32> {
    if let Some(token) = token_text(settings, "pad_token") {
        return match tokenizer.token_to_id(token) {
            Some(id) => Ok(id),
            None => bail!(Input, "tokenizer_config.json: the pad token {token:?} is not in tokenizer.json"),
        };
    }
    // Older configurations contain -1 for none.
    let Some(id) = config.get("pad_token_id").and_then(Value::as_u64) else { return Ok(0) };
    match u32::try_from(id) {
        Ok(small) if (small as usize) < embedded => Ok(small),
        _ => bail!(
            Input,
            "{}: `pad_token_id` {id} is not below the number of embedded tokens, {embedded}",
            config.name()
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A word-level tokenizer of the letters a to z with ids from 1; 0 is `<pad>`.
    pub fn letters() -> Value {
        let mut vocabulary = Map::new();
        vocabulary.insert("<pad>".to_owned(), json!(0));
        for (i, c) in ('a'..='z').enumerate() {
            vocabulary.insert(c.to_string(), json!(i + 1));
        }
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
        })
    }

    pub fn open(
        tokenizer: &[u8],
        settings: Option<Value>,
        config: Value,
        embedded: usize,
    ) -> Result<Tokenizer> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer).expect("written");
        if let Some(settings) = settings {
            std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).expect("written");
        }
        let config = Config::from_members(config.as_object().expect("an object").clone());
        let objective = match settings_name_mask(dir.path()) {
            true => Objective::Masked,
            false => Objective::Causal,
        };
        let model = ForModel { objective, embedded, with_bos: true };
        Tokenizer::new(Definition::open(dir.path(), "")?.expect("a tokenizer"), &config, 4, model)
    }

    /// The tokenizers of masked language models name a mask token.
    fn settings_name_mask(directory: &Path) -> bool {
        let settings = std::fs::read_to_string(directory.join("tokenizer_config.json"));
        settings.is_ok_and(|settings| settings.contains("mask_token"))
    }

    #[test]
    fn windows_of_masked_models_are_cut_after_special_tokens_were_added() {
        let mut tokenizer = letters();
        tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "y", "type_id": 0}}],
            "special_tokens": {"x": {"id": "x", "ids": [24], "tokens": ["x"]}, "y": {"id": "y", "ids": [25], "tokens": ["y"]}}});
        let bytes = tokenizer.to_string().into_bytes();
        let named = json!({"mask_token": "m", "cls_token": "x", "sep_token": {"content": "y"}});
        let masked = open(&bytes, Some(named.clone()), json!({}), 27).expect("opened");
        assert_eq!(masked.encode("a b c d e").expect("encoded"), [24, 1, 2, 3]);
        assert_eq!(masked.encode("a").expect("encoded"), [24, 1, 25]);
        assert_eq!((masked.mask_id(), masked.special_ids), (Ok(13), vec![13, 24, 25]));
        let mut left = named;
        left["truncation_side"] = json!("left");
        let left = open(&bytes, Some(left), json!({}), 27).expect("opened");
        assert_eq!(left.encode("a b c d e").expect("encoded"), [3, 4, 5, 25]);
        let causal = open(&bytes, None, json!({}), 27).expect("opened");
        assert_eq!(causal.encode("a b c d e").expect("encoded"), [24, 1, 2, 25]);
        assert!(causal.mask_id().is_err());
    }

    #[test]
    fn truncates_texts_and_finds_special_tokens() {
        let bytes = letters().to_string().into_bytes();
        let t = open(&bytes, Some(json!({"pad_token": {"content": "z"}, "eos_token": "y"})), json!({}), 27)
            .expect("opened");
        assert_eq!((t.pad_id, t.vocab_size), (26, 27));
        assert_eq!(t.special["eos_token"], "y");
        assert_eq!(t.encode("a b c d e f").expect("encoded"), [1, 2, 3, 4]);
        assert_eq!(t.encode("").expect("encoded"), [] as [u32; 0]);
        let left = open(&bytes, Some(json!({"truncation_side": "left"})), json!({"pad_token_id": 3}), 27)
            .expect("opened");
        assert_eq!((left.encode("a b c d e f").expect("encoded"), left.pad_id), (vec![3, 4, 5, 6], 3));
        assert_eq!(open(&bytes, None, json!({"pad_token_id": -1}), 27).expect("opened").pad_id, 0);
        assert_eq!(t.hash, left.hash);
        let bos = open(&bytes, Some(json!({"bos_token": "c"})), json!({}), 27).expect("opened");
        assert_eq!(bos.encode("a b c d e f").expect("encoded"), [3, 1, 2, 3]);
        assert_eq!(bos.encode("c d").expect("encoded"), [3, 4]);
    }

    #[test]
    fn rejects_invalid_tokenizers() {
        let bytes = letters().to_string().into_bytes();
        let message = |tokenizer: Result<Tokenizer>| {
            let error = tokenizer.expect_err("an input error");
            assert_eq!(error.kind(), Kind::Input, "{error}");
            error.message().to_owned()
        };
        assert!(message(open(&bytes, None, json!({}), 26)).contains("vocabulary larger than the embedding"));
        assert!(message(open(b"{}", None, json!({}), 27)).contains("invalid tokenizer"));
        assert!(message(open(b"\xff\xff", None, json!({}), 27)).contains("invalid tokenizer"));
        assert!(message(open(&bytes, Some(json!({"pad_token": "??"})), json!({}), 27)).contains("pad token"));
        assert!(message(open(&bytes, None, json!({"pad_token_id": 99}), 27)).contains("pad_token_id"));
    }
}
