//! The digests of reports, as upstream computes them, and the JSON texts that they are taken over.

use super::NOT_PREDICTED;
use blake2::Blake2b128;
use blake2s_simd::{Params, State};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// SHA-256, as lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of everything that can be read, in hexadecimal, and its length in bytes.
pub fn sha256_of(mut reader: impl std::io::Read) -> std::io::Result<(String, u64)> {
    // Fits into the processor's cache.
    let (mut hasher, mut block, mut bytes) = (Sha256::new(), vec![0; 256 << 10], 0);
    loop {
        match reader.read(&mut block) {
            Ok(0) => return Ok((hex::encode(hasher.finalize()), bytes)),
            Ok(read) => {
                hasher.update(&block[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// SHA-256 over the ids that windows use and their tokens: each id, the length of its token in bytes, both as little-endian `u32`, and
/// the token in UTF-8. An id without a token has the length 2³² - 1.
pub fn used_tokens<'t>(tokens: impl IntoIterator<Item = (u32, Option<&'t str>)>) -> String {
    let mut hasher = Sha256::new();
    for (id, token) in tokens {
        hasher.update(id.to_le_bytes());
        let length = token.and_then(|token| u32::try_from(token.len()).ok()).unwrap_or(u32::MAX);
        hasher.update(length.to_le_bytes());
        hasher.update(token.unwrap_or_default());
    }
    hex::encode(hasher.finalize())
}

/// `preview_hash` and `final_hash`: blake2s-16 over length and tokens of each padded window, little-endian.
pub fn windows_hash(windows: &[Vec<u32>]) -> String {
    let mut hasher = WindowsHasher::default();
    windows.iter().for_each(|window| hasher.add(window));
    hasher.finish()
}

/// BLAKE2s with 16 bytes.
fn blake2s_128() -> State {
    Params::new().hash_length(16).to_state()
}

/// Bytes of the length in front of a window.
const LENGTH: usize = 4;

/// [`windows_hash`], window by window.
pub(crate) struct WindowsHasher {
    hasher: State,
    bytes: Vec<u8>,
}

impl Default for WindowsHasher {
    fn default() -> Self {
        Self { hasher: blake2s_128(), bytes: Vec::new() }
    }
}

impl WindowsHasher {
    /// The next window.
    pub(crate) fn add(&mut self, window: &[u32]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&(window.len() as u32).to_le_bytes());
        self.bytes.resize(LENGTH + 4 * window.len(), 0);
        let tokens = self.bytes[LENGTH..].as_chunks_mut().0;
        tokens.iter_mut().zip(window).for_each(|(bytes, token)| *bytes = token.to_le_bytes());
        self.hasher.update(&self.bytes);
    }

    /// The hash of all windows.
    pub(crate) fn finish(self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// `dataset_hash` of two arms' hashes.
pub fn dataset_hash(preview_hash: &str, final_hash: &str) -> String {
    let mut hasher = blake2s_128();
    hasher.update(preview_hash.as_bytes()).update(final_hash.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// `provider_digest.ids_sha256` (blake2s-32, despite its name): the sorted window ids of both arms as JSON.
pub fn window_ids_digest(ids: impl IntoIterator<Item = u64>) -> String {
    let mut ids: Vec<u64> = ids.into_iter().collect();
    ids.sort_unstable();
    let text = serde_json::to_string(&ids).unwrap_or_default();
    blake2s_simd::blake2s(text.as_bytes()).to_hex().to_string()
}

/// Positions with a label in each window of an arm.
#[derive(Debug, Clone, Copy)]
pub enum Labelled<'a> {
    /// As many of the first positions as these numbers.
    First(&'a [u64]),
    /// Those whose label in these rows is not -100.
    Rows(&'a [Vec<i64>]),
}

impl Labelled<'_> {
    /// Calls `window` with the positions of each window.
    fn each(self, mut window: impl FnMut(&mut dyn Iterator<Item = u32>)) {
        match self {
            Self::First(counts) => counts.iter().for_each(|count| window(&mut (0..*count as u32))),
            Self::Rows(rows) => rows.iter().for_each(|row| {
                let positions = (0u32..).zip(row).filter(|(_, label)| **label != NOT_PREDICTED);
                window(&mut positions.map(|(position, _)| position));
            }),
        }
    }
}

/// `provider_digest.masking_sha256` (blake2s-16, despite its name), from the positions with labels of each arm's windows: the name of the
/// arm, then for each label `1` and its position as little-endian `u32`, and `|` after each window. None if no position has a label.
pub fn labelled_positions_digest(preview: Labelled<'_>, final_: Labelled<'_>) -> Option<String> {
    let (mut hasher, mut any, mut bytes) = (blake2s_128(), false, Vec::new());
    for (name, arm) in [("preview", preview), ("final", final_)] {
        let mut first = true;
        arm.each(|positions| {
            if std::mem::take(&mut first) {
                hasher.update(name.as_bytes());
            }
            bytes.clear();
            for position in positions {
                bytes.push(b'1');
                bytes.extend(position.to_le_bytes());
            }
            any |= !bytes.is_empty();
            hasher.update(&bytes);
            hasher.update(b"|");
        });
    }
    any.then(|| hasher.finalize().to_hex().to_string())
}

/// `window_plan_digest`: blake2s-16 over the final arm's ids as little-endian `i64`.
pub fn schedule_digest(final_ids: &[u64]) -> String {
    let mut hasher = blake2s_128();
    for id in final_ids {
        hasher.update(&(*id as i64).to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The identity of one window in a pairing: blake2b-16 over its tokens and, if supplied, its labels.
pub fn window_evidence_hash(tokens: &[u32], labels: Option<&[i64]>) -> String {
    let mut hasher = Blake2b128::new();
    for token in tokens {
        hasher.update(token.to_le_bytes());
    }
    match labels {
        None => hasher.update([0]),
        Some(labels) => {
            hasher.update([1]);
            for label in labels {
                hasher.update(label.to_le_bytes());
            }
        }
    }
    hex::encode(hasher.finalize())
}

/// `measurement_contract_hash` and `policy_digest`: 16 hex digits of SHA-256 over [`python_json`] with spaces.
pub fn spaced_json_hash(value: &Value) -> String {
    let mut digest = sha256_hex(python_json(value, ", ", ": ").as_bytes());
    digest.truncate(16);
    digest
}

/// `thresholds_hash`: 16 hex digits of SHA-256 over compact [`python_json`].
pub fn compact_json_hash(value: &Value) -> String {
    let mut digest = sha256_hex(canonical_json(value).as_bytes());
    digest.truncate(16);
    digest
}

/// Canonical JSON: keys sorted, no spaces, ASCII. Digests of configurations and plans are taken over it.
pub fn canonical_json(value: &Value) -> String {
    python_json(value, ",", ":")
}

/// Appends [`canonical_json`].
pub(crate) fn write_canonical(value: &Value, out: &mut String) {
    write_python(value, &Style { item: ",", key: ":", string: write_ascii_string }, out);
}

/// `json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)` and a line feed: what InvarLock 0.13 and newer digest.
pub fn canonical_utf8_line(value: &Value) -> String {
    // Python and serde_json escape the same characters.
    let style =
        Style { item: ",", key: ":", string: |text, out| out.push_str(&Value::from(text).to_string()) };
    let mut line = String::new();
    write_python(value, &style, &mut line);
    line.push('\n');
    line
}

/// `json.dumps(value, sort_keys=True, separators=(item, key))`.
pub fn python_json(value: &Value, item: &str, key: &str) -> String {
    let mut text = String::new();
    write_python(value, &Style { item, key, string: write_ascii_string }, &mut text);
    text
}

/// How a document is written: its separators and its strings.
struct Style<'a> {
    item: &'a str,
    key: &'a str,
    string: fn(&str, &mut String),
}

fn write_python(value: &Value, style: &Style<'_>, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            // Python sorts by code point, which is the order of UTF-8 bytes.
            entries.sort_unstable_by(|one, other| one.0.cmp(other.0));
            out.push('{');
            for (index, (name, member)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(style.item);
                }
                (style.string)(name, out);
                out.push_str(style.key);
                write_python(member, style, out);
            }
            out.push('}');
        }
        Value::Array(members) => {
            out.push('[');
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(style.item);
                }
                write_python(member, style, out);
            }
            out.push(']');
        }
        Value::String(text) => (style.string)(text, out),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.push_str(&python_float(float)),
            None => {
                let _ = write!(out, "{number}");
            }
        },
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
    }
}

/// A JSON string in ASCII; other characters are `\u` escapes, as Python writes them.
pub fn write_ascii_string(text: &str, out: &mut String) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    out.push('"');
    // Most texts have no character that is escaped.
    let (before, rest) = text.split_at(text.bytes().position(|byte| !plain(&byte)).unwrap_or(text.len()));
    out.push_str(before);
    for character in rest.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// `repr(float)`: the shortest digits that parse to the same value; an exponent below 1e-4 and from 1e16.
pub fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labelled_positions_match_upstream() {
        // The windows of every golden run: 240 + 240 full windows of 128 tokens.
        let full = vec![128; 240];
        assert_eq!(
            labelled_positions_digest(Labelled::First(&full), Labelled::First(&full)).as_deref(),
            Some("14093b8092f19927dffe9ded21e9486b")
        );
        let rows = vec![vec![7; 128]; 240];
        assert_eq!(
            labelled_positions_digest(Labelled::Rows(&rows), Labelled::First(&full)),
            labelled_positions_digest(Labelled::First(&full), Labelled::Rows(&rows))
        );
        assert_eq!(labelled_positions_digest(Labelled::First(&[]), Labelled::Rows(&[vec![-100]])), None);
    }

    #[test]
    fn ids_digest_vectors() {
        let four = window_ids_digest(0..4);
        assert!(four.starts_with("1707899e") && four.ends_with("9dbe"), "{four}");
        // All golden runs of 240 + 240 windows.
        let golden = "5183b5ee3c7373e4a8744ed712ab6fa34de3636b3b8ded0c4f143746ea1a5f4d";
        assert_eq!(window_ids_digest((0..480).rev()), golden);
    }

    #[test]
    fn schedule_digest_vector() {
        assert_eq!(schedule_digest(&[0, 1, 2, 3]), "445221686f82beacbc7de18b8d0c606e");
        let golden: Vec<u64> = (240..480).collect();
        assert_eq!(schedule_digest(&golden), "01fb11df160d12865dcbdcf5f7177e53");
    }

    #[test]
    fn evidence_hash_vector() {
        assert_eq!(window_evidence_hash(&[1, 2, 3], None), "78df84951375242575d931a456d2b12c");
        assert_ne!(window_evidence_hash(&[1, 2, 3], Some(&[])), window_evidence_hash(&[1, 2, 3], None));
    }

    #[test]
    fn measurement_contract_vectors() {
        let ratios = |fatal: f64, warn: f64| json!({"warn_ratio": warn, "fatal_ratio": fatal});
        let spectral = json!({
            "estimator": {"type": "power_iter", "iters": 4, "init": "ones"},
            "degeneracy": {"enabled": true, "stable_rank": ratios(0.25, 0.5), "norm_collapse": ratios(0.1, 0.25)},
        });
        assert_eq!(spaced_json_hash(&spectral), "14cca7884179d484");
        let rmt = json!({
            "kind": "activation_edge_risk",
            "estimator": {"type": "power_iter", "iters": 3, "init": "ones"},
            "activation_sampling": {"windows": {"count": 8, "indices_policy": "evenly_spaced"}},
        });
        assert_eq!(spaced_json_hash(&rmt), "7ca43124fc6a2823");
    }

    #[test]
    fn floats_match_python() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (9007199254740993.0, "9007199254740992.0"),
            (1.5e300, "1.5e+300"),
            (-2.5e-7, "-2.5e-07"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }

    #[test]
    fn strings_are_escaped_to_ascii() {
        assert_eq!(
            canonical_json(&json!({"b": "ä\u{1F600}\u{7f}", "a": [1, null]})),
            "{\"a\":[1,null],\"b\":\"\\u00e4\\ud83d\\ude00\\u007f\"}"
        );
    }

    #[test]
    fn canonical_utf8_json_matches_python() {
        // Bytes of `json.dumps(..., sort_keys=True, separators=(",", ":"), ensure_ascii=False)`, Python 3.12.
        assert_eq!(
            canonical_utf8_line(
                &json!({"\u{e4}": "\u{e4}\u{1F600}\u{7f}\u{2028}\u{1}\u{8}\u{c}\r\n\t\"\\/", "a": [1.0, -1e-7, null, 3]})
            ),
            "{\"a\":[1.0,-1e-07,null,3],\"\u{e4}\":\"\u{e4}\u{1F600}\u{7f}\u{2028}\\u0001\\b\\f\\r\\n\\t\\\"\\\\/\"}\n"
        );
    }
}
