//! The JSON Schemas in `docs/schemas` are those of the types, and real evidence is valid by them. `UPDATE_GOLDEN=1` writes them again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/published.rs"]
mod published;

use common::made::honest;
use invarlock_evidence::attestation::EvaluationResult;
use invarlock_evidence::events::Event;
use invarlock_evidence::format::check_report::CheckReport;
use invarlock_evidence::format::delegated::{DelegatedContext, DelegatedPlan};
use invarlock_evidence::format::evaluation_report::EvaluationReport;
use invarlock_evidence::format::plan::Plan;
use invarlock_evidence::format::run_report::{BaselineWindows, RunReport};
use invarlock_evidence::format::runtime_manifest::{Context, RuntimeManifest};
use invarlock_evidence::format::trust_profile::TrustProfile;
use invarlock_evidence::job::Job;
use invarlock_evidence::journal::Journal;
use invarlock_evidence::pack::{FinalVerdict, PackManifest, SignatureFile};
use invarlock_evidence::plan_lock::PlanLock;
use invarlock_evidence::receipt::VerificationSummary;
use invarlock_evidence::signing::dsse::EnvelopeFile;
use invarlock_evidence::signing::statement::Statement;
use schemars::{JsonSchema, schema_for};
use serde_json::Value;
use std::path::Path;

/// Name and schema of every format that this program writes. The number is that of the format's version.
fn schemas() -> Vec<(&'static str, Value)> {
    fn of<T: JsonSchema>() -> Value {
        serde_json::to_value(schema_for!(T)).unwrap()
    }
    vec![
        ("evaluation-report-v1", of::<EvaluationReport>()),
        ("runtime-manifest-v1", of::<RuntimeManifest>()),
        ("runtime-manifest-context-v2", of::<Context>()),
        ("plan-v2", of::<Plan>()),
        ("runtime-manifest-context-delegated-v1", of::<DelegatedContext>()),
        ("delegated-plan-v1", of::<DelegatedPlan>()),
        ("run-report-v1", of::<RunReport>()),
        ("job-v1", of::<Job>()),
        ("windows-v1", of::<BaselineWindows>()),
        ("journal-v1", of::<Journal>()),
        ("check-report-v1", of::<CheckReport>()),
        ("event-v1", of::<Event>()),
        ("evaluation-result-v1", of::<Statement<EvaluationResult>>()),
        ("plan-lock-v1", of::<Statement<PlanLock>>()),
        ("trust-profile-v1", of::<TrustProfile>()),
        ("receipt-v1", of::<Statement<VerificationSummary>>()),
        ("dsse-envelope-v1", of::<EnvelopeFile>()),
        ("evidence-pack-v1", of::<PackManifest>()),
        ("evidence-pack-signature-v1", of::<SignatureFile>()),
        ("final-verdict-v1", of::<FinalVerdict>()),
    ]
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    // The launcher's tests compare `output`.
    published::check(&folder, schemas(), &["README.md", "output"]);
}

/// Evidence that an earlier version wrote stays valid.
#[test]
fn real_evidence_is_valid() {
    let read = |user: &str, name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(honest(user).join(name)).unwrap()).unwrap()
    };
    for user in ["root", "user"] {
        let manifest = read(user, "runtime.manifest.json");
        let context = manifest["context"].clone();
        let plan = context["plan"]["content"].clone();
        for (name, document) in [
            ("evaluation-report-v1", read(user, "evaluation.report.json")),
            ("run-report-v1", read(user, "baseline.report.json")),
            ("run-report-v1", read(user, "subject.report.json")),
            ("runtime-manifest-v1", manifest),
            ("runtime-manifest-context-v2", context),
            ("plan-v2", plan),
        ] {
            let schema = schemas().into_iter().find(|(found, _)| *found == name).unwrap().1;
            let validator = jsonschema::validator_for(&schema).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&document).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{user} {name}: {errors:?}");
        }
    }
}
