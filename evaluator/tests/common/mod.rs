//! Runs the evaluator on jobs, and writes small checkpoints for it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value, json};

/// The result of a run.
pub struct Ran {
    pub code: Option<i32>,
    pub events: Vec<Value>,
    pub out: PathBuf,
}

impl Ran {
    /// The report.
    pub fn report(&self) -> Value {
        assert_eq!(self.code, Some(0), "{:?}", self.events.last());
        serde_json::from_slice(&fs::read(self.out.join("report.json")).expect("a report")).expect("JSON")
    }

    /// Kind, and message with hint, of the error. It must be the last event, and the output directory must be empty.
    pub fn error(&self) -> (String, String) {
        let errors = self.events.iter().filter(|e| e["event"] == "error").count();
        assert_eq!(errors, 1, "{:?}", self.events);
        assert!(
            !self.out.exists() || fs::read_dir(&self.out).expect("readable").next().is_none(),
            "files were left"
        );
        let last = self.events.last().expect("an event");
        let text = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
        assert!(!text("message").is_empty(), "{last}");
        let hint = text("hint");
        let hint = if hint.is_empty() { hint } else { format!("; {hint}") };
        (text("kind"), text("message") + &hint)
    }
}

/// Runs the program with arguments.
pub fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_invarlock-evaluator")).args(arguments).output().expect("started")
}

/// Runs a job in `dir`.
pub fn run(dir: &Path, job: &Value) -> Ran {
    let out = dir.join("out");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).expect("created");
    let file = dir.join("job.json");
    fs::write(&file, job.to_string()).expect("written");
    run_in(&file, &out)
}

/// Runs a job file.
pub fn run_in(job: &Path, out: &Path) -> Ran {
    let done = program(&["--job", job.to_str().expect("text"), "--out", out.to_str().expect("text")]);
    let text = String::from_utf8(done.stdout).expect("text");
    let events = text.lines().map(|l| serde_json::from_str(l).expect("an event")).collect();
    Ran { code: done.status.code(), events, out: out.to_owned() }
}

/// The job of a baseline on `dataset`.
pub fn baseline(checkpoint: &Path, dataset: &Path, seq_len: usize, n: usize) -> Value {
    json!({
        "contract": "invarlock-measure-v1", "role": "baseline", "model_id": "base", "profile": "dev", "tier": "balanced",
        "checkpoint": checkpoint,
        "windows": {"kind": "local_jsonl", "files": [dataset], "text_field": "text", "max_samples": 2000},
        "seq_len": seq_len, "stride": seq_len, "preview_n": n, "final_n": n, "split": "validation", "seed": 43,
    })
}

/// The job of a subject on the windows of a baseline's report, which are written to `dir`.
pub fn subject(dir: &Path, checkpoint: &Path, baseline: &Value) -> Value {
    let file = dir.join("windows.json");
    fs::write(&file, windows_of(baseline).to_string()).expect("written");
    json!({
        "contract": "invarlock-measure-v1", "role": "subject", "model_id": "subject", "profile": "dev", "tier": "balanced",
        "checkpoint": checkpoint, "windows": {"kind": "replay", "file": file},
        "seq_len": baseline["data"]["seq_len"], "stride": baseline["data"]["seq_len"],
        "preview_n": baseline["data"]["preview_n"], "final_n": baseline["data"]["final_n"],
        "provider": baseline["data"]["dataset"], "split": "validation", "seed": 43,
    })
}

/// The windows of a report without their losses.
pub fn windows_of(report: &Value) -> Value {
    let (choices, causal) = (json!("classification"), json!("causal"));
    let labelled = report["data"]["loss_type"] != causal;
    let arm = |name: &str| {
        let arm = &report["evaluation_windows"][name];
        let mut windows = json!({"window_ids": arm["window_ids"], "input_ids": arm["input_ids"], "attention_masks": arm["attention_masks"]});
        if labelled {
            windows["labels"] = arm["labels"].clone();
        }
        if report["data"]["loss_type"] == choices {
            windows["examples"] = arm["examples"].clone();
        }
        windows
    };
    let mut tokenizer = json!({"vocab_size": report["data"]["vocab_size"], "mapping_sha256": report["data"]["tokenizer_mapping_sha256"]});
    let special = ["bos_token", "eos_token", "pad_token", "add_prefix_space"];
    tokenizer["special"] =
        special.map(|name| (name.to_owned(), report["data"][name].clone())).into_iter().collect();
    tokenizer["used_tokens"] = report["data"]["used_tokens"].clone();
    let mut windows = json!({"tokenizer_hash": report["meta"]["tokenizer_hash"], "tokenizer": tokenizer, "preview": arm("preview"), "final": arm("final")});
    if labelled && report["data"]["loss_type"] != choices {
        windows["objective"] = report["data"]["loss_type"].clone();
    }
    windows
}

