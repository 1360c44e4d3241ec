//! What is done with the images of the store besides running them: naming, removing, verifying, and freeing what no image needs.

use invarlock_error::Context as _;
use invarlock_error::Kind;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use cap_std::fs::Dir;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Serialize;
use serde_json::Value;

use crate::blobs::{Blobs as _, TAG};
use crate::digest::Hashing;
use crate::files::parse;
use crate::hooks::step;
use crate::layout::Held;
use crate::policy::Policy;
use crate::resolve::{self, Layer, ResolvedImage, digest_of, is_index};
use crate::trees::tree_name;
use crate::verify::Verify;
use crate::{Digest, Error, Reference, Result, Store, parallel};

/// Indexes within indexes that are followed to what an image needs.
const DEEPEST: u32 = 4;

/// One thing that was verified in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// `image`, `blob` or `tree`.
    pub kind: &'static str,
    /// Its reference or digest.
    pub name: String,
    /// What is wrong with it, if anything.
    pub problem: Option<String>,
    /// It was wrong, and was unpacked anew.
    pub repaired: bool,
}

/// What tidying up freed, or would free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Freed {
    /// Blobs that no image needs, and what unfinished writing left.
    pub blobs: Vec<String>,
    /// Unpacked layers that no image needs.
    pub trees: Vec<String>,
    /// Those among them that a run uses at the moment, and that are kept.
    pub in_use: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Store {
    /// Lets `tag`, a `name:tag`, mean the image of the store that `reference` means.
    pub fn tag(&self, reference: &Reference, tag: &str) -> Result<Digest> {
        let tag = plain_tag(tag)?;
        let held = self.layout.shared()?;
        let descriptor = self.own(reference, |source| resolve::descriptor(source, reference))?;
        let digest = digest_of(&descriptor)?;
        held.tag(Some(&tag), bare(&descriptor)?)?;
        Ok(digest)
    }

    /// Takes a tag away, or with a digest everything that means it. Blobs and trees go when the store is tidied up. Returns the tags that
    /// are gone, or the digest where there was none.
    pub fn remove(&self, reference: &Reference) -> Result<Vec<String>> {
        let held = self.layout.shared()?;
        let descriptor = self.own(reference, |source| match reference {
            // It may be named by the index that it was chosen from.
            Reference::Registry(_) => resolve::descriptor(source, reference),
            _ => resolve::find(source, reference),
        })?;
        let digest = descriptor.digest().to_string();
        let tag = reference.tag_in_index();
        let take_away = || -> Result<Vec<String>> {
            let mut gone = BTreeSet::new();
            held.edit_index(|manifests| {
                manifests.retain(|it| {
                    let own = it["annotations"][TAG].as_str();
                    let goes =
                        it["digest"] == digest.as_str() && tag.as_deref().is_none_or(|tag| own == Some(tag));
                    if goes {
                        gone.insert(own.unwrap_or(&digest).to_owned());
                    }
                    !goes
                });
            })?;
            Ok(gone.into_iter().collect())
        };
        match take_away() {
            // A disk without room for a new index. Trees are made anew where they are needed.
            Err(error) if error.kind() == Kind::System => {
                self.discard_unused(&digest)?;
                take_away()
            }
            other => other,
        }
    }

    /// Removes those trees of the image with this manifest that nobody uses.
    fn discard_unused(&self, manifest: &str) -> Result<()> {
        let image = self.resolve(&Reference::Digest(Digest::parse(manifest)?));
        let layers = image.map(|image| image.layers).unwrap_or_default();
        let mut unused = layers.iter().filter(|it| self.trees.is_unused(&it.diff_id));
        unused.try_for_each(|it| self.trees.discard(&it.diff_id))
    }

    /// Runs `work` with the store itself; an image elsewhere must be imported first.
    fn own<T>(
        &self,
        reference: &Reference,
        work: impl FnOnce(&dyn crate::blobs::Blobs) -> Result<T>,
    ) -> Result<T> {
        match reference {
            Reference::Tag { .. } | Reference::Digest(_) | Reference::Registry(_) => {
                self.with_source(reference, work)
            }
            _ => Err(Error::input(format!("{reference} is no image of the store; import it first"))),
        }
    }

    /// Verifies in full: the image that `reference` means, or everything in the store. Trees that are wrong are unpacked anew where that
    /// is asked for and their blobs are sound.
    pub fn verify(&self, reference: Option<&Reference>, repair: bool) -> Result<Vec<Checked>> {
        let _held = self.layout.shared()?;
        let mut images = Vec::new();
        let mut checked = Vec::new();
        match reference {
            Some(reference) => images.push(self.resolve(reference)?),
            None => {
                let frozen = self.layout.frozen()?;
                for descriptor in frozen.index()?.manifests().iter().filter(|it| !resolve::is_artifact(it)) {
                    let digest = digest_of(descriptor)?;
                    let named = descriptor.annotations().as_ref().and_then(|all| all.get(TAG)).cloned();
                    let own = Reference::Digest(digest);
                    let resolved = self.with_source(&own, |_| resolve::resolve(&frozen, &own));
                    checked.push(Checked {
                        kind: "image",
                        name: named.unwrap_or_else(|| digest.to_string()),
                        problem: resolved.as_ref().err().map(ToString::to_string),
                        repaired: false,
                    });
                    images.extend(resolved);
                }
            }
        }
        checked.extend(self.verify_blobs(reference, &images)?);
        checked.extend(self.verify_trees(reference, &images, repair)?);
        Ok(checked)
    }

    fn verify_blobs(&self, reference: Option<&Reference>, images: &[ResolvedImage]) -> Result<Vec<Checked>> {
        // What images need, and what else is there.
        let needed = images.iter().flat_map(|image| image.layers.iter().map(|it| it.digest));
        let mut blobs: BTreeSet<Digest> = needed.collect();
        if reference.is_none() {
            blobs.extend(self.layout.index()?.manifests().iter().filter_map(chosen_from));
            blobs.extend(self.blob_names()?.iter().filter_map(|name| from_hex(name)));
        }
        let check = |digest: &Digest| -> Result<()> {
            let work = |source: &dyn crate::blobs::Blobs| {
                let mut hashing = Hashing::new(());
                hashing.read_all(source.open(digest)?).context("reading it")?;
                match hashing.finish().2 {
                    found if found == *digest => Ok(()),
                    found => Err(Error::integrity(format!("it holds bytes with digest {found}"))),
                }
            };
            match reference {
                Some(reference) => self.with_source(reference, work),
                None => work(&self.layout),
            }
        };
        let blobs: Vec<_> = blobs.into_iter().map(|digest| (digest, Mutex::new(None))).collect();
        parallel::each(&blobs, |(digest, problem)| {
            *problem.lock().unwrap_or_else(PoisonError::into_inner) =
                check(digest).err().map(|it| it.to_string());
            Ok(())
        })?;
        let checked = |(digest, problem): (Digest, Mutex<Option<String>>)| Checked {
            kind: "blob",
            name: digest.to_string(),
            problem: problem.into_inner().unwrap_or_else(PoisonError::into_inner),
            repaired: false,
        };
        Ok(blobs.into_iter().map(checked).collect())
    }

    fn verify_trees(
        &self,
        reference: Option<&Reference>,
        images: &[ResolvedImage],
        repair: bool,
    ) -> Result<Vec<Checked>> {
        let layers = || images.iter().flat_map(|image| image.layers.iter().map(move |layer| (image, layer)));
        let mut ids: BTreeSet<Digest> = layers().map(|(_, layer)| layer.diff_id).collect();
        if reference.is_none() {
            let names = self.trees.names()?;
            ids.extend(names.iter().filter_map(|name| from_hex(name.strip_prefix("sha256-")?)));
        }
        let mut checked = Vec::new();
        for id in ids {
            let found = self.trees.find(&id);
            let verified = found.and_then(|tree| match tree {
                Some(tree) => self.trees.verify(&tree, Verify::Full).map(Some),
                None => Ok(None),
            });
            let mut problem = match verified {
                Ok(None) => continue,
                Ok(Some(_)) => None,
                Err(error) => Some(error.to_string()),
            };
            let mut repaired = false;
            if let (true, Some(_), Some((image, layer))) =
                (repair, &problem, layers().find(|(_, layer)| layer.diff_id == id))
            {
                problem = self.unpack_anew(image, layer).err().map(|error| error.to_string());
                repaired = problem.is_none();
            }
            checked.push(Checked { kind: "tree", name: id.to_string(), problem, repaired });
        }
        Ok(checked)
    }

    fn unpack_anew(&self, image: &ResolvedImage, layer: &Layer) -> Result<()> {
        self.trees.discard(&layer.diff_id)?;
        let policy = Policy { devices: crate::SpecialFilePolicy::Drop, ..Policy::default() };
        self.with_source(&image.reference, |source| {
            self.trees.get(source, std::slice::from_ref(layer), policy).map(drop)
        })
    }

    /// Frees what no image of the store needs; with `dry_run` it only says what that is. Waits for imports that are under way.
    pub fn gc(&self, dry_run: bool) -> Result<Freed> {
        let held: Held<'_> = self.layout.alone()?;
        let mut needed = Needed::default();
        // What was attached to images that are gone goes with them.
        let orphans = self.orphans()?;
        let stays = |digest: &str| !orphans.iter().any(|it| it == digest);
        for descriptor in self.layout.index()?.manifests().iter().filter(|it| stays(it.digest().as_ref())) {
            self.reach(descriptor, DEEPEST, &mut needed).map_err(|error| {
                error
                    .context(format_args!("looking at what image {} needs", descriptor.digest()))
                    .with_hint_if(
                        Kind::Integrity,
                        "take the damaged image away with `invarlock runtime image rm`, then try again",
                    )
            })?;
        }
        let mut freed = Freed::default();
        // Trees first: where the disk is full, they make the room that a new index needs.
        self.free_trees(&needed, dry_run, &mut freed)?;
        if !dry_run && !orphans.is_empty() {
            held.edit_index(|manifests| manifests.retain(|it| it["digest"].as_str().is_none_or(stays)))?;
        }
        let unneeded = |name: &String| from_hex(name).is_none_or(|digest| !needed.blobs.contains(&digest));
        for name in self.blob_names()?.into_iter().filter(unneeded) {
            free(self.layout.blobs(), name, dry_run, &mut freed)?;
        }
        // What a change of the index left that was killed.
        for name in names(self.layout.dir())?.into_iter().filter(|name| name.contains(".tmp-")) {
            free(self.layout.dir(), name, dry_run, &mut freed)?;
        }
        Ok(freed)
    }

    fn free_trees(&self, needed: &Needed, dry_run: bool, freed: &mut Freed) -> Result<()> {
        for name in self.trees.names()? {
            let id = name.strip_prefix("sha256-").and_then(from_hex);
            let left_over = name.ends_with(".partial") || name.contains(".tmp-");
            match id {
                Some(id) if needed.trees.contains(&id) => {}
                Some(id) if !self.trees.is_unused(&id) => freed.in_use.push(name),
                Some(id) => {
                    freed.bytes += self.trees.size(&tree_name(&id));
                    if !dry_run {
                        self.trees.discard(&id)?;
                    }
                    freed.trees.push(name);
                }
                None if left_over => {
                    freed.bytes += self.trees.size(&name);
                    freed.trees.push(name);
                }
                None => {}
            }
        }
        if !dry_run {
            self.trees.sweep();
            self.trees.remove_seals()?;
        }
        Ok(())
    }

    /// Notes what an image needs. What of it is not there, such as images for other machines, nobody needs to keep.
    fn reach(&self, descriptor: &Descriptor, deeper: u32, needed: &mut Needed) -> Result<()> {
        let digest = digest_of(descriptor)?;
        if self.layout.blob_size(&digest).is_none() {
            return Ok(());
        }
        needed.blobs.insert(digest);
        needed.blobs.extend(chosen_from(descriptor));
        let bytes = self.layout.json(&digest, descriptor.size())?;
        if is_index(descriptor) {
            if deeper == 0 {
                return Err(Error::safety("indexes within indexes, deeper than any image needs"));
            }
            let index: ImageIndex = parse(digest, &bytes)?;
            return index.manifests().iter().try_for_each(|it| self.reach(it, deeper - 1, needed));
        }
        let manifest: ImageManifest = parse(digest, &bytes)?;
        needed.blobs.insert(digest_of(manifest.config())?);
        for layer in manifest.layers() {
            needed.blobs.insert(digest_of(layer)?);
        }
        let config = self.layout.json(&digest_of(manifest.config())?, manifest.config().size());
        // Other things than images have configurations, too; they have no trees.
        if let Ok(config) = parse::<resolve::Configuration>("", &config?) {
            needed.trees.extend(config.rootfs.diff_ids().iter().filter_map(|id| Digest::parse(id).ok()));
        }
        Ok(())
    }

    fn blob_names(&self) -> Result<Vec<String>> {
        names(self.layout.blobs())
    }
}

