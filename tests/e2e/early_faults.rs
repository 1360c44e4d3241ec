//! Faults that are known without computing are found before anything is hashed or measured; facts that decide no gate are warned of.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, read_json};
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Size of the large baseline's file.
const LARGE: u64 = 1 << 30;

/// The demo's baseline as `base` and copies of it, and a preset of few windows.
struct Case {
    place: Place,
}

impl Case {
    fn new() -> Self {
        let place = Place::new(As::Caller);
        place.copy_dir(&demo("baseline"), "base");
        place.copy_dir(&demo("healthy"), "subject");
        let text = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
        let rows: Vec<&str> = text.lines().take(24).collect();
        place.write("data.jsonl", (rows.join("\n") + "\n").as_bytes());
        let case = Case { place };
        case.preset("");
        case
    }

    /// A preset of 4 + 4 windows with further sections.
    fn preset(&self, more: &str) {
        let preset = "dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 64, preview_n: 4, final_n: 4}\n";
        self.place.write("preset.yaml", format!("{preset}{more}\n").as_bytes());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.work(name)
    }

    fn edit_json(&self, name: &str, edit: impl Fn(&mut Value)) {
        let mut value = read_json(&self.file(name));
        edit(&mut value);
        std::fs::write(self.file(name), value.to_string()).unwrap();
    }

    fn evaluate(&self, more: &[&str]) -> Ran {
        let args = ["evaluate", "--profile", "dev", "--baseline", "base", "--subject", "subject"];
        self.place.run(&[&args[..], &["--preset", "preset.yaml"], more].concat())
    }

    /// Expects the same error of an evaluation and of a dry run, and nothing written.
    #[track_caller]
    fn refused(&self, code: i32, needles: &[&str]) {
        let error =
            |ran: &Ran| ran.err.lines().filter(|l| !l.contains(" s)")).map(str::to_owned).collect::<Vec<_>>();
        let ran = self.evaluate(&[]).expect(code);
        ran.one_error(needles);
        let dry = self.evaluate(&["--dry-run"]).expect(code);
        assert_eq!(error(&ran), error(&dry));
        for dir in ["work/runs", "work/reports"] {
            assert_eq!(self.place.names(dir), Vec::<String>::new(), "{dir} was written");
        }
    }
}

/// Header and data of a safetensors file.
fn split(path: &Path) -> (Value, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn write_tensors(path: &Path, header: &Value, data: &[u8], size: u64) {
    let header = header.to_string();
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + size).unwrap();
    file.write_all_at(data, 8 + header.len() as u64).unwrap();
}

/// Adds a tensor that the model does not use, `bytes` long and sparse.
fn add_tensor(path: &Path, name: &str, bytes: u64) {
    let (mut header, data) = split(path);
    let start = data.len() as u64;
    header[name] = json!({"dtype": "F32", "shape": [bytes / 4], "data_offsets": [start, start + bytes]});
    write_tensors(path, &header, &data, start + bytes);
}

/// The warnings of JSON output or of a report, by kind and side.
fn kinds(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let warnings = value["warnings"].as_array().into_iter().flatten();
    warnings.map(|warning| (text(&warning["kind"]), text(&warning["side"]))).collect()
}

