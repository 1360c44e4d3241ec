//! Invalid input. Each case ends with one clear error and the documented exit code, and leaves no
//! partial files.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, demo, has_matrix_unit, is_root, set_mode, skip};
use std::path::{Path, PathBuf};

/// What Git LFS stores in the place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548118077\n";

/// A [`Place`] with a copy of the baseline of the demo, which the tests modify, and a small
/// dataset.
struct Case {
    place: Place,
    checkpoint: PathBuf,
}

impl Case {
    fn new() -> Self {
        Case::of(As::Caller)
    }

    fn of(user: As) -> Self {
        let place = Place::new(user);
        let checkpoint = place.copy_dir(&demo("baseline"), "checkpoint");
        let text = std::fs::read_to_string(demo("valid.jsonl")).unwrap();
        let rows: Vec<&str> = text.lines().take(24).collect();
        place.write("data.jsonl", (rows.join("\n") + "\n").as_bytes());
        Case { place, checkpoint }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.checkpoint.join(name)
    }

    fn edit_config(&self, edit: impl Fn(&mut serde_json::Value)) {
        let mut config = invarlock_tests::read_json(&self.file("config.json"));
        edit(&mut config);
        std::fs::write(self.file("config.json"), config.to_string()).unwrap();
    }

    /// Evaluates the checkpoint against itself with 4 preview and 4 final windows.
    fn evaluate(&self, more: &[&str]) -> Ran {
        let preset = "dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 64, preview_n: 4, final_n: 4}\n";
        self.place.write("preset.yaml", preset.as_bytes());
        let args = [
            "evaluate",
            "--baseline",
            "checkpoint",
            "--subject",
            "checkpoint",
            "--profile",
            "dev",
            "--preset",
            "preset.yaml",
        ];
        self.place.run(&[&args[..], more].concat())
    }

    /// Evaluates and expects one error that contains `needles`, exit code `code` and no evidence.
    #[track_caller]
    fn expect_error(&self, code: i32, needles: &[&str]) {
        let ran = self.evaluate(&[]).expect(code);
        ran.one_error(needles);
        assert!(
            !self.place.work("reports/eval").join("evaluation.report.json").exists(),
            "a report was written"
        );
        assert!(
            !self.place.work("reports/eval").join("runtime.manifest.json").exists(),
            "a manifest was written"
        );
    }
}

#[test]
fn accepts_the_unmodified_inputs() {
    Case::new().evaluate(&[]).expect(0);
}

#[test]
fn rejects_directories_that_are_not_checkpoints() {
    let case = Case::new();
    std::fs::rename(&case.checkpoint, case.place.work("elsewhere")).unwrap();
    case.expect_error(2, &["baseline", "checkpoint", "no such directory"]);
    std::fs::create_dir(&case.checkpoint).unwrap();
    case.expect_error(2, &["config.json is missing"]);
    std::fs::remove_dir(&case.checkpoint).unwrap();
    std::fs::write(&case.checkpoint, "x").unwrap();
    case.expect_error(2, &["not a directory"]);
}

