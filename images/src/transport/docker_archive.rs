//! The archives of `docker save` and `podman save`: a tar archive with `manifest.json`, and a configuration and uncompressed layers for each
//! image.
//!
//! They contain no OCI manifest, so one is computed, always the same for the same image. The digests of its layers are the diff ids of the
//! configuration, and are verified when the layers are read.

use invarlock_error::Context as _;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use oci_spec::image::MediaType;

use super::archive_file::ArchiveFile;
use crate::cas::{Blob, BlobSource};
use crate::oci::descriptor::{TAG, descriptor};
use crate::oci::json::{parse, to_bytes};
use crate::oci::manifest::{Configuration, MAX_LAYERS};
use crate::oci::{Compression, Digest, Hashing};
use crate::{Error, Result};

/// Most images in one archive.
const MAX_IMAGES: usize = 1000;
/// Most names of all images.
const MAX_NAMES: usize = 4000;
/// Most bytes of all computed manifests, which are kept in memory.
const MAX_MANIFEST_BYTES: usize = 16 << 20;
/// Most bytes that are read when an archive is opened, as a multiple of its length. Each member is read once, but several links can name the
/// same member.
const MAX_READ_FACTOR: u64 = 16;

/// An archive of `docker save`.

#[derive(Debug)]
pub(crate) struct DockerArchive {
    file: ArchiveFile,
    index: Vec<u8>,
    /// Computed manifests.
    manifests: BTreeMap<Digest, Vec<u8>>,
    /// Names of the members that are configurations.
    configs: BTreeMap<Digest, String>,
    /// Names of the members that are layers.
    layers: BTreeMap<Digest, String>,
}

/// An archive that is being opened, and the members that were already read: each is read only once.
struct Opener {
    archive: DockerArchive,
    configs: BTreeMap<String, Config>,
    layers: BTreeMap<String, Member>,
    /// Bytes that may still be read.
    read_budget: u64,
    /// Bytes of manifests that may still be computed.
    manifest_budget: usize,
}

/// A configuration and the diff ids in it.
struct Config {
    digest: Digest,
    size: u64,
    diff_ids: Vec<Digest>,
}

/// The size of a layer, its compression, and its digest if it is compressed.
#[derive(Clone, Copy)]
struct Member {
    size: u64,
    compression: Compression,
    compressed_digest: Option<Digest>,
}

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default, deserialize_with = "at_most::<MAX_NAMES, _>")]
    repo_tags: Vec<String>,
    #[serde(deserialize_with = "at_most::<MAX_LAYERS, _>")]
    layers: Vec<String>,
}

