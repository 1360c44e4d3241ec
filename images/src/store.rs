//! The store: a layout, and trees unpacked from it.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::syncfs;
use serde::Serialize;
use serde_json::{Value, json};

use crate::build::Measure;
use crate::layout::{
    Layout, Locked, TAG, make_dir, open, open_dir, parse, random, read_bounded, sync, write_verified,
};
use crate::resolve::{self, Layer, ResolvedImage};
use crate::tree::{self, Index};
use crate::unpack::{Bounds, unpack};
use crate::{Digest, Error, Reference, Result};

/// Longest record of a tree.
const LONGEST_INDEX: u64 = 1 << 30;

/// Images and trees below one directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    layout: Layout,
    trees: Dir,
    bounds: Bounds,
}

/// How thoroughly a tree was verified before use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Level {
    /// Every name, mode and link was compared, and every byte hashed.
    Full,
}

/// Trees that were what the image's digest says when this value was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedRootfs {
    /// The unpacked layers, lowest first, by absolute path.
    pub layers: Vec<PathBuf>,
    /// How that was verified.
    pub level: Level,
}

/// A line of the list of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ListedImage {
    /// The tag.
    pub reference: String,
    /// What it means.
    pub manifest_digest: Digest,
    /// Size of all blobs.
    pub bytes: u64,
}

impl Store {
    /// `$INVARLOCK_STORE`, else `/var/lib/invarlock` for root, else `invarlock` in the user's data directory.
    pub fn default_root() -> Result<PathBuf> {
        default_root_with(&|name| std::env::var_os(name), rustix::process::geteuid().is_root())
    }