fn names(dir: &Dir) -> Result<Vec<String>> {
    let doing = || "looking at what is in the store";
    let entries = dir.entries().context(doing())?;
    entries.map(|it| Ok(it.context(doing())?.file_name().to_string_lossy().into_owned())).collect()
}

fn free(dir: &Dir, name: String, dry_run: bool, freed: &mut Freed) -> Result<()> {
    let doing = || format!("removing {name} from the store");
    freed.bytes += dir.symlink_metadata(&name).context(doing())?.len();
    if !dry_run {
        dir.remove_file(&name).context(doing())?;
        step("gc: blob removed");
    }
    freed.blobs.push(name);
    Ok(())
}

#[derive(Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    trees: BTreeSet<Digest>,
}

/// The index that an image was chosen from.
fn chosen_from(descriptor: &Descriptor) -> Option<Digest> {
    Digest::parse(descriptor.annotations().as_ref()?.get(resolve::CHOSEN_FROM)?).ok()
}

fn from_hex(name: &str) -> Option<Digest> {
    Digest::parse(&format!("sha256:{name}")).ok()
}

/// A `name:tag` to give to an image.
pub(crate) fn plain_tag(text: &str) -> Result<String> {
    match Reference::parse(text)? {
        reference @ Reference::Tag { tag: Some(_), digest: None, .. } => Ok(reference.to_string()),
        _ => Err(Error::input(format!("{text:?} is no name for an image: it looks like NAME:TAG"))),
    }
}

/// A descriptor without what an index says of it.
pub(crate) fn bare(descriptor: &Descriptor) -> Result<Value> {
    let mut value = serde_json::to_value(descriptor)
        .map_err(|error| Error::system(format!("writing a descriptor: {error}")))?;
    if let Some(members) = value.as_object_mut() {
        members.retain(|key, _| ["mediaType", "digest", "size", "platform"].contains(&key.as_str()));
    }
    Ok(value)
}
