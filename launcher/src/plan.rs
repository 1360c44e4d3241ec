//! The plan of an evaluation: everything resolved before anything runs. It is what is executed, what `--dry-run` prints,
//! what is digested, and what the manifest records.

use crate::args::{EvaluateArgs, ExecutionMode, LimitArgs};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::image::{self, Image};
use crate::inputs::{self, InputFile, TreeDigest};
use crate::policy::Policy;
use crate::preset::{self, Dataset};
use crate::signals::Signals;
use crate::transport;
use crate::ui::Ui;
use invarlock_error::Context as _;
use invarlock_evidence::job::{JOB_CONTRACT, Job, Role, WindowSource};
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_runtime::{LimitName, Limits, Outcome};
use invarlock_seccomp::{BuiltinProfile, Profile as FilterProfile, Program};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Room in `/out` besides the tokens of a run report.
pub const OUTPUT_BYTES: u64 = 8 << 20;
/// Room for a token: its id, its mask and its label as text.
const OUTPUT_BYTES_A_TOKEN: u64 = 24;

/// A checkpoint or dataset ready to be mounted.
#[derive(Debug)]
pub struct Input {
    /// Opened files.
    pub files: Vec<InputFile>,
    /// Their digests.
    pub digest: TreeDigest,
}

/// Everything an evaluation needs.
pub struct Plan {
    /// The profile.
    pub profile: Profile,
    /// The tier.
    pub tier: Tier,
    /// Windows and data, the profile's counts applied.
    pub dataset: Dataset,
    /// Baseline checkpoint.
    pub baseline: Input,
    /// Subject checkpoint.
    pub subject: Input,
    /// Dataset files.
    pub data: Input,
    /// The image; none for host execution.
    pub image: Option<Image>,
    /// The program host execution runs.
    pub host_evaluator: Option<PathBuf>,
    /// System-call filter of the workload.
    pub filter: Program,
    /// Where that comes from, if the user brought it; else null.
    pub custom_filter: Value,
    /// Limits of one container.
    pub limits: Limits,
}

/// Resolves the arguments: cheap checks first, hashing last.
pub fn make(args: &EvaluateArgs, policy: &Policy, ui: &Ui, signals: &Signals) -> Result<Plan> {
    let (profile, tier) = profile_and_tier(args)?;
    unsupported_options(args)?;
    let mut dataset = dataset(args)?;
    if let Some((preview, final_)) = profile.window_counts() {
        (dataset.preview_n, dataset.final_n) = (preview, final_);
        dataset.max_samples = dataset.max_samples.max(preview + final_);
        preset::check(&dataset).map_err(|why| Error::input(format!("profile {profile}: {why}")))?;
    }
    let outputs = [("--out", &args.out), ("--report-out", &args.report_out)];
    let inputs = [("baseline", &args.baseline), ("subject", &args.subject)];
    for (role, dir) in inputs {
        outputs.iter().try_for_each(|(flag, out)| refuse_inside(flag, out, role, dir))?;
    }
    let (filter, custom_filter) = filter(args, policy)?;
    let baseline = inputs::open_checkpoint("baseline", &args.baseline)?;
    let subject = inputs::open_checkpoint("subject", &args.subject)?;
    let data = inputs::open_dataset(&dataset.files)?;
    let (image, host_evaluator) = match policy.mode {
        ExecutionMode::Container => {
            let runtime = &args.runtime;
            let verify = runtime.care.verify_image;
            let image = image::prepare(ui, &runtime.into(), verify, policy)?;
            require_measure(&image)?;
            (Some(image), None)
        }
        ExecutionMode::Host => (None, Some(image::evaluator(args.runtime.evaluator.as_deref())?)),
    };
    transport::close(policy)?;
    let data_path = dataset.files.first().cloned().unwrap_or_default();
    let digest = |label: &str, path: &Path, files: Vec<InputFile>| -> Result<Input> {
        Ok(Input { digest: inputs::digest(ui, signals, label, path, &files)?, files })
    };
    Ok(Plan {
        profile,
        tier,
        limits: limits(&args.runtime.limits, OUTPUT_BYTES + dataset.tokens() as u64 * OUTPUT_BYTES_A_TOKEN),
        baseline: digest("baseline", &args.baseline, baseline)?,
        subject: digest("subject", &args.subject, subject)?,
        data: digest("dataset", &data_path, data)?,
        dataset,
        image,
        host_evaluator,
        filter,
        custom_filter,
    })
}

