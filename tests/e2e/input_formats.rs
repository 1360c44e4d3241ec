//! Checkpoints and datasets in other formats than safetensors and JSON lines, through the whole program.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::small;
use invarlock_tests::{As, Place, Ran, demo, has_matrix_unit, read_json, skip};
use serde_json::{Value, json};
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

/// Evaluates with profile dev and the preset of [`small::place`].
fn evaluate(place: &Place, baseline: &str, subject: &str, more: &[&str]) -> Ran {
    let args = ["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml", "--report-out", "eval"];
    place.run(&[&args[..], &["--baseline", baseline, "--subject", subject], more].concat())
}

fn kinds(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().unwrap().iter().map(|warning| warning["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_subject_needs_no_tokenizer_and_may_have_added_tokens() {
    let place = small::place();
    let file = place.work("subject/tokenizer.json");
    let mut tokenizer = read_json(&file);
    let config = read_json(&place.work("subject/config.json"));
    let rows = config["vocab_size"].as_u64().unwrap();
    // Of the unused tokens, the last one gets another name.
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let last = vocabulary
        .iter()
        .max_by_key(|(_, id)| id.as_u64())
        .map(|(token, id)| (token.clone(), id.clone()))
        .unwrap();
    assert!(last.1.as_u64().unwrap() < rows);
    vocabulary.remove(&last.0);
    vocabulary.insert("[PAD]".to_owned(), last.1);
    tokenizer["model"]["merges"].as_array_mut().unwrap().pop();
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    small::evaluate(&place, &[]).expect(0);
    let report = read_json(&place.work("eval/evaluation.report.json"));
    assert!(kinds(&report).contains(&"subject_tokenizer"), "{}", report["warnings"]);
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);

    std::fs::remove_file(&file).unwrap();
    let ran = evaluate(&place, "base", "subject", &["--json"]).expect(0);
    let warnings = ran.json()["warnings"].to_string();
    assert!(warnings.contains("the subject has no tokenizer"), "{warnings}");
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
}

#[test]
fn a_lora_adapter_is_merged_over_the_baseline() {
    let place = small::place();
    let config = read_json(&place.work("base/config.json"));
    let size = config["hidden_size"].as_u64().unwrap() as usize;
    let name = |part: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight");
    let values =
        |n: usize| (0..n).flat_map(|i| (0.05 + (i % 7) as f32 * 0.02).to_le_bytes()).collect::<Vec<u8>>();
    let bytes = 2 * size * 4;
    let header = json!({
        name("A"): {"dtype": "F32", "shape": [2, size], "data_offsets": [0, bytes]},
        name("B"): {"dtype": "F32", "shape": [size, 2], "data_offsets": [bytes, 2 * bytes]},
    });
    let header = header.to_string().into_bytes();
    let file =
        [&(header.len() as u64).to_le_bytes()[..], &header, &values(2 * size), &values(2 * size)].concat();
    std::fs::create_dir(place.work("adapter")).unwrap();
    place.write("adapter/adapter_model.safetensors", &file);
    let settings = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "x"});
    place.write("adapter/adapter_config.json", settings.to_string().as_bytes());
    place.give(&place.work("adapter"));

    evaluate(&place, "base", "adapter", &["--no-gate"]).expect(0);
    let report = read_json(&place.work("eval/evaluation.report.json"));
    assert_ne!(report["primary_metric"]["ratio_vs_baseline"], 1.0);
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let files = &manifest["context"]["sides"]["subject"]["checkpoint"]["files"];
    let names: Vec<&str> =
        files.as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"adapter_model.safetensors") && names.contains(&"model.safetensors"),
        "{names:?}"
    );
    let pins = ["--baseline-checkpoint", "base", "--subject", "adapter"];
    let ran = place.run(&[&["verify", "--profile", "dev"][..], &pins, &["eval"]].concat());
    assert!(ran.code == 0 || ran.code == 1, "{}", ran.err);
    assert!(!ran.err.contains("checkpoint"), "{}", ran.err);

    // Some programs copy the configuration of the base model into the folder. As a baseline it has no weights, with or without it.
    let ratio = report["primary_metric"]["ratio_vs_baseline"].clone();
    let refused = |place: &Place| {
        let ran = evaluate(place, "adapter", "base", &[]).expect(2);
        ran.one_error(&["a PEFT adapter (LoRA), which has no weights of its own", "as --subject"]);
    };
    refused(&place);
    place.write("adapter/config.json", config.to_string().as_bytes());
    evaluate(&place, "base", "adapter", &["--no-gate"]).expect(0);
    let report = read_json(&place.work("eval/evaluation.report.json"));
    assert_eq!(report["primary_metric"]["ratio_vs_baseline"], ratio);
    refused(&place);
    std::fs::remove_file(place.work("adapter/config.json")).unwrap();

    // Without its weights it is no adapter.
    std::fs::rename(place.work("adapter/adapter_model.safetensors"), place.work("adapter/adapter_model.bin"))
        .unwrap();
    evaluate(&place, "base", "adapter", &[])
        .expect(2)
        .one_error(&["adapter_model.bin", "a pickle can run code"]);
}

