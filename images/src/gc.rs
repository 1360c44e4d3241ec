//! Garbage collection: deletion of blobs and extracted layers that no image of the store needs.

use std::collections::BTreeSet;

use cap_std::fs::Dir;
use invarlock_error::{Context as _, Kind};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Serialize;

use crate::cas::BlobSource as _;
use crate::hooks::step;
use crate::oci::Digest;
use crate::oci::descriptor::{chosen_from, digest_of};
use crate::oci::json::parse;
use crate::oci::manifest::Configuration;
use crate::oci::media_type::is_index;
use crate::rootfs::cache::{diff_id_of, is_leftover};
use crate::transport::LocalImages;
use crate::{Error, Result};

/// Most indexes within indexes.
const MAX_INDEX_DEPTH: u32 = 4;

/// What garbage collection deleted, or would delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Freed {
    /// Blobs that no image needs, and leftovers of interrupted writes.
    pub blobs: Vec<String>,
    /// Extracted layers that no image needs.
    pub trees: Vec<String>,
    /// Extracted layers that no image needs but a run uses, and that are kept.
    pub in_use: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

impl LocalImages {
    /// Deletes everything that no image of the store needs; with `dry_run`, only lists it. Waits for running imports.
    pub fn gc(&self, dry_run: bool) -> Result<Freed> {
        let layout = self.layout.lock_exclusive()?;
        let mut needed = Needed::default();
        // Artifacts of deleted images are deleted with them.
        let orphans = self.orphaned_artifacts()?;
        let is_kept = |digest: &str| !orphans.iter().any(|orphan| orphan == digest);
        for descriptor in
            self.layout.index()?.manifests().iter().filter(|entry| is_kept(entry.digest().as_ref()))
        {
            self.mark(descriptor, MAX_INDEX_DEPTH, &mut needed).map_err(|error| {
                error
                    .context(format_args!("finding the blobs of image {}", descriptor.digest()))
                    .with_hint_if(
                        Kind::Integrity,
                        "remove the corrupt image with `invarlock runtime image rm`, then try again",
                    )
            })?;
        }
        let mut freed = Freed::default();
        // Extracted layers first: on a full disk this frees the space that a new index needs.
        self.delete_extracted(&needed, dry_run, &mut freed)?;
        if !dry_run && !orphans.is_empty() {
            layout.edit_index(|manifests| {
                manifests.retain(|entry| entry["digest"].as_str().is_none_or(is_kept))
            })?;
        }
        let is_unneeded =
            |name: &String| Digest::from_hex(name).is_none_or(|digest| !needed.blobs.contains(&digest));
        for name in self.blob_names()?.into_iter().filter(is_unneeded) {
            delete(self.layout.blobs_dir(), name, dry_run, &mut freed)?;
        }
        // Leftovers of interrupted changes of the index.
        for name in names(self.layout.dir())?.into_iter().filter(|name| name.contains(".tmp-")) {
            delete(self.layout.dir(), name, dry_run, &mut freed)?;
        }
        Ok(freed)
    }

    fn delete_extracted(&self, needed: &Needed, dry_run: bool, freed: &mut Freed) -> Result<()> {
        for name in self.rootfs.names()? {
            let id = diff_id_of(&name);
            match id {
                Some(id) if needed.diff_ids.contains(&id) => {}
                Some(id) if !self.rootfs.is_unused(&id) => freed.in_use.push(name),
                Some(id) => {
                    freed.bytes += self.rootfs.disk_usage(&name);
                    if !dry_run {
                        self.rootfs.discard(&id)?;
                    }
                    freed.trees.push(name);
                }
                None if is_leftover(&name) => {
                    freed.bytes += self.rootfs.disk_usage(&name);
                    freed.trees.push(name);
                }
                None => {}
            }
        }
        if !dry_run {
            self.rootfs.sweep();
            self.rootfs.remove_orphaned_seals()?;
        }
        Ok(())
    }

    /// Collects what an image needs. Missing parts, such as images for other machines, are skipped.
    fn mark(&self, descriptor: &Descriptor, depth: u32, needed: &mut Needed) -> Result<()> {
        let digest = digest_of(descriptor)?;
        if self.layout.blob_size(&digest).is_none() {
            return Ok(());
        }
        needed.blobs.insert(digest);
        needed.blobs.extend(chosen_from(descriptor));
        let bytes = self.layout.json(&digest, descriptor.size())?;
        if is_index(descriptor.media_type()) {
            if depth == 0 {
                return Err(Error::safety("indexes are nested deeper than an image needs"));
            }
            let index: ImageIndex = parse(digest, &bytes)?;
            return index.manifests().iter().try_for_each(|entry| self.mark(entry, depth - 1, needed));
        }
        let manifest: ImageManifest = parse(digest, &bytes)?;
        needed.blobs.insert(digest_of(manifest.config())?);
        for layer in manifest.layers() {
            needed.blobs.insert(digest_of(layer)?);
        }
        let config = self.layout.json(&digest_of(manifest.config())?, manifest.config().size());
        // Artifacts also have a configuration, but no extracted layers.
        if let Ok(config) = parse::<Configuration>("", &config?) {
            needed.diff_ids.extend(config.rootfs.diff_ids().iter().filter_map(|id| Digest::parse(id).ok()));
        }
        Ok(())
    }

    pub fn blob_names(&self) -> Result<Vec<String>> {
        names(self.layout.blobs_dir())
    }
}

fn names(dir: &Dir) -> Result<Vec<String>> {
    let listing = "listing the store";
    let entries = dir.entries().context(listing)?;
    entries.map(|entry| Ok(entry.context(listing)?.file_name().to_string_lossy().into_owned())).collect()
}

fn delete(dir: &Dir, name: String, dry_run: bool, freed: &mut Freed) -> Result<()> {
    let deleting = format!("deleting {name} from the store");
    freed.bytes += dir.symlink_metadata(&name).context(&deleting)?.len();
    if !dry_run {
        dir.remove_file(&name).context(&deleting)?;
        step("gc: blob removed");
    }
    freed.blobs.push(name);
    Ok(())
}

/// What the images of the store need.
#[derive(Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    diff_ids: BTreeSet<Digest>,
}
