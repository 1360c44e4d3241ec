//! Invalid input: one message, the right exit code, and no report.

mod common;

use std::fs;
use std::path::Path;

use common::{Tiny, baseline, letters, program, run, run_in, subject};
use serde_json::{Value, json};
use tempfile::TempDir;

const N: usize = 12;

/// What Git LFS stores in the place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548118077\n";

/// A directory with a valid checkpoint `model` and a valid dataset `rows.jsonl`.
fn inputs() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Tiny::new().write(&dir.path().join("model"));
    fs::write(dir.path().join("rows.jsonl"), letters(40)).expect("written");
    dir
}

fn job(dir: &Path) -> Value {
    baseline(&dir.join("model"), &dir.join("rows.jsonl"), 16, N)
}

/// Runs a job after `change` and expects an error of this kind with these words in its message or hint.
#[track_caller]
fn rejected(change: impl FnOnce(&Path, &mut Value), kind: &str, words: &[&str]) {
    let dir = inputs();
    let mut job = job(dir.path());
    change(dir.path(), &mut job);
    let ran = run(dir.path(), &job);
    let (found, message) = ran.error();
    assert_eq!(found, kind, "{message}");
    assert_eq!(ran.code, Some(if kind == "input" { 2 } else { 3 }));
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
    assert!(!message.contains('\n'), "{message:?}");
}

/// As [`rejected`], with a changed checkpoint.
#[track_caller]
fn rejected_model(change: impl FnOnce(&mut Tiny), kind: &str, words: &[&str]) {
    rejected(
        |dir, _| {
            let mut tiny = Tiny::new();
            change(&mut tiny);
            tiny.write(&dir.join("model"));
        },
        kind,
        words,
    );
}

#[test]
fn valid_job_is_measured_and_replayed() {
    let dir = inputs();
    let ran = run(dir.path(), &job(dir.path()));
    let report = ran.report();
    assert_eq!(report["metrics"]["primary_metric"]["kind"], "ppl_causal");
    assert_eq!(report["evaluation_windows"]["final"]["window_ids"][0], N);
    assert!(fs::read_to_string(ran.out.join("events.jsonl")).expect("events").lines().count() > 3);
    let phases: Vec<&str> = ran.events.iter().filter_map(|e| e["phase"].as_str()).collect();
    for phase in ["load", "tokenize", "preview", "final", "guards"] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    // The same windows and weights in another directory, with any number of threads: identical losses.
    Tiny::new().write(&dir.path().join("other"));
    let mut job = subject(dir.path(), &dir.path().join("other"), &report);
    let mut windows = report["evaluation_windows"].clone();
    let arm = windows["final"].as_object_mut().expect("an object");
    // Only a baseline has texts.
    let texts = arm.remove("predicted_texts").expect("texts");
    let bytes = arm.remove("predicted_utf8_bytes").expect("lengths");
    let texts: Vec<&str> = texts.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(texts.len(), arm["window_ids"].as_array().expect("a list").len());
    assert_eq!(json!(texts.iter().map(|text| text.len()).collect::<Vec<_>>()), bytes);
    for threads in 1..=3 {
        job["threads"] = json!(threads);
        let again = run(dir.path(), &job).report();
        assert_eq!(again["evaluation_windows"], windows);
        assert_eq!(again["data"]["dataset_hash"], report["data"]["dataset_hash"]);
        assert_eq!(again["edit"]["name"], "custom");
    }
}

#[test]
fn invalid_checkpoint_directories() {
    rejected(
        |p, j| j["checkpoint"] = json!(p.join("absent")),
        "input",
        &["absent", "cannot open the checkpoint"],
    );
    rejected(|p, j| j["checkpoint"] = json!(p.join("rows.jsonl")), "input", &["not a directory"]);
    let empty = |p: &Path, j: &mut Value| {
        fs::create_dir(p.join("empty")).expect("created");
        j["checkpoint"] = json!(p.join("empty"));
    };
    rejected(empty, "input", &["directory is empty"]);
    rejected(
        |p, _| fs::remove_file(p.join("model/config.json")).expect("removed"),
        "input",
        &["no config.json"],
    );
    rejected(
        |p, _| fs::remove_file(p.join("model/model.safetensors")).expect("removed"),
        "input",
        &["neither model.safetensors nor"],
    );
    rejected(|p, _| fs::write(p.join("model/config.json"), "{").expect("written"), "input", &["config.json"]);
    rejected(
        |p, _| fs::write(p.join("model/config.json"), vec![b' '; 2 << 20]).expect("written"),
        "input",
        &["larger than"],
    );
}

