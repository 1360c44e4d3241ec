//! `invarlock runtime run`: runs a command of an image in a container.

use crate::args::{RunArgs, StreamArgs};
use crate::bundle_output::BundleOutput;
use crate::denied_calls;
use crate::error::{Context as _, Error, Kind, Result};
use crate::filter::FilterOutput;
use crate::oci_bundle::Bundle;
use crate::pass_through::PassThrough;
use crate::policy::Policy;
use crate::request;
use crate::run_files::{MountOutput, RunFiles};
use crate::run_output::{self, OutputDirectory};
use crate::running::{self, Running};
use crate::signals::Signals;
use crate::stdio;
use crate::ui;
use crate::workload::{ImageOutput, Prepared, Workload, or_interrupted};
use invarlock_evidence::format::devices::Devices;
use invarlock_evidence::format::plan::{File as FileDigest, Files};
use invarlock_runtime::{ContainerSpec, Observations, Status, Stdio, Usage};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

#[cfg(feature = "schemas")]
use invarlock_evidence::format::observations as recorded;

/// The output of `runtime run --json`, on standard error.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunOutput<'a> {
    /// Always `runtime-run-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-run-v1")))]
    format_version: &'static str,
    /// The id of the run.
    id: &'a str,
    /// Its name.
    name: Option<&'a str>,
    /// The image; null for a bundle.
    image: Option<ImageOutput>,
    /// The bundle; null for an image.
    bundle: Option<BundleOutput>,
    /// How the run ended.
    #[cfg_attr(feature = "schemas", schemars(with = "recorded::Status"))]
    status: Status,
    /// What it used.
    #[cfg_attr(feature = "schemas", schemars(with = "recorded::Usage"))]
    usage: &'a Usage,
    /// Denied system calls by name, with their number; null if the filter does not report them.
    refused: Option<&'a BTreeMap<String, u64>>,
    /// The system-call filter.
    seccomp: FilterOutput<'a>,
    /// The options that open the boundary: `interactive`, `tty`, `writable_bind`, `device`.
    loosened: Vec<&'static str>,
    /// The mounts of the options.
    mounts: &'a [MountOutput],
    /// The devices; null without `--device`.
    devices: Option<&'a Devices>,
    /// The files of each `--input`, as they were before the run.
    inputs: &'a [Files],
    /// The files that were written to `--output`; null without it.
    output: Option<&'a [FileDigest]>,
    /// The boundary as the kernel reported it.
    #[cfg_attr(feature = "schemas", schemars(with = "recorded::Observations"))]
    observations: &'a Observations,
    /// The steps of the run, with the microseconds since the start of the launcher.
    timings_us: &'a [(String, u64)],
}

fn loosened(args: &StreamArgs, files: &RunFiles) -> Vec<&'static str> {
    let options = [
        ("interactive", args.interactive),
        ("tty", args.tty),
        ("writable_bind", files.has_writable_bind()),
        ("device", files.devices.record.is_some()),
    ];
    options.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect()
}

/// The run as other commands see it.
fn entry(args: &RunArgs, image: String, spec: &ContainerSpec) -> Result<Running> {
    let started = running::started("self").ok_or_else(|| Error::system("reading /proc/self/stat failed"))?;
    Ok(Running {
        id: running::new_id()?,
        name: args.name.clone(),
        image,
        command: spec.argv.clone(),
        started: chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        pid: std::process::id(),
        pid_started: started,
        stop_timeout: spec.stop_timeout.as_secs(),
    })
}

/// Writes the id to a new file.
fn write_id(path: &Path, id: &str) -> Result<()> {
    let doing = || format!("--cidfile {}", path.display());
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::input(format!("{}: the file exists: another run has its id in it", doing()))
                .with_hint("remove the file if that run has ended, or name another file")
        }
        _ => Error::from(error).context(doing()).with_kind(Kind::Input),
    })?;
    file.write_all(id.as_bytes()).with_context(doing)
}

