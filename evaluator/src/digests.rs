//! The digests of a tokenizer. Those of windows are in `invarlock_evidence::numerics::digest`.

use std::collections::HashMap;

use blake2::Blake2s128;
use blake2::digest::Digest;
use serde::Serialize;
use sha2::Sha256;

use invarlock_error::{Context as _, Foreign as _, Kind, Result};

/// Digest of a vocabulary, after upstream InvarLock: BLAKE2s-128 over each token's UTF-8 bytes and its id, in the order of the tokens. An id is
/// little-endian without trailing zero bytes, at least one byte.
///
/// Upstream adds the tokenizer's class and its path, so that the same vocabulary has another digest in another
/// directory. This digest depends on the vocabulary only.
pub fn vocabulary(vocabulary: &HashMap<String, u32>) -> String {
    let mut tokens: Vec<(&String, &u32)> = vocabulary.iter().collect();
    tokens.sort_unstable();
    let mut hasher = Blake2s128::new();
    for (token, id) in tokens {
        let bytes = id.to_le_bytes();
        let used = bytes.iter().rposition(|b| *b != 0).map_or(1, |last| last + 1);
        hasher.update(token.as_bytes());
        hasher.update(&bytes[..used]);
    }
    hex::encode(hasher.finalize())
}

/// Digest of how a tokenizer makes ids from text: SHA-256 over its normalizer, pre-tokenizer, model (with vocabulary and merges) and
/// post-processor, each as the tokenizers library writes it and followed by a newline. It does not depend on the form of the file, nor on
/// added tokens.
pub fn mapping(tokenizer: &tokenizers::Tokenizer) -> Result<String> {
    let mut hasher = Hasher(Sha256::new());
    hasher.add(&tokenizer.get_normalizer())?;
    hasher.add(&tokenizer.get_pre_tokenizer())?;
    hasher.add(tokenizer.get_model())?;
    hasher.add(&tokenizer.get_post_processor())?;
    Ok(hex::encode(hasher.0.finalize()))
}

/// Hashes what is written.
struct Hasher(Sha256);

impl Hasher {
    /// Adds a value as JSON, and a newline.
    fn add(&mut self, part: &impl Serialize) -> Result<()> {
        serde_json::to_writer(std::io::BufWriter::new(&mut *self), part)
            .err_kind(Kind::Input)
            .context("serializing the tokenizer")?;
        self.0.update(b"\n");
        Ok(())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabulary_digest_depends_on_tokens_and_ids_only() {
        let vocabulary_of =
            |pairs: &[(&str, u32)]| vocabulary(&pairs.iter().map(|(t, i)| ((*t).to_owned(), *i)).collect());
        let one = vocabulary_of(&[("a", 0), ("b", 300)]);
        assert_eq!(one, vocabulary_of(&[("b", 300), ("a", 0)]));
        assert_eq!(one.len(), 32);
        assert_ne!(one, vocabulary_of(&[("a", 1), ("b", 300)]));
        // The input is "a\0b\x2c\x01".
        assert_eq!(one, hex::encode(Blake2s128::digest(b"a\0b\x2c\x01")));
    }
}
