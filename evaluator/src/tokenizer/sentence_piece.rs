//! SentencePiece models (`tokenizer.model`, `spiece.model`): BPE of Llama and Gemma, unigrams of T5, and others as the file itself says.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Map, Value, json};

use super::parts::{Built, Source, unsupported};
use super::special::pair;
use crate::{files, limits};
use invarlock_error::{Context as _, Foreign as _, Kind, Result, bail};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";
/// Kinds of pieces.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
/// Kinds of models.
const UNIGRAM: i32 = 1;
const BPE: i32 = 2;

/// The members of `sentencepiece_model.proto` that are used.
#[derive(Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "35", default = "false")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40", default = "0")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41", default = "1")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    eos_id: Option<i32>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    unk_piece: Option<String>,
}

#[derive(Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

/// Reads the tokenizer.
pub(super) fn read(source: &Source<'_>) -> Result<Built> {
    let bytes = files::read(source.path, limits::SENTENCE_PIECE_BYTES)?;
    let proto = ModelProto::decode(bytes.as_slice())
        .err_kind(Kind::Input)
        .with_context(|| format!("{}: not a SentencePiece model", source.path.display()))?;
    let model = Model::new(source, &proto)?;
    match (source.class, model.kind) {
        ("LlamaTokenizer", BPE) => Ok(model.llama(source)),
        ("GemmaTokenizer", BPE) => Ok(model.gemma()),
        ("T5Tokenizer", UNIGRAM) => Ok(model.t5(source)),
        ("" | "PreTrainedTokenizer" | "TokenizersBackend", _) => Ok(model.as_stated()),
        (other, _) => Err(unsupported(source.path, &format!("a SentencePiece model of the class {other}"))),
    }
}

/// A model, checked.
struct Model<'p> {
    pieces: Vec<(&'p str, f32, i32)>,
    kind: i32,
    trainer: &'p Trainer,
    normalizer: &'p Normalizer,
}

impl<'p> Model<'p> {
    fn new(source: &Source<'_>, proto: &'p ModelProto) -> Result<Self> {
        let path = source.path.display();
        let (Some(trainer), Some(normalizer)) = (&proto.trainer, &proto.normalizer) else {
            bail!(Input, "{path}: not a SentencePiece model: it does not say how it was trained");
        };
        let pieces: Vec<(&str, f32, i32)> =
            proto.pieces.iter().map(|piece| (piece.piece(), piece.score(), piece.kind())).collect();
        if let Some((piece, ..)) = pieces.iter().find(|(piece, ..)| piece.len() > limits::PIECE_BYTES) {
            bail!(
                Unsupported,
                "{path}: a piece of {} bytes; supported: {}",
                piece.len(),
                limits::PIECE_BYTES
            );
        }
        if pieces.iter().any(|(_, score, _)| !score.is_finite()) {
            bail!(Input, "{path}: the score of a piece is not a finite number");
        }
        let kind = trainer.model_type();
        if kind != UNIGRAM && kind != BPE {
            return Err(unsupported(source.path, "a SentencePiece model that is neither unigram nor BPE"));
        }
        if usize::try_from(trainer.unk_id()).map_or(true, |id| id >= pieces.len()) {
            bail!(
                Input,
                "{path}: the unknown piece has the id {}, but there are {} pieces",
                trainer.unk_id(),
                pieces.len()
            );
        }
        Ok(Self { pieces, kind, trainer, normalizer })
    }