/// A fault: its name, exit code, words of the error, and what makes it.
type Fault = (&'static str, i32, &'static [&'static str], fn(&Case));

#[test]
fn a_fault_of_the_subject_of_a_large_baseline_is_found_in_two_seconds() {
    let faults: [Fault; 5] = [
        ("truncated", 2, &["checking the subject", "model.safetensors of the subject", "header"], |case| {
            let file =
                std::fs::File::options().write(true).open(case.file("subject/model.safetensors")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("mis-shaped", 2, &["checking the subject", "has shape", "config.json requires"], |case| {
            case.edit_json("subject/config.json", |config| {
                let key = if config["n_embd"].is_u64() { "n_inner" } else { "intermediate_size" };
                config[key] = json!(8);
            });
        }),
        (
            "quantised",
            3,
            &["checking the subject", "quantization_config", "quip", "config.json of the subject"],
            |case| {
                case.edit_json("subject/config.json", |config| {
                    config["quantization_config"] = json!({"quant_method": "quip"})
                });
            },
        ),
        ("tokenizer is damaged", 2, &["tokenizer.json of the subject: invalid tokenizer"], |case| {
            std::fs::write(case.file("subject/tokenizer.json"), "{}").unwrap();
        }),
        ("unknown", 3, &["checking the subject", "model_type", "mamba"], |case| {
            case.edit_json("subject/config.json", |config| config["model_type"] = json!("mamba"));
        }),
    ];
    for (name, code, needles, spoil) in faults {
        let case = Case::new();
        // The image is built on first use.
        case.place.run(&["runtime", "image", "build"]).expect(0);
        add_tensor(&case.file("base/model.safetensors"), "unused", LARGE);
        spoil(&case);
        for flags in [&[][..], &["--dry-run"]] {
            let start = Instant::now();
            case.evaluate(flags).expect(code).one_error(needles);
            let took = start.elapsed();
            // Hashing alone takes as long; it comes after the check.
            assert!(took < Duration::from_secs(2), "{name} {flags:?}: {took:?}");
        }
        case.refused(code, needles);
    }
}

#[test]
fn faults_of_the_baseline_and_the_dataset_are_found_by_the_check() {
    let case = Case::new();
    case.place.write("data.jsonl", b"{\"text\": \"fine words of some length\"}\nnot json\n");
    case.refused(2, &["checking the baseline", "data.jsonl", "line 2"]);

    let case = Case::new();
    case.place.write("data.jsonl", b"{\"text\": \"fine words of some length\"}\n");
    case.refused(2, &["checking the baseline", "usable windows"]);

    let case = Case::new();
    case.edit_json("base/config.json", |config| config["model_type"] = json!("rwkv"));
    case.refused(3, &["checking the baseline", "rwkv"]);

    let case = Case::new();
    case.edit_json("subject/tokenizer.json", |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let ids = ["\u{120}the", "e"].map(|token| vocabulary[token].clone());
        (vocabulary["\u{120}the"], vocabulary["e"]) = (ids[1].clone(), ids[0].clone());
    });
    case.refused(
        2,
        &["checking the subject", "tokenizer mismatch", "which the windows use", "\"\u{120}the\""],
    );

    let case = Case::new();
    let preset =
        "dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 64, preview_n: 3, final_n: 5}\n";
    case.place.write("preset.yaml", preset.as_bytes());
    case.refused(2, &["checking the baseline", "preview arm has 3 windows", "same number"]);
}

#[test]
fn too_few_tokens_for_the_profile_are_an_input_error() {
    let case = Case::new();
    let row = |i: u32| json!({"text": format!("number {i} and {} are short", i * 7)}).to_string() + "\n";
    case.place.write("data.jsonl", (0..600).map(row).collect::<String>().as_bytes());
    for flags in [&[][..], &["--dry-run"]] {
        let args = ["evaluate", "--baseline", "base", "--subject", "base", "--dataset", "data.jsonl"];
        let ran = case.place.run(&[&args[..], flags].concat()).expect(2);
        ran.one_error(&["checking the baseline", "240 + 240 windows have", "tokens", "49000", "help: "]);
    }
}

#[test]
fn a_single_file_beside_an_index_is_refused_with_both_names() {
    let case = Case::new();
    let index = |shard: &str| json!({"metadata": {}, "weight_map": {"a": shard}}).to_string();
    std::fs::write(case.file("subject/model.safetensors.index.json"), index("model-1.safetensors")).unwrap();
    case.refused(
        2,
        &["both model.safetensors and model.safetensors.index.json", "remove model.safetensors.index.json"],
    );
    std::fs::copy(case.file("subject/model.safetensors"), case.file("subject/model-1.safetensors")).unwrap();
    case.refused(2, &["both model.safetensors and model.safetensors.index.json", "earlier save"]);
    std::fs::remove_file(case.file("subject/model.safetensors")).unwrap();
    std::fs::remove_file(case.file("subject/model.safetensors.index.json")).unwrap();
    case.refused(2, &["\"model-1.safetensors\" does", "rename it to model.safetensors"]);
    let shard = case.file("subject/model-00001-of-00002.safetensors");
    std::fs::rename(case.file("subject/model-1.safetensors"), shard).unwrap();
    case.refused(2, &["model.safetensors.index.json, which names shards", "-of-00002", "is missing"]);
}

#[test]
fn a_later_fault_says_how_the_measured_baseline_is_kept() {
    let case = Case::new();
    let path = case.file("subject/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    // The last number becomes a NaN, which only a measurement reads.
    bytes[end - 2..].copy_from_slice(&0x7fc0u16.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let ran = case.evaluate(&[]).expect(2);
    ran.one_error(&["measuring the subject", "NaN", "--baseline-report runs/source/"]);
    let kept = ran.err.split("--baseline-report ").nth(1).unwrap().split(' ').next().unwrap();
    std::fs::copy(demo("healthy").join("model.safetensors"), &path).unwrap();
    case.evaluate(&["--baseline-report", kept]).expect(0);
}

#[test]
fn unused_tensors_are_named_everywhere() {
    let case = Case::new();
    add_tensor(&case.file("subject/model.safetensors"), "layers.0.lora_A.weight", 64);
    let dry = case.evaluate(&["--dry-run"]).expect(0);
    let ran = case.evaluate(&[]).expect(0);
    let line = "warning: 1 tensor of the subject is not used by the model: layers.0.lora_A.weight";
    for ran in [&dry, &ran] {
        assert_eq!(ran.err.lines().filter(|found| found.starts_with(line)).count(), 1, "{}", ran.err);
    }
    let expected = vec![("unused_tensors".to_owned(), "subject".to_owned())];
    assert_eq!(kinds(&dry.json()), expected);
    let json = case.evaluate(&["--json"]).expect(0).json();
    assert_eq!((kinds(&json), &json["verdict"]), (expected.clone(), &json!("PASS")));
    let report = read_json(&case.file("reports/eval/evaluation.report.json"));
    assert_eq!(kinds(&report), expected);
    assert_eq!(report["warnings"][0]["names"], json!(["layers.0.lora_A.weight"]));
    case.place.run(&["report", "html", "-i", "reports/eval", "-o", "page.html"]).expect(0);
    let page = std::fs::read_to_string(case.file("page.html")).unwrap();
    assert!(page.contains("1 tensor of the subject is not used by the model"));
    case.place.run(&["verify", "--profile", "dev", "reports/eval"]).expect(0);
    // A report without its warning contradicts itself.
    case.edit_json("reports/eval/evaluation.report.json", |report| report["warnings"] = json!([]));
    assert_ne!(case.place.run(&["verify", "--profile", "dev", "reports/eval"]).code, 0);
}

#[test]
fn identical_checkpoints_and_float16_are_warned_of() {
    let case = Case::new();
    std::fs::remove_dir_all(case.file("subject")).unwrap();
    case.place.copy_dir(&demo("baseline"), "subject");
    let ran = case.evaluate(&[]).expect(0);
    assert!(ran.err.contains("warning: baseline and subject are byte-identical"), "{}", ran.err);
    assert!(ran.out.contains("PASS"), "{}", ran.out);
    let report = read_json(&case.file("reports/eval/evaluation.report.json"));
    assert_eq!(kinds(&report), [("identical_checkpoints".to_owned(), String::new())]);

    case.edit_json("subject/config.json", |config| {
        config.as_object_mut().unwrap().remove("dtype");
        config["torch_dtype"] = json!("float16");
    });
    // A check does not know the activations.
    let float16 = [("compute_dtype".to_owned(), "subject".to_owned())];
    assert_eq!(kinds(&case.evaluate(&["--dry-run"]).expect(0).json()), float16);
    assert_eq!(kinds(&case.evaluate(&["--json"]).expect(0).json()), Vec::new());
    let ran = case.evaluate(&[]).expect(0);
    assert!(!ran.err.contains("float16"), "{}", ran.err);

    // The same function of larger activations.
    scale(&case.file("subject/model.safetensors"), "mlp.up_proj.weight", 17);
    scale(&case.file("subject/model.safetensors"), "mlp.down_proj.weight", -17);
    let ran = case.evaluate(&[]).expect(0);
    let warning =
        "warning: the subject is a float16 checkpoint, but it is measured in float32; its activations reach ";
    assert_eq!(ran.err.matches(warning).count(), 1, "{}", ran.err);
    let report = read_json(&case.file("reports/eval/evaluation.report.json"));
    assert_eq!(kinds(&report), float16);
    assert!((report["primary_metric"]["ratio_vs_baseline"].as_f64().unwrap() - 1.0).abs() < 1e-3);
    case.place.run(&["verify", "--profile", "dev", "reports/eval"]).expect(0);
}

/// Multiplies bfloat16 tensors, whose names end like this, by a power of two.
fn scale(path: &Path, end: &str, exponent: i16) {
    let (header, mut data) = split(path);
    for (_, tensor) in header.as_object().unwrap().iter().filter(|(name, _)| name.ends_with(end)) {
        assert_eq!(tensor["dtype"], "BF16");
        let [from, to] = [0, 1].map(|i| tensor["data_offsets"][i].as_u64().unwrap() as usize);
        for bytes in data[from..to].as_chunks_mut().0 {
            // The exponent is above the 7 bits of the mantissa.
            let bits = u16::from_le_bytes(*bytes);
            let scaled = if bits << 1 == 0 { bits } else { bits.wrapping_add_signed(exponent << 7) };
            *bytes = scaled.to_le_bytes();
        }
    }
    let size = data.len() as u64;
    write_tensors(path, &header, &data, size);
}

#[test]
fn settings_of_the_preset_without_effect_are_refused_or_warned_of() {
    let case = Case::new();
    case.preset("model: {dtype: float16, load_in_8bit: true}");
    case.refused(2, &["preset preset.yaml", "`model.dtype`", "remove it"]);
    case.preset("model: {id: gpt2, adapter: hf_causal}\noutput: {dir: elsewhere}");
    let ran = case.evaluate(&[]).expect(0);
    for name in ["`model.id`", "`output.dir`"] {
        assert!(ran.err.contains(&format!("warning: {name} of the preset has no effect")), "{}", ran.err);
    }
    let report = read_json(&case.file("reports/eval/evaluation.report.json"));
    assert_eq!(kinds(&report), vec![("preset_setting".to_owned(), String::new()); 2]);
}

#[test]
fn a_baseline_that_drifts_stops_the_evaluation_before_the_subject() {
    let case = Case::new();
    let text = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
    let known: Vec<&str> = text.lines().take(240).collect();
    // Words in an order that no language has.
    let scrambled = known.iter().map(|row| {
        let row: Value = serde_json::from_str(row).unwrap();
        let words = row["text"].as_str().unwrap().split_whitespace().rev().collect::<Vec<_>>();
        json!({"text": words.join(" ")}).to_string()
    });
    let rows: Vec<String> = known.iter().map(|row| (*row).to_owned()).chain(scrambled).collect();
    case.place.write("data.jsonl", (rows.join("\n") + "\n").as_bytes());
    let preset = "dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 128}\n";
    case.place.write("preset.yaml", preset.as_bytes());
    let args = ["evaluate", "--baseline", "base", "--subject", "subject", "--preset", "preset.yaml"];
    let ran = case.place.run(&args).expect(2);
    ran.one_error(&["baseline's perplexity", "drift", "0.95 to 1.07", "shuffle"]);
    assert_eq!(case.place.names("work/runs"), ["source"], "the subject was measured");
}

#[test]
fn a_guard_that_warns_prints_warn() {
    let case = Case::new();
    // Baseline and subject have the same output projection; the subject says that it is tied to the embedding.
    let tie = |directory: &str| {
        let path = case.file(directory).join("model.safetensors");
        let (header, mut data) = split(&path);
        let range = |name: &str| {
            let at = |i: usize| usize::try_from(header[name]["data_offsets"][i].as_u64().unwrap()).unwrap();
            at(0)..at(1)
        };
        data.copy_within(range("model.embed_tokens.weight"), range("lm_head.weight").start);
        let size = data.len() as u64;
        write_tensors(&path, &header, &data, size);
    };
    tie("base");
    tie("subject");
    case.edit_json("subject/config.json", |config| config["tie_word_embeddings"] = json!(true));
    let ran = case.evaluate(&["--no-gate"]).expect(0);
    let line = ran.out.lines().find(|line| line.contains("Invariants Pass")).unwrap();
    assert!(line.trim_start().starts_with("warn "), "{line}");
    let json = case.evaluate(&["--no-gate", "--json"]).expect(0).json();
    let gates = json["gates"].as_array().unwrap().iter();
    let warned: Vec<_> = gates.filter(|gate| gate["warned"] == json!(true)).collect();
    assert_eq!((warned.len(), &warned[0]["passed"]), (1, &json!(true)), "{warned:?}");
}
