//! A measurement that resumes after an interruption gives the same bits, whichever windows were finished.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, Tiny, baseline, run};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Windows an arm: groups of 512 rows have four of 128 tokens, so an arm has three groups.
const WINDOWS: usize = 10;
const SEQ_LEN: usize = 128;

fn inputs() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new();
    tiny.config["max_position_embeddings"] = json!(SEQ_LEN);
    tiny.write(&dir.path().join("checkpoint"));
    let text = |i: usize| {
        let letter = |j: usize| char::from(b'a' + ((i * 31 + j * (i + 7)) % 26) as u8);
        (0..SEQ_LEN).map(|j| letter(j).to_string()).collect::<Vec<_>>().join(" ")
    };
    let rows: String = (0..2 * WINDOWS).map(|i| json!({"text": text(i)}).to_string() + "\n").collect();
    fs::write(dir.path().join("data.jsonl"), rows).unwrap();
    dir
}

fn job(dir: &Path) -> Value {
    baseline(&dir.join("checkpoint"), &dir.join("data.jsonl"), SEQ_LEN, WINDOWS)
}

/// Runs the job with a journal.
fn resume(dir: &Path, journal: &str) -> Ran {
    let file = dir.join("journal.json");
    fs::write(&file, journal).unwrap();
    let mut job = job(dir);
    job["journal"] = json!(file);
    run(dir, &job)
}

fn losses(report: &Value, arm: &str) -> Vec<u64> {
    let losses = report["evaluation_windows"][arm]["logloss"].as_array().unwrap();
    losses.iter().map(|loss| loss.as_f64().unwrap().to_bits()).collect()
}

/// The journal of the first windows of both arms.
fn journal(report: &Value, preview: usize, last: usize) -> Value {
    let evaluator = &report["meta"]["evaluator"];
    let first = |arm: &str, n| report["evaluation_windows"][arm]["logloss"].as_array().unwrap()[..n].to_vec();
    json!({"evaluator": evaluator["version"], "kernel": evaluator["kernel"], "preview": first("preview", preview),
        "final": first("final", last)})
}

/// Positions and losses of the events of finished windows of an arm.
fn finished(ran: &Ran, arm: &str) -> (Vec<u64>, Vec<u64>) {
    let mut found = (Vec::new(), Vec::new());
    for event in ran.events.iter().filter(|event| event["event"] == "losses" && event["arm"] == arm) {
        let first = event["first"].as_u64().unwrap();
        for (i, loss) in event["losses"].as_array().unwrap().iter().enumerate() {
            found.0.push(first + i as u64);
            found.1.push(loss.as_f64().unwrap().to_bits());
        }
    }
    found
}

#[test]
fn same_bits_after_any_number_of_finished_groups() {
    let dir = inputs();
    let whole = run(dir.path(), &job(dir.path()));
    let report = whole.report();
    assert!(report["metrics"].get("resumed").is_none());
    for arm in ["preview", "final"] {
        assert_eq!(finished(&whole, arm).1, losses(&report, arm), "every loss is an event");
    }
    for preview in [0, 4, 8, 10] {
        for last in [0, 4, 8, 10] {
            let ran = resume(dir.path(), &journal(&report, preview, last).to_string());
            let resumed = ran.report();
            for (arm, known) in [("preview", preview), ("final", last)] {
                assert_eq!(losses(&resumed, arm), losses(&report, arm), "{preview} + {last} resumed");
                let rest: Vec<u64> = (known as u64..WINDOWS as u64).collect();
                assert_eq!(finished(&ran, arm), (rest, losses(&report, arm)[known..].to_vec()));
            }
            let expected = json!({"preview": preview, "final": last});
            let stated = resumed["metrics"].get("resumed");
            assert_eq!(stated, Some(&expected).filter(|_| preview + last > 0));
            // Of the windows that this run measured; none without one.
            let rate = resumed["metrics"]["throughput_tok_per_s"].as_f64();
            assert_eq!(rate.is_some(), preview + last < 2 * WINDOWS, "{rate:?}");
        }
    }
}

#[test]
fn other_journals_are_refused() {
    let dir = inputs();
    let report = run(dir.path(), &job(dir.path())).report();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut journal = journal(&report, 4, 0);
        change(&mut journal);
        journal.to_string()
    };
    let too_many = json!(vec![1.0; WINDOWS + 1]);
    for (journal, needle) in [
        (changed(&|journal| journal["kernel"] = json!("abacus")), "with the matrix kernel abacus"),
        (changed(&|journal| journal["evaluator"] = json!("0.0.1")), "measured by version 0.0.1"),
        (changed(&|journal| journal["preview"] = json!([1.0, 2.0])), "not the end of a group"),
        (changed(&|journal| journal["final"] = too_many.clone()), "not the end of a group"),
        (changed(&|journal| journal["preview"][0] = Value::Null), "invalid journal"),
        (changed(&|journal| journal["other"] = json!(1)), "invalid journal"),
        (changed(&|_| ()).replacen("[", "[1e999,", 1), "invalid journal"),
        (changed(&|_| ()).replacen("}", "", 1), "invalid journal"),
    ] {
        let (kind, message) = resume(dir.path(), &journal).error();
        assert_eq!(kind, "input");
        assert!(message.contains(needle), "{message}");
    }
    let mut job = job(dir.path());
    job["journal"] = json!(dir.path().join("missing.json"));
    assert!(run(dir.path(), &job).error().1.contains("missing.json"));
}
