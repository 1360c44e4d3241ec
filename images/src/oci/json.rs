//! Reading and writing small JSON documents.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::{Error, Result};

/// Largest manifest, configuration or index, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// Parses a document of an image. A malformed one is an integrity error.
pub(crate) fn parse<T: DeserializeOwned>(what: impl Display, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::integrity(format!("{what} is malformed: {error}")).with_source(error))
}

/// Refuses a document with one of `keys`, which belong to another kind of document: readers could disagree about it (CVE-2021-41190).
pub(crate) fn refuse_keys(what: impl Display, bytes: &[u8], keys: &[&str]) -> Result<()> {
    let members: BTreeMap<String, IgnoredAny> = parse(&what, bytes)?;
    match keys.iter().find(|key| members.contains_key(**key)) {
        Some(key) => Err(Error::safety(format!(
            "{what} also contains {key:?}: it could be read as two kinds of document"
        ))),
        None => Ok(()),
    }
}

/// The bytes of a document.
pub(crate) fn to_bytes(document: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(document)
        .map_err(|error| Error::system(format!("writing JSON: {error}")).with_source(error))
}
