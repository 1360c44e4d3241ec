//! Tokenizing the beginning of a text instead of all of it, where the tokens of a window are the same.
//!
//! Rows are often much longer than a window, and the tokens behind the window are thrown away. Many tokenizers split a text into pieces
//! first, from left to right, and make the tokens of each piece alone. If a piece always ends between a letter and a space, a text may
//! be cut there.

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    Encoding, PostProcessor as _, PostProcessorWrapper, SplitDelimiterBehavior, Token, Tokenizer,
};

/// Bytes of a text for each token of a window that are tried first. Few texts have more bytes for a token.
const BYTES_PER_TOKEN: usize = 5;
/// Longest beginning. The library does not split a text behind about 1,000,000 characters of white space.
const LONGEST: usize = 512 << 10;

/// The patterns of Llama 3 and of Qwen 2. Every alternative that takes a letter takes all letters that follow, and nothing behind them.
const PATTERNS: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Whether the tokens before a place between an ASCII letter and a space do not depend on what is behind it.
pub(super) fn can_cut(tokenizer: &Tokenizer) -> bool {
    let added = tokenizer.get_added_tokens_decoder();
    // An added token is found before the text is split.
    let spans = added.values().any(|token| token.content.contains(char::is_whitespace));
    !spans
        && tokenizer.get_post_processor().is_none_or(surrounds)
        && tokenizer.get_normalizer().is_none_or(is_local)
        && tokenizer.get_pre_tokenizer().is_some_and(splits_before_spaces)
}

/// Beginnings of a text that end between a letter and a space, each longer than the one before.
pub(super) fn beginnings(text: &str, tokens: usize) -> impl Iterator<Item = &str> {
    let cut = move |budget: usize| {
        let from = budget.saturating_sub(1);
        let mut pairs = text.as_bytes().get(from..)?.windows(2);
        let found = pairs.position(|pair| pair[0].is_ascii_alphabetic() && pair[1] == b' ')?;
        text.get(..=from + found)
    };
    let first = tokens.checked_mul(BYTES_PER_TOKEN).and_then(cut);
    // A beginning of nearly the whole text saves nothing.
    let longest = LONGEST.min(text.len() / 4 * 3);
    std::iter::successors(first, move |last| cut(last.len() * 4)).take_while(move |one| one.len() < longest)
}

/// Whether a post-processor puts as many tokens around a text as it says, and the text once between them.
fn surrounds(processor: &PostProcessorWrapper) -> bool {
    let text = [u32::MAX - 1, u32::MAX];
    let tokens = text.map(|id| Token::new(id, String::new(), (0, 0)));
    let processed = processor.process(Encoding::from_tokens(tokens.to_vec(), 0), None, true);
    processed.is_ok_and(|encoding| {
        let ids = encoding.get_ids();
        ids.len() == text.len() + processor.added_tokens(false)
            && ids.windows(text.len()).filter(|ids| *ids == text).count() == 1
    })
}

/// Whether each character is replaced alone, or together with the marks that follow it.
fn is_local(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::BertNormalizer(_)
        | NormalizerWrapper::Lowercase(_)
        | NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_) => true,
        NormalizerWrapper::Sequence(all) => all.as_ref().iter().all(is_local),
        _ => false,
    }
}

/// Whether a piece of text always ends between a letter and a space, whatever follows.
fn splits_before_spaces(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(byte_level) => byte_level.use_regex,
        PreTokenizerWrapper::BertPreTokenizer(_)
        | PreTokenizerWrapper::Whitespace(_)
        | PreTokenizerWrapper::WhitespaceSplit(_) => true,
        PreTokenizerWrapper::Split(split) => is_known(split),
        PreTokenizerWrapper::Sequence(all) => {
            // Digits and punctuation are found character by character. What comes after the first split works on its pieces.
            let kinds_of_characters = |one: &&PreTokenizerWrapper| {
                matches!(one, PreTokenizerWrapper::Digits(_) | PreTokenizerWrapper::Punctuation(_))
            };
            all.as_ref().iter().find(|one| !kinds_of_characters(one)).is_some_and(splits_before_spaces)
        }
        _ => false,
    }
}

