//! Verification of the runtime manifest, and that it binds the report.

use super::{RuntimeVerdict, Trust, read, schema};
use crate::format::untrusted::Node;
use crate::host_execution;
use crate::json;
use crate::manifest::{CONTRACT, FILE_NAME};
use crate::numerics::digest::sha256_hex;
use serde_json::Value;
use std::io;
use std::path::Path;

/// What `--allow-network` allowed, and how to measure without it.
const NETWORK_ALLOWED: &str = "the launcher was allowed to use the network (--allow-network); the container had none. Pull the image first \
     (`invarlock runtime image pull`), then measure without --allow-network";

/// What a manifest must satisfy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Digest of the image that must have run: `sha256:` and 64 hex digits.
    pub expected_image_digest: Option<String>,
    /// As [`super::VerifyOptions::granted`].
    pub granted: Vec<String>,
    /// Only upstream's checks, and its lenient parser.
    pub upstream_parity: bool,
}

/// `advanced runtime-verify` with all checks: the manifest is valid and binds the report.
pub fn runtime_verify(report: &Path, manifest: &Path, expected_image_digest: Option<&str>) -> RuntimeVerdict {
    let expected_image_digest = expected_image_digest.map(str::to_owned);
    runtime_verify_with(
        report,
        manifest,
        &RuntimeOptions { expected_image_digest, ..RuntimeOptions::default() },
    )
}

/// [`runtime_verify`] with options.
pub fn runtime_verify_with(report: &Path, manifest: &Path, options: &RuntimeOptions) -> RuntimeVerdict {
    let mut verdict = RuntimeVerdict::new(report, manifest);
    let report_bytes = match read::read_evidence(report, read::RUN_REPORT_LIMIT) {
        Ok(bytes) => bytes,
        Err(why) => {
            verdict.errors.push(format!("unable to read report: {}: {why}", report.display()));
            return verdict;
        }
    };
    let manifest_bytes = match read::read_evidence(manifest, read::MANIFEST_LIMIT) {
        Ok(bytes) => bytes,
        Err(why) => {
            verdict.errors.push(format!("unable to read manifest: {}: {why}", manifest.display()));
            return verdict;
        }
    };
    check_bytes(&report_bytes, &manifest_bytes, options, verdict)
}

/// [`runtime_verify`] of bytes in memory, so that the caller uses exactly the bytes that were verified. The paths are used in
/// messages only.
pub fn runtime_verify_bytes(
    report: &Path,
    report_bytes: &[u8],
    manifest: &Path,
    manifest_bytes: &[u8],
    expected_image_digest: Option<&str>,
) -> RuntimeVerdict {
    let expected_image_digest = expected_image_digest.map(str::to_owned);
    let options = RuntimeOptions { expected_image_digest, ..RuntimeOptions::default() };
    check_bytes(report_bytes, manifest_bytes, &options, RuntimeVerdict::new(report, manifest))
}

fn check_bytes(
    report: &[u8],
    manifest: &[u8],
    options: &RuntimeOptions,
    mut verdict: RuntimeVerdict,
) -> RuntimeVerdict {
    let name = Path::new(&verdict.report).file_name().map(|name| name.to_string_lossy().into_owned());
    match parse(manifest, options.upstream_parity) {
        Ok(manifest) if manifest.is_object() => {
            check(report, name.as_deref(), Node::root("", &manifest), options, &mut verdict);
        }
        Ok(_) => verdict.errors.push("manifest payload must be a JSON object".to_owned()),
        Err(why) => verdict.errors.push(format!("unable to parse manifest: {why}")),
    }
    verdict
}

