//! The name of an image in a registry.

use std::fmt;

use serde::{Serialize, Serializer};

use super::syntax::{is_name, is_tag, split_digest};
use crate::oci::Digest;
use crate::{Error, Result};

/// `[docker://]HOST[:PORT]/NAME[:TAG][@sha256:HEX]`. Without tag and digest the tag is `latest`.
///
/// The host is required: a short name can mean another registry on another machine, and so the image of another publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryName {
    /// Host and port.
    pub host: String,
    /// The repository in the registry.
    pub repository: String,
    /// The tag. Absent only if there is a digest.
    pub tag: Option<String>,
    /// The digest. With a tag, the tag must have this digest in the registry.
    pub digest: Option<Digest>,
    text: String,
}

impl RegistryName {
    /// Parses the name of an image in a registry.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::input(format!("image reference {text:?} {why}"))
                .with_hint("name it like docker://HOST/NAME:TAG or docker://HOST/NAME@sha256:HEX")
        };
        let (rest, digest) = split_digest(text.strip_prefix("docker://").unwrap_or(text))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| invalid("does not name a registry"))?;
        if !is_host(host) {
            return Err(invalid(
                "does not start with a transport (oci:, oci-archive:, docker-archive:) or with the host of a registry in \
                 lower case, such as docker.io or localhost:5000",
            ));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if repository.len() > 255 || !repository.split('/').all(is_name) {
            return Err(invalid(
                "has a name with characters other than lower-case letters, digits, '.', '_' and '-'",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("has a tag with characters other than letters, digits, '.', '_' and '-'"));
        }
        let is_hub = ["docker.io", "index.docker.io"].contains(&host);
        let repository = match is_hub && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        let tag = tag.or_else(|| digest.is_none().then_some(super::LATEST)).map(str::to_owned);
        let host = if is_hub { "docker.io" } else { host }.to_owned();
        Ok(Self { host, repository, tag, digest, text: text.to_owned() })
    }

    /// The tag of the image in a store. It does not depend on how the name was typed.
    pub(crate) fn store_tag(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}/{}:{tag}", self.host, self.repository))
    }
}

/// Whether it is a host with a dot or a port, `localhost`, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253
        && name.split('.').all(is_label)
        && port.is_none_or(is_port)
        && (name.contains('.') || port.is_some() || name == "localhost")
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for RegistryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    #[test]
    fn parses_host_repository_tag_and_digest() {
        let name = RegistryName::parse("docker://localhost:5000/a/b:1").expect("name");
        assert_eq!((name.host.as_str(), name.repository.as_str()), ("localhost:5000", "a/b"));
        assert_eq!(name.store_tag().as_deref(), Some("localhost:5000/a/b:1"));
        let name = RegistryName::parse("docker.io/python").expect("name");
        assert_eq!(name.store_tag().as_deref(), Some("docker.io/library/python:latest"));
        let digest = Digest::of(b"x");
        let name = RegistryName::parse(&format!("[::1]:5000/a@{digest}")).expect("name");
        assert_eq!((name.host.as_str(), name.tag, name.digest), ("[::1]:5000", None, Some(digest)));
        for bad in [
            "docker://python:3",
            "docker://registry/name:1",
            "docker://Host.example/name",
            "docker://user@host.example/name",
            "docker://host.example:0/name",
            "docker://host.example:99999/name",
            "docker://host.example:+5/name",
            "docker://[::1/name",
            "docker://[::g]/name",
            "docker://-a.example/name",
            "docker://host.example/../name",
            "docker://host.example//name",
            "docker://host.example/name:",
            "docker://host.example/name?x=y",
            "docker://host.example/Name",
            "docker:///name",
        ] {
            assert!(matches!(RegistryName::parse(bad), Err(error) if error.kind() == Kind::Input), "{bad}");
        }
    }
}
