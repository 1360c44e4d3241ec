//! The JSON schemas of report and manifest, compiled once.

use super::UpstreamVersion;
use jsonschema::Validator;
use serde_json::Value;
use std::sync::OnceLock;

const REPORT: &str = include_str!("../../schemas/evaluation-report.schema.json");
const MANIFEST: &str = include_str!("../../schemas/runtime-manifest.schema.json");

/// The faults of a report by the schema of a version; empty if it is valid.
pub(super) fn report_faults(report: &Value, version: UpstreamVersion) -> Vec<String> {
    static NEW: OnceLock<Validator> = OnceLock::new();
    static OLD: OnceLock<Validator> = OnceLock::new();
    let validator = match version {
        UpstreamVersion::V0_12 => NEW.get_or_init(|| compile(REPORT, |_| ())),
        UpstreamVersion::V0_8 => OLD.get_or_init(|| {
            compile(REPORT, |schema| {
                if let Some(properties) = schema["properties"].as_object_mut() {
                    properties.remove("guard_warnings");
                    if let Some(flags) = properties["validation"]["properties"].as_object_mut() {
                        flags.retain(|name, _| !name.starts_with("guard_warning"));
                    }
                }
            })
        }),
    };
    faults(validator, report)
}

/// The faults of a manifest by its schema; empty if it is valid.
pub(super) fn manifest_faults(manifest: &Value) -> Vec<String> {
    static SCHEMA: OnceLock<Validator> = OnceLock::new();
    faults(SCHEMA.get_or_init(|| compile(MANIFEST, |_| ())), manifest)
}

fn compile(text: &str, change: impl FnOnce(&mut Value)) -> Validator {
    let mut schema: Value = serde_json::from_str(text).unwrap_or_default();
    change(&mut schema);
    // The schemas are embedded; a test compiles both.
    #[allow(clippy::expect_used)]
    jsonschema::draft202012::new(&schema).expect("the embedded schema compiles")
}

fn faults(validator: &Validator, instance: &Value) -> Vec<String> {
    let shorten = |text: String| match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    };
    validator
        .iter_errors(instance)
        .take(8)
        .map(|fault| {
            let place = fault.instance_path().to_string();
            let place = if place.is_empty() { String::new() } else { format!(" (at {place})") };
            shorten(format!("{fault}{place}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_compile_and_reject() {
        assert!(!manifest_faults(&json!({})).is_empty());
        for version in [UpstreamVersion::V0_8, UpstreamVersion::V0_12] {
            assert!(!report_faults(&json!({"schema_version": "v2"}), version).is_empty());
        }
        let report = |flag: &str| {
            json!({
                "schema_version": "v1", "run_id": "x", "artifacts": {}, "plugins": {}, "meta": {},
                "dataset": {"provider": "p", "seq_len": 1, "windows": {"preview": 1, "final": 1, "stats": {}}},
                "primary_metric": {"kind": "ppl_causal"}, "validation": {flag: true},
            })
        };
        assert_eq!(report_faults(&report("guard_warnings_present"), UpstreamVersion::V0_12), [""; 0]);
        assert!(!report_faults(&report("guard_warnings_present"), UpstreamVersion::V0_8).is_empty());
        assert!(!report_faults(&report("overall_pass"), UpstreamVersion::V0_12).is_empty());
    }
}
