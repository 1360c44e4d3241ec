//! `manifest.signature.json`: the signature of the bytes of the manifest, with the public key.
//!
//! The key in the file says who signed, not whether to trust them: the verifier compares it with a key or a fingerprint of its own.

use super::SIGNATURE;
use crate::format::to_value;
use crate::json;
use crate::numerics::digest::python_json;
use crate::signing::keys::{PublicKey, SigningKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};

/// `format` of the file.
const FORMAT: &str = "evidence-pack-signature-v1";

/// The members of the file.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// Always `evidence-pack-signature-v1`.
    format: String,
    /// Always `ed25519`.
    algorithm: String,
    /// `sha256:` and the digest of the public key.
    signing_key_fingerprint: String,
    /// The public key, in PEM.
    public_key: Encoded,
    /// The signature of the bytes of the manifest, in base64.
    signature: Encoded,
}

/// Bytes as text.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Encoded {
    /// `pem` or `base64`.
    encoding: String,
    /// The bytes in that encoding.
    value: String,
}

impl SignatureFile {
    fn new(key: &PublicKey, signature: &[u8; 64]) -> Result<Self> {
        let encoded = |encoding: &str, value: String| Encoded { encoding: encoding.to_owned(), value };
        Ok(Self {
            format: FORMAT.to_owned(),
            algorithm: "ed25519".to_owned(),
            signing_key_fingerprint: key.fingerprint(),
            public_key: encoded("pem", key.to_pem()?),
            signature: encoded("base64", STANDARD.encode(signature)),
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        (python_json(&to_value(self), ", ", ": ") + "\n").into_bytes()
    }
}

/// The signature file of a manifest.
pub(super) fn sign(manifest: &[u8], key: &SigningKey) -> Result<Vec<u8>> {
    Ok(SignatureFile::new(&key.public(), &key.sign(manifest))?.to_bytes())
}

/// The key that signed a manifest.
///
/// # Errors
/// The file has another form than [`sign`] gives, or the signature is wrong.
pub(super) fn signer(file: &[u8], manifest: &[u8]) -> Result<PublicKey> {
    let reading = || format!("reading {SIGNATURE}");
    json::parse(SIGNATURE, file)?;
    let parsed: SignatureFile =
        serde_json::from_slice(file).map_err(|why| Error::input(why.to_string())).with_context(reading)?;
    let key = PublicKey::parse(&parsed.public_key.value).with_context(reading)?;
    let signature = STANDARD.decode(&parsed.signature.value).ok().and_then(|bytes| bytes.try_into().ok());
    let signature: [u8; 64] = signature
        .ok_or_else(|| Error::input("the signature is not 64 bytes in base64"))
        .with_context(reading)?;
    if SignatureFile::new(&key, &signature)?.to_bytes() != file {
        return Err(Error::integrity(format!(
            "{SIGNATURE} does not have the one form of a signature of its key"
        )));
    }
    match key.verifies(manifest, &signature) {
        true => Ok(key),
        false => Err(Error::integrity(format!("the signature of key {} is wrong", key.fingerprint()))),
    }
}