/// Checks a manifest, and that it binds a report with these bytes.
fn check(
    report: &[u8],
    report_name: Option<&str>,
    manifest: Node<'_>,
    options: &RuntimeOptions,
    verdict: &mut RuntimeVerdict,
) {
    verdict.host_execution = host_execution::recorded(&Value::Null, Some(manifest.value()));
    if let Some(fault) = schema::manifest_faults(manifest.value()).into_iter().next() {
        return verdict.errors.push(format!("runtime manifest schema validation failed: {fault}"));
    }
    let errors = &mut verdict.errors;
    let runtime = manifest.get("runtime");
    let contract = manifest.get("verifier_contract_version").str().unwrap_or("<missing>");
    if contract != CONTRACT {
        errors.push(format!("unexpected verifier contract version: {contract}"));
    }
    let mode = manifest.get("execution_mode").str().unwrap_or("<missing>");
    if mode != "container" {
        errors.push(format!("execution_mode must be \"container\", got {mode}"));
    }
    if runtime.get("container_execution").bool() != Some(true) {
        errors.push("runtime.container_execution must be true".to_owned());
    }
    let declared = runtime.get("image_digest").str().map(str::to_owned);
    if declared.as_deref().is_none_or(str::is_empty) {
        errors.push("runtime.image_digest must be present".to_owned());
    }
    let stated = manifest.at("report.sha256").str().unwrap_or_default();
    let actual = sha256_hex(report);
    verdict.binding_verified = stated == actual;
    if stated != actual {
        errors.push(format!("report digest mismatch: manifest={stated} actual={actual}"));
    }
    if report.is_empty() {
        errors.push("report file is empty".to_owned());
    }
    if let Some(expected) = &options.expected_image_digest {
        let expected = expected.trim().to_lowercase();
        let hex = expected.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            errors
                .push("expected runtime image digest must match sha256:<64 lowercase hex chars>".to_owned());
        } else if declared.as_deref() != Some(&expected) {
            let found = declared.as_deref().unwrap_or("<missing>");
            errors.push(format!("runtime image digest mismatch: manifest={found} expected={expected}"));
        } else {
            verdict.expected_digest_matched = true;
        }
    }
    if !options.upstream_parity {
        stricter(manifest, report_name, &options.granted, errors);
    }
    verdict.declared_image_digest = declared;
    verdict.trust = match (verdict.errors.is_empty(), verdict.expected_digest_matched) {
        (false, _) => Trust::Failed,
        (true, true) => Trust::ExpectedImageDigestMatched,
        (true, false) => Trust::ManifestBound,
    };
}

/// What upstream does not check: no control was disabled, and the manifest does not contradict itself.
fn stricter(manifest: Node<'_>, report_name: Option<&str>, granted: &[String], errors: &mut Vec<String>) {
    let granted = |name: &str| granted.iter().any(|granted| granted == name);
    let runtime = manifest.get("runtime");
    for (flag, what) in [
        ("allow_network", NETWORK_ALLOWED),
        (
            "allow_remote_code",
            "code that came with a checkpoint could run; measure again without that allowance",
        ),
        ("allow_third_party_plugins", "third-party plugins could run; measure again without that allowance"),
    ] {
        if runtime.get(flag).bool() == Some(true) && !granted(flag) {
            errors.push(format!("runtime.{flag} is true: {what}"));
        }
    }
    for loosened in manifest.at("context.loosened").elements() {
        let name = loosened.str().map_or_else(|| loosened.to_string(), str::to_owned);
        if granted(&name) {
            continue;
        }
        let why = match name.as_str() {
            "allow_network" => {
                "--allow-network was set; measure again without it, or accept it with `verify --allow allow_network`"
            }
            "custom_seccomp_profile" => {
                "the workload ran under a user profile instead of the built-in seccomp profile; measure again without --seccomp, or accept it \
                 with `verify --allow custom_seccomp_profile`"
            }
            "device" => {
                "the program used devices of the host, whose drivers are outside the boundary; measure again without --device, or accept it \
                 with `verify --allow device`"
            }
            _ => "this control was disabled; measure again without that flag",
        };
        errors.push(format!("context.loosened names {name}: {why}"));
    }
    let filename = manifest.at("report.filename").str().unwrap_or_default();
    if report_name.is_some_and(|name| name != filename) {
        let name = report_name.unwrap_or_default();
        errors.push(format!(
            "report.filename mismatch: the manifest was written for {filename}, this file is {name}"
        ));
    }
    let digest = runtime.get("image_digest").str().unwrap_or_default();
    let reference = runtime.get("image_ref").str().unwrap_or_default();
    if let Some((_, named)) =
        reference.split_once('@').filter(|(_, named)| !digest.is_empty() && *named != digest)
    {
        errors
            .push(format!("runtime.image_ref mismatch: it names {named}, runtime.image_digest is {digest}"));
    }
    let config = manifest.get("config");
    let source = config.get("source").str().unwrap_or_default();
    if (source == "missing") != config.get("sha256").is_null() {
        errors.push(format!("config.sha256 contradicts config.source {source}"));
    }
}

