//! `evaluate` with an image of another program: InvarLock's Python package 0.8 to 0.12, whose whole `evaluate` runs in one container.
//!
//! The inputs of the command line are opened here, hashed, and mounted read-only below `/in`; arguments and paths in settings are rewritten
//! accordingly. The program leaves its files in `/out`, which is read after the container is dead. The launcher then writes a runtime manifest
//! with what it planned and observed. It trusts nothing that the program prints or leaves: the report is that program's own.

mod check;
mod container;
mod inputs;
mod options;
mod output;
mod paths;
mod plan;
mod run;
mod settings;

pub use output::Left;
pub use plan::{Plan, open};
pub use run::{Run, Shown, ran};

use crate::args::EvaluateArgs;
use crate::error::{Error, Result};
use crate::image::{self, Choice, DEFAULT_IMAGE};
use crate::policy::Policy;
use crate::registry;
use crate::request;
use crate::ui::Ui;
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_images::Reference;

/// The label of images whose program runs the whole command.
const DELEGATE: &str = "delegate";

/// Whether the user named an image of another program: one that speaks `delegate`, or that does not say what it speaks. An image that cannot
/// be resolved is not one: what is wrong with it is found where it is used.
pub fn is_chosen(args: &EvaluateArgs, policy: &Policy, ui: &Ui) -> Result<bool> {
    let Choice { reference, .. } = request::choice(&args.container)?;
    let Some(reference) = reference.filter(|reference| reference != DEFAULT_IMAGE) else { return Ok(false) };
    let Ok(reference) = Reference::parse(&reference) else { return Ok(false) };
    let store = image::store()?;
    registry::pull_missing(ui, &store, &reference, &policy.network)?;
    match (store.resolve(&reference), policy.mode) {
        (Ok(image), ExecutionMode::HostBypass) => match image.speaks.as_deref() {
            Some(DELEGATE) => Err(Error::input(format!(
                "image {reference} speaks `delegate`, and its program runs only in a container"
            ))
            .with_hint("run in a container: --execution-mode container")),
            _ => Ok(false),
        },
        (Ok(image), _) => Ok(image.speaks.as_deref().is_none_or(|speaks| speaks == DELEGATE)),
        // The usual path has the error, at its place among others.
        (Err(_), _) => Ok(false),
    }
}

/// The options that only such an image takes.
pub fn refuse_without(args: &EvaluateArgs) -> Result<()> {
    options::refuse_without(args)
}