/// A directory of the fixtures of model families.
pub fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(name)
}

/// A checkpoint of the fixtures, in a new directory, with a tokenizer whose word `w7` is token 7.
pub fn checkpoint_of_words(name: &str, dir: &Path) {
    fs::create_dir(dir).expect("created");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(family(name).join(file), dir.join(file)).expect("copied");
    }
    let vocabulary: Map<String, Value> = (0..113).map(|id| (format!("w{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w3"},
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("written");
}

/// A tiny Llama with the letters a to z as its vocabulary.
pub struct Tiny {
    pub config: Value,
    pub tokenizer: Value,
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Tiny {
    pub fn new() -> Self {
        let (vocab_size, hidden_size, intermediate_size) = (27usize, 8usize, 12usize);
        let mut tensors = Vec::new();
        let mut add = |name: &str, shape: &[usize]| {
            let n = shape.iter().product::<usize>();
            let salt = name.len() + name.bytes().map(usize::from).sum::<usize>();
            let value =
                |i: usize| if shape.len() == 1 { 1.0 } else { ((i * 37 + salt) % 41) as f32 / 41.0 - 0.5 };
            tensors.push((name.to_owned(), shape.to_vec(), (0..n).map(value).collect()));
        };
        add("model.embed_tokens.weight", &[vocab_size, hidden_size]);
        for (name, outputs, inputs) in [
            ("self_attn.q_proj", hidden_size, hidden_size),
            ("self_attn.k_proj", hidden_size / 2, hidden_size),
            ("self_attn.v_proj", hidden_size / 2, hidden_size),
            ("self_attn.o_proj", hidden_size, hidden_size),
            ("mlp.gate_proj", intermediate_size, hidden_size),
            ("mlp.up_proj", intermediate_size, hidden_size),
            ("mlp.down_proj", hidden_size, intermediate_size),
        ] {
            add(&format!("model.layers.0.{name}.weight"), &[outputs, inputs]);
        }
        add("model.layers.0.input_layernorm.weight", &[hidden_size]);
        add("model.layers.0.post_attention_layernorm.weight", &[hidden_size]);
        add("model.norm.weight", &[hidden_size]);
        add("lm_head.weight", &[vocab_size, hidden_size]);
        let mut vocabulary = serde_json::Map::new();
        vocabulary.insert("<pad>".to_owned(), json!(0));
        for (i, c) in ('a'..='z').enumerate() {
            vocabulary.insert(c.to_string(), json!(i + 1));
        }
        Self {
            config: json!({
                "model_type": "llama", "vocab_size": vocab_size, "hidden_size": hidden_size,
                "intermediate_size": intermediate_size,
                "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0,
            }),
            tokenizer: json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
            }),
            tensors,
        }
    }

    /// The tensor with this name.
    pub fn tensor(&mut self, name: &str) -> &mut (String, Vec<usize>, Vec<f32>) {
        self.tensors.iter_mut().find(|t| t.0 == name).expect("the tensor")
    }

    /// Bytes of `model.safetensors`, with `dtype` in its header.
    pub fn weights(&self, dtype: &str) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, shape, values) in &self.tensors {
            let start = data.len();
            values.iter().for_each(|v| data.extend(v.to_le_bytes()));
            header.insert(
                name.clone(),
                json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}),
            );
        }
        let header = serde_json::to_vec(&header).expect("JSON");
        [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
    }

    /// Writes the checkpoint.
    pub fn write(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("created");
        fs::write(directory.join("config.json"), self.config.to_string()).expect("written");
        fs::write(directory.join("tokenizer.json"), self.tokenizer.to_string()).expect("written");
        fs::write(directory.join("model.safetensors"), self.weights("F32")).expect("written");
    }
}

/// A dataset with `n` different rows of letters, of which the first are short.
pub fn letters(n: usize) -> String {
    let row = |i: usize| {
        let letter = |j: usize| char::from(b'a' + ((i * 7 + j * (i % 5 + 1)) % 26) as u8).to_string();
        let words: Vec<String> = (0..2 + (i * 3) % 20).map(letter).collect();
        json!({"text": format!("{} {}", words.join(" "), char::from(b'a' + (i / 26 % 26) as u8))}).to_string()
    };
    (0..n).map(|i| row(i) + "\n").collect()
}

/// Extracts an archive of `tests/fixtures/upstream/` of the workspace into `dir`.
pub fn extract(archive: &str, dir: &Path) {
    let archive = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/upstream").join(archive);
    let command =
        r#"set -e; zstd -dc --long=27 -- "$0" > "$1/archive.tar"; tar -xf "$1/archive.tar" -C "$1""#;
    let status = Command::new("sh").args(["-c", command]).arg(&archive).arg(dir).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "extracting {} failed; this test needs zstd and tar",
        archive.display()
    );
}
