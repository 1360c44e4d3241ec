//! The plan of an evaluation (`plan-v2`), as `--dry-run` prints it and the runtime manifest records it.

use super::compute_dtype::ComputeDtype;
use super::dataset::{Answers, Packing, Provider};
use super::guard_request::GuardRequest;
use super::masking::Masking;
use super::metrics::MetricKind;
use super::tiers::Tiers;
use super::warning::Warning;
use crate::numerics::digest::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `format_version` of [`Plan`]. Version 1 had no `request`.
pub const PLAN_FORMAT: &str = "plan-v2";

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always [`PLAN_FORMAT`].
    pub format_version: String,
    /// What the user asked for.
    pub request: Request,
    /// Where the measurement runs.
    pub execution_mode: ExecutionMode,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// `--tiers`: limits that replace those of the tier. Absent without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Tiers>,
    /// `--dtype`: the type of numbers that losses are computed in. Absent in plans of older versions, which have float32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_dtype: Option<ComputeDtype>,
    /// `--weight-only`: whether inputs of layers stay in float32 where a configuration asks for quantised ones. Absent where it was not set,
    /// and in plans of older versions, which never quantised inputs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weight_only: bool,
    /// `--guards`. Absent where the guards compare the subject with the baseline.
    #[serde(default, skip_serializing_if = "GuardRequest::is_default")]
    pub guards: GuardRequest,
    /// Controls that the user disabled.
    pub allowances: Allowances,
    /// The image; null for a host run.
    pub image: Option<Image>,
    /// A seccomp profile that the user supplied; null for a built-in one.
    pub custom_seccomp_profile: Option<Map<String, Value>>,
    /// Settings that decide which windows are measured.
    pub dataset: Dataset,
    /// The dataset's files.
    pub dataset_files: Files,
    /// What is run, by role.
    pub sides: BTreeMap<String, PlannedSide>,
}

/// What the user asked for: names and paths as the user wrote them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Directory of the baseline checkpoint; also its name in reports.
    pub baseline: String,
    /// Directory of the subject checkpoint; also its name in reports.
    pub subject: String,
    /// `--dataset`, if given.
    pub dataset: Option<String>,
    /// `--preset`, if given.
    pub preset: Option<String>,
    /// `--out`: directory of the run reports.
    pub out: String,
    /// `--report-out`: directory of the evidence.
    pub report_out: String,
    /// `--baseline-report`, if given.
    pub baseline_report: Option<String>,
    /// `--edit-label`, if given.
    pub edit_label: Option<String>,
    /// SHA-256 of the file of `--lock`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Settings of the preset that are not obeyed.
    pub warnings: Vec<Warning>,
}

/// Controls that the user disabled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Allowances {
    /// The workload may reach a network.
    pub network: bool,
    /// The measurement runs without a container.
    pub host_execution: bool,
    /// The workload runs under a seccomp profile that the user supplied.
    pub custom_seccomp_profile: bool,
    /// The workload uses devices of the host. Absent where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub device: bool,
    /// Flag or variable that disabled each of them.
    pub granted_by: BTreeMap<String, String>,
}

/// A container image, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Reference that the user named it by.
    pub reference: String,
    /// `sha256:` and the digest of its manifest.
    pub manifest_digest: String,
    /// `sha256:` and the digest of its configuration.
    pub config_digest: String,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// How its files were verified before the run, such as `full` or `fs-verity`.
    pub verification: String,
    /// Protocol of its program, `measure`; null if it names none.
    pub speaks: Option<String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// `sha256:` and the digest of the blob.
    pub digest: String,
    /// Size of the blob, bytes.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// `sha256:` and the digest of the uncompressed archive.
    pub diff_id: String,
}

/// Settings that decide which windows are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// SHA-256 over names and digests of the dataset's files.
    pub tree_sha256: String,
    /// Which rows become windows.
    #[serde(default, skip_serializing_if = "Provider::is_default")]
    pub provider: Provider,
    /// How their texts lie in windows.
    #[serde(default, skip_serializing_if = "Packing::is_default")]
    pub packing: Packing,
    /// Member of a dataset record that contains the text, or the source of a pair.
    pub text_field: String,
    /// Member that contains the target of a pair; absent where records have one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_field: Option<String>,
    /// Members that contain choices and the right one; absent unless an accuracy is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// The metric that the user named; absent: the one of the models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricKind>,
    /// Settings of masking that the user changed; absent: the default ones, if the models are masked language models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masking: Option<Masking>,
    /// Maximum number of dataset records that are read.
    pub max_samples: usize,
    /// Name of the split, recorded.
    pub split: String,
    /// Seed of the bootstrap, and of the choice of masked tokens.
    pub seed: u64,
    /// Tokens a window.
    pub seq_len: usize,
    /// Distance of two windows in tokens.
    pub stride: usize,
    /// Preview windows; of an accuracy, examples.
    pub preview_n: usize,
    /// Final windows; of an accuracy, examples.
    pub final_n: usize,
}

