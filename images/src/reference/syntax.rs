//! The parts of references: names, tags, digests and paths.

use std::path::PathBuf;

use crate::Result;
use crate::oci::Digest;

/// Prefixes of digests, including algorithms that are not supported.
const DIGEST_PREFIXES: [&str; 4] = ["sha256:", "sha384:", "sha512:", "blake3:"];

/// Splits `PATH[:TAG][@DIGEST]`. `None` if there is no path.
#[allow(clippy::type_complexity, reason = "the caller names the three parts")]
pub(super) fn split_path(rest: &str) -> Option<Result<(PathBuf, Option<String>, Option<Digest>)>> {
    // The name of a directory can also contain '@'.
    let is_digest =
        |text: &str| DIGEST_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) && !text.contains('/');
    let (rest, digest) = match rest.rsplit_once('@').filter(|(_, text)| is_digest(text)) {
        Some((rest, digest)) => match Digest::parse(digest) {
            Ok(digest) => (rest, Some(digest)),
            Err(error) => return Some(Err(error)),
        },
        None => (rest, None),
    };
    if let Some((path, name)) = split_full_name(rest) {
        return (!path.is_empty()).then(|| Ok((PathBuf::from(path), Some(name.to_owned()), digest)));
    }
    // A tag has no '/', so a path that contains a colon needs a tag after it.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    (!path.is_empty()).then(|| Ok((PathBuf::from(path), tag, digest)))
}

/// Splits `PATH:HOST/NAME:TAG`, the full name of an image in a layout, as other tools write it. Only a part with a dot or a colon, and
/// `localhost`, is a host: so a path with a colon is rarely taken for a name.
fn split_full_name(rest: &str) -> Option<(&str, &str)> {
    let is_full_name = |text: &str| {
        let host = text.split_once('/').map_or("", |(host, _)| host);
        (host.contains(['.', ':']) || host == "localhost") && is_docker_name(text)
    };
    rest.match_indices(':').map(|(at, _)| (&rest[..at], &rest[at + 1..])).find(|(_, name)| is_full_name(name))
}

/// Whether it is a name with a tag, as other tools write it: several parts, the first of which can be a host and port.
pub(super) fn is_docker_name(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(name, tag)| {
        let is_host = |part: &str| part.split(':').all(is_name);
        is_tag(tag) && name.split('/').enumerate().all(|(i, part)| is_name(part) || i == 0 && is_host(part))
    })
}

/// Splits `NAME[@DIGEST]`.
pub(super) fn split_digest(text: &str) -> Result<(&str, Option<Digest>)> {
    match text.rsplit_once('@') {
        Some((rest, digest)) => Ok((rest, Some(Digest::parse(digest)?))),
        None => Ok((text, None)),
    }
}

/// Whether it is the name of an image, or a part of one.
pub(super) fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    name.len() <= 128 && name.chars().all(is_allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Whether it is a tag.
pub(super) fn is_tag(tag: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    tag.len() <= 128
        && tag.chars().all(is_allowed)
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}
