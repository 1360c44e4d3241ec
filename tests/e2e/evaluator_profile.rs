//! The evaluator's profile is kept honest: every rule of it was used by a run of the evaluator, or by a program like it that crashes, or is
//! listed here with the machine that needs it. A rule without an explanation fails this test, and so does a run that is refused
//! anything.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{demo, program, read_json, root, set_mode, skip};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What no run on this machine can use, and why it is there.
const ELSEWHERE: [(&str, &str); 7] = [
    ("fstat", "glibc from 2.39 on, in which the evaluator may have been built"),
    ("readlinkat", "aarch64, which has no readlink"),
    ("renameat", "aarch64, which has no rename"),
    ("unlinkat", "aarch64, which has no unlink"),
    ("ppoll", "aarch64, which has no poll"),
    ("clock_gettime", "a machine whose vDSO cannot tell the time"),
    ("uname", "static glibc before 2.37 on a machine without a vDSO"),
];

/// The signals that crashes end with.
const ABRT: i32 = 6;
const SEGV: i32 = 11;

/// An image like the default one: mount points, an empty list of processors, one program.
struct Stage {
    dir: tempfile::TempDir,
    /// How often each rule was used, by its place in the profile.
    used: BTreeMap<usize, u64>,
    rules: Vec<Value>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("invarlock-test-").tempdir().unwrap();
        let image = dir.path().join("image");
        for place in ["dev", "in", "out", "proc", "tmp", "sys/devices/system/cpu"] {
            std::fs::create_dir_all(image.join(place)).unwrap();
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

    /// One run of a program of the image, learned.
    fn learn(&mut self, argv: &[&str], more: Value) -> Value {
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
        let learned = outcome["result"]["learned"]["used"].as_array();
        self.rules = learned.unwrap_or_else(|| panic!("{outcome:#}")).clone();
        for (at, rule) in self.rules.iter().enumerate() {
            *self.used.entry(at).or_default() += rule["count"].as_u64().unwrap();
        }
        outcome
    }

    /// One run of the evaluator, which is refused nothing.
    fn evaluate(&mut self, argv: &[&str], more: Value) -> Value {
        let outcome = self.learn(&[&["/invarlock-evaluator"], argv].concat(), more);
        assert_eq!(outcome["result"]["refused"], json!({}), "{argv:?}: {outcome:#}");
        outcome
    }

    /// One job of the evaluator; gives its report.
    fn measure(&mut self, job: &Value, files: &[(String, PathBuf)]) -> Value {
        let more = json!({"files": files, "bytes": [["/in/job.json", job.to_string()]]});
        let outcome = self.evaluate(&["--job", "/in/job.json", "--out", "/out"], more);
        assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
        serde_json::from_str(outcome["result"]["output"]["report.json"].as_str().unwrap()).unwrap()
    }
}

fn checkpoint(dir: &Path) -> Vec<(String, PathBuf)> {
    let names = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.map(|name| (format!("/in/checkpoint/{name}"), dir.join(name))).collect()
}

fn job(role: &str, windows: &Value, threads: usize) -> Value {
    json!({
        "contract": "invarlock-measure-v1", "role": role, "model_id": role, "profile": "ci", "tier": "balanced",
        "checkpoint": "/in/checkpoint", "windows": windows, "seq_len": 128, "stride": 128, "preview_n": 240, "final_n": 240,
        "split": "validation", "seed": 43, "threads": threads,
    })
}

/// The baseline's windows, as the subject gets them.
fn windows(report: &Value) -> Value {
    let arm = |name: &str| {
        let arm = &report["evaluation_windows"][name];
        json!({"window_ids": arm["window_ids"], "input_ids": arm["input_ids"], "attention_masks": arm["attention_masks"]})
    };
    json!({"tokenizer_hash": report["meta"]["tokenizer_hash"], "preview": arm("preview"), "final": arm("final")})
}

#[test]
fn every_rule_is_used_or_accounted_for() {
    if std::env::consts::ARCH != "x86_64" {
        return skip(
            "every_rule_is_used_or_accounted_for",
            "the list of what is needed elsewhere is that of x86_64",
        );
    }
    let mut stage = Stage::new();
    stage.evaluate(&["--self-test"], json!({}));
    stage.evaluate(&["--version"], json!({}));
    let source = json!({"kind": "local_jsonl", "files": ["/in/dataset/0.jsonl"], "text_field": "text", "max_samples": 480});
    // One row is long, so that buffers grow beyond what the heap holds.
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
    // What the evaluator never does when all is well, by a program that is built like it.
    for (how, signal) in [("abort", ABRT), ("fault", SEGV), ("free-twice", ABRT)] {
        let outcome = stage.learn(&["/invarlock-workload", how], json!({}));
        assert_eq!(outcome["result"]["status"], json!({"signaled": signal}), "{how}: {outcome:#}");
    }
    let unused: BTreeSet<&str> = stage
        .rules
        .iter()
        .zip(stage.used.values())
        .filter(|(_, count)| **count == 0)
        .map(|(rule, _)| rule["syscall"].as_str().unwrap())
        .collect();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let nobodys: Vec<_> = unused.difference(&elsewhere).collect();
    assert!(
        nobodys.is_empty(),
        "no run uses the rules for {nobodys:?}: prune them, or say here which machine does"
    );
    // The list names rules, and none that everybody uses.
    let profile = read_json(&root().join("seccomp/profiles/evaluator.json"));
    let named = |name: &str| profile["allow"].as_array().unwrap().iter().any(|rule| rule["syscall"] == name);
    assert!(elsewhere.iter().all(|name| named(name)), "{elsewhere:?}");
}
