//! The store: a layout, and trees unpacked from it.

use invarlock_error::Context as _;
use invarlock_error::Kind;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::Serialize;
use serde_json::{Value, json};

use crate::blobs::{Blobs, TAG};
use crate::build::Measure;
use crate::bundle::OciArchive;
use crate::docker::DockerArchive;
use crate::files::parse;
use crate::layout::Layout;
use crate::policy::Policy;
use crate::resolve::{self, Layer, ResolvedImage};
use crate::trees::{Tree, Trees};
use crate::verify::{Level, SMALL_IMAGE, Verify};
use crate::{Digest, Error, Reference, Result, parallel};

/// What the default image is called in its bill of materials.
const MEASURE: &str = "invarlock-runtime";

/// Images and trees below one directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) trees: Trees,
}

/// Trees that were what the image's digest says when this value was made. They stay there as long as it lives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedRootfs {
    /// The unpacked layers to stack, lowest first, by absolute path.
    pub layers: Vec<PathBuf>,
    /// How that was verified.
    pub level: Level,
    _trees: Vec<Tree>,
}

/// What is verified before a run.
enum Stored<'a> {
    Tree(&'a Tree),
    Blob(&'a Layer),
}

/// How an image is made ready to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootfsOptions {
    /// How what is unpacked already is verified.
    pub verify: Verify,
    /// What it may have that its tree does not.
    pub policy: Policy,
}

