//! Writing `runtime.manifest.json`.

pub use crate::format::runtime_manifest::ExecutionMode;

use crate::format::runtime_manifest::{ConfigRef, ConfigSource, ReportRef, Runtime, RuntimeManifest};
use crate::format::to_value;
use crate::numerics::digest::{canonical_json, sha256_hex, write_ascii_string, write_canonical};
use serde::Serialize;
use serde_json::{Map, Value};

/// Contract name that every manifest contains.
pub const CONTRACT: &str = "runtime-manifest-v1";

/// Name of the file, beside the report.
pub const FILE_NAME: &str = "runtime.manifest.json";

/// The request that a run was started with.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// A file.
    File {
        /// Absolute path.
        path: String,
        /// SHA-256 of its bytes, hexadecimal.
        sha256: String,
    },
    /// A value; digested as canonical JSON.
    Inline(Value),
    /// Unknown.
    Missing,
}

/// The facts that a manifest is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestInput {
    /// UTC, ISO 8601 with microseconds and `+00:00`.
    pub generated_at_utc: String,
    /// Absolute path of the report.
    pub report_path: String,
    /// File name of the report.
    pub report_filename: String,
    /// SHA-256 of the report's bytes, 64 hexadecimal digits.
    pub report_sha256: String,
    /// The request.
    pub config: Config,
    /// Where the measurement ran.
    pub execution_mode: ExecutionMode,
    /// Reference that the image was named by; `@digest` is added if it has none. `host` for a host run.
    pub image_ref: String,
    /// `sha256:` and 64 hexadecimal digits; none for a host run.
    pub image_digest: Option<String>,
    /// Whether the launcher was allowed to use the network. Containers never have one.
    pub allow_network: bool,
    /// Whether code of the checkpoint could run.
    pub allow_remote_code: bool,
    /// Whether third-party plug-ins could run.
    pub allow_third_party_plugins: bool,
    /// Plan, observations and digests of the run.
    pub context: Map<String, Value>,
}

/// The manifest.
pub fn build(input: ManifestInput) -> RuntimeManifest {
    let (path, sha256, source) = match input.config {
        Config::File { path, sha256 } => (Some(path), Some(sha256), ConfigSource::File),
        Config::Inline(value) => {
            (None, Some(sha256_hex(canonical_json(&value).as_bytes())), ConfigSource::Inline)
        }
        Config::Missing => (None, None, ConfigSource::Missing),
    };
    RuntimeManifest {
        manifest_version: 1,
        generated_at_utc: input.generated_at_utc,
        verifier_contract_version: CONTRACT.to_owned(),
        report: ReportRef {
            path: input.report_path,
            filename: input.report_filename,
            sha256: input.report_sha256,
        },
        config: ConfigRef { path, sha256, source },
        execution_mode: input.execution_mode,
        runtime: Runtime {
            image_ref: pinned_reference(&input.image_ref, input.image_digest.as_deref()),
            image_digest: input.image_digest,
            container_execution: input.execution_mode == ExecutionMode::Container,
            allow_network: input.allow_network,
            allow_remote_code: input.allow_remote_code,
            allow_third_party_plugins: input.allow_third_party_plugins,
        },
        context: input.context,
    }
}

/// The reference with its digest. Local tags and references that already contain a digest are unchanged.
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
pub fn to_bytes(manifest: &impl Serialize) -> Vec<u8> {
    value_to_bytes(&to_value(manifest))
}

/// As [`to_bytes`], of a manifest that is needed no more.
#[cfg(feature = "verify")]
pub(crate) fn into_bytes(mut manifest: RuntimeManifest) -> Vec<u8> {
    // Nearly all of a manifest is its context, which is JSON already.
    let context = std::mem::take(&mut manifest.context);
    let mut value = to_value(&manifest);
    value["context"] = context.into();
    value_to_bytes(&value)
}

fn value_to_bytes(value: &Value) -> Vec<u8> {
    let mut text = String::new();
    write_indented(value, 0, &mut text);
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
        leaf => write_canonical(leaf, out),
    }
}