/// The filter, and what is recorded of one that the user brought.
fn filter(args: &EvaluateArgs, policy: &Policy) -> Result<(Program, Value)> {
    match (policy.mode, &args.runtime.seccomp) {
        (ExecutionMode::Container, given) => {
            let filter = Filter::choose(given.as_deref(), BuiltinProfile::Evaluator)?;
            Ok((filter.program, filter.custom))
        }
        (ExecutionMode::Host, None) => Ok((FilterProfile::no_network().compile()?, Value::Null)),
        (ExecutionMode::Host, Some(_)) => Err(Error::input(
            "--seccomp is for containers, and host execution has none; leave one of them out",
        )),
    }
}

fn profile_and_tier(args: &EvaluateArgs) -> Result<(Profile, Tier)> {
    let profile: Profile = args.profile.parse().map_err(|e| Error::input(format!("--profile: {e}")))?;
    let tier: Tier = args.tier.parse().map_err(|e| Error::input(format!("--tier: {e}")))?;
    if profile.needs_all_guards() {
        return Err(Error::new(
            Kind::Unsupported,
            "--profile release needs the spectral, rmt and variance guards, which are not built yet; use --profile ci",
        ));
    }
    Ok((profile, tier))
}

fn unsupported_options(args: &EvaluateArgs) -> Result<()> {
    match args.device.as_str() {
        "auto" | "cpu" => {}
        d if d == "mps" || d.starts_with("cuda") => {
            return Err(Error::new(
                Kind::Unsupported,
                format!("--device {d}: this evaluator measures on the CPU; use --device cpu"),
            ));
        }
        d => return Err(Error::input(format!("--device {d}: unknown; use auto or cpu"))),
    }
    let adapters = [Some(&args.adapter), args.baseline_adapter.as_ref(), args.subject_adapter.as_ref()];
    match adapters.into_iter().flatten().find(|a| !["auto", "hf_causal"].contains(&a.as_str())) {
        Some(a) => {
            Err(Error::new(Kind::Unsupported, format!("adapter {a}: only hf_causal is built; use auto")))
        }
        None => Ok(()),
    }
}

fn dataset(args: &EvaluateArgs) -> Result<Dataset> {
    match (&args.preset, &args.dataset) {
        (Some(preset), _) => preset::read(preset),
        (None, Some(file)) => Ok(preset::for_file(file)),
        (None, None) => Err(Error::input(
            "no dataset given, and upstream's default one needs the network; pass --dataset FILE.jsonl or --preset FILE.yaml",
        )),
    }
}

fn require_measure(image: &Image) -> Result<()> {
    match image.resolved.speaks.as_deref() {
        Some("measure") => Ok(()),
        other => Err(Error::new(
            Kind::Unsupported,
            format!(
                "image {} speaks {}; evaluate needs one that speaks `measure` (others are not built yet)",
                image.resolved.reference,
                other.unwrap_or("nothing we know")
            ),
        )),
    }
}

/// An output directory inside a checkpoint would change what was measured.
fn refuse_inside(flag: &str, out: &Path, role: &str, checkpoint: &Path) -> Result<()> {
    let Ok(checkpoint) = std::fs::canonicalize(checkpoint) else { return Ok(()) };
    let absolute = std::path::absolute(out).context(format_args!("resolving {flag}"))?;
    let existing = absolute.ancestors().find_map(|a| std::fs::canonicalize(a).ok().map(|real| (a, real)));
    let Some((prefix, existing)) = existing else { return Ok(()) };
    // What does not exist yet is made by its name; a `..` in it would mean something else by then.
    let rest = absolute.strip_prefix(prefix).unwrap_or(&absolute);
    if rest.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(Error::input(format!(
            "{flag} {}: has `..` after a directory that does not exist",
            out.display()
        )));
    }
    match existing.starts_with(&checkpoint) {
        true => Err(Error::input(format!(
            "{flag} {}: lies inside the {role} checkpoint {}; choose a directory elsewhere",
            out.display(),
            checkpoint.display()
        ))),
        false => Ok(()),
    }
}

