//! Checkpoints and datasets in other formats than safetensors and JSON lines, through the whole program.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::small;
use invarlock_tests::{As, Place, read_json};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../evaluator/tests/fixtures/weights").join(name)
}

/// A preset of 4 + 4 windows of this dataset.
fn preset(place: &Place, provider: serde_json::Value) {
    let preset = json!({"dataset": {"provider": provider, "seq_len": 32, "preview_n": 4, "final_n": 4}});
    place.write("preset.yaml", preset.to_string().as_bytes());
}

/// A table whose rows differ.
fn table() -> String {
    let row = |i: usize| format!("{i},\"row {i}: the quick, brown fox jumps {} times\"\n", i * 7919 % 100);
    std::iter::once("id,body\n".to_owned()).chain((0..12).map(row)).collect()
}

#[test]
fn a_gguf_file_is_measured_on_a_compressed_table() {
    let place = Place::new(As::User);
    for side in ["base", "subject"] {
        place.copy_dir(&fixture("gguf-q8_0"), side);
    }
    place.write("rows.csv", table().as_bytes());
    assert!(Command::new("gzip").arg(place.work("rows.csv")).status().unwrap().success());
    place.give(&place.work("rows.csv.gz"));
    preset(&place, json!({"kind": "local_jsonl", "file": "rows.csv.gz", "text_field": "body"}));
    small::evaluate(&place, &[]).expect(0);
    let report = read_json(&place.work("eval/evaluation.report.json"));
    assert_eq!(report["primary_metric"]["ratio_vs_baseline"], 1.0);
    let manifest = read_json(&place.work("eval/runtime.manifest.json")).to_string();
    assert!(manifest.contains("model.gguf") && manifest.contains("0.csv.gz"), "{manifest}");
    let verify = ["verify", "--profile", "dev", "--dataset", "rows.csv.gz", "--subject", "subject", "eval"];
    place.run(&verify).expect(0);

    // A wrong column is found before anything is measured.
    preset(&place, json!({"kind": "local_jsonl", "file": "rows.csv.gz"}));
    let args = ["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml", "--dry-run"];
    let ran = place.run(&[&args[..], &["--baseline", "base", "--subject", "subject"]].concat()).expect(2);
    assert!(
        ran.err.contains("the field \"text\" is missing") && ran.err.contains("text_field"),
        "{}",
        ran.err
    );
}

#[test]
fn a_dataset_folder_gives_the_files_of_the_split() {
    let place = small::place();
    std::fs::create_dir_all(place.work("folder/data")).unwrap();
    place.write("folder/data/validation-00000.csv", table().as_bytes());
    place.write("folder/data/train-00000.csv", b"not,the,same,table\n1\n");
    place.give(&place.work("folder"));
    preset(&place, json!({"kind": "local_jsonl", "path": "folder", "text_field": "body"}));
    small::evaluate(&place, &[]).expect(0);
}

#[test]
fn a_parquet_file_is_measured() {
    let place = small::place();
    // 12 rows with the columns `id` and `text`, written with the crate parquet and compressed with snappy.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rows.parquet");
    preset(&place, json!({"kind": "local_jsonl", "file": file}));
    small::evaluate(&place, &[]).expect(0);
}

#[test]
fn two_gguf_files_are_refused() {
    let place = small::place();
    std::fs::create_dir(place.work("two")).unwrap();
    for name in ["a.gguf", "b.gguf"] {
        std::fs::copy(fixture("gguf-f16").join("model.gguf"), place.work("two").join(name)).unwrap();
    }
    place.give(&place.work("two"));
    let args =
        ["evaluate", "--profile", "dev", "--preset", "preset.yaml", "--baseline", "base", "--subject", "two"];
    let ran = place.run(&args).expect(2);
    assert!(ran.err.contains("two GGUF files, \"a.gguf\" and \"b.gguf\""), "{}", ran.err);
}
