//! in-toto statements: what a signature says about which files. <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>

use crate::format::plan::Files;
use crate::format::to_value;
use crate::numerics::digest::canonical_json;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `_type` of every statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// A statement with a predicate of type `P`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement<P> {
    /// Always [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The files that it is about.
    pub subject: Vec<Descriptor>,
    /// URI of the type of the predicate.
    pub predicate_type: String,
    /// What it says.
    pub predicate: P,
}

/// A file or an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Its name.
    pub name: String,
    /// `sha256` and the digest of its bytes in hexadecimal.
    pub digest: BTreeMap<String, String>,
}

impl Descriptor {
    /// Of a digest in hexadecimal, with or without `sha256:`.
    pub fn new(name: impl Into<String>, sha256: &str) -> Self {
        let sha256 = sha256.strip_prefix("sha256:").unwrap_or(sha256);
        Self { name: name.into(), digest: BTreeMap::from([("sha256".to_owned(), sha256.to_owned())]) }
    }

    /// Of each file of a directory, named `directory/file`.
    pub fn of_files<'a>(directory: &'a str, files: &'a Files) -> impl Iterator<Item = Self> + 'a {
        files.files.iter().map(move |file| Self::new(format!("{directory}/{}", file.name), &file.sha256))
    }
}

impl<P: Serialize> Statement<P> {
    /// A statement about files.
    pub fn new(predicate_type: &str, subject: Vec<Descriptor>, predicate: P) -> Self {
        Self { kind: STATEMENT.to_owned(), subject, predicate_type: predicate_type.to_owned(), predicate }
    }

    /// The one encoding that is signed: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical_json(&to_value(self)).into_bytes()
    }
}
