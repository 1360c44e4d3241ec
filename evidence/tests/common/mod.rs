//! Helpers of the integration tests: synthetic run reports, golden reports of upstream, upstream's verifiers.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr, missing_docs)]

pub mod made;

#[allow(unused_imports, reason = "not every test program uses it")]
pub use made::Made;

use invarlock_evidence::Error;
use invarlock_evidence::compare::{CompareContext, compare};
use invarlock_evidence::format::tiers::TierLimits;
use invarlock_evidence::format::to_value;
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::run_report::RunReport;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Reports that part of a test did not run, and why.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}

/// The golden reports of upstream (`<version>/<case>`), which no test changes. They are 340 MB, and every test is a
/// process of its own: the first one extracts them below the target directory, for this version of the archives.
pub fn golden() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/upstream");
        let archives = ["0.8.0", "0.12.1"]
            .map(|version| std::fs::read(fixtures.join(format!("reports-{version}.tar.zst"))).unwrap());
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let root = shared.join(format!("golden-{}", sha256_hex(&archives.concat())));
        if root.is_dir() {
            return root;
        }
        let unfinished = tempfile::tempdir_in(shared).unwrap();
        for archive in archives {
            let mut decoder = zstd::Decoder::new(archive.as_slice()).unwrap();
            decoder.window_log_max(27).unwrap();
            tar::Archive::new(decoder).unpack(unfinished.path()).unwrap();
        }
        // A test that finished first leaves nothing to do: a directory with files is not replaced.
        match std::fs::rename(unfinished.path(), &root) {
            Ok(()) => drop(unfinished.keep()),
            Err(error) => assert!(root.is_dir(), "{}: {error}", root.display()),
        }
        root
    })
}

/// Upstream's `invarlock`, if `tests/tools/upstream-venvs.sh` installed it.
pub fn upstream(version: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    target
        .into_iter()
        .chain([own])
        .map(|root| root.join("upstream").join(version).join("bin/invarlock"))
        .find(|program| program.is_file())
}

/// A golden run report. Upstream writes a bare NaN for a missing ratio, which is not JSON.
pub fn golden_run(path: &Path) -> RunReport {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text.replace(": NaN", ": null")).unwrap()
}

/// The context of a ci comparison of the run reports in `folder`.
pub fn golden_context(folder: &Path) -> CompareContext {
    let digest = |name: &str| sha256_hex(&std::fs::read(folder.join(name)).unwrap());
    let mut context = context(Profile::Ci, Tier::Balanced);
    context.baseline_report_sha256 = digest("source.report.json");
    context.subject_report_sha256 = digest("edited.report.json");
    context.bootstrap_seed = 43;
    context.requested_windows = (240, 240);
    context
}

/// A comparison as readers see it.
pub fn compare_as_json(
    baseline: &RunReport,
    subject: &RunReport,
    context: &CompareContext,
) -> Result<Value, Error> {
    compare(baseline, subject, context).map(|report| to_value(&report))
}

/// The comparison of a golden case by this program.
pub fn compare_golden(folder: &Path) -> Value {
    let baseline = golden_run(&folder.join("source.report.json"));
    let subject = golden_run(&folder.join("edited.report.json"));
    to_value(&compare(&baseline, &subject, &golden_context(folder)).unwrap())
}

/// The context of an ordinary comparison.
pub fn context(profile: Profile, tier: Tier) -> CompareContext {
    CompareContext {
        profile,
        tier,
        limits: TierLimits::default(),
        guards: Default::default(),
        baseline_model_id: "models/base".to_owned(),
        subject_model_id: "models/subject".to_owned(),
        baseline_checkpoint_sha256: Some("aa".repeat(32)),
        subject_checkpoint_sha256: Some("bb".repeat(32)),
        baseline_report_path: "runs/source/report.json".to_owned(),
        subject_report_path: "runs/edited/report.json".to_owned(),
        baseline_report_sha256: "cc".repeat(32),
        subject_report_sha256: "dd".repeat(32),
        execution_mode: ExecutionMode::Container,
        generated_at: "2026-11-22T08:20:05.266460+00:00".to_owned(),
        bootstrap_seed: 7,
        requested_windows: (180, 180),
        edit_label: None,
        events_path: String::new(),
        warnings: Vec::new(),
    }
}

