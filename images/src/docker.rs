//! What `docker save` and `podman save` write: a tar archive with `manifest.json`, a configuration and unpacked layers for each image.
//!
//! It names no manifest, so one is made here, the same for the same image: its layers' digests are what the configuration says of
//! their archives, and are verified like any other when they are read.

use invarlock_error::Context as _;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::blobs::{Blob, Blobs, TAG};
use crate::bundle::Bundle;
use crate::digest::Hashing;
use crate::files::parse;
use crate::packing::Packing;
use crate::resolve::{
    CONFIG, Configuration, INDEX, LAYER_GZIP, LAYER_TAR, MANIFEST, MOST_LAYERS, written_digest,
};
use crate::{Digest, Error, Result};

/// Images in one archive.
const MOST_IMAGES: usize = 1000;
/// Names of all of them.
const MOST_NAMES: usize = 4000;
/// Bytes of all manifests made here, which are kept in memory.
const MOST_MADE: usize = 16 << 20;
/// Members are read at most so many times the archive's length while it is opened: each is read once, and links may name one again.
const MOST_READ: u64 = 16;

#[derive(Debug)]
pub(crate) struct DockerArchive {
    bundle: Bundle,
    index: Vec<u8>,
    /// Made here.
    manifests: BTreeMap<Digest, Vec<u8>>,
    /// Members that are configurations.
    configs: BTreeMap<Digest, String>,
    /// Members that are layers.
    layers: BTreeMap<Digest, String>,
}

/// An archive while it is opened, and what is known of its members: however often one is named, it is read once.
struct Opening {
    archive: DockerArchive,
    configs: BTreeMap<String, Config>,
    layers: BTreeMap<String, Member>,
    /// Bytes that may still be read, and of manifests that may still be made.
    left: u64,
    room: usize,
}

/// A configuration, and the archives it names.
struct Config {
    digest: Digest,
    size: u64,
    diff_ids: Vec<Digest>,
}

/// A layer's size, and its digest where it is compressed.
#[derive(Clone, Copy)]
struct Member {
    size: u64,
    packed: Option<Digest>,
}

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "at_most::<MOST_NAMES, _>")]
    repo_tags: Vec<String>,
    #[serde(deserialize_with = "at_most::<MOST_LAYERS, _>")]
    layers: Vec<String>,
}

/// A list, which is read no further than it may be long. Docker writes an empty one as `null`.
fn at_most<'de, const MOST: usize, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<String>, D::Error> {
    struct List<const MOST: usize>;
    impl<'de, const MOST: usize> Visitor<'de> for List<MOST> {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> std::result::Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(next) = from.next_element()? {
                if list.len() == MOST {
                    return Err(serde::de::Error::invalid_length(MOST + 1, &self));
                }
                list.push(next);
            }
            Ok(list)
        }
    }
    from.deserialize_any(List::<MOST>)
}

impl DockerArchive {
    pub fn open(path: &Path) -> Result<Self> {
        let bundle = Bundle::open(path)?;
        let length = std::fs::metadata(path).context(format!("looking at {}", path.display()))?.len();
        Opening::of(bundle, length)
            .map(|it| it.archive)
            .map_err(|error| error.context(format_args!("image archive {}", path.display())))
    }
}

impl Opening {
    fn of(bundle: Bundle, length: u64) -> Result<Self> {
        let saved: Vec<Saved> = parse("manifest.json", &bundle.text("manifest.json")?)?;
        let names: usize = saved.iter().map(|it| it.repo_tags.len()).sum();
        if saved.len() > MOST_IMAGES || names > MOST_NAMES {
            return Err(Error::safety(format!(
                "{} images with {names} names; {MOST_IMAGES} with {MOST_NAMES} are the most that are read of one archive",
                saved.len()
            )));
        }
        let (manifests, configs, layers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let archive = DockerArchive { bundle, index: Vec::new(), manifests, configs, layers };
        let (configs, layers) = (BTreeMap::new(), BTreeMap::new());
        let left = length.saturating_mul(MOST_READ);
        let mut this = Self { archive, configs, layers, left, room: MOST_MADE };
        let mut manifests = Vec::new();
        for image in &saved {
            let manifest = this.manifest(image)?;
            let tags = image.repo_tags.iter();
            let tagged = |tag: &String| {
                let mut it = manifest.clone();
                it["annotations"] = json!({ TAG: tag });
                it
            };
            let before = manifests.len();
            manifests.extend(tags.map(tagged));
            if manifests.len() == before {
                manifests.push(manifest);
            }
        }
        this.archive.index =
            text(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))?;
        Ok(this)
    }

