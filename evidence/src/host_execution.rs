//! Host execution: the one sentence that every output of such a run shows, in the terminal, in JSON and on the HTML page.

use crate::format::untrusted::Node;
use crate::manifest::ExecutionMode;
use serde_json::Value;

/// Name of the exception in manifests.
pub const ALLOWANCE: &str = "allow_host_execution";

/// Largest number of characters of a recorded flag or variable.
const SHOWN: usize = 64;

/// The sentence. `allowed_by` is the flag or variable that allowed host execution, if it is known.
pub fn sentence(allowed_by: Option<&str>) -> String {
    let allowed = match allowed_by {
        Some(source) => format!("allowed by {}", source.chars().take(SHOWN).collect::<String>()),
        None => "it is not recorded what allowed this".to_owned(),
    };
    format!("HOST EXECUTION: this run was not isolated in a container ({allowed})")
}

/// The sentence if the report or its manifest records host execution. Both are untrusted: one statement is enough. The sentence can
/// contain control characters of the manifest.
pub fn recorded(report: &Value, manifest: Option<&Value>) -> Option<String> {
    let nothing = Value::Null;
    let manifest = Node::root("", manifest.unwrap_or(&nothing));
    let by = manifest.at("context.allowances.granted_by").get(ALLOWANCE).str();
    (in_manifest(manifest) || in_report(Node::root("", report))).then(|| sentence(by))
}

fn in_manifest(manifest: Node<'_>) -> bool {
    manifest.get("execution_mode").str() == Some(ExecutionMode::HostBypass.as_str())
        || manifest.at("runtime.container_execution").bool() == Some(false)
        || manifest.at("context.allowances.host_execution").bool() == Some(true)
}

fn in_report(report: Node<'_>) -> bool {
    let host = ExecutionMode::HostBypass.report_name();
    ["context.runtime.execution_mode", "assurance.runtime_provenance_declared"]
        .into_iter()
        .any(|path| report.at(path).str() == Some(host))
}

#[cfg(test)]
mod tests {
    use super::{recorded, sentence};
    use serde_json::{Value, json};

    #[test]
    fn one_statement_of_report_or_manifest_is_enough() {
        let container = json!({"execution_mode": "container", "runtime": {"container_execution": true}});
        assert_eq!(recorded(&json!({}), Some(&container)), None);
        assert_eq!(recorded(&json!({}), None), None);
        let unknown = Some(sentence(None));
        for manifest in [
            json!({"execution_mode": "host-bypass"}),
            json!({"execution_mode": "container", "runtime": {"container_execution": false}}),
            json!({"execution_mode": "container", "context": {"allowances": {"host_execution": true}}}),
        ] {
            assert_eq!(recorded(&Value::Null, Some(&manifest)), unknown, "{manifest}");
        }
        let report = json!({"context": {"runtime": {"execution_mode": "host"}}});
        assert_eq!(recorded(&report, None), unknown);
        assert_eq!(recorded(&report, Some(&container)), unknown);
    }

    #[test]
    fn names_what_allowed_it_and_bounds_its_length() {
        let by = |source: &str| {
            let granted = json!({"allow_host_execution": source});
            let manifest =
                json!({"execution_mode": "host-bypass", "context": {"allowances": {"granted_by": granted}}});
            recorded(&Value::Null, Some(&manifest)).unwrap_or_default()
        };
        assert_eq!(
            by("INVARLOCK_ALLOW_HOST_EXECUTION"),
            "HOST EXECUTION: this run was not isolated in a container (allowed by INVARLOCK_ALLOW_HOST_EXECUTION)"
        );
        assert!(by(&"x".repeat(1000)).len() < 200);
    }
}
