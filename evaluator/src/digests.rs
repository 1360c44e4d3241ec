//! Digests in a report, in the formats of upstream InvarLock.

use std::collections::HashMap;

use blake2::digest::Digest;
use blake2::{Blake2s128, Blake2s256};

use crate::windows::Window;

/// Digest of a tokenizer: BLAKE2s-128 over each token's UTF-8 bytes and its id, in the order of the tokens. An id is
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

/// Digest of an arm: BLAKE2s-128 over the length and the padded ids of each window, u32 little-endian.
pub fn arm(windows: &[Window]) -> String {
    let mut hasher = Blake2s128::new();
    for window in windows {
        hasher.update((window.ids.len() as u32).to_le_bytes());
        for id in &window.ids {
            hasher.update(id.to_le_bytes());
        }
    }
    hex::encode(hasher.finalize())
}

/// Digest of both arms: BLAKE2s-128 over the digests of the arms.
pub fn dataset(preview: &str, final_: &str) -> String {
    hex::encode(Blake2s128::digest(format!("{preview}{final_}")))
}

/// Digest of window ids: BLAKE2s-256 over the compact JSON of the sorted ids. Reports name it `ids_sha256`, as upstream
/// does.
pub fn window_ids(ids: impl Iterator<Item = u64>) -> String {
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    hex::encode(Blake2s256::digest(format!("[{}]", list.join(","))))
}

/// Digest of the positions with labels: BLAKE2s-128 over the name of the arm, then for each position `1` and the
/// position (u32 little-endian), and `|` after each window. Absent when no position has a label.
pub fn labelled_positions(preview: &[Window], final_: &[Window]) -> Option<String> {
    let mut hasher = Blake2s128::new();
    for (name, windows) in [("preview", preview), ("final", final_)] {
        if windows.is_empty() {
            continue;
        }
        hasher.update(name);
        for window in windows {
            for position in 0..window.real as u32 {
                hasher.update(b"1");
                hasher.update(position.to_le_bytes());
            }
            hasher.update(b"|");
        }
    }
    let any = preview.iter().chain(final_).any(|w| w.real > 0);
    any.then(|| hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_ids_match_upstream() {
        let digest = window_ids([3, 1, 2, 0].into_iter());
        assert!(digest.starts_with("1707899e") && digest.ends_with("9dbe"), "{digest}");
        let all = window_ids(0..480);
        assert_eq!(all, "5183b5ee3c7373e4a8744ed712ab6fa34de3636b3b8ded0c4f143746ea1a5f4d");
    }

    #[test]
    fn labelled_positions_match_upstream() {
        // The windows of every golden run: 240 + 240 full windows of 128 tokens.
        let full = vec![Window { ids: vec![7; 128], real: 128 }; 240];
        assert_eq!(labelled_positions(&full, &full).as_deref(), Some("14093b8092f19927dffe9ded21e9486b"));
        assert_eq!(labelled_positions(&[], &[]), None);
    }

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
