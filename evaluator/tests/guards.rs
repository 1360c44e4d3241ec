//! The guards on the checkpoints of the golden cases, and on copies that this test changes: what each guard sees, and what it lets pass.
//! With `--nocapture`, prints the table of docs/guards.md.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "tests")]

#[path = "common/changed.rs"]
mod changed;
mod common;

use changed::Changed;
use common::{baseline, extract, run, subject};
use invarlock_evidence::compare::{CompareContext, compare};
use invarlock_evidence::format::guard_request::{GuardMode, GuardRequest};
use invarlock_evidence::format::tiers::TierLimits;
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::run_report::RunReport;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Windows of an arm.
const WINDOWS: usize = 16;

/// The names of a model's parts.
struct Names {
    model: &'static str,
    dataset: &'static str,
    /// Prefixes of the tensors of both layers.
    layers: [&'static str; 2],
    /// A weight of the feed-forward module of the second layer, and one of its attention.
    feed_forward: &'static str,
    attention: &'static str,
    /// The weight of a normalisation.
    norm: &'static str,
    /// The configuration's epsilon of normalisations.
    epsilon: &'static str,
}

const MODELS: [Names; 3] = [
    Names {
        model: "gpt2-tiny",
        dataset: "valid.jsonl",
        layers: ["transformer.h.0.", "transformer.h.1."],
        feed_forward: "transformer.h.1.mlp.c_fc.weight",
        attention: "transformer.h.1.attn.c_attn.weight",
        norm: "transformer.h.1.ln_2.weight",
        epsilon: "layer_norm_epsilon",
    },
    Names {
        model: "llama-tiny",
        dataset: "valid.jsonl",
        layers: ["model.layers.0.", "model.layers.1."],
        feed_forward: "model.layers.1.mlp.up_proj.weight",
        attention: "model.layers.1.self_attn.q_proj.weight",
        norm: "model.layers.1.post_attention_layernorm.weight",
        epsilon: "rms_norm_eps",
    },
    Names {
        model: "bert-tiny",
        dataset: "valid_mlm.jsonl",
        layers: ["bert.encoder.layer.0.", "bert.encoder.layer.1."],
        feed_forward: "bert.encoder.layer.1.intermediate.dense.weight",
        attention: "bert.encoder.layer.1.attention.self.query.weight",
        norm: "bert.encoder.layer.1.output.LayerNorm.weight",
        epsilon: "layer_norm_eps",
    },
];

/// What the invariants, spectral and RMT guards say of a subject.
type Verdicts = [bool; 3];

/// A subject, measured and judged in both modes of the guards.
struct Judged {
    /// Compared with the baseline.
    compared: Value,
    /// Compared with itself, as InvarLock 0.12.1 does.
    upstream: Value,
}

/// The modes of the guards.
const MODES: [GuardMode; 2] = [GuardMode::Compare, GuardMode::Upstream];

/// All pass.
const PASS: Verdicts = [true; 3];

/// A change of a checkpoint.
type Change = fn(&mut Changed, &Names);

/// Changes that are honest: every guard passes.
const HONEST: [(&str, Change); 6] = [
    ("no change", |_, _| ()),
    ("8 bits, a scale for each row", |copy, _| round(copy, 8)),
    ("4 bits, a scale for each row", |copy, _| round(copy, 4)),
    ("10 % pruned by magnitude", |copy, _| prune(copy, 0.1)),
    ("50 % pruned by magnitude", |copy, _| prune(copy, 0.5)),
    ("bfloat16", |copy, _| {
        each_matrix(copy, |values, _| {
            values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits() & 0xffff_0000));
        });
    }),
];

/// Changes that a guard must see.
const DAMAGED: [(&str, Change); 8] = [
    ("one layer scaled by 2.5", |copy, names| {
        for name in matrices(copy).into_iter().filter(|name| name.starts_with(names.layers[1])) {
            values(copy, &name, |values, _| values.iter_mut().for_each(|v| *v *= 2.5));
        }
    }),
    ("one matrix collapsed to rank 1", |copy, names| {
        values(copy, names.feed_forward, |values, shape| {
            let first = values[..shape[1]].to_vec();
            values.chunks_exact_mut(shape[1]).for_each(|row| row.copy_from_slice(&first));
        });
    }),
    ("one matrix of zeros", |copy, names| values(copy, names.feed_forward, |values, _| values.fill(0.0))),
    ("the elements of one matrix shuffled", |copy, names| {
        values(copy, names.feed_forward, |values, _| shuffle(values))
    }),
    ("the rows of one matrix reversed", |copy, names| {
        values(copy, names.attention, |values, shape| {
            let rows: Vec<f32> = values.chunks_exact(shape[1]).rev().flatten().copied().collect();
            *values = rows;
        });
    }),
    ("the weights of a normalisation tripled", |copy, names| {
        values(copy, names.norm, |values, _| values.iter_mut().for_each(|v| *v *= 3.0));
    }),
    ("both layers swapped", |copy, names| {
        let [first, second] = names.layers;
        let tensors = std::mem::take(&mut copy.tensors);
        let swapped = |name: String| match (name.strip_prefix(first), name.strip_prefix(second)) {
            (Some(rest), _) => format!("{second}{rest}"),
            (_, Some(rest)) => format!("{first}{rest}"),
            _ => name,
        };
        copy.tensors = tensors.into_iter().map(|(name, tensor)| (swapped(name), tensor)).collect();
    }),
    ("an epsilon of 1 in the configuration", |copy, names| copy.config[names.epsilon] = json!(1.0)),
];

