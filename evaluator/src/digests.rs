//! Digests that a report carries (`spec/math.md` section 8).

use std::collections::HashMap;
use std::fmt::Write as _;

use blake2::digest::Digest;
use blake2::{Blake2s128, Blake2s256};

use crate::windows::Window;

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Digest of a tokenizer: blake2s-16 over each token's UTF-8 bytes and its id in as few little-endian bytes as it needs
/// (at least one), in the order of the tokens.
///
/// Upstream adds the tokenizer's class and the path it came from, so that the same vocabulary in two directories has
/// two digests; ours says the same of the same vocabulary wherever it lies.
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
    hex(&hasher.finalize())
}

/// Digest of an arm: blake2s-16 over the length and the padded ids of each window, u32 little-endian.
pub fn arm(windows: &[Window]) -> String {
    let mut hasher = Blake2s128::new();
    for window in windows {
        hasher.update((window.ids.len() as u32).to_le_bytes());
        for id in &window.ids {
            hasher.update(id.to_le_bytes());
        }
    }
    hex(&hasher.finalize())
}

/// Digest of both arms, given theirs.
pub fn dataset(preview: &str, final_: &str) -> String {
    hex(&Blake2s128::digest(format!("{preview}{final_}")))
}

/// Digest of window ids: blake2s-32 over the compact JSON of the sorted ids (its name in reports says sha256).
pub fn window_ids(ids: impl Iterator<Item = u64>) -> String {
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    hex(&Blake2s256::digest(format!("[{}]", list.join(","))))
}

/// Digest of the positions that have labels: blake2s-16 over the arm's name, `1` and the position (u32 little-endian)
/// for each, `|` behind each window. Absent when no position has one.
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
    any.then(|| hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_ids_match_the_vector() {
        let digest = window_ids([3, 1, 2, 0].into_iter());
        assert!(digest.starts_with("1707899e") && digest.ends_with("9dbe"), "{digest}");
        let all = window_ids(0..480);
        assert_eq!(all, "5183b5ee3c7373e4a8744ed712ab6fa34de3636b3b8ded0c4f143746ea1a5f4d");
    }

    #[test]
    fn mask_positions_match_upstream() {
        // Every golden run: 240 + 240 full windows of 128 tokens.
        let full = vec![Window { ids: vec![7; 128], real: 128 }; 240];
        assert_eq!(labelled_positions(&full, &full).as_deref(), Some("14093b8092f19927dffe9ded21e9486b"));
        assert_eq!(labelled_positions(&[], &[]), None);
    }

    #[test]
    fn a_vocabulary_is_known_by_its_tokens_and_ids() {
        let vocabulary_of =
            |pairs: &[(&str, u32)]| vocabulary(&pairs.iter().map(|(t, i)| ((*t).to_owned(), *i)).collect());
        let one = vocabulary_of(&[("a", 0), ("b", 300)]);
        assert_eq!(one, vocabulary_of(&[("b", 300), ("a", 0)]));
        assert_eq!(one.len(), 32);
        assert_ne!(one, vocabulary_of(&[("a", 1), ("b", 300)]));
        // blake2s-16 of "a\0b\x2c\x01", as Python's hashlib gives it.
        assert_eq!(one, hex(&Blake2s128::digest(b"a\0b\x2c\x01")));
    }
}