    fn piece(&self, id: i32) -> Option<&'p str> {
        self.pieces.get(usize::try_from(id).ok()?).map(|(piece, ..)| *piece)
    }

    fn ids(&self) -> Vec<(String, u32)> {
        self.pieces.iter().zip(0..).map(|((piece, ..), id)| ((*piece).to_owned(), id)).collect()
    }

    fn vocabulary(&self) -> Map<String, Value> {
        self.ids().into_iter().map(|(piece, id)| (piece, json!(id))).collect()
    }

    fn added(&self) -> Vec<(u32, String, bool)> {
        let marked =
            self.pieces.iter().zip(0..).filter(|((.., kind), _)| [CONTROL, USER_DEFINED].contains(kind));
        marked.map(|((piece, _, kind), id)| (id, (*piece).to_owned(), *kind == CONTROL)).collect()
    }

    /// Pairs that make a piece, in the order of the pieces, those with short parts first.
    fn merges_by_id(&self) -> Vec<[&'p str; 2]> {
        let ids: HashMap<&str, usize> = self.pieces.iter().map(|(piece, ..)| *piece).zip(0..).collect();
        let mut merges = Vec::new();
        for (piece, id) in &ids {
            let pairs =
                splits(piece).filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right));
            merges.extend(
                pairs.map(|(left, right)| (*id, left.chars().count(), right.chars().count(), left, right)),
            );
        }
        merges.sort_unstable();
        merges.into_iter().map(|(.., left, right)| [left, right]).collect()
    }

    /// Pairs of normal pieces that make a normal piece, those with high scores first.
    fn merges_by_score(&self) -> Vec<[&'p str; 2]> {
        let normal: HashMap<&str, (f32, usize)> = self
            .pieces
            .iter()
            .zip(0..)
            .filter(|((.., kind), _)| *kind == NORMAL)
            .map(|((piece, score, _), id)| (*piece, (*score, id)))
            .collect();
        let mut merges = Vec::new();
        for (piece, (score, id)) in &normal {
            let pairs =
                splits(piece).filter(|(left, right)| normal.contains_key(left) && normal.contains_key(right));
            merges.extend(pairs.map(|(left, right)| (-score, *id, left, right)));
        }
        merges
            .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        merges.into_iter().map(|(.., left, right)| [left, right]).collect()
    }

    fn bpe(&self, merges: &[[&str; 2]], unknown: Option<&str>, byte_fallback: bool, whole: bool) -> Value {
        json!({"type": "BPE", "vocab": self.vocabulary(), "merges": merges, "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": byte_fallback,
            "ignore_merges": whole})
    }

    fn unigram(&self, more: impl IntoIterator<Item = String>, byte_fallback: bool) -> Value {
        let pieces = self.pieces.iter().map(|(piece, score, _)| json!([piece, score]));
        let vocabulary: Vec<Value> =
            pieces.chain(more.into_iter().map(|piece| json!([piece, 0.0]))).collect();
        json!({"type": "Unigram", "vocab": vocabulary, "unk_id": self.trainer.unk_id(), "byte_fallback": byte_fallback})
    }

    fn charsmap(&self) -> Option<Value> {
        let bytes = self.normalizer.precompiled_charsmap.as_deref().filter(|bytes| !bytes.is_empty())?;
        Some(json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(bytes)}))
    }

    fn built(
        &self,
        [normalizer, pre_tokenizer, model, post_processor]: [Value; 4],
        defaults: Vec<(&'static str, &'static str)>,
    ) -> Built {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ]});
        Built {
            members: json!({"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model,
                "post_processor": post_processor, "decoder": decoder}),
            ids: self.ids(),
            added: self.added(),
            defaults,
        }
    }

    fn llama(&self, source: &Source<'_>) -> Built {
        let flag = |name: &str| source.settings.get(name).and_then(Value::as_bool);
        let scheme = match (flag("add_prefix_space").unwrap_or(true), flag("legacy").unwrap_or(false)) {
            (false, _) => "never",
            (true, true) => "always",
            (true, false) => "first",
        };
        let pre_tokenizer =
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false});
        let model = self.bpe(&self.merges_by_id(), None, true, false);
        self.built(
            [Value::Null, pre_tokenizer, model, Value::Null],
            vec![("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
        )
    }

    fn gemma(&self) -> Built {
        let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let pre_tokenizer = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
        let model = self.bpe(&self.merges_by_id(), Some("<unk>"), true, false);
        self.built(
            [normalizer, pre_tokenizer, model, Value::Null],
            vec![
                ("unk_token", "<unk>"),
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
        )
    }

    fn t5(&self, source: &Source<'_>) -> Built {
        let extra =
            source.settings.get("extra_ids").and_then(Value::as_u64).unwrap_or(100).min(limits::EXTRA_IDS);
        let names: Vec<String> = (0..extra).rev().map(|i| format!("<extra_id_{i}>")).collect();
        let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true},
        ]});
        let end = "</s>";
        let id = self.pieces.iter().position(|(piece, ..)| *piece == end).unwrap_or_default();
        let post_processor = json!({"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}], "pair": pair(),
            "special_tokens": {end: {"id": end, "ids": [id], "tokens": [end]}}});
        let first = self.pieces.len() as u32;
        let mut built = self.built(
            [
                self.charsmap().unwrap_or_default(),
                pre_tokenizer,
                self.unigram(names.iter().cloned(), false),
                post_processor,
            ],
            vec![("unk_token", "<unk>"), ("eos_token", end), ("pad_token", "<pad>")],
        );
        built.added.extend((first..).zip(names).map(|(id, name)| (id, name, true)));
        built
    }

    /// A tokenizer of no known class: all as the file says.
    fn as_stated(&self) -> Built {
        let (stated, byte_fallback) = (self.normalizer, self.trainer.byte_fallback());
        let user_defined: Vec<&str> =
            self.pieces.iter().filter(|(.., kind)| *kind == USER_DEFINED).map(|(piece, ..)| *piece).collect();
        let model = match self.kind {
            BPE => self.bpe(
                &self.merges_by_score(),
                Some(self.trainer.unk_piece()),
                byte_fallback,
                !user_defined.is_empty(),
            ),
            _ => self.unigram([], byte_fallback),
        };
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let mut normalizers: Vec<Value> = self.charsmap().into_iter().collect();
        if stated.remove_extra_whitespaces() {
            normalizers.push(replace(json!({"Regex": r"\A +| +\z"}), ""));
            normalizers.push(replace(json!({"Regex": " {2,}"}), " "));
        }
        if stated.escape_whitespaces() {
            normalizers.push(replace(json!({"String": " "}), SPACE));
        }
        let mut pre_tokenizers = Vec::new();
        if stated.add_dummy_prefix() {
            // The pre-tokenizer adds no prefix to a text that starts with one.
            normalizers.push(replace(json!({"Regex": format!(r"\A{SPACE}")}), &SPACE.repeat(2)));
            pre_tokenizers.push(json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": false}));
        }
        if !user_defined.is_empty() {
            let mut longest_first = user_defined;
            longest_first.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
            let pattern: Vec<String> = longest_first.into_iter().map(regex::escape).collect();
            pre_tokenizers.push(
                json!({"type": "Split", "pattern": {"Regex": pattern.join("|")}, "behavior": "Isolated", "invert": false}),
            );
        }
        let sequence = |kind: &str, parts: Vec<Value>| match parts.is_empty() {
            true => Value::Null,
            false => json!({"type": "Sequence", kind: parts}),
        };
        let parts = [
            sequence("normalizers", normalizers),
            sequence("pretokenizers", pre_tokenizers),
            model,
            Value::Null,
        ];
        let mut built = self.built(parts, Vec::new());
        built.added.retain(|(.., special)| *special);
        let trainer = self.trainer;
        let named = [trainer.unk_id(), trainer.bos_id(), trainer.eos_id()];
        let named = named
            .into_iter()
            .filter_map(|id| Some((u32::try_from(id).ok()?, self.piece(id)?.to_owned(), true)));
        built.added.extend(named);
        built
    }
}

/// A piece in two parts, in every way.
fn splits(piece: &str) -> impl Iterator<Item = (&str, &str)> {
    piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at))
}
