//! One side of an evaluation: a container (or, as a recorded exception, a host process) measures one checkpoint.

use crate::denied_calls;
use crate::error::{Context as _, Error, Kind, Result};
use crate::evidence_dir::RunDir;
use crate::inputs::InputFile;
use crate::limits;
use crate::mounts::{self, InputMount, SideInputs};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::progress::{Progress, ReportedError};
use crate::signals::Signals;
use crate::ui::{Level, Ui, printable};
use invarlock_error::Foreign as _;
use invarlock_evidence::events::Cause;
use invarlock_evidence::job::Role;
use invarlock_evidence::json::parse_run_report;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::run_report::{BaselineWindows, ReplayArm, RunReport, WindowArm};
use invarlock_runtime::{ContainerSpec, HostSpec, Input as Mount, InputSource, Outcome, Status};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Largest number of members of a run report besides those of its tokens: losses, counts, guards, settings.
const MAX_MEMBERS: usize = 100_000;

/// What an interrupted evaluation leaves.
const KEPT: &str = "finished run directories are kept";

/// A measured side and what the manifest records of it.
pub struct Side {
    /// The parsed run report.
    pub report: RunReport,
    /// Path of the run report.
    pub path: PathBuf,
    /// SHA-256 of the run report's bytes, lower-case hex.
    pub sha256: String,
    /// `context.sides.<role>` of the manifest.
    pub evidence: Value,
}

/// Directory of a role below `--out`, as the Python package names it.
fn directory(role: Role) -> &'static str {
    match role {
        Role::Baseline => "source",
        Role::Subject => "edited",
    }
}

/// One run of an evaluator.
pub struct Run<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The policy, which supplies the supervisor.
    pub policy: &'a Policy,
    /// The side.
    pub role: Role,
    /// The baseline's windows, for the subject.
    pub windows: Option<&'a BaselineWindows>,
}