/// What was asked for, and for the rest sane defaults from the machine; `output` is the default room in `/out`.
pub fn limits(asked: &LimitArgs, output: u64) -> Limits {
    let mut limits = Limits { output_bytes: output, output_files: 4, ..Limits::for_machine() };
    let mut set = |name, given: bool| {
        if given {
            limits.required.insert(name);
        }
    };
    set(LimitName::Memory, asked.memory.is_some());
    set(LimitName::Cpu, asked.cpus.is_some());
    set(LimitName::Pids, asked.pids.is_some());
    set(LimitName::Wall, asked.timeout.is_some());
    set(LimitName::Tmp, asked.tmp_size.is_some());
    set(LimitName::Output, asked.output_size.is_some());
    limits.memory_bytes = asked.memory.unwrap_or(limits.memory_bytes);
    limits.cpus = asked.cpus.unwrap_or(limits.cpus);
    limits.pids = asked.pids.unwrap_or(limits.pids);
    limits.wall = asked.timeout.map_or(limits.wall, Duration::from_secs);
    limits.tmp_bytes = asked.tmp_size.unwrap_or(limits.tmp_bytes);
    limits.output_bytes = asked.output_size.unwrap_or(limits.output_bytes);
    limits
}

/// The flag of a limit.
fn flag(name: LimitName) -> Option<&'static str> {
    match name {
        LimitName::Memory => Some("--memory"),
        LimitName::Cpu => Some("--cpus"),
        LimitName::Pids => Some("--pids"),
        LimitName::Wall => Some("--timeout"),
        LimitName::Tmp => Some("--tmp-size"),
        LimitName::Output => Some("--output-size"),
        LimitName::Files | LimitName::Core | LimitName::OutputFiles => None,
    }
}

/// The limits that a run met, each a sentence for people: `the pids limit (96 processes) was reached; raise --pids`.
pub fn limits_hit(outcome: &Outcome) -> Vec<String> {
    let rows = &outcome.observations.limits.value;
    let say = |name: &LimitName| {
        let value = rows.iter().find(|row| row.name == *name).map(|row| match row.unit.as_str() {
            "bytes" => crate::ui::size(row.effective.unwrap_or(row.requested)),
            "milliseconds" => format!("{} s", row.effective.unwrap_or(row.requested) as f64 / 1000.0),
            unit => format!("{} {unit}", row.effective.unwrap_or(row.requested)),
        });
        let value = value.map_or_else(String::new, |value| format!(" ({value})"));
        let remedy = flag(*name).map_or_else(String::new, |flag| format!("; raise {flag}"));
        format!("the {name} limit{value} was reached{remedy}")
    };
    outcome.usage.limits_hit.iter().map(say).collect()
}

impl Plan {
    /// The job of one side; `dir` is where the container sees its inputs (`/in`).
    pub fn job(&self, role: Role, args: &EvaluateArgs, paths: JobPaths) -> Job {
        let (given, windows) = match role {
            Role::Baseline => {
                let d = &self.dataset;
                let (text_field, max_samples) = (d.text_field.clone(), d.max_samples);
                (&args.baseline, WindowSource::LocalJsonl { files: paths.dataset, text_field, max_samples })
            }
            Role::Subject => (&args.subject, WindowSource::Replay { file: paths.windows }),
        };
        Job {
            contract: JOB_CONTRACT.into(),
            role,
            model_id: given.to_string_lossy().into_owned(),
            profile: self.profile.to_string(),
            tier: self.tier.to_string(),
            checkpoint: paths.checkpoint,
            windows,
            seq_len: self.dataset.seq_len,
            stride: self.dataset.stride,
            preview_n: self.dataset.preview_n,
            final_n: self.dataset.final_n,
            split: self.dataset.split.clone(),
            seed: self.dataset.seed,
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

/// Where a job's inputs lie for the process that reads them.
pub struct JobPaths {
    /// Checkpoint directory.
    pub checkpoint: String,
    /// Dataset files.
    pub dataset: Vec<String>,
    /// Baseline windows.
    pub windows: String,
}