#[test]
fn invalid_weight_files() {
    let weights = |bytes: Vec<u8>| {
        move |p: &Path, _: &mut Value| fs::write(p.join("model/model.safetensors"), bytes).expect("written")
    };
    rejected(
        weights(b"PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl".to_vec()),
        "input",
        &["pickle", "not opened"],
    );
    rejected(weights(b"\x80\x02}q\x00(X\x03\x00\x00".to_vec()), "input", &["pickle"]);
    let bin = |p: &Path, _: &mut Value| {
        fs::rename(p.join("model/model.safetensors"), p.join("model/pytorch_model.bin")).expect("renamed");
    };
    rejected(bin, "input", &["pickle", "pytorch_model.bin"]);
    let good = Tiny::new().weights("F32");
    rejected(
        weights(good[..good.len() - 3].to_vec()),
        "input",
        &[
            "truncated",
            &format!("{} bytes", good.len()),
            &format!("{} bytes", good.len() - 3),
            "copy or download",
        ],
    );
    rejected(weights([&good[..], b"more"].concat()), "input", &["4 bytes at the end belong to no tensor"]);
    rejected(weights(good[..5].to_vec()), "input", &["truncated"]);
    rejected(weights(Vec::new()), "input", &["truncated"]);
    rejected(weights(vec![0xff; 64]), "input", &["not a safetensors file, or damaged"]);
    rejected(weights(Tiny::new().weights("I32")), "unsupported", &["int32", "floating-point", "dequantise"]);
    rejected(
        weights(LFS_POINTER.to_vec()),
        "input",
        &["model.safetensors: a Git LFS pointer", "git lfs pull"],
    );
    rejected(weights(b"<!doctype html>".to_vec()), "input", &["text file", "<!doctype html>", "download"]);
    for name in ["model/config.json", "model/tokenizer.json", "rows.jsonl"] {
        rejected(
            |p, _| fs::write(p.join(name), LFS_POINTER).expect("written"),
            "input",
            &["a Git LFS pointer", "git lfs pull"],
        );
    }
}

#[test]
fn weights_that_contradict_the_configuration() {
    rejected_model(
        |t| t.tensors.retain(|t| t.0 != "model.norm.weight"),
        "input",
        &["tensor model.norm.weight", "it is missing"],
    );
    rejected_model(
        |t| t.config["intermediate_size"] = json!(13),
        "input",
        &["gate_proj.weight has shape", "[13, 8]"],
    );
    rejected_model(
        |t| t.config["num_hidden_layers"] = json!(2),
        "input",
        &["tensor model.layers.1.", "is missing"],
    );
    rejected_model(
        |t| t.config["num_hidden_layers"] = json!(1_000_000),
        "input",
        &["num_hidden_layers", "1024"],
    );
    rejected_model(|t| t.config["vocab_size"] = json!(u64::MAX), "input", &["vocab_size"]);
    for bad in [f32::NAN, f32::INFINITY] {
        rejected_model(
            |t| t.tensor("model.layers.0.mlp.up_proj.weight").2[5] = bad,
            "input",
            &["up_proj.weight", "NaN"],
        );
    }
    let overflow = |t: &mut Tiny| {
        for name in ["model.norm.weight", "lm_head.weight"] {
            t.tensor(name).2.iter_mut().for_each(|v| *v *= 1e37);
        }
    };
    rejected_model(overflow, "input", &["window 0", "overflow"]);
    let untied_without_head = |t: &mut Tiny| t.tensors.retain(|t| t.0 != "lm_head.weight");
    rejected_model(untied_without_head, "input", &["tensor lm_head.weight", "is missing"]);
}

