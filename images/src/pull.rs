//! An image of a registry into the store, unpacked while it comes. The registry is believed nothing: every byte is measured against the
//! digest that names it, down from the digest that the user gave or that his tag means now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::blobs::{Blob, Blobs, LONGEST_JSON};
use crate::layout::Held;
use crate::manage::{bare, plain_tag};
use crate::policy::Policy;
use crate::remote::{Document, OfTotal, Remote, Sink};
use crate::resolve::{self, CHOSEN_FROM, Layer, ResolvedImage, platform};
use crate::{Digest, Error, Reference, RegistryName, Result, Store, parallel};

/// Blobs that come at once.
pub(crate) const AT_ONCE: usize = 4;

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pulled {
    /// What means it in the store: a name it was given, else its name in the registry, else its digest.
    pub reference: String,
    /// What was asked for.
    pub from: RegistryName,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The digest of the index it was chosen from, where there was one.
    pub index_digest: Option<Digest>,
    /// Size of all its blobs.
    pub bytes: u64,
}

impl Store {
    /// Pulls the image `name` means at `remote`. The store then knows it by that name, and by `tag` where one is given. It gets its names
    /// when it is whole, unpacked and on disk; without a `policy` it stays packed until it is used, for machines that only pass it
    /// on. What a failure leaves of it is gone on with next time, and goes when the store is tidied up.
    pub fn pull(
        &self,
        name: &RegistryName,
        remote: &dyn Remote,
        tag: Option<&str>,
        policy: Option<Policy>,
        progress: OfTotal<'_>,
    ) -> Result<Pulled> {
        let tag = tag.map(plain_tag).transpose()?;
        let held = self.layout.shared()?;
        let work = || {
            let pull = Pull::begin(name, remote, &held)?;
            let image = resolve::resolve(&pull, &Reference::Digest(pull.root))?;
            pull.total.store(image.bytes, Ordering::Relaxed);
            self.fetch(&pull, &image, policy, progress)?;
            self.record(&pull, &image, name, tag)
        };
        work().map_err(|error| error.context(format_args!("pulling {name}")))
    }

    /// Layers, each unpacked when it is there.
    fn fetch(
        &self,
        pull: &Pull<'_>,
        image: &ResolvedImage,
        policy: Option<Policy>,
        progress: OfTotal<'_>,
    ) -> Result<()> {
        // In the order in which they are unpacked.
        let mut queue: Vec<&Layer> = image.layers.iter().collect();
        queue.sort_by_key(|it| it.diff_id);
        let mut seen = BTreeSet::new();
        queue.retain(|it| seen.insert(it.digest));
        lock(&pull.layers).extend(queue.iter().map(|it| (it.digest, State::Coming)));
        let next = AtomicUsize::new(0);
        let fetch = || {
            while let Some(layer) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                pull.note(layer, pull.layer(layer, progress));
            }
        };
        std::thread::scope(|scope| {
            parallel::several(scope, AT_ONCE.min(queue.len()), fetch)?;
            let unpacked = match policy {
                Some(policy) => self.trees.get(pull, &image.layers, policy).map(drop),
                None => Ok(()),
            };
            if unpacked.is_err() {
                pull.stop.store(true, Ordering::Relaxed);
            } else {
                // Trees that were there already waited for nothing.
                image.layers.iter().for_each(|it| _ = pull.is_there(&it.digest));
            }
            match lock(&pull.why).take() {
                Some(error) => Err(error),
                None => unpacked,
            }
        })
    }

    /// Documents, and last of all the names.
    fn record(
        &self,
        pull: &Pull<'_>,
        image: &ResolvedImage,
        name: &RegistryName,
        tag: Option<String>,
    ) -> Result<Pulled> {
        let index_digest = Some(pull.root).filter(|root| *root != image.manifest_digest);
        for digest in
            [Some(image.config_digest), index_digest, Some(image.manifest_digest)].into_iter().flatten()
        {
            let bytes = pull.document(&digest)?;
            pull.held.put(&digest, bytes.len() as u64, |to| to.write_all(&bytes))?;
        }
        pull.held.sync()?;
        let mut descriptor = bare(&resolve::descriptor(pull, &Reference::Digest(pull.root))?)?;
        descriptor["platform"] = platform();
        if let Some(index) = index_digest {
            descriptor["annotations"] = json!({ CHOSEN_FROM: index });
        }
        let names: Vec<String> = name.in_store().into_iter().chain(tag).collect();
        for name in &names {
            pull.held.tag(Some(name), descriptor.clone())?;
        }
        if names.is_empty() {
            pull.held.tag(None, descriptor)?;
        }
        Ok(Pulled {
            reference: names.last().cloned().unwrap_or_else(|| image.manifest_digest.to_string()),
            from: name.clone(),
            manifest_digest: image.manifest_digest,
            index_digest,
            bytes: image.bytes,
        })
    }
}

