//! Which image runs. In this order: `--image`, `INVARLOCK_RUNTIME_IMAGE`, and the default image, built on first use from the evaluator
//! beside us. Nothing else is tried: an image that only happens to be there, or that a registry happens to have, is nobody's choice.
//! A digest that somebody names beside that is compared with the image that was found, before anything of it is used.

use crate::args::RuntimeArgs;
use crate::error::{Error, Kind, Result};
use crate::policy::Policy;
use crate::transport;
use crate::ui::{Level, Ui};
use invarlock_error::Context as _;
use invarlock_images::{Digest, Reference, ResolvedImage, RootfsOptions, Store, VerifiedRootfs, Verify};
use std::path::{Path, PathBuf};

/// Tag of the default image.
pub const DEFAULT_IMAGE: &str = "invarlock-runtime:local";
/// Name of the evaluator beside the launcher.
const EVALUATOR: &str = "invarlock-evaluator";

/// A resolved image with its verified root file system.
pub struct Image {
    /// What the reference resolved to.
    pub resolved: ResolvedImage,
    /// The unpacked layers, verified just now.
    pub rootfs: VerifiedRootfs,
}

/// What was asked for.
#[derive(Clone, Copy, Default)]
pub struct Choice<'a> {
    /// The reference; a blank one means the default image, as upstream has it.
    pub reference: Option<&'a str>,
    /// The digest its manifest must have; a blank one means none, likewise.
    pub digest: Option<&'a str>,
    /// What the default image is built from, where not from what lies beside us.
    pub evaluator: Option<&'a Path>,
}

impl<'a> From<&'a RuntimeArgs> for Choice<'a> {
    fn from(args: &'a RuntimeArgs) -> Self {
        let said = |text: &'a Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty());
        Self {
            reference: said(&args.image),
            digest: said(&args.image_digest),
            evaluator: args.evaluator.as_deref(),
        }
    }
}

/// Opens this user's store.
pub fn store() -> Result<Store> {
    Store::open(&Store::default_root()?)
}

/// The evaluator: `--evaluator`, else the one beside this program. One that others could have written is refused.
pub fn evaluator(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => std::path::absolute(path).context("resolving --evaluator")?,
        None => {
            let own = std::env::current_exe().context("finding this program's own path")?;
            own.with_file_name(EVALUATOR)
        }
    };
    if !path.is_file() {
        return Err(Error::input(format!(
            "looking for the evaluator: {} is not there; build it (`make build`) or name it with --evaluator FILE",
            path.display()
        )));
    }
    invarlock_security::secure_executable(&path)?;
    Ok(path)
}

/// Builds the default image from `evaluator`; the same bytes give the same digest.
pub fn build(evaluator: &Path) -> Result<ResolvedImage> {
    let store = store()?;
    store.build_measure_image(evaluator, DEFAULT_IMAGE)?;
    store.resolve(&Reference::parse(DEFAULT_IMAGE)?)
}

/// An image of the store as it is; only a missing default image is built first.
pub fn existing(ui: &Ui, reference: &str, verify: Verify, policy: &Policy) -> Result<Image> {
    let store = store()?;
    let parsed = Reference::parse(reference)?;
    transport::pull_missing(ui, &store, &parsed, policy)?;
    match store.resolve(&parsed) {
        Ok(resolved) => Ok(Image { rootfs: store.rootfs(&resolved, care(verify))?, resolved }),
        Err(error) if error.kind() == Kind::Input && reference == DEFAULT_IMAGE => {
            prepare(ui, &Choice::default(), verify, policy)
        }
        Err(e) => Err(e),
    }
}

/// Resolves what was chosen and unpacks and verifies its root file system. The default image is built anew when it is missing
/// or the evaluator is not what it was built from.
pub fn prepare(ui: &Ui, choice: &Choice<'_>, verify: Verify, policy: &Policy) -> Result<Image> {
    let step = ui.step("image", 2, false);
    let reference = choice.reference.unwrap_or(DEFAULT_IMAGE);
    let parsed = Reference::parse(reference)?;
    let wanted = choice
        .digest
        .map(Digest::parse)
        .transpose()
        .context("reading --image-digest (INVARLOCK_RUNTIME_IMAGE_DIGEST)")?;
    let store = store()?;
    let resolved = if reference == DEFAULT_IMAGE {
        build_if_evaluator(&store, ui, choice.evaluator, &parsed)?
    } else {
        transport::pull_missing(ui, &store, &parsed, policy)?;
        store.resolve(&parsed)?
    };
    if let Some(wanted) = wanted {
        is_wanted(&resolved, &wanted)?;
    }
    step.set(1, 2);
    let rootfs = store.rootfs(&resolved, care(verify))?;
    step.done(&format!("{reference} {}", resolved.manifest_digest));
    Ok(Image { resolved, rootfs })
}

/// Upstream believes this digest; here it is compared. Container engines also print the digest of an image's configuration.
fn is_wanted(image: &ResolvedImage, wanted: &Digest) -> Result<()> {
    let found = &image.manifest_digest;
    if found == wanted {
        return Ok(());
    }
    let what = match *wanted == image.config_digest {
        true => "is that of its configuration; name the manifest's",
        false => {
            "was asked for (--image-digest, INVARLOCK_RUNTIME_IMAGE_DIGEST); name the image that you mean"
        }
    };
    let message = format!("image {}: its manifest has digest {found}, and {wanted} {what}", image.reference);
    Err(Error::new(Kind::Integrity, message))
}

fn care(verify: Verify) -> RootfsOptions {
    RootfsOptions { verify, ..RootfsOptions::default() }
}

/// The default image follows the evaluator beside us; where there is none, the image of the store is used as it is.
fn build_if_evaluator(
    store: &Store,
    ui: &Ui,
    given: Option<&Path>,
    parsed: &Reference,
) -> Result<ResolvedImage> {
    match evaluator(given) {
        Ok(path) => store.build_measure_image(&path, DEFAULT_IMAGE).map(drop)?,
        Err(e) if given.is_none() && e.kind() == Kind::Input => {
            ui.say(Level::Verbose, "no evaluator beside this program")
        }
        Err(e) => return Err(e),
    }
    store.resolve(parsed).hint("build the image with `invarlock runtime image build` or `make runtime-image`")
}
