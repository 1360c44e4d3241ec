//! Pull of an image from a registry. Layers are extracted while others are downloaded.
//!
//! Registry responses are untrusted. Every blob is verified by the digest that refers to it, starting from the digest that the user supplied
//! or that the tag has now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use invarlock_error::Context as _;

use super::local::{LocalImages, needed_consent};
use super::remote::{Document, MAX_CONNECTIONS, Remote};
use super::resolve::{self, ResolvedImage};
use crate::cas::{Blob, BlobSource, LockedLayout, Sink};
use crate::layer::Policy;
use crate::oci::descriptor::{CHOSEN_FROM, platform, without_annotations};
use crate::oci::json::MAX_DOCUMENT;
use crate::oci::{Consent, Digest, Layer};
use crate::progress::TransferProgress;
use crate::reference::{Reference, RegistryName};
use crate::{Error, Result, parallel};

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Pulled {
    /// Its reference in the store: the tag it was given, otherwise its name in the registry, otherwise its digest.
    pub reference: String,
    /// The requested name.
    #[cfg_attr(feature = "schemas", schemars(with = "String"))]
    pub from: RegistryName,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The digest of the index from which it was chosen, if any.
    pub index_digest: Option<Digest>,
    /// Size of all blobs in bytes.
    pub bytes: u64,
    /// The configuration names no architecture or no operating system; those of this machine were assumed.
    pub platform_assumed: bool,
}

impl LocalImages {
    /// Pulls the image `name` from `remote`. In the store it has that name, and also `tag` if one is given. It gets its names when it is
    /// complete, extracted and on disk. Without a `policy` it is not extracted, for machines that only forward it. The next pull continues
    /// after a failure; `gc` deletes what the failure left.
    pub fn pull(
        &self,
        name: &RegistryName,
        remote: &dyn Remote,
        tag: Option<&str>,
        policy: Option<Policy>,
        progress: TransferProgress<'_>,
    ) -> Result<Pulled> {
        let tag = tag.map(Reference::parse_new_tag).transpose()?;
        let layout = self.layout.lock_shared()?;
        let work = || {
            let pull = Pull::begin(name, remote, &layout)?;
            let image = resolve::resolve(&pull, &Reference::Digest(pull.root))?;
            pull.total.store(image.bytes, Ordering::Relaxed);
            let consent = self.fetch(&pull, &image, policy, progress)?;
            self.record(&pull, &image, name, tag, consent)
        };
        work().with_context(|| format!("pulling {name}"))
    }

    /// Downloads the layers, and extracts each one when it is complete. Returns what of the policy it needs.
    fn fetch(
        &self,
        pull: &Pull<'_>,
        image: &ResolvedImage,
        policy: Option<Policy>,
        progress: TransferProgress<'_>,
    ) -> Result<Consent> {
        // In the order in which they are extracted.
        let mut queue: Vec<&Layer> = image.layers.iter().collect();
        queue.sort_by_key(|it| it.diff_id);
        let mut seen = BTreeSet::new();
        queue.retain(|it| seen.insert(it.digest));
        lock(&pull.layers).extend(queue.iter().map(|it| (it.digest, State::Pending)));
        let next = AtomicUsize::new(0);
        let fetch = || {
            while let Some(layer) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                pull.finish_layer(layer, pull.download_layer(layer, progress));
            }
        };
        std::thread::scope(|scope| {
            parallel::start_up_to(scope, MAX_CONNECTIONS.min(queue.len()), fetch)?;
            let extracted = match policy {
                Some(policy) => {
                    let extracted = self.rootfs.get(pull, &image.layers, policy);
                    extracted.map(|extracted| needed_consent(&image.layers, &extracted, policy))
                }
                None => Ok(Consent::default()),
            };
            if extracted.is_err() {
                pull.stop.store(true, Ordering::Relaxed);
            } else {
                // Layers that were extracted before did not wait for their blobs.
                image.layers.iter().for_each(|it| _ = pull.wait_for(&it.digest));
            }
            match lock(&pull.failure).take() {
                Some(error) => Err(error),
                None => extracted,
            }
        })
    }

    /// Writes the documents, and last the names.
    fn record(
        &self,
        pull: &Pull<'_>,
        image: &ResolvedImage,
        name: &RegistryName,
        tag: Option<String>,
        consent: Consent,
    ) -> Result<Pulled> {
        let index_digest = Some(pull.root).filter(|root| *root != image.manifest_digest);
        for digest in
            [Some(image.config_digest), index_digest, Some(image.manifest_digest)].into_iter().flatten()
        {
            let bytes = pull.document(&digest)?;
            pull.layout.write_blob(&digest, bytes.len() as u64, |file| file.write_all(&bytes))?;
        }
        pull.layout.sync()?;
        let mut descriptor =
            without_annotations(&resolve::manifest_descriptor(pull, &Reference::Digest(pull.root))?)?;
        descriptor["platform"] = platform();
        if let Some(index) = index_digest {
            descriptor["annotations"] = json!({ CHOSEN_FROM: index });
        }
        consent.add_to(&mut descriptor);
        let names: Vec<String> = name.store_tag().into_iter().chain(tag).collect();
        for name in &names {
            pull.layout.tag(Some(name), descriptor.clone())?;
        }
        if names.is_empty() {
            pull.layout.tag(None, descriptor)?;
        }
        Ok(Pulled {
            reference: names.last().cloned().unwrap_or_else(|| image.manifest_digest.to_string()),
            from: name.clone(),
            manifest_digest: image.manifest_digest,
            index_digest,
            bytes: image.bytes,
            platform_assumed: image.is_platform_assumed,
        })
    }
}