#[test]
fn rejects_pickle_weights_without_opening_them() {
    let case = Case::new();
    std::fs::rename(case.file("model.safetensors"), case.file("pytorch_model.bin")).unwrap();
    // The file is a FIFO, so an attempt to open it would block.
    std::fs::remove_file(case.file("pytorch_model.bin")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        case.file("pytorch_model.bin"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    case.expect_error(2, &["pytorch_model.bin", "pickle"]);

    let case = Case::new();
    for content in [&b"PK\x03\x04rest of a zip"[..], b"\x80\x02}q\x00X\x05\x00\x00\x00"] {
        std::fs::write(case.file("model.safetensors"), content).unwrap();
        case.expect_error(2, &["model.safetensors", "pickle"]);
    }
}

#[test]
fn rejects_invalid_safetensors_files() {
    let case = Case::new();
    let good = std::fs::read(case.file("model.safetensors")).unwrap();
    let expect_error_for = |bytes: &[u8], needle: &str| {
        std::fs::write(case.file("model.safetensors"), bytes).unwrap();
        case.expect_error(2, &["model.safetensors", needle]);
    };
    expect_error_for(&good[..good.len() - 100], "of the baseline: truncated: the header describes a file of");
    expect_error_for(&good[..4], "truncated: the file has 4 bytes");
    expect_error_for(b"", "truncated: the file has 0 bytes");
    expect_error_for(LFS_POINTER, "a Git LFS pointer, not the file itself");
    expect_error_for(b"<!doctype html>", "it is a text file, not a safetensors file");
    let mut wrong_length = good.clone();
    wrong_length[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    expect_error_for(&wrong_length, "header");
    let mut trailing_data = good;
    trailing_data.extend_from_slice(b"trailing");
    expect_error_for(&trailing_data, "8 bytes at the end belong to no tensor");
}

#[test]
fn rejects_incomplete_tokenizers() {
    let case = Case::new();
    std::fs::write(case.file("tokenizer.json"), "{}").unwrap();
    case.expect_error(2, &["tokenizer.json of the baseline: invalid tokenizer: it has no member `model`"]);
    std::fs::write(case.file("tokenizer.json"), LFS_POINTER).unwrap();
    case.expect_error(2, &["tokenizer.json of the baseline: a Git LFS pointer", "git lfs pull"]);
}

#[test]
fn rejects_tabs_in_the_indentation_of_a_preset() {
    let case = Case::new();
    case.place.write("tab.yaml", b"dataset:\n\tprovider: local_jsonl\n");
    let args = ["evaluate", "--baseline", "checkpoint", "--subject", "checkpoint", "--preset", "tab.yaml"];
    case.place.run(&args).expect(2).one_error(&["tab.yaml: line 2, column 1: a tab", "spaces"]);
}

#[test]
fn rejects_the_run_report_of_a_subject_as_a_baseline() {
    let case = Case::new();
    case.evaluate(&[]).expect(0);
    let runs = case.place.names("work/runs/edited");
    let report = format!("runs/edited/{}/report.json", runs[0]);
    case.evaluate(&["--baseline-report", &report]).expect(2).one_error(&[
        &report,
        "it is the run report of a subject",
        "runs/source/<time>/report.json",
    ]);
}

#[test]
fn rejects_nan_weights() {
    let case = Case::new();
    let mut bytes = std::fs::read(case.file("model.safetensors")).unwrap();
    let end = bytes.len();
    // Sets the last bf16 value of the file to NaN.
    bytes[end - 2..].copy_from_slice(&0x7fc0u16.to_le_bytes());
    std::fs::write(case.file("model.safetensors"), bytes).unwrap();
    case.expect_error(2, &["NaN"]);
}

#[test]
fn rejects_missing_shards_and_shard_names_with_directories() {
    let case = Case::new();
    std::fs::remove_file(case.file("model.safetensors")).unwrap();
    let index = |shard: &str| serde_json::json!({"metadata": {}, "weight_map": {"a": shard}}).to_string();
    let name = case.file("model.safetensors.index.json");
    std::fs::write(&name, index("model-00001-of-00001.safetensors")).unwrap();
    case.expect_error(2, &["model-00001-of-00001.safetensors", "missing"]);
    for shard in ["../outside.safetensors", "/etc/passwd.safetensors", "a/b.safetensors"] {
        std::fs::write(&name, index(shard)).unwrap();
        case.expect_error(3, &["plain name"]);
    }
}

#[test]
fn rejects_missing_or_different_tokenizers() {
    let case = Case::new();
    std::fs::remove_file(case.file("tokenizer.json")).unwrap();
    case.expect_error(2, &["checking the baseline", "no tokenizer"]);

    let case = Case::new();
    let other = case.place.copy_dir(&demo("baseline"), "other");
    let mut tokenizer = invarlock_tests::read_json(&other.join("tokenizer.json"));
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    // Tokens that every window uses.
    let (first, second) = ("\u{120}the", "\u{120}of");
    let (one, two) = (vocab[first].clone(), vocab[second].clone());
    (vocab[first], vocab[second]) = (two, one);
    std::fs::write(other.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    case.evaluate(&["--subject", "other"]);
    let ran = {
        case.place.write("p.yaml", b"dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 64, preview_n: 4, final_n: 4}\n");
        case.place.run(&[
            "evaluate",
            "--baseline",
            "checkpoint",
            "--subject",
            "other",
            "--profile",
            "dev",
            "--preset",
            "p.yaml",
        ])
    };
    ran.expect(2).one_error(&["subject", "tokenizer mismatch: the id ", "\u{120}the"]);
}

#[test]
fn rejects_vocabulary_larger_than_the_embedding() {
    let case = Case::new();
    let mut tokenizer = invarlock_tests::read_json(&case.file("tokenizer.json"));
    tokenizer["model"]["vocab"]["one token too many"] = 1024.into();
    std::fs::write(case.file("tokenizer.json"), tokenizer.to_string()).unwrap();
    case.expect_error(2, &["vocabulary larger than the embedding", "one token too many", "1024"]);
    let case = Case::new();
    case.edit_config(|c| c["vocab_size"] = 100.into());
    case.expect_error(2, &["embed_tokens", "[1024, 64]", "[100, 64]"]);
}

#[test]
fn rejects_unknown_model_types_and_rope_scaling() {
    let case = Case::new();
    case.edit_config(|c| c["model_type"] = "mamba".into());
    let ran = case.evaluate(&[]);
    assert!([2, 3].contains(&ran.code), "{}", ran.err);
    ran.one_error(&["mamba", "gpt2", "llama", "mistral", "qwen2"]);
    let case = Case::new();
    case.edit_config(|c| c["rope_scaling"] = serde_json::json!({"rope_type": "mrope", "factor": 4.0}));
    case.expect_error(3, &["mrope", "yarn"]);
}

#[test]
fn rejects_invalid_datasets() {
    let case = Case::new();
    case.place.write("data.jsonl", b"{\"text\": \"fine\"}\nnot json\n");
    case.expect_error(2, &["line 2"]);
    case.place.write("data.jsonl", b"{\"words\": \"no text member\"}\n");
    case.expect_error(2, &["text", "line 1"]);
    case.place.write("data.jsonl", b"");
    case.expect_error(2, &["window"]);
    case.place.write("data.jsonl", b"{\"text\": \"one short row only\"}\n");
    case.expect_error(2, &["window", "8"]);
    std::fs::remove_file(case.place.work("data.jsonl")).unwrap();
    case.expect_error(2, &["data.jsonl"]);
}

#[test]
fn rejects_too_few_windows_for_the_profile() {
    let case = Case::new();
    case.place.write("p.yaml", b"dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 64}\n");
    let args = ["evaluate", "--baseline", "checkpoint", "--subject", "checkpoint", "--preset", "p.yaml"];
    case.place.run(&args).expect(2).one_error(&["window", "480"]);
}

#[test]
fn the_adapter_must_fit_the_checkpoint() {
    let case = Case::new();
    let wanted = ["--adapter hf_mlm", "baseline", "causal language model", "use auto or hf_causal"];
    case.evaluate(&["--adapter", "hf_mlm"]).expect(2).one_error(&wanted);
}

#[test]
fn rejects_unsupported_options_before_any_run() {
    let case = Case::new();
    case.evaluate(&["--device", "cuda"]).expect(3).one_error(&["cuda", "CPU"]);
    case.evaluate(&["--dtype", "bfloat16"]).expect(3).one_error(&["--dtype: bfloat16", "use float32"]);
    case.evaluate(&["--dtype", "half"]).expect(2).one_error(&["--dtype: half", "use float32"]);
    let wanted = ["the metric accuracy is measured on examples with choices", "local_jsonl_choices"];
    case.evaluate(&["--metric", "accuracy"]).expect(2).one_error(&wanted);
    case.evaluate(&["--adapter", "hf_multimodal"]).expect(3).one_error(&["hf_multimodal"]);
    case.evaluate(&["--metric", "bleu"]).expect(3).one_error(&["--metric bleu", "ppl_seq2seq"]);
    case.evaluate(&["--metric", "ppl_mlm"]).expect(2).one_error(&["ppl_mlm", "causal language model"]);
    case.evaluate(&["--tier", "lenient"]).expect(2).one_error(&["lenient", "balanced"]);
    case.evaluate(&["--image", "registry.invalid/name:tag"]).expect(2);
    case.evaluate(&["--image", "invarlock-runtime:nosuch"]).expect(2).one_error(&["nosuch"]);
    assert_eq!(case.place.names("work/runs"), Vec::<String>::new());
}

#[test]
fn bf16x3_needs_the_matrix_unit() {
    if has_matrix_unit() {
        return skip("bf16x3_needs_the_matrix_unit", "this processor has the unit");
    }
    let case = Case::new();
    let wanted = ["checking the baseline", "bf16x3", "leave out --dtype bf16x3"];
    case.evaluate(&["--dtype", "bf16x3"]).expect(3).one_error(&wanted);
}

#[test]
fn rejects_output_directories_inside_a_checkpoint_or_not_writable() {
    let case = Case::new();
    case.evaluate(&["--report-out", "checkpoint/reports"])
        .expect(2)
        .one_error(&["--report-out", "inside the baseline checkpoint"]);
    case.evaluate(&["--out", "checkpoint"]).expect(2).one_error(&["--out"]);
    case.evaluate(&["--out", "preset.yaml/x"]).expect(2).one_error(&["--out", "not a directory"]);
    let user = Case::of(As::User);
    std::fs::create_dir(user.place.work("closed")).unwrap();
    set_mode(&user.place.work("closed"), 0o555);
    if As::User == As::Caller {
        return;
    }
    user.evaluate(&["--report-out", "closed/eval"]).expect(2).one_error(&["--report-out", "not writable"]);
}

#[test]
fn full_disk_leaves_no_partial_files() {
    let name = "bad_input::full_disk_leaves_no_partial_files";
    if !is_root() {
        return skip(name, "mounting a small tmpfs needs root");
    }
    let case = Case::new();
    let small = case.place.work("small");
    std::fs::create_dir(&small).unwrap();
    // The mount is in a separate mount namespace, so the test does not need to unmount it.
    let preset =
        "dataset: {provider: {kind: local_jsonl, file: data.jsonl}, seq_len: 64, preview_n: 4, final_n: 4}\n";
    case.place.write("preset.yaml", preset.as_bytes());
    let script = "mount -t tmpfs -o size=8k tmpfs small && \"$@\"; code=$?; find small -type f; exit $code";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(case.place.path("bin/invarlock"));
    command.args("evaluate --baseline checkpoint --subject checkpoint --profile dev --preset preset.yaml --report-out small/eval".split(' '));
    command.current_dir(case.place.path("work")).env("INVARLOCK_STORE", case.place.path("store"));
    let ran = Ran::from(command.output().unwrap()).expect(3);
    ran.one_error(&["small/eval", "space"]);
    assert_eq!(ran.out, "", "a file was left");
}

#[test]
fn rejects_links_that_leave_the_checkpoint() {
    let case = Case::new();
    let outside = case.place.work("outside.safetensors");
    std::fs::rename(case.file("model.safetensors"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, case.file("model.safetensors")).unwrap();
    case.expect_error(3, &["model.safetensors", "leaves the checkpoint"]);
}

#[test]
fn accepts_hub_cache_snapshot() {
    for user in invarlock_tests::both() {
        let case = Case::of(user);
        let snapshot = case.place.work("models--demo/snapshots/abc");
        let blobs = case.place.work("models--demo/blobs");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        for name in case.place.names("work/checkpoint") {
            let blob = format!("blob-{name}");
            std::fs::rename(case.file(&name), blobs.join(&blob)).unwrap();
            std::os::unix::fs::symlink(Path::new("../../blobs").join(&blob), snapshot.join(&name)).unwrap();
        }
        std::fs::remove_dir(&case.checkpoint).unwrap();
        std::os::unix::fs::symlink(&snapshot, &case.checkpoint).unwrap();
        case.evaluate(&[]).expect(0);
    }
}

#[test]
fn accepts_private_checkpoints_and_rejects_unreadable_ones() {
    for user in invarlock_tests::both() {
        let case = Case::of(user);
        for name in case.place.names("work/checkpoint") {
            set_mode(&case.file(&name), 0o600);
        }
        set_mode(&case.checkpoint, 0o700);
        case.evaluate(&[]).expect(0);
    }
    if !is_root() {
        return skip("bad_input::unreadable checkpoint of another user", "creating one needs root");
    }
    let case = Case::of(As::User);
    std::os::unix::fs::chown(case.file("model.safetensors"), Some(0), Some(0)).unwrap();
    set_mode(&case.file("model.safetensors"), 0o600);
    case.expect_error(2, &["model.safetensors", "readable by you"]);
}

#[test]
fn json_option_prints_errors_as_json() {
    let case = Case::new();
    let value = case.evaluate(&["--device", "cuda", "--json"]).expect(3).json();
    assert_eq!((&value["ok"], &value["error"]["kind"]), (&false.into(), &"unsupported".into()));
    assert_eq!(value["resolution"]["exit_code"], 3);
}

#[test]
fn rejects_files_that_are_not_reports() {
    let place = Place::new(As::Caller);
    place.run(&["verify", "nowhere"]).expect(2);
    place.write("junk.json", b"[1, 2");
    let code = place.run(&["verify", "junk.json"]).code;
    assert!([1, 2].contains(&code), "{code}");
    place.write("empty.json", b"{}");
    let ran = place.run(&["verify", "empty.json"]).expect(2);
    assert!(ran.out.contains("not an evaluation report"), "{}", ran.out);
    place.run(&["report", "html", "-i", "empty.json", "-o", "x.html"]).expect(2);
    assert!(!place.work("x.html").exists());
}

#[test]
fn rejects_set_uid_launcher() {
    let name = "bad_input::rejects_set_uid_launcher";
    if !is_root() {
        return skip(name, "creating a set-uid root program needs root");
    }
    let place = Place::new(As::User);
    set_mode(&place.path("bin/invarlock"), 0o4755);
    place.run(&["version"]).expect(3).one_error(&["set-uid"]);
}

#[test]
fn rejects_dot_dot_after_a_missing_output_directory() {
    let case = Case::new();
    case.evaluate(&["--out", "missing/../checkpoint/runs"]).expect(2).one_error(&["--out", ".."]);
    assert!(!case.place.work("missing").exists());
}

#[test]
fn disabled_user_namespaces_error_names_the_sysctl() {
    let name = "bad_input::disabled_user_namespaces_error_names_the_sysctl";
    if !is_root() {
        return skip(name, "disabling user namespaces for one process needs root");
    }
    let case = Case::of(As::User);
    case.evaluate(&["--dry-run"]).expect(0);
    let args = ["evaluate", "--baseline", "checkpoint", "--subject", "checkpoint", "--profile", "dev"];
    let args = [&args[..], &["--preset", "preset.yaml"]].concat();
    let ran = case.place.without_namespaces("user", &args).expect(3);
    ran.one_error(&["namespaces", "max_user_namespaces", "invarlock doctor"]);
    assert!(!case.place.work("reports/eval").exists());
    let doctor = case.place.without_namespaces("user", &["doctor"]).expect(1);
    assert!(
        doctor.out.contains("MISSING") && doctor.out.contains("No space left on device"),
        "{}",
        doctor.out
    );
}
