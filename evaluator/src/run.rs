//! Runs a job: opens its inputs, measures, and writes the report. A `check` job opens and checks the same inputs and measures nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use invarlock_evidence::compare::Sample;
use invarlock_evidence::events::ArmName;
use invarlock_evidence::format::check_report::{CHECK_CONTRACT, CheckReport, CheckpointFacts};
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::evaluation_report::UpstreamVariancePolicy;
use invarlock_evidence::format::guard_request::GuardMode;
use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::job::{JOB_CONTRACT, Job, Role, Task, WindowSource};
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::run_report::{BaselineWindows, RunReport};
use serde::Serialize;
use serde_json::{Value, json};

use crate::checkpoint::{ADAPTER_CONFIG, CONFIG, Checkpoint, exists, scan};
use crate::math::products::Products;
use crate::measure::{Workers, weighted_mean};
use crate::model::{Arithmetic, Model};
use crate::progress::Progress;
use crate::report::{self, Measured};
use crate::tokenizer::Tokenizer;
use crate::windows::{self, JOIN, Windows, WindowsSource, check_size, equal_rows, joinable};
use crate::{facts, files, guards, journal, limits, selftest, texts};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result, bail};

/// The type of numbers whose range is smaller than that of float32.
const NARROW: &str = "float16";

/// Runs the job in a file and writes its output into `out`: `events.jsonl` and `report.json`, or `check.json` of a check. On failure no
/// file is left there.
pub fn run(job: &Path, out: &Path, progress: &Progress) -> Result<()> {
    let job: Job = files::read_json(job, "job", limits::CONFIG_BYTES)?;
    let output = Output::prepare(out)?;
    let mut events = Events::new();
    check_job(&job)?;
    let arithmetic = Arithmetic { products: products(job.compute_dtype)?, weight_only: job.weight_only };
    events.add("start", json!({"role": job.role, "model_id": job.model_id, "version": crate::VERSION}));
    let start = Instant::now();
    let checkpoint = open_checkpoint(Path::new(&job.checkpoint))?;
    let prepared = Prepared::open(&job, (&checkpoint, arithmetic), start, progress, &mut events)?;
    match job.task {
        Task::Check => output.write(&[("check.json", &to_json(&prepared.check_report(&job))?)]),
        Task::Measure => {
            let report = to_json(&prepared.measure(&job, progress, &mut events)?)?;
            output.write(&[("events.jsonl", &events.lines), ("report.json", &report)])
        }
    }
}

/// The arithmetic of the products. What the default one needs, every processor has, and `--self-test` checks it.
fn products(dtype: ComputeDtype) -> Result<Products> {
    let products = Products::of(dtype)?;
    if products != Products::default() {
        selftest::check(products)?;
    }
    Ok(products)
}

/// Opens a checkpoint. A directory with an adapter beside the weights asks for the sum of both.
fn open_checkpoint(directory: &Path) -> Result<Checkpoint> {
    match exists(&directory.join(ADAPTER_CONFIG)) && exists(&directory.join(CONFIG)) {
        true => Checkpoint::open_with_adapter(directory, directory),
        false => Checkpoint::open(directory),
    }
}

fn to_json(report: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(report).err_kind(Kind::System).context("serializing the report")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Everything that a measurement needs. Opening it finds every fault that does not take arithmetic on the weights.
struct Prepared<'a> {
    checkpoint: &'a Checkpoint,
    workers: Workers,
    model: Model<'a>,
    facts: CheckpointFacts,
    /// None where a subject has none.
    tokenizer: Option<Tokenizer>,
    source: WindowsSource,
    windows: Windows,
    opened: Duration,
    tokenized: Duration,
}