/// What is run for one checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PlannedSide {
    /// A container.
    Container(Box<PlannedContainer>),
    /// A child of the launcher.
    Host(PlannedHost),
}

impl PlannedSide {
    /// The checkpoint's files.
    pub fn checkpoint(&self) -> &Files {
        match self {
            Self::Container(container) => &container.checkpoint,
            Self::Host(host) => &host.checkpoint,
        }
    }
}

/// A planned host process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedHost {
    /// Path of the evaluator.
    pub program: Option<String>,
    /// `sha256:` and the digest of its seccomp filter.
    pub filter_digest: String,
    /// The checkpoint's files.
    pub checkpoint: Files,
}

/// A planned container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedContainer {
    /// The command.
    pub argv: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Its environment, `NAME=value`.
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
    /// The checkpoint's files.
    pub checkpoint: Files,
}

/// Ids of a planned container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedIdentity {
    /// User and group id inside.
    pub inside: u32,
    /// First and last id of the range that a run started by root takes its host ids from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_ids: Option<[u32; 2]>,
    /// User id on the host, of a run started by a user.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_uid: Option<u32>,
    /// Group id on the host, of a run started by a user.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_gid: Option<u32>,
    /// `uid_map` of a run started by a user, one line an entry: inside, host, count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid_map: Option<Vec<String>>,
    /// `gid_map`, in the same form.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid_map: Option<Vec<String>>,
    /// `setgroups`.
    pub setgroups: String,
}

/// The seccomp filter of a planned container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedSeccomp {
    /// Name of the profile.
    pub profile: String,
    /// `sha256:` and the digest of its program.
    pub digest: String,
}

/// A planned mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedMount {
    /// Mount point.
    pub target: String,
    /// `image`, `tmpfs`, `proc`, `file` or `bytes`; `device` or `bind` for a device of the host and its files.
    pub kind: String,
    /// Mount options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// Directories of the extracted layers, of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
    /// Size limit of a tmpfs or size of the content, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Limit of the number of files, of a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Names of the devices, of `/dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
    /// Path on the host, of a file or device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Limits of a planned container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedLimits {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processors; a fraction is a share.
    pub cpus: f64,
    /// Wall time.
    pub wall: WallTime,
    /// Size of `/out`, bytes.
    pub output_bytes: u64,
    /// Files in `/out`.
    pub output_files: u64,
    /// Size of `/tmp`, bytes.
    pub tmp_bytes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Limits that the user asked for: the run fails where one cannot be enforced.
    pub required: Vec<String>,
}

/// A duration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WallTime {
    /// Whole seconds.
    pub secs: u64,
    /// Nanoseconds besides.
    pub nanos: u32,
}

/// Where a measurement ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExecutionMode {
    /// In containers.
    Container,
    /// As a child of the launcher, without a container.
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

    /// The name in reports.
    pub fn report_name(self) -> &'static str {
        match self {
            ExecutionMode::Container => "container",
            ExecutionMode::HostBypass => "host",
        }
    }
}

/// A set of files with its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Path as the user wrote it.
    pub path: String,
    /// SHA-256 over the sorted lines `<sha256>  <name>\n` of the files.
    pub tree_sha256: String,
    /// The files, sorted by name.
    pub files: Vec<File>,
}

impl Files {
    /// The files of a directory, sorted by name, with their digest. `path` is as the user wrote it.
    pub fn new(path: String, mut files: Vec<File>) -> Self {
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let tree_sha256 = tree_sha256(&files);
        Self { path, tree_sha256, files }
    }
}

/// SHA-256 over the lines `<sha256>  <name>\n` of files, in the order of the files.
pub fn tree_sha256(files: &[File]) -> String {
    let lines: String = files.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect();
    sha256_hex(lines.as_bytes())
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name in its directory.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}
