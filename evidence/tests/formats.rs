//! The types of the formats against the schemas, and against evidence of real runs.

#![cfg(feature = "verify")]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::made::honest;
use common::{context, context_of, synthetic};
use invarlock_evidence::compare::compare;
use invarlock_evidence::format::evaluation_report::EvaluationReport;
use invarlock_evidence::format::runtime_manifest::{Context, RuntimeManifest};
use invarlock_evidence::format::to_value;
use invarlock_evidence::guards;
use invarlock_evidence::manifest::{self, Config, ExecutionMode, ManifestInput};
use invarlock_evidence::policy::{Profile, Tier};
use serde_json::{Value, json};
use std::path::Path;

fn schema(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A report with every optional member.
fn report() -> EvaluationReport {
    let mut subject = synthetic(3, 0.0);
    let mut baseline = synthetic(3, 0.0);
    for run in [&mut subject, &mut baseline] {
        for name in ["latency_ms_per_tok", "throughput_tok_per_s", "memory_mb_peak"] {
            run.metrics.more.insert(name.to_owned(), json!(1.5));
        }
    }
    subject.provenance.provider_digest.insert("masking_sha256".to_owned(), json!("ab"));
    compare(&baseline, &subject, &context(Profile::Dev, Tier::Balanced)).unwrap()
}

fn runtime_manifest(report: &Value, user: &str) -> RuntimeManifest {
    manifest::build(ManifestInput {
        generated_at_utc: "2026-11-22T08:20:05.266460+00:00".to_owned(),
        report_path: "/x/evaluation.report.json".to_owned(),
        report_filename: "evaluation.report.json".to_owned(),
        report_sha256: "ab".repeat(32),
        config: Config::Missing,
        execution_mode: ExecutionMode::Container,
        image_ref: "invarlock-runtime:local".to_owned(),
        image_digest: Some(format!("sha256:{}", "ab".repeat(32))),
        allow_network: false,
        allow_remote_code: false,
        allow_third_party_plugins: false,
        context: context_of(user, report).as_object().unwrap().clone(),
    })
}

/// Paths of the properties that a schema names.
fn properties(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        properties(property, &path, found);
        found.push(path);
    }
}

#[test]
fn written_values_match_their_schemas() {
    let report = to_value(&report());
    let manifest = to_value(&runtime_manifest(&report, "root"));
    for (name, value) in
        [("evaluation-report.schema.json", &report), ("runtime-manifest.schema.json", &manifest)]
    {
        let validator = jsonschema::validator_for(&schema(name)).unwrap();
        let faults: Vec<String> = validator.iter_errors(value).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
    }
}

/// Properties of the report's schema that only upstream writes, or that this version has no value for.
const UPSTREAM: [&str; 21] = [
    "/plugins/adapters",
    "/plugins/edits",
    "/plugins/guards",
    "/primary_metric/counts_source",
    "/primary_metric/estimated",
    "/primary_metric_tail/reason",
    "/validation/guard_overhead_acceptable",
    "/validation/guard_warning_policy_acceptable",
    "/validation/guard_warnings_present",
    "/validation/hysteresis_applied",
    "/validation/moe_identity_ok",
    "/validation/moe_observed",
    "/validation/preview_final_drift_acceptable",
    "/validation/primary_metric_tail_acceptable",
    "/validation/rmt_stable",
    "/validation/spectral_stable",
    "/rmt/mode",
    "/rmt/measurement_contract_hash",
    "/guard_warnings/present",
    "/guard_warnings/warning_count",
    "/guard_warnings/warnings",
];

#[test]
fn every_property_of_the_schemas_is_a_field() {
    let report = to_value(&report());
    let manifest = to_value(&runtime_manifest(&report, "root"));
    for (name, value) in
        [("evaluation-report.schema.json", &report), ("runtime-manifest.schema.json", &manifest)]
    {
        let mut paths = Vec::new();
        properties(&schema(name), "", &mut paths);
        for path in paths {
            let upstream = UPSTREAM.contains(&path.as_str()) || path == "/guard_warnings";
            assert!(upstream != value.pointer(&path).is_some(), "{name}{path}");
        }
    }
}

#[test]
fn every_flag_of_a_guard_is_in_the_schema() {
    let flags = &schema("evaluation-report.schema.json")["properties"]["validation"]["properties"];
    for gate in guards::TABLE.iter().filter_map(|guard| guard.gate.as_ref()) {
        assert!(flags.get(gate.flag).is_some(), "{}", gate.flag);
    }
}

#[test]
fn written_values_are_read_back_without_loss() {
    let report = report();
    let value = to_value(&report);
    assert_eq!(to_value(&serde_json::from_value::<EvaluationReport>(value.clone()).unwrap()), value);
    let manifest = to_value(&runtime_manifest(&value, "root"));
    assert_eq!(to_value(&serde_json::from_value::<RuntimeManifest>(manifest.clone()).unwrap()), manifest);
    let block = Value::Object(report.invariants);
    let typed: guards::invariants::Block = serde_json::from_value(block.clone()).unwrap();
    assert_eq!(to_value(&typed), block);
}

#[test]
fn plan_and_observations_of_real_runs_are_read_without_loss() {
    for user in ["root", "user"] {
        let manifest = std::fs::read(honest(user).join("runtime.manifest.json")).unwrap();
        let recorded = serde_json::from_slice::<Value>(&manifest).unwrap()["context"].take();
        let context: Context =
            serde_json::from_value(recorded.clone()).unwrap_or_else(|e| panic!("{user}: {e}"));
        assert_eq!(to_value(&context), recorded, "{user}");
    }
}
