//! SHA-256 digests, and readers that compute them on the way.

use std::fmt;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// A SHA-256 digest. Written `sha256:` and 64 lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads `sha256:…`; another algorithm is unsupported.
    pub fn parse(text: &str) -> Result<Self> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(match text.split_once(':') {
                Some((algorithm, _)) => {
                    Error::unsupported(format!("digest algorithm {algorithm:?}: only sha256 is built"))
                }
                None => Error::input(format!("{text:?} is not a digest (sha256: and 64 hexadecimal digits)")),
            });
        };
        Self::from_hex(hex).ok_or_else(|| {
            Error::input(format!("{text:?} is not sha256: and 64 lower-case hexadecimal digits"))
        })
    }

    fn from_hex(hex: &str) -> Option<Self> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let hex: &[u8; 64] = hex.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The digest of everything that was fed to `hash`.
    pub(crate) fn of_finished(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }

    /// The 64 digits.
    pub fn hex(&self) -> String {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
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

/// Passes bytes on, and knows how many there were and their digest. As a writer it may pass them to [`io::sink`].
pub(crate) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    count: u64,
    /// More bytes than this are an error.
    most: u64,
}

/// How much is read at once: it fits into the processor's cache.
const PIECE: usize = 256 << 10;

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self::bounded(inner, u64::MAX)
    }

    pub fn bounded(inner: T, most: u64) -> Self {
        Self { inner, hash: Sha256::new(), count: 0, most }
    }

    /// Reads `from` to its end, in pieces that cost few calls.
    pub fn read_all(&mut self, from: impl Read) -> io::Result<()> {
        self.read_all_with(from, &mut vec![0; PIECE])
    }

    /// The same, in pieces of `buffer`.
    pub fn read_all_with(&mut self, mut from: impl Read, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match from.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.take_note(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// Takes zeros in, as a hole in a file reads.
    pub fn zeros(&mut self, mut count: u64) {
        let zeros = [0; 4096];
        while count > 0 {
            let piece = zeros.len().min(usize::try_from(count).unwrap_or(zeros.len()));
            self.update(&zeros[..piece]);
            count -= piece as u64;
        }
    }

    pub fn finish(self) -> (T, u64, Digest) {
        (self.inner, self.count, Digest(self.hash.finalize().into()))
    }

    fn take_note(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count += bytes.len() as u64;
        if self.count > self.most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, TooMuch(self.most)));
        }
        self.hash.update(bytes);
        Ok(())
    }
}

/// What [`Hashing::bounded`] says when there is more; told apart from errors of the system by this type.
#[derive(Debug, thiserror::Error)]
#[error("more than the {0} bytes allowed")]
pub(crate) struct TooMuch(u64);

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.take_note(&buffer[..read])?;
        Ok(read)
    }
}

impl<T: Read> crate::archive::Input for Hashing<T> {}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.take_note(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use invarlock_error::Kind;

    use super::*;

    #[test]
    fn digests_are_read_strictly() {
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
    fn a_bound_is_a_bound() {
        let mut reader = Hashing::bounded(io::repeat(0), 100);
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
    }
}
