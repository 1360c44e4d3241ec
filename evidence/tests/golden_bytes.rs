//! The bytes of reports, manifests and pages made from fixed inputs stay the same.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden_bytes --all-features` writes the files anew; review the difference.

#![cfg(feature = "html")]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{context, context_of, synthetic};
use invarlock_evidence::compare::{self, CompareContext, compare};
use invarlock_evidence::format::to_value;
use invarlock_evidence::html::render;
use invarlock_evidence::manifest::{self, Config, ExecutionMode, ManifestInput};
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::run_report::RunReport;
use serde_json::{Value, json};
use std::path::Path;

/// One comparison: its name, its two sides and its settings.
type Case = (&'static str, RunReport, RunReport, CompareContext);

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let text = text
        .replace(&format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")), "\"version\":\"VERSION\"")
        .replace(&format!("invarlock {}", env!("CARGO_PKG_VERSION")), "invarlock VERSION");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let same = golden.bytes().zip(text.bytes()).take_while(|(one, other)| one == other).count();
    let around = |text: &str| {
        let bytes = text.as_bytes();
        String::from_utf8_lossy(&bytes[same.saturating_sub(80)..bytes.len().min(same + 80)]).into_owned()
    };
    assert!(golden == text, "{name} differs at byte {same}:\n{}\n{}", around(&golden), around(&text));
}

fn cases() -> Vec<Case> {
    let same = context(Profile::Dev, Tier::Balanced);
    let mut noop =
        CompareContext { tier: Tier::Aggressive, execution_mode: ExecutionMode::HostBypass, ..same.clone() };
    noop.subject_checkpoint_sha256 = noop.baseline_checkpoint_sha256.clone();
    let mut unknown = CompareContext { edit_label: Some("int8".into()), ..same.clone() };
    (unknown.baseline_checkpoint_sha256, unknown.subject_checkpoint_sha256) = (None, None);
    unknown.events_path = "runs/edited/events.jsonl".into();
    vec![
        ("dev", synthetic(3, 0.0), synthetic(3, 0.01), same.clone()),
        ("noop", synthetic(2, 0.0), synthetic(2, 0.0), noop),
        ("damaged", synthetic(3, 0.0), damaged(), unknown),
        ("no-checks", synthetic(2, 0.0), without_checks(), same),
    ]
}

/// A subject with everything that a report may hold and a sound one does not.
fn damaged() -> RunReport {
    let mut run = serde_json::to_value(synthetic(3, 0.9)).unwrap();
    run["guards"][0]["details"]["checks"]["config_vocab_size"] = json!(2049);
    run["guards"][0]["details"]["checks"]["layer_norm_paths"] = json!([]);
    run["guards"][0]["details"]["checks"]["embedding_vocab_sizes"] = json!({"wte": 2049, "wpe": 8});
    run["guards"][0]["details"]["checks"]["non_finite"] = json!(["parameter::h.0"]);
    run["guards"][0]["details"]["checks"]["weight_tying"] = json!(null);
    run["guards"][0]["violations"] =
        json!([{"type": "odd", "severity": "warning", "x": 1}, {"name": "y"}, 3]);
    run["meta"]["evaluator_version"] = json!("0.0.1");
    run["meta"]["env_flags"] = json!({"THREADS": "2"});
    run["meta"]["profile"] = json!("release");
    run["meta"]["commit"] = json!("0123456789abcdef0123");
    run["data"]["vocab_size"] = json!(2048);
    run["data"]["bos_token"] = json!("<s>");
    run["data"]["tokenizer_name"] = json!("models/base");
    run["metrics"]["latency_ms_per_tok"] = json!(0.5);
    run["metrics"]["throughput_tok_per_s"] = json!(2000);
    run["metrics"]["memory_mb_peak"] = json!(64.5);
    run["provenance"]["provider_digest"] = json!({"masking_sha256": "ab"});
    serde_json::from_value(run).unwrap()
}

fn without_checks() -> RunReport {
    let mut run = synthetic(2, 0.0);
    run.guards.clear();
    run
}

fn manifest_of(report: &Value, who: &str, name: &str) -> Value {
    let bytes = compare::to_bytes(report);
    let host = name == "noop";
    let (execution_mode, image_digest) = match host {
        true => (ExecutionMode::HostBypass, None),
        false => (ExecutionMode::Container, Some(format!("sha256:{}", "ab".repeat(32)))),
    };
    let config = match name {
        "dev" => Config::File { path: "/x/preset.yaml".into(), sha256: "12".repeat(32) },
        "noop" => Config::Missing,
        _ => Config::Inline(json!({"command": "evaluate", "profile": "ci"})),
    };
    to_value(&manifest::build(ManifestInput {
        generated_at_utc: "2026-11-22T08:20:05.266460+00:00".to_owned(),
        report_path: "/x/evaluation.report.json".to_owned(),
        report_filename: "evaluation.report.json".to_owned(),
        // The version of this crate is in the report.
        report_sha256: sha256_hex(&bytes[..64]),
        config,
        execution_mode,
        image_ref: if host { "host".into() } else { "registry.example/runtime:1".to_owned() },
        image_digest,
        allow_network: host,
        allow_remote_code: false,
        allow_third_party_plugins: false,
        context: context_of(who, report).as_object().unwrap().clone(),
    }))
}

#[test]
fn small_reports_manifests_and_pages_are_byte_identical() {
    for (name, baseline, subject, context) in cases() {
        let report = to_value(&compare(&baseline, &subject, &context).unwrap());
        let typed = compare(&baseline, &subject, &context).unwrap();
        check(&format!("{name}.report.json"), &compare::to_bytes(&typed));
        let who = if name == "damaged" { "user" } else { "root" };
        let manifest = manifest_of(&report, who, name);
        check(&format!("{name}.manifest.json"), &manifest::to_bytes(&manifest));
        check(&format!("{name}.html"), render(&report, Some(&manifest)).unwrap().as_bytes());
        check(&format!("{name}.alone.html"), render(&report, None).unwrap().as_bytes());
    }
}

#[test]
fn gated_reports_are_byte_identical() {
    let digests: Vec<String> = [(0.0, Tier::Balanced), (0.02, Tier::Conservative), (0.5, Tier::Aggressive)]
        .into_iter()
        .map(|(shift, tier)| {
            let report =
                compare(&synthetic(220, 0.0), &synthetic(220, shift), &context(Profile::Ci, tier)).unwrap();
            let text = String::from_utf8(compare::to_bytes(&report)).unwrap();
            let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
            sha256_hex(text.replace(&version, "\"version\":\"VERSION\"").as_bytes())
        })
        .collect();
    check("gated.sha256", (digests.join("\n") + "\n").as_bytes());
}

#[test]
fn lines_for_the_terminal_are_identical() {
    let mut text = String::new();
    for (name, baseline, subject, context) in cases() {
        let report = to_value(&compare(&baseline, &subject, &context).unwrap());
        text += &format!("{name}: {}\n", invarlock_evidence::gates::verdict_line(&report));
        for gate in invarlock_evidence::gates::gates(&report) {
            text += &format!("{} {:?} {}\n", gate.name, gate.passed, gate.detail);
        }
    }
    check("terminal.txt", text.as_bytes());
}