#[test]
fn unsupported_models() {
    rejected_model(
        |t| t.config["model_type"] = json!("mamba"),
        "unsupported",
        &["model_type", "mamba", "gpt2, ", "llama, "],
    );
    rejected_model(
        |t| drop(t.config.as_object_mut().expect("object").remove("model_type")),
        "input",
        &["model_type"],
    );
    rejected_model(|t| t.config["hidden_act"] = json!("xielu"), "unsupported", &["hidden_act", "xielu"]);
    rejected_model(
        |t| t.config["rope_scaling"] = json!({"type": "mrope", "factor": 2}),
        "unsupported",
        &["RoPE type", "mrope", "llama3"],
    );
    rejected_model(
        |t| t.config["rope_scaling"] = json!({"type": "linear"}),
        "input",
        &["`rope_scaling.factor` is missing"],
    );
    rejected_model(
        |t| t.config["quantization_config"] = json!({"quant_method": "quip", "bits": 4}),
        "unsupported",
        &["quantization_config.quant_method", "quip", "gptq", "dequantise"],
    );
    rejected_model(|t| t.config["num_local_experts"] = json!(8), "unsupported", &["num_local_experts"]);
}

#[test]
fn invalid_tokenizers() {
    rejected(
        |p, _| fs::remove_file(p.join("model/tokenizer.json")).expect("removed"),
        "input",
        &["no tokenizer"],
    );
    rejected(
        |p, _| fs::write(p.join("model/tokenizer.json"), "{}").expect("written"),
        "input",
        &["tokenizer.json: invalid tokenizer: it has no member `model`", "save_pretrained"],
    );
    rejected(
        |p, _| fs::write(p.join("model/tokenizer.json"), "{\"model\": ").expect("written"),
        "input",
        &["invalid tokenizer: it is not JSON: ", "line 1"],
    );
    rejected_model(
        |t| t.tokenizer["model"] = json!({"type": "none"}),
        "input",
        &["invalid tokenizer: the tokenizers library reports: "],
    );
    let large = |t: &mut Tiny| t.tokenizer["model"]["vocab"]["extra"] = json!(27);
    rejected_model(large, "input", &["vocabulary larger than the embedding", "extra"]);
    let dir = inputs();
    let report = run(dir.path(), &job(dir.path())).report();
    let mut other = Tiny::new();
    other.tokenizer["model"]["vocab"]["a"] = json!(2);
    other.tokenizer["model"]["vocab"]["b"] = json!(1);
    other.write(&dir.path().join("other"));
    let ran = run(dir.path(), &subject(dir.path(), &dir.path().join("other"), &report));
    assert!(ran.error().1.starts_with("tokenizer mismatch"), "{:?}", ran.error());
    assert_eq!(ran.code, Some(2));
}

#[test]
fn weights_that_were_saved_in_another_state_are_named_for_what_they_are() {
    let renamed = |name: &'static dyn Fn(&str) -> String| {
        move |tiny: &mut Tiny| tiny.tensors.iter_mut().for_each(|tensor| tensor.0 = name(&tensor.0))
    };
    let missing = "requires the tensor model.";
    let compiled = renamed(&|name| format!("_orig_mod.{name}"));
    rejected_model(compiled, "input", &["start with _orig_mod.", missing, "save those of `model._orig_mod`"]);
    let parallel = renamed(&|name| format!("module.{name}"));
    rejected_model(parallel, "input", &["start with module.", missing, "save those of `model.module`"]);
    let adapted = renamed(&|name| {
        format!("base_model.model.{}", name.replace("q_proj.weight", "q_proj.base_layer.weight"))
    });
    rejected_model(
        adapted,
        "input",
        &["start with base_model.model.", missing, "`model.merge_and_unload()`"],
    );
    let pruned = |tiny: &mut Tiny| {
        let weight = tiny.tensor("model.layers.0.self_attn.q_proj.weight");
        weight.0 += "_orig";
        let mut mask = weight.clone();
        mask.0 = mask.0.replace("_orig", "_mask");
        tiny.tensors.push(mask);
    };
    rejected_model(
        pruned,
        "input",
        &[
            "it is missing; model.",
            "q_proj.weight_orig",
            "are there instead",
            "`torch.nn.utils.prune.remove`",
        ],
    );
}

