//! The check of the image before anything is hashed: its program must say that it is a version of InvarLock whose `evaluate` runs here.

use super::container::Container;
use crate::error::{Context as _, Error, Result};
use crate::image::Image;
use crate::policy::Policy;
use crate::signals::Signals;
use crate::ui::printable;
use invarlock_evidence::delegated::Version;
use invarlock_runtime::{Sink, Status};

/// Bytes of each stream that are kept.
const KEPT: usize = 16 << 10;
/// Characters of what the program printed that are shown.
const SHOWN: usize = 200;
/// What the program prints before its version.
const NAME: &str = "InvarLock ";

/// The start of what a program prints.
#[derive(Default)]
struct Printed {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Sink for Printed {
    fn stdout(&mut self, bytes: &[u8]) {
        keep(&mut self.out, bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        keep(&mut self.err, bytes);
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
}

/// The version that the program of the image states.
pub fn version(
    image: &Image,
    container: &Container<'_>,
    policy: &Policy,
    signals: &Signals,
) -> Result<String> {
    let reference = &image.resolved.reference;
    if image.resolved.entrypoint.is_empty() {
        return Err(Error::unsupported(format!("image {reference} has no entrypoint")).with_hint(
            "an image that speaks `delegate` starts InvarLock's command line by its entrypoint, such as `python -m invarlock`",
        ));
    }
    let mut printed = Printed::default();
    let spec = container.spec(&["--version".to_owned()], Vec::new())?;
    let outcome = policy.supervisor()?.run(spec, signals.fd(), &mut printed);
    signals.check("nothing was written")?;
    let outcome = outcome
        .with_context(|| format!("asking the program of image {reference} for its version"))
        .map_err(|error| with_label(error, image))?;
    let stated = String::from_utf8_lossy(&printed.out).into_owned();
    let version = stated.trim_start().strip_prefix(NAME).and_then(|rest| rest.split_whitespace().next());
    match (outcome.status, version.and_then(|text| Some((text, Version::parse(text)?)))) {
        (Status::Exited(0), Some((text, version))) if version.is_supported() => Ok(text.to_owned()),
        (Status::Exited(0), Some((text, _))) => Err(Error::unsupported(format!(
            "image {reference} has InvarLock {text}; `evaluate` runs 0.8 to 0.12"
        ))
        .with_hint("for 0.13 and newer, install an engine that the package calls: docs/engine.md")),
        (status, _) => {
            let last = if printed.err.is_empty() { &printed.out } else { &printed.err };
            let error = Error::unsupported(format!(
                "image {reference}: its program does not answer `--version` as InvarLock 0.8 to 0.12 does; it ended with {status}{}",
                shown(last)
            ));
            Err(with_label(error, image))
        }
    }
}

/// The last line of what was printed, as a part of a message.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => {
            format!(" and printed {:?}", printable(line).chars().take(SHOWN).collect::<String>())
        }
        None => String::new(),
    }
}

/// The error with what the label of the image says.
fn with_label(error: Error, image: &Image) -> Error {
    const WITH: &str = "use an image with InvarLock's Python package, such as that of `make python-image`";
    match image.resolved.speaks {
        Some(_) => error.with_hint(WITH),
        None => error
            .with_note("without the label org.invarlock.speaks, an image is taken for one with InvarLock's Python package")
            .with_hint(format!("{WITH}; leave out --image to use the default image")),
    }
}
