//! The record of a run: what was asked, planned, observed and written, as this program saw it from outside. The manifests of the caller have
//! none of it.

use super::Engine;
use super::changed_files::{self, ChangedFiles};
use crate::args::CallArgs;
use crate::error::{Context as _, Error, Kind, Result};
use crate::record::now;
use crate::running::Running;
use crate::ui;
use crate::verbs::runtime_run::{RunObserver, RunOutput};
use invarlock_runtime::{ContainerSpec, MountSource};
use serde::Serialize;
use serde_json::Value;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "schemas")]
use crate::verbs::runtime_run::RunOutput as RecordedRun;

/// The record of one run, in a file.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct EngineRecord<'a> {
    /// Always `engine-record-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "engine-record-v1")))]
    format_version: &'static str,
    /// The engine that was called: `podman` or `docker`.
    engine: &'static str,
    /// The arguments as the caller wrote them, from `run` on.
    arguments: &'a [String],
    /// The version of this program.
    version: &'static str,
    /// The id of the run.
    id: &'a str,
    /// Whether limits could be enforced by weaker means than a cgroup: `--weaker-limits`. `run.observations.limits` has what enforced them.
    weaker_limits: bool,
    /// When it was started: ISO-8601, UTC.
    started_at: &'a str,
    /// When it had ended; null in the record that is written before it starts. That record stays if this program is killed.
    finished_at: Option<String>,
    /// What was to be run: the plan of the container.
    plan: &'a Value,
    /// The outcome and the observations, as `runtime run --json` prints them; null if the run failed before its end.
    #[cfg_attr(feature = "schemas", schemars(with = "Option<RecordedRun<'static>>"))]
    run: Option<&'a Value>,
    /// The files that changed in directories which the command could write.
    outputs: &'a [ChangedFiles],
    /// Why the run failed, or which signal or limit ended it; null otherwise.
    error: Option<&'a str>,
}

/// Writes the record of a run: once when it is planned, and again when it has ended.
pub struct Recorder {
    engine: Engine,
    directory: Option<PathBuf>,
    arguments: Vec<String>,
    weaker_limits: bool,
    planned: Option<Planned>,
    /// The outcome, once the container has ended.
    run: Option<Value>,
}

struct Planned {
    id: String,
    started_at: String,
    since: Duration,
    plan: Value,
    writable: Vec<(PathBuf, String)>,
}

impl Recorder {
    /// Creates the directory if it is missing. Without one, nothing is recorded.
    pub fn new(engine: Engine, call: &CallArgs, arguments: Vec<String>) -> Result<Self> {
        let directory = call.record.as_deref().map(open_directory).transpose()?;
        let weaker_limits = call.weaker_limits;
        Ok(Recorder { engine, directory, arguments, weaker_limits, planned: None, run: None })
    }

    /// Records that the run failed.
    pub fn failed(&self, error: &Error) -> Result<()> {
        self.write(Some(&error.to_string()))
    }

    fn write(&self, error: Option<&str>) -> Result<()> {
        let (Some(directory), Some(planned)) = (&self.directory, &self.planned) else { return Ok(()) };
        let has_ended = self.run.is_some() || error.is_some();
        let search =
            |(source, target): &(PathBuf, String)| ChangedFiles::search(source, target, planned.since);
        let outputs: Vec<_> = planned.writable.iter().filter(|_| has_ended).map(search).collect();
        let record = EngineRecord {
            format_version: "engine-record-v1",
            engine: self.engine.name(),
            arguments: &self.arguments,
            version: env!("CARGO_PKG_VERSION"),
            id: &planned.id,
            weaker_limits: self.weaker_limits,
            started_at: &planned.started_at,
            finished_at: has_ended.then(now),
            plan: &planned.plan,
            run: self.run.as_ref(),
            outputs: &outputs,
            error,
        };
        let path = directory.join(format!("{}.json", planned.id));
        let writing = || format!("writing the record {}", path.display());
        // Only its owner can read it: variables of the caller stand in it.
        let mut file = tempfile::NamedTempFile::new_in(directory).with_context(writing)?;
        writeln!(file, "{}", ui::json_line(&record)?).with_context(writing)?;
        file.persist(&path).map(drop).map_err(|error| Error::from(error.error).context(writing()))
    }

    /// A command that could write the directory could write records.
    fn check_out_of_reach(&self, spec: &ContainerSpec) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        for mount in &spec.mounts {
            if let MountSource::Bind { source, writable: true } = &mount.source
                && (source.contains(directory)? || source.is_in(directory))
            {
                let what = format!(
                    "mount source {} contains the records {}, or is in them",
                    source.path().display(),
                    directory.display()
                );
                return Err(Error::input(what)).hint(
                    "record elsewhere: `runtime engine install --record DIR`, or INVARLOCK_ENGINE_RECORD",
                );
            }
        }
        Ok(())
    }
}

impl RunObserver for Recorder {
    fn planned(&mut self, running: &Running, spec: &ContainerSpec) -> Result<()> {
        self.check_out_of_reach(spec)?;
        let writable = spec.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Bind { source, writable: true } => {
                Some((source.path().to_owned(), mount.target.clone()))
            }
            _ => None,
        });
        self.planned = Some(Planned {
            id: running.id.clone(),
            started_at: now(),
            since: changed_files::now(),
            plan: invarlock_runtime::describe(spec),
            writable: writable.collect(),
        });
        self.write(None)
    }

    fn ended(&mut self, output: &RunOutput<'_>) -> Result<()> {
        self.run = Some(super::to_value(output)?);
        self.write(None)
    }
}

fn open_directory(path: &Path) -> Result<PathBuf> {
    let doing = || format!("creating the directory of records {}", path.display());
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let directory = created.and_then(|()| path.canonicalize()).with_context(doing);
    directory.map_err(|error| error.with_kind(Kind::Input))
}