#[test]
fn short_and_repeated_rows_can_be_joined() {
    const JOINED: &str = "or pass --packing documents";
    let twice = |p: &Path, _: &mut Value| {
        fs::write(p.join("rows.jsonl"), letters(20) + &letters(20)).expect("written");
    };
    rejected(twice, "input", &["repeat another one", "give the same window", JOINED]);
    let gated = |rows: String| {
        move |p: &Path, job: &mut Value| {
            fs::write(p.join("rows.jsonl"), rows).expect("written");
            (job["profile"], job["preview_n"], job["final_n"]) = (json!("ci"), json!(240), json!(240));
        }
    };
    let letter = |i: usize| char::from(b'a' + (i % 26) as u8);
    let short = |i: usize| format!("{{\"text\": \"{} {}\"}}\n", letter(i / 26), letter(i));
    let rows = (0..500).map(short).collect();
    rejected(gated(rows), "input", &["tokens; profile ci and tier balanced need", "longer rows", JOINED]);
    // Rows that repeat make both arms smaller than the tier allows.
    let words = ["without duplicates", "repeated windows make both arms smaller", JOINED];
    rejected(gated(letters(500)), "input", &words);
}

#[test]
fn invalid_datasets() {
    let rows =
        |text: String| move |p: &Path, _: &mut Value| fs::write(p.join("rows.jsonl"), text).expect("written");
    rejected(rows(letters(3) + "{\"text\": \"a b\"\n"), "input", &["rows.jsonl: line 4", "not JSON"]);
    rejected(
        rows(letters(3) + "{\"body\": \"a b\"}\n"),
        "input",
        &["rows.jsonl: line 4", "\"text\" is missing"],
    );
    rejected(rows(String::new()), "input", &["has 0 usable windows", "need 24"]);
    rejected(
        rows("{\"text\": \"a\"}\n".repeat(50)),
        "input",
        &["has 0 usable windows", "50 of them have too few tokens to predict one"],
    );
    rejected(rows("{\"text\": \"a b c\"}\n".repeat(50)), "input", &["repeat another"]);
    rejected(rows(letters(20)), "input", &["has 20 usable windows", "max_samples"]);
    rejected(
        |_, j| j["windows"]["max_samples"] = json!(20),
        "input",
        &["has 20 usable windows", "max_samples 20"],
    );
    rejected(|_, j| j["windows"]["files"] = json!(["/absent.jsonl"]), "input", &["/absent.jsonl"]);
    rejected(|_, j| j["windows"]["files"] = json!(["/dev/zero"]), "input", &["not a regular file"]);
    rejected(|_, j| j["windows"]["files"] = json!([]), "input", &["0 files"]);
}

#[test]
fn invalid_jobs() {
    rejected(|_, j| j["contract"] = json!("v2"), "unsupported", &["invarlock-measure-v1"]);
    rejected(|_, j| j["seq_len"] = json!(1), "input", &["seq_len"]);
    rejected(|_, j| j["seq_len"] = json!(u64::MAX), "input", &["seq_len"]);
    rejected(|_, j| j["preview_n"] = json!(u64::MAX), "input", &["preview_n"]);
    rejected(|_, j| j["threads"] = json!(0), "input", &["0 threads"]);
    rejected(|_, j| j["role"] = json!("subject"), "input", &["baseline's windows"]);
    rejected(|_, j| j["surprise"] = json!(1), "input", &["surprise"]);
    let dir = inputs();
    fs::write(dir.path().join("job.json"), job(dir.path()).to_string()).expect("written");
    let ran = run_in(&dir.path().join("job.json"), &dir.path().join("absent"));
    assert_eq!((ran.error().0.as_str(), ran.code), ("system", Some(3)));
    let ran = run_in(&dir.path().join("absent.json"), &dir.path().join("absent"));
    assert_eq!((ran.error().0.as_str(), ran.code), ("input", Some(2)));
}

#[test]
fn command_line() {
    let output = program(&["--self-test"]);
    assert!(output.status.success());
    let line: Value = serde_json::from_slice(&output.stdout).expect("one JSON line");
    assert_eq!((&line["self_test"], &line["version"]), (&json!("ok"), &json!(env!("CARGO_PKG_VERSION"))));
    let version = String::from_utf8(program(&["--version"]).stdout).expect("text");
    assert_eq!(version, format!("invarlock-evaluator {}\n", env!("CARGO_PKG_VERSION")));
    assert!(program(&["--help"]).status.success());
    for bad in [&[][..], &["--job", "x"], &["--what"], &["--self-test", "--job", "x", "--out", "y"]] {
        assert_eq!(program(bad).status.code(), Some(2), "{bad:?}");
    }
}
