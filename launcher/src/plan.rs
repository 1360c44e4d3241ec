//! The plan of an evaluation: everything is resolved before anything runs. The plan is what is executed, what `--dry-run` prints,
//! what is digested, and what the manifest records.

use crate::error::{Context as _, Error, Result};
use crate::filter::Filter;
use crate::image::{self, Image};
use crate::inputs::{self, InputFile, TreeDigest};
use crate::limits;
use crate::policy::Policy;
use crate::preset::{self, Dataset};
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::job::{JOB_CONTRACT, Job, Role, WindowSource};
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_runtime::Limits;
use invarlock_seccomp::{BuiltinProfile, Profile as FilterProfile, Program};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// The label of an image that names the program in it.
const LABEL: &str = "org.invarlock.speaks";

/// What the user asked to evaluate.
#[derive(Debug, Clone)]
pub struct Request {
    /// Directory of the baseline checkpoint.
    pub baseline: PathBuf,
    /// Directory of the subject checkpoint.
    pub subject: PathBuf,
    /// Where the windows come from.
    pub data: DataSource,
    /// The profile.
    pub profile: Profile,
    /// The tier.
    pub tier: Tier,
    /// Output directory of run reports and logs.
    pub out: PathBuf,
    /// Output directory of the evaluation report and its manifest.
    pub report_out: PathBuf,
    /// Run report of a baseline that was measured earlier.
    pub baseline_report: Option<PathBuf>,
    /// Name of the subject's edit.
    pub edit_label: Option<String>,
    /// The image.
    pub image: image::Choice,
    /// A user profile of system calls.
    pub seccomp: Option<PathBuf>,
    /// The limits that the user set.
    pub limits: limits::Requested,
}