/// An image that is being pulled, as a source whose blobs become available over time.
struct Pull<'a> {
    remote: &'a dyn Remote,
    layout: &'a LockedLayout<'a>,
    root: Digest,
    root_descriptor: Value,
    /// Verified small blobs.
    documents: Mutex<BTreeMap<Digest, Vec<u8>>>,
    /// Digests that the registry serves as manifests.
    manifests: Mutex<BTreeSet<Digest>>,
    layers: Mutex<BTreeMap<Digest, State>>,
    changed: Condvar,
    stop: AtomicBool,
    /// The first error of a layer.
    failure: Mutex<Option<Error>>,
    total: AtomicU64,
}

/// The manifests that a document refers to.
#[derive(Default, Deserialize)]
struct Names {
    #[serde(default)]
    manifests: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: String,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Pending,
    Present,
    Failed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Pull<'a> {
    fn begin(name: &RegistryName, remote: &'a dyn Remote, layout: &'a LockedLayout<'a>) -> Result<Self> {
        let wanted = name.tag.clone().or_else(|| name.digest.map(|it| it.to_string())).unwrap_or_default();
        let document = remote.manifest(&wanted, MAX_DOCUMENT)?;
        let root = Digest::of(&document.bytes);
        if let Some(wanted) = name.digest.filter(|wanted| *wanted != root) {
            return Err(match &name.tag {
                Some(tag) => {
                    Error::integrity(format!("tag {tag} has digest {root} in the registry, not {wanted}"))
                        .with_hint("omit the tag to pull the image by its digest")
                }
                None => Error::integrity(format!("the registry sent {root} for {wanted}")),
            });
        }
        let descriptor =
            json!({ "mediaType": document.media_type, "digest": root, "size": document.bytes.len() });
        let pull = Self {
            remote,
            layout,
            root,
            root_descriptor: descriptor,
            documents: Mutex::default(),
            manifests: Mutex::default(),
            layers: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
            total: AtomicU64::new(0),
        };
        pull.keep(root, document);
        Ok(pull)
    }

    /// Keeps a document, and the digests of the manifests that it refers to.
    fn keep(&self, digest: Digest, document: Document) {
        let names: Names = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let named = names.manifests.into_iter().filter_map(|it| Digest::parse(&it.digest).ok());
        lock(&self.manifests).extend(named);
        lock(&self.documents).insert(digest, document.bytes);
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let missing = || Error::system(format!("{digest} was never fetched"));
        lock(&self.documents).get(digest).cloned().ok_or_else(missing)
    }

