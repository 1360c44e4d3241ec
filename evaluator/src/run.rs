//! Runs a job: opens its inputs, measures, and writes the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use invarlock_evidence::job::{JOB_CONTRACT, Job, Role, WindowSource};
use invarlock_evidence::run_report::BaselineWindows;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, scan};
use crate::measure::{Workers, weighted_mean};
use crate::model::Model;
use crate::progress::Progress;
use crate::report::{self, Measured};
use crate::tokenizer::Tokenizer;
use crate::windows::{WindowRequest, Windows, check_size, replay, select};
use crate::{dataset, files, limits};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result, bail};

/// Runs the job in a file and writes `events.jsonl` and `report.json` into `out`. On failure no file is left there.
pub fn run(job: &Path, out: &Path, progress: &Progress) -> Result<()> {
    let job: Job = files::read_json(job, "job", limits::CONFIG_BYTES)?;
    let output = Output::prepare(out)?;
    let mut events = Events::new();
    let report = measure(&job, progress, &mut events)?;
    let mut bytes = serde_json::to_vec(&report).err_kind(Kind::System).context("serializing the report")?;
    bytes.push(b'\n');
    output.write(&events.lines, &bytes)
}

fn measure(
    job: &Job,
    progress: &Progress,
    events: &mut Events,
) -> Result<invarlock_evidence::run_report::RunReport> {
    check(job)?;
    events.add("start", json!({"role": job.role, "model_id": job.model_id, "version": crate::VERSION}));
    let workers = Workers::new(job.threads)?;

    // Cheap checks come before the long work.
    let start = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(&job.checkpoint))?;
    let model = Model::load(&checkpoint)?;
    if let Some(max) = model.info.max_positions.filter(|max| *max < job.seq_len) {
        return Err(Error::input(format!(
            "seq_len is {}, but the checkpoint has only {max} positions",
            job.seq_len
        ))
        .with_hint(format!("lower seq_len to {max}")));
    }
    let tokenizer = Tokenizer::open(&checkpoint, &model.info, job.seq_len)?;
    events.add(
        "checkpoint",
        json!({"model_type": model.info.model_type, "parameters": model.info.checks.parameter_count}),
    );
    let opened = start.elapsed();

    let start = Instant::now();
    let windows = workers.run(|| open_windows(job, &model, &tokenizer, progress))?;
    let counts = (windows.preview.windows.len() as u64, windows.final_.windows.len() as u64);
    events.add(
        "windows",
        json!({"preview": counts.0, "final": counts.1, "blank": windows.blank, "short": windows.short}),
    );
    let tokenized = start.elapsed();

    let start = Instant::now();
    let total = model.info.parameters.iter().map(|(_, t)| t.bytes.len() as u64).sum();
    let done = AtomicU64::new(0);
    progress.report("load", 0, total);
    workers.run(|| {
        scan(&model.info.parameters, &|n| {
            progress.report("load", done.fetch_add(n, Ordering::Relaxed) + n, total)
        })
        .context(&job.checkpoint)
    })?;
    let loaded = opened + start.elapsed();
    events.add("loaded", json!({"bytes": total}));

    let start = Instant::now();
    let mut arms = [Vec::new(), Vec::new()];
    for ((name, arm, n), losses) in
        [("preview", &windows.preview, counts.0), ("final", &windows.final_, counts.1)]
            .into_iter()
            .zip(&mut arms)
    {
        progress.report(name, 0, n);
        *losses = workers.losses_of_arm(&model, name, arm, &|done| progress.report(name, done, n))?;
        events
            .add(name, json!({"windows": n, "tokens": arm.tokens(), "logloss": weighted_mean(losses, arm)}));
    }
    let [preview, final_] = arms;
    let evaluated = start.elapsed();
    progress.report("guards", 1, 1);
    events.add("done", json!({}));
    report::report(&Measured {
        job,
        info: &model.info,
        tokenizer: &tokenizer,
        windows: &windows,
        preview: &preview,
        final_: &final_,
        threads: workers.threads(),
        opened: loaded,
        tokenized,
        evaluated,
    })
}

fn check(job: &Job) -> Result<()> {
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

fn open_windows(job: &Job, model: &Model<'_>, tokenizer: &Tokenizer, progress: &Progress) -> Result<Windows> {
    match &job.windows {
        WindowSource::LocalJsonl { files, text_field, max_samples } => {
            let texts = dataset::read(files, text_field, *max_samples)?;
            let request = WindowRequest {
                seq_len: job.seq_len,
                preview: job.preview_n,
                final_: job.final_n,
                pad: tokenizer.pad_id,
                profile: &job.profile,
                max_samples: *max_samples,
            };
            select(&texts, &request, &|text| tokenizer.encode(text), &|done, total| {
                progress.report("tokenize", done, total)
            })
        }
        WindowSource::Replay { file } => {
            let baseline: BaselineWindows =
                files::read_json(Path::new(file), "windows of the baseline", limits::WINDOWS_BYTES)?;
            if baseline.tokenizer_hash.as_deref() != Some(tokenizer.hash.as_str()) {
                return Err(Error::input(format!(
                    "tokenizer mismatch: the tokenizer of the baseline has the digest {}, that of the subject {}; losses \
                     over different vocabularies cannot be compared",
                    baseline.tokenizer_hash.as_deref().unwrap_or("(none)"),
                    tokenizer.hash
                ))
                .with_hint("use the same tokenizer.json in both checkpoints"));
            }
            replay(baseline, job.seq_len, model.info.vocab_size)
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
        output.create(".report.json.partial", b"")?;
        Ok(output)
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        self.written.push(path.clone());
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn write(mut self, events: &[u8], report: &[u8]) -> Result<()> {
        for (partial, name, bytes) in [
            (".events.jsonl.partial", "events.jsonl", events),
            (".report.json.partial", "report.json", report),
        ] {
            let partial = self.create(partial, bytes)?;
            let target = self.directory.join(name);
            fs::rename(&partial, &target).with_context(|| format!("writing {}", target.display()))?;
            self.written.push(target);
        }
        self.keep = true;
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