/// Where the windows come from.
#[derive(Debug, Clone)]
pub enum DataSource {
    /// `--preset FILE`.
    Preset(PathBuf),
    /// `--dataset FILE`.
    File(PathBuf),
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

/// The opened and hashed files of a checkpoint or dataset.
#[derive(Debug)]
pub struct Input {
    /// Opened files.
    pub files: Vec<InputFile>,
    /// Their digests.
    pub digest: TreeDigest,
}

/// Everything an evaluation needs.
pub struct Plan {
    /// What the user asked for.
    pub request: Request,
    /// Windows and data, with the window counts of the profile.
    pub dataset: Dataset,
    /// Baseline checkpoint.
    pub baseline: Input,
    /// Subject checkpoint.
    pub subject: Input,
    /// Dataset files.
    pub data: Input,
    /// The image; none for host execution.
    pub image: Option<Image>,
    /// The evaluator of host execution.
    pub host_evaluator: Option<PathBuf>,
    /// System-call filter of the workload.
    pub filter: Program,
    /// What the evidence records of a user profile; otherwise null.
    pub custom_filter: Value,
    /// Limits of one container.
    pub limits: Limits,
}

/// Resolves the request: cheap checks first, hashing last.
pub fn make(request: Request, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<Plan> {
    let dataset = dataset(&request)?;
    refuse_outputs_in_checkpoints(&request)?;
    if policy.mode == ExecutionMode::HostBypass {
        request.limits.check_for_host()?;
    }
    let (filter, custom_filter) = filter(&request, policy)?;
    let baseline = inputs::open_checkpoint("baseline", &request.baseline)?;
    let subject = inputs::open_checkpoint("subject", &request.subject)?;
    let data = inputs::open_dataset(&dataset.files)?;
    let (image, host_evaluator) = match policy.mode {
        ExecutionMode::Container => {
            let image = image::prepare(ui, &request.image, &policy.network)?;
            require_measure(&image)?;
            (Some(image), None)
        }
        ExecutionMode::HostBypass => (None, Some(image::evaluator(request.image.evaluator.as_deref())?)),
    };
    policy.network.close()?;
    let data_path = dataset.files.first().cloned().unwrap_or_default();
    let digest = |label: &str, path: &Path, files: Vec<InputFile>| -> Result<Input> {
        Ok(Input { digest: inputs::digest(ui, signals, label, path, &files)?, files })
    };
    Ok(Plan {
        limits: request.limits.resolve(limits::output_bytes(dataset.tokens())),
        baseline: digest("baseline", &request.baseline, baseline)?,
        subject: digest("subject", &request.subject, subject)?,
        data: digest("dataset", &data_path, data)?,
        request,
        dataset,
        image,
        host_evaluator,
        filter,
        custom_filter,
    })
}

/// The dataset settings, with the window counts of the profile.
fn dataset(request: &Request) -> Result<Dataset> {
    let mut dataset = match &request.data {
        DataSource::Preset(path) => preset::read(path)?,
        DataSource::File(path) => preset::for_file(path),
    };
    if let Some((preview, final_)) = request.profile.window_counts() {
        (dataset.preview_n, dataset.final_n) = (preview, final_);
        dataset.max_samples = dataset.max_samples.max(preview + final_);
        preset::check(&dataset).with_context(|| format!("profile {}", request.profile))?;
    }
    Ok(dataset)
}

/// The filter, and what is recorded of a user profile.
fn filter(request: &Request, policy: &Policy) -> Result<(Program, Value)> {
    match (policy.mode, &request.seccomp) {
        (ExecutionMode::Container, user_profile) => {
            let filter = Filter::choose(user_profile.as_deref(), BuiltinProfile::Evaluator)?;
            Ok((filter.program, filter.custom))
        }
        (ExecutionMode::HostBypass, None) => Ok((FilterProfile::no_network().compile()?, Value::Null)),
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
    let outputs = [("--out", &request.out), ("--report-out", &request.report_out)];
    let checkpoints = [("baseline", &request.baseline), ("subject", &request.subject)];
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

impl Plan {
    /// The job of one side; `paths` are the paths of its inputs.
    pub fn job(&self, role: Role, paths: JobPaths) -> Job {
        let dataset = &self.dataset;
        let (model, windows) = match role {
            Role::Baseline => {
                let (text_field, max_samples) = (dataset.text_field.clone(), dataset.max_samples);
                let windows = WindowSource::LocalJsonl { files: paths.dataset, text_field, max_samples };
                (&self.request.baseline, windows)
            }
            Role::Subject => (&self.request.subject, WindowSource::Replay { file: paths.windows }),
        };
        Job {
            contract: JOB_CONTRACT.into(),
            role,
            model_id: model.to_string_lossy().into_owned(),
            profile: self.request.profile.to_string(),
            tier: self.request.tier.to_string(),
            checkpoint: paths.checkpoint,
            windows,
            seq_len: dataset.seq_len,
            stride: dataset.stride,
            preview_n: dataset.preview_n,
            final_n: dataset.final_n,
            split: dataset.split.clone(),
            seed: dataset.seed,
            threads: None,
        }
    }

    /// What decides which windows are measured, as the evidence records it.
    pub fn dataset_settings(&self) -> Value {
        let d = &self.dataset;
        serde_json::json!({
            "tree_sha256": self.data.digest.tree_sha256,
            "text_field": d.text_field, "max_samples": d.max_samples, "split": d.split, "seed": d.seed,
            "seq_len": d.seq_len, "stride": d.stride, "preview_n": d.preview_n, "final_n": d.final_n,
        })
    }

    /// The checkpoint of one side.
    pub fn checkpoint(&self, role: Role) -> &Input {
        match role {
            Role::Baseline => &self.baseline,
            Role::Subject => &self.subject,
        }
    }
}

/// The paths of a job's inputs, for the evaluator.
pub struct JobPaths {
    /// Checkpoint directory.
    pub checkpoint: String,
    /// Dataset files.
    pub dataset: Vec<String>,
    /// Baseline windows.
    pub windows: String,
}