/// A list of at most `MAX` entries; reading stops at a longer one. Docker writes an empty list as `null`.
fn at_most<'de, const MAX: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    struct List<const MAX: usize>;
    impl<'de, const MAX: usize> Visitor<'de> for List<MAX> {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(next) = sequence.next_element()? {
                if list.len() == MAX {
                    return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                }
                list.push(next);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_any(List::<MAX>)
}

impl DockerArchive {
    pub fn open(path: &Path) -> Result<Self> {
        let file = ArchiveFile::open(path)?;
        let length = std::fs::metadata(path)
            .with_context(|| format!("reading the metadata of {}", path.display()))?
            .len();
        Opener::open(file, length)
            .map(|opener| opener.archive)
            .with_context(|| format!("image archive {}", path.display()))
    }
}

impl Opener {
    fn open(file: ArchiveFile, length: u64) -> Result<Self> {
        let saved: Vec<SavedImage> = parse("manifest.json", &file.read_document("manifest.json")?)?;
        let names: usize = saved.iter().map(|image| image.repo_tags.len()).sum();
        if saved.len() > MAX_IMAGES || names > MAX_NAMES {
            return Err(Error::safety(format!(
                "{} images with {names} names; at most {MAX_IMAGES} with {MAX_NAMES} are allowed in one archive",
                saved.len()
            )));
        }
        let (manifests, configs, layers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let archive = DockerArchive { file, index: Vec::new(), manifests, configs, layers };
        let (configs, layers) = (BTreeMap::new(), BTreeMap::new());
        let read_budget = length.saturating_mul(MAX_READ_FACTOR);
        let mut opener = Self { archive, configs, layers, read_budget, manifest_budget: MAX_MANIFEST_BYTES };
        let mut manifests = Vec::new();
        for image in &saved {
            let manifest = opener.add_image(image)?;
            let tagged = |tag: &String| {
                let mut entry = manifest.clone();
                entry["annotations"] = json!({ TAG: tag });
                entry
            };
            manifests.extend(image.repo_tags.iter().map(tagged));
            if image.repo_tags.is_empty() {
                manifests.push(manifest);
            }
        }
        opener.archive.index = to_bytes(
            &json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests }),
        )?;
        Ok(opener)
    }

    /// Computes the manifest of an image, and returns its descriptor.
    fn add_image(&mut self, image: &SavedImage) -> Result<Value> {
        let config = match self.configs.remove(&image.config) {
            Some(known) => known,
            None => self.config(&image.config)?,
        };
        let ids = &config.diff_ids;
        if ids.len() != image.layers.len() {
            return Err(Error::integrity(format!(
                "{} layers, but the configuration names {}",
                image.layers.len(),
                ids.len()
            )));
        }
        let mut layers = Vec::new();
        for (name, id) in image.layers.iter().zip(ids) {
            layers.push(self.layer(name, *id)?);
        }
        let config_descriptor = descriptor(&MediaType::ImageConfig, &config.digest, config.size);
        self.configs.insert(image.config.clone(), config);
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": config_descriptor,
            "layers": layers,
        }))?;
        let (size, digest) = (manifest.len(), Digest::of(&manifest));
        if !self.archive.manifests.contains_key(&digest) {
            self.manifest_budget = self.manifest_budget.checked_sub(size).ok_or_else(|| {
                Error::safety(format!(
                    "the manifests of its images would be longer than the {MAX_MANIFEST_BYTES} bytes allowed"
                ))
                .with_hint("save fewer images in one archive")
            })?;
            self.archive.manifests.insert(digest, manifest);
        }
        Ok(descriptor(&MediaType::ImageManifest, &digest, size as u64))
    }

    /// Reads a configuration. Its bytes are not kept; later readers read and verify them again.
    fn config(&mut self, name: &str) -> Result<Config> {
        self.charge(name)?;
        let bytes = self.archive.file.read_document(name)?;
        let parsed: Configuration = parse(name, &bytes)?;
        let ids = parsed.rootfs.diff_ids();
        if ids.len() > MAX_LAYERS {
            return Err(Error::integrity(format!(
                "the configuration names {} layers; at most {MAX_LAYERS} are supported",
                ids.len()
            )));
        }
        let diff_ids = ids.iter().map(|id| Digest::parse_in_document(id)).collect::<Result<_>>()?;
        let config = Config { digest: Digest::of(&bytes), size: bytes.len() as u64, diff_ids };
        self.archive.configs.insert(config.digest, name.to_owned());
        Ok(config)
    }

    /// The descriptor of a layer.
    fn layer(&mut self, name: &str, diff_id: Digest) -> Result<Value> {
        let member = match self.layers.get(name) {
            Some(known) => *known,
            None => self.member(name)?,
        };
        let media_type = member.compression.media_type();
        let digest = member.compressed_digest.unwrap_or(diff_id);
        self.archive.layers.insert(digest, name.to_owned());
        Ok(descriptor(&media_type, &digest, member.size))
    }

    /// Reads the start of a member that is a layer. The format has no compressed layers, but `docker save` writes them where images are kept
    /// compressed. The digest of a compressed layer is not its diff id and is computed.
    fn member(&mut self, name: &str) -> Result<Member> {
        let mut blob = self.archive.file.open_member(name)?;
        let size = blob.len();
        let mut magic = [0; 4];
        let mut compression = Compression::None;
        let mut compressed_digest = None;
        if blob.read_exact(&mut magic).is_ok() {
            compression = Compression::from_magic(&magic);
        }
        if compression != Compression::None {
            self.charge(name)?;
            let mut hashing = Hashing::new(());
            let all = self.archive.file.open_member(name)?;
            hashing.read_all(all).with_context(|| format!("reading {name}"))?;
            compressed_digest = Some(hashing.finish().2);
        }
        let member = Member { size, compression, compressed_digest };
        self.layers.insert(name.to_owned(), member);
        Ok(member)
    }

    /// Subtracts the size of a member from the read budget.
    fn charge(&mut self, name: &str) -> Result<()> {
        let size = self.archive.file.open_member(name)?.len();
        self.read_budget = self.read_budget.checked_sub(size).ok_or_else(|| {
            Error::safety(format!(
                "so many links name the same members that more than {MAX_READ_FACTOR} times its length would be read"
            ))
            .with_hint("use at most one link per member")
        })?;
        Ok(())
    }
}