impl Run<'_> {
    /// Measures the side. Its files are in the run directory, which the caller commits together with the manifest.
    pub fn measure(&self, ui: &Ui, signals: &Signals) -> Result<(Side, RunDir)> {
        let side = mounts::name(self.role);
        let run_dir = RunDir::begin(&self.plan.request.out, directory(self.role))?;
        let mut sink = Progress::new(ui, side);
        let (outcome, inputs) = match &self.plan.image {
            Some(_) => {
                let inputs = self.inputs("/in");
                (self.in_container(&inputs, signals, &mut sink), inputs)
            }
            None => {
                let scratch = invarlock_security::secure_tempdir("invarlock-host-")?;
                let inputs = self.inputs(&scratch.path().to_string_lossy());
                let outcome = self.on_host(&inputs, scratch.path(), signals, &mut sink);
                (outcome.and_then(|outcome| scratch.close().map(|()| outcome)), inputs)
            }
        };
        sink.finish();
        // Also after a failed run: a denied call may be the reason.
        denied_calls::show(
            outcome.as_ref().ok().and_then(|outcome| outcome.denied_calls.as_ref()),
            Some(side),
        );
        // A signal before the workload starts gives an error of its own; the signal is the reason for it.
        let outcome = outcome.map_err(|error| signals.check(KEPT).err().unwrap_or(error));
        let measured = outcome.and_then(|outcome| match failure(&outcome, &sink, &inputs, signals) {
            Some(error) => Err(error),
            None => {
                let reached = limits::reached(&outcome);
                limits::notices(&reached).for_each(|line| ui.say(Level::Normal, &format!("{side}: {line}")));
                self.collect(outcome, &run_dir)
            }
        });
        match measured {
            Ok(measured) => Ok((measured, run_dir)),
            Err(error) => Err(keep_log(error, run_dir, &sink)),
        }
    }

    fn inputs(&self, root: &str) -> SideInputs<'_> {
        SideInputs::new(self.plan, self.role, root)
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

    /// The container of this side.
    pub fn container(&self) -> Result<ContainerSpec> {
        self.container_with(&self.inputs("/in"))
    }

    fn container_with(&self, inputs: &SideInputs<'_>) -> Result<ContainerSpec> {
        let image = self.plan.image.as_ref().ok_or_else(|| Error::system("the plan has no image"))?;
        let mut mounts = mount_all(&inputs.checkpoint)?;
        if self.role == Role::Baseline {
            mounts.extend(mount_all(&inputs.dataset)?);
        }
        mounts.push(mount_bytes(inputs.job(), &self.plan.job(self.role, inputs.job_paths()))?);
        if self.role == Role::Subject {
            mounts.push(mount_bytes(inputs.windows(), &self.windows)?);
        }
        let argv = ["/invarlock-evaluator", "--job", &inputs.job(), "--out", "/out"].map(String::from);
        Ok(ContainerSpec {
            rootfs: image.rootfs.layers.clone(),
            argv: argv.to_vec(),
            env: vec![("INVARLOCK_CONTAINER_EXECUTION".into(), "1".into())],
            cwd: "/".into(),
            inputs: mounts,
            filter: self.plan.filter.clone(),
            limits: self.plan.limits.clone(),
            collect_output: true,
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
        let program = self.plan.host_evaluator.clone();
        let spec = HostSpec {
            program: program.ok_or_else(|| Error::system("the plan has no evaluator"))?,
            args: ["--job", &inputs.job(), "--out", &output.to_string_lossy()].map(String::from).to_vec(),
            env: vec![],
            output,
            filter: self.plan.filter.clone(),
            limits: self.plan.limits.clone(),
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
        std::fs::write(inputs.job(), to_json(&self.plan.job(self.role, inputs.job_paths()))?)?;
        std::fs::write(inputs.windows(), to_json(&self.windows)?)?;
        Ok(())
    }

    /// Checks and keeps what the run wrote to `/out`.
    fn collect(&self, outcome: Outcome, run_dir: &RunDir) -> Result<Side> {
        let inputs = [self.plan.checkpoint(self.role), &self.plan.data];
        inputs.iter().flat_map(|input| &input.files).try_for_each(InputFile::check_unchanged)?;
        let (report, bytes) = self.report(&outcome).map_err(|error| {
            let doing = format!("reading the output of the {} container", mounts::name(self.role));
            error.with_kind(Kind::Integrity).context(doing).with_note("the output is not used")
        })?;
        let sha256 = sha256_hex(bytes);
        for file in &outcome.output {
            run_dir.write(&file.name, &file.bytes)?;
        }
        let outputs: Vec<Value> = outcome
            .output
            .iter()
            .map(|file| json!({"name": file.name, "sha256": sha256_hex(&file.bytes), "bytes": file.bytes.len()}))
            .collect();
        let mut evidence = json!({
            "reused": false,
            "checkpoint": self.plan.checkpoint(self.role).digest,
            "outputs": outputs,
            "filter_digest": self.plan.filter.digest,
            "refused": outcome.denied_calls,
            "status": outcome.status,
            "observations": outcome.observations,
            "usage": outcome.usage,
        });
        if let (Role::Baseline, Value::Object(members)) = (self.role, &mut evidence) {
            members.insert("dataset".into(), json!(self.plan.data.digest));
        }
        Ok(Side { report, path: run_dir.path("report.json"), sha256, evidence })
    }

    /// The run report in the output, which is untrusted.
    fn report<'o>(&self, outcome: &'o Outcome) -> Result<(RunReport, &'o [u8])> {
        let file = outcome.output.iter().find(|file| file.name == "report.json");
        let bytes = &file.ok_or_else(|| Error::integrity("report.json is missing"))?.bytes;
        check_plausible(bytes, self.plan.dataset.tokens())?;
        let report = parse_run_report("report.json", bytes).map_err(|e| Error::integrity(e.to_string()))?;
        let expected = ["report.json", "events.jsonl"];
        match outcome.output.iter().find(|file| !expected.contains(&file.name.as_str())) {
            Some(file) => Err(Error::integrity(format!(
                "the container wrote an unexpected file {:?}",
                printable(&file.name)
            ))),
            None => Ok((report, bytes)),
        }
    }
}

/// After a failed run: keeps what the evaluator printed, and adds the path of the log to the error.
fn keep_log(error: Error, run_dir: RunDir, sink: &Progress<'_>) -> Error {
    if sink.stderr.is_empty() && sink.not_events.is_empty() {
        return error;
    }
    let log = printable(&String::from_utf8_lossy(&[sink.not_events.as_slice(), &sink.stderr].concat()));
    let path = run_dir.path("stderr.log");
    error.with_note(match keep_only(run_dir, log.as_bytes()) {
        Ok(()) => format!("log: {}", path.display()),
        Err(error) => format!("the log could not be kept: {error}"),
    })
}

/// Commits a run directory that contains the log and no measured files.
fn keep_only(run_dir: RunDir, log: &[u8]) -> Result<()> {
    for name in ["report.json", "events.jsonl"] {
        run_dir.discard(name);
    }
    run_dir.write("stderr.log", log)?;
    run_dir.commit()
}

/// The windows of a measured baseline, without its losses.
pub fn baseline_windows(report: &RunReport) -> BaselineWindows {
    let arm = |arm: &WindowArm| ReplayArm {
        window_ids: arm.window_ids.clone(),
        input_ids: arm.input_ids.clone(),
        attention_masks: arm.attention_masks.clone(),
    };
    let windows = &report.evaluation_windows;
    BaselineWindows {
        tokenizer_hash: report.meta.tokenizer_hash.clone(),
        preview: arm(&windows.preview),
        final_: arm(&windows.final_),
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

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).err_kind(Kind::System).context("writing JSON")
}

/// Refuses a report with more members than the requested windows can have. This is done before parsing, because a parsed member takes many
/// times the memory of its text.
fn check_plausible(bytes: &[u8], tokens: usize) -> Result<()> {
    let (mut members, mut containers) = (0usize, 0usize);
    for byte in bytes {
        match byte {
            b',' | b':' => members += 1,
            b'{' | b'[' => containers += 1,
            _ => {}
        }
    }
    // Each token is in the ids, the mask and the labels; each window has a few lists.
    match members > 3 * tokens + MAX_MEMBERS || containers > 4 * tokens + MAX_MEMBERS {
        true => Err(Error::integrity(format!(
            "report.json has {members} members and {containers} lists, too many for {tokens} tokens"
        ))),
        false => Ok(()),
    }
}

/// The reason why a run failed, if it did.
fn failure(
    outcome: &Outcome,
    sink: &Progress<'_>,
    inputs: &SideInputs<'_>,
    signals: &Signals,
) -> Option<Error> {
    let reached = limits::reached(outcome);
    let by_limit = |instead: &str| {
        let hint =
            limits::hint(&reached).map_or_else(|| instead.to_owned(), |hint| format!("{hint}, or {instead}"));
        Error::system(limits::sentence(&reached)).with_hint(hint)
    };
    let error = match (&outcome.status, &sink.error) {
        (Status::Exited(0), None) => return None,
        (Status::Cancelled, _) => match signals.check(KEPT) {
            Err(interrupted) => return Some(interrupted),
            Ok(()) => Error::system("cancelled"),
        },
        (Status::TimedOut, _) => by_limit("use fewer windows"),
        (Status::MemoryLimit, _) => by_limit("use a smaller model"),
        (_, Some(reported)) => reported_failure(reported, &reached, inputs),
        (status, None) => with_limits(Error::system(format!("the evaluator ended with {status}")), &reached),
    };
    Some(error.context(format_args!("measuring the {}", sink.side)))
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
