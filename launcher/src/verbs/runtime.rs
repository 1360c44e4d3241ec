//! `invarlock runtime …`: images of the store, and running a command of one inside the boundary.

use crate::args::{ImageCommand, LimitArgs, RuntimeCommand};
use crate::error::{Error, Kind, Result};
use crate::signals::Signals;
use crate::ui::{self, Level, Ui};
use crate::{image, plan, refused};
use invarlock_images::Reference;
use invarlock_runtime::{ContainerSpec, Sink, Status};
use invarlock_seccomp::Profile;
use serde_json::json;
use std::io::Write as _;
use std::path::Path;

/// Exit code of `runtime run` for failures that are ours, not the workload's.
const OURS: u8 = 125;

/// Runs the sub-command.
pub fn run(command: &RuntimeCommand) -> Result<u8> {
    match command {
        RuntimeCommand::Image(ImageCommand::Build { evaluator, json }) => build(evaluator.as_deref(), *json),
        RuntimeCommand::Image(ImageCommand::Ls { json }) => list(*json),
        RuntimeCommand::Image(ImageCommand::Inspect { image }) => {
            let store = image::store()?;
            let value = store.inspect(&Reference::parse(image)?)?;
            ui::out(&format!("{value:#}"));
            Ok(0)
        }
        RuntimeCommand::Run { image, argv, limits, json } => {
            run_image(image, argv, limits, *json).map_err(|e| match e.kind {
                Kind::Interrupted(_) => e,
                _ => e.with_exit_code(OURS),
            })
        }
    }
}

fn build(evaluator: Option<&Path>, json: bool) -> Result<u8> {
    let path = image::evaluator(evaluator)?;
    let resolved = image::build(&path)?;
    if json {
        let value = json!({
            "format_version": "runtime-image-build-v1",
            "reference": resolved.reference,
            "manifest_digest": resolved.manifest_digest,
            "config_digest": resolved.config_digest,
            "evaluator": path,
        });
        ui::out(&value.to_string());
    } else {
        ui::out(&format!("{} {}", resolved.reference, resolved.manifest_digest));
    }
    Ok(0)
}

fn list(json: bool) -> Result<u8> {
    let entries = image::store()?.list()?;
    if json {
        ui::out(&json!({"format_version": "runtime-image-ls-v1", "images": entries}).to_string());
        return Ok(0);
    }
    ui::out(&format!("{:<32} {:<71} SIZE", "REFERENCE", "DIGEST"));
    for e in entries {
        ui::out(&format!(
            "{:<32} {:<71} {}",
            ui::printable(&e.reference),
            e.manifest_digest,
            ui::size(e.bytes)
        ));
    }
    Ok(0)
}

/// The workload's output goes straight through; only a terminal gets it with escapes made harmless.
fn run_image(reference: &str, argv: &[String], limits: &LimitArgs, json: bool) -> Result<u8> {
    let signals = Signals::catch()?;
    let image = image::existing(&Ui::new(Level::Quiet), reference)?;
    let argv = if argv.is_empty() { image.resolved.entrypoint.clone() } else { argv.to_vec() };
    if argv.is_empty() {
        return Err(Error::input(format!("image {reference} has no entrypoint; say what to run: -- ARGV…")));
    }
    // The evaluator image needs no more than the evaluator's calls; anything else gets the general profile.
    let profile = match image.resolved.speaks.as_deref() {
        Some("measure") => Profile::evaluator(),
        _ => Profile::general(),
    };
    let spec = ContainerSpec {
        rootfs: image.rootfs.layers,
        argv,
        env: image.resolved.env.clone(),
        cwd: image.resolved.cwd,
        inputs: Vec::new(),
        filter: profile.compile_heard()?,
        limits: plan::limits(limits, plan::OUTPUT_BYTES),
        collect_output: false,
    };
    let outcome = invarlock_runtime::run(spec, signals.fd(), &mut PassThrough);
    let outcome =
        outcome.map_err(|error| signals.check("nothing is kept").err().unwrap_or_else(|| error.into()))?;
    refused::show(outcome.refused.as_ref(), None);
    if json {
        let value = json!({
            "status": outcome.status, "usage": outcome.usage, "refused": outcome.refused,
            "observations": outcome.observations,
        });
        drop(writeln!(std::io::stderr(), "{value}"));
    }
    let hit = plan::limits_hit(&outcome);
    let by_limit = matches!(outcome.status, Status::TimedOut | Status::MemoryLimit);
    if !json && !by_limit {
        hit.iter().for_each(|limit| drop(writeln!(std::io::stderr(), "invarlock: {limit}")));
    }
    match outcome.status {
        Status::Exited(code) => Ok(u8::try_from(code).unwrap_or(OURS)),
        Status::Signaled(signal) => Ok(128u8.saturating_add(u8::try_from(signal).unwrap_or(0))),
        Status::Cancelled => {
            Err(signals.check("nothing is kept").err().unwrap_or_else(|| Error::input("cancelled")))
        }
        Status::TimedOut | Status::MemoryLimit => {
            Err(Error::new(Kind::System, format!("running {reference}: {}", hit.join(", and "))))
        }
    }
}

struct PassThrough;

impl PassThrough {
    fn write(mut to: impl std::io::Write, terminal: bool, bytes: &[u8]) {
        let text = if terminal {
            ui::printable(&String::from_utf8_lossy(bytes)).into_bytes()
        } else {
            bytes.to_vec()
        };
        drop(to.write_all(&text).and_then(|()| to.flush()));
    }
}

impl Sink for PassThrough {
    fn stdout(&mut self, bytes: &[u8]) {
        PassThrough::write(std::io::stdout(), console::Term::stdout().is_term(), bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        PassThrough::write(std::io::stderr(), console::Term::stderr().is_term(), bytes);
    }
}
