//! Commands that verify the evidence, and the programs that made it.

use super::text::DASH;
use super::{Fact, at, first, text};
use crate::beside::Beside;
use crate::policy::Profile;
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(super) struct Command {
    pub(super) what: &'static str,
    pub(super) line: String,
}

/// The command lines that verify the evidence.
///
/// The name of the report's file is used only if a shell reads it as one plain word, because users copy these lines.
pub(super) fn commands(report: &Value, manifest: &Value) -> Vec<Command> {
    let harmless = |name: &&str| {
        !name.is_empty()
            && name.len() <= 60
            && !name.starts_with(['-', '.'])
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let file = at(manifest, "report.filename").as_str().filter(harmless).unwrap_or("evaluation.report.json");
    let host = at(manifest, "execution_mode") == "host-bypass";
    // The name of a known profile, never text of the report.
    let profile = profile(report).unwrap_or(Profile::Ci);
    let mut lines = vec![Command {
        what: "The report, its gates and its manifest",
        line: format!("invarlock verify --profile {profile} {file}"),
    }];
    if host {
        lines.push(Command {
            what: "The same, accepting host execution",
            line: format!("invarlock verify --profile {profile} --runtime-provenance host {file}"),
        });
    } else {
        lines.push(Command {
            what: "The image is the one you trust (replace DIGEST by its digest from a source of your own)",
            line: format!(
                "invarlock advanced runtime-verify --report {file} --manifest runtime.manifest.json --expected-runtime-image-digest sha256:DIGEST"
            ),
        });
    }
    lines
}

fn profile(report: &Value) -> Option<Profile> {
    first(report, &["context.profile", "meta.profile"]).parse().ok()
}

pub(super) fn verify_notes(report: &Value, beside: Beside<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let manifest = beside.manifest().unwrap_or(&Value::Null);
    if let Some(fault) = beside.fault() {
        notes.push(format!("{fault}, so verification fails."));
    } else if !manifest.is_object() {
        notes.push("The runtime manifest beside this report cannot be read, so verification fails.".into());
    } else if at(manifest, "execution_mode") == "host-bypass" {
        notes.push("This was measured on the host, without isolation, so the first command fails.".into());
    }
    if let Some(profile) = profile(report).filter(|profile| !profile.gated()) {
        notes.push(
            format!(
                "This was measured with the {profile} profile, which decides on the ratio and the invariants alone; \
                 with --profile ci, verification requires more and may fail."
            ),
        );
    }
    notes
}

pub(super) fn measured_at(report: &Value, manifest: &Value) -> String {
    let finished = first(manifest, &["context.finished_at_utc"]);
    if finished != DASH { finished } else { first(report, &["meta.ts", "artifacts.generated_at"]) }
}

pub(super) fn footer(report: &Value, manifest: &Value) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("Report schema", text::string(at(report, "schema_version"))),
        Fact::new("Manifest contract", text::string(at(manifest, "verifier_contract_version"))),
        Fact::new("Launcher", first(manifest, &["context.launcher.version"])),
        Fact::new("Evaluator", first(report, &["meta.evaluator_version", "meta.invarlock_version"])),
        Fact::new("Page made by", concat!("invarlock ", env!("CARGO_PKG_VERSION"))),
        Fact::new("Started", first(manifest, &["context.started_at_utc"])),
        Fact::new("Finished", first(manifest, &["context.finished_at_utc"])),
        Fact::new("Report written", first(report, &["artifacts.generated_at", "meta.ts"])),
        Fact::new("Manifest written", text::string(at(manifest, "generated_at_utc"))),
    ];
    facts.retain(|f| f.value != DASH);
    facts
}
