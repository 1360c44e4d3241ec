//! Escapes untrusted text for a terminal.

/// Escapes every control character except newline and tab (`\u{1b}`), so that no terminal escape sequence remains, and every character
/// that changes the direction of text.
pub fn printable(text: &str) -> String {
    let hostile = |c: char| {
        let control = c.is_control() && c != '\n' && c != '\t';
        control
            || matches!(c, '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match hostile(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn escapes_control_and_direction_characters() {
        assert_eq!(printable("a\u{1b}]0;x\u{7}b\tc\n"), "a\\u{1b}]0;x\\u{7}b\tc\n");
        assert_eq!(printable("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(printable("plain ünïcode"), "plain ünïcode");
    }
}
