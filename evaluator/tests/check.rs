//! A `check` job finds what a measurement would find without computing, with the same words, and measures nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Tiny, baseline, letters, run, subject};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn inputs(change: impl FnOnce(&mut Tiny)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new();
    change(&mut tiny);
    tiny.write(&dir.path().join("checkpoint"));
    fs::write(dir.path().join("data.jsonl"), letters(40)).unwrap();
    dir
}

fn job(dir: &Path, task: &str) -> Value {
    let mut job = baseline(&dir.join("checkpoint"), &dir.join("data.jsonl"), 16, 4);
    job["task"] = json!(task);
    job
}

fn check_report(dir: &Path, job: &Value) -> Value {
    let ran = run(dir, job);
    assert_eq!(ran.code, Some(0), "{:?}", ran.events.last());
    let names: Vec<_> = fs::read_dir(&ran.out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["check.json"]);
    serde_json::from_slice(&fs::read(ran.out.join("check.json")).unwrap()).unwrap()
}

#[test]
fn a_check_selects_the_windows_of_the_measurement_and_reads_no_weights() {
    let dir = inputs(|tiny| {
        tiny.config["torch_dtype"] = json!("float16");
        tiny.tensors.push((
            "model.layers.0.self_attn.q_proj.lora_A.weight".to_owned(),
            vec![1, 8],
            vec![0.0; 8],
        ));
        // A measurement refuses it; a check does not read it.
        tiny.tensor("lm_head.weight").2[0] = f32::NAN;
    });
    let check = check_report(dir.path(), &job(dir.path(), "check"));
    assert_eq!((&check["contract"], &check["role"]), (&json!("invarlock-check-v1"), &json!("baseline")));
    assert_eq!(
        check["checkpoint"],
        json!({"model_type": "llama", "checkpoint_dtype": "float16", "compute_dtype": "float32", "unused_tensors": 1,
            "unused_tensor_names": ["model.layers.0.self_attn.q_proj.lora_A.weight"]})
    );
    assert_eq!(run(dir.path(), &job(dir.path(), "measure")).code, Some(2));

    let sound = inputs(|_| ());
    let unstated = check_report(sound.path(), &job(sound.path(), "check"));
    assert_eq!(unstated["checkpoint"]["checkpoint_dtype"], "float32");
    let report = run(sound.path(), &job(sound.path(), "measure")).report();
    assert_eq!(check["windows"], common::windows_of(&report));
    let mut replayed = subject(sound.path(), &sound.path().join("checkpoint"), &report);
    replayed["task"] = json!("check");
    assert_eq!(check_report(sound.path(), &replayed)["windows"], check["windows"]);
}

#[test]
fn a_check_and_a_measurement_report_the_same_fault() {
    let faults: [&dyn Fn(&mut Tiny); 4] = [
        &|tiny| tiny.config["hidden_size"] = json!(10),
        &|tiny| tiny.config["quantization_config"] = json!({"bits": 4}),
        &|tiny| tiny.tensors.retain(|tensor| tensor.0 != "model.norm.weight"),
        &|tiny| tiny.tokenizer = json!({}),
    ];
    for fault in faults {
        let dir = inputs(fault);
        let found = |task| {
            let ran = run(dir.path(), &job(dir.path(), task));
            (ran.error(), ran.code)
        };
        assert_eq!(found("check"), found("measure"));
    }
}

fn letter(i: u32) -> char {
    char::from(b'a' + (i % 26) as u8)
}

#[test]
fn too_few_tokens_for_the_profile_are_found_before_measuring() {
    let dir = inputs(|_| ());
    let row = |i: u32| format!("{{\"text\": \"{} {}\"}}\n", letter(i / 26), letter(i));
    fs::write(dir.path().join("data.jsonl"), (0..400).map(row).collect::<String>()).unwrap();
    let mut job = job(dir.path(), "measure");
    job["profile"] = json!("ci");
    (job["preview_n"], job["final_n"]) = (json!(180), json!(180));
    let ran = run(dir.path(), &job);
    let (kind, message) = ran.error();
    assert!(ran.events.iter().all(|event| event["phase"] != "load"), "{:?}", ran.events);
    assert_eq!((kind.as_str(), ran.code), ("input", Some(2)));
    assert!(
        message.contains("tokens") && message.contains("49000") && message.contains("seq_len"),
        "{message}"
    );
}
