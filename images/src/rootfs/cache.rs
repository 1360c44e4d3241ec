//! Extracted layers by diff id, shared by all images.
//!
//! A layer is extracted to `NAME.partial` under an exclusive lock, then sealed and renamed. Users of an extracted layer hold a separate
//! shared lock of it; deletion takes that lock exclusively and never waits. So waiting for an extraction never waits for a user.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::Dir;
use invarlock_error::{Context as _, Kind};
use rustix::fs::{AtFlags, FlockOperation, flock, statat, syncfs};
use rustix::io::Errno;

use super::level::{Level, Verify};
use super::partial::{PartialLayer, remove, write_change_stamps, write_seal};
use super::record::Seal;
use super::{change_stamps, fs_verity, verify};
use crate::cas::files::{
    ensure_dir, open, open_dir, random_suffix, read_bounded, sync_dir, write_atomic, write_durable,
};
use crate::cas::{BlobSource, locks};
use crate::hooks::step;
use crate::layer::Totals;
use crate::layer::limits::check_image_entries;
use crate::layer::limits::{Limits, Policy};
use crate::oci::json::parse;
use crate::oci::{Digest, Layer};
use crate::tar::MAX_DEPTH;
use crate::{Error, Result, parallel};

/// Longest seal in bytes.
const MAX_SEAL: u64 = 4096;

/// The extracted layers of a store.
#[derive(Debug)]
pub(crate) struct RootfsCache {
    dir: Dir,
    path: PathBuf,
    limits: Limits,
}

/// An extracted layer. It is not deleted while this value exists.
#[derive(Clone, Debug)]
pub(crate) struct ExtractedLayer {
    dir: Arc<Dir>,
    /// The directory to mount.
    pub root: PathBuf,
    pub diff_id: Digest,
    pub totals: Totals,
    /// It was extracted by this call, from verified bytes.
    pub is_new: bool,
    seal: Seal,
    _lock: Arc<OwnedFd>,
}

impl ExtractedLayer {
    /// Opens the directory to mount.
    pub fn open_root(&self) -> Result<Dir> {
        open_dir(&self.dir, "root")
    }
}

/// The name of an extracted layer in the cache.
pub(crate) fn layer_name(diff_id: &Digest) -> String {
    format!("sha256-{}", diff_id.hex())
}

/// The diff id of the extracted layer with this name.
pub(crate) fn diff_id_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("sha256-")?)
}

impl RootfsCache {
    /// Opens the cache in the directory of the store, and creates it if necessary.
    #[expect(clippy::disallowed_methods, reason = "a constant name below the path of the store")]
    pub fn open_or_create(store: &Dir, store_path: &Path) -> Result<Self> {
        ensure_dir(store, "trees")?;
        let dir = open_dir(store, "trees")?;
        ensure_dir(&dir, "empty")?;
        Ok(Self { dir, path: store_path.join("trees"), limits: Limits::default() })
    }

