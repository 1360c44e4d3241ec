//! The plan of an evaluation: everything is resolved before anything runs. The plan is what is executed, what `--dry-run` prints,
//! what is digested, and what the manifest records.

use crate::adapter::Adapters;
use crate::checkpoint_files;
use crate::error::{Context as _, Error, Result};
use crate::filter::{CustomProfile, Filter};
use crate::hub::Model;
use crate::image::{self, Image};
use crate::inputs::{self, InputFile};
use crate::limits;
use crate::metric_choice;
use crate::plan_lock::LockFile;
use crate::policy::Policy;
use crate::preset::{self, Dataset, Preset};
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::dataset::{Packing, Provider};
use invarlock_evidence::format::guard_request::GuardRequest;
use invarlock_evidence::format::metrics::MetricKind;
use invarlock_evidence::format::plan::{self as format, Files};
use invarlock_evidence::format::tiers::Tiers;
use invarlock_evidence::format::warning::Warning;
use invarlock_evidence::job::{Job, JobPaths, Role, Task};
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_runtime::Limits;
use invarlock_seccomp::{BuiltinProfile, Profile as FilterProfile, Program};

use std::path::{Component, Path, PathBuf};

/// The label of an image that names the program in it.
const LABEL: &str = "org.invarlock.speaks";

/// What the user asked to evaluate.
#[derive(Debug, Clone)]
pub struct Request {
    /// The baseline checkpoint.
    pub baseline: Model,
    /// The subject checkpoint.
    pub subject: Model,
    /// Where the windows come from.
    pub data: DataSource,
    /// The metric that the options name.
    pub metric: metric_choice::Choice,
    /// The type of numbers that losses are computed in.
    pub dtype: ComputeDtype,
    /// Whether inputs of layers stay in float32 where a configuration asks for quantised ones.
    pub weight_only: bool,
    /// What options change in the settings of the preset.
    pub changes: DatasetChanges,
    /// The profile.
    pub profile: Profile,
    /// The tier.
    pub tier: Tier,
    /// Limits that replace those of the tier.
    pub tiers: Option<Tiers>,
    /// What the guards are asked for.
    pub guards: GuardRequest,
    /// Output directory of run reports and logs.
    pub out: PathBuf,
    /// Output directory of the evaluation report and its manifest.
    pub report_out: PathBuf,
    /// Run report of a baseline that was measured earlier.
    pub baseline_report: Option<PathBuf>,
    /// Name of the subject's edit.
    pub edit_label: Option<String>,
    /// What the user says that the checkpoints are.
    pub adapters: Adapters,
    /// The plan lock.
    pub lock: Option<PathBuf>,
    /// The image.
    pub image: image::Choice,
    /// A user profile of system calls.
    pub seccomp: Option<PathBuf>,
    /// The limits that the user set.
    pub limits: limits::Requested,
}

/// What options change in the settings of a preset.
#[derive(Debug, Clone, Copy, Default)]
pub struct DatasetChanges {
    /// How texts lie in windows.
    pub packing: Option<Packing>,
    /// The seed that draws the windows.
    pub draw: Option<u64>,
}

/// Where the windows come from.
#[derive(Debug, Clone)]
pub enum DataSource {
    /// `--preset FILE`.
    Preset(PathBuf),
    /// `--dataset FILE`.
    File(PathBuf),
}

impl Request {
    /// What the evidence records of it.
    pub fn recorded(&self, warnings: &[Warning], lock: Option<&LockFile>) -> format::Request {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        format::Request {
            baseline: self.baseline.name.clone(),
            subject: self.subject.name.clone(),
            dataset: self.data.file().map(text),
            preset: self.data.preset().map(text),
            out: text(&self.out),
            report_out: text(&self.report_out),
            baseline_report: self.baseline_report.as_deref().map(text),
            edit_label: self.edit_label.clone(),
            lock: lock.map(|lock| lock.sha256.clone()),
            warnings: warnings.to_vec(),
        }
    }
}

impl DataSource {
    /// The preset, if there is one.
    pub fn preset(&self) -> Option<&Path> {
        match self {
            Self::Preset(path) => Some(path),
            Self::File(_) => None,
        }
    }

    /// The dataset file, if the user named one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Preset(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Everything an evaluation runs with. Its inputs are opened and not yet hashed: a check of both sides needs no digest.
pub struct Opened {
    /// What the user asked for.
    pub request: Request,
    /// Windows and data, with the window counts of the profile.
    pub dataset: Dataset,
    /// Settings of the preset that are not obeyed.
    pub preset_warnings: Vec<Warning>,
    /// The plan lock.
    pub lock: Option<LockFile>,
    /// Files of the baseline checkpoint.
    pub baseline: Vec<InputFile>,
    /// Files of the subject checkpoint.
    pub subject: Vec<InputFile>,
    /// Dataset files.
    pub data: Vec<InputFile>,
    /// The image; none for host execution.
    pub image: Option<Image>,
    /// The evaluator of host execution.
    pub host_evaluator: Option<PathBuf>,
    /// System-call filter of the workload.
    pub filter: Program,
    /// What the evidence records of a user profile; otherwise null.
    pub custom_filter: Option<CustomProfile>,
    /// Limits of one container.
    pub limits: Limits,
}

/// The digests of the inputs.
#[derive(Debug)]
pub struct Digests {
    /// Of the baseline checkpoint.
    pub baseline: Files,
    /// Of the subject checkpoint.
    pub subject: Files,
    /// Of the dataset files.
    pub data: Files,
}

/// Everything an evaluation runs with, and the digests of its inputs.
pub struct Plan {
    opened: Opened,
    /// The digests of the inputs.
    pub digests: Digests,
}

impl std::ops::Deref for Plan {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.opened
    }
}

