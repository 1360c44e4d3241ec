//! Every rule of the evaluator's seccomp profile is needed. A rule is used by a run of the
//! evaluator, used by a crashing program that is built the same way, or listed here with the
//! machine that needs it. The test fails on any other rule, and on a denied call of the evaluator.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{demo, has_matrix_unit, program, read_json, root, set_mode, skip};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Calls that no run on this machine uses, and the machine that needs them.
const NEEDED_ELSEWHERE: [(&str, &str); 10] = [
    ("exit", "a thread that ends before its process, which depends on who is faster"),
    ("madvise", "glibc, which frees the stack of such a thread"),
    ("fstat", "glibc from 2.39 on, in which the evaluator may have been built"),
    ("readlinkat", "aarch64, which has no readlink"),
    ("renameat", "aarch64, which has no rename"),
    ("unlinkat", "aarch64, which has no unlink"),
    ("arch_prctl", "glibc that is built for control-flow enforcement, as that of Ubuntu"),
    ("ppoll", "aarch64, which has no poll"),
    ("clock_gettime", "a machine whose vDSO has no usable clock"),
    ("uname", "static glibc before 2.37 on a machine without a vDSO"),
];

/// The signals of crashes.
const ABRT: i32 = 6;
const SEGV: i32 = 11;

/// An image like the default one, with mount points, an empty CPU directory and the test programs,
/// and the use counts of the profile's rules.
struct Stage {
    dir: tempfile::TempDir,
    /// Use count of each rule, by its index in the profile.
    used: BTreeMap<usize, u64>,
    rules: Vec<Value>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("invarlock-test-").tempdir().unwrap();
        let image = dir.path().join("image");
        for name in ["dev", "in", "out", "proc", "tmp", "sys/devices/system/cpu"] {
            std::fs::create_dir_all(image.join(name)).unwrap();
        }
        for name in ["invarlock-evaluator", "invarlock-workload"] {
            std::fs::copy(program(name), image.join(name)).unwrap();
        }
        for path in [dir.path(), &image] {
            set_mode(path, 0o755);
        }
        Stage { dir, used: BTreeMap::new(), rules: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Traces one run of a program of the image.
    fn trace(&mut self, argv: &[&str], more: Value) -> Value {
        let mut plan = json!({
            "rootfs": [self.path("image")], "argv": argv, "env": [["INVARLOCK_CONTAINER_EXECUTION", "1"]],
            "filter": "evaluator", "learn": true, "memory": 1u64 << 30, "output_bytes": 64 << 20, "wall_ms": 120_000,
        });
        plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let launcher = self.path("image/invarlock-workload");
        let out = Command::new(launcher).arg("launch").arg(plan.to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let outcome: Value = serde_json::from_str(text.trim())
            .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&out.stderr)));
        let used = outcome["result"]["learned"]["used"].as_array();
        self.rules = used.unwrap_or_else(|| panic!("{outcome:#}")).clone();
        for (index, rule) in self.rules.iter().enumerate() {
            *self.used.entry(index).or_default() += rule["count"].as_u64().unwrap();
        }
        outcome
    }

    /// Runs the evaluator and fails if a call is denied.
    fn evaluate(&mut self, argv: &[&str], more: Value) -> Value {
        let outcome = self.trace(&[&["/invarlock-evaluator"], argv].concat(), more);
        assert_eq!(outcome["result"]["refused"], json!({}), "{argv:?}: {outcome:#}");
        outcome
    }

    /// Runs one job of the evaluator and returns its report.
    fn measure(&mut self, job: &Value, files: &[(String, PathBuf)]) -> Value {
        let more = json!({"files": files, "bytes": [["/in/job.json", job.to_string()]]});
        let outcome = self.evaluate(&["--job", "/in/job.json", "--out", "/out"], more);
        assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
        serde_json::from_str(outcome["result"]["output"]["report.json"].as_str().unwrap()).unwrap()
    }
}

fn checkpoint(dir: &Path) -> Vec<(String, PathBuf)> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (format!("/in/checkpoint/{name}"), dir.join(name))).collect()
}

fn job(role: &str, windows: &Value, threads: usize) -> Value {
    json!({
        "contract": "invarlock-measure-v1", "role": role, "model_id": role, "profile": "ci", "tier": "balanced",
        "checkpoint": "/in/checkpoint", "windows": windows, "seq_len": 128, "stride": 128, "preview_n": 240, "final_n": 240,
        "split": "validation", "seed": 43, "threads": threads,
    })
}

/// The baseline's windows in the form in which the subject reads them.
fn windows(report: &Value) -> Value {
    let arm = |name: &str| {
        let arm = &report["evaluation_windows"][name];
        json!({"window_ids": arm["window_ids"], "input_ids": arm["input_ids"], "attention_masks": arm["attention_masks"]})
    };
    let mut tokenizer = json!({"vocab_size": report["data"]["vocab_size"], "mapping_sha256": report["data"]["tokenizer_mapping_sha256"]});
    let special = ["bos_token", "eos_token", "pad_token", "add_prefix_space"];
    tokenizer["special"] =
        special.map(|name| (name.to_owned(), report["data"][name].clone())).into_iter().collect();
    tokenizer["used_tokens"] = report["data"]["used_tokens"].clone();
    json!({"tokenizer_hash": report["meta"]["tokenizer_hash"], "tokenizer": tokenizer, "preview": arm("preview"), "final": arm("final")})
}

