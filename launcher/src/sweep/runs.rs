//! The runs of a sweep: for each its arguments, and the directory that follows from what decides its numbers.

use super::plan::{SweepPlan, Variant};
use crate::args::{Cli, Command, EvaluateArgs};
use crate::error::{Context as _, Error, Result};
use crate::part::Part;
use crate::policy::Policy;
use crate::preset::Dataset;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::{checkpoint_files, hub, image, inputs, plan, request};
use clap::Parser as _;
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::guard_request::GuardRequest;
use invarlock_evidence::format::metrics::MetricKind;
use invarlock_evidence::format::plan as format;
use invarlock_evidence::format::tiers::Tiers;
use invarlock_evidence::format::to_value;
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Digits of a digest in the name of a directory.
const DIGITS: usize = 16;

/// One run.
pub struct Run {
    /// Name of the subject.
    pub subject: String,
    /// Name of the preset.
    pub preset: String,
    /// The seed that draws the windows.
    pub seed: Option<u64>,
    /// Name of its variant.
    pub variant: String,
    /// The run's options of `evaluate`, without those that all runs share.
    pub options: Vec<OsString>,
    /// The same, parsed with them.
    pub args: EvaluateArgs,
    /// About how long it takes, seconds.
    pub estimate: f64,
    /// Directory of its evidence, below that of the sweep.
    pub evidence: PathBuf,
    /// Directory of the run reports, which it shares with the other runs of its baseline, below that of the sweep.
    pub measured: PathBuf,
}

/// All runs of a sweep.
pub struct Runs {
    /// In the order of the plan: presets, then variants, then seeds, then subjects.
    pub runs: Vec<Run>,
    /// Digest of the image of all runs; none for host execution.
    pub image: Option<String>,
}

/// What decides the numbers of a run. A run with an equal one need not be repeated.
#[derive(Clone, Copy, Serialize)]
struct Identity<'a> {
    profile: &'a str,
    tier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tiers: Option<&'a Tiers>,
    #[serde(skip_serializing_if = "GuardRequest::is_default")]
    guards: GuardRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<ComputeDtype>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    weight_only: bool,
    mode: ExecutionMode,
    image: Option<&'a str>,
    filter: &'a str,
    dataset: &'a format::Dataset,
    baseline: &'a str,
    subject: Option<&'a str>,
    edit_label: Option<&'a str>,
}

impl Identity<'_> {
    fn digest(&self) -> String {
        sha256_hex(canonical_json(&to_value(self)).as_bytes())[..DIGITS].to_owned()
    }
}

/// The arguments of a run.
fn arguments(options: &[OsString], shared: &[OsString]) -> std::result::Result<EvaluateArgs, clap::Error> {
    let words = ["invarlock", "evaluate"].map(OsString::from);
    match Cli::try_parse_from(words.iter().chain(options).chain(shared))?.command {
        Command::Evaluate(args) => Ok(args),
        _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
    }
}

/// The options that all runs share, parsed: with placeholders for the checkpoints of a run.
pub fn shared_arguments(shared: &[OsString]) -> std::result::Result<EvaluateArgs, clap::Error> {
    arguments(&["--baseline", "-", "--subject", "-"].map(OsString::from), shared)
}

/// The error for options after `--` that `evaluate` does not take.
pub fn wrong_options(error: &clap::Error) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Error::input(format!("the options of evaluate after `--`: {first}"))
        .with_hint("`invarlock evaluate --help` lists them; the sweep sets the checkpoints, the preset, the outputs and --json")
}

impl Runs {
    /// Expands a part of a plan. Every input is hashed once. `out` is the directory of the sweep.
    pub fn of(
        plan: &SweepPlan,
        shared: &[OsString],
        part: Part,
        out: &Path,
        policy: &Policy,
        ui: &Ui,
        signals: &Signals,
    ) -> Result<Self> {
        let digests = Digests { ui, signals, known: BTreeMap::new() };
        let mut expansion = Expansion { plan, shared, out, policy, digests, image: None };
        let part = part.of(plan.runs());
        let mut group = 0..0;
        let mut runs = Vec::new();
        for preset in &plan.presets {
            for variant in &plan.variants {
                for seed in &plan.seeds {
                    group = group.end..group.end + plan.subjects.len();
                    let chosen =
                        part.start.clamp(group.start, group.end)..part.end.clamp(group.start, group.end);
                    let subjects = &plan.subjects[chosen.start - group.start..chosen.end - group.start];
                    runs.extend(expansion.group(preset, variant, *seed, subjects)?);
                }
            }
        }
        Ok(Self { runs, image: expansion.image })
    }
}

/// A plan while it is expanded.
struct Expansion<'a> {
    plan: &'a SweepPlan,
    shared: &'a [OsString],
    out: &'a Path,
    policy: &'a Policy,
    digests: Digests<'a>,
    /// Digest of the image, once it is known.
    image: Option<String>,
}

