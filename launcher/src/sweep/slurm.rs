//! Sweeps through Slurm: an array job, each task of which measures a part of the runs with this program. So every boundary is ours, on
//! whichever node; `sbatch --container` is not used, because it does not deny the network.

use super::{Ended, Runs, Sweep};
use crate::error::{Context as _, Error, Result};
use crate::part::Part;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A task starts in about a third of a second; it should work for longer than that.
const TASK_SECONDS: f64 = 10.0;
/// Most tasks of an array, as Slurm has it by default.
const MAX_TASKS: usize = 1000;
/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often Slurm is asked.
const ASK: Duration = Duration::from_secs(5);
/// How long Slurm may not answer.
const NO_ANSWER: Duration = Duration::from_secs(300);

/// A sweep as an array job.
pub struct Slurm<'a> {
    /// The plan.
    pub plan: &'a Path,
    /// Options of `sbatch`.
    pub options: &'a [String],
    /// Tasks; none: as many as have enough to do.
    pub tasks: Option<usize>,
    /// Most tasks at the same time.
    pub jobs: Option<u16>,
}

impl Slurm<'_> {
    /// The number of tasks for the runs with these numbers.
    fn count(&self, runs: &Runs, missing: &[usize]) -> usize {
        let seconds: f64 = missing.iter().map(|index| runs.runs[*index].estimate).sum();
        // The sum is finite and not negative.
        let enough = (seconds / TASK_SECONDS).ceil() as usize;
        let count = self.tasks.unwrap_or_else(|| enough.clamp(1, missing.len().max(1)));
        count.min(runs.runs.len()).clamp(1, MAX_TASKS)
    }

    /// The batch script for the runs with these numbers.
    pub fn script(&self, sweep: &Sweep<'_>, missing: &[usize]) -> Result<String> {
        let count = self.count(sweep.runs, missing);
        let parts = Part::with_any(missing, sweep.runs.runs.len(), count);
        let parts: Vec<String> = parts.iter().map(usize::to_string).collect();
        let most = self.jobs.map_or_else(String::new, |jobs| format!("%{jobs}"));
        let here = std::env::current_dir().context("finding the current directory")?;
        let program = std::env::current_exe().context("finding this program")?;
        let out = std::path::absolute(sweep.out).context("resolving --out")?;
        let logs = out.join("slurm");
        let mut script = format!(
            "#!/bin/sh\n#SBATCH --job-name=invarlock-sweep\n#SBATCH --array={}{most}\n#SBATCH --output={}\n\
             #SBATCH --open-mode=append\n#SBATCH --requeue\n",
            parts.join(","),
            directive(&logs)? + "/%a.log"
        );
        self.options.iter().for_each(|option| script += &format!("#SBATCH {option}\n"));
        script += &format!("cd {} || exit 3\n", quoted(here.as_os_str())?);
        let words = [
            program.as_os_str(),
            OsStr::new("sweep"),
            self.plan.as_os_str(),
            OsStr::new("--out"),
            out.as_os_str(),
        ];
        let words = words.into_iter().map(quoted).collect::<Result<Vec<_>>>()?;
        script += &format!("exec {} --quiet --part \"$SLURM_ARRAY_TASK_ID\"/{count}", words.join(" "));
        if !sweep.shared.is_empty() {
            let shared = sweep.shared.iter().map(|word| quoted(word)).collect::<Result<Vec<_>>>()?;
            script += &format!(" -- {}", shared.join(" "));
        }
        Ok(script + "\n")
    }

    /// Creates the directory of the logs: a task whose log cannot be written does not start.
    pub fn prepare(sweep: &Sweep<'_>) -> Result<()> {
        let logs = sweep.out.join("slurm");
        std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))
    }

    /// Measures the runs with these numbers, and calls `ended` after each.
    pub fn run(&self, sweep: &Sweep<'_>, missing: &[usize], ended: &mut dyn FnMut(Ended)) -> Result<()> {
        let script = self.script(sweep, missing)?;
        Self::prepare(sweep)?;
        let job = Job::submit(&script)?;
        sweep.ui.say(crate::ui::Level::Normal, &format!("submitted Slurm job {}", job.id));
        let mut waiting: Vec<usize> = missing.to_vec();
        // Evidence that does not verify is not read again before it is replaced.
        let old: BTreeMap<usize, _> =
            missing.iter().map(|index| (*index, sweep.report_file(*index))).collect();
        let start = Instant::now();
        let mut asked = start;
        let mut answered = start;
        let mut active = true;
        while !waiting.is_empty() && active {
            if let Err(error) =
                sweep.signals.check("finished runs are kept; the same command goes on with the others")
            {
                job.cancel();
                return Err(error);
            }
            std::thread::sleep(LOOK);
            if asked.elapsed() >= ASK {
                asked = Instant::now();
                match job.is_active() {
                    Some(answer) => (active, answered) = (answer, asked),
                    None => active = answered.elapsed() < NO_ANSWER,
                }
            }
            let is_new = |index: &usize| old.get(index) != Some(&sweep.report_file(*index));
            let is_there = |index: &usize| is_new(index) && sweep.is_measured(*index);
            let (there, rest): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(is_there);
            there
                .into_iter()
                .for_each(|index| ended(Ended { index, code: None, took: start.elapsed(), error: None }));
            waiting = rest;
        }
        for index in waiting {
            let error = Error::system(format!(
                "its task of Slurm job {} did not measure it; see slurm/ below --out",
                job.id
            ));
            ended(Ended { index, code: None, took: start.elapsed(), error: Some(error) });
        }
        Ok(())
    }
}