/// A line of the list of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ListedImage {
    /// The tag, or the digest where it has none.
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
        let root = std::path::absolute(root).context(format_args!("resolving store {}", root.display()))?;
        let opening = || format!("opening store {}", root.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).context(opening())?;
        invarlock_security::is_secure_path(&root).map_err(|error| error.context(opening()))?;
        // Nobody else needs to come in: containers get their trees by handle. What a layer lets everyone write stays out of reach,
        // and nobody else can hold the lock.
        close_to_others(&root)?;
        let dir = Dir::open_ambient_dir(&root, ambient_authority()).context(opening())?;
        let within = |error: Error| error.context(opening());
        is_local(&dir, &root)?;
        let layout = Layout::open_or_create(dir).map_err(within)?;
        let trees = Trees::open_or_create(layout.dir(), &root).map_err(within)?;
        Ok(Self { root, layout, trees })
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
            return Err(Error::input(format!("an image is built as NAME:TAG, not as {reference:?}")));
        };
        let image = Measure::of(evaluator)?;
        let digest = image.digest();
        let held = self.layout.shared()?;
        if self.is_sound(&parsed, &digest) {
            // Not what earlier builds left, nor a bill that is damaged.
            if !matches!(self.bill(&digest), Ok(Some(_))) {
                self.attach(&held, MEASURE, (&digest, image.manifest_size()), &image.bill()?)?;
            }
            return Ok(digest);
        }
        image.write(&held, &tag)?;
        for layer in &self.resolve(&parsed)?.layers {
            if self.verify_tree(layer).is_err() {
                self.trees.discard(&layer.diff_id)?;
                self.trees.get(&self.layout, std::slice::from_ref(layer), Policy::default())?;
            }
        }
        self.attach(&held, MEASURE, (&digest, image.manifest_size()), &image.bill()?)?;
        Ok(digest)
    }

    /// Whether `reference` means `digest` and every blob, and every tree that is there, is what it should be.
    fn is_sound(&self, reference: &Reference, digest: &Digest) -> bool {
        self.resolve(reference).is_ok_and(|image| {
            image.manifest_digest == *digest
                && image.layers.iter().all(|layer| {
                    self.layout.holds(&layer.digest, layer.size) && self.verify_tree(layer).is_ok()
                })
        })
    }

    /// Verifies the tree of a layer in full. Where there is none, all is well.
    pub(crate) fn verify_tree(&self, layer: &Layer) -> Result<Option<Level>> {
        let tree = self.trees.find(&layer.diff_id)?;
        tree.map(|tree| self.trees.verify(&tree, Verify::Full)).transpose()
    }

    /// What `reference` means, verified down to the configuration.
    pub fn resolve(&self, reference: &Reference) -> Result<ResolvedImage> {
        self.with_source(reference, |source| resolve::resolve(source, reference))
    }

    /// Runs `work` with the place that `reference` speaks of.
    pub(crate) fn with_source<T>(
        &self,
        reference: &Reference,
        work: impl FnOnce(&dyn Blobs) -> Result<T>,
    ) -> Result<T> {
        let result = match reference {
            Reference::Layout { dir, .. } => Layout::open(dir).and_then(|layout| work(&layout)),
            Reference::Archive { file, .. } => OciArchive::open(file).and_then(|archive| work(&archive)),
            Reference::DockerArchive { file, .. } => {
                DockerArchive::open(file).and_then(|archive| work(&archive))
            }
            _ => work(&self.layout),
        };
        let remedy = match reference {
            Reference::Layout { dir, .. } => format!("copy the image into {} anew", dir.display()),
            Reference::Archive { file, .. } | Reference::DockerArchive { file, .. } => {
                format!("get {} anew", file.display())
            }
            Reference::Registry(_) => {
                format!("pull it again: `invarlock runtime image pull {reference} --allow-network`")
            }
            _ => "run `invarlock runtime image build`, which makes the default image anew, or import the image anew".to_owned(),
        };
        result.map_err(|error| {
            error.context(format_args!("image {reference}")).with_hint_if(Kind::Integrity, remedy)
        })
    }

    /// The image's layers as trees, unpacked where they are not yet, each verified now.
    pub fn rootfs(&self, image: &ResolvedImage, care: RootfsOptions) -> Result<VerifiedRootfs> {
        self.with_source(&image.reference, |source| {
            let trees = self.unpacked(source, image, care.policy)?;
            let bytes = trees.iter().fold(0u64, |sum, tree| sum.saturating_add(tree.totals.bytes));
            let how = match care.verify {
                Verify::Auto if bytes <= SMALL_IMAGE => Verify::Full,
                Verify::Auto => Verify::Quick,
                asked => asked,
            };
            let weakest = Mutex::new(Level::Full);
            let verify = |thing: &Stored<'_>| match thing {
                Stored::Tree(tree) => {
                    let level = self.trees.verify(tree, how)?;
                    let mut weakest = weakest.lock().unwrap_or_else(PoisonError::into_inner);
                    *weakest = level.min(*weakest);
                    Ok(())
                }
                Stored::Blob(layer) => layer.verify_in(source),
            };
            // What was unpacked just now was verified on the way; the kernel does not hold it yet.
            let due = |tree: &Tree| !tree.fresh || how == Verify::FsVerity;
            let stale = || trees.iter().zip(&image.layers).filter(|(tree, _)| due(tree));
            let mut things: Vec<Stored<'_>> = stale().map(|(tree, _)| Stored::Tree(tree)).collect();
            // A tree is what runs, whatever became of its blob since; who asks for all gets all.
            if care.verify == Verify::Full {
                things.extend(stale().map(|(_, layer)| Stored::Blob(layer)));
            }
            parallel::each(&things, verify)?;
            let level = weakest.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(VerifiedRootfs { layers: self.stack(&trees)?, level, _trees: trees })
        })
    }

    /// The trees of an image's layers, unpacked at once where they are not there.
    pub(crate) fn unpacked(
        &self,
        source: &dyn Blobs,
        image: &ResolvedImage,
        policy: Policy,
    ) -> Result<Vec<Tree>> {
        let _held = self.layout.shared()?;
        // What runs is the tree. A blob's bytes were hashed when it was unpacked; that it is there is looked at.
        image.layers.iter().try_for_each(|layer| source.blob(&layer.digest, layer.size).map(drop))?;
        self.trees.get(source, &image.layers, policy)
    }

    /// What is mounted of them. Below an opaque root nothing is seen, and nothing of a tree that lies higher up once more, which the kernel
    /// would refuse. One layer is mounted as it is, so that what it removes would show as devices; over an empty one it does not.
    fn stack(&self, trees: &[Tree]) -> Result<Vec<PathBuf>> {
        let first = trees.iter().rposition(|tree| tree.totals.opaque_root).unwrap_or(0);
        let mut seen = BTreeSet::new();
        let mut stacked: Vec<&Tree> =
            trees[first..].iter().rev().filter(|tree| seen.insert(tree.diff_id)).collect();
        stacked.reverse();
        let mut layers: Vec<PathBuf> = stacked.iter().map(|tree| tree.root.clone()).collect();
        if layers.len() == 1 && stacked[0].totals.removals > 0 {
            layers.insert(0, self.trees.empty()?);
        }
        Ok(layers)
    }

    /// The images of the store.
    pub fn list(&self) -> Result<Vec<ListedImage>> {
        let _held = self.layout.shared()?;
        let frozen = self.layout.frozen()?;
        let mut list = Vec::new();
        for descriptor in frozen.index()?.manifests().iter().filter(|it| !resolve::is_artifact(it)) {
            let image = resolve::digest_of(descriptor)
                .and_then(|digest| resolve::resolve(&frozen, &Reference::Digest(digest)));
            let tag = descriptor.annotations().as_ref().and_then(|all| all.get(TAG)).cloned();
            let reference = tag.unwrap_or_else(|| descriptor.digest().to_string());
            let image = image.map_err(|error| {
                error.context(format_args!("image {reference}")).with_hint_if(
                    Kind::Integrity,
                    "`invarlock runtime image verify` says what is wrong, `invarlock runtime image rm` takes the image away",
                )
            })?;
            list.push(ListedImage { reference, manifest_digest: image.manifest_digest, bytes: image.bytes });
        }
        list.sort_by(|a, b| a.reference.cmp(&b.reference));
        // Pulled by several indexes, it has an entry for each.
        list.dedup();
        Ok(list)
    }

    /// Everything about an image: what it resolves to, its manifest and configuration, and the state of its trees.
    pub fn inspect(&self, reference: &Reference) -> Result<Value> {
        let _held = self.layout.shared()?;
        let image = self.resolve(reference)?;
        let document = |digest: &Digest| {
            self.with_source(reference, |source| {
                let size = source.open(digest)?.len();
                parse::<Value>(digest, &source.json(digest, size)?)
            })
        };
        let tree = |layer: &Layer| {
            let state = match self.verify_tree(layer) {
                Ok(None) => json!({ "state": "not unpacked" }),
                Ok(Some(level)) => json!({ "state": "verified", "level": level }),
                Err(error) => json!({ "state": "altered", "error": error.to_string() }),
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

fn default_root_with(env: &dyn Fn(&str) -> Option<OsString>, is_root: bool) -> Result<PathBuf> {
    let given = |name: &str| env(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(store) = given("INVARLOCK_STORE") {
        return match store.is_absolute() {
            true => Ok(store),
            false => {
                Err(Error::input(format!("INVARLOCK_STORE={} is not an absolute path", store.display())))
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
        .ok_or_else(|| Error::input("no place for the image store: set INVARLOCK_STORE or HOME"))
}

/// Takes the directory's permissions for group and others away, where the caller owns it.
fn close_to_others(root: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let doing = || format!("closing store {} to others", root.display());
    let metadata = std::fs::metadata(root).context(doing())?;
    let owned = metadata.uid() == rustix::process::geteuid().as_raw();
    if owned && metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).context(doing())?;
    }
    Ok(())
}

/// File systems of other machines: locks and times of changes there are not what the store needs.
fn is_local(dir: &Dir, root: &Path) -> Result<()> {
    let kind = rustix::fs::fstatfs(dir).map_err(|error| {
        Error::system(format!("looking at the file system of store {}: {error}", root.display()))
    })?;
    match network_file_system(kind.f_type as u64 & 0xffff_ffff) {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(format!(
            "store {} lies on {name}, a file system of another machine, whose locks and times cannot be relied on; set \
             INVARLOCK_STORE to a directory of this machine, such as one in /var/tmp that is yours alone",
            root.display()
        ))),
    }
}

fn network_file_system(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x0bd0_0bd0 => "Lustre",
        0x7375_7245 => "Coda",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_known() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        for local in [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630] {
            assert_eq!(network_file_system(local), None, "ext4, tmpfs, xfs, btrfs, overlay: {local:x}");
        }
    }

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