impl<'a> Prepared<'a> {
    /// Builds the model, and opens tokenizer and windows. The checkpoint was opened after `start`.
    fn open(
        job: &Job,
        (checkpoint, arithmetic): (&'a Checkpoint, Arithmetic),
        start: Instant,
        progress: &Progress,
        events: &mut Events,
    ) -> Result<Self> {
        let workers = Workers::new(job.threads)?;
        let model = Model::load_with(checkpoint, job.seq_len, arithmetic)?;
        check_positions(job, &model)?;
        let tokenizer = Tokenizer::open(checkpoint, &model.info, job.seq_len)?;
        events.add(
            "checkpoint",
            json!({"model_type": model.info.model_type, "parameters": model.info.checks.parameter_count}),
        );
        let opened = start.elapsed();

        let start = Instant::now();
        let (windows, source) =
            workers.run(|| windows::open(job, checkpoint, &model.info, tokenizer.as_ref(), progress))?;
        check_sample(job, model.info.objective, &windows)?;
        events.add(
            "windows",
            json!({"preview": windows.preview.windows.len(), "final": windows.final_.windows.len(),
                "blank": windows.blank, "short": windows.short}),
        );
        let mut facts = facts::of(&checkpoint.config, &model.info, arithmetic);
        facts.tokenizer = source.subject.clone();
        let tokenized = start.elapsed();
        Ok(Self { checkpoint, workers, model, facts, tokenizer, source, windows, opened, tokenized })
    }

    fn check_report(&self, job: &Job) -> CheckReport {
        CheckReport {
            contract: CHECK_CONTRACT.to_owned(),
            role: job.role,
            objective: self.model.info.objective,
            checkpoint: self.facts.clone(),
            windows: BaselineWindows {
                tokenizer_hash: Some(self.source.hash.clone()),
                tokenizer: self.source.described.clone(),
                objective: self.model.info.objective,
                preview: report::replay_arm(&self.windows.preview),
                final_: report::replay_arm(&self.windows.final_),
            },
        }
    }

    /// Reads the weights and computes the losses.
    fn measure(&self, job: &Job, progress: &Progress, events: &mut Events) -> Result<RunReport> {
        let Self { checkpoint, workers, model, windows, .. } = self;
        let products = model.products();
        let journal = journal::open(job, products)?;
        if !journal.is_empty() {
            events.add("resumed", json!({"preview": journal.preview.len(), "final": journal.final_.len()}));
        }
        let start = Instant::now();
        let total = model.info.tensors.iter().map(|(_, t)| t.bytes.len() as u64).sum();
        let done = AtomicU64::new(0);
        progress.report("load", 0, total);
        workers.run(|| {
            scan(&model.info.tensors, &|bytes| {
                let n = bytes.len() as u64;
                progress.report("load", done.fetch_add(n, Ordering::Relaxed) + n, total);
                if !workers.keeps(model) {
                    checkpoint.tensors.release(bytes);
                }
            })
            .context(&job.checkpoint)
        })?;
        let loaded = self.opened + start.elapsed();
        events.add("loaded", json!({"bytes": total}));

        // float32 has the range of every other type that checkpoints run in.
        if self.facts.checkpoint_dtype.as_deref() == Some(NARROW) {
            model.watch_activations();
        }
        let start = Instant::now();
        let mut arms = [Vec::new(), Vec::new()];
        for ((name, part, arm, known), losses) in [
            ("preview", ArmName::Preview, &windows.preview, &journal.preview),
            ("final", ArmName::Final, &windows.final_, &journal.final_),
        ]
        .into_iter()
        .zip(&mut arms)
        {
            let (n, tokens) = (arm.windows.len(), arm.tokens());
            let rest = arm.windows.iter().skip(known.len()).map(|window| window.real as u64).sum();
            progress.report(name, 0, rest);
            let report = |done| progress.report(name, done, rest);
            let finished = &mut |first, losses: &[f64]| {
                progress.line(&journal::finished(part, first, losses, products));
            };
            *losses = workers.losses_of_arm(model, name, arm, known, &report, finished)?;
            let mean = weighted_mean(losses, arm);
            events.add(name, json!({"windows": n, "tokens": tokens, "logloss": mean}));
        }
        let [preview, final_] = arms;
        let evaluated = start.elapsed();
        // The windows of an interrupted run were not looked at.
        let largest = model.largest_activation().filter(|_| journal.is_empty());
        let largest_activation = largest.map(|largest| f64::from(largest.min(f32::MAX)));
        let facts = CheckpointFacts { largest_activation, ..self.facts.clone() };
        let start = Instant::now();
        let predicted_texts = self.predicted_texts(job, events);
        let decoded = start.elapsed();
        let start = Instant::now();
        let upstream = upstream_policy(job)?;
        let statistics = guards::measure(workers, model, windows, upstream.as_ref(), &|done, total| {
            progress.report("guards", done, total);
        });
        let guarded = start.elapsed();
        events.add("guards", json!({"modules": statistics.weights.len()}));
        events.add("done", json!({}));
        Measured {
            job,
            info: &model.info,
            facts: &facts,
            tokenizer: self.source.recorded(self.tokenizer.as_ref()),
            used_tokens: self.source.used_tokens(job.role),
            windows,
            preview: &preview,
            final_: &final_,
            predicted_texts,
            resumed: [journal.preview.len(), journal.final_.len()],
            products,
            threads: workers.threads(),
            opened: loaded,
            tokenized: self.tokenized + decoded,
            evaluated,
            statistics,
            guarded,
        }
        .report()
    }

    /// The texts of the baseline's final windows. A measurement does not need them, so it does not fail without them.
    fn predicted_texts(&self, job: &Job, events: &mut Events) -> Option<Vec<String>> {
        let tokenizer = self.tokenizer.as_ref().filter(|_| job.role == Role::Baseline)?;
        let texts = self.workers.run(|| texts::predicted(tokenizer, &self.windows.final_));
        if let Err(error) = &texts {
            events.add("no texts", json!({"reason": error.to_string()}));
        }
        texts.ok()
    }
}

/// The policy of the variance guard of InvarLock 0.12, where its guards are asked for.
fn upstream_policy(job: &Job) -> Result<Option<UpstreamVariancePolicy>> {
    let profile: Profile = job.profile.parse().err_kind(Kind::Input)?;
    let tier: Tier = job.tier.parse().err_kind(Kind::Input)?;
    Ok(match job.guards.mode {
        GuardMode::Compare => None,
        GuardMode::Upstream => Some(UpstreamVariancePolicy::with(profile, tier, job.guards.calibration)),
    })
}

fn check_positions(job: &Job, model: &Model<'_>) -> Result<()> {
    if let Some(max) = model.info.max_positions.filter(|max| *max < job.seq_len) {
        return Err(Error::input(format!(
            "seq_len is {}, but the checkpoint has only {max} positions",
            job.seq_len
        ))
        .with_hint(format!("lower seq_len to {max}")));
    }
    Ok(())
}

/// Fails where the windows do not suffice for the profile, or no comparison of them is possible.
fn check_sample(job: &Job, objective: Objective, windows: &Windows) -> Result<()> {
    let profile: Profile = job.profile.parse().err_kind(Kind::Input)?;
    let tier: Tier = job.tier.parse().err_kind(Kind::Input)?;
    let (preview, final_) = (&windows.preview, &windows.final_);
    let choices = final_.examples.is_some();
    let tokens = (!choices).then(|| preview.tokens() + final_.tokens());
    let sample = Sample { preview: preview.count(), final_: final_.count(), tokens };
    sample.check(profile, tier).map_err(|error| {
        let hint = match (windows.equal_rows, error.hint()) {
            // A larger dataset does not help: the first windows are used.
            (Some(rows), _) => format!(
                "repeated windows make both arms smaller: replace repeated rows by rows with other texts; {}",
                equal_rows(rows)
            ),
            (None, Some(hint)) => hint.to_owned(),
            (None, None) => return error,
        };
        let packed = !choices
            && matches!(job.windows, WindowSource::LocalJsonl { packing, .. } if joinable(objective, packing));
        error.without_hint().with_hint(if packed { hint + JOIN } else { hint })
    })
}

fn check_job(job: &Job) -> Result<()> {
    if job.contract != JOB_CONTRACT {
        bail!(Unsupported, "the job has the contract {:?}; supported: {JOB_CONTRACT:?}", job.contract);
    }
    check_size(job.seq_len, 1)?;
    match (&job.role, &job.windows) {
        (Role::Baseline, WindowSource::LocalJsonl { .. }) | (Role::Subject, WindowSource::Replay { .. }) => {
            Ok(())
        }
        (Role::Baseline, _) => {
            bail!(Input, "the job of a baseline must name a dataset, but it contains windows")
        }
        (Role::Subject, _) => {
            bail!(Input, "the job of a subject must name the baseline's windows, but it names a dataset")
        }
    }
}

/// The content of `events.jsonl`: one JSON object per line, with seconds since the start.
struct Events {
    start: Instant,
    lines: Vec<u8>,
}

impl Events {
    fn new() -> Self {
        Self { start: Instant::now(), lines: Vec::new() }
    }