    /// The path of an empty directory.
    #[expect(clippy::disallowed_methods, reason = "a constant name")]
    pub fn empty(&self) -> Result<PathBuf> {
        let entries = open_dir(&self.dir, "empty")?.entries().context("reading the empty layer")?;
        match entries.count() {
            0 => Ok(self.path.join("empty")),
            _ => Err(Error::integrity("the empty layer is not empty: the store was altered")),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the digits of a digest, or a name listed in the directory of the cache"
    )]
    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of everything in the cache.
    pub fn names(&self) -> Result<Vec<String>> {
        let listing = "listing extracted layers";
        let entries = self.dir.entries().context(listing)?;
        entries.map(|entry| Ok(entry.context(listing)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The extracted layer, if it exists. Waits while another process deletes it.
    #[expect(clippy::disallowed_methods, reason = "a constant name")]
    pub fn find(&self, diff_id: &Digest) -> Result<Option<ExtractedLayer>> {
        let name = layer_name(diff_id);
        match statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => drop(other.with_context(|| format!("reading the metadata of {name}"))?),
        }
        let dir = match open_dir(&self.dir, &name) {
            Err(error) if error.kind() == Kind::Integrity => return Ok(None),
            other => other?,
        };
        let lock = dir.as_fd().try_clone_to_owned().context("opening an extracted layer")?;
        lock_layer(&lock, FlockOperation::LockShared)?;
        if !is_current(&lock, &self.dir, &name) {
            return Ok(None);
        }
        let seal = read_bounded(open(&self.dir, &format!("{name}.seal"))?, MAX_SEAL, "its seal")?;
        let seal: Seal = parse("its seal", &seal)?;
        Ok(Some(ExtractedLayer {
            dir: Arc::new(dir),
            root: self.path_of(&name).join("root"),
            diff_id: *diff_id,
            totals: seal.totals,
            is_new: false,
            seal,
            _lock: Arc::new(lock),
        }))
    }

    /// The extracted layers, in the same order. Missing ones are extracted from `source` in parallel.
    pub fn get(
        &self,
        source: &dyn BlobSource,
        layers: &[Layer],
        policy: Policy,
    ) -> Result<Vec<ExtractedLayer>> {
        let mut new = BTreeSet::new();
        loop {
            let mut missing: BTreeMap<Digest, &Layer> = BTreeMap::new();
            let mut found = Vec::new();
            for layer in layers {
                match self.find(&layer.diff_id).map_err(|error| describe(self, &layer.diff_id, error))? {
                    Some(mut extracted) => {
                        policy
                            .check(&extracted.totals, layer.size)
                            .with_context(|| format!("extracted layer {}", layer.diff_id))?;
                        extracted.is_new = new.contains(&layer.diff_id);
                        found.push(extracted);
                    }
                    None => drop(missing.insert(layer.diff_id, layer)),
                }
            }
            let entries = found.iter().map(|layer| layer.totals.entries).sum();
            check_image_entries(entries)?;
            if missing.is_empty() {
                return Ok(found);
            }
            new.extend(self.extract(source, missing, policy, entries)?);
        }
    }

    /// Extracts layers to temporary directories, verifies blobs and diff ids, syncs and then renames them. Returns the diff ids of the
    /// layers that no other process extracted meanwhile. `entries`: those of the image's other layers.
    fn extract(
        &self,
        source: &dyn BlobSource,
        missing: BTreeMap<Digest, &Layer>,
        policy: Policy,
        entries: u64,
    ) -> Result<Vec<Digest>> {
        self.sweep();
        let mut partial_layers = Vec::new();
        // Every process takes the locks in the order of diff ids, so that no two wait for each other.
        for (diff_id, layer) in missing {
            if let Some(partial) = self.claim(&diff_id)? {
                partial_layers.push((layer, partial));
            }
        }
        step("store: partial made");
        let entries = AtomicU64::new(entries);
        let extract = |(layer, partial): &(&Layer, PartialLayer<'_>)| {
            source.read_layer(layer, &mut |blob| {
                let totals = partial
                    .extract(blob, layer, self.limits, policy)
                    .with_context(|| format!("extracting layer {}", layer.digest))?;
                check_image_entries(entries.fetch_add(totals.entries, Ordering::Relaxed) + totals.entries)
            })
        };
        let flush = || syncfs(&self.dir).context("syncing extracted layers");
        // Syncing early keeps the disk busy while other layers are extracted. The final call makes all files durable before their names.
        parallel::for_each_with_flush(&partial_layers, extract, flush)?;
        flush()?;
        step("store: trees synced");
        partial_layers.iter().try_for_each(|(_, partial)| partial.finish())?;
        sync_dir(&self.dir).context("naming extracted layers")?;
        Ok(partial_layers.iter().map(|(layer, _)| layer.diff_id).collect())
    }

    /// An empty directory to extract to, or `None` if the layer exists meanwhile. Waits for another process that extracts the same layer.
    fn claim(&self, diff_id: &Digest) -> Result<Option<PartialLayer<'_>>> {
        let name = layer_name(diff_id);
        let partial = format!("{name}.partial");
        loop {
            ensure_dir(&self.dir, &partial)?;
            let dir = match open_dir(&self.dir, &partial) {
                Err(error) if error.kind() == Kind::Integrity => continue,
                other => other?,
            };
            lock_layer(&dir, FlockOperation::LockExclusive)?;
            if self.dir.symlink_metadata(&name).is_ok() {
                // Another process has finished. If the directory still has its name, this process created it after that.
                if is_current(&dir, &self.dir, &partial) {
                    let _ = self.dir.remove_dir_all(&partial);
                }
                return Ok(None);
            }
            if is_current(&dir, &self.dir, &partial) {
                return PartialLayer::new(&self.dir, dir, name, partial).map(Some);
            }
        }
    }

    /// Verifies an extracted layer. If [`Verify::Quick`] finds a change, a full verification decides whether it matters.
    pub fn verify(&self, layer: &ExtractedLayer, requested: Verify) -> Result<Level> {
        let verify = || -> Result<Level> {
            let root = layer.open_root()?;
            let record = || open(&layer.dir, "record");
            if requested == Verify::Quick {
                let is_unchanged = open(&layer.dir, "stamps")
                    .and_then(|stamps| change_stamps::verify(&root, &record()?, &layer.seal, &stamps))
                    .is_ok();
                if is_unchanged {
                    return Ok(Level::Quick);
                }
            }
            if requested == Verify::FsVerity {
                self.verify_fs_verity(layer, &root)?;
                return Ok(Level::FsVerity);
            }
            verify::verify(&root, &record()?, &layer.seal)?;
            if requested == Verify::Quick {
                write_change_stamps(&layer.dir, &layer.seal)?;
            }
            Ok(Level::Full)
        };
        verify().map_err(|error| describe(self, &layer.diff_id, error))
    }

    /// Compares fs-verity digests. If fs-verity is not enabled, or with other digests than recorded, enables it and verifies in full.
    fn verify_fs_verity(&self, layer: &ExtractedLayer, root: &Dir) -> Result<()> {
        let record = || open(&layer.dir, "record");
        if let Some(list_digest) = &layer.seal.verity {
            let verified = open(&layer.dir, "verity")
                .and_then(|list| fs_verity::verify(root, &record()?, &layer.seal, &list, list_digest));
            if verified.is_ok() {
                return Ok(());
            }
        }
        let enabled =
            write_atomic(&layer.dir, "verity", |list| fs_verity::enable(root, &record()?, &layer.seal, list));
        if enabled.as_ref().is_err_and(|error| error.kind() == Kind::Unsupported) {
            return enabled.map(drop);
        }
        // An altered layer also explains why fs-verity could not be enabled.
        verify::verify(root, &record()?, &layer.seal)?;
        let list_digest = enabled?;
        write_change_stamps(&layer.dir, &layer.seal)?;
        let seal = Seal { verity: Some(list_digest), ..layer.seal };
        // The temporary file is in the directory of the layer, whose lock is held: beside it, a sweep of another process would delete it.
        let temporary = format!("seal.{}", random_suffix());
        write_durable(&layer.dir, &temporary, |file| write_seal(&seal, file))?;
        let replacing = "replacing the seal of an extracted layer";
        let name = format!("{}.seal", layer_name(&layer.diff_id));
        layer.dir.rename(temporary, &self.dir, name).context(replacing)?;
        sync_dir(&self.dir).context(replacing)
    }

    /// Renames an extracted layer so that it is no longer found, and deletes it unless it is in use.
    pub fn discard(&self, diff_id: &Digest) -> Result<()> {
        let name = layer_name(diff_id);
        match self.dir.rename(&name, &self.dir, format!("{name}.tmp-{}", random_suffix())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("removing extracted layer {diff_id}"))?,
        }
        step("gc: tree put aside");
        let _ = self.dir.remove_file(format!("{name}.seal"));
        self.sweep();
        step("gc: tree removed");
        Ok(())
    }