    /// Opens the store at `root`, and makes it first where there is none. One that others can write is refused.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)
            .map_err(Error::io(format_args!("resolving store {}", root.display())))?;
        let opening = || format!("opening store {}", root.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(Error::io(opening()))?;
        invarlock_security::is_secure_path(&root).map_err(|error| Error::from(error).within(opening()))?;
        // Nobody else needs to come in: containers get their trees by handle. What a layer lets everyone write stays out of reach,
        // and nobody else can hold the lock.
        close_to_others(&root)?;
        let dir = Dir::open_ambient_dir(&root, ambient_authority()).map_err(Error::io(opening()))?;
        let within = |error: Error| error.within(opening());
        let layout = Layout::open_or_create(dir).map_err(within)?;
        make_dir(layout.dir(), "trees").map_err(within)?;
        let trees = open_dir(layout.dir(), "trees").map_err(within)?;
        Ok(Self { root, layout, trees, bounds: Bounds::default() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the default image from `evaluator` and lets `reference`, a `name:tag`, mean it. What of it is there already is hashed, and
    /// what is not as it should be is replaced; where all is well nothing is written.
    /// Returns the manifest's digest, which follows from the evaluator's bytes alone.
    pub fn build_measure_image(&self, evaluator: &Path, reference: &str) -> Result<Digest> {
        let parsed = Reference::parse(reference)?;
        let (Reference::Tag { digest: None, .. }, Some(tag)) = (&parsed, parsed.tag_in_index()) else {
            return Err(Error::Input(format!("an image is built as NAME:TAG, not as {reference:?}")));
        };
        let image = Measure::of(evaluator)?;
        let digest = image.digest();
        if self.is_sound(&parsed, &digest) {
            return Ok(digest);
        }
        let locked = self.layout.lock()?;
        image.write(&locked, &tag)?;
        for layer in &self.resolve(&parsed)?.layers {
            if self.is_unpacked(layer) && self.verify(&tree_name(layer)).is_err() {
                self.discard(layer)?;
                self.unpack(&locked, &self.layout, layer)?;
            }
        }
        Ok(digest)
    }

    /// Whether `reference` means `digest` and every blob, and every tree that is there, is what it should be.
    fn is_sound(&self, reference: &Reference, digest: &Digest) -> bool {
        self.resolve(reference).is_ok_and(|image| {
            image.manifest_digest == *digest
                && image.layers.iter().all(|layer| {
                    self.layout.holds(&layer.digest, layer.size)
                        && (!self.is_unpacked(layer) || self.verify(&tree_name(layer)).is_ok())
                })
        })
    }

    fn is_unpacked(&self, layer: &Layer) -> bool {
        self.trees.symlink_metadata(tree_name(layer)).is_ok()
    }

    /// Takes an altered tree away. The lock is held.
    fn discard(&self, layer: &Layer) -> Result<()> {
        let name = tree_name(layer);
        self.trees
            .rename(&name, &self.trees, format!("{name}.tmp-{}", random()))
            .and_then(|()| self.sweep())
            .map_err(Error::io(format_args!("removing the altered tree of layer {}", layer.diff_id)))
    }

    fn tags(&self) -> Result<Vec<(String, Digest)>> {
        let index = self.layout.index()?;
        let tagged = |it: &oci_spec::image::Descriptor| {
            let tag = it.annotations().as_ref()?.get(TAG)?.clone();
            Some(Digest::parse(it.digest().as_ref()).map(|digest| (tag, digest)))
        };
        index.manifests().iter().filter_map(tagged).collect()
    }

    /// What `reference` means, verified down to the configuration.
    pub fn resolve(&self, reference: &Reference) -> Result<ResolvedImage> {
        self.with_layout(reference, |layout| resolve::resolve(layout, reference))
    }

    /// Runs `work` with the layout that `reference` speaks of.
    fn with_layout<T>(&self, reference: &Reference, work: impl FnOnce(&Layout) -> Result<T>) -> Result<T> {
        let result = match reference {
            Reference::Layout { dir, .. } => Layout::open(dir).and_then(|layout| work(&layout)),
            Reference::Registry(_) => Err(Error::Unsupported(
                "pull is not built yet; copy the image into a layout and name it as oci:DIR".to_owned(),
            )),
            _ => work(&self.layout),
        };
        let remedy = match reference {
            Reference::Layout { dir, .. } => format!("copy the image into {} anew", dir.display()),
            _ => "run `invarlock runtime image build`, which makes the default image anew".to_owned(),
        };
        result.map_err(|error| error.within(format_args!("image {reference}")).with_remedy(&remedy))
    }

    /// The image's layers as trees, unpacked where they are not yet, each verified now.
    pub fn rootfs(&self, image: &ResolvedImage) -> Result<VerifiedRootfs> {
        self.with_layout(&image.reference, |layout| {
            let layers = image.layers.iter().map(|layer| self.tree(layout, layer)).collect::<Result<_>>()?;
            Ok(VerifiedRootfs { layers, level: Level::Full })
        })
    }

    fn tree(&self, layout: &Layout, layer: &Layer) -> Result<PathBuf> {
        let name = tree_name(layer);
        if self.is_unpacked(layer) {
            // What runs is the tree. The blob's bytes were hashed when it was unpacked; that it is there is looked at.
            layout.blob(&layer.digest, layer.size)?;
        } else {
            let locked = self.layout.lock()?;
            if !self.is_unpacked(layer) {
                self.unpack(&locked, layout, layer)?;
            }
        }
        self.verify(&name).map_err(|error| {
            let place = self.root.join("trees").join(&name); // join: a digest's digits
            let remedy = format!(
                "run `invarlock runtime image build` where it is the default image's, else remove {}",
                place.display()
            );
            error.within(format_args!("tree of layer {}", layer.diff_id)).with_remedy(&remedy)
        })?;
        Ok(self.root.join("trees").join(name).join("root")) // join: a digest's digits
    }

    fn verify(&self, name: &str) -> Result<()> {
        let dir = open_dir(&self.trees, name)?;
        let record = read_bounded(open(&dir, "index.json")?, LONGEST_INDEX, "the tree's index")?;
        let kept = read_bounded(
            open(&self.trees, &format!("{name}.index"))?,
            128,
            "the digest of the tree's index",
        )?;
        let found = Digest::of(&record).to_string();
        if found.as_bytes() != kept {
            return Err(Error::Integrity(format!(
                "its index has digest {found}, not the one that was recorded"
            )));
        }
        let index: Index = parse("the tree's index", &record)?;
        tree::verify(&open_dir(&dir, "root")?, &index)
    }

    /// Unpacks beside the place, verifies blob and diff id, syncs, and only then renames.
    fn unpack(&self, _locked: &Locked<'_>, layout: &Layout, layer: &Layer) -> Result<()> {
        let doing =
            |error: std::io::Error| Error::System(format!("unpacking layer {}: {error}", layer.digest));
        self.sweep().map_err(doing)?;
        let blob = layout.blob(&layer.digest, layer.size)?;
        let name = tree_name(layer);
        let partial = format!("{name}.tmp-{}", random());
        make_dir(&self.trees, &partial)?;
        let work = || -> Result<()> {
            let dir = open_dir(&self.trees, &partial)?;
            make_dir(&dir, "root")?;
            let index = unpack(blob, layer, &open_dir(&dir, "root")?, self.bounds)
                .map_err(|error| error.within(format_args!("unpacking layer {}", layer.digest)))?;
            let record = serde_json::to_vec(&index).map_err(|error| doing(error.into()))?;
            write_verified(&dir, "index.json", |file| file.write_all(&record))?;
            let digest = Digest::of(&record).to_string();
            write_verified(&self.trees, &format!("{name}.index"), |file| file.write_all(digest.as_bytes()))?;
            // One call for all files, before the name that makes them count.
            syncfs(&dir).map_err(|error| doing(error.into()))?;
            self.trees.rename(&partial, &self.trees, &name).map_err(doing)?;
            sync(&self.trees).map_err(doing)
        };
        work().inspect_err(|_| drop(self.trees.remove_dir_all(&partial)))
    }

    /// Removes what an unpacking that was killed left behind. The lock is held, so none is going on.
    fn sweep(&self) -> std::io::Result<()> {
        for entry in self.trees.entries()? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().contains(".tmp-") {
                continue;
            }
            match entry.metadata()?.is_dir() {
                true => self.trees.remove_dir_all(entry.file_name())?,
                false => self.trees.remove_file(entry.file_name())?,
            }
        }
        Ok(())
    }

    /// The images of the store by their tags.
    pub fn list(&self) -> Result<Vec<ListedImage>> {
        let mut list = Vec::new();
        for (reference, manifest_digest) in self.tags()? {
            let bytes = resolve::resolve(&self.layout, &Reference::Digest(manifest_digest))
                .map_err(|error| error.within(format_args!("image {reference}")))?
                .bytes;
            list.push(ListedImage { reference, manifest_digest, bytes });
        }
        list.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(list)
    }

    /// Everything about an image: what it resolves to, its manifest and configuration, and the state of its trees.
    pub fn inspect(&self, reference: &Reference) -> Result<Value> {
        let image = self.resolve(reference)?;
        let document = |digest: &Digest| {
            self.with_layout(reference, |layout| {
                let size = layout.blob_size(digest).unwrap_or_default();
                parse::<Value>(digest, &layout.json(digest, size)?)
            })
        };
        let tree = |layer: &Layer| {
            let name = tree_name(layer);
            let state = match self.trees.symlink_metadata(&name).is_ok() {
                false => json!({ "state": "not unpacked" }),
                true => match self.verify(&name) {
                    Ok(()) => json!({ "state": "verified", "level": Level::Full }),
                    Err(error) => json!({ "state": "altered", "error": error.to_string() }),
                },
            };
            json!({ "diff_id": layer.diff_id, "digest": layer.digest, "size": layer.size, "tree": state })
        };
        Ok(json!({
            "reference": image.reference,
            "manifest_digest": image.manifest_digest,
            "config_digest": image.config_digest,
            "bytes": image.bytes,
            "speaks": image.speaks,
            "layers": image.layers.iter().map(tree).collect::<Vec<_>>(),
            "manifest": document(&image.manifest_digest)?,
            "config": document(&image.config_digest)?,
        }))
    }
}

fn tree_name(layer: &Layer) -> String {
    format!("sha256-{}", layer.diff_id.hex())
}

fn default_root_with(env: &dyn Fn(&str) -> Option<OsString>, is_root: bool) -> Result<PathBuf> {
    let given = |name: &str| env(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(store) = given("INVARLOCK_STORE") {
        return match store.is_absolute() {
            true => Ok(store),
            false => {
                Err(Error::Input(format!("INVARLOCK_STORE={} is not an absolute path", store.display())))
            }
        };
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/invarlock"));
    }
    let absolute = |it: &PathBuf| it.is_absolute();
    given("XDG_DATA_HOME")
        .filter(absolute)
        .or_else(|| given("HOME").filter(absolute).map(|home| home.join(".local/share")))
        .map(|data| data.join("invarlock"))
        .ok_or_else(|| Error::Input("no place for the image store: set INVARLOCK_STORE or HOME".to_owned()))
}

/// Takes the directory's permissions for group and others away, where the caller owns it.
fn close_to_others(root: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let doing = || format!("closing store {} to others", root.display());
    let metadata = std::fs::metadata(root).map_err(Error::io(doing()))?;
    let owned = metadata.uid() == rustix::process::geteuid().as_raw();
    if owned && metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).map_err(Error::io(doing()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_root() {
        let with = |vars: &'static [(&'static str, &'static str)], root| {
            let env = move |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            default_root_with(&env, root).ok().and_then(|it| it.to_str().map(str::to_owned))
        };
        let all = &[("INVARLOCK_STORE", "/s"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(with(all, true).as_deref(), Some("/s"));
        assert_eq!(with(&[("HOME", "/h")], true).as_deref(), Some("/var/lib/invarlock"));
        assert_eq!(with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], false).as_deref(), Some("/x/invarlock"));
        assert_eq!(
            with(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")], false).as_deref(),
            Some("/h/.local/share/invarlock")
        );
        assert_eq!(with(&[], false), None);
        assert_eq!(with(&[("INVARLOCK_STORE", "relative")], true), None);
    }
}