/// A repository of the Hugging Face cache with the demo's baseline.
fn cache(place: &Place, hub: &str, name: &str, absolute: bool) -> String {
    let revision = "a".repeat(40);
    let repository = place.work(hub).join(format!("models--acme--{name}"));
    let snapshot = repository.join("snapshots").join(&revision);
    for dir in [&repository.join("blobs"), &repository.join("refs"), &snapshot] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(repository.join("refs/main"), &revision).unwrap();
    for file in place.names("work/base") {
        std::fs::copy(place.work("base").join(&file), repository.join("blobs").join(format!("b-{file}")))
            .unwrap();
        let blobs = if absolute { repository.join("blobs") } else { PathBuf::from("../../blobs") };
        std::os::unix::fs::symlink(blobs.join(format!("b-{file}")), snapshot.join(&file)).unwrap();
    }
    place.give(&place.work(hub));
    revision
}

#[test]
fn models_of_the_cache_have_names() {
    let place = small::place();
    let revision = cache(&place, "hub", "tiny", false);
    cache(&place, "hub", "linked", true);
    let run = |baseline: &str, subject: &str| {
        let args =
            ["evaluate", "--quiet", "--profile", "dev", "--preset", "preset.yaml", "--report-out", "eval"];
        let mut command =
            place.command(&[&args[..], &["--baseline", baseline, "--subject", subject]].concat());
        Ran::from(command.env("HF_HUB_CACHE", place.work("hub")).output().unwrap())
    };
    run("acme/tiny", "acme/linked@main").expect(0);
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let request = &manifest["context"]["plan"]["content"]["request"];
    assert_eq!(request["baseline"], format!("acme/tiny@{revision}"));
    assert_eq!(request["subject"], format!("acme/linked@{revision}"));
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    let ran = run("acme/tiny", "acme/absent").expect(2);
    ran.one_error(&["models--acme--absent does not exist", "hf download acme/absent"]);
    run("hub/models--acme--tiny", "subject")
        .expect(2)
        .one_error(&["a repository of the Hugging Face cache", &revision]);

    // The blobs elsewhere.
    let repository = place.work("hub/models--acme--linked");
    std::fs::rename(repository.join("blobs"), place.work("volume")).unwrap();
    std::os::unix::fs::symlink(place.work("volume"), repository.join("blobs")).unwrap();
    run("acme/tiny", "acme/linked").expect(3).one_error(&["blobs is a link", "cp -rL"]);
}

#[test]
fn documents_are_packed_into_full_windows() {
    let place = small::place();
    evaluate(&place, "base", "subject", &["--packing", "documents"]).expect(0);
    let report = read_json(&place.work("eval/evaluation.report.json"));
    assert_eq!(report["dataset"]["hash"]["total_tokens"], 2 * 4 * 32);
    let baseline = read_json(&place.work("eval/baseline.report.json"));
    assert_eq!(baseline["data"]["packing"], "documents");
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    // The plan says so, too: a report that hides it contradicts the plan.
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    assert_eq!(manifest["context"]["plan"]["content"]["dataset"]["packing"], "documents");
    assert_eq!(manifest["context"]["plan"]["content"]["compute_dtype"], "float32");
    assert_eq!(baseline["meta"]["evaluator"]["compute_dtype"], "float32");
}

#[test]
fn bf16x3_is_recorded_and_has_a_filter_of_its_own() {
    if !has_matrix_unit() {
        return skip("bf16x3_is_recorded_and_has_a_filter_of_its_own", "this processor lacks AMX");
    }
    let place = small::place();
    let ran = evaluate(&place, "base", "subject", &["--dtype", "bf16x3", "--out", "runs"]).expect(0);
    assert!(!ran.err.contains("denied"), "{}", ran.err);
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let plan = &manifest["context"]["plan"]["content"];
    assert_eq!(plan["compute_dtype"], "bf16x3");
    for side in ["baseline", "subject"] {
        assert_eq!(plan["sides"][side]["seccomp"]["profile"], "evaluator-amx");
        let evaluator =
            read_json(&place.work(&format!("eval/{side}.report.json")))["meta"]["evaluator"].clone();
        assert_eq!(
            (&evaluator["compute_dtype"], &evaluator["kernel"]),
            (&json!("bf16x3"), &json!("amx-bf16x3"))
        );
    }
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    // The losses of the other side would be of another arithmetic.
    let run = place.names("work/runs/source").remove(0);
    let baseline = format!("runs/source/{run}/report.json");
    let reuse = |more: &[&str]| {
        evaluate(&place, "base", "subject", &[&["--baseline-report", &baseline], more].concat())
    };
    reuse(&["--dtype", "bf16x3"]).expect(0);
    reuse(&[]).expect(2).one_error(&["its type of numbers is bf16x3, but this command's is float32"]);
}

