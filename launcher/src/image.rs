//! Which image runs: the reference, the store, and the default image built on first use from the evaluator beside us.

use crate::error::{Error, Kind, Result};
use crate::ui::{Level, Ui};
use invarlock_images::{Care, Reference, ResolvedImage, Store, VerifiedRootfs, Verify};
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

/// Opens this user's store.
pub fn store() -> Result<Store> {
    Ok(Store::open(&Store::default_root()?)?)
}

/// The evaluator: `--evaluator`, else the one beside this program. One that others could have written is refused.
pub fn evaluator(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => std::path::absolute(path).map_err(|e| Error::io("resolving --evaluator", &e))?,
        None => {
            let own =
                std::env::current_exe().map_err(|e| Error::io("finding this program's own path", &e))?;
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
    Ok(store.resolve(&Reference::parse(DEFAULT_IMAGE)?)?)
}

/// An image of the store as it is; only a missing default image is built first.
pub fn existing(ui: &Ui, reference: &str, verify: Verify) -> Result<Image> {
    let store = store()?;
    match store.resolve(&Reference::parse(reference)?) {
        Ok(resolved) => Ok(Image { rootfs: store.rootfs(&resolved, care(verify))?, resolved }),
        Err(invarlock_images::Error::Input(_)) if reference == DEFAULT_IMAGE => {
            prepare(ui, None, None, verify)
        }
        Err(e) => Err(e.into()),
    }
}

/// Resolves `reference` and unpacks and verifies its root file system. The default image is built anew when it is missing
/// or `evaluator` is not what it was built from.
pub fn prepare(
    ui: &Ui,
    reference: Option<&str>,
    evaluator_given: Option<&Path>,
    verify: Verify,
) -> Result<Image> {
    let step = ui.step("image", 2, false);
    // A blank variable means the default, as upstream has it.
    let reference = reference.map(str::trim).filter(|r| !r.is_empty()).unwrap_or(DEFAULT_IMAGE);
    let parsed = Reference::parse(reference)?;
    let store = store()?;
    let resolved = if reference == DEFAULT_IMAGE {
        build_if_evaluator(&store, ui, evaluator_given, &parsed)?
    } else {
        store.resolve(&parsed)?
    };
    step.set(1, 2);
    let rootfs = store.rootfs(&resolved, care(verify))?;
    step.done(&format!("{reference} {}", resolved.manifest_digest));
    Ok(Image { resolved, rootfs })
}

fn care(verify: Verify) -> Care {
    Care { verify, ..Care::default() }
}

/// The default image follows the evaluator beside us; where there is none, the image of the store is used as it is.
fn build_if_evaluator(
    store: &Store,
    ui: &Ui,
    given: Option<&Path>,
    parsed: &Reference,
) -> Result<ResolvedImage> {
    match evaluator(given) {
        Ok(path) => store.build_measure_image(&path, DEFAULT_IMAGE).map(drop).map_err(Error::from)?,
        Err(e) if given.is_none() && e.kind == Kind::Input => {
            ui.say(Level::Verbose, "no evaluator beside this program")
        }
        Err(e) => return Err(e),
    }
    store.resolve(parsed).map_err(|e| {
        let e = Error::from(e);
        Error::new(
            e.kind,
            format!(
                "{}; build the image with `invarlock runtime image build` or `make runtime-image`",
                e.message
            ),
        )
    })
}