/// A submitted job.
struct Job {
    id: u64,
}

impl Job {
    fn submit(script: &str) -> Result<Self> {
        let mut child = Command::new("sbatch")
            .arg("--parsable")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting sbatch")
            .hint("run this on a machine that submits to Slurm, or use --executor local")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A closed pipe is reported by the exit code below.
            _ = stdin.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().context("waiting for sbatch")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // `ID`, or `ID;CLUSTER`.
        let id = text.trim().split(';').next().and_then(|id| id.parse().ok());
        match (output.status.success(), id) {
            (true, Some(id)) => Ok(Self { id }),
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(Error::system(format!(
                    "sbatch did not accept the job: {}",
                    crate::ui::printable(said.trim())
                )))
                .hint("pass what this cluster needs with --sbatch, such as --sbatch=--partition=NAME")
            }
        }
    }

    /// Whether a task of it waits or runs; none if Slurm does not answer.
    fn is_active(&self) -> Option<bool> {
        let id = self.id.to_string();
        let output =
            Command::new("squeue").args(["--noheader", "--format=%i", "--jobs", &id]).output().ok()?;
        output.status.success().then(|| !output.stdout.trim_ascii().is_empty())
    }

    fn cancel(&self) {
        // The command ends after a signal; a job that could not be cancelled ends by itself.
        _ = Command::new("scancel").arg(self.id.to_string()).status();
    }
}

/// A word of a shell script.
fn quoted(word: &OsStr) -> Result<String> {
    let text = word.to_str().filter(|text| !text.chars().any(char::is_control));
    let text = text.ok_or_else(|| Error::input(format!("{word:?} cannot stand in a batch script")))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// A path in a line `#SBATCH`, where a percent sign, a backslash, a quote and a space have a meaning.
fn directive(path: &Path) -> Result<String> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '%' | '\\' | '"' | '\'');
    match path.to_str().filter(|text| text.chars().all(plain)) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::input(format!("--out {}: Slurm cannot write logs there", path.display())))
            .hint("choose a directory without spaces, quotes, `%` and `\\` in its path"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted(OsStr::new("a b'c$d")).unwrap(), "'a b'\\''c$d'");
        assert!(quoted(OsStr::new("a\nb")).is_err());
        assert!(directive(Path::new("/a/%x")).is_err() && directive(Path::new("/a b")).is_err());
    }
}
