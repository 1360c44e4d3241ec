//! An evaluation by another program, as the facts from which its container and its runtime manifest follow.
//!
//! `evaluate` starts what [`arguments`] and [`environment`] give, and writes what [`DelegatedFacts::manifest`] gives. The verifier reads the
//! facts back from the manifest, derives all three again, and requires that nothing differs.

use crate::evaluation::file_name;
use crate::format::delegated::{
    Delegated, DelegatedContext, DelegatedPlan, DelegatedPlanRecord, DelegatedRequest, DelegatedRun,
};
use crate::format::devices::Devices;
use crate::format::plan::{ExecutionMode, Image};
use crate::format::runtime_manifest::{Launcher, Machine, RuntimeManifest};
use crate::format::to_value;
use crate::manifest::{Config, ManifestInput, build};
use crate::numerics::digest::{canonical_json, sha256_hex};
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value};

/// Directory of the run artifacts in the container.
pub const RUNS: &str = "/out/runs";
/// Directory of the report in the container.
pub const REPORT_DIRECTORY: &str = "/out/report";
/// Name of the report in the output.
pub const REPORT: &str = "report/evaluation.report.json";
/// Name of the manifest that the program itself writes, in the output.
pub const OWN_MANIFEST: &str = "report/runtime.manifest.json";
/// What stands before the names of the files that belong to the report.
pub const OF_REPORT: &str = "report/";
/// What stands before the names of the run artifacts.
pub const OF_RUNS: &str = "runs/";
/// The working directory in the container.
pub const CWD: &str = "/tmp";
/// The preset in the container.
pub const PRESET: &str = "preset.yaml";
/// The settings of the edit in the container.
pub const EDIT: &str = "edit.yaml";
/// Directory of the baseline's run report below `/in`, and the name of the file in it.
pub const BASELINE_REPORT: [&str; 2] = ["baseline-report", "report.json"];
/// An adapter or a device that the program finds by itself.
pub const AUTO: &str = "auto";
/// The device that needs nothing of the host.
pub const CPU: &str = "cpu";
/// The GPUs that the caller was given.
pub const CUDA: &str = "cuda";
/// The kind of the devices that `cuda` means.
pub const NVIDIA: &str = "nvidia.com/gpu";
/// The name that means every device of a kind.
pub const ALL: &str = "all";

/// `command` in the context of the manifest.
const COMMAND: &str = "evaluate";
/// Where programs are looked up if the image does not say it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A version of the Python package InvarLock, by which its options differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64);

impl Version {
    /// The first version with an adapter for each side, and with `--assurance`.
    const WITH_ASSURANCE: Version = Version(0, 12);
    /// The first version that is another product.
    const OTHER_PRODUCT: Version = Version(0, 13);
    /// The first version whose containers are known.
    const FIRST: Version = Version(0, 8);

    /// Reads the first two numbers of a version such as `0.12.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse().ok());
        Some(Version(numbers.next()??, numbers.next()??))
    }

    /// Whether `evaluate` of this version compares two checkpoints in a container.
    pub fn is_supported(self) -> bool {
        (Self::FIRST..Self::OTHER_PRODUCT).contains(&self)
    }

    /// Whether it has an adapter for each side, and `--assurance`.
    pub fn has_assurance(self) -> bool {
        self >= Self::WITH_ASSURANCE
    }
}

/// The arguments of the program: those of the user, with the paths in the container.
pub fn arguments(plan: &DelegatedPlan) -> Vec<String> {
    let DelegatedRequest { baseline_adapter, subject_adapter, .. } = &plan.request;
    let request = &plan.request;
    let baseline_report = request.baseline_report.as_ref().map(|_| {
        let [directory, name] = BASELINE_REPORT;
        format!("/in/{directory}/{name}")
    });
    let pair = Version::parse(&plan.version).is_some_and(Version::has_assurance);
    let adapter = |name: &String| Some(name.clone()).filter(|name| name != AUTO);
    let options = [
        ("--baseline", Some("/in/baseline".to_owned())),
        ("--subject", Some("/in/subject".to_owned())),
        ("--baseline-report", baseline_report),
        ("--adapter", adapter(baseline_adapter).filter(|_| !pair)),
        ("--baseline-adapter", adapter(baseline_adapter).filter(|_| pair)),
        ("--subject-adapter", adapter(subject_adapter).filter(|_| pair)),
        ("--device", Some(device_argument(&request.device).to_owned())),
        ("--profile", Some(plan.profile.clone())),
        ("--tier", Some(plan.tier.clone())),
        ("--preset", Some(format!("/in/{PRESET}"))),
        ("--edit-config", request.edit_config.as_ref().map(|_| format!("/in/{EDIT}"))),
        ("--edit-label", request.edit_label.clone()),
        ("--assurance", request.assurance.clone()),
        ("--out", Some(RUNS.to_owned())),
        ("--report-out", Some(REPORT_DIRECTORY.to_owned())),
    ];
    let options = options.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten();
    std::iter::once(COMMAND.to_owned()).chain(options).collect()
}