#[test]
fn every_rule_is_used_or_listed() {
    if std::env::consts::ARCH != "x86_64" {
        return skip(
            "every_rule_is_used_or_listed",
            "the list of calls that other machines need is for x86_64",
        );
    }
    let mut stage = Stage::new();
    stage.evaluate(&["--self-test"], json!({}));
    stage.evaluate(&["--version"], json!({}));
    let source = json!({"kind": "local_jsonl", "files": ["/in/dataset/0.jsonl"], "text_field": "text", "max_samples": 480});
    // One long row makes buffers grow beyond the heap, so that they are mapped.
    let rows = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let dataset = stage.path("rows.jsonl");
    std::fs::write(&dataset, format!("{}\n{rows}", json!({"text": "the quick brown fox ".repeat(50_000)})))
        .unwrap();
    let mut files = checkpoint(&demo("baseline"));
    files.push(("/in/dataset/0.jsonl".into(), dataset));
    let report = stage.measure(&job("baseline", &source, 3), &files);
    let replayed = stage.path("windows.json");
    std::fs::write(&replayed, windows(&report).to_string()).unwrap();
    let mut files = checkpoint(&demo("damaged"));
    files.push(("/in/windows.json".into(), replayed));
    let job = job("subject", &json!({"kind": "replay", "file": "/in/windows.json"}), 2);
    stage.measure(&job, &files);
    // Runs that fail: no job, an invalid job, no space for the report.
    let measure = ["--job", "/in/job.json", "--out", "/out"];
    stage.evaluate(&[], json!({}));
    stage.evaluate(&measure, json!({"bytes": [["/in/job.json", "{}"]]}));
    let full = json!({"files": files, "bytes": [["/in/job.json", job.to_string()]], "output_bytes": 16384});
    assert_ne!(stage.evaluate(&measure, full)["result"]["status"], json!({"exited": 0}));
    // Crashes, which a healthy evaluator never has, in a program that is built the same way.
    for (crash, signal) in [("abort", ABRT), ("fault", SEGV), ("free-twice", ABRT)] {
        let outcome = stage.trace(&["/invarlock-workload", crash], json!({}));
        assert_eq!(outcome["result"]["status"], json!({"signaled": signal}), "{crash}: {outcome:#}");
    }
    let unused: BTreeSet<&str> = stage
        .rules
        .iter()
        .zip(stage.used.values())
        .filter(|(_, count)| **count == 0)
        .map(|(rule, _)| rule["syscall"].as_str().unwrap())
        .collect();
    let needed_elsewhere: BTreeSet<&str> = NEEDED_ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let unexplained: Vec<_> = unused.difference(&needed_elsewhere).collect();
    assert!(
        unexplained.is_empty(),
        "no run uses the rules for {unexplained:?}: remove them, or list the machine that needs them"
    );
    // Every listed call has a rule in the profile.
    let profile = read_json(&root().join("seccomp/profiles/evaluator.json"));
    let has_rule =
        |name: &str| profile["allow"].as_array().unwrap().iter().any(|rule| rule["syscall"] == name);
    assert!(needed_elsewhere.iter().all(|name| has_rule(name)), "{needed_elsewhere:?}");
}

/// The request for the matrix unit is made only for `bf16x3`, allowed only by `evaluator-amx`, and only for this unit.
#[test]
fn the_matrix_unit_is_asked_for_under_its_own_profile() {
    if !has_matrix_unit() {
        return skip("the_matrix_unit_is_asked_for_under_its_own_profile", "this processor lacks AMX");
    }
    let mut stage = Stage::new();
    let source = json!({"kind": "local_jsonl", "files": ["/in/dataset/0.jsonl"], "text_field": "text", "max_samples": 480});
    let mut files = checkpoint(&demo("baseline"));
    files.push(("/in/dataset/0.jsonl".into(), demo("valid.jsonl")));
    let mut run = |filter: &str, dtype: &str| {
        let mut job = job("baseline", &source, 2);
        job["compute_dtype"] = json!(dtype);
        let more = json!({"files": files, "bytes": [["/in/job.json", job.to_string()]], "filter": filter});
        let outcome = stage.trace(&["/invarlock-evaluator", "--job", "/in/job.json", "--out", "/out"], more);
        let asked = stage.rules.iter().filter(|rule| rule["syscall"] == "arch_prctl");
        let asked: Vec<u64> = asked.map(|rule| rule["count"].as_u64().unwrap()).collect();
        (outcome["result"]["status"].clone(), outcome["result"]["refused"].clone(), asked)
    };
    // The first rule is for thread-local storage.
    assert_eq!(run("evaluator", "float32"), (json!({"exited": 0}), json!({}), vec![1, 0, 0]));
    assert_eq!(run("evaluator", "bf16x3"), (json!({"exited": 3}), json!({"arch_prctl": 1}), vec![1, 0, 0]));
    assert_eq!(run("evaluator-amx", "bf16x3"), (json!({"exited": 0}), json!({}), vec![1, 0, 0, 1]));
    assert_eq!(run("evaluator-amx", "float32"), (json!({"exited": 0}), json!({}), vec![1, 0, 0, 0]));
}
