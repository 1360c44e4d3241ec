//! The store: a facade over its layout, its cache of extracted layers, and the operations on images.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use invarlock_error::Context as _;

use crate::Result;
use crate::build::{Built, Recipe};
use crate::cas::Layout;
use crate::check::{Checked, Described};
use crate::gc::Freed;
use crate::layer::Policy;
use crate::oci::Digest;
use crate::progress::{Progress, TransferProgress};
use crate::reference::{Reference, RegistryName};
use crate::rootfs::{RootfsCache, RootfsOptions, VerifiedRootfs};
use crate::store_root::{check_local, default_root_with, make_private, refuse_other_directory};
use crate::tags::ListedImage;
use crate::transport::{Imported, LocalImages, Pulled, Remote, ResolvedImage};

/// The images and extracted layers in one directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    images: LocalImages,
}

impl Store {
    /// The default path: `$INVARLOCK_STORE`, else `/var/lib/invarlock` for root, else `invarlock` in the user's data directory.
    pub fn default_root() -> Result<PathBuf> {
        default_root_with(&|name| std::env::var_os(name), rustix::process::geteuid().is_root())
    }

    /// Opens the store in the directory `root`, which is created if necessary. A directory that other users can write is refused.
    pub fn open(root: &Path) -> Result<Self> {
        let root =
            std::path::absolute(root).with_context(|| format!("resolving store {}", root.display()))?;
        let opening = || format!("opening store {}", root.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).with_context(opening).map_err(
            |error| error.with_hint("choose another directory with the environment variable INVARLOCK_STORE"),
        )?;
        invarlock_security::is_secure_path(&root).with_context(opening)?;
        refuse_other_directory(&root).with_context(opening)?;
        // Containers get extracted layers by handle, so other users need no access. Files of an image that everyone can write stay
        // unreachable for them, and they cannot take the locks.
        make_private(&root)?;
        let dir = Dir::open_ambient_dir(&root, ambient_authority()).with_context(opening)?;
        check_local(&dir, &root)?;
        let layout = Layout::open_or_create(dir).with_context(opening)?;
        let rootfs = RootfsCache::open_or_create(layout.dir(), &root).with_context(opening)?;
        Ok(Self { root, images: LocalImages { layout, rootfs } })
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Builds the default image from `evaluator` with the name `reference`, a `NAME:TAG`. Existing parts are verified, and corrupt ones
    /// replaced. Returns the digest of the manifest, which depends only on the bytes of the evaluator.
    pub fn build_measure_image(&self, evaluator: &Path, reference: &str) -> Result<Digest> {
        self.images.build_measure_image(evaluator, reference)
    }

    /// Builds an image. It gets its name when it is complete, extracted and on disk.
    pub fn build(&self, recipe: &Recipe, progress: Progress<'_>) -> Result<Built> {
        self.images.build(recipe, progress)
    }

    /// Resolves a reference, and verifies everything down to the configuration.
    pub fn resolve(&self, reference: &Reference) -> Result<ResolvedImage> {
        self.images.resolve(reference)
    }

    /// Extracts the layers of an image if necessary, and verifies them.
    pub fn rootfs(&self, image: &ResolvedImage, options: RootfsOptions) -> Result<VerifiedRootfs> {
        self.images.rootfs(image, options)
    }

    /// Lists the images of the store.
    pub fn list(&self) -> Result<Vec<ListedImage>> {
        self.images.list()
    }

    /// Describes an image: its manifest and configuration, and the state of its extracted layers.
    pub fn inspect(&self, reference: &Reference) -> Result<Described> {
        self.images.inspect(reference)
    }

    /// Gives the name `tag`, a `NAME:TAG`, to an image of the store. Returns the digest of the manifest.
    pub fn tag(&self, reference: &Reference, tag: &str) -> Result<Digest> {
        self.images.tag(reference, tag)
    }

    /// Removes a tag, or with a digest all tags of the image. Blobs and extracted layers are deleted by [`Store::gc`]. Returns the removed
    /// tags, or the digest of an image without one.
    pub fn remove(&self, reference: &Reference) -> Result<Vec<String>> {
        self.images.remove(reference)
    }

    /// Verifies an image, or everything in the store, in full. With `repair`, altered extracted layers whose blobs are correct are extracted
    /// again, and altered extracted layers that no image uses are removed.
    pub fn verify(&self, reference: Option<&Reference>, repair: bool) -> Result<Vec<Checked>> {
        self.images.verify(reference, repair)
    }

    /// Deletes everything that no image of the store needs; with `dry_run`, only lists it. Waits for running imports.
    pub fn gc(&self, dry_run: bool) -> Result<Freed> {
        self.images.gc(dry_run)
    }

    /// The SBOM of an image, in the bytes that were attached.
    pub fn sbom(&self, reference: &Reference) -> Result<Vec<u8>> {
        self.images.sbom_bytes(reference)
    }

    /// Imports an image under the name `tag`, or without a name. It gets its name when it is complete, extracted and on disk.
    pub fn import(
        &self,
        reference: &Reference,
        tag: Option<&str>,
        policy: Policy,
        progress: Progress<'_>,
    ) -> Result<Imported> {
        self.images.import(reference, tag, policy, progress)
    }

    /// Exports an image to `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME:TAG]`. Returns the digest of the manifest.
    pub fn export(&self, reference: &Reference, to: &Reference, progress: Progress<'_>) -> Result<Digest> {
        self.images.export(reference, to, progress)
    }

    /// Pulls an image from `remote`. In the store it has its name in the registry, and also `tag` if one is given. Without a `policy` it is
    /// not extracted, for machines that only forward it.
    pub fn pull(
        &self,
        name: &RegistryName,
        remote: &dyn Remote,
        tag: Option<&str>,
        policy: Option<Policy>,
        progress: TransferProgress<'_>,
    ) -> Result<Pulled> {
        self.images.pull(name, remote, tag, policy, progress)
    }

    /// Pushes an image to `remote` under the name `to`. Returns the digest of the manifest.
    pub fn push(
        &self,
        reference: &Reference,
        to: &RegistryName,
        remote: &dyn Remote,
        progress: TransferProgress<'_>,
    ) -> Result<Digest> {
        self.images.push(reference, to, remote, progress)
    }
}
