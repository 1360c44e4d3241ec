//! `invarlock runtime …`: images of the store, and running a command of one inside the boundary.

use crate::args::{RunArgs, RuntimeCommand};
use crate::error::{Error, Kind, OURS, Result};
use crate::filter::Filter;
use crate::policy::Policy;
use crate::signals::Signals;
use crate::ui::{self, Level, Ui};
use crate::{image, plan, refused, transport};
use invarlock_images::VerifiedRootfs;
use invarlock_runtime::{ContainerSpec, Outcome, Sink, Status};
use invarlock_seccomp::BuiltinProfile;
use serde_json::{Value, json};
use std::io::Write as _;

/// Runs the sub-command.
pub fn run(command: &RuntimeCommand, policy: &Policy) -> Result<u8> {
    match command {
        RuntimeCommand::Image(command) => super::images::run(command, policy),
        RuntimeCommand::Probe { json } => super::probe::run(*json),
        RuntimeCommand::Run { what, json } => run_image(what, *json, policy),
        RuntimeCommand::Learn { what, json } => super::learn::run(what, *json, policy),
    }
}

/// What `runtime run` and `runtime learn` run.
pub(super) struct Prepared {
    /// The container.
    pub(super) spec: ContainerSpec,
    /// Its filter, as part of the container and as what it decides.
    pub(super) filter: Filter,
    /// The image's trees, which stay as long as this is held.
    pub(super) rootfs: VerifiedRootfs,
    /// The image, for people's programs.
    image: Value,
}

/// Resolves image and profile.
pub(super) fn prepare(what: &RunArgs, policy: &Policy) -> Result<Prepared> {
    let image = image::existing(&Ui::new(Level::Quiet), &what.image, what.care.verify_image, policy)?;
    transport::close(policy)?;
    let ran = json!({
        "reference": image.resolved.reference, "manifest_digest": image.resolved.manifest_digest,
        "verification": image.rootfs.level,
    });
    let argv = if what.argv.is_empty() { image.resolved.entrypoint.clone() } else { what.argv.clone() };
    if argv.is_empty() {
        return Err(Error::input(format!(
            "image {} has no entrypoint; say what to run: -- ARGV…",
            what.image
        )));
    }
    // The evaluator image needs no more than the evaluator's calls; anything else gets the general profile.
    let ours = match image.resolved.speaks.as_deref() {
        Some("measure") => BuiltinProfile::Evaluator,
        _ => BuiltinProfile::General,
    };
    let filter = Filter::choose(what.seccomp.as_deref(), ours)?;
    let spec = ContainerSpec {
        rootfs: image.rootfs.layers.clone(),
        argv,
        env: image.resolved.env.clone(),
        cwd: image.resolved.cwd,
        inputs: Vec::new(),
        filter: filter.program.clone(),
        limits: plan::limits(&what.limits, plan::OUTPUT_BYTES),
        collect_output: false,
    };
    Ok(Prepared { spec, filter, rootfs: image.rootfs, image: ran })
}

/// The workload's output goes straight through; only a terminal gets it with escapes made harmless.
fn run_image(what: &RunArgs, json: bool, policy: &Policy) -> Result<u8> {
    let signals = Signals::catch()?;
    let Prepared { spec, filter, rootfs: _held, image } = prepare(what, policy)?;
    let mut output = PassThrough::default();
    let outcome = policy.supervisor().and_then(|supervisor| supervisor.run(spec, signals.fd(), &mut output));
    let outcome = outcome.map_err(|error| signals.check("nothing is kept").err().unwrap_or(error))?;
    output.check()?;
    refused::show(outcome.denied_calls.as_ref(), None);
    if json {
        let value = json!({
            "image": image, "status": outcome.status, "usage": outcome.usage, "refused": outcome.denied_calls,
            "seccomp": filter.as_json(),
            "observations": outcome.observations, "timings_us": outcome.timings,
        });
        drop(writeln!(std::io::stderr(), "{}", ui::ascii(&value.to_string())));
    }
    exit_code(&what.image, &outcome, &signals, json)
}

/// The workload's code, or why there is none; limits that were met are named, unless that is said elsewhere.
pub(super) fn exit_code(reference: &str, outcome: &Outcome, signals: &Signals, quiet: bool) -> Result<u8> {
    let hit = plan::limits_hit(outcome);
    let by_limit = matches!(outcome.status, Status::TimedOut | Status::MemoryLimit);
    if !quiet && !by_limit {
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

/// The workload's output on its way to ours: as it is into files and pipes, printable onto a terminal.
#[derive(Default)]
pub(super) struct PassThrough {
    streams: [Stream; 2],
    /// Whether all of it goes to standard error, because standard output is for something else.
    aside: bool,
}

#[derive(Default)]
struct Stream {
    /// Bytes of a character that is not whole yet.
    rest: Vec<u8>,
    /// Why nothing more can be written.
    failed: Option<std::io::Error>,
}

impl Stream {
    fn write(&mut self, mut to: impl std::io::Write, terminal: bool, bytes: &[u8]) {
        let result = if terminal {
            self.rest.extend_from_slice(bytes);
            let rest = self.rest.split_off(whole(&self.rest));
            let text = ui::printable(&String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)));
            to.write_all(text.as_bytes())
        } else {
            to.write_all(bytes)
        };
        self.failed = result.and_then(|()| to.flush()).err();
    }
}

/// How many bytes are whole characters, or no characters at all: all but the beginning of one at the very end.
fn whole(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let begun = std::str::from_utf8(last).is_err_and(|e| e.error_len().is_none());
    if begun { bytes.len() - last.len() } else { bytes.len() }
}

impl PassThrough {
    /// Standard output is for something else: all of it goes to standard error.
    pub(super) fn aside() -> Self {
        PassThrough { aside: true, ..PassThrough::default() }
    }

    /// A reader that went away is an ordinary end; a full disk is not.
    pub(super) fn check(&mut self) -> Result<()> {
        let failed = self.streams.iter_mut().find_map(|stream| stream.failed.take());
        match failed.filter(|e| e.kind() != std::io::ErrorKind::BrokenPipe) {
            Some(e) => Err(Error::from(e).context("passing on what the workload prints")),
            None => Ok(()),
        }
    }
}

impl Sink for PassThrough {
    fn stdout(&mut self, bytes: &[u8]) {
        if self.aside {
            return self.stderr(bytes);
        }
        self.streams[0].write(std::io::stdout(), console::Term::stdout().is_term(), bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.streams[1].write(std::io::stderr(), console::Term::stderr().is_term(), bytes);
    }

    fn gone(&self) -> [bool; 2] {
        [if self.aside { 1 } else { 0 }, 1].map(|i| self.streams[i].failed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{Stream, whole};

    #[test]
    fn characters_are_not_cut_and_escapes_do_not_pass() {
        let (mut stream, mut out) = (Stream::default(), Vec::new());
        for piece in
            ["ünï\u{1b}[2J\u{9b}31m\u{202e}€".as_bytes(), b"\x9b1m\xff", "ö".as_bytes()].concat().chunks(1)
        {
            stream.write(&mut out, true, piece);
        }
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "ünï\\u{1b}[2J\\u{9b}31m\\u{202e}€\u{fffd}1m\u{fffd}ö"
        );
        assert_eq!(whole("€".as_bytes()), 3);
        assert_eq!(whole(&"€".as_bytes()[..2]), 0);
        assert_eq!(whole(b"ab\xff"), 3, "0xff begins nothing");
    }
}
