//! What a user can type to name an image.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::{Digest, Error, RegistryName, Result};

/// Names an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// `name:tag` or `name:tag@sha256:…` or `name@sha256:…`: an image of the store. A digest is compared with what the tag means.
    Tag {
        /// The name.
        name: String,
        /// The tag; absent only where there is a digest.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// `sha256:…`: a manifest of the store.
    Digest(Digest),
    /// `oci:DIR`, `oci:DIR:TAG`, `oci:DIR@sha256:…`: an image of a layout that lies elsewhere.
    Layout {
        /// The layout's directory.
        dir: PathBuf,
        /// The tag in it.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// `oci-archive:FILE`, `oci-archive:FILE:TAG`, `oci-archive:FILE@sha256:…`: an image of a layout in a tar archive.
    Archive {
        /// The archive.
        file: PathBuf,
        /// The tag in it.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// `docker-archive:FILE`, `docker-archive:FILE:NAME:TAG`, `docker-archive:FILE@sha256:…`: an image of what `docker save` writes.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// The name and tag in it.
        name: Option<String>,
        /// The digest of the manifest that is made of it.
        digest: Option<Digest>,
    },
    /// `docker://HOST/NAME…` or `HOST/NAME…`: an image of a registry, as it was pulled into the store.
    Registry(RegistryName),
}

impl Reference {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Err(Error::input(format!(
                "image reference {text:?} {why}; it looks like NAME:TAG, NAME@sha256:HEX, sha256:HEX, oci:DIR:TAG, oci:DIR@sha256:HEX, oci-archive:FILE:TAG, docker-archive:FILE or docker://HOST/NAME:TAG"
            )))
        };
        if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
            return wrong("is empty, too long or has control characters");
        }
        if text.starts_with("sha256:") {
            return Digest::parse(text).map(Self::Digest);
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            return split_place(rest).map_or_else(
                || wrong("names no directory"),
                |place| place.map(|(dir, tag, digest)| Self::Layout { dir, tag, digest }),
            );
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return split_place(rest).map_or_else(
                || wrong("names no file"),
                |place| place.map(|(file, tag, digest)| Self::Archive { file, tag, digest }),
            );
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            // As other tools have it: the file's name ends at the first colon.
            let (rest, digest) = split_digest(rest)?;
            let (file, name) = rest.split_once(':').map_or((rest, None), |(file, name)| (file, Some(name)));
            if file.is_empty() || name.is_some_and(|name| !is_docker_name(name)) {
                return wrong("names no file, or no NAME:TAG in it");
            }
            return Ok(Self::DockerArchive {
                file: PathBuf::from(file),
                name: name.map(str::to_owned),
                digest,
            });
        }
        if let Some((transport, _)) = text.split_once("://") {
            return match transport {
                "docker" => RegistryName::parse(text).map(Self::Registry),
                _ => wrong("has an unknown transport"),
            };
        }
        let (rest, digest) = split_digest(text)?;
        if rest.contains('/') {
            return RegistryName::parse(text).map(Self::Registry);
        }
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if !is_name(name) {
            return wrong("has a name of other than lower-case letters, digits, '.', '_' and '-'");
        }
        match tag {
            None if digest.is_none() => wrong("has neither tag nor digest"),
            Some(tag) if !is_tag(tag) => wrong("has a tag of other than letters, digits, '.', '_' and '-'"),
            _ => Ok(Self::Tag { name: name.to_owned(), tag: tag.map(str::to_owned), digest }),
        }
    }

    /// The value of `org.opencontainers.image.ref.name` that this reference asks for.
    pub(crate) fn tag_in_index(&self) -> Option<String> {
        match self {
            Self::Tag { name, tag: Some(tag), .. } => Some(format!("{name}:{tag}")),
            Self::Layout { tag, .. } | Self::Archive { tag, .. } => tag.clone(),
            Self::DockerArchive { name, .. } => name.clone(),
            Self::Registry(name) => name.in_store(),
            _ => None,
        }
    }

    pub(crate) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Tag { digest, .. }
            | Self::Layout { digest, .. }
            | Self::Archive { digest, .. }
            | Self::DockerArchive { digest, .. } => *digest,
            Self::Digest(digest) => Some(*digest),
            Self::Registry(name) => name.digest,
        }
    }
}

/// How digests begin, those that are not built included.
const DIGESTS: [&str; 4] = ["sha256:", "sha384:", "sha512:", "blake3:"];