/// Resolves the request and opens its inputs: cheap checks first.
pub fn open(request: Request, policy: &Policy, ui: &Ui) -> Result<Opened> {
    let lock = request.lock.as_deref().map(LockFile::read).transpose()?;
    let Preset { dataset, warnings: preset_warnings, adapter, .. } = settings(&request)?;
    let request = Request { adapters: request.adapters.or(adapter), ..request };
    refuse_outputs_in_checkpoints(&request)?;
    if policy.mode == ExecutionMode::HostBypass {
        request.limits.check_for_host()?;
    }
    Ok(Opened { lock, preset_warnings, ..assemble(request, dataset, policy, ui)? })
}

/// Opens the inputs of a request whose dataset settings are resolved.
pub fn assemble(request: Request, dataset: Dataset, policy: &Policy, ui: &Ui) -> Result<Opened> {
    let (filter, custom_filter) = filter(&request, policy)?;
    let baseline = checkpoint_files::open_checkpoint("baseline", &request.baseline.dir)?;
    let subject = checkpoint_files::open_subject(&request.subject.dir, &request.baseline.dir)?;
    let data = inputs::open_dataset(&dataset.files, request.data.preset())?;
    let (image, host_evaluator) = match policy.mode {
        ExecutionMode::Container => {
            let image = image::prepare(ui, &request.image, &policy.network)?;
            require_measure(&image)?;
            (Some(image), None)
        }
        ExecutionMode::HostBypass => (None, Some(image::evaluator(request.image.evaluator.as_deref())?)),
    };
    policy.network.close()?;
    Ok(Opened {
        limits: request.limits.resolve(limits::output_bytes(dataset.tokens())),
        baseline,
        subject,
        data,
        request,
        dataset,
        preset_warnings: Vec::new(),
        lock: None,
        image,
        host_evaluator,
        filter,
        custom_filter,
    })
}

/// The settings of a request, with its metric.
pub fn settings(request: &Request) -> Result<Preset> {
    let mut preset = dataset(&request.data, request.changes, request.profile)?;
    preset.metric.merge(request.metric.clone())?;
    preset.dataset.metric = preset.metric.kind();
    if preset.dataset.metric == Some(MetricKind::Accuracy) && preset.dataset.answers.is_none() {
        let provider = preset.dataset.provider;
        match (&request.data, provider) {
            (DataSource::File(_), Provider::LocalJsonl) => preset.dataset.take_choices()?,
            _ => {
                let message = format!(
                    "the metric accuracy is measured on examples with choices, but the provider is {}",
                    provider.name()
                );
                return Err(Error::input(message))
                    .hint("use the provider local_jsonl_choices or local_jsonl_labels in a preset");
            }
        }
    }
    Ok(preset)
}

/// The settings, with the window counts of the profile.
pub fn dataset(data: &DataSource, changes: DatasetChanges, profile: Profile) -> Result<Preset> {
    let mut preset = match data {
        DataSource::Preset(path) => preset::read(path)?,
        DataSource::File(path) => preset::for_file(path)?,
    };
    let Preset { dataset, sets_windows, sets_rows, warnings, .. } = &mut preset;
    dataset.packing = changes.packing.unwrap_or(dataset.packing);
    if let Some(seed) = changes.draw {
        dataset.draw_windows(seed)?;
    }
    if let Some((preview, final_)) = profile.window_counts() {
        if *sets_windows && (dataset.preview_n, dataset.final_n) != (preview, final_) {
            let instead = format!("profile {profile} measures {preview} + {final_} windows");
            warnings.push(Warning::preset_settings(&["dataset.preview_n", "dataset.final_n"], &instead));
        }
        (dataset.preview_n, dataset.final_n) = (preview, final_);
        dataset.max_samples = dataset.max_samples.max(preview + final_);
        preset::check(dataset).with_context(|| format!("profile {profile}"))?;
    }
    dataset.set_rows(*sets_rows);
    Ok(preset)
}

/// The filter, and what is recorded of a user profile.
pub fn filter(request: &Request, policy: &Policy) -> Result<(Program, Option<CustomProfile>)> {
    match (policy.mode, &request.seccomp) {
        (ExecutionMode::Container, user_profile) => {
            let builtin = match request.dtype {
                ComputeDtype::Float32 => BuiltinProfile::Evaluator,
                ComputeDtype::Bf16x3 => BuiltinProfile::EvaluatorAmx,
            };
            let filter = Filter::choose(user_profile.as_deref(), builtin)?;
            Ok((filter.program, filter.custom))
        }
        (ExecutionMode::HostBypass, None) => Ok((FilterProfile::no_network().compile()?, None)),
        (ExecutionMode::HostBypass, Some(_)) => {
            Err(Error::input("--seccomp: host execution has no container that the profile could apply to"))
                .hint("leave out --seccomp, or run in a container")
        }
    }
}

