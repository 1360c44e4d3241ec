//! Untrusted text made visible: characters that are invisible, or that reorder their surroundings, are shown by code point, and long text
//! is cut. The page and every export use it.

/// Characters kept at the start and at the end of a string that is cut.
const HEAD: usize = 260;
const TAIL: usize = 60;
/// Combining marks in a row; more of them would paint over neighbouring lines.
const MARKS: usize = 3;

/// One part of a string as it is shown.
pub(crate) enum Piece<'a> {
    /// Harmless characters.
    Plain(&'a str),
    /// A character that is shown by its code point.
    Hidden(char),
}

/// Whether `c` is invisible or changes how its surroundings are shown.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffc}' | '\u{fffe}' | '\u{ffff}' | '\u{e000}'..='\u{f8ff}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{10ffff}')
}

fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// JSON in which the strings have no hidden characters: they are written as escapes of JSON.
#[cfg(feature = "export")]
pub(crate) fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match is_hidden(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
            false => out.push(c),
        }
    }
    out
}

/// Splits a string into harmless parts and characters that are shown by code point.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut out, mut start, mut marks) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if is_hidden(c) || marks > MARKS {
            if start < at {
                out.push(Piece::Plain(&text[start..at]));
            }
            out.push(Piece::Hidden(c));
            start = at + c.len_utf8();
        }
    }
    if start < text.len() {
        out.push(Piece::Plain(&text[start..]));
    }
    out
}

/// The start and the end of a long string, and how many characters lie between them.
pub(crate) fn cut(text: &str) -> (&str, Option<(usize, &str)>) {
    // Bytes bound characters from above, so a short string is not counted.
    if text.len() <= HEAD + TAIL {
        return (text, None);
    }
    let count = text.chars().count();
    if count <= HEAD + TAIL {
        return (text, None);
    }
    let head = text.char_indices().nth(HEAD).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().nth_back(TAIL - 1).map_or(text.len(), |(at, _)| at);
    (&text[..head], Some((count - HEAD - TAIL, &text[tail..])))
}

/// Untrusted text as plain text on one line: hidden characters by code point, a long text cut.
pub(crate) fn plain(text: &str) -> String {
    let (head, rest) = cut(text);
    let mut out = String::new();
    for piece in pieces(head) {
        match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Hidden(c) => out.push_str(&format!("[U+{:04X}]", c as u32)),
        }
    }
    if rest.is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "export")]
    #[test]
    fn json_keeps_its_values_without_hidden_characters() {
        let value = serde_json::json!({"a\u{202e}": "b\u{e0001}\u{85}\n\"\u{1b}é"});
        let text = escape_json(&value.to_string());
        assert!(!text.chars().any(is_hidden), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).ok(), Some(value));
    }

    #[test]
    fn hidden_characters_are_shown_and_long_text_is_cut() {
        assert_eq!(plain("a\u{202e}b\nc\u{1b}[2J"), "a[U+202E]b[U+000A]c[U+001B][2J");
        assert_eq!(plain("models/größe"), "models/größe");
        assert_eq!(plain("\u{fffe}\u{ffff}"), "[U+FFFE][U+FFFF]", "no characters of XML or YAML");
        let long = plain(&"x".repeat(10_000));
        assert!(long.chars().count() < 400 && long.ends_with('…'), "{long}");
    }
}