fn parse(bytes: &[u8], lenient: bool) -> Result<Value, String> {
    if lenient {
        return serde_json::from_slice(bytes).map_err(|why| why.to_string());
    }
    json::parse("the manifest", bytes).map_err(|why| why.to_string())
}

/// Upstream's `verify_runtime_provenance` for the manifest beside `report_path`: issues as `(code, message)`, and the manifest if it is
/// readable.
pub(super) fn provenance(
    report_path: &Path,
    report: &[u8],
    options: &RuntimeOptions,
) -> (RuntimeVerdict, Vec<(&'static str, String)>, Value) {
    let manifest_path = report_path.with_file_name(FILE_NAME);
    let name = report_path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut verdict = RuntimeVerdict::new(report_path, &manifest_path);
    let invalid =
        |detail: String| vec![("manifest_invalid", format!("{FILE_NAME} is invalid for {name}: {detail}."))];
    let bytes = match read::read_evidence(&manifest_path, read::MANIFEST_LIMIT) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return (
                verdict,
                vec![("manifest_missing", missing(&name, options.upstream_parity))],
                Value::Null,
            );
        }
        Err(why) => return (verdict, invalid(format!("{FILE_NAME} is unreadable: {why}")), Value::Null),
    };
    let manifest = match parse(&bytes, options.upstream_parity) {
        Ok(manifest) if manifest.is_object() => manifest,
        Ok(_) => return (verdict, invalid(format!("{FILE_NAME} must decode to a JSON object")), Value::Null),
        Err(_) if options.upstream_parity => {
            return (verdict, invalid(format!("{FILE_NAME} is not valid JSON")), Value::Null);
        }
        Err(why) => return (verdict, invalid(why), Value::Null),
    };
    let mode = Node::root("", &manifest).get("execution_mode").str();
    if mode != Some("container") {
        let why = match (mode, options.upstream_parity) {
            (Some(mode), _) => format!("{FILE_NAME} marks {name} as '{mode}'."),
            (None, true) => format!("{FILE_NAME} marks {name} as 'None'."),
            (None, false) => {
                format!("{FILE_NAME} does not say where the measurement ran: it has no execution_mode")
            }
        };
        return (verdict, vec![("execution_mode_invalid", why)], manifest);
    }
    check(report, Some(&name), Node::root("", &manifest), options, &mut verdict);
    let issues = verdict.errors.iter().map(|error| ("verifier_failed", error.clone())).collect();
    (verdict, issues, manifest)
}

/// The message about a missing manifest. With `parity` it is upstream's.
fn missing(name: &str, parity: bool) -> String {
    match parity {
        true => format!("{FILE_NAME} missing for {name}."),
        false => format!("{FILE_NAME} missing for {name}: it must be in the same directory as the report"),
    }
}

impl RuntimeVerdict {
    fn new(report: &Path, manifest: &Path) -> Self {
        RuntimeVerdict {
            report: report.display().to_string(),
            manifest: manifest.display().to_string(),
            errors: Vec::new(),
            declared_image_digest: None,
            host_execution: None,
            expected_digest_matched: false,
            binding_verified: false,
            trust: Trust::Failed,
        }
    }

    /// Whether nothing failed. The exit code is 0 if so, otherwise 1.
    pub fn ok(&self) -> bool {
        self.errors.is_empty()
    }
}
