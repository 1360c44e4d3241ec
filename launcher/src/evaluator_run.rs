//! One run of the evaluator on one side: in a container, or as a host process (a recorded exception). What it prints and leaves behind is
//! untrusted.

use crate::denied_calls;
use crate::error::{Context as _, Error, Result};
use crate::inputs::InputFile;
use crate::limits;
use crate::plan::Opened;
use crate::policy::Policy;
use crate::progress::{Progress, ReportedError};
use crate::side_inputs::{InputMount, SideInputs};
use crate::signals::Signals;
use invarlock_error::Foreign as _;
use invarlock_evidence::events::Cause;
use invarlock_evidence::job::{Job, JobPaths, Role, Task};
use invarlock_evidence::journal::Journal;
use invarlock_evidence::run_report::BaselineWindows;
use invarlock_runtime::{ContainerSpec, HostSpec, Input as Mount, InputSource, Outcome, Rootfs, Status};
use std::path::Path;

/// One run of the evaluator.
pub struct EvaluatorRun<'a> {
    /// Everything that it runs with.
    pub opened: &'a Opened,
    /// The policy, which supplies the supervisor.
    pub policy: &'a Policy,
    /// The side.
    pub role: Role,
    /// What the evaluator does.
    pub task: Task,
    /// The baseline's windows, for the subject.
    pub windows: Option<&'a BaselineWindows>,
    /// Losses of an interrupted measurement, if it is resumed.
    pub journal: Option<&'a Journal>,
}

impl EvaluatorRun<'_> {
    /// Runs it to its end. A failure of the evaluator, a limit or a signal is an error; `kept` names what stays on disk after a signal.
    pub fn run(&self, sink: &mut Progress<'_>, signals: &Signals, kept: &str) -> Result<Outcome> {
        let (outcome, inputs) = match &self.opened.image {
            Some(_) => {
                let inputs = self.inputs("/in");
                (self.in_container(&inputs, signals, sink), inputs)
            }
            None => {
                let scratch = invarlock_security::secure_tempdir("invarlock-host-")?;
                let inputs = self.inputs(&scratch.path().to_string_lossy());
                let outcome = self.on_host(&inputs, scratch.path(), signals, sink);
                (outcome.and_then(|outcome| scratch.close().map(|()| outcome)), inputs)
            }
        };
        sink.finish();
        // Whatever a run reports after one of these, they are the reason for it: the user's signal, and an input that was changed.
        signals.check(kept)?;
        let role = self.role.name();
        self.check_inputs().map_err(|error| error.context(format_args!("{} the {role}", self.doing())))?;
        let outcome = outcome?;
        let failed = self.failure(&outcome, sink, &inputs);
        // The measurement repeats what a check does, so the calls that a check was denied are shown only where it failed.
        if self.task == Task::Measure || failed.is_some() {
            denied_calls::show(outcome.denied_calls.as_ref(), Some(self.role.name()));
        }
        failed.map_or(Ok(outcome), Err)
    }

    fn inputs(&self, root: &str) -> SideInputs<'_> {
        SideInputs::new(self.opened, self.role, root)
    }

    fn job(&self, inputs: &SideInputs<'_>) -> Job {
        let journal = self.journal.map(|_| inputs.journal());
        self.opened.job(self.role, self.task, JobPaths { journal, ..inputs.job_paths() })
    }

    fn in_container(
        &self,
        inputs: &SideInputs<'_>,
        signals: &Signals,
        sink: &mut Progress<'_>,
    ) -> Result<Outcome> {
        let spec = self.container_with(inputs)?;
        self.policy.supervisor()?.run(spec, signals.fd(), sink)
    }

    /// The container of this run.
    pub fn container(&self) -> Result<ContainerSpec> {
        self.container_with(&self.inputs("/in"))
    }

    fn container_with(&self, inputs: &SideInputs<'_>) -> Result<ContainerSpec> {
        let opened = self.opened;
        let image = opened.image.as_ref().ok_or_else(|| Error::system("the plan has no image"))?;
        let mut mounts = mount_all(&inputs.checkpoint)?;
        if self.role == Role::Baseline {
            mounts.extend(mount_all(&inputs.dataset)?);
        }
        mounts.push(mount_bytes(inputs.job(), &self.job(inputs))?);
        if self.role == Role::Subject {
            mounts.push(mount_bytes(inputs.windows(), &self.windows)?);
        }
        if let Some(journal) = self.journal {
            let source = InputSource::Bytes(journal.to_bytes());
            mounts.push(Mount { target: inputs.journal(), source });
        }
        let argv = ["/invarlock-evaluator", "--job", &inputs.job(), "--out", "/out"].map(String::from);
        Ok(ContainerSpec {
            rootfs: Rootfs::Layers(image.rootfs.layers.clone()),
            argv: argv.to_vec(),
            env: vec![("INVARLOCK_CONTAINER_EXECUTION".into(), "1".into())],
            cwd: "/".into(),
            inputs: mounts,
            filter: opened.filter.clone(),
            limits: opened.limits.clone(),
            collect_output: true,
            stdio: invarlock_runtime::Stdio::Output,
            runtime_files: None,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            mounts: Vec::new(),
        })
    }

    /// Runs the evaluator as a child process: without a container, and without a network (its filter denies sockets).
    fn on_host(
        &self,
        inputs: &SideInputs<'_>,
        scratch: &Path,
        signals: &Signals,
        sink: &mut Progress<'_>,
    ) -> Result<Outcome> {
        let output = scratch.join("out");
        self.prepare_host(inputs, scratch, &output).context("preparing host execution")?;
        let program = self.opened.host_evaluator.clone();
        let spec = HostSpec {
            program: program.ok_or_else(|| Error::system("the plan has no evaluator"))?,
            args: ["--job", &inputs.job(), "--out", &output.to_string_lossy()].map(String::from).to_vec(),
            env: vec![],
            output,
            filter: self.opened.filter.clone(),
            limits: self.opened.limits.clone(),
        };
        invarlock_runtime::run_on_host(spec, signals.fd(), sink)
    }

    fn prepare_host(&self, inputs: &SideInputs<'_>, scratch: &Path, output: &Path) -> Result<()> {
        for dir in [scratch.join("checkpoint"), scratch.join("dataset"), output.to_path_buf()] {
            std::fs::create_dir(dir)?;
        }
        for mount in inputs.checkpoint.iter().chain(&inputs.dataset) {
            std::os::unix::fs::symlink(&mount.file.path, &mount.target)?;
        }
        std::fs::write(inputs.job(), to_json(&self.job(inputs))?)?;
        if let Some(journal) = self.journal {
            std::fs::write(inputs.journal(), journal.to_bytes())?;
        }
        std::fs::write(inputs.windows(), to_json(&self.windows)?)?;
        Ok(())
    }

    /// The reason why a run failed, if it did.
    fn failure(&self, outcome: &Outcome, sink: &Progress<'_>, inputs: &SideInputs<'_>) -> Option<Error> {
        let reached = limits::reached(outcome);
        let by_limit = |instead: &str| {
            let hint = limits::hint(&reached)
                .map_or_else(|| instead.to_owned(), |hint| format!("{hint}, or {instead}"));
            Error::system(limits::sentence(&reached)).with_hint(hint)
        };
        let error = match (&outcome.status, &sink.error) {
            (Status::Exited(0), None) => return None,
            (Status::Cancelled, _) => Error::system("cancelled"),
            (Status::TimedOut, _) => by_limit("use fewer windows"),
            (Status::MemoryLimit, _) => by_limit("use a smaller model"),
            (_, Some(reported)) => reported_failure(reported, &reached, inputs),
            (status, None) => {
                with_limits(Error::system(format!("the evaluator ended with {status}")), &reached)
            }
        };
        Some(error.context(format_args!("{} the {}", self.doing(), self.role.name())))
    }

    fn doing(&self) -> &'static str {
        match self.task {
            Task::Measure => "measuring",
            Task::Check => "checking",
        }
    }

    /// Fails if a file that the run read was changed or replaced meanwhile.
    fn check_inputs(&self) -> Result<()> {
        let inputs = [self.opened.files(self.role), &self.opened.data];
        inputs.into_iter().flatten().try_for_each(InputFile::check_unchanged)
    }
}