/// What follows a run, beside its output.
pub trait RunObserver {
    /// Everything is resolved; nothing is started yet.
    fn planned(&mut self, running: &Running, spec: &ContainerSpec) -> Result<()>;
    /// The container has ended.
    fn ended(&mut self, output: &RunOutput<'_>) -> Result<()>;
}

/// `--json`.
struct Print(bool);

impl RunObserver for Print {
    fn planned(&mut self, _running: &Running, _spec: &ContainerSpec) -> Result<()> {
        Ok(())
    }

    fn ended(&mut self, output: &RunOutput<'_>) -> Result<()> {
        if self.0 {
            ui::on_stderr(&ui::json_line(output)?);
        }
        Ok(())
    }
}

/// Returns the exit code of the command.
pub fn run(args: &RunArgs, policy: &Policy) -> Result<u8> {
    let Some(path) = &args.bundle else {
        let stdio = stdio::of(&args.streams)?;
        return run_with(args, stdio, policy, &mut Print(args.json));
    };
    let mut bundle = Bundle::open(path, &request::of_workload(&args.workload).limits)?;
    let streams = bundle.streams(args.streams);
    let stdio = stdio::of(&streams)?;
    let workload = Workload { image: bundle.name(), ..request::of_workload(&args.workload) };
    let seccomp = args.workload.seccomp.as_deref();
    let prepare = || bundle.prepare(&args.workload.mounts, seccomp, streams.tty, policy);
    execute(args, streams, stdio, &workload, prepare, &mut Print(args.json))
}

/// The same, with these standard streams, and with an observer in place of `--json`.
pub fn run_with(args: &RunArgs, stdio: Stdio, policy: &Policy, observer: &mut dyn RunObserver) -> Result<u8> {
    let workload = Workload { terminal: args.streams.tty, ..request::of_workload(&args.workload) };
    execute(args, args.streams, stdio, &workload, || workload.prepare(policy), observer)
}

/// Runs what `prepare` prepares.
fn execute(
    args: &RunArgs,
    streams: StreamArgs,
    stdio: Stdio,
    workload: &Workload,
    prepare: impl FnOnce() -> Result<Prepared>,
    observer: &mut dyn RunObserver,
) -> Result<u8> {
    let stop_timeout = args.stop_timeout.unwrap_or(ContainerSpec::STOP_TIMEOUT);
    let signals = Signals::catch_for(stop_timeout)?;
    let directory = args.output.as_deref().map(OutputDirectory::check).transpose()?;
    let Prepared { supervisor, mut spec, filter, files, rootfs: _in_use, image, bundle } = prepare()?;
    spec.stdio = stdio;
    if directory.is_some() {
        (spec.collect_output, spec.limits.output_files) = (true, run_output::MAX_FILES);
    }
    spec.stop_timeout = stop_timeout;
    let inputs = files.digests(&signals)?;
    let running = entry(args, workload.image.clone(), &spec)?;
    let _registered = running.register()?;
    observer.planned(&running, &spec)?;
    if let Some(path) = &args.cidfile {
        write_id(path, &running.id)?;
    }
    let mut output = match streams.tty {
        true => PassThrough::raw(&signals),
        false => PassThrough::new(&signals),
    };
    let outcome = supervisor.run(spec, signals.fd(), &mut output);
    let outcome = outcome.map_err(|error| or_interrupted(error, &signals))?;
    output.check()?;
    files.check_unchanged()?;
    let written = directory.map(|directory| directory.write(&outcome.output)).transpose()?;
    denied_calls::show(outcome.denied_calls.as_ref(), None);
    observer.ended(&RunOutput {
        format_version: "runtime-run-v1",
        id: &running.id,
        name: args.name.as_deref(),
        image,
        bundle,
        status: outcome.status,
        usage: &outcome.usage,
        refused: outcome.denied_calls.as_ref(),
        seccomp: filter.output(),
        loosened: loosened(&streams, &files),
        mounts: &files.record,
        devices: files.devices.record.as_ref(),
        inputs: &inputs,
        output: written.as_deref(),
        observations: &outcome.observations,
        timings_us: &outcome.timings,
    })?;
    workload.exit_code(&outcome, &signals, args.json)
}