/// Changes the elements of a tensor of single precision. `change` gets its shape as well.
fn values(copy: &mut Changed, name: &str, change: impl FnOnce(&mut Vec<f32>, &[usize])) {
    let (_, shape, bytes) = copy.tensors.get_mut(name).unwrap();
    let mut elements = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    change(&mut elements, shape);
    *bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
}

/// The matrices but for embeddings.
fn matrices(copy: &Changed) -> Vec<String> {
    let is_matrix = |name: &&String| {
        copy.tensors[*name].1.len() == 2
            && !["wte", "wpe", "embed", "lm_head"].iter().any(|part| name.contains(part))
    };
    copy.tensors.keys().filter(is_matrix).cloned().collect()
}

fn each_matrix(copy: &mut Changed, change: impl Fn(&mut Vec<f32>, &[usize])) {
    for name in matrices(copy) {
        values(copy, &name, &change);
    }
}

/// Rounds each row to integers of some bits.
fn round(copy: &mut Changed, bits: u32) {
    let most = f32::from((1u16 << (bits - 1)) - 1);
    each_matrix(copy, |values, shape| {
        for row in values.chunks_exact_mut(shape[1]) {
            let scale = row.iter().fold(0f32, |largest, v| largest.max(v.abs())) / most;
            row.iter_mut().for_each(|v| *v = (*v / scale).round() * scale);
        }
    });
}

/// Sets the smallest elements of each matrix to 0.
fn prune(copy: &mut Changed, share: f64) {
    each_matrix(copy, |values, _| {
        let mut sizes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
        sizes.sort_unstable_by(f32::total_cmp);
        let least = sizes[(share * sizes.len() as f64) as usize];
        values.iter_mut().filter(|v| v.abs() < least).for_each(|v| *v = 0.0);
    });
}

/// Puts elements into another order.
fn shuffle(values: &mut [f32]) {
    let mut state = 1u64;
    for i in (1..values.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        values.swap(i, (state >> 33) as usize % (i + 1));
    }
}

/// The fixtures, and the measured baselines.
struct Measured {
    directory: tempfile::TempDir,
}

impl Measured {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        extract("inputs.tar.zst", directory.path());
        extract("inputs-mlm.tar.zst", directory.path());
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The reports of a model, measured in each mode.
    fn baseline(&self, names: &Names) -> [Value; 2] {
        let checkpoint = self.path("models").join(names.model);
        let job = baseline(&checkpoint, &self.path(names.dataset), 128, WINDOWS);
        MODES.map(|mode| self.measured(job.clone(), mode))
    }

    /// The report of a job in a mode of the guards.
    fn measured(&self, mut job: Value, mode: GuardMode) -> Value {
        job["guards"] = json!({"mode": mode});
        run(self.directory.path(), &job).report()
    }

