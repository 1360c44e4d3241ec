//! The runtime manifest (`runtime.manifest.json`), contract `runtime-manifest-v1`: what ran, where, and which report it wrote.
//!
//! [`RuntimeManifest`] is what upstream's contract defines; [`Context`] is what the launcher records in its free-form member `context`.
//! Digests are SHA-256 in lower-case hexadecimal. Times are UTC, ISO 8601 with microseconds.

use super::observations::{Observations, Status, Usage};
use super::plan::{Allowances, Dataset, Image, Plan};
pub use super::plan::{ExecutionMode, File, Files};
use crate::journal::Journal;
use crate::numerics::digest::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuntimeManifest {
    /// Always 1.
    pub manifest_version: u64,
    /// When the manifest was written.
    pub generated_at_utc: String,
    /// Always `runtime-manifest-v1`.
    pub verifier_contract_version: String,
    /// The report that the manifest binds.
    pub report: ReportRef,
    /// The request.
    pub config: ConfigRef,
    /// Where the measurement ran.
    pub execution_mode: ExecutionMode,
    /// The container image and what it was allowed.
    pub runtime: Runtime,
    /// Plan, observations and digests of the run: a [`Context`] where the launcher wrote it.
    pub context: Map<String, Value>,
}

/// The report that a manifest binds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportRef {
    /// Absolute path.
    pub path: String,
    /// File name.
    pub filename: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// The request that a run was started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfigRef {
    /// Absolute path; null where it was no file.
    pub path: Option<String>,
    /// SHA-256 of the file's bytes or of the canonical JSON; null where there is none.
    pub sha256: Option<String>,
    /// Where it came from.
    pub source: ConfigSource,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ConfigSource {
    /// A file.
    File,
    /// The command line; digested as canonical JSON.
    Inline,
    /// Unknown.
    Missing,
}

/// `runtime`: the container image and what it was allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// Reference of the image, with its digest; `host` for a host run.
    pub image_ref: String,
    /// `sha256:` and the digest of the image manifest; null for a host run.
    pub image_digest: Option<String>,
    /// Whether a container was used.
    pub container_execution: bool,
    /// Whether the launcher was allowed to use the network. Containers never have one.
    pub allow_network: bool,
    /// Whether code of the checkpoint could run.
    pub allow_remote_code: bool,
    /// Whether third-party plug-ins could run.
    pub allow_third_party_plugins: bool,
}

/// `context`, as the launcher writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `evaluate` beside an evaluation report, `measure` beside a run report.
    pub command: String,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// `container` or `host`.
    pub execution_mode: String,
    /// What the environment of a host run says of who isolated it. This program did not observe it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<Boundary>,
    /// Controls that the user disabled.
    pub allowances: Allowances,
    /// Settings that decide which windows are measured.
    pub dataset: Dataset,
    /// Names of the disabled controls.
    pub loosened: Vec<String>,
    /// A seccomp profile that the user supplied; null for a built-in one.
    pub custom_seccomp_profile: Option<Map<String, Value>>,
    /// The image; null for a host run.
    pub image: Option<Image>,
    /// The program that wrote the manifest.
    pub launcher: Launcher,
    /// The machine that the run was on.
    pub machine: Machine,
    /// When the command started.
    pub started_at_utc: String,
    /// When the last container had ended.
    pub finished_at_utc: String,
    /// `baseline` or `subject`, beside a run report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The plan, beside an evaluation report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanRecord>,
    /// What was measured, by role.
    pub sides: BTreeMap<String, Side>,
}

/// Who isolated a run that this program did not isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// The kubelet and container runtime of a Kubernetes node.
    Kubernetes,
}

/// The plan and its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// `sha256:` and the digest of the canonical JSON of `content`.
    pub digest: String,
    /// The plan.
    pub content: Plan,
}

/// The program that wrote the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Launcher {
    /// Its version.
    pub version: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Digest of the seccomp filter that denies it the network; null where it had none.
    pub network_filter: Option<String>,
}

/// The machine that a run was on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Architecture, such as `x86_64`.
    pub arch: String,
    /// Processors that the launcher may use; 0 if unknown.
    pub cpus: usize,
}

/// One measured checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// Whether an earlier measurement was used (`--baseline-report`).
    pub reused: bool,
    /// Path of the run report when it was compared.
    pub report_path: String,
    /// The checkpoint's files.
    pub checkpoint: Files,
    /// The dataset's files; of the baseline only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Files>,
    /// The losses of an earlier, interrupted run that this one resumed; absent: it measured every window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// Files that the run wrote.
    pub outputs: Vec<File>,
    /// `sha256:` and the digest of the seccomp filter's program.
    pub filter_digest: String,
    /// Denied system calls with their counts; null where the filter does not report them.
    pub refused: Option<BTreeMap<String, u64>>,
    /// How the run ended.
    pub status: Status,
    /// What the kernel reported of the run before the workload's first instruction.
    pub observations: Observations,
    /// What the run used.
    pub usage: Usage,
}

/// The journal of an interrupted run, an input of the run that resumed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// Number of preview windows that it had the losses of.
    pub preview: usize,
    /// Number of final windows.
    #[serde(rename = "final")]
    pub final_: usize,
    /// SHA-256 of the input.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Resumed {
    /// What is recorded of a journal.
    pub fn of(journal: &Journal) -> Self {
        let bytes = journal.to_bytes();
        Self {
            preview: journal.preview.len(),
            final_: journal.final_.len(),
            sha256: sha256_hex(&bytes),
            bytes: bytes.len() as u64,
        }
    }
}
