//! Which image runs: `--image`, then `INVARLOCK_RUNTIME_IMAGE`, then the default image, which is built from the evaluator next to this
//! program. No other image is tried. A required digest (`--image-digest`) is compared with the image that was found before anything of
//! the image is used.

use crate::error::{Context as _, Error, Kind, Result};
use crate::network::NetworkPolicy;
use crate::registry;
use crate::ui::{Level, Step, Ui};
use invarlock_images::{Digest, Reference, ResolvedImage, RootfsOptions, Store, VerifiedRootfs, Verify};
use std::path::{Path, PathBuf};

/// Tag of the default image.
pub const DEFAULT_IMAGE: &str = "invarlock-runtime:local";
/// File name of the evaluator next to the launcher.
const EVALUATOR: &str = "invarlock-evaluator";

/// A resolved image with its verified root file system.
pub struct Image {
    /// What the reference resolved to.
    pub resolved: ResolvedImage,
    /// The extracted layers, verified.
    pub rootfs: VerifiedRootfs,
}

/// The image that the user chose.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The reference; none means the default image.
    pub reference: Option<String>,
    /// The digest that the image's manifest must have.
    pub digest: Option<Digest>,
    /// The evaluator of the default image; none means the one next to this program.
    pub evaluator: Option<PathBuf>,
    /// How the extracted layers are verified.
    pub verify: Verify,
}

/// Opens this user's store.
pub fn store() -> Result<Store> {
    Store::open(&Store::default_root()?)
}

/// The evaluator: `--evaluator`, otherwise the one next to this program. A file that another user could have written is refused.
pub fn evaluator(chosen: Option<&Path>) -> Result<PathBuf> {
    let path = match chosen {
        Some(path) => std::path::absolute(path).context("resolving --evaluator")?,
        None => {
            let own = std::env::current_exe().context("finding this program's own path")?;
            own.with_file_name(EVALUATOR)
        }
    };
    if !path.is_file() {
        return Err(Error::input(format!("evaluator {} not found", path.display())))
            .hint("build it with `make build`, or pass --evaluator FILE");
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

/// An image of the store as it is. Only a missing default image is built first. `on_resolved` is called before the layers are verified, which
/// can take longer.
pub fn existing(
    ui: &Ui,
    reference: &str,
    verify: Verify,
    network: &NetworkPolicy,
    on_resolved: &mut dyn FnMut(&ResolvedImage) -> Result<()>,
) -> Result<Image> {
    let store = store()?;
    let parsed = Reference::parse(reference)?;
    registry::pull_missing(ui, &store, &parsed, network)?;
    match store.resolve(&parsed) {
        Ok(resolved) => {
            on_resolved(&resolved)?;
            Ok(Image { rootfs: store.rootfs(&resolved, options(verify))?, resolved })
        }
        Err(error) if error.kind() == Kind::Input && reference == DEFAULT_IMAGE => {
            prepare(ui, &Choice { verify, ..Choice::default() }, network)
        }
        Err(error) => Err(error),
    }
}

/// Resolves the chosen image, extracts its layers and verifies them. The default image is built again when it is missing or was built
/// from a different evaluator.
pub fn prepare(ui: &Ui, choice: &Choice, network: &NetworkPolicy) -> Result<Image> {
    let step = ui.step("image", 2, false);
    let reference = choice.reference.as_deref().unwrap_or(DEFAULT_IMAGE);
    let parsed = Reference::parse(reference)?;
    let store = store()?;
    let checked = |resolved: ResolvedImage| match &choice.digest {
        Some(required) => check_digest(&resolved, required).map(|()| resolved),
        None => Ok(resolved),
    };
    let verified = |resolved: ResolvedImage| {
        step.set(1, 2);
        let rootfs = store.rootfs(&resolved, options(choice.verify))?;
        Ok::<_, Error>(Image { resolved, rootfs })
    };
    let image = if reference == DEFAULT_IMAGE {
        let evaluator = default_evaluator(ui, choice.evaluator.as_deref())?;
        let current = evaluator.as_deref().and_then(|path| current_default_image(&store, path, &parsed));
        let again = || verified(checked(default_image(&store, evaluator.as_deref(), &parsed)?)?);
        match current.map(checked).transpose()?.map(verified) {
            // An altered one is repaired.
            Some(Err(error)) if matches!(error.kind(), Kind::Integrity | Kind::Safety) => again()?,
            Some(image) => image?,
            None => again()?,
        }
    } else {
        registry::pull_missing(ui, &store, &parsed, network)?;
        verified(checked(store.resolve(&parsed)?)?)?
    };
    step.done(&format!("{reference} {}", image.resolved.manifest_digest));
    Ok(image)
}

/// A progress bar over the bytes of an image's blobs.
pub fn copy_step(name: &str, store: &Store, reference: &Reference) -> Result<Step> {
    Ok(Ui::new(Level::Normal).step(name, store.resolve(reference)?.bytes, true))
}

/// Compares the digest. (The Python package trusts this digest without comparing it.)
fn check_digest(image: &ResolvedImage, required: &Digest) -> Result<()> {
    let found = &image.manifest_digest;
    if found == required {
        return Ok(());
    }
    let message = format!(
        "image {}: its image manifest has digest {found}, but --image-digest (INVARLOCK_RUNTIME_IMAGE_DIGEST) requires {required}",
        image.reference
    );
    // Container engines print the digest of the configuration as the id of an image.
    Err(Error::integrity(message)).hint(match *required == image.config_digest {
        true => "that is the digest of the image's configuration; pass the digest of its image manifest",
        false => "pass the image that has this digest, or correct the digest",
    })
}

fn options(verify: Verify) -> RootfsOptions {
    RootfsOptions { verify, ..RootfsOptions::default() }
}

/// The evaluator of the default image. Without one, the default image of the store is used as it is.
fn default_evaluator(ui: &Ui, chosen: Option<&Path>) -> Result<Option<PathBuf>> {
    match evaluator(chosen) {
        Ok(path) => Ok(Some(path)),
        Err(error) if chosen.is_none() && error.kind() == Kind::Input => {
            ui.say(Level::Verbose, "no evaluator next to this program");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The default image of the store, if it is that of the evaluator and has its SBOM. It is not verified.
fn current_default_image(store: &Store, evaluator: &Path, reference: &Reference) -> Option<ResolvedImage> {
    let resolved = store.resolve(reference).ok()?;
    let expected = invarlock_images::measure_image_digest(evaluator).ok()?;
    let whole = resolved.manifest_digest == expected && store.sbom(reference).is_ok();
    whole.then_some(resolved)
}

/// The default image, built from the evaluator, if there is one.
fn default_image(store: &Store, evaluator: Option<&Path>, reference: &Reference) -> Result<ResolvedImage> {
    if let Some(path) = evaluator {
        store.build_measure_image(path, DEFAULT_IMAGE)?;
    }
    let hint = "build it with `invarlock runtime image build` or `make runtime-image`";
    store.resolve(reference).map_err(|error| match error.kind() {
        // Not in the store. The default image is not imported or pulled.
        Kind::Input => error.without_hint().with_hint(hint),
        _ => error.with_hint(hint),
    })
}
