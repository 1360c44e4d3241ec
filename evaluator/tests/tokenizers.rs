//! The older files of tokenizers give the ids that transformers gives (`tests/reference/make_tokenizers.py`), and damaged ones an error.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_error::Result;
use invarlock_evaluator::checkpoint::Config;
use invarlock_evaluator::tokenizer::{ForModel, Tokenizer};
use invarlock_evidence::format::objective::Objective;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn open(directory: &Path) -> Result<Option<Tokenizer>> {
    let config = Config::open(&directory.join("config.json")).unwrap();
    let model = ForModel { objective: Objective::Causal, embedded: 1 << 20, with_bos: false };
    Tokenizer::in_directory(directory, &config, 10_000, model)
}

#[test]
fn ids_match_transformers() {
    let texts = read(&fixtures().join("texts.json"));
    let mut wrong = Vec::new();
    let mut cases: Vec<PathBuf> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.is_dir());
    cases.sort();
    assert!(cases.len() >= 14);
    for case in cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let expected = read(&case.join("expected.json"));
        let tokenizer = match open(&case) {
            Ok(found) => found.unwrap(),
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        if json!(tokenizer.vocab_size) != expected["tokens"] {
            wrong.push(format!("{name}: {} tokens, expected {}", tokenizer.vocab_size, expected["tokens"]));
        }
        let texts = texts.as_array().unwrap().iter().zip(expected["ids"].as_array().unwrap());
        let mut differs = texts
            .map(|(text, ids)| (text, ids, json!(tokenizer.encode(text.as_str().unwrap()).unwrap())))
            // SentencePiece itself, the reference of one case, does not know the names of control pieces in text.
            .filter(|(_, ids, found)| !ids.is_null() && *ids != found);
        if let Some((text, ids, found)) = differs.next() {
            wrong.push(format!("{name}: {text}: expected {ids}, found {found}; {} more", differs.count()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A copy of a case with a changed file.
fn damaged(case: &str, file: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join(case)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    match bytes {
        b"" => fs::remove_file(dir.path().join(file)).unwrap(),
        bytes => fs::write(dir.path().join(file), bytes).unwrap(),
    }
    open(dir.path()).map(|_| ()).expect_err(file).to_string()
}

#[test]
fn damaged_files_are_named() {
    let llama = fs::read(fixtures().join("llama/tokenizer.model")).unwrap();
    let other = br#"{"tokenizer_class": "XLMRobertaTokenizer"}"#;
    let cases: [(&str, &str, &[u8], &str); 9] = [
        ("gpt2", "merges.txt", b"", "merges.txt is missing"),
        ("gpt2", "merges.txt", b"a b c\n", "line 1 is not a pair of tokens"),
        ("gpt2", "vocab.json", b"[1]", "invalid vocabulary"),
        ("bert-uncased", "vocab.txt", b"a\nb\n", "the special token \"[UNK]\" is missing"),
        ("bert-uncased", "vocab.txt", b"\xff\n", "not UTF-8"),
        (
            "roberta",
            "special_tokens_map.json",
            br#"{"sep_token": "absent"}"#,
            "the special token \"absent\" is missing",
        ),
        ("llama", "tokenizer.model", &llama[..llama.len() / 2], "not a SentencePiece model"),
        ("llama", "tokenizer.model", b"\x0a\x03\x0a\x01a", "not a SentencePiece model"),
        (
            "llama",
            "tokenizer_config.json",
            other,
            "a SentencePiece model of the class XLMRobertaTokenizer is not supported",
        ),
    ];
    for (case, file, bytes, expected) in cases {
        let error = damaged(case, file, bytes);
        assert!(error.contains(expected), "{case}: {error}");
    }
}

#[test]
fn special_tokens_come_from_the_file_that_transformers_reads() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "config.json"] {
        fs::copy(fixtures().join("opt").join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("special_tokens_map.json"), r#"{"bos_token": {"content": "<s>"}}"#).unwrap();
    let bos = |settings: &str| {
        fs::write(dir.path().join("tokenizer_config.json"), settings).unwrap();
        open(dir.path()).unwrap().unwrap().special["bos_token"].clone()
    };
    // The map replaces the configuration, unless that lists the added tokens itself.
    assert_eq!(bos("{}"), "<s>");
    assert_eq!(bos(r#"{"bos_token": "</s>"}"#), "<s>");
    assert_eq!(bos(r#"{"bos_token": "</s>", "added_tokens_decoder": {}}"#), "</s>");
}