fn is_known(split: &Split) -> bool {
    let SplitPattern::Regex(pattern) = &split.pattern else { return false };
    let isolated = matches!(split.behavior, SplitDelimiterBehavior::Isolated);
    isolated && !split.invert && PATTERNS.contains(&pattern.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{letters, open};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A tokenizer with a token for each byte and for some pairs of bytes.
    fn byte_level(pre_tokenizer: &Value) -> Value {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut tokens: Vec<String> = alphabet.into_iter().map(String::from).collect();
        tokens.sort();
        let merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["'", "s"], ["Ġ", "Ġ"], ["Ġ", "a"]];
        tokens.extend(merges.iter().map(|[a, b]| format!("{a}{b}")));
        tokens.push("<|end|>".to_owned());
        let end = tokens.len() - 1;
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": {"type": "NFC"},
            "added_tokens": [{"id": end, "content": "<|end|>", "single_word": false, "lstrip": true, "rstrip": true,
                "normalized": false, "special": true}],
            "pre_tokenizer": pre_tokenizer, "decoder": null,
            "post_processor": {"type": "TemplateProcessing", "pair": [],
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
                "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [end], "tokens": ["<|end|>"]}}},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": merges},
        })
    }

    /// Definitions of tokenizers whose texts are cut.
    fn definitions() -> Vec<Value> {
        let plain =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let without =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
        let sequence =
            |first: Value, second: &Value| json!({"type": "Sequence", "pretokenizers": [first, second]});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let mut words = letters();
        for (word, id) in [("the", 30), ("s", 31), ("234", 32), ("é", 33), ("中", 34), ("'", 35), ("...", 36)]
        {
            words["model"]["vocab"][word] = json!(id);
        }
        let mut bert = words.clone();
        bert["normalizer"] = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true});
        bert["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
        let mut all: Vec<Value> =
            PATTERNS.iter().map(|one| byte_level(&sequence(split(one), &without))).collect();
        let digits = json!({"type": "Digits", "individual_digits": true});
        let punctuation = json!({"type": "Punctuation", "behavior": "Contiguous"});
        let mut spaces = words.clone();
        spaces["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
        spaces["normalizer"] =
            json!({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]});
        spaces["added_tokens"] = json!([{"id": 37, "content": "x", "single_word": true, "lstrip": false, "rstrip": true,
            "normalized": true, "special": false}]);
        all.extend([byte_level(&plain), byte_level(&sequence(digits, &plain)), words, bert, spaces]);
        all.push(byte_level(&sequence(punctuation, &plain)));
        all
    }

    /// Parts of texts at which rules of splitting differ.
    const PARTS: [&str; 24] = [
        "the", " ", "  ", "\n", "\t", "a", " a", "'s", "'", "the's", "é", "e\u{301}", "\u{301}", "中", "1",
        "234", "-", "...", "\u{a0}", "<|end|>", "<|", "x", "\r\n ", "Q",
    ];

    proptest! {
        #[test]
        fn cut_texts_have_the_tokens_of_whole_ones(parts in prop::collection::vec(0..PARTS.len(), 0..300)) {
            let text: String = parts.iter().map(|part| PARTS[*part]).collect();
            for definition in definitions() {
                let begin = definition.to_string().contains("<|end|>");
                let begin = begin.then(|| json!({"eos_token": "<|end|>", "bos_token": "<|end|>"}));
                // Windows of masked models are cut here instead of by the library.
                for settings in [begin, Some(json!({"mask_token": "a"}))] {
                    let bytes = definition.to_string().into_bytes();
                    let tokenizer = open(&bytes, settings, json!({}), 1000).expect("opened");
                    prop_assert!(tokenizer.beginning, "{definition}");
                    let whole = tokenizer.encode_whole(&text)?;
                    prop_assert_eq!(tokenizer.encode(&text)?, whole, "{}", definition["pre_tokenizer"]);
                }
            }
        }
    }

    #[test]
    fn text_is_cut_between_letter_and_space() {
        let text = format!("{} {}", "ab cd1 é ef".repeat(4), "gh ".repeat(300));
        let all: Vec<&str> = beginnings(&text, 2).collect();
        assert_eq!(all[0], "ab cd1 é efab");
        assert!(all.len() > 2 && all.iter().all(|one| text.starts_with(one)), "{all:?}");
        assert!(all.windows(2).all(|pair| pair[0].len() < pair[1].len()), "{all:?}");
        let gap = format!("{}{}a {}", "ab cd ".repeat(10), "中".repeat(40_000), "ab cd ".repeat(20_000));
        assert!(beginnings(&gap, 2).count() < 8);
        assert!(beginnings(&gap, 2).all(|one| one.len() < LONGEST && one.len() < gap.len() / 4 * 3));
        assert_eq!(beginnings("a b c", 2).count(), 0);
        assert_eq!(beginnings(&"中".repeat(100), 2).count(), 0);
    }

    #[test]
    fn other_tokenizers_read_whole_texts() {
        let mut metaspace = letters();
        metaspace["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let mut pattern = letters();
        pattern["pre_tokenizer"] =
            json!({"type": "Split", "pattern": {"Regex": "a b"}, "behavior": "Isolated", "invert": false});
        let mut replaced = letters();
        replaced["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "x"});
        let mut spanning = letters();
        spanning["added_tokens"] = json!([{"id": 27, "content": "a b", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}]);
        let mut none = letters();
        none["pre_tokenizer"] = Value::Null;
        let mut twice = letters();
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        twice["post_processor"] =
            json!({"type": "TemplateProcessing", "single": [text, text], "pair": [], "special_tokens": {}});
        for definition in [metaspace, pattern, replaced, spanning, none, twice] {
            let tokenizer = open(definition.to_string().as_bytes(), None, json!({}), 1000).expect("opened");
            assert!(!can_cut(&tokenizer.inner), "{definition}");
        }
    }
}