impl Expansion<'_> {
    /// The runs of a preset, a variant and a seed: one for each chosen subject, all with the same windows and the same baseline.
    fn group(
        &mut self,
        (preset, file): &(String, PathBuf),
        variant: &Variant,
        seed: Option<u64>,
        chosen: &[(String, PathBuf)],
    ) -> Result<Vec<Run>> {
        let mut subjects = Vec::new();
        for (name, checkpoint) in chosen {
            let options = self.options(checkpoint, file, variant, seed);
            let args = arguments(&options, self.shared).map_err(|error| wrong_options(&error))?;
            subjects.push((name, options, args));
        }
        let Some((_, _, first)) = subjects.first() else { return Ok(Vec::new()) };
        let (request, edit_label) = (request::of_evaluate(first)?, first.edit_label.clone());
        let (filter, _) = plan::filter(&request, self.policy)?;
        let settings = plan::settings(&request)?.dataset;
        if settings.metric == Some(MetricKind::Accuracy) {
            return Err(Error::unsupported(format!(
                "a sweep compares perplexities, but the metric of {} is accuracy",
                file.display()
            )))
            .hint("evaluate each subject by itself; --baseline-report measures the baseline once");
        }
        if self.policy.mode == ExecutionMode::Container && self.image.is_none() {
            let prepared = image::prepare(self.digests.ui, &request.image, &self.policy.network)?;
            self.image = Some(prepared.resolved.manifest_digest.to_string());
        }
        let baseline = self.digests.baseline(&request.baseline.dir)?;
        let shared = Identity {
            profile: request.profile.as_str(),
            tier: request.tier.as_str(),
            tiers: request.tiers.as_ref(),
            guards: request.guards,
            // Without a member, the digest is that of older versions.
            dtype: Some(request.dtype).filter(|dtype| *dtype != ComputeDtype::default()),
            weight_only: request.weight_only,
            mode: self.policy.mode,
            image: self.image.as_deref(),
            filter: &filter.digest,
            dataset: &settings.recorded(self.digests.dataset(&settings, file)?.tree_sha256),
            baseline: &baseline.tree_sha256,
            subject: None,
            edit_label: None,
        };
        let measured = Path::new("measured").join(shared.digest());
        let mut runs = Vec::new();
        for (name, mut options, args) in subjects {
            let digest = self.digests.subject(&args.subject, &request.baseline.dir)?;
            let estimate = estimate(baseline.bytes + digest.bytes, settings.tokens());
            let own =
                Identity { subject: Some(&digest.tree_sha256), edit_label: edit_label.as_deref(), ..shared };
            let evidence = Path::new("runs").join(own.digest());
            for (option, directory) in [("--report-out", &evidence), ("--out", &measured)] {
                options.extend([option.into(), self.out.join(directory).into_os_string()]);
            }
            let (subject, preset, measured) = (name.clone(), preset.clone(), measured.clone());
            let variant = variant.name.clone();
            runs.push(Run { subject, preset, seed, variant, options, args, estimate, evidence, measured });
        }
        Ok(runs)
    }

    /// The options of a run, without its directories.
    fn options(&self, subject: &Path, preset: &Path, variant: &Variant, seed: Option<u64>) -> Vec<OsString> {
        let paths = [("--baseline", &*self.plan.baseline), ("--subject", subject), ("--preset", preset)];
        let mut options: Vec<OsString> = paths
            .into_iter()
            .flat_map(|(option, path)| [option.into(), path.as_os_str().to_owned()])
            .collect();
        options.extend(variant.options.iter().cloned());
        if let Some(seed) = seed {
            options.extend(["--draw-windows".into(), seed.to_string().into()]);
        }
        options.push("--json".into());
        options
    }
}

/// About how long both sides take, seconds, of which one is for the containers: a multiplication and an addition for each weight and token,
/// at a rate that two threads reach. Weights have about two bytes.
fn estimate(bytes: u64, tokens: usize) -> f64 {
    const RATE: f64 = 5e10;
    1.0 + bytes as f64 / 2.0 * 2.0 * tokens as f64 / RATE
}

/// An input that was hashed.
#[derive(Clone)]
struct Hashed {
    /// Its digest.
    tree_sha256: String,
    /// Its size.
    bytes: u64,
}

/// Digests of inputs, each of which is read once.
struct Digests<'a> {
    ui: &'a Ui,
    signals: &'a Signals,
    known: BTreeMap<Vec<PathBuf>, Hashed>,
}

impl Digests<'_> {
    fn get(
        &mut self,
        key: Vec<PathBuf>,
        label: &str,
        open: impl FnOnce() -> Result<Vec<inputs::InputFile>>,
    ) -> Result<Hashed> {
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let path = key.first().cloned().unwrap_or_default();
        let files = inputs::digest(self.ui, self.signals, label, &path, &open()?)?;
        let bytes = files.files.iter().map(|file| file.bytes).sum();
        let hashed = Hashed { tree_sha256: files.tree_sha256, bytes };
        self.known.insert(key, hashed.clone());
        Ok(hashed)
    }

    /// `dir` is the directory of the checkpoint.
    fn baseline(&mut self, dir: &Path) -> Result<Hashed> {
        self.get(vec![dir.to_owned()], "baseline", || checkpoint_files::open_checkpoint("baseline", dir))
    }

    /// `path` is as the plan names it, `base` the directory of the baseline.
    fn subject(&mut self, path: &Path, base: &Path) -> Result<Hashed> {
        let dir = hub::model("--subject", path)?.dir;
        self.get(vec![dir.clone(), base.to_owned()], "subject", || checkpoint_files::open_subject(&dir, base))
    }

    fn dataset(&mut self, dataset: &Dataset, preset: &Path) -> Result<Hashed> {
        self.get(dataset.files.clone(), "dataset", || inputs::open_dataset(&dataset.files, Some(preset)))
            .with_context(|| format!("preset {}", preset.display()))
    }
}