    /// A changed copy of a model against its baseline.
    fn judged(&self, names: &Names, before: &[Value; 2], change: Change) -> Judged {
        let copy = self.path("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        let original = self.path("models").join(names.model);
        for file in fs::read_dir(&original).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        let mut changed = Changed::read(&original);
        change(&mut changed, names);
        changed.write(&copy);
        self.against(before, &copy)
    }

    fn against(&self, before: &[Value; 2], checkpoint: &Path) -> Judged {
        let read = |report: &Value| -> RunReport { serde_json::from_value(report.clone()).unwrap() };
        let [compared, upstream] = [0, 1].map(|index| {
            let (before, mode) = (&before[index], MODES[index]);
            let after = self.measured(subject(self.directory.path(), checkpoint, before), mode);
            let report = compare(&read(before), &read(&after), &context(mode)).unwrap();
            serde_json::to_value(report).unwrap()
        });
        // The guards of InvarLock pass every subject, because they compare it with itself.
        assert_eq!(verdicts(&upstream)[1..], PASS[1..]);
        Judged { compared, upstream }
    }
}

fn context(mode: GuardMode) -> CompareContext {
    CompareContext {
        profile: Profile::Dev,
        limits: TierLimits::default(),
        tier: Tier::Balanced,
        guards: GuardRequest { mode, calibration: None },
        baseline_model_id: "baseline".to_owned(),
        subject_model_id: "subject".to_owned(),
        baseline_checkpoint_sha256: None,
        subject_checkpoint_sha256: None,
        baseline_report_path: String::new(),
        subject_report_path: String::new(),
        baseline_report_sha256: String::new(),
        subject_report_sha256: String::new(),
        execution_mode: ExecutionMode::Container,
        generated_at: "2026-11-29T07:00:00+00:00".to_owned(),
        bootstrap_seed: 0,
        requested_windows: (WINDOWS, WINDOWS),
        edit_label: None,
        events_path: String::new(),
        warnings: Vec::new(),
    }
}

fn verdicts(report: &Value) -> Verdicts {
    ["invariants", "spectral", "rmt"].map(|guard| {
        assert_eq!(report[guard]["evaluated"], true, "{guard}");
        report[guard]["passed"].as_bool().unwrap()
    })
}

/// A row of the table in docs/guards.md.
fn row(model: &str, change: &str, judged: &Judged) -> String {
    let report = &judged.compared;
    let number =
        |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"));
    let word = |passed| if passed { "pass" } else { "**fail**" };
    let [_, spectral, rmt] = verdicts(&judged.upstream).map(word);
    let summary = &report["spectral"]["summary"];
    format!(
        "| {model} | {change} | {} | {} | {} | {} | {} | {spectral} | {rmt} |",
        number(&report["primary_metric"]["ratio_vs_baseline"]),
        number(&summary["max_sigma_ratio"]),
        number(&summary["min_correlation"]),
        number(&report["rmt"]["max_edge_ratio"]),
        verdicts(report).map(word).join(" | ")
    )
}

#[test]
fn honest_subjects_pass_and_damaged_ones_do_not() {
    let measured = Measured::new();
    for names in MODELS {
        let before = measured.baseline(&names);
        for (change, apply) in HONEST {
            let judged = measured.judged(&names, &before, apply);
            println!("{}", row(names.model, change, &judged));
            assert_eq!(verdicts(&judged.compared), PASS, "{}: {change}", names.model);
            assert_eq!(judged.compared["variance"]["passed"], true);
        }
        for (change, apply) in DAMAGED {
            let judged = measured.judged(&names, &before, apply);
            println!("{}", row(names.model, change, &judged));
            let found = verdicts(&judged.compared);
            assert_ne!(found, PASS, "{}: {change}", names.model);
            match change {
                // Only activations show it.
                "an epsilon of 1 in the configuration" => {
                    assert_eq!(found, [true, true, false], "{}", names.model)
                }
                // Only weights show it: a normalisation after the last module adds to nothing.
                "the weights of a normalisation tripled" => {
                    assert_eq!(found, [true, false, true], "{}", names.model)
                }
                _ => assert!(!found[1], "{}: {change}", names.model),
            }
        }
    }
}

/// A subject whose output projection is its embedding, though that of the baseline is not.
#[test]
fn head_that_is_the_embedding_is_seen() {
    let measured = Measured::new();
    let names = &MODELS[1];
    let before = measured.baseline(names);
    for tied in [false, true] {
        let change: Change = match tied {
            false => |copy, _| {
                let embedding = copy.tensors["model.embed_tokens.weight"].clone();
                copy.tensors.insert("lm_head.weight".to_owned(), embedding);
            },
            true => |copy, _| {
                copy.config["tie_word_embeddings"] = json!(true);
                copy.tensors.remove("lm_head.weight");
            },
        };
        let judged = measured.judged(names, &before, change);
        println!("{}", row(names.model, "head tied to the embedding", &judged));
        let violation = &judged.compared["spectral"]["violations"][0];
        assert_eq!((&violation["module"], &violation["severity"]), (&json!("lm_head"), &json!("fatal")));
    }
}

/// Fewer positions than the baseline has, which no window needs: only the structure shows it.
#[test]
fn only_the_invariants_fail_fewer_positions() {
    let measured = Measured::new();
    let names = &MODELS[0];
    let before = measured.baseline(names);
    let judged = measured.judged(names, &before, |copy, _| {
        copy.config["n_positions"] = json!(384);
        let (_, shape, bytes) = copy.tensors.get_mut("transformer.wpe.weight").unwrap();
        bytes.truncate(bytes.len() / shape[0] * 384);
        shape[0] = 384;
    });
    println!("{}", row(names.model, "384 of 512 positions", &judged));
    assert_eq!(verdicts(&judged.compared), [false, true, true]);
    let violations = judged.compared["spectral"]["violations"].as_array().unwrap();
    let kinds: Vec<_> =
        violations.iter().map(|violation| (&violation["type"], &violation["severity"])).collect();
    assert_eq!(kinds, [(&json!("shape"), &json!("budgeted"))]);
}

/// The statistics have the same bits for each number of threads, and name each module once.
#[test]
fn statistics_do_not_depend_on_threads() {
    let measured = Measured::new();
    for names in MODELS {
        let checkpoint = measured.path("models").join(names.model);
        let guards = |threads: usize| {
            let mut job = baseline(&checkpoint, &measured.path(names.dataset), 128, WINDOWS);
            job["threads"] = json!(threads);
            run(measured.directory.path(), &job).report()["guards"].clone()
        };
        let one = guards(1);
        assert_eq!(one, guards(3));
        for (guard, path) in [(1, "/details/modules"), (2, "/details/activations/modules")] {
            let modules = one[guard].pointer(path).and_then(Value::as_array).unwrap();
            let names: std::collections::BTreeSet<_> = modules.iter().map(|m| m["module"].as_str()).collect();
            assert_eq!(names.len(), modules.len());
        }
    }
}
