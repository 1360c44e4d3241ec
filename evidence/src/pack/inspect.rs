//! What a pack contains, and whether it is what was packed. The reports are not verified here.

use super::manifest::{PackManifest, Reference};
use super::{CHECKSUMS, MANIFEST, PackFiles, Refusal, SIGNATURE, Stage, checksums, is_report, signature};
use crate::numerics::digest::sha256_hex;
use crate::signing::keys::PublicKey;
use crate::{json, newer};
use std::collections::BTreeMap;

/// Files that the checksums do not cover, and copies of them that the Python package allows.
const CONTROL_FILES: [(&str, &str); 3] = [
    (MANIFEST, "metadata/manifest.json"),
    (SIGNATURE, "metadata/manifest.signature.json"),
    (CHECKSUMS, "metadata/checksums.sha256"),
];

/// The most faults of a kind that are listed.
const MAX_LISTED: usize = 50;

/// Who signed a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// It has no signature.
    None,
    /// The signature is wrong, for this reason.
    Wrong(String),
    /// This key signed it.
    Key(PublicKey),
}

/// A pack that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Its manifest.
    pub manifest: PackManifest,
    /// Who signed it.
    pub signer: Signer,
    /// Whether the manifest contains the digest of the checksums.
    pub checksums_bound: bool,
    /// Files that differ from their checksums, or do not exist: a sentence each.
    pub checksum_faults: Vec<String>,
    /// Copies of control files that differ.
    pub mirror_faults: Vec<String>,
    /// Files that differ from the digests in the manifest.
    pub reference_faults: Vec<String>,
    /// Files without a checksum.
    pub extra_files: Vec<String>,
    /// Files with a checksum.
    pub hashed: usize,
    /// Paths of the evaluation reports.
    pub reports: Vec<String>,
}

impl Inspection {
    /// Looks at a pack.
    ///
    /// # Errors
    /// A control file is missing or not of its format.
    pub fn of(files: &PackFiles) -> Result<Self, Refusal> {
        let required = |path: &str| {
            files
                .get(path)
                .ok_or_else(|| Refusal::new(Stage::Missing, format!("{path} is missing in the pack")))
        };
        let newer = files.get(MANIFEST).and_then(|bytes| json::parse(MANIFEST, bytes).ok());
        if let Some(newer) = newer.as_ref().and_then(newer::sentence) {
            return Err(Refusal::new(Stage::Newer, format!("the pack is {newer}; {}", newer::REMEDY)));
        }
        let (manifest_bytes, sums) = (required(MANIFEST)?, required(CHECKSUMS)?);
        let format = |error: crate::Error| Refusal::new(Stage::Format, error.to_string());
        let manifest = PackManifest::parse(manifest_bytes).map_err(format)?;
        let digests = checksums::parse(sums).map_err(format)?;
        let mut extra_files: Vec<String> = files.iter().map(|(path, _)| path.to_owned()).collect();
        extra_files.retain(|path| !digests.contains_key(path.as_str()) && !is_control(path));
        Ok(Self {
            signer: signer(files, manifest_bytes, &manifest),
            checksums_bound: manifest.checksums_sha256_digest == sha256_hex(sums),
            checksum_faults: checksum_faults(files, &digests),
            mirror_faults: mirror_faults(files),
            reference_faults: manifest
                .references()
                .into_iter()
                .filter_map(|(member, reference)| reference_fault(files, member, reference))
                .collect(),
            extra_files,
            hashed: digests.len(),
            reports: files
                .iter()
                .map(|(path, _)| path)
                .filter(|path| is_report(path))
                .map(str::to_owned)
                .collect(),
            manifest,
        })
    }

    /// Fingerprint of the key that signed it.
    pub fn fingerprint(&self) -> Option<String> {
        match &self.signer {
            Signer::Key(key) => Some(key.fingerprint()),
            _ => None,
        }
    }

    /// Why the signature is refused. `trusted`: fingerprints of the keys, one of which must have signed; none: any key.
    pub fn signature_fault(&self, trusted: &[String]) -> Option<String> {
        match &self.signer {
            Signer::None => Some(format!("{SIGNATURE} is missing: the pack is not signed")),
            Signer::Wrong(why) => Some(why.clone()),
            Signer::Key(key) => {
                let found = key.fingerprint();
                (!trusted.is_empty() && !trusted.contains(&found)).then(|| {
                    format!("the pack is signed by {found}, the verifier requires {}", trusted.join(" or "))
                })
            }
        }
    }

    /// Every file that is not the one that was packed: a sentence each.
    pub fn integrity_faults(&self) -> Vec<String> {
        let unbound = (!self.checksums_bound)
            .then(|| format!("{CHECKSUMS} was changed: {MANIFEST} has another digest of it"));
        let extra = self.extra_files.iter().map(|path| format!("{path:?} has no checksum"));
        let listed = |faults: &[String]| faults.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>();
        unbound
            .into_iter()
            .chain(listed(&self.checksum_faults))
            .chain(listed(&self.mirror_faults))
            .chain(listed(&self.reference_faults))
            .chain(extra.take(MAX_LISTED))
            .collect()
    }
}

fn is_control(path: &str) -> bool {
    CONTROL_FILES.iter().any(|(file, mirror)| path == *file || path == *mirror)
}

fn signer(files: &PackFiles, bytes: &[u8], manifest: &PackManifest) -> Signer {
    let Some(file) = files.get(SIGNATURE) else { return Signer::None };
    match signature::signer(file, bytes) {
        Err(error) => Signer::Wrong(error.to_string()),
        Ok(key) => match &manifest.signing_key_fingerprint {
            Some(named) if *named != key.fingerprint() => {
                Signer::Wrong(format!("{MANIFEST} names the key {named:?}, {} signed it", key.fingerprint()))
            }
            _ => Signer::Key(key),
        },
    }
}

fn checksum_faults(files: &PackFiles, digests: &BTreeMap<&str, &str>) -> Vec<String> {
    let fault = |(path, stated): (&&str, &&str)| {
        let Some(bytes) = files.get(path) else { return Some(format!("{path:?} is missing in the pack")) };
        let found = sha256_hex(bytes);
        (found != **stated)
            .then(|| format!("{path:?} was changed: its SHA-256 is {found}, {CHECKSUMS} has {stated}"))
    };
    digests.iter().filter_map(fault).collect()
}

fn mirror_faults(files: &PackFiles) -> Vec<String> {
    let fault = |(file, mirror): &(&str, &str)| {
        let copy = files.get(mirror)?;
        (files.get(file) != Some(copy)).then(|| format!("{mirror} is not a copy of {file}"))
    };
    CONTROL_FILES.iter().filter_map(fault).collect()
}

fn reference_fault(files: &PackFiles, member: &str, reference: &Reference) -> Option<String> {
    match (&reference.path, &reference.digest) {
        (None, None) => None,
        (Some(path), Some(digest)) => {
            let Some(bytes) = files.get(path) else {
                return Some(format!("{MANIFEST}: {member} names {path:?}, which is missing in the pack"));
            };
            let found = format!("sha256:{}", sha256_hex(bytes));
            (found != *digest)
                .then(|| format!("{MANIFEST}: {member} names {path:?} with another digest than {found}"))
        }
        _ => Some(format!("{MANIFEST}: {member} needs both a path and a digest")),
    }
}