/// A path with what stands behind it; nothing where there is no path.
#[allow(clippy::type_complexity, reason = "three parts of one text, named by who takes them")]
fn split_place(rest: &str) -> Option<Result<(PathBuf, Option<String>, Option<Digest>)>> {
    // A directory's name may hold a '@', too.
    let is_digest = |text: &str| DIGESTS.iter().any(|it| text.starts_with(it)) && !text.contains('/');
    let (rest, digest) = match rest.rsplit_once('@').filter(|(_, text)| is_digest(text)) {
        Some((rest, digest)) => match Digest::parse(digest) {
            Ok(digest) => (rest, Some(digest)),
            Err(error) => return Some(Err(error)),
        },
        None => (rest, None),
    };
    // A tag has no '/', so a colon inside the path needs a tag behind it.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    (!path.is_empty()).then(|| Ok((PathBuf::from(path), tag, digest)))
}

/// A name with its tag, as other tools write it: of several parts, with a registry's host and port before them.
fn is_docker_name(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(name, tag)| {
        let host = |part: &str| part.split(':').all(is_name);
        is_tag(tag) && name.split('/').enumerate().all(|(i, part)| is_name(part) || i == 0 && host(part))
    })
}

pub(crate) fn split_digest(text: &str) -> Result<(&str, Option<Digest>)> {
    match text.rsplit_once('@') {
        Some((rest, digest)) => Ok((rest, Some(Digest::parse(digest)?))),
        None => Ok((text, None)),
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    name.len() <= 128 && name.chars().all(inner) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

pub(crate) fn is_tag(tag: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    tag.len() <= 128
        && tag.chars().all(inner)
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tag, digest) = match self {
            Self::Digest(digest) => return digest.fmt(f),
            Self::Registry(name) => return name.fmt(f),
            Self::Tag { name, tag, digest } => {
                f.write_str(name)?;
                (tag, digest)
            }
            Self::Layout { dir, tag, digest } => {
                write!(f, "oci:{}", dir.display())?;
                (tag, digest)
            }
            Self::Archive { file, tag, digest } => {
                write!(f, "oci-archive:{}", file.display())?;
                (tag, digest)
            }
            Self::DockerArchive { file, name, digest } => {
                write!(f, "docker-archive:{}", file.display())?;
                (name, digest)
            }
        };
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    #[test]
    fn good_references_are_read_and_written_alike() {
        let digest = Digest::of(b"x");
        for text in [
            "invarlock-runtime:local".to_owned(),
            format!("invarlock-runtime@{digest}"),
            format!("invarlock-runtime:local@{digest}"),
            digest.to_string(),
            "oci:/some/dir".to_owned(),
            "oci:dir:tag".to_owned(),
            "oci:dir:with:colon:tag".to_owned(),
            "oci-archive:image.tar".to_owned(),
            format!("oci-archive:/some/image.tar:tag@{digest}"),
            "docker-archive:image.tar".to_owned(),
            "docker-archive:image.tar:localhost:5000/some/name:tag".to_owned(),
            format!("docker-archive:image.tar@{digest}"),
            format!("oci:./dir@{digest}"),
            "ghcr.io/invarlock/invarlock-runtime:latest".to_owned(),
            "docker://registry.example/name:tag".to_owned(),
        ] {
            assert_eq!(Reference::parse(&text).expect(&text).to_string(), text);
        }
        assert!(matches!(Reference::parse("oci:a:b"), Ok(Reference::Layout { tag: Some(_), .. })));
        assert!(matches!(Reference::parse("localhost:5000/a:b"), Ok(Reference::Registry(_))));
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            "name",
            "Name:tag",
            "name:",
            ":tag",
            "name:t g",
            "name:tag:more",
            "oci:",
            "oci::tag",
            "oci-archive:",
            "docker-archive:",
            "docker-archive::name:tag",
            "docker-archive:image.tar:Name:tag",
            "docker-archive:image.tar:name",
            "sha256:00",
            "name@sha256:00",
            "http://x/y",
            "na\nme:tag",
            "-name:tag",
            "name:-tag",
            "..:x",
        ] {
            assert!(matches!(Reference::parse(text), Err(error) if error.kind() == Kind::Input), "{text:?}");
        }
        assert!(
            matches!(Reference::parse("name@sha512:00"), Err(error) if error.kind() == Kind::Unsupported)
        );
    }
}
