//! SHA-256 digests, and streams that compute them.
//!
//! [`Digest`] is stricter than the type of `oci-spec`: SHA-256 only, lower case only, and always 32 bytes.

use std::fmt;
use std::io::{self, Read, Write};

use invarlock_error::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Parses `sha256:HEX`. Another algorithm is unsupported.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || {
            Error::input(format!("{text:?} is not a digest (sha256: and 64 lower-case hexadecimal digits)"))
        };
        match text.split_once(':') {
            Some(("sha256", digits)) => Self::from_hex(digits).ok_or_else(malformed),
            Some((algorithm, _)) => Err(Error::unsupported(format!(
                "digest algorithm {algorithm:?} is not supported; only sha256 is"
            ))),
            None => Err(malformed()),
        }
    }

    /// Parses a digest that a document contains. A malformed one is a fault of the document, not of the user.
    pub(crate) fn parse_in_document(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|error| match error.kind() {
            Kind::Input => error.with_kind(Kind::Integrity),
            _ => error,
        })
    }

    /// The digest with these 64 lower-case hexadecimal digits, as file names of the store contain them.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        // The decoder accepts upper case.
        Some(Self(bytes)).filter(|digest| digest.hex() == digits)
    }

    /// The digest of everything that was fed to `hash`.
    pub(crate) fn from_hasher(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }

    /// The 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A reader or writer that counts and hashes the bytes passing through it.
pub(crate) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    count: u64,
    /// More bytes than this are an error.
    limit: u64,
}

/// Bytes read at once: they fit into the processor's cache.
const BUFFER: usize = 256 << 10;

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self::bounded(inner, u64::MAX)
    }

    /// Fails with [`LimitExceeded`] after `limit` bytes.
    pub fn bounded(inner: T, limit: u64) -> Self {
        Self { inner, hash: Sha256::new(), count: 0, limit }
    }

    /// Hashes `source` to its end.
    pub fn read_all(&mut self, source: impl Read) -> io::Result<()> {
        self.read_all_with(source, &mut vec![0; BUFFER])
    }

    /// Hashes `source` to its end, reading into `buffer`.
    pub fn read_all_with(&mut self, mut source: impl Read, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match source.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.checked_update(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hashes `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// Hashes `count` zeros, as a hole in a file reads.
    pub fn update_zeros(&mut self, mut count: u64) {
        let zeros = [0; 4096];
        while count > 0 {
            let chunk = zeros.len().min(usize::try_from(count).unwrap_or(zeros.len()));
            self.update(&zeros[..chunk]);
            count -= chunk as u64;
        }
    }

    /// The inner stream, the number of bytes and their digest.
    pub fn finish(self) -> (T, u64, Digest) {
        (self.inner, self.count, Digest(self.hash.finalize().into()))
    }

    fn checked_update(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count += bytes.len() as u64;
        if self.count > self.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, LimitExceeded(self.limit)));
        }
        self.hash.update(bytes);
        Ok(())
    }
}

/// The cause of the error of a [`Hashing::bounded`] stream that is too long.
#[derive(Debug, thiserror::Error)]
#[error("more than the {0} bytes allowed")]
pub(crate) struct LimitExceeded(u64);

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.checked_update(&buffer[..read])?;
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checked_update(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_lower_case_sha256() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::parse(text).expect("digest"), digest);
        for bad in [
            "",
            "sha256:",
            "sha256:ba",
            &text.to_uppercase(),
            &text.replace("ba78", "BA78"),
            &format!("{text}0"),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        assert!(Digest::parse(&format!("sha256:{}", "é".repeat(32))).is_err());
        assert!(matches!(Digest::parse("sha512:00"), Err(error) if error.kind() == Kind::Unsupported));
    }

    #[test]
    fn bounded_stream_fails_above_limit() {
        let mut reader = Hashing::bounded(io::repeat(0), 100);
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
    }
}