fn mount_all(inputs: &[InputMount<'_>]) -> Result<Vec<Mount>> {
    let mount = |input: &InputMount<'_>| {
        let file = input.file.file.try_clone().context("duplicating a file handle")?;
        let source = InputSource::File { path: input.file.path.clone(), file };
        Ok(Mount { target: input.target.clone(), source })
    };
    inputs.iter().map(mount).collect()
}

fn mount_bytes(target: String, value: &impl serde::Serialize) -> Result<Mount> {
    Ok(Mount { target, source: InputSource::Bytes(to_json(value)?) })
}

/// A value as the evaluator reads it.
pub fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).err_kind(invarlock_error::Kind::System).context("writing JSON")
}

/// The failure that the evaluator reported, in the user's words.
fn reported_failure(reported: &ReportedError, reached: &[limits::Reached], inputs: &SideInputs<'_>) -> Error {
    let error = &reported.error;
    let failure = Error::new(error.kind(), inputs.in_users_words(error.message()));
    match reported.cause {
        // The evaluator removes a file that it could not write completely, so no limit is reached at the end.
        Some(Cause::OutputFull) => failure.with_hint("raise --output-size"),
        None => match error.hint() {
            Some(hint) => with_limits(failure.with_hint(inputs.in_users_words(hint)), reached),
            None => with_limits(failure, reached),
        },
    }
}

fn with_limits(error: Error, reached: &[limits::Reached]) -> Error {
    if reached.is_empty() {
        return error;
    }
    let error = error.with_note(limits::sentence(reached));
    match limits::hint(reached) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