fn require_measure(image: &Image) -> Result<()> {
    let why = match image.resolved.speaks.as_deref() {
        Some("measure") => return Ok(()),
        Some(other) => format!("its label {LABEL} is `{other}`, not `measure`"),
        None => format!("it has no label {LABEL}=measure"),
    };
    let reference = &image.resolved.reference;
    Err(Error::unsupported(format!("image {reference} cannot measure checkpoints: {why}"))).hint(
        "leave out --image to use the default image, or see docs/formats.md, section \"The measuring container\"",
    )
}

fn refuse_outputs_in_checkpoints(request: &Request) -> Result<()> {
    let checkpoints = [("baseline", &request.baseline.dir), ("subject", &request.subject.dir)];
    refuse_outputs_in([&request.out, &request.report_out], checkpoints)
}

/// Refuses `--out` or `--report-out` inside a checkpoint.
pub fn refuse_outputs_in([out, report_out]: [&PathBuf; 2], checkpoints: [(&str, &PathBuf); 2]) -> Result<()> {
    let outputs = [("--out", out), ("--report-out", report_out)];
    checkpoints.into_iter().try_for_each(|(role, checkpoint)| {
        outputs.into_iter().try_for_each(|(flag, out)| refuse_inside(flag, out, role, checkpoint))
    })
}

/// An output directory inside a checkpoint would change what was measured.
fn refuse_inside(flag: &str, out: &Path, role: &str, checkpoint: &Path) -> Result<()> {
    let Ok(checkpoint) = std::fs::canonicalize(checkpoint) else { return Ok(()) };
    let absolute = std::path::absolute(out).with_context(|| format!("resolving {flag}"))?;
    let existing = absolute.ancestors().find_map(|a| std::fs::canonicalize(a).ok().map(|real| (a, real)));
    let Some((prefix, existing)) = existing else { return Ok(()) };
    // The directories that do not exist are created by name; a `..` among them would then be resolved differently.
    let rest = absolute.strip_prefix(prefix).unwrap_or(&absolute);
    if rest.components().any(|component| component == Component::ParentDir) {
        let message = format!("{flag} {}: `..` follows a directory that does not exist", out.display());
        return Err(Error::input(message)).hint("pass the directory without `..`");
    }
    if existing.starts_with(&checkpoint) {
        let (out, checkpoint) = (out.display(), checkpoint.display());
        let message = format!("{flag} {out}: inside the {role} checkpoint {checkpoint}");
        return Err(Error::input(message)).hint("choose a directory outside the checkpoint");
    }
    Ok(())
}

impl Opened {
    /// Hashes the inputs.
    pub fn hash(self, ui: &Ui, signals: &Signals) -> Result<Plan> {
        let digest =
            |label: &str, path: &Path, files: &[InputFile]| inputs::digest(ui, signals, label, path, files);
        // As the request names them: `ORG/NAME@REVISION`, or a path.
        let model = |model: &Model| PathBuf::from(&model.name);
        let first = || self.dataset.files.first().cloned().unwrap_or_default();
        let data_path = self.request.data.file().map_or_else(first, Path::to_path_buf);
        let digests = Digests {
            baseline: digest("baseline", &model(&self.request.baseline), &self.baseline)?,
            subject: digest("subject", &model(&self.request.subject), &self.subject)?,
            data: digest("dataset", &data_path, &self.data)?,
        };
        Ok(Plan { opened: self, digests })
    }

    /// The job of one side; `paths` are the paths of its inputs.
    pub fn job(&self, role: Role, task: Task, paths: JobPaths) -> Job {
        let request = &self.request;
        let model = match role {
            Role::Baseline => &request.baseline,
            Role::Subject => &request.subject,
        };
        let policy = (request.profile.as_str(), request.tier.as_str());
        let job = Job::new(role, task, &model.name, policy, &self.dataset.recorded(String::new()), paths);
        Job { compute_dtype: request.dtype, weight_only: request.weight_only, guards: request.guards, ..job }
    }

    /// The files of the checkpoint of one side.
    pub fn files(&self, role: Role) -> &[InputFile] {
        match role {
            Role::Baseline => &self.baseline,
            Role::Subject => &self.subject,
        }
    }
}

impl Plan {
    /// What decides which windows are measured, as the evidence records it.
    pub fn dataset_settings(&self) -> format::Dataset {
        self.dataset.recorded(self.digests.data.tree_sha256.clone())
    }

    /// The digest of the checkpoint of one side.
    pub fn digest(&self, role: Role) -> &Files {
        match role {
            Role::Baseline => &self.digests.baseline,
            Role::Subject => &self.digests.subject,
        }
    }
}