/// A place with copies of a fixture as both sides, and words as tokens and data.
fn place_of_fixture(name: &str) -> Place {
    let place = Place::new(As::User);
    let word = |i: usize| format!("w{i}");
    let vocab: serde_json::Map<String, Value> = (0..113).map(|i| (word(i), json!(i))).collect();
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}});
    for side in ["base", "subject"] {
        place.copy_dir(&fixture(name), side);
        place.write(&format!("{side}/tokenizer.json"), tokenizer.to_string().as_bytes());
    }
    let row = |i: usize| (0..32).map(|k| word((i * 31 + k * k * 7) % 113) + " ").collect::<String>();
    let rows: String = (0..12).map(|i| json!({"text": row(i)}).to_string() + "\n").collect();
    place.write("rows.jsonl", rows.as_bytes());
    preset(&place, json!({"kind": "local_jsonl", "file": "rows.jsonl"}));
    place
}

#[test]
fn quantised_inputs_are_measured_as_the_configuration_asks() {
    let place = place_of_fixture("ct-int8-channel");
    let measured = |more: &[&str]| {
        evaluate(&place, "base", "subject", &[&["--out", "runs"], more].concat()).expect(0);
        place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
        let report = read_json(&place.work("eval/evaluation.report.json"));
        let facts = report["measurements"]["subject"]["checkpoint"].clone();
        (kinds(&report).contains(&"weight_only"), facts, report["primary_metric"]["final"].clone())
    };
    let (warned, facts, rounded) = measured(&[]);
    assert_eq!((warned, &facts["quantised_inputs"]), (false, &json!("inputs in int8, dynamic")));
    let again = ["--baseline-checkpoint", "base", "--subject", "subject", "--dataset", "rows.jsonl"];
    let verify =
        [&["verify", "--json", "--profile", "dev", "--reproduce=all"], &again[..], &["eval"]].concat();
    let row = place.run(&verify).expect(0).json()["results"][0].clone();
    assert_eq!((&row["assurance"], &row["reproduction"]["bit_equal"]), (&json!("reproduced"), &json!(true)));

    // The baseline of the other measurement has other losses.
    let run = place.names("work/runs/source").remove(0);
    let reuse = ["--weight-only", "--baseline-report", &format!("runs/source/{run}/report.json")];
    let words = "its inputs of layers is as config.json asks, but this command's is float32";
    evaluate(&place, "base", "subject", &reuse).expect(2).one_error(&[words]);

    let (warned, facts, plain) = measured(&["--weight-only"]);
    assert_eq!((warned, &facts["omitted_activations"]), (true, &json!("inputs in int8, dynamic")));
    assert_ne!(rounded, plain);
    let plan = read_json(&place.work("eval/runtime.manifest.json"))["context"]["plan"]["content"].clone();
    assert_eq!(plan["weight_only"], true);
}

#[test]
fn quantised_inputs_that_are_not_defined_are_refused() {
    let place = place_of_fixture("bnb-int8");
    let ran = evaluate(&place, "base", "subject", &["--dry-run"]).expect(3);
    ran.one_error(&["config.json asks for inputs in int8, except outliers", "pass --weight-only"]);
    evaluate(&place, "base", "subject", &["--weight-only"]).expect(0);
}

#[test]
fn conversations_go_through_the_chat_template() {
    let place = small::place();
    let text = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        json!({"messages": [{"role": "user", "content": row["text"]}]}).to_string() + "\n"
    };
    let rows: String = text.lines().take(12).map(row).collect();
    place.write("chat.jsonl", rows.as_bytes());
    preset(&place, json!({"kind": "local_jsonl", "file": "chat.jsonl", "text_field": "messages"}));
    evaluate(&place, "base", "subject", &[]).expect(2).one_error(&["the tokenizer has no chat template"]);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    place.write("base/chat_template.jinja", template.as_bytes());
    evaluate(&place, "base", "subject", &[]).expect(0);
    let baseline = read_json(&place.work("eval/baseline.report.json"));
    assert_eq!(baseline["data"]["chat_template_sha256"].as_str().unwrap().len(), 64);
    place.run(&["verify", "--profile", "dev", "eval"]).expect(0);
    place.write(
        "base/chat_template.jinja",
        b"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    );
    evaluate(&place, "base", "subject", &["--dry-run"])
        .expect(2)
        .one_error(&["checking the baseline", "steps for a conversation"]);
}
