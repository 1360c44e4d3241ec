//! Untrusted text in each format. Every function first makes the text visible (`crate::visible`): no control character, bidirectional
//! override or line feed remains, and long text is cut.

use crate::visible::plain;

/// A Markdown code span, also in a cell of a table. Nothing in it is markup, a link or a mention.
///
/// A vertical bar is shown by code point, because programs disagree about a bar in the code span of a table.
pub fn markdown(text: &str) -> String {
    let text = plain(text).replace('|', "[U+007C]");
    if text.trim().is_empty() {
        return "–".to_owned();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // A renderer removes one space at each end, if there is one at both.
    let space = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// A quoted field of CSV that no spreadsheet reads as a formula.
pub fn csv(text: &str) -> String {
    let text = plain(text);
    let is_formula = text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    let guard = if is_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// Text or an attribute's value of XML 1.0.
pub fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(c),
        }
    }
    out
}

/// A double-quoted scalar of YAML.
pub fn yaml(text: &str) -> String {
    format!("\"{}\"", plain(text).replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_is_one_code_span() {
        assert_eq!(markdown("models/a"), "`models/a`");
        assert_eq!(markdown("a`b``c"), "```a`b``c```");
        assert_eq!(markdown("`a"), "`` `a ``");
        assert_eq!(markdown("a|b\n# c"), "`a[U+007C]b[U+000A]# c`");
        assert_eq!(markdown(" "), "–");
        assert_eq!(markdown("<img src=x> @team [a](b)"), "`<img src=x> @team [a](b)`");
    }

    #[test]
    fn csv_holds_no_formula() {
        assert_eq!(csv("a"), "\"a\"");
        assert_eq!(csv("say \"hi\", you"), "\"say \"\"hi\"\", you\"");
        for formula in ["=1+1", "+1", "-1", "@sum", " =1", "＝1"] {
            assert!(csv(formula).starts_with("\"'"), "{formula}");
        }
        assert_eq!(csv("\t=1\r\n=2"), "\"[U+0009]=1[U+000D][U+000A]=2\"");
    }

    #[test]
    fn xml_has_no_markup_and_no_forbidden_character() {
        assert_eq!(xml("<a b=\"c\" d='e'>&"), "&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt;&amp;");
        assert_eq!(xml("\0\u{fffe}]]>"), "[U+0000][U+FFFE]]]&gt;");
    }

    #[test]
    fn yaml_is_one_scalar() {
        assert_eq!(yaml("a: b # c"), "\"a: b # c\"");
        assert_eq!(yaml("\"\\\n---"), "\"\\\"\\\\[U+000A]---\"");
        assert_eq!(yaml("\u{85}\u{2028}ü😀"), "\"[U+0085][U+2028]ü😀\"");
    }
}
