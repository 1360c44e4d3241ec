//! Ed25519 keys and the files that contain them.
//!
//! Private keys: PKCS #8 in PEM, as OpenSSL and the Python package write it, and the OpenSSH format without a passphrase. Public keys:
//! SubjectPublicKeyInfo in PEM, and a line of OpenSSH (`ssh-ed25519 AAAA...`).

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
};
use ed25519_dalek::{Signature, Signer as _};
use invarlock_error::{Error, Kind, Result};
use sha2::{Digest as _, Sha256};
use ssh_key::private::KeypairData;
use ssh_key::public::KeyData;
use std::fmt;
use zeroize::Zeroizing;

/// First line of a private key in OpenSSH's format.
const OPENSSH_PRIVATE: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
/// Start of a public key in OpenSSH's format.
const OPENSSH_PUBLIC: &str = "ssh-";

/// A private key. Its memory is overwritten when it is dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new key from the randomness of the operating system.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|why| Error::system(format!("reading random bytes for a key: {why}")))?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// The key in the text of a file.
    ///
    /// # Errors
    /// The text is no Ed25519 private key, or has a passphrase. The message contains nothing of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with(OPENSSH_PRIVATE) {
            return Self::parse_openssh(text);
        }
        if text.contains("ENCRYPTED PRIVATE KEY") {
            return Err(encrypted("openssl pkey -in KEY -out NEW"));
        }
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(text);
        key.map(Self).map_err(|_| {
            not_a_key("not an Ed25519 private key, neither in PKCS #8 PEM nor in the format of OpenSSH")
        })
    }

    fn parse_openssh(text: &str) -> Result<Self> {
        let key = ssh_key::PrivateKey::from_openssh(text)
            .map_err(|_| not_a_key("not a private key of OpenSSH, or a damaged one"))?;
        match key.key_data() {
            KeypairData::Ed25519(pair) => {
                let bytes = Zeroizing::new(pair.to_bytes());
                let key = ed25519_dalek::SigningKey::from_keypair_bytes(&bytes);
                key.map(Self).map_err(|_| not_a_key("its public and private parts do not belong together"))
            }
            KeypairData::Encrypted(_) => Err(encrypted("ssh-keygen -p -f KEY")),
            _ => Err(not_a_key("not an Ed25519 key")),
        }
    }

    /// The key as PKCS #8 in PEM.
    ///
    /// # Errors
    /// None that can happen with an Ed25519 key.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        // Without the public key: OpenSSL and the Python package read this form.
        let pair = ed25519_dalek::pkcs8::KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF)
            .map_err(|why| Error::system(format!("encoding a private key: {why}")))
    }

    /// The public part.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().fingerprint())
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// The key in the text of a file.
    ///
    /// # Errors
    /// The text is no Ed25519 public key, or one that verifies signatures of others.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let key = if text.starts_with(OPENSSH_PUBLIC) {
            let key = ssh_key::PublicKey::from_openssh(text)
                .map_err(|_| not_a_key("not a public key of OpenSSH, or a damaged one"))?;
            let KeyData::Ed25519(key) = key.key_data() else { return Err(not_a_key("not an Ed25519 key")) };
            ed25519_dalek::VerifyingKey::from_bytes(&key.0).map_err(|_| not_a_key("not an Ed25519 key"))?
        } else if text.contains("PRIVATE KEY") {
            return Err(Error::input("a private key, where the public key is expected")
                .with_hint("pass the file with the public key, such as NAME.pub"));
        } else {
            ed25519_dalek::VerifyingKey::from_public_key_pem(text)
                .map_err(|_| not_a_key("not an Ed25519 public key in PEM or as a line of OpenSSH"))?
        };
        match key.is_weak() {
            true => Err(not_a_key("a key of small order, whose signatures prove nothing")),
            false => Ok(Self(key)),
        }
    }

    /// The key as SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// None that can happen with an Ed25519 key.
    pub fn to_pem(&self) -> Result<String> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(|why| Error::system(format!("encoding a public key: {why}")))
    }

    /// `sha256:` and the SHA-256 of the 32 bytes of the key, as the Python package names a key.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(self.0.as_bytes())))
    }

    /// Whether the key made this signature of the message. Only the one canonical form of a signature is accepted.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

fn not_a_key(why: &str) -> Error {
    Error::new(Kind::Input, why)
        .with_hint("create a key with `invarlock advanced attest keygen`, or use an ssh-ed25519 key")
}

fn encrypted(remedy: &str) -> Error {
    Error::input("the key has a passphrase").with_hint(format!("remove it from a copy of the key: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector of RFC 8032, section 7.1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn rfc_key() -> SigningKey {
        let seed: [u8; 32] = hex::decode(SEED).expect("hex").try_into().expect("32 bytes");
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    #[test]
    fn signs_as_rfc_8032_says() {
        let key = rfc_key();
        assert_eq!(hex::encode(key.public().0.as_bytes()), PUBLIC);
        assert_eq!(hex::encode(key.sign(b"")), SIGNATURE);
        assert!(key.public().verifies(b"", &key.sign(b"")));
        assert!(!key.public().verifies(b"x", &key.sign(b"")));
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = SigningKey::generate().expect("a key");
        let pem = key.to_pem().expect("PEM");
        assert_eq!(SigningKey::parse(&pem).expect("the key").public(), key.public());
        let public = key.public().to_pem().expect("PEM");
        assert_eq!(PublicKey::parse(&public).expect("the key"), key.public());
        assert!(!format!("{key:?}").contains(&hex::encode(key.0.to_bytes())));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let pem = rfc_key().to_pem().expect("PEM");
        for (text, needle) in [
            ("", "not an Ed25519 private key"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----",
                "has a passphrase",
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n-----END OPENSSH PRIVATE KEY-----",
                "not a private key of OpenSSH",
            ),
        ] {
            let error = SigningKey::parse(text).expect_err(text);
            assert!(error.to_string().contains(needle) && error.hint().is_some(), "{error}");
        }
        let error = PublicKey::parse(&pem).expect_err("a private key");
        assert!(error.to_string().contains("a private key, where the public key is expected"), "{error}");
        assert!(PublicKey::parse("ssh-rsa AAAA").is_err());
        // The neutral element verifies a signature of every message.
        let neutral = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----";
        let error = PublicKey::parse(neutral).expect_err("small order");
        assert!(error.to_string().contains("small order"), "{error}");
    }
}
