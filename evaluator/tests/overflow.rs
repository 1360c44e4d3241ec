//! The largest activation of a checkpoint that runs in float16 is recorded, so that an overflow there is known.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Tiny, baseline, letters, run};
use serde_json::{Value, json};
use std::fs;

/// What the reports of a checkpoint with this type state, for 1 to 3 threads: the same.
fn measured(dtype: &str, change: impl Fn(&mut Tiny)) -> (Option<f64>, Value) {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new();
    tiny.config["torch_dtype"] = json!(dtype);
    change(&mut tiny);
    tiny.write(&dir.path().join("model"));
    fs::write(dir.path().join("rows.jsonl"), letters(40)).unwrap();
    let mut job = baseline(&dir.path().join("model"), &dir.path().join("rows.jsonl"), 16, 4);
    let reports = [1, 2, 3].map(|threads| {
        job["threads"] = json!(threads);
        let report = run(dir.path(), &job).report();
        let largest = report["meta"]["evaluator"]["largest_activation"].as_f64();
        (largest, report["evaluation_windows"]["final"]["logloss"].clone())
    });
    assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
    reports[0].clone()
}

#[test]
fn the_largest_activation_of_float16_is_recorded() {
    let (largest, losses) = measured("float16", |_| ());
    let largest = largest.unwrap();
    assert!(largest > 0.0 && largest < 1000.0, "{largest}");
    for dtype in ["float32", "bfloat16"] {
        assert_eq!(measured(dtype, |_| ()), (None, losses.clone()));
    }
    // The same function with larger numbers between the layers of the feed-forward module.
    let scaled = |tiny: &mut Tiny| {
        for (name, _, values) in &mut tiny.tensors {
            let factor = match name.rsplit_once(".mlp.").map(|(_, part)| part) {
                Some("up_proj.weight") => 2f32.powi(30),
                Some("down_proj.weight") => 2f32.powi(-30),
                _ => 1.0,
            };
            values.iter_mut().for_each(|value| *value *= factor);
        }
    };
    let (overflowing, same) = measured("float16", scaled);
    assert!(overflowing.unwrap() > 65504.0, "{overflowing:?}");
    assert_eq!(same, losses);
}
