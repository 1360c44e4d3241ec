//! The runs of a sweep: for each its arguments, and the directory that follows from what decides its numbers.

use super::plan::SweepPlan;
use crate::args::{Cli, Command, EvaluateArgs};
use crate::error::{Context as _, Error, Result};
use crate::policy::Policy;
use crate::preset::Dataset;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::{checkpoint_files, hub, image, inputs, plan, request};
use clap::Parser as _;
use invarlock_evidence::format::plan as format;
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
    /// The run's options of `evaluate`, without those that all runs share.
    pub options: Vec<OsString>,
    /// The same, parsed with them.
    pub args: EvaluateArgs,
    /// Directory of its evidence, below that of the sweep.
    pub evidence: PathBuf,
    /// Directory of the run reports, which it shares with the other runs of its baseline, below that of the sweep.
    pub measured: PathBuf,
}

/// All runs of a sweep.
pub struct Runs {
    /// In the order of the plan: presets, then seeds, then subjects.
    pub runs: Vec<Run>,
    /// Digest of the image of all runs; none for host execution.
    pub image: Option<String>,
}

/// What decides the numbers of a run. A run with an equal one need not be repeated.
#[derive(Serialize)]
struct Identity<'a> {
    profile: &'a str,
    tier: &'a str,
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
pub fn arguments(
    options: &[OsString],
    shared: &[OsString],
) -> std::result::Result<EvaluateArgs, clap::Error> {
    let words = ["invarlock", "evaluate"].map(OsString::from);
    match Cli::try_parse_from(words.iter().chain(options).chain(shared))?.command {
        Command::Evaluate(args) => Ok(args),
        _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
    }
}

/// The error for options after `--` that `evaluate` does not take.
pub fn wrong_options(error: &clap::Error) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Error::input(format!("the options of evaluate after `--`: {first}"))
        .with_hint("`invarlock evaluate --help` lists them; the sweep sets the checkpoints, the preset, the outputs and --json")
}

impl Runs {
    /// Expands a plan. Every input is hashed once. `out` is the directory of the sweep.
    pub fn of(
        plan: &SweepPlan,
        shared: &[OsString],
        out: &Path,
        policy: &Policy,
        ui: &Ui,
        signals: &Signals,
    ) -> Result<Self> {
        let mut digests = Digests { ui, signals, known: BTreeMap::new() };
        let mut image = None;
        let mut runs = Vec::new();
        for (preset, file) in &plan.presets {
            for seed in &plan.seeds {
                for (subject, checkpoint) in &plan.subjects {
                    let mut options = Vec::new();
                    let mut option = |name: &str, value: &Path| {
                        options.extend([OsString::from(name), value.as_os_str().to_owned()]);
                    };
                    option("--baseline", &plan.baseline);
                    option("--subject", checkpoint);
                    option("--preset", file);
                    if let Some(seed) = seed {
                        option("--draw-windows", Path::new(&seed.to_string()));
                    }
                    options.push("--json".into());
                    let args = arguments(&options, shared).map_err(|error| wrong_options(&error))?;
                    let request = request::of_evaluate(&args)?;
                    let (filter, _) = plan::filter(&request, policy)?;
                    let settings = plan::settings(&request)?.dataset;
                    if policy.mode == ExecutionMode::Container && image.is_none() {
                        let prepared = image::prepare(ui, &request.image, &policy.network)?;
                        image = Some(prepared.resolved.manifest_digest.to_string());
                    }
                    let of_all = Identity {
                        profile: request.profile.as_str(),
                        tier: request.tier.as_str(),
                        mode: policy.mode,
                        image: image.as_deref(),
                        filter: &filter.digest,
                        dataset: &settings.recorded(digests.dataset(&settings, file)?),
                        baseline: &digests.baseline(&args.baseline)?,
                        subject: None,
                        edit_label: None,
                    };
                    let group = of_all.digest();
                    let subject_digest = digests.subject(&args.subject, &args.baseline)?;
                    let own = Identity {
                        subject: Some(&subject_digest),
                        edit_label: args.edit_label.as_deref(),
                        ..of_all
                    };
                    let evidence = Path::new("runs").join(own.digest());
                    let measured = Path::new("measured").join(group);
                    let mut option = |name: &str, value: &Path| {
                        options.extend([OsString::from(name), out.join(value).into_os_string()]);
                    };
                    option("--report-out", &evidence);
                    option("--out", &measured);
                    let (subject, preset) = (subject.clone(), preset.clone());
                    runs.push(Run { subject, preset, seed: *seed, options, args, evidence, measured });
                }
            }
        }
        Ok(Self { runs, image })
    }
}

/// Digests of inputs, each of which is read once.
struct Digests<'a> {
    ui: &'a Ui,
    signals: &'a Signals,
    known: BTreeMap<Vec<PathBuf>, String>,
}

impl Digests<'_> {
    fn get(
        &mut self,
        key: Vec<PathBuf>,
        label: &str,
        open: impl FnOnce() -> Result<Vec<inputs::InputFile>>,
    ) -> Result<String> {
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let path = key.first().cloned().unwrap_or_default();
        let digest = inputs::digest(self.ui, self.signals, label, &path, &open()?)?.tree_sha256;
        self.known.insert(key, digest.clone());
        Ok(digest)
    }

    fn baseline(&mut self, path: &Path) -> Result<String> {
        let dir = hub::model("--baseline", path)?.dir;
        self.get(vec![dir.clone()], "baseline", || checkpoint_files::open_checkpoint("baseline", &dir))
    }

    fn subject(&mut self, path: &Path, baseline: &Path) -> Result<String> {
        let (dir, base) = (hub::model("--subject", path)?.dir, hub::model("--baseline", baseline)?.dir);
        self.get(vec![dir.clone(), base.clone()], "subject", || checkpoint_files::open_subject(&dir, &base))
    }

    fn dataset(&mut self, dataset: &Dataset, preset: &Path) -> Result<String> {
        self.get(dataset.files.clone(), "dataset", || inputs::open_dataset(&dataset.files, Some(preset)))
            .with_context(|| format!("preset {}", preset.display()))
    }
}
