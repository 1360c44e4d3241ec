//! DSSE envelopes: a payload and signatures of it. <https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md>
//!
//! One payload and its signatures have exactly one file: [`Envelope::parse`] accepts no other bytes than [`Envelope::to_bytes`] gives.

use super::keys::{PublicKey, SigningKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};

/// Payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Largest envelope file.
pub const ENVELOPE_LIMIT: u64 = 1 << 20;
/// The most signatures of an envelope.
const MAX_SIGNATURES: usize = 16;

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<(String, [u8; 64])>,
}

/// The members of an envelope file, in their order.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvelopeFile {
    /// The statement, in base64.
    payload: String,
    /// Always [`IN_TOTO`].
    payload_type: String,
    /// 1 to 16 signatures, in the order of their keys.
    signatures: Vec<FileSignature>,
}

/// One signature of an envelope file.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct FileSignature {
    /// Fingerprint of the public key.
    keyid: String,
    /// The Ed25519 signature of DSSE's pre-authentication encoding of the payload, in base64.
    sig: String,
}

impl Envelope {
    /// An envelope of an in-toto statement with one signature.
    pub fn sign(payload: Vec<u8>, key: &SigningKey) -> Self {
        let mut envelope = Self { payload, signatures: Vec::new() };
        envelope.add_signature(key);
        envelope
    }

    /// Adds the signature of another key. A key that has signed keeps its signature.
    pub fn add_signature(&mut self, key: &SigningKey) {
        let keyid = key.public().fingerprint();
        if let Err(place) = self.signatures.binary_search_by(|(id, _)| id.cmp(&keyid)) {
            self.signatures.insert(place, (keyid, key.sign(&self.signed_bytes())));
        }
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Fingerprints of the keys that the signatures name. Whether they made them, [`Self::signed_by`] says.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|(keyid, _)| keyid.as_str())
    }

    /// Whether a key signed the payload.
    ///
    /// # Errors
    /// A signature names the key, and the key did not make it.
    pub fn signed_by(&self, key: &PublicKey) -> Result<bool> {
        let fingerprint = key.fingerprint();
        match self.signatures.iter().find(|(keyid, _)| *keyid == fingerprint) {
            None => Ok(false),
            Some((_, signature)) if key.verifies(&self.signed_bytes(), signature) => Ok(true),
            Some(_) => Err(Error::integrity(format!("the signature of key {fingerprint} is wrong"))),
        }
    }

    /// The envelope in a file.
    ///
    /// # Errors
    /// The bytes are not what [`Self::to_bytes`] gives for an envelope of an in-toto statement.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let file: EnvelopeFile = serde_json::from_slice(bytes)
            .map_err(|why| Error::input(why.to_string()))
            .context("reading a DSSE envelope")?;
        if file.payload_type != IN_TOTO {
            return Err(Error::input(format!(
                "payloadType is {:?}, expected {IN_TOTO:?}",
                file.payload_type
            )));
        }
        if !(1..=MAX_SIGNATURES).contains(&file.signatures.len()) {
            return Err(Error::input(format!(
                "the envelope has {} signatures, expected 1 to {MAX_SIGNATURES}",
                file.signatures.len()
            )));
        }
        let decode = |name: &str, text: &str| {
            STANDARD.decode(text).map_err(|why| Error::input(format!("{name} is not base64: {why}")))
        };
        let signatures = file.signatures.iter().map(|signature| {
            let bytes = decode("a signature", &signature.sig)?;
            let bytes = bytes.try_into().map_err(|_| Error::input("a signature is not 64 bytes"))?;
            Ok((signature.keyid.clone(), bytes))
        });
        let envelope = Self {
            payload: decode("the payload", &file.payload)?,
            signatures: signatures.collect::<Result<_>>()?,
        };
        let ordered = envelope.signatures.is_sorted_by(|(one, _), (other, _)| one < other);
        match ordered && envelope.to_bytes() == bytes {
            true => Ok(envelope),
            false => Err(Error::integrity(
                "the envelope is not written as this program writes it: white space, order or spelling differ",
            )),
        }
    }

    /// The bytes of the file: one line of JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let signatures = self.signatures.iter();
        let file = EnvelopeFile {
            payload: STANDARD.encode(&self.payload),
            payload_type: IN_TOTO.to_owned(),
            signatures: signatures
                .map(|(keyid, sig)| FileSignature { keyid: keyid.clone(), sig: STANDARD.encode(sig) })
                .collect(),
        };
        // Strings only: this cannot fail.
        let mut bytes = serde_json::to_vec(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// What is signed: DSSE's pre-authentication encoding.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), self.payload.len()).into_bytes();
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_refused() {
        let (key, second) = (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
        let mut envelope = Envelope::sign(br#"{"_type":"x"}"#.to_vec(), &key);
        envelope.add_signature(&second);
        envelope.add_signature(&second);
        let bytes = envelope.to_bytes();
        let read = Envelope::parse(&bytes).expect("an envelope");
        assert!(
            read.signed_by(&key.public()).expect("signed")
                && read.signed_by(&second.public()).expect("signed")
        );
        assert_eq!(read.key_ids().count(), 2);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let accepted = Envelope::parse(&changed)
                .and_then(|read| Ok(read.signed_by(&key.public())? && read.signed_by(&second.public())?));
            assert!(!matches!(accepted, Ok(true)), "bit {bit}: {}", String::from_utf8_lossy(&changed));
        }
    }

    #[test]
    fn the_signed_bytes_are_those_of_the_specification() {
        let envelope = Envelope { payload: b"hello world".to_vec(), signatures: Vec::new() };
        assert_eq!(envelope.signed_bytes(), b"DSSEv1 28 application/vnd.in-toto+json 11 hello world");
    }

    #[test]
    fn an_unknown_key_signed_nothing() {
        let (key, other) = (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        assert!(!envelope.signed_by(&other.public()).expect("no signature of it"));
    }
}