    /// Makes the manifest of an image, and gives its descriptor.
    fn manifest(&mut self, image: &Saved) -> Result<Value> {
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
        let named = json!({ "mediaType": CONFIG, "digest": config.digest, "size": config.size });
        self.configs.insert(image.config.clone(), config);
        let manifest =
            text(&json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": named, "layers": layers }))?;
        let (size, digest) = (manifest.len(), Digest::of(&manifest));
        if !self.archive.manifests.contains_key(&digest) {
            self.room = self.room.checked_sub(size).ok_or_else(|| {
                Error::safety(format!(
                    "its images have so many layers that their manifests are longer than the {MOST_MADE} bytes allowed; save fewer \
                     images in one archive"
                ))
            })?;
            self.archive.manifests.insert(digest, manifest);
        }
        Ok(json!({ "mediaType": MANIFEST, "digest": digest, "size": size }))
    }

    /// Reads a configuration. Its bytes are not kept: whoever wants them reads them again, and verifies them.
    fn config(&mut self, name: &str) -> Result<Config> {
        self.spend(name)?;
        let bytes = self.archive.bundle.text(name)?;
        let parsed: Configuration = parse(name, &bytes)?;
        let ids = parsed.rootfs.diff_ids();
        if ids.len() > MOST_LAYERS {
            return Err(Error::integrity(format!(
                "the configuration names {} layers; at most {MOST_LAYERS} can be mounted",
                ids.len()
            )));
        }
        let diff_ids = ids.iter().map(|it| written_digest(it)).collect::<Result<_>>()?;
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
        let kind = if member.packed.is_some() { LAYER_GZIP } else { LAYER_TAR };
        let digest = member.packed.unwrap_or(diff_id);
        self.archive.layers.insert(digest, name.to_owned());
        Ok(json!({ "mediaType": kind, "digest": digest, "size": member.size }))
    }

    /// Looks at a member that is a layer. One that is compressed, which the format does not foresee and Docker reads all the same, has
    /// another digest than the configuration says; it is computed.
    fn member(&mut self, name: &str) -> Result<Member> {
        let mut blob = self.archive.bundle.member(name)?;
        let size = blob.len();
        let mut magic = [0; 2];
        let mut packed = None;
        if blob.read_exact(&mut magic).is_ok() && Packing::by_magic(&magic) == Packing::Gzip {
            self.spend(name)?;
            let mut hashing = Hashing::new(());
            let all = self.archive.bundle.member(name)?;
            hashing.read_all(all).context(format_args!("reading {name}"))?;
            packed = Some(hashing.finish().2);
        }
        let member = Member { size, packed };
        self.layers.insert(name.to_owned(), member);
        Ok(member)
    }

    /// Notes that a member is read.
    fn spend(&mut self, name: &str) -> Result<()> {
        let size = self.archive.bundle.member(name)?.len();
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            Error::safety(format!(
                "its members are named by so many links that {MOST_READ} times its length would have to be read; name each by one"
            ))
        })?;
        Ok(())
    }
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::system(format!("writing JSON: {error}")))
}

