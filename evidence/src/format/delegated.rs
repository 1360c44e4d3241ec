//! An evaluation by another program: the whole command line of an image that speaks `delegate` runs in one container. Its plan, and what the
//! launcher records of it in `context` of the runtime manifest. The report is that program's own.

use super::devices::Devices;
use super::observations::{Observations, Status, Usage};
use super::plan::{Allowances, Image, PlannedIdentity, PlannedLimits, PlannedMount, PlannedSeccomp};
use super::runtime_manifest::{File, Files, Launcher, Machine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `format_version` of [`DelegatedPlan`].
pub const DELEGATED_PLAN_FORMAT: &str = "delegated-plan-v1";

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DelegatedPlan {
    /// Always [`DELEGATED_PLAN_FORMAT`].
    pub format_version: String,
    /// What the user asked for.
    pub request: DelegatedRequest,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// Controls that the user disabled.
    pub allowances: Allowances,
    /// The image.
    pub image: Image,
    /// The entrypoint in the configuration of the image, to which the arguments are added.
    pub entrypoint: Vec<String>,
    /// The version of InvarLock that the program of the image stated.
    pub version: String,
    /// A seccomp profile that the user supplied; null for a built-in one.
    pub custom_seccomp_profile: Option<Map<String, Value>>,
    /// The devices of the host. Absent without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// Files of the host by their directory below `/in`: `baseline`, `subject`, `dataset`, `baseline-report`.
    pub inputs: BTreeMap<String, Files>,
    /// Settings by their name below `/in`: `preset.yaml`, `edit.yaml`.
    pub settings: BTreeMap<String, Settings>,
    /// The container.
    pub container: DelegatedContainer,
}

/// What the user asked for: names and paths as the user wrote them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DelegatedRequest {
    /// Directory of the baseline checkpoint, or its name and revision.
    pub baseline: String,
    /// Directory of the subject checkpoint, or its name and revision.
    pub subject: String,
    /// `--baseline-report`, if given.
    pub baseline_report: Option<String>,
    /// `--preset`.
    pub preset: String,
    /// `--edit-config`, if given.
    pub edit_config: Option<String>,
    /// `--edit-label`, if given.
    pub edit_label: Option<String>,
    /// The adapter of the baseline, or `auto`.
    pub baseline_adapter: String,
    /// The adapter of the subject, or `auto`.
    pub subject_adapter: String,
    /// `--device`: `auto`, `cpu`, `cuda`, or the name of a device.
    pub device: String,
    /// `--assurance`, if given.
    pub assurance: Option<String>,
    /// `--out`: directory of what the program left.
    pub out: String,
    /// `--report-out`: directory of the evidence.
    pub report_out: String,
}

/// A file of settings. Its paths are replaced by those in the container; nothing else is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Path as the user wrote it.
    pub path: String,
    /// SHA-256 of the user's file.
    pub source_sha256: String,
    /// The replaced paths, and what replaces them.
    pub replaced: BTreeMap<String, String>,
    /// SHA-256 of the file in the container.
    pub sha256: String,
    /// Size of the file in the container, bytes.
    pub bytes: u64,
}

/// The planned container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DelegatedContainer {
    /// The command.
    pub argv: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Its environment, `NAME=value`: that of the image, and what the launcher sets.
    pub environment: Vec<String>,
    /// New namespaces.
    pub namespaces: Vec<String>,
    /// `lo only`.
    pub network: String,
    /// Ids inside and on the host.
    pub identity: PlannedIdentity,
    /// Always empty: the workload has no capability.
    pub capabilities: Vec<String>,
    /// Always true.
    pub no_new_privileges: bool,
    /// The seccomp filter.
    pub seccomp: PlannedSeccomp,
    /// The mounts.
    pub mounts: Vec<PlannedMount>,
    /// The limits.
    pub limits: PlannedLimits,
}

/// `context` of the runtime manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DelegatedContext {
    /// Always `evaluate`.
    pub command: String,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// Always `container`.
    pub execution_mode: String,
    /// Controls that the user disabled.
    pub allowances: Allowances,
    /// Names of the disabled controls.
    pub loosened: Vec<String>,
    /// A seccomp profile that the user supplied; null for a built-in one.
    pub custom_seccomp_profile: Option<Map<String, Value>>,
    /// The image.
    pub image: Image,
    /// The program that wrote the manifest.
    pub launcher: Launcher,
    /// The machine that the run was on.
    pub machine: Machine,
    /// When the command started.
    pub started_at_utc: String,
    /// When the container had ended.
    pub finished_at_utc: String,
    /// The plan, and what became of it.
    pub delegated: Delegated,
}

/// A planned and finished run of another program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Delegated {
    /// The plan.
    pub plan: DelegatedPlanRecord,
    /// The run.
    pub run: DelegatedRun,
}

/// The plan and its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DelegatedPlanRecord {
    /// `sha256:` and the digest of the canonical JSON of `content`.
    pub digest: String,
    /// The plan.
    pub content: DelegatedPlan,
}

/// What became of the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DelegatedRun {
    /// Directory in which everything that the program left is kept.
    pub directory: String,
    /// What the program left below `/out`.
    pub outputs: Vec<File>,
    /// `sha256:` and the digest of the seccomp filter's program.
    pub filter_digest: String,
    /// Denied system calls with their counts; null where the filter does not report them.
    pub refused: Option<BTreeMap<String, u64>>,
    /// How the run ended.
    pub status: Status,
    /// What the kernel reported of the run before the program's first instruction.
    pub observations: Observations,
    /// What the run used.
    pub usage: Usage,
}