/// A run report of `n + n` windows of 160 tokens with losses around 3, `shift` above the baseline's.
pub fn synthetic(n: usize, shift: f64) -> RunReport {
    let seq_len = 160;
    let arm = |first: usize| {
        let ids: Vec<usize> = (first..first + n).collect();
        let input: Vec<Vec<usize>> =
            ids.iter().map(|id| (0..seq_len).map(|j| (id * 31 + j * 7 + id * j) % 2048).collect()).collect();
        let real = |id: usize| if id.is_multiple_of(5) { seq_len - 10 } else { seq_len };
        let masks: Vec<Vec<u8>> =
            ids.iter().map(|id| (0..seq_len).map(|j| u8::from(j < real(*id))).collect()).collect();
        let counts: Vec<usize> = ids.iter().map(|id| real(*id)).collect();
        let losses: Vec<f64> = ids
            .iter()
            .map(|id| {
                let wave = (*id % n) as f64;
                3.0 + 0.3 * (wave * 0.7).sin() + shift * (1.0 + 0.5 * (wave * 1.3).cos())
            })
            .collect();
        json!({
            "window_ids": ids, "logloss": losses, "input_ids": input, "attention_masks": masks,
            "token_counts": counts, "masked_token_counts": counts, "actual_token_counts": counts,
        })
    };
    let (preview, last) = (arm(0), arm(n));
    let total = |arm: &Value| {
        arm["token_counts"].as_array().unwrap().iter().map(|c| c.as_u64().unwrap()).sum::<u64>()
    };
    let report = json!({
        "meta": {
            "model_id": "/in/checkpoint", "adapter": "hf_causal", "device": "cpu", "seed": 7,
            "ts": "2026-11-22T08:00:00+00:00", "tokenizer_hash": "0123456789abcdef0123456789abcdef",
            "model_profile": {
                "family": "gpt2", "default_loss": "causal",
                "cert_lints": [{"type": "equals", "path": "primary_metric.kind", "value": "ppl_causal", "message": "m"}],
            },
        },
        "data": {
            "dataset": "local_jsonl", "split": "validation", "seq_len": seq_len, "stride": seq_len,
            "preview_n": n, "final_n": n, "preview_total_tokens": total(&preview), "final_total_tokens": total(&last),
        },
        "edit": {"name": "noop"},
        "guards": [{
            "name": "invariants", "passed": true, "decision": "allow",
            "details": {"checks": {
                "parameter_count": 1000, "layer_norm_paths": ["ln_f"], "embedding_vocab_sizes": {"wte": 2048},
                "config_vocab_size": 2048, "weight_tying": true, "structure_hash": "0123456789abcdef", "non_finite": [],
            }},
        }],
        "metrics": {"primary_metric": {"kind": "ppl_causal", "preview": null, "final": null}},
        "artifacts": {}, "flags": {}, "provenance": {},
        "evaluation_windows": {"preview": preview, "final": last},
    });
    serde_json::from_value(report).unwrap()
}

/// The context of a launcher's manifest for `report`: that of a real run by root, with the digests of this report.
pub fn launcher_context(report: &Value) -> Value {
    context_of("root", report)
}

/// The same for a run by `root` or by an ordinary `user`. A whole-program test checks that current runs record
/// the same.
pub fn context_of(user: &str, report: &Value) -> Value {
    let manifest = std::fs::read(made::honest(user).join("runtime.manifest.json")).unwrap();
    let mut context: Value = serde_json::from_slice::<Value>(&manifest).unwrap()["context"].take();
    context["ä"] = json!("ö");
    for (side, named) in [("baseline", "baseline"), ("subject", "edited")] {
        let known = &report["provenance"][named];
        let measured = &mut context["sides"][side];
        measured["checkpoint"]["tree_sha256"] = known["checkpoint_sha256"].clone();
        // The first output is the log of events.
        assert_eq!(measured["outputs"][1]["name"], "report.json");
        measured["outputs"][1]["sha256"] = known["report_sha256"].clone();
        context["plan"]["content"]["sides"][side]["checkpoint"]["tree_sha256"] =
            known["checkpoint_sha256"].clone();
    }
    let plan = &mut context["plan"]["content"];
    plan["profile"] = report["context"]["profile"].clone();
    plan["tier"] = report["auto"]["tier"].clone();
    plan["image"]["manifest_digest"] = json!(format!("sha256:{}", "ab".repeat(32)));
    reseal(&mut context);
    context
}

/// Updates the digest of a changed plan.
pub fn reseal(context: &mut Value) {
    use invarlock_evidence::numerics::digest::canonical_json;
    let plan = canonical_json(&context["plan"]["content"]);
    context["plan"]["digest"] = json!(format!("sha256:{}", sha256_hex(plan.as_bytes())));
}