/// What the program is told for `--device`: PyTorch has this name for the GPUs of every vendor.
fn device_argument(device: &str) -> &str {
    if is_device(device) { CUDA } else { device }
}

/// Whether this `--device` gives the program devices of the host.
pub fn is_device(device: &str) -> bool {
    !matches!(device, AUTO | CPU)
}

/// Variables of the caller that the program gets, if they are set: those that upstream's own containers get and that name no path and no device.
pub const PASSED_ON: [&str; 10] = [
    "INVARLOCK_DEDUP_TEXTS",
    "INVARLOCK_DETERMINISM",
    "INVARLOCK_DETERMINISM_WARN_ONLY",
    "INVARLOCK_OMP_THREADS",
    "INVARLOCK_SKIP_OVERHEAD_CHECK",
    "INVARLOCK_SNAPSHOT_MODE",
    "INVARLOCK_STORE_EVAL_WINDOWS",
    "INVARLOCK_TINY_RELAX",
    "OMP_NUM_THREADS",
    "PACK_DETERMINISM",
];

/// The environment of the program: that of the image, of the devices, `passed_on` of the caller, and what the launcher sets, of which nothing else
/// has a value.
pub fn environment(
    image: &Image,
    of_image: &[(String, String)],
    devices: Option<&Devices>,
    passed_on: &[(String, String)],
) -> Vec<(String, String)> {
    let mut merged = vec![("PATH".to_owned(), PATH.to_owned())];
    let of_devices = devices.into_iter().flat_map(Devices::variables);
    let of_devices = of_devices.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let fixed = fixed(image).map(|(name, value)| (name.to_owned(), value));
    for (name, value) in
        of_image.iter().cloned().chain(of_devices).chain(passed_on.iter().cloned()).chain(fixed)
    {
        match merged.iter_mut().find(|(found, _)| *found == name) {
            Some(found) => found.1 = value,
            None => merged.push((name, value)),
        }
    }
    match devices {
        Some(devices) => devices.with_libraries(merged),
        None => merged,
    }
}