/// An image that is being pulled. To those who resolve and unpack it, it is a place like any other, in which blobs take their time.
struct Pull<'a> {
    remote: &'a dyn Remote,
    held: &'a Held<'a>,
    root: Digest,
    root_descriptor: Value,
    /// Small blobs, verified.
    documents: Mutex<BTreeMap<Digest, Vec<u8>>>,
    /// Which of them the registry keeps as manifests.
    manifests: Mutex<BTreeSet<Digest>>,
    layers: Mutex<BTreeMap<Digest, State>>,
    changed: Condvar,
    stop: AtomicBool,
    /// The first failure of a layer.
    why: Mutex<Option<Error>>,
    total: AtomicU64,
}

/// What of a document names others as manifests.
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
    Coming,
    There,
    Failed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Pull<'a> {
    fn begin(name: &RegistryName, remote: &'a dyn Remote, held: &'a Held<'a>) -> Result<Self> {
        let asked = name.tag.clone().or_else(|| name.digest.map(|it| it.to_string())).unwrap_or_default();
        let document = remote.manifest(&asked, LONGEST_JSON)?;
        let root = Digest::of(&document.bytes);
        if let Some(wanted) = name.digest.filter(|wanted| *wanted != root) {
            return Err(match &name.tag {
                Some(tag) => Error::integrity(format!("tag {tag} is {root} in the registry, not {wanted}"))
                    .with_hint("leave the tag out to pull the image by its digest"),
                None => Error::integrity(format!("the registry sent {root} for {wanted}")),
            });
        }
        let descriptor =
            json!({ "mediaType": document.media_type, "digest": root, "size": document.bytes.len() });
        let pull = Self {
            remote,
            held,
            root,
            root_descriptor: descriptor,
            documents: Mutex::default(),
            manifests: Mutex::default(),
            layers: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            why: Mutex::default(),
            total: AtomicU64::new(0),
        };
        pull.keep(root, document);
        Ok(pull)
    }

    /// Keeps a document, and notes which others it names as manifests.
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

    /// Fetches a small blob, which must be what its digest says.
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
                "the registry gave {} bytes with digest {} for {digest} of {size} bytes",
                found.0, found.1
            )));
        }
        self.keep(*digest, document);
        Ok(())
    }

    fn layer(&self, layer: &Layer, progress: OfTotal<'_>) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        let total = self.total.load(Ordering::Relaxed);
        if self.held.layout.blob_size(&layer.digest).is_some()
            && self.held.layout.holds(&layer.digest, layer.size)
        {
            progress(layer.size, total);
            return Ok(());
        }
        self.held.receive(&layer.digest, layer.size, &|part| {
            progress(part.have(), total);
            self.remote.blob(&layer.digest, layer.size, &mut Watched { part, pull: self, progress, total })
        })
    }

    /// Notes how a layer fared. What follows from another's failure is not told.
    fn note(&self, layer: &Layer, came: Result<()>) {
        let mut layers = lock(&self.layers);
        layers.insert(layer.digest, if came.is_ok() { State::There } else { State::Failed });
        if let Err(error) = came {
            if !self.stop.swap(true, Ordering::Relaxed) {
                *lock(&self.why) = Some(error);
            }
            // Nobody waits for what will not come any more.
            layers.values_mut().filter(|it| **it == State::Coming).for_each(|it| *it = State::Failed);
        }
        self.changed.notify_all();
    }

    /// Waits until a layer came or failed to.
    fn is_there(&self, digest: &Digest) -> bool {
        let mut layers = lock(&self.layers);
        while layers.get(digest) == Some(&State::Coming) {
            layers = self.changed.wait(layers).unwrap_or_else(PoisonError::into_inner);
        }
        layers.get(digest) == Some(&State::There)
    }
}

impl Blobs for Pull<'_> {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(json!({ "schemaVersion": 2, "manifests": [self.root_descriptor] }).to_string().into_bytes())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        if let Some(bytes) = lock(&self.documents).get(digest) {
            return Ok(Blob::memory(bytes.clone()));
        }
        match self.is_there(digest) {
            true => self.held.layout.open(digest),
            false => Err(Error::system("it did not come")),
        }
    }

    fn fetch(&self, digest: &Digest, size: u64) -> Result<()> {
        let known = lock(&self.documents).contains_key(digest);
        if known { Ok(()) } else { self.fetch_document(digest, size) }
    }
}

fn stopped() -> Error {
    Error::system("stopped, since the image cannot be had")
}

/// A small blob on its way into memory.
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
                "the registry gives more than the {} bytes that were said",
                self.size
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Tells of what passes, and stops where the rest is of no use any more.
struct Watched<'a> {
    part: &'a mut dyn Sink,
    pull: &'a Pull<'a>,
    progress: OfTotal<'a>,
    total: u64,
}

impl Sink for Watched<'_> {
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
