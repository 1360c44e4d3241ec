//! `runtime.manifest.json` (`spec/manifest.md`): what ran, where, and which report came out.

use crate::numerics::digest::{canonical_json, sha256_hex, write_ascii_string};
use serde_json::{Map, Value, json};

/// Contract name every manifest carries.
pub const CONTRACT: &str = "runtime-manifest-v1";

/// Name of the file, always beside the report.
pub const FILE_NAME: &str = "runtime.manifest.json";

/// How the measuring was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionMode {
    /// Inside containers.
    Container,
    /// As children of the launcher, without a container.
    HostBypass,
}

impl ExecutionMode {
    /// The name in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            ExecutionMode::Container => "container",
            ExecutionMode::HostBypass => "host-bypass",
        }
    }

    /// The name in reports (`container` or `host`).
    pub fn report_name(self) -> &'static str {
        match self {
            ExecutionMode::Container => "container",
            ExecutionMode::HostBypass => "host",
        }
    }
}

/// Where the configuration came from.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// A file: its absolute path and the SHA-256 of its bytes, 64 hex digits.
    File {
        /// Absolute path.
        path: String,
        /// SHA-256, hex.
        sha256: String,
    },
    /// A value; digested as canonical JSON.
    Inline(Value),
    /// None.
    Missing,
}

/// Everything a manifest states.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestInput {
    /// UTC, ISO-8601 with microseconds and `+00:00`.
    pub generated_at_utc: String,
    /// Absolute path of the report.
    pub report_path: String,
    /// File name of the report.
    pub report_filename: String,
    /// SHA-256 of the report's bytes, 64 hex digits.
    pub report_sha256: String,
    /// The configuration.
    pub config: Config,
    /// Container or not.
    pub execution_mode: ExecutionMode,
    /// The reference the image was named by; `@digest` is added where it has none. Host runs name what ran.
    pub image_ref: String,
    /// `sha256:` and 64 hex digits; none for a host run.
    pub image_digest: Option<String>,
    /// Whether the workload could reach a network.
    pub allow_network: bool,
    /// Whether code of the checkpoint could run.
    pub allow_remote_code: bool,
    /// Whether third-party plugins could run.
    pub allow_third_party_plugins: bool,
    /// Plan, observations and digests of the run; free form.
    pub context: Map<String, Value>,
}

/// The manifest as a JSON value.
pub fn build(input: &ManifestInput) -> Value {
    let config = match &input.config {
        Config::File { path, sha256 } => json!({"path": path, "sha256": sha256, "source": "file"}),
        Config::Inline(value) => {
            json!({"path": null, "sha256": sha256_hex(canonical_json(value).as_bytes()), "source": "inline"})
        }
        Config::Missing => json!({"path": null, "sha256": null, "source": "missing"}),
    };
    json!({
        "manifest_version": 1,
        "generated_at_utc": input.generated_at_utc,
        "verifier_contract_version": CONTRACT,
        "report": {
            "path": input.report_path,
            "filename": input.report_filename,
            "sha256": input.report_sha256,
        },
        "config": config,
        "execution_mode": input.execution_mode.as_str(),
        "runtime": {
            "image_ref": pinned_reference(&input.image_ref, input.image_digest.as_deref()),
            "image_digest": input.image_digest,
            "container_execution": input.execution_mode == ExecutionMode::Container,
            "allow_network": input.allow_network,
            "allow_remote_code": input.allow_remote_code,
            "allow_third_party_plugins": input.allow_third_party_plugins,
        },
        "context": input.context,
    })
}

/// The reference with its digest: local tags and references that hold one stay as they are.
fn pinned_reference(reference: &str, digest: Option<&str>) -> String {
    const LOCAL: [&str; 2] = ["invarlock-runtime:local", "invarlock-runtime:cuda-local"];
    match digest {
        Some(digest) if !LOCAL.contains(&reference) && !reference.contains("@sha256:") => {
            format!("{reference}@{digest}")
        }
        _ => reference.to_owned(),
    }
}

/// The bytes of the file: two spaces of indentation, sorted keys, ASCII, a newline at the end.
pub fn to_bytes(manifest: &Value) -> Vec<u8> {
    let mut text = String::new();
    write_indented(manifest, 0, &mut text);
    text.push('\n');
    text.into_bytes()
}

fn write_indented(value: &Value, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|one, other| one.0.cmp(other.0));
            out.push('{');
            for (index, (name, member)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                write_ascii_string(name, out);
                out.push_str(": ");
                write_indented(member, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        Value::Array(members) if !members.is_empty() => {
            out.push('[');
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                write_indented(member, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        leaf => out.push_str(&canonical_json(leaf)),
    }
}