impl Blobs for DockerArchive {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        if let Some(made) = self.manifests.get(digest) {
            return Ok(Blob::memory(made.clone()));
        }
        match self.configs.get(digest).or_else(|| self.layers.get(digest)) {
            Some(name) => self.bundle.member(name),
            None => Err(Error::integrity("it is not in the archive")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use invarlock_error::Kind;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
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

    /// An archive of members, in which a name with a target is a link.
    fn open(members: &[(&str, &[u8])], links: &[(String, &str)]) -> Result<Opening> {
        let dir = invarlock_security::SecureTempDir::new("invarlock-images-").expect("directory");
        let path = dir.path().join("archive.tar");
        let mut archive = tar::Builder::new(std::fs::File::create(&path).expect("archive"));
        let header = |size: usize| {
            let mut header = tar::Header::new_ustar();
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
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, name, target).expect("link");
        }
        archive.finish().expect("archive");
        let length = std::fs::metadata(&path).expect("archive").len();
        Opening::of(Bundle::open(&path)?, length)
    }

    #[test]
    fn a_member_is_read_once_however_often_it_is_named() {
        let (layer, config) = (gzip(&[7; 100_000]), config(MOST_LAYERS, ""));
        let image = json!({ "Config": "c", "RepoTags": [], "Layers": vec!["l"; MOST_LAYERS] });
        let saved = json!(vec![image; MOST_IMAGES]).to_string();
        let members: [(&str, &[u8]); 3] =
            [("manifest.json", saved.as_bytes()), ("c", &config), ("l", &layer)];
        let mut opened = open(&members, &[]).expect("opened");
        let before = opened.left + config.len() as u64 + layer.len() as u64;
        assert_eq!(before % MOST_READ, 0, "no more was read than each member once");
        assert_eq!(opened.archive.manifests.len(), 1);
        assert_eq!(opened.archive.layers.get(&Digest::of(&layer)).map(String::as_str), Some("l"));
        assert_eq!(opened.archive.json(&Digest::of(&config), config.len() as u64).expect("config"), config);
        // What is altered since is found when it is read again.
        opened.archive.configs.insert(Digest::of(b"other"), "c".to_owned());
        let altered = opened.archive.json(&Digest::of(b"other"), config.len() as u64);
        assert!(matches!(&altered, Err(error) if error.kind() == Kind::Integrity), "{altered:?}");
    }

    #[test]
    fn links_do_not_have_a_member_read_for_ever() {
        let mut noise = 1u64;
        let random = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        });
        let layer = gzip(&random.take(1 << 20).collect::<Vec<_>>());
        let links: Vec<(String, &str)> = (0..MOST_LAYERS).map(|i| (format!("l{i}"), "l")).collect();
        let with = |count: usize| {
            let names: Vec<&String> = links[..count].iter().map(|(name, _)| name).collect();
            let saved = json!([{ "Config": "c", "Layers": names }]).to_string();
            let config = config(count, "");
            open(&[("manifest.json", saved.as_bytes()), ("c", &config), ("l", &layer)], &links[..count])
        };
        with(8).expect("some links");
        let refused = with(MOST_LAYERS).map(drop);
        assert!(
            matches!(&refused, Err(it) if it.kind() == Kind::Safety && it.message().contains("links")),
            "{refused:?}"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        // Each image another one, by its last layer's name for a plain member.
        let (layer, config) = ([7; 1], config(MOST_LAYERS, ""));
        let configs: Vec<(String, Vec<u8>)> = (0..MOST_IMAGES)
            .map(|i| (format!("c{i}"), [&config[..], " ".repeat(i).as_bytes()].concat()))
            .collect();
        let with = |count: usize, tags: usize| {
            let tags: Vec<String> = (0..tags).map(|i| format!("it:{i}")).collect();
            let image = |(name, _): &(String, Vec<u8>)| json!({ "Config": name, "RepoTags": tags, "Layers": vec!["l"; MOST_LAYERS] });
            let saved = json!(configs[..count].iter().map(image).collect::<Vec<_>>()).to_string();
            let mut members: Vec<(&str, &[u8])> = vec![("manifest.json", saved.as_bytes()), ("l", &layer)];
            members.extend(configs[..count].iter().map(|(name, bytes)| (name.as_str(), &bytes[..])));
            open(&members, &[])
        };
        let some = with(100, 2).expect("a hundred images");
        assert_eq!((some.archive.manifests.len(), some.archive.configs.len()), (100, 100));
        let refused = with(MOST_IMAGES, 0).map(drop);
        assert!(
            matches!(&refused, Err(it) if it.kind() == Kind::Safety && it.message().contains("manifests")),
            "{refused:?}"
        );
        let refused = with(2, MOST_NAMES).map(drop);
        assert!(
            matches!(&refused, Err(it) if it.kind() == Kind::Safety && it.message().contains("names")),
            "{refused:?}"
        );
    }

    #[test]
    fn lists_are_read_no_further_than_they_may_be_long() {
        let config = config(1, "");
        let with = |layers: Value, tags: Value| {
            let saved = json!([{ "Config": "c", "RepoTags": tags, "Layers": layers }]).to_string();
            open(&[("manifest.json", saved.as_bytes()), ("c", &config), ("l", b"x")], &[]).map(drop)
        };
        with(json!(["l"]), json!(null)).expect("no names");
        for refused in [
            with(json!(vec!["l"; MOST_LAYERS + 1]), json!([])),
            with(json!(["l"]), json!(vec!["it"; MOST_NAMES + 1])),
        ] {
            let refused = refused.expect_err("a long list").to_string();
            assert!(refused.contains("a list of at most"), "{refused}");
        }
    }
}