impl BlobSource for DockerArchive {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        if let Some(manifest) = self.manifests.get(digest) {
            return Ok(Blob::memory(manifest.clone()));
        }
        match self.configs.get(digest).or_else(|| self.layers.get(digest)) {
            Some(name) => self.file.open_member(name),
            None => Err(Error::integrity("it is not in the archive")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;
    use invarlock_error::Kind;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(bytes).expect("gzip");
        encoder.finish().expect("gzip")
    }

    fn config(layers: usize, more: &str) -> Vec<u8> {
        let ids = vec![Digest::of(b"layer"); layers];
        let rootfs = json!({ "type": "layers", "diff_ids": ids });
        json!({ "architecture": "amd64", "os": "linux", "author": more, "rootfs": rootfs })
            .to_string()
            .into_bytes()
    }

    /// Opens an archive of members and links.
    fn open(members: &[(&str, &[u8])], links: &[(String, &str)]) -> Result<Opener> {
        let dir = invarlock_security::SecureTempDir::new("invarlock-images-").expect("directory");
        let path = dir.path().join("archive.tar");
        let mut archive = ::tar::Builder::new(std::fs::File::create(&path).expect("archive"));
        let header = |size: usize| {
            let mut header = ::tar::Header::new_ustar();
            header.set_size(size as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header
        };
        for (name, bytes) in members {
            archive.append_data(&mut header(bytes.len()), name, *bytes).expect("member");
        }
        for (name, target) in links {
            let mut header = header(0);
            header.set_entry_type(::tar::EntryType::Symlink);
            archive.append_link(&mut header, name, target).expect("link");
        }
        archive.finish().expect("archive");
        let length = std::fs::metadata(&path).expect("archive").len();
        Opener::open(ArchiveFile::open(&path)?, length)
    }

    #[test]
    fn reads_each_member_once() {
        let (layer, config) = (gzip(&[7; 100_000]), config(MAX_LAYERS, ""));
        let image = json!({ "Config": "c", "RepoTags": [], "Layers": vec!["l"; MAX_LAYERS] });
        let saved = json!(vec![image; MAX_IMAGES]).to_string();
        let members: [(&str, &[u8]); 3] =
            [("manifest.json", saved.as_bytes()), ("c", &config), ("l", &layer)];
        let mut opened = open(&members, &[]).expect("opened");
        let before = opened.read_budget + config.len() as u64 + layer.len() as u64;
        assert_eq!(before % MAX_READ_FACTOR, 0, "each member was read once");
        assert_eq!(opened.archive.manifests.len(), 1);
        assert_eq!(opened.archive.layers.get(&Digest::of(&layer)).map(String::as_str), Some("l"));
        assert_eq!(opened.archive.json(&Digest::of(&config), config.len() as u64).expect("config"), config);
        // A member that was altered meanwhile is detected when it is read again.
        opened.archive.configs.insert(Digest::of(b"other"), "c".to_owned());
        let altered = opened.archive.json(&Digest::of(b"other"), config.len() as u64);
        assert!(matches!(&altered, Err(error) if error.kind() == Kind::Integrity), "{altered:?}");
    }

    #[test]
    fn limits_bytes_read_through_links() {
        let mut noise = 1u64;
        let random = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        });
        let layer = gzip(&random.take(1 << 20).collect::<Vec<_>>());
        let links: Vec<(String, &str)> = (0..MAX_LAYERS).map(|i| (format!("l{i}"), "l")).collect();
        let with = |count: usize| {
            let names: Vec<&String> = links[..count].iter().map(|(name, _)| name).collect();
            let saved = json!([{ "Config": "c", "Layers": names }]).to_string();
            let config = config(count, "");
            open(&[("manifest.json", saved.as_bytes()), ("c", &config), ("l", &layer)], &links[..count])
        };
        with(8).expect("some links");
        let result = with(MAX_LAYERS).map(drop);
        assert!(
            matches!(&result, Err(error) if error.kind() == Kind::Safety && error.message().contains("links")),
            "{result:?}"
        );
    }

    #[test]
    fn limits_manifests_and_names() {
        // Spaces make each configuration, and so each image, a different one.
        let (layer, config) = ([7; 1], config(MAX_LAYERS, ""));
        let configs: Vec<(String, Vec<u8>)> = (0..MAX_IMAGES)
            .map(|i| (format!("c{i}"), [&config[..], " ".repeat(i).as_bytes()].concat()))
            .collect();
        let with = |count: usize, tags: usize| {
            let tags: Vec<String> = (0..tags).map(|i| format!("it:{i}")).collect();
            let image = |(name, _): &(String, Vec<u8>)| json!({ "Config": name, "RepoTags": tags, "Layers": vec!["l"; MAX_LAYERS] });
            let saved = json!(configs[..count].iter().map(image).collect::<Vec<_>>()).to_string();
            let mut members: Vec<(&str, &[u8])> = vec![("manifest.json", saved.as_bytes()), ("l", &layer)];
            members.extend(configs[..count].iter().map(|(name, bytes)| (name.as_str(), &bytes[..])));
            open(&members, &[])
        };
        let some = with(100, 2).expect("a hundred images");
        assert_eq!((some.archive.manifests.len(), some.archive.configs.len()), (100, 100));
        let result = with(MAX_IMAGES, 0).map(drop);
        assert!(
            matches!(&result, Err(error) if error.kind() == Kind::Safety && error.message().contains("manifests")),
            "{result:?}"
        );
        let result = with(2, MAX_NAMES).map(drop);
        assert!(
            matches!(&result, Err(error) if error.kind() == Kind::Safety && error.message().contains("names")),
            "{result:?}"
        );
    }

    #[test]
    fn rejects_long_lists() {
        let config = config(1, "");
        let with = |layers: Value, tags: Value| {
            let saved = json!([{ "Config": "c", "RepoTags": tags, "Layers": layers }]).to_string();
            open(&[("manifest.json", saved.as_bytes()), ("c", &config), ("l", b"x")], &[]).map(drop)
        };
        with(json!(["l"]), json!(null)).expect("no names");
        for result in [
            with(json!(vec!["l"; MAX_LAYERS + 1]), json!([])),
            with(json!(["l"]), json!(vec!["it"; MAX_NAMES + 1])),
        ] {
            let message = result.expect_err("a long list").to_string();
            assert!(message.contains("a list of at most"), "{message}");
        }
    }
}
