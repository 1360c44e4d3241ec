//! References: how users name images.

mod registry_name;
mod syntax;

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::oci::Digest;
use crate::{Error, Result};
use syntax::{is_docker_name, is_name, is_tag, split_digest, split_path};

pub use registry_name::RegistryName;

/// The tag of a name without tag and digest.
const LATEST: &str = "latest";

/// A reference to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// `NAME:TAG`, `NAME:TAG@sha256:HEX` or `NAME@sha256:HEX`: an image of the store. If there is a digest, the image must have it. `NAME` alone
    /// has the tag `latest`.
    Tag {
        /// The name.
        name: String,
        /// The tag. Absent only if there is a digest.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// `sha256:HEX`: an image of the store, by the digest of its manifest.
    Digest(Digest),
    /// `oci:DIR`, `oci:DIR:TAG`, `oci:DIR@sha256:HEX`: an image of an OCI layout in a directory.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// The tag in the layout.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// `oci-archive:FILE`, `oci-archive:FILE:TAG`, `oci-archive:FILE@sha256:HEX`: an image of an OCI layout in a tar archive.
    Archive {
        /// The archive.
        file: PathBuf,
        /// The tag in the archive.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// `docker-archive:FILE`, `docker-archive:FILE:NAME:TAG`, `docker-archive:FILE@sha256:HEX`: an image of an archive of `docker save`.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// The name and tag in the archive.
        name: Option<String>,
        /// The digest of the manifest that is computed for it.
        digest: Option<Digest>,
    },
    /// `[docker://]HOST/NAME…`: an image of a registry, as it was pulled into the store.
    Registry(RegistryName),
}

impl Reference {
    /// Parses a reference.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Err(Error::input(format!("image reference {text:?} {why}")).with_hint(
                "name it like NAME:TAG, NAME@sha256:HEX, sha256:HEX, oci:DIR:TAG, oci:DIR@sha256:HEX, oci-archive:FILE:TAG, \
                 docker-archive:FILE or docker://HOST/NAME:TAG",
            ))
        };
        if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
            return invalid("is empty, too long or contains control characters");
        }
        if text.starts_with("sha256:") {
            return Digest::parse(text).map(Self::Digest);
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            return split_path(rest).map_or_else(
                || invalid("does not name a directory"),
                |parts| parts.map(|(dir, tag, digest)| Self::Layout { dir, tag, digest }),
            );
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return split_path(rest).map_or_else(
                || invalid("does not name a file"),
                |parts| parts.map(|(file, tag, digest)| Self::Archive { file, tag, digest }),
            );
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            // As in other tools, the file name ends at the first colon.
            let (rest, digest) = split_digest(rest)?;
            let (file, name) = rest.split_once(':').map_or((rest, None), |(file, name)| (file, Some(name)));
            if file.is_empty() || name.is_some_and(|name| !is_docker_name(name)) {
                return invalid("does not name a file, or its NAME:TAG is malformed");
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
                _ => invalid("has an unknown transport"),
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
            return invalid(
                "has a name with characters other than lower-case letters, digits, '.', '_' and '-'",
            );
        }
        match tag.or_else(|| digest.is_none().then_some(LATEST)) {
            Some(tag) if !is_tag(tag) => {
                invalid("has a tag with characters other than letters, digits, '.', '_' and '-'")
            }
            tag => Ok(Self::Tag { name: name.to_owned(), tag: tag.map(str::to_owned), digest }),
        }
    }

    /// The annotation `org.opencontainers.image.ref.name` of the image in the index of its layout.
    pub(crate) fn index_tag(&self) -> Option<String> {
        match self {
            Self::Tag { name, tag: Some(tag), .. } => Some(format!("{name}:{tag}")),
            Self::Layout { tag, .. } | Self::Archive { tag, .. } => tag.clone(),
            Self::DockerArchive { name, .. } => name.clone(),
            Self::Registry(name) => name.store_tag(),
            _ => None,
        }
    }

    /// A `NAME:TAG` to give to an image.
    pub(crate) fn parse_new_tag(text: &str) -> Result<String> {
        match Self::parse(text)? {
            reference @ Self::Tag { tag: Some(_), digest: None, .. } => Ok(reference.to_string()),
            _ => Err(Error::input(format!("{text:?} cannot be the name of an image"))
                .with_hint("name it like NAME:TAG, without host and digest")),
        }
    }

    /// The digest in the reference.
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
    fn parsed_references_are_printed_unchanged() {
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
            "oci:dir:docker.io/library/tool:1.2".to_owned(),
            "oci-archive:/some/image.tar:localhost:5000/tool:1.2".to_owned(),
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
        for (text, path, name) in [
            ("oci:l:docker.io/library/tool:1.2", "l", "docker.io/library/tool:1.2"),
            ("oci:l:localhost:5000/tool:1.2", "l", "localhost:5000/tool:1.2"),
            ("oci:l:localhost/tool:1.2", "l", "localhost/tool:1.2"),
            ("oci:/a:b/c:tag", "/a:b/c", "tag"),
            ("oci:/a:./c:tag", "/a:./c", "tag"),
            ("oci:/a:../c:tag", "/a:../c", "tag"),
        ] {
            let parsed = Reference::parse(text).expect(text);
            let expected = (PathBuf::from(path), Some(name.to_owned()));
            assert!(
                matches!(&parsed, Reference::Layout { dir, tag, .. } if (dir, tag) == (&expected.0, &expected.1)),
                "{parsed:?}"
            );
        }
    }

    #[test]
    fn name_alone_means_latest() {
        let parsed = Reference::parse("name").expect("a name");
        assert_eq!(parsed, Reference::parse("name:latest").expect("a name"));
        assert_eq!(parsed.to_string(), "name:latest");
        assert_eq!(Reference::parse_new_tag("name").expect("a name"), "name:latest");
        let digest = Digest::of(b"x");
        let parsed = Reference::parse(&format!("name@{digest}")).expect("a name");
        assert!(matches!(parsed, Reference::Tag { tag: None, .. }));
    }

    #[test]
    fn rejects_malformed_references() {
        for text in [
            "",
            "Name:tag",
            "Name",
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
