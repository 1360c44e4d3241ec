//! Runs processes of this program, some at the same time, and keeps what they print in files.

use super::runs::Run;
use crate::error::{Context as _, Error, Result};
use crate::signals::Signals;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How often a worker looks at its process.
const PAUSE: Duration = Duration::from_millis(20);

/// How a run ended.
pub struct Ended {
    /// Its number.
    pub index: usize,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Wall time.
    pub took: Duration,
    /// Why no process could be started.
    pub error: Option<Error>,
}

/// What the workers share.
pub struct Pool<'a> {
    /// Directory of the sweep.
    pub out: &'a Path,
    /// Options of `evaluate` that all runs share.
    pub shared: &'a [OsString],
    /// The runs.
    pub runs: &'a [Run],
    /// Signals that end the sweep.
    pub signals: &'a Signals,
}

/// Which runs wait, and which baselines are measured.
struct Queue {
    /// Numbers of runs, in order.
    waiting: Vec<usize>,
    /// Directories in which a run measures the baseline now.
    measuring: BTreeSet<PathBuf>,
}

impl Pool<'_> {
    /// Runs those with these numbers, at most `jobs` at the same time, and calls `ended` after each.
    ///
    /// The first run of a baseline measures it, and the others reuse it; they wait for that.
    pub fn run(&self, numbers: &[usize], jobs: usize, ended: &mut dyn FnMut(Ended)) -> Result<()> {
        let queue = Mutex::new(Queue { waiting: numbers.to_vec(), measuring: BTreeSet::new() });
        let changed = Condvar::new();
        let (sender, receiver) = mpsc::channel();
        let work = |sender: mpsc::Sender<Ended>| {
            while let Some((index, baseline)) = self.next(&queue, &changed) {
                let start = Instant::now();
                let outcome = self.one(index, baseline.as_deref());
                locked(&queue).measuring.remove(&self.runs[index].measured);
                changed.notify_all();
                let (code, error) = match outcome {
                    Ok(status) => (status.code(), None),
                    Err(error) => (None, Some(error)),
                };
                // The receiver lives until all senders are gone.
                drop(sender.send(Ended { index, code, took: start.elapsed(), error }));
            }
        };
        std::thread::scope(|scope| {
            let thread = |_| {
                let sender = sender.clone();
                std::thread::Builder::new().spawn_scoped(scope, || work(sender))
            };
            let workers: Vec<_> = (0..jobs.min(numbers.len())).map(thread).collect();
            drop(sender);
            receiver.iter().for_each(ended);
            // With fewer threads than jobs the sweep takes longer.
            match workers
                .into_iter()
                .find(std::io::Result::is_err)
                .filter(|_| !locked(&queue).waiting.is_empty())
            {
                Some(Err(error)) => Err(error).context("starting a thread"),
                _ => Ok(()),
            }
        })?;
        self.signals.check("finished runs are kept; the same command goes on with the others")
    }

    /// The next run, and the run report of its baseline if that is measured. None at the end, or after a signal.
    fn next(&self, queue: &Mutex<Queue>, changed: &Condvar) -> Option<(usize, Option<PathBuf>)> {
        let mut queue = locked(queue);
        loop {
            if queue.waiting.is_empty() || self.signals.check("").is_err() {
                return None;
            }
            let ready = queue.waiting.iter().enumerate().find_map(|(place, index)| {
                let measured = &self.runs[*index].measured;
                let baseline = baseline(&self.out.join(measured));
                (baseline.is_some() || !queue.measuring.contains(measured)).then_some((place, baseline))
            });
            if let Some((place, baseline)) = ready {
                let index = queue.waiting.remove(place);
                if baseline.is_none() {
                    queue.measuring.insert(self.runs[index].measured.clone());
                }
                return Some((index, baseline));
            }
            queue = changed.wait_timeout(queue, PAUSE).map_or_else(|e| e.into_inner().0, |(queue, _)| queue);
        }
    }

    fn one(&self, index: usize, baseline: Option<&Path>) -> Result<ExitStatus> {
        let run = &self.runs[index];
        let log = |end: &str| {
            let name = format!("{}.{end}", run.evidence.file_name().unwrap_or_default().to_string_lossy());
            self.out.join("logs").join(name)
        };
        let create = |path: &Path| File::create(path).with_context(|| format!("writing {}", path.display()));
        std::fs::create_dir_all(self.out.join("logs")).context("creating the directory of logs")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("evaluate").args(&run.options).arg("--parent").arg(std::process::id().to_string());
        if let Some(baseline) = baseline {
            command.arg("--baseline-report").arg(baseline);
        }
        command.args(self.shared).stdin(std::process::Stdio::null());
        command.stdout(create(&log("json"))?).stderr(create(&log("log"))?);
        let mut child = command.spawn().context("starting a run")?;
        self.wait(&mut child).context("waiting for a run")
    }

    /// Waits for the end of a process. After a signal it is told once to end.
    fn wait(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        let mut told = false;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if !told && self.signals.check("").is_err() {
                told = true;
                // It is a child that was not waited for, so the number is its own.
                if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    kill_process(pid, Signal::TERM)?;
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The newest finished run report of a baseline.
fn baseline(measured: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(measured.join("source")).ok()?.flatten();
    let finished = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut reports: Vec<PathBuf> = finished.map(|entry| entry.path().join("report.json")).collect();
    reports.retain(|report| report.is_file());
    reports.sort();
    reports.pop()
}