    /// Downloads a small blob and verifies its digest.
    fn fetch_document(&self, digest: &Digest, size: u64) -> Result<()> {
        let document = match lock(&self.manifests).contains(digest) {
            true => None,
            false => Some(Memory { bytes: Vec::new(), size }),
        };
        let document = match document {
            None => self.remote.manifest(&digest.to_string(), size)?,
            Some(mut memory) => {
                self.remote.blob(digest, size, &mut memory)?;
                Document { media_type: String::new(), bytes: memory.bytes }
            }
        };
        let found = (document.bytes.len() as u64, Digest::of(&document.bytes));
        if found != (size, *digest) {
            return Err(Error::integrity(format!(
                "the registry sent {} bytes with digest {} for {digest} of {size} bytes",
                found.0, found.1
            )));
        }
        self.keep(*digest, document);
        Ok(())
    }

    fn download_layer(&self, layer: &Layer, progress: TransferProgress<'_>) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        let total = self.total.load(Ordering::Relaxed);
        if self.layout.layout.blob_size(&layer.digest).is_some()
            && self.layout.layout.has_valid_blob(&layer.digest, layer.size)
        {
            progress(layer.size, total);
            return Ok(());
        }
        self.layout.download_blob(&layer.digest, layer.size, &|part| {
            progress(part.have(), total);
            self.remote.blob(
                &layer.digest,
                layer.size,
                &mut WatchedSink { part, pull: self, progress, total },
            )
        })
    }

    /// Records the result of a layer. Only the first error is kept; others follow from it.
    fn finish_layer(&self, layer: &Layer, result: Result<()>) {
        let mut layers = lock(&self.layers);
        layers.insert(layer.digest, if result.is_ok() { State::Present } else { State::Failed });
        if let Err(error) = result {
            if !self.stop.swap(true, Ordering::Relaxed) {
                *lock(&self.failure) = Some(error);
            }
            // Pending layers will not be downloaded any more.
            layers.values_mut().filter(|it| **it == State::Pending).for_each(|it| *it = State::Failed);
        }
        self.changed.notify_all();
    }

    /// Waits until a layer is downloaded or has failed. True if it is present.
    fn wait_for(&self, digest: &Digest) -> bool {
        let mut layers = lock(&self.layers);
        while layers.get(digest) == Some(&State::Pending) {
            layers = self.changed.wait(layers).unwrap_or_else(PoisonError::into_inner);
        }
        layers.get(digest) == Some(&State::Present)
    }
}

impl BlobSource for Pull<'_> {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(json!({ "schemaVersion": 2, "manifests": [self.root_descriptor] }).to_string().into_bytes())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        if let Some(bytes) = lock(&self.documents).get(digest) {
            return Ok(Blob::memory(bytes.clone()));
        }
        match self.wait_for(digest) {
            true => self.layout.layout.open(digest),
            false => Err(Error::system("it was not downloaded")),
        }
    }

    fn fetch(&self, digest: &Digest, size: u64) -> Result<()> {
        let known = lock(&self.documents).contains_key(digest);
        if known { Ok(()) } else { self.fetch_document(digest, size) }
    }
}

fn stopped() -> Error {
    Error::system("stopped after the failure of another layer")
}

/// A small blob that is downloaded to memory.
struct Memory {
    bytes: Vec<u8>,
    size: u64,
}

impl Sink for Memory {
    fn have(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn restart(&mut self) -> Result<()> {
        self.bytes.clear();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.size - self.have() {
            return Err(Error::integrity(format!(
                "the registry sent more than the expected {} bytes",
                self.size
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reports progress, and stops after the failure of another layer.
struct WatchedSink<'a> {
    part: &'a mut dyn Sink,
    pull: &'a Pull<'a>,
    progress: TransferProgress<'a>,
    total: u64,
}

impl Sink for WatchedSink<'_> {
    fn have(&self) -> u64 {
        self.part.have()
    }

    fn restart(&mut self) -> Result<()> {
        self.part.restart()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if self.pull.stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        self.part.take(bytes)?;
        (self.progress)(bytes.len() as u64, self.total);
        Ok(())
    }
}