    /// Whether no process uses the extracted layer.
    pub fn is_unused(&self, diff_id: &Digest) -> bool {
        open_dir(&self.dir, &layer_name(diff_id))
            .is_ok_and(|dir| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    /// Deletes leftovers of killed processes and discarded layers, unless they are locked. A failure leaves them for the next sweep.
    pub fn sweep(&self) {
        for name in self.names().unwrap_or_default() {
            if !is_leftover(&name) {
                continue;
            }
            // InvarLock creates only files and directories, and no process can lock anything else.
            let is_foreign = self
                .dir
                .symlink_metadata(&name)
                .is_ok_and(|metadata| !metadata.is_dir() && !metadata.is_file());
            let lock = invarlock_security::abandoned(&self.path_of(&name));
            if is_foreign || lock.is_some() {
                let _ = remove(&self.dir, &name);
            }
        }
    }

    /// Deletes seals without an extracted layer. The caller excludes concurrent extractions.
    pub fn remove_orphaned_seals(&self) -> Result<()> {
        for name in self.names()? {
            if name.strip_suffix(".seal").is_some_and(|layer| self.dir.symlink_metadata(layer).is_err()) {
                remove(&self.dir, &name).context("removing the seal of a deleted layer")?;
            }
        }
        Ok(())
    }

    /// Bytes on disk of an entry of [`RootfsCache::names`].
    pub fn disk_usage(&self, name: &str) -> u64 {
        disk_usage(&self.dir, name, 0)
    }
}

/// Whether it is the name of a partial or discarded layer.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.ends_with(".partial") || name.contains(".tmp-")
}

/// An error of an extracted layer, with the hint how to replace the layer.
fn describe(cache: &RootfsCache, diff_id: &Digest, error: Error) -> Error {
    let hint = format!(
        "run `invarlock runtime image build` for the default image, or `invarlock runtime image verify --repair` for another one, to extract \
         the layer again; or remove {}",
        cache.path_of(&layer_name(diff_id)).display()
    );
    error.context(format_args!("extracted layer {diff_id}")).with_hint_if(Kind::Integrity, hint)
}

fn disk_usage(dir: &Dir, name: &str, depth: usize) -> u64 {
    use cap_std::fs::MetadataExt as _;
    let Ok(metadata) = dir.symlink_metadata(name) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        // Each name of a file counts its share.
        return own / metadata.nlink().max(1);
    }
    if depth >= MAX_DEPTH + 4 {
        return own;
    }
    let contents = open_dir(dir, name).ok().map_or(0, |inner| {
        let entries = inner.entries().into_iter().flatten().flatten();
        entries.map(|entry| disk_usage(&inner, &entry.file_name().to_string_lossy(), depth + 1)).sum()
    });
    own + contents
}

fn lock_layer(file: impl AsFd, operation: FlockOperation) -> Result<()> {
    locks::take(file, operation).context("waiting for the lock of an extracted layer")
}

fn is_current(file: impl AsFd, dir: &Dir, name: &str) -> bool {
    locks::is_current(file, dir, name).unwrap_or(false)
}