/// The variables that the launcher sets: those of upstream's container mode, without a network.
pub fn fixed(image: &Image) -> [(&'static str, String); 13] {
    let text = str::to_owned;
    [
        ("INVARLOCK_ALLOW_NETWORK", text("0")),
        ("INVARLOCK_ALLOW_REMOTE_CODE", text("0")),
        ("INVARLOCK_ALLOW_THIRD_PARTY_PLUGINS", text("0")),
        ("INVARLOCK_ALLOW_UNVERIFIED_PROVENANCE", text("0")),
        ("INVARLOCK_CONTAINER_EXECUTION", text("1")),
        ("INVARLOCK_RUNTIME_IMAGE", image.reference.clone()),
        ("INVARLOCK_RUNTIME_IMAGE_DIGEST", image.manifest_digest.clone()),
        ("INVARLOCK_EVALUATE_TMP_DIR", text("/tmp/invarlock")),
        ("HF_HOME", text("/tmp/huggingface")),
        ("HF_HUB_OFFLINE", text("1")),
        ("HF_DATASETS_OFFLINE", text("1")),
        ("TRANSFORMERS_OFFLINE", text("1")),
        ("TMPDIR", text("/tmp")),
    ]
}

/// Whether a manifest says that this program ran another one for it.
pub fn is_delegated(manifest: &Value) -> bool {
    manifest.pointer("/context/delegated").is_some()
}

/// What was asked for, planned, and observed.
#[derive(Debug, Clone, PartialEq)]
pub struct DelegatedFacts {
    /// The plan.
    pub plan: DelegatedPlan,
    /// When the command started, UTC, ISO 8601.
    pub started_at: String,
    /// When the container had ended.
    pub finished_at: String,
    /// The program that ran it.
    pub launcher: Launcher,
    /// The machine that it ran on.
    pub machine: Machine,
    /// What became of the container.
    pub run: DelegatedRun,
    /// Absolute path that the report was written to.
    pub report_path: String,
}

impl DelegatedFacts {
    /// The facts of a manifest, not yet checked: [`Self::manifest`] gives another manifest if it contradicts itself.
    ///
    /// # Errors
    /// The context is not that of such an evaluation.
    pub fn read(manifest: &RuntimeManifest) -> Result<Self> {
        let context = DelegatedContext::deserialize(&manifest.context)
            .map_err(|why| Error::integrity(why.to_string()))
            .context("reading `context` of the runtime manifest")?;
        Ok(Self {
            plan: context.delegated.plan.content,
            started_at: context.started_at_utc,
            finished_at: context.finished_at_utc,
            launcher: context.launcher,
            machine: context.machine,
            run: context.delegated.run,
            report_path: manifest.report.path.clone(),
        })
    }

    /// The runtime manifest of the report with this digest.
    pub fn manifest(&self, report_sha256: &str) -> RuntimeManifest {
        let plan = &self.plan;
        let context = DelegatedContext {
            command: COMMAND.to_owned(),
            profile: plan.profile.clone(),
            tier: plan.tier.clone(),
            execution_mode: ExecutionMode::Container.report_name().to_owned(),
            allowances: plan.allowances.clone(),
            loosened: plan.allowances.granted_by.keys().cloned().collect(),
            custom_seccomp_profile: plan.custom_seccomp_profile.clone(),
            image: plan.image.clone(),
            launcher: self.launcher.clone(),
            machine: self.machine.clone(),
            started_at_utc: self.started_at.clone(),
            finished_at_utc: self.finished_at.clone(),
            delegated: Delegated {
                plan: DelegatedPlanRecord { digest: plan_digest(plan), content: plan.clone() },
                run: self.run.clone(),
            },
        };
        let context = match to_value(&context) {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        build(ManifestInput {
            generated_at_utc: self.finished_at.clone(),
            report_path: self.report_path.clone(),
            report_filename: file_name(&self.report_path).to_owned(),
            report_sha256: report_sha256.to_owned(),
            config: Config::Inline(to_value(&UpstreamRequest::of(plan))),
            execution_mode: ExecutionMode::Container,
            image_ref: plan.image.reference.clone(),
            image_digest: Some(plan.image.manifest_digest.clone()),
            allow_network: plan.allowances.network,
            allow_remote_code: false,
            allow_third_party_plugins: false,
            context,
        })
    }
}

/// `sha256:` and the digest of the canonical JSON of a plan.
pub fn plan_digest(plan: &DelegatedPlan) -> String {
    format!("sha256:{}", sha256_hex(canonical_json(&to_value(plan)).as_bytes()))
}

/// The request with the keys of the Python package. The manifest contains its digest.
#[derive(Debug, Serialize)]
struct UpstreamRequest<'a> {
    command: &'static str,
    baseline: &'a str,
    subject: &'a str,
    baseline_adapter: &'a str,
    subject_adapter: &'a str,
    profile: &'a str,
    tier: &'a str,
    preset: &'a str,
    out: &'a str,
    report_out: &'a str,
    edit_config: Option<&'a str>,
    edit_label: Option<&'a str>,
    assurance: Option<&'a str>,
    allow_network: bool,
    allow_remote_code: bool,
    allow_third_party_plugins: bool,
    execution_mode: &'static str,
}

impl<'a> UpstreamRequest<'a> {
    fn of(plan: &'a DelegatedPlan) -> Self {
        let request = &plan.request;
        Self {
            command: COMMAND,
            baseline: &request.baseline,
            subject: &request.subject,
            baseline_adapter: &request.baseline_adapter,
            subject_adapter: &request.subject_adapter,
            profile: &plan.profile,
            tier: &plan.tier,
            preset: &request.preset,
            out: &request.out,
            report_out: &request.report_out,
            edit_config: request.edit_config.as_deref(),
            edit_label: request.edit_label.as_deref(),
            assurance: request.assurance.as_deref(),
            allow_network: plan.allowances.network,
            allow_remote_code: false,
            allow_third_party_plugins: false,
            execution_mode: ExecutionMode::Container.report_name(),
        }
    }
}