    fn add(&mut self, event: &str, details: Value) {
        let line = json!({"event": event, "seconds": self.start.elapsed().as_secs_f64(), "details": details});
        self.lines.extend_from_slice(line.to_string().as_bytes());
        self.lines.push(b'\n');
    }
}

/// A file that shows early whether the output directory is writable.
const PROBE: &str = ".report.json.partial";

/// The output directory. Files are written under a temporary name and renamed; they are removed on failure.
struct Output {
    directory: PathBuf,
    written: Vec<PathBuf>,
    keep: bool,
}

impl Output {
    /// Checks early that the directory is writable.
    fn prepare(directory: &Path) -> Result<Self> {
        let mut output = Self { directory: directory.to_owned(), written: Vec::new(), keep: false };
        output.create(PROBE, b"")?;
        Ok(output)
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        self.written.push(path.clone());
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Writes the files, each by its name and bytes.
    fn write(mut self, files: &[(&str, &[u8])]) -> Result<()> {
        for (name, bytes) in files {
            let partial = self.create(&format!(".{name}.partial"), bytes)?;
            let target = self.directory.join(name);
            fs::rename(&partial, &target).with_context(|| format!("writing {}", target.display()))?;
            self.written.push(target);
        }
        self.keep = true;
        // The file that showed that the directory is writable; it was renamed if there is a report.
        let _ = fs::remove_file(self.directory.join(PROBE));
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.keep {
            for path in &self.written {
                // The file may not exist.
                let _ = fs::remove_file(path);
            }
        }
    }
}
